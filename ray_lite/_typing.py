"""What a type checker knows of `.remote`, `.options`, `@remote` and `@method`.

Owns these types and nothing that runs: it is imported under TYPE_CHECKING alone, so a program never
loads it. It must not know how a call is made.

    function ──@remote──► RemoteFunction[P, R]  .remote: Submit[P, R]  .options: Options[P, R]
    method ──@method──► Method[P, T, R] ──of a handle──► ActorMethod[P, R], with the same two

P is what the function takes, T what it returns, and R what `.remote()` gives for it: an
ObjectRef[T], an ObjectRefGenerator[T] for a generator of T, a list of references, or Any where only
the run can tell.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    Never,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    overload,
)

from ray_lite._core import ObjectRef
from ray_lite._options import NumReturns
from ray_lite.actor import ActorClass, ActorMethod
from ray_lite.generator import DynamicObjectRefGenerator, ObjectRefGenerator
from ray_lite.remote import RemoteFunction

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")

#: num_returns that give a list, mostly of unlike things. An int that is no literal may be 0 or 1.
Several: TypeAlias = Literal[2, 3, 4, 5, 6, 7, 8, 9, 10]


# ---- calls ----


class Has(Protocol[T_co]):
    """Something with a signature; as the type of a `self` it takes the signature apart."""

    @property
    def signature(self) -> T_co:
        """Return a Callable[P, R]. Only the checker ever looks at it."""
        ...


class Submit(Protocol[P, R_co]):
    """`.remote`: called as the function is, but each argument may be a reference to its value.

    P alone cannot say the latter: it would refuse `f.remote(ref)`. So it comes first, which checks
    all of a call without references and shows the function's own signature in an editor, and the
    other overloads take P apart to allow a reference to an A wherever an A is expected.

    These check what is passed by position, up to the sixth argument. No type can say "one of these
    keywords is a reference" without naming the keywords, so they let all keywords pass, and with
    them a call that leaves arguments out: to refuse a right program would be worse, and `.remote()`
    itself raises TypeError for a keyword that the function has not, or an argument that is missing.
    """

    @property
    def signature(self) -> Callable[P, R_co]:
        """See Has."""
        ...

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, **kwargs: Any) -> R_co: ...
    @overload
    def __call__(
        self: Has[Callable[Concatenate[A, ...], object]],
        a: A | ObjectRef[A],
        /,
        **kwargs: Any,
    ) -> R_co: ...
    @overload
    def __call__(
        self: Has[Callable[Concatenate[A, B, ...], object]],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        /,
        **kwargs: Any,
    ) -> R_co: ...
    @overload
    def __call__(
        self: Has[Callable[Concatenate[A, B, C, ...], object]],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        /,
        **kwargs: Any,
    ) -> R_co: ...
    @overload
    def __call__(
        self: Has[Callable[Concatenate[A, B, C, D, ...], object]],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        /,
        **kwargs: Any,
    ) -> R_co: ...
    @overload
    def __call__(
        self: Has[Callable[Concatenate[A, B, C, D, E, ...], object]],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        e: E | ObjectRef[E],
        /,
        **kwargs: Any,
    ) -> R_co: ...
    @overload
    def __call__(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, ...], object]],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        e: E | ObjectRef[E],
        f: F | ObjectRef[F],
        /,
        *rest: Any,
        **kwargs: Any,
    ) -> R_co: ...


class WithOptions(Protocol[P, R_co]):
    """What `.options()` returns: `.remote` and no more."""

    @property
    def remote(self) -> Submit[P, R_co]:
        """Submit one call."""
        ...


class Options(Protocol[P, R_co]):
    """`.options`: without num_returns it changes nothing of what `.remote()` gives."""

    @property
    def signature(self) -> Callable[P, R_co]:
        """See Has."""
        ...

    @overload
    def __call__(self, *, num_returns: None = None, **options: Any) -> WithOptions[P, R_co]: ...
    @overload
    def __call__(
        self: Has[Callable[..., ObjectRefGenerator[T]]],
        *,
        num_returns: Literal["dynamic"],
        **options: Any,
    ) -> WithOptions[P, ObjectRef[DynamicObjectRefGenerator[T]]]: ...
    @overload
    def __call__(
        self, *, num_returns: Several, **options: Any
    ) -> WithOptions[P, list[ObjectRef[Any]]]: ...
    @overload
    def __call__(self, *, num_returns: NumReturns, **options: Any) -> WithOptions[P, Any]: ...


# ---- @remote ----

# Where two overloads fit, the first is meant. Never stands for a function of which it is not known
# what it returns, and one that never does. A generator function has to say Iterator, Generator or
# their async kin: that it returns an Iterable can be said of one that returns a list, too.


class Remote(Protocol):
    """`@remote(...)` without num_returns."""

    @overload
    def __call__(self, cls: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, Never], /) -> RemoteFunction[P, Any]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Iterator[T] | AsyncIterator[T]], /
    ) -> RemoteFunction[P, ObjectRefGenerator[T]]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> RemoteFunction[P, ObjectRef[T]]: ...


# ---- @method ----


class Method(Generic[P, T, R_co]):
    """A decorated method: inside its class it is called, through a handle it has `.remote`."""

    @overload
    def __get__(self, actor: None, owner: type, /) -> ActorMethod[P, R_co]: ...
    @overload
    def __get__(self, actor: object, owner: type, /) -> Callable[P, T]: ...
    def __get__(self, actor: object, owner: type, /) -> Any:
        """Tell the two apart: a handle has its types from the class, for it is no instance."""


class MethodDecorator(Protocol):
    """`@method(...)` without num_returns, and `@method`."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Never], /
    ) -> Method[P, Any, Any]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
    ) -> Method[P, Coroutine[Any, Any, T], ObjectRef[T]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Any, P], Iterator[T]], /
    ) -> Method[P, Iterator[T], ObjectRefGenerator[T]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Any, P], AsyncIterator[T]], /
    ) -> Method[P, AsyncIterator[T], ObjectRefGenerator[T]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], T], /
    ) -> Method[P, T, ObjectRef[T]]: ...


class RayCall(Protocol[T_co]):
    """`handle.__ray_call__`: have an actor run a function of itself, such as a method."""

    @overload
    def remote(self, function: Callable[[T_co], T], /) -> ObjectRef[T]: ...
    @overload
    def remote(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> ObjectRef[T]: ...
