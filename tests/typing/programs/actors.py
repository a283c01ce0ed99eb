# pyright: strict
"""What a type checker knows of actors: their classes, their handles, their methods."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import ray_lite as ray
from ray_lite import ObjectRef, ObjectRefGenerator
from ray_lite.actor import ActorClass, ActorHandle, ActorProxy


class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    @ray.method
    def add(self, n: int, text: str = "") -> float:
        self.value += n + len(text)
        return self.value

    @ray.method(max_task_retries=2)
    def twice(self, n: int) -> float:
        return self.add(n) + self.add(n)

    @ray.method
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @ray.method(num_returns=2)
    def pair(self, n: int) -> tuple[int, str]:
        return n, str(n)

    @ray.method(num_returns="dynamic")
    def dynamic(self, n: int) -> Iterator[int]:
        yield from self.count(n)

    def undecorated(self, n: int) -> str:
        return str(n)


class Asynchronous:
    @ray.method(concurrency_group="io")
    async def fetch(self, key: str) -> bytes:
        return key.encode()

    @ray.method
    async def stream(self, n: int) -> AsyncIterator[bytes]:
        for i in range(n):
            yield await self.fetch(str(i))


CounterActor = ray.remote(Counter)
AsynchronousActor = ray.remote(num_cpus=1)(Asynchronous)


class Owner:
    def __init__(self, counter: ActorProxy[Counter]) -> None:
        self.counter = counter

    def add(self, n: int) -> float:
        return ray.get(self.counter.add.remote(n))


OwnerActor = ray.remote(Owner)


@ray.remote
def use(handle: ActorHandle[Counter], proxy: ActorProxy[Counter]) -> int:
    return hash(handle) + hash(proxy)


@ray.remote
class Decorated:
    def method(self, n: int) -> int:
        return n


def classes_make_handles() -> None:
    assert_type(CounterActor, ActorClass[Counter])
    assert_type(AsynchronousActor, ActorClass[Asynchronous])
    assert_type(CounterActor.remote(1), ActorHandle[Counter] | Any)
    assert_type(CounterActor.options(name="it").remote(1), ActorHandle[Counter] | Any)
    handle: ActorHandle[Counter] = CounterActor.remote(1)
    handles: list[ActorHandle[Counter]] = [CounterActor.remote() for _ in range(3)]
    handles.append(handle)
    ray.kill(handle)
    ray.kill(CounterActor.remote())


def handles_are_arguments(proxy: ActorProxy[Counter], handle: ActorHandle[Counter]) -> None:
    counter = CounterActor.remote()
    use.remote(counter, counter)
    use.remote(handle, handle)
    use.remote(handle, proxy)
    OwnerActor.remote(counter)
    counters = [CounterActor.remote() for _ in range(3)]
    total: list[float] = ray.get([counter.add.remote(1) for counter in counters])
    print(total)
    use.remote(5, counter)  # expect-error: call-overload


def a_decorator_of_a_class_is_seen_by_some_checkers_only() -> None:
    Decorated.remote()  # expect-mypy-error: attr-defined


def methods_of_a_handle_are_open(handle: ActorHandle[Counter], number: ObjectRef[int]) -> None:
    counter = CounterActor.remote(1)
    assert_type(counter.add.remote(1), Any)
    assert_type(counter.undecorated.remote(1), Any)
    assert_type(handle.undecorated.remote(number), Any)
    assert_type(handle.undecorated.options(num_returns=1).remote("no number"), Any)
    first, second = handle.pair.remote(1)
    print(ray.get(first), ray.get(second), ray.get(handle.add.remote(1)))
    for ref in handle.count.remote(3):
        print(ray.get(ref))
    assert_type(handle.__ray_call__.remote(Counter.undecorated, 1), ObjectRef[str])
    print(ray.get(handle.__ray_call__.remote(lambda self: self.value)))
    ray.get(ray.get_actor("it").method.remote())


def methods_of_a_proxy_are_checked(
    proxy: ActorProxy[Counter], number: ObjectRef[int], text: ObjectRef[str]
) -> None:
    counter: ActorProxy[Counter] = CounterActor.remote(1)
    assert_type(counter.add.remote(1), ObjectRef[float] | Any)
    assert_type(proxy.add.remote(number, text), ObjectRef[float] | Any)
    assert_type(proxy.twice.options(name="two").remote(2), ObjectRef[float] | Any)
    assert_type(proxy.count.remote(3), ObjectRefGenerator[int] | Any)
    assert_type(proxy.pair.remote(3), list[ObjectRef[Any]] | Any)
    first, _ = proxy.pair.remote(3)
    print(ray.get(first), ray.get(proxy.dynamic.remote(3)))
    total: float = ray.get(proxy.add.remote(1))
    ray.kill(proxy)
    print(total)
    text_of_it: str = ray.get(proxy.add.remote(1))  # expect-error: assignment
    print(text_of_it)
    counter.add.remote("no number")  # expect-error: call-overload
    proxy.add.remote(text)  # expect-error: arg-type
    proxy.add.remote(1, 2)  # expect-error: call-overload
    proxy.count.remote("no number")  # expect-error: call-overload
    proxy.twice.options(name="two").remote("no number")  # expect-error: call-overload
    proxy.undecorated.remote(1)  # expect-error: union-attr
    proxy.ad.remote(1)  # expect-error: union-attr


def methods_of_an_async_actor_give_what_is_awaited(proxy: ActorProxy[Asynchronous]) -> None:
    assert_type(proxy.fetch.remote("key"), ObjectRef[bytes] | Any)
    assert_type(proxy.stream.remote(3), ObjectRefGenerator[bytes] | Any)
    proxy.fetch.remote(3)  # expect-error: call-overload


def methods_keep_their_types_inside_the_class(counter: Counter) -> None:
    assert_type(counter.add(1), float)
    assert_type(list(counter.count(3)), list[int])
    counter.add("no number")  # expect-error: arg-type


def slips_are_noticed(handle: ActorHandle[Counter]) -> None:
    other: ActorHandle[Asynchronous] = handle  # expect-error: assignment
    print(other)
    CounterActor.remove(1)  # expect-error: attr-defined
    ray.kill(5)  # expect-error: arg-type
    ray.method(num_returns="many")  # expect-error: call-overload
