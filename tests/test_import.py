"""What `import ray_lite` brings with it: nothing heavy, and exactly the public names."""

import os
import subprocess
import sys

import pytest

import ray_lite

# Slow to import; only what uses them may load them.
HEAVY = {"asyncio", "email", "http", "multiprocessing", "pydoc", "ssl", "unittest", "xml"}
# What runs in other processes, or as a program of its own.
ROLES = {
    "actor_loop",
    "actor_worker",
    "demo",
    "demo_stream",
    "janitor",
    "logs",
    "returns",
    "runner",
    "scheduler",
    "supervisor",
    "worker",
}

PUBLIC = [
    "DynamicObjectRefGenerator",
    "ObjectRef",
    "ObjectRefGenerator",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "empty",
    "empty_like",
    "exceptions",
    "full",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "memory_summary",
    "method",
    "nodes",
    "ones",
    "put",
    "remote",
    "remote_function",
    "shutdown",
    "util",
    "wait",
    "zeros",
]


def run_fresh(program: str) -> str:
    """Return what `program` prints in an interpreter that has nothing loaded."""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout


def loaded_by(statement: str) -> set[str]:
    return set(run_fresh(f"{statement}; import sys; print(*sys.modules)").split())


@pytest.fixture(scope="module")
def added() -> set[str]:
    """What ray_lite loads beyond what numpy and cloudpickle do."""
    return loaded_by("import ray_lite") - loaded_by("import numpy, cloudpickle")


def test_import_loads_nothing_heavy(added: set[str]) -> None:
    assert sorted(added & HEAVY) == []


def test_import_loads_nothing_foreign_beyond_numpy_and_cloudpickle(added: set[str]) -> None:
    # Cython puts two helpers of its runtime into sys.modules.
    names = {name.partition(".")[0] for name in added if "cython" not in name}
    assert sorted(names - {"ray_lite"} - sys.stdlib_module_names) == []


def test_import_loads_no_role_of_another_process(added: set[str]) -> None:
    assert sorted(added & {f"ray_lite.{name}" for name in ROLES}) == []


def test_import_starts_no_thread_and_no_session_and_says_nothing() -> None:
    program = """
import os, numpy
before = os.listdir("/proc/self/task"), os.listdir("/proc/self/fd")
import ray_lite
assert (os.listdir("/proc/self/task"), os.listdir("/proc/self/fd")) == before
assert not ray_lite.is_initialized()
"""
    assert run_fresh(program) == ""


def test_public_names_are_exactly_these() -> None:
    assert sorted(ray_lite.__all__) == PUBLIC
    assert all(hasattr(ray_lite, name) for name in PUBLIC)


def test_star_import_brings_the_public_names() -> None:
    program = "from ray_lite import *; print(*sorted(n for n in dir() if n[0] != '_'))"
    assert run_fresh(program).split() == PUBLIC


def test_version_is_that_of_the_project() -> None:
    assert ray_lite.__version__.count(".") == 2


def test_import_elsewhere_than_on_linux_says_so() -> None:
    program = """
import sys
sys.platform = "win32"
try:
    import ray_lite
except ImportError as error:
    print(error)
"""
    assert "Linux only" in run_fresh(program)
