"""What the cases use to steer tasks in other processes: gates and attempt counters.

Knows nothing of either engine. Task bodies never import this module, for workers
need not be able to: they get a gate's path, or a closure that travels by value.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ_ONLY = "read-only"
MIB = 2**20


class Gate:
    """A named pipe that holds tasks back until the test lets them pass.

    A task waits at it with `open(path).close()`; the pipe's own rules do the rest:
    opening it for reading blocks until somebody opens it for writing. Each task
    passes a gate once, so that no two meetings can be taken for each other.
    """

    def __init__(self, path: Path) -> None:
        """Create the pipe at `path`, shut."""
        os.mkfifo(path)
        self.path = str(path)
        self._held: int | None = None

    def meet(self) -> None:
        """Wait until a task stands at the gate, and let it pass."""
        os.close(os.open(self.path, os.O_WRONLY))

    def is_awaited(self) -> bool:
        """Return whether a task stands at the gate; it passes then."""
        try:
            os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            assert error.errno == errno.ENXIO
            return False
        return True

    def open(self) -> None:
        """Let everybody pass, now and from now on."""
        if self._held is not None:
            return
        self._held = os.open(self.path, os.O_RDWR)
        passage = self.path + ".passage"
        os.close(os.open(passage, os.O_WRONLY | os.O_CREAT, 0o600))
        os.replace(passage, self.path)

    def close(self) -> None:
        """Open the gate for good and drop the pipe."""
        self.open()
        if self._held is not None:
            os.close(self._held)


class Attempts(NamedTuple):
    """How often a task body ran, counted across processes and their deaths."""

    begin: Callable[[], int]
    """For task bodies: 1 in the first attempt, then 2, and so on."""
    made: Callable[[], int]
    """For the test: the number of attempts so far."""


def count_attempts(path: Path) -> Attempts:
    """Return a counter that lives in the file `path`."""
    name = str(path)

    def begin() -> int:
        fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, b"x")
        count = os.fstat(fd).st_size
        os.close(fd)
        return count

    def made() -> int:
        return os.stat(name).st_size if os.path.exists(name) else 0

    return Attempts(begin, made)
