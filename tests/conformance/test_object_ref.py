"""ObjectRef: identity, conversions, awaiting, and how refs travel in arguments and values."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import operator
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Gate


def failed(ray: ModuleType) -> Any:
    """Return the ref of a task that raises ValueError("boo")."""

    @ray.remote
    def fail():
        raise ValueError("boo")

    return fail.remote()


def test_ref_has_28_bytes_and_56_hex_digits(ray: ModuleType) -> None:
    ref = ray.put(1)
    assert len(ref.binary()) == ref.size() == 28
    assert ref.hex() == ref.binary().hex()
    assert bytes(ref) == ref.binary()


def test_ref_repr_and_str_name_the_hex(ray: ModuleType) -> None:
    ref = ray.put(1)
    assert repr(ref) == str(ref) == f"ObjectRef({ref.hex()})"


@pytest.mark.parametrize("through", ["class", "from_binary"])
def test_ref_made_from_the_binary_of_another_is_equal(ray: ModuleType, through: str) -> None:
    ref = ray.put(1)
    make = ray.ObjectRef if through == "class" else ray.ObjectRef.from_binary
    twin = make(ref.binary())
    assert twin == ref
    assert hash(twin) == hash(ref)
    assert ray.get(twin) == 1


@pytest.mark.deliberately_different("from_hex of a reference is not implemented")
def test_ref_made_from_the_hex_of_another_is_equal(ray: ModuleType) -> None:
    ref = ray.put(1)
    assert ray.ObjectRef.from_hex(ref.hex()) == ref


def test_refs_made_at_random_differ(ray: ModuleType) -> None:
    first, second = ray.ObjectRef.from_random(), ray.ObjectRef.from_random()
    assert first != second
    assert first.size() == second.size() == 28


def test_ref_made_from_too_few_bytes_raises_value_error(ray: ModuleType) -> None:
    with pytest.raises(ValueError, match="28"):
        ray.ObjectRef(b"short")


def test_ref_tells_its_owner_in_bytes_and_no_call_site(ray: ModuleType) -> None:
    ref = ray.put(1)
    assert isinstance(ref.owner_address(), bytes)
    assert ref.call_site() == ""


def test_refs_of_puts_are_numbered_far_beyond_those_of_returns(ray: ModuleType) -> None:
    number = int.from_bytes(ray.put(1).binary()[24:], "little")
    assert 0x05F5E101 <= number < 0x06000000


def test_ref_nil_is_all_ones_and_says_so(ray: ModuleType) -> None:
    assert ray.ObjectRef.nil().binary() == b"\xff" * 28
    assert ray.ObjectRef.nil().is_nil()
    assert not ray.put(1).is_nil()


def test_refs_of_one_task_share_its_id_and_count_from_one(ray: ModuleType) -> None:
    @ray.remote(num_returns=3)
    def f():
        return 1, 2, 3

    ids = [ref.binary() for ref in f.remote()]
    assert len({each[:24] for each in ids}) == 1
    assert [int.from_bytes(each[24:], "little") for each in ids] == [1, 2, 3]


def test_ref_tells_its_task_and_its_job(ray: ModuleType) -> None:
    first, second = ray.remote(num_returns=2)(lambda: (1, 2)).remote()
    assert first.task_id() == second.task_id()
    assert first.job_id() == second.job_id()
    assert first.hex().startswith(first.task_id().hex())


def test_ref_equals_itself_only(ray: ModuleType) -> None:
    ref, other = ray.put(1), ray.put(1)
    assert ref == ref
    assert ref != other
    assert ref != 5
    assert (ref == 5) is False


def test_ref_works_as_a_key(ray: ModuleType) -> None:
    a, b = ray.put(1), ray.put(2)
    assert {a: "a", b: "b"}[b] == "b"
    assert len({a, b, a}) == 2


@pytest.mark.parametrize(
    "operation",
    [
        lambda ref: ref < ref,
        iter,
        len,
        lambda ref: ref + 1,
        operator.itemgetter(0),
    ],
    ids=["order", "iter", "len", "add", "index"],
)
def test_ref_is_neither_number_nor_sequence(
    ray: ModuleType, operation: Callable[[Any], Any]
) -> None:
    with pytest.raises(TypeError):
        operation(ray.put(1))


def test_ref_of_a_false_value_is_true(ray: ModuleType) -> None:
    assert bool(ray.put(0)) is True


def test_ref_class_can_be_subscripted_for_typing(ray: ModuleType) -> None:
    assert ray.ObjectRef[int] is not None


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda ref: pickle.loads(pickle.dumps(ref))]
)
def test_ref_copied_or_pickled_is_equal_and_readable(
    ray: ModuleType, duplicate: Callable[[Any], Any]
) -> None:
    ref = ray.put("value")
    twin = duplicate(ref)
    assert twin == ref
    assert ray.get(twin) == "value"


def test_ref_can_be_awaited(ray: ModuleType) -> None:
    async def main() -> Any:
        return await ray.put("value")

    assert asyncio.run(main()) == "value"


def test_ref_awaited_waits_for_the_task(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def held(path):
        open(path).close()
        return "late"

    async def main() -> Any:
        waiting = asyncio.ensure_future(as_coroutine(held.remote(gate.path)))
        await asyncio.to_thread(gate.meet)
        return await waiting

    assert asyncio.run(main()) == "late"


async def as_coroutine(ref: Any) -> Any:
    """Await `ref`: asyncio's helpers take coroutines."""
    return await ref


def test_ref_awaited_raises_the_task_error(ray: ModuleType) -> None:
    with pytest.raises(ValueError, match="boo"):
        asyncio.run(as_coroutine(failed(ray)))


def test_refs_can_be_gathered(ray: ModuleType) -> None:
    @ray.remote
    def double(x):
        return 2 * x

    async def main() -> list[Any]:
        return await asyncio.gather(*[double.remote(i) for i in range(4)])

    assert asyncio.run(main()) == [0, 2, 4, 6]


def test_ref_awaited_with_a_timeout_times_out_and_stays_good(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def held(path):
        open(path).close()
        return "late"

    ref = held.remote(gate.path)

    async def main() -> None:
        await asyncio.wait_for(as_coroutine(ref), timeout=0.1)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())
    gate.open()
    assert ray.get(ref) == "late"


def test_ref_as_future_can_be_awaited(ray: ModuleType) -> None:
    async def main() -> Any:
        return await ray.put(3).as_future()

    assert asyncio.run(main()) == 3


def test_ref_future_gives_the_value(ray: ModuleType) -> None:
    future = ray.put("value").future()
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(timeout=30) == "value"


def test_ref_future_raises_the_task_error(ray: ModuleType) -> None:
    with pytest.raises(ValueError, match="boo"):
        failed(ray).future().result(timeout=30)


def test_ref_as_an_argument_arrives_as_its_value(ray: ModuleType) -> None:
    @ray.remote
    def f(a, *, b):
        return a, b

    assert ray.get(f.remote(ray.put(1), b=ray.put(2))) == (1, 2)


def test_ref_in_star_arguments_arrives_as_its_value(ray: ModuleType) -> None:
    @ray.remote
    def f(*args, **kwargs):
        return args, kwargs

    assert ray.get(f.remote(ray.put(1), 2, c=ray.put(3))) == ((1, 2), {"c": 3})


@pytest.mark.parametrize(
    "wrap",
    [lambda ref: [ref], lambda ref: (ref,), lambda ref: {ref}, lambda ref: {"key": ref}],
    ids=["list", "tuple", "set", "dict"],
)
def test_ref_inside_a_container_arrives_as_a_ref(
    ray: ModuleType, wrap: Callable[[Any], Any]
) -> None:
    @ray.remote
    def f(container):
        (ref,) = container.values() if isinstance(container, dict) else container
        return isinstance(ref, ray.ObjectRef), ray.get(ref)

    assert ray.get(f.remote(wrap(ray.put("inner")))) == (True, "inner")


def test_ref_of_a_container_of_refs_is_resolved_one_level(ray: ModuleType) -> None:
    @ray.remote
    def f(refs):
        return ray.get(refs)

    assert ray.get(f.remote(ray.put([ray.put(1), ray.put(2)]))) == [1, 2]


def test_ref_returned_by_a_task_comes_back_as_a_ref(ray: ModuleType) -> None:
    @ray.remote
    def inner():
        return "deep"

    @ray.remote
    def outer():
        return inner.remote()

    ref = ray.get(outer.remote())
    assert isinstance(ref, ray.ObjectRef)
    assert ray.get(ref) == "deep"


def test_ref_whose_value_is_a_ref_arrives_as_that_ref(ray: ModuleType) -> None:
    @ray.remote
    def returns_ref():
        return ray.put("deep")

    @ray.remote
    def f(x):
        return isinstance(x, ray.ObjectRef) and ray.get(x)

    assert ray.get(f.remote(returns_ref.remote())) == "deep"


def test_ref_captured_by_a_closure_is_readable_in_the_task(ray: ModuleType) -> None:
    ref = ray.put("captured")

    @ray.remote
    def f():
        return ray.get(ref)

    assert ray.get(f.remote()) == "captured"


def test_ref_passed_down_two_tasks_is_readable_there(ray: ModuleType) -> None:
    @ray.remote
    def inner(refs):
        return ray.get(refs[0])

    @ray.remote
    def outer(refs):
        return ray.get(inner.remote(refs))

    assert ray.get(outer.remote([ray.put("deep")])) == "deep"


def test_ref_inside_a_value_keeps_its_object_alive(ray: ModuleType) -> None:
    inner = ray.put(np.arange(MIB))
    outer = ray.put({"inner": inner})
    del inner
    assert ray.get(ray.get(outer)["inner"])[-1] == MIB - 1


def test_ref_inside_a_value_inside_a_value_keeps_its_object_alive(ray: ModuleType) -> None:
    outer = ray.put([ray.put([ray.put("deepest")])])
    assert ray.get(ray.get(ray.get(outer)[0])[0]) == "deepest"


def test_argument_of_a_pending_task_is_kept_alive(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def f(path, array, refs):
        open(path).close()
        return int(array.sum()), ray.get(refs[0])

    result = f.remote(gate.path, ray.put(np.ones(1000)), [ray.put("nested")])
    gate.open()
    assert ray.get(result) == (1000, "nested")


def test_argument_of_a_task_that_waits_for_another_is_kept_alive(
    ray: ModuleType, gate: Gate
) -> None:
    @ray.remote
    def held(path):
        open(path).close()

    @ray.remote
    def f(_, array):
        return int(array.sum())

    result = f.remote(held.remote(gate.path), ray.put(np.ones(1000)))
    gate.open()
    assert ray.get(result) == 1000


def test_views_stay_valid_after_the_last_ref_is_gone(ray: ModuleType) -> None:
    ref = ray.put(np.arange(MIB))
    view = ray.get(ref)[10:20]
    del ref
    for _ in range(3):
        ray.put(np.zeros(2 * MIB))
    assert view.tolist() == list(range(10, 20))


def test_values_whose_refs_are_dropped_make_room_for_new_ones(ray: ModuleType) -> None:
    for i in range(20):
        assert ray.get(ray.put(np.full(30 * MIB, i, dtype=np.uint8)))[-1] == i


def test_value_that_an_actor_keeps_the_ref_of_outlives_every_other_ref(ray: ModuleType) -> None:
    @ray.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs

        def read(self):
            return int(ray.get(self.refs[0])[-1])

    keeper, ref = Keeper.remote(), ray.put(np.arange(MIB))
    ray.get(keeper.keep.remote([ref]))
    del ref
    for _ in range(3):
        ray.put(np.zeros(2 * MIB))
    assert ray.get(keeper.read.remote()) == MIB - 1


def test_results_that_nobody_keeps_make_room_for_new_ones(ray: ModuleType) -> None:
    fill = ray.remote(lambda i: np.full(30 * MIB, i, dtype=np.uint8))
    for i in range(10):
        fill.remote(i)
        assert ray.get(fill.remote(i))[-1] == i
