"""Local mode: the driver runs its tasks and actors itself, for breakpoints, profilers and print.

Owns when and in which thread that happens; everything else is as with workers, by the same code:
values go through the store, failures are stored, calls go through the mailbox. It must not know
what is stored for an outcome (returns.py) nor how an actor is called (actor.py).

    submit, claimed at once ──► runner.Runner.run ──► the task is over ──► its references
       └─ not claimed: in the mailbox ──► take_call, in a thread of the actor's ──► Runner.run

Inline, before `.remote` returns: tasks, constructors, methods. In a thread of the driver: what may
have to wait for its caller, and would for ever: a generator that pauses, a method of an async
actor, and a call of an actor that is busy with another.
"""

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ray_lite import _core, session
from ray_lite._codec import Encoded
from ray_lite._values import fail_open_returns
from ray_lite.actor import ActorInfo
from ray_lite.actor_worker import Instance, exit_reason, report_failed_constructor
from ray_lite.certificate import KILLED, certify_death, read_certificate
from ray_lite.exceptions import (
    RaySystemError,
    TaskCancelledError,
    WorkerCrashedError,
    dumps_error,
)
from ray_lite.runner import Runner, environment, function_of

if TYPE_CHECKING:
    from ray_lite.actor_loop import Loop

#: Ctrl-C is for the program, which is the driver, not for the task that it meets.
PASSING: Final = (SystemExit, KeyboardInterrupt)


class Local:
    """Runs everything that this driver submits.

    Args:
        core: The session of this process.
    """

    def __init__(self, core: _core.Session) -> None:
        """Start nothing yet."""
        self._core = core
        self._runner = Runner(core, function_of, PASSING)
        #: The live actors, by the id of the object that stands for each.
        self._actors: dict[bytes, _Actor] = {}
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    # ---- tasks and calls ----

    def submit(
        self,
        submission: _core.Submission,
        args: Encoded,
        actor: _core.ObjectRef[Any] | None,
        parent: _core.Job | None,
    ) -> Any:
        """Submit a task as the core does; run it, if that is to be inline."""
        callee = None if actor is None else self._actors.get(actor.binary())
        if callee is not None and (submission.pauses or not callee.runs_inline):
            return submission.submit(args, actor, parent)
        self._wait_for_arguments(args)
        refs, job = submission.claim(args, actor, parent)
        if job is None:
            return refs
        if callee is not None:
            callee.run(job)
        elif submission.pauses:
            self.start_thread(self._run_task, job)
        else:
            self._run_task(job)
        return refs

    def _wait_for_arguments(self, args: Encoded) -> None:
        if args.ndeps:
            self._core.wait(args.refs[: args.ndeps], args.ndeps, None, False)

    def _run_task(self, job: _core.Job) -> None:
        try:
            _run_out(self._runner, job)
        except SystemExit as error:
            message = (
                f"Task {job.name} called sys.exit({error.code!r}), which ends a worker; in local "
                "mode it ends the task alone"
            )
            if job.nreturns == 0:
                print(message, file=sys.stderr)
            fail_open_returns(self._core, job, dumps_error(WorkerCrashedError(message)))
        except KeyboardInterrupt:
            _fail_interrupted(self._core, job)
            raise

    # ---- actors ----

    def submit_actor(self, function: _core.ObjectRef[Any], args: Encoded, *spec: Any) -> list[Any]:
        """Submit an actor as the core does, and make its instance."""
        self._wait_for_arguments(args)
        ref, job = self._core.submit_actor(function, args, *spec, claim=True)
        actor = _Actor(self, self._core, job)
        self._actors[actor.key] = actor
        actor.make()
        return [ref]

    def actor_of(self, job: _core.Job | None) -> tuple[ActorInfo, _core.Job] | None:
        """Return what the live actor is that `job` makes or calls, and its task; or None."""
        if job is None:
            return None
        ref = job.return_ref(0) if job.is_actor else job.actor()
        actor = None if ref is None else self._actors.get(ref.binary())
        return None if actor is None else (actor.instance.info, actor.job)

    def kill(self, actor: _core.ObjectRef[Any], *, no_restart: bool) -> None:
        """End an actor; or make its instance anew, if it may be restarted."""
        found = self._actors.get(actor.binary())
        if found is not None:
            found.kill(no_restart=no_restart)

    def forget(self, actor: "_Actor") -> None:
        """An actor is dead."""
        self._actors.pop(actor.key, None)

    def interrupt_cancelled(self) -> None:
        """Something was cancelled: the coroutines of actors have to be told."""
        for actor in list(self._actors.values()):
            actor.interrupt_cancelled()

    # ---- threads ----

    def start_thread(self, target: Callable[..., None], *args: Any) -> None:
        """Run `target` in a thread, until the session is over at the latest."""

        def run() -> None:
            with contextlib.suppress(RaySystemError):  # the session is over
                target(*args)

        thread = threading.Thread(target=run, name="ray_lite-local", daemon=True)
        self._threads.add(thread)
        thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the threads, whose session is over, so many seconds in all at most."""
        deadline = time.monotonic() + timeout
        for actor in list(self._actors.values()):
            actor.stop_loop()
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0))


class _Actor:
    """One actor: its instance, the threads that look into its mailbox, its end.

    Args:
        local: Where it is known.
        core: The session of this process.
        job: The task that is the actor.
    """

    def __init__(self, local: Local, core: _core.Session, job: _core.Job) -> None:
        self._local = local
        self._core = core
        self.job = job
        self.key = job.return_ref(0).binary()
        self.instance = Instance(core, job, PASSING)
        #: Held by the call that runs, if there is to be one at a time.
        self._turn = contextlib.nullcontext() if self._overlaps else threading.Lock()
        self._loop: Loop | None = None
        self._is_made = False
        self._is_over = False
        self._ending = threading.Lock()

    @property
    def _overlaps(self) -> bool:
        return self.instance.info.is_async or self.instance.info.is_threaded

    @property
    def runs_inline(self) -> bool:
        """Whether whoever calls it is to run the call, once there is no other."""
        return self._is_made and not self.instance.info.is_async

    def make(self) -> None:
        """Make the instance and serve; or be dead."""
        token = session.current_job.set(self.job)
        try:
            with environment(self.instance.info.env_vars):
                failure = self.instance.make()
        except SystemExit as error:
            self._end(exit_reason(error, "its constructor"))
            return
        except KeyboardInterrupt:
            self._end("its constructor was interrupted")
            raise
        finally:
            session.current_job.reset(token)
        if failure:
            report_failed_constructor(self._core, self.job, failure)
            self._is_over = True
            self._local.forget(self)
        elif not self._is_made:
            self._is_made = True
            self._start_serving()

    def run(self, job: _core.Job) -> None:
        """Run one call."""
        try:
            with self._turn, environment(self.instance.info.env_vars):
                if self._is_over:  # since the call was taken
                    self._fail(job)
                else:
                    _run_out(self.instance.runner, job)
        except SystemExit as error:
            self._exit(job, error)
        except KeyboardInterrupt:
            _fail_interrupted(self._core, job)
            raise

    # ---- the mailbox ----

    def _start_serving(self) -> None:
        if self.instance.info.is_async:
            from ray_lite.actor_loop import Loop  # brings asyncio, which is slow to import

            self._loop = Loop(self._core, self.job, self.instance, self._exit)
            self._local.start_thread(self._serve_on_loop, self._loop)
            return
        for group, size in enumerate(self.instance.info.groups.values()):
            for _ in range(size):
                self._local.start_thread(self._serve, group)

    def _serve_on_loop(self, loop: "Loop") -> None:
        loop.run()
        self._end_unreferenced()

    def _serve(self, group: int) -> None:
        while (job := self._core.take_call(self.job, group)) is not None:
            self.run(job)
        self._end_unreferenced()

    def interrupt_cancelled(self) -> None:
        """Cancel the coroutines of cancelled calls."""
        if self._loop is not None:
            self._loop.interrupt_cancelled()

    def stop_loop(self) -> None:
        """Cancel all coroutines, if there are any."""
        if self._loop is not None:
            self._loop.stop()

    # ---- the end ----

    def kill(self, *, no_restart: bool) -> None:
        """End the actor, or make its instance anew."""
        most = self.job.max_retries
        if no_restart or self.job.is_run_once or 0 <= most <= self.job.attempt:
            self._end(KILLED)
        else:
            self.job.strand()
            self.make()

    def _exit(self, job: _core.Job | None, error: SystemExit) -> None:
        """A call, or what runs beside the calls (None), asked for the end of the actor."""
        self._end(exit_reason(error, "it"))
        if job is not None:
            self._fail(job)

    def _fail(self, job: _core.Job) -> None:
        """Fail a call, for the actor is dead."""
        certificate = read_certificate(self._core, self.job.return_ref(0))
        fail_open_returns(self._core, job, certificate)

    def _end_unreferenced(self) -> None:
        self._end("all references to the actor were removed")
        self.instance.drop()

    def _end(self, reason: str) -> None:
        """Say why the actor dies, unless it is dead."""
        with self._ending:
            if self._is_over or self._core.is_over:
                return
            info = self.instance.info
            certify_death(
                self._core,
                self.job,
                reason,
                name=info.name,
                namespace=info.namespace,
                pid=os.getpid(),
            )
            self._is_over = True
        self._local.forget(self)
        self.stop_loop()


def _run_out(runner: Runner, job: _core.Job) -> None:
    """Run a job; and again, as often as an exception is to be retried."""
    attempt = -1
    while attempt != job.attempt:
        attempt = job.attempt
        runner.run(job)


def _fail_interrupted(core: _core.Session, job: _core.Job) -> None:
    """Ctrl-C met a task, which may just have ended."""
    with contextlib.suppress(ValueError):
        fail_open_returns(core, job, dumps_error(TaskCancelledError(job.task_id.hex())))
