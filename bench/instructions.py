"""How many instructions do submit, take, seal, put and get take?

Method: counted, not timed, so a busy machine does not matter and a change of 1 % shows. C:
instructions.c under callgrind, inclusive of what each public function of the core calls. Python: a
driver under callgrind calls something 2000 and 12,000 times; the difference is that of 10,000
calls. Where valgrind is missing, `perf stat` counts the Python calls, and the C functions are left
out.
Unit: instructions a call, in user mode.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROUNDS: Final = 10_000
FEW: Final = 2_000
FUNCTIONS: Final = {
    "rl_task_submit": "submit",
    "rl_task_take": "take",
    "rl_task_return": "seal of a return value",
    "rl_task_finish": "finish",
    "rl_object_put": "put (small, and of a filled block: mean)",
    "rl_arena_fill": "claim of a 64 KiB block",
    "rl_object_is_sealed": "is it there?",
    "rl_object_read": "read of a value",
    "rl_object_release": "drop of a reference (mean)",
}
CALLS: Final = {
    "ray.put(0)": "ray.put(0)",
    "ray.get(ref)": "ray.get(ref)",
    "ray.wait([ref])": "ray.wait([ref])",
    "task.remote()": "kept.append(task.remote())",
    "task.remote(1, 'a')": "kept.append(task.remote(1, 'a'))",
    "task.remote(ref)": "kept.append(task.remote(ref))",
}
# No CPU: what is submitted stays in its queue, so no worker gets in the way of the count; nor do
# numpy's threads, of which there are none (OPENBLAS_NUM_THREADS): they spin as they start. Valgrind
# before 3.22 does not know pidfd_open: the driver then watches something that never ends, and goes
# without waiting for the supervisor, which ends by itself.
DRIVER: Final = """
import os
try:
    os.close(os.pidfd_open(os.getpid()))
except OSError:
    os.pidfd_open = lambda pid, flags=0: os.eventfd(0)
import ray_lite as ray
ray.init(num_cpus=0)
ref, task, kept = ray.put(0), ray.remote(lambda *args: None), []
for _ in range({count}):
    {call}
os._exit(0)
"""


def count_functions(program: str) -> dict[str, float]:
    """Return {function: instructions a call} of the C program."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "callgrind.out"
        _run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", program, str(ROUNDS)])
        text = _run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(out)]).stdout
    counts: dict[str, int] = {}
    for line in text.splitlines():
        found = re.match(r"\s*([\d,]+) .*?:(rl_\w+)\b", line)
        if found and found[2] in FUNCTIONS:
            counts.setdefault(found[2], int(found[1].replace(",", "")))
    calls = {
        "rl_object_put": 2,
        "rl_object_read": 3,
        "rl_object_release": 3,
        "rl_object_is_sealed": 3,
    }
    return {
        name: counts[name] / ROUNDS / calls.get(name, 1) for name in FUNCTIONS if name in counts
    }


def count_call(call: str) -> float:
    """Return the driver's instructions for one call of the Python API."""
    few, many = (_count_driver(DRIVER.format(count=n, call=call)) for n in (FEW, FEW + ROUNDS))
    return (many - few) / ROUNDS


def _count_driver(code: str) -> int:
    python = [sys.executable, "-c", code]
    if shutil.which("valgrind"):
        done = _run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *python])
        found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    else:
        done = _run(["perf", "stat", "--no-inherit", "-x,", "-e", "instructions:u", *python])
        found = re.search(r"^(\d+),", done.stderr, re.MULTILINE)
    if found is None:
        sys.exit(f"no count of instructions in:\n{done.stderr}")
    return int(found[1])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done


def main() -> None:
    """Print both tables, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="the compiled instructions.c (make bench-instructions)")
    options = parser.parse_args()
    if not shutil.which("valgrind") and not shutil.which("perf"):
        sys.exit("neither valgrind nor perf is installed; one of them has to count")
    print("| C core | does | instructions |\n|---|---|---|")
    if shutil.which("valgrind"):
        for name, count in count_functions(options.program).items():
            print(f"| `{name}` | {FUNCTIONS[name]} | {count:,.0f} |")
    else:
        print("| not counted: valgrind is not installed | | |")
    print("\n| Python, the driver's side | instructions |\n|---|---|")
    for name, call in CALLS.items():
        print(f"| `{name}` | {count_call(call):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
