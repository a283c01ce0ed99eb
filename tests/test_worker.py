"""Workers: tasks that share CPUs and resources, wait for each other, and end their processes."""

import gc
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import MIB, Attempts, Gate, Output, eventually, is_gone, pass_through, stat_of

import ray_lite as ray
from ray_lite.exceptions import WorkerCrashedError
from ray_lite.session import Connection

# ---- nested tasks ----


@pytest.mark.session(num_cpus=1, worker_exports=1)
class TestOneCpu:
    def test_tasks_nested_twenty_deep_finish(self, session: Connection) -> None:
        @ray.remote
        def dive(depth):
            return 0 if depth == 0 else 1 + ray.get(dive.remote(depth - 1))

        assert ray.get(dive.remote(20)) == 20

    def test_tasks_that_each_wait_for_several_others_finish(self, session: Connection) -> None:
        @ray.remote
        def spread(depth):
            if depth == 0:
                return 1
            return sum(ray.get([spread.remote(depth - 1) for _ in range(3)]))

        assert ray.get(spread.remote(3)) == 27

    @pytest.mark.parametrize(
        "wait",
        [
            lambda ref: ray.get(ref),
            lambda ref: ray.get([ref])[0],
            lambda ref: ray.wait([ref])[0] and ray.get(ref),
        ],
        ids=["get", "get a list", "wait"],
    )
    def test_task_that_waits_lends_its_cpu(
        self, session: Connection, wait: Callable[[Any], Any]
    ) -> None:
        inner = ray.remote(lambda: "done")
        assert ray.get(ray.remote(lambda: wait(inner.remote())).remote()) == "done"

    def test_generator_that_waits_for_other_tasks_finishes(self, session: Connection) -> None:
        double = ray.remote(lambda x: 2 * x)

        @ray.remote(num_returns=3)
        def generate():
            for i in range(3):
                yield ray.get(double.remote(i))

        assert ray.get(generate.remote()) == [0, 2, 4]

    @pytest.mark.session(num_cpus=1, patience=60.0)
    def test_task_that_waits_for_room_lends_its_cpu_to_the_one_that_makes_it(
        self, session: Connection
    ) -> None:
        @ray.remote(num_returns=6)
        def generate():
            for i in range(6):
                yield np.full(30 * MIB // 8, i)

        last = ray.remote(lambda value: int(value[-1]))
        sums = [last.remote(ref) for ref in generate.remote()]
        assert ray.get(sums) == list(range(6))

    def test_surplus_workers_that_nesting_needed_are_dismissed_later(
        self, session: Connection
    ) -> None:
        @ray.remote
        def dive(depth):
            return 0 if depth == 0 else 1 + ray.get(dive.remote(depth - 1))

        assert ray.get(dive.remote(3)) == 3
        assert len(workers(session)) >= 4
        before = len(workers(session))
        assert eventually(lambda: len(workers(session)) < before, patience=30)


def workers(session: Connection) -> list[int]:
    """Return the pids of the session's workers."""
    from ray_lite._core import ROLE_WORKER

    return [pid for _, pid, role, _ in session.core.slots() if role == ROLE_WORKER]


# ---- resources ----


class Crowd:
    """Counts, through files, how many tasks are in a place at the same time."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = str(directory)

    def enter(self) -> int:
        """Come in; returns how many are there now."""
        Path(self.directory, str(os.getpid())).touch(exist_ok=False)
        return self.size()

    def size(self) -> int:
        """Return how many are there."""
        return len(os.listdir(self.directory))

    def leave(self) -> None:
        """Go out."""
        Path(self.directory, str(os.getpid())).unlink()


@pytest.fixture
def crowd(tmp_path: Path) -> Crowd:
    return Crowd(tmp_path / "crowd")


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"resources": {"token": 1}, "num_cpus": 0}, 2),
        ({"resources": {"token": 0.5}, "num_cpus": 0}, 4),
        ({"num_cpus": 1}, 4),
        ({"num_cpus": 3}, 1),
        ({"num_cpus": 1.5}, 2),
        ({"resources": {"token": 2}, "num_cpus": 1}, 1),
    ],
    ids=str,
)
@pytest.mark.session(num_cpus=4, resources={"token": 2})
def test_no_more_tasks_run_at_once_than_there_are_resources_for_and_no_fewer(
    session: Connection, crowd: Crowd, options: dict[str, Any], most: int
) -> None:
    @ray.remote(**options)
    def visit(full):
        seen = crowd.enter()
        # The first ones stay until the place is as full as it may get, all of them a little longer
        # than that: one too many would be seen.
        while not os.path.exists(full) and seen < most:
            time.sleep(0.001)
            seen = max(seen, crowd.size())
        Path(full).touch()
        time.sleep(0.01)
        seen = max(seen, crowd.size())
        crowd.leave()
        return seen

    seen = ray.get([visit.remote(crowd.directory + "-full") for _ in range(20)])
    assert max(seen) == most


def test_task_that_wants_all_cpus_is_not_starved_by_small_ones(session: Connection) -> None:
    small = ray.remote(lambda: None)
    queue = deque(small.remote() for _ in range(8))
    large = ray.remote(num_cpus=2)(lambda: None).remote()
    turns = 0
    while not ray.wait([large], timeout=0)[0]:
        queue.append(small.remote())
        ray.get(queue.popleft())
        turns += 1
        assert turns < 5000
    ray.get(list(queue))


@pytest.mark.session(num_cpus=1)
def test_infeasible_task_waits_and_the_user_is_told_once(
    session: Connection, printed: Output
) -> None:
    refs = [ray.remote(num_cpus=5)(lambda: None).remote() for _ in range(2)]
    assert printed.until("Task <lambda> asks for 5 CPU of 1")
    assert ray.get(ray.remote(lambda: "others run").remote()) == "others run"
    assert ray.wait(refs, timeout=0.1)[0] == []
    ray.shutdown()
    assert printed.err.count("will wait for ever") == 1


# ---- the end of a worker ----


@pytest.mark.parametrize(
    "end",
    [
        lambda: sys.exit(0),
        lambda: sys.exit(3),
        lambda: os._exit(0),
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: os.kill(os.getpid(), signal.SIGSEGV),
        lambda: os.abort(),
    ],
    ids=["exit 0", "exit 3", "_exit 0", "SIGKILL", "SIGSEGV", "abort"],
)
def test_task_whose_worker_ends_fails_and_the_next_one_runs(
    shared_session: Connection, end: Callable[[], object]
) -> None:
    import resource

    def run():
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        end()

    with pytest.raises(WorkerCrashedError, match="worker"):
        ray.get(ray.remote(max_retries=0)(run).remote())
    assert ray.get(ray.remote(lambda: 1).remote()) == 1


def test_exit_status_and_signal_of_a_worker_are_in_the_error(shared_session: Connection) -> None:
    exit_with = ray.remote(max_retries=0)(lambda code: sys.exit(code))
    with pytest.raises(WorkerCrashedError, match="exited with status 3"):
        ray.get(exit_with.remote(3))
    die = ray.remote(max_retries=0)(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(WorkerCrashedError, match=r"signal 9 \(SIGKILL\)"):
        ray.get(die.remote())


def test_worker_killed_while_it_idles_is_replaced(session: Connection) -> None:
    pid = ray.remote(lambda: os.getpid())
    for _ in range(5):
        os.kill(ray.get(pid.remote()), signal.SIGKILL)
        assert ray.get([pid.remote() for _ in range(4)])


def test_worker_killed_from_outside_midway_has_its_task_run_again(
    shared_session: Connection, attempts: Attempts, new_gate: Callable[[], Gate]
) -> None:
    begin = attempts.begin
    gates = [new_gate(), new_gate()]
    pid_file = gates[0].path + "-pid"

    @ray.remote
    def work(paths):
        attempt = begin()
        Path(pid_file).write_text(str(os.getpid()))
        pass_through(paths[attempt - 1])
        if attempt == 1:
            signal.pause()
        return attempt

    ref = work.remote([gate.path for gate in gates])
    gates[0].meet()
    os.kill(int(Path(pid_file).read_text()), signal.SIGKILL)
    gates[1].meet()
    assert ray.get(ref) == 2


def test_processes_that_a_dead_worker_left_are_swept_up(
    shared_session: Connection, tmp_path: Path
) -> None:
    @ray.remote(max_retries=0)
    def leave_processes():
        for _ in range(2):
            if os.fork() == 0:
                if os.fork() == 0:
                    os.setsid()
                Path(tmp_path, str(os.getpid())).touch()
                signal.pause()
        while len(os.listdir(tmp_path)) < 4:
            time.sleep(0.001)
        os._exit(1)

    with pytest.raises(WorkerCrashedError):
        ray.get(leave_processes.remote())
    pids = [int(name) for name in os.listdir(tmp_path) if name.isdigit()]
    assert len(pids) == 4
    assert eventually(lambda: all(is_gone(pid) for pid in pids))


def test_memory_that_a_dead_worker_held_comes_back(session: Connection) -> None:
    before = session.core.usage()["free"]

    @ray.remote(max_retries=0)
    def hoard(value):
        kept = [ray.put(np.zeros(MIB)) for _ in range(3)]
        view = ray.get(kept[0])
        assert view[0] == value[0]
        os._exit(1)

    with pytest.raises(WorkerCrashedError):
        ray.get(hoard.remote(np.zeros(MIB)))
    assert eventually(lambda: session.core.usage()["free"] > before - MIB)
    assert session.core.broken_invariant() is None


def test_max_calls_ends_the_worker_after_that_many_calls(shared_session: Connection) -> None:
    pid = ray.remote(max_calls=1)(lambda: os.getpid())
    pids = [ray.get(pid.remote()) for _ in range(4)]
    assert len(set(pids)) == 4


# ---- what user code sees of its process ----


def test_worker_is_its_own_process_group_without_the_drivers_children(
    shared_session: Connection,
) -> None:
    pid, group, parent = ray.get(
        ray.remote(lambda: (os.getpid(), os.getpgid(0), os.getppid())).remote()
    )
    assert pid == group
    supervisor = shared_session.supervisor
    assert supervisor is not None
    assert parent == supervisor.pid
    assert stat_of(parent) is not None


def test_worker_signals_are_as_a_fresh_process_has_them(shared_session: Connection) -> None:
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1]
    look = ray.remote(lambda: [signal.getsignal(number) for number in numbers])
    default = signal.SIG_DFL
    expected = [default, signal.default_int_handler, default, default, default]
    assert ray.get(look.remote()) == expected


def test_worker_collects_garbage_as_a_fresh_process_does(shared_session: Connection) -> None:
    state = ray.remote(lambda: (gc.isenabled(), gc.get_threshold()))
    assert ray.get(state.remote()) == (True, gc.get_threshold())


def test_workers_draw_different_random_numbers(shared_session: Connection) -> None:
    import random

    draw = ray.remote(max_calls=1)(lambda: (np.random.random(), random.random()))
    numbers = ray.get([draw.remote() for _ in range(4)])
    assert len({number for pair in numbers for number in pair}) == 8


def test_worker_finds_modules_where_the_driver_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "beside_the_driver.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import beside_the_driver

    ray.init(num_cpus=1, object_store_memory=100 * MIB)
    assert ray.get(ray.remote(beside_the_driver.answer).remote()) == 42
    ray.shutdown()


def test_arguments_are_let_go_of_when_the_task_is_done(session: Connection) -> None:
    total = ray.remote(lambda value: int(value.sum()))
    before = session.core.usage()["free"]
    for i in range(20):
        assert ray.get(total.remote(np.full(MIB, i))) == i * MIB
    assert eventually(lambda: session.core.usage()["free"] > before - MIB)


def test_exception_raised_by_a_task_lets_its_arguments_go(session: Connection) -> None:
    @ray.remote
    def fail(value):
        raise KeyError(len(value))

    before = session.core.usage()["free"]
    with pytest.raises(KeyError):
        ray.get(fail.remote(np.zeros(MIB)))
    assert eventually(lambda: session.core.usage()["free"] > before - MIB)
