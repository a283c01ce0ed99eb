"""Retries: what is tried again, how often, and what becomes of a dead worker's values."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from .support import Attempts, Gate

NOT_RETRIED = "retry_exceptions has no effect on a generator with num_returns=n"
ALL_OR_NOTHING = "no value is visible before the task has ended, so all come from one attempt"


def kill_and_await(pid: int) -> None:
    """Kill process `pid` and return once it is dead."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)


CRASHES: dict[str, Callable[[], Any]] = {
    "os._exit": lambda: os._exit(1),
    "sys.exit(0)": lambda: sys.exit(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
}


def fail_until(ray: ModuleType, attempts: Attempts, good: int, **options: Any) -> Any:
    """Return the ref of a task that raises KeyError(attempt) before attempt `good`."""
    begin = attempts.begin

    @ray.remote
    def f():
        attempt = begin()
        if attempt < good:
            raise KeyError(f"attempt {attempt}")
        return attempt

    return f.options(**options).remote()


@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES.keys())
def test_crash_is_retried_by_default(
    ray: ModuleType, attempts: Attempts, crash: Callable[[], Any]
) -> None:
    begin = attempts.begin

    @ray.remote
    def f():
        attempt = begin()
        if attempt == 1:
            crash()
        return attempt

    assert ray.get(f.remote()) == 2


@pytest.mark.parametrize(("options", "expected"), [({}, 4), ({"max_retries": 1}, 2)])
def test_crash_is_retried_so_often_and_then_raised(
    ray: ModuleType, attempts: Attempts, options: dict[str, Any], expected: int
) -> None:
    begin = attempts.begin

    @ray.remote
    def f():
        begin()
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(f.options(**options).remote())
    assert attempts.made() == expected


def test_crash_with_max_retries_zero_is_not_retried(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=0)
    def f():
        begin()
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(f.remote())
    assert attempts.made() == 1


def test_crash_leaves_other_tasks_and_values_alone(ray: ModuleType, gate: Gate) -> None:
    @ray.remote
    def held(path):
        open(path).close()
        return "unharmed"

    @ray.remote(max_retries=0)
    def crash():
        os._exit(1)

    before, running = ray.put(np.ones(MIB)), held.remote(gate.path)
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crash.remote())
    gate.open()
    assert ray.get(running) == "unharmed"
    assert ray.get(before).sum() == MIB


def test_exception_is_not_retried_by_default(ray: ModuleType, attempts: Attempts) -> None:
    with pytest.raises(KeyError, match="attempt 1"):
        ray.get(fail_until(ray, attempts, 2))
    assert attempts.made() == 1


def test_exception_is_retried_with_retry_exceptions(ray: ModuleType, attempts: Attempts) -> None:
    assert ray.get(fail_until(ray, attempts, 3, retry_exceptions=True)) == 3


def test_exception_is_retried_with_retry_exceptions_in_options(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote
    def f():
        if begin() == 1:
            raise KeyError("first")
        return "second"

    assert ray.get(f.options(retry_exceptions=True, max_retries=1).remote()) == "second"


@pytest.mark.deliberately_different("a retry starts after a second")
def test_retry_starts_at_once(ray: ModuleType, tmp_path: Path) -> None:
    @ray.remote(retry_exceptions=True)
    def seconds_between_attempts(mark):
        if not os.path.exists(mark):
            open(mark, "w").close()
            raise KeyError("first")
        return time.time() - os.path.getmtime(mark)

    refs = [seconds_between_attempts.remote(str(tmp_path / f"mark{i}")) for i in range(8)]
    assert min(ray.get(refs)) < 0.5  # the quickest, for the others may have waited for a CPU


@pytest.mark.parametrize(
    "kinds", [[KeyError], [LookupError], (ValueError, KeyError)], ids=["same", "base", "tuple"]
)
def test_exception_of_a_listed_class_is_retried(
    ray: ModuleType, attempts: Attempts, kinds: Any
) -> None:
    assert ray.get(fail_until(ray, attempts, 2, retry_exceptions=kinds)) == 2


@pytest.mark.parametrize("kinds", [[ValueError], []], ids=["another", "empty"])
def test_exception_of_an_unlisted_class_is_not_retried(
    ray: ModuleType, attempts: Attempts, kinds: Any
) -> None:
    with pytest.raises(KeyError):
        ray.get(fail_until(ray, attempts, 2, retry_exceptions=kinds))
    assert attempts.made() == 1


def test_exception_with_max_retries_zero_is_not_retried(
    ray: ModuleType, attempts: Attempts
) -> None:
    with pytest.raises(KeyError):
        ray.get(fail_until(ray, attempts, 2, max_retries=0, retry_exceptions=True))
    assert attempts.made() == 1


def test_exception_of_the_last_attempt_is_raised(ray: ModuleType, attempts: Attempts) -> None:
    with pytest.raises(KeyError, match="attempt 2"):
        ray.get(fail_until(ray, attempts, 9, max_retries=1, retry_exceptions=True))
    assert attempts.made() == 2


def test_crashes_and_exceptions_share_one_budget(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote(max_retries=1, retry_exceptions=True)
    def f():
        if begin() == 1:
            os._exit(1)
        raise KeyError("second")

    with pytest.raises(KeyError, match="second"):
        ray.get(f.remote())
    assert attempts.made() == 2


def test_retried_task_gets_its_arguments_again(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote
    def f(values, refs, plain):
        if begin() == 1:
            os._exit(1)
        return int(values.sum()), ray.get(refs[0]), plain

    ref = f.remote(ray.put(np.ones(MIB)), [ray.put("nested")], {"plain": 1})
    assert ray.get(ref) == (MIB, "nested", {"plain": 1})


def test_dependent_of_a_retried_task_gets_the_good_value(
    ray: ModuleType, attempts: Attempts
) -> None:
    ref = fail_until(ray, attempts, 2, retry_exceptions=True)
    assert ray.get(ray.remote(lambda x: x + 10).remote(ref)) == 12


@pytest.mark.parametrize("size", [1, MIB])
def test_result_survives_the_worker_that_made_it(ray: ModuleType, size: int) -> None:
    @ray.remote(num_returns=2)
    def f():
        return os.getpid(), np.ones(size)

    pid, values = f.remote()
    kill_and_await(ray.get(pid))
    assert ray.get(values).sum() == size
    assert ray.get(ray.remote(lambda: "next").remote()) == "next"


@pytest.mark.parametrize("size", [1, MIB])
def test_items_and_views_survive_the_worker_that_made_them(ray: ModuleType, size: int) -> None:
    @ray.remote
    def f():
        yield os.getpid()
        yield np.ones(size)
        yield np.full(size, 2)

    pid, first, second = f.remote()
    view = ray.get(first)
    kill_and_await(ray.get(pid))
    assert view.sum() == size
    assert ray.get(second).sum() == 2 * size


@pytest.mark.deliberately_different("an object put by a task dies with its worker")
def test_object_put_by_a_task_survives_the_worker(ray: ModuleType) -> None:
    @ray.remote
    def f():
        return os.getpid(), ray.put(np.ones(MIB))

    pid, ref = ray.get(f.remote())
    kill_and_await(pid)
    # Ray notices the death after a while: so many reads outlast that, and are quick here.
    for _ in range(20_000):
        assert ray.get(ref)[0] == 1


def test_generator_crash_is_retried_and_all_values_come(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=4)
    def f():
        attempt = begin()
        for i in range(4):
            if attempt == 1 and i == 2:
                os._exit(1)
            yield np.full(1000, i)

    assert [int(values[0]) for values in ray.get(f.remote())] == [0, 1, 2, 3]
    assert attempts.made() == 2


def test_generator_crash_without_retries_fails_the_refs_not_yet_stored(ray: ModuleType) -> None:
    @ray.remote(num_returns=3, max_retries=0)
    def f():
        yield 0
        os._exit(1)

    for ref in f.remote()[1:]:
        with pytest.raises(ray.exceptions.WorkerCrashedError):
            ray.get(ref)


@pytest.mark.deliberately_different("a crash takes the values already yielded with it")
def test_generator_crash_without_retries_keeps_the_visible_values(ray: ModuleType) -> None:
    @ray.remote(num_returns=3, max_retries=0)
    def f():
        yield "visible"
        os._exit(1)

    refs = f.remote()
    ray.wait(refs, num_returns=3)
    assert ray.get(refs[0]) == "visible"


def test_generator_crash_loses_the_value_that_was_not_yet_visible(
    ray: ModuleType, gate: Gate
) -> None:
    @ray.remote(num_returns=2, max_retries=0)
    def f(path):
        yield 0
        yield 1
        open(path).close()
        os._exit(1)

    refs = f.remote(gate.path)
    gate.open()
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(refs[-1])


def test_generator_exception_is_not_retried_by_default(ray: ModuleType, attempts: Attempts) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2)
    def f():
        begin()
        yield 0
        raise KeyError("once")

    with pytest.raises(KeyError):
        ray.get(f.remote()[1])
    assert attempts.made() == 1


@pytest.mark.deliberately_different(NOT_RETRIED)
def test_generator_exception_is_retried_with_retry_exceptions(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=3, retry_exceptions=True)
    def f():
        attempt = begin()
        yield 0
        if attempt == 1:
            raise KeyError("first")
        yield 1
        yield 2

    assert ray.get(f.remote()) == [0, 1, 2]
    assert attempts.made() == 2


@pytest.mark.deliberately_different(NOT_RETRIED)
def test_generator_exception_of_the_last_attempt_is_raised(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=1, retry_exceptions=True)
    def f():
        attempt = begin()
        yield 0
        raise KeyError(f"attempt {attempt}")

    first, last = f.remote()
    with pytest.raises(KeyError, match="attempt 2"):
        ray.get(last)
    assert ray.get(first) == 0


@pytest.mark.deliberately_different(ALL_OR_NOTHING)
def test_generator_retry_that_yields_another_value_is_never_silent(
    ray: ModuleType, attempts: Attempts, gate: Gate
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=3, max_retries=1)
    def f(path):
        attempt = begin()
        yield f"attempt {attempt}"
        if attempt == 1:
            open(path).close()
            os._exit(1)
        yield 1
        yield 2

    first, *rest = f.remote(gate.path)
    gate.meet()
    for ref in rest:
        with pytest.raises(ray.exceptions.StreamingGeneratorReplayInconsistentError):
            ray.get(ref)
    assert ray.get(first) == "attempt 1"


@pytest.mark.deliberately_different(ALL_OR_NOTHING)
def test_generator_retry_that_ends_before_what_was_visible_is_never_silent(
    ray: ModuleType, attempts: Attempts, gate: Gate
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=4, max_retries=1)
    def f(path):
        attempt = begin()
        yield 0
        if attempt == 2:
            return
        yield 1
        open(path).close()
        os._exit(1)

    refs = f.remote(gate.path)
    gate.meet()
    for ref in refs[2:]:
        with pytest.raises(ray.exceptions.StreamingGeneratorReplayInconsistentError):
            ray.get(ref)
    assert ray.get(refs[:2]) == [0, 1]


def test_generator_held_back_value_comes_from_the_new_attempt(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote(num_returns=2, max_retries=1)
    def f():
        attempt = begin()
        yield 0
        yield f"attempt {attempt}"
        if attempt == 1:
            os._exit(1)

    assert ray.get(f.remote()) == [0, "attempt 2"]
    assert attempts.made() == 2
