"""Generator tasks, num_returns = "streaming": what only our own engine lets a test see.

The rules that hold on Ray too are in tests/conformance. Here: memory, who pauses and who is woken,
crashes, second attempts that differ, the end of the session, and what is printed.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import (
    MIB,
    Attempts,
    CopyingSteps,
    Gate,
    Output,
    array,
    eventually,
    heap_of_this_process,
    pass_through,
)

import ray_lite as ray
from ray_lite import _core
from ray_lite.exceptions import (
    ObjectStoreFullError,
    RaySystemError,
    RayTaskError,
    StreamingGeneratorReplayInconsistentError,
    WorkerCrashedError,
    dumps_error,
    error_from_code,
    make_task_error,
)
from ray_lite.returns import Returns
from ray_lite.session import Connection

VALUE = 40_000_000  # bytes
ETABLE = -8  # csrc/rl_err.h


def sleeps(thread: threading.Thread) -> bool:
    """Whether a thread of this process is asleep in the kernel."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


def free_bytes(session: Connection) -> int:
    return int(session.core.usage()["free"])


def values(generator: Any) -> list[Any]:
    """Return the values of all refs that are left."""
    return [ray.get(ref) for ref in generator]


@ray.remote
def hold(paths: list[str]) -> Iterator[int]:
    """Stand at each gate, and then yield its number."""
    for i, path in enumerate(paths):
        pass_through(path)
        yield i


# ---- memory ----


@pytest.mark.session(object_store_memory=256 * MIB)
class TestMemory:
    def test_stream_of_twenty_values_holds_less_than_three_on_the_heap(
        self, session: Connection
    ) -> None:
        @ray.remote
        def generate():
            start = heap_of_this_process()
            grown = []
            for i in range(20):
                value = array(VALUE, i)
                grown.append(heap_of_this_process() - start)
                yield value
            yield grown

        generator = generate.remote()
        for i in range(20):
            assert ray.get(next(generator))[-1] == i
        grown = ray.get(next(generator))
        assert len(grown) == 20
        assert max(grown) > VALUE * 0.9
        assert max(grown) < VALUE * 3

    def test_stream_with_a_limit_takes_no_more_of_the_store_than_that(
        self, session: Connection
    ) -> None:
        @ray.remote(_generator_backpressure_num_objects=2)
        def generate():
            for i in range(20):
                yield array(VALUE // 2, i)

        for i, ref in enumerate(generate.remote()):
            assert ray.get(ref)[-1] == i
        # Two untaken, the one that the loop holds, and its forerunner until that is replaced.
        assert session.core.usage()["peak"] < 4.5 * VALUE // 2

    def test_stream_without_a_limit_waits_for_room_and_goes_on_as_values_are_dropped(
        self, session: Connection
    ) -> None:
        @ray.remote
        def generate():
            for i in range(20):
                yield array(VALUE, i)

        assert [int(ray.get(ref)[-1]) for ref in generate.remote()] == list(range(20))


def test_dropped_stream_frees_what_nobody_took(shared_session: Connection, gate: Gate) -> None:
    @ray.remote
    def generate(path):
        for i in range(4):
            yield array(8 * MIB, i)
        pass_through(path)

    before = free_bytes(shared_session)
    generator = generate.remote(gate.path)
    first = next(generator)
    assert eventually(lambda: free_bytes(shared_session) < before - 31 * MIB)
    del generator
    assert eventually(lambda: free_bytes(shared_session) > before - 9 * MIB)
    assert free_bytes(shared_session) < before - 7 * MIB
    assert ray.get(first)[-1] == 0
    del first
    assert eventually(lambda: free_bytes(shared_session) > before - MIB)
    gate.meet()


def test_dropped_stream_keeps_nothing_of_what_is_yielded_later(
    shared_session: Connection, new_gate: Callable[[], Gate]
) -> None:
    start, end = new_gate(), new_gate()

    @ray.remote
    def generate(start, end):
        pass_through(start)
        for _ in range(20):
            yield array(20 * MIB)
        pass_through(end)

    before = free_bytes(shared_session)
    generate.remote(start.path, end.path)
    start.meet()
    end.meet()
    assert free_bytes(shared_session) > before - MIB


def test_dropped_stream_frees_what_its_items_refer_to(
    shared_session: Connection, gate: Gate
) -> None:
    @ray.remote
    def generate(path):
        yield [ray.put(array(8 * MIB))]
        yield {"key": ray.put(array(8 * MIB))}
        pass_through(path)

    before = free_bytes(shared_session)
    generator = generate.remote(gate.path)
    assert eventually(lambda: free_bytes(shared_session) < before - 15 * MIB)
    del generator
    assert eventually(lambda: free_bytes(shared_session) > before - MIB)
    gate.meet()


def test_drop_wakes_a_producer_that_waits_for_room_in_the_store(
    shared_session: Connection, gate: Gate
) -> None:
    @ray.remote
    def generate(path):
        for _ in range(5):
            yield array(10 * MIB)
        pass_through(path)

    kept = ray.put(array(free_bytes(shared_session) - 25 * MIB))
    before = free_bytes(shared_session)
    generator = generate.remote(gate.path)
    assert eventually(lambda: free_bytes(shared_session) < before - 19 * MIB)
    del generator
    gate.meet()
    del kept


@pytest.mark.session(patience=0.2)
def test_stream_that_finds_no_room_ends_with_the_reason(session: Connection) -> None:
    @ray.remote
    def generate():
        for i in range(5):
            yield array(30 * MIB, i)

    generator = generate.remote()
    with pytest.raises(ObjectStoreFullError) as info:
        ray.get(generator.completed())
        while True:
            ray.get(next(generator))
    assert isinstance(info.value, RayTaskError)
    assert list(generator) == []
    del info


class FullTables:
    """A session and a job at once, whose tables have room for no item; keeps what ends the task."""

    fills_stream = True
    is_call = False
    is_cancelled = False
    attempt = 0
    has_stream_room = True

    def __init__(self) -> None:
        self.concluded: list[Any] = []

    def run(self, call: Callable[[], Any], as_value: bool) -> Any:
        """Make the call."""
        return _core.Owned(call())

    def steps(self, dead_yields: Any) -> Any:
        """Copy all."""
        return CopyingSteps()

    def store_owned(self, value: Any) -> Any:
        """As store."""
        return self.store(value)

    def store(self, encoded: Any) -> Any:
        """Return something to append; what does not matter."""
        return SimpleNamespace(fingerprint=lambda: 1)

    def append(self, stored: Any) -> bool:
        """Refuse, as the core does."""
        raise error_from_code(ETABLE)

    def open_returns(self) -> list[int]:
        """Return the completion's index: nothing has been stored in it."""
        return [0]

    def conclude(self, outcomes: list[Any]) -> None:
        """Keep how many values ended the task."""
        self.concluded.append(len(outcomes))


def test_failure_that_no_table_has_room_for_goes_to_the_completion() -> None:
    full: Any = FullTables()
    returns = Returns(full, full, "task")
    with pytest.raises(RuntimeError, match="a table of the session's control segment is full"):
        returns.deliver(lambda: (i for i in range(3)), dynamic=False)
    returns.fail(dumps_error(make_task_error("task", KeyError("any"), pid=1)))
    assert full.concluded == [1]


def test_items_of_a_stream_whose_consumer_is_killed_are_freed(
    session: Connection, new_gate: Callable[[], Gate]
) -> None:
    arrived, end = new_gate(), new_gate()

    @ray.remote(_generator_backpressure_num_objects=3)
    def generate(path):
        for _ in range(5):
            yield array(8 * MIB)
        pass_through(path)

    @ray.remote(max_retries=0)
    def consume(arrived, end):
        generator = generate.remote(end)
        next(generator)
        pass_through(arrived)
        os.kill(os.getpid(), signal.SIGKILL)

    before = free_bytes(session)
    ref = consume.remote(arrived.path, end.path)
    assert eventually(lambda: free_bytes(session) < before - 23 * MIB)
    arrived.meet()
    with pytest.raises(WorkerCrashedError):
        ray.get(ref)
    end.meet()
    assert eventually(lambda: free_bytes(session) > before - MIB)


# ---- pausing and waking ----


@pytest.mark.usefixtures("shared_session")
def test_streams_of_an_async_actor_pause_independently_of_each_other() -> None:
    @ray.remote
    class Many:
        async def count(self, k: int) -> Any:
            for i in range(3):
                yield k, i

    many = Many.remote()
    method = many.count.options(_generator_backpressure_num_objects=1)
    streams = [method.remote(k) for k in range(20)]
    for k, stream in reversed(list(enumerate(streams))):
        assert values(stream) == [(k, 0), (k, 1), (k, 2)]


@pytest.mark.usefixtures("shared_session")
def test_coroutine_that_lets_a_cancelled_error_out_is_not_reported_as_cancelled() -> None:
    @ray.remote
    class Fails:
        async def fail(self) -> Any:
            yield 1
            raise asyncio.CancelledError("mine")

    fails = Fails.remote()
    first, last = list(fails.fail.remote())
    assert ray.get(first) == 1
    with pytest.raises(RayTaskError, match="mine"):
        ray.get(last)


@pytest.mark.usefixtures("shared_session")
def test_second_attempt_of_an_async_generator_that_fails_early_is_told_apart(
    attempts: Attempts,
) -> None:
    begin = attempts.begin

    @ray.remote(max_restarts=1, max_task_retries=1)
    class Dies:
        async def count(self) -> Any:
            attempt = begin()
            yield 1
            if attempt == 2:
                raise ValueError("early")
            yield 2
            os._exit(1)

    dies = Dies.remote()
    *first, last = list(dies.count.remote())
    assert ray.get(first) == [1, 2]
    with pytest.raises(StreamingGeneratorReplayInconsistentError):
        ray.get(last)


def test_producer_without_a_limit_pauses_while_its_values_take_their_share_of_the_store(
    shared_session: Connection,
) -> None:
    @ray.remote
    def generate():
        for i in range(8):
            yield array(10 * MIB, i)

    before = free_bytes(shared_session)
    generator = generate.remote()
    assert eventually(lambda: any(blocked for *_, blocked in shared_session.core.slots()))
    assert before - free_bytes(shared_session) < 31 * MIB  # of 100
    assert [int(value[-1]) for value in values(generator)] == list(range(8))


def test_wait_for_the_end_lets_a_producer_go_beyond_its_share(shared_session: Connection) -> None:
    @ray.remote
    def generate():
        for _ in range(6):
            yield array(10 * MIB)

    generator = generate.remote()
    assert eventually(lambda: any(blocked for *_, blocked in shared_session.core.slots()))
    assert ray.get(generator.completed()) is None
    assert len(list(generator)) == 6


@pytest.mark.session(num_cpus=1)
def test_paused_producer_lends_its_cpu_to_who_consumes_its_values(session: Connection) -> None:
    @ray.remote(_generator_backpressure_num_objects=1)
    def generate():
        for i in range(10):
            yield array(MIB, i)

    @ray.remote
    def last(values):
        return int(values[-1])

    assert [ray.get(last.remote(ref)) for ref in generate.remote()] == list(range(10))


@pytest.mark.session(num_cpus=1, worker_exports=1)
def test_task_that_consumes_a_stream_lends_its_cpu_to_the_producer(session: Connection) -> None:
    @ray.remote(_generator_backpressure_num_objects=1)
    def generate():
        yield from range(10)

    @ray.remote
    def total():
        return sum(values(generate.remote()))

    assert ray.get(total.remote()) == 45


def test_paused_producer_that_is_killed_goes_on_in_a_new_attempt(
    shared_session: Connection, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    pids.touch()

    @ray.remote(_generator_backpressure_num_objects=2, max_retries=1)
    def generate():
        with pids.open("a") as file:
            file.write(f"{os.getpid()}\n")
        yield from range(6)

    generator = generate.remote()
    assert eventually(lambda: any(blocked for *_, blocked in shared_session.core.slots()))
    os.kill(int(pids.read_text()), signal.SIGKILL)
    assert values(generator) == list(range(6))
    assert len(pids.read_text().split()) == 2


def test_stream_of_a_hundred_thousand_items_arrives_whole(shared_session: Connection) -> None:
    @ray.remote
    def generate():
        yield from range(100_000)

    for i, ref in enumerate(generate.remote()):
        assert ray.get(ref) == i
    assert i == 99_999


def test_backlog_of_ten_thousand_items_is_delivered_and_dropped(shared_session: Connection) -> None:
    @ray.remote
    def generate():
        yield from range(10_000)

    taken, dropped = generate.remote(), generate.remote()
    ray.get([taken.completed(), dropped.completed()])
    assert shared_session.core.usage()["objects"] > 20_000
    del dropped
    assert eventually(lambda: shared_session.core.usage()["objects"] < 10_100)
    assert values(taken) == list(range(10_000))


@pytest.mark.session(num_cpus=3)
def test_streams_are_consumed_in_any_interleaving(session: Connection) -> None:
    @ray.remote(_generator_backpressure_num_objects=2)
    def generate(k, length):
        for i in range(length):
            yield k, i

    order = np.random.default_rng(7).permutation([k for k in range(3) for _ in range(50)])
    generators = [generate.remote(k, 50) for k in range(3)]
    seen: list[list[int]] = [[], [], []]
    for k in order:
        which, i = ray.get(next(generators[k]))
        assert which == k
        seen[k].append(i)
    assert seen == [list(range(50))] * 3
    assert [list(generator) for generator in generators] == [[], [], []]


@pytest.mark.session(num_cpus=3)
def test_streams_are_consumed_as_wait_shows_them_ready(session: Connection) -> None:
    @ray.remote
    def generate(k):
        for i in range(30):
            yield k, i

    waiting = [generate.remote(k) for k in range(3)]
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    while waiting:
        (ready,), _ = ray.wait(waiting)
        try:
            k, i = ray.get(next(ready))
        except StopIteration:
            waiting.remove(ready)
        else:
            seen[k].append(i)
    assert seen == {k: list(range(30)) for k in range(3)}


@pytest.mark.session(num_cpus=3)
def test_three_streams_are_read_with_async_for_at_the_same_time(
    session: Connection, new_gate: Callable[[], Gate]
) -> None:
    gates = [[new_gate() for _ in range(4)] for _ in range(3)]

    async def consume(generator: Any) -> list[int]:
        return [await ref async for ref in generator]

    def meet_in_turn() -> None:
        # Each producer comes to its next gate only when its consumer has taken the item before.
        for turn in zip(*gates, strict=True):
            for gate in turn:
                gate.meet()

    async def consume_all() -> list[list[int]]:
        paused = hold.options(_generator_backpressure_num_objects=1)
        generators = [paused.remote([gate.path for gate in row]) for row in gates]
        *seen, _ = await asyncio.gather(
            *[consume(generator) for generator in generators], asyncio.to_thread(meet_in_turn)
        )
        return seen

    assert asyncio.run(consume_all()) == [[0, 1, 2, 3]] * 3


def test_ctrl_c_ends_a_next_that_waits_and_harms_nothing(
    shared_session: Connection, gate: Gate
) -> None:
    main, go = threading.main_thread(), threading.Event()

    def interrupt() -> None:
        if go.wait(10) and eventually(lambda: sleeps(main)):
            signal.pthread_kill(main.ident or 0, signal.SIGINT)

    generator = hold.remote([gate.path])
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        go.set()
        next(generator)
    watcher.join()
    gate.meet()
    assert values(generator) == [0]


def test_cancelled_async_next_takes_no_item(shared_session: Connection, gate: Gate) -> None:
    async def consume() -> list[int]:
        generator = hold.remote([gate.path])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(generator), 0.05)
        await asyncio.to_thread(gate.meet)
        return [await ref async for ref in generator]

    assert asyncio.run(consume()) == [0]


# ---- the end of the session ----


def test_shutdown_ends_a_next_that_waits_in_another_thread(session: Connection) -> None:
    @ray.remote
    def generate():
        signal.pause()
        yield

    raised: list[BaseException] = []

    def consume(generator: Any) -> None:
        try:
            next(generator)
        except BaseException as error:
            raised.append(error)

    consumer = threading.Thread(target=consume, args=(generate.remote(),))
    consumer.start()
    assert eventually(lambda: sleeps(consumer))
    ray.shutdown()
    consumer.join(10)
    assert not consumer.is_alive()
    assert [type(error) for error in raised] == [RaySystemError]


def test_shutdown_ends_an_async_next_that_waits_in_another_thread(session: Connection) -> None:
    @ray.remote
    def generate():
        signal.pause()
        yield

    generator = generate.remote()
    raised: list[BaseException] = []

    async def consume() -> None:
        try:
            await anext(generator)
        except BaseException as error:
            raised.append(error)

    consumer = threading.Thread(target=asyncio.run, args=(consume(),))
    consumer.start()
    assert eventually(lambda: "ray_lite-futures" in [t.name for t in threading.enumerate()])
    ray.shutdown()
    consumer.join(10)
    assert not consumer.is_alive()
    assert [type(error) for error in raised] == [RaySystemError]


def test_stream_of_a_session_that_is_over_says_so(session: Connection) -> None:
    generator = hold.remote([])
    ray.shutdown()
    with pytest.raises(RaySystemError):
        next(generator)
    with pytest.raises(ValueError, match="session"):
        ray.wait([generator])
    with pytest.raises(ValueError, match="session"):
        ray.get(generator.completed())


# ---- second attempts ----


ATTEMPTS_THAT_DIFFER = {
    "another value": [0, "other", 2],
    "another type": [0, 1.0, 2],
    "swapped": [1, 0, 2],
    "fewer": [0],
    "none": [],
    "an exception earlier": [0, KeyError("earlier")],
}


def play(script: list[Any]) -> Iterator[Any]:
    """Yield what is in `script`, and raise what is an exception."""
    for step in script:
        if isinstance(step, BaseException):
            raise step
        yield step


@pytest.mark.parametrize("cause", ["a crash", "an exception"])
@pytest.mark.parametrize("second", ATTEMPTS_THAT_DIFFER.values(), ids=ATTEMPTS_THAT_DIFFER.keys())
def test_second_attempt_that_differs_is_the_last_item(
    shared_session: Connection, attempts: Attempts, cause: str, second: list[Any]
) -> None:
    begin = attempts.begin
    script = play

    @ray.remote(max_retries=1, retry_exceptions=True)
    def generate(cause, second):
        if begin() == 2:
            yield from script(second)
            return
        yield 0
        yield 1
        if cause == "a crash":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyError("first attempt")

    generator = generate.remote(cause, second)
    *fine, last = generator
    assert ray.get(fine) == [0, 1]
    with pytest.raises(StreamingGeneratorReplayInconsistentError) as info:
        ray.get(last)
    assert "attempt 2" in str(info.value)
    assert list(generator) == []
    assert ray.get(generator.completed()) is None
    assert attempts.made() == 2


def test_second_attempt_that_ends_early_by_an_exception_tells_of_it(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, retry_exceptions=True)
    def generate():
        attempt = begin()
        if attempt == 1:
            yield 0
        raise KeyError(f"in attempt {attempt}")

    _, last = generate.remote()
    with pytest.raises(StreamingGeneratorReplayInconsistentError, match="KeyError: 'in attempt 2'"):
        ray.get(last)


def test_generator_that_differs_is_closed(
    shared_session: Connection, attempts: Attempts, gate: Gate
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, retry_exceptions=True)
    def generate(path):
        attempt = begin()
        try:
            yield attempt
            raise KeyError("first attempt")
        finally:
            if attempt == 2:
                pass_through(path)

    generator = generate.remote(gate.path)
    gate.meet()
    assert len(list(generator)) == 2


def test_large_items_are_compared_by_samples(
    shared_session: Connection, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, retry_exceptions=True)
    def generate():
        attempt = begin()
        yield array(8 * MIB, 1)
        yield array(8 * MIB, attempt)
        if attempt == 1:
            raise KeyError("first attempt")

    first, second, last = generate.remote()
    assert [int(ray.get(ref)[-1]) for ref in (first, second)] == [1, 1]
    with pytest.raises(StreamingGeneratorReplayInconsistentError):
        ray.get(last)


def test_second_attempt_of_a_dropped_stream_runs_to_its_end(
    shared_session: Connection, attempts: Attempts, new_gate: Callable[[], Gate]
) -> None:
    begin = attempts.begin
    first, second = new_gate(), new_gate()

    @ray.remote(max_retries=1, retry_exceptions=True)
    def generate(paths):
        attempt = begin()
        yield 0
        pass_through(paths[attempt - 1])
        if attempt == 1:
            raise KeyError("first attempt")

    generator = generate.remote([first.path, second.path])
    assert ray.get(next(generator)) == 0
    del generator
    first.meet()
    second.meet()
    assert eventually(lambda: attempts.made() == 2)


# ---- what nobody hears ----


def test_exception_after_the_stream_was_dropped_is_printed(
    session: Connection, printed: Output, gate: Gate
) -> None:
    @ray.remote
    def shout(path):
        yield 0
        pass_through(path)
        raise KeyError("nobody hears")

    generator = shout.remote(gate.path)
    next(generator)
    del generator
    gate.meet()
    assert printed.until("KeyError: 'nobody hears'")


def test_exception_that_was_not_taken_is_printed_when_the_stream_is_dropped(
    session: Connection, printed: Output
) -> None:
    @ray.remote
    def shout():
        yield 0
        raise KeyError("nobody hears")

    generator = shout.remote()
    ray.get(generator.completed())
    del generator
    assert printed.until("KeyError: 'nobody hears'")


def test_async_generator_says_what_to_do_and_prints_nothing_else(
    session: Connection, printed: Output
) -> None:
    @ray.remote
    async def generate():
        yield 1

    (ref,) = generate.remote()
    with pytest.raises(TypeError, match="must return a generator, not async_generator"):
        ray.get(ref)
    ray.shutdown()
    assert printed.err == ""


def test_crash_of_a_stream_that_nobody_reads_is_printed(
    session: Connection, printed: Output
) -> None:
    @ray.remote(max_retries=0)
    def vanish():
        yield 0
        os.kill(os.getpid(), signal.SIGKILL)

    vanish.remote()
    assert printed.until("Task vanish ended with its worker", "SIGKILL")


def test_printing_arrives_before_the_end_of_the_stream(
    session: Connection, printed: Output
) -> None:
    @ray.remote
    def speak():
        for i in range(3):
            print(f"line {i}")
            yield i

    assert values(speak.remote()) == [0, 1, 2]
    assert printed.until("line 0", "line 1", "line 2")
