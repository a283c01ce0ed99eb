"""Running one task in this process: its function, its arguments, its outcome.

Owns the steps from a job to its stored outcome, for tasks and for an actor's calls, which job user
code is part of, and how user code ends the process. It must not know where jobs come from
(worker.py, actor_worker.py), what is stored for an outcome (returns.py) nor whether a task is run
again (scheduler.py).

    job ──► export, arguments ──► returns.Returns.deliver
"""

import contextlib
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

from ray_lite import _core, session
from ray_lite._codec import ErrorPayload
from ray_lite.exceptions import nest_error
from ray_lite.remote import Export, Mode
from ray_lite.returns import Passing, Returns

FUNCTIONS_KEPT: Final = 1024  # loaded functions, least recently used go first
_NOTHING: Final = contextlib.nullcontext()


class Call:
    """One call of a user's function, which alone holds its arguments: they go when it returns."""

    __slots__ = ("_args", "_function", "_kwargs")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> None:
        """Take them over."""
        self._function = function
        self._args = args
        self._kwargs = kwargs or {}

    def __call__(self) -> Any:
        """Make the call; once."""
        args, kwargs = self._args, self._kwargs
        self._args, self._kwargs = (), {}
        return self._function(*args, **kwargs)


class Runner:
    """Runs jobs in this process. Safe to use from several threads.

    Args:
        core: The session that this process has joined.
        resolve: The callable that an export stands for.
        passing: What user code may raise that is no outcome of its task.
    """

    def __init__(
        self,
        core: _core.Session,
        resolve: Callable[[Export], Callable[..., Any]],
        passing: Passing = SystemExit,
    ) -> None:
        """Start with no function loaded."""
        self._core = core
        self._resolve = resolve
        self._passing = passing
        self._functions: OrderedDict[tuple[int, int], Export] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, job: _core.Job) -> Export | None:
        """Run one task; whatever happens, it is finished, failed or stranded afterwards.

        Returns its function, or None if that could not be loaded.

        Raises:
            SystemExit: The user's code raised it, or what else passes; nothing was stored.
        """
        returns = Returns(self._core, job, job.name, lambda error: False)
        export = None
        token = session.current_job.set(job)
        try:
            export, returns, call = self.prepare(job)
            if call is not None:
                with environment(export.env_vars):
                    returns.deliver(
                        call,
                        dynamic=bool(job.options & Mode.DYNAMIC),
                        per_yield=export.per_yield,
                    )
        except self._passing:
            raise
        except BaseException as error:
            # Unpickling the function or an argument failed, or an interrupt came between steps.
            returns.break_off(error)
        finally:
            session.current_job.reset(token)
            sys.stdout.flush()
            sys.stderr.flush()
        return export

    def prepare(self, job: _core.Job) -> tuple[Export, Returns, Call | None]:
        """Return what is to be run; with None if an argument has failed, and so has the task."""
        export = self._load(job)
        returns = self._returns_for(job, export)
        failure, call = self._bind(job, export)
        if call is None:
            returns.fail(failure)
        return export, returns, call

    def _load(self, job: _core.Job) -> Export:
        """Return the task's function, unpickled once in this process."""
        key = job.function_key
        with self._lock:
            export = self._functions.get(key)
            if export is not None:
                self._functions.move_to_end(key)
                return export
        export = Export(*job.function())
        with self._lock:
            self._functions[key] = export
            if len(self._functions) > FUNCTIONS_KEPT:
                self._functions.popitem(last=False)
        return export

    def _bind(self, job: _core.Job, export: Export) -> tuple[bytes, Call | None]:
        """Return (b"", the call to make), or (the failure of an argument, None)."""
        failure, args, kwargs = read_arguments(self._core, job, _name(job, export))
        if failure:
            return failure, None
        return b"", Call(self._resolve(export), args, kwargs)

    def _returns_for(self, job: _core.Job, export: Export) -> Returns:
        retry = export.retry_exceptions

        def wants_retry(error: BaseException) -> bool:
            if isinstance(retry, bool):
                return retry and isinstance(error, Exception)
            return isinstance(error, retry)

        return Returns(self._core, job, _name(job, export), wants_retry, self._passing)


def exit_as_told(error: SystemExit) -> NoReturn:
    """End this process with the status of sys.exit(), without more; the supervisor sees a crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    os._exit(code & 0xFF)


def read_arguments(
    core: _core.Session, job: _core.Job, name: str
) -> tuple[bytes, tuple[Any, ...], dict[str, Any]]:
    """Return (b"", args, kwargs) of a task, or the failure of one of its arguments first."""
    refs = job.refs()
    resolved = []
    for ref in refs[: job.ndeps]:
        value = core.read(ref)
        if type(value) is ErrorPayload:
            return nest_error(value.data, name, pid=os.getpid()), (), {}
        resolved.append(value)
    args, kwargs = job.arguments(refs, resolved)
    return b"", args, kwargs


def _name(job: _core.Job, export: Export) -> str:
    """Return the task's name in errors: of its options, else of its function."""
    return job.name if job.options & Mode.NAMED else export.name


def function_of(export: Export) -> Callable[..., Any]:
    """Return the function that an export of one stands for: what a Runner of tasks resolves by."""
    assert not isinstance(export.function, str)
    return export.function


def environment(env_vars: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
    """Return a context in which environment variables are set."""
    return _changed_environment(env_vars) if env_vars else _NOTHING


@contextlib.contextmanager
def _changed_environment(env_vars: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in env_vars}
    os.environ.update(env_vars)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
