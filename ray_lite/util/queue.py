"""Queue: a first-in-first-out queue that tasks and actors share; an async actor holds the items."""

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

import ray_lite as ray


class Empty(queue.Empty):
    """Nothing was there to be taken in time."""


class Full(queue.Full):
    """There was no room in time."""


class _QueueActor:
    """Holds the items; every method is a coroutine, so that one that waits holds up no other."""

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)
        self._maxsize = maxsize

    async def qsize(self) -> int:
        return self._queue.qsize()

    async def empty(self) -> bool:
        return self._queue.empty()

    async def full(self) -> bool:
        return self._queue.full()

    async def put(self, item: Any, timeout: float | None = None) -> bool:
        """Whether there was room in time."""
        try:
            if timeout == 0:
                self._queue.put_nowait(item)
            else:
                await asyncio.wait_for(self._queue.put(item), timeout)
        except (TimeoutError, asyncio.QueueFull):
            return False
        return True

    async def get(self, timeout: float | None = None) -> tuple[bool, Any]:
        """(whether there was an item in time, the item)."""
        try:
            if timeout == 0:
                return True, self._queue.get_nowait()
            return True, await asyncio.wait_for(self._queue.get(), timeout)
        except (TimeoutError, asyncio.QueueEmpty):
            return False, None

    async def put_nowait_batch(self, items: list[Any]) -> int:
        """How many items are there now if these do not fit, else -1."""
        if 0 < self._maxsize < self._queue.qsize() + len(items):
            return self._queue.qsize()
        for item in items:
            self._queue.put_nowait(item)
        return -1

    async def get_nowait_batch(self, count: int) -> tuple[bool, list[Any]]:
        """(whether there are so many, the items)."""
        if self._queue.qsize() < count:
            return False, [self._queue.qsize()]
        return True, [self._queue.get_nowait() for _ in range(count)]


class Queue:
    """A queue with the interface of queue.Queue, usable from every process that has it.

    Args:
        maxsize: Most items; 0 is any number.
        actor_options: Options of the actor that holds them.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        """Start its actor."""
        self.maxsize = maxsize
        self.actor = ray.remote(_QueueActor).options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        """Return how many items are there."""
        return self.qsize()

    def qsize(self) -> int:
        """Return how many items are there."""
        size: int = ray.get(self.actor.qsize.remote())
        return size

    def size(self) -> int:
        """Return how many items are there."""
        return self.qsize()

    def empty(self) -> bool:
        """Return whether there is no item."""
        return bool(ray.get(self.actor.empty.remote()))

    def full(self) -> bool:
        """Return whether there is no room."""
        return bool(ray.get(self.actor.full.remote()))

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item at the end.

        Raises:
            Full: No room, at once (block=False) or in `timeout` seconds.
            ValueError: A negative timeout.
        """
        if not ray.get(self.actor.put.remote(item, _seconds(block, timeout))):
            raise Full(f"the queue has its {self.maxsize} items, none was taken in time")

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As put, without blocking the event loop."""
        if not await self.actor.put.remote(item, _seconds(block, timeout)):
            raise Full(f"the queue has its {self.maxsize} items, none was taken in time")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item.

        Raises:
            Empty: There is none, at once (block=False) or in `timeout` seconds.
            ValueError: A negative timeout.
        """
        there, item = ray.get(self.actor.get.remote(_seconds(block, timeout)))
        if not there:
            raise Empty("the queue has no item, none came in time")
        return item

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """As get, without blocking the event loop."""
        there, item = await self.actor.get.remote(_seconds(block, timeout))
        if not there:
            raise Empty("the queue has no item, none came in time")
        return item

    def put_nowait(self, item: Any) -> None:
        """Add an item if there is room; Full otherwise."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take the first item if there is one; Empty otherwise."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all items, or none: Full if they do not fit.

        Raises:
            TypeError: Not an iterable.
        """
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        batch = list(items)
        there = ray.get(self.actor.put_nowait_batch.remote(batch))
        if there >= 0:
            raise Full(
                f"Cannot add {len(batch)} items to queue of size {there} and maxsize "
                f"{self.maxsize}."
            )

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take the first `num_items` items, or none: Empty if there are fewer.

        Raises:
            TypeError: Not a whole number.
            ValueError: A negative number.
        """
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        there, items = ray.get(self.actor.get_nowait_batch.remote(num_items))
        if not there:
            raise Empty(f"Cannot get {num_items} items from queue of size {items[0]}.")
        return list(items)

    def shutdown(self, force: bool = False, grace_period_s: int = 5) -> None:
        """End the actor: after the calls under way, or with `force` at once."""
        if self.actor is None:
            return
        if not force:
            done = self.actor.__ray_terminate__.remote()
            if ray.wait([done], timeout=grace_period_s)[0]:
                self.actor = None
                return
        ray.kill(self.actor, no_restart=True)
        self.actor = None


def _seconds(block: bool, timeout: float | None) -> float | None:
    if not block:
        return 0.0
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout
