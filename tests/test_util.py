"""ray_lite.util: who does what and when, on a made-up engine, and the corners that are ours.

What a user sees is in conformance/test_util.py, on both engines.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import ray_lite as ray
from ray_lite import util
from ray_lite.exceptions import ActorDiedError, RayActorError, RayTaskError
from ray_lite.util import actor_pool, completion
from ray_lite.util.queue import Empty, Full, Queue, _QueueActor

# ---- a made-up engine: results come when a test says so, and waits never block ----


class Result:
    """What a call of a made-up actor gives."""

    def __init__(self, value: object, ready: bool = True) -> None:
        self.value = value
        self.ready = ready


class Engine:
    """The part of the API that they use."""

    def __init__(self) -> None:
        self.waits: list[int] = []

    def wait(
        self, refs: list[Result], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[Result], list[Result]]:
        """Return what is ready; a wait without end for nothing would hang, so it fails."""
        self.waits.append(num_returns)
        ready = [ref for ref in refs if ref.ready][:num_returns]
        assert timeout is not None or len(ready) == num_returns, "this would wait for ever"
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, refs: Any) -> Any:
        """Return or raise values that are ready."""
        if isinstance(refs, list):
            return [self.get(ref) for ref in refs]
        assert refs.ready
        if isinstance(refs.value, Exception):
            raise refs.value
        return refs.value


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine, in the place of ray_lite."""
    made = Engine()
    monkeypatch.setattr(actor_pool, "ray", made)
    monkeypatch.setattr(completion, "ray", made)
    return made


def do(actor: list[Any], result: Any) -> Any:
    """Note in the actor what it works on."""
    actor.append(result)
    return result


def results(*values: object, ready: bool = True) -> list[Result]:
    return [Result(value, ready) for value in values]


# ---- ActorPool: order ----


def test_pool_map_submits_before_the_iterator_is_used(engine: Engine) -> None:
    actor: list[Any] = []
    util.ActorPool([actor]).map(do, results(1, 2))
    assert [result.value for result in actor] == [1]


def test_pool_get_next_after_unordered_goes_on_behind_the_latest(engine: Engine) -> None:
    pool = util.ActorPool([[], [], []])
    skipped, taken, after = results("skipped", "taken", "after")
    skipped.ready = False
    for value in (skipped, taken, after):
        pool.submit(do, value)
    assert pool.get_next_unordered() == "taken"
    assert pool.get_next() == "after"
    with pytest.raises(ValueError, match="get_next_unordered"):
        pool.get_next()
    skipped.ready = True
    assert pool.get_next_unordered() == "skipped"


@pytest.mark.parametrize("get", ["get_next", "get_next_unordered"])
def test_pool_waits_for_the_last_of_several_results_of_one_call(engine: Engine, get: str) -> None:
    pool = util.ActorPool([[]])
    both = results(1, 2)
    both[1].ready = False
    pool.submit(do, both)
    with pytest.raises(TimeoutError):
        getattr(pool, get)(timeout=0)
    both[1].ready = True
    assert getattr(pool, get)(timeout=0) == [1, 2]


# ---- ActorPool: timeouts ----


@pytest.mark.parametrize("get", ["get_next", "get_next_unordered"])
def test_pool_drops_a_result_that_timed_out_and_is_to_be_ignored(engine: Engine, get: str) -> None:
    pool = util.ActorPool([[]])
    pool.submit(do, Result("slow", ready=False))
    pool.submit(do, Result("next"))
    with pytest.raises(TimeoutError, match="ignored"):
        getattr(pool, get)(timeout=0, ignore_if_timedout=True)
    assert getattr(pool, get)() == "next"
    assert pool.has_free()
    assert not pool.has_next()


@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_pool_map_drops_what_was_submitted_before(engine: Engine, name: str) -> None:
    actor: list[Any] = []
    pool = util.ActorPool([actor])
    pool.submit(do, Result("slow", ready=False))
    pool.submit(do, Result(ValueError("not ours")))
    assert list(getattr(pool, name)(do, results(1, 2))) == [1, 2]
    assert len(actor) == 4  # the earlier work is done all the same


# ---- ActorPool: actors ----


def test_pool_gives_no_more_work_to_an_actor_that_died(engine: Engine) -> None:
    dies: list[Any] = []
    lives: list[Any] = []
    pool = util.ActorPool([lives, dies])
    pool.submit(do, Result(ActorDiedError("gone")))
    with pytest.raises(ActorDiedError):
        pool.get_next()
    assert list(pool.map(do, results(1, 2, 3))) == [1, 2, 3]
    assert (len(dies), len(lives)) == (1, 3)


def test_pool_keeps_an_actor_that_reports_the_death_of_another(engine: Engine) -> None:
    error = RayTaskError("f", "trace", ActorDiedError("another")).as_instanceof_cause()
    assert isinstance(error, ActorDiedError)
    pool = util.ActorPool([[]])
    pool.submit(do, Result(error))
    with pytest.raises(ActorDiedError):
        pool.get_next()
    assert pool.has_free()


def test_pool_whose_actors_all_died_says_so_instead_of_losing_values(engine: Engine) -> None:
    pool = util.ActorPool([[]])
    values = pool.map(do, [Result(ActorDiedError("gone")), *results(1, 2)])
    with pytest.raises(ActorDiedError):
        next(values)
    for get in (pool.get_next, pool.get_next_unordered):
        with pytest.raises(RuntimeError, match="2 values wait for an actor"):
            get()
    pool.push([])
    assert [pool.get_next(), pool.get_next()] == [1, 2]


def test_pool_keeps_an_actor_whose_submission_raises(engine: Engine) -> None:
    pool = util.ActorPool([[]])
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda actor, value: value / 0, 1)
    assert pool.has_free()
    assert not pool.has_next()


def test_pool_gives_the_error_of_a_late_submission_in_the_place_of_its_result(
    engine: Engine,
) -> None:
    pool = util.ActorPool([[]])
    values = pool.map(lambda actor, value: Result(6 / value), [1, 0, 2])
    assert next(values) == 6
    with pytest.raises(ZeroDivisionError):
        next(values)
    assert pool.get_next() == 3
    assert pool.has_free()


def test_pool_drops_the_error_of_a_late_submission_with_the_other_results(engine: Engine) -> None:
    pool = util.ActorPool([[]])
    for value in (1, 0, 2):
        pool.submit(lambda actor, value: Result(6 / value), value)
    assert list(pool.map_unordered(do, results("new"))) == ["new"]


# ---- as_completed, map_unordered ----


class Function:
    """A remote function whose results are there at once; counts those that nobody took."""

    def __init__(self) -> None:
        self.calls = 0

    def remote(self, value: object) -> Result:
        """Return the value as it is."""
        self.calls += 1
        return Result(value)


def test_as_completed_waits_for_chunks_and_for_what_is_left(engine: Engine) -> None:
    assert list(util.as_completed(results(*range(5)), chunk_size=2)) == [0, 1, 2, 3, 4]
    assert engine.waits == [2, 2, 1]


def test_as_completed_goes_on_after_a_wait_that_timed_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Result("slow", ready=False)
    wait = engine.wait

    def wait_or_get_ready(refs: list[Result], **options: Any) -> tuple[list[Result], list[Result]]:
        answer = wait(refs, **options)
        slow.ready = slow.ready or len(engine.waits) == 2
        return answer

    monkeypatch.setattr(engine, "wait", wait_or_get_ready)
    assert list(util.as_completed([slow], timeout=0)) == ["slow"]
    assert len(engine.waits) == 3


def test_map_unordered_has_so_many_calls_under_way_and_no_more(engine: Engine) -> None:
    function = Function()
    values = util.map_unordered(function, iter(range(100)), backpressure_size=3, chunk_size=1)
    for taken in range(1, 5):
        next(values)
        assert function.calls == taken + 2
    assert sorted(values) == list(range(4, 100))


# ---- Queue: its actor, in this process ----


def test_queue_actor_gives_items_in_order_and_tells_when_there_is_none() -> None:
    async def run() -> None:
        actor = _QueueActor(2)
        assert [await actor.put(item, 0) for item in "abc"] == [True, True, False]
        assert await actor.full()
        assert [await actor.get(0) for _ in "abc"] == [(True, "a"), (True, "b"), (False, None)]
        assert await actor.get(0.001) == (False, None)

    asyncio.run(run())


def test_queue_actor_takes_and_gives_a_batch_as_a_whole_or_not_at_all() -> None:
    async def run() -> None:
        actor = _QueueActor(3)
        assert await actor.put_batch([1, 2]) == (True, 0)
        assert await actor.put_batch([3, 4]) == (False, 2)
        assert await actor.get_batch(3) == (2, [])
        assert await actor.get_batch(2) == (2, [1, 2])
        assert await actor.get_batch(0) == (0, [])

    asyncio.run(run())


# ---- Queue: in a session ----


@pytest.fixture
def queue(shared_session: Any) -> Iterator[Queue]:
    """A queue of at most two items."""
    made = Queue(2)
    yield made
    made.shutdown(force=True)


def test_queue_raises_full_and_empty_that_are_no_task_errors(queue: Queue) -> None:
    queue.put_nowait_batch([1, 2])
    with pytest.raises(Full, match="the 2 items") as full:
        queue.put_nowait(3)
    with pytest.raises(Full, match="Cannot add 1 items to queue of size 2 and maxsize 2"):
        queue.put_nowait_batch([3])
    with pytest.raises(Empty, match="Cannot get 3 items from queue of size 2"):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(2) == [1, 2]
    with pytest.raises(Empty) as empty:
        queue.get_nowait()
    assert (type(full.value), type(empty.value)) == (Full, Empty)


def test_queue_with_room_takes_an_item_at_timeout_0(queue: Queue) -> None:
    queue.put("now", timeout=0)
    assert queue.get(timeout=0) == "now"


def test_queue_that_was_shut_down_says_so(queue: Queue) -> None:
    queue.shutdown()
    with pytest.raises(ActorDiedError, match="was shut down"):
        queue.put(1)
    with pytest.raises(RayActorError, match="was shut down"):
        queue.get_nowait()


def test_queue_shutdown_does_not_wait_longer_than_its_grace(queue: Queue) -> None:
    waiting = queue.actor.get.remote(None)
    queue.shutdown(grace_period_s=0)
    with pytest.raises(RayActorError):
        ray.get(waiting)


# ---- the rest ----


def test_node_ip_address_is_that_of_the_node(shared_session: Any) -> None:
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == [util.get_node_ip_address()]
