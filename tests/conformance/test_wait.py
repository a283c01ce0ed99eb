"""wait: which refs are ready, in which order, and what is refused."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Gate


def hold(ray: ModuleType, gate: Gate) -> Any:
    """Return the ref of a task that stands at `gate` and then returns "held"."""

    @ray.remote
    def held(path):
        open(path).close()
        return "held"

    return held.remote(gate.path)


def test_wait_splits_ready_refs_from_pending_ones(ray: ModuleType, gate: Gate) -> None:
    pending, ready = hold(ray, gate), ray.put(1)
    assert ray.wait([pending, ready]) == ([ready], [pending])


def test_wait_returns_no_more_than_num_returns_ready_refs(ray: ModuleType) -> None:
    refs = [ray.put(i) for i in range(4)]
    ready, rest = ray.wait(refs, num_returns=2)
    assert (len(ready), len(rest)) == (2, 2)
    assert set(ready + rest) == set(refs)


def test_wait_keeps_the_order_of_the_input_in_both_lists(ray: ModuleType) -> None:
    refs = [ray.put(i) for i in range(6)]
    ready, rest = ray.wait(refs, num_returns=3)
    assert ready == sorted(ready, key=refs.index)
    assert rest == sorted(rest, key=refs.index)


def test_wait_returns_one_ready_ref_by_default(ray: ModuleType) -> None:
    ready, rest = ray.wait([ray.put(i) for i in range(3)])
    assert (len(ready), len(rest)) == (1, 2)


def test_wait_keeps_the_order_of_the_input_not_of_completion(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate(), new_gate()]
    refs = [hold(ray, gate) for gate in gates]
    gates[1].open()
    assert ray.get(refs[1]) == "held"
    gates[0].open()
    assert ray.wait(refs, num_returns=2) == (refs, [])


def test_wait_keeps_the_order_of_the_input_among_pending_refs(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    first, second = hold(ray, new_gate()), hold(ray, new_gate())
    done = ray.put(0)
    assert ray.wait([second, done, first]) == ([done], [second, first])


def test_wait_counts_a_failed_ref_as_ready(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def fail():
        raise ValueError("boo")

    pending, failed = hold(ray, gate), fail.remote()
    assert ray.wait([pending, failed]) == ([failed], [pending])


def test_wait_for_all_returns_once_the_last_is_ready(ray: ModuleType, gate: Gate) -> None:
    refs = [ray.put(1), hold(ray, gate)]
    opener = threading.Thread(target=gate.meet)
    opener.start()
    assert ray.wait(refs, num_returns=2) == (refs, [])
    opener.join()


@pytest.mark.parametrize("timeout", [0, 0.0, 0.1])
def test_wait_with_a_timeout_gives_what_is_ready_by_then(
    ray: ModuleType, gate: Gate, timeout: float
) -> None:
    refs = [hold(ray, gate), ray.put(1)]
    assert ray.wait(refs, num_returns=2, timeout=timeout) == ([refs[1]], [refs[0]])


def test_wait_finds_a_ready_ref_behind_many_pending_ones(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def after(x):
        return x

    blocker = hold(ray, gate)
    pending = [after.remote(blocker) for _ in range(50)]
    ready = ray.put(1)
    assert ray.wait([*pending, ready]) == ([ready], pending)
    assert ray.wait([*pending, ready], num_returns=2, timeout=0.1) == ([ready], pending)
    gate.open()
    assert ray.wait([*pending, ready], num_returns=51) == ([*pending, ready], [])


@pytest.mark.parametrize("place", [0, 1])
def test_wait_for_one_is_woken_by_whichever_comes(
    ray: ModuleType, new_gate: Callable[[], Gate], place: int
) -> None:
    gates = [new_gate(), new_gate()]
    refs = [hold(ray, gate) for gate in gates]
    opener = threading.Thread(target=gates[place].meet)
    opener.start()
    assert ray.wait(refs) == ([refs[place]], [refs[1 - place]])
    opener.join()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_wait_for_all_returns_in_whatever_order_they_come(
    ray: ModuleType, new_gate: Callable[[], Gate], order: tuple[int, int]
) -> None:
    gates = [new_gate(), new_gate()]
    first, second = (hold(ray, gate) for gate in gates)
    refs = [first, ray.put(1), second]

    def meet_one_by_one() -> None:
        gates[order[0]].meet()
        ray.wait([(first, second)[order[0]]])
        gates[order[1]].meet()

    opener = threading.Thread(target=meet_one_by_one)
    opener.start()
    assert ray.wait(refs, num_returns=3) == (refs, [])
    opener.join()


def test_wait_with_nothing_ready_gives_no_ready_ref_after_the_timeout(
    ray: ModuleType, gate: Gate
) -> None:
    ref = hold(ray, gate)
    assert ray.wait([ref], timeout=0.1) == ([], [ref])


def test_wait_twice_gives_the_same_answer(ray: ModuleType) -> None:
    refs = [ray.put(i) for i in range(2)]
    assert ray.wait(refs, num_returns=2) == ray.wait(refs, num_returns=2)


def test_wait_loop_over_its_rest_sees_every_ref_once(ray: ModuleType) -> None:
    @ray.remote
    def f(x):
        return x

    rest = [f.remote(i) for i in range(20)]
    seen = []
    while rest:
        done, rest = ray.wait(rest)
        seen += ray.get(done)
    assert sorted(seen) == list(range(20))


def test_wait_takes_refs_in_any_order(ray: ModuleType) -> None:
    refs = [ray.put(i) for i in range(100)]
    shuffled = random.Random(1).sample(refs, 100)
    ready, rest = ray.wait(shuffled, num_returns=40)
    assert len(ready) == 40
    assert ready == [ref for ref in shuffled if ref not in rest]
    assert rest == [ref for ref in shuffled if ref not in ready]


def test_wait_and_get_take_a_list_of_a_subclass(ray: ModuleType, gate: Gate) -> None:
    class Refs(list):
        pass

    pending, ready = hold(ray, gate), ray.put(1)
    assert ray.wait(Refs([pending, ready])) == ([ready], [pending])
    assert ray.wait(Refs([pending]), timeout=0.1) == ([], [pending])
    assert ray.get(Refs([ready, ready])) == [1, 1]
    gate.open()
    assert ray.get(Refs([pending, ready])) == ["held", 1]


@pytest.mark.parametrize("fetch_local", [True, False])
def test_wait_accepts_fetch_local(ray: ModuleType, fetch_local: bool) -> None:
    ref = ray.put(1)
    assert ray.wait([ref], fetch_local=fetch_local) == ([ref], [])


def test_wait_on_a_dependent_waits_for_its_argument(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def after(x):
        return x

    dependent = after.remote(hold(ray, gate))
    assert ray.wait([dependent], timeout=0.1) == ([], [dependent])
    gate.open()
    assert ray.wait([dependent]) == ([dependent], [])


def test_wait_inside_a_task_works(ray: ModuleType) -> None:
    @ray.remote
    def f():
        ready, rest = ray.wait([ray.put(1), ray.put(2)])
        return len(ready), len(rest)

    assert ray.get(f.remote()) == (1, 1)


@pytest.mark.parametrize("num_returns", [1, 0, -1, 5])
def test_wait_on_an_empty_list_gives_two_empty_lists(ray: ModuleType, num_returns: int) -> None:
    assert ray.wait([], num_returns=num_returns) == ([], [])


def test_wait_takes_only_the_list_by_position(ray: ModuleType) -> None:
    with pytest.raises(TypeError):
        ray.wait([ray.put(1)], 1)


@pytest.mark.parametrize(
    "make",
    [lambda ref: ref, lambda ref: (ref,), lambda ref: {ref}, lambda ref: [ref, 1]],
    ids=["ref", "tuple", "set", "list with an int"],
)
def test_wait_on_what_is_no_list_of_refs_raises_type_error(
    ray: ModuleType, make: Callable[[Any], Any]
) -> None:
    with pytest.raises(TypeError):
        ray.wait(make(ray.put(1)))


def test_wait_on_duplicates_raises_value_error(ray: ModuleType) -> None:
    ref = ray.put(1)
    with pytest.raises(ValueError, match="unique"):
        ray.wait([ref, ref])


def test_wait_on_two_references_to_one_object_raises_value_error(ray: ModuleType) -> None:
    ref = ray.put(1)
    (other,) = ray.get(ray.put([ref]))
    assert other is not ref
    with pytest.raises(ValueError, match="unique"):
        ray.wait([ref, ray.put(2), other])


def test_wait_on_duplicates_that_are_pending_raises_value_error(
    ray: ModuleType, gate: Gate
) -> None:
    pending, ready = hold(ray, gate), ray.put(1)
    with pytest.raises(ValueError, match="unique"):
        ray.wait([ready, pending, pending])


@pytest.mark.parametrize("num_returns", [0, -1, 3])
def test_wait_for_an_impossible_number_raises_value_error(
    ray: ModuleType, num_returns: int
) -> None:
    with pytest.raises(ValueError):
        ray.wait([ray.put(1), ray.put(2)], num_returns=num_returns)


def test_wait_accepts_a_whole_float_as_num_returns(ray: ModuleType) -> None:
    ref = ray.put(1)
    assert ray.wait([ref], num_returns=1.0) == ([ref], [])


@pytest.mark.parametrize("timeout", [-1, -0.5])
def test_wait_with_a_negative_timeout_raises_value_error(ray: ModuleType, timeout: float) -> None:
    with pytest.raises(ValueError):
        ray.wait([ray.put(1)], timeout=timeout)
