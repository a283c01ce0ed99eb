"""Each kind of process of a session dies or is stopped, and what a driver, a worker left behind."""

import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from support import MIB, Gate, eventually, is_gone

import ray_lite as ray
from ray_lite._codec import encode
from ray_lite.exceptions import RaySystemError, WorkerCrashedError
from ray_lite.supervisor import Supervisor

from .processes import (
    Program,
    children_of,
    connection,
    holds_exports_only,
    signal_children,
    supervisor_of,
    workers_of,
)

HERE = Path(__file__).parent
BUSY = HERE / "busy_program.py"
SOON = 2.0  # seconds that a session may outlive its driver or its supervisor
TIMES = 20

pytestmark = pytest.mark.crash


@pytest.fixture
def _session() -> Iterator[None]:
    ray.init(num_cpus=2, object_store_memory=80 * MIB, log_to_driver=False)
    yield
    ray.shutdown()


def read_until(program: Program, word: str) -> None:
    """Read what the program prints up to line `word`."""
    while (line := program.say_line()) != word:
        assert line, f"the program ended before it said {word!r}"


def kill_after(program: Program, seconds: float) -> None:
    """Kill the program's driver in so many seconds, or find that it has ended by itself."""
    try:
        program.process.wait(seconds)
    except subprocess.TimeoutExpired:
        program.process.kill()
        program.process.wait()


def assert_nothing_is_left(program: Program) -> None:
    """Fail if a session outlives its driver by more than the time it has."""
    eventually(lambda: not program.leftovers(), SOON)
    assert program.leftovers() == []


# ---- the driver ----


@pytest.mark.parametrize("attempt", range(TIMES))
def test_driver_killed_while_busy_leaves_nothing(attempt: int, tmp_path: Path) -> None:
    with Program(BUSY, directory=tmp_path) as program:
        read_until(program, "ready")
        assert len(program.family()) >= 5  # driver, supervisor, log process, two workers
        kill_after(program, random.Random(attempt).uniform(0, 0.2))
        assert_nothing_is_left(program)


@pytest.mark.parametrize("attempt", range(TIMES))
def test_driver_killed_during_init_leaves_nothing(attempt: int, tmp_path: Path) -> None:
    with Program(BUSY, directory=tmp_path) as program:
        read_until(program, "starting")
        kill_after(program, attempt * 0.15 / TIMES)
        assert_nothing_is_left(program)
        assert program.process.stderr is not None
        assert program.process.stderr.read() == ""


@pytest.mark.parametrize("attempt", range(TIMES))
def test_driver_killed_during_shutdown_leaves_nothing(attempt: int, tmp_path: Path) -> None:
    with Program(BUSY, "--rounds", "3", directory=tmp_path) as program:
        read_until(program, "stopping")
        kill_after(program, attempt * 0.03 / TIMES)
        assert_nothing_is_left(program)


def test_program_that_leaves_a_process_is_seen_to(tmp_path: Path) -> None:
    """The control of the above: what is left over is found, wherever it hides."""
    program = tmp_path / "program.py"
    program.write_text("import subprocess\nsubprocess.Popen(['sleep', '1000'], process_group=0)\n")
    with Program(program, directory=tmp_path) as running:
        running.process.wait()
        assert "sleep 1000" in " ".join(running.leftovers())


# ---- the supervisor ----


@ray.remote(max_retries=0)
def kill_supervisor(opened: str) -> None:
    """Kill this worker's parent, once somebody stands at the gate; then do not come to an end."""
    open(opened).close()
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


@pytest.mark.parametrize("call", ["get", "wait", "put"])
@pytest.mark.usefixtures("_session")
def test_supervisor_killed_raises_within_two_seconds(call: str, gate: Gate) -> None:
    session = connection()
    workers = workers_of(session)
    full = [ray.put(np.zeros(30 * MIB, np.uint8)) for _ in range(2)]
    ref = kill_supervisor.remote(gate.path)
    gate.meet()
    start = time.monotonic()
    with pytest.raises(RaySystemError):
        if call == "get":
            ray.get(ref)
        elif call == "wait":
            ray.wait([ref])
        else:
            ray.put(np.zeros(30 * MIB, np.uint8))
    assert time.monotonic() - start < SOON
    assert eventually(lambda: all(is_gone(pid) for pid in workers), SOON)
    del full, ref
    ray.shutdown()
    ray.init(num_cpus=1, object_store_memory=80 * MIB)
    assert ray.get(ray.put(1)) == 1


def test_supervisor_killed_leaves_nothing_of_its_session(tmp_path: Path) -> None:
    with Program(BUSY, directory=tmp_path) as program:
        read_until(program, "ready")
        (supervisor,) = children_of(program.process.pid)
        signal_children([supervisor], program.process.pid)
        assert program.process.wait(10) == 1
        assert program.process.stderr is not None
        assert "RaySystemError" in program.process.stderr.read()
        assert_nothing_is_left(program)


@pytest.mark.parametrize("orphaned", [False, True], ids=["in time", "too late"])
def test_worker_born_after_the_supervisor_died_gives_up(orphaned: bool) -> None:
    """It draws its first breath when its parent is gone already: nobody would ever end it."""
    told, tell = os.pipe()
    gone, alive = os.pipe()
    parent = os.fork()
    if parent == 0:
        supervisor = os.getpid()
        if os.fork() == 0:
            os.close(alive)
            if orphaned:
                os.read(gone, 1)  # until the parent has ended
            try:
                be_born(supervisor, tell)
            finally:
                os._exit(1)
        if not orphaned:
            os.wait()
        os._exit(0)
    for fd in (tell, gone, alive):
        os.close(fd)
    os.waitpid(parent, 0)
    assert os.read(told, 1) == (b"" if orphaned else b"x")
    os.close(told)


def be_born(supervisor: int, tell: int) -> None:
    """Have this process become a worker of `supervisor`; it tells when it is about to join."""

    class Telltale(Supervisor):
        def __init__(self) -> None:
            self._core = Mock()
            self._config = Mock(bell_fd=tell)

        @property
        def _segments(self) -> Any:
            os.write(tell, b"x")
            os._exit(0)

    null = os.open(os.devnull, os.O_WRONLY)
    Telltale()._become_worker(supervisor, null, null)


# ---- workers ----


@ray.remote
def tell_pid(path: str, gate: str) -> str:
    """Say who runs this, then wait at the gate."""
    with open(path, "w") as stream:
        stream.write(str(os.getpid()))
    open(gate).close()
    return "done"


@ray.remote
def square(i: int) -> int:
    """Return i squared."""
    return i * i


@pytest.mark.usefixtures("_session")
def test_worker_stopped_lets_others_go_on_and_resumes(tmp_path: Path, gate: Gate) -> None:
    path = tmp_path / "pid"
    os.mkfifo(path)
    ref = tell_pid.remote(str(path), gate.path)
    pid = int(path.read_text())
    supervisor = supervisor_of(connection())
    assert signal_children([pid], supervisor, signal.SIGSTOP) == 1
    gate.open()
    assert ray.get([square.remote(i) for i in range(50)]) == [i * i for i in range(50)]
    assert ray.wait([ref], timeout=0) == ([], [ref])  # it is stopped indeed
    assert connection().core.broken_invariant() is None
    assert signal_children([pid], supervisor, signal.SIGCONT) == 1
    assert ray.get(ref, timeout=10) == "done"


@ray.remote(max_retries=0)
def have_children(path: str, gate: str) -> None:
    """Fork, start a program, and leave a daemon behind; say who they are, then wait."""
    pids = [os.fork()]
    if pids[0] == 0:
        signal.pause()
        os._exit(0)
    pids.append(subprocess.Popen(["sleep", "1000"]).pid)
    read, write = os.pipe()
    if os.fork() == 0:  # the usual way: a child that ends, a session, a grandchild
        os.setsid()
        daemon = os.fork()
        if daemon == 0:
            os.write(write, str(os.getpid()).encode())
            signal.pause()
        os._exit(0)
    pids.append(int(os.read(read, 20)))
    with open(path, "w") as stream:
        stream.write(" ".join(map(str, [os.getpid(), *pids])))
    open(gate).close()


@pytest.mark.usefixtures("_session")
def test_children_of_a_killed_worker_are_swept(tmp_path: Path, gate: Gate) -> None:
    path = tmp_path / "pids"
    os.mkfifo(path)
    ref = have_children.remote(str(path), gate.path)
    worker, *children = map(int, path.read_text().split())
    assert len(children) == 3
    assert not any(is_gone(pid) for pid in children)  # until somebody sweeps, they live
    assert signal_children([worker], supervisor_of(connection())) == 1
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        ray.get(ref, timeout=10)
    assert eventually(lambda: all(is_gone(pid) for pid in children), SOON)


@ray.remote
def fork_and_return(box: list[Any], gate: str, path: str) -> int:
    """Leave a child with all that this task holds; it drops it later."""
    array = ray.get(box[0])
    mine = ray.put(np.full(MIB, 7, np.uint8))
    child = os.fork()
    if child == 0:
        try:
            total = int(array[0]) + len(box)
            open(gate).close()
            del array, box, mine
            with open(path, "w") as stream:
                stream.write(str(total))
        finally:
            os._exit(0)
    return child


@ray.remote(max_retries=0)
def name_memory(path: str, ending: str) -> Any:
    """Make named shared memory and a child; say who they are, then end in one of some ways."""
    memory = SharedMemory(create=True, size=4096)
    child = os.fork()
    if child == 0:
        signal.pause()
    yield memory.name, child
    open(path).close()
    if ending == "exit":
        sys.exit(3)
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    yield None


@pytest.mark.parametrize("ending", ["exit", "kill", "session", "supervisor"])
def test_shared_memory_that_a_worker_named_goes_with_it(
    tmp_path: Path, gate: Gate, ending: str
) -> None:
    ray.init(num_cpus=2, object_store_memory=80 * MIB, log_to_driver=False)
    try:
        stream = name_memory.remote(gate.path, ending)
        name, child = ray.get(next(stream))
        assert Path("/dev/shm", name).exists()
        if ending == "supervisor":
            os.kill(supervisor_of(connection()), signal.SIGKILL)
        if ending in ("exit", "kill"):
            gate.meet()
            with pytest.raises(WorkerCrashedError):
                ray.get(stream.completed())
            assert eventually(lambda: not Path("/dev/shm", name).exists())
    finally:
        ray.shutdown()
    assert eventually(lambda: not Path("/dev/shm", name).exists())
    assert eventually(lambda: is_gone(child))


@pytest.mark.usefixtures("_session")
def test_child_that_outlives_its_task_releases_nothing_twice(tmp_path: Path, gate: Gate) -> None:
    session = connection()
    path = tmp_path / "total"
    os.mkfifo(path)
    ref = ray.put(np.full(MIB, 3, np.uint8))
    child = ray.get(fork_and_return.remote([ref], gate.path, str(path)))
    assert not is_gone(child)
    assert ray.get(square.remote(3)) == 9
    gate.open()
    assert path.read_text() == "4"
    assert eventually(lambda: is_gone(child))
    assert session.core.broken_invariant() is None
    assert ray.get(ref).sum() == 3 * MIB
    del ref
    assert eventually(lambda: holds_exports_only(session))
    assert session.core.broken_invariant() is None


# ---- the log process, and workers that come and go ----


def test_log_process_killed_is_replaced(tmp_path: Path) -> None:
    with Program(HERE / "printing_program.py", directory=tmp_path) as program:
        out, err = program.process.communicate(timeout=40)
        assert program.process.returncode == 0, err
        lines = [line.partition(") ")[2] for line in out.splitlines()]
        # What it had read and not yet written died with it; everything else arrives, and once.
        assert len(set(lines)) == len(lines)
        assert {f"line {i}" for i in range(20, 40)} <= set(lines), err
        assert "nobody reads this" in err
        assert_nothing_is_left(program)


def test_workers_that_end_by_themselves_are_no_failed_starts(tmp_path: Path) -> None:
    source = tmp_path / "program.py"
    source.write_text(
        "import ray_lite as ray\n"
        "ray.init(num_cpus=2, object_store_memory=80 << 20)\n"
        "once = ray.remote(max_calls=1)(lambda: 1)\n"
        "assert sum(ray.get([once.remote() for _ in range(60)])) == 60\n"
    )
    with Program(source, directory=tmp_path) as program:
        _, err = program.process.communicate(timeout=40)
        assert (program.process.returncode, err) == (0, "")


# ---- what ends with a session ----


double = ray.remote(lambda x: 2 * x)


def test_shutdown_unmaps_the_store_that_a_function_has_used() -> None:
    """The function outlives the session, as every function of a module does."""
    ray.init(num_cpus=1, object_store_memory=80 * MIB)
    assert ray.get(double.remote(4)) == 8
    ray.shutdown()
    assert "memfd:ray_lite" not in Path("/proc/self/maps").read_text()


def test_session_that_an_exception_kept_is_collected_without_harm(tmp_path: Path) -> None:
    """The traceback has the session in a frame; the cycle falls to the collector after the end."""
    source = tmp_path / "program.py"
    source.write_text(
        "import gc\n"
        "import ray_lite as ray\n"
        "gc.disable()\n"
        "ray.init(num_cpus=1, object_store_memory=80 << 20)\n"
        "try:\n"
        "    ray.get('no reference')\n"
        "except ValueError as error:\n"
        "    kept = error\n"
        "kept.itself = kept\n"
        "del kept\n"
        "ray.shutdown()\n"
        "gc.collect()\n"
    )
    with Program(source, directory=tmp_path) as program:
        _, err = program.process.communicate(timeout=40)
        assert (program.process.returncode, err) == (0, "")


@pytest.mark.usefixtures("_session")
def test_stored_value_that_falls_to_the_collector_gives_its_block_back() -> None:
    core = connection().core
    free = core.usage()["free"]
    cycle: list[Any] = [core.store(encode(np.zeros(MIB, np.uint8)))]
    cycle.append(cycle)
    assert core.usage()["free"] <= free - MIB
    del cycle
    gc.collect()
    assert core.usage()["free"] == free
