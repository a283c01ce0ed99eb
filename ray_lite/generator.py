"""What a caller gets of a generator task. Owns the classes; must not know how values are made."""

from collections.abc import Iterator
from typing import Any, final

from ray_lite._core import ObjectRef


@final
class DynamicObjectRefGenerator:
    """The value of the one reference of a task with num_returns="dynamic".

    Its length is the number of values that the generator yielded (an exception that ended it counts
    as one: its reference raises it). Iteration hands out each reference once and consumes it; every
    `get` of the outer reference gives a new, full one.

    Args:
        refs: The references, in the order of the yields.
    """

    def __init__(self, refs: list[ObjectRef[Any]]) -> None:
        """Keep a copy of the list."""
        self._refs = list(refs)

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        """Hand out the references that are left, each once."""
        while self._refs:
            yield self._refs.pop(0)

    def __len__(self) -> int:
        """Return how many references are left."""
        return len(self._refs)

    def __repr__(self) -> str:
        """Return the class's name and how many are left."""
        return f"DynamicObjectRefGenerator({len(self)} left)"

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to rebuild it with the references that are left."""
        return DynamicObjectRefGenerator, (list(self._refs),)
