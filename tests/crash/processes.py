"""Finding the processes of a session and killing them, and nobody else's.

Owns the guarantee that a signal reaches the process it was meant for: it goes through a pidfd, and
only after the process has shown to be a child of the session's supervisor. It must not know why
somebody is to die.
"""

import gc
import os
import random
import select
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import stat_of

from ray_lite import _core
from ray_lite import session as sessions
from ray_lite.session import Connection

ROOT = Path(__file__).resolve().parents[2]
MARK = "RAY_LITE_TEST_MARK"  # environment variable that a program and all it starts carry


def connection() -> Connection:
    """Return this process's connection.

    Tests ask here and not a fixture, whose value pytest keeps for longer than the session's memory
    may stay mapped.
    """
    current = sessions.current()
    assert current is not None
    return current


def supervisor_of(connection: Connection) -> int:
    """Return the pid of the supervisor."""
    assert connection.supervisor is not None
    return connection.supervisor.pid


def workers_of(connection: Connection) -> list[int]:
    """Return the pids of the workers that have joined and have not been buried."""
    return [pid for _, pid, role, _ in connection.core.slots() if role == _core.ROLE_WORKER]


def children_of(parent: int) -> list[int]:
    """Return the pids of the living children of process `parent`."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if is_living_child(pid, parent)]


def is_living_child(pid: int, parent: int) -> bool:
    """Whether `pid` runs, as a child of process `parent`."""
    stat = stat_of(pid)
    return stat is not None and stat[0] not in "ZX" and stat[1] == parent


def reaches(pidfd: int, signum: int) -> bool:
    """Send a signal; return whether the process had not ended by itself since it was looked at."""
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    return True


def signal_children(pids: Iterable[int], parent: int, signum: int = signal.SIGKILL) -> int:
    """Send a signal to those of `pids` that are living children of `parent`.

    Waits until they have died if it is SIGKILL; returns how many there were.
    """
    fds = []
    try:
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            fds.append(fd)
            # The pidfd holds the process, so what is true now stays true of whom it reaches.
            if not is_living_child(pid, parent):
                os.close(fds.pop())
        reached = [fd for fd in fds if reaches(fd, signum)]
        for fd in reached if signum == signal.SIGKILL else []:
            assert select.select([fd], [], [], 10.0)[0], "a process survived SIGKILL for 10 s"
        return len(reached)
    finally:
        for fd in fds:
            os.close(fd)


class Killer:
    """A thread that kills workers of a session at random moments, in batches of one to three.

    Args:
        connection: The session, of which this process is the driver.
        seed: Of the moments and the choice of victims.
        pause: Mean seconds between two batches.
    """

    def __init__(self, connection: Connection, seed: int, pause: float) -> None:
        self._connection = connection
        self._random = random.Random(seed)
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer")
        #: Workers killed so far.
        self.kills = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._random.expovariate(1 / self._pause)):
            workers = workers_of(self._connection)
            batch = min(self._random.choice((1, 1, 2, 3)), len(workers))
            victims = self._random.sample(workers, batch)
            self.kills += signal_children(victims, supervisor_of(self._connection))


# ---- programs ----


class Program:
    """A Python program of its own, whose whole family can be found: all carry its mark.

    Args:
        path: The program.
        *args: Its arguments.
        directory: An empty directory, for its temporary files.
        paths: Where its imports come from, before the usual places.
        environment: More environment variables.
    """

    def __init__(
        self,
        path: Path,
        *args: str,
        directory: Path,
        paths: Iterable[Path] = (ROOT,),
        environment: dict[str, str] | None = None,
    ) -> None:
        self._mark = uuid.uuid4().hex.encode()
        self.directory = directory
        places = os.pathsep.join(str(place) for place in (*paths, ROOT / "tests"))
        self.process = subprocess.Popen(
            [sys.executable, str(path), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            env={
                **os.environ,
                "PYTHONPATH": places,
                "PYTHONDONTWRITEBYTECODE": "1",
                "TMPDIR": str(directory),
                MARK: self._mark.decode(),
                **(environment or {}),
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End what is left of the family; a test that passed has seen that nothing is."""
        self.process.kill()
        for pid in self.family():
            _kill_marked(pid, self._mark)
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def family(self) -> set[int]:
        """Return the pids of the processes that live and carry the mark."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return {pid for pid in pids if _carries(pid, self._mark)}

    def say_line(self) -> str:
        """Return the next line that the program prints; "" when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def leftovers(self) -> list[str]:
        """Return what is left over: processes, temporary files, files in /dev/shm."""
        names = [name for name in os.listdir("/dev/shm") if "ray" in name]
        return [
            *(f"process {pid}: {_command(pid)}" for pid in sorted(self.family())),
            *(str(path) for path in self.directory.iterdir()),
            *(f"/dev/shm/{name}" for name in names),
        ]


def _carries(pid: int, mark: bytes) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    stat = stat_of(pid)
    return stat is not None and stat[0] not in "ZX" and MARK.encode() + b"=" + mark in environment


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:100]
    except OSError:
        return "(gone)"


def _kill_marked(pid: int, mark: bytes) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _carries(pid, mark):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


# ---- what must hold whenever nothing runs ----


def figures(session: Connection) -> dict[str, Any]:
    """Return what the store holds, of that which must return to where it was."""
    usage = session.core.usage()
    return {key: usage[key] for key in ("objects", "tasks", "free")}  # type: ignore[literal-required]


def holds_exports_only(session: Connection) -> bool:
    """Whether all that is stored is the functions that this process has exported."""
    gc.collect()
    found = figures(session)
    return found["tasks"] == 0 and found["objects"] == len(session.cache)
