"""The life of actors: names, restarts, kill, exit, and the end when nobody can call any more."""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

    from .support import Gate


def process_class(ray: ModuleType, **options: Any) -> Any:
    """Return an actor class whose process can be asked for and ended."""

    class Process:
        def __init__(self, value=0):
            self.value = value

        def pid(self):
            return os.getpid()

        def add(self):
            self.value += 1
            return self.value

        def die(self):
            os.kill(os.getpid(), signal.SIGKILL)

        def die_once(self, mark):
            if not os.path.exists(mark):
                open(mark, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return "survived"

        def leave(self, how):
            if how == "exit_actor":
                ray.actor.exit_actor()
            sys.exit(0)

        def wait(self, path):
            open(path).close()
            return "done"

        def note(self, path, text):
            with open(path, "a") as file:
                file.write(text)

        def was_restarted(self):
            return ray.get_runtime_context().was_current_actor_reconstructed

    return ray.remote(**options)(Process) if options else ray.remote(Process)


def wait_until_gone(pid: int) -> None:
    """Wait until the process has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([fd], [], [], 30)[0], f"process {pid} is still there"
    os.close(fd)


# ---- kill and exit ----


def test_killed_actor_fails_calls_before_and_after(ray: ModuleType, gate: Gate) -> None:
    actor = process_class(ray).remote()
    pid = ray.get(actor.pid.remote())
    running = actor.wait.remote(gate.path)
    queued = actor.add.remote()
    ray.kill(actor)
    for ref in (running, queued, actor.add.remote()):
        with pytest.raises(ray.exceptions.ActorDiedError, match=r"ray\.kill"):
            ray.get(ref, timeout=30)
    wait_until_gone(pid)
    ray.kill(actor)


def test_kill_of_something_else_is_a_value_error(ray: ModuleType) -> None:
    with pytest.raises(ValueError, match="actor"):
        ray.kill(ray.put(1))


def test_kill_while_it_is_constructed_fails_its_calls(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    class Slow:
        def __init__(self, path):
            open(path).close()
            while True:
                time.sleep(0.01)

        def method(self):
            return 1

    actor = Slow.remote(gate.path)
    call = actor.method.remote()
    gate.meet()
    assert ray.kill(actor) is None
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(call, timeout=30)


def test_killed_actor_runs_nothing_at_exit(ray: ModuleType, tmp_path: Any) -> None:
    @ray.remote
    class Tidy:
        def __init__(self, path):
            atexit.register(lambda: open(path, "w").close())

        def pid(self):
            return os.getpid()

    actor = Tidy.remote(str(tmp_path / "tidied"))
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    wait_until_gone(pid)
    assert not (tmp_path / "tidied").exists()


def test_kill_before_it_is_constructed_fails_its_calls(ray: ModuleType, gate: Gate) -> None:
    slow = ray.remote(lambda path: open(path).close()).remote(gate.path)
    actor = process_class(ray).remote(slow)
    call = actor.add.remote()
    ray.kill(actor)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(call, timeout=30)
    gate.meet()


@pytest.mark.parametrize("how", ["exit_actor", "sys.exit"])
def test_actor_that_leaves_fails_its_calls_and_is_not_restarted(ray: ModuleType, how: str) -> None:
    actor = process_class(ray, max_restarts=3).remote()
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.leave.remote(how), timeout=30)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.add.remote(), timeout=30)


def test_exit_actor_elsewhere_is_a_type_error(ray: ModuleType) -> None:
    with pytest.raises(TypeError):
        ray.actor.exit_actor()


def test_terminate_lets_earlier_calls_finish(ray: ModuleType) -> None:
    actor = process_class(ray).remote()
    earlier = [actor.add.remote() for _ in range(3)]
    end = actor.__ray_terminate__.remote()
    assert ray.get(earlier) == [1, 2, 3]
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(end, timeout=30)


# ---- crashes and restarts ----


def test_crash_without_restarts_fails_every_call(ray: ModuleType) -> None:
    actor = process_class(ray).remote()
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.die.remote(), timeout=30)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.add.remote(), timeout=30)


def test_restarted_actor_starts_anew_from_its_arguments(ray: ModuleType) -> None:
    actor = process_class(ray, max_restarts=1).remote(10)
    assert ray.get(actor.add.remote()) == 11
    assert ray.get(actor.was_restarted.remote()) is False
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.die.remote(), timeout=30)
    again = actor.add.options(max_task_retries=-1)  # on Ray it may come too early
    assert ray.get(again.remote(), timeout=30) == 11
    assert ray.get(actor.was_restarted.remote()) is True


def test_used_up_restarts_end_the_actor(ray: ModuleType) -> None:
    actor = process_class(ray, max_restarts=1).remote()
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.die.remote(), timeout=30)
    ray.get(actor.add.options(max_task_retries=-1).remote(), timeout=30)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.die.remote(), timeout=30)


def test_task_retries_run_the_call_again_after_a_crash(ray: ModuleType, tmp_path: Any) -> None:
    actor = process_class(ray, max_restarts=1, max_task_retries=1).remote()
    assert ray.get(actor.die_once.remote(str(tmp_path / "mark")), timeout=30) == "survived"


def test_kill_with_restart_restarts(ray: ModuleType) -> None:
    actor = process_class(ray, max_restarts=1, max_task_retries=1).remote()
    pid = ray.get(actor.pid.remote())
    ray.kill(actor, no_restart=False)
    wait_until_gone(pid)
    assert ray.get(actor.pid.remote(), timeout=30) != pid


def test_exception_of_a_method_is_retried_where_asked_for(ray: ModuleType) -> None:
    @ray.remote(max_task_retries=2)
    class Flaky:
        def __init__(self):
            self.tries = 0

        @ray.method(retry_exceptions=[KeyError])
        def third(self):
            self.tries += 1
            if self.tries < 3:
                raise KeyError(self.tries)
            return self.tries

        def never(self):
            self.tries += 1
            raise KeyError(self.tries)

    actor = Flaky.remote()
    assert ray.get(actor.third.remote(), timeout=30) == 3
    with pytest.raises(KeyError, match="4"):
        ray.get(actor.never.remote(), timeout=30)


def test_stream_of_an_actor_that_dies_ends_with_its_death(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    class Dies:
        def count(self, path):
            yield 1
            open(path).close()
            os.kill(os.getpid(), signal.SIGKILL)

    stream = Dies.remote().count.remote(gate.path)
    assert ray.get(next(stream)) == 1
    gate.meet()
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(next(stream))
    with pytest.raises(StopIteration):
        next(stream)


# ---- out of scope ----


def test_actor_ends_when_nobody_can_call_it(ray: ModuleType) -> None:
    actor = process_class(ray).remote()
    pid = ray.get(actor.pid.remote())
    del actor
    wait_until_gone(pid)


def test_submitted_calls_finish_before_the_actor_ends(ray: ModuleType, tmp_path: Any) -> None:
    path = tmp_path / "notes"
    actor = process_class(ray).remote()
    pid = ray.get(actor.pid.remote())
    for letter in "abc":
        actor.note.remote(str(path), letter)
    del actor
    wait_until_gone(pid)
    assert path.read_text() == "abc"


# ---- names ----


def test_named_actor_is_found(ray: ModuleType) -> None:
    actor = process_class(ray).options(name="found").remote(5)
    other = ray.get_actor("found")
    assert other == actor
    assert ray.get(other.add.remote()) == 6
    assert "found" in ray.util.list_named_actors()
    ray.kill(actor)


def test_named_actor_is_found_in_a_task(ray: ModuleType) -> None:
    actor = process_class(ray).options(name="in a task").remote()
    assert (
        ray.get(ray.remote(lambda: ray.get(ray.get_actor("in a task").add.remote())).remote()) == 1
    )
    ray.kill(actor)


@pytest.mark.parametrize(
    ("name", "error"), [("nobody", ValueError), ("", ValueError), (3, TypeError)]
)
def test_wrong_name_is_refused(ray: ModuleType, name: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        ray.get_actor(name)


def test_taken_name_is_refused_and_get_if_exists_finds_it(ray: ModuleType) -> None:
    cls = process_class(ray)
    actor = cls.options(name="taken").remote(1)
    ray.get(actor.add.remote())
    with pytest.raises(ValueError, match="taken") as caught:
        cls.options(name="taken").remote()
    assert isinstance(caught.value, ray.exceptions.ActorAlreadyExistsError)
    same = cls.options(name="taken", get_if_exists=True).remote(7)
    assert same == actor
    ray.kill(actor)


def test_get_if_exists_without_a_name_is_refused(ray: ModuleType) -> None:
    with pytest.raises(ValueError):
        process_class(ray).options(get_if_exists=True).remote()


def test_namespaces_keep_names_apart(ray: ModuleType) -> None:
    cls = process_class(ray)
    here = cls.options(name="apart").remote()
    there = cls.options(name="apart", namespace="elsewhere").remote()
    assert here != there
    assert ray.get_actor("apart", namespace="elsewhere") == there
    with pytest.raises(ValueError):
        ray.get_actor("apart", namespace="nowhere")
    ray.kill(here)
    ray.kill(there)


def test_detached_actor_outlives_its_handles(ray: ModuleType) -> None:
    actor = process_class(ray).options(name="stays", lifetime="detached").remote(1)
    pid = ray.get(actor.pid.remote())
    del actor
    again = ray.get_actor("stays")
    assert ray.get(again.pid.remote(), timeout=30) == pid
    ray.kill(again)


@pytest.mark.deliberately_different("Ray ends it with its creator's handle, whoever else has one")
def test_handle_of_get_actor_keeps_the_actor(ray: ModuleType) -> None:
    actor = process_class(ray).options(name="kept").remote()
    pid = ray.get(actor.pid.remote())
    other = ray.get_actor("kept")
    del actor
    if ray.__name__ == "ray":
        wait_until_gone(pid)
    assert ray.get(other.add.remote(), timeout=30) == 1


# ---- limits ----


def test_pending_calls_beyond_the_limit_raise_at_the_call(ray: ModuleType, gate: Gate) -> None:
    actor = process_class(ray, max_pending_calls=2).remote()
    calls = [actor.wait.remote(gate.path), actor.add.remote()]
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
        actor.add.remote()
    gate.meet()
    assert ray.get(calls, timeout=30) == ["done", 1]


def test_pending_calls_are_counted_for_each_process_that_calls(ray: ModuleType, gate: Gate) -> None:
    actor = process_class(ray, max_pending_calls=1).options(name="busy").remote()
    limit = ray.exceptions.PendingCallsLimitExceeded
    held = actor.wait.remote(gate.path)
    with pytest.raises(limit):
        ray.get_actor("busy").add.remote()  # another handle, the same process

    def call_twice(actor):
        first = actor.add.remote()
        try:
            actor.add.remote()
        except limit:
            return [first]

    [first] = ray.get(ray.remote(num_cpus=0)(call_twice).remote(actor), timeout=30)
    gate.meet()
    assert ray.get([held, first], timeout=30) == ["done", 1]


def test_actor_holds_its_resources_while_it_lives(ray: ModuleType) -> None:
    actor = process_class(ray, num_cpus=0, resources={"token": 1}).remote()
    pid = ray.get(actor.pid.remote())
    task = ray.remote(num_cpus=0, resources={"token": 1})(lambda: "ran")
    ref = task.remote()
    assert ray.wait([ref], timeout=0.2)[0] == []
    ray.kill(actor)
    assert ray.get(ref, timeout=30) == "ran"
    wait_until_gone(pid)


def test_many_actors_share_two_cpus(ray: ModuleType) -> None:
    actors = [process_class(ray).remote(i) for i in range(6)]
    assert ray.get([actor.add.remote() for actor in actors], timeout=60) == [1, 2, 3, 4, 5, 6]
