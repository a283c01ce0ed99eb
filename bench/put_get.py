"""How fast are values stored, and how fast are they read?

Method: two workers, warm. Small values: put(0) and get of one reference, over and over, dropped at
once. Large ones: put of a numpy array of random bytes, the reference dropped before the next. 800
MiB: the first put of a new session, then the second (its memory has been written before); both have
one value in each process. get: one reference to an array of that size, got and dropped over and
over. 10k refs: a task has returned a list of 10,000 references, and that list is got. multi client:
ten tasks put. born in the store: an array that was made by ray_lite.empty and is then put; the time
of put() alone, median of 200; both ends are written before, or, in rows of their own, each page.
multiprocessing.shared_memory does the same by hand: create, copy, close and unlink; attach by name,
make an array of it, close. The limits are copies to warm memory.
Unit: calls a second, GB a second (1e9 bytes), or microseconds.
"""

import statistics
import time
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Final

import numpy as np
from common import MACHINE, Engines, Recorder, main, measure_limits, session, store_bytes

GET: Final = "single client get calls (Plasma Store)"
PUT: Final = "single client put calls (Plasma Store)"
MULTI_PUT: Final = "multi client put calls (Plasma Store)"
PUT_LARGE: Final = "single client put gigabytes"
MULTI_PUT_LARGE: Final = "multi client put gigabytes"
GET_REFS: Final = "single client get object containing 10k refs"
PUT_1MB: Final = "put 1 MB"
BORN: Final = 200
FIRST_PASS: Final = "put 800 MiB, first pass"
SECOND_PASS: Final = "put 800 MiB, second pass"

LARGE: Final = 800 << 20
QUICK_NBYTES: Final = 10**8
SIZES: Final = {"1 KB": 10**3, "1 MB": 10**6, "100 MB": 10**8, "1 GB": 10**9}


def array_of(nbytes: int) -> Any:
    """Return an array whose pages are all there, and differ."""
    return np.arange(nbytes // 8, dtype=np.int64)


def measure_session(engine: str, recorder: Recorder) -> None:
    """Measure Ray or ray_lite."""
    with session(engine) as ray:
        if recorder.wants(PUT_LARGE, FIRST_PASS, SECOND_PASS):
            _record_put_large(ray, recorder)
        _record_small(ray, recorder)
        if recorder.wants(GET_REFS):
            refs = _list_of_refs(ray)
            recorder.rate(GET_REFS, lambda: ray.get(refs), 1)
            del refs
        megabyte = array_of(10**6)
        recorder.rate(PUT_1MB, lambda: ray.put(megabyte), 1e-3, "GB/s")
        _record_multi(ray, recorder)
        most = QUICK_NBYTES if recorder.quick else store_bytes() * 3 // 4
        for name, nbytes in SIZES.items():
            if recorder.wants(f"get {name}") and nbytes <= most:
                _record_get(ray, recorder, f"get {name}", nbytes)
        if hasattr(ray, "empty"):
            _record_born(ray, recorder)


def _record_small(ray: Any, recorder: Recorder) -> None:
    ref = ray.put(0)

    def get() -> None:
        for _ in range(100):
            ray.get(ref)

    def put() -> None:
        for _ in range(100):
            ray.put(0)

    recorder.rate(GET, get, 100)
    recorder.rate(PUT, put, 100)


def _record_put_large(ray: Any, recorder: Recorder) -> None:
    array = array_of(LARGE)
    passes = []
    for _ in range(2):
        start = time.perf_counter()
        ref = ray.put(array)
        passes.append(LARGE / (time.perf_counter() - start) / 1e9)
        del ref
    recorder.add(FIRST_PASS, passes[0], "GB/s")
    recorder.add(SECOND_PASS, passes[1], "GB/s")
    if not recorder.quick:
        recorder.rate(PUT_LARGE, lambda: ray.put(array), LARGE / 1e9, "GB/s")


def _list_of_refs(ray: Any) -> Any:
    def refs() -> list[Any]:
        return [ray.put(1) for _ in range(10_000)]

    ref = ray.remote(refs).remote()
    ray.wait([ref])
    return ref


def _record_multi(ray: Any, recorder: Recorder) -> None:
    def put_small() -> None:
        for _ in range(100):
            ray.put(0)

    def put_large() -> None:
        for _ in range(10):
            ray.put(np.zeros(10 << 20, dtype=np.int64))

    def all_of(task: Any) -> None:
        ray.get([task.remote() for _ in range(10)])

    small, large = ray.remote(put_small), ray.remote(put_large)

    recorder.rate(MULTI_PUT, partial(all_of, small), 1000)
    if not recorder.quick:
        recorder.rate(MULTI_PUT_LARGE, partial(all_of, large), 10 * 10 * 8e-3 * 1.048576, "GB/s")


def _record_get(ray: Any, recorder: Recorder, row: str, nbytes: int) -> None:
    ref = ray.put(array_of(nbytes))

    def get() -> None:
        for _ in range(100):
            ray.get(ref)

    recorder.rate(row, get, 100)


def _record_born(ray: Any, recorder: Recorder) -> None:
    for name, nbytes in SIZES.items():
        if name == "1 KB":
            continue
        row = f"put of an array born in the store, {name}"
        _record_put_of_born(ray, recorder, row, nbytes, every=nbytes // 8 - 1)
        if nbytes >= 10**8:
            row = f"{row}, each page just written"
            _record_put_of_born(ray, recorder, row, nbytes, every=4096 // 8)


def _record_put_of_born(ray: Any, recorder: Recorder, row: str, nbytes: int, every: int) -> None:
    if not recorder.wants(row):
        return
    times = []
    for _ in range(5 if recorder.quick else BORN):
        array = ray.empty(nbytes // 8, np.int64)
        array[::every] = 1
        start = time.perf_counter()
        ref = ray.put(array)
        times.append(time.perf_counter() - start)
        del array, ref
    recorder.add(row, statistics.median(times) * 1e6, "us")


def measure_shared_memory(engine: str, recorder: Recorder) -> None:
    """Measure what one would write by hand."""
    recorder.rate(PUT_1MB, partial(_share, array_of(10**6)), 1e-3, "GB/s")
    if recorder.wants(PUT_LARGE) and not recorder.quick:
        recorder.rate(PUT_LARGE, partial(_share, array_of(LARGE)), LARGE / 1e9, "GB/s")
    for name, nbytes in SIZES.items():
        if not recorder.wants(f"get {name}") or (recorder.quick and nbytes > QUICK_NBYTES):
            continue
        segment = SharedMemory(create=True, size=nbytes)
        recorder.rate(f"get {name}", partial(_attach, segment.name, nbytes), 1)
        segment.close()
        segment.unlink()


def _share(array: Any) -> None:
    segment = SharedMemory(create=True, size=array.nbytes)
    target: Any = np.ndarray(array.shape, array.dtype, buffer=segment.buf)
    target[:] = array
    del target
    segment.close()
    segment.unlink()


def _attach(name: str, nbytes: int) -> None:
    segment = SharedMemory(name)
    value: Any = np.ndarray(nbytes // 8, np.int64, buffer=segment.buf)
    del value
    segment.close()


ENGINES: Engines = {
    "ray_lite": measure_session,
    "ray": measure_session,
    "shared_memory": measure_shared_memory,
    MACHINE: measure_limits("memcpy"),
}

if __name__ == "__main__":
    main(__file__, __doc__, ENGINES)
