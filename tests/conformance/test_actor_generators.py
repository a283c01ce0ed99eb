"""Generator methods: each kind of generator in each way that an actor can serve its calls."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .actors import accepted, crash, wait_until_gone
from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts, Gate

OTHERS_RUN = ["threaded", "async"]
PLAIN = ["sync", "threaded", "plain in async"]
WAYS = [*PLAIN, "async"]


def generating(ray: ModuleType, way: str, **options: Any) -> Any:
    """Return an actor class with generator methods, served the given way.

    `hold` stands at each of its gates, and then yields its number; `count` yields 0, 1, ...
    Nothing is delegated to plain iterators, for Ray drives a stream with send().
    """

    class Plain:
        def __init__(self):
            self.yielded = 0

        def count(self, length, failing_at=None, error=KeyError):
            for i in range(length + 1):
                if i == failing_at:
                    raise error(f"at {i}")
                if i < length:
                    self.yielded += 1
                    yield i
            return "lost"

        def hold(self, paths):
            for i, path in enumerate(paths):
                open(path).close()
                yield i

        def die(self, path, how):
            yield 0
            open(path).close()
            how()
            yield 1

        def is_main(self):
            yield threading.current_thread() is threading.main_thread()

        def reset(self):
            self.yielded = 0

        def so_far(self):
            return self.yielded

    class PlainInAsync(Plain):
        async def nothing(self):
            pass

    class Async:
        def __init__(self):
            self.yielded = 0

        async def count(self, length, failing_at=None, error=KeyError):
            for i in range(length + 1):
                if i == failing_at:
                    raise error(f"at {i}")
                if i < length:
                    self.yielded += 1
                    yield i
                    await asyncio.sleep(0)

        async def hold(self, paths):
            for i, path in enumerate(paths):
                await asyncio.to_thread(lambda path=path: open(path).close())
                yield i

        async def die(self, path, how):
            yield 0
            await asyncio.to_thread(lambda: open(path).close())
            how()
            yield 1

        async def reset(self):
            self.yielded = 0

        async def so_far(self):
            return self.yielded

    if way == "threaded":
        options["max_concurrency"] = 2
    cls = {"plain in async": PlainInAsync, "async": Async}.get(way, Plain)
    return ray.remote(**options)(cls) if options else ray.remote(cls)


def shared(ray: ModuleType, way: str) -> Any:
    """Return the actor of the given way that the cases which leave it whole have in common."""
    options = {"name": f"generating, {way}", "lifetime": "detached", "get_if_exists": True}
    actor = generating(ray, way).options(**options).remote()
    ray.get(actor.reset.remote(), timeout=30)
    return actor


def values(ray: ModuleType, generator: Any) -> list[Any]:
    """Return the values of all refs that are left."""
    return [ray.get(ref, timeout=30) for ref in generator]


# ---- streams ----


@pytest.mark.parametrize("way", WAYS)
def test_stream_of_a_method_gives_each_value_while_the_method_runs(
    ray: ModuleType, new_gate: Callable[[], Gate], way: str
) -> None:
    gates = [new_gate() for _ in range(3)]
    actor = shared(ray, way)
    stream = actor.hold.remote([gate.path for gate in gates])
    assert isinstance(stream, ray.ObjectRefGenerator)
    for i, gate in enumerate(gates):
        gate.meet()
        assert ray.get(next(stream)) == i
    with pytest.raises(StopIteration):
        next(stream)
    assert ray.get(stream.completed()) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("good", [0, 2, 4])
def test_exception_of_a_method_is_the_last_item(ray: ModuleType, way: str, good: int) -> None:
    actor = shared(ray, way)
    *fine, last = actor.count.remote(4, failing_at=good)
    assert ray.get(fine) == list(range(good))
    with pytest.raises(KeyError, match=f"at {good}") as caught:
        ray.get(last)
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert ".count()" in str(caught.value)
    assert ray.get(actor.so_far.remote()) == good


@pytest.mark.parametrize("way", WAYS)
def test_stop_iteration_raised_in_a_method_is_a_runtime_error(ray: ModuleType, way: str) -> None:
    actor = shared(ray, way)
    _, last = actor.count.remote(2, failing_at=1, error=StopIteration)
    with pytest.raises(RuntimeError):
        ray.get(last)


@pytest.mark.parametrize("way", WAYS)
def test_empty_stream_of_a_method_ends_at_once(ray: ModuleType, way: str) -> None:
    actor = shared(ray, way)
    assert list(actor.count.remote(0)) == []


@pytest.mark.parametrize("way", WAYS)
def test_streams_of_one_actor_follow_each_other(ray: ModuleType, way: str) -> None:
    actor = shared(ray, way)
    streams = [actor.count.remote(n) for n in (3, 1, 2)]
    assert [values(ray, stream) for stream in streams] == [[0, 1, 2], [0], [0, 1]]
    assert ray.get(actor.so_far.remote()) == 6


@pytest.mark.parametrize("way", WAYS)
def test_many_small_items_of_a_method_all_arrive(ray: ModuleType, way: str) -> None:
    actor = shared(ray, way)
    assert values(ray, actor.count.remote(300)) == list(range(300))


@pytest.mark.parametrize("way", WAYS)
def test_stream_of_a_method_is_read_with_async_for(ray: ModuleType, way: str) -> None:
    actor = shared(ray, way)

    async def read() -> list[int]:
        return [await ref async for ref in actor.count.remote(3)]

    assert asyncio.run(read()) == [0, 1, 2]


def test_wait_takes_streams_of_actors_and_references_together(ray: ModuleType, gate: Gate) -> None:
    held = shared(ray, "sync").hold.remote([gate.path])
    fast = shared(ray, "async").count.remote(1)
    ref = ray.put(1)
    ready, pending = ray.wait([held, fast, ref], num_returns=2, timeout=30)
    assert (ready, pending) == ([fast, ref], [held])
    gate.meet()
    assert ray.wait([held], timeout=30)[0] == [held]


def test_call_of_a_generator_method_with_wrong_arguments_is_refused(ray: ModuleType) -> None:
    actor = shared(ray, "sync")
    with pytest.raises(TypeError, match="missing a required argument: 'length'"):
        actor.count.remote()
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        actor.count.remote(1, other=2)


@pytest.mark.parametrize("way", WAYS)
def test_stream_of_a_call_whose_argument_failed_is_one_failing_item(
    ray: ModuleType, way: str
) -> None:
    @ray.remote
    def fail():
        raise OSError("no length")

    actor = shared(ray, way)
    (only,) = actor.count.remote(fail.remote())
    with pytest.raises(OSError, match="no length"):
        ray.get(only)
    assert ray.get(actor.so_far.remote()) == 0


def test_stream_of_a_dead_actor_is_one_failing_item(ray: ModuleType) -> None:
    actor = generating(ray, "sync").remote()
    pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    ray.kill(actor)
    wait_until_gone(pid)
    (only,) = actor.count.remote(3)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(only, timeout=30)


def test_stream_of_an_actor_whose_constructor_failed_is_one_failing_item(ray: ModuleType) -> None:
    @ray.remote
    class Broken:
        def __init__(self):
            raise KeyError("broken")

        def count(self):
            yield 1

    actor = Broken.remote()
    (only,) = actor.count.remote()
    with pytest.raises(ray.exceptions.ActorDiedError, match="broken"):
        ray.get(only, timeout=30)


def test_value_of_a_method_that_cannot_be_pickled_is_the_last_item(ray: ModuleType) -> None:
    @ray.remote
    class Locks:
        def locks(self):
            yield 1
            yield threading.Lock()
            yield 2

        def ping(self):
            return "alive"

    actor = Locks.remote()
    first, last = actor.locks.remote()
    assert ray.get(first) == 1
    with pytest.raises(TypeError):
        ray.get(last)
    assert ray.get(actor.ping.remote()) == "alive"


def test_large_items_of_a_method_arrive_whole(ray: ModuleType) -> None:
    @ray.remote
    class Arrays:
        def arrays(self, number):
            for i in range(number):
                yield np.full(MIB // 8, i)

        async def async_arrays(self, number):
            for i in range(number):
                yield np.full(MIB // 8, i)

    actor = Arrays.remote()
    for method in (actor.arrays, actor.async_arrays):
        assert [int(array.sum()) for array in values(ray, method.remote(3))] == [
            i * (MIB // 8) for i in range(3)
        ]


# ---- static ----


@pytest.mark.parametrize("way", PLAIN)
def test_method_with_a_number_of_returns_gives_so_many_references(
    ray: ModuleType, way: str
) -> None:
    actor = shared(ray, way)
    refs = actor.count.options(num_returns=3).remote(3)
    assert ray.get(refs) == [0, 1, 2]


@pytest.mark.parametrize("way", PLAIN)
def test_method_that_yields_too_few_values_fails_the_missing_ones(
    ray: ModuleType, way: str
) -> None:
    actor = shared(ray, way)
    first, second, third = actor.count.options(num_returns=3).remote(2)
    assert ray.get([first, second]) == [0, 1]
    with pytest.raises(ValueError):
        ray.get(third)


@pytest.mark.parametrize("way", PLAIN)
def test_method_that_raises_midway_fails_the_later_returns(ray: ModuleType, way: str) -> None:
    actor = shared(ray, way)
    first, *later = actor.count.options(num_returns=3).remote(3, failing_at=1)
    assert ray.get(first) == 0
    for ref in later:
        with pytest.raises(KeyError, match="at 1"):
            ray.get(ref)
    assert ray.get(actor.so_far.remote()) == 1


@pytest.mark.deliberately_different("an exception after the last value is dropped without a word")
@pytest.mark.parametrize("way", PLAIN)
def test_method_that_raises_after_its_last_value_fails_the_last_return(
    ray: ModuleType, way: str
) -> None:
    actor = shared(ray, way)
    first, second = actor.count.options(num_returns=2).remote(2, failing_at=2)
    assert ray.get(first) == 0
    with pytest.raises(KeyError, match="at 2"):
        ray.get(second)


@pytest.mark.deliberately_different("values beyond num_returns are dropped without a word")
@pytest.mark.parametrize("way", PLAIN)
def test_method_that_yields_too_many_values_fails_the_last_return(
    ray: ModuleType, way: str
) -> None:
    actor = shared(ray, way)
    first, last = actor.count.options(num_returns=2).remote(5)
    assert ray.get(first) == 0
    with pytest.raises(ValueError):
        ray.get(last)


def test_generator_method_without_returns_gives_no_reference(ray: ModuleType) -> None:
    assert shared(ray, "sync").count.options(num_returns=0).remote(3) is None


# ---- dynamic ----


@pytest.mark.parametrize("way", PLAIN)
def test_dynamic_method_gives_one_reference_to_all_values(ray: ModuleType, way: str) -> None:
    actor = shared(ray, way)
    outer = actor.count.options(num_returns="dynamic").remote(3)
    generator = ray.get(outer)
    assert len(generator) == 3
    assert values(ray, generator) == [0, 1, 2]


@pytest.mark.parametrize("way", PLAIN)
@pytest.mark.parametrize("good", [0, 2, 4])
def test_dynamic_method_that_raises_ends_with_the_exception(
    ray: ModuleType, way: str, good: int
) -> None:
    actor = shared(ray, way)
    *fine, last = ray.get(actor.count.options(num_returns="dynamic").remote(4, failing_at=good))
    assert ray.get(fine) == list(range(good))
    with pytest.raises(KeyError, match=f"at {good}"):
        ray.get(last)


def test_dynamic_reference_of_a_method_is_passed_to_a_task(ray: ModuleType) -> None:
    actor = shared(ray, "sync")
    total = ray.remote(lambda generator: sum(ray.get(ref) for ref in generator))
    outer = actor.count.options(num_returns="dynamic").remote(4)
    assert ray.get(total.remote(outer), timeout=30) == 6
    assert ray.get(total.remote(ray.get(outer)), timeout=30) == 6


@pytest.mark.parametrize("num_returns", [2, "dynamic"])
def test_async_generator_method_only_streams(ray: ModuleType, num_returns: Any) -> None:
    refs = shared(ray, "async").count.options(num_returns=num_returns).remote(2)
    for ref in refs if num_returns == 2 else [refs]:
        with pytest.raises(ray.exceptions.RayTaskError):
            ray.get(ref, timeout=30)


# ---- which methods, and which options ----


def test_static_class_and_inherited_methods_may_be_generators(ray: ModuleType) -> None:
    class Base:
        def letters(self):
            yield "a"

        def numbers(self):
            yield 1

    @ray.remote
    class Derived(Base):
        def letters(self):
            yield from super().letters()
            yield "b"

        @staticmethod
        def count(length):
            yield from (i for i in range(length))

        @classmethod
        def name(cls):
            yield cls.__name__

    actor = Derived.remote()
    methods = [actor.letters, actor.numbers, actor.name]
    assert [values(ray, method.remote()) for method in methods] == [["a", "b"], [1], ["Derived"]]
    assert values(ray, actor.count.remote(3)) == [0, 1, 2]


def test_method_decorator_says_which_kind_of_generator(ray: ModuleType) -> None:
    @ray.remote
    class Kinds:
        @ray.method(num_returns=2)
        def two(self):
            yield 0
            yield 1

        @ray.method(num_returns="dynamic")
        def dynamic(self):
            yield 0
            yield 1

        @ray.method(num_returns="streaming")
        def streaming(self):
            yield 0
            yield 1

    actor = Kinds.remote()
    assert ray.get(actor.two.remote()) == [0, 1]
    assert values(ray, ray.get(actor.dynamic.remote())) == [0, 1]
    assert values(ray, actor.streaming.remote()) == [0, 1]
    assert values(ray, actor.two.options(num_returns="streaming").remote()) == [0, 1]
    assert ray.get(actor.streaming.options(num_returns=2).remote()) == [0, 1]


@pytest.mark.parametrize("kind", ["dynamic", "streaming"])
def test_method_that_is_no_generator_cannot_be_declared_one(ray: ModuleType, kind: str) -> None:
    with pytest.raises(ValueError, match="generator"):

        @ray.remote
        class Plain:
            @ray.method(num_returns=kind)
            def plain(self):
                return 1

        Plain.remote()


def test_call_of_a_method_that_is_no_generator_cannot_stream(ray: ModuleType) -> None:
    actor = shared(ray, "sync")
    with pytest.raises(ValueError, match="generator"):
        actor.so_far.options(num_returns="streaming").remote()


def test_name_of_a_call_is_what_its_stream_names(ray: ModuleType) -> None:
    actor = shared(ray, "sync")
    (only,) = actor.count.options(name="called so").remote(1, failing_at=0)
    with pytest.raises(KeyError, match="called so"):
        ray.get(only)


# ---- what else the actor does meanwhile ----


def test_stream_of_a_sync_actor_holds_up_its_other_calls(ray: ModuleType, gate: Gate) -> None:
    actor = shared(ray, "sync")
    stream = actor.hold.remote([gate.path])
    later = actor.so_far.remote()
    assert ray.wait([later], timeout=0.2)[0] == []
    gate.meet()
    assert ray.get(later, timeout=30) == 0
    assert values(ray, stream) == [0]


@pytest.mark.parametrize("way", OTHERS_RUN)
def test_stream_lets_other_calls_through(ray: ModuleType, gate: Gate, way: str) -> None:
    actor = shared(ray, way)
    stream = actor.hold.remote([gate.path])
    assert ray.get(actor.so_far.remote(), timeout=30) == 0
    gate.meet()
    assert values(ray, stream) == [0]


@pytest.mark.parametrize("way", OTHERS_RUN)
def test_streams_of_an_actor_run_at_once(
    ray: ModuleType, new_gate: Callable[[], Gate], way: str
) -> None:
    gates = [[new_gate(), new_gate()] for _ in range(2)]
    actor = shared(ray, way)
    first, second = (actor.hold.remote([gate.path for gate in pair]) for pair in gates)
    for i in range(2):
        for stream, pair in ((second, gates[1]), (first, gates[0])):
            pair[i].meet()
            assert ray.get(next(stream), timeout=30) == i


@pytest.mark.parametrize(("way", "is_main"), [("sync", True), ("threaded", False)])
def test_generators_of_a_sync_actor_alone_run_in_its_main_thread(
    ray: ModuleType, way: str, is_main: bool
) -> None:
    assert values(ray, shared(ray, way).is_main.remote()) == [is_main]


def test_generator_method_runs_in_its_concurrency_group(ray: ModuleType, gate: Gate) -> None:
    @ray.remote(concurrency_groups={"io": 1})
    class Grouped:
        @ray.method(concurrency_group="io")
        def read(self, path):
            open(path).close()
            yield "read"

        def ping(self):
            yield "ping"

    actor = Grouped.remote()
    read = actor.read.remote(gate.path)
    assert values(ray, actor.ping.remote()) == ["ping"]
    gate.meet()
    assert values(ray, read) == ["read"]


@pytest.mark.parametrize("way", WAYS)
def test_state_that_a_generator_changes_is_seen_by_later_calls(ray: ModuleType, way: str) -> None:
    actor = shared(ray, way)
    stream = actor.count.remote(5)
    ray.get(stream.completed(), timeout=30)
    assert ray.get(actor.so_far.remote()) == 5


# ---- backpressure ----


@pytest.mark.parametrize("way", WAYS)
def test_backpressure_pauses_a_method_at_so_many_untaken_items(
    ray: ModuleType, new_gate: Callable[[], Gate], way: str
) -> None:
    gates = [new_gate() for _ in range(3)]
    actor = shared(ray, way)
    method = actor.hold.options(_generator_backpressure_num_objects=1)
    stream = method.remote([gate.path for gate in gates])
    gates[0].meet()
    for i in range(2):
        assert ray.wait([stream.completed()], timeout=0.2)[0] == []
        assert not gates[i + 1].is_awaited()
        assert ray.get(next(stream), timeout=30) == i
        gates[i + 1].meet()
    assert values(ray, stream) == [2]


@pytest.mark.parametrize("way", OTHERS_RUN)
def test_paused_stream_lets_other_calls_through(ray: ModuleType, way: str) -> None:
    actor = shared(ray, way)
    stream = actor.count.options(_generator_backpressure_num_objects=1).remote(5)
    assert ray.get(next(stream), timeout=30) == 0
    assert ray.get(actor.so_far.remote(), timeout=30) in (1, 2)
    assert values(ray, stream) == [1, 2, 3, 4]


def test_paused_stream_of_a_sync_actor_holds_up_other_calls(ray: ModuleType) -> None:
    actor = shared(ray, "sync")
    stream = actor.count.options(_generator_backpressure_num_objects=1).remote(2)
    later = actor.so_far.remote()
    assert ray.wait([later], timeout=0.2)[0] == []
    assert values(ray, stream) == [0, 1]
    assert ray.get(later, timeout=30) == 2


@pytest.mark.parametrize("way", WAYS)
def test_backpressure_on_a_method_ends_when_the_stream_is_dropped(
    ray: ModuleType, new_gate: Callable[[], Gate], way: str
) -> None:
    gates = [new_gate() for _ in range(3)]
    actor = shared(ray, way)
    method = actor.hold.options(_generator_backpressure_num_objects=1)
    stream = method.remote([gate.path for gate in gates])
    gates[0].meet()
    assert ray.wait([stream], timeout=30)[0] == [stream]
    del stream
    gates[1].meet()
    gates[2].meet()
    assert ray.get(actor.so_far.remote(), timeout=30) == 0


def test_backpressure_is_said_by_the_method_decorator(ray: ModuleType) -> None:
    @ray.remote
    class Slow:
        def __init__(self):
            self.yielded = 0

        @ray.method(_generator_backpressure_num_objects=2)
        async def count(self):
            for i in range(6):
                self.yielded += 1
                yield i

        async def so_far(self):
            return self.yielded

    actor = Slow.remote()
    stream = actor.count.remote()
    assert ray.get(next(stream), timeout=30) == 0
    assert ray.wait([stream.completed()], timeout=0.2)[0] == []
    assert ray.get(actor.so_far.remote()) <= 4
    assert values(ray, stream) == [1, 2, 3, 4, 5]


def test_backpressure_of_an_actor_counts_the_items_of_all_its_streams(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    actor = generating(ray, "threaded", _actor_generator_backpressure_num_objects=2).remote()
    first_gates, second_gates = [[new_gate() for _ in range(3)] for _ in range(2)]
    first = actor.hold.remote([gate.path for gate in first_gates])
    first_gates[0].meet()
    first_gates[1].meet()
    second = actor.hold.remote([gate.path for gate in second_gates])
    second_gates[0].open()
    assert ray.wait([first.completed(), second.completed()], timeout=0.3)[0] == []
    assert not first_gates[2].is_awaited()
    assert not second_gates[1].is_awaited()
    for gate in [*first_gates, *second_gates]:
        gate.open()
    assert [ray.get(next(first)) for _ in range(2)] == [0, 1]
    assert len(list(second)) == 3
    assert len(list(first)) == 1


# ---- dropping, passing ----


@pytest.mark.parametrize("way", WAYS)
def test_dropped_stream_lets_its_method_run_to_the_end(
    ray: ModuleType, new_gate: Callable[[], Gate], way: str
) -> None:
    gates = [new_gate() for _ in range(2)]
    actor = shared(ray, way)
    stream = actor.hold.remote([gate.path for gate in gates])
    gates[0].meet()
    assert ray.get(next(stream), timeout=30) == 0
    del stream
    gates[1].meet()
    assert ray.get(actor.so_far.remote(), timeout=30) == 0


@pytest.mark.parametrize("way", ["sync", "async"])
def test_stream_goes_on_when_the_last_handle_is_gone(
    ray: ModuleType, new_gate: Callable[[], Gate], way: str
) -> None:
    gates = [new_gate() for _ in range(3)]
    stream = generating(ray, way).remote().hold.remote([gate.path for gate in gates])
    for i, gate in enumerate(gates):
        gate.meet()
        assert ray.get(next(stream), timeout=30) == i
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("kind", ["dynamic", "streaming"])
def test_items_outlive_the_stream_and_the_actor(ray: ModuleType, kind: str) -> None:
    actor = generating(ray, "sync").remote()
    stream = actor.count.options(num_returns=kind).remote(3)
    refs = list(ray.get(stream))
    pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    del stream
    ray.kill(actor)
    wait_until_gone(pid)
    assert ray.get(refs) == [0, 1, 2]


@pytest.mark.parametrize("way", OTHERS_RUN)
def test_item_of_a_stream_feeds_a_call_of_the_same_actor(
    ray: ModuleType, gate: Gate, new_gate: Callable[[], Gate], way: str
) -> None:
    actor = shared(ray, way)
    last = new_gate()
    stream = actor.hold.remote([gate.path, last.path])
    gate.meet()
    assert values(ray, actor.count.remote(next(stream))) == []
    last.meet()
    assert values(ray, stream) == [1]


def test_streams_of_actors_form_a_pipeline(ray: ModuleType) -> None:
    @ray.remote(num_cpus=0)
    class Stage:
        def source(self, n):
            yield from (i for i in range(n))

        def double(self, upstream, n):
            for ref in upstream.source.remote(n):
                yield 2 * ray.get(ref)

    assert values(ray, Stage.remote().double.remote(Stage.remote(), 4)) == [0, 2, 4, 6]


def test_stream_is_read_by_the_task_that_called_the_method(ray: ModuleType) -> None:
    actor = shared(ray, "sync")
    read = ray.remote(lambda handle: [ray.get(ref) for ref in handle.count.remote(3)])
    assert ray.get(read.remote(actor), timeout=30) == [0, 1, 2]


def test_async_generator_awaits_references_between_its_items(ray: ModuleType) -> None:
    @ray.remote
    class Doubles:
        async def double(self, refs):
            for ref in refs:
                yield 2 * await ref

    task = ray.remote(lambda i: i)
    stream = Doubles.remote().double.remote([task.remote(i) for i in range(3)])
    assert values(ray, stream) == [0, 2, 4]


def test_async_generator_reads_the_stream_of_another_actor(ray: ModuleType) -> None:
    @ray.remote
    class Reads:
        async def read(self, other, n):
            async for ref in other.count.remote(n):
                yield 10 * await ref

    other = shared(ray, "async")
    assert values(ray, Reads.remote().read.remote(other, 3)) == [0, 10, 20]


def test_yielded_reference_of_a_method_arrives_as_a_reference(ray: ModuleType) -> None:
    @ray.remote
    class Refs:
        def refs(self):
            self.kept = [ray.put(1), ray.remote(lambda: 2).remote()]  # Ray may lose them in between
            yield self.kept[0]
            yield self.kept[1]

    actor = Refs.remote()
    assert [ray.get(ray.get(ref)) for ref in actor.refs.remote()] == [1, 2]


IN_TRANSIT = "now and then an actor is ended whose only handle is on its way to the reader"


@pytest.mark.parametrize(
    "kept",
    [
        True,
        pytest.param(
            False, marks=pytest.mark.deliberately_different(IN_TRANSIT, runs_on_ray=False)
        ),
    ],
)
def test_method_yields_handles_of_actors(ray: ModuleType, kept: bool) -> None:
    cls = generating(ray, "sync")

    @ray.remote
    class Makes:
        def actors(self, n):
            self.kept = []
            for _ in range(n):
                actor = cls.remote()
                if kept:
                    self.kept.append(actor)
                yield actor
                del actor

    maker = Makes.remote()  # on Ray they end with it
    actors = values(ray, maker.actors.remote(2))
    assert ray.get([actor.so_far.remote() for actor in actors], timeout=30) == [0, 0]


# ---- death ----


EXIT_ITEM = "an async actor's exit_actor() is an item of its own, before that of its death"
EXITS = [
    "sync",
    "threaded",
    pytest.param("plain in async", marks=pytest.mark.deliberately_different(EXIT_ITEM)),
    pytest.param("async", marks=pytest.mark.deliberately_different(EXIT_ITEM)),
]


@pytest.mark.parametrize("way", WAYS)
def test_crash_of_an_actor_is_the_last_item_of_its_stream(
    ray: ModuleType, gate: Gate, way: str
) -> None:
    stream = generating(ray, way).remote().die.remote(gate.path, crash())
    completed = stream.completed()
    assert ray.get(next(stream), timeout=30) == 0
    gate.meet()
    (last,) = stream
    for ref in (last, completed):
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(ref, timeout=30)


def test_kill_of_an_actor_is_the_last_item_of_its_stream(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate(), new_gate()]
    actor = generating(ray, "sync").remote()
    stream = actor.hold.remote([gate.path for gate in gates])
    gates[0].meet()
    assert ray.get(next(stream), timeout=30) == 0
    ray.kill(actor)
    (last,) = stream
    with pytest.raises(ray.exceptions.ActorDiedError, match=r"ray\.kill"):
        ray.get(last, timeout=30)


@pytest.mark.parametrize("way", EXITS)
def test_exit_of_an_actor_is_the_last_item_of_its_stream(
    ray: ModuleType, gate: Gate, way: str
) -> None:
    actor = generating(ray, way).remote()
    stream = actor.die.remote(gate.path, lambda: ray.actor.exit_actor())
    assert ray.get(next(stream), timeout=30) == 0
    gate.meet()
    (last,) = stream
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(last, timeout=30)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_crash_of_an_actor_that_restarts_ends_the_stream_but_not_the_actor(
    ray: ModuleType, gate: Gate, way: str
) -> None:
    actor = generating(ray, way, max_restarts=1).remote()
    stream = actor.die.remote(gate.path, crash())
    assert ray.get(next(stream), timeout=30) == 0
    gate.meet()
    (last,) = stream
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(last, timeout=30)
    again = actor.count.options(max_task_retries=-1)  # on Ray it may come too early
    assert values(ray, again.remote(2)) == [0, 1]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_crash_with_task_retries_delivers_each_item_once(
    ray: ModuleType, attempts: Attempts, gate: Gate, way: str
) -> None:
    begin = attempts.begin

    def die_once() -> None:
        if begin() == 1:
            os._exit(1)

    actor = generating(ray, way, max_restarts=1, max_task_retries=-1).remote()
    stream = actor.die.remote(gate.path, die_once)
    assert ray.get(next(stream), timeout=30) == 0
    gate.meet()
    gate.open()
    assert values(ray, stream) == [1]
    assert attempts.made() == 2


@pytest.mark.parametrize("num_returns", [2, "dynamic"])
def test_crash_fails_what_a_static_or_dynamic_method_has_not_yielded(
    ray: ModuleType, gate: Gate, num_returns: Any
) -> None:
    actor = generating(ray, "sync").remote()
    refs = actor.die.options(num_returns=num_returns).remote(gate.path, crash())
    gate.meet()
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(refs if num_returns == "dynamic" else refs[1], timeout=30)


@pytest.mark.parametrize("num_returns", [2, "dynamic"])
def test_retried_crash_gives_all_values_of_a_static_or_dynamic_method(
    ray: ModuleType, attempts: Attempts, gate: Gate, num_returns: Any
) -> None:
    begin = attempts.begin

    def die_once() -> None:
        if begin() == 1:
            os._exit(1)

    actor = generating(ray, "sync", max_restarts=1, max_task_retries=5).remote()
    refs = actor.die.options(num_returns=num_returns).remote(gate.path, die_once)
    gate.open()
    if num_returns == "dynamic":
        refs = list(ray.get(refs, timeout=30))
    assert ray.get(refs, timeout=30) == [0, 1]
    assert attempts.made() == 2


def test_exception_that_is_retried_delivers_each_item_once(ray: ModuleType) -> None:
    @ray.remote(max_task_retries=2)
    class Flaky:
        def __init__(self):
            self.attempts = 0

        @ray.method(retry_exceptions=[KeyError])
        def count(self):
            self.attempts += 1
            yield 0
            if self.attempts < 3:
                raise KeyError(self.attempts)
            yield 1

        def tries(self):
            return self.attempts

    actor = Flaky.remote()
    assert values(ray, actor.count.remote()) == [0, 1]
    assert ray.get(actor.tries.remote()) == 3


def test_exception_of_a_method_that_was_retried_too_often_is_the_last_item(
    ray: ModuleType,
) -> None:
    @ray.remote(max_task_retries=1)
    class Fails:
        def __init__(self):
            self.attempts = 0

        def count(self):
            self.attempts += 1
            yield 0
            raise KeyError(f"attempt {self.attempts}")

    *fine, last = Fails.remote().count.options(retry_exceptions=True).remote()
    assert ray.get(fine) == [0]
    with pytest.raises(KeyError, match="attempt 2"):
        ray.get(last, timeout=30)


# ---- limits ----


def test_call_of_a_generator_method_is_pending_until_it_ends(ray: ModuleType, gate: Gate) -> None:
    actor = generating(ray, "sync", max_pending_calls=1).remote()
    stream = actor.hold.remote([gate.path])
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
        actor.so_far.remote()
    gate.meet()
    assert values(ray, stream) == [0]

    assert ray.get(accepted(ray, actor.so_far.remote), timeout=30) == 0
