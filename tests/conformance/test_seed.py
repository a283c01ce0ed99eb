"""The stories that remote generators are told by: splitting, saving memory, passing on, failing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from types import ModuleType

    from .support import Attempts, Gate


# ---- an array of unknown size ----


def test_array_of_unknown_size_is_split_into_chunks(ray: ModuleType) -> None:
    @ray.remote(num_returns="dynamic")
    def split(array, size):
        while len(array) > 0:
            yield array[:size]
            array = array[size:]

    array = np.random.default_rng(0).integers(0, 100, 1050)
    chunks = ray.get(split.remote(ray.put(array), 100))
    assert len(chunks) == 11
    parts = [ray.get(ref) for ref in chunks]
    assert [len(part) for part in parts] == [100] * 10 + [50]
    assert np.array_equal(np.concatenate(parts), array)


def test_chunks_are_summed_by_tasks_that_get_their_references(ray: ModuleType) -> None:
    @ray.remote(num_returns="dynamic")
    def split(array, size):
        for i in range(0, len(array), size):
            yield array[i : i + size]

    total = ray.remote(lambda chunk: int(chunk.sum()))
    array = np.arange(1000)
    sums = [total.remote(ref) for ref in ray.get(split.remote(array, 300))]
    assert sum(ray.get(sums)) == array.sum()


# ---- passing it on ----


def test_reference_to_a_dynamic_generator_is_passed_to_a_task(ray: ModuleType) -> None:
    @ray.remote(num_returns="dynamic")
    def produce(n):
        yield from (i for i in range(n))

    @ray.remote
    def consume(generator):
        return sum(ray.get(ref) for ref in generator)

    ref = produce.remote(5)
    assert ray.get(consume.remote(ref)) == 10
    assert ray.get(consume.remote(ray.get(ref))) == 10


def test_items_of_a_stream_are_passed_to_tasks_before_it_ends(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def produce(path):
        yield 1
        open(path).close()
        yield 2

    double = ray.remote(lambda x: 2 * x)
    stream = produce.remote(gate.path)
    assert ray.get(double.remote(next(stream)), timeout=30) == 2
    gate.meet()
    assert ray.get(double.remote(next(stream)), timeout=30) == 4


def test_values_of_a_static_generator_are_passed_to_tasks(ray: ModuleType) -> None:
    @ray.remote(num_returns=3)
    def produce():
        yield from (np.full(1000, i) for i in range(3))

    @ray.remote
    def total(*arrays):
        return int(sum(array.sum() for array in arrays))

    assert ray.get(total.remote(*produce.remote())) == 3000


def test_references_of_a_stream_are_passed_to_a_task_in_a_list(ray: ModuleType) -> None:
    @ray.remote
    def produce():
        yield from (i for i in range(3))

    @ray.remote
    def consume(refs):
        return ray.get(list(refs))

    assert ray.get(consume.remote(list(produce.remote())), timeout=30) == [0, 1, 2]


# ---- failing ----


def failing(ray: ModuleType, **options: Any) -> Any:
    """Return a generator task that raises after two of four values."""

    def generate():
        for i in range(4):
            if i == 2:
                raise KeyError("after two")
            yield i

    return ray.remote(**options)(generate)


def test_static_generator_that_raises_after_two_of_four_fails_the_rest(ray: ModuleType) -> None:
    refs = failing(ray, num_returns=4).remote()
    assert ray.get(refs[:2]) == [0, 1]
    for ref in refs[2:]:
        with pytest.raises(KeyError, match="after two"):
            ray.get(ref)


def test_dynamic_generator_that_raises_after_two_has_a_third_that_raises(ray: ModuleType) -> None:
    refs = list(ray.get(failing(ray, num_returns="dynamic").remote()))
    assert ray.get(refs[:2]) == [0, 1]
    assert len(refs) == 3
    with pytest.raises(KeyError, match="after two"):
        ray.get(refs[2])


def test_stream_that_raises_after_two_has_a_third_that_raises_and_ends(ray: ModuleType) -> None:
    stream = failing(ray, num_returns="streaming").remote()
    assert [ray.get(next(stream)), ray.get(next(stream))] == [0, 1]
    with pytest.raises(KeyError, match="after two"):
        ray.get(next(stream))
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.deliberately_different("an exception after the last value is silent (issue 28689)")
def test_generator_that_raises_after_all_values_were_taken_fails_the_last(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def generate():
        yield 1
        yield 2
        raise KeyError("at the end")

    first, last = generate.remote()
    assert ray.get(first) == 1
    with pytest.raises(KeyError, match="at the end"):
        ray.get(last)


@pytest.mark.deliberately_different("one value too many is silent (issue 28689)")
def test_generator_that_yields_too_many_fails_the_last(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def generate():
        yield from (i for i in range(3))

    first, last = generate.remote()
    assert ray.get(first) == 0
    with pytest.raises(ValueError, match="more than num_returns=2"):
        ray.get(last)


def test_second_run_that_yields_more_adds_what_is_new(
    ray: ModuleType, attempts: Attempts, gate: Gate
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1)
    def generate(path):
        attempt = begin()
        yield from (i for i in range(2 + attempt))
        if attempt == 1:
            open(path).close()
            os._exit(1)

    stream = generate.remote(gate.path)
    assert [ray.get(next(stream)) for _ in range(3)] == [0, 1, 2]
    gate.meet()
    assert [ray.get(ref, timeout=60) for ref in stream] == [3]


def test_second_run_of_a_dynamic_generator_that_yields_more_counts_alone(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, num_returns="dynamic")
    def generate():
        attempt = begin()
        yield from ((attempt, i) for i in range(1 + attempt))
        if attempt == 1:
            os._exit(1)

    refs = ray.get(generate.remote(), timeout=60)
    assert [ray.get(ref) for ref in refs] == [(2, 0), (2, 1), (2, 2)]
