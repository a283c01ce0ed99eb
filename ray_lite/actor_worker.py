"""A worker that has become an actor: makes the instance and serves its calls until the end.

Owns the three ways to serve (in order in the main thread; in threads, some for each concurrency
group; on an event loop, actor_loop.py) and what ends the actor. It must not know how callers name
it (actor.py), nor whether it is restarted (scheduler.py).

    the actor's job ──► instance ──► take_call ──► runner.Runner.run ──► take_call
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from ray_lite import _core, session
from ray_lite._codec import ErrorPayload
from ray_lite._plain import PlainCalls
from ray_lite.actor import BUILT_IN_METHODS, ActorExit, ActorInfo
from ray_lite.certificate import (
    EXITED,
    actor_id_of,
    certify_death,
    certify_failed_constructor,
)
from ray_lite.exceptions import (
    RaySystemError,
    dumps_error,
    error_text,
    make_task_error,
    nest_error,
)
from ray_lite.remote import Export
from ray_lite.returns import Passing
from ray_lite.runner import DYNAMIC, Runner, exit_as_told


class Instance:
    """An actor's class, what there is to know of it, and the object that is made of it.

    Args:
        core: The session that this process has joined.
        job: The task that is the actor.
        passing: As of a Runner.
    """

    def __init__(self, core: _core.Session, job: _core.Job, passing: Passing = SystemExit) -> None:
        """Read what the actor is; make nothing yet."""
        self._core = core
        self._job = job
        self._passing = passing
        self._class, info = job.function()
        self.info = ActorInfo(*info)
        #: Runs its calls.
        self.runner = Runner(core, self._method_of, passing, BUILT_IN_METHODS)
        self._value: Any = None

    def make(self) -> bytes:
        """Call the constructor; returns b"", or the failure of it or of an argument.

        Raises:
            SystemExit: The constructor raised it, or something else that passes.
        """
        name = f"{self.info.name}.__init__"
        try:
            cls = self._core.read_exported(self._class)
            call = self._job.bind(cls)
            if isinstance(call, ErrorPayload):
                return nest_error(call.data, name, pid=os.getpid())
            self._value = call()
            return b""
        except self._passing:
            raise
        except BaseException as error:
            actor_id = actor_id_of(self._job.return_ref(0)).hex()
            return dumps_error(make_task_error(name, error, pid=os.getpid(), actor_id=actor_id))

    def drop(self) -> None:
        """Let go of the object: nobody can call it any more, and this process goes on."""
        self._value = None

    def plain_calls(self, group: int) -> PlainCalls:
        """Return what runs the plain calls for a thread of a group."""
        methods = self.runner.plain
        current = session.current_job
        return PlainCalls(self._core, methods, current, DYNAMIC, self._job, group, self._value)

    def describe(self) -> str:
        """Return what marks the actor's output: its own repr, or its class's name."""
        if getattr(type(self._value), "__repr__", None) is object.__repr__:
            return self.info.name
        try:
            return repr(self._value)
        except Exception:
            return self.info.name

    def _method_of(self, export: Export) -> Callable[..., Any]:
        name = str(export.function)
        match name:
            case "__ray_ready__":
                return lambda: True
            case "__ray_terminate__":
                return _exit_actor
            case "__ray_call__":
                return lambda function, *args, **kwargs: function(self._value, *args, **kwargs)
        method: Callable[..., Any] = getattr(self._value, name)
        return method


class ActorWorker:
    """Serves one actor in this process.

    Args:
        core: The session that this process has joined.
        job: The task that is the actor.
        set_title: Told whom to ask what the lines that this process prints begin with.
    """

    def __init__(self, core: _core.Session, job: _core.Job, set_title: Any) -> None:
        """Read what the actor is; make nothing yet."""
        self._core = core
        self._job = job
        self._set_title = set_title
        self._instance = Instance(core, job)
        self._info = self._instance.info
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
                self._serve_on_loop()
            elif self._info.is_threaded:
                self._serve_in_threads()
            else:
                self._serve(0)
        except RaySystemError:
            return  # the session is over
        self._end("all references to the actor were removed")

    def _construct(self) -> bool:
        """Make the instance; False: that failed, and the actor is dead."""
        try:
            failure = self._instance.make()
        except SystemExit as error:
            self._exit(self._job, error)
        if not failure:
            title = self._instance.describe()
            self._set_title(lambda: title)
            return True
        report_failed_constructor(self._core, self._job, failure)
        return False

    # ---- serving ----

    def _serve(self, group: int) -> None:
        """Run the calls of a group one after the other, until nobody can call any more."""
        plain = self._instance.plain_calls(group)
        while True:
            job, outcome = plain.run()
            if job is None:
                return
            try:
                self._instance.runner.run(job, outcome)
            except SystemExit as error:
                self._exit(job, error)

    def _serve_on_loop(self) -> None:
        from ray_lite.actor_loop import Loop  # brings asyncio, which is slow to import

        Loop(self._core, self._job, self._instance, self._exit).run()

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

    def _exit(self, job: _core.Job | None, error: SystemExit) -> NoReturn:
        """User code asked for the end; as in Ray, any code but 0 is a crash."""
        if error.code == 0:
            self._end(exit_reason(error, "it"))
        with self._ending:
            exit_as_told(error)

    def _end(self, reason: str) -> NoReturn:
        """Say why the actor dies, and end this process."""
        with self._ending:
            certify_death(
                self._core,
                self._job,
                reason,
                name=self._info.name,
                namespace=self._info.namespace,
                pid=os.getpid(),
            )
            _core.flush_output()
            os._exit(0)


def exit_reason(error: SystemExit, who: str) -> str:
    """Return why the actor is dead of which `who` has raised `error`."""
    if isinstance(error, ActorExit):
        return EXITED
    return f"{who} called sys.exit({error.code!r})"


def report_failed_constructor(core: _core.Session, job: _core.Job, failure: bytes) -> None:
    """End an actor that could not be made, and print why."""
    print(f"Exception raised in creation task: {error_text(failure)}", file=sys.stderr)
    certify_failed_constructor(core, job, failure)


def _exit_actor() -> None:
    raise ActorExit(0)
