"""An async actor's way to serve: its calls are coroutines on the event loop of the main thread.

Owns the loop, the threads that take calls for it, and what cancelling does to a coroutine. A module
of its own because asyncio is slow to import. It must not know how the actor was made or why it ends
(actor_worker.py).

    take_call, in a thread for each concurrency group ──► a coroutine ──► returns.Returns.deliver

While its coroutines end without waiting for anything, the loop looks for the next call itself: to
be given it by a thread costs several times as much as such a call.
"""

import asyncio
import contextlib
import contextvars
import inspect
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from ray_lite import _core, session
from ray_lite._plain import Raised
from ray_lite._values import fail_open_returns
from ray_lite.certificate import read_certificate
from ray_lite.exceptions import (
    RaySystemError,
    TaskCancelledError,
    dumps_error,
)
from ray_lite.returns import Returns
from ray_lite.runner import DYNAMIC

if TYPE_CHECKING:
    from ray_lite.actor_worker import Instance


BATCH: Final = 64  # calls that the loop is given at once
GRACE_S: Final = 1.0  # for what is cancelled at the actor's end


class Loop:
    """Serves an async actor: its calls are coroutines on the event loop of the main thread.

    Args:
        core: The session.
        job: The task that is the actor.
        instance: The actor.
        exit: Ends the actor, because this call, or what runs beside the calls (None), raised this.
    """

    def __init__(
        self,
        core: _core.Session,
        job: _core.Job,
        instance: "Instance",
        exit: Callable[[_core.Job | None, SystemExit], None],
    ) -> None:
        """Start nothing yet."""
        self._core = core
        self._job = job
        self._instance = instance
        self._exit = exit
        self._loop = asyncio.new_event_loop()
        #: The serving thread's, for calls: what numpy allocates with is part of it.
        self._context: contextvars.Context | None = None
        #: Held to hand something to the loop, and to say that it takes no more.
        self._handing = threading.RLock()
        self._is_closed = False
        self._is_stopped = False
        #: One for each concurrency group.
        self._rooms = [_Room(k, size) for k, size in enumerate(instance.info.groups.values())]
        #: How many threads still take calls.
        self._pumps = len(self._rooms)
        #: What runs now.
        self._running: dict[asyncio.Task[None], _Call] = {}

    def run(self) -> None:
        """Serve until nobody can call any more, or `stop`.

        What the actor runs beside its calls, as tasks or in threads, keeps it from neither.
        """
        asyncio.set_event_loop(self._loop)
        self._context = contextvars.copy_context()
        if threading.current_thread() is threading.main_thread():  # of a worker
            self._loop.add_signal_handler(session.CANCEL_SIGNAL, self._cancel_marked)
        pumps = [
            threading.Thread(target=self._pump, args=(room,), daemon=True) for room in self._rooms
        ]
        for pump in pumps:
            pump.start()
        try:
            while self._pumps and not self._is_stopped:
                self._loop.run_forever()  # the actor's own code may stop it, too
        except SystemExit as error:  # a call's own is caught where it runs
            # Its task may be kept, and with its traceback this frame and the session.
            self._exit(None, error.with_traceback(None))
        except KeyboardInterrupt:
            traceback.print_exc()
            self._exit(None, SystemExit(1))
        finally:
            self._close()
            deadline = time.monotonic() + GRACE_S
            for pump in pumps:
                pump.join(max(deadline - time.monotonic(), 0))

    def _close(self) -> None:
        """Cancel what still runs, give it a moment to end, and fail what was not served."""
        self._is_stopped = True
        with self._handing:
            self._is_closed = True
        for room in self._rooms:
            room.give_turn()
        winding_up = self._loop.create_task(self._wind_up())
        while not winding_up.done():
            with contextlib.suppress(SystemExit):
                self._loop.run_forever()
        for call in self._running.values():
            self._fail_unserved(call.job)
            call.room.give()
        self._loop.close()
        asyncio.set_event_loop(None)

    async def _wind_up(self) -> None:
        try:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            if others:
                await asyncio.wait(others, timeout=GRACE_S)
            closing = self._loop.create_task(self._loop.shutdown_asyncgens())
            await asyncio.wait([closing], timeout=GRACE_S)
        finally:
            self._loop.stop()

    def _pump(self, room: "_Room") -> None:
        """Take the calls of a group, as many at once as it may run, and hand them to the loop."""
        with contextlib.suppress(RaySystemError):  # the session is over
            while jobs := self._await_calls(room):
                with_turn = not room.is_waiting
                if with_turn:
                    room.lend_turn()
                if not self._have_done(self._start_all, jobs, room, with_turn):
                    for job in jobs:
                        self._fail_unserved(job)
                    return
        self._have_done(self._end_pump)

    def _end_pump(self) -> None:
        self._pumps -= 1
        if self._pumps == 0:
            self._loop.stop()

    def _await_calls(self, room: "_Room") -> list[_core.Job]:
        """Wait for a call, and return it with those that are there too; []: the end."""
        room.wait()
        return self._with_others(self._core.take_call(self._job, room.group), room)

    def _with_others(self, job: _core.Job | None, room: "_Room") -> list[_core.Job]:
        """Return a call, if it is one, with those that are there too and have room."""
        jobs = []
        most = min(room.left, BATCH)
        while job is not None:
            jobs.append(job)
            if len(jobs) == most:
                break
            job = self._core.poll_call(self._job, room.group)
        room.taken += len(jobs)
        return jobs

    def _start_all(self, jobs: list[_core.Job], room: "_Room", with_turn: bool) -> None:
        """Make coroutines of calls; if the turn came with them, look for more afterwards."""
        loop = self._loop
        try:
            for job in jobs:
                if self._is_stopped or job.is_cancelled:  # since it was taken
                    self._fail_unserved(job)
                    room.give()
                    continue
                call = _Call(job, room)
                task = loop.create_task(self._serve(call))
                self._running[task] = call
                task.add_done_callback(self._forget)
        finally:
            # Their first steps come in the loop's next round, and what ends in its first step is
            # forgotten in the round after that; then it is known which of them wait.
            loop.call_soon(loop.call_soon, self._go_on, room, with_turn)

    def _go_on(self, room: "_Room", with_turn: bool) -> None:
        """Start the next calls, unless some coroutine waits for something: then a thread does."""
        room.is_waiting = bool(self._running)
        if not with_turn:
            return
        jobs: list[_core.Job] = []
        try:
            if room.left and not room.is_waiting and not self._is_stopped:
                job = self._core.poll_call(self._job, room.group, spin=True)
                jobs = self._with_others(job, room)
        finally:
            if not jobs:
                room.give_turn()
        if jobs:
            self._start_all(jobs, room, with_turn)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        call = self._running.pop(task)
        try:
            if not call.has_begun:
                self._fail_unserved(call.job)
        finally:
            call.room.give()

    def interrupt_cancelled(self) -> None:
        """From another thread: some call was cancelled; cancel its coroutine."""
        self._have_done(self._cancel_marked)

    def stop(self) -> None:
        """From any thread: cancel all coroutines and return from `run`."""
        self._is_stopped = True
        self._have_done(self._loop.stop)

    def _have_done(self, step: Callable[..., object], *args: Any) -> bool:
        """From any thread: have the loop's thread do a step; False: it will do no more."""
        with self._handing:
            if not self._is_closed:
                self._loop.call_soon_threadsafe(step, *args, context=self._context)
            return not self._is_closed

    def _cancel_marked(self) -> None:
        """Somebody has cancelled a call of this actor: which? Each is cancelled once."""
        for task, call in list(self._running.items()):
            if call.job.is_cancelled and not call.is_told:
                call.is_told = True
                task.cancel()

    def _fail_unserved(self, job: _core.Job) -> None:
        """Fail a call whose coroutine was cancelled before it began, or whose actor is dead."""
        if self._core.is_over:
            return
        if job.is_cancelled:
            failure = dumps_error(TaskCancelledError(job.task_id.hex()))
        elif self._is_stopped:
            failure = read_certificate(self._core, self._job.return_ref(0))
        else:  # by the actor's own code
            Returns(self._core, job, job.name).break_off(asyncio.CancelledError())
            return
        fail_open_returns(self._core, job, failure)

    async def _serve(self, call: "_Call") -> None:
        """Run one call; it is finished, failed or stranded afterwards."""
        call.has_begun = True
        job = call.job
        session.current_job.set(job)
        returns = None
        try:
            export, returns, bound = self._instance.runner.prepare(job)
            if bound is None:
                return
            outcome = await _outcome_of(job, bound)
            if self._is_stopped:
                self._fail_unserved(job)
                return
            deliver: Callable[[], Any]
            if isinstance(outcome, Raised):
                deliver = outcome
            elif inspect.isasyncgen(outcome[0]) and job.fills_stream:
                await returns.deliver_async(outcome.pop(), per_yield=export.per_yield)
                return
            else:
                deliver = outcome.pop
            dynamic = job.options & DYNAMIC != 0
            returns.deliver(deliver, dynamic=dynamic, per_yield=export.per_yield)
        except SystemExit as error:
            self._exit(job, error)
        except BaseException as error:
            if not self._core.is_over:
                (returns or Returns(self._core, job, job.name)).break_off(error)


@dataclass(slots=True, eq=False)
class _Call:
    """A call that the loop has made a coroutine of."""

    job: _core.Job
    room: "_Room"
    has_begun: bool = False
    #: Its coroutine was told that somebody has cancelled it.
    is_told: bool = False


class _Room:
    """How many more coroutines a group of calls may have, and whose turn it is to take calls.

    Whoever has the turn counts what it takes in `taken`, the loop's thread what is over in `given`:
    nobody else writes either, so neither needs a lock. The turn is the pump's; it lends it to the
    loop with calls, and the loop gives it back.
    """

    def __init__(self, group: int, size: int) -> None:
        self.group = group
        self._size = size
        self.taken = 0
        self.given = 0
        #: When the loop looked last, some coroutine of any group had outlived its first step.
        #: The pump goes by it even if it is out of date: it only says which way is faster.
        self.is_waiting = False
        self._is_awaited = False
        self._given_one = threading.Event()
        self._pumps_turn = threading.Event()
        self._pumps_turn.set()

    @property
    def left(self) -> int:
        """How many more there may be."""
        return self._size - self.taken + self.given

    def lend_turn(self) -> None:
        """From the pump: the loop takes the next calls."""
        self._pumps_turn.clear()

    def give_turn(self) -> None:
        """From the loop: the pump does."""
        self._pumps_turn.set()

    def wait(self) -> None:
        """From the pump: wait for its turn, and until there is room."""
        self._pumps_turn.wait()
        while self.left == 0:
            self._given_one.clear()
            self._is_awaited = True
            if self.left == 0:
                self._given_one.wait()
            self._is_awaited = False

    def give(self) -> None:
        """One is over."""
        self.given += 1
        if self._is_awaited:
            self._given_one.set()


async def _outcome_of(job: _core.Job, call: Callable[[], Any]) -> Raised | list[Any]:
    """Await the call's result, if it is to be awaited; return it in a list that alone holds it."""
    try:
        result = call()
        if type(result) is CoroutineType or inspect.isawaitable(result):
            result = await result
        if job.is_cancelled:
            raise TaskCancelledError(job.task_id.hex())
    except SystemExit:
        raise
    except asyncio.CancelledError as error:
        cancelled = TaskCancelledError(job.task_id.hex()) if job.is_cancelled else error
        return Raised(cancelled)
    except BaseException as error:
        return Raised(error)
    return [result]
