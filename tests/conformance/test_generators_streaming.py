"""Tasks with num_returns = "streaming", the default of generator functions: refs one by one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts, Gate

MIXED = "values of a new attempt that differ are dropped, or mixed with the old, without a word"


def counting(ray: ModuleType) -> Any:
    """Return a remote generator that yields 0, 1, ... `length` times.

    Delegated to a generator: Ray drives a stream with send(), which plain iterators lack.
    """

    @ray.remote
    def count(length):
        yield from (i for i in range(length))

    return count


def held(ray: ModuleType) -> Any:
    """Return a remote generator that stands at each of its gates, and then yields its number."""

    @ray.remote
    def hold(paths):
        for i, path in enumerate(paths):
            open(path).close()
            yield i

    return hold


def values(ray: ModuleType, generator: Any) -> list[Any]:
    """Return the values of all refs that are left."""
    return [ray.get(ref) for ref in generator]


# ---- which kind ----


def test_generator_function_streams_by_default(ray: ModuleType) -> None:
    generator = counting(ray).remote(3)
    assert isinstance(generator, ray.ObjectRefGenerator)
    refs = list(generator)
    assert [type(ref) for ref in refs] == [ray.ObjectRef] * 3
    assert ray.get(refs) == [0, 1, 2]


def test_streaming_by_name_streams(ray: ModuleType) -> None:
    @ray.remote(num_returns="streaming")
    def f():
        yield "a"

    generator = f.remote()
    assert isinstance(generator, ray.ObjectRefGenerator)
    assert values(ray, generator) == ["a"]


@pytest.mark.parametrize("num_returns", [1, 2])
def test_options_can_ask_a_generator_function_for_so_many_refs(
    ray: ModuleType, num_returns: int
) -> None:
    refs = counting(ray).options(num_returns=num_returns).remote(num_returns)
    assert isinstance(refs, ray.ObjectRef if num_returns == 1 else list)
    assert ray.get(refs) == [0, [0, 1]][num_returns - 1]


def test_options_can_ask_for_a_stream(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def f():
        yield from (i for i in range(3))

    generator = f.options(num_returns="streaming").remote()
    assert values(ray, generator) == [0, 1, 2]


def test_plain_function_does_not_stream_by_default(ray: ModuleType) -> None:
    f = ray.remote(lambda: [1, 2])
    assert isinstance(f.remote(), ray.ObjectRef)


def test_plain_function_cannot_be_asked_to_stream(ray: ModuleType) -> None:
    f = ray.remote(lambda: (i for i in range(3)))
    with pytest.raises(ValueError):
        f.options(num_returns="streaming").remote()


# ---- iteration ----


@pytest.mark.parametrize("length", [0, 1, 200])
def test_stream_has_as_many_refs_as_values_were_yielded(ray: ModuleType, length: int) -> None:
    assert values(ray, counting(ray).remote(length)) == list(range(length))


def test_stream_is_its_own_iterator(ray: ModuleType) -> None:
    generator = counting(ray).remote(2)
    assert iter(generator) is generator
    assert aiter(generator) is generator


def test_stream_at_its_end_stays_at_its_end(ray: ModuleType) -> None:
    generator = counting(ray).remote(1)
    next(generator)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(generator)
    assert list(generator) == []


def test_stream_gives_each_value_while_its_task_still_runs(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate() for _ in range(3)]
    generator = held(ray).remote([gate.path for gate in gates])
    for i, gate in enumerate(gates):
        gate.meet()
        assert ray.get(next(generator)) == i


def test_next_waits_for_the_value(ray: ModuleType, gate: Gate) -> None:
    generator = held(ray).remote([gate.path])
    opener = threading.Thread(target=gate.meet)
    opener.start()
    assert ray.get(next(generator)) == 0
    opener.join()


def test_next_waits_for_the_end(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def f(path):
        yield 0
        open(path).close()

    generator = f.remote(gate.path)
    next(generator)
    opener = threading.Thread(target=gate.meet)
    opener.start()
    with pytest.raises(StopIteration):
        next(generator)
    opener.join()


def test_next_with_a_timeout_gives_nil_when_nothing_came(ray: ModuleType, gate: Gate) -> None:
    generator = held(ray).remote([gate.path])
    assert generator._next_sync(timeout_s=0.1).is_nil()
    gate.meet()
    assert ray.get(next(generator)) == 0


def test_items_taken_without_waiting_after_a_wait_are_all_there(ray: ModuleType) -> None:
    generator, taken = counting(ray).remote(50), []
    with contextlib.suppress(StopIteration):
        while True:
            ray.wait([generator])
            ref = generator._next_sync(timeout_s=0)
            if not ref.is_nil():
                taken.append(ref)
    assert ray.get(taken) == list(range(50))


def test_streams_are_consumed_in_turn(ray: ModuleType) -> None:
    count = counting(ray)
    pairs = list(zip(count.remote(20), count.remote(20), strict=True))
    assert [ray.get(list(pair)) for pair in pairs] == [[i, i] for i in range(20)]


def test_stream_can_be_consumed_by_the_task_that_started_it(ray: ModuleType) -> None:
    count = counting(ray)

    @ray.remote
    def total():
        return sum(ray.get(list(count.remote(5))))

    assert ray.get(total.remote()) == 10


def test_stream_of_streams_passes_values_on(ray: ModuleType) -> None:
    count = counting(ray)

    @ray.remote
    def squares(length):
        for ref in count.remote(length):
            yield ray.get(ref) ** 2

    assert values(ray, squares.remote(4)) == [0, 1, 4, 9]


def test_stream_has_neither_length_nor_items_and_is_true(ray: ModuleType) -> None:
    generator = counting(ray).remote(0)
    with pytest.raises(TypeError):
        len(generator)
    with pytest.raises(TypeError):
        generator[0]
    assert bool(generator) is True


def test_stream_is_equal_to_itself_only(ray: ModuleType) -> None:
    count = counting(ray)
    first, second = count.remote(1), count.remote(1)
    assert first == first
    assert first != second
    assert len({first, second, first}) == 2


# ---- asyncio ----


def test_stream_can_be_read_with_async_for(ray: ModuleType) -> None:
    async def consume():
        return [await ref async for ref in counting(ray).remote(5)]

    assert asyncio.run(consume()) == [0, 1, 2, 3, 4]


def test_anext_waits_for_the_value_and_lets_the_loop_run(ray: ModuleType, gate: Gate) -> None:
    async def consume():
        generator = held(ray).remote([gate.path])
        pending = asyncio.ensure_future(anext(generator))
        await asyncio.to_thread(gate.meet)
        value = await (await pending)
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        return value

    assert asyncio.run(consume()) == 0


def test_anext_with_a_timeout_gives_nil_when_nothing_came(ray: ModuleType, gate: Gate) -> None:
    async def consume():
        generator = held(ray).remote([gate.path])
        nothing = await generator._next_async(timeout_s=0.1)
        await asyncio.to_thread(gate.meet)
        return nothing.is_nil(), await (await generator._next_async())

    assert asyncio.run(consume()) == (True, 0)


def test_await_of_a_failed_item_raises_its_error(ray: ModuleType) -> None:
    @ray.remote
    def f():
        yield 1
        raise KeyError("midway")

    async def consume():
        first, last = [ref async for ref in f.remote()]
        assert await first == 1
        with pytest.raises(KeyError, match="midway"):
            await last

    asyncio.run(consume())


# ---- wait ----


def test_wait_shows_a_stream_as_ready_once_it_has_an_item(ray: ModuleType, gate: Gate) -> None:
    generator = held(ray).remote([gate.path])
    assert ray.wait([generator], timeout=0.1) == ([], [generator])
    gate.meet()
    assert ray.wait([generator]) == ([generator], [])
    assert ray.get(next(generator)) == 0


def test_wait_takes_refs_and_streams_together(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    first, second = new_gate(), new_gate()
    generator = held(ray).remote([first.path])
    pending = ray.remote(lambda path: open(path).close()).remote(second.path)
    done = ray.put(1)
    assert ray.wait([pending, generator, done]) == ([done], [pending, generator])
    first.meet()
    ready, rest = ray.wait([pending, generator, done], num_returns=2)
    assert (ready, rest) == ([generator, done], [pending])


def test_wait_shows_a_stream_that_has_ended_as_ready(ray: ModuleType) -> None:
    generator = counting(ray).remote(0)
    assert ray.wait([generator]) == ([generator], [])
    with pytest.raises(StopIteration):
        next(generator)
    assert ray.wait([generator], timeout=0) == ([generator], [])


def test_wait_shows_a_stream_without_items_as_pending_until_its_task_ends(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    arrived, leave = new_gate(), new_gate()

    @ray.remote
    def f(arrived, leave):
        yield 0
        open(arrived).close()
        open(leave).close()

    generator = f.remote(arrived.path, leave.path)
    next(generator)
    arrived.meet()
    assert ray.wait([generator], timeout=0.1) == ([], [generator])
    assert not generator.is_finished()
    assert not generator.next_ready()
    leave.meet()
    assert ray.wait([generator]) == ([generator], [])
    assert generator.is_finished()
    assert not generator.next_ready()


def test_wait_refuses_the_same_stream_twice(ray: ModuleType) -> None:
    generator = counting(ray).remote(1)
    with pytest.raises(ValueError):
        ray.wait([generator, generator])


# ---- completed, is_finished, next_ready, get ----


def test_completed_is_ready_when_the_task_has_ended(ray: ModuleType, gate: Gate) -> None:
    generator = held(ray).remote([gate.path])
    completed = generator.completed()
    assert isinstance(completed, ray.ObjectRef)
    assert generator.completed() == completed
    assert ray.wait([completed], timeout=0.1) == ([], [completed])
    gate.meet()
    assert ray.get(completed) is None


def test_completed_takes_no_item(ray: ModuleType) -> None:
    generator = counting(ray).remote(3)
    ray.get(generator.completed())
    assert values(ray, generator) == [0, 1, 2]


def test_completed_as_an_argument_arrives_as_none(ray: ModuleType) -> None:
    echo = ray.remote(lambda x: [x])
    assert ray.get(echo.remote(counting(ray).remote(2).completed())) == [None]


def test_is_finished_says_whether_anything_is_left(ray: ModuleType) -> None:
    generator = counting(ray).remote(2)
    ray.get(generator.completed())
    seen = []
    for _ in range(2):
        ray.wait([generator])
        seen.append((generator.is_finished(), generator.next_ready()))
        next(generator)
    ray.wait([generator])
    seen.append((generator.is_finished(), generator.next_ready()))
    assert seen == [(False, True), (False, True), (True, False)]


def test_next_ready_is_false_while_there_is_no_item(ray: ModuleType, gate: Gate) -> None:
    generator = held(ray).remote([gate.path])
    assert not generator.next_ready()
    assert not generator.is_finished()
    gate.meet()
    ray.wait([generator])
    assert generator.next_ready()


def test_get_of_a_stream_gives_the_stream(ray: ModuleType) -> None:
    generator = counting(ray).remote(1)
    assert ray.get(generator) is generator


@pytest.mark.parametrize(
    "call",
    [lambda g: g.send(1), lambda g: g.throw(KeyError()), lambda g: g.close()],
    ids=["send", "throw", "close"],
)
def test_stream_cannot_be_spoken_to(ray: ModuleType, call: Callable[[Any], Any]) -> None:
    with pytest.raises(NotImplementedError):
        call(counting(ray).remote(1))


@pytest.mark.parametrize(
    "call",
    [lambda g: g.asend(1), lambda g: g.athrow(KeyError()), lambda g: g.aclose()],
    ids=["asend", "athrow", "aclose"],
)
def test_stream_cannot_be_spoken_to_asynchronously(
    ray: ModuleType, call: Callable[[Any], Any]
) -> None:
    async def speak():
        await call(counting(ray).remote(1))

    with pytest.raises(NotImplementedError):
        asyncio.run(speak())


# ---- values ----


def test_items_are_numbered_after_the_ref_of_completed(ray: ModuleType) -> None:
    generator = counting(ray).remote(3)
    refs = [generator.completed(), *generator]
    numbers = [int.from_bytes(ref.binary()[24:], "little") for ref in refs]
    assert numbers == [1, 2, 3, 4]
    assert len({ref.task_id() for ref in refs}) == 1


@pytest.mark.deliberately_different("a stream is driven with send(), which plain iterators lack")
def test_stream_may_delegate_to_a_plain_iterator(ray: ModuleType) -> None:
    @ray.remote
    def f():
        yield from range(3)

    assert values(ray, f.remote()) == [0, 1, 2]


def test_yielded_tuple_is_one_item_and_a_bare_yield_is_none(ray: ModuleType) -> None:
    @ray.remote
    def f():
        yield 1, 2
        yield
        yield []

    assert values(ray, f.remote()) == [(1, 2), None, []]


def test_return_value_of_the_generator_is_discarded(ray: ModuleType) -> None:
    @ray.remote
    def f():
        yield 1
        return "lost"

    generator = f.remote()
    assert values(ray, generator) == [1]
    assert ray.get(generator.completed()) is None


def test_yielded_ref_arrives_as_a_ref(ray: ModuleType) -> None:
    double = ray.remote(lambda x: 2 * x)

    @ray.remote
    def f():
        yield ray.put("put")
        yield double.remote(4)

    inner = values(ray, f.remote())
    assert [type(ref) for ref in inner] == [ray.ObjectRef] * 2
    assert ray.get(inner[1]) == 8


def test_stream_that_reuses_one_array_yields_snapshots(ray: ModuleType) -> None:
    @ray.remote
    def f():
        buffer = np.zeros(MIB)
        for i in range(3):
            buffer[:] = i
            yield buffer

    assert [int(value[-1]) for value in values(ray, f.remote())] == [0, 1, 2]


def test_item_feeds_a_task_that_runs_before_the_producer_ends(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def f(path):
        yield np.full(MIB, 7)
        open(path).close()

    generator = f.remote(gate.path)
    last = ray.remote(lambda array: int(array[-1]))
    assert ray.get(last.remote(next(generator))) == 7
    gate.meet()
    assert list(generator) == []


def test_list_of_a_stream_can_be_passed_to_a_task(ray: ModuleType) -> None:
    total = ray.remote(lambda refs: sum(ray.get(refs)))
    assert ray.get(total.remote(list(counting(ray).remote(4)))) == 6


def test_two_thousand_small_items_all_arrive(ray: ModuleType) -> None:
    assert ray.get(list(counting(ray).remote(2000))) == list(range(2000))


# ---- errors ----


@pytest.mark.parametrize("good", [0, 2])
def test_exception_is_the_last_item(ray: ModuleType, good: int) -> None:
    @ray.remote
    def f():
        yield from (i for i in range(good))
        raise KeyError("midway")

    generator = f.remote()
    *fine, last = generator
    assert ray.get(fine) == list(range(good))
    with pytest.raises(KeyError, match="midway") as info:
        ray.get(last)
    assert isinstance(info.value, ray.exceptions.RayTaskError)
    with pytest.raises(StopIteration):
        next(generator)
    assert ray.get(generator.completed()) is None
    assert last != generator.completed()


def test_stream_whose_last_item_is_an_error_is_not_finished_before_it_is_taken(
    ray: ModuleType,
) -> None:
    @ray.remote
    def f():
        yield 1
        raise KeyError("end")

    generator = f.remote()
    next(generator)
    ray.get(generator.completed())
    ray.wait([generator])
    assert generator.next_ready()
    assert not generator.is_finished()
    with pytest.raises(KeyError):
        ray.get(next(generator))
    ray.wait([generator])
    assert generator.is_finished()


def test_stop_iteration_raised_in_the_body_is_a_runtime_error(ray: ModuleType) -> None:
    @ray.remote
    def f():
        yield 1
        raise StopIteration("early")

    first, last = f.remote()
    assert ray.get(first) == 1
    with pytest.raises(RuntimeError) as info:
        ray.get(last)
    assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_stream_of_a_task_whose_argument_failed_is_one_failing_ref(ray: ModuleType) -> None:
    @ray.remote
    def fail():
        raise KeyError("cause")

    (ref,) = counting(ray).remote(fail.remote())
    with pytest.raises(KeyError, match="cause"):
        ray.get(ref)


def test_value_that_cannot_be_pickled_is_the_last_item(ray: ModuleType) -> None:
    @ray.remote
    def f():
        yield 1
        yield threading.Lock()
        yield 3

    first, last = f.remote()
    assert ray.get(first) == 1
    with pytest.raises(TypeError) as info:
        ray.get(last)
    assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_stream_of_an_async_generator_is_one_failing_ref(ray: ModuleType) -> None:
    @ray.remote
    async def f():
        yield 1

    (ref,) = f.remote()
    with pytest.raises(TypeError) as info:
        ray.get(ref)
    assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_call_that_does_not_fit_the_signature_is_refused_at_once(ray: ModuleType) -> None:
    with pytest.raises(TypeError):
        counting(ray).remote(1, 2)


@pytest.mark.parametrize("good", [0, 2])
def test_crash_without_retries_is_the_last_item(ray: ModuleType, gate: Gate, good: int) -> None:
    @ray.remote(max_retries=0)
    def f(path):
        yield from (i for i in range(good))
        open(path).close()
        os._exit(1)

    generator = f.remote(gate.path)
    assert [ray.get(next(generator)) for _ in range(good)] == list(range(good))
    gate.meet()
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(next(generator))
    with pytest.raises(StopIteration):
        next(generator)


def test_crash_is_what_completed_raises(ray: ModuleType, gate: Gate) -> None:
    @ray.remote(max_retries=0)
    def f(path):
        yield 0
        open(path).close()
        os._exit(1)

    generator = f.remote(gate.path)
    completed = generator.completed()
    next(generator)
    gate.meet()
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(completed)
    assert ray.wait([generator]) == ([generator], [])
    assert generator.next_ready()
    assert not generator.is_finished()
    assert next(generator) == completed
    ray.wait([generator])
    assert generator.is_finished()
    assert not generator.next_ready()


# ---- second attempts ----


@pytest.mark.parametrize("taken", [0, 3], ids=["none", "some"])
def test_crash_that_is_retried_delivers_each_item_once(
    ray: ModuleType, attempts: Attempts, gate: Gate, taken: int
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1)
    def f(path):
        attempt = begin()
        for i in range(5):
            if attempt == 1 and i == 3:
                open(path).close()
                os._exit(1)
            yield i

    generator = f.remote(gate.path)
    refs = [next(generator) for _ in range(taken)]
    gate.meet()
    refs.extend(generator)
    assert ray.get(refs) == [0, 1, 2, 3, 4]
    assert attempts.made() == 2


def test_crash_is_retried_by_default_and_keeps_large_items(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote
    def f():
        attempt = begin()
        for i in range(3):
            if attempt == 1 and i == 2:
                os._exit(1)
            yield np.full(MIB // 8, i)

    assert [int(value[-1]) for value in values(ray, f.remote())] == [0, 1, 2]


def test_exception_is_not_retried_by_default(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote
    def f():
        begin()
        yield 0
        raise KeyError("once")

    assert len(list(f.remote())) == 2
    assert attempts.made() == 1


def test_retry_exceptions_delivers_each_item_once(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, retry_exceptions=[KeyError])
    def f():
        attempt = begin()
        yield 0
        yield 1
        if attempt == 1:
            raise KeyError("again")
        yield 2

    generator = f.remote()
    assert values(ray, generator) == [0, 1, 2]
    assert attempts.made() == 2
    assert ray.get(generator.completed()) is None


def test_retry_exceptions_of_another_type_is_the_last_item(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, retry_exceptions=[ValueError])
    def f():
        begin()
        yield 0
        raise KeyError("other")

    _, last = f.remote()
    with pytest.raises(KeyError, match="other"):
        ray.get(last)
    assert attempts.made() == 1


def test_exhausted_retries_end_with_the_error_of_the_last_attempt(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, retry_exceptions=True)
    def f():
        attempt = begin()
        yield 0
        yield 1
        raise KeyError(f"attempt {attempt}")

    *fine, last = f.remote()
    assert ray.get(fine) == [0, 1]
    with pytest.raises(KeyError, match="attempt 2"):
        ray.get(last)


def test_exhausted_retries_after_crashes_end_with_the_crash(
    ray: ModuleType, attempts: Attempts, gate: Gate
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1)
    def f(path):
        begin()
        yield 0
        open(path).close()
        os._exit(1)

    generator = f.remote(gate.path)
    assert ray.get(next(generator)) == 0
    gate.open()
    (last,) = generator
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(last)
    assert attempts.made() == 2


def test_second_attempt_that_yields_more_delivers_the_extra_items(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, retry_exceptions=True)
    def f():
        attempt = begin()
        yield from (i for i in range(2 * attempt))
        if attempt == 1:
            raise KeyError("again")

    assert values(ray, f.remote()) == [0, 1, 2, 3]


@pytest.mark.deliberately_different(MIXED)
@pytest.mark.parametrize("second", [[0], [0, "other", 2]], ids=["fewer", "others"])
def test_second_attempt_that_differs_from_what_was_visible_fails_the_stream(
    ray: ModuleType, attempts: Attempts, second: list[Any]
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, retry_exceptions=True)
    def f():
        if begin() == 1:
            yield 0
            yield 1
            raise KeyError("again")
        yield from (value for value in second)

    *fine, last = f.remote()
    assert ray.get(fine) == [0, 1]
    with pytest.raises(ray.exceptions.StreamingGeneratorReplayInconsistentError):
        ray.get(last)


# ---- backpressure ----


def test_backpressure_pauses_the_producer_at_so_many_untaken_items(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate() for _ in range(4)]
    hold = held(ray).options(_generator_backpressure_num_objects=2)
    generator = hold.remote([gate.path for gate in gates])
    gates[0].meet()
    gates[1].meet()
    for i in range(2):
        assert ray.wait([generator.completed()], timeout=0.3)[0] == []
        assert not gates[2 + i].is_awaited()
        assert ray.get(next(generator)) == i
        gates[2 + i].meet()
    assert values(ray, generator) == [2, 3]


def test_backpressure_is_not_lifted_by_get(ray: ModuleType, new_gate: Callable[[], Gate]) -> None:
    gates = [new_gate() for _ in range(3)]
    hold = held(ray).options(_generator_backpressure_num_objects=1)
    generator = hold.remote([gate.path for gate in gates])
    gates[0].meet()
    first = next(generator)
    gates[1].meet()
    assert ray.get([first, first]) == [0, 0]
    assert ray.wait([generator.completed()], timeout=0.3)[0] == []
    assert not gates[2].is_awaited()
    gates[2].open()
    assert values(ray, generator) == [1, 2]


def test_backpressure_ends_when_the_generator_is_dropped(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate() for _ in range(4)]
    hold = held(ray).options(_generator_backpressure_num_objects=1)
    generator = hold.remote([gate.path for gate in gates])
    gates[0].meet()
    assert ray.get(next(generator)) == 0
    gates[1].meet()
    del generator
    gates[2].meet()
    gates[3].meet()


def test_backpressure_lets_all_items_through(ray: ModuleType) -> None:
    count = counting(ray).options(_generator_backpressure_num_objects=1)
    assert values(ray, count.remote(50)) == list(range(50))


# ---- several values a yield ----


def test_tuple_of_so_many_values_a_yield_makes_so_many_items(ray: ModuleType) -> None:
    @ray.remote(_num_objects_per_yield=2)
    def pairs():
        yield 1, 2
        yield [3, np.full(MIB, 4)]

    *first, last = list(pairs.remote())
    assert ray.get(first) == [1, 2, 3]
    assert ray.get(last).sum() == 4 * MIB


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ((3, 4, 5), "yielded 3 objects"),
        ((3,), "yielded 1 objects"),
        (7, "tuple or list of length 2"),
        ("ab", "tuple or list of length 2"),
        ({"a": 1, "b": 2}, "tuple or list of length 2"),
    ],
    ids=["more", "fewer", "one value", "str", "dict"],
)
def test_yield_of_another_number_of_values_ends_the_stream(
    ray: ModuleType, wrong: Any, word: str
) -> None:
    @ray.remote(_num_objects_per_yield=2)
    def pairs():
        yield 1, 2
        yield wrong
        yield 5, 6

    *first, last = list(pairs.remote())
    assert ray.get(first) == [1, 2]
    with pytest.raises(ValueError, match=word):
        ray.get(last)


def test_exception_between_tuples_is_one_item(ray: ModuleType) -> None:
    @ray.remote(_num_objects_per_yield=2)
    def pairs():
        yield 1, 2
        raise KeyError("x")

    *first, last = list(pairs.remote())
    assert ray.get(first) == [1, 2]
    with pytest.raises(KeyError):
        ray.get(last)


def test_tuples_stay_tuples_where_the_generator_does_not_stream(ray: ModuleType) -> None:
    @ray.remote(_num_objects_per_yield=2, num_returns=2)
    def pairs():
        yield 1, 2
        yield 3, 4

    assert ray.get(pairs.remote()) == [(1, 2), (3, 4)]


def test_several_values_a_yield_are_for_the_decorator(ray: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"_num_objects_per_yield .*overridden"):
        counting(ray).options(_num_objects_per_yield=2)
    with pytest.raises(ValueError, match="_num_objects_per_yield"):
        ray.remote(_num_objects_per_yield=0)(lambda: 1)


def test_methods_yield_several_values_too(ray: ModuleType) -> None:
    @ray.remote
    class Pairs:
        @ray.method(_num_objects_per_yield=2)
        def plain(self):
            yield 1, 2

    actor = Pairs.remote()
    assert values(ray, actor.plain.remote()) == [1, 2]
    with pytest.raises(ValueError, match="_num_objects_per_yield"):
        actor.plain.options(_num_objects_per_yield=3).remote()


def test_async_methods_yield_several_values_too(ray: ModuleType) -> None:
    @ray.remote
    class Pairs:
        @ray.method(_num_objects_per_yield=2)
        async def pairs(self):
            for i in range(2):
                await asyncio.sleep(0)
                yield i, 10 + i

        @ray.method(_num_objects_per_yield=2)
        async def wrong(self):
            yield 1, 2, 3

    actor = Pairs.remote()
    assert values(ray, actor.pairs.remote()) == [0, 10, 1, 11]
    (ref,) = list(actor.wrong.remote())
    with pytest.raises(ValueError, match="yielded 3 objects"):
        ray.get(ref)


# ---- dropping ----


def test_dropped_generator_frees_what_was_not_taken(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote
    def f(arrived, leave, end):
        yield np.zeros(2 * MIB)  # 16 MiB of the store's 100
        open(arrived).close()
        open(leave).close()
        for _ in range(8):
            yield np.zeros(2 * MIB)
        open(end).close()

    arrived, leave, end = new_gate(), new_gate(), new_gate()
    generator = f.remote(arrived.path, leave.path, end.path)
    arrived.meet()
    del generator
    leave.meet()
    end.meet()


def test_dropped_generator_lets_its_task_run_to_the_end(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate() for _ in range(3)]
    generator = held(ray).remote([gate.path for gate in gates])
    gates[0].meet()
    del generator
    gates[1].meet()
    gates[2].meet()


def test_ref_that_was_taken_outlives_the_generator(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def f(path):
        yield np.full(MIB, 1)
        yield np.full(MIB, 2)
        open(path).close()

    generator = f.remote(gate.path)
    refs = [next(generator), next(generator)]
    del generator
    gate.meet()
    assert [int(value[-1]) for value in ray.get(refs)] == [1, 2]
