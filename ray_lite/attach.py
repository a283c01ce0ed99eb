"""How a second process of the same user joins a running session.

Owns the private directory, the socket in it, who may come in, and what is handed over: the two
segments, the supervisor's bell and a handle of the supervisor. It must not know what either side
does with them (session.py, supervisor.py).

    guest ──connect──► <directory>/<session>.sock ──the user's id is checked──► supervisor
    guest ◄──config, control, data, bell, pidfd───────────────────────────────── supervisor

The connection stays open for as long as the guest is there.
"""

import contextlib
import json
import os
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any, Final

TIMEOUT: Final = 10.0  # seconds until a session must have answered
SUFFIX: Final = ".sock"
LONGEST_MESSAGE: Final = 1 << 16
DESCRIPTORS: Final = 4  # control, data, bell, pidfd


def directory() -> Path:
    """Return this user's directory of sockets, made if it is not there.

    Raises:
        PermissionError: Somebody else made it, or others may look into it.
    """
    path = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    path /= f"ray_lite-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    private = stat.S_ISDIR(status.st_mode) and status.st_mode & 0o077 == 0
    if status.st_uid != os.getuid() or not private:
        raise PermissionError(
            f"{path} is not a directory of this user alone (owner {status.st_uid}, mode "
            f"{status.st_mode & 0o777:o}); remove it, or set XDG_RUNTIME_DIR"
        )
    return path


# ---- the session's side ----


def listen(name: str) -> tuple[socket.socket, Path]:
    """Return a listening socket for the session `name`, and its path; sweeps up stale ones."""
    for path in directory().glob(f"*{SUFFIX}"):
        remove_if_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = _bind(listener, name)
    listener.listen()
    listener.setblocking(False)
    return listener, path


def _bind(listener: socket.socket, name: str) -> Path:
    while True:
        path = directory() / f"{name}{SUFFIX}"
        try:
            listener.bind(str(path))
        except FileNotFoundError:
            continue  # another session has just ended, and took the empty directory away
        return path


def remove(name: str) -> None:
    """Remove the socket of the session `name`, and the directory if it was the last."""
    with contextlib.suppress(OSError):
        where = directory()
        (where / f"{name}{SUFFIX}").unlink(missing_ok=True)
        where.rmdir()


def admit(
    listener: socket.socket, config: dict[str, Any], fds: list[int]
) -> tuple[socket.socket, int, int] | None:
    """Let one guest in: the open connection, its pid and its pidfd; None: nobody came in.

    Another user's process does not. Never waits for the guest. The pidfd is opened before anything
    is handed over: a guest that has joined and dies is always noticed.
    """
    try:
        connection, _ = listener.accept()
    except OSError:
        return None
    connection.setblocking(False)
    pid, uid = peer_of(connection)
    pidfd = _open_pidfd(pid) if uid == os.getuid() else None
    if pidfd is None:
        connection.close()
        return None
    with contextlib.suppress(OSError):  # it has gone again: its pidfd will say so
        socket.send_fds(connection, [json.dumps(config).encode()], fds)
    return connection, pid, pidfd


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the process at the other end, and its user, as the kernel knows them."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


# ---- the guest's side ----


def join(address: str) -> tuple[socket.socket, dict[str, Any], list[int]]:
    """Return the open connection to a session, its config and descriptors.

    Args:
        address: "auto", the youngest session of this user; or the path of a session's socket.

    Raises:
        ConnectionError: There is no such session, or it is another user's.
    """
    connection = _connect_to_youngest() if address == "auto" else _connect(Path(address))
    if connection is None:
        raise ConnectionError(
            f"init(address={address!r}): no session of this user answers there. Start one with "
            "init() in another process; its init()['address'] is the path to give"
        )
    _, uid = peer_of(connection)
    if uid != os.getuid():
        connection.close()
        raise ConnectionError(f"init(address={address!r}): that session is user {uid}'s, not yours")
    connection.settimeout(TIMEOUT)
    try:
        message, fds, _, _ = socket.recv_fds(connection, LONGEST_MESSAGE, DESCRIPTORS)
    except OSError:
        message, fds = b"", []
    if not message or len(fds) != DESCRIPTORS:
        connection.close()
        raise ConnectionError(f"init(address={address!r}): the session has just ended")
    connection.settimeout(None)
    for fd in fds:
        os.set_inheritable(fd, False)
    return connection, json.loads(message), fds


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(TIMEOUT)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _connect_to_youngest() -> socket.socket | None:
    paths = [path for path in directory().glob(f"*{SUFFIX}") if path.is_socket()]
    for path in sorted(paths, key=_age):
        connection = _connect(path)
        if connection is not None:
            return connection
        remove_if_stale(path)
    return None


def _age(path: Path) -> float:
    with contextlib.suppress(OSError):
        return -path.stat().st_mtime
    return 0.0


def remove_if_stale(path: Path) -> None:
    """Remove the socket of a session that was killed: nobody listens there any more."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    probe.setblocking(False)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        with contextlib.suppress(OSError):
            path.unlink()
    except OSError:
        pass  # it is busy, or gone
    finally:
        probe.close()
