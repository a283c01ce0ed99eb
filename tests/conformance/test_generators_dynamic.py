"""Tasks with num_returns = "dynamic": one ref, and a generator of refs behind it."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts, Gate


def counting(ray: ModuleType) -> Any:
    """Return a remote dynamic generator that yields 0, 1, ... `length` times."""

    @ray.remote(num_returns="dynamic")
    def count(length):
        yield from range(length)

    return count


def test_dynamic_gives_one_ref_to_a_generator_of_refs(ray: ModuleType) -> None:
    ref = counting(ray).remote(3)
    assert isinstance(ref, ray.ObjectRef)
    generator = ray.get(ref)
    assert isinstance(generator, ray.DynamicObjectRefGenerator)
    assert len(generator) == 3
    assert [ray.get(item) for item in generator] == [0, 1, 2]


@pytest.mark.deliberately_different('"dynamic" is deprecated, and warns of its removal')
def test_dynamic_is_here_to_stay(ray: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator = ray.get(counting(ray).remote(1))
    assert len(generator) == 1


@pytest.mark.parametrize("length", [0, 1, 200])
def test_dynamic_has_as_many_refs_as_values_were_yielded(ray: ModuleType, length: int) -> None:
    generator = ray.get(counting(ray).remote(length))
    assert len(generator) == length
    assert ray.get(list(generator)) == list(range(length))


def test_dynamic_through_options_gives_a_generator_of_refs(ray: ModuleType) -> None:
    @ray.remote
    def f():
        yield "a"
        yield "b"

    generator = ray.get(f.options(num_returns="dynamic").remote())
    assert ray.get(list(generator)) == ["a", "b"]


def test_dynamic_generator_is_consumed_by_iteration(ray: ModuleType) -> None:
    generator = ray.get(counting(ray).remote(3))
    assert len(list(generator)) == 3
    assert len(generator) == 0
    assert list(generator) == []


def test_dynamic_generator_is_full_again_at_every_get(ray: ModuleType) -> None:
    ref = counting(ray).remote(3)
    first, second = ray.get(ref), ray.get(ref)
    refs = list(first)
    assert len(second) == 3
    assert list(second) == refs


@pytest.mark.parametrize("operation", [next, lambda generator: generator[0]], ids=["next", "index"])
def test_dynamic_generator_is_neither_iterator_nor_sequence(
    ray: ModuleType, operation: Callable[[Any], Any]
) -> None:
    with pytest.raises(TypeError):
        operation(ray.get(counting(ray).remote(1)))


def test_dynamic_is_ready_only_when_the_task_has_ended(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote(num_returns="dynamic")
    def f(arrived, leave):
        yield 1
        open(arrived).close()
        open(leave).close()

    arrived, leave = new_gate(), new_gate()
    ref = f.remote(arrived.path, leave.path)
    arrived.meet()
    assert ray.wait([ref], timeout=0.2) == ([], [ref])
    leave.open()
    assert len(ray.get(ref)) == 1


@pytest.mark.parametrize("good", [0, 2])
def test_dynamic_that_raises_has_one_more_ref_that_fails(ray: ModuleType, good: int) -> None:
    @ray.remote(num_returns="dynamic")
    def f():
        yield from range(good)
        raise KeyError("midway")

    generator = ray.get(f.remote())
    assert len(generator) == good + 1
    *fine, last = generator
    assert ray.get(fine) == list(range(good))
    with pytest.raises(KeyError, match="midway") as info:
        ray.get(last)
    assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_dynamic_that_yields_what_cannot_be_pickled_fails_from_there(ray: ModuleType) -> None:
    @ray.remote(num_returns="dynamic")
    def f():
        yield 1
        yield threading.Lock()
        yield 3

    first, *failing = ray.get(f.remote())
    assert ray.get(first) == 1
    assert failing
    for ref in failing:
        with pytest.raises(TypeError) as info:
            ray.get(ref)
        assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_dynamic_whose_argument_failed_fails_the_outer_ref(ray: ModuleType) -> None:
    @ray.remote
    def fail():
        raise KeyError("cause")

    with pytest.raises(KeyError, match="cause"):
        ray.get(counting(ray).remote(fail.remote()))


def test_dynamic_whose_worker_crashes_fails_the_outer_ref(ray: ModuleType) -> None:
    @ray.remote(num_returns="dynamic", max_retries=0)
    def f():
        yield 1
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(f.remote())


def test_dynamic_of_an_async_generator_fails(ray: ModuleType) -> None:
    @ray.remote(num_returns="dynamic")
    async def f():
        yield 1

    with pytest.raises(ValueError, match="must return a generator") as info:
        ray.get(f.remote())
    assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_dynamic_ref_passed_to_a_task_arrives_as_the_generator(ray: ModuleType) -> None:
    @ray.remote
    def total(generator):
        return len(generator), sum(ray.get(list(generator)))

    assert ray.get(total.remote(counting(ray).remote(4))) == (4, 6)


def test_dynamic_generator_passed_to_a_task_is_a_copy(ray: ModuleType) -> None:
    @ray.remote
    def total(generator):
        return sum(ray.get(list(generator)))

    generator = ray.get(counting(ray).remote(4))
    assert ray.get(total.remote(generator)) == 6
    assert len(generator) == 4
    assert ray.get(list(generator)) == [0, 1, 2, 3]


@pytest.mark.parametrize("nest", [lambda g: [g], lambda g: {"k": [g]}], ids=["list", "dict"])
def test_dynamic_generator_nested_in_an_argument_works(
    ray: ModuleType, nest: Callable[[Any], Any]
) -> None:
    @ray.remote
    def total(container):
        (generator,) = container if isinstance(container, list) else container["k"]
        return sum(ray.get(list(generator)))

    generator = ray.get(counting(ray).remote(4))
    assert ray.get(total.remote(nest(generator))) == 6


def test_dynamic_generator_can_be_put_and_keeps_its_items_alive(ray: ModuleType) -> None:
    ref = ray.put(ray.get(counting(ray).remote(3)))
    assert ray.get(list(ray.get(ref))) == [0, 1, 2]


def test_dynamic_generator_can_be_returned_by_a_task(ray: ModuleType) -> None:
    count = counting(ray)

    @ray.remote
    def f():
        return ray.get(count.remote(3))

    assert ray.get(list(ray.get(f.remote()))) == [0, 1, 2]


def test_dynamic_items_live_on_when_the_outer_ref_is_dropped(ray: ModuleType) -> None:
    @ray.remote(num_returns="dynamic")
    def f():
        for i in range(3):
            yield np.full(MIB, i)

    outer = f.remote()
    items = list(ray.get(outer))
    del outer, items[0]
    assert [int(values[0]) for values in ray.get(items)] == [1, 2]


def test_dynamic_outer_ref_keeps_the_items_alive(ray: ModuleType) -> None:
    @ray.remote(num_returns="dynamic")
    def f():
        yield np.full(MIB, 7)

    outer = f.remote()
    list(ray.get(outer))
    ray.put(np.zeros(MIB))
    (item,) = ray.get(outer)
    assert ray.get(item)[-1] == 7


def test_dynamic_generator_that_reuses_one_array_yields_snapshots(ray: ModuleType) -> None:
    @ray.remote(num_returns="dynamic")
    def f():
        buffer = np.zeros(MIB)
        for i in range(3):
            buffer[:] = i
            yield buffer

    assert [int(ray.get(item)[-1]) for item in ray.get(f.remote())] == [0, 1, 2]


def test_dynamic_item_feeds_other_tasks(ray: ModuleType) -> None:
    double = ray.remote(lambda x: 2 * x)
    items = ray.get(counting(ray).remote(3))
    assert ray.get([double.remote(item) for item in items]) == [0, 2, 4]


def test_dynamic_with_retry_exceptions_gives_the_values_of_the_new_attempt(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns="dynamic", max_retries=1, retry_exceptions=True)
    def f():
        attempt = begin()
        yield attempt, 0
        if attempt == 1:
            raise KeyError("first attempt")
        yield attempt, 1

    assert ray.get(list(ray.get(f.remote()))) == [(2, 0), (2, 1)]


def test_dynamic_whose_worker_crashed_gives_the_values_of_the_new_attempt(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns="dynamic", max_retries=1)
    def f():
        attempt = begin()
        yield attempt, 0
        if attempt == 1:
            os._exit(1)
        yield attempt, 1

    assert ray.get(list(ray.get(f.remote()))) == [(2, 0), (2, 1)]


def test_dynamic_that_raises_is_not_retried_by_default(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote(num_returns="dynamic")
    def f():
        begin()
        yield 1
        raise KeyError("once")

    assert len(ray.get(f.remote())) == 2
    assert attempts.made() == 1
