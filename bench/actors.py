"""How many calls of actors a second?

Method: the actor rows of Ray's own benchmark, warm: an actor's method that returns b"ok". sync:
call, get, and so on. async: 1000 calls, then get all. concurrent: the same on an actor with 16
threads. 1:n: an actor calls n others; n:n: four tasks call n actors; with arg: n actors call, with
a reference as the argument. n is half of the CPUs, at least 1, as in Ray's benchmark. All calls
that are timed together are 1000, or 4 x 1000, where Ray's benchmark has 5000: only the batch is
smaller. async-actor: the same on an actor whose methods are coroutines.
Unit: calls a second.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from common import Engines, Recorder, main, session

BATCH: Final = 1000
CALLERS: Final = 4
N: Final = max(1, (os.cpu_count() or 1) // 2)


class Actor:
    """What is called."""

    def small_value(self, *_: object) -> bytes:
        """Return next to nothing."""
        return b"ok"


class AsyncActor:
    """What is called, with coroutines."""

    async def small_value(self, *_: object) -> bytes:
        """Return next to nothing."""
        return b"ok"


def measure_session(engine: str, recorder: Recorder) -> None:
    """Measure Ray or ray_lite."""
    with session(engine) as ray:
        plain = ray.remote(num_cpus=0)(Actor)
        threaded = plain.options(max_concurrency=16)
        coroutines = ray.remote(num_cpus=0)(AsyncActor)
        record = partial(_record, ray, recorder)
        record("1:1 actor calls sync", plain, _sync)
        record("1:1 actor calls async", plain, _async)
        record("1:1 actor calls concurrent", threaded, _async)
        record("1:n actor calls async", plain, _one_to_n)
        record("n:n actor calls async", plain, _n_to_n)
        record("n:n actor calls with arg async", plain, _n_to_n_with_argument)
        record("1:1 async-actor calls sync", coroutines, _sync)
        record("1:1 async-actor calls async", coroutines, _async)
        record("1:1 async-actor calls with args async", coroutines, _async_with_arguments)
        record("1:n async-actor calls async", coroutines, _one_to_n)
        record("n:n async-actor calls async", coroutines, _n_to_n)


# What one row times, and how many calls that is.
Work = tuple[Callable[[], object], int]
MakeWork = Callable[[Any, list[Any]], Work]


def _record(ray: Any, recorder: Recorder, row: str, cls: Any, make_work: MakeWork) -> None:
    if not recorder.wants(row):
        return
    with _alive(ray, cls, N) as actors:
        work, calls = make_work(ray, actors)
        recorder.rate(row, work, calls)


@contextmanager
def _alive(ray: Any, cls: Any, count: int) -> Iterator[list[Any]]:
    """Make actors, and end them, so that no row has those of another beside it."""
    actors = [cls.remote() for _ in range(count)]
    ray.get([actor.small_value.remote() for actor in actors])
    try:
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


def _sync(ray: Any, actors: list[Any]) -> Work:
    actor = actors[0]

    def work() -> None:
        for _ in range(20):
            ray.get(actor.small_value.remote())

    return work, 20


def _async(ray: Any, actors: list[Any]) -> Work:
    actor = actors[0]
    return lambda: ray.get([actor.small_value.remote() for _ in range(BATCH)]), BATCH


def _async_with_arguments(ray: Any, actors: list[Any]) -> Work:
    actor = actors[0]
    return lambda: ray.get([actor.small_value.remote(i) for i in range(BATCH)]), BATCH


def _client_class(ray: Any) -> Any:
    class Client:
        def __init__(self, servers: list[Any]) -> None:
            self.servers = servers

        def call(self, count: int) -> None:
            ray.get([s.small_value.remote() for s in self.servers for _ in range(count)])

        def call_with_argument(self, count: int) -> None:
            ref = ray.put(0)
            ray.get([s.small_value.remote(ref) for s in self.servers for _ in range(count)])

    return ray.remote(num_cpus=0)(Client)


def _one_to_n(ray: Any, actors: list[Any]) -> Work:
    client = _client_class(ray).remote(actors)
    return lambda: ray.get(client.call.remote(BATCH)), BATCH * len(actors)


def _n_to_n(ray: Any, actors: list[Any]) -> Work:
    def call(servers: list[Any]) -> None:
        ray.get([servers[i % len(servers)].small_value.remote() for i in range(BATCH)])

    task = ray.remote(call)
    return lambda: ray.get([task.remote(actors) for _ in range(CALLERS)]), BATCH * CALLERS


def _n_to_n_with_argument(ray: Any, actors: list[Any]) -> Work:
    client = _client_class(ray)
    clients = [client.remote([actor]) for actor in actors]
    return lambda: ray.get([c.call_with_argument.remote(BATCH) for c in clients]), BATCH * N


ENGINES: Engines = {"ray_lite": measure_session, "ray": measure_session}

if __name__ == "__main__":
    main(__file__, __doc__, ENGINES)
