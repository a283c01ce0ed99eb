"""init(local_mode=True): the driver runs everything itself, and nothing else changes.

Ray 2.60 has no local mode any more, so none of this is in tests/conformance.
"""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support import Attempts, Output, eventually

import ray_lite as ray
from ray_lite import _core
from ray_lite.exceptions import (
    ActorDiedError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray_lite.session import Connection

local = pytest.mark.session(local_mode=True)
pytestmark = [local, pytest.mark.usefixtures("session")]


@ray.remote
def where() -> tuple[int, str]:
    return os.getpid(), threading.current_thread().name


HERE = (os.getpid(), threading.main_thread().name)


@ray.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self) -> int:
        self.count += 1
        return self.count

    def where(self) -> tuple[int, str]:
        return os.getpid(), threading.current_thread().name

    def count_to(self, n: int) -> Iterator[int]:
        yield from range(n)

    def leave(self, code: int | None = None) -> None:
        if code is None:
            ray.actor.exit_actor()
        sys.exit(code)

    def context(self) -> tuple[Any, Any, Any]:
        context = ray.get_runtime_context()
        return context.get_actor_id(), context.get_actor_name(), context.current_actor

    def fail_until(self, enough: int) -> int:
        if self.add() < enough:
            raise KeyError(self.count)
        return self.count


@ray.remote
class Signal:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self) -> int:
        await self.event.wait()
        return os.getpid()

    async def send(self) -> None:
        self.event.set()

    async def mark(self) -> None:
        """Calls that came before this one have been started."""

    async def count_to(self, n: int) -> Any:
        for i in range(n):
            yield i


def error_of(ref: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:
        ray.get(ref)
    return caught.value


# ---- tasks ----


def test_task_has_run_in_the_drivers_main_thread_when_remote_returns(session: Connection) -> None:
    ref = where.remote()
    assert session.core.is_ready(ref)
    assert ray.get(ref) == HERE
    assert [role for _, _, role, _ in session.core.slots() if role == _core.ROLE_WORKER] == []


def test_task_of_a_task_runs_inside_it() -> None:
    @ray.remote(num_cpus=2)
    def fibonacci(n: int) -> int:
        if n < 2:
            return n
        return sum(ray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))

    assert ray.get(fibonacci.remote(8)) == 21


def test_task_that_wants_more_than_there_is_runs_and_holds_nothing() -> None:
    @ray.remote(num_cpus=100, resources={"nowhere": 1})
    def free_cpus() -> tuple[float, float]:
        held = ray.get_runtime_context().get_assigned_resources()
        return ray.available_resources()["CPU"], held["CPU"]

    assert ray.get(free_cpus.remote()) == (2.0, 100.0)


def test_argument_is_a_read_only_snapshot() -> None:
    @ray.remote
    def change(array: Any, items: list[int]) -> tuple[bool, list[int]]:
        items.append(2)
        return array.flags.writeable, items

    items = [1]
    ref = change.remote(np.zeros(100_000), items)
    assert ray.get(ref) == (False, [1, 2])
    assert items == [1]
    ray.get(ref)[1].append(3)
    assert ray.get(ref) == (False, [1, 2])


def test_exception_raises_at_get_and_not_at_remote() -> None:
    @ray.remote
    def fail() -> None:
        raise KeyError("why")

    ref = fail.remote()
    error = error_of(ref)
    assert isinstance(error, RayTaskError)
    assert isinstance(error, KeyError)
    assert "in fail" in str(error)


def test_failed_argument_fails_its_task() -> None:
    @ray.remote
    def fail() -> None:
        raise KeyError("why")

    @ray.remote
    def take(value: Any) -> Any:
        return value

    assert isinstance(error_of(take.remote(fail.remote())), KeyError)


def test_task_waits_for_an_argument_that_a_thread_makes() -> None:
    asked = Signal.remote()
    timer = threading.Timer(0.05, lambda: asked.send.remote())

    @ray.remote
    def take(value: int) -> int:
        return value

    waiting = asked.wait.remote()
    timer.start()
    assert ray.get(take.remote(waiting)) == os.getpid()
    timer.join()


def test_exception_that_is_to_be_retried_is(attempts: Attempts) -> None:
    @ray.remote(max_retries=3, retry_exceptions=[KeyError])
    def fail_twice() -> int:
        count: int = attempts.begin()
        if count < 3:
            raise KeyError(count)
        return count

    assert ray.get(fail_twice.remote()) == 3


def test_retries_end_with_the_last_exception() -> None:
    @ray.remote(max_retries=2, retry_exceptions=True)
    def fail() -> None:
        raise KeyError("always")

    assert isinstance(error_of(fail.remote()), KeyError)


def test_sys_exit_fails_the_task_and_not_the_driver() -> None:
    @ray.remote
    def leave() -> None:
        sys.exit(3)

    error = error_of(leave.remote())
    assert isinstance(error, WorkerCrashedError)
    assert "leave called sys.exit(3)" in str(error)


def test_interrupt_ends_the_task_and_goes_on_in_the_driver() -> None:
    refs = []

    @ray.remote
    def inner() -> None:
        signal.raise_signal(signal.SIGINT)

    @ray.remote
    def outer() -> None:
        inner.remote()

    with pytest.raises(KeyboardInterrupt):
        refs.append(outer.remote())
    assert refs == []
    assert ray.get(where.remote()) == HERE


def test_environment_variables_last_as_long_as_the_task() -> None:
    @ray.remote(runtime_env={"env_vars": {"RAY_LITE_TEST": "in"}})
    def look() -> str | None:
        return os.environ.get("RAY_LITE_TEST")

    assert ray.get(look.remote()) == "in"
    assert "RAY_LITE_TEST" not in os.environ


def test_cancel_of_what_has_ended_does_nothing() -> None:
    ref = where.remote()
    ray.cancel(ref, force=True)
    assert ray.get(ref) == HERE


def test_runtime_context_is_the_tasks_own() -> None:
    @ray.remote
    def ids() -> tuple[str, str, Any]:
        context = ray.get_runtime_context()
        return context.get_task_id(), context.get_task_name(), context.get_actor_id()

    ref = ids.options(name="titled").remote()
    assert ray.get(ref) == (ref.task_id().hex(), "titled", None)
    assert ray.get_runtime_context().get_task_id() is None


def test_print_of_a_task_goes_straight_to_the_drivers_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @ray.remote
    def speak() -> None:
        print("spoken")

    speak.remote()
    assert capsys.readouterr().out == "spoken\n"


# ---- generators ----


@pytest.mark.parametrize("num_returns", [3, "dynamic", "streaming"])
def test_generator_gives_its_values_in_each_mode(num_returns: Any) -> None:
    @ray.remote(num_returns=num_returns)
    def count() -> Iterator[int]:
        yield from range(3)

    made = count.remote()
    refs = ray.get(made) if num_returns == "dynamic" else made
    assert [ray.get(ref) for ref in refs] == [0, 1, 2]


@pytest.mark.parametrize("num_returns", [3, "dynamic", "streaming"])
def test_generator_that_raises_keeps_its_values_in_each_mode(num_returns: Any) -> None:
    @ray.remote(num_returns=num_returns)
    def count() -> Iterator[int]:
        yield 0
        raise KeyError("midway")

    made = count.remote()
    first, second, *_ = list(ray.get(made) if num_returns == "dynamic" else made)
    assert ray.get(first) == 0
    assert isinstance(error_of(second), KeyError)


def test_streaming_generator_has_run_to_its_end_when_remote_returns(session: Connection) -> None:
    @ray.remote
    def count() -> Iterator[int]:
        yield from range(3)

    generator = count.remote()
    assert session.core.is_ready(generator.completed())
    assert ray.wait([generator], timeout=0)[0] == [generator]
    assert [ray.get(ref) for ref in generator] == [0, 1, 2]


def test_generator_that_pauses_runs_beside_its_consumer(session: Connection) -> None:
    @ray.remote(_generator_backpressure_num_objects=2)
    def fill_the_store_twice() -> Iterator[Any]:
        for _ in range(8):
            yield np.zeros(25_000_000, np.uint8)

    sizes = [ray.get(ref).nbytes for ref in fill_the_store_twice.remote()]
    assert sizes == [25_000_000] * 8


def test_generator_that_pauses_for_ever_can_be_cancelled() -> None:
    @ray.remote(_generator_backpressure_num_objects=1)
    def count_for_ever() -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    generator = count_for_ever.remote()
    assert ray.get(next(generator)) == 0
    ray.cancel(generator)
    last = list(generator)[-1]
    assert isinstance(error_of(last), TaskCancelledError | RayTaskError)


# ---- actors ----


def test_actor_lives_in_the_driver_and_its_calls_run_at_once(session: Connection) -> None:
    counter = Counter.remote(5)
    ref = counter.add.remote()
    assert session.core.is_ready(ref)
    assert ray.get([ref, counter.add.remote()]) == [6, 7]
    assert ray.get(counter.where.remote()) == HERE


def test_actor_of_several_threads_runs_its_calls_at_once_too() -> None:
    counter = Counter.options(max_concurrency=3).remote()
    assert ray.get(counter.where.remote()) == HERE


@pytest.mark.parametrize("num_returns", [3, "dynamic", "streaming"])
def test_generator_method_gives_its_values_in_each_mode(num_returns: Any) -> None:
    counter = Counter.remote()
    made = counter.count_to.options(num_returns=num_returns).remote(3)
    refs = ray.get(made) if num_returns == "dynamic" else made
    assert [ray.get(ref) for ref in refs] == [0, 1, 2]


def test_call_behind_a_method_that_pauses_waits_for_it() -> None:
    counter = Counter.remote()
    numbers = counter.count_to.options(_generator_backpressure_num_objects=1).remote(3)
    behind = counter.add.remote()
    assert ray.wait([behind], timeout=0) == ([], [behind])
    assert [ray.get(ref) for ref in numbers] == [0, 1, 2]
    assert ray.get(behind) == 1


def test_calls_of_several_threads_do_not_overlap() -> None:
    @ray.remote
    class Fragile:
        def __init__(self) -> None:
            self.inside = 0
            self.seen = 0

        def enter(self) -> int:
            self.inside += 1
            self.seen = max(self.seen, self.inside)
            for _ in range(1000):
                pass
            self.inside -= 1
            return self.seen

    fragile = Fragile.remote()

    def call_often() -> None:
        ray.get([fragile.enter.remote() for _ in range(200)])

    threads = [threading.Thread(target=call_often) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ray.get(fragile.enter.remote()) == 1


def test_exception_of_a_method_is_retried_as_often_as_is_allowed() -> None:
    counter = Counter.options(max_task_retries=5).remote()
    call = counter.fail_until.options(retry_exceptions=True)
    assert ray.get(call.remote(3)) == 3


def test_failed_constructor_fails_the_calls_and_not_remote() -> None:
    @ray.remote
    class Broken:
        def __init__(self) -> None:
            raise KeyError("built wrong")

        def call(self) -> None: ...

    broken = Broken.remote()
    error = error_of(broken.call.remote())
    assert isinstance(error, ActorDiedError)
    assert "built wrong" in str(error)


@pytest.mark.parametrize(("code", "reason"), [(None, "exit_actor() is called"), (3, "sys.exit(3)")])
def test_actor_that_ends_itself_fails_this_call_and_later_ones(code: Any, reason: str) -> None:
    counter = Counter.remote()
    leaving = counter.leave.remote(code)
    for ref in (leaving, counter.add.remote()):
        error = error_of(ref)
        assert isinstance(error, ActorDiedError)
        assert reason in str(error)


def test_exit_actor_outside_an_actor_is_refused() -> None:
    @ray.remote
    def leave() -> None:
        ray.actor.exit_actor()

    assert isinstance(error_of(leave.remote()), TypeError)


def test_killed_actor_fails_its_calls_and_loses_its_name() -> None:
    counter = Counter.options(name="counter").remote()
    assert ray.get(ray.get_actor("counter").add.remote()) == 1
    ray.kill(counter)
    assert isinstance(error_of(counter.add.remote()), ActorDiedError)
    with pytest.raises(ValueError, match="counter"):
        ray.get_actor("counter")


def test_actor_that_may_be_restarted_starts_anew_when_killed_so() -> None:
    counter = Counter.options(max_restarts=1).remote(5)
    assert ray.get(counter.add.remote()) == 6
    ray.kill(counter, no_restart=False)
    assert ray.get(counter.add.remote()) == 6
    ray.kill(counter, no_restart=False)
    assert isinstance(error_of(counter.add.remote()), ActorDiedError)


def test_actor_that_nobody_can_call_ends_and_its_instance_goes() -> None:
    counter = Counter.options(name="short").remote()
    instances: weakref.WeakSet[Any] = weakref.WeakSet()
    instances.update(thing for thing in gc.get_objects() if type(thing) is Counter._class)
    assert len(instances) == 1
    del counter
    assert eventually(lambda: ray.util.list_named_actors() == [] and not instances)


def test_handle_works_in_a_task_and_in_another_actor() -> None:
    counter = Counter.remote()

    @ray.remote
    def use(handle: Any) -> int:
        value: int = ray.get(handle.add.remote())
        return value

    @ray.remote
    class User:
        def use(self, handle: Any) -> int:
            value: int = ray.get(handle.add.remote())
            return value

    user = User.remote()
    assert ray.get([use.remote(counter), user.use.remote(counter)]) == [1, 2]


def test_runtime_context_is_the_actors_in_its_methods_alone() -> None:
    counter = Counter.options(name="named").remote()
    expected = (counter._actor_id.hex(), "named", counter)
    assert ray.get(counter.context.remote()) == expected
    assert ray.get_runtime_context().get_actor_id() is None


def test_name_that_an_actor_looks_up_is_in_its_namespace() -> None:
    @ray.remote
    class Finder:
        def find(self) -> str:
            ray.get_actor("near")
            return str(ray.get_runtime_context().namespace)

    near = Counter.options(name="near", namespace="there").remote()
    finder = Finder.options(namespace="there").remote()
    assert ray.get(finder.find.remote()) == "there"
    with pytest.raises(ValueError, match="near"):
        ray.get_actor("near")
    del near


def test_interrupt_in_a_method_reaches_the_driver_and_leaves_the_actor_alive() -> None:
    counter = Counter.remote()
    with pytest.raises(KeyboardInterrupt):
        counter.__ray_call__.remote(lambda self: signal.raise_signal(signal.SIGINT))
    assert ray.get(counter.add.remote()) == 1


def test_constructor_that_leaves_makes_a_dead_actor() -> None:
    @ray.remote
    class Leaver:
        def __init__(self) -> None:
            sys.exit(3)

        def call(self) -> None: ...

    error = error_of(Leaver.remote().call.remote())
    assert isinstance(error, ActorDiedError)
    assert "its constructor called sys.exit(3)" in str(error)


# ---- async actors ----


def test_async_methods_run_side_by_side_in_the_driver() -> None:
    asked = Signal.remote()
    waiting = asked.wait.remote()
    asked.send.remote()
    assert ray.get(waiting) == os.getpid()


def test_async_generator_method_streams() -> None:
    asked = Signal.remote()
    assert [ray.get(ref) for ref in asked.count_to.remote(3)] == [0, 1, 2]


def test_async_method_can_be_called_and_awaited_from_a_running_loop() -> None:
    async def use() -> Any:
        asked = Signal.remote()
        waiting = asked.wait.remote()
        await asked.send.remote()
        return await waiting

    assert asyncio.run(use()) == os.getpid()


def test_cancelled_coroutine_raises() -> None:
    asked = Signal.remote()
    waiting = asked.wait.remote()
    ray.get(asked.mark.remote())
    ray.cancel(waiting)
    assert isinstance(error_of(waiting), TaskCancelledError)


def test_killed_async_actor_fails_what_it_is_at() -> None:
    asked = Signal.remote()
    waiting = asked.wait.remote()
    ray.get(asked.mark.remote())
    ray.kill(asked)
    assert isinstance(error_of(waiting), ActorDiedError)


def test_call_that_an_async_actor_has_not_begun_fails_with_it_too() -> None:
    for _ in range(30):
        asked = Signal.remote()
        waiting = asked.wait.remote()
        ray.kill(asked)
        assert isinstance(error_of(waiting), ActorDiedError)


def test_coroutine_cancelled_before_its_first_step_raises() -> None:
    asked = Signal.remote()
    for _ in range(30):
        waiting = asked.wait.remote()
        ray.cancel(waiting)
        assert isinstance(error_of(waiting), TaskCancelledError)


def test_shutdown_ends_a_coroutine_that_waits_and_a_generator_that_pauses() -> None:
    @ray.remote(_generator_backpressure_num_objects=1)
    def count() -> Iterator[int]:
        yield from range(3)

    asked = Signal.options(max_concurrency=1).remote()
    waiting, generator = asked.wait.remote(), count.remote()
    assert ray.get(next(generator)) == 0
    ray.shutdown()
    del waiting, generator


# ---- the session ----


def test_session_in_local_mode_cannot_be_joined() -> None:
    assert ray.init(ignore_reinit_error=True)["address"] == "local"


def test_failure_that_nobody_asked_for_is_printed(printed: Output) -> None:
    @ray.remote
    def fail() -> None:
        raise KeyError("unheard")

    fail.remote()
    assert printed.until("unheard")


def test_debugger_stops_inside_a_task() -> None:
    program = """
import ray_lite as ray
ray.init(local_mode=True, num_cpus=1, object_store_memory=100 << 20)
@ray.remote
def double(x):
    breakpoint()
    return 2 * x
print("got", ray.get(double.remote(21)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="p x + 1000\ncontinue\n",
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert "1021" in done.stdout
    assert "got 42" in done.stdout
