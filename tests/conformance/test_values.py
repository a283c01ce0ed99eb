"""Values: what survives the way through the store, and what is shared instead of copied."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import fractions
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .support import MIB, READ_ONLY

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

PLAIN = [
    None,
    True,
    0,
    -1,
    2**63,
    -(2**200),
    1.5,
    float("inf"),
    2j,
    "",
    "text",
    "gr\u00fc\u00df \U0001f40d",
    "lone surrogate \ud800",
    b"",
    b"bytes\x00",
    b"x" * 200_000,
    (),
    (1,),
    [1, "a", None, [2.5, ()]],
    {},
    {"k": {1: [b"v"]}, (1, 2): None},
    {1, 2},
    frozenset({1}),
    range(5),
    slice(1, 2),
    ...,
    collections.OrderedDict(b=1, a=2),
    collections.Counter("abca"),
    collections.deque([1, 2], maxlen=3),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    datetime.timedelta(days=1),
    uuid.UUID(int=5),
    int,
    np.float32,
    np.dtype(">i4"),
    np.float64(1.5),
    np.int8(3),
]
STRUCTURED = np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
ARRAYS = {
    "bool": np.array([True, False, True]),
    "int8": np.arange(5, dtype=np.int8),
    "int64": np.arange(6),
    "float16": np.ones(3, dtype=np.float16),
    "float64": np.linspace(0, 1, 7),
    "complex128": np.array([1 + 2j, 3j]),
    "big-endian": np.arange(4, dtype=">i4"),
    "bytes": np.array([b"ab", b"cde"]),
    "str": np.array(["ab", "\u00fc"]),
    "structured": STRUCTURED,
    "2-d": np.arange(6).reshape(2, 3),
    "F order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "0-d": np.array(3.5),
    "empty": np.zeros((0, 3)),
    "large": np.arange(MIB),
}
IN_ANY_KIND = pytest.mark.parametrize("original", ARRAYS.values(), ids=ARRAYS.keys())


def there_and_back(ray: ModuleType, value: Any) -> Any:
    """Return `value` after its way into a task and back."""
    return ray.get(ray.remote(lambda x: x).remote(value))


def address(values: np.ndarray[Any, Any]) -> int:
    """Return where the first byte of `values` lies."""
    return int(values.__array_interface__["data"][0])


@pytest.mark.parametrize(
    "value", PLAIN, ids=lambda value: repr(value)[:20].encode("ascii", "replace").decode()
)
def test_plain_value_comes_back_equal_and_of_its_type(ray: ModuleType, value: Any) -> None:
    for result in (ray.get(ray.put(value)), there_and_back(ray, value)):
        assert result == value
        assert type(result) is type(value)


def test_nan_comes_back_as_nan(ray: ModuleType) -> None:
    assert np.isnan(ray.get(ray.put(float("nan"))))


def test_value_that_holds_itself_comes_back_so(ray: ModuleType) -> None:
    value: list[Any] = [1]
    value.append(value)
    result = ray.get(ray.put(value))
    assert result[1] is result


@pytest.mark.deliberately_different("what is twice in plain lists and dicts comes back as two")
def test_identity_inside_a_value_is_kept(ray: ModuleType) -> None:
    inner = [1]
    result = ray.get(ray.put({"a": inner, "b": inner}))
    assert result["a"] is result["b"]


def test_identity_of_an_array_inside_a_value_is_kept(ray: ModuleType) -> None:
    numbers = np.arange(1000)
    result = ray.get(ray.put({"a": numbers, "b": numbers}))
    assert result["a"] is result["b"]


def test_instance_of_a_local_class_comes_back_with_its_state_and_methods(ray: ModuleType) -> None:
    class Point:
        def __init__(self, x, y):
            self.x, self.y = x, y

        def total(self):
            return self.x + self.y

    assert ray.get(ray.put(Point(1, 2))).total() == 3
    assert there_and_back(ray, Point(3, 4)).total() == 7


def test_instance_with_own_pickling_comes_back_by_it(ray: ModuleType) -> None:
    class Box:
        def __init__(self, value):
            self.value = value

        def __reduce__(self):
            return (Box, (self.value + 1,))

    assert ray.get(ray.put(Box(1))).value == 2


def test_recursive_local_function_works_in_a_task(ray: ModuleType) -> None:
    def factorial(n: int) -> int:
        return 1 if n == 0 else n * factorial(n - 1)

    assert ray.get(ray.remote(lambda f, n: f(n)).remote(factorial, 5)) == 120


def test_exception_as_a_value_is_no_error(ray: ModuleType) -> None:
    result = ray.get(ray.put(ValueError("only a value")))
    assert isinstance(result, ValueError)
    assert result.args == ("only a value",)


@IN_ANY_KIND
def test_array_comes_back_equal_with_its_dtype_and_order(
    ray: ModuleType, original: np.ndarray[Any, Any]
) -> None:
    for result in (ray.get(ray.put(original)), there_and_back(ray, original)):
        assert type(result) is np.ndarray
        assert result.dtype == original.dtype
        assert result.shape == original.shape
        assert result.flags.f_contiguous == original.flags.f_contiguous
        np.testing.assert_array_equal(result, original)


@IN_ANY_KIND
def test_array_comes_back_read_only_and_aligned(
    ray: ModuleType, original: np.ndarray[Any, Any]
) -> None:
    result = ray.get(ray.put(original))
    assert not result.flags.writeable
    assert not result.flags.owndata
    assert address(result) % 64 == 0


@IN_ANY_KIND
def test_array_arrives_read_only_in_a_task(ray: ModuleType, original: np.ndarray[Any, Any]) -> None:
    @ray.remote
    def writeable(values):
        return values.flags.writeable

    assert ray.get([writeable.remote(original), writeable.remote(ray.put(original))]) == [False] * 2


@pytest.mark.parametrize("size", [3, MIB])
def test_array_returned_by_a_task_is_read_only(ray: ModuleType, size: int) -> None:
    assert not ray.get(ray.remote(lambda: np.ones(size)).remote()).flags.writeable


@pytest.mark.parametrize("size", [3, MIB])
def test_array_read_twice_shares_its_memory(ray: ModuleType, size: int) -> None:
    ref = ray.put(np.arange(size))
    first, second = ray.get(ref), ray.get(ref)
    assert first is not second
    assert np.shares_memory(first, second)


def test_array_refuses_every_way_to_write(ray: ModuleType) -> None:
    numbers = ray.get(ray.put(np.arange(10)))
    with pytest.raises(ValueError, match=READ_ONLY):
        numbers[0] = 1
    with pytest.raises(ValueError, match=READ_ONLY):
        numbers += 1
    with pytest.raises(ValueError):
        numbers.setflags(write=True)
    assert numbers.tolist() == list(range(10))


def test_array_copied_is_writable(ray: ModuleType) -> None:
    numbers = ray.get(ray.put(np.arange(3))).copy()
    numbers[0] = 7
    assert numbers.tolist() == [7, 1, 2]


def test_array_is_a_snapshot_of_the_moment_of_the_put(ray: ModuleType) -> None:
    numbers = np.zeros(MIB)
    ref = ray.put(numbers)
    numbers[:] = 1
    assert ray.get(ref).sum() == 0


def test_array_that_was_read_can_be_put_again(ray: ModuleType) -> None:
    first = ray.get(ray.put(np.arange(MIB)))
    second = ray.get(ray.put(first[1000:2000]))
    assert second[0] == 1000


@pytest.mark.parametrize(
    "nest",
    [lambda a: [a], lambda a: (1, a), lambda a: {"k": {"a": a}}],
    ids=["list", "tuple", "dict"],
)
def test_array_in_a_container_is_shared_too(ray: ModuleType, nest: Callable[[Any], Any]) -> None:
    def unnest(value: Any) -> Any:
        while not isinstance(value, np.ndarray):
            value = list(value.values())[-1] if isinstance(value, dict) else value[-1]
        return value

    ref = ray.put(nest(np.arange(MIB)))
    first, second = unnest(ray.get(ref)), unnest(ray.get(ref))
    assert not first.flags.writeable
    assert np.shares_memory(first, second)


def test_many_arrays_in_one_value_all_come_back(ray: ModuleType) -> None:
    result = ray.get(ray.put([np.full(n, n) for n in range(100)]))
    assert all(values.tolist() == [n] * n for n, values in enumerate(result))


def test_array_of_objects_comes_back_as_a_writable_copy(ray: ModuleType) -> None:
    result = ray.get(ray.put(np.array([1, "a", None], dtype=object)))
    assert result.flags.writeable
    assert result.tolist() == [1, "a", None]


NON_CONTIGUOUS = pytest.mark.parametrize(
    "original",
    [np.arange(10)[::2], np.arange(10)[::-1], np.arange(12).reshape(3, 4)[:, 1:3]],
    ids=["step", "reversed", "columns"],
)


@NON_CONTIGUOUS
def test_array_that_is_not_contiguous_comes_back_contiguous(
    ray: ModuleType, original: np.ndarray[Any, Any]
) -> None:
    result = ray.get(ray.put(original))
    assert result.flags.forc
    np.testing.assert_array_equal(result, original)


@pytest.mark.deliberately_different("a non-contiguous array comes back as a writable copy")
@NON_CONTIGUOUS
def test_array_that_is_not_contiguous_comes_back_read_only(
    ray: ModuleType, original: np.ndarray[Any, Any]
) -> None:
    assert not ray.get(ray.put(original)).flags.writeable


DATES = pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[ns]"])


@DATES
def test_array_of_dates_comes_back_equal(ray: ModuleType, dtype: str) -> None:
    original = np.arange(5).astype(dtype)
    result = ray.get(ray.put(original))
    assert result.dtype == original.dtype
    np.testing.assert_array_equal(result, original)


@pytest.mark.deliberately_different("an array of dates is a writable copy")
@DATES
def test_array_of_dates_is_shared_and_read_only(ray: ModuleType, dtype: str) -> None:
    ref = ray.put(np.arange(MIB).astype(dtype))
    first, second = ray.get(ref), ray.get(ref)
    assert not first.flags.writeable
    assert np.shares_memory(first, second)


def test_masked_array_keeps_its_mask(ray: ModuleType) -> None:
    original = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    result = ray.get(ray.put(original))
    assert type(result) is type(original)
    assert result.tolist() == [1, None, 3]
    result[0] = 9
    assert result.tolist() == [9, None, 3]


def test_matrix_stays_a_matrix(ray: ModuleType) -> None:
    result = ray.get(ray.put(np.ones((2, 2)).view(np.matrix)))
    assert type(result) is np.matrix
    assert result.tolist() == [[1, 1], [1, 1]]
    result[0, 0] = 9
    assert result.tolist() == [[9, 1], [1, 1]]


def test_array_array_comes_back_as_a_writable_copy(ray: ModuleType) -> None:
    result = ray.get(ray.put(array.array("d", [1.0, 2.0])))
    result[0] = 5.0
    assert result == array.array("d", [5.0, 2.0])


def test_memoryview_comes_back_as_bytes(ray: ModuleType) -> None:
    original = memoryview(b"abc")
    for result in (
        ray.get(ray.put(original)),
        ray.get(ray.put({"nested": original}))["nested"],
        there_and_back(ray, original),
    ):
        assert type(result) is bytes
        assert result == b"abc"


def test_pickle_buffer_comes_back_as_a_read_only_buffer(ray: ModuleType) -> None:
    result = memoryview(ray.get(ray.put(pickle.PickleBuffer(b"abc"))))
    assert result.readonly
    assert result == b"abc"


def test_bytes_read_twice_are_two_copies(ray: ModuleType) -> None:
    ref = ray.put(b"x" * MIB)
    first, second = ray.get(ref), ray.get(ref)
    assert first == second
    assert first is not second


def test_bytearray_comes_back_with_its_bytes(ray: ModuleType) -> None:
    assert ray.get(ray.put(bytearray(b"abc"))) == b"abc"


@pytest.mark.deliberately_different("a bytearray turns into bytes")
@pytest.mark.parametrize("size", [3, MIB])
def test_bytearray_keeps_its_type_and_stays_writable(ray: ModuleType, size: int) -> None:
    original = bytearray(b"a" * size)
    for result in (
        ray.get(ray.put(original)),
        ray.get(ray.put({"nested": original}))["nested"],
        there_and_back(ray, original),
    ):
        assert type(result) is bytearray
        result[0] = 1
    assert original == b"a" * size


@pytest.mark.deliberately_different("an object larger than the store goes to the disk")
def test_object_larger_than_the_store_is_refused_and_harms_no_other(ray: ModuleType) -> None:
    ref = ray.put("before")
    with pytest.raises(ray.exceptions.ObjectStoreFullError, match=r"\d"):
        ray.put(np.zeros(120 * MIB, dtype=np.uint8))
    assert ray.get(ref) == "before"
