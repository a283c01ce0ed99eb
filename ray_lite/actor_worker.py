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
from ray_lite.actor import ActorExit, ActorInfo
from ray_lite.certificate import (
    EXITED,
    actor_id_of,
    certify_death,
    certify_failed_constructor,
)
from ray_lite.exceptions import RaySystemError, dumps_error, error_text, make_task_error
from ray_lite.remote import Export
from ray_lite.runner import Runner, exit_as_told, read_arguments


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
                self._serve_on_loop()
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
            self._exit(error)
        except BaseException as error:
            actor_id = actor_id_of(self._job.return_ref(0)).hex()
            failure = dumps_error(make_task_error(name, error, pid=os.getpid(), actor_id=actor_id))
        print(f"Exception raised in creation task: {error_text(failure)}", file=sys.stderr)
        certify_failed_constructor(self._core, self._job, failure)
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
                self._exit(error)

    def _serve_on_loop(self) -> None:
        from ray_lite.actor_loop import Loop  # brings asyncio, which is slow to import

        Loop(self._core, self._job, self._info, self._runner, self._exit).run()

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

    def _exit(self, error: SystemExit) -> NoReturn:
        """User code asked for the end; as in Ray, any code but 0 is a crash."""
        if error.code == 0:
            self._end(EXITED if isinstance(error, ActorExit) else "it called sys.exit(0)")
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
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


def _exit_actor() -> None:
    raise ActorExit(0)
