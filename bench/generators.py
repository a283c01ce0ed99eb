"""How fast do values come out of a remote generator?

Method: one worker (so that a second pass runs in the same process), warm.
Small values: a generator of 5000 integers, all got by one get (streaming: got one by one).
20 x 50 MB: np.full arrays; the clock runs from the call until the last value has been got and its
first and last element read, each value dropped before the next; two passes in one process. list: a
function that returns the 20 arrays with num_returns=20; list as one value: without. numpy: the same
loop over a local generator.
1000 x 1 MB: the same, streaming.
yield to resume: `x = np.empty(...)`, both its ends written, then `yield x` in a streaming
generator, clock read on either side of the yield, median of 200. "consumer sleeps": the producer
has paused for a millisecond, so that the consumer has to be woken. "nobody waits": the consumer
asks for the first value only when the last is there, or the store is half full. "sole reference":
an array that no name refers to is yielded. "two in a dict": two named arrays, each half as long,
and a number are yielded in one. "just filled": the array comes from np.full, which has driven all
else out of the processor's caches (Ray: median of 12).
return to next task: from just before `return [x, ...]` of such an array and a number (two values)
to the first line of the next task, which is queued already; median of 200.
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
ONE_VALUE: Final = "list as one value"
KINDS: Final = ("static", "dynamic", "streaming", "list", ONE_VALUE)
STREAM_1MB: Final = "streaming, 1000 x 1 MB"

SIZES: Final = {
    "1 MB": 10**6,
    "4 MB": 4 * 10**6,
    "100 MB": 10**8,
    "400 MB": 4 * 10**8,
    "1 GB": 10**9,
}
FILLED: Final = ("4 MB", "400 MB")
RETURNED: Final = ("1 MB", "100 MB", "1 GB")
YIELDS: Final = 200
YIELDS_OF_RAY: Final = 12
PAUSE_S: Final = 0.001  # longer than anybody spins
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


def array_of(nbytes: int, i: int, fill: bool = False) -> Any:
    """Return an array that is filled, or of which both ends are written."""
    if fill:
        return np.full(nbytes // 8, i, dtype=np.int64)
    array = np.empty(nbytes // 8, dtype=np.int64)
    array[0] = array[-1] = i
    return array


def timed_yields(count: int, nbytes: int, fill: bool, pause: float) -> Iterator[Any]:
    """Yield named arrays; the last value says how long each yield took."""
    times = []
    for i in range(count):
        x = array_of(nbytes, i, fill)
        time.sleep(pause)
        start = time.perf_counter()
        yield x
        times.append(time.perf_counter() - start)
    yield times


def timed_nameless_yields(count: int, nbytes: int, fill: bool, pause: float) -> Iterator[Any]:
    """Yield arrays that nothing refers to; the last value says how long each yield took."""
    starts: list[float] = []
    times = []

    def stamped(array: Any) -> Any:
        starts.append(time.perf_counter())
        return array

    for i in range(count):
        time.sleep(pause)
        yield stamped(array_of(nbytes, i, fill))
        times.append(time.perf_counter() - starts[-1])
    yield times


def timed_yields_of_two(count: int, nbytes: int, fill: bool, pause: float) -> Iterator[Any]:
    """Yield dicts of two named arrays; the last value says how long each yield took."""
    times = []
    for i in range(count):
        x, y = array_of(nbytes // 2, i, fill), array_of(nbytes // 2, i, fill)
        time.sleep(pause)
        start = time.perf_counter()
        yield {"x": x, "y": y, "i": i}
        times.append(time.perf_counter() - start)
    yield times


def timed_return(nbytes: int) -> list[Any]:
    """Return an array, and the time just before."""
    x = array_of(nbytes, 0)
    return [x, time.perf_counter()]


def now() -> float:
    """Return the time, of the clock that all processes share."""
    return time.perf_counter()


# ---- The consumer ------------------------------------------------------------------------------


def touch(value: Any) -> None:
    """Read the two ends of an array, or of each in a list."""
    for array in value if isinstance(value, list) else [value]:
        if array[0] != array[-1]:
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
    elif kind == ONE_VALUE:
        refs = [ray.remote(list_of_arrays).remote(*args)]
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
        count = 20 if recorder.quick else YIELDS if engine == OURS else YIELDS_OF_RAY
        for size, nbytes in SIZES.items():
            if nbytes * 3 > store_bytes() or (recorder.quick and nbytes > QUICK_NBYTES):
                continue
            if engine == OURS:
                _record_yields(ray, recorder, size, count, fill=False)
            if size in FILLED:
                _record_yields(ray, recorder, size, count, fill=True)
            if engine == OURS and size in RETURNED:
                _record_returns(ray, recorder, size, count)
        _record_flatness(recorder)


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


def _record_yields(ray: Any, recorder: Recorder, size: str, count: int, fill: bool) -> None:
    nbytes = SIZES[size]

    def record(how: str, producer: Callable[..., Any], at_once: int, pause: float) -> None:
        row = yield_row(f"{size} just filled" if fill else size, how)
        if not recorder.wants(row):
            return
        times: list[float] = []
        while len(times) < count:
            values: list[Any] = [None]
            stream = ray.remote(producer).remote(at_once, nbytes, fill, pause)
            if how == "nobody waits":
                ray.wait([stream.completed()])
            consume(ray, stream, then=partial(values.__setitem__, 0))
            times += values[0]
        recorder.add(row, statistics.median(times) * 1e6, "us")

    record("nobody waits", timed_yields, min(count, _at_once(nbytes)), 0)
    record("consumer sleeps", timed_yields, count, PAUSE_S)
    if not fill:
        record("sole reference", timed_nameless_yields, count, 0)
        record("two in a dict", timed_yields_of_two, min(count, _at_once(nbytes)), 0)


def _at_once(nbytes: int) -> int:
    """Return how many arrays fill half of the store."""
    return store_bytes() // 2 // nbytes


def yield_row(size: str, how: str) -> str:
    """Return the name of a row about one yield."""
    return f"yield to resume, {size}, {how}"


def return_row(size: str) -> str:
    """Return the name of a row about one return."""
    return f"return to next task, {size}"


def _record_returns(ray: Any, recorder: Recorder, size: str, count: int) -> None:
    if not recorder.wants(return_row(size)):
        return
    give = ray.remote(timed_return).options(num_returns=2)
    look = ray.remote(now)
    at_once = min(count, _at_once(SIZES[size]))
    times: list[float] = []
    while len(times) < count:
        pairs = [(give.remote(SIZES[size])[1], look.remote()) for _ in range(at_once)]
        times += [ray.get(after) - ray.get(before) for before, after in pairs]
    recorder.add(return_row(size), statistics.median(times) * 1e6, "us")


def _record_flatness(recorder: Recorder) -> None:
    times = [
        recorder.rows[row][0]
        for row in (yield_row(size, "nobody waits") for size in SIZES)
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
