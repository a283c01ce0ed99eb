"""The object store as a caller sees it: when it is full, and what gives room back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Gate

BIG = 30 * MIB  # three fit into the store of 100 MiB, four do not


def array(mark: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.full(BIG, mark, dtype=np.uint8)


@pytest.mark.deliberately_different("a full store goes to the disk")
def test_put_into_a_store_full_of_what_is_held_is_refused(ray: ModuleType) -> None:
    seen = ray.get(ray.put(array(0)))
    kept = [ray.put(array(mark)) for mark in (1, 2)]
    with pytest.raises(ray.exceptions.ObjectStoreFullError, match=r"\d"):
        ray.put(array(3))
    assert [value[-1] for value in (seen, *ray.get(kept))] == [0, 1, 2]


def test_result_that_finds_the_store_full_arrives_once_there_is_room(
    ray: ModuleType, gate: Gate
) -> None:
    kept = [ray.put(array(mark)) for mark in range(3)]

    @ray.remote
    def fill(path, size):
        value = np.full(size, 3, dtype=np.uint8)
        open(path).close()
        return value

    late = fill.remote(gate.path, BIG)
    gate.meet()
    kept.pop()
    assert ray.get(late, timeout=60)[-1] == 3
    assert [value[-1] for value in ray.get(kept)] == [0, 1]


def test_stream_larger_than_the_store_is_read_to_its_end(ray: ModuleType) -> None:
    @ray.remote
    def generate(size):
        for mark in range(10):
            yield np.full(size, mark, dtype=np.uint8)

    assert [ray.get(ref)[-1] for ref in generate.remote(20 * MIB)] == list(range(10))


@pytest.mark.deliberately_different("values that nobody takes fill the store, then the disk")
def test_stream_that_nobody_takes_pauses_at_a_share_of_the_store(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote
    def generate(paths, size):
        for path in paths:
            open(path).close()
            yield np.zeros(size, dtype=np.uint8)

    first, second, other = new_gate(), new_gate(), new_gate()
    stream = generate.remote([first.path, second.path], BIG)
    held = ray.remote(lambda path: open(path).close()).remote(other.path)
    first.meet()
    assert ray.wait([held], timeout=1)[0] == []
    assert not second.is_awaited()
    next(stream)
    second.meet()


def test_streams_that_are_dropped_while_they_pause_give_their_values_back(ray: ModuleType) -> None:
    @ray.remote(_generator_backpressure_num_objects=1)
    def generate(size):
        for mark in range(2):
            yield np.full(size, mark, dtype=np.uint8)

    for _ in range(5):
        stream = generate.remote(BIG)
        first = next(stream)
        del stream
        assert ray.get(first)[-1] == 0
