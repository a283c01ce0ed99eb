"""What type checkers make of programs that use ray_lite.

Owns the programs of tests/typing/programs, which are read by mypy and pyright, both at their
strictest, and never run. They state the right types with `assert_type`, and the wrong lines with

    # expect-error: code           both find it; mypy with this code
    # expect-mypy-error: code      only mypy
    # expect-pyright-error         only pyright

and each checker must find these errors and no others.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(Path(__file__).parent.glob("programs/*.py"))
EXPECTED = re.compile(r"# expect-(?:(?P<by>mypy|pyright)-)?error(?:: (?P<code>[\w-]+))?$")
FOUND_BY_MYPY = re.compile(r"(?P<path>.+?):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$")

#: The lines of a program with an error; for mypy each with the error's code.
Errors = dict[int, str]


def run_checker(*arguments: str) -> str:
    """Return what a checker says of all programs: one run, for starting it is the cost."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments, *map(str, PROGRAMS)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    # A tool that is not there ends with 1 as well, and says nothing on stdout.
    assert done.returncode in (0, 1) and done.stdout, f"{arguments[0]}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def mypy() -> Callable[[Path], Errors]:
    """Return what tells mypy's errors in a program."""
    said = run_checker("mypy", "--strict", "--config-file=", "--no-error-summary")
    matches = [match for line in said.splitlines() if (match := FOUND_BY_MYPY.match(line))]
    return lambda program: {
        int(match["line"]): match["code"]
        for match in matches
        if (ROOT / match["path"]).samefile(program)
    }


@pytest.fixture(scope="module")
def pyright() -> Callable[[Path], Errors]:
    """Return what tells pyright's errors in a program; that it is strict, each program says."""
    said = run_checker("pyright", "--pythonpath", sys.executable, "--outputjson")
    reports = json.loads(said)["generalDiagnostics"]
    return lambda program: {
        report["range"]["start"]["line"] + 1: ""
        for report in reports
        if report["severity"] == "error" and Path(report["file"]).samefile(program)
    }


def errors_expected(program: Path, checker: str) -> Errors:
    lines = enumerate(program.read_text().splitlines(), start=1)
    return {
        number: (match["code"] or "") if checker == "mypy" else ""
        for number, line in lines
        if (match := EXPECTED.search(line)) and match["by"] in (None, checker)
    }


@pytest.mark.timeout(300)  # the first run reads numpy's stubs too
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_program_has_the_errors_that_it_expects_of_mypy_and_no_others(
    mypy: Callable[[Path], Errors], program: Path
) -> None:
    assert mypy(program) == errors_expected(program, "mypy")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_program_has_the_errors_that_it_expects_of_pyright_and_no_others(
    pyright: Callable[[Path], Errors], program: Path
) -> None:
    assert pyright(program) == errors_expected(program, "pyright")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_program_expects_an_error_of_each_checker_and_is_strict(program: Path) -> None:
    assert errors_expected(program, "mypy")
    assert errors_expected(program, "pyright")
    assert program.read_text().startswith("# pyright: strict\n")


def test_programs_are_there() -> None:
    assert PROGRAMS
