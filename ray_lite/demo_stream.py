"""The second job: stream a file through three generator tasks, in memory that does not grow.

Owns the three stages, the check of their result and the table that is printed. Like the first
job it uses the public interface only; the command line, files and sizes are demo.py's.

    input.npy ──► blocks ──yield──► chosen ──yield──► sums ──yield──► driver
                  (a task)          (a task)          (a task)

Each stage starts the one before it and iterates over its values, so it alone holds them. A stage
pauses while `AHEAD` of its values are not taken: however long the file is, no more than a few
blocks are in the store. The first quarter of the file is streamed, too, to show that.
"""

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import ray_lite as ray
from ray_lite.demo import (
    MIB,
    DemoError,
    Keys,
    Progress,
    Source,
    check_disk,
    descendants,
    format_size,
    make_source,
    row,
    segment_bytes,
    status_bytes,
)

STAGES = ("blocks", "chosen", "sums")
AHEAD = 2
# Neither the records nor the keys (8 bytes each) of a block take more than this.
BLOCK_BYTES = 4 * MIB
STORE = 128 * MIB

Totals = tuple[int, int]
"""How many keys, and their sum modulo 2**64."""


# --- the stages ----------------------------------------------------------------------------------


@ray.remote(_generator_backpressure_num_objects=AHEAD)
def blocks(source: Source) -> Iterator[Keys]:
    """Yield the keys of the file, block by block."""
    name_process("blocks")
    yield from key_blocks(source)


@ray.remote(_generator_backpressure_num_objects=AHEAD)
def chosen(source: Source) -> Iterator[Keys]:
    """Yield the even keys of each block."""
    name_process("chosen")
    for keys in blocks.remote(source):
        yield even(ray.get(keys))


@ray.remote(_generator_backpressure_num_objects=AHEAD)
def sums(source: Source) -> Iterator[Totals]:
    """Yield the totals of what each block has left."""
    name_process("sums")
    for keys in chosen.remote(source):
        yield totals_of(ray.get(keys))


def key_blocks(source: Source) -> Iterator[Keys]:
    """Yield the keys of `source`, at most `BLOCK_BYTES` of them or of their records at a time."""
    count = rows_of(source)
    for start in range(0, source.count, count):
        yield source.keys(source.records(start, min(start + count, source.count)))


def rows_of(source: Source) -> int:
    """Return the number of records in a block of `source`."""
    return max(1, BLOCK_BYTES // max(source.dtype.itemsize, np.dtype(np.uint64).itemsize))


def even(keys: Keys) -> Keys:
    """Return the keys that are even numbers."""
    kept: Keys = keys[keys & 1 == 0]
    return kept


def totals_of(keys: Keys) -> Totals:
    """Return the totals of `keys`."""
    return len(keys), int(keys.sum(dtype=np.uint64))


def total_of(parts: Iterable[Totals]) -> Totals:
    """Return the totals of all parts together."""
    count, keys = 0, 0
    for more, part in parts:
        count, keys = count + more, (keys + part) % 2**64
    return count, keys


# --- memory of the stages ------------------------------------------------------------------------


def name_process(name: str) -> None:
    """Name this process, in `top` and for the driver, which finds the stages by it."""
    Path("/proc/self/comm").write_text(name, encoding="ascii")


def name_of(pid: int) -> str:
    """Return the name of a process, an empty one if it has gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""


def peak_of(pid: int) -> int:
    """Return the most memory that `pid` ever had resident, 0 if it has gone.

    The kernel keeps this figure itself, so no moment between two looks at it is missed. It holds
    more than the heap: code, and the pages of the store that were touched, twice if both read
    and written.
    """
    return status_bytes(pid, b"VmHWM:")


@dataclass(slots=True)
class StagePeaks:
    """Peak bytes of a pipeline whose driver is this process."""

    stages: dict[str, int] = field(default_factory=dict)
    """By stage: `peak_of` its process."""
    store: int = 0
    """Shared memory that the session's segments occupied."""
    _pids: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Read all figures again; all stages run, or their processes idle."""
        if len(self._pids) < len(STAGES):
            named = {name_of(pid): pid for pid in descendants(os.getpid())}
            self._pids = {name: named[name] for name in STAGES if name in named}
        for name, pid in self._pids.items():
            self.stages[name] = max(self.stages.get(name, 0), peak_of(pid))
        self.store = max(self.store, segment_bytes([os.getpid()]))


@ray.remote
def idle_peak() -> int:
    """Return the peak of a worker that has imported what the stages need."""
    return peak_of(os.getpid())


# --- the job -------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Run:
    """The figures of one file."""

    nbytes: int
    seconds: float
    totals: Totals
    idle: int
    peaks: StagePeaks


def run_pipeline(source: Source, num_cpus: int, store: int) -> Run:
    """Stream `source` through the stages in a session of its own, and check the result.

    Raises:
        DemoError: A stage failed, or the result is not that of a direct computation.
    """
    try:
        ray.init(num_cpus=num_cpus, object_store_memory=store)
        run = stream(source)
    except Exception as error:
        raise DemoError(f"the pipeline failed: {type(error).__name__}: {error}") from error
    finally:
        ray.shutdown()
    check_totals(run.totals, direct_totals(source))
    return run


def stream(source: Source) -> Run:
    """Stream `source` through the stages, and look at their memory after each block."""
    idle = ray.get(idle_peak.remote())
    progress = Progress(f"stream {format_size(source.nbytes)}", source.nbytes, brief=True)
    count = -(-source.count // rows_of(source))
    totals, peaks = [], StagePeaks()
    started = time.perf_counter()
    for ref in sums.remote(source):
        totals.append(ray.get(ref))
        peaks.look()
        progress.show(len(totals) / count)
    seconds = time.perf_counter() - started
    return Run(source.nbytes, seconds, total_of(totals), idle, peaks)


def direct_totals(source: Source) -> Totals:
    """Compute the result in this process."""
    return total_of(totals_of(even(keys)) for keys in key_blocks(source))


def check_totals(found: Totals, expected: Totals) -> None:
    """Raise DemoError unless the pipeline found what a direct computation finds."""
    if found != expected:
        raise DemoError(
            f"the pipeline found {found[0]} even keys with the sum {found[1]:016x}, a direct"
            f" computation {expected[0]} with the sum {expected[1]:016x}"
        )


def run_stream_demo(options: argparse.Namespace, scratch: Path) -> None:
    """Stream the first quarter of a file, then all of it; print the figures side by side."""
    check_options(options)
    if options.input is None:
        check_disk([(scratch, options.size)])
    source = make_source(options, scratch)
    num_cpus = options.num_cpus or len(os.sched_getaffinity(0))
    store = options.store or STORE
    print(
        f"stream {format_size(source.nbytes)} through {len(STAGES)} generator tasks: blocks of"
        f" {rows_of(source)} records, {AHEAD} values ahead; {num_cpus} CPUs,"
        f" store {format_size(store)}",
        flush=True,
    )
    sources = [source] if options.no_compare else [quarter_of(source), source]
    runs = [run_pipeline(one, num_cpus, store) for one in sources]
    count, keys = runs[-1].totals
    print(f"verified: {count} of {source.count} keys are even, their sum is {keys:016x}\n")
    print_runs(runs)


def check_options(options: argparse.Namespace) -> None:
    """Raise DemoError if an option was given that only sorting has."""
    for name in ("output", "partitions", "map_tasks"):
        if getattr(options, name) is not None:
            raise DemoError(f"--{name.replace('_', '-')} is for sorting; leave it or --stream out")


def quarter_of(source: Source) -> Source:
    """Return the first quarter of the records, one at least."""
    return Source(source.path, source.dtype, source.key, source.offset, max(1, source.count // 4))


def print_runs(runs: list[Run]) -> None:
    """Print the figures of the files side by side."""
    row("file", [format_size(run.nbytes) for run in runs])
    row("seconds", [f"{run.seconds:.2f}" for run in runs])
    row("GB/s", [f"{run.nbytes / run.seconds / 1e9:.2f}" for run in runs])
    for name in STAGES:
        row(f"peak memory of '{name}'", [format_size(run.peaks.stages[name]) for run in runs])
    row("  of which before its first block", [format_size(run.idle) for run in runs])
    row("peak shared memory", [format_size(run.peaks.store) for run in runs])
