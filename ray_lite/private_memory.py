"""numpy's arrays in the store, for this process.

Owns when numpy is given the store's memory: in workers, unless RAY_LITE_ZERO_COPY=0. It must not
know when an array is stored without a copy: returns.py, _core.Session.
"""

import os
from typing import Final

from ray_lite import _core, _numpy_alloc

SWITCH: Final = "RAY_LITE_ZERO_COPY"
OFF: Final = ("0", "false", "no", "off")


def switch_on(core: _core.Session) -> None:
    """Have numpy take large arrays of this context from the store."""
    if os.environ.get(SWITCH, "1").lower() in OFF:
        return
    memory = private_memory_of(core)
    _numpy_alloc.install(_numpy_alloc.handler_of(memory, asked_for=False))


def private_memory_of(core: _core.Session) -> _core.PrivateMemory:
    """Return where this process's own arrays in the store are; numpy tells it of addresses."""
    memory = core.private_memory
    if memory is None:
        memory = core.open_private_memory()
        _numpy_alloc.watch_addresses(memory)
    return memory
