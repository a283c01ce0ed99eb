"""actor_loop.py: who takes the next call, the loop or its thread, changes nothing but the speed.

And whatever an actor's own code does to the loop and to its tasks, each call is answered.
"""

import asyncio
import contextlib
import random
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from conformance.support import Gate
from support import Attempts

import ray_lite as ray
from ray_lite.exceptions import ActorDiedError, RayTaskError, TaskCancelledError

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


# ---- what the actor's own code does to its loop ----


def pass_gate(path: str) -> None:
    """Wait at a gate."""
    open(path).close()


class Meddler:
    """An async actor that does to its loop and its tasks what it should not."""

    def __init__(self) -> None:
        """Do nothing yet."""
        self.kept: list[Any] = []
        self.cleaned = 0

    async def call(self, i: int) -> int:
        """Return i."""
        return i

    async def cancel_myself(self) -> int:
        """Be cancelled in the last step."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 1

    async def cancel_all(self, but_me: bool) -> int:
        """Cancel whatever the loop has, what has not begun among it."""
        for task in asyncio.all_tasks():
            if not (but_me and task is asyncio.current_task()):
                task.cancel()
        return 2

    async def stop_loop(self) -> int:
        """Stop the loop."""
        asyncio.get_running_loop().stop()
        return 3

    async def keep_thread(self, path: str) -> None:
        """Leave a thread of the loop's executor at a gate."""
        loop = asyncio.get_running_loop()
        self.kept.append(loop.run_in_executor(None, pass_gate, path))

    async def keep_stubborn_task(self) -> None:
        """Leave a task that does not let itself be cancelled."""

        async def stay() -> None:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

        self.kept.append(asyncio.create_task(stay()))

    async def exit_soon(self, way: str, code: int) -> None:
        """Ask for the end, but not in this call."""

        async def leave() -> None:
            sys.exit(code)

        if way == "task":
            self.kept.append(asyncio.create_task(leave()))
        else:
            asyncio.get_running_loop().call_soon(sys.exit, code)

    async def wait(self, path: str, ends: Sequence[str] = ()) -> None:
        """Pass a gate and wait for ever; pass others in the end."""
        try:
            await asyncio.to_thread(pass_gate, path)
            await asyncio.Event().wait()
        finally:
            for end in ends:
                await asyncio.to_thread(pass_gate, end)
            self.cleaned += 1

    async def how_many_cleaned(self) -> int:
        """Return how many calls of `wait` have cleaned up to the end."""
        return self.cleaned


everywhere = pytest.mark.parametrize(
    "local_mode",
    [
        pytest.param(False, marks=pytest.mark.session()),
        pytest.param(True, marks=pytest.mark.session(local_mode=True)),
    ],
)


@everywhere
@pytest.mark.usefixtures("session")
def test_call_that_cancels_its_own_task_is_answered_and_leaves_its_room(local_mode: bool) -> None:
    actor = ray.remote(max_concurrency=1)(Meddler).remote()
    for i in range(5):
        assert ray.get(actor.cancel_myself.remote(), timeout=30) == 1
        assert ray.get(actor.call.remote(i), timeout=30) == i


@everywhere
@pytest.mark.parametrize("but_me", [True, False])
@pytest.mark.usefixtures("session")
def test_calls_whose_tasks_the_actor_cancels_are_answered(local_mode: bool, but_me: bool) -> None:
    actor = ray.remote(max_concurrency=8)(Meddler).remote()
    for _ in range(30):
        calls = [actor.cancel_all.remote(but_me), *(actor.call.remote(i) for i in range(7))]
        assert ray.get(calls[0], timeout=30) == 2
        for i, call in enumerate(calls[1:]):
            try:
                assert ray.get(call, timeout=30) == i
            except RayTaskError as error:
                assert "CancelledError" in str(error)
    assert ray.get(actor.call.remote(1), timeout=30) == 1


@everywhere
@pytest.mark.usefixtures("session")
def test_loop_that_the_actor_stops_goes_on(local_mode: bool) -> None:
    actor = ray.remote(Meddler).remote()
    for i in range(5):
        assert ray.get(actor.stop_loop.remote(), timeout=30) == 3
        assert ray.get(actor.call.remote(i), timeout=30) == i


@pytest.mark.session(num_cpus=1)
@pytest.mark.usefixtures("session")
def test_actor_that_left_a_thread_and_a_task_behind_still_ends(gate: Gate) -> None:
    actor = ray.remote(num_cpus=1)(Meddler).remote()
    ray.get([actor.keep_thread.remote(gate.path), actor.keep_stubborn_task.remote()])
    del actor
    other = ray.remote(num_cpus=1)(Meddler).remote()
    assert ray.get(other.call.remote(1), timeout=30) == 1


@everywhere
@pytest.mark.parametrize("way", ["task", "callback"])
@pytest.mark.usefixtures("session")
def test_exit_beside_the_calls_ends_the_actor_as_in_a_call(
    local_mode: bool, way: str, new_gate: Callable[[], Gate]
) -> None:
    gate = new_gate()
    actor = ray.remote(Meddler).remote()
    waiting = actor.wait.remote(gate.path)
    gate.meet()
    ray.get(actor.exit_soon.remote(way, 0))
    for call in [waiting, actor.call.remote(1)]:
        with pytest.raises(ActorDiedError, match=r"called sys.exit\(0\)"):
            ray.get(call, timeout=30)


@pytest.mark.session()
@pytest.mark.usefixtures("session")
def test_exit_beside_the_calls_has_them_run_again(attempts: Attempts) -> None:
    @ray.remote(max_restarts=1, max_task_retries=1)
    class Once:
        async def call(self) -> int:
            if attempts.begin() == 1:
                asyncio.get_running_loop().call_soon(sys.exit, 3)
                await asyncio.Event().wait()
            return 7

    assert ray.get(Once.remote().call.remote(), timeout=30) == 7


@everywhere
@pytest.mark.usefixtures("session")
def test_cancel_of_one_call_does_not_cut_off_what_another_does_about_its_own(
    local_mode: bool, new_gate: Callable[[], Gate]
) -> None:
    actor = ray.remote(Meddler).remote()
    gates = [[new_gate() for _ in range(3)] for _ in range(2)]
    calls = []
    for begin, *ends in gates:
        calls.append(actor.wait.remote(begin.path, [end.path for end in ends]))
        begin.meet()
    for call, (_, first, _) in zip(calls, gates, strict=True):
        ray.cancel(call)
        first.meet()  # it is cleaning up
    for call, (_, _, second) in zip(calls, gates, strict=True):
        second.meet()
        with pytest.raises(TaskCancelledError):
            ray.get(call, timeout=30)
    assert ray.get(actor.how_many_cleaned.remote()) == 2
