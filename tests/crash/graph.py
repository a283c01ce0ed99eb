"""A graph of tasks with known answers, of every kind of dependency that there is.

Owns the tasks and what must come out of them, computed a second time without any engine. It must
not know that somebody kills workers meanwhile.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import ray_lite as ray
from ray_lite.exceptions import WorkerCrashedError

Array = np.ndarray[Any, np.dtype[np.int64]]

SMALLEST, LARGEST = 100_000 // 8, 4_000_000 // 8  # numbers in an array: 100 KB to 4 MB


class Question(NamedTuple):
    """Something that has been asked for, and its answer."""

    kind: str
    ask: Callable[[], Any]
    answer: Any


def numbers(seed: int, size: int) -> Array:
    """Return `size` numbers that no other seed gives."""
    return np.arange(size, dtype=np.int64) * (2 * seed + 1) + seed


def digest(array: Array) -> tuple[int, int]:
    """Return what two different arrays do not share."""
    return int(array.sum()), int(array[::7].max())


@ray.remote
def make(seed: int, size: int) -> Array:
    """Return an array."""
    return numbers(seed, size)


@ray.remote
def add(a: Any, b: Any) -> Any:
    """Return a sum of two arrays or two numbers."""
    return a + b


@ray.remote
def measure(array: Array) -> tuple[int, int]:
    """Return the digest of an array."""
    return digest(array)


@ray.remote
def parts(seed: int, size: int, n: int) -> Any:
    """Yield n arrays."""
    for i in range(n):
        yield numbers(seed + i, size)


@ray.remote
def consume(seed: int, size: int, n: int, retries: int) -> list[tuple[int, int]]:
    """Read a stream to its end, here in a worker."""
    stream = parts.options(max_retries=retries).remote(seed, size, n)
    return [digest(ray.get(ref)) for ref in stream]


@ray.remote
def measure_all(stream: Any) -> list[tuple[int, int]]:
    """Read a stream that another process started."""
    return [digest(ray.get(ref)) for ref in stream]


@ray.remote
def put_all(seed: int, size: int, n: int) -> list[Any]:
    """Return references to n arrays."""
    return [ray.put(numbers(seed + i, size)) for i in range(n)]


@ray.remote
def open_box(box: dict[str, list[Any]]) -> list[tuple[int, int]]:
    """Read references in a container, and return the digests."""
    return [digest(array) for array in ray.get(box["refs"])]


@ray.remote
def delegate(seed: int, size: int, retries: int) -> list[tuple[int, int]]:
    """Have two other tasks do the work, and wait for them."""
    again = {"max_retries": retries}
    arrays = [make.options(**again).remote(seed + i, size) for i in range(2)]
    return ray.get([measure.options(**again).remote(array) for array in arrays])


class Graph:
    """Asks questions of one session.

    Args:
        seed: Of what is asked.
        retries: max_retries of every task.
    """

    def __init__(self, seed: int, retries: int) -> None:
        self._random = random.Random(seed)
        self._retries = retries

    def questions(self) -> list[Question]:
        """Submit one of each kind; each `ask` waits for its outcome."""
        kinds = [
            self._tree,
            self._chain,
            self._static,
            self._dynamic,
            self._stream,
            self._consumed,
            self._passed,
            self._boxed,
            self._nested,
        ]
        self._random.shuffle(kinds)
        return [kind() for kind in kinds]

    def _submit(self, task: Any, *args: Any, **options: Any) -> Any:
        return task.options(max_retries=self._retries, **options).remote(*args)

    def _seed(self) -> int:
        return self._random.randrange(1000)

    def _size(self, most: int = LARGEST) -> int:
        return self._random.randint(SMALLEST, most)

    def _tree(self) -> Question:
        seed, size = self._seed(), self._size(LARGEST // 4)
        level = [self._submit(make, seed + i, size) for i in range(8)]
        while len(level) > 1:
            level = [self._submit(add, a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
        total = sum(numbers(seed + i, size) for i in range(8))
        return Question("tree", lambda: digest(ray.get(level[0])), digest(np.asarray(total)))

    def _chain(self) -> Question:
        link = ray.put(0)
        for i in range(30):
            link = self._submit(add, link, i)
        return Question("chain", lambda: ray.get(link), sum(range(30)))

    def _static(self) -> Question:
        seed, size, n = self._seed(), self._size(LARGEST // 4), self._random.randint(2, 6)
        arrays = self._submit(parts, seed, size, n, num_returns=n)
        digests = [self._submit(measure, array) for array in arrays]
        return Question(
            "static generator",
            lambda: ray.get(digests),
            [digest(numbers(seed + i, size)) for i in range(n)],
        )

    def _dynamic(self) -> Question:
        seed, size, n = self._seed(), self._size(LARGEST // 4), self._random.randint(0, 5)
        outer = self._submit(parts, seed, size, n, num_returns="dynamic")
        return Question(
            "dynamic generator",
            lambda: [digest(ray.get(ref)) for ref in ray.get(outer)],
            [digest(numbers(seed + i, size)) for i in range(n)],
        )

    def _stream(self) -> Question:
        seed, size, n = self._seed(), self._size(LARGEST // 8), self._random.randint(0, 30)
        self._submit(parts, seed, size, n)  # nobody listens
        stream = self._submit(parts, seed, size, n)
        return Question(
            "stream",
            lambda: [digest(ray.get(ref)) for ref in stream],
            [digest(numbers(seed + i, size)) for i in range(n)],
        )

    def _consumed(self) -> Question:
        seed, size, n = self._seed(), self._size(LARGEST // 8), self._random.randint(0, 5)
        outer = self._submit(consume, seed, size, n, self._retries)
        return Question(
            "stream in a task",
            lambda: ray.get(outer),
            [digest(numbers(seed + i, size)) for i in range(n)],
        )

    def _passed(self) -> Question:
        seed, size, n = self._seed(), self._size(LARGEST // 8), self._random.randint(0, 5)
        outer = self._submit(measure_all, self._submit(parts, seed, size, n))
        answer = [digest(numbers(seed + i, size)) for i in range(n)]

        def ask() -> Any:
            try:
                return ray.get(outer)
            except WorkerCrashedError as error:  # what it took is gone, and it says so
                if "had taken values" not in str(error):
                    raise
                return answer

        return Question("stream passed to a task", ask, answer)

    def _boxed(self) -> Question:
        seed, size, n = self._seed(), self._size(LARGEST // 4), 3
        made = self._submit(put_all, seed, size, n)
        mine = [ray.put(numbers(seed - 1, size)), self._submit(make, seed - 2, LARGEST)]
        read = self._submit(open_box, {"refs": mine})
        return Question(
            "refs in containers",
            lambda: [[digest(array) for array in ray.get(ray.get(made))], ray.get(read)],
            [
                [digest(numbers(seed + i, size)) for i in range(n)],
                [digest(numbers(seed - 1, size)), digest(numbers(seed - 2, LARGEST))],
            ],
        )

    def _nested(self) -> Question:
        seed, size = self._seed(), self._size(LARGEST // 4)
        outer = self._submit(delegate, seed, size, self._retries)
        return Question(
            "tasks in tasks",
            lambda: ray.get(outer),
            [digest(numbers(seed + i, size)) for i in range(2)],
        )
