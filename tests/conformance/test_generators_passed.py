"""Streams that are passed on: with an argument, a result, a stored value.

Ray refuses to pickle a stream. Here it moves with the value that contains it: who reads the value
goes on where the sender stopped, and the sender is told so.
"""

from __future__ import annotations

import os
import pickle
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts, Gate

MOVES = "a stream moves with the value that contains it; Ray refuses to pickle it"
moves = pytest.mark.deliberately_different(MOVES)


def counting(ray: ModuleType) -> Any:
    """Return a remote generator that yields 0, 1, ... `length` times."""

    @ray.remote
    def count(length):
        yield from (i for i in range(length))

    return count


def summing(ray: ModuleType) -> Any:
    """Return a task that takes all that is left of a stream, and its values' sum."""

    @ray.remote
    def total(stream):
        return sum(ray.get(ref) for ref in stream)

    return total


# ---- how it is passed ----


@moves
@pytest.mark.parametrize(
    "use",
    [
        lambda ray, total, g: total.remote(g),
        lambda ray, total, g: total.remote(stream=g),
        lambda ray, total, g: ray.remote(lambda parts: sum(ray.get(list(parts[0])))).remote([g]),
        lambda ray, total, g: total.remote(ray.put(g)),
        lambda ray, total, g: total.remote(ray.get(ray.put([g]))[0]),
    ],
    ids=["argument", "keyword", "nested argument", "put", "nested put"],
)
def test_stream_moves_to_the_task_that_it_is_passed_to(
    ray: ModuleType, use: Callable[[ModuleType, Any, Any], Any]
) -> None:
    generator = counting(ray).remote(5)
    assert ray.get(use(ray, summing(ray), generator)) == 10


@moves
def test_stream_that_a_task_returns_moves_to_who_gets_it(ray: ModuleType) -> None:
    count = counting(ray)
    generator = ray.get(ray.remote(lambda: count.remote(3)).remote())
    assert isinstance(generator, ray.ObjectRefGenerator)
    assert ray.get(list(generator)) == [0, 1, 2]


@moves
def test_stream_moves_through_a_chain_of_generators(ray: ModuleType) -> None:
    @ray.remote(_generator_backpressure_num_objects=1)
    def double(stream):
        for ref in stream:
            yield 2 * ray.get(ref)

    stream = counting(ray).options(_generator_backpressure_num_objects=1).remote(5)
    for _ in range(3):
        stream = double.remote(stream)
    assert ray.get(list(stream)) == [0, 8, 16, 24, 32]


@moves
def test_stream_that_came_is_passed_on(ray: ModuleType) -> None:
    total = summing(ray)

    @ray.remote
    def pass_on(stream):
        return ray.get(next(stream)), ray.get(total.remote(stream))

    assert ray.get(pass_on.remote(counting(ray).remote(5))) == (0, 10)


@moves
def test_stream_moves_to_an_actor_that_reads_it_in_later_calls(ray: ModuleType) -> None:
    @ray.remote
    class Reader:
        def __init__(self, stream):
            self.stream = stream

        def more(self):
            return ray.get(next(self.stream))

    reader = Reader.remote(counting(ray).remote(3))
    assert ray.get([reader.more.remote() for _ in range(3)]) == [0, 1, 2]


@moves
def test_stream_moves_to_an_async_actor_that_awaits_its_items(ray: ModuleType) -> None:
    @ray.remote
    class Reader:
        async def total(self, stream):
            return sum([await ref async for ref in stream])

    reader = Reader.remote()
    assert ray.get(reader.total.remote(counting(ray).remote(5))) == 10


@moves
def test_stream_is_passed_while_its_producer_still_runs(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def produce(path):
        yield 1
        open(path).close()
        yield 2

    result = summing(ray).remote(produce.remote(gate.path))
    gate.meet()
    assert ray.get(result) == 3


@moves
@pytest.mark.session(num_cpus=1)
def test_paused_producer_and_the_task_that_reads_it_share_one_cpu(ray: ModuleType) -> None:
    stream = counting(ray).options(_generator_backpressure_num_objects=1).remote(20)
    assert ray.get(summing(ray).remote(stream)) == 190


# ---- what it takes along ----


@moves
def test_items_that_the_sender_took_are_not_there_any_more(ray: ModuleType) -> None:
    generator = counting(ray).remote(4)
    first = [ray.get(next(generator)), ray.get(next(generator))]
    assert first == [0, 1]
    assert ray.get(summing(ray).remote(generator)) == 5


@moves
def test_error_of_the_producer_reaches_who_has_the_stream(ray: ModuleType) -> None:
    @ray.remote
    def fail():
        yield 1
        raise KeyError("half-way")

    @ray.remote
    def outcomes(stream):
        first, last = list(stream)
        try:
            ray.get(last)
        except KeyError as error:
            return ray.get(first), type(error.cause).__name__
        return None

    assert ray.get(outcomes.remote(fail.remote())) == (1, "KeyError")


@moves
def test_completion_of_a_stream_that_came_can_be_waited_for(ray: ModuleType) -> None:
    @ray.remote
    def wait_for_the_end(stream):
        ray.get(stream.completed())
        return stream.next_ready(), len(list(stream)), stream.is_finished()

    assert ray.get(wait_for_the_end.remote(counting(ray).remote(3))) == (True, 3, True)


@moves
def test_arrays_of_a_stream_that_came_are_read_in_place(ray: ModuleType) -> None:
    @ray.remote
    def produce():
        yield np.full(MIB, 7.0)

    @ray.remote
    def look(stream):
        array = ray.get(next(stream))
        return array.flags.owndata, float(array[-1])

    assert ray.get(look.remote(produce.remote())) == (False, 7.0)


@moves
def test_stream_that_its_task_does_not_read_goes_with_it(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate() for _ in range(3)]

    @ray.remote(_generator_backpressure_num_objects=1)
    def hold(paths):
        for path in paths:
            open(path).close()
            yield np.zeros(MIB)

    ignored = ray.remote(lambda stream: None).remote(hold.remote([gate.path for gate in gates]))
    gates[0].meet()
    assert ray.get(ignored) is None
    gates[1].meet()  # nobody is left who could take: it does not pause any more
    gates[2].meet()


# ---- what the sender sees ----


@moves
@pytest.mark.parametrize(
    "use",
    [
        lambda ray, g: next(g),
        lambda ray, g: g.next_ready(),
        lambda ray, g: g.is_finished(),
        lambda ray, g: ray.wait([g]),
        lambda ray, g: ray.cancel(g),
        lambda ray, g: list(g),
    ],
    ids=["next", "next_ready", "is_finished", "wait", "cancel", "list"],
)
def test_stream_that_was_passed_raises_where_it_was(
    ray: ModuleType, use: Callable[[ModuleType, Any], Any]
) -> None:
    generator = counting(ray).remote(2)
    result = summing(ray).remote(generator)
    with pytest.raises(ValueError, match="was passed on"):
        use(ray, generator)
    assert ray.get(result) == 1


@moves
def test_stream_cannot_be_passed_twice(ray: ModuleType) -> None:
    generator = counting(ray).remote(2)
    result = summing(ray).remote(generator)
    with pytest.raises((TypeError, ValueError), match="was passed on"):
        summing(ray).remote(generator)
    assert ray.get(result) == 1


def test_call_that_is_refused_leaves_the_stream_where_it_was(ray: ModuleType) -> None:
    generator = counting(ray).remote(2)
    unpicklable = (i for i in range(3))
    with pytest.raises(TypeError):
        ray.remote(lambda stream, other: None).remote(generator, unpicklable)
    assert ray.get(list(generator)) == [0, 1]


def test_stream_in_a_closure_is_refused_for_every_call_would_take_from_it(
    ray: ModuleType,
) -> None:
    generator = counting(ray).remote(2)
    with pytest.raises(TypeError):
        ray.remote(lambda: list(generator)).remote()
    assert ray.get(list(generator)) == [0, 1]


def test_stream_cannot_be_pickled_by_hand(ray: ModuleType) -> None:
    generator = counting(ray).remote(2)
    with pytest.raises(TypeError):
        pickle.dumps(generator)
    assert ray.get(list(generator)) == [0, 1]


# ---- a task that is to be run again ----


@moves
def test_task_that_has_taken_an_item_is_not_run_again_after_a_crash(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=3)
    def die(stream):
        begin()
        next(stream)
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError, match="had taken values"):
        ray.get(die.remote(counting(ray).remote(3)))
    assert attempts.made() == 1


@moves
def test_task_that_has_taken_an_item_is_not_run_again_after_an_exception(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=3, retry_exceptions=True)
    def fail(stream):
        begin()
        next(stream)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="had taken values"):
        ray.get(fail.remote(counting(ray).remote(3)))
    assert attempts.made() == 1


@moves
def test_task_that_has_passed_on_a_stream_is_not_run_again(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin
    total = summing(ray)

    @ray.remote(max_retries=3, retry_exceptions=True)
    def fail(stream):
        begin()
        ray.get(total.remote(stream))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="had taken values"):
        ray.get(fail.remote(counting(ray).remote(3)))
    assert attempts.made() == 1


@moves
@pytest.mark.parametrize("how", ["dies", "raises"])
def test_task_that_has_taken_nothing_is_run_again_and_finds_all(
    ray: ModuleType, attempts: Attempts, how: str
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=3, retry_exceptions=True)
    def work(stream):
        if begin() == 1:
            if how == "dies":
                os._exit(1)
            raise KeyError("first")
        return sum(ray.get(ref) for ref in stream)

    assert ray.get(work.remote(counting(ray).remote(4))) == 6
    assert attempts.made() == 2


def test_task_that_has_taken_an_item_of_its_own_stream_is_run_again(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin
    count = counting(ray)

    @ray.remote(max_retries=3, retry_exceptions=True)
    def work():
        stream = count.remote(4)
        first = ray.get(next(stream))
        if begin() == 1:
            raise KeyError("first")
        return first + sum(ray.get(ref) for ref in stream)

    assert ray.get(work.remote()) == 6
    assert attempts.made() == 2


@moves
def test_task_that_dies_right_after_it_has_passed_a_stream_on_is_not_run_again(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin
    total = summing(ray)

    @ray.remote(max_retries=3)
    def die(stream):
        begin()
        type(stream).moved = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        total.remote(stream)

    with pytest.raises(ray.exceptions.WorkerCrashedError, match="had taken values"):
        ray.get(die.remote(counting(ray).remote(3)))
    assert attempts.made() == 1
