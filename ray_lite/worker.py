"""A worker: takes tasks one after the other and runs them.

Owns the loop, finding the function and the arguments of a task, and what user code sees of the
process it runs in. It must not know what is stored for an outcome (returns.py) nor whether a task
is run again (scheduler.py).

    take ──► function, arguments ──► returns.Returns.deliver ──► take
"""

import os
import signal
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Final

from ray_lite import _core, session
from ray_lite._codec import ErrorPayload
from ray_lite.exceptions import RaySystemError, dumps_error, make_task_error, nest_error
from ray_lite.remote import Export, Mode
from ray_lite.returns import Returns

FUNCTIONS_KEPT: Final = 1024  # loaded functions, least recently used go first


class _Call:
    """One call of a user's function, which alone holds its arguments: they go when it returns."""

    __slots__ = ("_args", "_function", "_kwargs")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs or {}

    def __call__(self) -> Any:
        """Make the call; once."""
        args, kwargs = self._args, self._kwargs
        self._args, self._kwargs = (), {}
        return self._function(*args, **kwargs)


class Worker:
    """Runs the tasks of one session in this process.

    Args:
        core: The session that this process has joined.
        set_title: Told the name of each task before it runs; for the prefix of its output.
    """

    def __init__(self, core: _core.Session, set_title: Any) -> None:
        """Start with no function loaded."""
        self._core = core
        self._set_title = set_title
        self._functions: OrderedDict[tuple[int, int], Export] = OrderedDict()
        #: Calls so far of each function that has max_calls.
        self._calls: Counter[tuple[int, int]] = Counter()

    def run(self) -> None:
        """Run tasks until the supervisor dismisses this worker, the session ends, or max_calls."""
        while True:
            try:
                job = self._core.take()
            except RaySystemError:
                return  # the session is over
            if job is None:
                return
            self._run_job(job)
            if self._is_worn_out(job):
                return

    def _is_worn_out(self, job: _core.Job) -> bool:
        """Whether the function of this job has had its max_calls in this process."""
        export = self._functions.get(job.function_key)
        if export is None or export.max_calls == 0:
            return False
        self._calls[job.function_key] += 1
        return self._calls[job.function_key] >= export.max_calls

    def _run_job(self, job: _core.Job) -> None:
        """Run one task; whatever happens, it is finished, failed or stranded afterwards."""
        self._set_title(job.name)
        returns = Returns(self._core, job, job.name, lambda error: False)
        try:
            export = self._load(job)
            returns = _returns_for(self._core, job, export)
            failure, call = self._bind(job, export)
            if call is None:
                returns.fail(failure)
                return
            returns.deliver(
                call,
                dynamic=bool(job.options & Mode.DYNAMIC),
                pauses=bool(job.options & Mode.PAUSES),
            )
        except SystemExit as error:
            _exit(error)
        except BaseException as error:
            # Unpickling the function or an argument failed, or an interrupt came between steps.
            returns.fail(dumps_error(make_task_error(job.name, error, pid=os.getpid())))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def _load(self, job: _core.Job) -> Export:
        """Return the task's function, unpickled once in this process."""
        key = job.function_key
        export = self._functions.get(key)
        if export is None:
            export = Export(*job.function())
            self._functions[key] = export
            if len(self._functions) > FUNCTIONS_KEPT:
                self._functions.popitem(last=False)
        else:
            self._functions.move_to_end(key)
        return export

    def _bind(self, job: _core.Job, export: Export) -> tuple[bytes, _Call | None]:
        """Return (b"", the call to make), or (the failure of an argument, None)."""
        refs = job.refs()
        resolved = []
        for ref in refs[: job.ndeps]:
            value = self._core.read(ref)
            if type(value) is ErrorPayload:
                return nest_error(value.data, _name(job, export), pid=os.getpid()), None
            resolved.append(value)
        args, kwargs = job.arguments(refs, resolved)
        return b"", _Call(export.function, args, kwargs)


def _name(job: _core.Job, export: Export) -> str:
    """Return the task's name in errors: of its options, else of its function."""
    return job.name if job.options & Mode.NAMED else export.name


def _returns_for(core: _core.Session, job: _core.Job, export: Export) -> Returns:
    retry = export.retry_exceptions

    def wants_retry(error: BaseException) -> bool:
        if isinstance(retry, bool):
            return retry and isinstance(error, Exception)
        return isinstance(error, retry)

    return Returns(core, job, _name(job, export), wants_retry)


def _exit(error: SystemExit) -> None:
    """sys.exit() in a task ends its worker, as in Ray: the supervisor sees a crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    os._exit(code & 0xFF)


def main(core: _core.Session, namespace: str, set_title: Any) -> None:
    """Be a worker until the end."""
    session.join_as_worker(core, namespace)
    try:
        Worker(core, set_title).run()
    finally:
        # An interrupt between two tasks ends the worker; the next one must not disturb its end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
