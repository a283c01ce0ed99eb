"""put, get, wait and init: interrupts, a store that is full, and what init returns.

What a caller of Ray sees as well is in tests/conformance.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from support import MIB, Gate, eventually

import ray_lite as ray
from ray_lite.exceptions import GetTimeoutError, ObjectStoreFullError
from ray_lite.session import Connection

NEVER = ray.remote(lambda: signal.pause())


def array(mib: int, fill: int = 0) -> np.ndarray[Any, Any]:
    return np.full(mib * MIB // 8, fill, np.int64)


def sleeps(tid: int) -> bool:
    """Whether a thread of this process is asleep in the kernel."""
    return Path(f"/proc/self/task/{tid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@contextmanager
def once_asleep(action: Callable[[], object]) -> Iterator[None]:
    """Run `action` in another thread as soon as this one has gone to sleep."""
    tid = threading.get_native_id()

    def watch() -> None:
        if eventually(lambda: sleeps(tid)):
            action()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        watcher.join()


# ---- Ctrl-C ----


@contextmanager
def interrupted() -> Iterator[None]:
    """Expect the block to sleep, and Ctrl-C to end it at once."""
    start = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        once_asleep(lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)),
    ):
        yield
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "call",
    [
        lambda ref: ray.get(ref),
        lambda ref: ray.get([ref, ref]),
        lambda ref: ray.get(ref, timeout=1000),
        lambda ref: ray.wait([ref]),
        lambda ref: ray.wait([ref], timeout=1000),
    ],
    ids=["get", "get a list", "get with a timeout", "wait", "wait with a timeout"],
)
def test_ctrl_c_ends_a_call_that_waits_and_harms_nothing(
    session: Connection, call: Callable[["ray.ObjectRef[None]"], object]
) -> None:
    stuck = NEVER.remote()
    with interrupted():
        call(stuck)
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    assert ray.wait([stuck], timeout=0) == ([], [stuck])
    ray.shutdown()  # it would never end


def test_ctrl_c_ends_a_put_that_waits_for_room_and_harms_nothing(session: Connection) -> None:
    kept = [ray.put(array(30, i)) for i in range(3)]
    free = session.core.usage()["free"]
    with interrupted():
        ray.put(array(30))
    assert session.core.usage()["free"] == free
    assert [int(value[-1]) for value in ray.get(kept)] == [0, 1, 2]


def test_signal_handler_runs_during_a_wait_that_then_goes_on(
    session: Connection, gate: Gate
) -> None:
    ref = ray.remote(lambda path: open(path).close()).remote(gate.path)
    main = threading.main_thread().ident or 0
    old = signal.signal(signal.SIGUSR1, lambda *_: gate.open())
    try:
        with once_asleep(lambda: signal.pthread_kill(main, signal.SIGUSR1)):
            assert ray.get(ref) is None
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_get_in_a_thread_leaves_the_other_threads_running(session: Connection) -> None:
    stuck = NEVER.remote()
    ended = threading.Event()

    def wait_in_vain() -> None:
        with pytest.raises(GetTimeoutError):
            ray.get(stuck, timeout=0.3)
        ended.set()

    thread = threading.Thread(target=wait_in_vain)
    thread.start()
    turns = 0
    while not ended.is_set():
        assert ray.get(ray.put(turns)) == turns
        turns += 1
    thread.join()
    assert turns > 1
    ray.shutdown()


# ---- lists that change, and numbers out of range ----


def test_wait_goes_by_the_list_as_it_was_at_the_call(session: Connection, gate: Gate) -> None:
    pending = ray.remote(lambda path: open(path).close()).remote(gate.path)
    late = ray.put(2)
    refs = [pending]

    def add_a_ready_one() -> None:
        refs.append(late)
        gate.open()

    with once_asleep(add_a_ready_one):
        assert ray.wait(refs) == ([pending], [])
    assert refs == [pending, late]


class Tampering:
    """Whoever reads it puts something into `refs` that is no reference."""

    refs: ClassVar[list[Any]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return _tamper, ()


def _tamper() -> None:
    Tampering.refs[1] = "no reference"


def test_get_of_a_list_that_reading_changes_raises_type_error(session: Connection) -> None:
    Tampering.refs = [ray.put(Tampering()), ray.put(1)]
    with pytest.raises(TypeError, match="str"):
        ray.get(Tampering.refs)
    Tampering.refs.clear()


@pytest.mark.parametrize("num_returns", [2**70, -(2**70)])
def test_wait_for_a_number_beyond_any_list_raises_value_error(
    shared_session: Connection, num_returns: int
) -> None:
    with pytest.raises(ValueError, match="give 1 to 1"):
        ray.wait([ray.put(1)], num_returns=num_returns)


@pytest.mark.parametrize("timeout", [math.nan, -1e-9, "1"])
def test_wait_with_a_ready_ref_still_refuses_a_bad_timeout(
    shared_session: Connection, timeout: Any
) -> None:
    with pytest.raises(ValueError, match="timeout"):
        ray.wait([ray.put(1)], timeout=timeout)


@pytest.mark.parametrize("timeout", [True, math.inf, np.float64(1)])
def test_wait_takes_any_number_as_its_timeout(shared_session: Connection, timeout: Any) -> None:
    ref = ray.put(1)
    assert ray.wait([ref], timeout=timeout) == ([ref], [])


# ---- a full store ----


def test_put_waits_for_room_until_another_thread_makes_some(session: Connection) -> None:
    kept = [ray.put(array(30, i)) for i in range(3)]
    with once_asleep(lambda: kept.pop(0)):
        ref = ray.put(array(30, 3))
    values = ray.get([*kept, ref])
    assert [int(value[-1]) for value in values] == [1, 2, 3]


@pytest.mark.session(patience=2.0)
def test_put_waits_beyond_its_patience_while_memory_is_being_freed(session: Connection) -> None:
    kept = [ray.put(array(2, i)) for i in range(49)]

    def free_slowly() -> None:
        for _ in range(20):
            time.sleep(0.15)  # the pace is what is tested: 3 s in all, never 2 s without a byte
            del kept[0]

    start = time.monotonic()
    with once_asleep(free_slowly):
        ref = ray.put(array(40, 7))
    assert time.monotonic() - start > 2.0
    assert ray.get(ref)[-1] == 7
    assert [int(value[-1]) for value in ray.get(kept)] == list(range(20, 49))


@pytest.mark.session(patience=0.2)
def test_put_into_a_full_store_raises_with_the_numbers_and_loses_nothing(
    session: Connection,
) -> None:
    kept = [ray.put(array(30, i)) for i in range(3)]
    free = session.core.usage()["free"]
    for _ in range(3):
        with pytest.raises(ObjectStoreFullError) as info:
            ray.put(array(30))
        for words in ("no room", f"{free:,} of {100 * MIB:,}", "0.2 s", "object_store_memory"):
            assert words in str(info.value)
    assert session.core.usage()["free"] == free
    assert [int(value[-1]) for value in ray.get(kept)] == [0, 1, 2]
    small = ray.put(array(1, 9))
    assert ray.get(small)[0] == 9


def test_put_of_more_than_the_whole_store_raises_at_once_with_the_numbers(
    shared_session: Connection,
) -> None:
    start = time.monotonic()
    with pytest.raises(ObjectStoreFullError) as info:
        ray.put(array(101))
    assert time.monotonic() - start < 5
    assert f"{100 * MIB:,}" in str(info.value)
    assert "larger than the whole object store" in str(info.value)


@pytest.mark.session(patience=0.2)
def test_argument_that_has_no_room_raises_at_the_call(session: Connection) -> None:
    kept = [ray.put(array(30)) for _ in range(3)]
    with pytest.raises(ObjectStoreFullError):
        ray.remote(lambda x: x).remote(array(30))
    assert len(kept) == 3


@pytest.mark.session(patience=0.2)
def test_task_whose_value_has_no_room_fails_and_the_worker_goes_on(session: Connection) -> None:
    kept = [ray.put(array(30, i)) for i in range(3)]
    big = ray.remote(lambda: array(30))
    with pytest.raises(ObjectStoreFullError, match="no room"):
        ray.get(big.remote())
    del kept[0]
    assert ray.get(big.remote()).nbytes == 30 * MIB
    assert ray.get(kept[0])[0] == 1


def test_value_that_a_view_still_shows_keeps_its_memory_after_its_ref_is_gone(
    session: Connection,
) -> None:
    before = session.core.usage()["free"]
    ref = ray.put(array(30, 5))
    view = ray.get(ref)[100:200]
    del ref
    assert session.core.usage()["free"] < before - 29 * MIB
    assert (view == 5).all()
    del view
    assert eventually(lambda: session.core.usage()["free"] == before)


# ---- what init returns ----


def test_init_returns_facts_about_the_session() -> None:
    context = ray.init(num_cpus=3, object_store_memory=100 * MIB, namespace="here")
    assert context["num_cpus"] == 3
    assert context["object_store_memory"] == 100 * MIB
    assert context["namespace"] == "here"
    assert dict(context) == context.address_info
    assert len(context) == len(list(context))
    assert "namespace" in repr(context)
    context.disconnect()
    assert not ray.is_initialized()


def test_init_in_a_with_statement_ends_the_session_with_the_block() -> None:
    with ray.init(num_cpus=1, object_store_memory=100 * MIB):
        assert ray.is_initialized()
    assert not ray.is_initialized()


def test_init_with_ignore_reinit_error_returns_the_facts_of_the_session_that_is_up(
    shared_session: Connection,
) -> None:
    again = ray.init(num_cpus=7, ignore_reinit_error=True)
    assert again["num_cpus"] == 2


def test_put_starts_a_session_with_default_options_if_there_is_none() -> None:
    assert not ray.is_initialized()
    assert ray.get(ray.put("by itself")) == "by itself"
    assert ray.is_initialized()
    ray.shutdown()
