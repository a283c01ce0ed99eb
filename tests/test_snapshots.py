"""Generators made at random, on the real store: what is yielded is a snapshot, whatever comes next.

Each program makes arrays, gives them more names, views, containers, closures, threads and bare
addresses, changes them before, during and after its yields, and now and then raises. Its consumer
must get what plain Python yields to somebody who copies each value at once; and must still have it
at the end. RAY_LITE_PROGRAMS says how many programs are made (300 here; more for a soak).
"""

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from copy import deepcopy
from types import CodeType
from typing import Any

import numpy as np
import pytest

import ray_lite as ray
from ray_lite.session import Connection

PROGRAMS = int(os.environ.get("RAY_LITE_PROGRAMS", "300"))
SIZE = 32 * 1024  # numbers in an array of 256 KiB, the least that is computed in the store
SMALL = 64

PRELUDE = f"""
import contextlib, ctypes, itertools, threading, weakref
import numpy as np
number = itertools.count(1)
def make(size={SIZE}): return full(size, next(number))
def by_thread(array):
    thread = threading.Thread(target=array.fill, args=(next(number),))
    thread.start(); thread.join()
def by_address(address): ctypes.c_int64.from_address(address).value = next(number)
def same(array): return array
def program():
    x, y, box = make(), make(), []
    def poke(): hidden.fill(next(number))
    hidden = make()
    keep = make()
    address = keep.ctypes.data
    view = memoryview(make())
"""

STATEMENTS = (
    "x = make()",
    "x = make(); y = x",
    "y = make()",
    f"x = make({SMALL})",
    "y = x[:]",
    "y = x.reshape(2, -1)",
    "y = x[::-1]",
    "x = x * 2",
    "x = np.array(x)",
    "x += 1",
    "x.fill(next(number))",
    "y.fill(next(number))",
    "box.append(x)",
    "box[-1].fill(next(number))",
    "box.clear()",
    "for kept in box: kept[0] = next(number)",
    "hidden = x",
    "hidden = make()",
    "poke()",
    "by_thread(x)",
    "keep = x; address = x.ctypes.data",
    "by_address(address)",
    "keep = make(); address = keep.ctypes.data; x = keep",
    "view = memoryview(x); view[0] = next(number)",
    "weak = weakref.ref(x)",
    "alias = [x, x]; alias[0][1] = next(number)",
    "del y; y = None",
    "x, y = y, x",
    "x = np.asarray(same(x))",
    "x = make().reshape(2, -1)",
    "x = x.reshape(-1)",
)
YIELDS = (
    "yield x",
    "yield x",
    "x = make(); yield x",
    "x = make(); x += 1; yield x",
    "yield make()",
    "yield y",
    "yield hidden",
    "yield x[1:]",
    "yield x.reshape(-1)",
    "yield same(x)",
    "yield (z := make()); z.fill(next(number))",
    "yield box[-1]",
    "yield from (make() for _ in range(2))",
    "yield x; x.fill(next(number)); yield x",
    "yield make().reshape(2, -1)",
    "x = make().reshape(2, -1); yield x",
    "x = make(); at = x.ctypes.data; yield x; by_address(at)",
    "x = make(); at = x[1:].ctypes.data; yield x; by_address(at)",
    "yield x, y",
    "x = make(); y = make(); yield x, y",
    "x = make(); y = make(); yield {'x': x, 'y': [y, 1]}; x.fill(next(number))",
    "yield x, next(number), make()",
    "yield [make() for _ in range(3)]",
    "yield x, hidden",
    "yield (x, x[:4])",
    "yield [x, x]",
    "pair = x, make(); yield pair",
    "pair = [make(), (make(), y)]; yield pair",
    "row = [make()]; pair = [row, make()]; yield pair; row[0].fill(next(number))",
    "pair = {'x': make(), 'y': [make()]}; yield pair; pair['x'].fill(next(number))",
    "box = [make(), make()]; yield box; box[-1].fill(next(number))",
    "yield box.copy(), [x]",
    "yield x, x.reshape(2, -1)",
    "x = make(); y = make(3); yield [x, y]; y.fill(next(number))",
    "yield from [(x, make()), (make(), y)]",
)
COMPOUNDS = (
    ("for _ in range(2):",),
    ("if next(number) % 2:", "else:"),
    ("try:", "finally:"),
    ("try:", "except AttributeError:"),
    ("with contextlib.nullcontext(x) as held:",),
)


def block(rng: random.Random, depth: int) -> Iterator[str]:
    """Yield the lines of some statements, yields and blocks."""
    for _ in range(rng.randint(2, 5)):
        if depth and rng.random() < 0.3:
            for head in rng.choice(COMPOUNDS):
                yield head
                yield from (f"    {line}" for line in block(rng, depth - 1))
        else:
            yield rng.choice(YIELDS if rng.random() < 0.45 else STATEMENTS)


def source_of(seed: int) -> str:
    """Return a module with a generator function called `program`."""
    body = [*block(random.Random(seed), 2), "yield x"]
    return PRELUDE + "".join(f"    {line}\n" for line in body)


def generator_of(source: str, full: Callable[..., Any] = np.full) -> Any:
    """Start the program, whose arrays `full` makes."""
    namespace: dict[str, Any] = {"full": full}
    exec(compile(source, "<program>", "exec"), namespace)
    return namespace["program"]()


def drive(source: str) -> Iterator[Any]:
    """Yield what the program yields."""
    yield from generator_of(source)


class Driver:
    """An actor that does the same."""

    def drive(self, source: str) -> Iterator[Any]:
        """Yield what the program yields."""
        yield from generator_of(source)

    async def drive_async(self, source: str) -> AsyncIterator[Any]:
        """Yield them too; asyncio is in between."""
        for value in generator_of(source):
            yield value


def snapshots(source: str) -> tuple[list[Any], str]:
    """Return a copy of each value that plain Python yields, and the name of what it raises."""
    values = []
    try:
        for value in generator_of(source):
            values.append(deepcopy(value))
    except Exception as error:
        return values, type(error).__name__
    return values, ""


def is_same(value: Any, right: Any) -> bool:
    """Whether two values are made of equal arrays and numbers in the same way."""
    if type(value) is not type(right):
        return False
    if isinstance(value, dict):
        return list(value) == list(right) and is_same([*value.values()], [*right.values()])
    if isinstance(value, (list, tuple)):
        return len(value) == len(right) and all(map(is_same, value, right))
    return np.array_equal(value, right)


def consume(refs: Any) -> tuple[list[Any], list[Any], str]:
    """Return each value as it came, a copy made when it came, and the name of what was raised."""
    values: list[Any] = []
    copies: list[Any] = []
    for ref in refs:
        try:
            value = ray.get(ref)
        except Exception as error:
            return values, copies, type(error.cause).__name__  # type: ignore[attr-defined]
        values.append(value)
        copies.append(deepcopy(value))
    return values, copies, ""


Start = Callable[[str, int], Any]  # run a program of so many values; return its references


def static() -> Start:
    """Run programs as tasks that say how many values they have."""

    def start(source: str, count: int) -> Any:
        refs = ray.remote(generator_of).options(num_returns=count).remote(source)
        return refs if isinstance(refs, list) else [refs]

    return start


def dynamic() -> Start:
    """Run programs as tasks whose values are looked at when all are there."""
    task = ray.remote(drive).options(num_returns="dynamic")
    return lambda source, count: ray.get(task.remote(source))


def streaming() -> Start:
    """Run programs as streams."""
    task = ray.remote(drive)
    return lambda source, count: task.remote(source)


def actor() -> Start:
    """Run programs as calls of one actor."""
    driver = ray.remote(num_cpus=0)(Driver).remote()
    return lambda source, count: driver.drive.remote(source)


def async_actor() -> Start:
    """Run programs in an actor's asyncio loop."""
    driver = ray.remote(num_cpus=0)(Driver).remote()
    return lambda source, count: driver.drive_async.remote(source)


def check(start: Start, seed: int) -> int:
    """Run a program both ways; return how many values it has."""
    source = source_of(seed)
    expected, failure = snapshots(source)
    values, copies, raised = consume(start(source, len(expected) + bool(failure)))
    message = f"program {seed}:\n{source}"
    assert (len(values), raised) == (len(expected), failure), message
    for value, copy, right in zip(values, copies, expected, strict=True):
        assert is_same(copy, right), message
        assert is_same(value, right), message
    return len(values)


@pytest.mark.session(num_cpus=1)
@pytest.mark.parametrize("way", [streaming, dynamic, static, actor, async_actor])
def test_consumer_of_any_program_has_snapshots(
    session: Connection, way: Callable[[], Start]
) -> None:
    start = way()
    before = ray.memory_summary()
    count = sum(check(start, seed) for seed in range(PROGRAMS // 5))
    after = ray.memory_summary()
    in_place = after["sealed_in_place"] - before["sealed_in_place"]
    copied = after["copied"] - before["copied"]
    assert in_place > count / 20, (in_place, copied, count)
    assert copied > count / 10, (in_place, copied, count)


@pytest.mark.session(num_cpus=1)
@pytest.mark.parametrize("alone", [True, False])
def test_programs_notice_when_every_name_is_taken_for_dead(
    session: Connection, alone: bool
) -> None:
    def lie() -> None:
        from ray_lite import returns
        from ray_lite.liveness import DeadNames

        def all_dead(code: CodeType) -> DeadNames:
            offsets = range(len(code.co_code))
            if alone:
                return DeadNames(frozenset(offsets), {})
            return DeadNames(frozenset(), dict.fromkeys(offsets, code.co_varnames))

        returns._dead_names = all_dead  # type: ignore[assignment]

    ray.get(ray.remote(lie).remote())
    start = streaming()
    with pytest.raises(AssertionError, match="program"):
        for seed in range(100):
            check(start, seed)


def put_each(source: str) -> Iterator[tuple[Any, Any]]:
    """Put what the program yields; yield each reference with a copy made before.

    The program's arrays are asked for in the store: it ends where it changes one that was put.
    """
    program = generator_of(source, ray.full)
    while True:
        try:
            value = next(program)
        except Exception:  # its end, too
            return
        copy = deepcopy(value)
        yield ray.put(value), copy


@pytest.mark.session(num_cpus=1)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a finally
def test_what_any_program_puts_is_a_snapshot(session: Connection) -> None:
    before = ray.memory_summary()
    for seed in range(PROGRAMS // 5):
        source = source_of(seed)
        for ref, copy in list(put_each(source)):
            assert is_same(ray.get(ref), copy), f"program {seed}:\n{source}"
    after = ray.memory_summary()
    assert after["sealed_in_place"] > before["sealed_in_place"]
    assert after["copied"] > before["copied"]
