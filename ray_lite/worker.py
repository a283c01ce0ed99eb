"""A worker: takes tasks one after the other and runs them, until it becomes an actor.

Owns the loop, and what user code sees of the process it runs in. It must not know how one task is
run (runner.py), nor how an actor serves its calls (actor_worker.py).

    _plain.PlainTasks.run ──► runner.Runner.run ──► PlainTasks.run
      └────► actor_worker.ActorWorker, if the task is an actor: this process is for it alone
"""

import os
import signal
from collections import Counter
from typing import Any

from ray_lite import _core, private_memory, session
from ray_lite._plain import PlainTasks
from ray_lite.actor_worker import ActorWorker
from ray_lite.exceptions import RaySystemError
from ray_lite.remote import Export
from ray_lite.runner import DYNAMIC, Runner, exit_as_told, function_of


class Worker:
    """Runs the tasks of one session in this process.

    Args:
        core: The session that this process has joined.
        set_title: Told whom to ask for the name of the task that runs; for the prefix of its
            output.
    """

    def __init__(self, core: _core.Session, set_title: Any) -> None:
        """Start with no function loaded."""
        self._core = core
        self._set_title = set_title
        self._guard = _core.ForkGuard(session.CANCEL_SIGNAL)
        self._runner = Runner(core, function_of)
        self._plain = PlainTasks(core, self._runner.plain, session.current_job, DYNAMIC)
        #: Calls so far of each function that has max_calls.
        self._calls: Counter[int] = Counter()

    def run(self) -> None:
        """Run tasks until the supervisor dismisses this worker, the session ends, or max_calls."""
        os.register_at_fork(
            before=self._guard.before,
            after_in_parent=self._guard.after_in_parent,
            after_in_child=self._guard.after_in_child,
        )
        signal.signal(session.CANCEL_SIGNAL, self._on_cancel)
        self._set_title(lambda: self._plain.job.name if self._plain.job else "")
        while True:
            try:
                job, outcome = self._plain.run()
            except RaySystemError:
                return  # the session is over
            if job is None:
                return
            if job.is_actor:
                ActorWorker(self._core, job, self._set_title).run()
                return
            try:
                export = self._runner.run(job, outcome)
            except SystemExit as error:
                exit_as_told(error)
            if export is not None and export.max_calls and self._is_worn_out(job, export):
                return

    def _on_cancel(self, signum: int, frame: object) -> None:
        """Interrupt the user's code, if it is the cancelled task that still runs."""
        job = self._plain.job
        if job is not None and job.is_cancelled and not self._guard.puts_off():
            raise KeyboardInterrupt

    def _is_worn_out(self, job: _core.Job, export: Export) -> bool:
        """Whether the function of this job has had its max_calls in this process."""
        self._calls[job.function_key] += 1
        return self._calls[job.function_key] >= export.max_calls


def main(core: _core.Session, namespace: str, set_title: Any) -> None:
    """Be a worker until the end."""
    session.join_as_worker(core, namespace)
    private_memory.switch_on(core)
    try:
        Worker(core, set_title).run()
    finally:
        # An interrupt between two tasks ends the worker; the next one must not disturb its end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(session.CANCEL_SIGNAL, signal.SIG_IGN)
