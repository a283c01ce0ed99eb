"""Signals rain on the driver, or it is interrupted: no call is lost, none returns a wrong value."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support import MIB, Gate, eventually

import ray_lite as ray
from ray_lite.exceptions import GetTimeoutError

from .processes import Program, connection, holds_exports_only

RAIN = 0.001  # seconds between two signals

# The usual method needs SIGALRM itself.
pytestmark = [pytest.mark.crash, pytest.mark.timeout(60, method="thread")]


@pytest.fixture
def _session() -> Iterator[None]:
    ray.init(num_cpus=2, object_store_memory=80 * MIB, log_to_driver=False)
    yield
    ray.shutdown()


class Rain:
    """Within it a signal comes a thousand times a second, and Python handles it."""

    def __init__(self) -> None:
        self.drops = 0
        self._before: Any = None

    def __enter__(self) -> "Rain":
        self._before = signal.signal(signal.SIGALRM, self._count)
        signal.setitimer(signal.ITIMER_REAL, RAIN, RAIN)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _count(self, signum: int, frame: object) -> None:
        self.drops += 1


@ray.remote
def double(array: Any) -> Any:
    """Return a new array."""
    return array * 2


@ray.remote
def stand(gate: str) -> str:
    """Wait at the gate."""
    open(gate).close()
    return "through"


@pytest.mark.usefixtures("_session")
def test_calls_in_a_rain_of_signals_give_what_they_should(gate: Gate) -> None:
    session = connection()
    held = stand.remote(gate.path)
    rounds = 0
    with Rain() as rain:
        while rain.drops < 2000:
            arrays = [np.arange(size) for size in (3, 1000, 100_000)]
            refs = [ray.put(array) for array in arrays]
            doubled = [double.remote(ref) for ref in refs]
            ready, rest = ray.wait(doubled, num_returns=3, timeout=20)
            assert (len(ready), rest) == (3, [])
            for array, result in zip(arrays, ray.get(doubled, timeout=20), strict=True):
                assert np.array_equal(result, array * 2)
            assert ray.wait([held], timeout=0.005) == ([], [held])
            rounds += 1
    assert rounds > 10
    gate.open()
    assert ray.get(held, timeout=20) == "through"
    del arrays, refs, doubled, ready, result, held
    assert session.core.broken_invariant() is None
    assert eventually(lambda: holds_exports_only(session))


@pytest.mark.usefixtures("_session")
def test_timeout_in_a_rain_of_signals_comes_when_it_should(gate: Gate) -> None:
    held = stand.remote(gate.path)
    with Rain() as rain:
        start = time.monotonic()
        with pytest.raises(GetTimeoutError):
            ray.get(held, timeout=0.5)
        assert 0.5 <= time.monotonic() - start < 2.0
    assert rain.drops > 50
    gate.open()
    assert ray.get(held, timeout=20) == "through"


@pytest.mark.usefixtures("_session")
def test_full_store_in_a_rain_of_signals_waits_for_room(gate: Gate) -> None:
    """The value that is in the way goes when a task ends; until then put waits."""
    value = np.zeros(50 * MIB, np.uint8)

    @ray.remote
    def keep(box: Any, path: str) -> int:
        array = ray.get(box[0])
        open(path).close()
        return int(array.size)

    kept = keep.remote([ray.put(value)], gate.path)
    with Rain() as rain:

        @ray.remote
        def open_gate(path: str) -> None:
            os.close(os.open(path, os.O_WRONLY))

        open_gate.remote(gate.path)
        assert ray.get(ray.put(value), timeout=20).size == value.size
    assert ray.get(kept, timeout=20) == value.size
    assert rain.drops > 0


@ray.remote
def interrupt(driver: int, gate: str) -> str:
    """Press Ctrl-C in the driver, then wait at the gate."""
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
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ref = interrupt.remote(os.getpid(), gate.path)
            if call == "get":
                ray.get(ref)
            elif call == "get a list":
                ray.get([ref, ray.put(1)])
            else:
                ray.wait([ref])
        assert time.monotonic() - start < 0.9  # no wait looks less often than once a second
        gate.open()
        assert ray.get(ref, timeout=20) == "through"
    assert connection().core.broken_invariant() is None


def test_interrupt_from_the_terminal_reaches_the_driver_alone(tmp_path: Any) -> None:
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
