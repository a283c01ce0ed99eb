"""Values and calls that go off: in which step of a task's life, and how.

Owns the ways for user code to end a process. It must not know what a session makes of it.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, Final


class BangError(Exception):
    """What goes off the mild way."""


def _raise() -> None:
    raise BangError("bang")


def _segfault() -> None:
    ctypes.string_at(0)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


WAYS: Final[dict[str, Callable[[], object]]] = {
    "exception": _raise,
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(4),
    "SIGSEGV": _segfault,
    "SIGABRT": os.abort,
    "SIGKILL": _kill,
}


def go_off(way: str) -> None:
    """Go off in one of the WAYS, and leave no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    WAYS[way]()
    raise AssertionError(f"{way} did not go off")


class OffWhenPickled:
    """Goes off as it is pickled."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        go_off(self.way)


class OffWhenUnpickled:
    """Goes off as it is unpickled."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        return go_off, (self.way,)


class OffWhenDeleted:
    """Goes off as it dies in another process than that which made it."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.home = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.home:
            go_off(self.way)
