"""Arrays made in the store, in any process: stored without a copy, at any size.

Owns `empty` and its like. Workers need them seldom: what a task computes and returns or yields is
in the store already. In the driver, and for an array that keeps a name after it was stored, they
save the copy.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ray_lite import _numpy_alloc, api
from ray_lite.private_memory import private_memory_of

if TYPE_CHECKING:
    import numpy.typing as npt  # slow to import

Shape = int | tuple[int, ...]
Order = Literal["C", "F"]


def empty(shape: Shape, dtype: "npt.DTypeLike" = float, order: Order = "C") -> "npt.NDArray[Any]":
    """Return an array in the store, of any content, as numpy.empty.

    The first `put`, `return` or `yield` of it stores it where it is, and makes it read-only. If
    another view of it is alive then, which could change it, more than one name, list or other
    object holds it, or numpy was asked for its address (`ctypes`, `__array_interface__`), it is
    copied as any array. So is a small one (less than 256 KiB), and one that found no room.

    Args:
        shape: Lengths.
        dtype: Of the elements; not objects.
        order: "C" or "F".
    """
    return _in_store(np.empty, shape, dtype, order)


def zeros(shape: Shape, dtype: "npt.DTypeLike" = float, order: Order = "C") -> "npt.NDArray[Any]":
    """Return an array of zeros in the store; see `empty`."""
    return full(shape, 0, dtype, order)


def ones(shape: Shape, dtype: "npt.DTypeLike" = float, order: Order = "C") -> "npt.NDArray[Any]":
    """Return an array of ones in the store; see `empty`."""
    return full(shape, 1, dtype, order)


def full(
    shape: Shape, fill_value: Any, dtype: "npt.DTypeLike | None" = None, order: Order = "C"
) -> "npt.NDArray[Any]":
    """Return an array filled with a value in the store; see `empty`.

    Args:
        shape: Lengths.
        fill_value: A scalar, or an array that broadcasts.
        dtype: Of the elements; None is that of `fill_value`.
        order: "C" or "F".
    """
    array = empty(shape, np.asarray(fill_value).dtype if dtype is None else dtype, order)
    array[...] = fill_value
    return array


def empty_like(prototype: "npt.ArrayLike") -> "npt.NDArray[Any]":
    """Return an array in the store of the shape, dtype and order of another; see `empty`."""
    like = np.asarray(prototype)
    order: Order = "F" if like.flags.f_contiguous and not like.flags.c_contiguous else "C"
    return empty(like.shape, like.dtype, order)


def _in_store(make: Any, *args: Any) -> "npt.NDArray[Any]":
    """Return a view of the only other array on its memory, so that further views can be told."""
    connection = api.connect()
    handler = connection.cache.get(_in_store)
    if handler is None:
        memory = private_memory_of(connection.core)
        handler = connection.cache[_in_store] = _numpy_alloc.handler_of(memory, asked_for=True)
    owner: npt.NDArray[Any] = _numpy_alloc.call_with(handler, make, *args)
    return owner[...]
