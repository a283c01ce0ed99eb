"""How a second process of the same user joins a running session.

Owns the private directory, the socket in it, who may come in, and what is handed over: the two
segments, the supervisor's bell and a handle of the supervisor. It must not know what either side
does with them (session.py, supervisor.py).

    guest ──connect──► <directory>/<session>.sock ──the user's id is checked──► supervisor
    guest ◄──config, control, data, bell, pidfd───────────────────────────────── supervisor
    guest ──the number of its slot, once it needs nothing more─────────────────► supervisor

The connection stays open until then.
"""

import contextlib
import json
import os
import select
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TIMEOUT: Final = 10.0  # seconds until a session must have answered
YOUTH: Final = 10.0  # seconds that a socket without a listener is spared: it may be about to listen
ATTEMPTS: Final = 100  # at making a socket, while sessions that end remove the directory
SUFFIX: Final = ".sock"
LONGEST_MESSAGE: Final = 1 << 16
DESCRIPTORS: Final = 4  # control, data, bell, pidfd

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, eq=False, slots=True)
class Guest:
    """A process that has been let in, as the supervisor knows it."""

    pid: int
    #: Turns readable when it is dead.
    pidfd: int
    #: Turns readable when it says farewell, ends or becomes another program.
    connection: socket.socket


def directory() -> Path:
    """Return where this user's sockets are; it need not exist.

    XDG_RUNTIME_DIR counts if it is this user's: containers and `su` pass on others.
    """
    base = tempfile.gettempdir()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    with contextlib.suppress(OSError):
        if runtime and Path(runtime).stat().st_uid == os.geteuid():
            base = runtime
    return Path(base) / f"ray_lite-{os.geteuid()}"


@contextlib.contextmanager
def _pinned(path: Path) -> Iterator[Path]:
    """Open the directory `path` and give a name for it that stays this very directory.

    That name is short too: a socket's address has room for 107 characters.
    """
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the process at the other end, and its user, as the kernel knows them."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def is_dead(pidfd: int) -> bool:
    """Return whether the process behind a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


# ---- the session's side ----


def listen(name: str) -> tuple[socket.socket, Path]:
    """Return a listening socket for the session `name`, and its path; sweeps up stale ones.

    Raises:
        PermissionError: The directory is another user's, or open to others.
        OSError: It cannot be made or used.
    """
    where = directory()
    for _ in range(ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):  # a session that ended has just removed it
            return _listen_in(where, name), where / f"{name}{SUFFIX}"
    raise FileNotFoundError(f"{where} cannot be made, or vanishes each time")


def _listen_in(where: Path, name: str) -> socket.socket:
    with contextlib.suppress(FileExistsError):
        where.mkdir(mode=0o700)
    with _pinned(where) as pinned:
        _refuse_if_open_to_others(where, pinned.stat())
        for path in pinned.glob(f"*{SUFFIX}"):
            remove_if_stale(path)
        listener = _new_socket()
        try:
            listener.bind(str(pinned / f"{name}{SUFFIX}"))
            listener.listen()
        except OSError:
            listener.close()
            raise
    listener.setblocking(False)
    return listener


def _refuse_if_open_to_others(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() or mode & 0o077:
        raise PermissionError(
            f"{path} must belong to user {os.geteuid()} alone, but its owner is {status.st_uid} "
            f"and its mode {mode:o}; remove it, or set XDG_RUNTIME_DIR to a directory of your own"
        )


def remove_if_stale(path: Path) -> None:
    """Remove the socket of a session that was killed: nobody listens there any more."""
    with contextlib.suppress(OSError), _new_socket() as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            if time.time() - path.stat().st_mtime > YOUTH:
                path.unlink()


def remove(name: str) -> None:
    """Remove the socket of the session `name`, and the directory if it was the last."""
    where = directory()
    with contextlib.suppress(OSError):
        (where / f"{name}{SUFFIX}").unlink(missing_ok=True)
        where.rmdir()


def admit(listener: socket.socket, config: dict[str, Any], fds: list[int]) -> Guest | None:
    """Let in one process that has connected; None if there is none, or it is another user's.

    Never waits for it. Its pidfd is opened before anything is handed over: whoever can join is
    watched already.
    """
    try:
        connection, _ = listener.accept()
    except OSError:
        return None
    connection.setblocking(False)
    pid, uid = peer_of(connection)
    pidfd = _open_pidfd(pid) if uid == os.geteuid() else None
    if pidfd is None:
        connection.close()
        return None
    with contextlib.suppress(OSError):  # it has gone again: its pidfd will say so
        socket.send_fds(connection, [json.dumps({**config, "pid": pid}).encode()], fds)
    return Guest(pid, pidfd, connection)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def farewell_of(guest: Guest) -> int:
    """Return the slot that the guest says it needs no more; -1: it has said nothing."""
    try:
        return int(guest.connection.recv(LONGEST_MESSAGE))
    except (OSError, ValueError):
        return -1


# ---- the guest's side ----


def join(address: str) -> tuple[socket.socket, dict[str, Any], list[int]]:
    """Return the open connection to a session, its config and descriptors.

    Args:
        address: The path of a session's socket; a directory of such, or "auto" for the usual one,
            means the youngest session in it that answers.

    Raises:
        ConnectionError: There is no such session, or it is another user's.
    """
    reason = "no session of this user is running"
    for path in _sockets_at(address):
        try:
            return _enter(path)
        except OSError as error:
            reason = f"{path}: {error.strerror or error}"
    raise ConnectionError(
        f"init(address={address!r}): {reason}. Start a session with init() in another process and "
        'give init()["address"] of it, or leave address out for a session of your own'
    )


def _sockets_at(address: str) -> list[Path]:
    where = directory() if address == "auto" else Path(address)
    if address != "auto" and not where.is_dir():
        return [where]
    return sorted(where.glob(f"*{SUFFIX}"), key=_time_of_birth, reverse=True)


def _time_of_birth(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _enter(path: Path) -> tuple[socket.socket, dict[str, Any], list[int]]:
    connection = _new_socket()
    try:
        connection.settimeout(TIMEOUT)
        with _pinned(path.parent.resolve()) as pinned:
            connection.connect(str(pinned / path.name))
        _, uid = peer_of(connection)
        if uid != os.geteuid():
            raise PermissionError(f"that session is user {uid}'s, you are user {os.geteuid()}")
        config, fds = _receive(connection)
        _refuse_other_pid_namespace(config["pid"], fds)
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection, config, fds


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return what the session hands over."""
    message, fds, _, _ = socket.recv_fds(
        connection, LONGEST_MESSAGE, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    if not message:
        raise ConnectionError("the session let nobody in: it has just ended, or has no room")
    if len(fds) != DESCRIPTORS:
        close_all(fds)
        raise ConnectionError("too many open files in this process: raise its limit (ulimit -n)")
    return json.loads(message), fds


def _refuse_other_pid_namespace(pid: int, fds: list[int]) -> None:
    """Refuse to join where this process has another pid: its slot would outlive it unnoticed."""
    if pid != os.getpid():
        close_all(fds)
        raise ConnectionError(
            f"this process is {os.getpid()} here and {pid} to the session, which is outside of "
            "this container (pid namespace); start both in the same one"
        )


def say_farewell(connection: socket.socket, slot: int) -> None:
    """Tell the session that this process needs its slot no more."""
    with contextlib.suppress(OSError):  # the session has ended
        connection.send(b"%d" % slot, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def close_all(fds: list[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
