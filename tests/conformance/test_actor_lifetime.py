"""The ends of actors that nobody mourns: kill, exit, nobody left to call; and their limits."""

from __future__ import annotations

import atexit
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from .actors import WAYS, accepted, never_done, obedient_class, passage, wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts, Gate


# ---- kill ----


def test_killed_actor_fails_calls_before_and_after(ray: ModuleType, gate: Gate) -> None:
    actor = obedient_class(ray).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    running = actor.do.remote(passage(), gate.path)
    queued = actor.add.remote()
    ray.kill(actor)
    for ref in (running, queued, actor.add.remote()):
        with pytest.raises(ray.exceptions.ActorDiedError, match=r"ray\.kill"):
            ray.get(ref, timeout=30)
    wait_until_gone(pid)
    ray.kill(actor)


@pytest.mark.parametrize("way", ["threaded", "async"])
def test_kill_ends_the_process_however_it_serves(ray: ModuleType, way: str) -> None:
    actor = obedient_class(ray, way).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    ray.kill(actor)
    wait_until_gone(pid)
    with pytest.raises(ray.exceptions.ActorDiedError, match=r"ray\.kill"):
        ray.get(actor.add.remote(), timeout=30)


def test_kill_before_it_is_constructed_fails_its_calls(ray: ModuleType, gate: Gate) -> None:
    slow = ray.remote(passage()).remote(gate.path)
    actor = obedient_class(ray).remote(slow)
    call = actor.add.remote()
    ray.kill(actor)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(call, timeout=30)
    gate.meet()


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
    def tidy(path):
        atexit.register(lambda: open(path, "w").close())

    actor = obedient_class(ray).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    ray.get(actor.do.remote(tidy, str(tmp_path / "tidied")))
    ray.kill(actor)
    wait_until_gone(pid)
    assert not (tmp_path / "tidied").exists()


@pytest.mark.parametrize(
    ("restarts", "no_restart"), [(-1, True), (0, False)], ids=["not asked for", "none left"]
)
def test_kill_is_for_ever_where_a_restart_is(
    ray: ModuleType, restarts: int, no_restart: bool
) -> None:
    actor = obedient_class(ray, max_restarts=restarts, max_task_retries=-1).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    ray.kill(actor, no_restart=no_restart)
    wait_until_gone(pid)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.add.remote(), timeout=30)


def test_actor_is_killed_by_a_task_that_got_its_handle(ray: ModuleType) -> None:
    actor = obedient_class(ray).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    ray.get(ray.remote(lambda handle: ray.kill(handle)).remote(actor))
    wait_until_gone(pid)
    with pytest.raises(ray.exceptions.ActorDiedError, match=r"ray\.kill"):
        ray.get(actor.add.remote(), timeout=30)


def test_death_says_which_actor_died_and_why(ray: ModuleType) -> None:
    actor = obedient_class(ray).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    ray.kill(actor)
    wait_until_gone(pid)
    with pytest.raises(ray.exceptions.RayActorError) as caught:
        ray.get(actor.add.options(max_task_retries=-1).remote(), timeout=30)
    assert isinstance(caught.value, ray.exceptions.ActorDiedError)
    assert caught.value.actor_id == actor._actor_id.hex()
    assert not caught.value.actor_init_failed
    for word in ("class_name: ", "Obedient\n", actor._actor_id.hex(), "namespace:", "ray.kill"):
        assert word in str(caught.value)


def test_kill_takes_its_option_by_keyword_only(ray: ModuleType) -> None:
    actor = obedient_class(ray).remote()
    with pytest.raises(TypeError):
        ray.kill(actor, False)
    assert ray.get(actor.add.remote()) == 1


@pytest.mark.parametrize(
    "what",
    [lambda ray: None, lambda ray: "name", lambda ray: int, lambda ray: ray.put(1)],
    ids=["None", "name", "class", "reference"],
)
def test_kill_of_what_is_no_actor_is_a_value_error(
    ray: ModuleType, what: Callable[[ModuleType], Any]
) -> None:
    with pytest.raises(ValueError, match="actor"):
        ray.kill(what(ray))


# ---- exit ----


def exit_actor(ray: ModuleType) -> Callable[[], Any]:
    """Return one of the two ways to end an actor for good, to be done by it."""
    return lambda: ray.actor.exit_actor()


def sys_exit(ray: ModuleType) -> Callable[[], Any]:
    """Return the other."""
    return lambda: sys.exit(0)


@pytest.mark.parametrize(
    ("how", "way"),
    [
        *[(exit_actor, way) for way in WAYS],
        *[(sys_exit, way) for way in ("sync", "threaded")],
        never_done(sys_exit, "async"),
    ],
)
def test_actor_that_leaves_fails_its_calls_and_is_not_restarted(
    ray: ModuleType, how: Callable[[ModuleType], Callable[[], Any]], way: str
) -> None:
    actor = obedient_class(ray, way, max_restarts=3).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.do.remote(how(ray)), timeout=30)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.add.remote(), timeout=30)
    wait_until_gone(pid)


def test_exit_of_an_actor_lets_earlier_calls_finish_and_fails_later_ones(
    ray: ModuleType, gate: Gate
) -> None:
    actor = obedient_class(ray).remote()
    earlier = actor.do.remote(passage(), gate.path)
    end = actor.do.remote(exit_actor(ray))
    later = [actor.add.remote() for _ in range(2)]
    gate.meet()
    assert ray.get(earlier, timeout=30) is None
    for ref in (end, *later):
        with pytest.raises(ray.exceptions.ActorDiedError, match="exit"):
            ray.get(ref, timeout=30)


def test_exit_actor_is_no_exception_that_a_method_catches(ray: ModuleType) -> None:
    @ray.remote
    class Leaves:
        def leave(self):
            try:
                ray.actor.exit_actor()
            except Exception:
                return "caught"

    with pytest.raises(ray.exceptions.ActorDiedError, match="exit_actor"):
        ray.get(Leaves.remote().leave.remote(), timeout=30)


def test_exit_actor_elsewhere_is_a_type_error(ray: ModuleType) -> None:
    with pytest.raises(TypeError):
        ray.actor.exit_actor()
    with pytest.raises(TypeError):
        ray.get(ray.remote(exit_actor(ray)).remote(), timeout=30)


@pytest.mark.parametrize("how", [exit_actor, sys_exit])
def test_constructor_that_leaves_fails_the_calls_and_is_not_run_again(
    ray: ModuleType, attempts: Attempts, how: Callable[[ModuleType], Callable[[], Any]]
) -> None:
    begin, leave = attempts.begin, how(ray)

    @ray.remote(max_restarts=1)
    class Leaves:
        def __init__(self):
            begin()
            leave()

        def one(self):
            return 1

    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(Leaves.remote().one.remote(), timeout=30)
    assert attempts.made() == 1


def test_terminate_lets_earlier_calls_finish(ray: ModuleType) -> None:
    actor = obedient_class(ray).remote()
    earlier = [actor.add.remote() for _ in range(3)]
    end = actor.__ray_terminate__.remote()
    assert ray.get(earlier) == [1, 2, 3]
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(end, timeout=30)


@pytest.mark.parametrize("way", WAYS)
def test_terminate_ends_the_actor_for_good(ray: ModuleType, way: str) -> None:
    actor = obedient_class(ray, way, max_restarts=3).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    for method in (actor.__ray_terminate__, actor.add):
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(method.remote(), timeout=30)
    wait_until_gone(pid)


# ---- out of scope ----


@pytest.mark.parametrize("way", WAYS)
def test_actor_ends_when_nobody_can_call_it(ray: ModuleType, way: str) -> None:
    actor = obedient_class(ray, way, max_restarts=3).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    del actor
    wait_until_gone(pid)


def test_submitted_calls_finish_before_the_actor_ends(ray: ModuleType, tmp_path: Any) -> None:
    def note(path, text):
        with open(path, "a") as file:
            file.write(text)

    path = tmp_path / "notes"
    actor = obedient_class(ray).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    for letter in "abc":
        actor.do.remote(note, str(path), letter)
    del actor
    wait_until_gone(pid)
    assert path.read_text() == "abc"


def test_calls_that_run_and_wait_keep_the_actor(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    within, slow = new_gate(), new_gate()
    actor = obedient_class(ray).remote(1)
    pid = ray.get(actor.do.remote(os.getpid))
    running = actor.do.remote(passage(), within.path)
    pause = ray.remote(lambda path: (open(path).close(), 5)[1])
    waiting = actor.add.remote(pause.remote(slow.path))
    del actor
    within.meet()
    slow.meet()
    assert ray.get([running, waiting], timeout=30) == [None, 6]
    wait_until_gone(pid)


def test_handle_of_a_task_keeps_the_actor_until_the_task_ends(
    ray: ModuleType, new_gate: Callable[[], Gate]
) -> None:
    within, gate = new_gate(), new_gate()
    actor = obedient_class(ray).remote(1)
    pid = ray.get(actor.do.remote(os.getpid))

    @ray.remote
    def hold(handle, within, gate):
        open(within).close()
        open(gate).close()
        return ray.get(handle.add.remote())

    ref = hold.remote(actor, within.path, gate.path)
    within.meet()
    del actor
    gate.meet()
    assert ray.get(ref, timeout=30) == 2
    wait_until_gone(pid)


def test_handle_in_an_object_keeps_the_actor_as_long_as_the_object(ray: ModuleType) -> None:
    actor = obedient_class(ray).remote(1)
    pid = ray.get(actor.do.remote(os.getpid))
    ref = ray.put({"actor": [actor]})
    del actor
    copy = ray.get(ref)["actor"][0]
    del ref
    assert ray.get(copy.add.remote(), timeout=30) == 2
    del copy
    wait_until_gone(pid)


def test_method_keeps_the_actor(ray: ModuleType) -> None:
    add = obedient_class(ray).remote(1).add
    assert ray.get(add.remote()) == 2
    assert ray.get(add.remote()) == 3


@pytest.mark.parametrize("maker", ["task", "actor"])
def test_actor_ends_with_the_task_or_actor_that_made_it(ray: ModuleType, maker: str) -> None:
    cls = obedient_class(ray)

    class Parent:
        def make(self):
            self.child = cls.remote()
            return ray.get(self.child.do.remote(os.getpid))

    if maker == "task":
        pid = ray.get(ray.remote(lambda: Parent().make()).remote(), timeout=30)
    else:
        parent = ray.remote(Parent).remote()
        pid = ray.get(parent.make.remote(), timeout=30)
        ray.kill(parent)
    wait_until_gone(pid)


# ---- limits ----


def test_pending_calls_beyond_the_limit_raise_at_the_call(ray: ModuleType, gate: Gate) -> None:
    actor = obedient_class(ray, max_pending_calls=2).remote()
    calls = [actor.do.remote(passage(), gate.path), actor.add.remote()]
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
        actor.add.remote()
    gate.meet()
    assert ray.get(calls, timeout=30) == [None, 1]


def test_pending_calls_are_counted_for_each_process_that_calls(ray: ModuleType, gate: Gate) -> None:
    actor = obedient_class(ray, max_pending_calls=1).options(name="busy").remote()
    limit = ray.exceptions.PendingCallsLimitExceeded
    held = actor.do.remote(passage(), gate.path)
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
    assert ray.get([held, first], timeout=30) == [None, 1]


def test_refused_call_does_not_run_and_finished_ones_make_room(ray: ModuleType, gate: Gate) -> None:
    actor = obedient_class(ray, max_pending_calls=1).remote()
    held = actor.do.remote(passage(), gate.path)
    for _ in range(3):
        with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
            actor.add.remote()
    gate.meet()
    ray.get(held, timeout=30)
    results = [ray.get(accepted(ray, actor.add.remote), timeout=30) for _ in range(3)]
    assert results == [1, 2, 3]


def test_pending_calls_have_no_limit_by_default(ray: ModuleType, gate: Gate) -> None:
    actor = obedient_class(ray).remote()
    held = actor.do.remote(passage(), gate.path)
    calls = [actor.add.remote() for _ in range(500)]
    gate.meet()
    assert ray.get([held, *calls], timeout=30) == [None, *range(1, 501)]


def test_actor_holds_its_resources_while_it_lives(ray: ModuleType) -> None:
    actor = obedient_class(ray, num_cpus=0, resources={"token": 1}).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    task = ray.remote(num_cpus=0, resources={"token": 1})(lambda: "ran")
    ref = task.remote()
    assert ray.wait([ref], timeout=0.2)[0] == []
    ray.kill(actor)
    assert ray.get(ref, timeout=30) == "ran"
    wait_until_gone(pid)


def test_many_actors_share_two_cpus(ray: ModuleType) -> None:
    actors = [obedient_class(ray).remote(i) for i in range(6)]
    assert ray.get([actor.add.remote() for actor in actors], timeout=60) == [1, 2, 3, 4, 5, 6]
