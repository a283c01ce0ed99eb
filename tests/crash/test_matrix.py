"""User code ends its process: at each step of a task's life, in each way there is.

Each case asks three things: does the caller get the error that says what happened, is the session
usable afterwards, and has nothing leaked.
"""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import MIB, eventually

import ray_lite as ray
from ray_lite.exceptions import RayTaskError, WorkerCrashedError

from .bombs import WAYS, BangError, OffWhenDeleted, OffWhenPickled, OffWhenUnpickled, go_off
from .processes import Program, connection, figures, holds_exports_only

HERE = Path(__file__).parent
#: How WorkerCrashedError names each end of a process.
ENDS = {
    "sys.exit": "exited with status 3",
    "os._exit": "exited with status 4",
    "SIGSEGV": r"killed by signal 11 \(SIGSEGV\)",
    "SIGABRT": r"killed by signal 6 \(SIGABRT\)",
    "SIGKILL": r"killed by signal 9 \(SIGKILL\)",
}

pytestmark = pytest.mark.crash
each_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(params=[1, 2], ids=["1 CPU", "2 CPUs"], autouse=True)
def _usable_and_empty_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    ray.init(num_cpus=request.param, object_store_memory=80 * MIB, log_to_driver=False)
    yield
    session = connection()
    assert ray.get(take.remote("anything"), timeout=10) == "taken"
    assert session.core.broken_invariant() is None
    assert eventually(lambda: holds_exports_only(session), 5.0), figures(session)
    ray.shutdown()


@ray.remote(max_retries=0)
def take(value: Any) -> str:
    """Have a value, and be done."""
    return "taken"


@ray.remote(max_retries=0)
def run(way: str) -> None:
    """Go off."""
    go_off(way)


@ray.remote(max_retries=0)
def give_unpicklable(way: str) -> OffWhenPickled:
    """Return what goes off on its way."""
    return OffWhenPickled(way)


@ray.remote(max_retries=0)
def give_unreadable(way: str) -> OffWhenUnpickled:
    """Return what goes off when it has arrived."""
    return OffWhenUnpickled(way)


@ray.remote(max_retries=0, num_returns=3)
def give_some(way: str) -> Iterator[Any]:
    """Yield a value, then one that goes off on its way."""
    yield "first"
    yield OffWhenPickled(way)
    yield "never"


def assert_raises(way: str, ref: Any, mild: type[Exception] = BangError) -> None:
    """Fail unless getting `ref` says what happened; an exception comes as a `mild` one."""
    if way == "exception":
        with pytest.raises(mild, match="bang") as raised:
            ray.get(ref, timeout=20)
        assert isinstance(raised.value, RayTaskError)
    else:
        with pytest.raises(WorkerCrashedError, match=ENDS[way]):
            ray.get(ref, timeout=20)


@each_way
def test_argument_that_goes_off_when_unpickled_fails_the_task(way: str) -> None:
    assert_raises(way, take.remote(OffWhenUnpickled(way)))


@each_way
def test_stored_argument_that_goes_off_when_unpickled_fails_the_task(way: str) -> None:
    assert_raises(way, take.remote(ray.put(OffWhenUnpickled(way))))


@each_way
def test_body_that_goes_off_fails_the_task(way: str) -> None:
    assert_raises(way, run.remote(way))


@each_way
def test_result_that_goes_off_when_pickled_fails_the_task(way: str) -> None:
    assert_raises(way, give_unpicklable.remote(way), mild=TypeError)


@each_way
def test_yielded_value_that_goes_off_when_pickled_fails_it_and_the_rest(way: str) -> None:
    first, *rest = give_some.remote(way)
    assert ray.get(first, timeout=20) == "first"
    for ref in rest:
        assert_raises(way, ref, mild=TypeError)


@each_way
def test_dependent_of_a_task_that_went_off_fails_alike(way: str) -> None:
    assert_raises(way, take.remote(run.remote(way)))


@each_way
def test_argument_that_goes_off_when_it_dies_costs_no_more_than_its_task(way: str) -> None:
    """Python prints what __del__ raises, and goes on; what ends the process may do so too late."""
    ref = take.remote(OffWhenDeleted(way))
    try:
        assert ray.get(ref, timeout=20) == "taken"
    except WorkerCrashedError as error:
        assert re.search(ENDS[way], str(error)), way


@pytest.mark.parametrize(("way", "error"), [("exception", BangError), ("sys.exit", SystemExit)])
def test_result_that_goes_off_when_unpickled_raises_in_the_driver(
    way: str, error: type[BaseException]
) -> None:
    ref = give_unreadable.remote(way)
    for _ in range(2):
        with pytest.raises(error):
            ray.get(ref, timeout=20)


@pytest.mark.parametrize("way", sorted(set(ENDS) - {"sys.exit"}))
def test_result_that_ends_the_driver_when_unpickled_ends_its_session(
    way: str, tmp_path: Path
) -> None:
    cpus = connection().info["num_cpus"]
    with Program(HERE / "unpickling_program.py", way, str(cpus), directory=tmp_path) as program:
        assert program.say_line() == "ready"
        status = program.process.wait(20)
        assert status == (4 if way == "os._exit" else -signal.Signals[way])
        eventually(lambda: not program.leftovers(), 2.0)
        assert program.leftovers() == []
