"""as_completed and map_unordered: values in the order in which they come.

Owns how many are waited for at once and how many calls are under way; it uses the public API
alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ray_lite as ray


def as_completed(
    refs: Sequence[Any],
    *,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **wait_options: Any,
) -> Iterator[Any]:
    """Yield the values of `refs`, those that come first first.

    Args:
        refs: ObjectRefs, all different.
        chunk_size: How many are waited for before they are yielded, >= 1. Within a chunk they keep
            the order of `refs`; 1 yields each one as soon as it is there.
        yield_obj_refs: Whether to yield the references instead of their values.
        **wait_options: timeout and fetch_local, for each wait.

    Raises:
        ValueError: chunk_size is < 1, or num_returns is given.
    """
    _check_chunks(chunk_size, wait_options)
    left = list(refs)
    while left:
        chunk, left = ray.wait(left, num_returns=min(chunk_size, len(left)), **wait_options)
        yield from chunk if yield_obj_refs else ray.get(chunk)


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **wait_options: Any,
) -> Iterator[Any]:
    """Yield the values of `fn.remote(item)` for each item, those that come first first.

    Args:
        fn: A remote function, or a method of an actor.
        items: Taken as there is room; may be endless.
        backpressure_size: Most calls whose values were not yielded yet, >= 1; None: all items at
            once.
        chunk_size: As for as_completed.
        yield_obj_refs: As for as_completed.
        **wait_options: As for as_completed.

    Raises:
        ValueError: A size is < 1, or num_returns is given.
    """
    _check_chunks(chunk_size, wait_options)
    if backpressure_size is not None and backpressure_size < 1:
        raise ValueError(f"backpressure_size must be >= 1 or None, not {backpressure_size}")
    left: list[Any] = []
    for item in items:
        left.append(fn.remote(item))
        while len(left) == backpressure_size:
            chunk, left = ray.wait(left, num_returns=min(chunk_size, len(left)), **wait_options)
            yield from chunk if yield_obj_refs else ray.get(chunk)
    yield from as_completed(
        left, chunk_size=chunk_size, yield_obj_refs=yield_obj_refs, **wait_options
    )


def _check_chunks(chunk_size: int, wait_options: dict[str, Any]) -> None:
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be >= 1, not {chunk_size}")
    if "num_returns" in wait_options:
        raise ValueError("num_returns is called chunk_size here; give that instead")
