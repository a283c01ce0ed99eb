"""ray.util: named actors listed, ActorPool, Queue, values as they come, serializers."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from .support import Gate


# ---- list_named_actors ----


@pytest.fixture
def quiet_class(ray: ModuleType) -> Any:
    """An actor class whose actors only say that they live."""

    class Quiet:
        def ready(self):
            return True

        def wait(self, path):
            open(path).close()

    return ray.remote(max_restarts=0)(Quiet)


def test_named_actor_is_listed_and_an_unnamed_one_is_not(ray: ModuleType, quiet_class: Any) -> None:
    named, unnamed = quiet_class.options(name="listed").remote(), quiet_class.remote()
    ray.get([named.ready.remote(), unnamed.ready.remote()])
    assert ray.util.list_named_actors() == ["listed"]


def test_actor_of_another_namespace_is_listed_only_where_asked_for(
    ray: ModuleType, quiet_class: Any
) -> None:
    elsewhere = quiet_class.options(name="abroad", namespace="elsewhere").remote()
    ray.get(elsewhere.ready.remote())
    assert "abroad" not in ray.util.list_named_actors()
    everywhere = ray.util.list_named_actors(all_namespaces=True)
    assert {"name": "abroad", "namespace": "elsewhere"} in everywhere


def test_killed_actor_is_listed_no_longer(ray: ModuleType, quiet_class: Any, gate: Gate) -> None:
    actor = quiet_class.options(name="short").remote()
    ray.get(actor.ready.remote())
    held = actor.wait.remote(gate.path)
    ray.kill(actor)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(held, timeout=30)
    assert "short" not in ray.util.list_named_actors()


# ---- ActorPool ----


def double(actor: Any, value: Any) -> Any:
    """Submit one doubling."""
    return actor.double.remote(value)


def wait(actor: Any, path: str) -> Any:
    """Submit a call that stands at a gate, if it is given one."""
    return actor.wait.remote(path)


@pytest.fixture
def actors(ray: ModuleType) -> list[Any]:
    """Two actors to be pooled."""

    class Worker:
        def double(self, x):
            return 2 * x

        def wait(self, path):
            if path:
                open(path).close()
            return path

        def both(self, x):
            return x, 2 * x

        def fail(self, text):
            raise KeyError(text)

        def die(self):
            os._exit(1)

    worker = ray.remote(max_restarts=0)(Worker)
    return [worker.remote(), worker.remote()]


@pytest.fixture
def pool(ray: ModuleType, actors: list[Any]) -> Any:
    """A pool of them."""
    return ray.util.ActorPool(actors)


def test_pool_maps_in_order(pool: Any) -> None:
    assert list(pool.map(double, range(10))) == list(range(0, 20, 2))


def test_pool_maps_in_any_order(pool: Any) -> None:
    results = pool.map_unordered(double, range(10))
    assert sorted(results) == list(range(0, 20, 2))


def test_pool_hands_results_out_one_by_one(pool: Any) -> None:
    for value in (1, 2, 3):
        pool.submit(double, value)
    assert pool.get_next() == 2
    assert {pool.get_next_unordered(), pool.get_next_unordered()} == {4, 6}
    assert not pool.has_next()
    with pytest.raises(StopIteration):
        pool.get_next()


def test_pool_gives_up_at_the_timeout(pool: Any, gate: Gate) -> None:
    pool.submit(wait, gate.path)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.1)
    gate.meet()
    assert pool.get_next(timeout=30) == gate.path


def test_pool_lends_and_takes_actors(pool: Any) -> None:
    assert pool.has_free()
    first, second = pool.pop_idle(), pool.pop_idle()
    assert pool.pop_idle() is None
    pool.push(first)
    with pytest.raises(ValueError):
        pool.push(first)
    pool.push(second)
    assert list(pool.map(double, [1])) == [2]


def test_pool_refuses_an_actor_that_is_at_work_for_it(
    ray: ModuleType, actors: list[Any], gate: Gate
) -> None:
    pool = ray.util.ActorPool(actors[:1])
    pool.submit(wait, gate.path)
    with pytest.raises(ValueError):
        pool.push(actors[0])
    gate.meet()
    assert pool.get_next() == gate.path


def test_pool_keeps_the_order_of_values_that_come_in_another(pool: Any, gate: Gate) -> None:
    results = pool.map(wait, [gate.path, "", "", ""])
    gate.meet()
    assert list(results) == [gate.path, "", "", ""]


def test_pool_gives_the_value_that_came_first(pool: Any, gate: Gate) -> None:
    results = pool.map_unordered(wait, [gate.path, ""])
    assert next(results) == ""
    gate.meet()
    assert list(results) == [gate.path]


def test_pool_of_nothing_to_do_gives_nothing(pool: Any) -> None:
    assert list(pool.map(double, [])) == []
    assert list(pool.map_unordered(double, [])) == []
    assert not pool.has_next()


def test_pool_passes_an_error_on_and_goes_on(pool: Any) -> None:
    pool.submit(lambda a, v: a.fail.remote(v), "lost")
    pool.submit(double, 2)
    with pytest.raises(KeyError, match="lost"):
        pool.get_next()
    assert pool.get_next() == 4
    assert list(pool.map(double, range(4))) == [0, 2, 4, 6]


@pytest.mark.parametrize("get", ["get_next", "get_next_unordered"])
def test_empty_pool_has_no_next(pool: Any, get: str) -> None:
    with pytest.raises(StopIteration):
        getattr(pool, get)()


def test_pool_has_no_free_actor_while_all_are_at_work(
    pool: Any, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate(), new_gate()]
    for gate in gates:
        pool.submit(wait, gate.path)
    assert not pool.has_free()
    assert pool.pop_idle() is None
    for gate in gates:
        gate.meet()
    assert [pool.get_next(), pool.get_next()] == [gate.path for gate in gates]
    assert pool.has_free()


def test_unordered_get_of_the_pool_gives_up_at_the_timeout(pool: Any, gate: Gate) -> None:
    pool.submit(wait, gate.path)
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.1)
    gate.meet()
    assert pool.get_next_unordered(timeout=30) == gate.path


def test_work_that_waits_is_done_by_an_actor_that_joins(
    ray: ModuleType, actors: list[Any], gate: Gate
) -> None:
    pool = ray.util.ActorPool(actors[:1])
    pool.submit(wait, gate.path)
    pool.submit(double, 3)
    pool.push(actors[1])
    assert pool.get_next_unordered(timeout=30) == 6
    gate.meet()
    assert pool.get_next_unordered(timeout=30) == gate.path


def test_result_that_is_ignored_at_its_timeout_leaves_its_actor_to_the_next(
    ray: ModuleType, actors: list[Any], gate: Gate
) -> None:
    pool = ray.util.ActorPool(actors[:1])
    pool.submit(wait, gate.path)
    pool.submit(double, 3)
    with pytest.raises(TimeoutError, match="ignored"):
        pool.get_next(timeout=0.1, ignore_if_timedout=True)
    gate.meet()
    assert pool.get_next(timeout=30) == 6
    assert pool.has_free()
    assert not pool.has_next()


@pytest.mark.deliberately_different("Ray raises UnboundLocalError, and nothing is ignored")
def test_unordered_result_can_be_ignored_at_its_timeout_too(
    ray: ModuleType, actors: list[Any], gate: Gate
) -> None:
    pool = ray.util.ActorPool(actors[:1])
    pool.submit(wait, gate.path)
    try:
        with pytest.raises(TimeoutError, match="ignored"):
            pool.get_next_unordered(timeout=0.1, ignore_if_timedout=True)
    finally:
        gate.meet()
    assert not pool.has_next()


def test_pool_gives_no_more_work_to_an_actor_that_died(ray: ModuleType, actors: list[Any]) -> None:
    pool = ray.util.ActorPool(actors)
    pool.submit(lambda actor, value: actor.die.remote(), None)
    with pytest.raises(ray.exceptions.ActorDiedError):
        pool.get_next(timeout=30)
    assert list(pool.map(double, range(4))) == [0, 2, 4, 6]


@pytest.mark.deliberately_different("Ray's pool loses the actor")
def test_pool_keeps_an_actor_whose_submission_raises(ray: ModuleType, actors: list[Any]) -> None:
    pool = ray.util.ActorPool(actors[:1])
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda actor, value: value / 0, 1)
    assert pool.has_free()


def test_pool_gives_all_results_of_a_call_that_has_several(pool: Any) -> None:
    pool.submit(lambda actor, value: actor.both.options(num_returns=2).remote(value), 3)
    assert pool.get_next() == [3, 6]


# ---- as_completed, map_unordered ----


@pytest.fixture
def pass_gate(ray: ModuleType) -> Any:
    """A task that stands at a gate, if it is given one."""

    @ray.remote(num_cpus=0)
    def pass_gate(path):
        if path:
            open(path).close()
        return path

    return pass_gate


def test_as_completed_gives_what_has_come_first(
    ray: ModuleType, pass_gate: Any, gate: Gate
) -> None:
    refs = [pass_gate.remote(gate.path), pass_gate.remote("")]
    values = ray.util.as_completed(refs, chunk_size=1)
    assert next(values) == ""
    gate.meet()
    assert list(values) == [gate.path]


def test_as_completed_gives_references_where_asked_for(ray: ModuleType, pass_gate: Any) -> None:
    refs = [pass_gate.remote("") for _ in range(3)]
    assert set(ray.util.as_completed(refs, yield_obj_refs=True)) == set(refs)
    assert list(ray.util.as_completed([])) == []


def test_as_completed_raises_what_a_task_raised(ray: ModuleType) -> None:
    fail = ray.remote(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        next(ray.util.as_completed([fail.remote()]))


@pytest.mark.parametrize("backpressure", [None, 1, 3])
def test_map_unordered_gives_every_value_once(ray: ModuleType, backpressure: int | None) -> None:
    square = ray.remote(lambda x: x * x)
    values = ray.util.map_unordered(square, range(8), backpressure_size=backpressure, chunk_size=2)
    assert sorted(values) == [x * x for x in range(8)]


def test_map_unordered_takes_items_as_there_is_room(ray: ModuleType) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    identity = ray.remote(lambda x: x)
    values = ray.util.map_unordered(identity, items(), backpressure_size=3, chunk_size=1)
    for rank in range(3):
        assert next(values) in taken
        assert len(taken) == 3 + rank


@pytest.mark.parametrize(
    "options", [{"chunk_size": 0}, {"num_returns": 2}, {"backpressure_size": 0}], ids=str
)
def test_map_unordered_refuses_sizes_that_make_no_sense(
    ray: ModuleType, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        next(ray.util.map_unordered(ray.remote(lambda x: x), [1], **options))
    if "backpressure_size" not in options:
        with pytest.raises(ValueError):
            next(ray.util.as_completed([ray.put(1)], **options))


# ---- serializers ----


class Locked:
    """Cannot be pickled by itself."""

    def __init__(self, name: str) -> None:
        """Be called so."""
        self.name = name
        self.lock = threading.Lock()


@pytest.fixture
def registered(ray: ModuleType) -> Iterator[type[Locked]]:
    """The class, pickled by its objects' names until the case ends."""
    ray.util.register_serializer(
        Locked, serializer=lambda value: value.name, deserializer=lambda name: name.upper()
    )
    yield Locked
    ray.util.deregister_serializer(Locked)


def test_registered_serializer_carries_objects_to_tasks(
    ray: ModuleType, registered: type[Locked]
) -> None:
    assert ray.get(ray.put([registered("a")])) == ["A"]
    assert ray.get(ray.remote(lambda value: value).remote(registered("b"))) == "B"


def test_registered_serializer_is_not_for_derived_classes(
    ray: ModuleType, registered: type[Locked]
) -> None:
    class Derived(registered):  # type: ignore[misc, valid-type]
        pass

    with pytest.raises(TypeError, match="Could not serialize"):
        ray.put(Derived("a"))


def test_deregistered_serializer_is_used_no_longer(
    ray: ModuleType, registered: type[Locked]
) -> None:
    ray.util.deregister_serializer(registered)
    ray.util.deregister_serializer(registered)
    with pytest.raises(TypeError, match="Could not serialize"):
        ray.put(registered("a"))


# ---- Queue ----


@pytest.fixture
def queues(ray: ModuleType) -> Any:
    """The module of the queue."""
    return importlib.import_module(f"{ray.__name__}.util.queue")


@pytest.fixture
def new_queue(queues: Any) -> Iterator[Callable[..., Any]]:
    """A maker of queues that all end with the case."""
    made: list[Any] = []

    def make(*args: Any, **kwargs: Any) -> Any:
        made.append(queues.Queue(*args, **kwargs))
        return made[-1]

    yield make
    for queue in made:
        queue.shutdown(force=True)


def test_queue_is_first_in_first_out(new_queue: Callable[..., Any]) -> None:
    queue = new_queue()
    for value in (1, 2, 3):
        queue.put(value)
    assert queue.qsize() == len(queue) == 3
    assert [queue.get(), queue.get_nowait(), queue.get(timeout=30)] == [1, 2, 3]
    assert queue.empty()


def test_queue_holds_the_value_of_a_reference(
    ray: ModuleType, new_queue: Callable[..., Any]
) -> None:
    queue = new_queue()
    queue.put(ray.put("value"))
    assert queue.get() == "value"


def test_queue_says_when_it_is_empty_or_full(queues: Any, new_queue: Callable[..., Any]) -> None:
    queue = new_queue(maxsize=1)
    with pytest.raises(queues.Empty):
        queue.get_nowait()
    with pytest.raises(queues.Empty):
        queue.get(timeout=0.1)
    queue.put(1)
    assert queue.full()
    with pytest.raises(queues.Full):
        queue.put_nowait(2)
    with pytest.raises(queues.Full):
        queue.put(2, timeout=0.1)
    with pytest.raises(ValueError):
        queue.put(2, timeout=-1)


def test_queue_takes_and_gives_batches_as_a_whole(
    queues: Any, new_queue: Callable[..., Any]
) -> None:
    queue = new_queue(maxsize=3)
    queue.put_nowait_batch([1, 2])
    with pytest.raises(queues.Full):
        queue.put_nowait_batch([3, 4])
    with pytest.raises(queues.Empty):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(2) == [1, 2]


def test_queue_is_shared_with_tasks(ray: ModuleType, new_queue: Callable[..., Any]) -> None:
    queue = new_queue()

    @ray.remote
    def produce(queue):
        for i in range(5):
            queue.put(i)

    done = produce.remote(queue)
    assert [queue.get(timeout=30) for _ in range(5)] == list(range(5))
    ray.get(done)


def test_queue_waits_without_blocking_the_loop(new_queue: Callable[..., Any]) -> None:
    queue = new_queue()

    async def run() -> Any:
        getting = asyncio.ensure_future(queue.get_async())
        await queue.put_async(3)
        return await getting

    assert asyncio.run(run()) == 3


def test_queue_that_was_shut_down_is_gone(ray: ModuleType, queues: Any) -> None:
    queue = queues.Queue()
    actor = queue.actor
    queue.shutdown(force=True)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.qsize.remote(), timeout=30)


def test_full_and_empty_are_those_of_the_standard_library(queues: Any) -> None:
    standard = importlib.import_module("queue")
    assert issubclass(queues.Empty, standard.Empty)
    assert issubclass(queues.Full, standard.Full)


def test_queue_without_a_size_is_never_full(new_queue: Callable[..., Any]) -> None:
    queue = new_queue()
    queue.put_nowait_batch(range(100))
    assert not queue.full()
    assert queue.size() == 100


def test_get_waits_for_a_put(ray: ModuleType, new_queue: Callable[..., Any]) -> None:
    queue = new_queue()
    got = ray.remote(num_cpus=0)(lambda queue: queue.get()).remote(queue)
    queue.put("late")
    assert ray.get(got, timeout=30) == "late"


def test_put_waits_for_room(ray: ModuleType, new_queue: Callable[..., Any]) -> None:
    queue = new_queue(1)
    queue.put(1)
    done = ray.remote(num_cpus=0)(lambda queue: queue.put(2)).remote(queue)
    assert [queue.get(timeout=30), queue.get(timeout=30)] == [1, 2]
    ray.get(done, timeout=30)


def test_put_without_block_does_not_wait(queues: Any, new_queue: Callable[..., Any]) -> None:
    queue = new_queue(1)
    queue.put(1, block=False)
    with pytest.raises(queues.Full):
        queue.put(2, block=False)
    assert queue.get(block=False) == 1
    with pytest.raises(queues.Empty):
        queue.get(block=False)


def test_coroutines_of_the_queue_give_up_too(queues: Any, new_queue: Callable[..., Any]) -> None:
    queue = new_queue(1)

    async def run() -> None:
        with pytest.raises(queues.Empty):
            await queue.get_async(timeout=0.1)
        await queue.put_async(1)
        with pytest.raises(queues.Full):
            await queue.put_async(2, block=False)
        with pytest.raises(ValueError):
            await queue.get_async(timeout=-1)

    asyncio.run(run())


@pytest.mark.parametrize(("count", "error"), [("2", TypeError), (-1, ValueError)])
def test_batch_of_no_whole_number_is_refused(
    new_queue: Callable[..., Any], count: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        new_queue().get_nowait_batch(count)


def test_batch_must_be_iterable(new_queue: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        new_queue().put_nowait_batch(3)


def test_options_of_the_queue_are_those_of_its_actor(
    ray: ModuleType, new_queue: Callable[..., Any]
) -> None:
    queue = new_queue(actor_options={"name": "queue"})
    queue.put(1)
    assert ray.get(ray.get_actor("queue").qsize.remote()) == 1


def test_queue_that_is_shut_down_twice_stays_shut(queues: Any, ray: ModuleType) -> None:
    queue = queues.Queue()
    queue.put(1)
    queue.shutdown()
    queue.shutdown()
    assert queue.actor is None
