"""Rules for the options of tasks, actors, methods and init: every row, both sides of each bound."""

import pickle
import warnings
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from ray_lite._actor_options import (
    ActorOptions,
    MethodOptions,
    parse_actor_options,
    parse_method_options,
)
from ray_lite._options import (
    MIN_OBJECT_STORE_MEMORY,
    InitOptions,
    TaskOptions,
    check_init_options,
    parse_task_options,
)


def parse(is_generator: bool = False, **options: Any) -> TaskOptions:
    return parse_task_options(options, is_generator=is_generator)


class NodeAffinitySchedulingStrategy:
    pass


# ---- tasks: defaults and merging ----


def test_task_options_without_any_are_the_defaults() -> None:
    assert parse() == TaskOptions()
    assert (parse().max_retries, parse().num_cpus, parse().num_returns) == (3, 1.0, 1)


def test_task_options_of_a_generator_function_default_to_streaming() -> None:
    assert parse(is_generator=True).num_returns == "streaming"
    assert parse(is_generator=True, num_returns=None).num_returns == "streaming"


@pytest.mark.parametrize(
    "key",
    [
        "num_returns",
        "num_cpus",
        "num_gpus",
        "memory",
        "resources",
        "accelerator_type",
        "label_selector",
        "max_retries",
        "name",
        "scheduling_strategy",
        "runtime_env",
        "max_calls",
        "_generator_backpressure_num_objects",
        "_num_objects_per_yield",
    ],
)
def test_task_option_none_is_the_default(key: str) -> None:
    assert parse_task_options({key: None}, is_generator=False) == TaskOptions()


def test_task_options_are_laid_over_the_base_one_by_one() -> None:
    base = parse(num_cpus=2, max_retries=5, num_returns=4, name="a", max_calls=7)
    merged = parse_task_options({"name": "b"}, is_generator=False, base=base)
    assert (merged.num_cpus, merged.max_retries, merged.num_returns) == (2.0, 5, 4)
    assert (merged.name, merged.max_calls) == ("b", 7)


def test_task_options_over_a_base_reset_num_returns_by_none() -> None:
    base = parse(is_generator=True, num_returns=4)
    merged = parse_task_options({"num_returns": None}, is_generator=True, base=base)
    assert merged.num_returns == "streaming"


def test_task_options_are_frozen_and_survive_pickle() -> None:
    options = parse(resources={"disk": 0.5}, retry_exceptions=[OSError])
    with pytest.raises(FrozenInstanceError):
        options.name = "x"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(options)) == options


def test_task_options_keep_copies_of_dictionaries() -> None:
    resources = {"disk": 1}
    options = parse(resources=resources)
    resources["disk"] = 9
    assert options.resources == {"disk": 1.0}


# ---- tasks: each option ----


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (3, 3),
        (True, 1),
        (np.int64(5), 5),
    ],
)
def test_num_returns_count_is_kept_as_int(value: Any, expected: int) -> None:
    assert parse(num_returns=value).num_returns == expected
    assert type(parse(num_returns=value).num_returns) is int


@pytest.mark.parametrize("mode", ["dynamic", "streaming"])
def test_num_returns_mode_needs_a_generator_function(mode: str) -> None:
    assert parse(is_generator=True, num_returns=mode).num_returns == mode
    with pytest.raises(ValueError, match="needs a generator function"):
        parse(num_returns=mode)
    with pytest.raises(ValueError, match="needs a generator function"):
        parse_task_options({"num_returns": mode}, is_generator=False, base=TaskOptions())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_returns": -1}, ValueError),
        ({"num_returns": 1.5}, TypeError),
        ({"num_returns": "many"}, TypeError),
        ({"num_returns": np.ones(2)}, TypeError),
        ({"num_cpus": -1}, ValueError),
        ({"num_cpus": -0.5}, ValueError),
        ({"num_cpus": "1"}, TypeError),
        ({"num_cpus": 0.00001}, ValueError),
        ({"num_cpus": float("nan")}, ValueError),
        ({"num_cpus": float("inf")}, ValueError),
        ({"num_cpus": 10**400}, ValueError),
        ({"num_gpus": -1}, ValueError),
        ({"num_gpus": "1"}, TypeError),
        ({"memory": -1}, ValueError),
        ({"memory": "1G"}, TypeError),
        ({"resources": [1]}, TypeError),
        ({"resources": {"CPU": 1}}, ValueError),
        ({"resources": {"GPU": 1}}, ValueError),
        ({"resources": {"memory": 1}}, ValueError),
        ({"resources": {"object_store_memory": 1}}, ValueError),
        ({"resources": {"disk": -1}}, ValueError),
        ({"resources": {"disk": 0.00005}}, ValueError),
        ({"resources": {"disk": "1"}}, TypeError),
        ({"resources": {3: 1}}, TypeError),
        ({"accelerator_type": 3}, TypeError),
        ({"label_selector": "a"}, TypeError),
        ({"label_selector": {"a": 1}}, TypeError),
        ({"max_retries": -2}, ValueError),
        ({"max_retries": 1.0}, TypeError),
        ({"max_retries": "3"}, TypeError),
        ({"num_retries": -2}, ValueError),
        ({"retry_exceptions": ValueError}, TypeError),
        ({"retry_exceptions": 1}, TypeError),
        ({"retry_exceptions": None}, TypeError),
        ({"retry_exceptions": [3]}, ValueError),
        ({"retry_exceptions": [KeyboardInterrupt]}, ValueError),
        ({"retry_exceptions": (ValueError, "x")}, ValueError),
        ({"max_calls": -1}, ValueError),
        ({"max_calls": 1.5}, TypeError),
        ({"name": 3}, TypeError),
        ({"scheduling_strategy": 3}, TypeError),
        ({"runtime_env": "x"}, TypeError),
        ({"runtime_env": {"env_vars": 3}}, TypeError),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError),
        ({"runtime_env": {"env_vars": {1: "A"}}}, TypeError),
        ({"_generator_backpressure_num_objects": 0}, ValueError),
        ({"_generator_backpressure_num_objects": "2"}, TypeError),
        ({"_num_objects_per_yield": 0}, ValueError),
    ],
    ids=str,
)
def test_task_option_that_breaks_its_rule_raises_and_names_the_option(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        parse(is_generator=True, **options)
    assert type(caught.value) is error
    # The alias is reported under the name of the option that it stands for.
    assert next(iter(options)).replace("num_retries", "max_retries") in str(caught.value)


@pytest.mark.parametrize("key", ["numcpus", "max_restarts", "max_concurrency", "lifetime"])
def test_unknown_option_raises_and_lists_the_valid_ones(key: str) -> None:
    with pytest.raises(ValueError, match=f"Invalid option keyword {key} for remote func") as caught:
        parse_task_options({key: 1}, is_generator=False)
    assert "num_returns" in str(caught.value)
    assert "_num_objects_per_yield" in str(caught.value)


def test_object_store_memory_of_a_task_raises_and_points_to_init() -> None:
    with pytest.raises(ValueError, match=r"init\(object_store_memory"):
        parse(object_store_memory=10**9)


def test_num_retries_is_another_name_for_max_retries() -> None:
    assert parse(num_retries=7).max_retries == 7
    assert parse(num_retries=-1).max_retries == -1


def test_num_retries_beside_max_retries_raises() -> None:
    with pytest.raises(ValueError, match="same option"):
        parse(num_retries=1, max_retries=1)


def test_max_calls_in_options_raises() -> None:
    assert parse(max_calls=2).max_calls == 2
    with pytest.raises(ValueError, match="max_calls"):
        parse_task_options({"max_calls": 2}, is_generator=False, base=TaskOptions())


@pytest.mark.parametrize(("value", "kept"), [(1, 1), (5, 5), (-1, None), (-9, None)])
def test_backpressure_that_is_negative_is_off(value: int, kept: int | None) -> None:
    options = parse(is_generator=True, _generator_backpressure_num_objects=value)
    assert options.generator_backpressure_num_objects == kept


def test_scheduling_strategy_of_an_unknown_name_raises_only_at_the_call() -> None:
    options = parse(scheduling_strategy="NEAREST")
    with pytest.raises(ValueError, match="NEAREST"):
        options.check_at_call()


@pytest.mark.parametrize("value", ["DEFAULT", "SPREAD", NodeAffinitySchedulingStrategy()])
def test_scheduling_strategy_that_is_known_passes(value: object) -> None:
    options = parse(scheduling_strategy=value)
    options.check_at_call()
    assert options.scheduling_strategy is value


def test_runtime_env_keeps_env_vars_and_tolerates_unknown_keys() -> None:
    options = parse(runtime_env={"env_vars": {"A": "1"}, "pip": ["x"]})
    assert options.env_vars() == {"A": "1"}
    assert options.runtime_env["pip"] == ["x"]
    assert parse().env_vars() == {}
    assert parse(runtime_env={"env_vars": None}).env_vars() == {}


def test_options_without_effect_are_accepted() -> None:
    assert parse(enable_task_events=False, _metadata={"a": 1}) == TaskOptions()


# ---- tasks: what the options mean ----


def test_demand_counts_in_units_of_a_ten_thousandth() -> None:
    assert parse().demand() == {"CPU": 10_000}
    assert parse(num_cpus=0).demand() == {"CPU": 0}
    assert parse(num_cpus=0.0001).demand() == {"CPU": 1}
    assert parse(num_cpus=0.1 + 0.2).demand() == {"CPU": 3_000}


def test_demand_has_custom_resources_but_none_of_zero() -> None:
    options = parse(num_cpus=2, resources={"disk": 0.25, "tape": 0}, num_gpus=1, memory=10**9)
    assert options.demand() == {"CPU": 20_000, "disk": 2_500}


def test_retry_exceptions_true_covers_exceptions_but_no_interrupt() -> None:
    options = parse(retry_exceptions=True)
    assert options.wants_retry_of(ValueError())
    assert not options.wants_retry_of(KeyboardInterrupt())
    assert not parse().wants_retry_of(ValueError())


@pytest.mark.parametrize("container", [list, tuple])
def test_retry_exceptions_of_classes_covers_their_subclasses(container: Any) -> None:
    options = parse(retry_exceptions=container([OSError, KeyError]))
    assert options.wants_retry_of(FileNotFoundError())
    assert options.wants_retry_of(KeyError())
    assert not options.wants_retry_of(ValueError())
    assert not parse(retry_exceptions=[]).wants_retry_of(ValueError())


# ---- actors ----


def actor(**options: Any) -> ActorOptions:
    return parse_actor_options(options)


def test_actor_options_without_any_are_the_defaults() -> None:
    assert actor() == ActorOptions()
    assert (actor().num_cpus, actor().max_restarts, actor().max_task_retries) == (0.0, 0, 0)
    assert (actor().max_pending_calls, actor().allow_out_of_order_execution) == (-1, None)


@pytest.mark.parametrize(
    "key",
    [
        "num_cpus",
        "num_gpus",
        "memory",
        "object_store_memory",
        "resources",
        "accelerator_type",
        "label_selector",
        "max_restarts",
        "max_task_retries",
        "max_concurrency",
        "max_pending_calls",
        "name",
        "namespace",
        "lifetime",
        "concurrency_groups",
        "allow_out_of_order_execution",
        "scheduling_strategy",
        "runtime_env",
        "_actor_generator_backpressure_num_objects",
    ],
)
def test_actor_option_none_is_the_default(key: str) -> None:
    assert actor(**{key: None}) == ActorOptions()


def test_actor_options_are_kept() -> None:
    options = actor(
        num_cpus=0.5,
        max_restarts=-1,
        max_task_retries=np.int64(2),
        max_concurrency=3,
        max_pending_calls=4,
        name="n",
        namespace="space",
        lifetime="detached",
        get_if_exists=True,
        allow_out_of_order_execution=False,
        _actor_generator_backpressure_num_objects=5,
    )
    assert options == ActorOptions(
        num_cpus=0.5,
        max_restarts=-1,
        max_task_retries=2,
        max_concurrency=3,
        max_pending_calls=4,
        name="n",
        namespace="space",
        lifetime="detached",
        get_if_exists=True,
        allow_out_of_order_execution=False,
        actor_generator_backpressure_num_objects=5,
    )


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_cpus": -1}, ValueError),
        ({"num_cpus": "1"}, TypeError),
        ({"num_gpus": -1}, ValueError),
        ({"memory": "1G"}, TypeError),
        ({"object_store_memory": -1}, ValueError),
        ({"object_store_memory": "1G"}, TypeError),
        ({"resources": {"CPU": 1}}, ValueError),
        ({"max_restarts": -2}, ValueError),
        ({"max_restarts": 1.0}, TypeError),
        ({"max_task_retries": -2}, ValueError),
        ({"max_task_retries": "1"}, TypeError),
        ({"max_concurrency": -1}, ValueError),
        ({"max_concurrency": 1.5}, TypeError),
        ({"max_pending_calls": -2}, ValueError),
        ({"max_pending_calls": "1"}, TypeError),
        ({"name": 3}, TypeError),
        ({"namespace": 3}, TypeError),
        ({"lifetime": "long"}, ValueError),
        ({"lifetime": 3}, TypeError),
        ({"get_if_exists": None}, TypeError),
        ({"get_if_exists": 1}, TypeError),
        ({"get_if_exists": True}, ValueError),
        ({"get_if_exists": True, "name": ""}, ValueError),
        ({"concurrency_groups": 3}, TypeError),
        ({"concurrency_groups": {"io": 0}}, ValueError),
        ({"concurrency_groups": {"io": "2"}}, TypeError),
        ({"concurrency_groups": {1: 1}}, TypeError),
        ({"allow_out_of_order_execution": 1}, TypeError),
        ({"scheduling_strategy": 3}, TypeError),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError),
        ({"_actor_generator_backpressure_num_objects": 0}, ValueError),
        ({"_actor_generator_backpressure_num_objects": -2}, ValueError),
        ({"_actor_generator_backpressure_num_objects": "2"}, TypeError),
    ],
    ids=str,
)
def test_actor_option_that_breaks_its_rule_raises_and_names_the_option(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        actor(**options)
    assert type(caught.value) is error
    assert next(iter(options)) in str(caught.value)


@pytest.mark.parametrize("key", ["bogus", "max_retries", "max_calls", "num_returns"])
def test_unknown_option_of_an_actor_raises_and_lists_the_valid_ones(key: str) -> None:
    with pytest.raises(ValueError, match=f"Invalid option keyword {key} for actors") as caught:
        parse_actor_options({key: 1})
    assert "max_restarts" in str(caught.value)


def test_actor_options_are_laid_over_the_base_one_by_one() -> None:
    base = actor(num_cpus=2, max_restarts=5, name="a", concurrency_groups={"io": 2})
    merged = parse_actor_options({"max_restarts": 1, "get_if_exists": True}, base=base)
    assert (merged.num_cpus, merged.max_restarts, merged.name) == (2.0, 1, "a")
    assert merged.concurrency_groups == {"io": 2}


def test_concurrency_groups_over_a_base_raise_and_point_to_the_decorator() -> None:
    with pytest.raises(ValueError, match=r"@remote\(concurrency_groups"):
        parse_actor_options({"concurrency_groups": {"io": 2}}, base=ActorOptions())


def test_actor_backpressure_of_minus_one_is_off() -> None:
    options = actor(_actor_generator_backpressure_num_objects=-1)
    assert options.actor_generator_backpressure_num_objects is None


def test_actor_demand_has_only_what_more_than_0_is_asked_of() -> None:
    assert actor().demand() == {}
    assert actor(num_cpus=0, resources={"disk": 0}).demand() == {}
    assert actor(num_cpus=0.5, resources={"disk": 2}).demand() == {"CPU": 5_000, "disk": 20_000}


def test_actor_env_vars_are_those_of_its_runtime_env() -> None:
    assert actor(runtime_env={"env_vars": {"A": "1"}, "pip": []}).env_vars() == {"A": "1"}
    assert actor().env_vars() == {}


def test_actor_scheduling_strategy_of_an_unknown_name_raises_only_at_the_call() -> None:
    options = actor(scheduling_strategy="NEAREST")
    with pytest.raises(ValueError, match="NEAREST"):
        options.check_at_call()


def test_actor_options_without_effect_are_accepted() -> None:
    assert actor(enable_task_events=False, object_store_memory=10**9) == ActorOptions()


# ---- methods ----


def decorated(is_generator: bool = False, **options: Any) -> MethodOptions:
    return parse_method_options(options, decorator=True, is_generator=is_generator)


def called(base: MethodOptions | None = None, **options: Any) -> MethodOptions:
    return parse_method_options(options, decorator=False, is_generator=False, base=base)


METHOD_OPTIONS: dict[str, Any] = {
    "num_returns": 2,
    "concurrency_group": "io",
    "max_task_retries": 3,
    "retry_exceptions": [OSError],
    "_generator_backpressure_num_objects": 4,
}
METHOD_RECORD = MethodOptions(2, "io", 3, (OSError,), None, 4)


def test_method_options_are_the_same_from_the_decorator_and_the_call() -> None:
    assert decorated(**METHOD_OPTIONS) == called(**METHOD_OPTIONS) == METHOD_RECORD
    assert decorated() == called() == MethodOptions()


def test_method_options_of_a_call_win_over_the_decorator() -> None:
    merged = called(decorated(**METHOD_OPTIONS), num_returns=1, name="n", retry_exceptions=False)
    assert (merged.num_returns, merged.name, merged.retry_exceptions) == (1, "n", False)
    assert (merged.concurrency_group, merged.max_task_retries) == ("io", 3)


def test_method_options_of_a_call_that_are_none_leave_the_decorator_s() -> None:
    assert called(METHOD_RECORD, **dict.fromkeys([*METHOD_OPTIONS, "name"])) == METHOD_RECORD


def test_method_options_of_the_decorator_that_are_none_are_the_defaults() -> None:
    nothing = dict.fromkeys([*METHOD_OPTIONS, "_num_objects_per_yield"])
    assert decorated(**nothing) == MethodOptions()


@pytest.mark.parametrize("key", ["bogus", "num_cpus", "name"])
def test_unknown_option_of_the_method_decorator_raises_assertion_error(key: str) -> None:
    with pytest.raises(AssertionError, match=f"no option {key}; .*num_returns"):
        decorated(**{key: "x"})


@pytest.mark.parametrize("key", ["bogus", "num_cpus", "max_restarts"])
def test_unknown_option_of_a_method_call_raises_type_error(key: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{key}'.*num_returns"):
        called(**{key: 1})


def test_objects_per_yield_of_a_method_call_raise_and_point_to_the_decorator() -> None:
    assert decorated(_num_objects_per_yield=2).num_objects_per_yield == 2
    with pytest.raises(ValueError, match=r"@method\(_num_objects_per_yield"):
        called(_num_objects_per_yield=2)


@pytest.mark.parametrize("mode", ["dynamic", "streaming"])
def test_num_returns_mode_of_a_method_needs_a_generator(mode: str) -> None:
    assert decorated(is_generator=True, num_returns=mode).num_returns == mode
    for parse_method in (decorated, called):
        with pytest.raises(ValueError, match="needs a generator method"):
            parse_method(num_returns=mode)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_returns": -1}, ValueError),
        ({"num_returns": 1.5}, TypeError),
        ({"num_returns": "many"}, TypeError),
        ({"concurrency_group": 3}, TypeError),
        ({"max_task_retries": -2}, ValueError),
        ({"max_task_retries": 1.5}, TypeError),
        ({"retry_exceptions": ValueError}, TypeError),
        ({"retry_exceptions": [KeyboardInterrupt]}, ValueError),
        ({"_generator_backpressure_num_objects": 0}, ValueError),
        ({"_generator_backpressure_num_objects": "2"}, TypeError),
    ],
    ids=str,
)
def test_method_option_that_breaks_its_rule_raises_and_names_the_option(
    options: dict[str, Any], error: type[Exception]
) -> None:
    for parse_method in (decorated, called):
        with pytest.raises(error) as caught:
            parse_method(**options)
        assert type(caught.value) is error
        assert next(iter(options)) in str(caught.value)


# ---- init ----


def init(**options: Any) -> InitOptions:
    return check_init_options(options)


def test_init_options_without_any_are_the_defaults() -> None:
    assert init() == InitOptions()
    assert init(num_cpus=None, log_to_driver=None, address=None, labels=None) == InitOptions()


def test_init_options_are_kept() -> None:
    options = init(
        num_cpus=np.int64(3),
        object_store_memory=1e9,
        resources={"disk": 1.5},
        namespace="n",
        ignore_reinit_error=True,
        log_to_driver=False,
        runtime_env={"env_vars": {"A": "1"}},
        address="local",
        local_mode=True,
    )
    rest = {"address": None, "local_mode": True}
    assert options == InitOptions(3, 10**9, {"disk": 1.5}, "n", True, False, {"A": "1"}, **rest)
    assert type(options.object_store_memory) is int
    assert options.custom_units() == {"disk": 15_000}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_cpus": -1}, ValueError),
        ({"num_cpus": "2"}, TypeError),
        ({"num_cpus": 1.5}, TypeError),
        ({"object_store_memory": MIN_OBJECT_STORE_MEMORY - 1}, ValueError),
        ({"object_store_memory": -1}, ValueError),
        ({"object_store_memory": "1G"}, TypeError),
        ({"object_store_memory": 1e9 + 0.5}, TypeError),
        ({"resources": [1]}, TypeError),
        ({"resources": {"CPU": 1}}, ValueError),
        ({"namespace": 3}, TypeError),
        ({"namespace": ""}, ValueError),
        ({"ignore_reinit_error": "yes"}, TypeError),
        ({"log_to_driver": 1}, TypeError),
        ({"local_mode": 1}, TypeError),
        ({"local_mode": True, "address": "auto"}, ValueError),
        ({"runtime_env": 3}, TypeError),
        ({"runtime_env": {"env_vars": {"A": 1}}}, TypeError),
        ({"address": 3}, TypeError),
        ({"num_cpus": 1, "address": "auto"}, ValueError),
        ({"address": "10.0.0.1:6379"}, ConnectionError),
        ({"address": "ray://host:10001"}, ConnectionError),
    ],
    ids=str,
)
def test_init_option_that_breaks_its_rule_raises_and_names_the_option(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        init(**options)


def test_init_store_of_the_least_size_is_accepted() -> None:
    options = init(object_store_memory=MIN_OBJECT_STORE_MEMORY)
    assert options.object_store_memory == MIN_OBJECT_STORE_MEMORY


def test_init_store_that_is_too_small_raises_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"1,000 bytes .* 78,643,200"):
        init(object_store_memory=1000)


def test_init_unknown_keywords_raise_and_are_all_named() -> None:
    with pytest.raises(RuntimeError, match=r"Unknown keyword argument\(s\): num_cpu, memry"):
        init(num_cpu=1, memry=2)


def test_init_keywords_without_effect_give_one_warning_that_names_them_all() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        init(num_gpus=1, _temp_dir="/x", runtime_env={"pip": ["a"], "env_vars": {}})
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "num_gpus" in text
    assert "_temp_dir" in text
    assert "runtime_env['pip']" in text
    assert "env_vars" not in text


def test_init_keywords_that_switch_off_what_is_not_there_give_no_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        init(include_dashboard=False, configure_logging=False, dashboard_host=None)
    assert caught == []


def test_init_warning_points_at_the_caller_of_init() -> None:
    def init_of_the_api(**options: Any) -> InitOptions:
        return check_init_options(options)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = test_init_warning_points_at_the_caller_of_init.__code__.co_firstlineno + 7
        init_of_the_api(num_gpus=1)
    assert caught[0].filename == __file__
    assert caught[0].lineno == line
