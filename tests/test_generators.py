"""Generator tasks, num_returns = n and "dynamic": what only our own engine lets a test see.

The rules that hold on Ray too are in tests/conformance. Here: memory, moments, crashes, second
attempts, a store that is full, and what is printed.
"""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import (
    MIB,
    Attempts,
    Gate,
    Output,
    array,
    eventually,
    heap_of_this_process,
    pass_through,
)

import ray_lite as ray
from ray_lite.exceptions import (
    ObjectStoreFullError,
    RayTaskError,
    StreamingGeneratorReplayInconsistentError,
    WorkerCrashedError,
)
from ray_lite.session import Connection

VALUE = 40_000_000  # bytes


def die() -> None:
    """End this process at once, as the out-of-memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)


def free_bytes(session: Connection) -> int:
    return session.core.usage()["free"]


# ---- memory ----


@pytest.mark.session(object_store_memory=256 * MIB)
class TestMemory:
    def test_generator_of_twenty_values_never_holds_more_than_one(
        self, session: Connection
    ) -> None:
        @ray.remote(num_returns=21)
        def generate():
            start = heap_of_this_process()
            grown = []
            for i in range(20):
                value = array(VALUE, i)
                grown.append(heap_of_this_process() - start)
                yield value
                del value
                grown.append(heap_of_this_process() - start)
            yield grown

        refs = generate.remote()
        for i in range(20):
            assert ray.get(refs[i])[-1] == i
            refs[i] = None
        grown = ray.get(refs[20])
        assert len(grown) == 40
        assert max(grown) > VALUE * 0.9
        assert max(grown) < VALUE * 2

    def test_generator_under_a_name_that_lives_on_holds_less_than_three_values(
        self, session: Connection
    ) -> None:
        @ray.remote(num_returns=21)
        def generate():
            start = heap_of_this_process()
            grown = []
            for i in range(20):
                value = array(VALUE, i)
                grown.append(heap_of_this_process() - start)
                yield value
            yield grown

        refs = generate.remote()
        for i in range(20):
            assert ray.get(refs[i])[-1] == i
            refs[i] = None
        assert max(ray.get(refs[20])) < VALUE * 3

    def test_list_twin_of_a_generator_holds_all_values(self, session: Connection) -> None:
        @ray.remote(num_returns=6)
        def build():
            start = heap_of_this_process()
            values = [array(VALUE, i) for i in range(5)]
            return [*values, heap_of_this_process() - start]

        refs = build.remote()
        assert ray.get(refs.pop()) > VALUE * 3
        assert [int(value[-1]) for value in ray.get(refs)] == list(range(5))

    def test_dynamic_generator_holds_less_than_three_values(self, session: Connection) -> None:
        @ray.remote(num_returns="dynamic")
        def generate():
            start = heap_of_this_process()
            grown = []
            for i in range(5):
                value = array(VALUE, i)
                grown.append(heap_of_this_process() - start)
                yield value
            yield grown

        *values, grown = ray.get(generate.remote())
        assert [int(ray.get(value)[-1]) for value in values] == list(range(5))
        assert max(ray.get(grown)) < VALUE * 3

    def test_generator_of_more_than_the_store_holds_runs_as_its_refs_are_dropped(
        self, session: Connection
    ) -> None:
        @ray.remote(num_returns=20)
        def generate():
            for i in range(20):
                yield array(VALUE, i)

        refs = generate.remote()
        for i in range(20):
            assert ray.get(refs[i])[-1] == i
            refs[i] = None


@pytest.mark.parametrize("moment", ["before it is stored", "after it is stored"])
def test_generator_ref_that_is_dropped_frees_its_value_while_the_generator_runs(
    session: Connection, new_gate: Callable[[], Gate], moment: str
) -> None:
    start, end = new_gate(), new_gate()

    @ray.remote(num_returns=3)
    def generate(start, end):
        pass_through(start)
        yield array(8 * MIB)
        yield array(8 * MIB)
        pass_through(end)
        yield "last"

    before = free_bytes(session)
    first, second, last = generate.remote(start.path, end.path)
    assert free_bytes(session) > before - MIB
    if moment == "before it is stored":
        del first
        start.meet()
    else:
        start.meet()
        ray.wait([first])
        del first
    ray.wait([second])
    assert eventually(lambda: free_bytes(session) > before - 9 * MIB)
    assert free_bytes(session) < before - 7 * MIB
    del second
    assert eventually(lambda: free_bytes(session) > before - MIB)
    assert ray.wait([last], timeout=0)[0] == []
    end.meet()
    assert ray.get(last) == "last"


def test_dynamic_items_are_freed_with_the_last_ref_to_them(session: Connection) -> None:
    @ray.remote(num_returns="dynamic")
    def generate():
        for i in range(3):
            yield array(8 * MIB, i)

    outer = generate.remote()
    items = list(ray.get(outer))
    before = free_bytes(session)
    del outer
    assert ray.get(items[2])[0] == 2
    del items[:2]
    assert eventually(lambda: free_bytes(session) > before + 15 * MIB)
    assert ray.get(items[0])[0] == 2


def test_generator_whose_refs_are_all_dropped_runs_to_its_end(
    shared_session: Connection, new_gate: Callable[[], Gate]
) -> None:
    start, end = new_gate(), new_gate()

    @ray.remote(num_returns=2)
    def generate(start, end):
        pass_through(start)
        yield array(MIB)
        yield array(MIB)
        pass_through(end)

    generate.remote(start.path, end.path)
    start.meet()
    end.meet()


# ---- moments ----


def test_generator_item_is_visible_while_the_next_one_is_made(
    shared_session: Connection, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate() for _ in range(4)]

    @ray.remote(num_returns=4)
    def generate(paths):
        for i, path in enumerate(paths):
            pass_through(path)
            yield i

    refs = generate.remote([gate.path for gate in gates])
    for i in range(3):
        assert ray.wait(refs, num_returns=i + 1, timeout=0)[0] == refs[:i]
        gates[i].meet()
        assert ray.get(refs[i]) == i
    gates[3].meet()
    assert ray.get(refs[3]) == 3


def test_generator_last_ref_is_visible_only_when_the_generator_has_ended(
    shared_session: Connection, new_gate: Callable[[], Gate]
) -> None:
    arrived, leave = new_gate(), new_gate()

    @ray.remote(num_returns=2)
    def generate(arrived, leave):
        yield 0
        yield 1
        pass_through(arrived)
        pass_through(leave)

    refs = generate.remote(arrived.path, leave.path)
    arrived.meet()
    assert ray.wait(refs, num_returns=2, timeout=0) == ([refs[0]], [refs[1]])
    leave.meet()
    assert ray.get(refs) == [0, 1]


def test_dependent_of_an_item_runs_while_the_generator_is_still_running(
    shared_session: Connection, gate: Gate
) -> None:
    @ray.remote(num_returns=3)
    def generate(path):
        yield 10
        yield 20
        pass_through(path)
        yield 30

    double = ray.remote(lambda value: 2 * value)
    doubles = [double.remote(ref) for ref in generate.remote(gate.path)]
    assert ray.get(doubles[:2]) == [20, 40]
    assert ray.wait(doubles[2:], timeout=0)[0] == []
    gate.meet()
    assert ray.get(doubles[2]) == 60


def test_dependent_of_several_generators_waits_for_its_own_items_only(
    shared_session: Connection, gate: Gate
) -> None:
    @ray.remote(num_returns=2)
    def generate(base, path):
        yield base
        if path:
            pass_through(path)
        yield base + 1

    total = ray.remote(lambda *parts: sum(parts))
    columns = list(zip(generate.remote(10, None), generate.remote(20, gate.path), strict=True))
    first, second = [total.remote(*column) for column in columns]
    assert ray.get(first) == 30
    assert ray.wait([second], timeout=0)[0] == []
    gate.meet()
    assert ray.get(second) == 32


# ---- a worker that dies midway ----


def test_generator_that_crashes_without_retries_keeps_what_was_visible(
    shared_session: Connection,
) -> None:
    @ray.remote(num_returns=4, max_retries=0)
    def generate():
        yield 0
        yield array(MIB, 1)
        die()

    refs = generate.remote()
    assert ray.get(refs[0]) == 0
    assert ray.get(refs[1])[0] == 1
    for ref in refs[2:]:
        with pytest.raises(WorkerCrashedError, match="generate"):
            ray.get(ref)


def test_generator_that_crashes_holding_the_last_value_back_fails_the_last_ref(
    shared_session: Connection,
) -> None:
    @ray.remote(num_returns=2, max_retries=0)
    def generate():
        yield 0
        yield 1
        die()

    first, last = generate.remote()
    assert ray.get(first) == 0
    with pytest.raises(WorkerCrashedError):
        ray.get(last)


@pytest.mark.parametrize("crash_at", range(5))
def test_generator_that_is_run_again_gives_the_same_values(
    shared_session: Connection, attempts: Attempts, crash_at: int
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=4, max_retries=1)
    def generate():
        first = begin() == 1
        for i in range(4):
            if first and i == crash_at:
                die()
            yield array(MIB, i)
        if first:
            die()

    refs = generate.remote()
    assert [int(value[-1]) for value in ray.get(refs)] == [0, 1, 2, 3]
    assert attempts.made() == 2


def test_generator_that_is_run_again_leaves_a_visible_item_untouched(
    shared_session: Connection, attempts: Attempts, gate: Gate
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=1)
    def generate(path):
        attempt = begin()
        yield array(MIB, 7)
        if attempt == 1:
            pass_through(path)
            die()
        yield attempt

    refs = generate.remote(gate.path)
    value = ray.get(refs[0])
    gate.meet()
    assert ray.get(refs[1]) == 2
    assert ray.get(refs[0]).ctypes.data == value.ctypes.data
    assert (value == 7).all()


def test_generator_invisible_last_value_may_differ_in_the_new_attempt(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=1)
    def generate():
        attempt = begin()
        yield "same"
        yield attempt
        if attempt == 1:
            die()

    assert ray.get(generate.remote()) == ["same", 2]


def differ_in_value(attempt: int, i: int) -> object:
    return (i, attempt)


def differ_in_type(attempt: int, i: int) -> object:
    return [np.int32(i), float(i)][attempt - 1]


def differ_in_size(attempt: int, i: int) -> object:
    return array(MIB * attempt, i)


def differ_in_many_elements(attempt: int, i: int) -> object:
    value = array(MIB, i)
    value[::7] = attempt
    return value


@pytest.mark.parametrize(
    "make", [differ_in_value, differ_in_type, differ_in_size, differ_in_many_elements]
)
def test_generator_that_differs_when_run_again_fails_the_remaining_refs(
    shared_session: Connection, attempts: Attempts, gate: Gate, make: Callable[[int, int], object]
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=4, max_retries=1)
    def generate(path):
        attempt = begin()
        try:
            yield 0
            yield make(attempt, 1)
            if attempt == 1:
                die()
            yield 2
            yield 3
        finally:
            pass_through(path)

    refs = generate.remote(gate.path)
    gate.meet()  # the second attempt's frame is closed
    for ref in refs[2:]:
        with pytest.raises(StreamingGeneratorReplayInconsistentError, match="value 1"):
            ray.get(ref)
    assert ray.get(refs[0]) == 0
    np.testing.assert_equal(ray.get(refs[1]), make(1, 1))
    assert attempts.made() == 2


@pytest.mark.parametrize("how", ["ends", "raises", "yields what cannot be pickled"])
def test_generator_that_stops_before_what_was_visible_fails_the_remaining_refs(
    shared_session: Connection, attempts: Attempts, how: str
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=4, max_retries=1)
    def generate():
        attempt = begin()
        yield 0
        if attempt == 2 and how == "ends":
            return
        if attempt == 2 and how == "raises":
            raise KeyError("too early")
        yield threading.Lock() if attempt == 2 else 1
        yield 2
        die()

    refs = generate.remote()
    for ref in refs[3:]:
        with pytest.raises(StreamingGeneratorReplayInconsistentError, match="value 1"):
            ray.get(ref)
    assert ray.get(refs[:3]) == [0, 1, 2]


def test_generator_that_raises_exactly_after_what_was_visible_fails_with_that(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=3, max_retries=1)
    def generate():
        attempt = begin()
        yield 0
        if attempt == 2:
            raise KeyError("second attempt")
        die()

    refs = generate.remote()
    assert ray.get(refs[0]) == 0
    for ref in refs[1:]:
        with pytest.raises(KeyError, match="second attempt"):
            ray.get(ref)


def test_generator_that_crashes_at_every_attempt_fails_what_never_came(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=4, max_retries=2)
    def generate():
        attempt = begin()
        yield from range(attempt)
        die()

    refs = generate.remote()
    with pytest.raises(WorkerCrashedError, match="attempt 3"):
        ray.get(refs[3])
    assert ray.get(refs[:3]) == [0, 1, 2]
    assert attempts.made() == 3


def test_generator_without_retries_pays_for_no_fingerprint_and_is_run_once(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=0)
    def generate():
        begin()
        yield 0
        die()

    with pytest.raises(WorkerCrashedError):
        ray.get(generate.remote()[1])
    assert attempts.made() == 1


def test_list_twin_that_crashes_is_run_again_and_shows_the_new_values(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=1)
    def build():
        attempt = begin()
        if attempt == 1:
            die()
        return [attempt, attempt]

    assert ray.get(build.remote()) == [2, 2]


def test_dynamic_that_crashes_frees_the_values_of_the_first_attempt(
    session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns="dynamic", max_retries=1)
    def generate():
        attempt = begin()
        for i in range(4):
            if attempt == 1 and i == 3:
                die()
            yield array(8 * MIB, attempt)

    before = free_bytes(session)
    items = list(ray.get(generate.remote()))
    assert [int(ray.get(item)[0]) for item in items] == [2, 2, 2, 2]
    assert eventually(lambda: free_bytes(session) > before - 33 * MIB)


def test_dynamic_without_retries_that_crashes_frees_all_its_values(session: Connection) -> None:
    @ray.remote(num_returns="dynamic", max_retries=0)
    def generate():
        yield array(8 * MIB)
        yield array(8 * MIB)
        die()

    before = free_bytes(session)
    with pytest.raises(WorkerCrashedError):
        ray.get(generate.remote())
    assert eventually(lambda: free_bytes(session) > before - MIB)


def test_generator_whose_worker_is_stopped_and_killed_from_outside_is_run_again(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=1)
    def generate():
        attempt = begin()
        yield os.getpid() if attempt == 1 else None
        if attempt == 1:
            signal.pause()
        yield attempt

    refs = generate.remote()
    pid = ray.get(refs[0])
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(StreamingGeneratorReplayInconsistentError):
        ray.get(refs[1])
    assert ray.get(refs[0]) == pid


# ---- exceptions that are retried ----


@pytest.mark.parametrize("which", [True, [KeyError], (OSError, KeyError)], ids=str)
def test_generator_with_retry_exceptions_is_run_again_after_an_exception(
    shared_session: Connection, attempts: Attempts, which: Any
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=3, max_retries=1, retry_exceptions=which)
    def generate():
        attempt = begin()
        yield 0
        if attempt == 1:
            raise KeyError("first attempt")
        yield 1
        yield attempt

    assert ray.get(generate.remote()) == [0, 1, 2]


def test_generator_with_retry_exceptions_is_run_again_after_one_behind_the_last_value(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=1, retry_exceptions=True)
    def generate():
        attempt = begin()
        yield 0
        yield attempt
        if attempt == 1:
            raise KeyError("after the last value")

    assert ray.get(generate.remote()) == [0, 2]


def test_generator_with_other_retry_exceptions_is_not_run_again(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=3, retry_exceptions=[OSError])
    def generate():
        begin()
        yield 0
        raise KeyError("not an OSError")

    refs = generate.remote()
    with pytest.raises(KeyError):
        ray.get(refs[1])
    assert ray.get(refs[0]) == 0
    assert attempts.made() == 1


def test_generator_whose_retries_are_used_up_raises_the_last_exception(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=2, retry_exceptions=True)
    def generate():
        attempt = begin()
        yield 0
        raise KeyError(f"attempt {attempt}")

    refs = generate.remote()
    with pytest.raises(KeyError, match="attempt 3"):
        ray.get(refs[1])
    assert ray.get(refs[0]) == 0
    assert attempts.made() == 3


def test_generator_that_differs_after_a_retried_exception_fails_the_remaining_refs(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=1, retry_exceptions=True)
    def generate():
        yield begin()
        raise KeyError("first attempt")

    refs = generate.remote()
    with pytest.raises(StreamingGeneratorReplayInconsistentError):
        ray.get(refs[1])
    assert ray.get(refs[0]) == 1


def test_generator_wrong_count_is_not_retried(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=3, retry_exceptions=True)
    def generate(length):
        begin()
        yield from range(length)

    for length in (1, 3):
        with pytest.raises(ValueError):
            ray.get(generate.remote(length)[1])
    assert attempts.made() == 2


# ---- what cannot be stored ----


class UnpicklableError(Exception):
    """An exception that holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


def test_generator_that_raises_what_cannot_be_pickled_fails_the_remaining_refs(
    shared_session: Connection,
) -> None:
    @ray.remote(num_returns=3)
    def generate():
        yield 0
        raise UnpicklableError

    refs = generate.remote()
    assert ray.get(refs[0]) == 0
    for ref in refs[1:]:
        with pytest.raises(RayTaskError, match="holds a lock"):
            ray.get(ref)


def test_dynamic_that_raises_what_cannot_be_pickled_has_one_more_ref_that_fails(
    shared_session: Connection,
) -> None:
    @ray.remote(num_returns="dynamic")
    def generate():
        yield 0
        raise UnpicklableError

    good, bad = ray.get(generate.remote())
    assert ray.get(good) == 0
    with pytest.raises(RayTaskError, match="holds a lock"):
        ray.get(bad)


class ExitsWhenPickled:
    """A value whose pickling raises what is no Exception."""

    def __reduce__(self) -> Any:
        raise BaseException("no pickling")


@pytest.mark.parametrize("value", [threading.Lock, ExitsWhenPickled])
@pytest.mark.parametrize("num_returns", [3, "dynamic"])
def test_generator_is_closed_when_a_value_cannot_be_pickled(
    shared_session: Connection, gate: Gate, value: Callable[[], object], num_returns: Any
) -> None:
    @ray.remote(num_returns=num_returns)
    def generate(path):
        try:
            yield 0
            yield value()
            yield "never asked for"
        finally:
            pass_through(path)

    result = generate.remote(gate.path)
    gate.meet()
    good, *bad = result if num_returns == 3 else ray.get(result)
    assert ray.get(good) == 0
    assert bad
    for ref in bad:
        with pytest.raises(RayTaskError):
            ray.get(ref)


@pytest.mark.session(patience=0.2)
class TestFullStore:
    def test_generator_fails_from_the_value_that_has_no_room_and_is_closed(
        self, session: Connection, gate: Gate
    ) -> None:
        @ray.remote(num_returns=5)
        def generate(path):
            try:
                for i in range(5):
                    yield array(30 * MIB, i)
            finally:
                pass_through(path)

        refs = generate.remote(gate.path)
        gate.meet()
        for ref in refs[3:]:
            with pytest.raises(ObjectStoreFullError, match="no room"):
                ray.get(ref)
        assert [int(value[-1]) for value in ray.get(refs[:3])] == [0, 1, 2]

    def test_dynamic_keeps_the_values_that_had_room(self, session: Connection) -> None:
        @ray.remote(num_returns="dynamic")
        def generate():
            for i in range(5):
                yield array(30 * MIB, i)

        *good, bad = ray.get(generate.remote())
        assert [int(value[-1]) for value in ray.get(good)] == [0, 1, 2]
        with pytest.raises(ObjectStoreFullError, match="no room"):
            ray.get(bad)

    def test_list_twin_fails_every_ref_from_the_value_that_has_no_room(
        self, session: Connection
    ) -> None:
        @ray.remote(num_returns=4)
        def build():
            return [array(30 * MIB, i) for i in range(4)]

        refs = build.remote()
        with pytest.raises(ObjectStoreFullError, match="no room"):
            ray.get(refs[3])
        assert [int(value[-1]) for value in ray.get(refs[:3])] == [0, 1, 2]

    @pytest.mark.parametrize("num_returns", [2, "dynamic"])
    def test_generator_value_larger_than_the_store_fails_at_once(
        self, session: Connection, num_returns: Any
    ) -> None:
        @ray.remote(num_returns=num_returns)
        def generate():
            yield 0
            yield array(101 * MIB)

        result = generate.remote()
        good, bad = result if num_returns == 2 else ray.get(result)
        assert ray.get(good) == 0
        with pytest.raises(ObjectStoreFullError, match="larger than the whole object store"):
            ray.get(bad)

    def test_store_is_as_good_as_new_after_a_generator_that_filled_it(
        self, session: Connection
    ) -> None:
        @ray.remote(num_returns=5)
        def generate():
            for i in range(5):
                yield array(30 * MIB, i)

        for _ in range(2):
            refs = generate.remote()
            with pytest.raises(ObjectStoreFullError):
                ray.get(refs[4])
            del refs
            assert eventually(lambda: free_bytes(session) > 99 * MIB)


# ---- closing ----


@pytest.mark.parametrize("n", [1, 3])
def test_generator_finally_runs_after_an_extra_value(
    shared_session: Connection, gate: Gate, n: int
) -> None:
    @ray.remote
    def generate(path):
        try:
            yield from range(n + 5)
        finally:
            pass_through(path)

    result = generate.options(num_returns=n).remote(gate.path)
    gate.meet()
    refs = [result] if n == 1 else result
    assert ray.get(refs[:-1]) == list(range(n - 1))
    with pytest.raises(ValueError, match=f"more than num_returns={n}"):
        ray.get(refs[-1])


def test_generator_whose_finally_raises_still_delivers_and_says_so(
    session: Connection, printed: Output
) -> None:
    @ray.remote(num_returns=2)
    def generate():
        try:
            yield from range(5)
        finally:
            raise OSError("while closing")

    refs = generate.remote()
    assert ray.get(refs[0]) == 0
    with pytest.raises(ValueError):
        ray.get(refs[1])
    assert printed.until("generate was closed", "while closing")


def test_generator_that_refuses_to_close_still_delivers(
    session: Connection, printed: Output
) -> None:
    @ray.remote(num_returns=1)
    def generate():
        while True:
            try:
                yield 0
            except GeneratorExit:
                yield "no"

    with pytest.raises(ValueError, match="more than"):
        ray.get(generate.remote())
    assert printed.until("ignored GeneratorExit")


# ---- sources ----


def test_generator_yields_from_plain_iterators_one_at_a_time(
    shared_session: Connection, gate: Gate
) -> None:
    class Countdown:
        """An iterator without send, throw and close."""

        def __init__(self, path: str) -> None:
            self.left = 3
            self.path = path

        def __iter__(self) -> "Countdown":
            return self

        def __next__(self) -> int:
            if self.left == 1:
                pass_through(self.path)
            if self.left == 0:
                raise StopIteration
            self.left -= 1
            return self.left

    @ray.remote(num_returns=3)
    def generate(path):
        yield from Countdown(path)

    refs = generate.remote(gate.path)
    assert ray.get(refs[:2]) == [2, 1]
    gate.meet()
    assert ray.get(refs[2]) == 0


def test_function_that_returns_a_generator_shows_its_values_one_at_a_time(
    shared_session: Connection, gate: Gate
) -> None:
    @ray.remote(num_returns=3)
    def give(path):
        def inner():
            yield 0
            yield 1
            pass_through(path)
            yield 2

        return inner()

    refs = give.remote(gate.path)
    assert ray.get(refs[:2]) == [0, 1]
    gate.meet()
    assert ray.get(refs[2]) == 2


@pytest.mark.parametrize("length", [1, 3])
def test_function_that_returns_a_generator_of_a_wrong_count_fails_the_last_ref(
    shared_session: Connection, length: int
) -> None:
    first, last = ray.remote(num_returns=2)(lambda: (i for i in range(length))).remote()
    assert ray.get(first) == 0
    with pytest.raises(ValueError, match="num_returns=2"):
        ray.get(last)


@pytest.mark.parametrize("n", [2, 5, 300])
def test_generator_and_list_twin_are_interchangeable_when_the_count_is_right(
    shared_session: Connection, n: int
) -> None:
    def make(length):
        for i in range(length):
            yield np.arange(i, i + 3), {"i": i, "text": "x" * i}

    generate = ray.remote(num_returns=n)(make)
    build = ray.remote(num_returns=n)(lambda length: list(make(length)))
    np.testing.assert_equal(ray.get(generate.remote(n)), ray.get(build.remote(n)))


# ---- what has no reference to go to ----


def test_generator_with_num_returns_zero_prints_its_values_and_its_error(
    session: Connection, printed: Output
) -> None:
    @ray.remote(num_returns=0)
    def shout():
        yield 1
        yield 2
        raise KeyError("nobody hears")

    assert shout.remote() is None
    assert printed.until("nobody hears", "yielded 2 values")
    lines = [line for line in printed.err.splitlines() if "yielded 2 values" in line]
    assert lines[0].startswith("(shout pid=")
    assert printed.out == ""


def test_function_with_num_returns_zero_that_raises_prints_its_error(
    session: Connection, printed: Output
) -> None:
    @ray.remote(num_returns=0)
    def shout():
        raise KeyError("nobody hears")

    shout.remote()
    assert printed.until("KeyError: 'nobody hears'")
    assert "(shout pid=" in printed.err


def test_function_with_num_returns_zero_whose_worker_dies_prints_that(
    session: Connection, printed: Output
) -> None:
    @ray.remote(num_returns=0, max_retries=0)
    def vanish():
        die()

    vanish.remote()
    assert printed.until("Task vanish ended with its worker", "SIGKILL")


def refs_to_an_error(session: Connection, count: int) -> Any:
    """Return as many references of a generator that has ended: to a value, then to its error."""

    @ray.remote(num_returns=count)
    def generate():
        yield 0
        raise KeyError("nobody asked")

    refs = generate.remote()
    assert ray.get(refs[0]) == 0
    assert eventually(lambda: session.core.usage()["finished"] == 1)
    return refs


def test_generator_error_whose_ref_died_unasked_is_printed(
    session: Connection, printed: Output
) -> None:
    refs = refs_to_an_error(session, 2)
    del refs
    assert printed.until("Unhandled error", "nobody asked")


def test_error_of_many_references_is_printed_once(session: Connection, printed: Output) -> None:
    refs = refs_to_an_error(session, 20)
    assert session.supervisor is not None
    session.supervisor.send_signal(signal.SIGSTOP)  # it is to find them all at once
    del refs
    session.supervisor.send_signal(signal.SIGCONT)
    assert printed.until("Unhandled error, 19 times", "nobody asked")
    assert printed.err.count("Unhandled") == 1


def test_error_that_was_asked_for_is_not_printed(session: Connection, printed: Output) -> None:
    @ray.remote
    def fail(text):
        raise KeyError(text)

    with pytest.raises(KeyError):
        ray.get(fail.remote("asked for"))
    fail.remote("not asked for")
    assert printed.until("not asked for")
    assert "'asked for'" not in printed.err


@pytest.mark.session(num_cpus=2)
@pytest.mark.parametrize("force", [False, True])
def test_cancel_that_nobody_hears_of_is_not_printed(
    session: Connection, printed: Output, gate: Gate, force: bool
) -> None:
    @ray.remote
    def wait(path):
        pass_through(path)

    @ray.remote
    def generate(path):
        yield 0
        pass_through(path)

    @ray.remote
    def ask(refs):
        ray.get(refs)

    stream = generate.remote(gate.path)
    next(stream)
    running = wait.remote(gate.path)
    queued = [wait.remote(gate.path) for _ in range(3)]
    for cancelled in (*queued, running, stream):
        ray.cancel(cancelled, force=force)
    ask.remote([running])
    del stream, running, queued, cancelled
    assert printed.until("Unhandled error", "ask")
    assert printed.err.count("Unhandled") == 1


def test_dynamic_error_whose_ref_died_unasked_is_printed(
    session: Connection, printed: Output
) -> None:
    @ray.remote(num_returns="dynamic")
    def generate():
        yield 0
        raise KeyError("nobody asked")

    assert len(ray.get(generate.remote())) == 2
    assert printed.until("Unhandled error", "nobody asked")


def test_unhandled_errors_are_not_printed_when_the_environment_says_so(
    printed: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    with printed.redirected():
        ray.init(num_cpus=1, object_store_memory=100 * MIB)
    try:

        @ray.remote
        def fail():
            raise KeyError("nobody asked")

        @ray.remote(num_returns=0, max_retries=0)
        def vanish():
            die()

        fail.remote()
        ray.get(ray.remote(lambda: "fail has ended").remote())
        vanish.remote()
        # The supervisor prints in the order in which things happened.
        assert printed.until("Task vanish ended")
    finally:
        ray.shutdown()
    assert "nobody asked" not in printed.err
