"""numpy's arrays in the store, for this process: switched on, and kept right over a fork.

Owns when numpy is given the store's memory (in workers, unless RAY_LITE_ZERO_COPY=0), and that a
fork is seen to (_fork.pyx). It must not know when an array is stored without a copy: returns.py,
_core.Session.
"""

import os
from typing import Final

from ray_lite import _core, _numpy_alloc
from ray_lite._fork import Fork

SWITCH: Final = "RAY_LITE_ZERO_COPY"
OFF: Final = ("0", "false", "no", "off")


def switch_on(core: _core.Session) -> None:
    """Have numpy take large arrays of this context from the store."""
    if os.environ.get(SWITCH, "1").lower() in OFF:
        return
    memory = share_no_more_after_fork(core)
    _numpy_alloc.watch_addresses(memory)
    _numpy_alloc.install(_numpy_alloc.handler_of(memory, asked_for=False))


def share_no_more_after_fork(core: _core.Session) -> _core.PrivateMemory:
    """Return the private memory of this process, which forks right from now on."""
    memory = core.private_memory
    if memory is not None:
        return memory
    memory = core.open_private_memory()
    fork = Fork(memory)
    os.register_at_fork(
        before=fork.before, after_in_child=fork.after_in_child, after_in_parent=fork.after_in_parent
    )
    return memory
