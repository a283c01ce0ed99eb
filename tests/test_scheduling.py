"""Which task runs when there is less than all want.

Small tasks and big ones, tasks and their own tasks; and failures that nobody asks for among very
many values.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import Gate, Output, eventually

import ray_lite as ray
from ray_lite.session import Connection

PATIENCE = 64  # younger tasks that may run before a task that wants more CPUs than are free


def pass_through(path: str) -> str:
    """Wait at a gate."""
    open(path).close()
    return "through"


@pytest.mark.session(num_cpus=2, resources={"stamp": 1})
def test_task_that_lacks_a_custom_resource_too_does_not_keep_cpus_from_others(
    session: Connection, gate: Gate
) -> None:
    has_stamp = ray.remote(resources={"stamp": 1})(pass_through).remote(gate.path)
    assert eventually(lambda: session.core.resources()["stamp"][1] == 0)
    wants_stamp = ray.remote(num_cpus=2, resources={"stamp": 1})(lambda: "stamped").remote()
    small = ray.remote(lambda x: x)
    for x in range(5 * PATIENCE):
        assert ray.get(small.remote(x), timeout=30) == x
    assert ray.wait([wants_stamp], timeout=0) == ([], [wants_stamp])
    gate.open()
    assert ray.get([has_stamp, wants_stamp], timeout=30) == ["through", "stamped"]


@pytest.mark.session(num_cpus=2, worker_exports=1)
def test_task_of_a_task_runs_though_cpus_are_kept_free_for_a_big_one(
    session: Connection, new_gate: Callable[[], Gate]
) -> None:
    """A service holds a CPU for ever, so that the big task cannot run; nobody else may starve."""
    small = ray.remote(lambda x: x)
    service_gate, parent_gate = new_gate(), new_gate()
    service = ray.remote(pass_through).remote(service_gate.path)

    @ray.remote
    def parent(begin: list[Any]) -> int:
        ray.get(begin[0])
        return ray.get(small.remote(7), timeout=30)

    begin = ray.remote(num_cpus=0)(pass_through).remote(parent_gate.path)
    ref = parent.remote([begin])
    lends = [True]
    assert eventually(lambda: [b for _, _, _, b in session.core.slots() if b] == lends)
    big = ray.remote(num_cpus=2)(lambda: "big").remote()
    for x in range(PATIENCE):
        assert ray.get(small.remote(x), timeout=30) == x
    parent_gate.open()
    assert ray.get(ref, timeout=30) == 7
    service_gate.open()
    assert ray.get([service, big], timeout=30) == ["through", "big"]


@pytest.mark.slow
@pytest.mark.session(num_cpus=2)
def test_small_tasks_go_on_beside_a_service_though_a_big_task_waits(
    session: Connection, gate: Gate
) -> None:
    """CPUs are kept free for the big one for ten seconds, then the small ones have their turn."""
    service = ray.remote(pass_through).remote(gate.path)
    assert eventually(lambda: session.core.resources()["CPU"][1] == 10_000)
    big = ray.remote(num_cpus=2)(lambda: "big").remote()
    small = ray.remote(lambda x: x)
    for x in range(PATIENCE + 20):
        assert ray.get(small.remote(x), timeout=40) == x
    assert ray.wait([big], timeout=0) == ([], [big])
    gate.open()
    assert ray.get([service, big], timeout=30) == ["through", "big"]


def test_dependents_released_at_once_do_not_overtake_a_task_that_was_ready_before(
    session: Connection, new_gate: Callable[[], Gate]
) -> None:
    """They are older, and ten thousand; they queue up behind it all the same, each in one step."""
    source_gate, busy_gate = new_gate(), new_gate()
    source = ray.remote(pass_through).remote(source_gate.path)
    busy = ray.remote(pass_through).remote(busy_gate.path)
    assert eventually(lambda: session.core.resources()["CPU"][1] == 0)
    number = ray.remote(lambda x, i: (i, time.monotonic_ns()))
    dependents = [number.remote(source, i) for i in range(10_000)]
    younger = ray.remote(lambda: time.monotonic_ns()).remote()
    source_gate.open()
    ran_at = ray.get(younger, timeout=30)
    busy_gate.open()
    numbers, times = zip(*ray.get(dependents, timeout=50), strict=True)
    assert list(numbers) == list(range(10_000))
    assert ran_at < min(times)
    assert ray.get([source, busy]) == ["through"] * 2


def test_unread_failures_among_many_values_are_all_taken_up(
    session: Connection, printed: Output
) -> None:
    """Each is looked for where the last one was, not from the start."""
    values = [ray.put(i) for i in range(50_000)]

    @ray.remote(max_retries=0)
    def fail(i: int) -> None:
        raise ValueError(f"unread failure {i}.")

    for i in range(2_000):
        fail.remote(i)
    core = session.core
    assert eventually(lambda: core.usage()["tasks"] == 0 and core.load()["reports"] == 0, 50)
    assert printed.until("unread failure 0.")
    assert ray.get(values[-1]) == 49_999


@pytest.mark.session(num_cpus=2, worker_exports=100)
def test_many_tasks_that_wait_for_tasks_of_their_own_all_end(session: Connection) -> None:
    """More than there can be processes: the inner tasks must go first."""
    inner = ray.remote(lambda x: x)

    @ray.remote
    def outer(i: int) -> int:
        total: int = sum(ray.get([inner.remote(i), inner.remote(1)]))
        return total

    refs = [outer.remote(i) for i in range(400)]
    assert ray.get(refs, timeout=50) == [i + 1 for i in range(400)]


def test_more_demands_or_resources_than_there_is_room_for_are_refused_in_plain_words() -> None:
    """The tasks want what is not there, so the session ends with them in its queues."""
    ray.init(num_cpus=1)
    task = ray.remote(lambda: None)
    with pytest.raises(RuntimeError, match="16 kinds"):
        for i in range(20):
            task.options(num_cpus=0, resources={f"r{i}": 0.5}).remote()
    with pytest.raises(RuntimeError, match="128 combinations"):
        for i in range(200):
            task.options(num_cpus=i / 1000).remote()
    ray.shutdown()


@pytest.mark.session(num_cpus=2)
def test_failures_that_were_asked_for_together_are_not_reported_as_unheard(
    session: Connection, printed: Output
) -> None:
    @ray.remote
    def fail(i: int) -> None:
        raise KeyError(i)

    with pytest.raises(KeyError):
        ray.get([fail.remote(i) for i in range(5)])
    ray.remote(lambda: print("after")).remote()
    assert printed.until("after")
    ray.shutdown()
    assert "Unhandled" not in printed.err


@pytest.mark.session(num_cpus=2)
def test_end_of_an_actor_is_reported_as_unheard_unless_somebody_asked_for_it(
    session: Connection, printed: Output
) -> None:
    class Mortal:
        def leave(self) -> None:
            ray.actor.exit_actor()

        def wait(self) -> None:
            signal.pause()

        def die(self) -> None:
            os._exit(7)

    mortal = ray.remote(Mortal)
    mortal.remote().leave.remote()
    killed = mortal.remote()
    killed.wait.remote()
    ray.kill(killed)
    mortal.remote().die.remote()
    assert printed.until("Unhandled error", "exited with status 7")
    ray.shutdown()
    assert printed.err.count("Unhandled") == 1


@pytest.mark.session(num_cpus=1)
def test_environment_of_a_single_task_is_its_own(session: Connection) -> None:
    look = ray.remote(lambda: os.environ.get("OF_ONE_TASK"))
    of_one = look.options(runtime_env={"env_vars": {"OF_ONE_TASK": "2"}})
    assert ray.get([look.remote(), of_one.remote(), look.remote()]) == [None, "2", None]
