"""cancel: tasks, generators and actors' calls, before and while they run."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts, Gate

LONG = 60  # seconds, that no case waits

ARGUMENT_COMES = "its process aborts now and then when the argument of a cancelled task comes"


def sleeper(ray: ModuleType, **options: Any) -> Any:
    """Return a task that says that it runs, and sleeps; `then` is what an interrupt leads to."""

    def sleep(begun, ended=None, then=None):
        try:
            open(begun).close()
            for _ in range(6000):
                time.sleep(0.01)  # Ray's interrupt does not end a sleep
        except KeyboardInterrupt:
            if then == "swallow":
                return "swallowed"
            if then == "convert":
                raise ValueError("converted") from None
            raise
        finally:
            if ended:
                open(ended, "w").close()

    return ray.remote(**options)(sleep) if options else ray.remote(sleep)


def never(ray: ModuleType) -> Any:
    """Return a reference to what never comes: no node has what its task asks for."""
    return ray.remote(resources={"absent": 1}, num_cpus=0)(lambda: None).remote()


def settle(ray: ModuleType) -> None:
    """Let the engine finish its books on what has ended; Ray aborts if cancel comes before that.

    Its one thread takes replies in turn, so that a later task's value shows that it is past them.
    """
    ray.get(ray.remote(num_cpus=0)(lambda: None).remote(), timeout=30)


def assert_cancelled(ray: ModuleType, ref: Any, *, ran: bool) -> None:
    """Check that `get` says so: of a task that ran as its error, of another plainly."""
    with pytest.raises(ray.exceptions.TaskCancelledError) as caught:
        ray.get(ref, timeout=30)
    assert isinstance(caught.value, ray.exceptions.RayTaskError) == ran


def test_running_task_is_interrupted_and_its_finally_runs(
    ray: ModuleType, gate: Gate, tmp_path: Any
) -> None:
    ended = tmp_path / "ended"
    ref = sleeper(ray).remote(gate.path, str(ended))
    gate.meet()
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=True)
    assert ended.exists()


def test_swallowed_interrupt_lets_the_value_through(ray: ModuleType, gate: Gate) -> None:
    ref = sleeper(ray).remote(gate.path, None, "swallow")
    gate.meet()
    ray.cancel(ref)
    assert ray.get(ref, timeout=30) == "swallowed"


def test_interrupt_turned_into_an_exception_arrives_as_that(ray: ModuleType, gate: Gate) -> None:
    ref = sleeper(ray, max_retries=0).remote(gate.path, None, "convert")
    gate.meet()
    ray.cancel(ref)
    with pytest.raises(ValueError, match="converted"):
        ray.get(ref, timeout=30)


def test_cancelled_task_is_not_retried(ray: ModuleType, gate: Gate, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=3, retry_exceptions=True)
    def task(path):
        begin()
        open(path).close()
        for _ in range(6000):
            time.sleep(0.01)  # Ray's interrupt does not end a sleep

    ref = task.remote(gate.path)
    gate.meet()
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=True)
    assert attempts.made() == 1


def test_forced_cancel_kills_the_worker_and_says_so_plainly(ray: ModuleType, gate: Gate) -> None:
    ref = sleeper(ray).remote(gate.path, None, "swallow")
    gate.meet()
    ray.cancel(ref, force=True)
    assert_cancelled(ray, ref, ran=False)


def test_task_in_the_queue_never_runs(ray: ModuleType, gate: Gate, attempts: Attempts) -> None:
    begin = attempts.begin
    holder = ray.remote(resources={"token": 1}, num_cpus=0)(lambda path: open(path).close())
    held = holder.remote(gate.path)
    ref = ray.remote(resources={"token": 1}, num_cpus=0)(lambda: begin()).remote()
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=False)
    gate.meet()
    ray.get(held)
    assert attempts.made() == 0


def test_task_that_waits_for_an_argument_is_cancelled_at_once(ray: ModuleType) -> None:
    ref = ray.remote(lambda x: x).remote(never(ray))
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=False)


@pytest.mark.deliberately_different(ARGUMENT_COMES, runs_on_ray=False)
def test_task_that_waits_for_an_argument_never_runs(
    ray: ModuleType, gate: Gate, attempts: Attempts
) -> None:
    begin = attempts.begin
    slow = ray.remote(lambda path: open(path).close()).remote(gate.path)
    ref = ray.remote(lambda x: begin()).remote(slow)
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=False)
    gate.meet()
    ray.get(slow)
    assert attempts.made() == 0


def test_finished_task_keeps_its_value(ray: ModuleType) -> None:
    ref = ray.remote(lambda: 7).remote()
    assert ray.get(ref) == 7
    settle(ray)
    ray.cancel(ref)
    ray.cancel(ref)
    assert ray.get(ref) == 7


@pytest.mark.deliberately_different(
    "its process aborts now and then when cancel meets the end of a task", runs_on_ray=False
)
@pytest.mark.parametrize("force", [False, True])
def test_cancel_that_meets_the_end_gives_the_value_or_the_cancel(
    ray: ModuleType, force: bool
) -> None:
    seven = ray.remote(lambda: 7)
    for _ in range(20):
        ref = seven.remote()
        ray.wait([ref], timeout=0)
        ray.cancel(ref, force=force)
        try:
            assert ray.get(ref, timeout=30) == 7
        except ray.exceptions.TaskCancelledError:
            continue
        ray.cancel(ref, force=force)
        assert ray.get(ref, timeout=30) == 7


def test_put_is_left_alone(ray: ModuleType) -> None:
    ref = ray.put(7)
    ray.cancel(ref)
    assert ray.get(ref) == 7


def test_dependent_of_a_cancelled_task_is_cancelled(ray: ModuleType, gate: Gate) -> None:
    ref = sleeper(ray).remote(gate.path)
    dependent = ray.remote(lambda x: x).remote(ref)
    gate.meet()
    ray.cancel(ref)
    assert_cancelled(ray, dependent, ran=True)


def test_one_of_two_references_cancels_both(ray: ModuleType, gate: Gate) -> None:
    first, second = sleeper(ray, num_returns=2).remote(gate.path)
    gate.meet()
    ray.cancel(first)
    assert_cancelled(ray, first, ran=True)
    assert_cancelled(ray, second, ran=True)


@pytest.mark.parametrize("what", [3, "ref", None])
def test_what_is_no_reference_is_a_type_error(ray: ModuleType, what: Any) -> None:
    with pytest.raises(TypeError):
        ray.cancel(what)


def test_task_that_raises_keyboard_interrupt_is_cancelled(ray: ModuleType) -> None:
    @ray.remote
    def interrupt():
        raise KeyboardInterrupt

    assert_cancelled(ray, interrupt.remote(), ran=True)


def test_children_are_cancelled_too(
    ray: ModuleType, new_gate: Callable[[], Gate], tmp_path: Any
) -> None:
    child_begun, ended = new_gate(), tmp_path / "ended"
    child = sleeper(ray, num_cpus=0)

    @ray.remote(num_cpus=0)
    def parent(begun, ended):
        ray.get(child.remote(begun, ended))

    ref = parent.remote(child_begun.path, str(ended))
    child_begun.meet()
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=True)
    wait_for(ended)


@pytest.mark.parametrize("model", ["sync", "threaded", "async"])
def test_children_of_an_actors_call_are_cancelled_too(
    ray: ModuleType, new_gate: Callable[[], Gate], tmp_path: Any, model: str
) -> None:
    child_begun, ended = new_gate(), tmp_path / "ended"
    child = sleeper(ray, num_cpus=0)

    class Blocking:
        def call(self, begun, ended):
            ray.get(child.remote(begun, ended))

    class Awaiting:
        async def call(self, begun, ended):
            await child.remote(begun, ended)

    cls = Awaiting if model == "async" else Blocking
    options = {"max_concurrency": 2} if model == "threaded" else {"num_cpus": 0}
    actor = ray.remote(**options)(cls).remote()
    ref = actor.call.remote(child_begun.path, str(ended))
    child_begun.meet()
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=30)
    wait_for(ended)


def test_children_run_on_where_asked_for(
    ray: ModuleType, new_gate: Callable[[], Gate], tmp_path: Any
) -> None:
    child_begun, child_end, ended = new_gate(), new_gate(), tmp_path / "ended"

    @ray.remote(num_cpus=0)
    def child(begun, end, ended):
        open(begun).close()
        open(end).close()
        open(ended, "w").close()

    @ray.remote(num_cpus=0)
    def parent(*paths):
        ray.get(child.remote(*paths))

    ref = parent.remote(child_begun.path, child_end.path, str(ended))
    child_begun.meet()
    ray.cancel(ref, recursive=False)
    assert_cancelled(ray, ref, ran=True)
    assert not ended.exists()
    child_end.meet()
    wait_for(ended)


def wait_for(path: Any) -> None:
    """Wait until the file is there."""
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)


def test_text_is_empty_before_the_task_ran_and_names_it_after(ray: ModuleType, gate: Gate) -> None:
    running = sleeper(ray).remote(gate.path)
    pending = ray.remote(lambda x: x).remote(never(ray))
    gate.meet()
    ray.cancel(pending)
    ray.cancel(running)
    with pytest.raises(ray.exceptions.TaskCancelledError) as caught:
        ray.get(pending, timeout=30)
    assert str(caught.value) == ""
    assert caught.value.task_id is None
    with pytest.raises(ray.exceptions.TaskCancelledError) as caught:
        ray.get(running, timeout=30)
    assert running.task_id().hex() in str(caught.value)
    assert "was cancelled." in str(caught.value)


@pytest.mark.deliberately_different(ARGUMENT_COMES, runs_on_ray=False)
def test_cancel_of_a_dependent_leaves_its_argument_alone(ray: ModuleType, gate: Gate) -> None:
    argument = ray.remote(lambda path: (open(path).close(), 7)[1]).remote(gate.path)
    dependent = ray.remote(lambda x: x).remote(argument)
    ray.cancel(dependent)
    assert_cancelled(ray, dependent, ran=False)
    gate.meet()
    assert ray.get(argument, timeout=30) == 7


def test_dependent_of_a_task_that_never_ran_is_cancelled(ray: ModuleType) -> None:
    pending = ray.remote(lambda x: x).remote(never(ray))
    dependent = ray.remote(lambda x: x).remote(pending)
    ray.cancel(pending)
    assert_cancelled(ray, dependent, ran=True)


def test_forced_cancel_of_a_pending_task_keeps_it_from_running(
    ray: ModuleType, gate: Gate, attempts: Attempts
) -> None:
    begin = attempts.begin
    holder = ray.remote(resources={"token": 1}, num_cpus=0)(lambda path: open(path).close())
    held = holder.remote(gate.path)
    ref = ray.remote(resources={"token": 1}, num_cpus=0)(lambda: begin()).remote()
    ray.cancel(ref, force=True)
    assert_cancelled(ray, ref, ran=False)
    gate.meet()
    ray.get(held)
    assert attempts.made() == 0


def test_forced_cancel_is_not_retried(ray: ModuleType, gate: Gate, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=3)
    def task(path):
        begin()
        open(path).close()
        for _ in range(6000):
            time.sleep(0.01)

    ref = task.remote(gate.path)
    gate.meet()
    ray.cancel(ref, force=True)
    assert_cancelled(ray, ref, ran=False)
    assert attempts.made() == 1


def test_forced_cancel_of_a_finished_task_changes_nothing(ray: ModuleType) -> None:
    ref = ray.remote(lambda: 7).remote()
    assert ray.get(ref) == 7
    settle(ray)
    ray.cancel(ref, force=True)
    assert ray.get(ref) == 7


def test_failed_task_keeps_its_error(ray: ModuleType) -> None:
    ref = ray.remote(lambda: 1 / 0).remote()
    ray.wait([ref], timeout=30)
    settle(ray)
    ray.cancel(ref)
    with pytest.raises(ZeroDivisionError):
        ray.get(ref)


def test_second_cancel_changes_nothing(ray: ModuleType, gate: Gate) -> None:
    ref = sleeper(ray).remote(gate.path)
    gate.meet()
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=True)
    settle(ray)
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=True)


def test_wait_counts_a_cancelled_task_as_ready(ray: ModuleType) -> None:
    pending = never(ray)
    ref = ray.remote(lambda x: x).remote(pending)
    ray.cancel(ref)
    assert ray.wait([pending, ref], timeout=30) == ([ref], [pending])


def test_await_of_a_cancelled_task_raises(ray: ModuleType, gate: Gate) -> None:
    async def run(ref: Any) -> Any:
        return await ref

    ref = sleeper(ray).remote(gate.path)
    gate.meet()
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        asyncio.run(run(ref))


def test_get_that_waits_ends_with_the_cancel(ray: ModuleType, gate: Gate) -> None:
    ref = sleeper(ray).remote(gate.path)

    def cancel() -> None:
        gate.meet()
        ray.cancel(ref)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    assert_cancelled(ray, ref, ran=True)
    canceller.join()


def test_resources_of_a_cancelled_task_are_free_again(ray: ModuleType, gate: Gate) -> None:
    ref = sleeper(ray, resources={"token": 1}).remote(gate.path)
    gate.meet()
    ray.cancel(ref)
    following = ray.remote(resources={"token": 1})(lambda: "next").remote()
    assert ray.get(following, timeout=30) == "next"


def test_grandchildren_are_cancelled_too(ray: ModuleType, gate: Gate, tmp_path: Any) -> None:
    ended = tmp_path / "ended"
    grandchild = sleeper(ray, num_cpus=0)

    @ray.remote(num_cpus=0)
    def child(*paths):
        ray.get(grandchild.remote(*paths))

    @ray.remote(num_cpus=0)
    def parent(*paths):
        ray.get(child.remote(*paths))

    ref = parent.remote(gate.path, str(ended))
    gate.meet()
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=True)
    wait_for(ended)


# ---- generators ----


def stream_class(ray: ModuleType, **options: Any) -> Any:
    """Return a generator task that yields once and then sleeps."""

    def generate(begun=None):
        yield 1
        if begun:
            open(begun).close()
        for _ in range(6000):
            time.sleep(0.01)  # Ray's interrupt does not end a sleep
        yield 2

    return ray.remote(**options)(generate) if options else ray.remote(generate)


@pytest.mark.parametrize("by", ["generator", "item", "completed"])
def test_running_generator_ends_with_the_cancel(ray: ModuleType, gate: Gate, by: str) -> None:
    stream = stream_class(ray).remote(gate.path)
    item = next(stream)
    gate.meet()
    ray.cancel({"generator": stream, "item": item, "completed": stream.completed()}[by])
    assert ray.get(item) == 1
    assert_cancelled(ray, next(stream), ran=True)
    assert_cancelled(ray, stream.completed(), ran=True)
    with pytest.raises(StopIteration):
        next(stream)


def test_paused_generator_is_cancelled(ray: ModuleType) -> None:
    @ray.remote(_generator_backpressure_num_objects=1)
    def generate():
        while True:
            yield 1

    stream = generate.remote()
    assert ray.get(next(stream)) == 1
    ray.cancel(stream)
    assert_cancelled(ray, list(stream)[-1], ran=True)


def test_pending_generator_ends_with_the_cancel(ray: ModuleType) -> None:
    stream = stream_class(ray).remote(never(ray))
    ray.cancel(stream)
    assert_cancelled(ray, next(stream), ran=False)
    with pytest.raises(StopIteration):
        next(stream)


def test_forced_cancel_ends_a_generator_plainly(ray: ModuleType, gate: Gate) -> None:
    stream = stream_class(ray).remote(gate.path)
    item = next(stream)
    gate.meet()
    ray.cancel(stream, force=True)
    assert ray.get(item) == 1
    assert_cancelled(ray, next(stream), ran=False)
    with pytest.raises(StopIteration):
        next(stream)


def test_finally_of_a_generator_runs(ray: ModuleType, gate: Gate, tmp_path: Any) -> None:
    ended = tmp_path / "ended"

    @ray.remote
    def generate(begun, ended):
        try:
            yield 1
            open(begun).close()
            for _ in range(6000):
                time.sleep(0.01)
        finally:
            open(ended, "w").close()

    stream = generate.remote(gate.path, str(ended))
    next(stream)
    gate.meet()
    ray.cancel(stream)
    assert_cancelled(ray, next(stream), ran=True)
    assert ended.exists()


@pytest.mark.deliberately_different(
    "what a generator yields after it swallowed the interrupt is lost; its stream is cancelled"
)
def test_generator_that_swallows_the_interrupt_yields_on(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def generate(begun):
        yield 1
        try:
            open(begun).close()
            for _ in range(6000):
                time.sleep(0.01)
        except KeyboardInterrupt:
            yield "swallowed"

    stream = generate.remote(gate.path)
    next(stream)
    gate.meet()
    ray.cancel(stream)
    assert ray.get(next(stream), timeout=30) == "swallowed"
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.deliberately_different("the stream is cancelled, whatever it makes of the interrupt")
def test_generator_that_turns_the_interrupt_into_an_exception_ends_with_that(
    ray: ModuleType, gate: Gate
) -> None:
    @ray.remote
    def generate(begun):
        yield 1
        try:
            open(begun).close()
            for _ in range(6000):
                time.sleep(0.01)
        except KeyboardInterrupt:
            raise ValueError("converted") from None

    stream = generate.remote(gate.path)
    next(stream)
    gate.meet()
    ray.cancel(stream)
    (last,) = stream
    with pytest.raises(ValueError, match="converted"):
        ray.get(last, timeout=30)


def test_finished_generator_keeps_its_values(ray: ModuleType) -> None:
    @ray.remote
    def generate():
        yield 1
        yield 2

    stream = generate.remote()
    ray.get(stream.completed(), timeout=30)
    settle(ray)
    ray.cancel(stream)
    assert [ray.get(ref) for ref in stream] == [1, 2]


def test_generator_in_the_queue_never_runs(ray: ModuleType, gate: Gate, attempts: Attempts) -> None:
    begin = attempts.begin
    holder = ray.remote(resources={"token": 1}, num_cpus=0)(lambda path: open(path).close())

    @ray.remote(resources={"token": 1}, num_cpus=0)
    def generate():
        yield begin()

    held = holder.remote(gate.path)
    stream = generate.remote()
    ray.cancel(stream)
    assert_cancelled(ray, next(stream), ran=False)
    gate.meet()
    ray.get(held)
    assert attempts.made() == 0


def test_dynamic_generator_is_cancelled_as_a_whole(ray: ModuleType, gate: Gate) -> None:
    ref = stream_class(ray, num_returns="dynamic").remote(gate.path)
    gate.meet()
    ray.cancel(ref)
    assert_cancelled(ray, ref, ran=True)


# ---- actors ----


def actor_class(ray: ModuleType, **options: Any) -> Any:
    """Return an actor class with a method that waits at a gate."""

    class Waits:
        def wait(self, begun, end):
            open(begun).close()
            open(end).close()
            return ray.get_runtime_context().is_canceled()

        def quick(self):
            return "quick"

    return ray.remote(**options)(Waits) if options else ray.remote(Waits)


def test_queued_call_never_runs(ray: ModuleType, new_gate: Callable[[], Gate]) -> None:
    begun, end = new_gate(), new_gate()
    actor = actor_class(ray).remote()
    running = actor.wait.remote(begun.path, end.path)
    begun.meet()
    queued = actor.quick.remote()
    ray.cancel(queued)
    end.meet()
    assert_cancelled(ray, queued, ran=False)
    assert ray.get(running, timeout=30) is False


@pytest.mark.deliberately_different(
    "a call queued behind a cancelled one may wait for ever", runs_on_ray=False
)
def test_call_behind_a_cancelled_one_runs(ray: ModuleType, new_gate: Callable[[], Gate]) -> None:
    begun, end = new_gate(), new_gate()
    actor = actor_class(ray).remote()
    running = actor.wait.remote(begun.path, end.path)
    begun.meet()
    cancelled, later = actor.quick.remote(), actor.quick.remote()
    ray.cancel(cancelled)
    end.meet()
    assert_cancelled(ray, cancelled, ran=False)
    assert ray.get([running, later], timeout=30) == [False, "quick"]


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}])
def test_running_call_is_not_interrupted_but_its_value_is_not_kept(
    ray: ModuleType, new_gate: Callable[[], Gate], options: dict[str, Any]
) -> None:
    begun, end = new_gate(), new_gate()
    actor = actor_class(ray, **options).remote()
    running = actor.wait.remote(begun.path, end.path)
    begun.meet()
    ray.cancel(running)
    end.meet()
    assert_cancelled(ray, running, ran=False)
    with pytest.raises(ray.exceptions.TaskCancelledError, match=running.task_id().hex()):
        ray.get(running)
    assert ray.get(actor.quick.remote(), timeout=30) == "quick"


def test_call_that_waits_for_an_argument_never_runs(
    ray: ModuleType, gate: Gate, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote
    class Counts:
        def count(self, _=None):
            return begin()

    slow = ray.remote(lambda path: open(path).close()).remote(gate.path)
    actor = Counts.remote()
    waiting, later = actor.count.remote(slow), actor.count.remote()
    ray.cancel(waiting)
    assert_cancelled(ray, waiting, ran=False)
    gate.meet()
    assert ray.get(later, timeout=30) == 1


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}])
def test_running_call_can_see_that_it_is_cancelled(
    ray: ModuleType, gate: Gate, tmp_path: Any, options: dict[str, Any]
) -> None:
    seen = tmp_path / "seen"

    class Looks:
        def look(self, begun, seen):
            context = ray.get_runtime_context()
            assert not context.is_canceled()
            open(begun).close()
            while not context.is_canceled():
                time.sleep(0.01)
            open(seen, "w").close()

    actor = ray.remote(max_restarts=0, **options)(Looks).remote()
    running = actor.look.remote(gate.path, str(seen))
    gate.meet()
    ray.cancel(running)
    assert_cancelled(ray, running, ran=False)
    wait_for(seen)


def test_finished_call_keeps_its_value(ray: ModuleType) -> None:
    actor = actor_class(ray).remote()
    ref = actor.quick.remote()
    assert ray.get(ref) == "quick"
    ray.cancel(ref)
    assert ray.get(ref) == "quick"


def test_actor_itself_is_not_cancelled_but_killed(ray: ModuleType) -> None:
    actor = actor_class(ray).remote()
    with pytest.raises(TypeError, match="kill"):
        ray.cancel(actor)
    assert ray.get(actor.quick.remote(), timeout=30) == "quick"


def test_force_is_refused_for_a_call(ray: ModuleType, new_gate: Callable[[], Gate]) -> None:
    begun, end = new_gate(), new_gate()
    running = actor_class(ray).remote().wait.remote(begun.path, end.path)
    begun.meet()
    with pytest.raises(ValueError, match="force=True is not supported for actor tasks"):
        ray.cancel(running, force=True)
    end.meet()
    ray.get(running, timeout=30)


@pytest.mark.parametrize("swallows", [False, True])
def test_running_coroutine_is_cancelled(ray: ModuleType, gate: Gate, swallows: bool) -> None:
    @ray.remote
    class Async:
        async def wait(self, begun, swallows):
            open(begun).close()
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                if swallows:
                    return "swallowed"
                raise

        async def quick(self):
            return "quick"

    actor = Async.remote()
    running = actor.wait.remote(gate.path, swallows)
    gate.meet()
    ray.cancel(running)
    assert_cancelled(ray, running, ran=True)
    assert ray.get(actor.quick.remote(), timeout=30) == "quick"


def test_stream_of_a_coroutine_is_cancelled(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    class Async:
        async def generate(self, begun):
            yield 1
            open(begun).close()
            await asyncio.sleep(LONG)
            yield 2

        async def quick(self):
            return "quick"

    actor = Async.remote()
    stream = actor.generate.remote(gate.path)
    assert ray.get(next(stream), timeout=30) == 1
    gate.meet()
    ray.cancel(stream)
    assert_cancelled(ray, next(stream), ran=True)
    assert_cancelled(ray, stream.completed(), ran=True)
    with pytest.raises(StopIteration):
        next(stream)
    assert ray.get(actor.quick.remote(), timeout=30) == "quick"
