"""numpy's memory from the store. See _numpy_alloc.pyx."""

from collections.abc import Callable
from typing import Any, TypeVar

from ray_lite._core import PrivateMemory

_T = TypeVar("_T")

def handler_of(memory: PrivateMemory, asked_for: bool) -> Any: ...
def install(handler: Any) -> Any: ...
def call_with(handler: Any, make: Callable[..., _T], *args: Any) -> _T: ...
