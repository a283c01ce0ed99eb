"""What a caller gets of a generator task. Owns the classes; must not know how values are made."""

from collections.abc import Iterator
from typing import Any, Generic, NoReturn, TypeVar, final

from ray_lite import session
from ray_lite._core import Job, ObjectRef, Stream

T_co = TypeVar("T_co", covariant=True)


@final
class DynamicObjectRefGenerator(Generic[T_co]):
    """The value of the one reference of a task with num_returns="dynamic".

    Its length is the number of values that the generator yielded (an exception that ended it counts
    as one: its reference raises it). Iteration hands out each reference once and consumes it; every
    `get` of the outer reference gives a new, full one.

    Args:
        refs: The references, in the order of the yields.
    """

    def __init__(self, refs: list[ObjectRef[T_co]]) -> None:
        """Keep a copy of the list."""
        self._refs = list(refs)

    def __iter__(self) -> "Iterator[ObjectRef[T_co]]":
        """Hand out the references that are left, each once."""
        while self._refs:
            yield self._refs.pop(0)

    def __len__(self) -> int:
        """Return how many references are left."""
        return len(self._refs)

    def __repr__(self) -> str:
        """Return the class's name and how many are left."""
        return f"DynamicObjectRefGenerator({len(self)} left)"

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to rebuild it with the references that are left."""
        return DynamicObjectRefGenerator, (list(self._refs),)


@final
class ObjectRefGenerator(Generic[T_co]):
    """The references of a streaming generator task, one by one, while it still runs.

    `next` (or `async for`) waits for the next value to be stored and hands out its reference. An
    exception in the task is the last item: its reference raises it. Letting go of the generator
    frees the values that were not taken; the task runs on to its end. Not thread-safe.

    A value that contains it (an argument of a task, what a task returns) takes it along: whoever
    reads that value goes on where this one stopped, and this one raises ValueError from then on. A
    task that has taken an item from one that came to it is not run again: the item would be
    missing.

    Args:
        stream: The reading end of the task's stream.
        completion: Sealed when the task has ended: None, or what ended it from outside (a crash).
        failure_given: The failure of the task as a whole was handed out.
        job: The task to which it came.
    """

    def __init__(
        self,
        stream: Stream,
        completion: "ObjectRef[None]",
        *,
        failure_given: bool = False,
        job: Job | None = None,
    ) -> None:
        """Take over the stream."""
        self._stream: Stream | None = stream
        self._completion = completion
        #: The failure of the task as a whole is handed out once, after the items.
        self._failure_given = failure_given
        self._job = job

    @property
    def stream(self) -> Stream:
        """The reading end; `wait` waits for it. ValueError once it was passed on."""
        if self._stream is None:
            raise ValueError(
                f"{self!r} was passed on, and its values go to who has it now. Take what you need "
                "before you pass it, or pass list(generator)"
            )
        return self._stream

    def __iter__(self) -> "ObjectRefGenerator[T_co]":
        """Return the generator itself."""
        return self

    def __next__(self) -> "ObjectRef[T_co]":
        """Wait for the next reference; StopIteration at the end."""
        return self._take(None)

    def _next_sync(self, timeout_s: float | None = None) -> "ObjectRef[T_co]":
        """As `next`, but ObjectRef.nil() after `timeout_s` seconds without an item."""
        return self._take(timeout_s)

    def _take(self, timeout: float | None) -> "ObjectRef[T_co]":
        while (ref := self._poll()) is None:
            if not self.stream.session.wait([self.stream], 1, timeout, False)[0]:
                return ObjectRef.nil()
        return ref

    def _poll(self) -> "ObjectRef[T_co] | None":
        """Return the next reference, None if there is none now; StopIteration at the end."""
        item = self.stream.next(self._taker())
        if item is not False:
            return item
        if self._has_failure_left():
            self._failure_given = True
            failure: ObjectRef[Any] = self._completion
            return failure
        raise StopIteration

    def _taker(self) -> Job | None:
        """Return the task that must not be run again once it has an item of this."""
        return self._job and session.current_job.get(self._job)

    def _has_failure_left(self) -> bool:
        session = self.stream.session
        return not self._failure_given and session.is_failure(self._completion)

    def __aiter__(self) -> "ObjectRefGenerator[T_co]":
        """Return the generator itself."""
        return self

    async def __anext__(self) -> "ObjectRef[T_co]":
        """Wait for the next reference without blocking the loop; StopAsyncIteration at the end."""
        return await self._next_async()

    async def _next_async(self, timeout_s: float | None = None) -> "ObjectRef[T_co]":
        """As `anext`, but ObjectRef.nil() after `timeout_s` seconds without an item."""
        import asyncio  # it is slow to import, and whoever awaits has it

        try:
            while (ref := self._poll()) is None:
                make_future = self.stream.session.make_future
                assert make_future is not None
                item = asyncio.wrap_future(make_future(self.stream))
                await asyncio.wait_for(item, timeout_s)
        except StopIteration:
            raise StopAsyncIteration from None
        except TimeoutError:
            return ObjectRef.nil()
        return ref

    def completed(self) -> "ObjectRef[None]":
        """Return a reference that is ready when the task has ended.

        Its value is None, also after an exception of the task (that is an item); `get` raises what
        ended the task from outside, such as WorkerCrashedError.
        """
        return self._completion

    def next_ready(self) -> bool:
        """Return whether `next` would hand out a reference at once."""
        return self.stream.has_item or (self.stream.is_ready and self._has_failure_left())

    def is_finished(self) -> bool:
        """Return whether `next` would raise StopIteration at once."""
        return self.stream.is_ready and not self.next_ready()

    def send(self, value: object) -> NoReturn:
        """Refuse: values flow one way."""
        raise NotImplementedError("a remote generator takes no values; pass them as arguments")

    def throw(self, *args: object) -> NoReturn:
        """Refuse: see send."""
        raise NotImplementedError("a remote generator takes no exceptions")

    def close(self) -> NoReturn:
        """Refuse: let go of the generator instead."""
        raise NotImplementedError("delete the generator to free its values; its task runs on")

    async def asend(self, value: object) -> NoReturn:
        """Refuse: see send."""
        self.send(value)

    async def athrow(self, *args: object) -> NoReturn:
        """Refuse: see throw."""
        self.throw(*args)

    async def aclose(self) -> NoReturn:
        """Refuse: see close."""
        self.close()

    def __repr__(self) -> str:
        """Return the class's name and the id of `completed()`."""
        return f"ObjectRefGenerator({self._completion.hex()})"

    def __reduce__(self) -> NoReturn:
        """Refuse: only the codec can move it, see pack."""
        raise TypeError(
            "a remote generator cannot be pickled or copied, for it has one consumer; pass it to a "
            "task, or pickle list(generator)"
        )

    def pack(self) -> tuple[Any, ...]:
        """Return what `__reduce__` would, for a value that takes it along.

        From here on the task to which it came must not be run again: a death may come right after
        the value has been stored.
        """
        if (taker := self._taker()) is not None:
            taker.run_once()
        return _unpack, (self.stream.outlet, self._completion, self._failure_given)

    def moved(self) -> None:
        """The value that takes it along has been stored."""
        self._stream = None


def _unpack(
    outlet: ObjectRef[Any], completion: ObjectRef[None], failure_given: bool
) -> ObjectRefGenerator[Any]:
    """Return the generator that came with a value."""
    return ObjectRefGenerator(
        Stream(outlet),
        completion,
        failure_given=failure_given,
        job=session.current_job.get(),
    )
