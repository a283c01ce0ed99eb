"""The runtime context, the one node, and environment variables."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from .support import MIB

if TYPE_CHECKING:
    from types import ModuleType

    from .support import Attempts, Gate


def test_task_knows_its_own_names_and_ids(ray: ModuleType) -> None:
    @ray.remote
    def look():
        context = ray.get_runtime_context()
        return (
            context.get_task_id(),
            context.get_task_name(),
            context.get_actor_id(),
            context.get_assigned_resources(),
            context.is_canceled(),
        )

    ref = look.remote()
    assert ray.get(ref) == (ref.task_id().hex(), "look", None, {"CPU": 1.0}, False)
    assert ray.get(look.options(name="other").remote())[1] == "other"


def test_actor_knows_its_own_names_and_ids(ray: ModuleType) -> None:
    @ray.remote
    class Looks:
        def look(self):
            context = ray.get_runtime_context()
            return (
                context.get_actor_id(),
                context.get_actor_name(),
                context.get_task_name(),
                context.get_assigned_resources(),
            )

        def me(self):
            return ray.get_runtime_context().current_actor

    actor = Looks.options(name="looks").remote()
    assert ray.get(actor.look.remote()) == (actor._actor_id.hex(), "looks", "Looks.look", {})
    assert ray.get(actor.me.remote()) == actor
    unnamed = Looks.remote()
    assert ray.get(unnamed.look.remote())[1] == ""


def test_task_knows_its_function_by_its_modules_name_and_its_own(ray: ModuleType) -> None:
    @ray.remote
    def look():
        return ray.get_runtime_context().get_task_function_name()

    module = look._function.__module__
    assert ray.get(look.options(name="other").remote()) == f"{module}.look"


def test_actor_holds_what_it_asked_for(ray: ModuleType) -> None:
    @ray.remote(num_cpus=1, resources={"token": 0.5})
    class Looks:
        def look(self):
            return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(Looks.remote().look.remote(), timeout=30) == {"CPU": 1.0, "token": 0.5}


def test_worker_has_an_id_that_is_its_own(ray: ModuleType) -> None:
    @ray.remote
    class Looks:
        def look(self):
            return ray.get_runtime_context().get_worker_id()

    first, second = Looks.remote(), Looks.remote()
    ids = ray.get([first.look.remote(), first.look.remote(), second.look.remote()])
    assert ids[0] == ids[1] != ids[2]
    assert ray.get_runtime_context().get_worker_id() not in ids
    assert all(bytes.fromhex(worker_id) for worker_id in ids)


def test_actor_knows_that_it_was_restarted(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote(max_restarts=1, max_task_retries=1)
    class Looks:
        def look(self):
            return ray.get_runtime_context().was_current_actor_reconstructed

        def look_after_a_crash(self):
            if begin() == 1:
                os._exit(1)
            return self.look()

    actor = Looks.remote()
    assert ray.get(actor.look.remote(), timeout=30) is False
    assert ray.get(actor.look_after_a_crash.remote(), timeout=30) is True


def test_task_is_no_actor(ray: ModuleType) -> None:
    @ray.remote
    def look():
        context = ray.get_runtime_context()
        try:
            return context.get_actor_name(), context.current_actor
        except RuntimeError:
            return "refused"

    assert ray.get(look.remote()) == "refused"


def test_driver_runs_no_task(ray: ModuleType) -> None:
    context = ray.get_runtime_context()
    assert context.get_actor_id() is None
    with pytest.raises(AssertionError):
        context.get_assigned_resources()
    with pytest.raises(RuntimeError):
        context.is_canceled()


def test_node_and_job_are_the_same_for_all(ray: ModuleType) -> None:
    @ray.remote
    def look():
        context = ray.get_runtime_context()
        return context.get_node_id(), context.get_job_id(), context.namespace

    context = ray.get_runtime_context()
    assert ray.get(look.remote()) == (
        context.get_node_id(),
        context.get_job_id(),
        context.namespace,
    )


def test_one_node_is_alive_with_the_sessions_resources(ray: ModuleType) -> None:
    (node,) = ray.nodes()
    assert node["NodeID"] == ray.get_runtime_context().get_node_id()
    assert node["Alive"] is node["alive"] is True
    assert node["Resources"]["CPU"] == 2.0
    assert isinstance(node["Labels"], dict)
    assert node["Resources"] == ray.cluster_resources()


def test_resources_are_those_of_the_session_the_memory_and_the_node(ray: ModuleType) -> None:
    resources = ray.cluster_resources()
    address = ray.nodes()[0]["NodeManagerAddress"]
    assert resources.pop("memory") > 0
    assert resources == {
        "CPU": 2.0,
        "token": 1.0,
        "object_store_memory": 100.0 * MIB,
        f"node:{address}": 1.0,
        "node:__internal_head__": 1.0,
    }


def test_what_a_task_holds_is_not_available(ray: ModuleType, gate: Gate) -> None:
    hold = ray.remote(num_cpus=0, resources={"token": 1})(lambda path: open(path).close())
    ref = hold.remote(gate.path)
    for _ in range(3000):
        if "token" not in ray.available_resources():
            break
        ray.wait([ref], timeout=0.01)
    assert "token" not in ray.available_resources()
    gate.meet()
    ray.get(ref)


def test_what_a_task_held_is_available_again(ray: ModuleType) -> None:
    ray.get(ray.remote(resources={"token": 1})(lambda: None).remote())
    ends = time.monotonic() + 30
    while ray.available_resources().get("token") != 1.0:
        assert time.monotonic() < ends, "the token never came back"


def test_environment_variables_of_a_task_and_an_actor(ray: ModuleType) -> None:
    env = {"env_vars": {"CASE_VARIABLE": "set"}}
    look = ray.remote(lambda: os.environ.get("CASE_VARIABLE"))
    assert ray.get(look.options(runtime_env=env).remote(), timeout=60) == "set"

    @ray.remote(runtime_env=env)
    class Looks:
        def __init__(self):
            self.seen = os.environ.get("CASE_VARIABLE")

        def look(self):
            return self.seen, os.environ.get("CASE_VARIABLE")

    assert ray.get(Looks.remote().look.remote(), timeout=60) == ("set", "set")


def test_environment_variables_of_a_task_are_not_those_of_the_next(ray: ModuleType) -> None:
    look = ray.remote(lambda: os.environ.get("CASE_PASSING"))
    special = look.options(runtime_env={"env_vars": {"CASE_PASSING": "set"}})
    assert ray.get(special.remote(), timeout=60) == "set"
    assert ray.get([look.remote() for _ in range(4)], timeout=60) == [None] * 4


def test_worker_lives_for_max_calls_and_no_longer(ray: ModuleType) -> None:
    pid = ray.remote(max_calls=2)(lambda: os.getpid())
    calls = Counter(ray.get(pid.remote(), timeout=60) for _ in range(12))
    assert max(calls.values()) == 2


def test_max_calls_ends_the_worker(ray: ModuleType) -> None:
    pid = ray.remote(max_calls=1)(lambda: os.getpid())
    pids = [ray.get(pid.remote()) for _ in range(3)]
    assert len(set(pids)) == 3


# ---- sessions of their own: the session of this file ends here ----


def test_state_of_no_session_is_an_error_and_starts_none(engine: ModuleType) -> None:
    engine.shutdown()
    for ask in (engine.nodes, engine.cluster_resources, engine.available_resources):
        with pytest.raises(engine.exceptions.RaySystemError, match="not been started"):
            ask()
    assert not engine.is_initialized()


def test_environment_variables_of_the_session_reach_all_and_give_way_to_a_tasks_own(
    engine: ModuleType, session_options: dict[str, Any]
) -> None:
    engine.shutdown()
    env = {"env_vars": {"CASE_FIRST": "session", "CASE_SECOND": "session"}}
    engine.init(runtime_env=env, **session_options)

    def look():
        return os.environ.get("CASE_FIRST"), os.environ.get("CASE_SECOND")

    class Looks:
        def look(self):
            return look()

    task, actor = engine.remote(look), engine.remote(Looks).remote()
    special = task.options(runtime_env={"env_vars": {"CASE_SECOND": "task"}})
    refs = [task.remote(), actor.look.remote(), special.remote()]
    seen = engine.get(refs, timeout=60)
    engine.shutdown()
    assert seen == [("session", "session"), ("session", "session"), ("session", "task")]


@pytest.mark.deliberately_different("on one machine a profiler sees every process")
def test_timeline_is_not_there(ray: ModuleType) -> None:
    assert not hasattr(ray, "timeline")
