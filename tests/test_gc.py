"""Garbage cycles: what the collector finds is given back, in whatever order it takes it apart."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import MIB

import ray_lite as ray
from ray_lite._codec import encode
from ray_lite.session import Connection


class Node:
    """Something that can be part of a cycle."""


def by_list(thing: Any) -> None:
    """Make a cycle of a list that holds `thing`."""
    cycle = [thing]
    cycle.append(cycle)


def by_object(thing: Any) -> None:
    """Make a cycle of an object that holds `thing`, tracked by the collector before it."""
    node: Any = Node()
    node.itself = node
    node.thing = thing


def by_closure(thing: Any) -> None:
    """Make a cycle of a function that refers to itself and to `thing`."""

    def function() -> Any:
        return function, thing

    function()


def by_exception(thing: Any) -> None:
    """Make a cycle of an exception and the frame that caught it, which has `thing`."""
    try:
        raise RuntimeError
    except RuntimeError as error:
        kept = error
    assert kept.__traceback__ is not None and thing is not None


CYCLES = [by_list, by_object, by_closure, by_exception]


@pytest.fixture(params=CYCLES, ids=[cycle.__name__ for cycle in CYCLES])
def bury(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """A function that leaves its argument in a cycle which nothing else refers to."""
    return request.param  # type: ignore[no-any-return]


def test_stored_value_in_a_cycle_gives_its_block_back(
    session: Connection, bury: Callable[[Any], None]
) -> None:
    core = session.core
    free = core.usage()["free"]
    gc.disable()
    try:
        for _ in range(5):
            bury(core.store(encode(np.zeros(MIB, np.uint8))))
        assert core.usage()["free"] <= free - 5 * MIB
    finally:
        gc.enable()
    gc.collect()
    assert core.usage()["free"] == free


def test_stored_value_with_refs_in_a_cycle_lets_them_go(
    session: Connection, bury: Callable[[Any], None]
) -> None:
    core = session.core
    free, objects = core.usage()["free"], core.usage()["objects"]
    bury(core.store(encode([ray.put(np.zeros(MIB, np.uint8)), np.zeros(MIB, np.uint8)])))
    gc.collect()
    assert core.usage()["objects"] == objects
    assert core.usage()["free"] == free


def test_encoded_value_in_a_cycle_lets_its_refs_go(
    session: Connection, bury: Callable[[Any], None]
) -> None:
    core = session.core
    free, objects = core.usage()["free"], core.usage()["objects"]
    bury(encode([ray.put(np.zeros(MIB, np.uint8)) for _ in range(3)]))
    gc.collect()
    assert core.usage()["objects"] == objects
    assert core.usage()["free"] == free


def test_ref_view_and_generator_in_a_cycle_let_go_of_what_they_hold(
    session: Connection, bury: Callable[[Any], None]
) -> None:
    @ray.remote
    def arrays() -> Any:
        yield np.zeros(MIB, np.uint8)

    generator = arrays.remote()
    ray.get(generator.completed())
    core = session.core
    bury([ray.put(np.zeros(MIB, np.uint8)), ray.get(ray.put(np.zeros(MIB, np.uint8))), generator])
    del generator
    gc.collect()
    assert core.usage()["capacity"] - core.usage()["free"] < MIB  # the function


@pytest.mark.session(num_cpus=1)
def test_failure_in_a_cycle_with_its_arguments_lets_them_go_in_the_worker(
    session: Connection,
) -> None:

    @ray.remote
    def fail(box: list[Any]) -> None:
        error: Any = ValueError("as it should")
        error.itself, error.box, error.array = error, box, ray.get(box[0])
        raise error

    @ray.remote
    def collect() -> int:
        return gc.collect()

    for _ in range(3):
        with pytest.raises(ValueError, match="as it should"):
            ray.get(fail.remote([ray.put(np.zeros(MIB, np.uint8))]))
    gc.collect()  # the errors came here with all that they hold
    ray.get(collect.remote())
    assert session.core.broken_invariant() is None
    assert session.core.usage()["capacity"] - session.core.usage()["free"] < MIB  # the functions
