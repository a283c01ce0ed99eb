"""Futures of references: completed by one thread that lives no longer than it is needed."""

import asyncio
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
from support import Gate, eventually

import ray_lite as ray
from ray_lite.exceptions import RaySystemError
from ray_lite.session import Connection

THREAD = "ray_lite-futures"


def thread_runs() -> bool:
    return any(thread.name == THREAD for thread in threading.enumerate())


def passing(gate: Gate, value: Any = None) -> "ray.ObjectRef[Any]":
    """Return a reference to `value`, which is there once the gate is open."""

    @ray.remote
    def wait(path):
        open(path).close()
        return value

    ref: ray.ObjectRef[Any] = wait.remote(gate.path)
    return ref


def test_future_of_a_value_that_is_there_is_done_and_starts_no_thread(
    shared_session: Connection,
) -> None:
    future = ray.put("there").future()
    assert future.done()
    assert future.result() == "there"
    assert not thread_runs()


def test_future_is_done_when_the_value_is_there_and_the_thread_then_ends(
    shared_session: Connection, gate: Gate
) -> None:
    future = passing(gate, 7).future()
    assert thread_runs()
    assert not future.done()
    gate.meet()
    assert future.result() == 7
    assert eventually(lambda: not thread_runs())


def test_futures_made_while_others_are_pending_complete_in_any_order(
    shared_session: Connection, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate() for _ in range(2)]
    futures = [passing(gate, i).future() for i, gate in enumerate(gates)]
    assert sum(thread.name == THREAD for thread in threading.enumerate()) == 1
    gates[1].meet()
    assert futures[1].result() == 1
    assert not futures[0].done()
    gates[0].meet()
    assert futures[0].result() == 0


def test_several_futures_of_one_reference_all_complete(
    shared_session: Connection, gate: Gate
) -> None:
    ref = passing(gate, [1])
    futures = [ref.future() for _ in range(5)]
    gate.meet()
    assert [future.result() for future in futures] == [[1]] * 5


def test_future_of_a_failed_task_has_the_error_that_get_raises(
    shared_session: Connection, gate: Gate
) -> None:
    @ray.remote
    def fail(path):
        open(path).close()
        raise KeyError("reason")

    future = fail.remote(gate.path).future()
    gate.meet()
    with pytest.raises(KeyError, match="reason"):
        future.result()


def test_future_that_is_cancelled_is_forgotten_and_harms_no_other(
    shared_session: Connection, gate: Gate
) -> None:
    ref = passing(gate, 7)
    cancelled, kept = ref.future(), ref.future()
    assert cancelled.cancel()
    gate.meet()
    assert kept.result() == 7
    with pytest.raises(CancelledError):
        cancelled.result()


def test_future_keeps_its_value_alive_when_the_reference_is_gone(
    shared_session: Connection, gate: Gate
) -> None:
    ref = passing(gate, "kept")
    future = ref.future()
    del ref
    gate.meet()
    assert future.result() == "kept"


def test_future_pending_at_shutdown_fails_and_the_thread_ends(session: Connection) -> None:
    future = ray.remote(lambda: signal.pause()).remote().future()
    ray.shutdown()
    with pytest.raises(RaySystemError):
        future.result(timeout=20)
    assert eventually(lambda: not thread_runs())


def test_future_of_a_nil_reference_raises_value_error() -> None:
    with pytest.raises(ValueError):
        ray.ObjectRef.nil().future()


def test_await_gives_values_errors_and_many_at_once(shared_session: Connection) -> None:
    double = ray.remote(lambda x: 2 * x)
    fail = ray.remote(lambda: 1 / 0)

    async def main() -> list[Any]:
        assert await double.remote(4) == 8
        with pytest.raises(ZeroDivisionError):
            await fail.remote()
        return await asyncio.gather(*[double.remote(i) for i in range(50)])

    assert asyncio.run(main()) == [2 * i for i in range(50)]


def test_await_that_times_out_leaves_the_reference_usable(
    shared_session: Connection, gate: Gate
) -> None:
    ref = passing(gate, 7)

    async def main() -> Any:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ref.as_future(), 0.05)
        gate.meet()
        return await ref

    assert asyncio.run(main()) == 7


@pytest.mark.session(worker_exports=1)
def test_await_in_a_task_gives_the_values_of_other_tasks(session: Connection) -> None:
    inner = ray.remote(lambda x: x)

    @ray.remote
    def outer():
        async def main():
            return await asyncio.gather(*[inner.remote(i) for i in range(5)])

        return asyncio.run(main())

    assert ray.get(outer.remote()) == list(range(5))
