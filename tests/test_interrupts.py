"""SIGINT in a worker: no task is left without its value or an error that says what happened.

Within a task it cancels that; between tasks it may cost the worker.
"""

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from support import Gate, eventually, is_gone

import ray_lite as ray
from ray_lite import _core
from ray_lite.exceptions import TaskCancelledError, WorkerCrashedError
from ray_lite.session import Connection

ROUNDS = 40
BATCH = 5


def worker_pids(session: Connection) -> list[int]:
    """Return the workers that have joined."""
    return [pid for _, pid, role, _ in session.core.slots() if role == _core.ROLE_WORKER]


def interrupt(pids: list[int]) -> None:
    """Send each a SIGINT, unless it has ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)


# ---- a rain ----


def double(x: int) -> int:
    """Return twice the argument."""
    return 2 * x


def double_twice(x: int) -> Any:
    """Yield twice the argument, twice."""
    yield 2 * x
    yield 2 * x


def fail_once(x: int, attempts: str) -> int:
    """Raise in the first attempt of each x."""
    fd = os.open(f"{attempts}-{x}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"x")
    first = os.fstat(fd).st_size == 1
    os.close(fd)
    if first:
        raise OSError("the first time")
    return 2 * x


def values_of(refs: Any) -> Any:
    """Return all values of whatever a task gave: a reference, several, or a generator of them."""
    if isinstance(refs, ray.ObjectRef):
        value = ray.get(refs, timeout=30)
        return values_of(value) if isinstance(value, ray.DynamicObjectRefGenerator) else [value]
    return [ray.get(ref, timeout=30) for ref in refs]


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(ray.remote(double), id="function"),
        pytest.param(ray.remote(max_retries=0)(double), id="function without retries"),
        pytest.param(ray.remote(num_returns=2)(double_twice), id="generator"),
        pytest.param(ray.remote(num_returns="dynamic")(double_twice), id="dynamic generator"),
        pytest.param(ray.remote(double_twice), id="streaming generator"),
    ],
)
def test_tasks_in_a_rain_of_interrupts_give_their_values_or_say_why_not(
    session: Connection, function: Any
) -> None:
    outcomes: Counter[str] = Counter()
    for round_ in range(ROUNDS):
        batch = [(x, function.remote(x)) for x in range(round_, round_ + BATCH)]
        interrupt(worker_pids(session))
        for x, refs in batch:
            try:
                values = values_of(refs)
            except (TaskCancelledError, WorkerCrashedError) as error:
                outcomes[type(error).__name__] += 1
            else:
                assert values in ([2 * x], [2 * x] * 2)
                outcomes["value"] += 1
    assert outcomes.total() == ROUNDS * BATCH
    assert outcomes["value"] > 0
    assert not session.core.is_over
    assert ray.get(ray.remote(double).remote(21), timeout=30) == 42


def test_tasks_to_be_retried_in_a_rain_of_interrupts_end_as_well(
    session: Connection, tmp_path: Any
) -> None:
    function = ray.remote(max_retries=-1, retry_exceptions=True)(fail_once)
    outcomes: Counter[str] = Counter()
    for first in range(0, ROUNDS * BATCH, BATCH):
        batch = [(x, function.remote(x, str(tmp_path / "x"))) for x in range(first, first + BATCH)]
        interrupt(worker_pids(session))
        for x, ref in batch:
            try:
                assert values_of(ref) == [2 * x]
                outcomes["value"] += 1
            except TaskCancelledError:
                outcomes["cancelled"] += 1
    assert outcomes.total() == ROUNDS * BATCH
    assert outcomes["value"] > 0
    assert not session.core.is_over


# ---- one drop ----


@pytest.mark.session(num_cpus=1)
def test_interrupt_in_a_task_cancels_it_and_its_worker_goes_on(
    session: Connection, new_gate: Callable[[], Gate]
) -> None:
    pid_of_worker = ray.remote(lambda: os.getpid())

    @ray.remote
    def wait(begun: str, end: str) -> None:
        open(begun).close()
        open(end).close()

    pid = ray.get(pid_of_worker.remote())
    begun = new_gate()
    ref = wait.remote(begun.path, new_gate().path)
    begun.meet()
    interrupt(worker_pids(session))
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=30)
    assert ray.get(pid_of_worker.remote(), timeout=30) > 0
    assert not is_gone(pid)


@pytest.mark.session(num_cpus=1)
def test_interrupt_between_tasks_costs_the_worker_at_most(session: Connection) -> None:
    function = ray.remote(double)
    for x in range(5):
        assert ray.get(function.remote(x), timeout=30) == 2 * x
        assert eventually(lambda: session.core.load()["idle"] > 0)
        interrupt(worker_pids(session))


# ---- one drop, at every line ----
#
# All that a SIGINT does to Python code is to raise KeyboardInterrupt between two of its steps. Here
# a trace function raises it at the n-th line of the worker's own code after the task's, for each n.


def interrupt_at_line(n: int, mark: str) -> None:
    """In a task: have the n-th line from here on interrupted; `mark` is made when it is.

    Lines of the task itself and of the task after it do not count.
    """
    import sys

    left = [n]
    files = ("returns.py", "runner.py", "worker.py")

    def trace(frame: Any, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.endswith(files):
            return None
        is_run = event == "call" and frame.f_code.co_qualname == "Runner.run"
        if is_run and frame.f_locals["outcome"] is None:  # the task after it, then
            sys.settrace(None)
            return None
        if event == "line":
            left[0] -= 1
        if left[0] < 0:
            sys.settrace(None)
            os.close(os.open(mark, os.O_CREAT | os.O_WRONLY))
            raise KeyboardInterrupt
        return trace

    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(files):
            frame.f_trace = trace
        frame = frame.f_back  # type: ignore[assignment]
    sys.settrace(trace)


def give(n: int, mark: str) -> int:
    """Return 42."""
    interrupt_at_line(n, mark)
    return 42


def give_list(n: int, mark: str) -> list[int]:
    """Return 42 in a list."""
    interrupt_at_line(n, mark)
    return [42]


def give_two(n: int, mark: str) -> list[int]:
    """Return 42 twice."""
    interrupt_at_line(n, mark)
    return [42, 42]


def generate(n: int, mark: str) -> Any:
    """Yield 42 twice."""
    interrupt_at_line(n, mark)
    yield 42
    yield 42


def overdo(n: int, mark: str) -> Any:
    """Yield 42 once too often."""
    interrupt_at_line(n, mark)
    yield 42
    yield 42
    yield 42


def refuse(n: int, mark: str) -> int:
    """Raise an exception."""
    interrupt_at_line(n, mark)
    raise OSError("refused")


def refuse_once(n: int, mark: str) -> int:
    """Raise an exception in the first attempt; then return 42."""
    if os.path.exists(mark + ".tried"):
        return 42
    os.close(os.open(mark + ".tried", os.O_CREAT | os.O_WRONLY))
    interrupt_at_line(n, mark)
    raise OSError("refused")


TASKS = [
    pytest.param(give, {}, [[42]], id="small value"),
    pytest.param(give_list, {}, [[[42]]], id="value"),
    pytest.param(give_two, {"num_returns": 2}, [[42, 42]], id="list"),
    pytest.param(generate, {"num_returns": 2}, [[42, 42]], id="generator"),
    pytest.param(overdo, {"num_returns": 2}, [], id="generator of too many"),
    pytest.param(generate, {"num_returns": "dynamic"}, [[42, 42]], id="dynamic generator"),
    pytest.param(generate, {"num_returns": "streaming"}, [[42, 42]], id="streaming generator"),
    pytest.param(refuse, {}, [], id="exception"),
    pytest.param(
        refuse_once, {"max_retries": 1, "retry_exceptions": True}, [[42]], id="retried exception"
    ),
]


@pytest.mark.session(num_cpus=1)
@pytest.mark.parametrize(("function", "options", "values"), TASKS)
def test_interrupt_at_any_line_leaves_no_task_without_an_outcome(
    session: Connection,
    tmp_path: Any,
    function: Callable[..., Any],
    options: dict[str, Any],
    values: list[list[int]],
) -> None:
    task = ray.remote(**{"max_retries": 0, **options})(function)
    next_one = ray.remote(double)
    outcomes: Counter[str] = Counter()
    for n in range(1000):
        mark = tmp_path / str(n)
        refs = task.remote(n, str(mark))
        try:
            assert values_of(refs) in values
            outcomes["value"] += 1
        except (TaskCancelledError, WorkerCrashedError, ValueError, OSError) as error:
            outcomes[type(error).__name__] += 1
            assert not isinstance(error, TimeoutError)
        assert ray.get(next_one.remote(21), timeout=30) == 42
        if not mark.exists():
            break
    assert n > 5
    # A small value is stored before another line of Python runs.
    cancelled = outcomes["RayTaskError(TaskCancelledError)"] + outcomes["TaskCancelledError"]
    assert cancelled > 0 or function is give
    assert not session.core.is_over
    assert session.core.broken_invariant() is None


@pytest.mark.session(num_cpus=1)
def test_interrupt_of_a_task_that_was_handed_back_does_not_take_its_retry_away(
    session: Connection, tmp_path: Any
) -> None:
    """The supervisor has it, or will: the worker must not decide any more."""

    @ray.remote(max_retries=1, retry_exceptions=True)
    def task(path: str) -> str:
        from ray_lite import returns

        class InterruptedError(returns.StrandedError):
            def __init__(self):
                raise KeyboardInterrupt

        if not os.path.exists(path):
            open(path, "w").close()
            returns.StrandedError = InterruptedError
            raise OSError("the first time")
        return "value"

    assert ray.get(task.remote(str(tmp_path / "tried")), timeout=30) == "value"
    assert not session.core.is_over
