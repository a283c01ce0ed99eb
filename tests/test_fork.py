"""os.fork() in the driver: whatever the child drops or collects, the parent keeps what it holds.

A child begins by clearing the state of all threads that it has not inherited, before any hook can
run; what they held in thread-local storage and in context variables dies there.
"""

import contextvars
import gc
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import MIB, in_child

import ray_lite as ray
from ray_lite import session as sessions
from ray_lite.session import Connection

WORDS = 4 * MIB // 8

# From 3.12 on Python warns of every fork of a process with threads, pytest's own among them.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def in_thread(body: Callable[[], Any]) -> Any:
    """Return what `body` returns in a thread of its own."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(body()))
    thread.start()
    thread.join()
    return results[0]


# ---- places that die with a thread's state ----


class ThreadLocal:
    """Keeps one thing in threading.local."""

    def __init__(self) -> None:
        self._place = threading.local()

    def keep(self, thing: Any) -> None:
        self._place.thing = thing

    def look(self) -> Any:
        return self._place.thing


class ContextVariable:
    """Keeps one thing in a context variable."""

    def __init__(self) -> None:
        self._place: contextvars.ContextVar[Any] = contextvars.ContextVar("place")

    def keep(self, thing: Any) -> None:
        self._place.set(thing)

    def look(self) -> Any:
        return self._place.get()


class Keeper:
    """A thread that keeps a thing in `place`, and nowhere else, until it is asked about it.

    Args:
        place: Where.
        make: Makes the thing, in the thread.
    """

    def __init__(self, place: Any, make: Callable[[], Any]) -> None:
        self._place = place
        self._has_it, self._asked = threading.Event(), threading.Event()
        self._question: Callable[[Any], Any] = lambda thing: None
        self._answer: Any = None
        self._thread = threading.Thread(target=self._run, args=(make,))
        self._thread.start()
        assert self._has_it.wait(30)

    def _run(self, make: Callable[[], Any]) -> None:
        self._place.keep(make())
        self._has_it.set()
        self._asked.wait()
        self._answer = self._question(self._place.look())

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Return `question` of the thing; it is let go of."""
        self._question = question
        self._asked.set()
        self._thread.join()
        return self._answer


@pytest.fixture(params=[ThreadLocal, ContextVariable])
def place(request: pytest.FixtureRequest) -> Any:
    """Somewhere to keep a thing."""
    return request.param()


def ones() -> Any:
    """Return a view of a stored value that nothing else refers to."""
    return ray.get(ray.put(np.full(WORDS, 1)))


def overwrite(session: Connection) -> list[Any]:
    """Take every free block of the store and write to it."""
    values = []
    while session.core.usage()["largest"] > 8 * WORDS + MIB:
        values.append(ray.put(np.full(WORDS, 2)))
    return values


@pytest.mark.parametrize("run", [in_thread, lambda body: body()], ids=["thread", "main thread"])
def test_array_of_another_thread_keeps_its_content_after_a_fork(
    session: Connection, place: Any, run: Callable[[Callable[[], Any]], Any]
) -> None:
    keeper = Keeper(place, ones)
    free = session.core.usage()["free"]
    assert run(lambda: in_child(gc.collect)) == 0
    assert session.core.usage()["free"] == free
    values = overwrite(session)
    assert len(values) > 10
    assert keeper.ask(lambda array: np.unique(array).tolist()) == [1]


def test_ref_of_another_thread_keeps_its_object_after_a_fork(
    session: Connection, place: Any
) -> None:
    keeper = Keeper(place, lambda: ray.put("kept" * 1000))
    objects = session.core.usage()["objects"]
    assert in_child(gc.collect) == 0
    assert session.core.usage()["objects"] == objects
    assert session.core.broken_invariant() is None
    assert keeper.ask(ray.get) == "kept" * 1000


def test_generator_of_another_thread_keeps_its_items_after_a_fork(
    session: Connection, place: Any
) -> None:
    @ray.remote
    def count() -> Any:
        yield from range(3)

    keeper = Keeper(place, count.remote)
    assert in_child(gc.collect) == 0
    assert keeper.ask(lambda refs: [ray.get(ref) for ref in refs]) == [0, 1, 2]


def test_array_of_the_forking_thread_keeps_its_content(session: Connection, place: Any) -> None:
    """The child's own copy dies at its end, after a collection."""

    def fork() -> Any:
        place.keep(ones())

        def child() -> None:
            assert np.unique(place.look()).tolist() == [1]
            place.keep(None)
            gc.collect()

        assert in_child(child) == 0
        values = overwrite(session)
        assert len(values) > 10
        return np.unique(place.look()).tolist()

    assert in_thread(fork) == [1]


def test_array_of_a_task_survives_a_fork_in_another_thread_of_it(session: Connection) -> None:
    @ray.remote
    def fork(box: list[Any]) -> tuple[int, list[int]]:
        local = threading.local()
        local.array = ray.get(box[0])
        statuses = []

        def run() -> None:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        box.clear()
        mine = [ray.put(np.full(WORDS, 3)) for _ in range(5)]
        values = np.unique(local.array).tolist()
        del mine
        return statuses[0], values

    assert ray.get(fork.remote([ray.put(np.full(WORDS, 1))])) == (0, [1])


# ---- the collector ----


def session_objects() -> int:
    """Return how many objects the session has."""
    connection = sessions.current()
    assert connection is not None
    return int(connection.core.usage()["objects"])


def test_collection_in_a_forked_child_is_harmless() -> None:
    """The child has left the parent's session at birth: nothing but a cycle keeps that alive."""
    ray.init(num_cpus=1, object_store_memory=100 * MIB)
    assert in_child(gc.collect) == 0
    ref, array = ray.put("held"), ones()
    assert in_child(gc.collect) == 0
    assert ray.get(ref) == "held"
    assert np.unique(array).tolist() == [1]
    del ref, array
    assert in_child(gc.collect) == 0
    ray.shutdown()


def test_collection_of_what_a_forked_child_has_dropped_is_harmless() -> None:
    ray.init(num_cpus=1, object_store_memory=100 * MIB)
    array = ones()
    cycle: list[Any] = [ray.put("held"), array]
    cycle.append(cycle)
    held = session_objects()

    def child() -> None:
        nonlocal array, cycle
        del cycle, array
        ray.shutdown()
        assert not ray.is_initialized()
        gc.collect()

    assert in_child(child) == 0
    assert session_objects() == held
    assert np.unique(array).tolist() == [1]
    assert ray.get(cycle[0]) == "held"
    cycle.clear()
    del array
    ray.shutdown()


def test_calls_in_a_forked_child_do_not_reach_the_parents_session(session: Connection) -> None:
    """Nothing that the child holds of the parent's works there, and nothing of it is let go of."""
    ref, waiting = ray.put("held"), ray.remote(lambda: 1).remote()
    assert ray.get(waiting) == 1
    core = session.core
    objects = core.usage()["objects"]

    def child() -> None:
        for call in (lambda: core.read(ref), lambda: core.wait([ref], 1, 0.0, False)):
            with pytest.raises(ray.exceptions.RaySystemError):
                call()

    assert in_child(child) == 0
    assert core.usage()["objects"] == objects
    assert ray.get(ref) == "held"
