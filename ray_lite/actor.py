"""@remote on classes: actors, as their callers see them.

Owns the classes that a user touches (ActorClass, ActorHandle, ActorMethod), what a process must
know of an actor's class to call it (ActorInfo), names, `kill` and `exit_actor`. It must not know
how an actor's process serves calls (actor_worker.py).

    C.remote() ──► a task that is the actor ──► ActorHandle: holds the object that stands for it
    handle.m.remote() ──► a call, in the actor's mailbox ──► ObjectRef, list, ObjectRefGenerator
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import cached_property
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    NamedTuple,
    Never,
    NoReturn,
    ParamSpec,
    TypeAlias,
    TypeVar,
    final,
    overload,
)

from ray_lite import api, session
from ray_lite._actor_options import (
    ActorOptions,
    MethodOptions,
    parse_actor_options,
    parse_method_options,
)
from ray_lite._core import Id, ObjectRef
from ray_lite._options import NumReturns
from ray_lite.certificate import actor_id_of
from ray_lite.exceptions import (
    ActorAlreadyExistsError,
    ActorHandleNotFoundError,
    RaySystemError,
)
from ray_lite.remote import (
    Prepared,
    Signature,
    encode_arguments,
    export,
    export_function,
    is_generator_function,
    prepare_call,
    qualified_name,
    submit,
)

if TYPE_CHECKING:
    from ray_lite._typing import Method, MethodDecorator, Options, RayCall, Several, Submit
    from ray_lite.generator import ObjectRefGenerator

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_GROUP: Final = "_default"
ASYNC_CONCURRENCY: Final = 1000  # coroutines of an async actor that are under way at once
_OPTIONS: Final = "__ray_method_options__"


class ActorClassInheritanceException(TypeError):
    """A class derives from what `@remote` made of a class."""


# ---- what a process must know of an actor's class ----


class MethodInfo(NamedTuple):
    """How a method may be called."""

    parameters: tuple[tuple[str, int, bool], ...]  # name, kind, whether there is a default
    options: MethodOptions
    is_generator: bool


class ActorInfo(NamedTuple):
    """An actor's class and options, without the class; stored beside it."""

    name: str
    module: str
    methods: dict[str, MethodInfo]
    is_async: bool
    groups: dict[str, int]  # concurrency group: calls under way at once; the default one first
    max_task_retries: int
    namespace: str
    actor_name: str
    env_vars: dict[str, str]

    @property
    def is_threaded(self) -> bool:
        """Whether calls run in threads, so that several may run at once."""
        return not self.is_async and list(self.groups.values()) != [1]

    def group_index(self, method: str, group: str | None) -> int:
        """Return which of the groups is meant; None is the default one.

        Raises:
            ValueError: There is no such group.
        """
        names = list(self.groups)
        if group is not None and group not in names:
            raise ValueError(
                f"{self.name}.{method}: no concurrency group {group!r}; the class has {names[1:]}"
            )
        return names.index(group or DEFAULT_GROUP)


class _Inspected(NamedTuple):
    """What a class itself says of its actors, whatever their options."""

    constructor: Signature
    methods: dict[str, MethodInfo]
    is_async: bool


def _inspect_class(cls: type) -> _Inspected:
    functions = inspect.getmembers(
        cls, lambda value: inspect.isfunction(value) or inspect.ismethod(value)
    )
    methods = {name: _inspect_method(cls, name, value) for name, value in functions}
    methods |= BUILT_IN_METHODS
    is_async = any(
        inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)
        for _, value in functions
    )
    return _Inspected(_constructor_signature(cls), methods, is_async)


def _describe_actor(
    cls: type, inspected: _Inspected, options: ActorOptions, namespace: str
) -> ActorInfo:
    default = ASYNC_CONCURRENCY if inspected.is_async else 1
    info = ActorInfo(
        name=cls.__name__,
        module=cls.__module__,
        methods=inspected.methods,
        is_async=inspected.is_async,
        groups={
            DEFAULT_GROUP: options.max_concurrency or default,
            **(options.concurrency_groups or {}),
        },
        max_task_retries=options.max_task_retries,
        namespace=namespace,
        actor_name=options.name or "",
        env_vars=options.env_vars(),
    )
    for name, method in inspected.methods.items():
        info.group_index(name, method.options.concurrency_group)
    return info


def _constructor_signature(cls: type) -> Signature:
    try:
        signature = inspect.signature(cls)
    except ValueError:  # of a class written in C
        signature = inspect.signature(lambda *args, **kwargs: None)
    return Signature(cls.__name__, signature)


def _inspect_method(cls: type, name: str, function: Any) -> MethodInfo:
    parameters = list(inspect.signature(function).parameters.values())
    takes_self = inspect.isfunction(function) and not isinstance(
        inspect.getattr_static(cls, name), staticmethod
    )
    generator = is_generator_function(function)
    given = getattr(function, _OPTIONS, {})
    return MethodInfo(
        tuple((p.name, int(p.kind), p.default is not p.empty) for p in parameters[takes_self:]),
        parse_method_options(given, decorator=True, is_generator=generator),
        generator,
    )


_NO_PARAMETERS: Final = MethodInfo((), MethodOptions(), False)
_ANY_FUNCTION: Final = MethodInfo(
    (
        ("function", int(inspect.Parameter.POSITIONAL_ONLY), False),
        ("args", int(inspect.Parameter.VAR_POSITIONAL), False),
        ("kwargs", int(inspect.Parameter.VAR_KEYWORD), False),
    ),
    MethodOptions(),
    False,
)
#: Methods that every actor has and that no class defines.
BUILT_IN_METHODS: Final = {
    "__ray_ready__": _NO_PARAMETERS,
    "__ray_terminate__": _NO_PARAMETERS,
    "__ray_call__": _ANY_FUNCTION,
}


def _signature_of(name: str, method: MethodInfo) -> Signature:
    return Signature(
        name,
        inspect.Signature(
            [
                inspect.Parameter(
                    name,
                    inspect._ParameterKind(kind),
                    default=None if has_default else inspect.Parameter.empty,
                )
                for name, kind, has_default in method.parameters
            ]
        ),
    )


@overload
def method(function: Callable[Concatenate[Any, P], Never], /) -> Method[P, Any, Any]: ...
@overload
def method(
    function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
) -> Method[P, Coroutine[Any, Any, T], ObjectRef[T]]: ...
@overload
def method(  # type: ignore[overload-overlap]
    function: Callable[Concatenate[Any, P], Iterator[T]], /
) -> Method[P, Iterator[T], ObjectRefGenerator[T]]: ...
@overload
def method(  # type: ignore[overload-overlap]
    function: Callable[Concatenate[Any, P], AsyncIterator[T]], /
) -> Method[P, AsyncIterator[T], ObjectRefGenerator[T]]: ...
@overload
def method(function: Callable[Concatenate[Any, P], T], /) -> Method[P, T, ObjectRef[T]]: ...
@overload
def method(
    *, num_returns: Literal["streaming"] | None = None, **options: Any
) -> MethodDecorator: ...
@overload
def method(
    *, num_returns: Several, **options: Any
) -> Callable[[Callable[Concatenate[Any, P], T]], Method[P, T, list[ObjectRef[Any]]]]: ...
@overload
def method(
    *, num_returns: NumReturns, **options: Any
) -> Callable[[Callable[Concatenate[Any, P], T]], Method[P, T, Any]]: ...
def method(*args: Any, **options: Any) -> Any:
    """Give a method of an actor class its options: `@method(num_returns=2)`.

    Without options, `@method`, it only tells a type checker that there will be a `.remote()`.

    Args:
        *args: The method, and nothing else with it.
        **options: num_returns, concurrency_group, max_task_retries, retry_exceptions,
            _generator_backpressure_num_objects, ...

    Raises:
        AssertionError: Options by position, or one that no method has, as in Ray.
        ValueError: A value out of range.
    """
    if len(args) == 1 and not options and callable(args[0]):
        return args[0]
    assert not args, f"@method takes options by keyword, such as num_returns=2; it was given {args}"
    parse_method_options(options, decorator=True, is_generator=True)

    def decorate(function: F) -> F:
        parse_method_options(options, decorator=True, is_generator=is_generator_function(function))
        setattr(function, _OPTIONS, options)
        return function

    return decorate


# ---- classes ----


class ActorClass(Generic[T]):
    """What `@remote` makes of a T; `.remote(...)` makes an actor of it.

    As a type, the new actor is a handle or Any, so that it can be kept as an ActorProxy[T] too.
    """

    _class: type
    _options: ActorOptions

    def __init__(self, *args: Any) -> None:
        """Raise ActorClassInheritanceException: somebody derives from a decorated class."""
        if args:
            raise ActorClassInheritanceException(
                f"{args[0]} derives from the actor class {type(self).__name__}, which is not "
                "supported: derive from the plain class, and decorate both"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise TypeError: it is `.remote()` that makes an actor."""
        name = self._class.__name__
        raise TypeError(
            f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'."
        )

    def __repr__(self) -> str:
        """Return the class's name."""
        return f"{type(self).__name__}"

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T] | Any:
        """Start an actor; returns at once, before it is constructed.

        Args:
            *args: For the constructor. A top-level ObjectRef arrives as its value.
            **kwargs: As args.

        Raises:
            TypeError: The arguments do not fit the constructor, or cannot be pickled.
            ActorAlreadyExistsError: Its name is taken.
        """
        return _make_actor(self, self._options, args, kwargs)

    def options(self, **options: Any) -> _ActorClassWithOptions[T]:
        """Return a wrapper whose `.remote` uses these options over the decorator's."""
        return _ActorClassWithOptions(self, parse_actor_options(options, base=self._options))

    @cached_property
    def _inspected(self) -> _Inspected:
        """Return what the class says of its actors, as it is when the first one is made."""
        return _inspect_class(self._class)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it from the plain class."""
        return _wrap_class, (self._class, self._options)


@final
class _ActorClassWithOptions(Generic[T]):
    """What `.options()` returns: `.remote` and no more."""

    def __init__(self, actor_class: ActorClass[T], options: ActorOptions) -> None:
        self._actor_class = actor_class
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T] | Any:
        """Start an actor; see ActorClass.remote."""
        return _make_actor(self._actor_class, self._options, args, kwargs)


def make_actor_class(cls: type, options: dict[str, Any]) -> ActorClass[Any]:
    """Return what `@remote(**options)` makes of `cls`."""
    return _wrap_class(cls, parse_actor_options(options))


def _wrap_class(cls: type, options: ActorOptions) -> ActorClass[Any]:
    # A class of its own, so that deriving from it calls __init__ with a name, bases and a body.
    wrapper: ActorClass[Any] = type(f"ActorClass({cls.__name__})", (ActorClass,), {})()
    wrapper._class = cls
    wrapper._options = options
    wrapper.__doc__ = cls.__doc__
    wrapper.__module__ = cls.__module__
    return wrapper


def _make_actor(
    actor_class: ActorClass[Any],
    options: ActorOptions,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> ActorHandle[Any]:
    cls, inspected = actor_class._class, actor_class._inspected
    connection = api.connect()
    core = connection.core
    options.check_at_call()
    if options.name == "":
        raise ValueError("name must not be empty; leave it out for an actor without a name")
    inspected.constructor.check(args, kwargs)
    space = options.namespace or connection.current_namespace
    if options.get_if_exists and options.name:
        found = _find(connection, space, options.name)
        if found is not None:
            return found
    info = _describe_actor(cls, inspected, options, space)
    exported = _export_class(connection, cls, info)
    out_of_order = options.allow_out_of_order_execution
    if out_of_order is None:
        out_of_order = info.is_async or info.is_threaded
    try:
        [ref] = connection.submit_actor(
            exported,
            encode_arguments(qualified_name(cls), args, kwargs),
            core.scheduling_class(options.demand()),
            info.name.encode(),
            options.max_restarts,
            0,
            info.actor_name.encode(),
            space.encode(),
            not out_of_order,
            options.lifetime == "detached",
            max(options.max_pending_calls, 0),
            options.actor_generator_backpressure_num_objects or 0,
        )
    except ActorAlreadyExistsError:
        # Somebody else was faster since we looked.
        found = _find(connection, space, options.name or "") if options.get_if_exists else None
        if found is None:
            raise
        return found
    return ActorHandle(ref, exported, info)


def _export_class(connection: session.Connection, cls: type, info: ActorInfo) -> ObjectRef[Any]:
    """Store the class and what there is to know of it, once a session for the same options.

    The class is an object of its own, for only its actors load it.
    """
    what = f"the actor class {cls.__module__}.{cls.__qualname__}"
    loaded = export(connection, cls, cls, what)
    key = (cls, repr(info._replace(methods={})))  # the methods are those of the class
    return export(connection, key, (loaded, tuple(info)), what)


# ---- handles ----


@final
class ActorHandle(Generic[T_co]):
    """Calls an actor: `handle.method.remote(...)`. The actor lives while somebody has a handle.

    Equality and hash go by the actor. It can be passed to tasks and actors. As a type it lets any
    call of any method pass, for Python has no type that maps a class's methods; see ActorProxy.

    Args:
        ref: The object that stands for the actor.
        exported: The stored class.
        info: What is known of it.
    """

    def __init__(self, ref: ObjectRef[Any], exported: ObjectRef[Any], info: ActorInfo) -> None:
        """Keep them."""
        self._ref = ref
        self._exported = exported
        self._info = info

    @property
    def _actor_id(self) -> Id:
        """Return the actor's id, 16 bytes."""
        return actor_id_of(self._ref)

    def __getattr__(self, name: str) -> ActorMethod[..., Any]:
        """Return the method of that name, for `.remote()`; made at its first use."""
        info = self.__dict__.get("_info")  # not there yet while it is being made
        if info is None or name not in info.methods:
            raise AttributeError(f"'ActorHandle' object has no attribute '{name}'")
        method: ActorMethod[..., Any] = ActorMethod(self._ref, info, name)
        self.__dict__[name] = method
        return method

    if TYPE_CHECKING:

        @property
        def __ray_call__(self) -> RayCall[T_co]:
            """Run any function in the actor, with the actor's instance as its first argument."""
            ...

    def __dir__(self) -> list[str]:
        """Return the names of the public methods."""
        return [name for name in self._info.methods if not name.startswith("_")]

    def __repr__(self) -> str:
        """Return the class's name and the actor's id."""
        return f"Actor({self._info.name}, {self._actor_id.hex()})"

    def __eq__(self, other: object) -> bool:
        """Whether both call the same actor."""
        return isinstance(other, ActorHandle) and self._ref == other._ref

    def __hash__(self) -> int:
        """Return a hash of the actor's id."""
        return hash(self._ref)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make a handle of the same actor elsewhere."""
        return _restore_handle, (self._ref, self._exported)


#: A handle whose calls are checked: annotate with ActorProxy[C] what holds a handle of a C. It has
#: the methods that `@method` decorates, and no others; the rest of C only seems to be there.
ActorProxy: TypeAlias = ActorHandle[T] | type[T]


def _restore_handle(ref: ObjectRef[Any], exported: ObjectRef[Any]) -> ActorHandle[Any]:
    connection = session.current()
    if connection is None:
        raise ValueError("a handle of an actor arrived in a process that is in no session")
    return ActorHandle(ref, exported, _info_of(connection, exported))


def _info_of(connection: session.Connection, exported: ObjectRef[Any]) -> ActorInfo:
    info: ActorInfo | None = connection.cache.get(exported)
    if info is None:
        info = ActorInfo(*connection.core.read(exported)[1])
        connection.cache[exported] = info
    return info


@final
class ActorMethod(Generic[P, R_co]):
    """A method of an actor that takes a P; `.remote()` gives an R_co.

    Args:
        ref: The object that stands for the actor, which this keeps reachable.
        info: What is known of the actor.
        name: The method's name.
    """

    def __init__(self, ref: ObjectRef[Any], info: ActorInfo, name: str) -> None:
        """Keep them; not the handle, which keeps this."""
        self._ref = ref
        self._info = info
        self._name = name
        self._prepared: Prepared | None = None
        self._signature = _signature_of(name, info.methods[name])

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise TypeError: it is `.remote()` that calls the method."""
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running "
            f"'object.{self._name}()', try 'object.{self._name}.remote()'."
        )

    def _submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit one call and return at once.

        Returns:
            As a task: an ObjectRef, a list of them, None, or an ObjectRefGenerator.

        Raises:
            TypeError: The arguments do not fit the method, or cannot be pickled.
            PendingCallsLimitExceeded: This process has max_pending_calls calls of it pending.
        """
        prepared = self._prepared
        if prepared is None:
            options = self._info.methods[self._name].options
            prepared = self._prepared = _prepare(self._info, self._name, options)
        self._signature.check(args, kwargs)
        if prepared.submission.is_over:
            raise RaySystemError(
                f"Failed to submit a call to Actor({self._info.name}, "
                f"{actor_id_of(self._ref).hex()}): Can't find actor, its session has ended. Make a "
                "new actor"
            )
        return submit(prepared, args, kwargs, self._ref)

    def _with_options(self, **options: Any) -> _MethodWithOptions:
        """Return a wrapper whose `.remote` uses these options over the method's."""
        method = self._info.methods[self._name]
        given = parse_method_options(
            options, decorator=False, is_generator=method.is_generator, base=method.options
        )
        configured = copy.copy(self)
        configured._prepared = _prepare(self._info, self._name, given)
        return _MethodWithOptions(configured)

    if TYPE_CHECKING:

        @property
        def remote(self) -> Submit[P, R_co]:
            """Submit one call and return at once."""
            ...

        @property
        def options(self) -> Options[P, R_co]:
            """Return a wrapper whose `.remote` uses these options over the method's."""
            ...
    else:
        remote = _submit
        options = _with_options


@final
class _MethodWithOptions:
    """What `.options()` of a method returns: `.remote` and no more."""

    def __init__(self, method: ActorMethod[..., Any]) -> None:
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit one call; see ActorMethod.remote."""
        return self._method._submit(*args, **kwargs)


def _prepare(info: ActorInfo, name: str, options: MethodOptions) -> Prepared:
    """Put all of a call but its arguments into the core's terms."""
    connection = api.connect()
    method = info.methods[name]
    returns: NumReturns = (
        options.num_returns
        if options.num_returns is not None
        else ("streaming" if method.is_generator else 1)
    )
    retries = options.max_task_retries
    title = f"{info.name}.{name}"
    return prepare_call(
        connection,
        export_function(
            connection,
            name,
            title,
            options.retry_exceptions,
            per_yield=options.num_objects_per_yield,
        ),
        returns,
        demand={},
        name=options.name or title,
        is_named=bool(options.name),
        max_retries=info.max_task_retries if retries is None else retries,
        limit=options.generator_backpressure_num_objects,
        group=info.group_index(name, options.concurrency_group),
        where=f"{info.module}.{options.name or title}",
    )


# ---- names, kill, exit ----


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """Return a handle of the actor called `name`.

    Raises:
        ValueError: There is none in that namespace (None: the session's), or `name` is empty.
        TypeError: `name` is not a str.
    """
    if not isinstance(name, str):
        raise TypeError(f"get_actor() takes a name, not {type(name).__name__}")
    if not name:
        raise ValueError("get_actor(''): Please supply a non-empty value to get_actor")
    connection = api.connect()
    space = namespace or connection.current_namespace
    handle = _find(connection, space, name)
    if handle is None:
        raise ValueError(
            f"Failed to look up actor with name '{name}' in namespace '{space}': there is none"
            f"{_where_else(connection, name)}; ray_lite.util.list_named_actors() shows those there "
            "are"
        )
    return handle


def _where_else(connection: session.Connection, name: str) -> str:
    """Return why an actor of that name is not in a namespace."""
    spaces = [repr(space) for space, other in connection.core.actor_names() if other == name]
    if not spaces:
        return ", it was never made or has died"
    return f", but in {', '.join(spaces)}: name the namespace here, or in init()"


def _find(connection: session.Connection, space: str, name: str) -> ActorHandle[Any] | None:
    found = connection.core.find_actor(space, name)
    if found is None:
        return None
    ref, exported = found
    return ActorHandle(ref, exported, _info_of(connection, exported))


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Return the names of this namespace's actors, or {"name", "namespace"} of all of them."""
    connection = api.connect()
    names = connection.core.actor_names()
    if all_namespaces:
        return [{"name": name, "namespace": space} for space, name in names]
    return [name for space, name in names if space == connection.current_namespace]


def kill(actor: ActorProxy[Any], *, no_restart: bool = True) -> None:
    """Kill an actor's process; its calls, present and future, raise ActorDiedError.

    Args:
        actor: Its handle. Harmless if it is dead already.
        no_restart: False: it is restarted if its max_restarts allows.

    Raises:
        ValueError: Not a handle.
        ActorHandleNotFoundError: A handle of a session that has ended.
    """
    connection = api.connect()
    if not isinstance(actor, ActorHandle):
        raise ValueError(
            f"ray.kill() only supported for actors. Got: {type(actor).__name__}; use cancel() for "
            "tasks"
        )
    try:
        if connection.core.kill_actor(actor._ref, no_restart) and connection.local is not None:
            connection.local.kill(actor._ref, no_restart=no_restart)
    except ValueError as error:
        raise ActorHandleNotFoundError(
            f"{actor!r} was made in a session that has ended, so there is nothing to kill"
        ) from error


class ActorExit(SystemExit):
    """exit_actor() was called: the actor ends, for good."""


def exit_actor() -> NoReturn:
    """End the actor that runs this, for good; in-flight and later calls raise ActorDiedError.

    Raises:
        TypeError: Called outside an actor.
    """
    if session.current_actor() is None:
        raise TypeError("exit_actor() called outside an actor: it ends the actor that calls it")
    raise ActorExit(0)
