"""actor_loop.py: who takes the next call, the loop or its thread, changes nothing but the speed."""

import asyncio
import random
import threading
from typing import Any

import pytest
from conformance.support import Gate

import ray_lite as ray

WAYS = ("at once", "yields", "sleeps")


class Log:
    """An async actor that notes when its calls began."""

    def __init__(self) -> None:
        """Note nothing yet."""
        self.begun: list[int] = []
        self.ticks = 0
        self.ticking: Any = None

    async def call(self, i: int, way: str) -> int:
        """Note i, and return it in one of some ways."""
        self.begun.append(i)
        if way == "yields":
            await asyncio.sleep(0)
        if way == "sleeps":
            await asyncio.sleep(0.0005)
        return i

    async def log(self) -> list[int]:
        """Return what began, in order."""
        return self.begun

    async def start_ticking(self) -> None:
        """Let something run beside the calls."""

        async def tick() -> None:
            while True:
                self.ticks += 1
                await asyncio.sleep(0)

        self.ticking = asyncio.create_task(tick())

    async def ticked(self) -> int:
        """Return how often that had its turn."""
        return self.ticks

    async def wait(self, path: str) -> str:
        """Have a thread wait for the gate."""
        await asyncio.to_thread(lambda: open(path).close())
        return "waited"


@pytest.mark.parametrize("max_concurrency", [1, 2, 1000])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("shared_session")
def test_coroutines_begin_in_the_order_of_their_calls(max_concurrency: int, seed: int) -> None:
    rng = random.Random(seed)
    actor = ray.remote(num_cpus=0, max_concurrency=max_concurrency)(Log).remote()
    i = 0
    while i < 1500:
        ways = [rng.choice(WAYS)] if rng.random() < 0.7 else WAYS
        burst = rng.choice([1, 1, 1, 2, 5, 100])
        refs = [actor.call.remote(i + k, rng.choice(ways)) for k in range(burst)]
        assert ray.get(refs, timeout=30) == list(range(i, i + burst))
        i += burst
    assert ray.get(actor.log.remote()) == list(range(i))


@pytest.mark.usefixtures("shared_session")
def test_calls_of_many_threads_are_all_served() -> None:
    actor = ray.remote(num_cpus=0)(Log).remote()
    wrong: list[Any] = []

    def call(first: int) -> None:
        for i in range(first, first + 300):
            if ray.get(actor.call.remote(i, WAYS[i % 7 % 3]), timeout=30) != i:
                wrong.append(i)

    threads = [threading.Thread(target=call, args=(1000 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(ray.get(actor.log.remote())) == 1200


@pytest.mark.usefixtures("shared_session")
def test_what_runs_beside_the_calls_has_its_turns_between_them() -> None:
    actor = ray.remote(num_cpus=0)(Log).remote()
    ray.get(actor.start_ticking.remote())
    before = ray.get(actor.ticked.remote())
    for i in range(500):
        assert ray.get(actor.call.remote(i, "at once"), timeout=30) == i
    assert ray.get(actor.ticked.remote()) >= before + 500


@pytest.mark.usefixtures("shared_session")
def test_call_that_waits_keeps_no_other_from_being_served(gate: Gate) -> None:
    actor = ray.remote(num_cpus=0)(Log).remote()
    assert ray.get(actor.call.remote(0, "at once")) == 0
    waiting = actor.wait.remote(gate.path)
    for i in range(200):
        assert ray.get(actor.call.remote(i, WAYS[i % 2]), timeout=30) == i
    gate.meet()
    assert ray.get(waiting, timeout=30) == "waited"
    assert ray.get(actor.call.remote(1, "at once"), timeout=30) == 1


@pytest.mark.usefixtures("shared_session")
def test_groups_take_their_calls_apart() -> None:
    @ray.remote(num_cpus=0, concurrency_groups={"one": 1, "two": 2})
    class Groups(Log):
        @ray.method(concurrency_group="one")
        async def first(self, i: int, way: str) -> int:
            return await Log.call(self, i, way)

        @ray.method(concurrency_group="two")
        async def second(self, i: int, way: str) -> int:
            return await Log.call(self, i, way)

    actor = Groups.remote()
    for i in range(300):
        way = WAYS[i % 3]
        methods = (actor.first, actor.second, actor.call)
        assert ray.get([m.remote(i, way) for m in methods], timeout=30) == [i, i, i]
        assert ray.get(methods[i % 3].remote(i, "at once"), timeout=30) == i
