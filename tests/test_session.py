"""Sessions: they start, end, start again, survive forks, and end with whoever dies."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import (
    MIB,
    Belongings,
    Gate,
    Output,
    descendants,
    eventually,
    in_child,
    is_gone,
    leaks_since,
)

import ray_lite as ray
from ray_lite import session as sessions
from ray_lite.exceptions import RaySystemError
from ray_lite.session import Connection

SMALL: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * MIB}


def supervisor_of(connection: Connection) -> "subprocess.Popen[bytes]":
    assert connection.supervisor is not None
    return connection.supervisor


def family() -> list[int]:
    """Return the pids of this process's descendants."""
    return [int(line.split()[0]) for line in descendants(os.getpid())]


def all_gone(pids: list[int]) -> bool:
    return eventually(lambda: all(is_gone(pid) for pid in pids))


# ---- start and end ----


def test_init_and_shutdown_twenty_times_leave_nothing() -> None:
    before = Belongings.now()
    double = ray.remote(lambda x: 2 * x)
    for i in range(20):
        ray.init(**SMALL)
        assert ray.get(double.remote(ray.put(np.full(MIB, i))))[-1] == 2 * i
        ray.shutdown()
        assert leaks_since(before) == [], f"after session {i}"


def test_shutdown_returns_when_all_processes_are_gone(session: Connection) -> None:
    ray.get(ray.remote(lambda: None).remote())
    pids = family()
    assert len(pids) >= 4  # supervisor, log process, two workers
    ray.shutdown()
    assert all(is_gone(pid) for pid in pids)


def test_shutdown_ends_tasks_that_run_and_what_they_have_started(
    session: Connection, gate: Gate
) -> None:
    @ray.remote
    def hang(path):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        open(path).close()
        signal.pause()

    ref = hang.remote(gate.path)
    gate.meet()
    pids = family()
    ray.shutdown()
    assert all_gone(pids)
    del ref


def test_view_of_a_value_outlives_its_session(session: Connection) -> None:
    view = ray.get(ray.put(np.arange(MIB)))
    ray.shutdown()
    assert view.sum() == MIB * (MIB - 1) // 2
    assert not view.flags.writeable
    part = view[10:20]
    del view
    assert part.tolist() == list(range(10, 20))


def test_view_that_outlives_its_session_is_not_disturbed_by_the_next_one() -> None:
    ray.init(**SMALL)
    old = ray.get(ray.put(np.full(MIB, 1)))
    ray.shutdown()
    ray.init(**SMALL)
    new = ray.get(ray.put(np.full(MIB, 2)))
    ray.shutdown()
    assert (old == 1).all()
    assert (new == 2).all()


def test_ref_of_an_ended_session_raises_value_error_and_is_harmless() -> None:
    ray.init(**SMALL)
    ref = ray.put("gone")
    text = repr(ref)
    ray.shutdown()
    assert repr(ref) == text
    ray.init(**SMALL)
    for use, what in ((ray.get, ref), (ray.get, [ref]), (ray.wait, [ref])):
        with pytest.raises(ValueError, match="owner is unknown"):
            use(what)
    del ref, what
    assert ray.get(ray.put(1)) == 1
    ray.shutdown()


def test_ref_of_an_ended_session_as_an_argument_raises_value_error() -> None:
    ray.init(**SMALL)
    ref = ray.put("gone")
    ray.shutdown()
    ray.init(**SMALL)
    same = ray.remote(lambda x: x)
    for value in (ref, [ref]):
        with pytest.raises(ValueError, match="owner is unknown"):
            same.remote(value)
    with pytest.raises(ValueError, match="owner is unknown"):
        ray.put([ref])
    ray.shutdown()


def test_remote_function_works_in_each_session_and_keeps_none_alive() -> None:
    before = Belongings.now()
    same = ray.remote(lambda x: x)
    for i in range(3):
        ray.init(**SMALL)
        assert ray.get(same.remote(i)) == i
        assert ray.get(same.options(name="other").remote(i)) == i
        ray.shutdown()
    assert leaks_since(before, patience=0) == []


# ---- a start that fails ----


@pytest.mark.parametrize("boot", ["raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)"])
def test_init_whose_supervisor_does_not_start_raises_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    before = Belongings.now()
    monkeypatch.setattr(sessions, "_BOOT", boot)
    with pytest.raises(RaySystemError, match="did not start"):
        ray.init(**SMALL)
    assert not ray.is_initialized()
    assert leaks_since(before) == []
    monkeypatch.undo()
    ray.init(**SMALL)
    ray.shutdown()


def test_init_whose_supervisor_gives_no_sign_raises_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Belongings.now()
    monkeypatch.setattr(sessions, "_BOOT", "import signal; signal.pause()")
    monkeypatch.setattr(sessions, "START_TIMEOUT", 0.2)
    with pytest.raises(RaySystemError, match="gave no sign"):
        ray.init(**SMALL)
    assert leaks_since(before) == []


def test_init_with_a_store_that_does_not_fit_raises_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"object_store_memory=[\d,]+ does not fit"):
        ray.init(object_store_memory=1 << 50)
    assert not ray.is_initialized()


# ---- the death of the supervisor ----


def test_death_of_the_supervisor_ends_every_wait_and_every_process(session: Connection) -> None:
    hang = ray.remote(lambda: signal.pause())
    ref = hang.remote()
    ray.get(ray.remote(lambda: None).remote())
    pids = family()
    os.kill(supervisor_of(session).pid, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(RaySystemError):
        ray.get(ref)
    assert time.monotonic() - start < 2
    for use in (lambda: ray.put(1), lambda: ray.wait([ref]), lambda: hang.remote()):
        with pytest.raises(RaySystemError):
            use()
    ray.shutdown()
    assert all_gone(pids)


@pytest.mark.parametrize("noticed", [False, True])
def test_death_of_the_supervisor_does_not_keep_init_from_starting_anew(
    session: Connection, noticed: bool
) -> None:
    old = ray.get(ray.put(np.full(MIB, 1)))
    pid = supervisor_of(session).pid
    os.kill(pid, signal.SIGKILL)
    if noticed:
        with pytest.raises(RaySystemError):
            ray.get(ray.remote(lambda: signal.pause()).remote())
    assert eventually(lambda: is_gone(pid))
    ray.init(**SMALL)
    assert ray.get(ray.remote(lambda: "alive").remote()) == "alive"
    assert (old == 1).all()


# ---- the death of the driver ----

DRIVER = """
    import os, signal, sys
    import ray_lite as ray

    ray.init(num_cpus=2, object_store_memory=100 * 2**20)

    @ray.remote
    def hang(path):
        open(path).close()
        signal.pause()

    refs = [hang.remote(path) for path in sys.argv[1:]]
    print("up", flush=True)
    sys.stdin.readline()
    {end}
"""

ENDS = {
    "returns": "",
    "exits": "sys.exit(0)",
    "raises": "raise KeyError('driver')",
    "exits at once": "os._exit(0)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "is terminated": "os.kill(os.getpid(), signal.SIGTERM)",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_session_ends_with_its_driver_however_that_ends(
    new_gate: Callable[[], Gate], end: str
) -> None:
    gates = [new_gate(), new_gate()]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER).format(end=end)]
        + [gate.path for gate in gates],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as driver:
        assert driver.stdout is not None and driver.stdin is not None
        assert driver.stdout.readline() == b"up\n"
        for gate in gates:
            gate.meet()
        pids = [int(line.split()[0]) for line in descendants(driver.pid)]
        assert len(pids) >= 4
        driver.stdin.write(b"\n")
        driver.stdin.close()
        driver.wait()
        start = time.monotonic()
        assert all_gone(pids)
        assert time.monotonic() - start < 2


# ---- fork ----


def test_forked_child_is_in_no_session_and_its_exit_disturbs_nothing(session: Connection) -> None:
    ref = ray.put(np.full(MIB, 1))
    same = ray.remote(lambda x: x)
    assert ray.get(same.remote(1)) == 1

    def child() -> None:
        nonlocal ref
        assert not ray.is_initialized()
        ray.shutdown()
        assert not ref.is_nil()
        del ref

    assert in_child(child) == 0
    assert ray.is_initialized()
    assert (ray.get(ref) == 1).all()
    assert ray.get(same.remote(2)) == 2


def test_forked_child_may_start_a_session_of_its_own(session: Connection) -> None:
    ref = ray.put("parent's")
    same = ray.remote(lambda x: x)
    assert ray.get(same.remote(1)) == 1

    def child() -> None:
        ray.init(**SMALL)
        assert ray.get(same.remote("child's")) == "child's"
        with pytest.raises(ValueError, match="owner is unknown"):
            ray.get(ref)
        ray.shutdown()

    assert in_child(child) == 0
    assert ray.get(same.remote(ref)) == "parent's"


def test_forked_child_that_leaves_its_own_session_open_takes_it_along(session: Connection) -> None:
    before = Belongings.now()
    assert in_child(lambda: ray.init(**SMALL)) == 0
    assert leaks_since(before) == []
    assert ray.get(ray.put(1)) == 1


def test_view_in_a_forked_child_stays_readable(session: Connection) -> None:
    view = ray.get(ray.put(np.full(MIB, 7)))

    def child() -> None:
        nonlocal view
        assert (view == 7).all()
        del view

    assert in_child(child) == 0
    assert (view == 7).all()


def test_fork_in_a_task_leaves_the_task_and_its_session_whole(session: Connection) -> None:
    @ray.remote
    def fork(value):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if not ray.is_initialized() and value[0] == 3 else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return status, ray.get(ray.put("still here"))

    assert ray.get(fork.remote(np.full(MIB, 3))) == (0, "still here")


# ---- what a session is started with ----


def test_session_does_not_take_over_ctrl_c_of_the_drivers_terminal(session: Connection) -> None:
    for pid in family():
        assert os.getpgid(pid) != os.getpgid(0)


def test_init_changes_neither_signal_handlers_nor_threads_of_the_driver() -> None:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    threads = os.listdir("/proc/self/task")
    ray.init(**SMALL)
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers
    assert os.listdir("/proc/self/task") == threads
    ray.shutdown()


def test_worker_has_no_descriptor_of_the_driver(session: Connection) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    ours = os.readlink(f"/proc/self/fd/{write}")

    @ray.remote
    def descriptors():
        return [os.readlink(f"/proc/self/fd/{fd}") for fd in range(256) if is_open(fd)]

    def is_open(fd):
        return os.path.exists(f"/proc/self/fd/{fd}")

    assert ours not in ray.get(descriptors.remote())
    os.close(read)
    os.close(write)


def test_environment_of_the_driver_at_init_is_the_workers_environment(
    monkeypatch: pytest.MonkeyPatch, printed: Output
) -> None:
    monkeypatch.setenv("SET_BEFORE", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ray.init(**SMALL, runtime_env={"env_vars": {"GIVEN": "2"}})
    names = ["SET_BEFORE", "GIVEN", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    look = ray.remote(lambda: [os.environ.get(name) for name in names])
    assert ray.get(look.remote()) == ["1", "2", "1", None]
    assert "GIVEN" not in os.environ
    ray.shutdown()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_init_works_in_a_process_without_standard_streams(closed: str, tmp_path: Path) -> None:
    result = tmp_path / "result"
    program = (
        "import ray_lite as ray; ray.init(num_cpus=1); "
        "x = ray.get(ray.remote(lambda: 42).remote()); ray.shutdown(); "
        f"open({str(result)!r}, 'w').write(str(x))"
    )
    command = f'exec "{sys.executable}" -c "$0" {closed}'
    subprocess.run(["sh", "-c", command, program], check=True, timeout=50)
    assert result.read_text() == "42"
