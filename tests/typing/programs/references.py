# pyright: strict
"""What a type checker knows of references: put, get, wait, await, futures."""

import asyncio
from concurrent.futures import Future
from typing import Any, assert_type

import ray_lite as ray
from ray_lite import ObjectRef


def put_and_get(number: ObjectRef[int], unknown: ObjectRef[Any]) -> None:
    assert_type(ray.put("text"), ObjectRef[str])
    assert_type(ray.get(number), int)
    assert_type(ray.get(number, timeout=1.5), int)
    assert_type(ray.get(unknown), Any)
    assert_type(ray.get(ray.put(number.hex())), str)


def get_of_a_list(numbers: list[ObjectRef[int]], text: ObjectRef[str]) -> None:
    assert_type(ray.get(numbers), list[int])
    assert_type(ray.get([text, text]), list[str])
    mixed: list[ObjectRef[int | str]] = [numbers[0], text]
    assert_type(ray.get(mixed), list[int | str])


def get_of_what_is_no_reference(number: ObjectRef[int]) -> None:
    ray.get(5)  # expect-error: call-overload
    ray.get((number, number))  # expect-error: call-overload
    ray.get([5])  # expect-error: arg-type
    ray.get(number, 1.5)  # expect-error: call-overload
    ray.get(number, timeout="1.5")  # expect-error: call-overload


def wait(numbers: list[ObjectRef[int]]) -> None:
    ready, rest = ray.wait(numbers, num_returns=2, timeout=0)
    assert_type(ready, list[ObjectRef[int]])
    assert_type(rest, list[ObjectRef[int]])
    ray.wait(numbers[0])  # expect-error: arg-type


async def asynchronous(number: ObjectRef[int], true: ObjectRef[bool]) -> None:
    assert_type(await number, int)
    assert_type(number.future(), Future[int])
    assert_type(number.as_future(), asyncio.Future[int])
    assert_type(await asyncio.gather(number, true), tuple[int, bool])


def ids(number: ObjectRef[int], true: ObjectRef[bool]) -> None:
    assert_type(number.hex(), str)
    assert_type(bytes(number), bytes)
    assert_type(ObjectRef.from_binary(number.binary()), ObjectRef[Any])
    wider: list[ObjectRef[int]] = [true, number]
    narrower: ObjectRef[bool] = number  # expect-error: assignment
    assert_type({wider[0], number}, set[ObjectRef[int]])
    print(narrower)
    print(number.value)  # expect-error: attr-defined


def subclassing() -> None:
    class Mine(ObjectRef[int]):  # expect-error: misc
        pass


def dynamic(outer: ObjectRef[ray.DynamicObjectRefGenerator[str]]) -> None:
    generator = ray.get(outer)
    assert_type(len(generator), int)
    for ref in generator:
        assert_type(ref, ObjectRef[str])
    next(generator)  # expect-error: call-overload
    print(generator[0])  # expect-error: index


def sessions() -> None:
    with ray.init(num_cpus=2, object_store_memory=10**8, resources={"token": 1.0}) as context:
        assert_type(context["num_cpus"], Any)
    assert_type(ray.is_initialized(), bool)
    ray.init(7)  # expect-error: arg-type
