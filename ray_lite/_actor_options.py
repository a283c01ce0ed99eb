"""What the options of an actor and of its methods may be, and what they mean.

Owns the rules for `@remote(...)` on a class, its `.options(...)`, `@method(...)` and
`handle.m.options(...)`; the rules for single values are _options.py's. As there: dictionaries in,
frozen records out, nothing else happens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from ray_lite._options import (
    NumReturns,
    anything,
    check_strategy,
    demand_of,
    or_default,
    parse_amount,
    parse_backpressure,
    parse_flag,
    parse_integer_from,
    parse_mapping_of_text,
    parse_num_returns,
    parse_number,
    parse_resources,
    parse_retry_exceptions,
    parse_runtime_env,
    parse_strategy,
    parse_text,
    refuse_at_call,
    refuse_type,
)

_LIFETIMES: Final = ("detached", "non_detached")


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """The options of an actor, checked and with their defaults filled in."""

    num_cpus: float = 0.0
    """CPUs held while the actor lives, >= 0."""
    num_gpus: float = 0.0
    memory: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources held while the actor lives: name to amount, >= 0."""
    accelerator_type: str | None = None
    label_selector: Mapping[str, str] = field(default_factory=dict)
    max_restarts: int = 0
    """How often it is made anew when its process dies; -1 is without end."""
    max_task_retries: int = 0
    """How often a call is run again when the process dies under it; -1 is without end."""
    max_concurrency: int = 0
    """Calls under way at once, >= 1; 0: 1, or 1000 for an async actor."""
    max_pending_calls: int = -1
    """Calls that may be pending at once, >= 1; -1 or 0: any number."""
    name: str | None = None
    namespace: str | None = None
    lifetime: str | None = None
    """"detached": it lives until it is killed or the session ends."""
    get_if_exists: bool = False
    concurrency_groups: Mapping[str, int] = field(default_factory=dict)
    """Name to calls under way at once, >= 1."""
    allow_out_of_order_execution: bool | None = None
    """Whether a call that is ready may overtake one that waits; None: unless one runs at a time."""
    scheduling_strategy: object = "DEFAULT"
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    actor_generator_backpressure_num_objects: int | None = None
    """The streams of its generator methods pause at so many items that nobody took."""

    def demand(self) -> dict[str, int]:
        """Return what a living actor holds: resource name to units of 1/10000."""
        return demand_of(self.num_cpus, self.resources)

    def env_vars(self) -> dict[str, str]:
        """Return the environment variables of runtime_env."""
        return dict(self.runtime_env.get("env_vars") or {})

    def check_at_call(self) -> None:
        """Check what Ray checks only when the actor is made: scheduling_strategy's name."""
        check_strategy(self.scheduling_strategy)


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """The options of a method; None: not given."""

    num_returns: NumReturns | None = None
    concurrency_group: str | None = None
    max_task_retries: int | None = None
    retry_exceptions: bool | tuple[type[Exception], ...] = False
    name: str | None = None
    generator_backpressure_num_objects: int | None = None
    num_objects_per_yield: int = 1


def parse_actor_options(
    options: Mapping[str, Any], *, base: ActorOptions | None = None
) -> ActorOptions:
    """Return `options` checked and laid over `base`, which `.options()` gives.

    Raises:
        ValueError: A keyword that no actor has, or a value out of range.
        TypeError: A value of the wrong type.
    """
    unknown = [key for key in options if key not in _ACTOR_PARSERS]
    if unknown:
        valid = sorted(_ACTOR_PARSERS)
        raise ValueError(f"Invalid option keyword {unknown[0]} for actors. Valid ones are {valid}.")
    if base is not None and "concurrency_groups" in options:
        raise ValueError(
            "concurrency_groups belong to the class, so .options() cannot set them; give them to "
            "@remote(concurrency_groups=...)"
        )
    parsed = {
        key.lstrip("_"): _ACTOR_PARSERS[key](key, value)
        for key, value in options.items()
        if key not in _WITHOUT_EFFECT
    }
    return replace(base or ActorOptions(), **parsed)


def parse_method_options(
    options: Mapping[str, Any],
    *,
    decorator: bool,
    is_generator: bool,
    base: MethodOptions | None = None,
) -> MethodOptions:
    """Return the options of a method checked and laid over `base`.

    Args:
        options: As the user wrote them.
        decorator: Whether for `@method(...)`, else for `handle.m.options(...)`.
        is_generator: Whether the method is a generator function, sync or async.
        base: What the decorator said.

    Raises:
        AssertionError: An unknown keyword of the decorator, as in Ray.
        TypeError: An unknown keyword of `.options()`; a value of the wrong type.
        ValueError: A value out of range.
    """
    valid = [key for key in _METHOD_PARSERS if key != "name" or not decorator]
    for key in options:
        if key in valid:
            continue
        if decorator:
            raise AssertionError(f"@method() has no option {key}; it takes {sorted(valid)}")
        raise TypeError(
            f"options() of an actor's method got an unexpected keyword argument '{key}'; it takes "
            f"{sorted(valid)}"
        )
    if not decorator and "_num_objects_per_yield" in options:
        refuse_at_call("_num_objects_per_yield", "method")
    parsed = {
        key.lstrip("_"): _METHOD_PARSERS[key](key, value)
        for key, value in options.items()
        if key not in _WITHOUT_EFFECT
    }
    returns = parsed.get("num_returns")
    if isinstance(returns, str) and not is_generator:
        raise ValueError(
            f'num_returns="{returns}" needs a generator method, and this one has no yield; give '
            "the number of values that it returns"
        )
    return replace(base or MethodOptions(), **parsed)


def _lifetime(key: str, value: object) -> str:
    if value not in _LIFETIMES:
        raise ValueError(f"{key} must be None, or one of {list(_LIFETIMES)}, not {value!r}")
    return str(value)


def _concurrency_groups(key: str, value: object) -> dict[str, int]:
    if isinstance(value, list):
        value = {item["name"]: item["max_concurrency"] for item in value}
    if not isinstance(value, dict):
        refuse_type(key, value, "a dict of names to numbers of calls")
    count = parse_integer_from(1)
    return {parse_text(key, name): count(f"{key}[{name!r}]", n) for name, n in value.items()}


_ACTOR: Final = ActorOptions()
_ACTOR_PARSERS: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType(
    {
        "num_cpus": or_default(parse_amount, _ACTOR.num_cpus),
        "num_gpus": or_default(parse_amount, _ACTOR.num_gpus),
        "memory": or_default(parse_number, _ACTOR.memory),
        "object_store_memory": or_default(parse_number, 0.0),
        "resources": or_default(parse_resources, _ACTOR.resources),
        "accelerator_type": or_default(parse_text, None),
        "label_selector": or_default(parse_mapping_of_text, _ACTOR.label_selector),
        "max_restarts": or_default(parse_integer_from(-1), 0),
        "max_task_retries": or_default(parse_integer_from(-1), 0),
        "max_concurrency": or_default(parse_integer_from(0), 0),
        "max_pending_calls": or_default(parse_integer_from(-1), -1),
        "name": or_default(parse_text, None),
        "namespace": or_default(parse_text, None),
        "lifetime": or_default(_lifetime, None),
        "get_if_exists": parse_flag,
        "concurrency_groups": or_default(_concurrency_groups, _ACTOR.concurrency_groups),
        "allow_out_of_order_execution": or_default(parse_flag, None),
        "scheduling_strategy": or_default(parse_strategy, _ACTOR.scheduling_strategy),
        "runtime_env": or_default(parse_runtime_env, _ACTOR.runtime_env),
        "enable_task_events": anything,
        "enable_tensor_transport": anything,
        "_metadata": anything,
        "_actor_generator_backpressure_num_objects": or_default(parse_backpressure, None),
    }
)
_METHOD_PARSERS: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType(
    {
        "num_returns": or_default(parse_num_returns, None),
        "concurrency_group": or_default(parse_text, None),
        "max_task_retries": or_default(parse_integer_from(-1), None),
        "retry_exceptions": or_default(parse_retry_exceptions, False),
        "name": or_default(parse_text, None),
        "enable_task_events": anything,
        "tensor_transport": anything,
        "_generator_backpressure_num_objects": or_default(parse_backpressure, None),
        "_num_objects_per_yield": parse_integer_from(1),
    }
)
_WITHOUT_EFFECT: Final = frozenset(
    {
        "enable_task_events",
        "enable_tensor_transport",
        "object_store_memory",
        "tensor_transport",
        "_metadata",
    }
)
