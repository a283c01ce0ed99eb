# pyright: strict
"""What a type checker knows of remote functions: their arguments, and what `.remote()` gives."""

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any, NoReturn, TypeVar, assert_type

import numpy as np
import numpy.typing as npt

import ray_lite as ray
from ray_lite import DynamicObjectRefGenerator, ObjectRef, ObjectRefGenerator
from ray_lite.remote import RemoteFunction

Item = TypeVar("Item")
Floats = npt.NDArray[np.float64]


@ray.remote
def bare(x: int, text: str = "", *, factor: float = 1.0) -> float:
    return (x + len(text)) * factor


@ray.remote(num_cpus=0.5, max_retries=0, name="greeting")
def with_options(x: int) -> str:
    return str(x)


@ray.remote
def nothing() -> None: ...


@ray.remote
def reference() -> ObjectRef[int]:
    return ray.put(1)


@ray.remote
def anything(x: int) -> Any:
    return x


@ray.remote
def no_return(x: int) -> NoReturn:
    raise ValueError(x)


@ray.remote
def arrays(left: Floats, right: npt.NDArray[Any], scale: float = 1.0) -> Floats:
    return left + right * scale


@ray.remote
def containers(numbers: list[float], names: dict[str, int | str]) -> int:
    return len(numbers) + len(names)


@ray.remote
def variadic(*numbers: int, **names: str) -> int:
    return sum(numbers) + len(names)


@ray.remote
def long(a: int, b: int, c: int, d: int, e: int, f: int, g: int = 0, h: int = 0) -> int:
    return a + b + c + d + e + f + g + h


@ray.remote
def optional(x: int | None = None, convert: Callable[[int], str] = str) -> None:
    print(convert(x or 0))


@ray.remote
def inner(numbers: list[ObjectRef[int]]) -> int:
    return sum(ray.get(numbers))


@ray.remote
def merged(*parts: Floats) -> Floats:
    return np.concatenate(parts)


@ray.remote
def generic(item: Item) -> list[Item]:
    return [item]


def plain(x: int) -> float:
    return x / 2


def it_gives_one_reference_to_what_the_function_returns() -> None:
    assert_type(bare.remote(1), ObjectRef[float])
    assert_type(with_options.remote(x=1), ObjectRef[str])
    assert_type(ray.remote(plain).remote(1), ObjectRef[float])
    assert_type(ray.remote(num_cpus=1)(plain).remote(1), ObjectRef[float])
    assert_type(nothing.remote(), ObjectRef[None])
    assert_type(ray.get(bare.remote(1)), float)
    assert_type(ray.get([bare.remote(i) for i in range(3)]), list[float])
    assert_type(ray.get(ray.get(reference.remote())), int)
    assert_type(anything.remote(1), Any)
    assert_type(no_return.remote(1), Any)
    assert_type(generic.remote("item"), ObjectRef[list[str]])
    named: RemoteFunction[[int], ObjectRef[str]] = with_options
    named.remote(1)


def arguments_are_those_of_the_function(floats: Floats) -> None:
    bare.remote(1, "text")
    bare.remote(1, text="text", factor=2)
    bare.remote(x=1)
    arrays.remote(floats, floats, scale=2)
    containers.remote([1, 2.5], {"one": 1, "two": "2"})
    variadic.remote()
    variadic.remote(1, 2, 3, name="name")
    long.remote(1, 2, 3, 4, 5, 6, 7, 8)


def arguments_may_be_references(
    number: ObjectRef[int],
    text: ObjectRef[str],
    true: ObjectRef[bool],
    unknown: ObjectRef[Any],
    either: int | ObjectRef[int],
    floats: ObjectRef[Floats],
    numbers: ObjectRef[list[float]],
) -> None:
    assert_type(bare.remote(number), ObjectRef[float])
    assert_type(bare.remote(number, text), ObjectRef[float])
    bare.remote(number, "text")
    bare.remote(1, text)
    bare.remote(true, unknown)
    bare.remote(either)
    bare.remote(number, factor=2)
    bare.remote(x=number, text="text")
    bare.remote(1, text=text, factor=2)
    arrays.remote(floats, floats, unknown)
    arrays.remote(arrays.remote(floats, floats), floats, number)
    containers.remote(numbers, {"one": 1})
    containers.remote([1], unknown)
    variadic.remote(1, number, 2, name=text)
    long.remote(number, 2, number, 4, number, 6)
    long.remote(number, 2, number, 4, number, 6, number, 8)
    generic.remote(number)


def arguments_may_be_unpacked_or_inside_others(
    number: ObjectRef[int],
    floats: ObjectRef[Floats],
    pair: tuple[ObjectRef[Floats], ObjectRef[Floats]],
    mixed: list[Floats | ObjectRef[Floats]],
    options: dict[str, Any],
) -> None:
    refs = [merged.remote(floats) for _ in range(3)]
    merged.remote(*refs)
    merged.remote(floats, *mixed)
    arrays.remote(*refs, **options)
    arrays.remote(*pair, 2)
    inner.remote([number, number])
    optional.remote(None)
    optional.remote(number, lambda i: f"{i}")
    optional.remote(x=number)
    while refs:
        done, refs = ray.wait(refs)
        assert_type(ray.get(done[0]), Floats)


def arguments_by_position_are_checked(
    number: ObjectRef[int], text: ObjectRef[str], floats: ObjectRef[Floats]
) -> None:
    bare.remote("no number")  # expect-error: call-overload
    bare.remote(text)  # expect-error: arg-type
    bare.remote(1, 2)  # expect-error: call-overload
    bare.remote(number, number)  # expect-error: arg-type
    bare.remote(text, factor=2)  # expect-error: arg-type
    bare.remote(1, "text", 3.0)  # expect-error: call-overload
    bare.remote(None)  # expect-error: call-overload
    nothing.remote(1)  # expect-error: call-overload
    anything.remote("no number")  # expect-pyright-error
    no_return.remote("no number")  # expect-error: call-overload
    arrays.remote(floats, 5)  # expect-error: call-overload
    arrays.remote(number, floats)  # expect-error: arg-type
    containers.remote(["no number"], {})  # expect-error: list-item
    containers.remote(number, {})  # expect-error: arg-type
    variadic.remote("no number")  # expect-error: call-overload
    long.remote(1, 2, 3, 4, 5, "six")  # expect-error: call-overload
    long.remote(1, 2, 3, 4, text, 6)  # expect-error: arg-type
    bare.options(num_cpus=2).remote("no number")  # expect-error: call-overload
    bare.options(num_cpus=2).remote(text)  # expect-error: arg-type


def arguments_by_keyword_or_left_out_are_for_the_run_to_check() -> None:
    bare.remote(x="no number")
    bare.remote(1, typo="text")
    bare.remote()


# ---- generators ----


@ray.remote
def streaming(n: int) -> Generator[int, None, None]:
    yield from range(n)


@ray.remote(num_returns="streaming")
def said_to_stream(n: int) -> Iterator[str]:
    yield from map(str, range(n))


@ray.remote(num_cpus=1)
async def asynchronous(n: int) -> AsyncIterator[int]:
    yield n


@ray.remote(num_returns="dynamic")
def dynamic(n: int) -> Iterator[int]:
    yield from range(n)


@ray.remote(num_returns="dynamic")
def dynamic_list(n: int) -> Iterable[str]:
    return ["text"] * n


def generators_give_references_one_by_one(number: ObjectRef[int]) -> None:
    assert_type(streaming.remote(3), ObjectRefGenerator[int])
    assert_type(said_to_stream.remote(number), ObjectRefGenerator[str])
    assert_type(asynchronous.remote(3), ObjectRefGenerator[int])
    assert_type(next(streaming.remote(3)), ObjectRef[int])
    for ref in streaming.remote(3):
        assert_type(ref, ObjectRef[int])
        assert_type(ray.get(ref), int)
    assert_type([ray.get(ref) for ref in said_to_stream.remote(3)], list[str])
    generator = streaming.remote(3)
    ready, _ = ray.wait([generator], timeout=0)
    assert_type(ready, list[ObjectRefGenerator[int]])
    assert_type(generator.completed(), ObjectRef[None])


async def generators_give_references_to_an_event_loop() -> None:
    async for ref in asynchronous.remote(3):
        assert_type(ref, ObjectRef[int])
        assert_type(await ref, int)


def dynamic_generators_give_one_reference() -> None:
    assert_type(dynamic.remote(3), ObjectRef[DynamicObjectRefGenerator[int]])
    assert_type(dynamic_list.remote(3), ObjectRef[DynamicObjectRefGenerator[str]])
    for ref in ray.get(dynamic.remote(3)):
        assert_type(ray.get(ref), int)


def generators_are_checked(text: ObjectRef[str]) -> None:
    streaming.remote("no number")  # expect-error: call-overload
    streaming.remote(text)  # expect-error: arg-type
    ray.get(streaming.remote(3))  # expect-error: call-overload
    len(dynamic.remote(3))  # expect-error: arg-type
    for item in streaming.remote(3):
        print(item + 1)  # expect-error: operator


# ---- a number of returns ----


@ray.remote(num_returns=2)
def pair(x: int) -> tuple[int, str]:
    return x, str(x)


@ray.remote(num_returns=3)
def parts(x: int) -> list[int]:
    return [x, x, x]


@ray.remote(num_returns=3)
def yielded(x: int) -> Iterator[str]:
    yield from ("a", "b", "c")


def with_a_number_of_returns_it_gives_a_list(n: int) -> None:
    assert_type(pair.remote(1), list[ObjectRef[Any]])
    number, text = pair.remote(1)
    assert_type(ray.get(number), Any)
    assert_type(ray.get(text), Any)
    a, _, _ = parts.remote(number)
    assert_type(ray.get([a, *yielded.remote(1)]), list[Any])
    assert_type(ray.remote(num_returns=n)(plain).remote(1), Any)
    assert_type(ray.remote(num_returns=0)(plain).remote(1), Any)
    pair.remote("no number")  # expect-error: call-overload
    ray.get(pair.remote(1)[0], 5)  # expect-error: call-overload
    pair.remote(1).hex()  # expect-error: attr-defined


# ---- options ----


def options_say_anew_what_it_gives(n: int) -> None:
    assert_type(bare.options(num_cpus=2).remote(1), ObjectRef[float])
    assert_type(pair.options(num_cpus=2).remote(1), list[ObjectRef[Any]])
    assert_type(bare.options(num_returns=None).remote(1), ObjectRef[float])
    assert_type(bare.options(num_returns=2).remote(1), list[ObjectRef[Any]])
    assert_type(streaming.options(num_returns=2).remote(1), list[ObjectRef[Any]])
    assert_type(
        streaming.options(num_returns="dynamic").remote(1),
        ObjectRef[DynamicObjectRefGenerator[int]],
    )
    assert_type(bare.options(num_returns=n).remote(1), Any)
    assert_type(bare.options(num_returns=0).remote(1), Any)


def slips_are_noticed() -> None:
    text: str = bare.remote(1)  # expect-error: assignment
    print(bare.remote(1) + text)  # expect-error: operator
    bare.remove(1)  # expect-error: attr-defined
    bare.options(num_cpus=2).options(num_cpus=1)  # expect-error: attr-defined
    bare.options(num_returns="many")  # expect-error: call-overload
    ray.remote(num_returns="many")  # expect-error: call-overload
    ray.remote(5)  # expect-error: call-overload
    ray.remote(plain, num_cpus=2)  # expect-error: call-overload
    ray.get(bare)  # expect-error: call-overload
