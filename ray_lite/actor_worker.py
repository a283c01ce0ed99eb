"""A worker that has become an actor: makes the instance and serves its calls until the end.

Owns the three ways to serve (in order in the main thread; in threads, some for each concurrency
group; as coroutines on an event loop) and the certificate that says why the actor died. It must not
know how callers name it (actor.py), nor whether it is restarted (scheduler.py).

    the actor's job ──► instance ──► take_call ──► runner.Runner.run ──► take_call
"""

import asyncio
import contextlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ray_lite import _core, session
from ray_lite._codec import encode
from ray_lite.actor import ActorExit, ActorInfo
from ray_lite.exceptions import (
    ActorDiedError,
    RaySystemError,
    TaskCancelledError,
    dumps_error,
    error_text,
    make_task_error,
)
from ray_lite.remote import Export, Mode
from ray_lite.returns import Returns
from ray_lite.runner import Call, Runner, read_arguments

ACTOR_ID_HEX = 32  # digits


class ActorWorker:
    """Serves one actor in this process.

    Args:
        core: The session that this process has joined.
        job: The task that is the actor.
        set_title: Told what the lines that this process prints begin with.
    """

    def __init__(self, core: _core.Session, job: _core.Job, set_title: Any) -> None:
        """Read what the actor is; make nothing yet."""
        self._core = core
        self._job = job
        self._set_title = set_title
        self._class, info = job.function()
        self._info = ActorInfo(*info)
        self._instance: Any = None
        self._runner = Runner(core, self._method_of)
        self._ending = threading.Lock()

    def run(self) -> None:
        """Be the actor until its end."""
        session.become_actor(self._info, self._job)
        signal.signal(session.CANCEL_SIGNAL, lambda signum, frame: None)
        os.environ.update(self._info.env_vars)
        try:
            if not self._construct():
                return
            if self._info.is_async:
                asyncio.run(_Loop(self._core, self._job, self._info, self._runner, self._end).run())
            elif self._info.is_threaded:
                self._serve_in_threads()
            else:
                self._serve(0)
        except RaySystemError:
            return  # the session is over
        self._end("all references to the actor were removed")

    # ---- the instance ----

    def _construct(self) -> bool:
        """Make the instance; False: that failed, and the actor is dead."""
        name = f"{self._info.name}.__init__"
        failure = b""
        try:
            cls = self._core.read(self._class)
            failure, args, kwargs = read_arguments(self._core, self._job, name)
            if not failure:
                self._instance = cls(*args, **kwargs)
                self._set_title(self._describe(cls))
                return True
        except SystemExit as error:
            self._end(f"its constructor called sys.exit({error.code!r})")
        except BaseException as error:
            failure = dumps_error(make_task_error(name, error, pid=os.getpid()))
        print(f"Exception raised in creation task: {error_text(failure)}", file=sys.stderr)
        self._finish(dumps_error(_constructor_error(failure, self._actor_id())))
        return False

    def _describe(self, cls: type) -> str:
        """Return what marks the actor's output: its own repr, or its class's name."""
        if getattr(cls, "__repr__", None) is object.__repr__:
            return self._info.name
        try:
            return repr(self._instance)
        except Exception:
            return self._info.name

    def _method_of(self, export: Export) -> Callable[..., Any]:
        name = str(export.function)
        match name:
            case "__ray_ready__":
                return lambda: True
            case "__ray_terminate__":
                return _exit_actor
            case "__ray_call__":
                return lambda function, *args, **kwargs: function(self._instance, *args, **kwargs)
        method: Callable[..., Any] = getattr(self._instance, name)
        return method

    # ---- serving ----

    def _serve(self, group: int) -> None:
        """Run the calls of a group one after the other, until nobody can call any more."""
        while (job := self._core.take_call(self._job, group)) is not None:
            try:
                self._runner.run(job)
            except SystemExit as error:
                self._end(_exit_reason(error))

    def _serve_in_threads(self) -> None:
        threads = [
            threading.Thread(target=self._serve_quietly, args=(group,), daemon=True)
            for group, size in enumerate(self._info.groups.values())
            for _ in range(size)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _serve_quietly(self, group: int) -> None:
        with contextlib.suppress(RaySystemError):  # the session is over
            self._serve(group)

    # ---- the end ----

    def _actor_id(self) -> str:
        return self._job.return_ref(0).hex()[:ACTOR_ID_HEX]

    def _end(self, reason: str) -> None:
        """Say why the actor dies, and end this process."""
        with self._ending:
            self._finish(
                dumps_error(
                    ActorDiedError(
                        died_text(
                            self._info.name,
                            self._actor_id(),
                            self._info.namespace,
                            reason,
                            os.getpid(),
                        ),
                        actor_id=self._actor_id(),
                    )
                )
            )
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def _finish(self, certificate: bytes) -> None:
        self._job.conclude([self._core.store(encode(certificate))])


def died_text(name: str, actor_id: str, namespace: str, reason: str, pid: int | None) -> str:
    """Return the words of an ActorDiedError."""
    where = "" if pid is None else f"\n\tpid: {pid}"
    return (
        "The actor died unexpectedly before finishing this task.\n"
        f"\tclass_name: {name}\n\tactor_id: {actor_id}{where}\n\tnamespace: {namespace}\n"
        f"\tip: 127.0.0.1\nThe actor is dead because {reason}."
    )


def _constructor_error(failure: bytes, actor_id: str) -> ActorDiedError:
    died = ActorDiedError(
        f"The actor died because of an error raised in its creation task, {error_text(failure)}",
        actor_id=actor_id,
    )
    died.actor_init_failed = True
    return died


def _exit_actor() -> None:
    raise ActorExit(0)


def _exit_reason(error: SystemExit) -> str:
    if isinstance(error, ActorExit):
        return "exit_actor() is called"
    return f"it called sys.exit({error.code!r})"


class _Loop:
    """Serves an async actor: its calls are coroutines on the event loop of the main thread.

    Args:
        core: The session.
        job: The task that is the actor.
        info: What it is.
        runner: Runs what is no coroutine.
        end: Ends the actor for a reason.
    """

    def __init__(
        self,
        core: _core.Session,
        job: _core.Job,
        info: ActorInfo,
        runner: Runner,
        end: Callable[[str], None],
    ) -> None:
        self._core = core
        self._job = job
        self._info = info
        self._runner = runner
        self._end = end
        #: What runs now.
        self._running: dict[asyncio.Task[None], _core.Job] = {}

    async def run(self) -> None:
        """Serve until nobody can call any more."""
        self._loop = asyncio.get_running_loop()
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
        try:
            while True:
                room.acquire()
                job = self._core.take_call(self._job, group)
                if job is None:
                    break
                self._loop.call_soon_threadsafe(self._start, job, room)
        except RaySystemError:
            pass  # the session is over
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
            _, returns, call = self._runner.prepare(job)
            if call is not None:
                await self._deliver(job, returns, call)
        except SystemExit as error:
            self._end(_exit_reason(error))
        except BaseException as error:
            returns.fail(dumps_error(make_task_error(job.name, error, pid=os.getpid())))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    async def _deliver(self, job: _core.Job, returns: Returns, call: Call) -> None:
        dynamic, pauses = bool(job.options & Mode.DYNAMIC), bool(job.options & Mode.PAUSES)
        outcome = await _outcome_of(job, call)
        result = None if isinstance(outcome, _Raised) else outcome()
        if inspect.isasyncgen(result) and job.fills_stream:
            await returns.deliver_async(result, pauses=pauses)
            return
        returns.deliver(outcome, dynamic=dynamic, pauses=pauses)


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
