"""How fast is a process that has joined a session of another?

Method: the "client:" rows of Ray's own benchmark. Ray: Ray Client with its server, as in that
benchmark (it needs the extra ray[client]). ray_lite: a session of another process, joined by its
address. What is called is as in tasks.py, actors.py and put_get.py.
Unit: calls a second, rounds of 1000 a second, or GB a second (1e9 bytes).
"""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np
from common import OURS, Engines, Recorder, main, start_session

BATCH: Final = 1000
LARGE: Final = 800 << 20

HOST: Final = """
import sys
import ray_lite
print(ray_lite.init(num_cpus=2, object_store_memory=int(sys.argv[1]))["address"], flush=True)
sys.stdin.read()
ray_lite.shutdown()
"""


def small_value(*_: object) -> bytes:
    """Return next to nothing."""
    return b"ok"


class Actor:
    """What is called."""

    def small_value(self, *_: object) -> bytes:
        """Return next to nothing."""
        return b"ok"


@contextmanager
def joined(engine: str) -> Iterator[Any]:
    """Be the client of a session that is up."""
    with _joined_session() if engine == OURS else _ray_client() as ray:
        yield ray


@contextmanager
def _joined_session() -> Iterator[Any]:
    ray = importlib.import_module(OURS)
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(2 * LARGE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdout is not None
    ray.init(address=host.stdout.readline().strip())
    try:
        yield ray
    finally:
        ray.shutdown()
        host.communicate(timeout=60)


@contextmanager
def _ray_client() -> Iterator[Any]:
    helpers = importlib.import_module("ray.util.client.ray_client_helpers")
    hook = importlib.import_module("ray._private.client_mode_hook")

    def start(job_config: object = None, **_: object) -> None:
        with hook.disable_client_hook():
            ray = importlib.import_module("ray")
            if not ray.is_initialized():
                start_session(ray)

    with helpers.ray_start_client_server(ray_connect_handler=start) as ray:
        yield ray


def measure_client(engine: str, recorder: Recorder) -> None:
    """Measure Ray Client, or a joined ray_lite."""
    with joined(engine) as ray:
        _record_values(ray, recorder)
        _record_tasks(ray, recorder)
        _record_actors(ray, recorder)


def _record_values(ray: Any, recorder: Recorder) -> None:
    ref = ray.put(0)
    recorder.rate("client: get calls", lambda: ray.get(ref), 1)
    recorder.rate("client: put calls", lambda: ray.put(0), 1)
    row = "client: put gigabytes"
    if recorder.wants(row) and not recorder.quick:
        array = np.arange(LARGE // 8, dtype=np.int64)
        recorder.rate(row, lambda: ray.put(array), LARGE / 1e9, "GB/s")


def _record_tasks(ray: Any, recorder: Recorder) -> None:
    name = getattr(ray, "__name__", "ray")  # a client is no module, and cannot be sent to a worker

    def put_small() -> None:
        engine = importlib.import_module(name)
        for _ in range(100):
            engine.put(0)

    task, putting = ray.remote(small_value), ray.remote(put_small)

    def batch() -> None:
        ray.get([task.remote() for _ in range(BATCH)])

    recorder.rate("client: tasks and get batch", batch, 1)
    recorder.rate(
        "client: tasks and put batch",
        lambda: ray.get([putting.remote() for _ in range(10)]),
        1000,
    )


def _record_actors(ray: Any, recorder: Recorder) -> None:
    plain = ray.remote(num_cpus=0)(Actor)
    actor, threaded = plain.remote(), plain.options(max_concurrency=16).remote()

    def batch(called: Any) -> None:
        ray.get([called.small_value.remote() for _ in range(BATCH)])

    row = "client: 1:1 actor calls"
    recorder.rate(f"{row} sync", lambda: ray.get(actor.small_value.remote()), 1)
    recorder.rate(f"{row} async", partial(batch, actor), BATCH)
    recorder.rate(f"{row} concurrent", partial(batch, threaded), BATCH)


ENGINES: Engines = {"ray_lite": measure_client, "ray": measure_client}

if __name__ == "__main__":
    main(__file__, __doc__, ENGINES)
