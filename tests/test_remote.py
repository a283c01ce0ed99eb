"""@remote: exporting, checking a call against the signature, options at the call."""

import functools
import inspect
import pickle
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from support import MIB

import ray_lite as ray
from ray_lite.remote import RemoteFunction, Signature
from ray_lite.session import Connection


@ray.remote
def at_module_level(x: int) -> int:
    """Return twice x."""
    return 2 * x


# ---- exporting ----


def test_function_is_exported_once_a_session_however_often_it_is_called(
    session: Connection,
) -> None:
    same = ray.remote(lambda x: x)
    before = session.core.usage()["objects"]
    assert ray.get([same.remote(i) for i in range(10)]) == list(range(10))
    for i in range(10):
        assert ray.get(same.options(name=f"call{i}", num_cpus=0).remote(i)) == i
    assert len(session.cache) == 1
    assert session.core.usage()["objects"] == before + 1


def test_function_of_a_module_is_found_by_name_and_one_of_a_test_travels(
    session: Connection,
) -> None:
    assert ray.get(at_module_level.remote(4)) == 8
    offset = 3
    assert ray.get(ray.remote(lambda x: x + offset).remote(4)) == 7


def test_function_sees_its_captured_values_as_they_were_at_the_first_call(
    session: Connection,
) -> None:
    captured = [1]
    look = ray.remote(lambda: captured[0])
    assert ray.get(look.remote()) == 1
    captured[0] = 2
    assert ray.get(look.remote()) == 1


def test_function_that_cannot_be_pickled_raises_type_error_with_its_name(
    session: Connection,
) -> None:
    lock = threading.Lock()

    @ray.remote
    def unpicklable():
        return lock

    with pytest.raises(TypeError, match=r"Could not serialize the function .*unpicklable"):
        unpicklable.remote()
    assert session.core.usage()["objects"] == 0


@pytest.mark.session(num_cpus=1)
def test_function_that_a_worker_has_forgotten_is_loaded_again(
    session: Connection,
) -> None:
    @ray.remote
    def forget_all_but_one():
        from ray_lite import worker

        worker.FUNCTIONS_KEPT = 1

    first, second = ray.remote(lambda: "first"), ray.remote(lambda: "second")
    assert ray.get(first.remote()) == "first"
    ray.get(forget_all_but_one.remote())
    for _ in range(3):
        assert ray.get([first.remote(), second.remote()]) == ["first", "second"]


@pytest.mark.session(worker_exports=2)
def test_remote_function_can_be_captured_passed_and_called_in_a_task(session: Connection) -> None:
    double = ray.remote(lambda x: 2 * x)
    captured = ray.remote(lambda x: ray.get(double.remote(x)))
    passed = ray.remote(lambda f, x: ray.get(f.remote(x)))
    optioned = ray.remote(lambda f, x: ray.get(f.options(num_cpus=0).remote(x)))
    assert ray.get(captured.remote(1)) == 2
    assert ray.get(passed.remote(double, 2)) == 4
    assert ray.get(optioned.remote(double, 3)) == 6


def test_argument_that_cannot_be_pickled_raises_type_error_with_the_functions_name(
    session: Connection,
) -> None:
    with pytest.raises(TypeError, match=r"argument for a task or actor .*at_module_level"):
        at_module_level.remote(threading.Lock())


def test_wrong_call_raises_before_anything_is_submitted(session: Connection) -> None:
    with pytest.raises(TypeError, match="missing"):
        at_module_level.remote()
    assert session.core.usage()["tasks"] == 0


# ---- the object ----


def test_remote_function_looks_like_its_function() -> None:
    assert at_module_level.__name__ == "at_module_level"
    assert at_module_level.__doc__ == "Return twice x."
    assert inspect.signature(at_module_level._function).parameters.keys() == {"x"}
    assert "at_module_level" in repr(at_module_level)
    assert isinstance(at_module_level, RemoteFunction)


def test_remote_function_called_directly_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"at_module_level\.remote\(\)"):
        at_module_level(1)


def test_remote_function_without_an_attribute_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        at_module_level.nothing_like_it  # noqa: B018


def test_remote_function_survives_pickling_with_its_options() -> None:
    f = ray.remote(num_returns=2, name="pair")(lambda: (1, 2))
    again = pickle.loads(cloudpickle.dumps(f))
    assert again._options == f._options
    with ray.init(num_cpus=1, object_store_memory=100 * MIB):
        assert ray.get(again.remote()) == [1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ray.remote(len),
        lambda: ray.remote(functools.partial(int, 1)),
        lambda: ray.remote(num_cpus=1)("not a function"),
    ],
)
def test_remote_of_what_is_no_function_raises_type_error(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="must be applied to either a function or a class"):
        make()


# ---- signatures ----


def nothing() -> None: ...
def one(a): ...
def default(a, b=1): ...
def variadic(*args): ...
def keywords(**kwargs): ...
def keyword_only(a, *, k): ...
def keyword_default(a, *, k=1): ...
def positional_only(a, /, b): ...


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((1, 2), {}),
    ((1, 2, 3), {}),
    ((), {"a": 1}),
    ((1,), {"a": 1}),
    ((1,), {"b": 1}),
    ((1,), {"k": 1}),
    ((), {"a": 1, "b": 2}),
    ((1,), {"unknown": 1}),
]


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize(
    "function",
    [
        nothing,
        one,
        default,
        variadic,
        keywords,
        keyword_only,
        keyword_default,
        positional_only,
    ],
)
def test_signature_check_agrees_with_python(
    function: Callable[..., Any], call: tuple[tuple[Any, ...], dict[str, Any]]
) -> None:
    args, kwargs = call
    try:
        function(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            Signature("function", inspect.signature(function)).check(args, kwargs)
    else:
        Signature("function", inspect.signature(function)).check(args, kwargs)


def test_call_that_does_not_fit_names_the_function_and_its_signature() -> None:
    with pytest.raises(TypeError) as info:
        Signature("work", inspect.signature(lambda x, *, scale=1: x)).check((), {})
    assert str(info.value) == "work(x, *, scale=1): missing a required argument: 'x'"
