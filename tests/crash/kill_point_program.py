"""A driver whose workers die at one kill point, again and again; prints what came of it.

    kill_point_program.py NAME

Run by test_kill_points.py on a build with kill points. Owns the work that leads workers past every
point, and the ways to have them armed. Ends with one line of JSON, or with a traceback.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from support import MIB, eventually, is_gone

import ray_lite as ray
from crash.processes import (
    connection,
    holds_exports_only,
    signal_children,
    supervisor_of,
    workers_of,
)

SPOOL = Path(os.environ["RAY_LITE_TEST_SPOOL"])
again = ray.remote(max_retries=-1)


# ---- work that passes the points of the core in a worker ----


@again
def double(array: Any) -> Any:
    """Return a new array: a block is claimed, split off, sealed."""
    return array * 2


@ray.remote(max_retries=-1, num_returns=3)
def three(start: int) -> Any:
    """Yield three arrays: return values that are sealed one by one."""
    for i in range(start, start + 3):
        yield np.full(3000, i)


@again
def stream(start: int, n: int) -> Any:
    """Yield n values as a stream."""
    yield from range(start, start + n)


@again
def compute(start: int, n: int) -> Any:
    """Yield arrays that are computed in the store, and sealed where they are."""
    for i in range(start, start + n):
        x = np.full(MIB // 8, i)
        yield x


@again
def batches(start: int, n: int) -> Any:
    """Yield containers whose arrays become objects of their own first."""
    for i in range(start, start + n):
        x = np.full(MIB // 8, i)
        y = x * 2
        yield {"x": x, "y": y, "i": i}


@again
def consume(start: int) -> int:
    """Read a stream to its end, and the beginning of another, in a worker."""
    total = sum(ray.get(list(stream.remote(start, 40))))
    abandoned = stream.remote(start, 40)
    return total + int(ray.get(next(abandoned)))


@again
def delegate(i: int) -> int:
    """Put, submit, wait, free: all that a driver does, in a worker."""
    box = [ray.put(np.full(3000, i)), ray.put(i)]
    doubled = double.remote(box[0])
    total = int(ray.get(doubled)[0] + ray.get(box[1]))
    del box, doubled
    return total


@ray.remote(max_retries=-1, retry_exceptions=True)
def raise_once(path: str) -> str:
    """Raise in the first attempt, to be run again."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        raise ValueError("the first attempt")
    return path


def mix(directory: Path, numbers: Iterator[int]) -> None:
    """One round of everything, with its answers."""
    three.remote(1)  # nobody holds what it yields
    i = next(numbers)
    path = str(directory / f"attempt{i}")
    raised = raise_once.remote(path)
    chain = double.remote(double.remote(np.arange(3000)))
    arrays = three.remote(i)
    doubled = [double.remote(array) for array in arrays]
    total = delegate.remote(i)
    consumed = consume.remote(i)
    streamed = stream.remote(i, 20)
    computed = compute.remote(i, 3)
    batched = batches.remote(i, 2)
    assert [ray.get(ref) for ref in streamed] == list(range(i, i + 20))
    assert [int(ray.get(ref)[-1]) for ref in computed] == [i, i + 1, i + 2]
    for ref in batched:
        batch = ray.get(ref)
        assert batch["y"][-1] == 2 * batch["x"][-1] == 2 * batch["i"]
    assert ray.get(consumed) == sum(range(i, i + 40)) + i
    assert ray.get(raised) == path
    assert np.array_equal(ray.get(chain), np.arange(3000) * 4)
    assert [int(array[0]) for array in ray.get(arrays)] == [i, i + 1, i + 2]
    assert [int(array[0]) for array in ray.get(doubled)] == [2 * i, 2 * i + 2, 2 * i + 4]
    assert ray.get(total) == 3 * i
    os.unlink(path)


@ray.remote(max_retries=-1, max_calls=1)
def only_once(i: int) -> int:
    """The worker leaves the session afterwards, in good order, holding an object."""
    sys.modules["kept"] = ray.put(np.full(3000, i))  # type: ignore[assignment]
    return i


def leave(_: Path, numbers: Iterator[int]) -> None:
    """Workers come and go."""
    wanted = [next(numbers) for _ in range(2)]
    assert ray.get([only_once.remote(i) for i in wanted]) == wanted


@ray.remote(max_restarts=-1, max_task_retries=-1)
class Doubler:
    """An actor without a state, so that a restart changes no answer."""

    def double(self, x: int) -> int:
        """Return twice x."""
        return 2 * x

    def count(self, n: int) -> Iterator[int]:
        """Stream n values."""
        yield from range(n)


def serve(_: Path, numbers: Iterator[int]) -> None:
    """Workers become actors, are called, and end when nobody can call them."""
    actors = [Doubler.remote() for _ in range(3)]
    wanted = [next(numbers) for _ in range(15)]
    calls = [actors[i % 3].double.remote(i) for i in wanted]
    assert ray.get(calls) == [2 * i for i in wanted]
    assert [ray.get(ref) for ref in actors[0].count.remote(5)] == [0, 1, 2, 3, 4]


@again
def hammer(n: int) -> int:
    """Be in the core all the time, so as to be the next there when somebody dies in it."""
    for i in range(n):
        ray.put(i)
    return n


def repair(_: Path, numbers: Iterator[int]) -> None:
    """All workers are in the core, and now and then one dies there."""
    order("object.put.before", 50 + next(numbers) % 50)
    signal_children(unarmed()[:1], supervisor_of(connection()))
    assert ray.get([hammer.remote(300) for _ in range(6)]) == [300] * 6


# ---- arming ----


def order(name: str, n: int) -> None:
    """Have the next worker die when it passes point `name` for the n-th time."""
    (SPOOL / f"order{len(os.listdir(SPOOL)):06} {name} {n}").touch()


def armed(name: str, n: int) -> int | None:
    """Return the pid of the worker that took that order."""
    for path in SPOOL.iterdir():
        pid, *taken = path.name.split(" ")
        if pid.isdigit() and taken == [name, str(n)]:
            return int(pid)
    return None


def unarmed() -> list[int]:
    """Return the workers that took no order."""
    taken = {path.name.split(" ")[0] for path in SPOOL.iterdir()}
    return [pid for pid in workers_of(connection()) if str(pid) not in taken]


def has_died(name: str, n: int) -> bool:
    """Whether the worker that took that order is dead."""
    pid = armed(name, n)
    return pid is not None and is_gone(pid)


def count(start: int) -> Iterator[int]:
    """Count upwards."""
    while True:
        yield start
        start += 1


Work = Callable[[Path, Iterator[int]], None]


def plan(name: str) -> tuple[Work, tuple[int, ...]]:
    """Return the work that leads past a point, and at which passages workers are to die there."""
    module = name.partition(".")[0]
    if module == "repair" or name in ("lock.take_over", "lock.repaired"):
        return repair, (1,)
    if name.startswith("task.call"):
        return serve, (1, 2, 5)
    if name.startswith("slot.release") or name == "object.drop_holds":
        return leave, (1,)
    if name.startswith("slot.claim"):
        return mix, (1,)
    return mix, (1, 2, 5, 13)


def main(name: str) -> None:
    """Have a worker die at each of the planned passages, and work on meanwhile."""
    work, passages = plan(name)
    ray.init(num_cpus=3 if work is repair else 2, object_store_memory=80 * MIB)
    session = connection()
    directory = Path.cwd()
    numbers = count(1)
    work(directory, numbers)
    for n in passages:
        order(name, n)
        rounds = 0
        signal_children(unarmed()[:1], supervisor_of(session))
        while not has_died(name, n):
            work(directory, numbers)
            rounds += 1
            if rounds % 100 == 0:  # others may be enough, and this one idle
                signal_children(unarmed(), supervisor_of(session))
            assert rounds < 2000, f"no worker passed {name} {n} times"
        work(directory, numbers)
        broken = session.core.broken_invariant()
        assert broken is None, f"after death {n}: {broken}"
    for path in SPOOL.glob("order*"):
        path.unlink(missing_ok=True)  # a worker may just have taken it
    signal_children(workers_of(session), supervisor_of(session))
    assert eventually(lambda: holds_exports_only(session), 10.0), session.core.usage()
    repairs = session.core.usage()["repairs"]
    ray.shutdown()
    print(json.dumps({"deaths": len(passages), "repairs": repairs}))


if __name__ == "__main__":
    main(sys.argv[1])
