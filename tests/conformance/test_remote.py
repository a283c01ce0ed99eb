"""remote: what it decorates, how a remote function is called, what travels with it."""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Gate


def test_remote_as_a_bare_decorator_runs_the_function(ray: ModuleType) -> None:
    @ray.remote
    def f(x):
        return x + 1

    assert ray.get(f.remote(1)) == 2


def test_remote_with_options_runs_the_function(ray: ModuleType) -> None:
    @ray.remote(num_cpus=1)
    def f(x):
        return x + 1

    assert ray.get(f.remote(1)) == 2


def test_remote_as_a_call_runs_the_function(ray: ModuleType) -> None:
    def f(x):
        return x + 1

    assert ray.get(ray.remote(f).remote(1)) == 2
    assert ray.get(ray.remote(num_cpus=1)(f).remote(1)) == 2


def test_remote_takes_a_lambda(ray: ModuleType) -> None:
    assert ray.get(ray.remote(lambda x: x * 2).remote(4)) == 8


@pytest.mark.parametrize(
    ("args", "options"),
    [((), {}), ((3,), {}), ((lambda: 1,), {"num_cpus": 1})],
    ids=["nothing", "a number", "function and option"],
)
def test_remote_used_in_a_wrong_way_raises_assertion_error(
    ray: ModuleType, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(AssertionError):
        ray.remote(*args, **options)


@pytest.mark.parametrize(
    "thing",
    [len, functools.partial(print, 1), threading.Event()],
    ids=["builtin", "partial", "instance"],
)
def test_remote_on_what_is_no_function_raises_type_error(ray: ModuleType, thing: Any) -> None:
    with pytest.raises(TypeError, match="function or a class"):
        ray.remote(num_cpus=1)(thing)


def test_remote_on_a_coroutine_function_raises_value_error(ray: ModuleType) -> None:
    async def f():
        return 1

    with pytest.raises(ValueError):
        ray.remote(f)


def test_remote_function_called_directly_raises_type_error(ray: ModuleType) -> None:
    @ray.remote
    def f():
        return 1

    with pytest.raises(TypeError, match="cannot be called directly"):
        f()


def test_remote_gives_a_remote_function_that_knows_the_original(ray: ModuleType) -> None:
    def f():
        return 1

    function = ray.remote(f)
    assert type(function) is ray.remote_function.RemoteFunction
    assert function._function is f


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"z": 1}, "unexpected keyword argument 'z'"),
        ((1,), {"x": 1}, "multiple values for argument 'x'"),
    ],
    ids=["too few", "too many", "unknown keyword", "twice"],
)
def test_remote_call_that_does_not_fit_the_signature_raises_type_error_at_the_call(
    ray: ModuleType, args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    @ray.remote
    def f(x, y=0):
        return x, y

    with pytest.raises(TypeError, match=text):
        f.remote(*args, **kwargs)


def test_remote_call_passes_defaults_stars_and_keywords(ray: ModuleType) -> None:
    @ray.remote
    def f(a, b=2, *rest, c, d=4, **more):
        return a, b, rest, c, d, more

    assert ray.get(f.remote(1, c=3)) == (1, 2, (), 3, 4, {})
    assert ray.get(f.remote(1, 5, 6, 7, c=8, e=9)) == (1, 5, (6, 7), 8, 4, {"e": 9})


def test_remote_call_snapshots_its_arguments(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def f(path, values):
        open(path).close()
        return values

    values = [1]
    ref = f.remote(gate.path, values)
    values.append(2)
    gate.open()
    assert ray.get(ref) == [1]


def test_remote_call_with_an_unpicklable_argument_raises_type_error_at_the_call(
    ray: ModuleType,
) -> None:
    @ray.remote
    def keep(x):
        return x

    text = r"Could not serialize the argument .*for a task or actor .*\.keep:"
    with pytest.raises(TypeError, match=text):
        keep.remote(threading.Lock())


def test_remote_function_with_an_unpicklable_closure_raises_type_error_at_the_call(
    ray: ModuleType,
) -> None:
    lock = threading.Lock()

    @ray.remote
    def f():
        return lock

    with pytest.raises(TypeError, match="Could not serialize the function"):
        f.remote()


def test_remote_function_is_captured_at_its_first_call(ray: ModuleType) -> None:
    captured = [1]

    @ray.remote
    def f():
        return list(captured)

    assert ray.get(f.remote()) == [1]
    captured.append(2)
    assert ray.get(f.remote()) == [1]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("size", [3, 100_000])
def test_array_that_a_function_captured_is_its_own_to_write(
    ray: ModuleType, size: int, order: str
) -> None:
    buffers = [np.zeros((2, size), order=order)]

    @ray.remote
    def add(default=np.ones(size)):  # noqa: B008 - the array of a worker is what is meant
        buffers[0][1] += default
        default[:] += 1
        return buffers[0].flags.f_contiguous, float(buffers[0].sum())

    assert ray.get(add.remote()) == (order == "F", size)
    assert not buffers[0].any()


def test_array_that_an_actors_class_has_is_its_own_to_write(ray: ModuleType) -> None:
    @ray.remote
    class Adds:
        shared = np.zeros(100_000)

        def add(self):
            self.shared += 1
            return float(self.shared.sum())

    actor = Adds.remote()
    assert [ray.get(actor.add.remote()) for _ in range(2)] == [100_000, 200_000]


@pytest.mark.deliberately_different(
    "an array is stored once a call, however often it is an argument of it"
)
def test_remote_call_gets_the_same_array_twice_as_one_object(ray: ModuleType) -> None:
    @ray.remote
    def same(a, b):
        return a is b

    array = np.arange(3)
    assert ray.get(same.remote(array, array)) is True


def test_remote_function_runs_in_another_process(ray: ModuleType) -> None:
    @ray.remote
    def pid():
        return os.getpid()

    assert ray.get(pid.remote()) != os.getpid()


def test_remote_functions_run_side_by_side(ray: ModuleType, new_gate: Callable[[], Gate]) -> None:
    @ray.remote
    def held(path):
        open(path).close()
        return os.getpid()

    gates = [new_gate(), new_gate()]
    refs = [held.remote(gate.path) for gate in gates]
    for gate in reversed(gates):
        gate.meet()
    assert len(set(ray.get(refs))) == 2


def test_remote_function_can_be_passed_to_a_task(ray: ModuleType) -> None:
    @ray.remote
    def double(x):
        return 2 * x

    @ray.remote
    def apply(function, x):
        return ray.get(function.remote(x))

    assert ray.get(apply.remote(double, 4)) == 8


def test_nested_tasks_deeper_than_the_cpus_finish(ray: ModuleType) -> None:
    @ray.remote
    def down(depth):
        return 0 if depth == 0 else 1 + ray.get(down.remote(depth - 1))

    assert ray.get(down.remote(6)) == 6


def test_nested_tasks_fan_out_and_in(ray: ModuleType) -> None:
    @ray.remote
    def leaf(x):
        return x

    @ray.remote
    def node(x):
        return sum(ray.get([leaf.remote(x + i) for i in range(3)]))

    assert ray.get([node.remote(10 * i) for i in range(4)]) == [3, 33, 63, 93]


def test_task_blocked_in_get_gives_its_cpu_back(ray: ModuleType) -> None:
    @ray.remote(num_cpus=2)
    def inner():
        return "inner"

    @ray.remote(num_cpus=2)
    def outer():
        return ray.get(inner.remote())

    assert ray.get(outer.remote()) == "inner"


def test_many_small_tasks_all_finish(ray: ModuleType) -> None:
    @ray.remote
    def f(x):
        return x

    assert ray.get([f.remote(i) for i in range(300)]) == list(range(300))


def test_a_chain_of_dependent_tasks_passes_the_value_on(ray: ModuleType) -> None:
    @ray.remote
    def add_one(x):
        return x + 1

    ref = ray.put(0)
    for _ in range(20):
        ref = add_one.remote(ref)
    assert ray.get(ref) == 20


def test_task_result_that_is_ignored_harms_nothing(ray: ModuleType) -> None:
    @ray.remote
    def f(x):
        return x

    f.remote(1)
    assert ray.get(f.remote(2)) == 2


def test_tasks_submitted_from_several_threads_all_finish(ray: ModuleType) -> None:
    @ray.remote
    def f(x):
        return x

    results: dict[int, int] = {}

    def submit(number: int) -> None:
        results[number] = ray.get(f.remote(number))

    threads = [threading.Thread(target=submit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: i for i in range(4)}
