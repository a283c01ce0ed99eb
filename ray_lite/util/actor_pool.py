"""ActorPool: give work to whichever of some actors is free. It must not know how calls are run."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray_lite as ray

Submit = Callable[[Any, Any], Any]


class ActorPool:
    """A pool of actors; each does one thing at a time.

    Args:
        actors: Handles, free to be used.
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        """Start with all of them free."""
        self._idle: list[Any] = list(actors)
        #: What is under way: reference -> (index in the order of submission, actor).
        self._running: dict[Any, tuple[int, Any]] = {}
        #: Results that were submitted and not handed out: index -> reference.
        self._results: dict[int, Any] = {}
        self._submitted = 0
        self._next = 0
        self._waiting: deque[tuple[Submit, Any]] = deque()

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Return the results of `fn(actor, value)` for each value, in the order of the values.

        What earlier submits left is dropped.
        """
        self._forget_results()
        for value in values:
            self.submit(fn, value)
        return self._drain(self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """As map, in the order in which the results come."""
        self._forget_results()
        for value in values:
            self.submit(fn, value)
        return self._drain(self.get_next_unordered)

    def _drain(self, get: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield get()

    def _forget_results(self) -> None:
        while self.has_next():
            try:
                self.get_next_unordered(timeout=0)
            except TimeoutError:
                break

    def submit(self, fn: Submit, value: Any) -> None:
        """Have a free actor do `fn(actor, value)`, which returns a reference; else later."""
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.pop()
        ref = fn(actor, value)
        self._running[ref] = (self._submitted, actor)
        self._results[self._submitted] = ref
        self._submitted += 1

    def has_next(self) -> bool:
        """Return whether there is a result to be asked for."""
        return bool(self._results)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Return the next result in the order of submission.

        Raises:
            StopIteration: There is none.
            TimeoutError: It did not come in `timeout` seconds. With `ignore_if_timedout` it is
                skipped then, and its actor is free again once it has come.
            ValueError: Results were taken out of order before.
        """
        if not self.has_next():
            raise StopIteration("No more results to get")
        if self._next not in self._results:
            raise ValueError("get_next() is not allowed after get_next_unordered()")
        ref = self._results[self._next]
        if timeout is not None and not ray.wait([ref], timeout=timeout)[0]:
            if ignore_if_timedout:
                del self._results[self._next]
                self._next += 1
            raise TimeoutError(f"Timed out waiting for result {self._next} for {timeout} s")
        del self._results[self._next]
        self._next += 1
        return self._finish(ref)

    def get_next_unordered(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """Return the next result to come; see get_next."""
        if not self.has_next():
            raise StopIteration("No more results to get")
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
        if not ready:
            raise TimeoutError(f"Timed out waiting for any result for {timeout} s")
        index, _ = self._running[ready[0]]
        self._results.pop(index, None)
        self._next = max(self._next, index + 1)
        return self._finish(ready[0])

    def _finish(self, ref: Any) -> Any:
        """Free the actor of a result that is there, and return the result."""
        if ref in self._running:
            _, actor = self._running.pop(ref)
            ray.wait([ref])
            self._free(actor)
        return ray.get(ref)

    def _free(self, actor: Any) -> None:
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """Return whether an actor is free and nothing waits for one."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any:
        """Take a free actor out of the pool and return it; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add an actor that is free.

        Raises:
            ValueError: It is in the pool already.
        """
        if actor in self._idle or any(actor == busy for _, busy in self._running.values()):
            raise ValueError("Actor already belongs to current ActorPool")
        self._free(actor)
