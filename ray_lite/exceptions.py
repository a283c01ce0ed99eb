"""The exceptions that a user of ray_lite can meet, and how one travels between processes.

    RayError
    ├── RayTaskError                    the user's function raised; also what it raised
    ├── TaskCancelledError              cancelled before it ran, or while it ran
    ├── WorkerCrashedError              the process that ran the task died
    ├── LocalRayletDiedError · NodeDiedError · CrossLanguageError
    ├── OutOfMemoryError · OutOfDiskError · ObjectStoreFullError · PlasmaObjectNotAvailable
    ├── RuntimeEnvSetupError · PendingCallsLimitExceeded
    ├── TaskUnschedulableError · ActorUnschedulableError · AsyncioActorExit
    ├── UnserializableException · UserCodeException · AuthenticationError · RpcError
    ├── RayActorError
    │   ├── ActorDiedError              for good
    │   └── ActorUnavailableError       for now: it is being restarted
    ├── ObjectLostError
    │   ├── ObjectFetchTimedOutError · ObjectFreedError · OwnerDiedError
    │   ├── ObjectReconstructionFailedError
    │   └── ReferenceCountingAssertionError  (also an AssertionError)
    ├── RaySystemError                  ray_lite itself failed
    │   ├── ArenaCorruptError           shared memory broke an invariant
    │   └── StreamingGeneratorReplayInconsistentError
    ├── GetTimeoutError                 (also a TimeoutError)
    ├── ActorAlreadyExistsError         (also a ValueError)
    └── ActorHandleNotFoundError        (also a ValueError)

The names, bases and constructors are Ray's. A task's error is stored as an envelope: its text,
which anybody can read, then its fields, then the pickled cause, which only drivers and workers
open:

    worker                                store                            driver
    make_task_error ──► dumps_error ──► [text|fields|cause] ──► loads_error ──► raise
                                          │ error_text, nest_error: no unpickling

This file owns those classes, the envelope, and the one table from return codes of the C core to
exceptions. It must not know sessions, objects or tasks: everything imports it and it imports
nothing of ray_lite.
"""

import copyreg
import functools
import io
import json
import os
import pickle
import struct
import traceback
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import cloudpickle  # type: ignore[import-untyped]

__all__ = [
    "ActorAlreadyExistsError",
    "ActorDiedError",
    "ActorHandleNotFoundError",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "ArenaCorruptError",
    "AsyncioActorExit",
    "AuthenticationError",
    "CrossLanguageError",
    "GetTimeoutError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectStoreFullError",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PlasmaObjectNotAvailable",
    "RayActorError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReferenceCountingAssertionError",
    "RpcError",
    "RuntimeEnvSetupError",
    "StreamingGeneratorReplayInconsistentError",
    "TaskCancelledError",
    "TaskUnschedulableError",
    "UnserializableException",
    "UserCodeException",
    "WorkerCrashedError",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
Recipe: TypeAlias = tuple[Any, ...]  # what __reduce__ returns


class RayError(Exception):
    """The base of every exception that ray_lite raises by itself."""

    def __reduce__(self) -> Recipe:
        """Return how to rebuild it without `__init__`, whose arguments `args` does not keep."""
        return _recipe(self)


class CrossLanguageError(RayError):
    """An error from a worker of another language; kept for programs that name it."""


class TaskCancelledError(RayError):
    """The task was cancelled."""

    def __init__(self, task_id: object = None, error_message: str | None = None) -> None:
        """Keep the cancelled task's id; without one and without a message the text is empty."""
        cancelled = "" if task_id is None else f"Task: {task_id} was cancelled."
        text = " ".join(part for part in (cancelled, error_message) if part)
        super().__init__(*([text] if text else []))
        self.task_id = task_id
        self.error_message = error_message


class WorkerCrashedError(RayError):
    """The worker process died while it ran the task."""

    def __init__(self, *args: object) -> None:
        """Take the whole text, or say what is known."""
        super().__init__(*(args or ("The worker died unexpectedly while executing this task.",)))


class LocalRayletDiedError(RayError):
    """The session's supervisor died."""

    def __init__(self, *args: object) -> None:
        """Take the whole text, or say what is known."""
        super().__init__(*(args or ("The supervisor of this session died.",)))


class NodeDiedError(RayError):
    """The machine that ran the task is gone; never raised on one machine."""

    def __init__(self, message: str) -> None:
        """Keep `message` as the text."""
        super().__init__(message)


class OutOfMemoryError(RayError):
    """The worker was ended because the machine ran out of memory."""

    def __init__(self, message: str) -> None:
        """Keep `message` as the text."""
        super().__init__(message)


class OutOfDiskError(RayError):
    """A value had to go to disk, and the disk is full."""


class ObjectStoreFullError(RayError):
    """The object store has no room for a value."""


class PlasmaObjectNotAvailable(RayError):
    """An object was not there within its time."""


class AsyncioActorExit(RayError):
    """An async actor asked to end itself."""


class RuntimeEnvSetupError(RayError):
    """The environment that a task or an actor asked for could not be made."""

    def __init__(self, error_message: str | None = None) -> None:
        """Keep the reason."""
        reason = f"\n{error_message}" if error_message else ""
        super().__init__(f"Failed to set up runtime environment.{reason}")
        self.error_message = error_message


class PendingCallsLimitExceeded(RayError):
    """A process has as many calls of an actor pending as its max_pending_calls allows."""


class TaskUnschedulableError(RayError):
    """The task can never run here."""

    def __init__(self, error_message: str) -> None:
        """Keep the reason."""
        super().__init__(f"The task is not schedulable: {error_message}")
        self.error_message = error_message


class ActorUnschedulableError(RayError):
    """The actor can never be placed here."""

    def __init__(self, error_message: str) -> None:
        """Keep the reason."""
        super().__init__(f"The actor is not schedulable: {error_message}")
        self.error_message = error_message


class UnserializableException(RayError):
    """An exception reached this process, but could not be rebuilt; its text could."""

    def __init__(self, original_stack_trace: str) -> None:
        """Keep the text of the original."""
        super().__init__(
            "The exception of a task could not be rebuilt in this process. Give its class a "
            "__reduce__ that returns what its constructor needs, and make sure that its module "
            f"can be imported here. Original exception:\n{original_stack_trace}"
        )
        self.original_stack_trace = original_stack_trace


class UserCodeException(RayError):
    """An error inside user code that ray_lite called on the user's behalf."""


class AuthenticationError(RayError):
    """A process was not allowed to join; kept for programs that name it."""


class RpcError(RayError):
    """A message between processes failed."""

    def __init__(self, message: str, rpc_code: int | None = None) -> None:
        """Keep the text and the code of the transport."""
        super().__init__(message)
        self.message = message
        self.rpc_code = rpc_code


class RayActorError(RayError):
    """A call of an actor failed because of the actor, not because of the method."""

    def __init__(
        self,
        actor_id: str | None = None,
        error_msg: str = "The actor experienced an error.",
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None:
        """Keep whose call failed and why."""
        super().__init__(error_msg)
        self.actor_id = actor_id
        self.error_msg = error_msg
        self.actor_init_failed = actor_init_failed
        self.preempted = preempted


class ActorDiedError(RayActorError):
    """The actor is dead for good; every call of it ends so."""

    def __init__(
        self, cause: "str | RayTaskError | None" = None, *, actor_id: str | None = None
    ) -> None:
        """Say why it died.

        Args:
            cause: The reason in words, or the error that its constructor raised.
            actor_id: The actor's id as hex, where it is known.
        """
        init_failed = isinstance(cause, RayTaskError)
        if init_failed:
            text = f"The actor died because its constructor raised:\n{cause}"
        else:
            text = str(cause or "The actor died unexpectedly before finishing this task.")
        super().__init__(actor_id, text, init_failed)


class ActorUnavailableError(RayActorError):
    """The actor cannot answer now; it may later."""

    def __init__(self, error_message: str, actor_id: str | None) -> None:
        """Say what is in the way."""
        super().__init__(actor_id, f"The actor {actor_id} is unavailable: {error_message}")


class ObjectLostError(RayError):
    """An object's value is gone."""

    _what: str = "was lost"

    def __init__(self, object_ref_hex: str, owner_address: object, call_site: str) -> None:
        """Name the object.

        Args:
            object_ref_hex: The reference's id as hex.
            owner_address: Who made it, or None.
            call_site: Where it was made, or an empty string.
        """
        made = f" It was made at {call_site}." if call_site else ""
        super().__init__(f"Object {object_ref_hex} {self._what}.{made}")
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site


class ObjectFetchTimedOutError(ObjectLostError):
    """An object did not arrive in time."""

    _what = "did not arrive in time"


class ObjectFreedError(ObjectLostError):
    """An object was freed by hand while a reference to it was left."""

    _what = "was freed by an explicit call; keep it until its last reader is done"


class OwnerDiedError(ObjectLostError):
    """The process that an object belonged to died."""

    _what = "belonged to a process that died"


class ObjectReconstructionFailedError(ObjectLostError):
    """An object was lost and running its task again did not bring it back."""

    _what = "was lost and could not be made again"


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """An object was freed although something still referred to it."""

    _what = "was freed while still in use; this is a bug of ray_lite"


class RaySystemError(RayError):
    """Something failed in ray_lite itself or in what it stands on."""

    def __init__(self, client_exc: object, traceback_str: str | None = None) -> None:
        """Keep what failed and, if there is one, its traceback."""
        trace = f"\n{traceback_str}" if traceback_str else ""
        super().__init__(f"System error: {client_exc}{trace}")
        self.client_exc = client_exc
        self.traceback_str = traceback_str


class ArenaCorruptError(RaySystemError):
    """Shared memory does not keep its invariants any more; the session is unusable."""


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that ran again did not yield what its first run had shown."""


class GetTimeoutError(RayError, TimeoutError):
    """Waiting for a value took longer than the caller allowed."""


class ActorAlreadyExistsError(ValueError, RayError):
    """The name is taken by a living actor."""


class ActorHandleNotFoundError(ValueError, RayError):
    """The handle names no actor of this session."""


class RayTaskError(RayError):
    """The user's function raised.

    `get` raises `as_instanceof_cause()`: an error that is also an instance of the class of what
    the function raised, so that `except ValueError` works across processes. `str()` of either
    shows where in the user's code it came from.
    """

    #: It is the task itself that was cancelled, not one whose value it has asked for.
    _is_cancelled = False

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        """Keep what is known; `make_task_error` does it for a live exception.

        Args:
            function_name: `f`, or `Class.method`.
            traceback_str: The whole text to show, which begins with the line of the task.
            cause: What the function raised.
            proctitle: `ray::` and the name of the task; made of function_name if None.
            pid: The process that ran it.
            ip: The address of the machine.
            actor_repr: `repr()` of the actor, for a method.
            actor_id: The actor's id as hex, for a method.
        """
        super().__init__(cause)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.proctitle = proctitle or f"ray::{function_name}"
        self.pid = pid
        self.ip = ip
        self.actor_repr = actor_repr
        self.actor_id = actor_id

    def as_instanceof_cause(self) -> "RayTaskError":
        """Return this error as one that is an instance of its cause's class too.

        Returns:
            An instance of `RayTaskError(ValueError)`, say, with the cause's attributes. This
            error itself where that adds nothing (the cause is a plain Exception) or where the
            cause's class refuses to be subclassed.
        """
        if issubclass(RayTaskError, type(self.cause)):
            return self
        # Subclassing runs code of the user's class (its metaclass, __init_subclass__), which may
        # raise whatever it likes. The error must still arrive.
        try:
            return _make_dual(self)
        except Exception:
            return self

    def _plain(self) -> "RayTaskError":
        """Return the error that holds the fields: itself, unless it is a dual."""
        return self

    def __str__(self) -> str:
        """Return the task's line, the frames of user code, and what was raised."""
        return self._plain().traceback_str

    def __repr__(self) -> str:
        """Return the class's name and the cause."""
        return f"{type(self).__name__}({self.cause!r})"

    def __reduce__(self) -> Recipe:
        """Return the envelope; the reader makes the class of a dual again."""
        read = _loads_plain if self._plain() is self else loads_error
        return read, (dumps_error(self),)

    def __reduce_ex__(self, protocol: object) -> Recipe:
        """Shadow the one that the cause's class may define."""
        return self.__reduce__()


#: Why a task that could have been run again was not.
RUN_ONCE: Final = (
    "it had taken values of a generator that was passed to it, and they would be missing"
)
_FIELDS: Final = ("function_name", "proctitle", "pid", "ip", "actor_repr", "actor_id")


def _fields(error: RayTaskError) -> dict[str, Any]:
    """Return the fields of a plain task error that are neither its text nor its cause."""
    return {name: getattr(error, name) for name in _FIELDS}


# ---- duals: errors that are instances of the user's class ----


@functools.lru_cache(maxsize=256)
def _dual_class(cause_class: type[Any]) -> type[RayTaskError]:
    """Return the class `RayTaskError(<cause_class>)`."""

    class Dual(RayTaskError, cause_class):  # type: ignore[misc]
        __doc__ = cause_class.__doc__

        def _plain(self) -> RayTaskError:
            # Straight from __dict__: a half-made instance must not end in __getattr__ for ever.
            origin: RayTaskError = self.__dict__["_RayTaskError_origin"]
            return origin

        @property
        def cause(self) -> BaseException:  # type: ignore[override]
            return self._plain().cause

        def as_instanceof_cause(self) -> RayTaskError:
            return self

        def __getattr__(self, name: str) -> Any:
            if "_RayTaskError_origin" not in self.__dict__:
                raise AttributeError(name)
            return getattr(self._plain().cause, name)

    Dual.__name__ = Dual.__qualname__ = f"RayTaskError({cause_class.__name__})"
    return Dual


def _make_dual(origin: RayTaskError) -> RayTaskError:
    """Return `origin` as an instance of its cause's class, without running that class's code."""
    cause = origin.cause
    cause_class: Any = type(cause)
    dual_class = _dual_class(cause_class)
    dual: RayTaskError = _blank(dual_class, (cause,), _new_args(cause))
    # Forwarding alone is not enough: an attribute that the class defines too (a default, errno of
    # an OSError) would be found there first, with the wrong value.
    _restore(dual, _state(cause))
    dual.__dict__["_RayTaskError_origin"] = origin
    return dual


# ---- exceptions to bytes and back, whatever their constructors want ----
#
# By default an exception is rebuilt by calling its class with `args`. That fails, or runs the
# user's __init__ on the wrong arguments, for every class whose __init__ differs from
# Exception's. So such an exception is rebuilt around __init__: a blank instance, then its state.

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement


def _blank(cls: type[BaseException], args: tuple[object, ...], new_args: tuple[object, ...]) -> Any:
    """Return an instance of `cls` made without its `__new__` and `__init__`."""
    layout: Any = cls
    while layout.__flags__ & _HEAP_TYPE:
        layout = layout.__base__
    blank = layout.__new__(cls, *new_args)
    object.__setattr__(blank, "args", args)
    return blank


def _new_args(error: BaseException) -> tuple[object, ...]:
    """Return what the built-in `__new__` of `error` insists on."""
    if isinstance(error, BaseExceptionGroup):
        return error.message, error.exceptions
    return ()


def _state(error: BaseException) -> dict[str, Any]:
    """Return the attributes of `error`: its `__dict__`, its slots, and those that live in C."""
    state = {}
    for name in _descriptors(type(error)):
        try:
            value = getattr(error, name)
        except Exception:
            continue  # never set
        if value is not None:
            state[name] = value
    return state | error.__dict__


def _descriptors(cls: type[BaseException]) -> Iterator[str]:
    """Yield the names of the slots and C fields that `cls` has beyond BaseException's."""
    for base in cls.__mro__:
        if base in (BaseException, BaseExceptionGroup, object):
            continue
        for name, value in vars(base).items():
            stored = isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType)
            if stored and not name.startswith("__"):
                yield name


def _restore(error: BaseException, state: dict[str, Any]) -> None:
    """Set `state` on `error` past the class's own `__setattr__`, which may refuse."""
    for name, value in state.items():
        try:
            object.__setattr__(error, name, value)
        except (AttributeError, TypeError):
            error.__dict__[name] = value  # a read-only property of that name


def _recipe(error: BaseException) -> Recipe:
    """Return a `__reduce__` value that rebuilds `error` without its `__init__`."""
    return _blank, (type(error), error.args, _new_args(error)), _state(error) or None


def _needs_recipe(cls: type[BaseException]) -> bool:
    """Tell whether `cls` has a constructor of its own but no word on how to pickle it."""
    says_how = (
        not isinstance(cls.__reduce__, types.MethodDescriptorType)
        or cls.__reduce_ex__ is not object.__reduce_ex__
        or cls in copyreg.dispatch_table
    )
    own_constructor = isinstance(cls.__init__, types.FunctionType) or isinstance(
        cls.__new__, types.FunctionType
    )
    return own_constructor and not says_how


class _ErrorPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A cloudpickle pickler that rebuilds exceptions, nested ones included, by recipe."""

    def __init__(self, file: io.BytesIO, forced: BaseException | None) -> None:
        """Write to `file`, ignoring what the class of `forced` says about its pickling."""
        super().__init__(file)
        self._forced = forced

    def reducer_override(self, obj: Any) -> Any:
        """Return the recipe for `obj` if it needs one."""
        cls = type(obj)
        if issubclass(cls, BaseException) and (obj is self._forced or _needs_recipe(cls)):
            recipe = _recipe(obj)
            own_setstate = cls.__setstate__ is not BaseException.__setstate__
            return recipe if own_setstate else (*recipe, None, None, _restore)
        return super().reducer_override(obj)


def _dumps(error: BaseException, forced: BaseException | None = None) -> bytes:
    """Return `error` pickled; raises whatever the pickling of its attributes raises."""
    file = io.BytesIO()
    _ErrorPickler(file, forced).dump(error)
    return file.getvalue()


def _pickle_cause(cause: BaseException) -> bytes:
    """Return `cause` pickled so that it reads back, or the nearest to it; never raises.

    Returns:
        The cause; where it cannot be written, a RayError that names it; where it can be written
        but never read, nothing.
    """
    problem = ""
    readable = True
    for forced in (None, cause):
        # BaseException, for this runs the user's reducers, and nothing that they raise may take
        # the place of the error that the task ended with.
        try:
            pickled = _dumps(cause, forced)
        except BaseException as error:
            problem = problem or _safe_str(error)
            continue
        if _reads_back(pickled):
            return pickled
        readable = False
    if not readable:
        return b""
    cls = type(cause)
    name = f"{cls.__module__}.{cls.__qualname__}"
    return _dumps(RayError(f"Exception {name} isn't serializable: {problem}"))


def _reads_back(pickled: bytes) -> bool:
    """Tell whether `pickled` gives an exception when it is read."""
    try:
        return isinstance(pickle.loads(pickled), BaseException)
    except BaseException:
        return False


# ---- from a live exception to a task error ----

_PACKAGE: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
_USER_CODE: Final = frozenset({"demo.py"})  # in the package, but written as a user would
_STANDARD_HEADER: Final = "Traceback (most recent call last):\n"
_LOCALHOST: Final = "127.0.0.1"


def make_task_error(
    function_name: str,
    exc: BaseException,
    *,
    pid: int,
    ip: str = _LOCALHOST,
    name: str | None = None,
    task_id: object = None,
    actor_repr: str | None = None,
    actor_id: str | None = None,
) -> RayTaskError:
    """Return the task error for `exc`, which a user's function has just raised.

    Args:
        function_name: `f`, or `Class.method`.
        exc: What was raised, with its traceback. An error that `get` raised inside the task
            passes on its root cause; a KeyboardInterrupt means that the task was cancelled.
        pid: The process that ran the function.
        ip: The address of the machine.
        name: The name the task was given in its options; function_name if None.
        task_id: Shown when the task was cancelled.
        actor_repr: `repr()` of the actor, for a method.
        actor_id: The actor's id as hex, for a method.

    Returns:
        A plain RayTaskError, which keeps `exc` and so its frames alive: pass it to `dumps_error`
        and let it go.
    """
    cause = exc
    if isinstance(exc, KeyboardInterrupt):
        cause = exc = TaskCancelledError(task_id).with_traceback(exc.__traceback__)
    elif isinstance(exc, RayTaskError):
        cause = exc.cause
    proctitle = f"ray::{name or function_name}"
    header = _header(proctitle, pid, ip, actor_repr, actor_id)
    error = RayTaskError(
        function_name,
        _format(exc, header),
        cause,
        proctitle=proctitle,
        pid=pid,
        ip=ip,
        actor_repr=actor_repr,
        actor_id=actor_id,
    )
    error._is_cancelled = isinstance(cause, TaskCancelledError) and cause.task_id == task_id
    return error


def _header(
    proctitle: str, pid: int, ip: str, actor_repr: str | None = None, actor_id: str | None = None
) -> str:
    """Return the line that says which task a traceback belongs to."""
    where = [f"pid={pid}", f"ip={ip}"]
    if actor_id is not None:
        where.append(f"actor_id={actor_id}")
    if actor_repr is not None:
        where.append(f"repr={actor_repr}")
    return f"\x1b[36m{proctitle}()\x1b[39m ({', '.join(where)})"


def _format(exc: BaseException, header: str) -> str:
    """Return `exc` and its chain as text, `header` in place of each "Traceback" line."""
    # Formatting reads attributes of the user's exception, and a hostile one may raise there.
    try:
        report = traceback.TracebackException.from_exception(exc)
        for part in _chain(report):
            part.stack[:] = [frame for frame in part.stack if _is_user_code(frame.filename)]
        chunks = list(report.format())
    except Exception as error:
        chunks = [f"{type(exc).__qualname__} (its text cannot be shown: {_safe_str(error)})"]
    if _STANDARD_HEADER not in chunks:
        chunks.insert(0, _STANDARD_HEADER)  # a group draws its own; the task must be named still
    text = "".join(header + "\n" if chunk == _STANDARD_HEADER else chunk for chunk in chunks)
    return text.rstrip("\n")


def _chain(report: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield `report`, its causes and contexts, and the members of groups among them."""
    pending = [report]
    while pending:
        part = pending.pop()
        yield part
        linked = (part.__cause__, part.__context__, *(part.exceptions or ()))
        pending.extend(other for other in linked if other is not None)


def _is_user_code(filename: str) -> bool:
    """Tell whether a frame of `filename` says something to the user."""
    # Compiled rooms name their source relative to where they were built.
    if filename.startswith("ray_lite/") and filename.endswith((".pyx", ".pxd")):
        return False
    return not filename.startswith(_PACKAGE) or filename[len(_PACKAGE) :] in _USER_CODE


def _safe_str(error: BaseException) -> str:
    """Return `str(error)`, or its class where its `__str__` raises."""
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__qualname__}, whose text cannot be shown>"


# ---- the envelope ----
#
#     [text: nbytes | fields: nbytes | cancelled | text, UTF-8 | fields, JSON | cause, pickle]
#
# A task error is its text, its fields and its cause. Any other error is its own cause, and its
# fields are null.

_HEAD: Final = struct.Struct("<QQ?")
_LOST_TEXT: Final = "<the record of this error is damaged; its text is lost>"


def dumps_error(error: BaseException) -> bytes:
    """Return `error` as bytes from which `loads_error` always makes an error; never raises.

    Args:
        error: A RayTaskError, or a RayError that stands for the task (WorkerCrashedError ...).
            A cause that cannot be pickled is replaced by a RayError that names it; the text stays.
    """
    if isinstance(error, RayTaskError):
        plain = error._plain()
        cause = _pickle_cause(plain.cause)
        return _pack(plain.traceback_str, _fields(plain), cause, plain._is_cancelled)
    cls = type(error)
    text = f"{cls.__module__}.{cls.__qualname__}: {_safe_str(error)}"
    return _pack(text, None, _pickle_cause(error), isinstance(error, TaskCancelledError))


def loads_error(data: Buffer) -> BaseException:
    """Return the error in `data`, ready to be raised; never raises one of its own.

    Returns:
        For a task error `as_instanceof_cause()` of it. UnserializableException with the original
        text where the cause cannot be rebuilt in this process.
    """
    error = _loads_plain(data)
    return error.as_instanceof_cause() if isinstance(error, RayTaskError) else error


def _loads_plain(data: Buffer) -> BaseException:
    """Return the error in `data` as it was before `as_instanceof_cause()`."""
    # Unpickling runs the user's code, and imports modules that may not be there.
    try:
        text, fields, pickled = _unpack(data)
        cause = pickle.loads(pickled)
        if not isinstance(cause, BaseException):
            raise TypeError(f"the record of an error holds a {type(cause).__name__}")
        if fields is None:
            return cause
        return RayTaskError(traceback_str=text, cause=cause, **fields)
    except Exception:
        return UnserializableException(error_text(data))


def error_text(data: Buffer) -> str:
    """Return the text of the error in `data` without unpickling anything; never raises."""
    try:
        return _unpack(data)[0]
    except (struct.error, ValueError):
        return _LOST_TEXT


def is_cancel(data: Buffer) -> bool:
    """Whether the error in `data` is of a task that was itself cancelled; never raises."""
    try:
        return bool(_HEAD.unpack_from(bytes(data))[2])
    except struct.error:
        return False


def nest_error(
    data: Buffer,
    function_name: str,
    *,
    pid: int,
    ip: str = _LOCALHOST,
    name: str | None = None,
) -> bytes:
    """Return the error of a task that did not run because an argument of it has failed.

    The root cause is carried over as it is, still pickled.

    Args:
        data: The argument's error, from `dumps_error` or `nest_error`.
        function_name: The task that cannot run.
        pid: The process that found out.
        ip: The address of the machine.
        name: The name the task was given in its options; function_name if None.
    """
    try:
        text, _, pickled = _unpack(data)
    except (struct.error, ValueError):
        text, pickled = _LOST_TEXT, b""
    proctitle = f"ray::{name or function_name}"
    error = RayTaskError(
        function_name,
        f"{_header(proctitle, pid, ip)}\n"
        f"  At least one of the input arguments for this task could not be computed:\n{text}",
        RayError(),
        proctitle=proctitle,
        pid=pid,
        ip=ip,
    )
    return _pack(error.traceback_str, _fields(error), pickled)


def _pack(
    text: str, fields: dict[str, Any] | None, pickled: bytes, is_cancelled: bool = False
) -> bytes:
    """Return the envelope of these."""
    # Lone surrogates (an undecodable file name in a message) must not lose the whole error.
    raw_text = text.encode("utf-8", "backslashreplace")
    raw_fields = json.dumps(fields, default=str).encode()
    head = _HEAD.pack(len(raw_text), len(raw_fields), is_cancelled)
    return head + raw_text + raw_fields + pickled


def _unpack(data: Buffer) -> tuple[str, dict[str, Any] | None, bytes]:
    """Return text, fields and pickled cause of an envelope.

    Raises:
        struct.error: Too short for a header.
        ValueError: The fields are not what `_pack` writes.
    """
    raw = bytes(data)
    text_nbytes, fields_nbytes, _ = _HEAD.unpack_from(raw)
    fields_at = _HEAD.size + text_nbytes
    pickle_at = fields_at + fields_nbytes
    text = raw[_HEAD.size : fields_at].decode("utf-8", "replace")
    return text, json.loads(raw[fields_at:pickle_at]), raw[pickle_at:]


# ---- return codes of the C core ----

_BY_CODE: Final[Mapping[int, tuple[type[Exception], str]]] = types.MappingProxyType(
    {
        # RL_EFULL
        -1: (
            ObjectStoreFullError,
            "the object store has no room; drop references to values that are no longer needed, "
            "or start with a larger init(object_store_memory=...)",
        ),
        # RL_ETIMEDOUT
        -2: (GetTimeoutError, "Get timed out: some object(s) not ready."),
        # RL_ESTALE
        -3: (
            ValueError,
            "the reference's owner is unknown: its object no longer exists, for its last holder "
            "let go of it or its session was shut down",
        ),
        # RL_ECORRUPT
        -4: (
            ArenaCorruptError,
            "shared memory breaks its invariants; call shutdown() and init() again, and please "
            "report what the program did",
        ),
        # RL_EDEAD
        -5: (
            RaySystemError,
            "the session is over because its supervisor died; call shutdown() and init() again",
        ),
        # RL_EINVAL
        -6: (ValueError, "the core refused an argument as out of range"),
        # RL_ENOSLOT
        -7: (
            RuntimeError,
            "every process slot of the session is taken; run fewer workers, actors and drivers "
            "at a time",
        ),
        # RL_ETABLE
        -8: (
            RuntimeError,
            "a table of the session's control segment is full; hold fewer references and pending "
            "tasks at a time",
        ),
        # RL_ELAYOUT
        -9: (
            RaySystemError,
            "the session was made by another version of ray_lite; use the same in every process",
        ),
    }
)


def error_from_code(code: int, message: str = "") -> Exception:
    """Return the exception for a return code of the C core (csrc/rl_err.h).

    Args:
        code: > 0 is an errno and gives the OSError subclass for it; < 0 is one of RL_E*.
        message: What happened, with the numbers, where the caller knows more than the code says.
    """
    if code > 0:
        reason = os.strerror(code)
        return OSError(code, f"{reason}: {message}" if message else reason)
    kind, text = _BY_CODE.get(code, (RaySystemError, f"the core returned unknown code {code}"))
    return kind(message or text)
