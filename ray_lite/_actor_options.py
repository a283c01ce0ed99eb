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
    """The options of an actor, checked and with their defaults filled in.

    As in TaskOptions, what one machine cannot place by is checked and kept, and no more.
    """

    num_cpus: float = 0.0
    """CPUs held while the actor lives, >= 0."""
    num_gpus: float = 0.0
    memory: float = 0.0
    """Bytes of heap that the actor says it needs, >= 0."""
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
    """Calls that one process may have pending at once, >= 1; -1 or 0: any number."""
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
    """Its generator methods pause at so many untaken items of all their streams, >= 1."""

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
    """The options of a method, checked. None: it is as for the actor, or as for any call."""

    num_returns: NumReturns | None = None
    concurrency_group: str | None = None
    max_task_retries: int | None = None
    """How often a call is run again; None: as often as the actor says."""
    retry_exceptions: bool | tuple[type[Exception], ...] = False
    name: str | None = None
    """Shown in logs and errors in place of Class.method."""
    generator_backpressure_num_objects: int | None = None
    """A stream pauses at so many items that nobody took, >= 1; None is never."""
    num_objects_per_yield: int = 1


def parse_actor_options(
    options: Mapping[str, Any], *, base: ActorOptions | None = None
) -> ActorOptions:
    """Return `options` checked and laid over `base`, which `.options()` gives.

    Raises:
        ValueError: A keyword that no actor has, a value out of range, or get_if_exists
            without a name.
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
    merged = replace(base or ActorOptions(), **_parsed(options, _ACTOR_PARSERS))
    if merged.get_if_exists and not merged.name:
        raise ValueError("get_if_exists=True needs a name to look for; give name=...")
    return merged


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
        ValueError: A value out of range, or one that only the decorator can give.
    """
    _refuse_unknown(options, decorator)
    if not decorator:
        # Where it says nothing, what the decorator said holds.
        options = {key: value for key, value in options.items() if value is not None}
    parsed = _parsed(options, _METHOD_PARSERS)
    returns = parsed.get("num_returns")
    if isinstance(returns, str) and not is_generator:
        raise ValueError(
            f'num_returns="{returns}" needs a generator method, and this one has no yield; give '
            "the number of values that it returns"
        )
    return replace(base or MethodOptions(), **parsed)


def _refuse_unknown(options: Mapping[str, Any], decorator: bool) -> None:
    """Raise for a keyword that `@method()`, or else `.options()` of a method, does not have."""
    belongs_elsewhere = "name" if decorator else "_num_objects_per_yield"
    valid = sorted(_METHOD_PARSERS.keys() - {belongs_elsewhere})
    for key in options:
        if key in valid:
            continue
        if decorator:
            raise AssertionError(f"@method() has no option {key}; it takes {valid}")
        if key == belongs_elsewhere:
            refuse_at_call(key, "method")
        raise TypeError(
            f"options() of an actor's method got an unexpected keyword argument '{key}'; it takes "
            f"{valid}"
        )


def _parsed(
    options: Mapping[str, Any], parsers: Mapping[str, Callable[[str, Any], Any]]
) -> dict[str, Any]:
    """Return `options` checked, by the names of the record's fields."""
    checked = {key: parsers[key](key, value) for key, value in options.items()}
    return {key.lstrip("_"): value for key, value in checked.items() if key not in _WITHOUT_EFFECT}


# ---- rules for one value, as in _options.py ----


def _lifetime(key: str, value: object) -> str:
    """Return `value`, the name of a lifetime."""
    text = parse_text(key, value)
    if text not in _LIFETIMES:
        raise ValueError(f"{key} must be None, or one of {list(_LIFETIMES)}, not {text!r}")
    return text


def _concurrency_groups(key: str, value: object) -> dict[str, int]:
    """Return `value` as a dict of names to numbers of calls; Ray takes a list of records, too."""
    if isinstance(value, list):
        value = {item["name"]: item["max_concurrency"] for item in value}
    if not isinstance(value, dict):
        refuse_type(key, value, "a dict of names to numbers of calls")
    calls = parse_integer_from(1)
    return {
        parse_text(f"a name in {key}", name): calls(f"{key}[{name!r}]", number)
        for name, number in value.items()
    }


def _actor_backpressure(key: str, value: object) -> int | None:
    """Return `value`, a count >= 1; only -1 switches it off."""
    limit = parse_backpressure(key, value)
    if limit is None and value != -1:
        raise ValueError(f"{key} must be >= 1, or -1 for no limit, not {value!r}")
    return limit


_ACTOR: Final = ActorOptions()
_ACTOR_PARSERS: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType(
    {
        "num_cpus": or_default(parse_amount, _ACTOR.num_cpus),
        "num_gpus": or_default(parse_amount, _ACTOR.num_gpus),
        "memory": or_default(parse_number, _ACTOR.memory),
        "object_store_memory": or_default(parse_integer_from(0), 0),
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
        "_actor_generator_backpressure_num_objects": or_default(_actor_backpressure, None),
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
        "_num_objects_per_yield": or_default(parse_integer_from(1), 1),
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
