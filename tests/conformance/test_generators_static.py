"""Tasks with num_returns = n: generators and their list twins, and every way to miscount."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts, Gate

COUNTS = pytest.mark.parametrize("n", [2, 3, 100])
EXTRA_IGNORED = "a value more than num_returns is dropped without a word"
ERROR_IGNORED = "an exception after the last value is dropped without a word"
LATE = "no ref is ready before the generator has ended"


def counting(ray: ModuleType) -> Any:
    """Return a remote generator that yields 0, 1, ... `length` times."""

    @ray.remote
    def count(length):
        yield from range(length)

    return count


def test_generator_with_num_returns_gives_a_list_of_refs_at_once(
    ray: ModuleType, gate: Gate
) -> None:
    @ray.remote(num_returns=2)
    def held(path):
        open(path).close()
        yield 1
        yield 2

    refs = held.remote(gate.path)
    assert [type(ref) for ref in refs] == [ray.ObjectRef] * 2
    gate.open()
    assert ray.get(refs) == [1, 2]


@COUNTS
def test_generator_with_the_right_count_gives_each_value(ray: ModuleType, n: int) -> None:
    assert ray.get(counting(ray).options(num_returns=n).remote(n)) == list(range(n))


@COUNTS
def test_list_with_the_right_count_gives_each_value(ray: ModuleType, n: int) -> None:
    twin = ray.remote(num_returns=n)(lambda length: list(range(length)))
    assert ray.get(twin.remote(n)) == list(range(n))


def test_generator_with_num_returns_one_gives_a_single_ref(ray: ModuleType) -> None:
    ref = counting(ray).options(num_returns=1).remote(1)
    assert isinstance(ref, ray.ObjectRef)
    assert ray.get(ref) == 0


def test_generator_with_num_returns_zero_gives_none(ray: ModuleType) -> None:
    assert counting(ray).options(num_returns=0).remote(0) is None


@pytest.mark.deliberately_different(
    "the body of a generator with num_returns=0 never runs", runs_on_ray=False
)
def test_generator_with_num_returns_zero_runs_to_its_end(ray: ModuleType, gate: Gate) -> None:
    @ray.remote(num_returns=0)
    def f(path):
        yield from ()
        open(path).close()

    f.remote(gate.path)
    gate.meet()


def test_function_with_num_returns_zero_gives_none_and_runs(ray: ModuleType, gate: Gate) -> None:
    @ray.remote(num_returns=0)
    def f(path):
        open(path).close()
        return "ignored"

    assert f.remote(gate.path) is None
    gate.meet()


@pytest.mark.parametrize(
    ("result", "values"),
    [
        ([1, 2], [1, 2]),
        ((1, 2), [1, 2]),
        ("ab", ["a", "b"]),
        ({"k": 1, "l": 2}, ["k", "l"]),
        (np.arange(2), [0, 1]),
        (range(2), [0, 1]),
    ],
    ids=["list", "tuple", "str", "dict", "array", "range"],
)
def test_function_with_num_returns_spreads_whatever_has_a_length(
    ray: ModuleType, result: Any, values: list[Any]
) -> None:
    assert ray.get(ray.remote(num_returns=2)(lambda: result).remote()) == values


def test_function_with_num_returns_spreads_a_set(ray: ModuleType) -> None:
    assert set(ray.get(ray.remote(num_returns=2)(lambda: {1, 2}).remote())) == {1, 2}


@pytest.mark.parametrize("value", [[1], (1, 2), "ab", {"k": 1}])
def test_function_with_num_returns_one_keeps_its_value_whole(ray: ModuleType, value: Any) -> None:
    assert ray.get(ray.remote(num_returns=1)(lambda: value).remote()) == value


@pytest.mark.parametrize("length", [0, 1, 3])
def test_function_that_returns_a_wrong_count_fails_every_ref(ray: ModuleType, length: int) -> None:
    text = f"Task returned {length} objects, but num_returns=2."
    for ref in ray.remote(num_returns=2)(lambda: [0] * length).remote():
        with pytest.raises(ValueError, match=text) as info:
            ray.get(ref)
        assert isinstance(info.value, ray.exceptions.RayTaskError)


@pytest.mark.parametrize(
    "make", [lambda: 5, lambda: None, lambda: iter([1, 2])], ids=["int", "None", "iterator"]
)
def test_function_that_returns_what_has_no_length_fails_every_ref(
    ray: ModuleType, make: Callable[[], Any]
) -> None:
    for ref in ray.remote(num_returns=2)(make).remote():
        with pytest.raises(TypeError, match=r"has no len\(\)"):
            ray.get(ref)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_generator_that_yields_too_few_fails_the_missing_refs_only(
    ray: ModuleType, length: int
) -> None:
    refs = counting(ray).options(num_returns=3).remote(length)
    assert ray.get(refs[:length]) == list(range(length))
    for ref in refs[length:]:
        text = f"Task returned {length} objects, but num_returns=3."
        with pytest.raises(ValueError, match=text) as info:
            ray.get(ref)
        assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_generator_that_yields_nothing_fails_its_single_ref(ray: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"Task returned 0 objects, but num_returns=1\."):
        ray.get(counting(ray).options(num_returns=1).remote(0))


def test_generator_that_yields_too_many_keeps_all_refs_but_the_last(ray: ModuleType) -> None:
    assert ray.get(counting(ray).options(num_returns=3).remote(5)[:2]) == [0, 1]


@pytest.mark.deliberately_different(EXTRA_IGNORED)
@pytest.mark.parametrize("length", [3, 4, 10])
def test_generator_that_yields_too_many_fails_the_last_ref(ray: ModuleType, length: int) -> None:
    with pytest.raises(ValueError) as info:
        ray.get(counting(ray).options(num_returns=2).remote(length)[-1])
    assert isinstance(info.value, ray.exceptions.RayTaskError)


@pytest.mark.deliberately_different(EXTRA_IGNORED)
def test_generator_that_yields_too_many_fails_its_single_ref(ray: ModuleType) -> None:
    with pytest.raises(ValueError):
        ray.get(counting(ray).options(num_returns=1).remote(2))


def test_generator_that_yields_too_many_is_closed_at_the_first_extra_value(
    ray: ModuleType, attempts: Attempts, gate: Gate
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2)
    def f(path):
        try:
            for i in range(5):
                begin()
                yield i
        finally:
            open(path).close()

    refs = f.remote(gate.path)
    gate.meet()
    ray.wait(refs, num_returns=2)
    assert attempts.made() == 3


@pytest.mark.parametrize("good", [0, 1, 2])
def test_generator_that_raises_midway_fails_all_refs_from_there(ray: ModuleType, good: int) -> None:
    @ray.remote(num_returns=3)
    def f():
        yield from range(good)
        raise KeyError("midway")

    refs = f.remote()
    assert ray.get(refs[:good]) == list(range(good))
    for ref in refs[good:]:
        with pytest.raises(KeyError, match="midway") as info:
            ray.get(ref)
        assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_generator_that_raises_after_the_last_value_keeps_the_others(ray: ModuleType) -> None:
    @ray.remote(num_returns=3)
    def f():
        yield from range(3)
        raise KeyError("after")

    assert ray.get(f.remote()[:2]) == [0, 1]


@pytest.mark.deliberately_different(ERROR_IGNORED)
@pytest.mark.parametrize("n", [1, 2])
def test_generator_that_raises_after_the_last_value_fails_the_last_ref(
    ray: ModuleType, n: int
) -> None:
    @ray.remote(num_returns=n)
    def f():
        yield from range(n)
        raise KeyError("after")

    refs = f.remote()
    with pytest.raises(KeyError, match="after"):
        ray.get(refs if n == 1 else refs[-1])


def test_generator_that_raises_stop_iteration_fails_with_runtime_error(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def f():
        yield 1
        raise StopIteration

    with pytest.raises(RuntimeError):
        ray.get(f.remote()[1])


def test_generator_return_value_is_dropped(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def f():
        yield 1
        yield 2
        return 3

    assert ray.get(f.remote()) == [1, 2]


@pytest.mark.parametrize("inner", [lambda: [1, 2], lambda: iter((1, 2)), lambda: map(abs, [1, -2])])
def test_generator_can_yield_from_any_iterable(ray: ModuleType, inner: Callable[[], Any]) -> None:
    @ray.remote(num_returns=2)
    def f():
        yield from inner()

    assert ray.get(f.remote()) == [1, 2]


def test_function_that_returns_a_generator_is_treated_as_that_generator(ray: ModuleType) -> None:
    f = ray.remote(num_returns=2)(lambda length: (i for i in range(length)))
    assert ray.get(f.remote(2)) == [0, 1]
    refs = f.remote(1)
    assert ray.get(refs[0]) == 0
    with pytest.raises(ValueError):
        ray.get(refs[1])


def test_function_that_returns_a_generator_of_one_value_gives_that_value(ray: ModuleType) -> None:
    assert ray.get(ray.remote(lambda: (i for i in [7])).remote()) == 7


@pytest.mark.deliberately_different("the first item is kept and the rest dropped")
def test_function_that_returns_a_longer_generator_fails_its_single_ref(ray: ModuleType) -> None:
    with pytest.raises(ValueError):
        ray.get(ray.remote(lambda: (i for i in range(3))).remote())


def test_async_generator_with_num_returns_fails_with_type_error(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    async def f():
        yield 1
        yield 2

    with pytest.raises(TypeError):
        ray.get(f.remote()[0])


def test_generator_that_yields_what_cannot_be_pickled_fails_from_there(ray: ModuleType) -> None:
    @ray.remote(num_returns=3)
    def f():
        yield 1
        yield threading.Lock()
        yield 3

    first, second, third = f.remote()
    assert ray.get(first) == 1
    for ref in (second, third):
        with pytest.raises(TypeError) as info:
            ray.get(ref)
        assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_generator_yields_none_tuples_and_refs_as_single_values(ray: ModuleType) -> None:
    @ray.remote(num_returns=3)
    def f():
        yield
        yield 1, 2
        yield ray.put("inner")

    nothing, pair, ref = ray.get(f.remote())
    assert nothing is None
    assert pair == (1, 2)
    assert ray.get(ref) == "inner"


@pytest.mark.parametrize("size", [10, MIB])
def test_generator_that_reuses_one_array_yields_snapshots(ray: ModuleType, size: int) -> None:
    @ray.remote(num_returns=3)
    def f():
        buffer = np.zeros(size)
        for i in range(3):
            buffer[:] = i
            yield buffer

    assert [int(values[-1]) for values in ray.get(f.remote())] == [0, 1, 2]


def test_generator_that_yields_a_view_and_goes_on_writing_yields_snapshots(
    ray: ModuleType,
) -> None:
    @ray.remote(num_returns=3)
    def f():
        buffer = np.zeros(3 * MIB)
        for i in range(3):
            part = buffer[i * MIB : (i + 1) * MIB]
            part[:] = i
            yield part
            buffer[:] = 9

    assert [int(values.max()) for values in ray.get(f.remote())] == [0, 1, 2]


def test_generator_that_keeps_what_it_yielded_may_change_it(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def f():
        kept = np.zeros(MIB)
        yield kept
        kept += 1
        yield float(kept[0])

    first, second = ray.get(f.remote())
    assert first.max() == 0
    assert second == 1


def test_generator_yields_fresh_arrays_read_only_and_whole(ray: ModuleType) -> None:
    @ray.remote(num_returns=4)
    def f():
        for i in range(4):
            yield np.full(MIB, i)

    for i, values in enumerate(ray.get(f.remote())):
        assert not values.flags.writeable
        assert values.min() == values.max() == i


def test_generator_with_num_returns_knows_no_backpressure(ray: ModuleType) -> None:
    count = counting(ray).options(num_returns=4, _generator_backpressure_num_objects=1)
    assert ray.get(count.remote(4), timeout=30) == [0, 1, 2, 3]


def test_generator_arguments_are_resolved(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def f(a, b):
        yield a
        yield b

    assert ray.get(f.remote(ray.put(1), b=ray.put(2))) == [1, 2]


def test_generator_can_get_the_results_of_other_tasks(ray: ModuleType) -> None:
    double = ray.remote(lambda x: 2 * x)

    @ray.remote(num_returns=3)
    def f():
        for i in range(3):
            yield ray.get(double.remote(i))

    assert ray.get(f.remote()) == [0, 2, 4]


def test_generator_refs_feed_other_tasks(ray: ModuleType) -> None:
    total = ray.remote(lambda *parts: sum(parts))
    maps = [counting(ray).options(num_returns=3).remote(3) for _ in range(4)]
    assert ray.get([total.remote(*column) for column in zip(*maps, strict=True)]) == [0, 4, 8]


def test_generator_refs_that_failed_fail_their_dependents_only(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def f():
        yield 1
        raise KeyError("midway")

    after = ray.remote(lambda x: x)
    good, bad = [after.remote(ref) for ref in f.remote()]
    assert ray.get(good) == 1
    with pytest.raises(KeyError, match="midway"):
        ray.get(bad)


def test_generator_whose_argument_failed_fails_every_ref_and_never_runs(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote
    def fail():
        raise KeyError("cause")

    @ray.remote(num_returns=2)
    def f(x):
        begin()
        yield from (x, x)

    for ref in f.remote(fail.remote()):
        with pytest.raises(KeyError, match="cause"):
            ray.get(ref)
    assert attempts.made() == 0


def test_generator_whose_refs_are_dropped_runs_to_its_end(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote(num_returns=2)
    def f(start, end):
        open(start).close()
        yield np.zeros(MIB)
        yield np.zeros(MIB)
        open(end).close()

    start, end = new_gate(), new_gate()
    f.remote(start.path, end.path)
    start.meet()
    end.meet()


def test_generator_last_ref_is_not_ready_before_the_generator_has_ended(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote(num_returns=2)
    def f(arrived, leave):
        yield 1
        yield 2
        open(arrived).close()
        open(leave).close()

    arrived, leave = new_gate(), new_gate()
    refs = f.remote(arrived.path, leave.path)
    arrived.meet()
    assert ray.wait([refs[-1]], timeout=0.2) == ([], [refs[-1]])
    leave.open()
    assert ray.get(refs) == [1, 2]


@pytest.mark.deliberately_different(LATE)
def test_generator_ref_is_ready_as_soon_as_its_value_is_stored(ray: ModuleType, gate: Gate) -> None:
    @ray.remote(num_returns=3)
    def f(path):
        yield "first"
        open(path).close()
        yield "second"
        yield "third"

    refs = f.remote(gate.path)
    assert ray.get(refs[0], timeout=5) == "first"
    assert ray.wait(refs[1:], timeout=0) == ([], refs[1:])


@pytest.mark.deliberately_different(LATE)
def test_generator_dependent_starts_while_the_generator_still_runs(
    ray: ModuleType, gate: Gate
) -> None:
    @ray.remote(num_returns=2)
    def f(path):
        yield np.ones(MIB)
        open(path).close()
        yield "second"

    dependent = ray.remote(lambda values: values.sum()).remote(f.remote(gate.path)[0])
    assert ray.get(dependent, timeout=5) == MIB


@pytest.mark.deliberately_different(LATE)
def test_generator_ref_before_an_exception_is_ready_before_the_exception(
    ray: ModuleType, gate: Gate
) -> None:
    @ray.remote(num_returns=3)
    def f(path):
        yield "first"
        open(path).close()
        raise KeyError("midway")

    refs = f.remote(gate.path)
    assert ray.get(refs[0], timeout=5) == "first"
    gate.open()
    for ref in refs[1:]:
        with pytest.raises(KeyError, match="midway"):
            ray.get(ref)
