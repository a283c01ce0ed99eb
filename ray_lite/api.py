"""init, shutdown, put, get, wait: what a user calls, checked.

Owns the rules about arguments and how a stored failure becomes a raised error. It must not know how
tasks are run.
"""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar, overload

from numpy import ndarray

from ray_lite import session
from ray_lite._core import ObjectRef, Session, Stream, references, split
from ray_lite._options import check_init_options
from ray_lite._values import read
from ray_lite.exceptions import GetTimeoutError
from ray_lite.generator import ObjectRefGenerator
from ray_lite.session import Connection

T = TypeVar("T")
W = TypeVar("W", bound=ObjectRef[Any] | ObjectRefGenerator[Any])


class RayContext(Mapping[str, Any]):
    """What `init` returns: facts about the session, by name. Usable in a with statement."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        """Keep a copy of the facts."""
        self.address_info = dict(info)
        self.dashboard_url = ""

    def __getitem__(self, key: str) -> Any:
        """Return the fact of that name."""
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self.address_info)

    def __len__(self) -> int:
        """Return how many facts there are."""
        return len(self.address_info)

    def __repr__(self) -> str:
        """Return the class's name and the facts."""
        return f"RayContext({self.address_info})"

    def __enter__(self) -> "RayContext":
        """Return it; leaving the with statement ends the session."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End the session."""
        shutdown()

    def disconnect(self) -> None:
        """End the session."""
        shutdown()


def init(address: str | None = None, **options: Any) -> RayContext:
    """Start a session with this process as its driver.

    Args:
        address: "local" for a session of one's own; "auto", or the path of a session's socket
            (its `init()["address"]`), to join a running one of the same user. None is what
            RAY_ADDRESS says, if that is "auto" or a path, else "local".
        **options: num_cpus (int >= 0; default: the CPUs this process may use),
            object_store_memory (bytes >= 78,643,200; default: 30 % of the memory), resources
            ({name: amount}), namespace, ignore_reinit_error, log_to_driver (default True),
            local_mode (everything runs in this process; see local.py),
            runtime_env ({"env_vars": ...}). Ray's other keywords are accepted and do nothing; one
            warning names them.

    Returns:
        Facts about the session.

    Raises:
        RuntimeError: A session is up already, this is a worker, or a keyword is unknown.
        ValueError: A value out of range, or a store that does not fit into memory.
        TypeError: A value of the wrong type.
        RaySystemError: The supervisor did not start.
        ConnectionError: There is no session to join.
    """
    if address is None:
        address = _address_from_environment()
    checked = check_init_options({"address": address, **options})
    connection = session.current()
    if connection is not None and not connection.is_worker and session.is_lost(connection):
        session.close_session()
        connection = None
    if connection is not None:
        if connection.is_worker:
            raise RuntimeError("init() was called in a task: its session is up, just use it")
        if not checked.ignore_reinit_error:
            raise RuntimeError(
                "Maybe you called ray.init twice: a session is up already. Call shutdown() first, "
                "or pass ignore_reinit_error=True to keep it"
            )
        return RayContext(_context_info(connection))
    connection = session.join_session(checked) if checked.address else session.open_session(checked)
    return RayContext(_context_info(connection))


def _address_from_environment() -> str | None:
    """Return RAY_ADDRESS if a session can be there; a cluster's is none of ours."""
    address = os.environ.get("RAY_ADDRESS", "")
    return address if address == "auto" or address.startswith("/") else None


def _context_info(connection: Connection) -> dict[str, Any]:
    core = connection.core
    return {
        "address": "local",
        "session_dir": os.path.dirname(connection.info.get("address", "local")),
        "node_ip_address": "127.0.0.1",
        "node_id": connection.node_id,
        "session_id": connection.session_id,
        "object_store_memory": core.segments.capacity,
        "namespace": connection.namespace,
        "webui_url": "",
        **connection.info,
    }


def shutdown(*, wait_for_processes: bool = False) -> None:
    """End the session: all its processes are gone when this returns. Harmless without one.

    Args:
        wait_for_processes: Accepted for Ray; the processes are always waited for.
    """
    session.close_session()


def is_initialized() -> bool:
    """Return whether this process is in a session."""
    return session.current() is not None


def connect() -> Connection:
    """Return this process's connection, starting a session with default options if need be."""
    return session.ensure(init)


# ---- put, get, wait ----


def put(value: T, *, _owner: object = None, _tensor_transport: object = None) -> ObjectRef[T]:
    """Store `value` and return a reference to it.

    Args:
        value: Anything that pickle or cloudpickle can carry; a snapshot is taken. The bytes of
            contiguous arrays, at any depth, are copied once and read in place.
        _owner: Accepted for Ray; an object has no owner here, it lives while it is referred to.
        _tensor_transport: Accepted for Ray.

    Raises:
        TypeError: `value` is an ObjectRef (put it in a list), or cannot be pickled.
        ObjectStoreFullError: No room, and none was made for 10 s; nothing was stored.
    """
    core = connect().core
    if isinstance(value, ObjectRef):
        raise TypeError(
            "put() of an ObjectRef: it refers to a stored value already; use it as it is, or put "
            "a list that holds it"
        )
    held_once = type(value) is ndarray and references(value) <= _REFERENCES
    try:
        stored = core.store_value(value, held_once)
    except TypeError as error:
        raise TypeError(f"Could not serialize the put value {_short(value)}: {error}") from error
    return core.put_stored(stored)


def _references_in_put(value: object) -> int:
    """Return how many references to its argument `put` finds, which asks in the same way."""
    return references(value)


def _references_to_what_is_held_once() -> int:
    """Return how many there are in a function that is called with what a name holds.

    Which of those on the way are counted differs between versions of CPython.
    """
    held = object()
    return _references_in_put(held)


_REFERENCES: Final = _references_to_what_is_held_once()


def memory_summary() -> dict[str, int]:
    """Return what the object store holds and has done, in bytes and counts.

    "capacity", "free", "largest" (free extent), "peak" (most ever in use): bytes. "objects" and
    "tasks" that are alive, tasks "finished". "sealed_in_place" and "copied": values too long for a
    record that were stored where they had been computed, or copied. "repairs": after deaths.
    """
    usage: dict[str, int] = {**connect().core.usage()}  # type: ignore[dict-item]
    return usage


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 200 else text[:197] + "..."


@overload
def get(refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
def get(refs: list[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
def get(refs: Any, *, timeout: float | None = None) -> Any:
    """Return the value of a reference, or the list of values of a list of references.

    Args:
        refs: An ObjectRef or a list of them.
        timeout: Seconds to wait, >= 0; None, or -1, waits for ever.

    Returns:
        A new object at each call, but arrays: read-only views of shared memory, which they keep.

    Raises:
        GetTimeoutError: Not all were there in time.
        RayTaskError: A task failed; also an instance of the exception that it raised. Of a list,
            the first failure there is, without waiting for the rest.
        RayError: What else happened to a task, e.g. WorkerCrashedError.
        ValueError: Not a reference or a list; a negative timeout; a reference of another session.
        TypeError: An item of the list is not an ObjectRef.
    """
    core = connect().core
    seconds = _check_get_timeout(timeout)
    if isinstance(refs, ObjectRef):
        if not core.is_ready(refs) and not core.wait([refs], 1, seconds, False)[0]:
            raise _not_ready(1, 1, timeout)
        return read(core, refs)
    if isinstance(refs, ObjectRefGenerator):
        return refs
    if not isinstance(refs, list):
        raise ValueError(
            f"Invalid type of object refs, {type(refs).__name__}, is given: get() takes an "
            "ObjectRef or a list of ObjectRefs"
        )
    values = core.read_ready(refs) if type(refs) is list else None
    if values is not None:
        return values
    refs = list(refs)  # other threads may change theirs
    for ref in refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(
                f"Attempting to call `get` on the value {_short(ref)}, which is not an ObjectRef "
                f"but of type {type(ref).__name__}"
            )
    return _get_list(core, refs, seconds, timeout)


def _get_list(
    core: Session, refs: list[ObjectRef[Any]], seconds: float | None, timeout: float | None
) -> list[Any]:
    flags = core.wait(refs, len(refs), seconds, True)
    if all(flags):
        return core.read_ready(refs) or [read(core, ref) for ref in refs]
    for ref, ready in zip(refs, flags, strict=True):
        if ready:
            read(core, ref)  # raises if it is the failure that ended the wait
    raise _not_ready(flags.count(0), len(refs), timeout)


def _not_ready(missing: int, count: int, timeout: float | None) -> GetTimeoutError:
    return GetTimeoutError(
        f"Get timed out: some object(s) not ready. {missing} of {count} had no value after "
        f"{timeout} s; raise the timeout, or wait() for those that are"
    )


def _check_get_timeout(timeout: Any) -> float | None:
    """Return `timeout` as seconds, None for ever."""
    if timeout is None or (timeout == -1 and not isinstance(timeout, bool)):
        return None
    seconds = _number("get", timeout)
    if seconds < 0:
        raise ValueError(
            f"get(timeout={timeout!r}): give seconds >= 0, or None (or -1) to wait for ever"
        )
    return None if math.isinf(seconds) else seconds


def _number(call: str, timeout: Any) -> float:
    try:
        seconds = float(timeout) if not isinstance(timeout, str) else math.nan
    except (TypeError, ValueError):
        seconds = math.nan
    if math.isnan(seconds):
        raise ValueError(f"{call}(timeout={timeout!r}): give a number of seconds, or None")
    return seconds


def cancel(
    ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True
) -> None:
    """Ask a task to end. Harmless when it has ended.

    One that has not started never runs, and `get` raises TaskCancelledError. In one that runs,
    KeyboardInterrupt is raised; a coroutine of an actor is cancelled; any other method of an actor
    runs on, may ask `get_runtime_context().is_canceled()`, and its value is not kept.

    Args:
        ref: One of its references, or its generator.
        force: Kill its worker instead.
        recursive: Also the tasks that it has submitted, and so on.

    Raises:
        TypeError: Not a reference of a task (an actor is ended by `kill`).
        ValueError: `force` for an actor's method.
    """
    connection = connect()
    if not isinstance(ref, ObjectRef | ObjectRefGenerator):
        raise TypeError(
            f"ray.cancel() only supported for object refs. Got: {_short(ref)} of type "
            f"{type(ref).__name__}; for an actor use ray.kill()"
        )
    stream_or_ref = ref if isinstance(ref, ObjectRef) else ref.stream
    connection.core.cancel(stream_or_ref, force, recursive)
    if connection.local is not None:
        connection.local.interrupt_cancelled()


def wait(
    ray_waitables: list[W],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[W], list[W]]:
    """Wait until `num_returns` of the references have a value or a failure.

    Args:
        ray_waitables: Distinct ObjectRefs and ObjectRefGenerators; one of these counts when its
            `next` would not wait.
        num_returns: How many to wait for, 1 to len(ray_waitables).
        timeout: Seconds, >= 0; None waits for ever.
        fetch_local: Accepted for Ray; everything is local.

    Returns:
        (ready, not_ready), both in the order given; at most num_returns are in the first.

    Raises:
        TypeError: Not a list of ObjectRefs.
        ValueError: Duplicates, num_returns or timeout out of range.
    """
    core = connect().core
    if timeout is None or (type(timeout) in (int, float) and timeout >= 0):
        found = core.split_ready(ray_waitables, num_returns)
        if found is not None:
            return found
    refs, waited = _check_waitables(core, ray_waitables)
    seconds = None if timeout is None else _number("wait", timeout)
    if seconds is not None and seconds < 0:
        raise ValueError(f"wait(timeout={timeout!r}): give seconds >= 0, or None to wait for ever")
    if not refs:
        return [], []
    need = _check_num_returns(num_returns, len(refs))
    flags = core.wait(waited, need, None if seconds == math.inf else seconds, False)
    return split(refs, flags, need)


def _check_waitables(
    core: Session, waitables: list[W]
) -> tuple[list[W], list[ObjectRef[Any]] | list[ObjectRef[Any] | Stream]]:
    """Return a copy of the list, which other threads may change, and what the core waits for."""
    if not isinstance(waitables, list):
        raise TypeError(
            f"wait() takes a list of ObjectRefs, not {type(waitables).__name__}"
            + ("; put the reference in a list" if isinstance(waitables, ObjectRef) else "")
        )
    refs: list[Any] = list(waitables)
    if core.are_distinct(refs):
        return refs, refs
    for ref in refs:
        if not isinstance(ref, ObjectRef | ObjectRefGenerator):
            raise TypeError(f"wait() takes a list of ObjectRefs; it holds {_short(ref)}")
    if len(set(refs)) != len(refs):
        raise ValueError("wait() takes a list of unique ObjectRefs; one of them is there twice")
    return refs, [ref if isinstance(ref, ObjectRef) else ref.stream for ref in refs]


def _check_num_returns(num_returns: Any, count: int) -> int:
    if isinstance(num_returns, bool) or not isinstance(num_returns, int | float):
        raise TypeError(f"wait(num_returns={num_returns!r}): give a whole number")
    if num_returns != int(num_returns):
        raise TypeError(f"wait(num_returns={num_returns!r}): give a whole number")
    if not 1 <= num_returns <= count:
        raise ValueError(
            f"wait(num_returns={num_returns}) of {count} references: give 1 to {count}"
        )
    return int(num_returns)
