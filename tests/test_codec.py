"""The codec alone: values to payload bytes and back, without any shared memory.

Every round trip here writes the payload twice, over different garbage, and compares: a byte that
write_to() leaves unwritten would make equal values differ.
"""

from __future__ import annotations

import array
import collections
import copyreg
import datetime
import enum
import gc
import math
import pickle
import sys
import threading
import tracemalloc
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib.array_utils import byte_bounds

from ray_lite import _codec as codec

Array = np.ndarray[Any, Any]


class Ref:
    """A stand-in for ObjectRef: equal by number, and not to be pickled by pickle itself."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __repr__(self) -> str:
        return f"Ref({self.number})"

    def __reduce__(self) -> Any:
        raise AssertionError("a ref reached pickle")


class Dynamic(list[Ref]):
    """A stand-in for DynamicObjectRefGenerator."""


@pytest.fixture(autouse=True)
def fake_refs() -> Iterator[None]:
    """Let the codec take Ref for the class of refs."""
    before = codec.configure(Ref, Dynamic, None, None)
    yield
    codec.configure(*before)


def pin_of(encoded: codec.Encoded) -> memoryview:
    """Return the payload as an aligned read-only buffer, as the core would give it."""
    payloads = []
    for garbage in (0x00, 0xA5):
        raw = np.full(encoded.nbytes + 64, garbage, np.uint8)
        start = -raw.ctypes.data % 64
        encoded.write_into(raw[start : start + encoded.nbytes])
        payloads.append(raw[start : start + encoded.nbytes].data.toreadonly())
    assert payloads[0] == payloads[1], "write_to() left bytes unwritten"
    return payloads[0]


def roundtrip(value: object) -> Any:
    encoded = codec.encode(value)
    return codec.decode(encoded.kind, pin_of(encoded), encoded.refs)


def roundtrip_call(*args: object, **kwargs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments as a task gets them; the value of Ref(n) is "value n"."""
    encoded = codec.encode_call(args, kwargs)
    resolved = [f"value {ref.number}" for ref in encoded.refs[: encoded.ndeps]]
    return codec.decode_call(encoded.kind, pin_of(encoded), encoded.refs, resolved)


def assert_same_array(got: Array, expected: Array) -> None:
    assert type(got) is np.ndarray
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert repr(got.tolist()) == repr(expected.tolist())


def assert_view(got: Array) -> None:
    """Check that `got` is a read-only view of its payload, aligned, and cannot be made writable."""
    assert not got.flags.writeable
    assert not got.flags.owndata
    assert got.ctypes.data % 64 == 0
    assert got.flags.aligned or got.dtype.alignment == 1 or got.dtype.fields
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        got.setflags(write=True)


# --- plain values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, codec.KIND_NONE),
        (True, codec.KIND_TRUE),
        (False, codec.KIND_FALSE),
        (0, codec.KIND_INT),
        (2**63 - 1, codec.KIND_INT),
        (-(2**63), codec.KIND_INT),
        (2**63, codec.KIND_PLAIN),
        (-(2**63) - 1, codec.KIND_PLAIN),
        (1.5, codec.KIND_FLOAT),
        (-math.inf, codec.KIND_FLOAT),
        ("", codec.KIND_STR),
        ("text", codec.KIND_STR),
        ("zwölf \U0001f40d", codec.KIND_STR),
        ("\ud800 lone", codec.KIND_STR),
        (b"", codec.KIND_BYTES),
        (b"\0bytes", codec.KIND_BYTES),
        (bytearray(), codec.KIND_BYTEARRAY),
        (bytearray(b"bytes"), codec.KIND_BYTEARRAY),
        ({"a": [1, (2.5, None)]}, codec.KIND_PLAIN),
        ([], codec.KIND_PLAIN),
        ({1, 2}, codec.KIND_PICKLE),
        (3 + 4j, codec.KIND_PICKLE),
        (list(range(1000)), codec.KIND_PICKLE),
    ],
)
def test_plain_value_takes_its_kind_and_comes_back_equal(value: object, kind: int) -> None:
    assert codec.encode(value).kind == kind
    got = roundtrip(value)
    assert got == value
    assert type(got) is type(value)


def test_nan_comes_back_as_nan() -> None:
    assert math.isnan(roundtrip(math.nan))


def test_kinds_without_payload_decode_without_a_pin() -> None:
    for value in (None, True, False, "", b"", bytearray()):
        encoded = codec.encode(value)
        assert encoded.nbytes == 0
        assert codec.decode(encoded.kind, None, []) == value


class Celsius(float):
    """A subclass of a type that has a kind of its own."""


class Colour(enum.IntEnum):
    """Another."""

    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        Celsius(3.5),
        Colour.RED,
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        np.float64(2.5),
        np.bool_(True),
        datetime.datetime(2024, 2, 29),
        array.array("d", [1.0, 2.0]),
    ],
)
def test_subclasses_and_library_values_keep_their_type(value: object) -> None:
    got = roundtrip(value)
    assert got == value
    assert type(got) is type(value)


def test_bytearray_comes_back_writable_and_private() -> None:
    encoded = codec.encode(bytearray(b"abc"))
    pin = pin_of(encoded)
    first = codec.decode(encoded.kind, pin, [])
    first[0] = 0
    assert codec.decode(encoded.kind, pin, []) == b"abc"


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b"abcdef"),
        memoryview(b"abcdef")[::2],
        np.arange(6.0).reshape(2, 3).data,
        np.asfortranarray(np.arange(6.0).reshape(2, 3)).data,
        memoryview(b""),
    ],
)
def test_memoryview_comes_back_as_its_bytes_alone_and_nested(view: memoryview) -> None:
    assert roundtrip(view) == view.tobytes()
    assert type(roundtrip(view)) is bytes
    assert roundtrip({"view": view}) == {"view": view.tobytes()}


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters()),
    st.binary(),
    st.binary().map(bytearray),
)
KEYS = st.one_of(st.text(), st.integers(), st.binary(), st.none(), st.booleans())
NESTED = st.recursive(
    PLAIN | st.frozensets(KEYS) | st.builds(Ref, st.integers(0, 5)),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.lists(inner, max_size=3).map(lambda items: types.SimpleNamespace(items=items))
    ),
    max_leaves=30,
)


@given(NESTED)
def test_nested_value_comes_back_equal(value: object) -> None:
    got = roundtrip(value)
    assert got == value
    assert type(got) is type(value)


@given(st.lists(NESTED, max_size=4), st.dictionaries(st.text(), NESTED, max_size=4))
def test_arguments_of_a_call_come_back_equal(args: list[Any], kwargs: dict[str, Any]) -> None:
    def as_seen(value: object) -> object:
        return f"value {value.number}" if isinstance(value, Ref) else value

    got_args, got_kwargs = roundtrip_call(*args, **kwargs)
    assert got_args == tuple(as_seen(value) for value in args)
    assert list(got_kwargs.items()) == [(name, as_seen(value)) for name, value in kwargs.items()]


# --- arrays ------------------------------------------------------------------------------------

RECORD = np.dtype(
    {
        "names": ["key", "value", "tail"],
        "formats": [">i4", "f8", ("S3", (2,))],
        "offsets": [4, 16, 24],
        "titles": ["the key", None, None],
        "itemsize": 40,
    }
)
ALIGNED = np.dtype([("a", "i1"), ("b", "f8"), ("c", "M8[us]")], align=True)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(7),
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.array(5),
        np.array(2.5 + 1j),
        np.array([], np.int8),
        np.empty((3, 0, 2), np.complex64),
        np.array([True, False]),
        np.arange(5, dtype=np.float16),
        np.arange(5, dtype=np.longdouble),
        np.arange(5, dtype=np.longlong),
        np.arange(5, dtype=">f8"),
        np.arange("2024-01", "2024-06", dtype="M8[M]"),
        np.array(["NaT", "2024-01-01"], "M8[25s]"),
        np.array([1, 2], "m8[ns]"),
        np.array([b"ab", b"c"]),
        np.array(["zwölf", ""]),
        np.array(["zwölf"], ">U7"),
        np.array([(1, 2.0)], np.dtype("i4,f8")),
        np.zeros(3, RECORD),
        np.zeros(3, ALIGNED),
        np.array([b"ab\0"], "V3"),
        np.zeros((1,) * 40),
    ],
    ids=lambda value: f"{value.dtype.str}-{value.shape}"[:40],
)
def test_contiguous_array_comes_back_as_an_aligned_view_in_its_order(value: Array) -> None:
    for got in (roundtrip(value), roundtrip({"a": value})["a"], roundtrip_call(value)[0][0]):
        assert_same_array(got, value)
        assert_view(got)
        assert got.flags.f_contiguous == value.flags.f_contiguous
        assert got.flags.c_contiguous == value.flags.c_contiguous
        assert got.dtype.fields == value.dtype.fields
        assert got.dtype.isalignedstruct == value.dtype.isalignedstruct


def test_array_takes_the_array_kind_and_shares_the_memory_of_the_pin() -> None:
    encoded = codec.encode(np.arange(10))
    assert encoded.kind == codec.KIND_ARRAY
    pin = pin_of(encoded)
    first = codec.decode(encoded.kind, pin, [])
    second = codec.decode(encoded.kind, pin, [])
    assert first is not second
    assert first.base is pin
    assert np.shares_memory(first, np.frombuffer(pin, np.uint8))
    assert np.shares_memory(first, second)


def test_array_keeps_the_pin_alive_through_a_slice_of_it() -> None:
    encoded = codec.encode([np.arange(1000), pickle.PickleBuffer(b"buffer")])
    pin = pin_of(encoded)
    alive = weakref.ref(pin)
    arr, buffer = codec.decode(encoded.kind, pin, [])
    part = arr[5:7]
    del pin, arr
    gc.collect()
    assert alive() is not None
    del part
    gc.collect()
    assert alive() is not None
    assert bytes(buffer) == b"buffer"
    del buffer
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    "value",
    [
        np.arange(20)[::2],
        np.arange(20)[::-3],
        np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        np.broadcast_to(np.arange(3.0), (4, 3)),
        np.broadcast_to(np.float32(1), (2, 2)),
        np.array(["a", "bc", "d", "e"])[::2],
        np.arange("2024-01", "2024-06", dtype="M8[M]")[::2],
        np.frombuffer(bytes(range(120)), RECORD)[::2],
        np.frombuffer(bytes(range(96)), ALIGNED)[::-1],
        np.zeros(10, "i1,>f8")["f1"],
        np.arange(200_000.0).reshape(2, -1).T[::2],
    ],
    ids=lambda value: f"{value.dtype.str}-{value.shape}"[:40],
)
def test_strided_array_comes_back_as_an_aligned_view_in_c_order(value: Array) -> None:
    for got in (roundtrip(value), roundtrip((1, value))[1]):
        assert_same_array(got, value)
        assert_view(got)
        assert got.flags.c_contiguous


def test_padding_of_strided_records_is_copied() -> None:
    value = np.frombuffer(bytes(range(120)), RECORD)[::2]
    got = roundtrip(value)
    assert got.tobytes() == bytes(range(40)) + bytes(range(80, 120))


DTYPES = (
    hnp.scalar_dtypes()
    | hnp.byte_string_dtypes()
    | hnp.unicode_string_dtypes()
    | hnp.datetime64_dtypes()
    | hnp.timedelta64_dtypes()
    | hnp.array_dtypes(allow_subarrays=True)
)
LAYOUTS: list[Callable[[Array], Array]] = [
    lambda a: a,
    np.asfortranarray,
    lambda a: a.T,
    lambda a: a[..., ::2] if a.ndim else a,
    lambda a: a[::-1] if a.ndim else a,
    lambda a: np.moveaxis(a, 0, -1) if a.ndim else a,
]


@settings(deadline=None)
@given(
    DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))),
    st.sampled_from(LAYOUTS),
)
def test_array_of_any_dtype_shape_and_layout_comes_back_as_a_view(
    value: Array, layout: Callable[[Array], Array]
) -> None:
    value = layout(value)
    for got in (roundtrip(value), roundtrip([value])[0]):
        assert_same_array(got, value)
        if value.dtype.itemsize:
            assert_view(got)
            assert got.tobytes() == value.tobytes()


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, "a", None], object),
        np.array([(1, [2])], [("a", "i4"), ("b", object)]),
        np.arange(2).reshape(1, 2).view(np.matrix),
        np.ma.masked_array([1, 2], [False, True]),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["a", "bc"], np.dtypes.StringDType()),
        np.empty(3, np.dtype([])),
    ],
    ids=lambda value: type(value).__name__ + value.dtype.str[:3],
)
def test_array_that_is_more_than_memory_comes_back_as_a_writable_copy(value: Array) -> None:
    for got in (roundtrip(value), roundtrip([value])[0]):
        assert type(got) is type(value)
        assert got.dtype == value.dtype
        assert got.tolist() == value.tolist()
        assert got.flags.writeable


def test_dtype_metadata_comes_back_or_costs_nothing() -> None:
    dtype = np.dtype("f8", metadata={"unit": "m"})
    got = roundtrip(np.ones(3, dtype))
    assert got.dtype.metadata == {"unit": "m"}
    assert_view(got)


def test_refs_inside_an_object_array_are_carried() -> None:
    encoded = codec.encode(np.array([Ref(1), Ref(2), Ref(1)], object))
    assert encoded.refs == [Ref(1), Ref(2)]
    assert roundtrip(np.array([Ref(1), Ref(2)], object)).tolist() == [Ref(1), Ref(2)]


def test_same_array_twice_in_a_value_is_one_buffer_and_one_object() -> None:
    value = np.zeros(100_000)
    encoded = codec.encode({"a": value, "b": [value]})
    assert encoded.nbytes < 1.1 * value.nbytes
    got = codec.decode(encoded.kind, pin_of(encoded), [])
    assert got["a"] is got["b"][0]


def test_same_array_twice_in_a_call_is_one_buffer_and_one_object() -> None:
    value = np.zeros(100_000)
    assert codec.encode_call((value, value), {"k": [value]}).nbytes < 1.1 * value.nbytes
    args, kwargs = roundtrip_call(value, value, k=[value])
    assert args[0] is args[1]
    assert args[0] is kwargs["k"][0]
    assert_view(args[0])


@pytest.mark.parametrize(
    "value",
    [
        (np.arange(3),),
        (np.arange(3), np.zeros((2, 2), "M8[s]").T, np.arange(9)[::2]),
        (np.arange(3), np.array([None])),
        (np.arange(3), "text"),
    ],
)
def test_tuple_of_arrays_comes_back_as_a_tuple(value: tuple[Any, ...]) -> None:
    for got in (roundtrip(value), roundtrip_call(*value)[0]):
        assert type(got) is tuple
        assert repr(got) == repr(value)
        assert_view(got[0])


def test_large_buffers_are_not_copied_before_they_are_written() -> None:
    size = 8 << 20
    values = [
        np.zeros(size, np.uint8),
        bytes(size),
        [bytes(size), bytearray(size)],
        {"a": np.zeros(size, np.uint8), "f": np.asfortranarray(np.zeros((size // 8, 4, 2)))},
    ]
    tracemalloc.start()
    try:
        for value in values:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            encoded = codec.encode(value)
            assert tracemalloc.get_traced_memory()[1] - before < size / 8
            assert encoded.nbytes >= size
    finally:
        tracemalloc.stop()


# --- pickle: buffers, identity, cloudpickle ----------------------------------------------------


class Frame:
    """A third-party type that hands its memory to pickle out of band."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Frame, (pickle.PickleBuffer(self.data),)


@pytest.mark.parametrize("data", [b"read-only", bytearray(b"writable"), bytes(1 << 20), b""])
def test_foreign_buffer_comes_back_as_an_aligned_read_only_memoryview(data: Any) -> None:
    got = roundtrip([Frame(data)])[0].data
    assert type(got) is memoryview
    assert got.readonly
    assert got == data
    assert np.frombuffer(got, np.uint8).ctypes.data % 64 == 0 or not data


def test_large_stream_comes_back_equal() -> None:
    value = [b"__main__" * 100_000, bytearray(200_000), "text" * 50_000, set(range(50_000))]
    assert roundtrip(value) == value


def test_cycle_comes_back_as_a_cycle() -> None:
    value: list[Any] = [np.arange(3)]
    value.append(value)
    got = roundtrip(value)
    assert got[1] is got


def test_shared_object_stays_shared() -> None:
    shared = [1]
    got = roundtrip([shared, shared])
    assert got[0] is got[1]
    args, _ = roundtrip_call(shared, {"x": shared})
    assert args[0] is args[1]["x"]


def test_lambda_closure_and_array_travel_together() -> None:
    big = np.arange(1000)
    ref = Ref(7)
    encoded = codec.encode(lambda x: (x + big, ref))
    assert encoded.refs == [Ref(7)]
    function = codec.decode(encoded.kind, pin_of(encoded), encoded.refs)
    total, got_ref = function(1)
    assert total[0] == 1
    assert got_ref == Ref(7)
    assert_view(function.__closure__[0].cell_contents)


def test_class_of_main_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    thing = type("Thing", (), {"__module__": "__main__", "size": 3})
    monkeypatch.setattr(sys.modules["__main__"], "Thing", thing, raising=False)
    encoded = codec.encode(thing())
    monkeypatch.delattr(sys.modules["__main__"], "Thing")
    assert codec.decode(encoded.kind, pin_of(encoded), []).size == 3


def test_module_registered_for_pickle_by_value_travels_by_value() -> None:
    module = types.ModuleType("codec_by_value")
    exec("def double(x):\n    return 2 * x\n", module.__dict__)
    sys.modules["codec_by_value"] = module
    cloudpickle.register_pickle_by_value(module)
    try:
        encoded = codec.encode([module.double, np.ones(2), Ref(1)])
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules["codec_by_value"]
    double, arr, ref = codec.decode(encoded.kind, pin_of(encoded), encoded.refs)
    assert double(4) == 8
    assert_view(arr)
    assert ref == Ref(1)


class Registered:
    """Pickled by a function in copyreg's table."""


def test_copyreg_reducer_is_respected() -> None:
    copyreg.dispatch_table[Registered] = lambda _: (str, ("reduced",))
    try:
        assert roundtrip([Registered()]) == ["reduced"]
        assert roundtrip([Registered(), lambda: 1])[0] == "reduced"
    finally:
        del copyreg.dispatch_table[Registered]


# --- refs --------------------------------------------------------------------------------------


def test_refs_are_numbered_once_each_in_the_order_met() -> None:
    encoded = codec.encode({"a": Ref(5), "b": (Ref(3), Ref(5)), "c": Ref(3)})
    assert encoded.refs == [Ref(5), Ref(3)]


def test_decode_puts_the_given_refs_in_their_places() -> None:
    encoded = codec.encode({"a": Ref(5), "b": (Ref(3), Ref(5))})
    mine = [Ref(5), Ref(3)]
    got = codec.decode(encoded.kind, pin_of(encoded), mine)
    assert got["a"] is mine[0]
    assert got["b"][0] is mine[1]
    assert got["b"][1] is mine[0]


def test_bare_ref_is_a_value() -> None:
    assert roundtrip(Ref(4)) == Ref(4)


@pytest.mark.parametrize("numbers", [[1], [3, 1, 2], [1, 2, 1, 1], list(range(1000))])
def test_list_of_refs_takes_its_own_kind(numbers: list[int]) -> None:
    value = [Ref(number) for number in numbers]
    encoded = codec.encode(value)
    assert encoded.kind == codec.KIND_REF_LIST
    assert encoded.refs == [Ref(number) for number in dict.fromkeys(numbers)]
    got = codec.decode(encoded.kind, pin_of(encoded), encoded.refs)
    assert got == value
    assert got is not encoded.refs


def test_list_of_refs_and_something_else_is_pickled() -> None:
    assert roundtrip([Ref(1), 2]) == [Ref(1), 2]


def test_value_without_refs_has_an_empty_list_of_its_own() -> None:
    first, second = codec.encode(1), codec.encode(1)
    assert first.refs == []
    assert first.refs is not second.refs


def test_dynamic_generator_is_made_of_its_refs() -> None:
    encoded = codec.encode_refs([Ref(1), Ref(2)])
    assert (encoded.kind, encoded.nbytes) == (codec.KIND_DYNAMIC, 0)
    got = codec.decode(encoded.kind, None, encoded.refs)
    assert type(got) is Dynamic
    assert got == [Ref(1), Ref(2)]


def test_error_envelope_is_wrapped_and_never_unpickled() -> None:
    bomb = pickle.dumps(Ref.__init__)[:-3]
    encoded = codec.encode_error(bomb)
    got = codec.decode(encoded.kind, pin_of(encoded), [])
    assert type(got) is codec.ErrorPayload
    assert got.data == bomb


# --- calls -------------------------------------------------------------------------------------


def test_call_without_arguments_has_no_payload() -> None:
    encoded = codec.encode_call((), {})
    assert (encoded.kind, encoded.nbytes, encoded.ndeps) == (codec.KIND_CALL, 0, 0)
    assert codec.decode_call(encoded.kind, None, [], []) == ((), {})


def test_top_level_refs_are_dependencies_numbered_first() -> None:
    encoded = codec.encode_call(
        ([Ref(9), Ref(2)], Ref(1), Ref(2)), {"k": Ref(1), "m": {"x": Ref(8)}}
    )
    assert encoded.ndeps == 2
    assert encoded.refs == [Ref(1), Ref(2), Ref(9), Ref(8)]
    args, kwargs = codec.decode_call(encoded.kind, pin_of(encoded), encoded.refs, ["one", "two"])
    assert args == ([Ref(9), Ref(2)], "one", "two")
    assert kwargs == {"k": "one", "m": {"x": Ref(8)}}


def test_call_of_many_and_long_arguments_comes_back_equal() -> None:
    args = (*range(500), "x" * 5000, b"y" * 5000, "é" * 800, 2**80, None, True, 1.5)
    kwargs = {f"näme {i}": i for i in range(100)}
    assert roundtrip_call(*args, **kwargs) == (args, kwargs)


# --- values that cannot be pickled -------------------------------------------------------------


class Holder:
    """Holds something in an attribute."""

    def __init__(self, held: object) -> None:
        self.held = held


class Slotted:
    """Holds something in a slot."""

    __slots__ = ("held", "unset")

    def __init__(self, held: object) -> None:
        self.held = held


def closure_over(lock: object) -> Callable[[], object]:
    return lambda: lock


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda lock: lock, "value of type _thread.lock: cannot pickle '_thread.lock' object"),
        (lambda lock: {"lock": lock}, "value of type dict: item 'lock' is a _thread.lock"),
        (lambda lock: [1, (lock,)], "item 0 of item 1 is a _thread.lock"),
        (lambda lock: {"a": Holder([lock])}, "item 0 of attribute 'held' of item 'a'"),
        (Slotted, "attribute 'held' is a _thread.lock"),
        (closure_over, "value of type function: closure variable 'lock' is a _thread.lock"),
        (lambda _: lambda: LOCK, "global variable 'LOCK' is a _thread.lock"),
        (lambda _: (i for i in ""), "value of type generator: cannot pickle 'generator' object"),
        (lambda lock: {"x" * 100: lock}, "item 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... is a"),
    ],
)
def test_value_that_cannot_be_pickled_raises_and_names_the_part(
    make: Callable[[object], object], text: str
) -> None:
    with pytest.raises(TypeError) as caught:
        codec.encode(make(LOCK))
    assert str(caught.value).startswith("cannot serialise value of type ")
    assert text in str(caught.value)
    assert caught.value.__cause__ is not None


def test_value_that_resists_inspection_raises_the_error_of_pickle() -> None:
    class Hostile:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise ValueError("no")

        def __reduce__(self) -> Any:
            raise TypeError("not this one")

    with pytest.raises(TypeError, match=r"cannot serialise value of type .*Hostile: not this one"):
        codec.encode(Hostile())


def test_argument_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(TypeError, match=r"argument 'k' of type dict: item 'lock' is a _thread"):
        codec.encode_call((1, [2]), {"k": {"lock": LOCK}})
    with pytest.raises(TypeError, match=r"cannot serialise argument 1 of type _thread\.lock"):
        codec.encode_call((1, LOCK), {})


class Raises:
    """Raises the given exception when it is pickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, RecursionError])
def test_error_that_is_not_about_the_value_passes_through(error: type[BaseException]) -> None:
    with pytest.raises(error):
        codec.encode([Raises(error())])
    with pytest.raises(error):
        codec.encode_call(([Raises(error())],), {})


def test_error_of_a_reducer_becomes_the_cause_of_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"item 0 is a .*Raises") as caught:
        codec.encode([Raises(ValueError("no"))])
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("leaf", [0, lambda: 0], ids=["plain", "cloudpickle"])
def test_value_nested_too_deeply_raises_a_recursion_error(leaf: object) -> None:
    value: Any = leaf
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RecursionError):
        codec.encode(value)
    while type(value) is list:  # taken apart here: freed at once, it would nest as deeply
        value = value[0]


def test_failure_leaves_no_state_behind() -> None:
    class Part:
        pass

    part, ref, arr = Part(), Ref(1), np.arange(5)
    value = [ref, arr, part, LOCK]
    alive = weakref.ref(part)
    counts = sys.getrefcount(ref), sys.getrefcount(arr)
    for _ in range(3):
        with pytest.raises(TypeError):
            codec.encode(value)
        with pytest.raises(TypeError):
            codec.encode_call((ref, value), {})
    gc.collect()
    assert (sys.getrefcount(ref), sys.getrefcount(arr)) == counts
    assert codec.encode(value[:2]).refs == [ref]
    del value, part
    gc.collect()
    assert alive() is None


def test_refs_met_by_an_attempt_that_failed_are_forgotten() -> None:
    class Once:
        """Names a ref only at the first attempt."""

        calls = 0

        def __reduce__(self) -> Any:
            self.calls += 1
            return list, ([Ref(50)] if self.calls == 1 else [],)

    encoded = codec.encode([Once(), Ref(1), lambda: 0])
    assert encoded.refs == [Ref(1)]


# --- several encodings at once -----------------------------------------------------------------


class Encodes:
    """Encodes something else while it is being pickled."""

    def __reduce__(self) -> Any:
        inner = codec.encode([np.arange(4), Ref(2), {1}])
        return codec.decode, (inner.kind, inner.to_bytes(), inner.refs)


def test_encoding_inside_an_encoding_works() -> None:
    encoded = codec.encode([Ref(1), Encodes(), np.arange(3)])
    assert encoded.refs == [Ref(1), Ref(2)]
    ref, inner, arr = codec.decode(encoded.kind, pin_of(encoded), encoded.refs)
    assert ref == Ref(1)
    assert inner[0].tolist() == [0, 1, 2, 3]
    assert inner[1:] == [Ref(2), {1}]
    assert arr.tolist() == [0, 1, 2]


def test_threads_encode_and_decode_independently() -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        try:
            start.wait()
            for i in range(100):
                value = [np.full(50_000, seed), Ref(seed), {seed: i}, lambda: seed]
                arr, ref, mapping, function = roundtrip(value)
                assert (arr == seed).all()
                assert (ref, mapping, function()) == (Ref(seed), {seed: i}, seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# --- writing -----------------------------------------------------------------------------------


def test_write_into_a_short_buffer_raises_and_writes_nothing() -> None:
    buffer = bytearray(b"unchanged")
    with pytest.raises(ValueError, match="payload of 10 bytes, buffer of 9 bytes"):
        codec.encode(b"ten bytes!").write_into(buffer)
    assert buffer == b"unchanged"


def test_write_can_be_repeated() -> None:
    encoded = codec.encode({"a": np.arange(3), "b": Ref(1)})
    assert encoded.to_bytes() == encoded.to_bytes() == bytes(pin_of(encoded))


def test_bytearray_cannot_be_resized_before_it_is_written() -> None:
    value = bytearray(100)
    encoded = codec.encode(value)
    with pytest.raises(BufferError):
        value.extend(b"more")
    del encoded
    value.extend(b"more")


def test_array_that_shrinks_before_it_is_written_raises() -> None:
    value = np.arange(1000)
    encoded = codec.encode(value)
    value.resize(10, refcheck=False)
    with pytest.raises(ValueError, match="buffer of 8000 bytes now has 80"):
        encoded.to_bytes()


# --- payloads that nobody encoded --------------------------------------------------------------


def test_writable_pin_is_refused() -> None:
    encoded = codec.encode(np.arange(3))
    with pytest.raises(ValueError, match="must be read-only"):
        codec.decode(encoded.kind, bytearray(encoded.to_bytes()), [])


@pytest.mark.parametrize("kind", [15, 99, 2**32 - 1])
def test_unknown_kind_raises(kind: int) -> None:
    with pytest.raises(ValueError, match=f"unknown kind {kind}"):
        codec.decode(kind, b"12345678", [])


def test_call_and_value_are_not_mistaken_for_each_other() -> None:
    with pytest.raises(ValueError, match="decode_call"):
        codec.decode(codec.KIND_CALL, b"", [])
    with pytest.raises(ValueError, match="kind 3 where"):
        codec.decode_call(codec.KIND_INT, b"12345678", [], [])


@pytest.mark.parametrize(
    "kind", [codec.KIND_INT, codec.KIND_FLOAT, codec.KIND_ARRAY, codec.KIND_PICKLE]
)
@pytest.mark.parametrize("pin", [None, b"", b"1234567"])
def test_payload_that_is_too_short_raises(kind: int, pin: bytes | None) -> None:
    with pytest.raises(ValueError, match="corrupt payload"):
        codec.decode(kind, pin, [])


@pytest.mark.parametrize("pin", [None, b""])
def test_empty_stream_raises(pin: bytes | None) -> None:
    with pytest.raises(ValueError, match="empty pickle stream"):
        codec.decode(codec.KIND_PLAIN, pin, [])


def test_ref_number_out_of_range_raises() -> None:
    for value in ([Ref(1), 2], [Ref(1), Ref(1)]):
        encoded = codec.encode(value)
        with pytest.raises(ValueError, match="ref number 0 of 0"):
            codec.decode(encoded.kind, pin_of(encoded), [])
    encoded = codec.encode_call((Ref(1),), {})
    with pytest.raises(ValueError, match="ref number 0 of 0"):
        codec.decode_call(encoded.kind, pin_of(encoded), [Ref(1)], [])


def within(value: object, pin: Array) -> bool:
    """Tell whether every array in `value` lies inside `pin`."""
    if isinstance(value, dict):
        return all(within(part, pin) for part in value.values())
    if isinstance(value, (list, tuple)):
        return all(within(part, pin) for part in value)
    if not isinstance(value, np.ndarray) or value.size == 0:
        return True
    low, high = byte_bounds(value)
    pin_low, pin_high = byte_bounds(pin)
    return bool(pin_low <= low and high <= pin_high)


def decode_any(kind: int, payload: bytes) -> None:
    """Decode a damaged payload: it may raise ValueError, or give arrays inside the payload."""
    pin = np.frombuffer(payload, np.uint8)
    refs = [Ref(1), Ref(2)]
    try:
        if kind == codec.KIND_CALL:
            got: object = codec.decode_call(kind, pin, refs, [1, 2])
        else:
            got = codec.decode(kind, pin, refs)
    except ValueError:
        return
    assert within(got, pin)


DAMAGED = {
    "array": (codec.encode(np.arange(12.0).reshape(3, 4)), 40),
    "pickle": (codec.encode([np.arange(3.0), np.zeros((2, 2)), Frame(b"abc")]), 24 + 3 * 24 + 72),
    "call": (codec.encode_call((1, "text", 2.5, None), {"k": b"bytes", "name": -1}), 90),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_head_raises_value_error_or_stays_inside_the_payload(name: str) -> None:
    encoded, head_nbytes = DAMAGED[name]
    payload = encoded.to_bytes()
    # Where the stream of a pickle starts and ends is left alone: a stream is trusted.
    first = 24 if name == "pickle" else 0
    for i in range(first, min(head_nbytes, len(payload))):
        for bits in (0x01, 0x10, 0x80, 0xFF):
            damaged = bytearray(payload)
            damaged[i] ^= bits
            decode_any(encoded.kind, bytes(damaged))


@pytest.mark.parametrize("name", DAMAGED)
def test_truncated_payload_raises_value_error(name: str) -> None:
    encoded, _ = DAMAGED[name]
    payload = encoded.to_bytes()
    for nbytes in range(1, len(payload)):
        with pytest.raises(ValueError, match="corrupt payload"):
            if encoded.kind == codec.KIND_CALL:
                codec.decode_call(encoded.kind, payload[:nbytes], [], [])
            else:
                codec.decode(encoded.kind, payload[:nbytes], [])


@given(st.binary(max_size=200))
def test_random_bytes_as_an_array_or_a_call_never_leave_the_payload(payload: bytes) -> None:
    decode_any(codec.KIND_CALL, payload[:12] + bytes(4) + payload[16:])
    decode_any(codec.KIND_ARRAY, payload[:12] + bytes(4) + payload[16:])
