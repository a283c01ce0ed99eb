"""The choice of the engine, its sessions, and the mark of deliberate differences.

Owns the option --engine and every fixture of the conformance cases. Must not know
how an engine works: sessions start and end through `init` and `shutdown` alone.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .support import MIB, Attempts, Gate, count_attempts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

HERE = Path(__file__).parent

# One token and two CPUs are enough to see tasks share, wait and exclude each other.
SESSION: dict[str, Any] = {
    "num_cpus": 2,
    "resources": {"token": 1},
    "object_store_memory": 100 * MIB,
    "log_to_driver": False,
}
RAY_ONLY: dict[str, Any] = {"include_dashboard": False, "logging_level": "error"}

# The first is Ray's opinion of "dynamic"; the others are the habits of its own
# start-up and shutdown, which a suite with `filterwarnings = error` must let pass.
ANY_ENGINE_WARNINGS = ("ignore:.*dynamic.*:DeprecationWarning",)
RAY_WARNINGS = (
    "ignore::ResourceWarning",
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --engine, unless a conftest above has done so already."""
    with contextlib.suppress(ValueError):
        parser.addoption(
            "--engine",
            choices=("ray_lite", "ray"),
            default="ray_lite",
            help="the engine that tests/conformance runs on",
        )


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark that this directory brings."""
    config.addinivalue_line(
        "markers",
        "deliberately_different(reason, runs_on_ray=True): ray_lite differs from Ray on purpose; "
        "on Ray the case is expected to fail, or is not run where it would crash or hang",
    )


def engine_name(config: pytest.Config) -> str:
    """Return the chosen engine; the default where pytest started above this directory."""
    return str(config.getoption("--engine", default="ray_lite"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each engine's own warnings pass, and turn deliberate differences round on Ray."""
    on_ray = engine_name(config) == "ray"
    warnings = ANY_ENGINE_WARNINGS + (RAY_WARNINGS if on_ray else ())
    for item in items:
        if HERE not in item.path.parents:
            continue
        for warning in warnings:
            item.add_marker(pytest.mark.filterwarnings(warning))
        difference = item.get_closest_marker("deliberately_different")
        if on_ray and difference is not None:
            item.add_marker(expectation_on_ray(*difference.args, **difference.kwargs))


def expectation_on_ray(reason: str, *, runs_on_ray: bool = True) -> pytest.MarkDecorator:
    """Return the mark that states what a deliberately different case does on Ray.

    Args:
        reason: One line: what Ray does instead.
        runs_on_ray: False where running the case would crash or hang Ray.

    Returns:
        A strict xfail, so that we notice when Ray changes, or a skip.
    """
    if not runs_on_ray:
        return pytest.mark.skip(reason=f"not run on Ray: {reason}")
    return pytest.mark.xfail(strict=True, reason=f"Ray differs: {reason}")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> ModuleType:
    """The module of the chosen engine, with no session started."""
    name = engine_name(request.config)
    if name == "ray":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    return importlib.import_module(name)


@pytest.fixture(scope="session")
def session_options(engine: ModuleType) -> dict[str, Any]:
    """The keywords of `init` for a small, quiet session of the chosen engine."""
    return SESSION | (RAY_ONLY if engine.__name__ == "ray" else {})


@pytest.fixture(scope="module")
def ray(engine: ModuleType, session_options: dict[str, Any]) -> Iterator[ModuleType]:
    """The module of the chosen engine, in a session that the cases of one file share."""
    engine.shutdown()
    engine.init(**session_options)
    yield engine
    engine.shutdown()


@pytest.fixture
def new_gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """A maker of gates, all opened in the end so that no task outlives its case."""
    gates: list[Gate] = []
    numbers = itertools.count()

    def make() -> Gate:
        gates.append(Gate(tmp_path / f"gate{next(numbers)}"))
        return gates[-1]

    yield make
    for gate in gates:
        gate.close()


@pytest.fixture
def gate(new_gate: Callable[[], Gate]) -> Gate:
    """One gate, shut."""
    return new_gate()


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    """A counter of a task's attempts."""
    return count_attempts(tmp_path / "attempts")
