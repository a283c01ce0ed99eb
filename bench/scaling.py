"""Does the cost of one stay the same when there are many?

Method: two workers, warm. queued tasks: both workers are kept busy, N no-op tasks are submitted,
the workers are let go, all results are got and dropped. live objects: N integers are put, and
dropped. get, wait: one call over the N references of such objects. N is 10,000 to 1,000,000 (Ray:
10,000 only; at its speed more is a matter of minutes). Of each N the best of two rounds. "dearest /
cheapest" compares the N of one process.
Unit: microseconds for each item, and their ratio.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from common import OURS, Engines, Recorder, main, session

MOST_REPEATS: Final = 3  # processes; each of them has two rounds

COUNTS: Final = (10_000, 30_000, 100_000, 300_000, 1_000_000)
MANY: Final = 300_000  # from here on the cost should hardly change any more
ROUNDS: Final = 2

TASKS: Final = "queued tasks"
OBJECTS: Final = "live objects, put and dropped"
GET: Final = "references in one get"
WAIT: Final = "references in one wait"


def nothing() -> None:
    """Do nothing."""


def occupy(gate: str) -> None:
    """Keep a worker busy, without lending its CPU, until a file is there."""
    while not os.path.exists(gate):
        time.sleep(0.001)


def row_of(kind: str, count: int) -> str:
    """Return the name of a row."""
    return f"{kind}, {count:,}"


def measure_session(engine: str, recorder: Recorder) -> None:
    """Measure Ray or ray_lite."""
    most = 1 if engine != OURS else 3 if recorder.quick else len(COUNTS)
    counts = COUNTS[:most]
    with session(engine) as ray:
        ray.get([ray.remote(nothing).remote() for _ in range(100)])
        for count in counts:
            for kind, measure in {TASKS: _run_tasks, OBJECTS: _use_objects}.items():
                if not recorder.wants(*(row_of(k, count) for k in _kinds_with(kind))):
                    continue
                rounds = [measure(ray, count) for _ in range(1 if recorder.quick else ROUNDS)]
                for name in rounds[0]:
                    best = min(times[name] for times in rounds)
                    recorder.add(row_of(name, count), best / count * 1e6, "us")
    for kind in (TASKS, OBJECTS, GET, WAIT):
        _record_ratio(recorder, kind, counts, "all sizes")
        _record_ratio(recorder, kind, [n for n in counts if n >= MANY], f"from {MANY:,} on")


def _kinds_with(kind: str) -> tuple[str, ...]:
    return (kind,) if kind == TASKS else (OBJECTS, GET, WAIT)


def _run_tasks(ray: Any, count: int) -> dict[str, float]:
    task = ray.remote(nothing)
    blocker = ray.remote(occupy)
    with tempfile.TemporaryDirectory() as directory:
        gate = Path(directory) / "open"
        blockers = [blocker.remote(str(gate)) for _ in range(2)]
        start = time.perf_counter()
        refs = [task.remote() for _ in range(count)]
        gate.touch()
        ray.get(refs)
        del refs
        took = time.perf_counter() - start
        ray.get(blockers)
    return {TASKS: took}


def _use_objects(ray: Any, count: int) -> dict[str, float]:
    refs: list[Any] = []
    put = _time(lambda: refs.extend(ray.put(i) for i in range(count)))
    get = _time(partial(ray.get, refs))
    wait = _time(partial(ray.wait, refs, num_returns=count))
    return {OBJECTS: put + _time(refs.clear), GET: get, WAIT: wait}


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _record_ratio(recorder: Recorder, kind: str, counts: Sequence[int], what: str) -> None:
    costs = [recorder.rows[row][0] for n in counts if (row := row_of(kind, n)) in recorder.rows]
    if len(costs) > 1:
        recorder.add(f"{kind}, dearest / cheapest, {what}", max(costs) / min(costs), "x")


ENGINES: Engines = {"ray_lite": measure_session, "ray": measure_session}

if __name__ == "__main__":
    main(__file__, __doc__, ENGINES)
