"""Sessions for the tests, the leak check after each of them, and the option --engine.

Owns what every test may rely on: that it starts with nothing left over from the one before, and
that it fails if it leaves something over itself. The cases of tests/conformance bring their own
sessions and are checked file by file.
"""

import gc
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import MIB, Attempts, Belongings, Gate, Output, count_attempts, eventually, leaks_since

import ray_lite
from ray_lite import _core
from ray_lite import session as sessions
from ray_lite.session import Connection

CONFORMANCE = Path(__file__).parent / "conformance"
SESSION: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 * MIB}

_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --engine here too, for a run that starts above tests/conformance."""
    parser.addoption(
        "--engine",
        choices=("ray_lite", "ray"),
        default="ray_lite",
        help="the engine that tests/conformance runs on",
    )
    parser.addoption(
        "--leak-patience",
        type=float,
        default=5.0,
        help="seconds that processes, threads and references are given to end after a test",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests a directory for temporary files of their own, so that each one shows."""
    config.addinivalue_line(
        "markers",
        "session(patience=10.0, worker_exports=0, **options): what the fixture `session` gives to "
        "init; how many functions each worker may export",
    )
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    directory = tempfile.TemporaryDirectory(prefix="ray_lite-tests-")
    config.add_cleanup(directory.cleanup)
    tempfile.tempdir = os.environ["TMPDIR"] = directory.name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On Ray there is nothing to run but the conformance cases."""
    if config.getoption("--engine") != "ray":
        return
    ours = [item for item in items if not is_conformance(item)]
    config.hook.pytest_deselected(items=ours)
    items[:] = [item for item in items if is_conformance(item)]


def is_conformance(item: pytest.Item | pytest.Collector) -> bool:
    """Whether a test belongs to tests/conformance."""
    return CONFORMANCE in item.path.parents


# ---- leaks ----


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Remember a failure: its traceback keeps things alive, which is no leak."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
        item.parent.stash[_failed] = True  # type: ignore[union-attr]
    return report


@pytest.fixture(scope="module", autouse=True)
def _module_leaks_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a file that leaves something over when its sessions have ended."""
    node = request.node
    if is_conformance(node) and request.config.getoption("--engine") == "ray":
        yield  # Ray's habits are not ours to judge
        return
    check = check_for_leaks(node)
    next(check)
    yield
    ray_lite.shutdown()
    next(check, None)


@pytest.fixture(autouse=True)
def _leaks_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something over.

    The session that a file's tests share is up before the look and after it; its workers may come
    and go with the work.
    """
    if is_conformance(request.node):
        yield
        return
    shared = "shared_session" in request.fixturenames
    if shared and sessions.current() is None:
        ray_lite.init(**SESSION)
    elif not shared:
        ray_lite.shutdown()
    yield from check_for_leaks(request.node, ignore=("children",) if shared else ())


def check_for_leaks(node: Any, ignore: tuple[str, ...] = ()) -> Iterator[None]:
    """Compare what this process has before and after; not after a failure."""
    before = Belongings.now()
    yield
    if not node.stash.get(_failed, False):
        left = leaks_since(before, ignore=ignore, patience=patience_of(node))
        assert not left, "left over:\n  " + "\n  ".join(left)


def patience_of(node: Any) -> float:
    """Return how many seconds a test's traces have to vanish."""
    return float(node.config.getoption("--leak-patience"))


# ---- sessions ----


@pytest.fixture
def printed(tmp_path: Path) -> Output:
    """What the fixture `session` prints."""
    return Output(tmp_path)


@pytest.fixture
def session(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, printed: Output
) -> Iterator[Connection]:
    """A session for one test, sound and empty again at its end.

    Two CPUs and 100 MiB, unless the mark `session` says otherwise.
    """
    mark = request.node.get_closest_marker("session")
    options = SESSION | (mark.kwargs if mark else {})
    worker_exports = options.pop("worker_exports", 0)
    monkeypatch.setattr(sessions, "STORE_PATIENCE", options.pop("patience", 10.0))
    with printed.redirected():
        ray_lite.init(**options)
    connection = sessions.current()
    assert connection is not None
    yield weakref.proxy(connection)  # pytest keeps what a fixture gave until after the leak check
    try:
        check_sound_and_empty(request.node, connection, worker_exports)
    finally:
        ray_lite.shutdown()


@pytest.fixture
def shared_session(request: pytest.FixtureRequest, _leaks_nothing: None) -> Iterator[Connection]:
    """A session for the tests of one file that do not disturb each other; checked after each."""
    connection = sessions.current()
    assert connection is not None
    yield weakref.proxy(connection)
    check_sound_and_empty(request.node, connection)


def check_sound_and_empty(node: Any, connection: Connection, worker_exports: int = 0) -> None:
    """Fail if an invariant of the core is broken, or if it holds more than exported functions.

    Args:
        node: The test; after a failure its traceback still holds what it had, and nothing is said.
        connection: The session; nothing is said of one that is over.
        worker_exports: How many functions each worker may have exported for nested tasks.
    """
    core = connection.core
    if core.is_over or node.stash.get(_failed, False):
        return
    # For a moment a live process has let go of an object and not yet freed it (rl_object.h, O1).
    assert eventually(lambda: core.broken_invariant() is None), core.broken_invariant()
    roles = [role for _, _, role, _ in core.slots()]
    exports = len(connection.cache) + worker_exports * roles.count(_core.ROLE_WORKER)

    def is_empty() -> bool:
        gc.collect()
        usage = core.usage()
        return usage["tasks"] == 0 and usage["objects"] <= exports

    assert eventually(is_empty, patience_of(node)), (
        f"more is left than {exports} exported functions: {core.usage()}"
    )


# ---- steering tasks ----


@pytest.fixture
def new_gate(tmp_path: Path) -> Iterator[Any]:
    """A maker of gates, all opened in the end so that no task outlives its test."""
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate(tmp_path / f"gate{len(gates)}"))
        return gates[-1]

    yield make
    for gate in gates:
        gate.close()


@pytest.fixture
def gate(new_gate: Any) -> Gate:
    """One gate, shut."""
    made: Gate = new_gate()
    return made


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    """A counter of a task's attempts."""
    return count_attempts(tmp_path / "attempts")
