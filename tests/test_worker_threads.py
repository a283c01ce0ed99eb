"""Threads that a task leaves behind in its worker.

They neither lend a later task's CPU nor write to memory that is another's by then.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import MIB, Gate, Output, eventually

import ray_lite as ray
from ray_lite.session import Connection

BIG = 64 * MIB  # bytes; long enough in the writing for others to come in between


# ---- a worker that ends ----


def make_leaver(leave_behind: Callable[[], None]) -> Any:
    """Return a remote function, f(path), after which its worker ends, with two halts.

    It calls `leave_behind`, which may start threads. When the worker has said goodbye and only the
    end of its process is left, it meets the gate `path`, and then waits there once more.
    """

    @ray.remote(max_calls=1)
    def leave(path: str) -> int:
        import sys

        class LastWords:
            """A stdout whose last flush, the one before the process ends, waits."""

            def __init__(self, stream):
                self._stream = stream

            def __getattr__(self, name):
                return getattr(self._stream, name)

            def flush(self):
                self._stream.flush()
                if sys._getframe(1).f_code.co_name == "_become_worker":
                    open(path).close()
                    open(path + ".end").close()

        sys.stdout = LastWords(sys.stdout)  # type: ignore[assignment]
        leave_behind()
        return os.getpid()

    return leave


@pytest.fixture
def end(gate: Gate) -> Any:
    """The second gate of a leaver."""
    os.mkfifo(gate.path + ".end")

    def pass_it() -> None:
        os.close(os.open(gate.path + ".end", os.O_WRONLY))

    return pass_it


def test_block_that_a_thread_of_an_ending_worker_fills_is_its_own_to_the_end(
    session: Connection, gate: Gate, end: Callable[[], None]
) -> None:
    def fill() -> None:
        """Leave a thread in the midst of a put, as far as the store can tell."""
        from ray_lite import session as sessions
        from ray_lite._codec import encode

        def run() -> None:
            connection = sessions.current()
            assert connection is not None
            stored = connection.core.store(encode(np.zeros(BIG, np.uint8)))
            has_block.set()
            threading.Event().wait()
            del stored

        has_block = threading.Event()
        threading.Thread(target=run, daemon=True).start()
        has_block.wait()

    leaver = make_leaver(fill).remote(gate.path)
    gate.meet()
    try:
        free = session.core.usage()["free"]
        assert free < session.core.usage()["capacity"] - BIG
        small = [ray.put(np.full(MIB // 8, 3)) for _ in range(8)]
        assert session.core.usage()["largest"] < BIG
    finally:
        end()
    ray.get(leaver)
    assert eventually(lambda: session.core.usage()["free"] > free)
    assert all((ray.get(ref) == 3).all() for ref in small)


@pytest.mark.session(num_cpus=2, object_store_memory=3 * BIG)
def test_thread_that_puts_while_its_worker_ends_tears_no_value(
    session: Connection, tmp_path: Any, new_gate: Callable[[], Gate]
) -> None:
    def put_for_ever() -> None:
        array = np.full(BIG // 8, 7)
        once = threading.Event()

        def run() -> None:
            while True:
                ray.put(array)
                once.set()

        threading.Thread(target=run, daemon=True).start()
        once.wait()

    leave = make_leaver(put_for_ever)
    for value in range(100, 105):
        gate = new_gate()
        os.mkfifo(gate.path + ".end")
        leaver = leave.remote(gate.path)
        gate.meet()
        try:
            mine = np.full(BIG // 64, value)
            refs = [ray.put(mine) for _ in range(12)]
        finally:
            os.close(os.open(gate.path + ".end", os.O_WRONLY))
        ray.get(leaver)
        assert [np.unique(array).tolist() for array in ray.get(refs)] == [[value]] * 12
        del refs, leaver
    assert session.core.broken_invariant() is None


def test_worker_that_ends_with_threads_in_every_call_leaves_nothing(
    session: Connection, printed: Output
) -> None:
    """The thread of a wait, a submit and a put meet the end of their process."""

    @ray.remote(max_calls=1)
    def leave(box: list[Any], add: Any) -> int:
        def repeat(call: Callable[[], Any]) -> None:
            begun = threading.Event()

            def run() -> None:
                while True:
                    call()
                    begun.set()

            threading.Thread(target=run, daemon=True).start()
            begun.wait()

        repeat(lambda: ray.put(b"x" * 1000))
        repeat(lambda: ray.wait(box, timeout=0.001))
        repeat(lambda: ray.get(box[0]))
        repeat(lambda: add.remote(1, box[0]))
        return 1

    add = ray.remote(lambda a, b: a + b)
    box = [ray.put(20)]
    assert ray.get(add.remote(1, 2)) == 3
    for _ in range(5):
        assert ray.get(leave.remote(box, add)) == 1
        assert ray.get(add.remote(1, box[0])) == 21
    assert eventually(lambda: session.core.usage()["tasks"] == 0)
    assert session.core.broken_invariant() is None


# ---- CPUs ----


def start_waiter(refs: list[Any]) -> None:
    """In a task: start a thread that waits for a reference; return once it is asleep."""
    from pathlib import Path

    thread = threading.Thread(target=lambda: ray.get(refs[0]), daemon=True)
    thread.start()
    asleep = 0
    while asleep < 200:  # so often in a row that it is no wait for the interpreter
        stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
        asleep = asleep + 1 if stat.rpartition(")")[2].split()[0] == "S" else 0


def cpus_free(session: Connection) -> float:
    """Return how many CPUs no task has."""
    return float(session.core.resources()["CPU"][1] / 10_000)


@pytest.fixture
def pending(new_gate: Callable[[], Gate]) -> Any:
    """A function that submits a task which ends with the test and takes no CPU."""

    def submit() -> Any:
        return ray.remote(num_cpus=0)(lambda path: open(path).close()).remote(new_gate().path)

    return submit


@pytest.mark.session(num_cpus=1)
def test_thread_of_a_task_that_waits_does_not_lend_the_tasks_cpu(
    session: Connection, new_gate: Callable[[], Gate], pending: Callable[[], Any]
) -> None:
    @ray.remote
    def compute(refs: list[Any], waits: str, end: str) -> str:
        start_waiter(refs)
        open(waits).close()
        open(end).close()
        return "done"

    waits, end = new_gate(), new_gate()
    ref = compute.remote([pending()], waits.path, end.path)
    waits.meet()
    assert cpus_free(session) == 0
    assert not any(blocked for _, _, _, blocked in session.core.slots())
    second = ray.remote(lambda: "second").remote()
    assert cpus_free(session) == 0
    end.open()
    assert ray.get([ref, second], timeout=30) == ["done", "second"]


@pytest.mark.session(num_cpus=1, worker_exports=1)
def test_task_that_waits_lends_its_cpu_though_an_earlier_one_left_a_waiting_thread(
    session: Connection, pending: Callable[[], Any]
) -> None:
    @ray.remote
    def leave_thread(refs: list[Any]) -> int:
        start_waiter(refs)
        return os.getpid()

    @ray.remote
    def child() -> int:
        return 7

    @ray.remote
    def parent() -> tuple[int, int]:
        return os.getpid(), ray.get(child.remote(), timeout=30)

    left = ray.get(leave_thread.remote([pending()]))
    for _ in range(50):
        pid, value = ray.get(parent.remote(), timeout=40)
        assert value == 7
        if pid == left:
            break
    else:
        pytest.fail("the worker with the thread got no task")
