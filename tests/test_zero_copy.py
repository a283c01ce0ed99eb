"""Arrays that are stored where they were computed, and those that must not be.

Whatever a generator does with what it has yielded, the consumer has a snapshot: as if each value
had been copied. `memory_summary()` says which were.
"""

import ctypes
import gc
import inspect
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import MIB, Attempts, Gate, eventually, pass_through

import ray_lite as ray
from ray_lite.exceptions import WorkerCrashedError
from ray_lite.session import Connection

SIZE = MIB // 8  # numbers in an array of 1 MiB


def counts() -> tuple[int, int]:
    """Return how many values were sealed in place, and how many copied."""
    summary = ray.memory_summary()
    return summary["sealed_in_place"], summary["copied"]


def in_use() -> int:
    """Return the bytes of the store that are not free."""
    summary = ray.memory_summary()
    return summary["capacity"] - summary["free"]


@pytest.fixture
def zero_copies(shared_session: Connection) -> Callable[[], tuple[int, int]]:
    """Return what says how many values were sealed in place and copied since."""
    before = counts()

    def since() -> tuple[int, int]:
        return counts()[0] - before[0], counts()[1] - before[1]

    return since


def run(function: Callable[..., Any], *args: Any, **options: Any) -> list[Any]:
    """Run a generator function remotely; return copies of its values."""
    remote = ray.remote(**options)(function) if options else ray.remote(function)
    return [np.array(ray.get(ref)) for ref in remote.remote(*args)]


def fills(size: int) -> Any:
    """Yield three arrays."""
    for i in range(3):
        yield np.full(size, i)


# ---- what needs no copy ----


def test_array_that_a_task_returns_is_not_copied(zero_copies: Any) -> None:
    @ray.remote
    def make():
        array = np.arange(SIZE)
        return array * 2

    ray.get(ray.remote(lambda: None).remote())
    ref = make.remote()
    assert ray.get(ref)[-1] == 2 * (SIZE - 1)
    assert zero_copies()[0] == 1


@pytest.mark.parametrize("num_returns", [3, "dynamic", "streaming"])
def test_arrays_that_nobody_else_holds_are_not_copied(zero_copies: Any, num_returns: Any) -> None:
    @ray.remote(num_returns=num_returns)
    def make():
        for i in range(3):
            yield np.full(SIZE, i)

    made = make.remote()
    refs = list(ray.get(made) if num_returns == "dynamic" else made)
    assert [int(array[-1]) for array in ray.get(refs)] == [0, 1, 2]
    assert zero_copies()[0] == 3


class Pair(NamedTuple):
    """A sequence whose class is the user's."""

    first: Any
    second: Any


@pytest.mark.parametrize("pack", [list, tuple, lambda arrays: Pair(*arrays)])
def test_arrays_of_a_sequence_that_nobody_else_holds_are_not_copied(
    zero_copies: Any, pack: Any
) -> None:
    @ray.remote(num_returns=2)
    def make():
        return pack(np.full(SIZE, i) for i in range(2))

    assert [int(array[-1]) for array in ray.get(make.remote())] == [0, 1]
    assert zero_copies()[0] == 2


CONTAINERS = [
    lambda array: (array,),
    lambda array: [array],
    lambda array: (array, {"loss": 1.0}),
    lambda array: {"x": array, "label": "cat", "epoch": 12},
    lambda array: [3, {"deep": (array, None)}],
    lambda array: [array, "x" * 200],
    lambda array: (array, np.ones(3), np.arange(4).reshape(2, 2)),
    lambda array: (array, array + 1),
    lambda array: (array, array.mean(), [np.str_("n"), np.int8(3)]),
    lambda array: {"x": array, "y": [array * 2, -1], "z": (array,)},
    lambda array: [array + i for i in range(5)],
    # What a stream of pickles says of this dtype depends on the process.
    lambda array: [array, np.ones(1000, [("__main__", "f8")])],
]


@pytest.mark.parametrize("pack", CONTAINERS)
def test_arrays_among_plain_values_are_not_copied(zero_copies: Any, pack: Any) -> None:
    @ray.remote
    def make():
        return pack(np.arange(SIZE))

    value = ray.get(make.remote())
    assert repr(value) == repr(pack(np.arange(SIZE)))
    assert zero_copies()[0] == 1


def test_array_that_is_twice_in_a_container_comes_back_as_one(zero_copies: Any) -> None:
    @ray.remote
    def make():
        array = np.arange(SIZE)
        return [array, {"again": array}, array.copy()]

    first, second, third = ray.get(make.remote())
    assert second["again"] is first
    assert third is not first
    assert np.array_equal(third, first)
    assert not third.flags.writeable
    assert zero_copies()[0] == 1


def test_arrays_of_a_container_outlive_it_one_by_one(zero_copies: Any) -> None:
    @ray.remote
    def make():
        return [np.full(SIZE, i) for i in range(4)]

    before = in_use()
    ref = make.remote()
    arrays = ray.get(ref)
    assert zero_copies()[0] == 1
    nbytes = arrays[0].nbytes
    assert in_use() >= before + 4 * nbytes
    last = arrays.pop()
    del ref, arrays
    gc.collect()
    assert eventually(lambda: before + nbytes <= in_use() < before + 2 * nbytes)
    assert (last == 3).all()
    del last
    assert eventually(lambda: in_use() <= before + 64 * 1024)


@pytest.mark.parametrize("num_returns", [3, "dynamic", "streaming"])
def test_containers_that_a_generator_yields_are_not_copied(
    zero_copies: Any, num_returns: Any
) -> None:
    @ray.remote(num_returns=num_returns)
    def make():
        for i in range(3):
            yield np.full((2, SIZE), i, order="F"), i

    made = make.remote()
    refs = list(ray.get(made) if num_returns == "dynamic" else made)
    for i, (array, number) in enumerate(ray.get(refs)):
        assert number == i
        assert array.shape == (2, SIZE)
        assert array.flags.f_contiguous
        assert not array.flags.writeable
        assert (array == i).all()
    assert zero_copies()[0] == 3


def yields_two_names():
    for i in range(3):
        x = np.full(SIZE, i)
        y = np.full(SIZE, -i)
        yield x, y


def yields_names_in_a_dict():
    for i in range(3):
        x = np.full(SIZE, i)
        y = x * 2
        yield {"x": x, "rest": [y, i], "mean": y.mean()}


def yields_one_array_under_two_names():
    for i in range(3):
        x = np.full(SIZE, i)
        y = x
        yield [x, y]


def yields_a_named_batch():
    for i in range(3):
        x = np.full(SIZE, i)
        batch = {"x": x, "rest": [np.arange(SIZE), i, (x,)]}
        yield batch


def yields_a_batch_under_two_names():
    for i in range(3):
        batch = [np.full(SIZE, i), np.arange(SIZE)]
        same = batch
        yield same


def yields_what_a_loop_names():
    for x in (np.full(SIZE, i) for i in range(3)):
        yield x, np.arange(SIZE)


def delegates_to_one_that_yields_two_names():
    yield from yields_two_names()


@pytest.mark.parametrize("num_returns", [3, "dynamic", "streaming"])
@pytest.mark.parametrize(
    "function",
    [
        yields_two_names,
        yields_names_in_a_dict,
        yields_one_array_under_two_names,
        yields_a_named_batch,
        yields_a_batch_under_two_names,
        yields_what_a_loop_names,
        delegates_to_one_that_yields_two_names,
    ],
)
def test_containers_of_what_has_dead_names_are_not_copied(
    zero_copies: Any, function: Any, num_returns: Any
) -> None:
    made = ray.remote(num_returns=num_returns)(function).remote()
    refs = list(ray.get(made) if num_returns == "dynamic" else made)
    assert [repr(ray.get(ref)) for ref in refs] == [repr(value) for value in function()]
    assert zero_copies()[0] == 3


class Holder:
    """An object that has an array, and changes it when it goes."""

    def __init__(self, array: Any) -> None:
        """Keep it."""
        self.array = array

    def __reduce__(self):
        """Arrive as the array."""
        return list, ([self.array],)

    def __del__(self):
        """Change what others may have."""
        self.array[:] = -1


@pytest.mark.parametrize(
    "pack",
    [
        lambda array: (array, array[: SIZE // 2]),
        lambda array: [array, np.ones(SIZE // 2)[::-1]],
        lambda array: [array, array.reshape(2, -1)],
        lambda array: [array, np.ones(SIZE), np.full(3, None)],
        lambda array: [array, *range(1000)],
        lambda array: [array, Holder(array)],
        lambda array: [array, ray.put(1)],
        lambda array: (array[::-1], 1),
    ],
)
def test_array_among_other_things_is_copied(zero_copies: Any, pack: Any) -> None:
    @ray.remote
    def make():
        return pack(np.ones(SIZE))

    assert float(ray.get(make.remote())[0].sum()) == SIZE
    assert zero_copies()[0] == 0


def check_arrived(array: Any, expected: Any) -> None:
    """Assert that an array arrived as it was, but for being read-only."""
    assert array.dtype == expected.dtype
    assert array.flags.f_contiguous == expected.flags.f_contiguous
    assert np.array_equal(array, expected)
    assert not array.flags.writeable


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f8", ">i4", "c16", "M8[s]", "S3", [("a", "i4"), ("b", "f8")]])
def test_array_of_any_plain_dtype_and_order_arrives_as_it_was(
    zero_copies: Any, dtype: Any, order: Any
) -> None:
    @ray.remote
    def make():
        return np.ones((600, 1000), dtype, order)

    check_arrived(ray.get(make.remote()), np.ones((600, 1000), dtype, order))
    assert zero_copies()[0] == 1


@pytest.mark.parametrize(
    "see",
    [
        lambda array: array.reshape(64, -1),
        lambda array: array.reshape(64, -1).T,
        lambda array: array.view("M8[s]"),
        lambda array: array[:],
    ],
)
def test_view_of_all_of_an_array_that_nobody_else_holds_is_not_copied(
    zero_copies: Any, see: Any
) -> None:
    @ray.remote(num_returns=2)
    def make():
        return see(np.arange(SIZE)), {"x": see(np.arange(SIZE))}

    alone, packed = ray.get(make.remote())
    check_arrived(alone, see(np.arange(SIZE)))
    check_arrived(packed["x"], see(np.arange(SIZE)))
    assert zero_copies()[0] == 2


@pytest.mark.parametrize(
    "see", [lambda array: array[1:], lambda array: array[::-1], lambda array: array[:-1]]
)
def test_view_of_a_part_of_an_array_is_copied(zero_copies: Any, see: Any) -> None:
    @ray.remote
    def make():
        return see(np.arange(SIZE))

    assert np.array_equal(ray.get(make.remote()), see(np.arange(SIZE)))
    assert zero_copies()[0] == 0


@pytest.mark.parametrize("pack", [lambda array: array, *CONTAINERS])
def test_array_that_a_method_of_an_async_actor_returns_is_not_copied(
    zero_copies: Any, pack: Any
) -> None:
    @ray.remote
    class Maker:
        async def make(self):
            return pack(np.arange(SIZE))

        def make_at_once(self):
            return pack(np.arange(SIZE))

    maker = Maker.remote()
    for method in (maker.make, maker.make_at_once):
        assert repr(ray.get(method.remote())) == repr(pack(np.arange(SIZE)))
    assert zero_copies()[0] == 2


def test_array_that_an_async_actor_keeps_is_copied(zero_copies: Any) -> None:
    @ray.remote
    class Keeping:
        async def make(self):
            self.kept = np.ones(SIZE)
            return self.kept

        async def change(self):
            self.kept[:] = 2

    actor = Keeping.remote()
    array = ray.get(actor.make.remote())
    ray.get(actor.change.remote())
    assert array[-1] == 1
    assert zero_copies()[0] == 0


def test_async_generator_needs_no_copy(zero_copies: Any) -> None:
    @ray.remote
    class Maker:
        async def make(self):
            for i in range(3):
                yield np.full(SIZE, i)

    maker = Maker.remote()
    assert [int(ray.get(ref)[-1]) for ref in maker.make.remote()] == [0, 1, 2]
    assert zero_copies()[0] == 3


def names_each():
    for i in range(3):
        array = np.full(SIZE, i)
        yield array


def names_and_deletes():
    for i in range(3):
        array = np.full(SIZE, i)
        try:
            yield array
        finally:
            del array


def names_in_a_branch():
    for i in range(3):
        if i % 2:
            odd = np.full(SIZE, i)
            yield odd
        else:
            even = np.full(SIZE, i)
            yield even


def delegates_to_names():
    yield from names_each()


def names_a_reshaped_array():
    for i in range(3):
        array = np.full((SIZE // 64, 64), i).reshape(-1)
        yield array


@pytest.mark.parametrize("num_returns", [3, "dynamic", "streaming"])
@pytest.mark.parametrize(
    "function",
    [names_each, names_and_deletes, names_in_a_branch, delegates_to_names, names_a_reshaped_array],
)
def test_array_under_a_name_that_is_not_read_again_is_not_copied(
    zero_copies: Any, function: Any, num_returns: Any
) -> None:
    made = ray.remote(num_returns=num_returns)(function).remote()
    refs = list(ray.get(made) if num_returns == "dynamic" else made)
    assert [int(array[-1]) for array in ray.get(refs)] == [0, 1, 2]
    assert zero_copies()[0] == 3


def test_array_in_a_generator_that_is_traced_is_copied(zero_copies: Any) -> None:
    def traced():
        sys.settrace(lambda *args: None)
        array = np.full(SIZE, 1)
        yield array
        sys.settrace(None)

    assert int(run(traced)[0][-1]) == 1
    assert zero_copies()[0] == 0


def test_array_whose_frame_somebody_has_got_hold_of_is_copied(zero_copies: Any) -> None:
    frames = []

    def look():
        frames.append(inspect.stack()[1].frame)

    def generate():
        look()
        array = np.full(SIZE, 1)
        yield array
        frames[0].f_locals["array"][:] = 2
        yield np.zeros(1)

    first, _ = run(generate)
    assert int(first[-1]) == 1
    assert zero_copies()[0] == 0


def test_small_arrays_are_copied(zero_copies: Any) -> None:
    assert len(run(fills, 1000)) == 3
    assert zero_copies()[0] == 0


# ---- what somebody can still change ----


def keeps_alias():
    kept = []
    for i in range(3):
        array = np.full(SIZE, i)
        kept.append(array)
        yield array
        array[:] = -1


def keeps_view():
    for i in range(3):
        array = np.full(SIZE, i)
        view = array[::2]
        yield array
        view[:] = -1


def reads_the_name_later():
    array = np.zeros(SIZE)
    for _ in range(3):
        array += 1
        yield array


def yields_a_view():
    for i in range(3):
        array = np.full(SIZE, i)
        yield array[: SIZE // 2]
        array[:] = -1


def yields_a_reshaped_view():
    for i in range(3):
        array = np.full(SIZE, i)
        yield array.reshape(64, -1)
        array[:] = -1


def closes_over():
    array = np.zeros(SIZE)

    def change():
        array[:] += 1

    for _ in range(3):
        change()
        yield array


def changes_in_a_finally():
    array = np.ones(SIZE)
    try:
        yield array
    finally:
        array[:] = -1


def changes_from_a_thread():
    array = np.ones(SIZE)
    go, done = threading.Event(), threading.Event()

    def change(array):
        go.wait()
        array[:] = -1
        done.set()

    threading.Thread(target=change, args=(array,)).start()
    yield array
    go.set()
    done.wait()
    yield np.zeros(SIZE)


def changes_by_weak_reference():
    array = np.ones(SIZE)
    weak = weakref.ref(array)
    yield array
    weak()[:] = -1
    yield np.zeros(SIZE)


def changes_by_memoryview():
    array = np.ones(SIZE)
    view = memoryview(array)
    yield array
    view[0] = -1.0
    yield np.zeros(SIZE)


def changes_by_ctypes():
    array = np.ones(SIZE)
    pointer = array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    yield array
    pointer[0] = -1.0
    yield np.zeros(SIZE)


def changes_by_address():
    array = np.ones(SIZE)
    address = array.ctypes.data
    yield array
    ctypes.memset(address, 0, 8)
    yield np.zeros(SIZE)


def changes_by_address_of_a_view():
    array = np.ones(SIZE)
    address = array[SIZE // 2 :].ctypes.data
    yield array
    ctypes.memset(address, 0, 8)
    yield np.zeros(SIZE)


class Exporter:
    """What numpy makes an array of that does not hold the memory's owner."""

    def __init__(self, interface: Any) -> None:
        """Keep it."""
        self.__array_interface__ = interface


def changes_by_array_interface():
    array = np.ones(SIZE)
    other = np.asarray(Exporter(array.__array_interface__))
    yield array
    other[:] = -1
    yield np.zeros(SIZE)


def changes_by_array_struct():
    array = np.ones(SIZE)
    exporter = Exporter(None)
    exporter.__array_struct__ = array.__array_struct__
    other = np.asarray(exporter)
    yield array
    other[:] = -1
    yield np.zeros(SIZE)


class Proxy:
    """An iterator that looks like the generator it has, and yields something else."""

    def __init__(self, generator: Any) -> None:
        """Keep it."""
        self.generator = generator
        self.array = np.zeros(SIZE)

    def __iter__(self):
        """Return it."""
        return self

    def __next__(self):
        """Change the one array, and return it."""
        next(self.generator)
        self.array += 1
        return self.array

    def __getattr__(self, name):
        """Return the generator's."""
        return getattr(self.generator, name)


def delegates_to_a_proxy():
    yield from Proxy(names_each())


def changes_by_locals():
    array = np.ones(SIZE)
    yield array
    locals()["array"][:] = -1
    yield np.zeros(SIZE)


def keeps_the_container():
    box = [np.ones(SIZE)]
    yield box[0]
    box[0][:] = -1
    yield np.zeros(SIZE)


def yields_a_container_that_it_keeps():
    box = [np.ones(SIZE)]
    yield box
    box[0][:] = -1


def yields_a_container_of_what_it_keeps():
    array = np.ones(SIZE)
    yield {"x": array, "i": 1}
    array[:] = -1


def yields_an_inner_container_that_it_keeps():
    inner = (np.ones(SIZE),)
    yield [inner, 1]
    inner[0][:] = -1


def yields_a_container_of_what_has_a_view():
    array = np.ones(SIZE)
    view = array[::2]
    box = [array]
    del array
    yield [box.pop()]
    view[:] = -1


def yields_two_and_keeps_one():
    x, y = np.ones(SIZE), np.ones(SIZE)
    yield x, y
    y[:] = -1


def yields_two_and_keeps_both_elsewhere():
    x, y = np.ones(SIZE), np.ones(SIZE)
    kept = [x, y]
    yield x, y
    for array in kept:
        array[:] = -1


def yields_a_name_that_a_closure_has():
    x, y = np.ones(SIZE), np.ones(SIZE)

    def change():
        x[:] = -1

    yield x, y
    change()


def yields_within_an_expression():
    x, y = np.ones(SIZE), np.ones(SIZE)
    x, _ = x, (yield x, y)
    x[:] = -1


def yields_a_batch_with_a_named_row():
    for i in range(3):
        row = [np.full(SIZE, i)]
        batch = [row, i]
        yield batch


def yields_batches_of_a_loop():
    batches = [(np.full(SIZE, i), i) for i in range(3)]
    for batch in batches:
        yield batch
        batch = None
    for array, _ in batches:
        array[:] = -1


def yields_a_batch_and_keeps_its_row():
    row = [np.ones(SIZE)]
    batch = [row, 1]
    yield batch
    row[0][:] = -1


def yields_a_batch_that_a_list_keeps():
    kept = []
    for i in range(2):
        batch = [np.full(SIZE, i)]
        kept.append(batch)
        yield batch
    kept[0][0][:] = kept[1][0][:] = -1


def yields_a_batch_whose_array_a_list_keeps():
    kept = []
    for i in range(2):
        batch = [np.full(SIZE, i)]
        kept.append(batch[0])
        yield batch
    kept[0][:] = kept[1][:] = -1


def yields_a_container_that_a_dead_name_has():
    x, y = np.ones(SIZE), np.ones(SIZE)
    pair = [x, y]
    same = pair
    yield pair
    same[0][:] = -1


def delegates_to_one_that_keeps():
    yield from keeps_alias_inner()


def keeps_alias_inner():
    array = np.ones(SIZE)
    yield array
    array[:] = -1
    yield array


@pytest.mark.parametrize(
    "function",
    [
        keeps_alias,
        keeps_view,
        reads_the_name_later,
        yields_a_view,
        yields_a_reshaped_view,
        closes_over,
        changes_in_a_finally,
        changes_from_a_thread,
        changes_by_weak_reference,
        changes_by_memoryview,
        changes_by_ctypes,
        changes_by_address,
        changes_by_address_of_a_view,
        changes_by_array_interface,
        changes_by_array_struct,
        delegates_to_a_proxy,
        changes_by_locals,
        keeps_the_container,
    ],
)
@pytest.mark.usefixtures("shared_session")
def test_value_is_a_snapshot_whatever_its_producer_does_next(function: Any) -> None:
    expected = [value.copy() for value in function()]
    values = run(function)
    assert len(values) == len(expected)
    for value, wanted in zip(values, expected, strict=True):
        assert np.array_equal(value, wanted)


def change_callers(name: str) -> None:
    """Change the array of that name in the function that calls this one."""
    sys._getframe(1).f_locals[name][:] = -1


def change_in_traceback(error: Any, name: str) -> None:
    """Change the array of that name in the function that caught an exception."""
    error.__traceback__.tb_frame.f_locals[name][:] = -1


def changes_by_a_function_that_looks_at_its_caller():
    array = np.ones(SIZE)
    yield array
    change_callers("array")
    yield np.zeros(SIZE)


def changes_by_a_function_that_looks_at_a_traceback():
    array = np.ones(SIZE)
    yield array
    try:
        raise KeyError
    except KeyError:
        change_in_traceback(sys.exc_info()[1], "array")
    yield np.zeros(SIZE)


def change_on_signal(signum: int, frame: Any) -> None:
    """Change the array of the function that the signal interrupts."""
    frame.f_locals["array"][:] = -1


def changes_by_a_signal_handler():
    signal.signal(signal.SIGUSR2, change_on_signal)
    array = np.ones(SIZE)
    yield array
    signal.raise_signal(signal.SIGUSR2)
    yield np.zeros(SIZE)


@pytest.mark.parametrize(
    "function",
    [
        changes_by_a_function_that_looks_at_its_caller,
        changes_by_a_function_that_looks_at_a_traceback,
        changes_by_a_signal_handler,
    ],
)
def test_array_that_is_reached_through_a_frame_after_its_yield_is_read_only(
    zero_copies: Any, function: Any
) -> None:
    first, last = ray.remote(function).remote()
    with pytest.raises(ValueError, match="read-only"):
        ray.get(last)
    assert (ray.get(first) == 1).all()
    assert zero_copies()[0] == 1


# ---- who holds the block ----


class Keeper:
    """An actor that returns what it keeps, and changes it in a later call."""

    def __init__(self):
        """Nothing is kept."""
        self.kept = None

    def keeps_the_sequence(self):
        self.kept = [np.zeros(SIZE), np.ones(SIZE)]
        return self.kept

    def keeps_the_items(self):
        self.kept = [np.zeros(SIZE), np.ones(SIZE)]
        return tuple(self.kept)

    def keeps_an_iterator(self):
        made = [np.zeros(SIZE), np.ones(SIZE)]
        self.kept = iter(made)
        return made

    def keeps_views(self):
        made = [np.zeros(SIZE), np.ones(SIZE)]
        self.kept = [array[::2] for array in made]
        return made

    def keeps_rows(self):
        self.kept = np.zeros((2, SIZE))
        self.kept[1] = 1
        return self.kept

    def change(self):
        for array in self.kept:
            array[:] = -1


@pytest.mark.parametrize(
    "method",
    [
        "keeps_the_sequence",
        "keeps_the_items",
        "keeps_an_iterator",
        "keeps_views",
        "keeps_rows",
    ],
)
def test_items_of_a_sequence_are_snapshots_whoever_keeps_them(
    zero_copies: Any, method: str
) -> None:
    keeper = ray.remote(Keeper).remote()
    refs = getattr(keeper, method).options(num_returns=2).remote()
    ray.get(keeper.change.remote())
    assert [np.unique(array).tolist() for array in ray.get(refs)] == [[0], [1]]
    assert zero_copies()[0] == 0


def test_array_that_is_two_items_of_a_sequence_is_copied_but_for_the_last(
    zero_copies: Any,
) -> None:
    @ray.remote(num_returns=3)
    def make():
        array = np.ones(SIZE)
        return [array, array[: SIZE // 2], array]

    first, view, last = ray.get(make.remote())
    assert len(first) == len(last) == 2 * len(view)
    assert zero_copies()[0] == 1


def test_sequence_with_an_item_that_cannot_be_stored_keeps_no_memory(
    zero_copies: Any,
) -> None:
    @ray.remote(num_returns=3)
    def make():
        return [np.ones(SIZE), threading.Lock(), np.ones(SIZE)]

    before = in_use()
    refs = make.remote()
    assert ray.get(refs[0])[-1] == 1
    for ref in refs[1:]:
        with pytest.raises(TypeError):
            ray.get(ref)
    assert zero_copies()[0] == 1
    del ref, refs
    gc.collect()
    assert eventually(lambda: in_use() <= before + 64 * 1024)


@pytest.mark.parametrize(
    "function",
    [
        yields_a_container_that_it_keeps,
        yields_a_container_of_what_it_keeps,
        yields_an_inner_container_that_it_keeps,
        yields_a_container_of_what_has_a_view,
        yields_two_and_keeps_one,
        yields_two_and_keeps_both_elsewhere,
        yields_a_name_that_a_closure_has,
        yields_within_an_expression,
        yields_a_container_that_a_dead_name_has,
        yields_a_batch_with_a_named_row,
        yields_batches_of_a_loop,
        yields_a_batch_and_keeps_its_row,
        yields_a_batch_that_a_list_keeps,
        yields_a_batch_whose_array_a_list_keeps,
    ],
)
def test_container_is_a_snapshot_whatever_its_producer_does_next(
    zero_copies: Any, function: Any
) -> None:
    made = ray.remote(function).remote()
    ray.get(made.completed())
    assert [repr(ray.get(ref)) for ref in made] == [repr(value) for value in function()]
    assert zero_copies()[0] == 0


def locals_of_caller():
    """Return what a debugger would look at."""
    return sys._getframe(1).f_locals


def keeps_its_locals():
    """Yield a container, then what a copy of the names had before it."""
    a = 1
    names = locals()
    a = 2
    x = np.full(SIZE, a)
    yield x, 1
    yield names["a"] if sys.version_info < (3, 13) else 1


def adds_to_its_locals():
    """Yield a container, then what was added to the names before."""
    locals()["extra"] = 1
    x = np.full(SIZE, 1)
    yield x, 1
    yield locals().get("extra")


def has_its_locals_added_to():
    """Do the same where the code does not show it."""
    locals_of_caller()["extra"] = 1
    x = np.full(SIZE, 1)
    yield x, 1
    yield locals_of_caller().get("extra")


@pytest.mark.parametrize(
    "function", [keeps_its_locals, adds_to_its_locals, has_its_locals_added_to]
)
@pytest.mark.usefixtures("shared_session")
def test_names_of_a_generator_are_left_as_they_are(function: Any) -> None:
    values = [ray.get(ref) for ref in ray.remote(function).remote()]
    assert repr(values) == repr(list(function()))


@pytest.mark.session(num_cpus=1, object_store_memory=80 << 20, patience=0.5)
@pytest.mark.parametrize("sizes", [(12, 60), (15, 56)])
@pytest.mark.usefixtures("session")
def test_container_has_room_beside_those_of_its_arrays_that_are_in_the_store(
    sizes: tuple[int, int],
) -> None:
    @ray.remote
    def make():
        return [np.ones(mib << 17) for mib in sizes]

    assert [array.nbytes >> 20 for array in ray.get(make.remote())] == list(sizes)


@pytest.mark.parametrize("pack", [lambda array: array, *CONTAINERS])
def test_second_attempt_that_copies_has_yielded_the_same(
    zero_copies: Any, attempts: Attempts, pack: Any
) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1)
    def make():
        kept = []
        is_first = begin() == 1
        for i in range(3):
            array = np.full(SIZE, i)
            if not is_first:
                kept.append(array)
            box = [pack(array)]
            del array
            yield box.pop()
        if is_first:
            os.kill(os.getpid(), signal.SIGKILL)

    refs = list(make.remote())
    assert attempts.made() == 2
    assert [repr(ray.get(ref)) for ref in refs] == [repr(pack(np.full(SIZE, i))) for i in range(3)]
    assert zero_copies()[0] == 3


def test_producers_array_keeps_its_block_when_the_consumer_lets_go_first(
    shared_session: Connection, gate: Gate
) -> None:
    @ray.remote
    def make(path):
        array = ray.empty(SIZE)
        array[:] = 7
        yield array
        pass_through(path)
        others = [np.full(SIZE, 8.0) for _ in range(8)]
        yield bool((array == 7).all()), len(others)

    stream = make.remote(gate.path)
    del shared_session
    next(stream)
    gc.collect()
    gate.meet()
    assert ray.get(next(stream)) == (True, 8)


def test_memory_is_given_back_when_arrays_and_references_have_gone(zero_copies: Any) -> None:
    before = in_use()

    @ray.remote
    def make():
        for i in range(10):
            scratch = np.full(SIZE, i)
            yield scratch + 1

    assert [int(ray.get(ref)[0]) for ref in make.remote()] == list(range(1, 11))
    assert zero_copies()[0] == 10
    assert eventually(lambda: in_use() <= before + 64 * 1024)


def test_worker_that_is_killed_leaves_nothing_of_what_it_computed(
    shared_session: Connection, gate: Gate
) -> None:
    before = in_use()

    @ray.remote(max_retries=0)
    def die(path):
        kept = [np.ones(SIZE) for _ in range(5)]
        yield kept[0] + 1
        pass_through(path)
        os.kill(os.getpid(), signal.SIGKILL)

    del shared_session
    stream = die.remote(gate.path)
    first = next(stream)
    gate.meet()
    with pytest.raises(WorkerCrashedError):
        ray.get(stream.completed())
    assert ray.get(first)[0] == 2
    del first, stream
    assert eventually(lambda: in_use() <= before + 64 * 1024)


@pytest.mark.session(num_cpus=4, object_store_memory=80 * MIB)
@pytest.mark.usefixtures("session")
def test_temporaries_of_many_workers_leave_room_for_their_values() -> None:
    @ray.remote(_generator_backpressure_num_objects=1)
    def work():
        scratch = [np.ones(SIZE) for _ in range(20)]
        yield None
        for array in scratch[:2]:
            yield array[1:]

    streams = [work.remote() for _ in range(4)]
    ray.wait(streams, num_returns=4)  # their 80 MiB are all there
    for stream in streams:
        assert ray.get(next(stream)) is None
        assert [float(ray.get(ref).sum()) for ref in stream] == [SIZE - 1, SIZE - 1]


# ---- fork ----


def child_sees(look: Callable[[], bool]) -> bool:
    """Fork; return what the child says."""
    pid = os.fork()
    if pid == 0:
        os._exit(int(look()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


@pytest.mark.usefixtures("shared_session")
def test_child_sees_what_other_threads_had_written_when_it_was_forked() -> None:
    @ray.remote
    def fork():
        small = np.zeros(1)  # on the heap
        large = np.zeros(SIZE)
        much = [np.ones(SIZE) for _ in range(20)]
        stop = threading.Event()

        def count():
            for i in range(1, 1 << 60):
                small[0] = i
                large[0] = i
                if stop.is_set():
                    return

        thread = threading.Thread(target=count)
        thread.start()
        looks = [child_sees(lambda: large[0] > small[0]) for _ in range(20)]
        stop.set()
        thread.join()
        return looks, len(much)

    assert ray.get(fork.remote()) == ([False] * 20, 20)


@pytest.mark.usefixtures("shared_session")
def test_forks_of_several_threads_leave_neither_shared_memory_nor_pipes() -> None:
    @ray.remote
    def fork():
        sys.setswitchinterval(1e-6)
        array = np.zeros(SIZE)
        before = len(os.listdir("/proc/self/fd"))

        def change(i):
            for _ in range(30):
                child_sees(lambda: array.__setitem__(i, 7) is not None)

        threads = [threading.Thread(target=change, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(0.005)
        return float(array.sum()), len(os.listdir("/proc/self/fd")) - before

    assert ray.get(fork.remote()) == (0, 0)


@pytest.mark.parametrize("nbytes", [0, 16 * MIB])
def test_task_that_forks_all_the_time_can_be_cancelled(
    shared_session: Connection, gate: Gate, nbytes: int
) -> None:
    @ray.remote
    def fork(path):
        much = np.ones(nbytes // 8)
        pass_through(path)
        while True:
            child_sees(lambda: much is None)

    for _ in range(5):
        ref = fork.remote(gate.path)
        gate.meet()
        ray.cancel(ref)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(ref, timeout=30)
    del shared_session


@pytest.mark.usefixtures("shared_session")
def test_fork_in_a_task_means_what_it_means_for_the_heap() -> None:
    @ray.remote
    def fork():
        array = np.ones(SIZE)
        context = multiprocessing.get_context("fork")
        to_child, to_parent = context.SimpleQueue(), context.SimpleQueue()

        def child():
            to_child.get()
            to_parent.put(float(array.sum()))
            array[:] = 3
            to_parent.put(float(array.sum()))

        process = context.Process(target=child)
        process.start()
        array[:] = 2
        to_child.put(None)
        sums = [to_parent.get(), to_parent.get()]
        process.join()
        return sums, float(array.sum())

    assert ray.get(fork.remote()) == ([SIZE, 3 * SIZE], 2 * SIZE)


# ---- arrays that are asked for ----


@pytest.mark.usefixtures("shared_session")
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ray.zeros((512, 1024)), np.zeros((512, 1024))),
        (lambda: ray.ones(SIZE, "i8"), np.ones(SIZE, "i8")),
        (lambda: ray.full(SIZE, 7), np.full(SIZE, 7)),
        (lambda: ray.full((512, 1024), 2.5, order="F"), np.full((512, 1024), 2.5, order="F")),
    ],
)
def test_array_made_in_the_store_is_as_numpy_makes_it(make: Any, expected: Any) -> None:
    array = make()
    assert array.dtype == expected.dtype
    assert array.flags.c_contiguous == expected.flags.c_contiguous
    assert array.flags.writeable
    assert np.array_equal(array, expected)


def test_array_made_in_the_store_is_put_without_a_copy_and_is_read_only_then(
    zero_copies: Any,
) -> None:
    array = ray.empty(SIZE)
    array[:] = 5
    ref = ray.put(array)
    assert zero_copies()[0] == 1
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    assert ray.get(ref)[-1] == 5
    assert ray.empty_like(array).shape == array.shape


@pytest.mark.parametrize("view", [lambda a: a[1:], lambda a: a.reshape(-1, 2), memoryview])
def test_array_with_another_view_is_copied_and_stays_writable(zero_copies: Any, view: Any) -> None:
    array = ray.ones(SIZE)
    kept = view(array)
    ref = ray.put(array)
    assert zero_copies() == (0, 1)
    array[:] = 2
    assert ray.get(ref)[-1] == 1
    del kept


@pytest.mark.parametrize(
    "alias",
    [
        lambda a: np.ma.array(a, copy=False),
        lambda a: a.view(np.recarray),
        lambda a: np.lib.stride_tricks.as_strided(a),
        np.from_dlpack,
        lambda a: np.nditer(a, op_flags=["readwrite"]).operands[0],
        lambda a: np.ctypeslib.as_array(a.ctypes.data_as(ctypes.POINTER(ctypes.c_double)), (SIZE,)),
    ],
)
def test_array_made_in_the_store_that_something_else_wraps_is_copied(
    zero_copies: Any, alias: Any
) -> None:
    array = ray.ones(SIZE)
    other = alias(array)
    ref = ray.put(array)
    other[0] = 7
    assert ray.get(ref)[0] == 1
    assert array[0] == 7
    assert zero_copies() == (0, 1)


@pytest.mark.parametrize(
    "tell", [lambda a: a.ctypes.data, lambda a: a[3:].__array_interface__["data"][0] - 24]
)
@pytest.mark.session(num_cpus=1)
@pytest.mark.usefixtures("session")
def test_array_made_in_the_store_whose_address_was_told_is_copied(tell: Any) -> None:
    ray.zeros(SIZE)  # numpy tells the memory of this session, then of the next
    ray.shutdown()
    ray.init(num_cpus=1)
    before = counts()
    quiet, told = ray.zeros(SIZE), ray.zeros(SIZE)
    address = tell(told)
    refs = [ray.put(quiet), ray.put(told)]
    ctypes.memset(address, 1, 800)
    assert [float(array.sum()) for array in ray.get(refs)] == [0, 0]
    assert told[0] != 0
    assert counts()[0] == before[0] + 1


def test_array_made_in_the_store_is_put_as_what_it_was_reshaped_to(zero_copies: Any) -> None:
    array = ray.ones(SIZE).reshape(64, -1)
    assert ray.get(ray.put(array)).shape == (64, SIZE // 64)
    assert zero_copies()[0] == 1


def test_array_made_in_the_store_that_a_task_wraps_is_copied(zero_copies: Any) -> None:
    @ray.remote
    def make():
        for _ in range(2):
            array = ray.ones(SIZE)
            other = np.ma.array(array, copy=False)
            yield array
            other[:] = 7

    assert [float(ray.get(ref).sum()) for ref in make.remote()] == [SIZE, SIZE]
    assert zero_copies()[0] == 0


def test_array_outlives_its_session(session: Connection) -> None:
    array = ray.ones(SIZE)
    stored = ray.ones(SIZE)
    ray.put(stored)
    assert session.core.private_memory is not None
    ray.shutdown()
    array[:] += 1
    assert array.sum() == 2 * SIZE
    assert stored.sum() == SIZE


# ---- switched off ----


@pytest.mark.parametrize("off", ["0", "False", "no", "off"])
def test_switch_has_every_value_copied(monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    monkeypatch.setenv("RAY_LITE_ZERO_COPY", off)
    ray.init(num_cpus=1)
    try:
        assert len(run(fills, SIZE)) == 3
        assert counts()[0] == 0
    finally:
        ray.shutdown()
