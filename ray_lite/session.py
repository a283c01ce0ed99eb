"""The one session of this process.

Owns the only mutable state at module level: which session this process is in, as a driver that
started one or as a worker that belongs to one. Everything above asks `current()` or `ensure()`.
It must not know tasks, values or scheduling; it starts the supervisor and stops it.

    driver ──exec──► supervisor ──fork──► workers
       │   socket: JSON, rare; closing it ends the session
       └── eventfd "bell": whatever happens in shared memory that the supervisor must look at
"""

import atexit
import contextlib
import copyreg
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
import warnings
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol

from ray_lite import _blas, _core, attach
from ray_lite._codec import Encoded
from ray_lite._futures import FutureMaker
from ray_lite._limits import check_store_size, default_store_size, usable_cpus
from ray_lite._options import InitOptions
from ray_lite.exceptions import RaySystemError, error_from_code

START_TIMEOUT: Final = 60.0  # seconds until the supervisor must have answered
STOP_TIMEOUT: Final = 10.0  # seconds until a supervisor that does not stop is killed
MARK: Final = "RAY_LITE_SESSION"  # environment variable that all of a session's processes carry
CANCEL_SIGNAL: Final = signal.SIGRTMIN + 3  # to a worker: a task of yours has been cancelled
STORE_PATIENCE: Final = 10.0  # seconds that a full store may go without a byte freed

# What the supervisor's interpreter runs: its imports come from where the driver's came from. They
# leave no garbage; not to look for any until `main` is ready saves a twentieth of their time.
_BOOT: Final = (
    "import gc, sys; gc.disable(); sys.path[:] = sys.argv[2:]; "
    "from ray_lite.supervisor import main; main(int(sys.argv[1]))"
)


class Keeper(Protocol):
    """Outlives sessions and keeps what it needs of the present one."""

    def forget_session(self) -> None:
        """Keep nothing of it any more."""


class LocalMode(Protocol):
    """Runs everything in the driver's own process: what local.py is, seen from here."""

    def submit(
        self,
        submission: _core.Submission,
        args: Encoded,
        actor: _core.ObjectRef[Any] | None,
        parent: _core.Job | None,
    ) -> Any:
        """Submit a task, as the core does, and run it."""

    def submit_actor(self, *spec: Any) -> list[Any]:
        """Submit an actor, as the core does, and make its instance."""

    def actor_of(self, job: _core.Job | None) -> "tuple[Any, _core.Job] | None":
        """Return what the actor is that `job` is part of, and its task."""

    def kill(self, actor: _core.ObjectRef[Any], *, no_restart: bool) -> None:
        """Carry out a kill."""

    def interrupt_cancelled(self) -> None:
        """Something was cancelled: interrupt it, if it runs."""

    def join(self, timeout: float) -> None:
        """The session has ended: wait for the threads, so many seconds in all at most."""


@dataclass(eq=False)
class Connection:
    """This process's part in a session, driver or worker."""

    core: _core.Session
    #: Is this a worker?
    is_worker: bool
    #: Where unqualified actor names live, but for code of an actor.
    namespace: str
    #: What user code keeps for as long as this session lives (exported functions), by owner.
    cache: dict[Any, Any] = field(default_factory=dict)
    #: The driver's handle of the supervisor; None in a worker.
    supervisor: "subprocess.Popen[bytes] | None" = None
    #: The driver's end of the control socket; None in a worker.
    control: socket.socket | None = None
    #: Descriptors to close at the end.
    fds: list[int] = field(default_factory=list)
    #: Directory, size and the like, for the operator.
    info: dict[str, Any] = field(default_factory=dict)
    #: Who keeps something of this session, and so its memory, until told to forget.
    keepers: "weakref.WeakSet[Keeper]" = field(default_factory=weakref.WeakSet)
    #: What the actor is that this process is, and its task; None in every other process.
    actor: "tuple[Any, _core.Job] | None" = None
    #: Of a driver in local mode; None in every other process.
    local: LocalMode | None = None

    @property
    def submit_actor(self) -> Callable[..., list[Any]]:
        """How actors are submitted; see _core.Session.submit_actor."""
        return self.core.submit_actor if self.local is None else self.local.submit_actor

    @property
    def current_namespace(self) -> str:
        """Where unqualified actor names live for the code that runs now."""
        actor = current_actor()
        return self.namespace if actor is None else str(actor[0].namespace)

    @property
    def session_id(self) -> str:
        """The session's id, 16 hexadecimal digits."""
        return session_id(self.core.segments)

    @property
    def node_id(self) -> str:
        """The id of the one node, 56 hexadecimal digits."""
        return self.session_id.zfill(56)


#: The task that the code which runs now is part of.
current_job: Final[ContextVar[_core.Job | None]] = ContextVar("current_job", default=None)


def session_id(segments: _core.Segments) -> str:
    """Return the id of the session whose memory this is, 16 hexadecimal digits."""
    return f"{segments.cookie:016x}"


class _Process:
    """The state of this process: at most one connection."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.lock = threading.RLock()


_process: Final = _Process()


def current() -> Connection | None:
    """Return this process's connection, or None before `init` and after `shutdown`."""
    return _process.connection


def current_actor() -> tuple[Any, _core.Job] | None:
    """Return what the actor is that runs this code, and its task; None outside actors."""
    connection = _process.connection
    if connection is None or connection.local is None:
        return None if connection is None else connection.actor
    return connection.local.actor_of(current_job.get())


def ensure(start: Callable[[], object]) -> Connection:
    """Return this process's connection; `start` one if there is none.

    Raises:
        RaySystemError: The session has ended without `shutdown`.
    """
    connection = _process.connection
    if connection is not None:
        if connection.core.is_over:
            raise error_from_code(_core.EDEAD)
        return connection
    with _process.lock:
        if _process.connection is None:
            start()
        assert _process.connection is not None
        return _process.connection


def is_lost(connection: Connection) -> bool:
    """Return whether the session has ended without `shutdown`: its supervisor died."""
    if connection.core.is_over:
        return True
    if connection.supervisor is not None:
        return connection.supervisor.poll() is not None
    return any(attach.is_dead(peer) for peer in connection.fds[1:])  # a guest's


# ---- the driver's side ----


def open_session(options: InitOptions) -> Connection:
    """Start a session with this process as its driver.

    Raises:
        ValueError: The store does not fit into this machine's memory.
        RaySystemError: The supervisor did not start.
    """
    _occupy_standard_fds()
    capacity = options.object_store_memory or default_store_size()
    check_store_size(capacity)
    num_cpus = usable_cpus() if options.num_cpus is None else options.num_cpus
    namespace = options.namespace or str(uuid.uuid4())
    segments = _core.Segments.create(capacity)
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        env_vars = {**options.env_vars, MARK: session_id(segments)}
        supervisor = _start_supervisor([*segments.fds, bell], theirs, env_vars)
    connection = None
    try:
        _tell(mine, _session_config(options, segments.fds, bell, num_cpus, namespace))
        peer = os.pidfd_open(supervisor.pid)
        core = _core.Session(segments, _core.ROLE_DRIVER, bell, peer, STORE_PATIENCE)
        connection = Connection(
            core=core,
            is_worker=False,
            namespace=namespace,
            supervisor=supervisor,
            control=mine,
            fds=[bell, peer],
            info={"num_cpus": num_cpus, "object_store_memory": capacity},
        )
        core.make_future = FutureMaker(core).make
        if options.local_mode:
            from ray_lite.local import Local  # stands on what stands on this file

            connection.local = Local(core)
        _declare_resources(core, num_cpus, options.custom_units())
        _await_ready(connection)
    except BaseException:
        _abandon_start(connection, supervisor, mine, bell, session_id(segments))
        raise
    _process.connection = connection
    return connection


def join_session(options: InitOptions) -> Connection:
    """Join a running session of this user as one more driver.

    Raises:
        ConnectionError: There is none, or it is of another version.
    """
    assert options.address is not None
    if options.env_vars:
        warnings.warn(
            "init(address=...): runtime_env['env_vars'] does nothing, for the workers of the "
            "session that is joined have theirs; give it to the task, f.options(runtime_env=...)",
            stacklevel=3,
        )
    control, config, fds = attach.join(options.address)
    control_fd, data_fd, bell, peer = fds
    try:
        _check_version(options.address, config["version"])
        segments = _core.Segments.attach(control_fd, data_fd)
    except BaseException:
        control.close()
        attach.close_all(fds)
        raise
    try:
        core = _core.Session(segments, _core.ROLE_DRIVER, bell, peer, STORE_PATIENCE)
    except BaseException:
        control.close()
        attach.close_all([bell, peer])  # the segments close theirs
        raise
    core.make_future = FutureMaker(core).make
    _process.connection = Connection(
        core=core,
        is_worker=False,
        namespace=options.namespace or str(uuid.uuid4()),
        control=control,
        fds=[bell, peer],
        info=config["info"],
    )
    return _process.connection


def _check_version(address: str, theirs: str) -> None:
    if theirs != version():
        raise ConnectionError(
            f"init(address={address!r}): that session runs {theirs}, this process {version()}; "
            "use the same versions of Python and ray_lite"
        )


def version() -> str:
    """Return what two processes of a session must have in common."""
    from ray_lite import __version__  # at the top it would be a cycle

    python = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    return f"{python}, ray_lite {__version__} (layout {_core.LAYOUT_VERSION})"


def _occupy_standard_fds() -> None:
    """A process without stdin, stdout or stderr gets /dev/null there.

    Otherwise a descriptor of the session would take the number, and the supervisor's own standard
    streams would take it from that.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _start_supervisor(
    fds: list[int], control: socket.socket, env_vars: Any
) -> "subprocess.Popen[bytes]":
    """Start the supervisor in a session of its own: Ctrl-C in a terminal does not reach it."""
    pass_fds = [*fds, control.fileno()]
    environment = {**os.environ, **env_vars, **_blas.pinned()}
    return subprocess.Popen(
        [sys.executable, "-c", _BOOT, str(control.fileno()), *sys.path],
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def _session_config(
    options: InitOptions, fds: tuple[int, int], bell: int, num_cpus: int, namespace: str
) -> dict[str, Any]:
    """Return what the supervisor is told first."""
    return {
        "control_fd": fds[0],
        "data_fd": fds[1],
        "bell_fd": bell,
        "driver_pid": os.getpid(),
        "num_cpus": num_cpus,
        "local_mode": options.local_mode,
        "log_to_driver": options.log_to_driver,
        "namespace": namespace,
        "patience": STORE_PATIENCE,
        "environment": _blas.unpinned({**os.environ, **options.env_vars}),
    }


def _declare_resources(core: _core.Session, num_cpus: int, custom: dict[str, int]) -> None:
    """Tell the core what this machine has; CPU is resource 0 (RL_CPU)."""
    core.set_resource_total("CPU", num_cpus * 10_000)
    for name, units in custom.items():
        core.set_resource_total(name, units)


def _tell(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError):  # whoever reads the answer will see that it is dead
        control.sendall(json.dumps(message).encode())


def _await_ready(connection: Connection) -> None:
    """Wait until the supervisor says that it has joined."""
    control, supervisor = connection.control, connection.supervisor
    assert control is not None and supervisor is not None
    control.settimeout(START_TIMEOUT)
    code = None
    try:
        answer = control.recv(65536)
    except TimeoutError:
        answer = b""
    except ConnectionError:
        answer = b""
        code = supervisor.wait()
    control.settimeout(None)
    if answer:
        connection.info["address"] = json.loads(answer)["address"]
    else:
        raise RaySystemError(
            f"the supervisor (process {supervisor.pid}) did not start: "
            f"{'it gave no sign' if code is None else f'it ended with status {code}'}; "
            "its own output is on stderr"
        )


def _abandon_start(
    connection: Connection | None,
    supervisor: "subprocess.Popen[bytes]",
    control: socket.socket,
    bell: int,
    name: str,
) -> None:
    """Leave nothing behind of a session that did not come up."""
    supervisor.kill()
    supervisor.wait()
    control.close()
    attach.remove(name)
    if connection is None:
        os.close(bell)
    else:
        _forget(connection)


def close_session() -> None:
    """End this process's session, if it is the driver of one; all its processes are gone then."""
    with _process.lock:
        connection = _process.connection
        if connection is None or connection.is_worker:
            return
        _process.connection = None
        assert connection.control is not None
        if connection.supervisor is None:  # a guest leaves, the session goes on
            _forget(connection)
            connection.core.make_future = _Farewell(connection.control, connection.core.slot)
            return
        connection.core.end()
        connection.control.close()
        if connection.local is not None:
            connection.local.join(STOP_TIMEOUT)
        _reap(connection)
        _forget(connection)


class _Farewell:
    """Tells the supervisor that a guest needs nothing of the session any more.

    It hangs on the core that the guest has left and goes with it: when the last array and the last
    reference have gone. Until then the memory that they show must not be used for anything else.
    """

    def __init__(self, control: socket.socket, slot: int) -> None:
        self._control = control
        self._slot = slot
        self._pid = os.getpid()

    def __call__(self, waitable: object) -> NoReturn:
        raise ValueError(f"{waitable!r} belongs to no live session of this process")

    def __del__(self) -> None:
        if os.getpid() == self._pid:  # not in a forked child
            attach.say_farewell(self._control, self._slot)
        self._control.close()


def _reap(connection: Connection) -> None:
    """Wait for the supervisor, which ends everything else first."""
    supervisor = connection.supervisor
    assert supervisor is not None
    try:
        supervisor.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()


def _forget(connection: Connection) -> None:
    """Let go of the session's memory and descriptors; arrays that are still alive keep theirs."""
    connection.cache.clear()
    for keeper in list(connection.keepers):
        keeper.forget_session()
    connection.core.make_future = None
    connection.core.detach()
    connection.core.segments.close_fds()
    for fd in connection.fds:
        os.close(fd)


# ---- the worker's side ----


def join_as_worker(core: _core.Session, namespace: str) -> Connection:
    """Make this forked process a worker of the session that `core` has joined."""
    core.make_future = FutureMaker(core).make
    connection = Connection(core=core, is_worker=True, namespace=namespace)
    _process.connection = connection
    return connection


def become_actor(info: Any, job: _core.Job) -> None:
    """Make this worker the actor that `job` is."""
    assert _process.connection is not None
    _process.connection.actor = info, job


# ---- references outside the store; forks ----


def _restore_ref(binary: bytes) -> _core.ObjectRef[Any]:
    """Return the reference that was pickled out of band, by its id."""
    if binary == b"\xff" * len(binary):
        return _core.ObjectRef.nil()
    connection = _process.connection
    if connection is None:
        raise ValueError(
            f"ObjectRef({binary.hex()}) cannot be restored: this process is in no session; "
            "call init() first"
        )
    return connection.core.find(binary)


def _reduce_ref(ref: _core.ObjectRef[Any]) -> tuple[Any, ...]:
    return _restore_ref, (ref.binary(),)


def _forget_in_child() -> None:
    """A forked child is a stranger to the session: its references are inert, it may call init."""
    connection = _process.connection
    _process.lock = threading.RLock()
    if connection is not None:
        connection.core.detach()
        _process.connection = None


_core.hooks.restore = _restore_ref
copyreg.pickle(_core.ObjectRef, _reduce_ref)
os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(close_session)
