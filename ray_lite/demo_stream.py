"""The second job of the demo: stream a file through three generator tasks, in constant memory.

Owns the three stages, the check of the result and the table that is printed. As the first job it
uses the public interface only; files, sizes and the watch over memory are demo.py's.

    input.npy ──► blocks ──yield──► chosen ──yield──► sums ──yield──► driver
                  (a task)          (a task)          (a task)

Each stage is a streaming generator that starts the one before it and pauses while `AHEAD` of its
values are not taken, so however long the file is, only a few blocks are in the store.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import ray_lite as ray
from ray_lite.demo import (
    MIB,
    DemoError,
    Peaks,
    Progress,
    Sampler,
    Source,
    format_size,
    open_source,
    segment_bytes,
    write_random_input,
)

AHEAD: Final = 2  # values of a stage that may wait for the next one
BLOCK_BYTES: Final = 4 * MIB
STORE: Final = 128 * MIB
STAGES: Final = 3

Totals = tuple[int, int]  # records that were chosen, and the sum of their keys modulo 2**64


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the pipeline took."""

    nbytes: int
    seconds: float
    peaks: Peaks


# ---- the stages ----


@ray.remote(_generator_backpressure_num_objects=AHEAD)
def blocks(source: Source, rows: int) -> Iterator[NDArray[Any]]:
    """Yield the keys of the file, `rows` records at a time."""
    for start in range(0, source.count, rows):
        records = source.records(start, min(start + rows, source.count))
        yield source.keys(records).copy()


@ray.remote(_generator_backpressure_num_objects=AHEAD)
def chosen(source: Source, rows: int) -> Iterator[NDArray[Any]]:
    """Yield the keys of each block that are even."""
    for ref in blocks.remote(source, rows):
        keys = ray.get(ref)
        yield keys[keys & 1 == 0]
        del keys


@ray.remote(_generator_backpressure_num_objects=AHEAD)
def sums(source: Source, rows: int) -> Iterator[Totals]:
    """Yield how many keys each block has left, and their sum."""
    for ref in chosen.remote(source, rows):
        yield totals_of(ray.get(ref))


def totals_of(keys: NDArray[Any]) -> Totals:
    """Return how many keys there are, and their sum modulo 2**64."""
    return len(keys), int(np.add.reduce(keys, dtype=np.uint64))


def add(left: Totals, right: Totals) -> Totals:
    """Return the totals of both parts."""
    return left[0] + right[0], (left[1] + right[1]) % 2**64


# ---- the job ----


def run_pipeline(source: Source, num_cpus: int) -> Run:
    """Stream the file through the stages in a session of its own, and check the result.

    Raises:
        DemoError: The result is not that of a direct computation.
    """
    rows = max(BLOCK_BYTES // source.dtype.itemsize, 1)
    progress = Progress(f"stream {format_size(source.nbytes)}", source.nbytes, brief=True)
    total, done = (0, 0), 0
    ray.init(num_cpus=num_cpus, object_store_memory=STORE)
    try:
        with Sampler(os.getpid()) as sampler:
            sampler.stage = "stream"
            started = time.perf_counter()
            for ref in sums.remote(source, rows):
                total = add(total, ray.get(ref))
                done = min(done + rows, source.count)
                progress.show(done / source.count)
            seconds = time.perf_counter() - started
            # Pages of the store stay once they were touched, so the end shows the peak.
            store = segment_bytes([os.getpid()])
    finally:
        ray.shutdown()
    expected = direct_totals(source, rows)
    if total != expected:
        raise DemoError(f"the pipeline found {total}, a direct computation {expected}")
    sampler.peaks.store = max(sampler.peaks.store, store)
    return Run(source.nbytes, seconds, sampler.peaks)


def direct_totals(source: Source, rows: int) -> Totals:
    """Compute the result without tasks."""
    total = (0, 0)
    for start in range(0, source.count, rows):
        keys = source.keys(source.records(start, min(start + rows, source.count)))
        total = add(total, totals_of(keys[keys & 1 == 0]))
    return total


def run_stream_demo(options: argparse.Namespace, scratch: Path) -> None:
    """Stream a file, and for comparison one of a quarter of its size; print what both took."""
    num_cpus = options.num_cpus or len(os.sched_getaffinity(0))
    runs = [run_pipeline(source, num_cpus) for source in make_sources(options, scratch)]
    print(
        f"{STAGES} generator stages, blocks of {format_size(BLOCK_BYTES)}, {AHEAD} values ahead, "
        f"{num_cpus} CPUs, store {format_size(STORE)}; results verified\n"
    )
    rows = [
        ("file", [format_size(run.nbytes) for run in runs]),
        ("seconds", [f"{run.seconds:.2f}" for run in runs]),
        ("GB/s", [f"{run.nbytes / run.seconds / 1e9:.2f}" for run in runs]),
        ("peak heap of one stage", [format_size(run.peaks.worker["stream"]) for run in runs]),
        ("peak heap of all processes", [format_size(run.peaks.everyone) for run in runs]),
        ("peak shared memory", [format_size(run.peaks.store) for run in runs]),
    ]
    for label, cells in rows:
        print(f"{label:<32}" + "".join(f"{cell:>14}" for cell in cells))


def make_sources(options: argparse.Namespace, scratch: Path) -> list[Source]:
    """Return the user's file and its first quarter, or two new files of random records."""
    if options.input is not None:
        whole = open_source(os.path.abspath(options.input), options.key)
        quarter = Source(whole.path, whole.dtype, whole.key, whole.offset, whole.count // 4)
        return [quarter, whole]
    sources: list[Source] = []
    for size in (options.size // 4, options.size):
        path = str(scratch / f"input{len(sources)}.npy")
        write_random_input(path, size, Progress("write random input", size, brief=True))
        sources.append(open_source(path, options.key))
    return sources
