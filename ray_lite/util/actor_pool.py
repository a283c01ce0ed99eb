"""ActorPool: give work to whichever of some actors is free.

Owns who is free, what is under way, and what waits for an actor. It uses the public API alone and
must not know how calls are run.

    submit ──► waiting ──► under way: a result that comes, and its actor ──► get_next
                  ▲                                                             │
                  └───────────────── idle: actors ◄─────────────────────────────┘
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

import ray_lite as ray
from ray_lite.exceptions import ActorDiedError, RayTaskError

Submit = Callable[[Any, Any], Any]
"""Takes an actor and a value, calls the actor, and returns what `.remote()` gave."""


class _Work(NamedTuple):
    """What an actor of the pool is doing."""

    result: Any  # an ObjectRef, a list of them, or an ObjectRefGenerator
    actor: Any

    @property
    def last(self) -> Any:
        """What `wait` is to wait for: the last value of a call is there when all are."""
        return self.result[-1] if isinstance(self.result, list) else self.result


class ActorPool:
    """A pool of actors, each of which does one thing at a time.

    An actor that has died is given no more work.

    Args:
        actors: Handles that nobody else gives work to.

    Note:
        Not safe from several threads at once.
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        """Take the actors as free."""
        self._idle: list[Any] = list(actors)
        #: By the number of the submission. What could not be submitted is the error that says why.
        self._under_way: dict[int, _Work | Exception] = {}
        self._submitted = 0
        #: The number whose result get_next() returns.
        self._next = 0
        self._waiting: deque[tuple[Submit, Any]] = deque()

    # ---- many values ----

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Return the results of `fn(actor, value)` for each value, in the order of the values.

        All values are submitted at once, as in Ray; the results are waited for one by one, as the
        iterator is used. Results of earlier submissions are dropped.

        Raises:
            RuntimeError: From the iterator: values are left, and no actor to work on them.
        """
        self._submit_all(fn, values)
        return self._drain(self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Return the results as `map` does, but each as soon as it has come."""
        self._submit_all(fn, values)
        return self._drain(self.get_next_unordered)

    def _submit_all(self, fn: Submit, values: Iterable[Any]) -> None:
        while self._under_way:
            self._drop(min(self._under_way))
        for value in values:
            self.submit(fn, value)

    def _drain(self, get: Callable[[], Any]) -> Iterator[Any]:
        while self._under_way or self._waiting:
            yield get()

    # ---- one value ----

    def submit(self, fn: Submit, value: Any) -> None:
        """Have a free actor do `fn(actor, value)`; if there is none, the next that gets free.

        Args:
            fn: Calls the actor; returns what `.remote()` gave. What it raises is raised here, or,
                if the value had to wait for an actor, in the place of its result.
            value: For `fn`.
        """
        if self._idle:
            self._start(fn, value)
        else:
            self._waiting.append((fn, value))

    def _start(self, fn: Submit, value: Any) -> None:
        actor = self._idle[-1]
        work = _Work(fn(actor, value), actor)  # the actor stays free if this raises
        self._idle.pop()
        self._add(work)

    def _add(self, work: _Work | Exception) -> None:
        self._under_way[self._submitted] = work
        self._submitted += 1

    def has_next(self) -> bool:
        """Return whether an actor works on something, or has a result that nobody took."""
        return bool(self._under_way)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Wait for the next result in the order of submission and return it.

        Args:
            timeout: Seconds to wait, >= 0. None waits for ever.
            ignore_if_timedout: Whether a result that does not come in time is dropped, so that
                the next call is about the one after it. Its actor gets new work, which starts
                when the old is done.

        Raises:
            StopIteration: Nothing was submitted that is not returned yet.
            TimeoutError: It did not come in time.
            ValueError: get_next_unordered() has returned a later one.
            RuntimeError: What was submitted waits for an actor, and there is none.
        """
        self._check_has_next()
        if self._next not in self._under_way:
            raise ValueError(
                "get_next() must not follow get_next_unordered(): a later result has been "
                "returned already. Take what is left by get_next_unordered()"
            )
        if self._first_ready([self._next], timeout) is None:
            self._give_up(self._next, timeout, ignore_if_timedout)
        return self._take(self._next)

    def get_next_unordered(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """Wait for whichever result comes first and return it.

        Args:
            timeout: As for get_next.
            ignore_if_timedout: As for get_next; it is the oldest work that is dropped.

        Raises:
            StopIteration: Nothing was submitted that is not returned yet.
            TimeoutError: No result came in time.
            RuntimeError: What was submitted waits for an actor, and there is none.
        """
        self._check_has_next()
        number = self._first_ready(list(self._under_way), timeout)
        if number is None:
            self._give_up(min(self._under_way), timeout, ignore_if_timedout)
        return self._take(number)

    def _check_has_next(self) -> None:
        if self._under_way:
            return
        if self._waiting:
            raise RuntimeError(
                f"{len(self._waiting)} values wait for an actor, but the pool has none left; "
                "push() one"
            )
        raise StopIteration("No more results to get")

    def _first_ready(self, numbers: list[int], timeout: float | None) -> int | None:
        """Return the first of `numbers` whose result has come; None if none does in time."""
        refs: dict[Any, int] = {}
        for number in numbers:
            work = self._under_way[number]
            if isinstance(work, Exception):
                return number
            refs[work.last] = number
        ready, _ = ray.wait(list(refs), timeout=timeout)
        return refs[ready[0]] if ready else None

    def _give_up(self, number: int, timeout: float | None, ignore: bool) -> NoReturn:
        said = f"Timed out waiting for result: none came within {timeout} s"
        if not ignore:
            raise TimeoutError(said)
        self._drop(number)
        raise TimeoutError(f"{said}. Number {number} of what was submitted has been ignored")

    def _take(self, number: int) -> Any:
        """Return a result that has come, or raise it, and give its actor new work."""
        work = self._remove(number)
        if isinstance(work, Exception):
            raise work
        free = [work.actor]
        try:
            return ray.get(work.result)
        except ActorDiedError as error:
            # A RayTaskError is about another actor, which this one called.
            if not isinstance(error, RayTaskError):
                free = []
            raise
        finally:
            self._release(free)

    def _drop(self, number: int) -> None:
        """Forget a result; its actor gets new work, which it does after the old."""
        work = self._remove(number)
        if not isinstance(work, Exception):
            self._release([work.actor])

    def _remove(self, number: int) -> _Work | Exception:
        self._next = max(self._next, number + 1)
        return self._under_way.pop(number)

    # ---- actors ----

    def _release(self, actors: list[Any]) -> None:
        """Add actors that are free, and have them do what waits."""
        self._idle.extend(actors)
        while self._idle and self._waiting:
            fn, value = self._waiting.popleft()
            try:
                self._start(fn, value)
            except Exception as error:  # whoever is here asked for another result
                self._add(error)

    def has_free(self) -> bool:
        """Return whether an actor is free and nothing waits for one."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any:
        """Take a free actor out of the pool and return it; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add a free actor.

        Raises:
            ValueError: It is in the pool already.
        """
        busy = [work.actor for work in self._under_way.values() if isinstance(work, _Work)]
        if actor in self._idle or actor in busy:
            raise ValueError(f"Actor already belongs to current ActorPool: {actor}")
        self._release([actor])
