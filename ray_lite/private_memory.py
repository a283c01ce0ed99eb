"""numpy's arrays in the store, for this process: switched on, and kept right over a fork.

Owns when numpy is given the store's memory (in workers, unless RAY_LITE_ZERO_COPY=0), and what a
fork does to such memory. It must not know when an array is stored without a copy: returns.py,
_core.Session.
"""

import os
import weakref
from typing import Final

from ray_lite import _core, _numpy_alloc

SWITCH: Final = "RAY_LITE_ZERO_COPY"


def switch_on(core: _core.Session) -> None:
    """Have numpy take large arrays of this context from the store."""
    if os.environ.get(SWITCH, "1") == "0":
        return
    memory = share_no_more_after_fork(core)
    _numpy_alloc.install(_numpy_alloc.handler_of(memory, asked_for=False))


def share_no_more_after_fork(core: _core.Session) -> _core.PrivateMemory:
    """Return the private memory of this process, which forks right from now on."""
    memory = core.private_memory
    if memory is not None:
        return memory
    memory = core.open_private_memory()
    fork = _Fork(memory)
    os.register_at_fork(
        before=fork.before, after_in_child=fork.after_in_child, after_in_parent=fork.after_in_parent
    )
    return memory


class _Fork:
    """Makes a fork mean for private memory what it means for the heap: each has its own.

    The memory is shared, so the parent stands still until the child has made copies.

    Args:
        memory: Of this process.
    """

    def __init__(self, memory: _core.PrivateMemory) -> None:
        """Nothing is under way."""
        #: Not kept alive: the hooks of a process stay for ever.
        self._memory = weakref.ref(memory)
        self._ends: tuple[int, int] | None = None

    def before(self) -> None:
        """Make the pipe whose end the parent will wait for."""
        memory = self._memory()
        if memory is not None and memory.in_use:
            self._ends = os.pipe()

    def after_in_child(self) -> None:
        """Copy, then let the parent go on."""
        memory = self._memory()
        if self._ends is not None and memory is not None:
            memory.copy_after_fork()
            self._close()

    def after_in_parent(self) -> None:
        """Wait until the child has copied, or is dead."""
        if self._ends is not None:
            read_end, write_end = self._ends
            os.close(write_end)
            os.read(read_end, 1)
            os.close(read_end)
            self._ends = None

    def _close(self) -> None:
        for end in self._ends or ():
            os.close(end)
        self._ends = None
