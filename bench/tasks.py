"""How many tasks a second?

Method: two workers, warm; a task that returns b"ok", and four ways to call it. sync: submit one,
get it, and so on, without a pause; or with 1 ms of sleep before each call (only calls are timed, by
their median). async: submit 1000, then get all. ref argument: 1000 tasks with the same reference as
their argument. multi client: four actors submit 1000 tasks each (Ray's own benchmark: 10,000). The
pools of the standard library and of joblib do the same with their own words, but joblib's async,
which is joblib.Parallel with its automatic batches. The limit is a round trip between two processes
over two futexes. Placement groups are a row of Ray's own benchmark; ray_lite has none.
Unit: calls a second.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import Pool
from typing import Any, Final

from common import MACHINE, Engines, Recorder, main, measure_limits, session

SYNC: Final = "single client tasks sync"
PAUSED: Final = "tasks sync, 1 ms pause"
ASYNC: Final = "single client tasks async"
GET_BATCH: Final = "single client tasks and get batch"
REF_ARGUMENT: Final = "tasks with a ref argument"
MULTI: Final = "multi client tasks async"
PLACEMENT_GROUPS: Final = "placement group create/removal"

BATCH: Final = 1000
CLIENTS: Final = 4


def small_value(*_: object) -> bytes:
    """Return next to nothing."""
    return b"ok"


def record_sync(recorder: Recorder, call: Callable[[], object], per_batch: int) -> None:
    """Measure calls that follow each other at once, and those that do not."""

    def batch() -> None:
        for _ in range(per_batch):
            call()

    recorder.rate(SYNC, batch, per_batch)
    if recorder.wants(PAUSED):
        recorder.add(PAUSED, 1 / statistics.median(_paused(call, recorder.seconds)), "1/s")


def _paused(call: Callable[[], object], seconds: float) -> list[float]:
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def measure_session(engine: str, recorder: Recorder) -> None:
    """Measure Ray or ray_lite."""
    with session(engine) as ray:
        task = ray.remote(small_value)
        ray.get([task.remote() for _ in range(BATCH)])
        record_sync(recorder, lambda: ray.get(task.remote()), 20)

        def one_thousand(*args: object) -> None:
            ray.get([task.remote(*args) for _ in range(BATCH)])

        recorder.rate(ASYNC, one_thousand, BATCH)
        recorder.rate(GET_BATCH, one_thousand, 1)
        recorder.rate(REF_ARGUMENT, partial(one_thousand, ray.put(0)), BATCH)
        if recorder.wants(MULTI):
            _record_multi(ray, recorder)
        if engine == "ray" and recorder.wants(PLACEMENT_GROUPS):
            _record_placement_groups(ray, recorder)


def _record_multi(ray: Any, recorder: Recorder) -> None:
    task = ray.remote(small_value)

    class Client:
        def batch(self) -> None:
            ray.get([task.remote() for _ in range(BATCH)])

    client = ray.remote(num_cpus=0)(Client)
    clients = [client.remote() for _ in range(CLIENTS)]
    recorder.rate(MULTI, lambda: ray.get([c.batch.remote() for c in clients]), CLIENTS * BATCH)


def _record_placement_groups(ray: Any, recorder: Recorder) -> None:
    def create_and_remove() -> None:
        groups = [ray.util.placement_group([{"CPU": 0.001}]) for _ in range(20)]
        for group in groups:
            group.wait(timeout_seconds=30)
        for group in groups:
            ray.util.remove_placement_group(group)

    recorder.rate(PLACEMENT_GROUPS, create_and_remove, 20)


def measure_executor(engine: str, recorder: Recorder) -> None:
    """Measure concurrent.futures."""
    with ProcessPoolExecutor(2) as pool:

        def one_thousand() -> None:
            for future in [pool.submit(small_value) for _ in range(BATCH)]:
                future.result()

        record_sync(recorder, lambda: pool.submit(small_value).result(), 20)
        recorder.rate(ASYNC, one_thousand, BATCH)


def measure_pool(engine: str, recorder: Recorder) -> None:
    """Measure multiprocessing.Pool."""
    with Pool(2) as pool:

        def one_thousand() -> None:
            for result in [pool.apply_async(small_value) for _ in range(BATCH)]:
                result.get()

        record_sync(recorder, lambda: pool.apply(small_value), 20)
        recorder.rate(ASYNC, one_thousand, BATCH)


def measure_joblib(engine: str, recorder: Recorder) -> None:
    """Measure joblib and its executor."""
    import joblib
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=2)
    record_sync(recorder, lambda: pool.submit(small_value).result(), 20)
    pool.shutdown()
    with joblib.Parallel(n_jobs=2) as parallel:
        call = joblib.delayed(small_value)
        recorder.rate(ASYNC, lambda: parallel(call() for _ in range(BATCH)), BATCH)


ENGINES: Engines = {
    "ray_lite": measure_session,
    "ray": measure_session,
    "ProcessPoolExecutor": measure_executor,
    "Pool": measure_pool,
    "joblib": measure_joblib,
    MACHINE: measure_limits("futex"),
}

if __name__ == "__main__":
    main(__file__, __doc__, ENGINES)
