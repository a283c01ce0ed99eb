"""The options of actors and their methods: what each accepts, and what it refuses and when."""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType


class Plain:
    """Be an actor's class; never made, only decorated."""


ACCEPTED = [
    ("num_cpus", [0, 1, 0.5, None]),
    ("num_gpus", [0, None]),
    ("memory", [1000, None]),
    ("object_store_memory", [1000, None]),
    ("resources", [{"token": 1}, None]),
    ("accelerator_type", ["any", None]),
    ("label_selector", [{"key": "value"}, None]),
    ("max_restarts", [-1, 0, 3]),
    ("max_task_retries", [-1, 0, 3]),
    ("max_concurrency", [0, 1, 5, None]),
    ("max_pending_calls", [-1, 0, 5]),
    ("name", ["a name", None]),
    ("namespace", ["a space", None]),
    ("lifetime", [None, "detached", "non_detached"]),
    ("concurrency_groups", [None, {"io": 2}, [{"name": "io", "max_concurrency": 2}]]),
    ("allow_out_of_order_execution", [None, True, False]),
    ("scheduling_strategy", [None, "DEFAULT", "SPREAD"]),
    ("runtime_env", [None, {"env_vars": {"A": "1"}}, {"unheard of": 1}]),
    ("enable_task_events", [True, False]),
]
REFUSED = [
    ("nonsense", 1, ValueError),
    ("num_cpus", -1, ValueError),
    ("num_cpus", "1", TypeError),
    ("object_store_memory", -1, ValueError),
    ("resources", {"CPU": 1}, ValueError),
    ("max_restarts", -2, ValueError),
    ("max_restarts", 1.5, TypeError),
    ("max_task_retries", -2, ValueError),
    ("max_task_retries", 1.5, TypeError),
    ("max_concurrency", -1, ValueError),
    ("max_concurrency", "2", TypeError),
    ("max_pending_calls", -2, ValueError),
    ("max_pending_calls", "2", TypeError),
    ("name", 3, TypeError),
    ("namespace", 3, TypeError),
    ("get_if_exists", 3, TypeError),
    ("get_if_exists", True, ValueError),
    ("lifetime", "long", ValueError),
    ("lifetime", 3, TypeError),
    ("concurrency_groups", 3, TypeError),
    ("allow_out_of_order_execution", 3, TypeError),
    ("scheduling_strategy", 3, TypeError),
    ("runtime_env", {"env_vars": {"A": 1}}, TypeError),
    ("num_returns", 2, ValueError),
    ("max_calls", 1, ValueError),
    ("max_retries", 1, ValueError),
    ("retry_exceptions", True, ValueError),
    ("_generator_backpressure_num_objects", 1, ValueError),
    ("_actor_generator_backpressure_num_objects", 0, ValueError),
    ("_actor_generator_backpressure_num_objects", -2, ValueError),
]


@pytest.mark.parametrize(("option", "values"), ACCEPTED, ids=[name for name, _ in ACCEPTED])
def test_option_with_each_valid_value_is_accepted_at_decoration(
    ray: ModuleType, option: str, values: list[Any]
) -> None:
    for value in values:
        ray.remote(**{option: value})(Plain)


@pytest.mark.parametrize(("option", "value", "error"), REFUSED)
def test_option_with_a_bad_value_raises_at_decoration(
    ray: ModuleType, option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ray.remote(**{option: value})(Plain)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("max_restarts", -2, ValueError),
        ("lifetime", "long", ValueError),
        ("get_if_exists", True, ValueError),
        ("namespace", 3, TypeError),
        ("concurrency_groups", {"io": 1}, ValueError),
        ("max_retries", 1, ValueError),
    ],
)
def test_option_with_a_bad_value_raises_at_options(
    ray: ModuleType, option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ray.remote(Plain).options(**{option: value})


@pytest.mark.deliberately_different("a list is accepted, and fails when the actor is made")
def test_concurrency_groups_in_a_list_are_those_of_the_actor(ray: ModuleType) -> None:
    @ray.remote(concurrency_groups=[{"name": "io", "max_concurrency": 2}])
    class Grouped:
        @ray.method(concurrency_group="io")
        def read(self):
            return "read"

    assert ray.get(Grouped.remote().read.remote()) == "read"


def test_option_unknown_is_named_in_the_error_with_the_valid_ones(ray: ModuleType) -> None:
    text = r"(?s)Invalid option keyword num_cpu for actors\. .*num_cpus"
    with pytest.raises(ValueError, match=text):
        ray.remote(num_cpu=1)(Plain)


def test_option_scheduling_strategy_unknown_raises_at_the_call(ray: ModuleType) -> None:
    actor_class = ray.remote(scheduling_strategy="BEST")(Plain)
    with pytest.raises(ValueError):
        actor_class.remote()


def test_option_scheduling_strategy_may_be_the_one_node(ray: ModuleType) -> None:
    strategies = importlib.import_module(f"{ray.__name__}.util.scheduling_strategies")
    node = ray.get_runtime_context().get_node_id()
    here = strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    task = ray.remote(lambda: ray.get_runtime_context().get_node_id())
    assert ray.get(task.options(scheduling_strategy=here).remote()) == node
    assert ray.remote(scheduling_strategy=here)(Plain)


def actor_with_a_method(ray: ModuleType) -> Any:
    """Return an actor whose class travels by value: workers need not import this module."""

    @ray.remote
    class Local:
        def method(self):
            return 1

    return Local.remote()


def test_max_concurrency_zero_is_the_default(ray: ModuleType) -> None:
    @ray.remote(max_concurrency=0)
    class Looks:
        def is_in_the_main_thread(self):
            return threading.current_thread() is threading.main_thread()

    assert ray.get(Looks.remote().is_in_the_main_thread.remote()) is True


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_returns", 1),
        ("concurrency_group", "io"),
        ("max_task_retries", 1),
        ("retry_exceptions", True),
        ("retry_exceptions", [KeyError]),
        ("_generator_backpressure_num_objects", 1),
        ("enable_task_events", False),
    ],
)
def test_method_decorator_accepts_its_options(ray: ModuleType, option: str, value: Any) -> None:
    class Decorated:
        @ray.method(**{option: value})
        def method(self):
            return 1

    assert ray.remote(concurrency_groups={"io": 1})(Decorated)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_returns", 1),
        ("concurrency_group", None),
        ("max_task_retries", 1),
        ("retry_exceptions", True),
        ("_generator_backpressure_num_objects", 1),
        ("enable_task_events", False),
        ("name", "a name"),
    ],
)
def test_method_of_a_handle_accepts_the_same_options_and_a_name(
    ray: ModuleType, option: str, value: Any
) -> None:
    actor = actor_with_a_method(ray)
    assert ray.get(actor.method.options(**{option: value}).remote()) == 1


@pytest.mark.parametrize("option", ["name", "num_cpus", "max_retries"])
def test_method_decorator_refuses_other_options(ray: ModuleType, option: str) -> None:
    with pytest.raises(AssertionError):
        ray.method(**{option: 1})


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), ("several", TypeError)], ids=["negative", "text"]
)
def test_method_of_a_handle_refuses_bad_num_returns(
    ray: ModuleType, value: Any, error: type[Exception]
) -> None:
    actor = actor_with_a_method(ray)
    with pytest.raises(error):
        actor.method.options(num_returns=value).remote()


def test_method_of_a_handle_refuses_other_options(ray: ModuleType) -> None:
    actor = actor_with_a_method(ray)
    with pytest.raises(TypeError, match="unexpected keyword"):
        actor.method.options(num_cpus=1).remote()  # Ray says so at the call


def test_objects_per_yield_belong_to_the_method_and_not_to_a_call(ray: ModuleType) -> None:
    actor = actor_with_a_method(ray)
    ray.method(_num_objects_per_yield=2)
    with pytest.raises(ValueError, match="_num_objects_per_yield"):
        actor.method.options(_num_objects_per_yield=2)
