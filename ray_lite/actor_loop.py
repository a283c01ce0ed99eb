"""An async actor's way to serve: its calls are coroutines on the event loop of the main thread.

Owns the loop, the threads that take calls for it, and what cancelling does to a coroutine. A module
of its own because asyncio is slow to import. It must not know how the actor was made or why it ends
(actor_worker.py).

    take_call, in a thread for each concurrency group ──► a coroutine ──► returns.Returns.deliver
"""

import asyncio
import contextlib
import contextvars
import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

from ray_lite import _core, session
from ray_lite.actor import ActorInfo
from ray_lite.exceptions import (
    RaySystemError,
    TaskCancelledError,
)
from ray_lite.remote import Mode
from ray_lite.returns import Returns
from ray_lite.runner import Call, Runner


class Loop:
    """Serves an async actor: its calls are coroutines on the event loop of the main thread.

    Args:
        core: The session.
        job: The task that is the actor.
        info: What it is.
        runner: Runs what is no coroutine.
        exit: Ends the actor, because one of its methods raised this.
    """

    def __init__(
        self,
        core: _core.Session,
        job: _core.Job,
        info: ActorInfo,
        runner: Runner,
        exit: Callable[[SystemExit], None],
    ) -> None:
        """Start nothing yet."""
        self._core = core
        self._job = job
        self._info = info
        self._runner = runner
        self._exit = exit
        #: What runs now.
        self._running: dict[asyncio.Task[None], _core.Job] = {}

    def run(self) -> None:
        """Serve until nobody can call any more."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        #: The main thread's, for calls: what numpy allocates with is part of it.
        self._context = contextvars.copy_context()
        self._loop.add_signal_handler(session.CANCEL_SIGNAL, self._cancel_marked)
        pumps = [
            asyncio.ensure_future(self._start_pump(group, size))
            for group, size in enumerate(self._info.groups.values())
        ]
        await asyncio.gather(*pumps)

    def _start_pump(self, group: int, size: int) -> "asyncio.Future[None]":
        """Have a thread take the calls of a group, as many at once as it may run."""
        done: asyncio.Future[None] = self._loop.create_future()
        thread = threading.Thread(target=self._pump, args=(group, size, done), daemon=True)
        thread.start()
        return done

    def _pump(self, group: int, size: int, done: "asyncio.Future[None]") -> None:
        room = threading.Semaphore(size)
        with contextlib.suppress(RaySystemError):  # the session is over
            while room.acquire():
                job = self._core.take_call(self._job, group)
                if job is None:
                    break
                self._loop.call_soon_threadsafe(self._start, job, room, context=self._context)
        self._loop.call_soon_threadsafe(done.set_result, None)

    def _start(self, job: _core.Job, room: threading.Semaphore) -> None:
        task = self._loop.create_task(self._serve(job))
        self._running[task] = job

        def forget(task: "asyncio.Task[None]") -> None:
            del self._running[task]
            room.release()

        task.add_done_callback(forget)

    def _cancel_marked(self) -> None:
        """Somebody has cancelled a call of this actor: which?"""
        for task, job in list(self._running.items()):
            if job.is_cancelled:
                task.cancel()

    async def _serve(self, job: _core.Job) -> None:
        """Run one call; it is finished, failed or stranded afterwards."""
        session.current_job.set(job)
        returns = Returns(self._core, job, job.name, lambda error: False)
        try:
            export, returns, call = self._runner.prepare(job)
            if call is not None:
                await self._deliver(job, export.per_yield, returns, call)
        except SystemExit as error:
            self._exit(error)
        except BaseException as error:
            returns.break_off(error)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    async def _deliver(self, job: _core.Job, per_yield: int, returns: Returns, call: Call) -> None:
        outcome = await _outcome_of(job, call)
        result = None if isinstance(outcome, _Raised) else outcome()
        if inspect.isasyncgen(result) and job.fills_stream:
            await returns.deliver_async(result, per_yield=per_yield)
            return
        dynamic = bool(job.options & Mode.DYNAMIC)
        returns.deliver(outcome, dynamic=dynamic, per_yield=per_yield)


class _Raised:
    """A call that raises what the awaited one raised."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self) -> Any:
        """Raise it."""
        raise self._error


async def _outcome_of(job: _core.Job, call: Call) -> Callable[[], Any]:
    """Await the call's result, if it is to be awaited; return a call that gives or raises it."""
    try:
        result = call()
        if inspect.isawaitable(result):
            result = await result
        if job.is_cancelled:
            raise TaskCancelledError(job.task_id.hex())
    except SystemExit:
        raise
    except asyncio.CancelledError as error:
        cancelled = TaskCancelledError(job.task_id.hex()) if job.is_cancelled else error
        return _Raised(cancelled)
    except BaseException as error:
        return _Raised(error)
    return lambda: result
