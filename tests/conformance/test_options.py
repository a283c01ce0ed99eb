"""The options of tasks: what each accepts, what it refuses and when, and what it does."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Gate


def body() -> int:
    """Be a task's body; never called, only decorated."""
    return 1


ACCEPTED = [
    ("num_returns", [0, 1, 3, None, True]),
    ("num_cpus", [0, 1, 0.5, 0.0001, None]),
    ("resources", [{}, {"token": 1}, {"token": 0.5}, None]),
    ("memory", [1000, None]),
    ("num_gpus", [0, None]),
    ("accelerator_type", ["any", None]),
    ("label_selector", [{"key": "value"}, None]),
    ("max_retries", [-1, 0, 5, None]),
    ("retry_exceptions", [True, False, [ValueError], (ValueError, KeyError)]),
    ("max_calls", [0, 3, None]),
    ("name", ["a name", None]),
    ("scheduling_strategy", [None, "DEFAULT", "SPREAD"]),
    ("runtime_env", [None, {"env_vars": {"A": "1"}}, {"unheard of": 1}]),
    ("enable_task_events", [True, False]),
    ("_generator_backpressure_num_objects", [None, 1, -1]),
    ("_num_objects_per_yield", [None, 1]),
]
REFUSED = [
    ("num_returns", -1, ValueError),
    ("num_returns", 1.5, TypeError),
    ("num_returns", "several", TypeError),
    ("num_returns", "dynamic", ValueError),
    ("num_returns", "streaming", ValueError),
    ("num_cpus", -1, ValueError),
    ("num_cpus", 0.00001, ValueError),
    ("num_cpus", "1", TypeError),
    ("resources", {"CPU": 1}, ValueError),
    ("resources", {"GPU": 1}, ValueError),
    ("resources", {"token": -1}, ValueError),
    ("resources", ["token"], TypeError),
    ("num_gpus", -1, ValueError),
    ("num_gpus", "1", TypeError),
    ("memory", -1, ValueError),
    ("accelerator_type", 5, TypeError),
    ("label_selector", 5, TypeError),
    ("object_store_memory", 1000, ValueError),
    ("max_retries", -2, ValueError),
    ("max_retries", 1.0, TypeError),
    ("retry_exceptions", ValueError, TypeError),
    ("retry_exceptions", 1, TypeError),
    ("retry_exceptions", None, TypeError),
    ("retry_exceptions", [3], ValueError),
    ("retry_exceptions", [KeyboardInterrupt], ValueError),
    ("max_calls", -1, ValueError),
    ("max_calls", 1.5, TypeError),
    ("name", 5, TypeError),
    ("scheduling_strategy", 5, TypeError),
    ("runtime_env", "A=1", TypeError),
    ("runtime_env", {"env_vars": {"A": 1}}, TypeError),
    ("_generator_backpressure_num_objects", 0, ValueError),
    ("_generator_backpressure_num_objects", "2", TypeError),
    ("max_restarts", 1, ValueError),
    ("num_cpu", 1, ValueError),
]


@pytest.mark.parametrize(("option", "values"), ACCEPTED, ids=[name for name, _ in ACCEPTED])
def test_option_with_each_valid_value_is_accepted_at_decoration(
    ray: ModuleType, option: str, values: list[Any]
) -> None:
    for value in values:
        ray.remote(**{option: value})(body)


@pytest.mark.parametrize(("option", "value", "error"), REFUSED)
def test_option_with_a_bad_value_raises_at_decoration(
    ray: ModuleType, option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ray.remote(**{option: value})(body)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("num_returns", -1, ValueError),
        ("num_returns", "dynamic", ValueError),
        ("num_cpus", "1", TypeError),
        ("max_retries", -2, ValueError),
        ("max_calls", 2, ValueError),
        ("num_cpu", 1, ValueError),
    ],
)
def test_option_with_a_bad_value_raises_at_options(
    ray: ModuleType, option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ray.remote(body).options(**{option: value})


def test_option_unknown_is_named_in_the_error_with_the_valid_ones(ray: ModuleType) -> None:
    text = r"(?s)Invalid option keyword num_cpu for remote functions\. .*num_cpus"
    with pytest.raises(ValueError, match=text):
        ray.remote(num_cpu=1)(body)


def test_option_scheduling_strategy_of_this_node_runs_here(ray: ModuleType) -> None:
    strategies = importlib.import_module(f"{ray.__name__}.util.scheduling_strategies")
    node = ray.get_runtime_context().get_node_id()
    here = strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    assert ray.get(ray.remote(lambda: 1).options(scheduling_strategy=here).remote()) == 1
    with pytest.raises(ValueError, match="node_id"):
        strategies.NodeAffinitySchedulingStrategy("this one", soft=True)


def test_option_scheduling_strategy_unknown_raises_at_the_call(ray: ModuleType) -> None:
    function = ray.remote(scheduling_strategy="BEST")(body)
    with pytest.raises(ValueError):
        function.remote()


def test_options_win_over_the_decorator_and_last_for_one_call(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def pair():
        return 1, 2

    assert ray.get(pair.options(num_returns=1).remote()) == (1, 2)
    assert ray.get(pair.remote()) == [1, 2]


def test_options_keep_what_they_do_not_name(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def pair():
        return 1, 2

    assert ray.get(pair.options(name="other").remote()) == [1, 2]


def test_options_cannot_be_chained(ray: ModuleType) -> None:
    with pytest.raises(AttributeError):
        ray.remote(body).options(num_cpus=1).options(num_cpus=1)


def test_num_returns_true_means_one(ray: ModuleType) -> None:
    @ray.remote(num_returns=True)
    def f():
        return [7]

    assert ray.get(f.remote()) == [7]


def test_task_that_wants_all_cpus_waits_for_a_running_one(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote
    def held(arrived, leave):
        open(arrived).close()
        open(leave).close()

    arrived, leave = new_gate(), new_gate()
    held.remote(arrived.path, leave.path)
    arrived.meet()
    waiting = ray.remote(num_cpus=2)(lambda: "wide").remote()
    assert ray.wait([waiting], timeout=0.2) == ([], [waiting])
    leave.open()
    assert ray.get(waiting) == "wide"


def test_task_that_wants_no_cpu_runs_while_all_are_taken(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote(num_cpus=2)
    def wide(arrived, leave):
        open(arrived).close()
        open(leave).close()

    @ray.remote(num_cpus=0)
    def free():
        return "free"

    arrived, leave = new_gate(), new_gate()
    wide.remote(arrived.path, leave.path)
    arrived.meet()
    assert ray.get(free.remote()) == "free"


def test_tasks_that_want_half_a_cpu_run_four_at_a_time(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote(num_cpus=0.5)
    def held(arrived, leave):
        open(arrived).close()
        open(leave).close()
        return 1

    arrived, leave = [new_gate() for _ in range(4)], new_gate()
    refs = [held.remote(gate.path, leave.path) for gate in arrived]
    for gate in arrived:
        gate.meet()
    leave.open()
    assert ray.get(refs) == [1] * 4


def test_tasks_that_want_the_same_resource_run_one_after_the_other(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    @ray.remote(num_cpus=0, resources={"token": 1})
    def exclusive(arrived, leave):
        open(arrived).close()
        open(leave).close()
        return "done"

    arrived, leave, passing = new_gate(), new_gate(), new_gate()
    passing.open()
    first = exclusive.remote(arrived.path, leave.path)
    arrived.meet()
    second = exclusive.remote(passing.path, passing.path)
    assert ray.wait([second], timeout=0.2) == ([], [second])
    leave.open()
    assert ray.get([first, second]) == ["done", "done"]


@pytest.mark.parametrize("options", [{"num_cpus": 5}, {"resources": {"unheard of": 1}}])
def test_task_that_can_never_run_pends_and_holds_nobody_up(
    ray: ModuleType, options: dict[str, Any]
) -> None:
    function = ray.remote(lambda: 1)
    pending = function.options(**options).remote()
    assert ray.get(function.remote()) == 1
    assert ray.wait([pending], timeout=0.1) == ([], [pending])


def test_actor_that_holds_all_cpus_holds_tasks_up(ray: ModuleType) -> None:
    @ray.remote(num_cpus=2)
    class Wide:
        def ready(self):
            return True

    actor = Wide.remote()
    assert ray.get(actor.ready.remote()) is True
    waiting = ray.remote(lambda: "ran").remote()
    assert ray.wait([waiting], timeout=0.2) == ([], [waiting])
    ray.kill(actor)
    assert ray.get(waiting) == "ran"


@pytest.mark.deliberately_different("an actor keeps its CPUs while a method of it waits")
def test_actor_whose_method_waits_lends_its_cpus(ray: ModuleType) -> None:
    inner = ray.remote(num_cpus=2)(lambda: "inner")

    @ray.remote(num_cpus=2)
    class Wide:
        def wait(self):
            return ray.get(inner.remote())

    actor = Wide.remote()
    try:
        assert ray.get(actor.wait.remote(), timeout=5) == "inner"
    finally:
        ray.kill(actor)


def test_worker_without_max_calls_is_used_again(ray: ModuleType) -> None:
    pid = ray.remote(lambda: os.getpid())
    assert len({ray.get(pid.remote()) for _ in range(10)}) < 10


def test_max_calls_ends_the_worker_after_so_many_calls(ray: ModuleType) -> None:
    @ray.remote(max_calls=1)
    def pid():
        return os.getpid()

    assert len({ray.get(pid.remote()) for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "options",
    [{"max_retries": -1}, {"num_returns": None}, {"name": "a name"}, {"num_cpus": None}],
    ids=lambda options: next(iter(options)),
)
def test_options_with_unusual_values_run_the_task(ray: ModuleType, options: dict[str, Any]) -> None:
    assert ray.get(ray.remote(lambda: 1).options(**options).remote()) == 1


@pytest.mark.deliberately_different("num_retries is no alias of max_retries, but a ValueError")
def test_num_retries_is_an_alias_of_max_retries(ray: ModuleType) -> None:
    @ray.remote(num_retries=0)
    def crash():
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crash.remote())


@pytest.mark.deliberately_different("num_retries is no alias of max_retries, but a ValueError")
@pytest.mark.parametrize(("value", "error"), [(-2, ValueError), (1.0, TypeError)])
def test_num_retries_is_checked_as_max_retries_is(
    ray: ModuleType, value: Any, error: type[Exception]
) -> None:
    assert ray.remote(num_retries=1)(body)
    with pytest.raises(error):
        ray.remote(num_retries=value)(body)
