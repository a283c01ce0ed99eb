"""A function that returns a list against its generator twin: what each holds on its heap."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from types import ModuleType

COUNT = 4
NBYTES = 100_000_000


def test_generator_holds_a_value_or_two_where_the_list_holds_all(
    engine: ModuleType, session_options: dict[str, Any]
) -> None:
    """Both report the peak of what Python and numpy had allocated as their last value."""
    engine.shutdown()
    engine.init(**session_options | {"object_store_memory": 1_000_000_000})

    @engine.remote(num_returns=COUNT + 1)
    def as_list():
        tracemalloc.start()
        tracemalloc.reset_peak()
        values = [np.ones(NBYTES, np.uint8) for _ in range(COUNT)]
        return [*values, tracemalloc.get_traced_memory()[1]]

    @engine.remote(num_returns=COUNT + 1)
    def as_generator():
        tracemalloc.start()
        tracemalloc.reset_peak()
        for _ in range(COUNT):
            yield np.ones(NBYTES, np.uint8)
        yield tracemalloc.get_traced_memory()[1]

    of_list = engine.get(as_list.remote()[-1])
    of_generator = engine.get(as_generator.remote()[-1])
    engine.shutdown()
    assert of_list > COUNT * NBYTES
    assert NBYTES < of_generator < 2.2 * NBYTES  # Ray still has the last one when it asks on
