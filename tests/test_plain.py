"""Tasks and calls whose function the worker knows: they run in _plain.pyx, unless it hands them on.

What they do must not depend on that. So each function here has run before, in the one worker.
"""

import enum
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Gate, pass_through

import ray_lite as ray
from ray_lite.exceptions import RayTaskError, TaskCancelledError, WorkerCrashedError
from ray_lite.session import Connection

pytestmark = pytest.mark.session(num_cpus=1)


class Level(enum.IntEnum):
    """An int that is more than that."""

    HIGH = 3


def echo(value: Any) -> Any:
    """Return the argument."""
    return value


def known(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return a remote function that has run with `args` in the worker."""
    task = ray.remote(**options)(function) if options else ray.remote(function)
    ray.get(task.remote(*args))
    return task


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 2**63 - 1, 2**63, -(2**70), 1.5, b"", b"x" * 32, b"x" * 33, "ä", [1], {}],
    ids=repr,
)
def test_value_of_a_known_function_arrives_as_it_is(session: Connection, value: Any) -> None:
    task = known(echo, 1)
    got = ray.get(task.remote(value))
    assert (type(got), got) == (type(value), value)


@pytest.mark.parametrize("value", [Level.HIGH, np.True_, np.int64(3)], ids=repr)
def test_value_that_only_looks_plain_keeps_its_type(session: Connection, value: Any) -> None:
    assert type(ray.get(known(echo, 1).remote(value))) is type(value)


def test_large_array_of_a_known_function_is_sealed_in_place(session: Connection) -> None:
    task = known(lambda n: np.full(n, 7), 1)
    before = ray.memory_summary()
    assert ray.get(task.remote(100_000))[-1] == 7
    after = ray.memory_summary()
    assert after["sealed_in_place"] == before["sealed_in_place"] + 1
    assert after["copied"] == before["copied"]


def test_exception_of_a_known_function_arrives_with_its_lines_alone(session: Connection) -> None:
    def divide(by):
        return 1 / by

    task = known(divide, 1)
    with pytest.raises(ZeroDivisionError) as caught:
        ray.get(task.remote(0))
    assert "in divide" in str(caught.value)
    assert ".pyx" not in str(caught.value)
    assert "runner.py" not in str(caught.value)


def test_exception_of_a_known_function_is_retried(session: Connection, tmp_path: Any) -> None:
    def fail_once(path):
        if path and not os.path.exists(path):
            open(path, "w").close()
            raise OSError("once")
        return "done"

    task = known(fail_once, "", retry_exceptions=True)
    assert ray.get(task.remote(str(tmp_path / "tried"))) == "done"


def test_failed_argument_of_a_known_function_fails_the_task(session: Connection) -> None:
    task = known(echo, 1)
    failed = ray.remote(lambda: 1 / 0).remote()
    with pytest.raises(ZeroDivisionError):
        ray.get(task.remote(failed))


def test_argument_of_a_known_function_that_cannot_be_read_fails_it_once(
    session: Connection,
) -> None:
    class Refuses:
        def __reduce__(self):
            return exec, ("raise OSError('not here')",)

    task = known(echo, 1)
    with pytest.raises(RayTaskError, match="not here"):
        ray.get(task.remote(Refuses()))
    assert ray.get(task.remote(2)) == 2


def test_known_function_with_a_nested_reference_gets_a_reference(session: Connection) -> None:
    task = known(lambda pair: ray.get(pair[0]) + ray.get(pair[1]), [ray.put(1), ray.put(2)])
    ref = ray.put(3)
    assert ray.get(task.remote([ref, ref])) == 6
    assert (
        ray.get(known(lambda top, nested: top + ray.get(nested[0]), 1, [ref]).remote(ref, [ref]))
        == 6
    )


def test_known_function_that_is_cancelled_is_interrupted(session: Connection, gate: Gate) -> None:
    def wait(path):
        if path:
            open(path).close()
            threading.Event().wait()

    task = known(wait, "")
    ref = task.remote(gate.path)
    gate.meet()
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref)
    assert ray.get(task.remote("")) is None


def test_worker_that_dies_in_a_known_function_is_noticed(session: Connection) -> None:
    task = known(lambda die: os._exit(3) if die else os.getpid(), False, max_retries=0)
    with pytest.raises(WorkerCrashedError):
        ray.get(task.remote(True))
    assert ray.get(task.remote(False)) != os.getpid()


def test_known_function_knows_its_task(session: Connection) -> None:
    task = known(lambda: ray.get_runtime_context().get_task_id())
    refs = [task.remote() for _ in range(3)]
    assert ray.get(refs) == [ref.task_id().hex() for ref in refs]


def test_known_function_with_several_values_or_none_has_them(session: Connection) -> None:
    task = known(lambda n: list(range(n)), 1)
    assert ray.get(task.options(num_returns=3).remote(3)) == [0, 1, 2]
    assert task.options(num_returns=0).remote(0) is None
    (only,) = ray.get(task.options(num_returns=1).remote(1))
    assert only == 0


def test_known_function_lets_go_of_its_arguments_before_its_value_is_there(
    session: Connection,
) -> None:
    def count(array):
        return int(array[0])

    task = known(count, np.ones(1))
    free = ray.memory_summary()["free"]
    ref = ray.put(np.full(1_000_000, 5))
    assert ray.get(task.remote(ref)) == 5
    del ref
    assert ray.memory_summary()["free"] == free


def test_known_method_of_an_actor_does_as_it_should(session: Connection, gate: Gate) -> None:
    @ray.remote(num_cpus=0)
    class Counter:
        def __init__(self):
            self.count = 0

        def add(self, n):
            self.count += n
            if n < 0:
                raise ValueError(self.count)
            return self.count

        def hold(self, path):
            pass_through(path)

    counter = Counter.remote()
    assert ray.get([counter.add.remote(1) for _ in range(5)]) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="3"):
        ray.get(counter.add.remote(-2))
    held, after = counter.hold.remote(gate.path), counter.add.remote(1)
    gate.meet()
    gate.open()
    assert ray.get([held, after]) == [None, 4]


@pytest.mark.session(num_cpus=2)
def test_threads_of_an_actor_take_calls_side_by_side(session: Connection) -> None:
    @ray.remote(num_cpus=0, max_concurrency=3)
    class Meeting:
        def __init__(self):
            self.barrier = threading.Barrier(3)

        def meet(self):
            return self.barrier.wait(timeout=30)

    meeting = Meeting.remote()
    for _ in range(20):
        assert sorted(ray.get([meeting.meet.remote() for _ in range(3)])) == [0, 1, 2]
