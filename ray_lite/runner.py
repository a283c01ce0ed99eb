"""Running one task in this process: its function, its arguments, its outcome.

Owns the steps from a job to its stored outcome, for tasks and for an actor's calls, which job user
code is part of, and how user code ends the process. It must not know where jobs come from
(worker.py, actor_worker.py), what is stored for an outcome (returns.py) nor whether a task is run
again (scheduler.py).

    job ──► export, arguments ──► returns.Returns.deliver
"""

import contextlib
import os
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, Final, NoReturn

from ray_lite import _core, session
from ray_lite._codec import ErrorPayload
from ray_lite.exceptions import nest_error
from ray_lite.remote import Export, Mode
from ray_lite.returns import Passing, Returns

FUNCTIONS_KEPT: Final = 1024  # loaded functions, those loaded first go first
_NOTHING: Final = contextlib.nullcontext()
_NAMED: Final = int(Mode.NAMED)
DYNAMIC: Final = int(Mode.DYNAMIC)


class Runner:
    """Runs jobs in this process. Safe to use from several threads.

    Args:
        core: The session that this process has joined.
        resolve: The callable that an export stands for.
        passing: What user code may raise that is no outcome of its task.
        not_plain: Names of methods that are only found by way of `resolve`.
    """

    def __init__(
        self,
        core: _core.Session,
        resolve: Callable[[Export], Callable[..., Any]],
        passing: Passing = SystemExit,
        not_plain: Container[object] = (),
    ) -> None:
        """Start with no function loaded."""
        self._core = core
        self._resolve = resolve
        self._passing = passing
        self._not_plain = not_plain
        self._functions: dict[int, Export] = {}
        #: Of these, the functions (and names of methods) that need nothing but to be called, see
        #: _plain.PlainTasks.
        self.plain: dict[int, Callable[..., Any] | str] = {}
        self._lock = threading.Lock()

    def run(self, job: _core.Job, outcome: Callable[[], Any] | None = None) -> Export | None:
        """Run one task; whatever happens, it is finished, failed or stranded afterwards.

        Args:
            job: The task.
            outcome: If its function has run already: gives or raises what that did.

        Returns:
            Its function, or None if that could not be loaded.

        Raises:
            SystemExit: The user's code raised it, or what else passes; nothing was stored.
        """
        export = returns = None
        token = session.current_job.set(job)
        try:
            export, returns, call = self.prepare(job, outcome)
            if call is not None:
                dynamic = job.options & DYNAMIC != 0
                with environment(export.env_vars):
                    returns.deliver(call, dynamic=dynamic, per_yield=export.per_yield)
        except self._passing:
            raise
        except BaseException as error:
            # Unpickling the function or an argument failed, or an interrupt came between steps.
            (returns or Returns(self._core, job, job.name)).break_off(error)
        finally:
            session.current_job.reset(token)
        return export

    def prepare(
        self, job: _core.Job, outcome: Callable[[], Any] | None = None
    ) -> tuple[Export, Returns, Callable[[], Any] | None]:
        """Return what is to be run; with None if an argument has failed, and so has the task."""
        export = self._functions.get(job.function_key) or self._load(job)
        name = job.name if job.options & _NAMED else export.name
        returns = Returns(self._core, job, name, export.retry_exceptions, self._passing)
        call = outcome or job.bind(self._resolve(export))
        if not isinstance(call, ErrorPayload):
            return export, returns, call
        returns.fail(nest_error(call.data, name, pid=os.getpid()))
        return export, returns, None

    def _load(self, job: _core.Job) -> Export:
        """Return the task's function, unpickled and kept."""
        export = Export(*job.function())
        with self._lock:
            self._functions[job.function_key] = export
            if not (export.max_calls or export.env_vars or export.function in self._not_plain):
                self.plain[job.function_key] = export.function
            if len(self._functions) > FUNCTIONS_KEPT:
                oldest = next(iter(self._functions))
                del self._functions[oldest]
                self.plain.pop(oldest, None)
        return export


def exit_as_told(error: SystemExit) -> NoReturn:
    """End this process with the status of sys.exit(), without more; the supervisor sees a crash."""
    _core.flush_output()
    code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    os._exit(code & 0xFF)


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
