"""numpy's memory from the store. See _numpy_alloc.pyx."""

from typing import Any

from ray_lite._core import PrivateMemory

def handler_of(memory: PrivateMemory) -> Any: ...
def install(handler: Any) -> Any: ...
