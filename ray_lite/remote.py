"""@remote on functions: how a call becomes a submitted task.

Owns exporting functions (each once a session), checking a call against the signature, and the bits
of a task's record that the Python layer reads back (Mode). It must not know how tasks are run.
"""

from __future__ import annotations

import enum
import functools
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    Never,
    NoReturn,
    ParamSpec,
    TypeVar,
    overload,
)

from ray_lite import api, session
from ray_lite._codec import Encoded, encode, encode_call
from ray_lite._core import ObjectRef, Submission
from ray_lite._options import NumReturns, TaskOptions, parse_task_options
from ray_lite.generator import DynamicObjectRefGenerator, ObjectRefGenerator
from ray_lite.session import Connection

if TYPE_CHECKING:
    from ray_lite._typing import Options, Remote, Several, Submit
    from ray_lite.actor import ActorClass

P = ParamSpec("P")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class Mode(enum.IntFlag):
    """The option bits of a task's record."""

    DYNAMIC = 1  # num_returns="dynamic"
    NAMED = 4  # the record's name is from options, not the function's


class Export(NamedTuple):
    """What a worker needs of a function, stored once a session."""

    function: Callable[..., Any] | str  # or the name of an actor's method
    name: str
    retry_exceptions: bool | tuple[type[Exception], ...]
    max_calls: int  # the worker ends after so many calls; 0 = never
    env_vars: Mapping[str, str]  # set while it runs
    per_yield: int  # a stream's generator yields tuples of so many values; 1: values


_NO_ENV_VARS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class Prepared:
    """All of a call but its arguments, made once a session."""

    connection: Connection
    submission: Submission
    single: bool  # .remote() gives the reference itself
    streams: bool  # .remote() gives a generator; neither: a list of references, or None
    where: str  # what errors call the function


class Signature:
    """Checks calls against a signature; the common case without inspect.

    Args:
        name: Of what is called, for the error.
        signature: It.
    """

    def __init__(self, name: str, signature: inspect.Signature) -> None:
        """Count what a call must and may have."""
        self._name = name
        self._signature = signature
        parameters = self._signature.parameters.values()
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        positional = [p for p in parameters if p.kind in plain]
        self._least = sum(p.default is p.empty for p in positional)
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self._most = sys.maxsize if variadic else len(positional)
        if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            self._most = -1  # a keyword is needed: always ask inspect

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError if the function cannot be called like that."""
        if not kwargs and self._least <= len(args) <= self._most:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}{self._signature}: {error}") from None


class RemoteFunction(Generic[P, R_co]):
    """A function of a P that runs as a task; `.remote()` gives an R_co. Made by `@remote`.

    Args:
        function: The function; reusable in later sessions.
        options: As they were given to the decorator, checked.
    """

    def __init__(self, function: Callable[..., Any], options: TaskOptions) -> None:
        """Take the name, signature and docstring of `function` over."""
        self._function = function
        self._options = options
        self._signature = Signature(function.__name__, inspect.signature(function))
        self._prepared: Prepared | None = None
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise TypeError: it is `.remote()` that runs the function."""
        name = getattr(self._function, "__name__", "f")
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{name}()', try "
            f"'{name}.remote()'."
        )

    def __repr__(self) -> str:
        """Return the class's name and where the function is defined."""
        return f"RemoteFunction({self._function.__module__}.{self._function.__qualname__})"

    def _submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit one call and return at once.

        Args:
            *args: An ObjectRef here, or as a keyword's value, arrives as its value, once that is
                there; one inside a container arrives as an ObjectRef.
            **kwargs: As args.

        Returns:
            An ObjectRef, a list of num_returns of them (num_returns > 1), or None (0).

        Raises:
            TypeError: The arguments do not fit the signature, or cannot be pickled.
        """
        prepared = self._prepared
        if prepared is None or prepared.submission.is_over:
            prepared = self._prepare()
        self._signature.check(args, kwargs)
        return submit(prepared, args, kwargs)

    def _with_options(self, **options: Any) -> _FunctionWithOptions:
        """Return a wrapper whose `.remote` uses these options over the decorator's.

        Raises:
            ValueError: An unknown keyword, or a value out of range.
            TypeError: A value of the wrong type.
        """
        generator = is_generator_function(self._function)
        checked = parse_task_options(options, is_generator=generator, base=self._options)
        return _FunctionWithOptions(self._function, checked, self._read_signature())

    if TYPE_CHECKING:

        @property
        def remote(self) -> Submit[P, R_co]:
            """Submit one call and return at once."""
            ...

        @property
        def options(self) -> Options[P, R_co]:
            """Return a wrapper whose `.remote` uses these options over the decorator's."""
            ...
    else:
        remote = _submit
        options = _with_options

    def _prepare(self) -> Prepared:
        self._read_signature()
        prepared = _prepare(api.connect(), self._function, self._options)
        prepared.connection.keepers.add(self)
        self._prepared = prepared
        return prepared

    def forget_session(self) -> None:
        """Keep nothing of a session that has ended; the next call prepares anew."""
        self._prepared = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what outlives a session."""
        return {"_function": self._function, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start as if no session had seen it."""
        # Inside a recursive function's own pickle the function is not complete yet, so anything
        # that looks into it has to wait until the first use.
        self.__dict__.update(state)
        self._prepared = None

    def _read_signature(self) -> Signature:
        if "_signature" not in self.__dict__:  # since it was unpickled
            self._signature = Signature(self._function.__name__, inspect.signature(self._function))
        return self._signature


class _FunctionWithOptions:
    """What `.options()` returns: `.remote` and no more."""

    def __init__(
        self, function: Callable[..., Any], options: TaskOptions, signature: Signature
    ) -> None:
        self._function = function
        self._options = options
        self._signature = signature

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit one call; see RemoteFunction.remote."""
        prepared = _prepare(api.connect(), self._function, self._options)
        self._signature.check(args, kwargs)
        return submit(prepared, args, kwargs)


def submit(
    prepared: Prepared,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    actor: ObjectRef[Any] | None = None,
) -> Any:
    """Submit one call of a function, or of a method of `actor`.

    Raises:
        TypeError: An argument cannot be pickled.
    """
    encoded = encode_arguments(prepared.where, args, kwargs)
    connection = prepared.connection
    parent = None if connection.actor is None else session.current_job.get()
    if connection.local is None:
        refs = prepared.submission.submit(encoded, actor, parent)
    else:
        refs = connection.local.submit(prepared.submission, encoded, actor, parent)
    if prepared.single:
        return refs
    if prepared.streams:
        completion, stream = refs
        return ObjectRefGenerator(stream, completion)
    return refs or None


def encode_arguments(callee: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Encoded:
    """Return the arguments of a call, encoded; a TypeError says for what they cannot be."""
    try:
        return encode_call(args, kwargs)
    except TypeError as error:
        raise TypeError(
            f"Could not serialize the argument for a task or actor {callee}: {error}"
        ) from error


def _prepare(
    connection: Connection, function: Callable[..., Any], options: TaskOptions
) -> Prepared:
    """Export `function` and put the options into the core's terms."""
    options.check_at_call()
    name: str = getattr(function, "__name__", "task")
    exported = export_function(
        connection,
        function,
        name,
        options.retry_exceptions,
        options.max_calls,
        options.env_vars(),
        options.num_objects_per_yield,
    )
    return prepare_call(
        connection,
        exported,
        options.num_returns,
        demand=options.demand(),
        name=options.name or name,
        is_named=options.name is not None,
        max_retries=options.max_retries,
        limit=options.generator_backpressure_num_objects,
        where=qualified_name(function),
    )


def prepare_call(
    connection: Connection,
    function: ObjectRef[Any],
    returns: NumReturns,
    *,
    demand: dict[str, int],
    name: str,
    is_named: bool,
    max_retries: int,
    limit: int | None,
    where: str,
    group: int = 0,
) -> Prepared:
    """Put a call of an exported function or method into the core's terms.

    Args:
        connection: Where it is submitted.
        function: What was exported.
        returns: num_returns.
        demand: What it holds while it runs: resource name to units of 1/10000.
        name: Shown in logs and errors.
        is_named: Whether `name` is from options.
        max_retries: As the option.
        limit: A stream pauses at so many untaken items; None is never.
        where: What errors call the function.
        group: Of an actor's threads, that are to run it.
    """
    streams = returns == "streaming"
    mode = Mode.DYNAMIC if returns == "dynamic" else Mode(0)
    if is_named:
        mode |= Mode.NAMED
    nreturns = 1 if isinstance(returns, str) else returns
    submission = Submission(
        connection.core,
        function,
        connection.core.scheduling_class(demand),
        nreturns,
        name.encode(),
        max_retries,
        int(mode),
        (limit or 0) if streams else -1,
        group,
    )
    return Prepared(connection, submission, nreturns == 1 and not streams, streams, where)


def export_function(
    connection: Connection,
    function: Callable[..., Any] | str,
    name: str,
    retry_exceptions: bool | tuple[type[Exception], ...],
    max_calls: int = 0,
    env_vars: Mapping[str, str] = _NO_ENV_VARS,
    per_yield: int = 1,
) -> ObjectRef[Any]:
    """Store what a worker needs of a function, or of the method so called, once a session.

    Later changes to it are not seen.
    """
    key = (function, name, retry_exceptions, max_calls, tuple(sorted(env_vars.items())), per_yield)
    value = (function, name, retry_exceptions, max_calls, dict(env_vars), per_yield)
    return export(connection, key, value, f"the function {qualified_name(function)}")


def export(connection: Connection, key: object, value: object, what: str) -> ObjectRef[Any]:
    """Store `value` once a session, under `key`.

    Raises:
        TypeError: It cannot be pickled; the message names `what`.
    """
    ref: ObjectRef[Any] | None = connection.cache.get(key)
    if ref is None:
        try:
            encoded = encode(value)
        except TypeError as error:
            raise TypeError(f"Could not serialize {what}: {error}") from error
        if encoded.moves:
            raise TypeError(
                f"Could not serialize {what}: it holds {encoded.moves[0]!r}, which has one "
                "consumer, and every call would be one; pass the generator as an argument"
            )
        ref = connection.core.put(encoded)
        connection.cache[key] = ref
    return ref


def qualified_name(function: Callable[..., Any] | str) -> str:
    """Return what errors call a function, or a method by its name."""
    if isinstance(function, str):
        return function
    return f"{function.__module__}.{getattr(function, '__qualname__', function)}"


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Return whether the body yields, in a plain or an async function."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


# The overloads say what _typing.py explains; where two fit, the first is meant.


@overload
def remote(cls: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(function: Callable[P, Never], /) -> RemoteFunction[P, Any]: ...
@overload
def remote(  # type: ignore[overload-overlap]
    function: Callable[P, Iterator[T] | AsyncIterator[T]], /
) -> RemoteFunction[P, ObjectRefGenerator[T]]: ...
@overload
def remote(function: Callable[P, T], /) -> RemoteFunction[P, ObjectRef[T]]: ...
@overload
def remote(*, num_returns: Literal["streaming"] | None = None, **options: Any) -> Remote: ...
@overload
def remote(
    *, num_returns: Literal["dynamic"], **options: Any
) -> Callable[
    [Callable[P, Iterable[T] | AsyncIterator[T]]],
    RemoteFunction[P, ObjectRef[DynamicObjectRefGenerator[T]]],
]: ...
@overload
def remote(
    *, num_returns: Several, **options: Any
) -> Callable[[Callable[P, Any]], RemoteFunction[P, list[ObjectRef[Any]]]]: ...
@overload
def remote(
    *, num_returns: NumReturns, **options: Any
) -> Callable[[Callable[P, Any]], RemoteFunction[P, Any]]: ...
def remote(*args: Any, **options: Any) -> Any:
    """Make a function a task: `@remote`, `@remote(num_cpus=2)`, `remote(f)`.

    Args:
        *args: The function, and nothing else with it.
        **options: num_returns, num_cpus, resources, max_retries (or num_retries),
            retry_exceptions, name, ...; see ray_lite._options.TaskOptions.

    Returns:
        A RemoteFunction, or a decorator that makes one.

    Raises:
        AssertionError: Arguments that are neither one function nor only keywords, as in Ray.
        TypeError: What is decorated is not a function; an option of the wrong type.
        ValueError: An unknown option, one out of range, or an `async def` function.
    """
    if len(args) == 1 and not options and callable(args[0]):
        return _make_remote(args[0], {})
    if args or not options:
        raise AssertionError(
            "The @ray.remote decorator must be applied either with no arguments and no "
            "parentheses, for example '@ray.remote', or it must be applied using some of the "
            "keyword arguments, for example '@ray.remote(num_returns=2)'."
        )
    return functools.partial(_make_remote, options=options)


def _make_remote(function: Any, options: Mapping[str, Any]) -> Any:
    if inspect.isclass(function):
        from ray_lite.actor import make_actor_class  # actors build on what is here

        return make_actor_class(function, dict(options))
    if not inspect.isfunction(function):
        raise TypeError(
            "The @ray.remote decorator must be applied to either a function or a class, not to "
            f"{type(function).__name__}; wrap it in a function of your own"
        )
    if inspect.iscoroutinefunction(function):
        raise ValueError(
            f"'async def' should not be used for remote tasks: {function.__name__} would have no "
            "event loop. Make it a plain function that calls asyncio.run()"
        )
    generator = is_generator_function(function)
    return RemoteFunction(function, parse_task_options(options, is_generator=generator))
