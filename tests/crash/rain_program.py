"""A driver on which signals rain: SIGALRM a thousand times a second, handled in Python.

    rain_program.py calls | timeout | room

A program of its own because the test runner needs that signal itself.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from support import MIB, Gate, eventually

import ray_lite as ray
from crash.processes import connection, holds_exports_only
from ray_lite.exceptions import GetTimeoutError

RAIN = 0.001  # seconds between two signals


class Rain:
    """Within it, it rains."""

    def __init__(self) -> None:
        self.drops = 0

    def __enter__(self) -> "Rain":
        signal.signal(signal.SIGALRM, self._count)
        signal.setitimer(signal.ITIMER_REAL, RAIN, RAIN)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

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


@ray.remote
def keep(box: list[Any], gate: str) -> int:
    """Hold on to an array until somebody comes to the gate."""
    array = ray.get(box[0])
    open(gate).close()
    return int(array.size)


@ray.remote
def meet(gate: str) -> None:
    """Come to the gate."""
    os.close(os.open(gate, os.O_WRONLY))


def calls(gate: Gate) -> None:
    """put, get and wait give what they should."""
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
    assert rounds > 10, rounds
    gate.open()
    assert ray.get(held, timeout=20) == "through"
    del arrays, refs, doubled, ready, result, held
    session = connection()
    assert session.core.broken_invariant() is None
    assert eventually(lambda: holds_exports_only(session))


def timeout(gate: Gate) -> None:
    """A timeout comes when it should."""
    held = stand.remote(gate.path)
    with Rain() as rain:
        start = time.monotonic()
        try:
            ray.get(held, timeout=0.5)
        except GetTimeoutError:
            assert 0.5 <= time.monotonic() - start < 2.0
        else:
            raise AssertionError("it did not come")
    assert rain.drops > 50, rain.drops
    gate.open()
    assert ray.get(held, timeout=20) == "through"


def room(gate: Gate) -> None:
    """Put waits for room; there is some once a task has ended."""
    value = np.zeros(50 * MIB, np.uint8)
    kept = keep.remote([ray.put(value)], gate.path)
    with Rain() as rain:
        meet.remote(gate.path)
        assert ray.get(ray.put(value), timeout=20).size == value.size
    assert ray.get(kept, timeout=20) == value.size
    assert rain.drops > 0


if __name__ == "__main__":
    ray.init(num_cpus=2, object_store_memory=80 * MIB)
    the_gate = Gate(Path("gate"))
    {"calls": calls, "timeout": timeout, "room": room}[sys.argv[1]](the_gate)
    the_gate.close()
    ray.shutdown()
    os.unlink(the_gate.path)
