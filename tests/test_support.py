"""The tests' own tools: a check that finds nothing proves something only if it can find."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import Belongings, Output, descendants, eventually, is_gone, leaks_since

from ray_lite import _core

HERE = Path(__file__).parent


@contextmanager
def open_descriptor() -> Iterator[str]:
    fd = os.open("/dev/null", os.O_RDONLY)
    yield f"descriptors: {fd} -> /dev/null"
    os.close(fd)


@contextmanager
def living_child() -> Iterator[str]:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        yield f"children: {child.pid} /bin/cat"


@contextmanager
def zombie() -> Iterator[str]:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert eventually(lambda: is_gone(pid))
    yield f"children: {pid} (zombie)"
    os.waitpid(pid, 0)


@contextmanager
def grandchild() -> Iterator[str]:
    with subprocess.Popen(
        ["/bin/sh", "-c", "sleep 1000 & echo $!; wait"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        yield f"children: {int(child.stdout.readline())}"
        os.killpg(child.pid, signal.SIGKILL)


@contextmanager
def running_thread() -> Iterator[str]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="left-over")
    thread.start()
    yield f"threads: {thread.native_id} left-over"
    end.set()
    thread.join()


@contextmanager
def mapped_segment() -> Iterator[str]:
    segments = _core.Segments.create(1 << 20)
    segments.close_fds()
    yield "mappings: "
    del segments


@contextmanager
def temporary_file() -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="left-over-") as file:
        yield f"files: {Path(file.name).name}"


KINDS = [
    open_descriptor,
    living_child,
    zombie,
    grandchild,
    running_thread,
    mapped_segment,
    temporary_file,
]


@pytest.mark.parametrize("leak", KINDS)
def test_leaks_since_finds_what_was_left_over_and_nothing_once_it_is_gone(
    leak: Callable[[], "contextmanager[str]"],
) -> None:
    before = Belongings.now()
    with leak() as line:  # type: ignore[attr-defined]
        assert any(found.startswith(line) for found in leaks_since(before, patience=0))
    assert leaks_since(before) == []


def test_leaks_since_ignores_the_kinds_that_it_is_told_to() -> None:
    before = Belongings.now()
    with open_descriptor():
        assert leaks_since(before, ignore=["descriptors"], patience=0) == []


def test_descendants_of_a_process_without_children_are_none() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        assert descendants(child.pid) == set()


def test_output_of_a_child_born_while_redirected_is_read_from_then_on(tmp_path: Path) -> None:
    output = Output(tmp_path)
    with output.redirected():
        child = subprocess.Popen(
            ["/bin/sh", "-c", "echo first; echo second >&2; read x; echo third"],
            stdin=subprocess.PIPE,
        )
    with child:
        assert output.until("first", "second")
        child.communicate(b"go\n")
    assert (output.out, output.err) == ("first\nthird\n", "second\n")


BAD_FILE = """
    import os
    import threading
    import pytest
    import ray_lite

    def test_that_leaves_a_descriptor():
        os.open("/dev/null", os.O_RDONLY)

    def test_that_leaves_a_session():
        ray_lite.init(num_cpus=1, object_store_memory=80 * 2**20)

    def test_that_leaves_nothing():
        ray_lite.shutdown()

    def test_that_leaves_a_reference(session):
        global kept
        kept = ray_lite.put(1)
"""


def test_leak_check_fails_each_test_that_leaves_something_over(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(textwrap.dedent(BAD_FILE))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-q", "-rA", "--leak-patience=0.2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    errors = [line for line in run.stdout.splitlines() if line.startswith("ERROR ")]
    assert [line.split("::")[1].split()[0] for line in errors] == [
        "test_that_leaves_a_descriptor",
        "test_that_leaves_a_session",
        "test_that_leaves_a_reference",
    ], run.stdout
