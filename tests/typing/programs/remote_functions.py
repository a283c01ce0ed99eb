"""What a type checker knows of remote functions: what `.remote()` gives, and what stays open."""

from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, assert_type

import ray_lite as ray
from ray_lite import ObjectRef


@ray.remote
def bare(x: int) -> str:
    return str(x)


@ray.remote(num_cpus=0.5, max_retries=0, name="greeting")
def with_options(x: int) -> str:
    return str(x)


@ray.remote(num_returns=2)
def pair(x: int) -> tuple[int, str]:
    return x, str(x)


@ray.remote(num_returns="dynamic")
def dynamic(n: int) -> Iterator[int]:
    yield from range(n)


@ray.remote
def streaming(n: int) -> Generator[int, None, None]:
    yield from range(n)


@ray.remote(num_cpus=1)
async def asynchronous(n: int) -> AsyncIterator[int]:
    yield n


@ray.remote
def nothing() -> None: ...


@ray.remote
def reference() -> ObjectRef[int]:
    return ray.put(1)


def plain(x: int) -> float:
    return x / 2


def without_num_returns_it_gives_one_reference(number: ObjectRef[int]) -> None:
    assert_type(bare.remote(1), ObjectRef[str])
    assert_type(with_options.remote(x=1), ObjectRef[str])
    assert_type(ray.remote(plain).remote(1), ObjectRef[float])
    assert_type(ray.remote(num_cpus=1)(plain).remote(1), ObjectRef[float])
    assert_type(nothing.remote(), ObjectRef[None])
    assert_type(ray.get(bare.remote(1)), str)
    assert_type(ray.get([bare.remote(i) for i in range(3)]), list[str])
    assert_type(ray.get(ray.get(reference.remote())), int)


def arguments_may_be_references_and_are_not_checked(number: ObjectRef[int]) -> None:
    assert_type(bare.remote(number), ObjectRef[str])
    assert_type(bare.remote("no number"), ObjectRef[str])


def with_num_returns_it_gives_what_only_the_run_can_tell() -> None:
    assert_type(pair.remote(1), Any)
    first, second = pair.remote(1)
    assert_type((first, second), tuple[Any, Any])
    assert_type(dynamic.remote(3), Any)
    assert_type(streaming.remote(3), Any)
    assert_type(asynchronous.remote(3), Any)


def options_without_num_returns_change_nothing() -> None:
    assert_type(bare.options(num_cpus=2).remote(1), ObjectRef[str])
    assert_type(pair.options(num_cpus=2).remote(1), Any)
    assert_type(bare.options(num_returns=0).remote(1), Any)
    assert_type(bare.options(num_returns=None).remote(1), ObjectRef[str])


def slips_are_noticed() -> None:
    text: str = bare.remote(1)  # expect-error: assignment
    print(bare.remote(1) + text)  # expect-error: operator
    bare.remove(1)  # expect-error: operator
    bare.options(num_cpus=2).options(num_cpus=1)  # expect-error: attr-defined
    bare.options(num_returns="many")  # expect-error: call-overload
    ray.remote(num_returns="many")  # expect-error: call-overload
    ray.remote(5)  # expect-error: call-overload
    ray.remote(plain, num_cpus=2)  # expect-error: call-overload
    ray.get(bare)  # expect-error: call-overload
