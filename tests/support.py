"""What the tests of the Python layer share: what a process owns, prints, and waits for.

Owns the picture of a process's belongings that the leak check compares, the one bounded way of
polling, and what tasks and children of several files do. It must not know what is tested.
"""

import contextlib
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from conformance.support import MIB, Attempts, Gate, count_attempts

import ray_lite
from ray_lite import _core

__all__ = [
    "MIB",
    "Attempts",
    "Belongings",
    "CopyingSteps",
    "Gate",
    "Output",
    "array",
    "count_attempts",
    "eventually",
    "heap_of_this_process",
    "in_child",
    "is_gone",
    "leaks_since",
    "pass_through",
    "stat_of",
]

PATIENCE = 20.0  # seconds within which even a busy machine does what it will do at all
STEP = 0.002  # seconds between two looks


def eventually(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Look until `condition` holds; returns whether it did within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(STEP)
    return True


class CopyingSteps:
    """What a store that has no memory of its own says to what a generator yields."""

    def next(self, items: Iterator[Any]) -> _core.Owned:
        """Take the next value."""
        return _core.Owned(next(items))

    def seal(self, items: Any, value: _core.Owned) -> None:
        """Have it copied."""


# ---- processes ----


def stat_of(pid: int) -> tuple[str, int] | None:
    """Return (state, parent) of a process, or None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie whose parent has not looked yet has."""
    stat = stat_of(pid)
    return stat is None or stat[0] in "ZX"


def descendants(root: int) -> set[str]:
    """Return "pid command (state)" of the descendants of process `root`, zombies included."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        stat = stat_of(int(name)) if name.isdigit() else None
        if stat is not None:
            parents[int(name)] = stat[1]
    family = {root}
    for pid in sorted(parents):
        family |= _line_up(pid, parents, family)
    return {_describe(pid) for pid in family - {root}}


def _line_up(pid: int, parents: dict[int, int], family: set[int]) -> set[int]:
    """Return `pid` and its ancestors if they lead to the family, else nothing."""
    line = []
    while pid in parents and pid not in family:
        line.append(pid)
        pid = parents[pid]
    return set(line) if pid in family else set()


def _describe(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:60].decode()
    except (FileNotFoundError, ProcessLookupError):
        command = ""
    return f"{pid} {command or '(zombie)'}"


# ---- what a process has ----


@dataclass(frozen=True, slots=True)
class Belongings:
    """What this process has that could outlive its use; each set holds one text per thing."""

    descriptors: set[str]
    children: set[str]
    threads: set[str]
    mappings: set[str]
    files: set[str]

    @classmethod
    def now(cls) -> "Belongings":
        """Look at this process."""
        return cls(
            descriptors=_descriptors(),
            children=descendants(os.getpid()),
            threads=_threads(),
            mappings=_mappings(),
            files=_temporary_files(),
        )

    def more_than(self, before: "Belongings") -> list[str]:
        """Return what is here and was not there, one line each."""
        return [
            f"{field.name}: {thing}"
            for field in fields(self)
            for thing in sorted(getattr(self, field.name) - getattr(before, field.name))
        ]


def _descriptors() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} -> {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:  # the one that listed the directory
            continue
    return found


def _threads() -> set[str]:
    """List Python's threads, and number the others: faulthandler starts a new one for each test."""
    named = {thread.native_id: thread.name for thread in threading.enumerate()}
    tids = {int(tid) for tid in os.listdir("/proc/self/task")}
    ours = {f"{tid} {name}" for tid, name in named.items() if tid in tids}
    return ours | {f"unknown to Python, number {i}" for i in range(len(tids - named.keys()))}


def _mappings() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line for line in lines if "memfd:ray_lite" in line}


def _temporary_files() -> set[str]:
    """List the directory for temporary files, which conftest.py makes the tests' own."""
    shared = [name for name in os.listdir("/dev/shm") if "ray_lite" in name]
    return {*os.listdir(tempfile.gettempdir()), *shared}


def leaks_since(
    before: Belongings, *, ignore: Iterable[str] = (), patience: float = 5.0
) -> list[str]:
    """Return what this process still has, and did not have `before`, once it has had time to end.

    Args:
        before: What it had.
        ignore: Kinds that do not count, by the names of Belongings' fields.
        patience: Seconds that processes and threads are given to end.
    """

    def left() -> list[str]:
        found = Belongings.now().more_than(before)
        return [line for line in found if line.partition(":")[0] not in ignore]

    if not left():
        return []
    gc.collect()  # a traceback may hold what the test had
    eventually(lambda: not left(), patience)
    return left()


# ---- what processes print ----


class Output:
    """What a session prints: a session that starts while `redirected` writes to two files.

    Args:
        directory: For the files.
    """

    def __init__(self, directory: Path) -> None:
        self._paths = directory / "printed-out", directory / "printed-err"
        for path in self._paths:
            path.touch()

    @contextlib.contextmanager
    def redirected(self) -> Iterator[None]:
        """Lend the descriptors 1 and 2 of this process to the files, to be inherited."""
        saved = [os.dup(fd) for fd in (1, 2)]
        try:
            for fd, path in enumerate(self._paths, 1):
                with path.open("ab") as file:
                    os.dup2(file.fileno(), fd)
            yield
        finally:
            for fd, old in enumerate(saved, 1):
                os.dup2(old, fd)
                os.close(old)

    @property
    def out(self) -> str:
        """What has come on stdout by now; a byte that is not UTF-8 shows as a surrogate."""
        return self._paths[0].read_text("utf-8", "surrogateescape")

    @property
    def err(self) -> str:
        """What has come on stderr by now."""
        return self._paths[1].read_text("utf-8", "surrogateescape")

    def until(self, *texts: str) -> bool:
        """Wait until all `texts` have come, on either stream."""
        return eventually(lambda: all(text in self.out + self.err for text in texts))


def array(nbytes: int, fill: int = 0) -> np.ndarray[Any, Any]:
    """Return an array that owns `nbytes` resident bytes."""
    return np.full(nbytes // 8, fill, np.int64)


def heap_of_this_process() -> int:
    """Return RssAnon in bytes, and what of the store is this process's own as its heap is."""
    connection = ray_lite.session.current()
    memory = connection and connection.core.private_memory
    own = memory.nbytes if memory else 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 + own
    raise OSError("/proc/self/status has no RssAnon")


def pass_through(path: str) -> None:
    """Wait at a gate (support.Gate)."""
    open(path).close()


def in_child(body: Callable[[], object]) -> int:
    """Run `body` in a forked child; returns the child's exit status: 0 if it raised nothing."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
