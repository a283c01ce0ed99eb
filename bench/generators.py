"""How fast do values come out of a remote generator?

Method: one worker (so that a second pass runs in the same process), warm.
Small values: a generator of 5000 integers, all got by one get (streaming: got one by one).
20 x 50 MB: np.full arrays; the clock runs from the call until the last value has been got and its
first and last element read, each value dropped before the next; two passes in one process. list: a
function that returns the 20 arrays with num_returns=20. numpy: the same loop over a local
generator.
1000 x 1 MB: the same, streaming.
yield to resume: `x = np.full(...); yield x` in a streaming generator, clock read on either side of
the yield, median of up to 200 (of Ray only 4 MB and 400 MB). "consumer sleeps": it waits for each
value, so it has to be woken. "nobody waits": the consumer asks for the first value only when the
last is there. "sole reference": an array that no name refers to is yielded.
The limit is a fill of warm memory.
Unit: GB a second (1e9 bytes), values a second, or microseconds.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
from common import MACHINE, OURS, Engines, Recorder, main, measure_limits, session, store_bytes

COUNT: Final = 20
NBYTES: Final = 50_000_000
SMALL: Final = 5000
KINDS: Final = ("static", "dynamic", "streaming", "list")
STREAM_1MB: Final = "streaming, 1000 x 1 MB"

# {size: (bytes, how many are yielded)}
YIELDS: Final = {
    "1 MB": (10**6, 200),
    "4 MB": (4 * 10**6, 200),
    "100 MB": (10**8, 12),
    "400 MB": (4 * 10**8, 6),
    "1 GB": (10**9, 3),
}
OF_RAY: Final = ("4 MB", "400 MB")
QUICK_NBYTES: Final = 10**8


# ---- What runs remotely ------------------------------------------------------------------------


def arrays(count: int, nbytes: int) -> Iterator[Any]:
    """Yield arrays, each under a name that is dead at the yield."""
    for i in range(count):
        x = np.full(nbytes // 8, i, dtype=np.int64)
        yield x


def list_of_arrays(count: int, nbytes: int) -> list[Any]:
    """Return the same in a list."""
    return [np.full(nbytes // 8, i, dtype=np.int64) for i in range(count)]


def small_values(count: int) -> Iterator[int]:
    """Yield integers."""
    for i in range(count):  # noqa: UP028 - Ray cannot drive `yield from` a plain iterator
        yield i


def timed_yields(count: int, nbytes: int) -> Iterator[Any]:
    """Yield named arrays; the last value says how long each yield took."""
    times = []
    for i in range(count):
        x = np.full(nbytes // 8, i, dtype=np.int64)
        start = time.perf_counter()
        yield x
        times.append(time.perf_counter() - start)
    yield times


def timed_nameless_yields(count: int, nbytes: int) -> Iterator[Any]:
    """Yield arrays that nothing refers to; the last value says how long each yield took."""
    starts: list[float] = []
    times = []

    def stamped(array: Any) -> Any:
        starts.append(time.perf_counter())
        return array

    for i in range(count):
        yield stamped(np.full(nbytes // 8, i, dtype=np.int64))
        times.append(time.perf_counter() - starts[-1])
    yield times


# ---- The consumer ------------------------------------------------------------------------------


def touch(value: Any) -> None:
    """Read the two ends of an array."""
    if value[0] != value[-1]:
        raise AssertionError("an array of equal numbers is not one")


def consume(ray: Any, refs: Any, then: Callable[[Any], None] = touch) -> None:
    """Get each value, and drop it and its reference before the next."""
    source = iter(refs)
    del refs
    for ref in source:
        then(ray.get(ref))
        del ref


def refs_of(ray: Any, kind: str, *args: Any) -> Any:
    """Call the producer of that kind, and return an iterable that does not keep its references."""
    if kind == "list":
        refs = ray.remote(list_of_arrays).options(num_returns=args[0]).remote(*args)
    elif kind == "static":
        refs = ray.remote(arrays).options(num_returns=args[0]).remote(*args)
    elif kind == "dynamic":
        return ray.get(ray.remote(arrays).options(num_returns="dynamic").remote(*args))
    else:
        return ray.remote(arrays).remote(*args)
    return _pop_all(refs)


def _pop_all(refs: list[Any]) -> Iterator[Any]:
    refs.reverse()
    while refs:
        yield refs.pop()


def measure_session(engine: str, recorder: Recorder) -> None:
    """Measure Ray or ray_lite."""
    with session(engine, num_cpus=1) as ray:
        for kind in KINDS[:3]:
            row = f"small values, {kind}"
            recorder.rate(row, partial(_get_small, ray, kind), SMALL)
        recorder.rate(
            STREAM_1MB, lambda: consume(ray, refs_of(ray, "streaming", 1000, 10**6)), 1000
        )
        for kind in KINDS:
            _record_passes(recorder, kind, partial(refs_of, ray, kind, COUNT, NBYTES), ray)
        for size in _sizes(engine, recorder.quick):
            _record_yields(ray, recorder, size)
        _record_flatness(recorder)


def _sizes(engine: str, quick: bool) -> Iterator[str]:
    for size, (nbytes, _) in YIELDS.items():
        if (engine == OURS or size in OF_RAY) and not (quick and nbytes > QUICK_NBYTES):
            yield size


def _get_small(ray: Any, kind: str) -> None:
    task = ray.remote(small_values)
    if kind == "static":
        ray.get(task.options(num_returns=SMALL).remote(SMALL))
    elif kind == "dynamic":
        ray.get(list(ray.get(task.options(num_returns="dynamic").remote(SMALL))))
    else:
        for ref in task.remote(SMALL):
            ray.get(ref)


def _record_passes(recorder: Recorder, kind: str, produce: Callable[[], Any], ray: Any) -> None:
    first, second = f"{kind}, 20 x 50 MB, first pass", f"{kind}, 20 x 50 MB, second pass"
    if not recorder.wants(first, second):
        return
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        consume(ray, produce())
        rates.append(COUNT * NBYTES / (time.perf_counter() - start) / 1e9)
    recorder.add(first, rates[0], "GB/s")
    recorder.add(second, rates[1], "GB/s")


def _record_yields(ray: Any, recorder: Recorder, size: str) -> None:
    nbytes, count = YIELDS[size]
    if nbytes * 3 > store_bytes():
        return
    if recorder.quick:
        count = min(count, 20)

    def record(row: str, producer: Callable[..., Any], wait_first: bool, count: int) -> None:
        if not recorder.wants(row):
            return
        values: list[Any] = [None]
        stream = ray.remote(producer).remote(count, nbytes)
        if wait_first:
            ray.wait([stream.completed()])
        consume(ray, stream, then=partial(values.__setitem__, 0))
        recorder.add(row, statistics.median(values[0]) * 1e6, "us")

    at_once = min(count, store_bytes() // 2 // nbytes)
    record(yield_row(size, "consumer sleeps"), timed_yields, False, count)
    record(yield_row(size, "nobody waits"), timed_yields, True, at_once)
    record(yield_row(size, "sole reference"), timed_nameless_yields, False, count)


def yield_row(size: str, how: str) -> str:
    """Return the name of a row about one yield."""
    return f"yield to resume, {size}, {how}"


def _record_flatness(recorder: Recorder) -> None:
    times = [
        recorder.rows[row][0]
        for row in (yield_row(size, "consumer sleeps") for size in YIELDS)
        if row in recorder.rows
    ]
    if len(times) > 1:
        recorder.add("yield to resume, slowest size / fastest", max(times) / min(times), "x")


def measure_numpy(engine: str, recorder: Recorder) -> None:
    """Measure the loop without anything remote."""

    class Local:
        """What gets a value that is here already."""

        @staticmethod
        def get(value: Any) -> Any:
            return value

    for kind in KINDS[:3]:
        _record_passes(recorder, kind, lambda: arrays(COUNT, NBYTES), Local)
    _record_passes(recorder, "list", lambda: _pop_all(list_of_arrays(COUNT, NBYTES)), Local)


ENGINES: Engines = {
    "ray_lite": measure_session,
    "ray": measure_session,
    "numpy": measure_numpy,
    MACHINE: measure_limits("fill"),
}

if __name__ == "__main__":
    main(__file__, __doc__, ENGINES)
