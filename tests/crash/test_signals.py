"""Signals rain on the driver, or it is interrupted: no call is lost, none returns a wrong value."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import MIB

import ray_lite as ray

from .processes import Program, connection

HERE = Path(__file__).parent

pytestmark = pytest.mark.crash


@pytest.fixture
def _session() -> Iterator[None]:
    ray.init(num_cpus=2, object_store_memory=80 * MIB, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("what", ["calls", "timeout", "room"])
def test_rain_of_signals_changes_nothing(what: str, tmp_path: Path) -> None:
    with Program(HERE / "rain_program.py", what, directory=tmp_path) as program:
        _, err = program.process.communicate(timeout=50)
        assert (program.process.returncode, err) == (0, "")
        assert program.leftovers() == []


@ray.remote
def interrupt(driver: int, gate: str) -> str:
    """Press Ctrl-C in the driver once it sleeps in a futex, then wait at the gate."""
    futex_wait = "202 " if os.uname().machine == "x86_64" else "98 "
    while not Path(f"/proc/{driver}/syscall").read_text().startswith(futex_wait):
        os.sched_yield()
    os.kill(driver, signal.SIGINT)
    open(gate).close()
    return "through"


@pytest.mark.parametrize("call", ["get", "get a list", "wait"])
@pytest.mark.usefixtures("_session")
def test_interrupt_ends_a_wait_at_once_and_leaves_the_session_usable(
    call: str, new_gate: Any
) -> None:
    for _ in range(20):
        gate = new_gate()
        ref = interrupt.remote(os.getpid(), gate.path)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            if call == "get":
                ray.get(ref)
            elif call == "get a list":
                ray.get([ref, ray.put(1)])
            else:
                ray.wait([ref])
        assert time.monotonic() - start < 0.5
        gate.open()
        assert ray.get(ref, timeout=20) == "through"
    assert connection().core.broken_invariant() is None


def test_interrupt_from_the_terminal_reaches_the_driver_alone(tmp_path: Path) -> None:
    """It goes to the whole process group; supervisor and workers are in groups of their own."""
    source = tmp_path / "program.py"
    source.write_text(
        "import os, signal\n"
        "import ray_lite as ray\n"
        "os.setpgid(0, 0)\n"
        "ray.init(num_cpus=2, object_store_memory=80 << 20)\n"
        "pids = ray.remote(lambda: (os.getppid(), os.getpid()))\n"
        "before = ray.get(pids.remote())\n"
        "try:\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
        "after = [ray.get(pids.remote()) for _ in range(20)]\n"
        "assert {supervisor for supervisor, _ in after} == {before[0]}\n"
        "assert before[1] in {worker for _, worker in after} or len(set(after)) <= 2\n"
    )
    with Program(source, directory=tmp_path) as program:
        _, err = program.process.communicate(timeout=40)
        assert (program.process.returncode, err) == (0, "")
