"""Workers are killed at random moments, in the middle of anything; no answer may change.

RAY_LITE_STORM_KILLS=N makes the storm as long as you like; RAY_LITE_STORM_SEED=N repeats one.
"""

import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support import MIB, eventually

import ray_lite as ray
from ray_lite.exceptions import RayActorError, RayError, WorkerCrashedError
from ray_lite.session import Connection

from .graph import Graph
from .processes import (
    Killer,
    connection,
    figures,
    holds_exports_only,
    signal_children,
    supervisor_of,
    workers_of,
)

KILLS = int(os.environ.get("RAY_LITE_STORM_KILLS", "600"))
SEED = int(os.environ.get("RAY_LITE_STORM_SEED", str(random.SystemRandom().randrange(2**32))))
PAUSE = 0.03  # mean seconds between two batches of kills: a worker lives long enough to do a little

pytestmark = [pytest.mark.crash, pytest.mark.timeout(60 + KILLS)]


@pytest.fixture(params=[2, 3], ids=["2 workers", "3 workers"])
def _storm_session(request: pytest.FixtureRequest) -> Iterator[None]:
    """A session, one round of the graph old: all functions are exported."""
    ray.init(num_cpus=request.param, object_store_memory=200 * MIB, log_to_driver=False)
    check_answers(Graph(SEED, retries=0))
    kill_all(connection())
    assert eventually(lambda: holds_exports_only(connection())), figures(connection())
    yield
    ray.shutdown()


def kill_all(session: Connection) -> int:
    """Kill every worker: functions that one has exported live as long as it. Returns how many."""
    return signal_children(workers_of(session), supervisor_of(session))


def check_answers(graph: Graph) -> None:
    """Ask one of each kind, and compare."""
    for question in graph.questions():
        assert question.ask() == question.answer, question.kind


@pytest.mark.usefixtures("_storm_session")
def test_storm_of_kills_leaves_every_answer_exact_and_nothing_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = connection()
    core = session.core
    empty = figures(session)
    graph = Graph(SEED, retries=-1)
    kills = rounds = 0
    start = time.monotonic()
    while kills < KILLS // 2:  # of each number of workers
        with Killer(session, SEED + rounds, PAUSE) as killer:
            for _ in range(3):
                check_answers(graph)
        kills += killer.kills + kill_all(session)
        rounds += 1
        assert core.broken_invariant() is None, f"seed {SEED}, round {rounds}"
        assert eventually(lambda: figures(session) == empty), (
            f"seed {SEED}, round {rounds}: {figures(session)} instead of {empty}"
        )
    with capsys.disabled():
        print(
            f" [seed {SEED}: {kills} kills, {core.usage()['repairs']} repairs, {rounds} rounds, "
            f"{time.monotonic() - start:.1f} s] ",
            end="",
        )


@pytest.mark.usefixtures("_storm_session")
def test_storm_without_retries_fails_tasks_with_their_workers() -> None:
    """The control: if nobody died in the middle of a task, the storm above proves nothing."""
    session = connection()
    graph = Graph(SEED, retries=0)
    crashes: list[RayError] = []
    with Killer(session, SEED, PAUSE) as killer:
        while len(crashes) < 5:
            for question in graph.questions():
                try:
                    assert question.ask() == question.answer, question.kind
                except WorkerCrashedError as error:
                    crashes.append(error)
            assert killer.kills < 2000, "nobody was killed in the middle of a task"
    assert any("SIGKILL" in str(error) for error in crashes)
    assert session.core.broken_invariant() is None


# ---- actors ----


class Plain:
    """An actor without a state of its own, so that a restart changes no answer."""

    def double(self, x: int) -> int:
        """Return twice x."""
        return 2 * x

    def count(self, n: int) -> Iterator[int]:
        """Yield n values."""
        yield from range(n)


class Loop:
    """The same on an event loop."""

    async def double(self, x: int) -> int:
        """Return twice x."""
        return 2 * x

    async def count(self, n: int) -> AsyncIterator[int]:
        """Yield n values."""
        for i in range(n):
            yield i


def make_actors(**options: int) -> list[Any]:
    """Return one actor that serves in order, one in threads, one on an event loop."""
    kinds = [(Plain, {}), (Plain, {"max_concurrency": 3}), (Loop, {})]
    return [ray.remote(**{**options, **more})(cls).remote() for cls, more in kinds]


def call_actors(actors: list[Any]) -> None:
    """Call all of them, and compare."""
    for actor in actors:
        doubled = [actor.double.remote(i) for i in range(30)]
        streamed = actor.count.remote(20)
        assert ray.get(doubled) == [2 * i for i in range(30)]
        assert [ray.get(ref) for ref in streamed] == list(range(20))


@pytest.mark.usefixtures("_storm_session")
def test_storm_of_kills_over_actors_leaves_every_answer_exact_and_nothing_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = connection()
    kills = rounds = 0
    while kills < KILLS // 4:
        actors = make_actors(max_restarts=-1, max_task_retries=-1)
        with Killer(session, SEED + rounds, PAUSE) as killer:
            for _ in range(3):
                call_actors(actors)
        del actors
        kills += killer.kills + kill_all(session)
        rounds += 1
        broken = session.core.broken_invariant()
        assert broken is None, f"seed {SEED}, round {rounds}: {broken}"
        assert eventually(lambda: holds_exports_only(session), 10.0), figures(session)
    with capsys.disabled():
        print(f" [seed {SEED}: {kills} kills of actors, {rounds} rounds] ", end="")


@pytest.mark.usefixtures("_storm_session")
def test_storm_over_actors_without_restarts_fails_calls() -> None:
    """The control: if nobody died in the middle of a call, the storm above proves nothing."""
    session = connection()
    deaths = 0
    with Killer(session, SEED, PAUSE) as killer:
        while deaths < 5:
            try:
                call_actors(make_actors(max_restarts=0))
            except RayActorError:
                deaths += 1
            assert killer.kills < 2000, "no actor was killed in the middle of a call"
    assert session.core.broken_invariant() is None
