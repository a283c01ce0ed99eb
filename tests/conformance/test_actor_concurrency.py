"""Which calls of an actor run when: in order, in threads, in groups, on an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

from .actors import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from .support import Gate


def log_class(ray: ModuleType, **options: Any) -> Any:
    """Return an actor class that notes the order of its calls."""

    class Log:
        def __init__(self):
            self.notes = []

        def note(self, text):
            self.notes.append(text)
            return text

        def wait(self, *paths):
            for path in paths:
                open(path).close()
            self.notes.append("waited")
            return "waited"

        def read(self):
            return list(self.notes)

    return ray.remote(**options)(Log) if options else ray.remote(Log)


def passing(ray: ModuleType) -> Any:
    """Return a task that gives `value` once it has passed a gate."""

    @ray.remote(num_cpus=0)
    def after(path, value):
        open(path).close()
        return value

    return after


# ---- in order ----


def test_calls_by_two_handles_of_a_caller_are_in_one_order(ray: ModuleType) -> None:
    log = log_class(ray).options(name="two handles").remote()
    other = ray.get_actor("two handles")
    for i in range(20):
        (log if i % 2 else other).note.remote(i)
    assert ray.get(log.read.remote()) == list(range(20))


def test_calls_keep_their_order_behind_slow_arguments(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    first, second = new_gate(), new_gate()
    after, log = passing(ray), log_class(ray).remote()
    refs = [
        log.note.remote(after.remote(first.path, "a")),
        log.note.remote("b"),
        log.note.remote(after.remote(second.path, "c")),
        log.note.remote("d"),
    ]
    second.meet()
    assert ray.wait(refs, num_returns=4, timeout=0.2)[0] == []
    first.meet()
    assert ray.get(refs) == ["a", "b", "c", "d"]
    assert ray.get(log.read.remote()) == ["a", "b", "c", "d"]


def test_call_waits_for_the_one_that_runs(ray: ModuleType, gate: Gate) -> None:
    log = log_class(ray).remote()
    running, waiting = log.wait.remote(gate.path), log.note.remote("second")
    assert ray.wait([running, waiting], timeout=0.2)[0] == []
    gate.meet()
    assert ray.get([running, waiting]) == ["waited", "second"]
    assert ray.get(log.read.remote()) == ["waited", "second"]


def test_sync_actor_may_be_allowed_to_run_ready_calls_first(ray: ModuleType, gate: Gate) -> None:
    log = log_class(ray, allow_out_of_order_execution=True).remote()
    late = log.note.remote(passing(ray).remote(gate.path, "late"))
    assert ray.get(log.note.remote("early"), timeout=30) == "early"
    gate.meet()
    ray.get(late)
    assert ray.get(log.read.remote()) == ["early", "late"]


@pytest.mark.parametrize(("number", "is_main"), [(1, True), (2, False)])
def test_calls_in_order_alone_run_in_the_main_thread(
    ray: ModuleType, number: int, is_main: bool
) -> None:
    call = log_class(ray, max_concurrency=number).remote().__ray_call__
    current = call.remote(lambda self: threading.current_thread() is threading.main_thread())
    assert ray.get(current) is is_main


def test_actor_waits_for_a_task_without_a_cpu_of_its_own(ray: ModuleType) -> None:
    @ray.remote
    class Asks:
        def ask(self):
            return ray.get(ray.remote(num_cpus=2)(lambda: "answer").remote())

    assert ray.get(Asks.remote().ask.remote(), timeout=30) == "answer"


# ---- in threads ----


def test_third_call_of_an_actor_with_two_threads_waits(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    gates = [new_gate() for _ in range(2)]
    log = log_class(ray, max_concurrency=2).remote()
    refs = []
    for gate in gates:
        within = new_gate()
        refs.append(log.wait.remote(within.path, gate.path))
        within.meet()
    late = log.note.remote("late")
    assert ray.wait([late, *refs], timeout=0.2)[0] == []
    gates[1].meet()
    assert ray.get(late, timeout=30) == "late"
    gates[0].meet()
    assert ray.get(refs, timeout=30) == ["waited"] * 2


def test_threaded_actor_lets_a_ready_call_overtake_one_that_waits(
    ray: ModuleType, gate: Gate
) -> None:
    log = log_class(ray).options(max_concurrency=2).remote()
    late = log.note.remote(passing(ray).remote(gate.path, "late"))
    assert ray.get(log.note.remote("early"), timeout=30) == "early"
    gate.meet()
    assert ray.get(late, timeout=30) == "late"
    assert ray.get(log.read.remote()) == ["early", "late"]


def test_threaded_actor_calls_itself(ray: ModuleType) -> None:
    @ray.remote(max_concurrency=2)
    class Recursive:
        def outer(self, itself):
            return ray.get(itself.inner.remote()) + 1

        def inner(self):
            return 1

    actor = Recursive.remote()
    assert ray.get(actor.outer.remote(actor), timeout=30) == 2


def test_exception_in_a_thread_leaves_the_others_running(ray: ModuleType, gate: Gate) -> None:
    log = log_class(ray, max_concurrency=2).remote()
    waiting = log.wait.remote(gate.path)
    with pytest.raises(ZeroDivisionError):
        ray.get(log.__ray_call__.remote(lambda self: 1 // 0))
    gate.meet()
    assert ray.get(waiting) == "waited"


# ---- in groups ----


def grouped_class(ray: ModuleType, groups: Any, **options: Any) -> Any:
    """Return an actor class with methods in the groups `io` and `compute`."""

    @ray.remote(concurrency_groups=groups, **options)
    class Grouped:
        @ray.method(concurrency_group="io")
        def io(self, *paths):
            for path in paths:
                open(path).close()
            return threading.get_ident()

        @ray.method(concurrency_group="compute")
        def compute(self, *paths):
            for path in paths:
                open(path).close()
            return threading.get_ident()

        def default(self, *paths):
            for path in paths:
                open(path).close()
            return threading.get_ident()

    return Grouped


def test_groups_do_not_wait_for_each_other(ray: ModuleType, gate: Gate) -> None:
    actor = grouped_class(ray, {"io": 1, "compute": 1}).remote()
    held = actor.io.remote(gate.path)
    others = [actor.compute.remote(), actor.default.remote()]
    threads = ray.get(others, timeout=30)
    assert len(set(threads)) == 2
    gate.meet()
    assert ray.get(held) not in threads


def test_group_runs_as_many_calls_as_it_says(ray: ModuleType, new_gate: Callable[[], Gate]) -> None:
    actor = grouped_class(ray, {"io": 2, "compute": 1}).remote()
    gates, held = [new_gate() for _ in range(2)], []
    for gate in gates:
        within = new_gate()
        held.append(actor.io.remote(within.path, gate.path))
        within.meet()
    behind = actor.io.remote()
    assert ray.wait([behind, *held], timeout=0.2)[0] == []
    gates[1].meet()
    assert ray.get([behind, held[1]], timeout=30)
    gates[0].meet()
    assert ray.get(held[0], timeout=30)


def test_group_is_chosen_at_the_call(ray: ModuleType, new_gate: Callable[[], Gate]) -> None:
    actor = grouped_class(ray, {"io": 1, "compute": 1}).remote()
    within, gate = new_gate(), new_gate()
    held = actor.default.options(concurrency_group="io").remote(within.path, gate.path)
    within.meet()
    behind = actor.io.remote()
    moved = actor.io.options(concurrency_group="compute").remote()
    ray.get([actor.default.remote(), moved], timeout=30)
    assert ray.wait([behind], timeout=0.1)[0] == []
    gate.meet()
    assert ray.get(held, timeout=30) == ray.get(behind, timeout=30)


def test_default_group_has_its_own_number_of_threads(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    within, gate = new_gate(), new_gate()
    actor = grouped_class(ray, {"io": 1, "compute": 1}, max_concurrency=2).remote()
    held = actor.default.remote(within.path, gate.path)
    within.meet()
    assert ray.get(actor.default.remote(), timeout=30)
    gate.meet()
    assert ray.get(held, timeout=30)


def test_groups_of_an_async_actor_bound_its_coroutines(ray: ModuleType) -> None:
    # Ray gives each group a loop of its own, so nothing of asyncio may be shared by them.
    @ray.remote(concurrency_groups={"one": 1})
    class Grouped:
        def __init__(self):
            self.is_waiting = self.is_released = False

        @ray.method(concurrency_group="one")
        async def wait(self):
            self.is_waiting = True
            while not self.is_released:
                await asyncio.sleep(0.01)
            return "waited"

        @ray.method(concurrency_group="one")
        async def behind(self):
            return "behind"

        async def until_waiting(self):
            while not self.is_waiting:
                await asyncio.sleep(0.01)

        async def release(self):
            self.is_released = True
            return "released"

    actor = Grouped.remote()
    waiting = actor.wait.remote()
    ray.get(actor.until_waiting.remote(), timeout=30)
    behind = actor.behind.remote()
    assert ray.wait([waiting, behind], timeout=0.2)[0] == []
    assert ray.get(actor.release.remote(), timeout=30) == "released"
    assert ray.get([waiting, behind], timeout=30) == ["waited", "behind"]


@pytest.mark.deliberately_different("Ray kills the actor; the call that is wrong should raise")
def test_unknown_concurrency_group_raises_at_the_call(ray: ModuleType) -> None:
    log = log_class(ray).remote()
    with pytest.raises(ValueError, match="no concurrency group 'nowhere'"):
        log.note.options(concurrency_group="nowhere").remote("text")


# ---- on an event loop ----


def async_log_class(ray: ModuleType, **options: Any) -> Any:
    """Return an async actor class whose coroutines wait for each other."""

    class AsyncLog:
        def __init__(self):
            self.notes = []
            self.events = {}
            self.inside = 0

        def _event(self, name):
            return self.events.setdefault(name, asyncio.Event())

        async def wait(self, name):
            self.inside += 1
            await self._event(name).wait()
            self.inside -= 1
            return name

        async def set(self, name):
            self._event(name).set()

        async def until_inside(self, number):
            while self.inside < number:
                await asyncio.sleep(0)
            return self.inside

        async def note(self, text):
            self.notes.append(text)
            return text

        async def read(self):
            return list(self.notes)

        def hold(self, *paths):
            for path in paths:
                open(path).close()
            return "held"

    return ray.remote(**options)(AsyncLog) if options else ray.remote(AsyncLog)


def test_one_async_method_makes_an_actor_async(ray: ModuleType) -> None:
    @ray.remote
    class Mixed:
        async def loop(self):
            return id(asyncio.get_running_loop())

        def plain(self):
            return id(asyncio.get_running_loop())

    actor = Mixed.remote()
    assert ray.get(actor.loop.remote()) == ray.get(actor.plain.remote())


def test_plain_method_holds_up_the_coroutines(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    actor = async_log_class(ray).remote()
    within, gate = new_gate(), new_gate()
    held = actor.hold.remote(within.path, gate.path)
    within.meet()
    behind = actor.note.remote("behind")
    assert ray.wait([held, behind], timeout=0.2)[0] == []
    gate.meet()
    assert ray.get([held, behind], timeout=30) == ["held", "behind"]


def test_hundred_coroutines_wait_at_once(ray: ModuleType) -> None:
    actor = async_log_class(ray).remote()
    waiting = [actor.wait.remote("go") for _ in range(100)]
    assert ray.get(actor.until_inside.remote(100), timeout=30) == 100
    ray.get(actor.set.remote("go"))
    assert ray.get(waiting, timeout=30) == ["go"] * 100


def test_coroutines_are_as_many_as_asked_for(ray: ModuleType, tmp_path: Path) -> None:
    @ray.remote(max_concurrency=2)
    class Waits:
        async def wait(self, path):
            open(path, "w").close()
            await asyncio.Event().wait()

        async def touch(self):
            return True

    actor = Waits.remote()
    begun = [tmp_path / name for name in "ab"]
    waiting = [actor.wait.remote(str(path)) for path in begun]
    assert eventually(lambda: all(path.exists() for path in begun))
    behind = actor.touch.remote()
    assert ray.wait([*waiting, behind], timeout=0.2)[0] == []
    ray.kill(actor)


def test_kill_ends_waiting_coroutines(ray: ModuleType) -> None:
    actor = async_log_class(ray).remote()
    waiting = [actor.wait.remote(name) for name in "abc"]
    assert ray.get(actor.until_inside.remote(3), timeout=30) == 3
    ray.kill(actor)
    for ref in waiting:
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(ref, timeout=30)


def test_coroutine_with_a_ready_argument_overtakes_one_without(ray: ModuleType, gate: Gate) -> None:
    actor = async_log_class(ray).remote()
    late = actor.note.remote(passing(ray).remote(gate.path, "late"))
    assert ray.get(actor.note.remote("early"), timeout=30) == "early"
    gate.meet()
    ray.get(late)
    assert ray.get(actor.read.remote()) == ["early", "late"]


def test_coroutine_awaits_another_actor_and_itself(ray: ModuleType) -> None:
    @ray.remote
    class Asks:
        async def ask(self, handle):
            return await handle.note.remote("asked")

        async def twice(self, itself, handle):
            return [await itself.ask.remote(handle), await itself.ask.remote(handle)]

    asks, log = Asks.remote(), async_log_class(ray).remote()
    assert ray.get(asks.ask.remote(log), timeout=30) == "asked"
    assert ray.get(asks.twice.remote(asks, log), timeout=30) == ["asked", "asked"]


def test_coroutine_gathers_references(ray: ModuleType) -> None:
    @ray.remote
    class Gathers:
        async def gather(self, refs):
            return await asyncio.gather(*refs)

    refs = [ray.remote(lambda i=i: i).remote() for i in range(5)]
    assert ray.get(Gathers.remote().gather.remote(refs), timeout=30) == [0, 1, 2, 3, 4]


def test_coroutine_sees_the_error_of_what_it_awaits(ray: ModuleType) -> None:
    @ray.remote
    class Catches:
        async def catch(self, refs):
            try:
                await refs[0]
            except ZeroDivisionError as error:
                return type(error).__name__

    fail = ray.remote(max_retries=0)(lambda: 1 // 0)
    assert "ZeroDivisionError" in ray.get(Catches.remote().catch.remote([fail.remote()]))


def test_exception_of_one_coroutine_leaves_the_others_waiting(ray: ModuleType) -> None:
    actor = async_log_class(ray).remote()
    waiting = actor.wait.remote("go")
    with pytest.raises(TypeError):
        ray.get(actor.until_inside.remote("many"))
    assert ray.wait([waiting], timeout=0)[0] == []
    ray.get(actor.set.remote("go"))
    assert ray.get(waiting, timeout=30) == "go"


def test_plain_call_of_an_async_actor_raises_its_exception(ray: ModuleType) -> None:
    actor = async_log_class(ray).remote()
    with pytest.raises(FileNotFoundError):
        ray.get(actor.hold.remote("/nowhere/at/all"))
    assert ray.get(actor.note.remote("alive")) == "alive"


def test_coroutine_splits_what_it_returns(ray: ModuleType) -> None:
    @ray.remote
    class Pair:
        @ray.method(num_returns=2)
        async def pair(self):
            return 1, 2

    assert ray.get(Pair.remote().pair.remote()) == [1, 2]


def test_coroutines_keep_their_context_variables_apart(ray: ModuleType) -> None:
    @ray.remote
    class Context:
        def __init__(self):
            self.variable = contextvars.ContextVar("variable", default=0)
            self.event = asyncio.Event()

        async def hold(self, value):
            self.variable.set(value)
            await self.event.wait()
            return self.variable.get()

        async def release(self):
            self.event.set()
            return self.variable.get()

    actor = Context.remote()
    held = [actor.hold.remote(i) for i in (1, 2)]
    assert ray.get(actor.release.remote(), timeout=30) == 0
    assert ray.get(held, timeout=30) == [1, 2]


def test_tasks_of_the_loop_outlive_the_call_that_started_them(ray: ModuleType) -> None:
    @ray.remote
    class Background:
        def __init__(self):
            self.go = asyncio.Event()
            self.done = asyncio.Event()

        async def start(self):
            async def work():
                await self.go.wait()
                self.done.set()

            self.task = asyncio.get_running_loop().create_task(work())
            return "started"

        async def finish(self):
            self.go.set()
            await self.done.wait()
            return "finished"

    actor = Background.remote()
    assert ray.get(actor.start.remote()) == "started"
    assert ray.get(actor.finish.remote(), timeout=30) == "finished"


def test_many_callers_wait_for_one_coroutine(ray: ModuleType) -> None:
    @ray.remote(num_cpus=0)
    def ask(actor):
        return ray.get(actor.wait.remote("go"))

    actor = async_log_class(ray).remote()
    asking = [ask.remote(actor) for _ in range(3)]
    assert ray.get(actor.until_inside.remote(3), timeout=30) == 3
    ray.get(actor.set.remote("go"))
    assert ray.get(asking, timeout=30) == ["go"] * 3


def test_coroutine_that_blocks_in_get_gets_the_value(ray: ModuleType) -> None:
    @ray.remote
    class Blocks:
        async def ask(self):
            return ray.get(ray.remote(lambda: "answer").remote())

    assert ray.get(Blocks.remote().ask.remote()) == "answer"
