"""Actors: making them, calling them, handles, names, and the three ways they serve."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Gate


def counter_class(ray: ModuleType) -> Any:
    """Return an actor class that counts."""

    @ray.remote
    class Counter:
        def __init__(self, start=0):
            self.n = start

        def add(self, amount=1):
            self.n += amount
            return self.n

        def value(self):
            return self.n

        def fail(self):
            raise KeyError("no such thing")

        def echo(self, value):
            return value

        @staticmethod
        def static(value):
            return value + 1

        @classmethod
        def name_of_class(cls):
            return cls.__name__

        def _private(self):
            return "private"

        def __len__(self):
            return self.n

    return Counter


# ---- state and order ----


def test_actor_keeps_its_state_between_calls(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    assert ray.get([counter.add.remote() for _ in range(5)]) == [1, 2, 3, 4, 5]


def test_two_actors_of_a_class_share_nothing(ray: ModuleType) -> None:
    first, second = counter_class(ray).remote(1), counter_class(ray).remote(start=10)
    assert ray.get([first.add.remote(), second.add.remote()]) == [2, 11]


def test_thousand_calls_run_in_the_order_of_submission(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    assert ray.get([counter.add.remote() for _ in range(1000)]) == list(range(1, 1001))


def test_call_waits_for_an_earlier_one_with_a_slow_argument(ray: ModuleType, gate: Gate) -> None:
    counter = counter_class(ray).remote()
    slow = ray.remote(lambda path: (open(path).close(), 100)[1]).remote(gate.path)
    first = counter.add.remote(slow)
    second = counter.add.remote(1)
    gate.meet()
    assert ray.get([first, second]) == [100, 101]


def test_caller_is_not_held_up_by_anothers_slow_argument(ray: ModuleType, gate: Gate) -> None:
    counter = counter_class(ray).remote()
    slow = ray.remote(num_cpus=0)(lambda path: (open(path).close(), 100)[1]).remote(gate.path)
    held_up = counter.add.remote(slow)
    call = ray.remote(num_cpus=0)(lambda handle: ray.get(handle.add.remote(1)))
    assert ray.get(call.remote(counter), timeout=30) == 1
    gate.meet()
    assert ray.get(held_up) == 101


def test_arguments_of_the_constructor_are_resolved(ray: ModuleType) -> None:
    assert ray.get(counter_class(ray).remote(ray.put(7)).value.remote()) == 7


def test_top_level_reference_arrives_as_its_value_and_a_nested_one_as_itself(
    ray: ModuleType,
) -> None:
    counter = counter_class(ray).remote()
    ref = ray.put(3)
    assert ray.get(counter.echo.remote(ref)) == 3
    assert ray.get(ray.get(counter.echo.remote([ref]))[0]) == 3


# ---- what can be called ----


def test_static_class_private_and_special_methods_can_be_called(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    calls = [
        counter.static.remote(1),
        counter.name_of_class.remote(),
        counter._private.remote(),
        counter.__len__.remote(),
    ]
    assert ray.get(calls) == [2, "Counter", "private", 0]


def test_missing_method_is_an_attribute_error(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        counter.nothing.remote()


def test_method_is_not_called_directly(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(TypeError, match="cannot be called directly"):
        counter.add()


def test_class_is_not_instantiated_directly(ray: ModuleType) -> None:
    with pytest.raises(TypeError, match="cannot be instantiated directly"):
        counter_class(ray)()


def test_wrong_arguments_of_a_method_raise_at_the_call(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(TypeError, match="too many positional arguments"):
        counter.add.remote(1, 2)


def test_wrong_arguments_of_the_constructor_raise_at_the_call(ray: ModuleType) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        counter_class(ray).remote(end=3)


def test_deriving_from_an_actor_class_raises(ray: ModuleType) -> None:
    with pytest.raises(ray.actor.ActorClassInheritanceException):

        class Derived(counter_class(ray)):  # type: ignore[misc]
            pass


def test_inherited_methods_can_be_called(ray: ModuleType) -> None:
    class Base:
        def __init__(self) -> None:
            self.x = 1

        def get(self) -> int:
            return self.x

    @ray.remote
    class Derived(Base):
        def __init__(self):
            super().__init__()
            self.x += 1

    assert ray.get(Derived.remote().get.remote()) == 2


def test_built_in_calls_work_on_any_actor(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    assert ray.get(counter.__ray_ready__.remote()) is True
    assert ray.get(counter.__ray_call__.remote(lambda self, n: self.n + n, 5)) == 5


# ---- errors ----


def test_exception_of_a_method_reaches_the_caller_and_the_actor_lives_on(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(KeyError) as caught:
        ray.get(counter.fail.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert "Counter.fail" in str(caught.value)
    assert ray.get(counter.add.remote()) == 1


def test_failed_argument_fails_the_call_without_running_it(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(KeyError):
        ray.get(counter.add.remote(counter.fail.remote()))
    assert ray.get(counter.value.remote()) == 0


def test_failed_constructor_fails_every_call_with_its_traceback(ray: ModuleType) -> None:
    @ray.remote
    class Broken:
        def __init__(self):
            raise ValueError("not today")

        def method(self):
            return 1

    actor = Broken.remote()
    for _ in range(2):
        with pytest.raises(ray.exceptions.ActorDiedError, match="not today") as caught:
            ray.get(actor.method.remote())
        assert caught.value.actor_init_failed


def test_failed_argument_of_the_constructor_fails_every_call(ray: ModuleType) -> None:
    fail = ray.remote(max_retries=0)(lambda: 1 // 0)
    actor = counter_class(ray).remote(fail.remote())
    with pytest.raises(ray.exceptions.ActorDiedError, match="ZeroDivisionError"):
        ray.get(actor.value.remote())


def test_num_returns_splits_what_a_method_returns(ray: ModuleType) -> None:
    @ray.remote
    class Pair:
        @ray.method(num_returns=2)
        def two(self):
            return 1, 2

        def three(self):
            return 1, 2, 3

    pair = Pair.remote()
    assert ray.get(pair.two.remote()) == [1, 2]
    assert ray.get(pair.two.options(num_returns=None).remote()) == [1, 2]
    assert ray.get(pair.three.options(num_returns=3).remote()) == [1, 2, 3]
    with pytest.raises(ValueError, match="3 objects, but num_returns=2"):
        ray.get(pair.three.options(num_returns=2).remote())


def test_unknown_option_of_a_method_is_refused(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(AssertionError):
        ray.method(num_cpus=1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        counter.add.options(num_cpus=1).remote()


def test_objects_per_yield_belong_to_the_method_and_not_to_a_call(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    ray.method(_num_objects_per_yield=2)
    with pytest.raises(ValueError, match="_num_objects_per_yield"):
        counter.add.options(_num_objects_per_yield=2)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_restarts": -2}, ValueError),
        ({"max_restarts": 1.5}, TypeError),
        ({"lifetime": "long"}, ValueError),
        ({"lifetime": 3}, TypeError),
        ({"get_if_exists": True}, ValueError),
        ({"get_if_exists": True, "name": ""}, ValueError),
        ({"object_store_memory": -1}, ValueError),
        ({"_actor_generator_backpressure_num_objects": 0}, ValueError),
        ({"_actor_generator_backpressure_num_objects": -2}, ValueError),
        ({"concurrency_groups": 3}, TypeError),
        ({"max_retries": 1}, ValueError),
        ({"num_cpus": -1}, ValueError),
        ({"name": 3}, TypeError),
        ({"nonsense": 1}, ValueError),
    ],
)
def test_bad_option_of_a_class_is_refused(
    ray: ModuleType, options: dict[str, Any], error: type[Exception]
) -> None:
    class Plain:
        pass

    with pytest.raises(error):
        ray.remote(**options)(Plain)


# ---- handles ----


def test_handle_is_passed_to_a_task_and_keeps_the_actor(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    add = ray.remote(lambda handle: ray.get(handle.add.remote(5)))
    assert ray.get(add.remote(counter)) == 5
    assert (
        ray.get(ray.remote(lambda d: ray.get(d["it"].add.remote(5))).remote({"it": counter})) == 10
    )


def test_handle_held_by_another_actor_keeps_the_actor(ray: ModuleType) -> None:
    @ray.remote
    class Holder:
        def __init__(self, handle):
            self.handle = handle

        def add(self):
            return ray.get(self.handle.add.remote())

    inner = counter_class(ray).remote()
    holder = Holder.remote(inner)
    assert ray.get(holder.add.remote()) == 1
    del inner
    assert ray.get(holder.add.remote()) == 2


def test_handles_of_an_actor_are_equal_and_hash_alike(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    copy = ray.get(counter.echo.remote([counter]))[0]
    assert copy == counter
    assert hash(copy) == hash(counter)
    assert copy != counter_class(ray).remote()


def test_handle_survives_pickle_and_shows_its_class(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    assert ray.get(pickle.loads(pickle.dumps(counter)).add.remote()) == 1
    assert repr(counter).startswith("Actor(")
    assert "Counter" in repr(counter)
    assert "add" in dir(counter)


def test_actor_class_is_passed_to_a_task_and_used_there(ray: ModuleType) -> None:
    make = ray.remote(lambda cls: ray.get(cls.remote(4).add.remote()))
    assert ray.get(make.remote(counter_class(ray))) == 5


def test_temporary_handle_is_enough_for_a_call(ray: ModuleType) -> None:
    assert ray.get(counter_class(ray).remote(1).add.remote()) == 2


# ---- threads ----


def test_threaded_actor_runs_calls_at_once(ray: ModuleType) -> None:
    @ray.remote(max_concurrency=3)
    class Meeting:
        def __init__(self):
            self.barrier = threading.Barrier(3)

        def meet(self):
            self.barrier.wait(timeout=30)
            return threading.current_thread() is threading.main_thread()

    meeting = Meeting.remote()
    assert ray.get([meeting.meet.remote() for _ in range(3)], timeout=60) == [False] * 3


def test_sync_actor_runs_in_the_main_thread(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    call = counter.__ray_call__.remote(
        lambda self: threading.current_thread() is threading.main_thread()
    )
    assert ray.get(call) is True


def test_threaded_actor_lets_a_ready_call_overtake_one_that_waits(
    ray: ModuleType, gate: Gate
) -> None:
    actor = counter_class(ray).options(max_concurrency=2).remote()
    slow = ray.remote(lambda path: (open(path).close(), 100)[1]).remote(gate.path)
    first = actor.add.remote(slow)
    assert ray.get(actor.add.remote(1), timeout=30) == 1
    gate.meet()
    assert ray.get(first) == 101


def test_concurrency_groups_have_threads_of_their_own(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote(concurrency_groups={"io": 1})
    class Grouped:
        @ray.method(concurrency_group="io")
        def read(self, path):
            open(path).close()
            return "read"

        def other(self):
            return "other"

    gate = new_gate()
    actor = Grouped.remote()
    read = actor.read.remote(gate.path)
    assert ray.get(actor.other.remote(), timeout=30) == "other"
    in_io = actor.other.options(concurrency_group="io").remote()
    assert ray.wait([in_io], timeout=0.1)[0] == []
    gate.meet()
    assert ray.get([read, in_io], timeout=30) == ["read", "other"]


@pytest.mark.deliberately_different("Ray kills the actor; the call that is wrong should raise")
def test_unknown_concurrency_group_raises_at_the_call(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(ValueError, match="no concurrency group 'nowhere'"):
        counter.add.options(concurrency_group="nowhere").remote()


# ---- coroutines ----


def async_class(ray: ModuleType) -> Any:
    """Return an async actor class."""

    @ray.remote
    class Async:
        def __init__(self):
            self.event = asyncio.Event()

        async def wait(self):
            await self.event.wait()
            return "waited"

        async def release(self):
            self.event.set()
            return "released"

        def plain(self, value):
            return value

        async def fail(self):
            raise KeyError("async")

        async def fetch(self, refs):
            return await refs[0]

        async def count(self, n):
            for i in range(n):
                yield i

    return Async


def test_coroutines_of_an_actor_run_at_once(ray: ModuleType) -> None:
    actor = async_class(ray).remote()
    waits = [actor.wait.remote() for _ in range(20)]
    assert ray.get(actor.release.remote(), timeout=30) == "released"
    assert ray.get(waits, timeout=30) == ["waited"] * 20


def test_plain_method_of_an_async_actor_runs_too(ray: ModuleType) -> None:
    assert ray.get(async_class(ray).remote().plain.remote(3)) == 3


def test_exception_of_a_coroutine_reaches_the_caller(ray: ModuleType) -> None:
    with pytest.raises(KeyError, match="async"):
        ray.get(async_class(ray).remote().fail.remote())


def test_coroutine_awaits_a_reference(ray: ModuleType) -> None:
    slow = ray.remote(lambda: 5).remote()
    assert ray.get(async_class(ray).remote().fetch.remote([slow]), timeout=30) == 5


def test_max_concurrency_bounds_the_coroutines(ray: ModuleType) -> None:
    actor = async_class(ray).options(max_concurrency=1).remote()
    first = actor.wait.remote()
    second = actor.release.remote()
    assert ray.wait([first, second], timeout=0.2)[0] == []
    ray.kill(actor)


def test_call_is_awaited_by_the_caller(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()

    async def run() -> Any:
        return await counter.add.remote()

    assert asyncio.run(run()) == 1


# ---- generators ----


def generator_class(ray: ModuleType, **options: Any) -> Any:
    """Return an actor class with a generator method."""

    class Generates:
        def count(self, n, failing_at=None):
            for i in range(n):
                if i == failing_at:
                    raise KeyError(i)
                yield i

    return ray.remote(**options)(Generates) if options else ray.remote(Generates)


SERVING = [
    pytest.param({}, id="sync"),
    pytest.param({"max_concurrency": 2}, id="threaded"),
]


@pytest.mark.parametrize("options", SERVING)
def test_generator_method_streams_by_default(ray: ModuleType, options: dict[str, Any]) -> None:
    actor = generator_class(ray, **options).remote()
    assert [ray.get(ref) for ref in actor.count.remote(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("options", SERVING)
def test_generator_method_with_a_number_of_returns(
    ray: ModuleType, options: dict[str, Any]
) -> None:
    actor = generator_class(ray, **options).remote()
    assert ray.get(actor.count.options(num_returns=3).remote(3)) == [0, 1, 2]


@pytest.mark.parametrize("options", SERVING)
def test_dynamic_generator_method(ray: ModuleType, options: dict[str, Any]) -> None:
    actor = generator_class(ray, **options).remote()
    outer = actor.count.options(num_returns="dynamic").remote(3)
    assert [ray.get(ref) for ref in ray.get(outer)] == [0, 1, 2]


@pytest.mark.parametrize("options", SERVING)
def test_generator_method_that_raises_ends_with_the_exception(
    ray: ModuleType, options: dict[str, Any]
) -> None:
    actor = generator_class(ray, **options).remote()
    refs = list(actor.count.remote(4, failing_at=2))
    assert ray.get(refs[:2]) == [0, 1]
    with pytest.raises(KeyError):
        ray.get(refs[2])
    assert len(refs) == 3


def test_async_generator_method_streams(ray: ModuleType) -> None:
    actor = async_class(ray).remote()
    assert [ray.get(ref) for ref in actor.count.remote(3)] == [0, 1, 2]


def test_async_generator_method_streams_to_async_for(ray: ModuleType) -> None:
    actor = async_class(ray).remote()

    async def run() -> list[int]:
        return [await ref async for ref in actor.count.remote(3)]

    assert asyncio.run(run()) == [0, 1, 2]


def test_plain_generator_method_of_an_async_actor_streams(ray: ModuleType) -> None:
    @ray.remote
    class Mixed:
        async def nothing(self):
            pass

        def count(self, n):
            yield from (i for i in range(n))

    actor = Mixed.remote()
    assert [ray.get(ref) for ref in actor.count.remote(3)] == [0, 1, 2]
    assert ray.get(actor.count.options(num_returns=2).remote(2)) == [0, 1]


@pytest.mark.parametrize("options", SERVING)
def test_generator_method_pauses_under_backpressure(
    ray: ModuleType, options: dict[str, Any]
) -> None:
    actor = generator_class(ray, **options).remote()
    stream = actor.count.options(_generator_backpressure_num_objects=1).remote(5)
    assert [ray.get(ref) for ref in stream] == [0, 1, 2, 3, 4]


def test_backpressure_of_an_actor_counts_the_items_of_all_its_streams(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote(_actor_generator_backpressure_num_objects=2, max_concurrency=2)
    class Holder:
        def hold(self, paths):
            for path in paths:
                open(path).close()
                yield path

    holder = Holder.remote()
    first_gates, second_gates = [[new_gate() for _ in range(3)] for _ in range(2)]
    first = holder.hold.remote([gate.path for gate in first_gates])
    first_gates[0].meet()
    first_gates[1].meet()
    second = holder.hold.remote([gate.path for gate in second_gates])
    second_gates[0].open()
    assert ray.wait([first.completed(), second.completed()], timeout=0.3)[0] == []
    assert not first_gates[2].is_awaited()
    assert not second_gates[1].is_awaited()
    for gate in [*first_gates, *second_gates]:
        gate.open()
    assert [ray.get(next(first)) for _ in range(2)] == [gate.path for gate in first_gates[:2]]
    assert len(list(second)) == 3
    assert len(list(first)) == 1


def test_async_generator_method_pauses_under_backpressure(ray: ModuleType) -> None:
    actor = async_class(ray).remote()
    stream = actor.count.options(_generator_backpressure_num_objects=1).remote(5)
    assert [ray.get(ref) for ref in stream] == [0, 1, 2, 3, 4]


def test_streaming_of_a_method_that_is_no_generator_is_refused(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(ValueError, match="generator"):
        counter.add.options(num_returns="streaming").remote()
