"""Actors: their classes, constructors, methods, arguments, results, errors and options."""

from __future__ import annotations

import asyncio
import functools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .actors import wait_until_gone
from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts, Gate


def counter_class(ray: ModuleType) -> Any:
    """Return an actor class that counts."""

    @ray.remote
    class Counter:
        kind = "counter"

        def __init__(self, start=0):
            self.n = start

        def add(self, amount=1):
            self.n += amount
            return self.n

        def scale(self, amount, times=1, *, sign=1):
            self.n += sign * times * amount
            return self.n

        def value(self):
            return self.n

        @property
        def size(self):
            return 1

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


def test_caller_is_not_held_up_by_anothers_slow_argument(ray: ModuleType, gate: Gate) -> None:
    counter = counter_class(ray).remote()
    slow = ray.remote(num_cpus=0)(lambda path: (open(path).close(), 100)[1]).remote(gate.path)
    held_up = counter.add.remote(slow)
    call = ray.remote(num_cpus=0)(lambda handle: ray.get(handle.add.remote(1)))
    assert ray.get(call.remote(counter), timeout=30) == 1
    gate.meet()
    assert ray.get(held_up) == 101


def test_call_that_was_refused_leaves_the_order_of_the_others(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    first = counter.add.remote(1)
    with pytest.raises(TypeError):
        counter.add.remote(1, 2)
    assert ray.get([first, counter.add.remote(1)]) == [1, 2]


# ---- classes ----


def test_class_is_wrapped_by_a_call_of_remote_as_well(ray: ModuleType) -> None:
    class Plain:
        def one(self):
            return 1

    assert ray.get(ray.remote(Plain).remote().one.remote()) == 1
    assert ray.get(ray.remote(num_cpus=0)(Plain).remote().one.remote()) == 1
    assert Plain().one() == 1


def test_class_without_a_constructor_takes_no_arguments(ray: ModuleType) -> None:
    @ray.remote
    class Bare:
        def one(self):
            return 1

    assert ray.get(Bare.remote().one.remote()) == 1
    with pytest.raises(TypeError):
        Bare.remote(1)


def test_class_is_not_instantiated_directly(ray: ModuleType) -> None:
    with pytest.raises(TypeError, match="cannot be instantiated directly"):
        counter_class(ray)()


def test_deriving_from_an_actor_class_raises(ray: ModuleType) -> None:
    assert issubclass(ray.actor.ActorClassInheritanceException, TypeError)
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


def test_actor_class_names_its_class(ray: ModuleType) -> None:
    assert "Counter" in repr(counter_class(ray))


def test_options_of_a_class_are_not_chained(ray: ModuleType) -> None:
    with pytest.raises(AttributeError):
        counter_class(ray).options(num_cpus=0).options(num_cpus=0)


def test_options_of_a_class_leave_the_class_as_it_was(ray: ModuleType) -> None:
    counter = counter_class(ray)
    named = counter.options(name="options of a class").remote(1)
    assert ray.get(counter.remote(2).value.remote()) == 2
    assert ray.get_actor("options of a class") == named


@pytest.mark.parametrize(
    ("wrap", "error"),
    [(lambda cls: cls(), AssertionError), (functools.partial, TypeError)],
    ids=["instance", "partial"],
)
def test_remote_takes_neither_an_instance_nor_a_partial(
    ray: ModuleType, wrap: Callable[[type], Any], error: type[Exception]
) -> None:
    class Plain:
        pass

    with pytest.raises(error):
        ray.remote(wrap(Plain))


def test_class_that_cannot_be_pickled_is_refused_at_the_call(ray: ModuleType) -> None:
    generator = (i for i in range(3))

    @ray.remote
    class Holds:
        def get(self):
            return generator

    with pytest.raises(TypeError):
        Holds.remote()


# ---- constructors ----


def test_arguments_of_the_constructor_are_resolved(ray: ModuleType) -> None:
    for actor in (
        counter_class(ray).remote(ray.put(7)),
        counter_class(ray).remote(start=ray.put(7)),
    ):
        assert ray.get(actor.value.remote()) == 7


def test_wrong_arguments_of_the_constructor_raise_at_the_call(ray: ModuleType) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        counter_class(ray).remote(end=3)


def test_constructor_that_lacks_an_argument_is_refused_at_the_call(ray: ModuleType) -> None:
    @ray.remote
    class Needs:
        def __init__(self, x):
            pass

    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        Needs.remote()


def test_remote_returns_before_the_constructor_has_run(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    class Slow:
        def __init__(self, path):
            open(path).close()

        def one(self):
            return 1

    ref = Slow.remote(gate.path).one.remote()
    assert ray.wait([ref], timeout=0)[0] == []
    gate.meet()
    assert ray.get(ref) == 1


def test_constructor_that_waits_for_a_task_lets_calls_queue_up(ray: ModuleType, gate: Gate) -> None:
    slow = ray.remote(lambda path: (open(path).close(), 5)[1]).remote(gate.path)
    counter = counter_class(ray).remote(slow)
    refs = [counter.add.remote(i) for i in range(3)]
    assert ray.wait(refs, timeout=0)[0] == []
    gate.meet()
    assert ray.get(refs) == [5, 6, 8]


def test_failed_argument_of_the_constructor_fails_every_call(ray: ModuleType) -> None:
    fail = ray.remote(max_retries=0)(lambda: 1 // 0)
    actor = counter_class(ray).remote(fail.remote())
    with pytest.raises(ray.exceptions.ActorDiedError, match="ZeroDivisionError"):
        ray.get(actor.value.remote())


def test_failed_constructor_fails_every_call_with_its_traceback(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_restarts=2)
    class Broken:
        def __init__(self):
            begin()
            raise ValueError("not today")

        def method(self):
            return 1

    actor = Broken.remote()
    for _ in range(2):
        with pytest.raises(ray.exceptions.ActorDiedError, match="not today") as caught:
            ray.get(actor.method.remote())
        assert caught.value.actor_init_failed
        assert not isinstance(caught.value, ray.exceptions.RayTaskError)
        assert "ValueError" in str(caught.value)
        assert "Broken" in str(caught.value)
    assert attempts.made() == 1


# ---- methods ----


def test_method_takes_keywords_and_defaults(ray: ModuleType) -> None:
    scale = counter_class(ray).remote().scale
    calls = [scale.remote(1), scale.remote(1, times=2), scale.remote(amount=5, sign=-1)]
    assert ray.get(calls) == [1, 3, -2]


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((1, 2, 3), {}, "too many positional arguments"),
        ((), {}, "missing a required argument: 'amount'"),
        ((1,), {"amount": 1}, "multiple values for argument 'amount'"),
        ((1,), {"by": 1}, "got an unexpected keyword argument 'by'"),
    ],
    ids=["too many", "too few", "twice", "unknown"],
)
def test_method_with_wrong_arguments_is_refused_at_the_call(
    ray: ModuleType, args: tuple[int, ...], kwargs: dict[str, int], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        counter_class(ray).remote().scale.remote(*args, **kwargs)


@pytest.mark.parametrize("name", ["size", "kind", "n", "nothing"])
def test_what_is_no_method_is_an_attribute_error(ray: ModuleType, name: str) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(counter, name).remote()


def test_method_is_not_called_directly(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(TypeError, match="cannot be called directly"):
        counter.add()


def test_static_class_private_and_special_methods_can_be_called(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    calls = [
        counter.static.remote(1),
        counter.name_of_class.remote(),
        counter._private.remote(),
        counter.__len__.remote(),
    ]
    assert ray.get(calls) == [2, "Counter", "private", 0]


def test_built_in_calls_work_on_any_actor(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    assert ray.get(counter.__ray_ready__.remote()) is True

    def change(self, by, *, factor):
        self.n = (self.n + by) * factor

    ray.get(counter.__ray_call__.remote(change, 2, factor=10))
    assert ray.get(counter.value.remote()) == 20


def test_call_is_awaited_by_the_caller(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()

    async def run() -> Any:
        return await counter.add.remote()

    assert asyncio.run(run()) == 1


# ---- arguments and results ----


def test_top_level_reference_arrives_as_its_value_and_a_nested_one_as_itself(
    ray: ModuleType,
) -> None:
    counter = counter_class(ray).remote()
    ref = ray.put(3)
    assert ray.get(counter.echo.remote(ref)) == 3
    assert ray.get(ray.get(counter.echo.remote([ref]))[0]) == 3


def test_argument_that_cannot_be_pickled_is_refused_at_the_call(ray: ModuleType) -> None:
    cls = counter_class(ray)
    generator = (i for i in range(3))
    with pytest.raises(TypeError):
        cls.remote(generator)
    with pytest.raises(TypeError):
        cls.remote().echo.remote(generator)


def test_arguments_and_results_are_as_they_were_at_the_call(ray: ModuleType) -> None:
    value = [1]
    counter = counter_class(ray).remote(value)
    value.append(2)
    first, second = counter.value.remote(), counter.echo.remote(value)
    value.append(3)
    before = ray.get(first)
    assert [before, ray.get(second)] == [[1], [1, 2]]
    before.append(4)
    assert ray.get(counter.value.remote()) == [1]


def test_array_arrives_read_only_and_comes_back_whole(ray: ModuleType) -> None:
    counter = counter_class(ray).remote(np.arange(MIB // 8))
    call = counter.__ray_call__.remote(lambda self: self.n.flags.writeable)
    array = ray.get(counter.value.remote())
    assert ray.get(call) is False
    assert array.flags.writeable is False
    assert int(array.sum()) == sum(range(MIB // 8))


def test_result_of_one_actor_is_the_argument_of_another(ray: ModuleType) -> None:
    first, second = counter_class(ray).remote(1), counter_class(ray).remote(10)
    ref = first.add.remote(1)
    for _ in range(3):
        ref = second.add.remote(first.add.remote(ref))
    assert ray.get(ref) == 82


def test_result_outlives_its_actor(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    pid = ray.get(counter.__ray_call__.remote(lambda self: os.getpid()))
    small, large = counter.echo.remote(1), counter.echo.remote(np.ones(MIB))
    ray.wait([small, large], num_returns=2)
    ray.kill(counter)
    wait_until_gone(pid)
    assert ray.get(small) == 1
    assert ray.get(large).sum() == MIB


@pytest.mark.deliberately_different(
    "an object that an actor has put is lost as soon as Ray notices its death, sooner or later",
    runs_on_ray=False,
)
def test_object_that_an_actor_has_put_outlives_it(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    inner = ray.get(counter.__ray_call__.remote(lambda self: [ray.put(np.ones(MIB))]))[0]
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(counter.__ray_terminate__.remote())
    assert ray.get(inner).sum() == MIB


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


def test_method_decorator_without_options_changes_nothing(ray: ModuleType) -> None:
    @ray.remote
    class Doubler:
        @ray.method
        def double(self, n):
            return 2 * n

        @ray.method()
        def four_times(self, n):
            return 2 * self.double(n)

    assert ray.get(Doubler.remote().four_times.remote(3)) == 12
    with pytest.raises(AssertionError):
        ray.method(2)


def test_actor_types_take_the_class_as_their_argument(ray: ModuleType) -> None:
    class Plain:
        def value(self):
            return 5

    actor_class: ray.actor.ActorClass[Plain] = ray.remote(Plain)
    handle: ray.actor.ActorHandle[Plain] = actor_class.remote()
    proxy: ray.actor.ActorProxy[Plain] = handle
    assert ray.get(proxy.value.remote()) == 5
    for generic in (ray.actor.ActorClass, ray.actor.ActorHandle, ray.actor.ActorProxy):
        assert "Plain" in repr(generic[Plain])


def test_no_returns_are_no_reference(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    assert counter.add.options(num_returns=0).remote(1) is None
    assert ray.get(counter.value.remote()) == 1


# ---- errors ----


def test_exception_of_a_method_reaches_the_caller_and_the_actor_lives_on(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(KeyError) as caught:
        ray.get(counter.fail.remote())
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert "Counter.fail" in str(caught.value)
    assert ray.get(counter.add.remote()) == 1


def test_name_of_a_call_is_what_its_error_names(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(TypeError, match="the lid is shut"):
        ray.get(counter.add.options(name="the lid is shut").remote("x"))


def test_failed_argument_fails_the_call_without_running_it(ray: ModuleType) -> None:
    counter = counter_class(ray).remote()
    with pytest.raises(KeyError):
        ray.get(counter.add.remote(counter.fail.remote()))
    assert ray.get(counter.value.remote()) == 0
