"""What the files of actor cases share: an actor that does as it is told, and waits for ends.

Owns no case. Knows nothing of either engine: an actor's class is made from the module that the
case got. Workers need not be able to import it, for local classes travel by value.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

WAYS = ["sync", "threaded", "async"]


def obedient_class(ray: ModuleType, way: str = "sync", **options: Any) -> Any:
    """Return an actor class that counts, and does what its callers send.

    Args:
        ray: The module of the engine.
        way: How it serves its calls, one of `WAYS`.
        options: Those of the class.
    """

    class Obedient:
        def __init__(self, value=0):
            self.value = value

        def add(self, amount=1):
            self.value += amount
            return self.value

        def do(self, action, *args):
            return action(*args)

    class AsyncObedient:
        def __init__(self, value=0):
            self.value = value

        async def add(self, amount=1):
            self.value += amount
            return self.value

        async def do(self, action, *args):
            return action(*args)

    if way == "threaded":
        options["max_concurrency"] = 2
    cls = AsyncObedient if way == "async" else Obedient
    return ray.remote(**options)(cls) if options else ray.remote(cls)


def crash() -> Callable[[], Any]:
    """Return what ends a process without a word, to be done by an actor."""
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


def passage() -> Callable[[str], None]:
    """Return what passes a gate, to be done by an actor."""
    return lambda path: open(path).close()


def never_done(*values: Any) -> Any:
    """Return the parameters of a case in which a coroutine calls sys.exit()."""
    mark = pytest.mark.deliberately_different(
        "a coroutine's call that ends with sys.exit() is never done", runs_on_ray=False
    )
    return pytest.param(*values, marks=mark)


def accepted(ray: ModuleType, call: Callable[[], Any]) -> Any:
    """Return what `call` gives, once an actor with `max_pending_calls` has room for it.

    Ray forgets a call that is done a little later.
    """
    deadline = time.monotonic() + 30
    while True:
        try:
            return call()
        except ray.exceptions.PendingCallsLimitExceeded:
            assert time.monotonic() < deadline, "the actor has no room"


def wait_until_gone(pid: int) -> None:
    """Wait until the process has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([fd], [], [], 30)[0], f"process {pid} is still there"
    os.close(fd)


def eventually(condition: Callable[[], bool], patience: float = 30) -> bool:
    """Return whether the condition comes true within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
