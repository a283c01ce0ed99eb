"""Crashes of actors: what their callers are told, what a restart keeps, which calls run again."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from .actors import crash, never_done, obedient_class, wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts, Gate

CRASHES = [
    pytest.param(lambda: os._exit(3), id="os._exit"),
    pytest.param(lambda: os.kill(os.getpid(), signal.SIGKILL), id="SIGKILL"),
    pytest.param(lambda: os.kill(os.getpid(), signal.SIGSEGV), id="SIGSEGV"),
    pytest.param(lambda: sys.exit(3), id="sys.exit"),
]


def crashing(ray: ModuleType, attempts: Attempts, crashes: int, **options: Any) -> Any:
    """Return an actor whose method `work` ends the process in its first `crashes` attempts."""
    begin = attempts.begin

    class Crashing:
        def __init__(self):
            self.calls = 0

        def work(self):
            self.calls += 1
            attempt = begin()
            if attempt <= crashes:
                os._exit(1)
            return attempt, self.calls

        def alive(self):
            return True

    return ray.remote(**options)(Crashing).remote()


# ---- crashes ----


@pytest.mark.parametrize("how", CRASHES)
def test_crash_fails_the_calls_that_run_wait_and_come(
    ray: ModuleType, how: Any, gate: Gate
) -> None:
    actor = obedient_class(ray).remote()
    refs = [
        actor.do.remote(lambda path: (open(path).close(), how()), gate.path),
        actor.add.remote(),
    ]
    assert ray.wait(refs, timeout=0)[0] == []
    gate.meet()
    for ref in refs:
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(ref, timeout=30)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.add.remote(), timeout=30)


def test_death_is_told_to_those_that_take_the_result(ray: ModuleType) -> None:
    dead = obedient_class(ray).remote().do.remote(crash())
    with pytest.raises(ray.exceptions.ActorDiedError) as caught:
        ray.get(ray.remote(lambda value: value).remote(dead), timeout=30)
    assert isinstance(caught.value, ray.exceptions.RayTaskError)


def test_death_is_raised_where_a_task_waits(ray: ModuleType) -> None:
    @ray.remote
    def ask(handle, how):
        try:
            ray.get(handle.do.remote(how))
        except ray.exceptions.ActorDiedError:
            return "seen"

    assert ray.get(ask.remote(obedient_class(ray).remote(), crash()), timeout=30) == "seen"


def test_death_is_the_same_after_pickling(ray: ModuleType) -> None:
    with pytest.raises(ray.exceptions.ActorDiedError) as caught:
        ray.get(obedient_class(ray).remote().do.remote(crash()), timeout=30)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    assert str(again) == str(caught.value)


def test_resources_of_a_crashed_actor_are_free_again(ray: ModuleType) -> None:
    cls = obedient_class(ray, num_cpus=0, resources={"token": 1})
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(cls.remote().do.remote(crash()), timeout=30)
    assert ray.get(cls.remote().add.remote(), timeout=30) == 1


# ---- restarts ----


def test_restarted_actor_starts_anew_from_its_arguments(ray: ModuleType) -> None:
    def was_restarted():
        return ray.get_runtime_context().was_current_actor_reconstructed

    value = ray.remote(lambda: 10).remote()
    actor = obedient_class(ray, max_restarts=1).remote(value)
    del value
    before = ray.get([actor.add.remote(), actor.add.remote(), actor.do.remote(os.getpid)])
    assert before[:2] == [11, 12]
    assert ray.get(actor.do.remote(was_restarted)) is False
    with pytest.raises(ray.exceptions.ActorUnavailableError) as caught:
        ray.get(actor.do.remote(crash()), timeout=30)
    assert isinstance(caught.value, ray.exceptions.RayActorError)
    assert not isinstance(caught.value, ray.exceptions.ActorDiedError)
    again = actor.add.options(max_task_retries=-1)  # on Ray it may come too early
    assert ray.get(again.remote(), timeout=30) == 11
    assert ray.get(actor.do.remote(was_restarted)) is True
    assert ray.get(actor.do.remote(os.getpid)) != before[2]


def test_used_up_restarts_end_the_actor(ray: ModuleType) -> None:
    actor = obedient_class(ray, max_restarts=1).remote()
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.do.remote(crash()), timeout=30)
    assert ray.get(actor.add.options(max_task_retries=-1).remote(), timeout=30) == 1
    for ref in (actor.do.remote(crash()), actor.add.remote()):
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(ref, timeout=30)


@pytest.mark.parametrize(
    ("code", "way"),
    [(None, "sync"), ("words", "threaded"), never_done(1, "async")],
)
def test_sys_exit_with_any_code_but_0_is_a_crash(ray: ModuleType, code: Any, way: str) -> None:
    actor = obedient_class(ray, way, max_restarts=1).remote()
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.do.remote(lambda: sys.exit(code)), timeout=30)
    assert ray.get(actor.add.options(max_task_retries=-1).remote(), timeout=30) == 1


def test_kill_with_restart_restarts(ray: ModuleType) -> None:
    actor = obedient_class(ray, max_restarts=1, max_task_retries=-1).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    ray.kill(actor, no_restart=False)
    wait_until_gone(pid)
    assert ray.get(actor.do.remote(os.getpid), timeout=30) != pid


@pytest.mark.parametrize("way", ["threaded", "async"])
def test_restarted_actor_serves_as_before(ray: ModuleType, way: str) -> None:
    class Threads:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        def end(self):
            os._exit(1)

        def meet(self):
            return self.barrier.wait(timeout=30) in (0, 1)

    class Coroutines:
        def __init__(self):
            self.inside = 0

        async def end(self):
            os._exit(1)

        async def meet(self):
            self.inside += 1
            while self.inside < 2:
                await asyncio.sleep(0)
            return True

    cls = Coroutines if way == "async" else Threads
    actor = ray.remote(max_restarts=1, max_concurrency=2)(cls).remote()
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.end.remote(), timeout=30)
    meet = actor.meet.options(max_task_retries=-1)
    assert ray.get([meet.remote() for _ in range(2)], timeout=30) == [True] * 2


def test_restarted_actor_keeps_its_name_and_its_handles(ray: ModuleType) -> None:
    cls = obedient_class(ray, max_restarts=1)
    actor = cls.options(name="restarted", lifetime="detached").remote(20)
    before = repr(actor)
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.do.remote(crash()), timeout=30)
    again = ray.get_actor("restarted")
    assert again == actor
    assert repr(again) == before
    assert ray.get(again.add.options(max_task_retries=-1).remote(), timeout=30) == 21
    ray.kill(actor)


def test_restart_is_seen_by_other_callers(ray: ModuleType) -> None:
    actor = obedient_class(ray, max_restarts=1).remote()

    @ray.remote
    def add(handle):
        return ray.get(handle.add.options(max_task_retries=-1).remote())

    assert ray.get([add.remote(actor), actor.add.remote()], timeout=30)
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.do.remote(crash()), timeout=30)
    assert ray.get(add.remote(actor), timeout=30) == 1


@pytest.mark.parametrize("leave", [os._exit, sys.exit], ids=["os._exit", "sys.exit"])
def test_constructor_that_crashes_is_run_again(
    ray: ModuleType, attempts: Attempts, leave: Callable[[int], Any]
) -> None:
    begin = attempts.begin

    @ray.remote(max_restarts=1)
    class Stumbles:
        def __init__(self):
            if begin() == 1:
                leave(1)

        def alive(self):
            return True

    alive = Stumbles.remote().alive.options(max_task_retries=-1)  # on Ray it may come too early
    assert ray.get(alive.remote(), timeout=30) is True
    assert attempts.made() == 2


def test_constructor_that_crashes_too_often_fails_the_calls(ray: ModuleType) -> None:
    @ray.remote
    class Crashes:
        def __init__(self):
            os._exit(1)

        def alive(self):
            return True

    with pytest.raises(ray.exceptions.ActorDiedError) as caught:
        ray.get(Crashes.remote().alive.remote(), timeout=30)
    assert not caught.value.actor_init_failed


def test_constructor_that_raises_at_a_restart_ends_the_actor(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_restarts=3)
    class Once:
        def __init__(self):
            if begin() > 1:
                raise KeyError("only once")

        def end(self):
            os._exit(1)

        def alive(self):
            return True

    actor = Once.remote()
    assert ray.get(actor.alive.remote(), timeout=30) is True
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.end.remote(), timeout=30)
    alive = actor.alive.options(max_task_retries=-1)
    with pytest.raises(ray.exceptions.ActorDiedError, match="only once"):
        ray.get(alive.remote(), timeout=30)
    assert attempts.made() == 2


# ---- calls that run again after a crash ----


@pytest.mark.parametrize("by", ["actor", "decorator", "call"])
def test_retried_call_runs_again_in_the_restarted_actor(
    ray: ModuleType, attempts: Attempts, by: str
) -> None:
    begin = attempts.begin
    retries = {"max_task_retries": 5}

    @ray.remote(max_restarts=2, **(retries if by == "actor" else {}))
    class Dies:
        def __init__(self):
            self.calls = 0

        @ray.method(num_returns=1, **(retries if by == "decorator" else {}))
        def work(self):
            self.calls += 1
            attempt = begin()
            if attempt == 1:
                os._exit(1)
            return attempt, self.calls

    work = Dies.remote().work
    ref = work.options(**retries).remote() if by == "call" else work.remote()
    assert ray.get(ref, timeout=30) == (2, 1)


def test_retries_and_restarts_without_number_go_on(ray: ModuleType, attempts: Attempts) -> None:
    actor = crashing(ray, attempts, 2, max_restarts=-1, max_task_retries=-1)
    assert ray.get(actor.work.remote(), timeout=30) == (3, 1)


def test_call_that_is_out_of_retries_is_unavailable_and_the_actor_lives_on(
    ray: ModuleType, attempts: Attempts
) -> None:
    actor = crashing(ray, attempts, 9, max_restarts=3, max_task_retries=1)
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.work.remote(), timeout=30)
    # Ray counts it as a try that it finds the actor still restarting.
    assert attempts.made() in ((1, 2) if ray.__name__ == "ray" else (2,))
    assert ray.get(actor.alive.options(max_task_retries=-1).remote(), timeout=30) is True


def test_call_with_retries_dies_with_an_actor_without_restarts(
    ray: ModuleType, attempts: Attempts
) -> None:
    actor = crashing(ray, attempts, 9, max_task_retries=5)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.work.remote(), timeout=30)
    assert attempts.made() == 1


def test_call_is_retried_as_often_as_the_actor_is_restarted(
    ray: ModuleType, attempts: Attempts
) -> None:
    actor = crashing(ray, attempts, 9, max_restarts=1, max_task_retries=-1)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.work.remote(), timeout=30)
    assert attempts.made() == 2


def test_calls_behind_a_retried_one_run_once_each(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote(max_restarts=1, max_task_retries=5)
    class Notes:
        def __init__(self):
            self.notes = []

        def note(self, text, dies=False):
            if dies and begin() == 1:
                os._exit(1)
            self.notes.append(text)
            return list(self.notes)

    actor = Notes.remote()
    refs = [actor.note.remote("a", dies=True), actor.note.remote("b"), actor.note.remote("c")]
    # Ray keeps no order over a restart.
    seen = sorted(ray.get(refs, timeout=30), key=len)
    assert [len(notes) for notes in seen] == [1, 2, 3]
    assert sorted(seen[-1]) == ["a", "b", "c"]


# ---- calls that run again after an exception ----


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


@pytest.mark.parametrize(
    ("retried", "made"), [(True, 2), ([ValueError], 1)], ids=["any", "another type"]
)
def test_call_says_which_exceptions_are_retried(
    ray: ModuleType, attempts: Attempts, retried: Any, made: int
) -> None:
    begin = attempts.begin

    @ray.remote(max_task_retries=1)
    class Fails:
        def fail(self):
            raise KeyError(f"attempt {begin()}")

    call = Fails.remote().fail.options(retry_exceptions=retried)
    with pytest.raises(KeyError, match=f"attempt {made}"):
        ray.get(call.remote(), timeout=30)
    assert attempts.made() == made


def test_exception_is_not_retried_without_task_retries(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote
    class Fails:
        @ray.method(retry_exceptions=True)
        def fail(self):
            raise KeyError(f"attempt {begin()}")

    with pytest.raises(KeyError, match="attempt 1"):
        ray.get(Fails.remote().fail.remote(), timeout=30)
    assert attempts.made() == 1


def test_coroutine_that_raises_is_retried_where_asked_for(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(max_task_retries=1)
    class Fails:
        @ray.method(retry_exceptions=[KeyError])
        async def second(self):
            attempt = begin()
            if attempt < 2:
                raise KeyError(attempt)
            return attempt

    assert ray.get(Fails.remote().second.remote(), timeout=30) == 2
