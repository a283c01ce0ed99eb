"""A worker dies at each kill point of the core, at several passages; the others go on.

Needs a build with kill points, which is made in build/faults the first time (some ten seconds).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .processes import ROOT, Program

HERE = Path(__file__).parent
POINTS = sorted(
    {
        name
        for path in (ROOT / "csrc").glob("*.c")
        for name in re.findall(r'RL_KILL_POINT\("([^"]+)"\)', path.read_text())
    }
)

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def faults_build() -> Path:
    """Where a build of the package with kill points is."""
    where = ROOT / "build" / "faults" / "lib"
    build = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build", "--build-lib", str(where)],
        cwd=ROOT,
        env={**os.environ, "RAY_LITE_FAULTS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return where


def run_program(build: Path, directory: Path, name: str, *, repairs: bool = True) -> Program:
    """Start the program that has its workers die at point `name`."""
    spool, own = directory / "spool", directory / "own"
    spool.mkdir()
    own.mkdir()
    return Program(
        HERE / "kill_point_program.py",
        name,
        directory=own,
        paths=(HERE / "hooks", build),
        environment={
            "RAY_LITE_TEST_SPOOL": str(spool),
            "RAY_LITE_TEST_REPAIRS": str(int(repairs)),
        },
    )


def test_kill_points_are_found() -> None:
    assert len(POINTS) >= 40


@pytest.mark.timeout(120)  # the first one builds
@pytest.mark.parametrize("name", POINTS)
def test_worker_killed_at(name: str, faults_build: Path, tmp_path: Path) -> None:
    with run_program(faults_build, tmp_path, name) as program:
        out, err = program.process.communicate(timeout=40)
        assert program.process.returncode == 0, err
        assert json.loads(out.splitlines()[-1])["deaths"] >= 1
        assert program.leftovers() == []


@pytest.mark.parametrize("name", ["task.claim.before", "object.put.before", "task.free.after"])
def test_worker_killed_with_repair_switched_off_is_noticed(
    name: str, faults_build: Path, tmp_path: Path
) -> None:
    """The control: without repair the same program must find something wrong, or come to a halt."""
    with run_program(faults_build, tmp_path, name, repairs=False) as program:
        try:
            out, err = program.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            return
        assert program.process.returncode != 0, out
        assert "Error" in err
        assert "no worker passed" not in err  # that would be the program's own fault
