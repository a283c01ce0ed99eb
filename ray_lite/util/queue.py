"""Queue: a first-in-first-out queue that drivers, tasks and actors share.

Owns the queue as its users see it and the actor that holds its items; it uses the public API alone
and must not know how calls are run. The actor is async, so that a call that waits for an item or
for room holds up no other. It answers what happened; it is the caller's side that raises, so that
Full and Empty arrive as themselves.
"""

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

import ray_lite as ray
from ray_lite.exceptions import ActorDiedError


class Empty(queue.Empty):
    """There was nothing to be taken, or nothing in time."""


class Full(queue.Full):
    """There was no room, or none in time."""


class Queue:
    """A queue with the interface of queue.Queue; can be passed to tasks and actors.

    It ends when nobody has it any more, or by `shutdown`.

    Args:
        maxsize: Most items at once; <= 0 is any number.
        actor_options: Options of the actor that holds the items, such as name and lifetime.
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
        size: int = ray.get(self._live_actor().qsize.remote())
        return size

    def size(self) -> int:
        """Return how many items are there."""
        return self.qsize()

    def empty(self) -> bool:
        """Return whether there is no item."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Return whether there is no room; never, without a maxsize."""
        return bool(ray.get(self._live_actor().full.remote()))

    # ---- one item ----

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item at the end.

        Args:
            item: Anything that can be pickled. Of an ObjectRef, its value.
            block: Whether to wait for room.
            timeout: Seconds to wait, >= 0. None waits for ever.

        Raises:
            Full: There was no room, or none in time.
            ValueError: A negative timeout.
        """
        self._check_put(ray.get(self._submit_put(item, block, timeout)))

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item at the end, as `put`, without blocking the event loop."""
        self._check_put(await self._submit_put(item, block, timeout))

    def put_nowait(self, item: Any) -> None:
        """Add an item at the end, or raise Full."""
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item and return it.

        Args:
            block: Whether to wait for an item.
            timeout: Seconds to wait, >= 0. None waits for ever.

        Raises:
            Empty: There was no item, or none in time.
            ValueError: A negative timeout.
        """
        return _item_of(ray.get(self._submit_get(block, timeout)))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item and return it, as `get`, without blocking the event loop."""
        return _item_of(await self._submit_get(block, timeout))

    def get_nowait(self) -> Any:
        """Take the first item and return it, or raise Empty."""
        return self.get(block=False)

    def _submit_put(self, item: Any, block: bool, timeout: float | None) -> Any:
        return self._live_actor().put.remote(item, _seconds(block, timeout))

    def _submit_get(self, block: bool, timeout: float | None) -> Any:
        return self._live_actor().get.remote(_seconds(block, timeout))

    def _check_put(self, done: bool) -> None:
        if not done:
            raise Full(f"the queue holds the {self.maxsize} items that it may, and none was taken")

    # ---- several items ----

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all items at the end, in their order, or none of them.

        Raises:
            Full: They do not all fit.
            TypeError: `items` is not iterable.
        """
        if not isinstance(items, Iterable):
            raise TypeError(f"Argument 'items' must be an Iterable, not {type(items).__name__}")
        batch = list(items)
        done, size = ray.get(self._live_actor().put_batch.remote(batch))
        if not done:
            raise Full(
                f"Cannot add {len(batch)} items to queue of size {size} and maxsize {self.maxsize}."
            )

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take the first `num_items` items, >= 0, and return them, or take none.

        Raises:
            Empty: There are fewer.
            TypeError: `num_items` is not an int.
            ValueError: `num_items` is negative.
        """
        if not isinstance(num_items, int):
            raise TypeError(f"Argument 'num_items' must be an int, not {type(num_items).__name__}")
        if num_items < 0:
            raise ValueError(f"'num_items' must be nonnegative, not {num_items}")
        size, items = ray.get(self._live_actor().get_batch.remote(num_items))
        if size < num_items:
            raise Empty(f"Cannot get {num_items} items from queue of size {size}.")
        return list(items)

    # ---- the end ----

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue and drop its items; harmless the second time.

        Args:
            force: Whether to end it at once, in the middle of calls too.
            grace_period_s: Seconds that earlier calls are given without `force`, >= 0.
        """
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            ended = actor.__ray_terminate__.remote()
            force = not ray.wait([ended], timeout=grace_period_s)[0]
        if force:
            ray.kill(actor)

    def _live_actor(self) -> Any:
        """Return the actor.

        Raises:
            ActorDiedError: This queue was shut down, here.
        """
        if self.actor is None:
            raise ActorDiedError("The queue was shut down; make a new one.")
        return self.actor


def _seconds(block: bool, timeout: float | None) -> float | None:
    """Return how long a call may wait; None is for ever."""
    if not block:
        return 0
    if timeout is not None and timeout < 0:
        raise ValueError(f"'timeout' must be a non-negative number, not {timeout}")
    return timeout


def _item_of(answer: tuple[bool, Any]) -> Any:
    """Return the item that the actor's `get` gave, or raise Empty."""
    there, item = answer
    if not there:
        raise Empty("the queue has no item, and none was added")
    return item


class _QueueActor:
    """Holds the items. A wait of 0 seconds is none; one of None has no end."""

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def qsize(self) -> int:
        return self._queue.qsize()

    async def full(self) -> bool:
        return self._queue.full()

    async def put(self, item: Any, timeout: float | None) -> bool:
        """Return whether there was room in time."""
        try:
            if timeout == 0:
                self._queue.put_nowait(item)
            else:
                await asyncio.wait_for(self._queue.put(item), timeout)
        except (TimeoutError, asyncio.QueueFull):
            return False
        return True

    async def get(self, timeout: float | None) -> tuple[bool, Any]:
        """Return whether there was an item in time, and the item."""
        try:
            if timeout == 0:
                return True, self._queue.get_nowait()
            return True, await asyncio.wait_for(self._queue.get(), timeout)
        except (TimeoutError, asyncio.QueueEmpty):
            return False, None

    async def put_batch(self, items: list[Any]) -> tuple[bool, int]:
        """Return whether all fit, and how many items were there before."""
        size = self._queue.qsize()
        if 0 < self._queue.maxsize < size + len(items):
            return False, size
        for item in items:
            self._queue.put_nowait(item)
        return True, size

    async def get_batch(self, count: int) -> tuple[int, list[Any]]:
        """Return how many items were there, and `count` of them if there were so many."""
        size = self._queue.qsize()
        return size, [self._queue.get_nowait() for _ in range(count)] if size >= count else []
