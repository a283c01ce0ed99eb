"""What a type checker makes of programs that use ray_lite.

Owns the programs of tests/typing/programs, which are read by mypy and never run. They state the
right types with `assert_type`, and the wrong lines with `# expect-error: code`; mypy must find
these errors and no others.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy reads these programs; pip install --group lint brings it")

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(Path(__file__).parent.glob("programs/*.py"))
EXPECTED = re.compile(r"# expect-error: ([\w-]+(?:, [\w-]+)*)$")
FOUND = re.compile(r"(?P<path>.+?):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$")

#: (line, code) of each error.
Errors = list[tuple[int, str]]


@pytest.fixture(scope="module")
def output() -> list[str]:
    """Return what mypy says of all programs, line by line: one run, for starting it is the cost."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    done = subprocess.run(
        [*command, *map(str, PROGRAMS)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), f"mypy did not get through:\n{done.stdout}{done.stderr}"
    return done.stdout.splitlines()


def errors_expected(program: Path) -> Errors:
    found: Errors = []
    for number, line in enumerate(program.read_text().splitlines(), start=1):
        if match := EXPECTED.search(line):
            found += [(number, code) for code in match[1].split(", ")]
    return sorted(found)


def errors_found(output: list[str], program: Path) -> Errors:
    matches = [match for line in output if (match := FOUND.match(line))]
    return sorted(
        (int(match["line"]), match["code"])
        for match in matches
        if (ROOT / match["path"]).samefile(program)
    )


@pytest.mark.timeout(300)  # the first run reads numpy's stubs too
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_program_has_the_type_errors_that_it_expects_and_no_others(
    output: list[str], program: Path
) -> None:
    assert errors_found(output, program) == errors_expected(program), "\n".join(output)


def test_programs_expect_at_least_one_error_each() -> None:
    assert PROGRAMS
    assert all(errors_expected(program) for program in PROGRAMS)
