"""What is stored for each outcome of a task: the one home of the num_returns rules.

Owns the table below (design of generators: one engine, several views). It must not know where tasks
come from or how arguments are found; it is given a job, a way to run the user's function, and one
to ask whether an exception is worth another attempt.

    num_returns  outcome                          stored
    n            n values                         each as it is yielded; the last at the end
                 fewer                            those; ValueError on the rest
                 more                             those; ValueError on the last; generator closed
                 an exception midway              those before; the exception on the rest
                 an exception after the n-th      those; the exception on the last
                 a value that cannot be pickled   those before; TypeError on it and the rest
    "dynamic"    k values                         one DynamicObjectRefGenerator of k references
                 an exception after k values      one of k + 1; the last raises it
                 a cancel                         nothing; it is what the reference raises
    "streaming"  k values                         each in the stream as it is yielded
                 an exception after k values      those; the exception as the last item
                 a cancel after k values          those; it is what the completion raises
                 (of a tuple of values a yield    one item a value; ValueError for another length)
    0            anything                         nothing; values and exceptions are printed

A second attempt (after a crash, or an exception that is to be retried) must yield again what is
visible already; where it does not, the rest fails with StreamingGeneratorReplayInconsistentError.
"""

import contextlib
import functools
import inspect
import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any, Final, TypeAlias

from ray_lite import _core
from ray_lite._codec import encode, encode_refs
from ray_lite._core import flush_output
from ray_lite._values import fail_open_returns, store_failure
from ray_lite.certificate import actor_id_of
from ray_lite.exceptions import (
    RUN_ONCE,
    RaySystemError,
    StreamingGeneratorReplayInconsistentError,
    TaskCancelledError,
    dumps_error,
    error_text,
    make_task_error,
)
from ray_lite.liveness import dead_names

Passing: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]
"""What user code may raise that is no outcome of its task."""


class StrandedError(Exception):
    """The task was handed back to be run again; nothing more is to be stored."""


class Returns:
    """Stores what one run of a task brings forth.

    Args:
        core: The worker's session.
        job: The task; finished, failed or stranded when `deliver` returns.
        name: The task's name in errors.
        retry: Which exceptions of the user's function are worth another attempt; as the option
            retry_exceptions.
        passing: What is no outcome of the task, and passes through `deliver`.
    """

    def __init__(
        self,
        core: _core.Session,
        job: _core.Job,
        name: str,
        retry: bool | tuple[type[BaseException], ...] = False,
        passing: Passing = SystemExit,
    ) -> None:
        """Keep them; nothing is stored before `deliver` or `fail`."""
        self._core = core
        self._steps = core.steps(_dead_names)
        self._job = job
        self._name = name
        self._retry = Exception if retry is True else retry or ()
        self._passing = passing
        #: The task is to be run again: from here on only `strand` may end this run.
        self._handed_back = False
        #: The failure is no exception of the function's own: it was interrupted.
        self._is_interrupted = False

    def deliver(self, call: Callable[[], Any], *, dynamic: bool, per_yield: int = 1) -> None:
        """Run the user's function and store its outcome.

        Args:
            call: Runs it.
            dynamic: num_returns="dynamic".
            per_yield: Its stream gets so many items of each yield, a tuple or list of them.
        """
        try:
            try:
                result = self._job.run(call, not dynamic)
            except self._passing:
                raise
            except BaseException as error:
                failure = self._envelope_or_strand(error)
            else:
                if result is not None:  # else it was a small value, and that is stored
                    self._deliver(result, dynamic, per_yield)
                return
            # Nothing of the function's frames is left: what it was given goes before the task ends.
            self.fail(failure)
        except StrandedError:
            pass

    def _deliver(self, result: _core.Owned, dynamic: bool, per_yield: int) -> None:
        """Store what the user's function has returned."""
        if self._job.is_call and self._job.is_cancelled:
            self.fail(self._cancelled())
        elif dynamic:
            self._deliver_dynamic(result.value)
        elif self._job.fills_stream:
            self._deliver_stream(result.value, per_yield)
        elif self._job.nreturns == 0:
            self._deliver_nothing(result.value)
        elif inspect.isgenerator(result.value):
            self._deliver_generator(result.value)
        elif self._job.nreturns == 1:
            self._deliver_one(result)
        else:
            self._deliver_sequence(result)

    def _cancelled(self) -> bytes:
        """Return the failure of a call that could not be interrupted; nobody wants its value."""
        self._is_interrupted = True
        return dumps_error(TaskCancelledError(self._job.task_id.hex()))

    def break_off(self, error: BaseException) -> None:
        """Fail the task with what was raised between its steps."""
        self.fail(self._envelope(error))

    def fail(self, data: bytes) -> None:
        """Store the failure `data` (an envelope) in every return that is still open; end the task.

        A task without returns has nowhere to put it: it is printed.
        """
        if self._handed_back:
            with contextlib.suppress(ValueError):  # it was stranded before the interrupt came
                self._job.strand()
            return
        if self._job.fills_stream:
            self._end_stream(data)
            return
        if self._job.nreturns == 0:
            _print(error_text(data))
        self._fail(data)

    # ---- the outcomes ----

    def _deliver_one(self, result: _core.Owned) -> None:
        stored, failure = self._store(result)
        if stored is None:
            self._fail(failure)
        else:
            flush_output()
            self._job.finish_with(0, stored)

    def _deliver_sequence(self, result: _core.Owned) -> None:
        """Store the items of a list, tuple, array, ...: anything with a length.

        They were all there at once, so they become visible at once, in one section.
        """
        kind = type(result.value).__name__
        try:
            length = len(result.value)
            items = _items_of(result)
        except TypeError as error:
            refusal = TypeError(
                f"Task {self._name} has num_returns={self._job.nreturns} and must return so many "
                f"values, as a list or a generator; it returned one {kind} "
                f"({error})"
            )
            self._fail(self._envelope(refusal))
            return
        if length != self._job.nreturns:
            self._fail(self._wrong_count(length))
            return
        outcomes: list[_core.Stored] = []
        failure = b""
        while len(outcomes) < length:
            stored = None
            if not failure:
                stored, failure = self._store_next(items, len(outcomes))
            outcomes.append(stored or store_failure(self._core, failure))
        self._give_all(outcomes)

    def _deliver_generator(self, items: Any) -> None:
        """Store value by value; none is on the heap when the next one is asked for.

        The last is held back until the generator has ended and so is known to be the last.
        """
        last = self._job.nreturns - 1
        for i in range(last + 1):
            stored, failure = self._store_next(items, i)
            if stored is not None and i == last:
                failure = self._end_of(items)
            if failure or stored is None:
                self._close(items)
                self._fail_at(i, failure)
                return
            if not self._give(i, stored):
                self._close(items)
                self._fail(self._inconsistent(i, "is another value than the one"))
                return
        flush_output()
        self._job.finish()

    def _deliver_dynamic(self, result: Any) -> None:
        """Store each value as an object of its own; show them all at the end."""
        if not inspect.isgenerator(result):
            error = ValueError(
                f'Task {self._name} has num_returns="dynamic" and must return a generator, not '
                f"{type(result).__name__}"
            )
            self._fail(self._envelope(error))
            return
        refs: list[_core.ObjectRef[Any]] = []
        while True:
            stored, failure = self._store_next(result, None)
            if stored is None:
                break
            refs.append(self._core.put_stored(stored))
        if failure:
            self._close(result)
        if self._is_interrupted:
            self._fail(failure)
            return
        if failure:
            refs.append(self._core.put_stored(store_failure(self._core, failure)))
        flush_output()
        self._job.finish_with(0, self._core.store(encode_refs(refs)))

    def _deliver_stream(self, items: Any, per_yield: int) -> None:
        """Append value by value to the stream; a failure is the last item."""
        if not inspect.isgenerator(items):
            error = TypeError(
                f"Task {self._name} streams and must return a generator, not "
                f"{type(items).__name__}; a task has no event loop, so `async def` will not do"
            )
            self._end_stream(self._envelope(error))
            return
        if per_yield > 1:
            items = _spread(items, per_yield)
        shown = self._job.stream_log() if self._job.attempt else []
        count = 0
        while True:
            failure = self._wait_for_room()
            if failure:
                break
            stored, failure = self._store_next(items, None)
            if stored is None:
                failure = self._cut_short(count, shown, failure)
                break
            failure = self._append(stored, count, shown)
            if failure:
                break
            del stored  # one that nobody wants must not wait for the next one to give way
            count += 1
        if failure:
            self._close(items)
        self._end_stream(failure)

    async def deliver_async(self, items: Any, *, per_yield: int = 1) -> None:
        """Append the values of an async generator to the stream, as _deliver_stream does."""
        try:
            if per_yield > 1:
                items = _spread_async(items, per_yield)
            failure = await self._drive(items)
            if failure:
                await self._close_async(items)
            self._end_stream(failure)
        except StrandedError:
            pass

    async def _drive(self, items: Any) -> bytes:
        """Append value by value; returns the failure that ended the stream, or b""."""
        import asyncio  # it is slow to import, and whoever has a coroutine has it

        shown = self._job.stream_log() if self._job.attempt else []
        count = 0
        while True:
            try:
                if not self._job.has_stream_room:
                    await _in_thread_of_its_own(self._job.wait_for_stream_room)
                value = _core.Owned(await anext(items))
            except StopAsyncIteration:
                return self._cut_short(count, shown, b"")
            except self._passing:
                raise
            except asyncio.CancelledError as error:
                if not self._job.is_cancelled:
                    return self._envelope(error)
                self._is_interrupted = True
                return self._envelope(TaskCancelledError(self._job.task_id.hex()))
            except BaseException as error:
                return self._cut_short(count, shown, self._envelope_or_strand(error))
            stored, failure = self._steps.seal(items, value), b""
            if stored is None:
                stored, failure = self._store(value)
            if stored is None:
                return self._cut_short(count, shown, failure)
            failure = self._append(stored, count, shown)
            if failure:
                return failure
            del stored, value
            count += 1

    def _cut_short(self, count: int, shown: list[int], failure: bytes) -> bytes:
        """Return the failure of an attempt that ended before its value `count`; b"": of none.

        One that ended before what an earlier attempt has shown is another computation.
        """
        if count < len(shown) and not self._is_interrupted:
            return self._missing(count, failure)
        return failure

    def _wait_for_room(self) -> bytes:
        """Wait until the consumer has taken enough; returns the failure if cancelled meanwhile."""
        if self._job.has_stream_room:
            return b""
        try:
            self._job.wait_for_stream_room()
        except KeyboardInterrupt as error:
            return self._envelope(error)
        if not self._job.is_cancelled:
            return b""
        return self._cancelled() if self._job.is_call else self._envelope(KeyboardInterrupt())

    def _append(self, stored: _core.Stored, count: int, shown: list[int]) -> bytes:
        """Append value `count`, unless an earlier attempt has; returns what is wrong with it."""
        if self._job.is_call and self._job.is_cancelled:
            return self._cancelled()
        if count >= len(shown):
            stored.fingerprint()
            self._job.append(stored)
        elif stored.fingerprint() != shown[count]:
            return self._inconsistent(count, "is another value than the one")
        return b""

    def _end_stream(self, failure: bytes) -> None:
        """Append `failure`, if there is one, and end the task.

        The completion carries one that came from outside, and any for which the tables have no
        record left.
        """
        if self._is_interrupted:
            self._fail(failure)
            return
        try:
            if failure:
                self._append_failure(failure)
        except RuntimeError:
            self._fail(failure)
            return
        flush_output()
        self._job.finish_with(0, self._core.store(encode(None)))

    def _append_failure(self, failure: bytes) -> None:
        stored = store_failure(self._core, failure)
        if not self._job.append(stored):
            self._core.put_stored(stored)  # dropped at once: reported like any unheard failure

    def _deliver_nothing(self, result: Any) -> None:
        """num_returns=0: the body runs to its end; what has no reference to go to is printed."""
        if inspect.isgenerator(result):
            self._drain(result)
        flush_output()
        self._job.finish()

    def _drain(self, generator: Any) -> None:
        count = 0
        try:
            while True:
                next(generator)  # the variable of a for loop would keep the value alive
                count += 1
        except StopIteration:
            pass
        except self._passing:
            raise
        except BaseException as error:
            _print(error_text(self._envelope_or_strand(error)))
        if count:
            _print(
                f"Task {self._name} yielded {count} values, but num_returns=0 leaves them no "
                "reference; they were dropped"
            )

    # ---- steps ----

    def _store_next(self, items: Iterator[Any], i: int | None) -> tuple[_core.Stored | None, bytes]:
        """Ask for the next value and store it: (stored, b"") or (None, the failure in its place).

        At the end of the items: (None, b"") where any number of them is right (i is None).
        """
        try:
            value = self._steps.next(items)
        except StopIteration:
            return None, b"" if i is None else self._wrong_count(i)
        except self._passing:
            raise
        except BaseException as error:
            return None, self._envelope_or_strand(error)
        if type(value) is _core.Owned:
            return self._store(value)
        return value, b""

    def _end_of(self, items: Iterator[Any]) -> bytes:
        """Return b"" if the generator ends here, else the failure for the last reference."""
        try:
            next(items)
        except StopIteration:
            return b""
        except self._passing:
            raise
        except BaseException as error:
            return self._envelope_or_strand(error)
        extra = ValueError(
            f"Task {self._name} yielded more than num_returns={self._job.nreturns} values; its "
            'last reference says so. Give the right number, or num_returns="dynamic"'
        )
        return self._envelope(extra)

    def _store(self, value: _core.Owned) -> tuple[_core.Stored | None, bytes]:
        """Have `value` in shared memory: (stored, b""), or (None, the failure in its place)."""
        try:
            return self._core.store_owned(value), b""
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return None, self._envelope(error)

    def _give(self, i: int, stored: _core.Stored) -> bool:
        """Make value i visible; False if an earlier attempt has shown another one.

        Only tasks that may be run again pay for a fingerprint.
        """
        if self._job.max_retries == 0:
            self._job.give(i, stored)
            return True
        fingerprint = stored.fingerprint()
        before = self._job.returned(i) if self._job.attempt else None
        if before is None:
            self._job.give(i, stored)
        return before in (None, fingerprint)

    def _give_all(self, outcomes: list[_core.Stored]) -> None:
        """Make all values visible, but those that an earlier attempt has shown; end the task."""
        fresh = []
        for i, stored in enumerate(outcomes):
            fingerprint = stored.fingerprint()
            before = self._job.returned(i) if self._job.attempt else None
            if before is None:
                fresh.append(stored)
            elif before != fingerprint:
                self._fail(self._inconsistent(i, "is another value than the one"))
                return
        flush_output()
        self._job.conclude(fresh)

    def _close(self, items: Any) -> None:
        """Run the `finally` blocks of a generator that is not driven further."""
        try:
            items.close()
        except self._passing:
            raise
        except BaseException as error:
            _print(f"While {self._name} was closed: {error_text(self._envelope(error))}")

    async def _close_async(self, items: Any) -> None:
        """As _close, for an async generator."""
        try:
            await items.aclose()
        except self._passing:
            raise
        except BaseException as error:
            _print(f"While {self._name} was closed: {error_text(self._envelope(error))}")

    # ---- failures ----

    def _fail(self, data: bytes) -> None:
        """Store `data` in every open return and end the task."""
        flush_output()
        fail_open_returns(self._core, self._job, data)

    def _fail_at(self, i: int, data: bytes) -> None:
        """As _fail, for an attempt that ended before its value i.

        When an earlier attempt had shown that value, the two are not the same computation.
        """
        if self._job.attempt and self._job.returned(i) is not None:
            data = self._missing(i, data)
        self._fail(data)

    def _envelope(self, error: BaseException) -> bytes:
        self._is_interrupted |= isinstance(error, KeyboardInterrupt)
        actor = self._job.actor() if self._job.is_call else None
        task_error = make_task_error(
            self._name,
            error,
            pid=os.getpid(),
            task_id=self._job.task_id.hex(),
            actor_id=None if actor is None else actor_id_of(actor).hex(),
        )
        return dumps_error(task_error)

    def _envelope_or_strand(self, error: BaseException) -> bytes:
        """Return the failure for an exception of the user's code, unless it is to be retried."""
        wanted = isinstance(error, self._retry) and not self._job.is_cancelled
        wants_retry = wanted and self._may_retry()
        if wants_retry and self._job.is_run_once:
            wants_retry = False
            error.add_note(f"Task {self._name} was not run again: {RUN_ONCE}")
        data = self._envelope(error)
        if wants_retry:
            _print(
                f"Task {self._name} raised (attempt {self._job.attempt + 1}); it will be run "
                f"again:\n{error_text(data)}"
            )
            flush_output()
            self._handed_back = True
            self._job.strand()
            raise StrandedError
        return data

    def _may_retry(self) -> bool:
        most = self._job.max_retries
        return most < 0 or self._job.attempt < most

    def _wrong_count(self, count: int) -> bytes:
        error: Exception = ValueError(
            f"Task returned {count} objects, but num_returns={self._job.nreturns}. Task "
            f'{self._name} must give that many values; num_returns="dynamic" takes any number'
        )
        return self._envelope(error)

    def _missing(self, i: int, data: bytes) -> bytes:
        """Return the failure for an attempt that ended before value i (by `data`, if any)."""
        why = f" ({error_text(data)})" if data else ""
        return self._inconsistent(i, f"did not come, unlike the one{why}")

    def _inconsistent(self, i: int, how: str) -> bytes:
        error = StreamingGeneratorReplayInconsistentError(
            f"Task {self._name} was run again (attempt {self._job.attempt + 1}), and value {i} "
            f"{how} that was visible already. A generator that may be run again must yield the "
            "same values each time; give max_retries=0 to one that cannot"
        )
        return self._envelope(error)


_dead_names: Final = functools.lru_cache(maxsize=1024)(dead_names)

#: How a list and a tuple are iterated over, and what is derived from them and iterated over alike.
_PLAIN_ITERATION: Final = (list.__iter__, tuple.__iter__)


def _items_of(result: _core.Owned) -> Iterator[Any]:
    """Iterate over what a task has returned.

    A list or tuple is given up, so that nothing holds an item beside what the task has left behind.
    """
    if getattr(type(result.value), "__iter__", None) not in _PLAIN_ITERATION:
        return iter(result.value)
    items = list(result.take())
    items.reverse()
    return _pop_all(items)


def _pop_all(items: list[Any]) -> Iterator[Any]:
    while items:
        yield items.pop()


def _spread(items: Generator[Any, Any, Any], count: int) -> Iterator[Any]:
    """Yield the values of each tuple that `items` yields; none of them is kept."""
    with contextlib.closing(items):
        while True:
            try:
                values = _values_of(next(items), count)
            except StopIteration:
                return
            while values:
                yield values.pop(0)


async def _spread_async(items: AsyncGenerator[Any, Any], count: int) -> AsyncIterator[Any]:
    """As _spread, for an async generator."""
    async with contextlib.aclosing(items):
        while True:
            try:
                values = _values_of(await anext(items), count)
            except StopAsyncIteration:
                return
            while values:
                yield values.pop(0)


def _values_of(group: Any, count: int) -> list[Any]:
    if not isinstance(group, tuple | list):
        raise ValueError(
            f"with _num_objects_per_yield={count} a streaming generator must yield a tuple or list "
            f"of length {count}, not {type(group).__name__}"
        )
    if len(group) != count:
        raise ValueError(
            f"the streaming generator yielded {len(group)} objects, but "
            f"_num_objects_per_yield={count}; all or none of a yield's values are stored"
        )
    return list(group)


async def _in_thread_of_its_own(wait: Callable[[], object]) -> None:
    """Wait without blocking the loop.

    Not in asyncio's pool: its few threads are for user code, and a stream that pauses there would
    keep another one from going on.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not over.done():
            over.set_result(None)

    def run() -> None:
        with contextlib.suppress(RaySystemError):  # the session is over
            wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, name="ray_lite-room", daemon=True).start()
    await over


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
