"""put and get: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Gate


def test_put_of_equal_values_gives_different_refs(ray: ModuleType) -> None:
    assert ray.put(5) != ray.put(5)


def test_put_is_a_snapshot_of_the_value_at_the_call(ray: ModuleType) -> None:
    value = [1, 2]
    ref = ray.put(value)
    value.append(3)
    assert ray.get(ref) == [1, 2]


def test_put_of_a_ref_raises_type_error(ray: ModuleType) -> None:
    with pytest.raises(TypeError):
        ray.put(ray.put(1))


def test_put_of_a_ref_in_a_list_keeps_the_ref(ray: ModuleType) -> None:
    inner = ray.put(1)
    assert ray.get(ray.put([inner])) == [inner]


def test_put_takes_only_the_value_by_position(ray: ModuleType) -> None:
    with pytest.raises(TypeError):
        ray.put(1, None)
    assert ray.get(ray.put(1, _owner=None, _tensor_transport=None)) == 1


def test_put_of_none_gives_none(ray: ModuleType) -> None:
    assert ray.get(ray.put(None)) is None


def test_put_of_a_lambda_gives_a_function_that_works(ray: ModuleType) -> None:
    offset = 2
    assert ray.get(ray.put(lambda x: x + offset))(1) == 3


@pytest.mark.parametrize("make", [threading.Lock, lambda: (i for i in range(3))])
def test_put_of_what_cannot_be_pickled_raises_type_error(
    ray: ModuleType, make: Callable[[], Any]
) -> None:
    with pytest.raises(TypeError, match="Could not serialize the put value"):
        ray.put(make())


def test_put_inside_a_task_is_readable_there(ray: ModuleType) -> None:
    @ray.remote
    def f():
        return ray.get(ray.put("inside"))

    assert ray.get(f.remote()) == "inside"


def test_get_of_an_empty_list_gives_an_empty_list(ray: ModuleType) -> None:
    assert ray.get([]) == []


def test_get_of_a_list_keeps_its_order_and_its_duplicates(ray: ModuleType) -> None:
    a, b = ray.put("a"), ray.put("b")
    assert ray.get([b, a, b]) == ["b", "a", "b"]


def test_get_of_a_thousand_refs_gives_a_thousand_values(ray: ModuleType) -> None:
    assert ray.get([ray.put(i) for i in range(1000)]) == list(range(1000))


def test_get_takes_a_list_of_put_refs_and_task_refs(ray: ModuleType) -> None:
    @ray.remote
    def f():
        return 1

    assert ray.get([f.remote(), ray.put(2)]) == [1, 2]


@pytest.mark.parametrize(
    "container",
    [tuple, set, lambda refs: {refs[0]: 1}, lambda refs: (ref for ref in refs)],
    ids=["tuple", "set", "dict", "genexp"],
)
def test_get_of_a_container_that_is_no_list_raises_value_error(
    ray: ModuleType, container: Callable[[list[Any]], Any]
) -> None:
    with pytest.raises(ValueError):
        ray.get(container([ray.put(1)]))


@pytest.mark.parametrize("value", [3, None, "ref", 1.5])
def test_get_of_what_is_no_ref_raises_value_error(ray: ModuleType, value: Any) -> None:
    with pytest.raises(ValueError):
        ray.get(value)


@pytest.mark.parametrize("make", [lambda ref: [1], lambda ref: [ref, None], lambda ref: [[ref]]])
def test_get_of_a_list_that_holds_no_ref_raises_type_error(
    ray: ModuleType, make: Callable[[Any], list[Any]]
) -> None:
    with pytest.raises(TypeError, match="Attempting to call `get` on the value"):
        ray.get(make(ray.put(1)))


def test_get_of_a_list_that_holds_a_stream_raises_type_error(ray: ModuleType) -> None:
    @ray.remote
    def generate():
        yield 1

    with pytest.raises(TypeError, match="Attempting to call `get` on the value"):
        ray.get([generate.remote()])


def test_get_twice_gives_independent_copies(ray: ModuleType) -> None:
    ref = ray.put([1])
    first = ray.get(ref)
    first.append(2)
    assert ray.get(ref) == [1]


def test_get_of_an_error_twice_raises_independent_exceptions(ray: ModuleType) -> None:
    @ray.remote
    def fail():
        raise ValueError("boo")

    ref = fail.remote()
    caught = []
    for _ in range(2):
        with pytest.raises(ValueError) as info:
            ray.get(ref)
        caught.append(info.value)
    assert caught[0] is not caught[1]


def test_get_timeout_is_keyword_only(ray: ModuleType) -> None:
    with pytest.raises(TypeError):
        ray.get(ray.put(1), 1.0)


@pytest.mark.parametrize("timeout", [0, 0.0, 5, None, -1])
def test_get_of_a_ready_value_is_not_touched_by_the_timeout(
    ray: ModuleType, timeout: float | None
) -> None:
    assert ray.get(ray.put("v"), timeout=timeout) == "v"


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_get_of_a_pending_value_raises_get_timeout_error(
    ray: ModuleType, gate: Gate, timeout: float
) -> None:
    @ray.remote
    def held(path):
        open(path).close()

    ref = held.remote(gate.path)
    with pytest.raises(ray.exceptions.GetTimeoutError, match="not ready"):
        ray.get(ref, timeout=timeout)
    gate.open()
    assert ray.get(ref) is None


def test_get_timeout_error_is_a_timeout_error(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def held(path):
        open(path).close()

    with pytest.raises(TimeoutError):
        ray.get([ray.put(1), held.remote(gate.path)], timeout=0.05)


def test_get_with_timeout_minus_one_waits_for_the_value(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def held(path):
        open(path).close()
        return "late"

    ref = held.remote(gate.path)
    opener = threading.Thread(target=gate.meet)
    opener.start()
    assert ray.get(ref, timeout=-1) == "late"
    opener.join()


@pytest.mark.deliberately_different("get(timeout=-2) aborts the process", runs_on_ray=False)
def test_get_with_another_negative_timeout_raises_value_error(ray: ModuleType) -> None:
    with pytest.raises(ValueError):
        ray.get(ray.put(1), timeout=-2)


def test_get_with_a_timeout_that_is_no_number_raises(ray: ModuleType) -> None:
    with pytest.raises((TypeError, ValueError)):
        ray.get(ray.put(1), timeout="soon")


@pytest.mark.deliberately_different("no value can ever come: ray_lite says so at once, Ray waits")
def test_get_of_a_ref_that_nobody_made_raises_at_once(ray: ModuleType) -> None:
    with pytest.raises(ValueError, match="owner is unknown"):
        ray.get(ray.ObjectRef.from_random(), timeout=0.1)


def test_get_of_a_list_raises_before_slow_refs_are_done(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def held(path):
        open(path).close()
        return "slow"

    @ray.remote
    def fail():
        raise ValueError("boo")

    slow = held.remote(gate.path)
    with pytest.raises(ValueError, match="boo"):
        ray.get([slow, fail.remote()])
    gate.open()
    assert ray.get(slow) == "slow"


def test_get_of_a_list_raises_what_failed_first_in_time(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def fail_late(path):
        open(path).close()
        raise ValueError("late")

    @ray.remote
    def fail_early():
        raise KeyError("early")

    with pytest.raises(KeyError, match="early"):
        ray.get([fail_late.remote(gate.path), fail_early.remote()])


def test_get_of_failed_refs_raises_the_first_in_the_list(ray: ModuleType) -> None:
    @ray.remote
    def fail(error):
        raise error

    refs = [fail.remote(KeyError("one")), fail.remote(IndexError("two"))]
    ray.wait(refs, num_returns=2)
    with pytest.raises(KeyError):
        ray.get(refs)
    with pytest.raises(IndexError):
        ray.get(refs[::-1])
