"""What the options of a task and of `init` may be, and what they mean.

Owns every rule about a value that a user writes into `@remote(...)`, `.options(...)` or
`init(...)`: names, types, ranges, defaults, and the message when one is broken. It must not know
sessions, functions or scheduling: dictionaries in, frozen records out, nothing else happens.
"""

import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn, TypeAlias, cast

NumReturns: TypeAlias = int | Literal["dynamic", "streaming"]

UNITS: Final = 10_000
"""Units of a resource in 1.0 of it: the finest share that a task can ask for is 0.0001."""

DEFAULT_MAX_RETRIES: Final = 3
MIN_OBJECT_STORE_MEMORY: Final = 78_643_200  # 75 MiB


# ---- tasks ----


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The options of a task, checked and with their defaults filled in.

    `num_gpus`, `memory`, `accelerator_type` and `label_selector` are Ray's; they are checked and
    kept, but one machine has nothing to place by them, so they are no part of `demand()`.
    """

    num_returns: NumReturns = 1
    """How many values, or how they arrive. "streaming" by default for a generator function."""
    num_cpus: float = 1.0
    """CPUs held while the task runs, >= 0."""
    num_gpus: float = 0.0
    memory: float = 0.0
    """Bytes of heap that the task says it needs, >= 0."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources held while the task runs: name to amount, >= 0."""
    accelerator_type: str | None = None
    label_selector: Mapping[str, str] = field(default_factory=dict)
    max_retries: int = DEFAULT_MAX_RETRIES
    """Attempts after the first one, >= 0; -1 is without end."""
    retry_exceptions: bool | tuple[type[Exception], ...] = False
    """Which exceptions of the user's function are worth another attempt."""
    max_calls: int = 0
    """A worker ends itself after so many calls of the function; 0 is never."""
    name: str | None = None
    """Shown in logs and errors in place of the function's name."""
    scheduling_strategy: object = "DEFAULT"
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    generator_backpressure_num_objects: int | None = None
    """A streaming generator pauses at so many items that nobody took, >= 1; None is never."""
    num_objects_per_yield: int = 1

    def demand(self) -> dict[str, int]:
        """Return what a running task holds: resource name to units of 1/10000.

        "CPU" is always there; a custom resource only if more than 0 of it is asked for.
        """
        return {"CPU": 0, **demand_of(self.num_cpus, self.resources)}

    def env_vars(self) -> dict[str, str]:
        """Return the environment variables of runtime_env."""
        return dict(self.runtime_env.get("env_vars") or {})

    def wants_retry_of(self, error: BaseException) -> bool:
        """Tell whether retry_exceptions covers `error`, which the user's function raised."""
        if isinstance(self.retry_exceptions, bool):
            return self.retry_exceptions and isinstance(error, Exception)
        return isinstance(error, self.retry_exceptions)

    def check_at_call(self) -> None:
        """Check what Ray checks only when the task is submitted.

        Raises:
            ValueError: scheduling_strategy is a string that names no strategy.
        """
        check_strategy(self.scheduling_strategy)


def demand_of(num_cpus: float, resources: Mapping[str, float]) -> dict[str, int]:
    """Return what is asked for more than 0 of: resource name to units of 1/10000."""
    amounts = {"CPU": num_cpus, **resources}
    return {name: _units(amount) for name, amount in amounts.items() if amount > 0}


def check_strategy(strategy: object) -> None:
    """Raise ValueError for a scheduling_strategy that is a str and names none."""
    if isinstance(strategy, str) and strategy not in _STRATEGY_NAMES:
        raise ValueError(
            f"scheduling_strategy={strategy!r} names no strategy; use one of "
            f"{list(_STRATEGY_NAMES)}"
        )


def parse_task_options(
    options: Mapping[str, Any], *, is_generator: bool, base: TaskOptions | None = None
) -> TaskOptions:
    """Return `options` checked and laid over `base`.

    Args:
        options: Keywords as the user wrote them.
        is_generator: Whether the function is a generator function, sync or async.
        base: What the decorator said; given for `.options()`, None for the decorator itself.

    Raises:
        ValueError: A keyword that no task has, or a value out of range.
        TypeError: A value of the wrong type.
    """
    given = _without_alias(options)
    unknown = [key for key in given if key not in _TASK_PARSERS]
    if unknown:
        raise ValueError(_unknown_option(unknown[0]))
    if base is not None:
        for key in ("max_calls", "_num_objects_per_yield"):
            if key in given:
                refuse_at_call(key, "remote")
    parsed = {key.lstrip("_"): _TASK_PARSERS[key](key, value) for key, value in given.items()}
    parsed = {key: value for key, value in parsed.items() if key not in _WITHOUT_EFFECT}
    if base is None or "num_returns" in given:
        parsed["num_returns"] = _resolve_num_returns(parsed.get("num_returns"), is_generator)
    return replace(base or TaskOptions(), **parsed)


def _without_alias(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` with num_retries under its real name, max_retries."""
    given = dict(options)
    if "num_retries" not in given:
        return given
    if "max_retries" in given:
        raise ValueError("num_retries and max_retries are the same option; give only one of them")
    given["max_retries"] = given.pop("num_retries")
    return given


def _unknown_option(key: str) -> str:
    """Return the message for a keyword that is no option of a task."""
    if key == "object_store_memory":
        return (
            "object_store_memory is no option of a task, for the whole session shares one store; "
            "give it to init(object_store_memory=...)"
        )
    valid = sorted(key for key in _TASK_PARSERS if not key.startswith("_"))
    private = sorted(key for key in _TASK_PARSERS if key.startswith("_"))
    return (
        f"Invalid option keyword {key} for remote functions. Valid ones are {valid + private}, "
        "and num_retries for max_retries."
    )


def _resolve_num_returns(value: NumReturns | None, is_generator: bool) -> NumReturns:
    """Return the default for None; refuse a generator's mode for a function that is none."""
    if value is None:
        return "streaming" if is_generator else 1
    if isinstance(value, str) and not is_generator:
        raise ValueError(
            f'num_returns="{value}" needs a generator function, and this function has no yield; '
            "give the number of values that it returns"
        )
    return value


# ---- init ----


@dataclass(frozen=True, slots=True)
class InitOptions:
    """The keywords of `init`, checked. None means: let the session decide."""

    num_cpus: int | None = None
    object_store_memory: int | None = None
    """Bytes, >= 78,643,200."""
    resources: Mapping[str, float] = field(default_factory=dict)
    namespace: str | None = None
    ignore_reinit_error: bool = False
    log_to_driver: bool = True
    env_vars: Mapping[str, str] = field(default_factory=dict)
    """Set in every worker, over the driver's own environment."""
    address: str | None = None
    """The socket of a session to join, or "auto"."""
    local_mode: bool = False
    """Tasks and actors run in the driver's own process."""

    def custom_units(self) -> dict[str, int]:
        """Return how much there is of each custom resource, in units of 1/10000."""
        return {name: _units(amount) for name, amount in self.resources.items()}


def check_init_options(options: Mapping[str, Any], *, stacklevel: int = 3) -> InitOptions:
    """Return the keywords of `init` checked; warn once about those that do nothing here.

    Args:
        options: Keywords as the user wrote them, `address` among them.
        stacklevel: Where the warning points: 2 is who called this, 3 is who called `init`.

    Raises:
        RuntimeError: A keyword that neither Ray nor ray_lite has.
        ValueError: A value out of range.
        TypeError: A value of the wrong type.
        ConnectionError: `address` asks for a running cluster.
    """
    unknown = [key for key in options if key not in _INIT_PARSERS and key not in _INIT_IGNORED]
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")
    given = {key: value for key, value in options.items() if value is not None}
    parsed = {
        key: _INIT_PARSERS[key](key, value) for key, value in given.items() if key in _INIT_PARSERS
    }
    _warn_of_ignored(given, parsed.get("runtime_env") or {}, stacklevel)
    own = [key for key in ("num_cpus", "object_store_memory", "resources") if key in parsed]
    if parsed.get("address") and own:
        raise ValueError(
            f"When connecting to an existing cluster, {', '.join(own)} must not be provided: the "
            "session that is joined has its own"
        )
    if parsed.get("address") and parsed.get("local_mode"):
        raise ValueError(
            "local_mode=True runs everything in this process, which can join no session then; "
            "leave address out"
        )
    runtime_env = parsed.pop("runtime_env", {})
    return InitOptions(**parsed, env_vars=dict(runtime_env.get("env_vars") or {}))


def _warn_of_ignored(
    given: Mapping[str, Any], runtime_env: Mapping[str, Any], stacklevel: int
) -> None:
    """Warn, in one warning, of everything in `given` that has no effect on one machine."""
    # False asks for less, and less is what there is.
    ignored = [key for key in given if key in _INIT_IGNORED and given[key] is not False]
    ignored += [f"runtime_env[{key!r}]" for key in runtime_env if key != "env_vars"]
    if ignored:
        warnings.warn(
            f"init() accepts these for Ray's sake, but they do nothing on one machine: "
            f"{', '.join(ignored)}",
            stacklevel=stacklevel + 1,
        )


# ---- rules for one value: each takes the option's name, for its message, and the value ----


def refuse_type(key: str, value: object, expected: str) -> NoReturn:
    """Raise the TypeError for a value of the wrong type."""
    raise TypeError(f"{key} must be {expected}, not {value!r} of type {type(value).__name__}")


def _integer(key: str, value: object, expected: str) -> int:
    """Return `value` as an int, numpy's integers included."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        refuse_type(key, value, expected)


def parse_integer_from(least: int) -> Callable[[str, Any], int]:
    """Return the rule "an integer, >= `least`"."""

    def rule(key: str, value: Any) -> int:
        number = _integer(key, value, f"an integer >= {least}")
        if number < least:
            raise ValueError(f"{key} must be an integer >= {least}, not {number}")
        return number

    return rule


def parse_number(key: str, value: object) -> float:
    """Return `value` as a finite number >= 0."""
    try:
        number = value if isinstance(value, float) else float(_integer(key, value, "a number >= 0"))
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{key} must be a finite number >= 0, not {value!r}")
    return number


def parse_amount(key: str, value: object) -> float:
    """Return `value` as an amount of a resource: >= 0, in steps of 0.0001."""
    number = parse_number(key, value)
    if not math.isclose(number * UNITS, round(number * UNITS), rel_tol=1e-12, abs_tol=1e-6):
        raise ValueError(
            f"{key}={value!r} is finer than 0.0001, the smallest share of a resource; round it"
        )
    return number


def _units(amount: float) -> int:
    """Return an amount of a resource in units of 1/10000."""
    return round(amount * UNITS)


def parse_text(key: str, value: object) -> str:
    """Return `value`, a str."""
    return value if isinstance(value, str) else refuse_type(key, value, "a str")


def parse_flag(key: str, value: object) -> bool:
    """Return `value`, a bool."""
    return value if isinstance(value, bool) else refuse_type(key, value, "True or False")


def parse_mapping_of_text(key: str, value: object) -> dict[str, str]:
    """Return `value`, a dict of str to str, as a copy."""
    if not isinstance(value, dict):
        refuse_type(key, value, "a dict of str to str")
    for name, text in value.items():
        if not (isinstance(name, str) and isinstance(text, str)):
            raise TypeError(
                f"{key} must be a dict of str to str, but has {name!r}: {text!r}; write the "
                "number 3 as '3'"
            )
    return dict(value)


_OWN_KEYWORD: Final = MappingProxyType(
    {
        "CPU": "num_cpus",
        "GPU": "num_gpus",
        "memory": "memory",
        "object_store_memory": "object_store_memory",
    }
)


def parse_resources(key: str, value: object) -> dict[str, float]:
    """Return `value`, custom resources by name, as a copy."""
    if not isinstance(value, dict):
        refuse_type(key, value, "a dict of resource names to amounts")
    for name in value:
        if not isinstance(name, str):
            refuse_type(f"a name in {key}", name, "a str")
        if name in _OWN_KEYWORD:
            raise ValueError(
                f"{key} must not contain {name!r}, which has a keyword of its own; use "
                f"{_OWN_KEYWORD[name]}=..."
            )
    return {name: parse_amount(f"{key}[{name!r}]", amount) for name, amount in value.items()}


def parse_num_returns(key: str, value: object) -> NumReturns:
    """Return `value`, a count or the mode of a generator."""
    expected = 'an integer >= 0, "dynamic" or "streaming"'
    if isinstance(value, str) and value in ("dynamic", "streaming"):
        return cast(NumReturns, value)
    number = _integer(key, value, expected)
    if number < 0:
        raise ValueError(f"{key} must be {expected}, not {number}")
    return number


def parse_retry_exceptions(key: str, value: object) -> bool | tuple[type[Exception], ...]:
    """Return `value`, a bool or the exception classes to retry."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        refuse_type(key, value, "True, False or a list of exception classes")
    for item in value:
        if not (isinstance(item, type) and issubclass(item, Exception)):
            raise ValueError(f"{key} must list subclasses of Exception, but has {item!r}")
    return tuple(value)


_STRATEGY_NAMES: Final = ("DEFAULT", "SPREAD")
_STRATEGY_CLASSES: Final = frozenset(
    {
        "NodeAffinitySchedulingStrategy",
        "NodeLabelSchedulingStrategy",
        "PlacementGroupSchedulingStrategy",
    }
)


def parse_strategy(key: str, value: object) -> object:
    """Return `value`, a str (whose meaning is checked at the call) or a strategy object."""
    # By name, for Ray's own strategy objects mean on one machine what ours mean.
    if isinstance(value, str) or type(value).__name__ in _STRATEGY_CLASSES:
        return value
    refuse_type(key, value, '"DEFAULT", "SPREAD" or a scheduling strategy')


def parse_runtime_env(key: str, value: object) -> dict[str, Any]:
    """Return `value`, a runtime environment, as a copy; keys other than env_vars are free."""
    if not isinstance(value, dict):
        refuse_type(key, value, "a dict")
    env_vars = value.get("env_vars")
    if env_vars is None:
        return dict(value)
    return {**value, "env_vars": parse_mapping_of_text(f"{key}['env_vars']", env_vars)}


def refuse_at_call(key: str, decorator: str) -> NoReturn:
    """Refuse an option of the function, or the method, in `.options()`."""
    raise ValueError(
        f"{key} belongs to the function, not to one call of it, so it cannot be overridden by "
        f".options(); give it to @{decorator}({key}=...)"
    )


def parse_backpressure(key: str, value: object) -> int | None:
    """Return `value`, a count >= 1; any negative number switches backpressure off."""
    number = _integer(key, value, "an integer >= 1, or -1 for no limit")
    if number == 0:
        raise ValueError(f"{key} must be >= 1, or -1 for no limit; at 0 no item could be yielded")
    return number if number > 0 else None


def _store_memory(key: str, value: object) -> int:
    """Return `value`, the size of the object store in bytes; 1e9 is as good as 10**9."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    nbytes = _integer(key, whole, f"an integer >= {MIN_OBJECT_STORE_MEMORY} (bytes)")
    if nbytes < MIN_OBJECT_STORE_MEMORY:
        raise ValueError(
            f"{key}={nbytes:,} bytes is too small; give at least {MIN_OBJECT_STORE_MEMORY:,} "
            "(75 MiB), or leave it out"
        )
    return nbytes


def _namespace(key: str, value: object) -> str:
    """Return `value`, a str that is not empty."""
    text = parse_text(key, value)
    if not text:
        raise ValueError(f"{key} must not be empty; leave it out for a namespace of your own")
    return text


def _address(key: str, value: object) -> str | None:
    """Return `value`, the path of a session's socket or "auto"; None for a session of one's own."""
    text = parse_text(key, value)
    if text == "local":
        return None
    if (text != "auto" and "/" not in text) or "://" in text:
        raise ConnectionError(
            f"{key}={text!r}: there is no cluster to join, for ray_lite runs on one machine. Leave "
            'address out, or give "auto" or the path of a running session\'s socket'
        )
    return text


def anything(key: str, value: object) -> object:
    """Return `value`, which has no effect."""
    return value


def or_default(rule: Callable[[str, Any], Any], default: object) -> Callable[[str, Any], Any]:
    """Return `rule` extended by: None stands for `default`."""
    return lambda key, value: default if value is None else rule(key, value)


_DEFAULTS: Final = TaskOptions()

_TASK_PARSERS: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType(
    {
        # None means "by the kind of function", which _resolve_num_returns knows.
        "num_returns": or_default(parse_num_returns, None),
        "num_cpus": or_default(parse_amount, _DEFAULTS.num_cpus),
        "num_gpus": or_default(parse_amount, _DEFAULTS.num_gpus),
        "memory": or_default(parse_number, _DEFAULTS.memory),
        "resources": or_default(parse_resources, _DEFAULTS.resources),
        "accelerator_type": or_default(parse_text, None),
        "label_selector": or_default(parse_mapping_of_text, _DEFAULTS.label_selector),
        "max_retries": or_default(parse_integer_from(-1), _DEFAULTS.max_retries),
        "retry_exceptions": parse_retry_exceptions,
        "max_calls": or_default(parse_integer_from(0), _DEFAULTS.max_calls),
        "name": or_default(parse_text, None),
        "scheduling_strategy": or_default(parse_strategy, _DEFAULTS.scheduling_strategy),
        "runtime_env": or_default(parse_runtime_env, _DEFAULTS.runtime_env),
        "enable_task_events": anything,
        "_generator_backpressure_num_objects": or_default(parse_backpressure, None),
        "_num_objects_per_yield": or_default(parse_integer_from(1), 1),
        "_metadata": anything,
    }
)
_WITHOUT_EFFECT: Final = frozenset({"enable_task_events", "metadata"})

_INIT_PARSERS: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType(
    {
        "address": _address,
        "num_cpus": parse_integer_from(0),
        "object_store_memory": _store_memory,
        "resources": parse_resources,
        "namespace": _namespace,
        "ignore_reinit_error": parse_flag,
        "local_mode": parse_flag,
        "log_to_driver": parse_flag,
        "runtime_env": parse_runtime_env,
    }
)

_INIT_IGNORED: Final = frozenset(
    {
        "allow_multiple",
        "cgroup_path",
        "configure_logging",
        "dashboard_host",
        "dashboard_port",
        "enable_resource_isolation",
        "include_dashboard",
        "job_config",
        "labels",
        "logging_config",
        "logging_format",
        "logging_level",
        "num_gpus",
        "object_spilling_directory",
        "system_reserved_cpu",
        "system_reserved_memory",
        "_cluster_id",
        "_driver_object_store_memory",
        "_enable_object_reconstruction",
        "_memory",
        "_metrics_export_port",
        "_node_ip_address",
        "_node_name",
        "_plasma_directory",
        "_redis_password",
        "_redis_username",
        "_system_config",
        "_temp_dir",
        "_tracing_startup_hook",
    }
)
"""Keywords of Ray's `init` that concern what a session on one machine does not have."""
