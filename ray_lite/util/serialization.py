"""How a class of the user's is pickled.

Owns the registration; pickle's own table (copyreg) holds it, where the codec looks already.
"""

import copyreg
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def register_serializer(
    cls: type[T], *, serializer: Callable[[T], Any], deserializer: Callable[[Any], T]
) -> None:
    """Have objects of `cls`, but not of its subclasses, pickled by `serializer` from now on.

    Args:
        cls: The class.
        serializer: Takes an object of it, returns something that can be pickled.
        deserializer: Takes that and returns the object; travels with each object.

    Note:
        It is for this process alone, for all of its pickling, and goes before `__reduce__`.
    """

    def reduce(value: Any) -> tuple[Callable[[Any], T], tuple[Any]]:
        return deserializer, (serializer(value),)

    copyreg.pickle(cls, reduce)


def deregister_serializer(cls: type) -> None:
    """Have objects of `cls` pickled as pickle does it; harmless if they are already."""
    copyreg.dispatch_table.pop(cls, None)
