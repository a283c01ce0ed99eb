"""The main job: sort a file of fixed-size numpy records, larger than one likes to hold in a heap.

Owns the command line of `python -m ray_lite.demo`, the map and reduce tasks, the check of the
result and the figures that are printed. It uses the public interface only (init, remote, get,
wait, shutdown) and must know nothing of how ray_lite works inside. The second job, which streams,
is demo_stream.py's.

    input.npy ──slice──► map task ──yield piece 0, 1, ... P-1──► store
                         (a generator with num_returns = P)        │
    output.npy ◄──pwrite── reduce task p ◄──piece p of every map───┘

Each version of the map task (one yields its pieces, its twin returns them as a list) runs in a
process and a session of its own, so that the figures of one never contain the other:

    main process ──starts──► phase process (driver) ──► supervisor ──► workers
        └── sampler thread: reads /proc of all of these every 20 ms
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, TextIO

import numpy as np
from numpy.typing import NDArray

import ray_lite as ray

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
UNITS = {"": 1, "B": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB}

RECORD = np.dtype([("key", "<u8"), ("payload", "V24")])
SEED = 28689

# 16 bits number the records of a chunk, so the order within it takes 2 bytes a record, and a
# chunk of usual records stays in the second-level cache.
CHUNK = 1 << 16
WRITE_BYTES = MIB
SLICE_BYTES = 128 * MIB
# Above 32 MiB malloc maps fresh pages for each array, which cost several times the sort.
PARTITION_BYTES = 28 * MIB
MIN_PARTITIONS, MAX_PARTITIONS = 2, 4096
# Up to here one comparison of all keys per splitter beats a binary search per key.
COMPARED_SPLITTERS = 64
SAMPLE_BLOCKS, SAMPLE_BLOCK = 1024, 64

STORE_FACTOR, STORE_SLACK = 1.3, 128 * MIB
STORE_MIN_FACTOR = 1.1
SAMPLE_SECONDS = 0.02
SAMPLES_PER_WALK = 10
STOP_SECONDS = 10.0

VERSIONS = ("generator", "list")
DESCRIPTION = "Sort a file of numpy records, or stream it through three generator tasks."

Keys = NDArray[np.uint64]
Order = NDArray[np.int64]
# Records are moved as opaque bytes (dtype V<itemsize>): padding between fields survives, and one
# memcpy moves one record.
Records = NDArray[np.void]


class DemoError(Exception):
    """A wrong argument, or a machine too small for it: shown as one line, without a traceback."""


# --- sizes ---------------------------------------------------------------------------------------


def parse_size(text: str) -> int:
    """Return the bytes that `text` names: a number, then B, KiB, MiB, GiB or nothing.

    Raises:
        DemoError: `text` is not of that form, or names less than one byte.
    """
    stripped = text.strip()
    number = stripped.rstrip("BbKkMmGgIi ")
    unit = stripped[len(number) :].strip().upper()
    try:
        nbytes = float(number) * UNITS[unit]
    except (ValueError, KeyError):
        nbytes = math.nan
    if not (math.isfinite(nbytes) and nbytes >= 1):
        raise DemoError(f"{text!r} is not a size; write for example 4096, 64MiB or 1.5GiB")
    return int(nbytes)


def format_size(nbytes: float) -> str:
    """Return `nbytes` in the largest binary unit that keeps it at 1 or more."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes:.0f} B"


# --- the plan ------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Source:
    """An input file and how to read it: `count` records from byte `offset` on."""

    path: str
    dtype: np.dtype[Any]
    key: str | None
    offset: int
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return self.count * self.dtype.itemsize

    def records(self, start: int, stop: int) -> Records:
        """Return records [start, stop) as a read-only mapping of the file."""
        return map_records(self.path, self.offset, self.dtype.itemsize, start, stop)

    def keys(self, records: Records) -> Keys:
        """Return the keys of `records` as integers that sort as the keys do."""
        typed = records.view(self.dtype)
        return ordered_keys(typed if self.key is None else typed[self.key])


@dataclass(slots=True, frozen=True)
class Plan:
    """All that a task needs to know of the job; immutable and small, so it travels as a value."""

    source: Source
    splitters: Keys
    map_tasks: int
    num_cpus: int
    store: int

    @property
    def partitions(self) -> int:
        """Number of key ranges, and so of reduce tasks and of pieces per map task."""
        return len(self.splitters) + 1

    def slice_of(self, index: int) -> tuple[int, int]:
        """Return the first record of map task `index`, and the first one of the next."""
        count = self.source.count
        return index * count // self.map_tasks, (index + 1) * count // self.map_tasks


def map_records(path: str, offset: int, itemsize: int, start: int, stop: int) -> Records:
    """Map records [start, stop) of `path` read-only, as opaque bytes."""
    raw = np.dtype((np.void, itemsize))
    if start == stop:
        return np.empty(0, raw)
    position = offset + start * itemsize
    mapped = np.memmap(path, raw, "r", position, (stop - start,))
    return mapped.view(np.ndarray)


def ordered_keys(values: NDArray[Any]) -> Keys:
    """Return `values` as uint64 in the same order: equal stays equal, NaN and NaT come last.

    Args:
        values: Numbers, bools, dates or durations of at most 8 bytes; any byte order or stride.

    Returns:
        A new contiguous array of the same length.
    """
    sign = np.uint64(1 << 63)
    kind = values.dtype.kind
    if kind in "ub":
        return values.astype(np.uint64)
    if kind == "i":
        return values.astype(np.int64).view(np.uint64) ^ sign
    if kind in "mM":
        # NaT is the smallest integer: taking one off wraps it round to the largest.
        stamps = values.astype(values.dtype.newbyteorder("=")).view(np.uint64)
        return (stamps ^ sign) - np.uint64(1)
    floats = values.astype(np.float64) + 0.0  # makes -0.0 and 0.0 one key
    bits = floats.view(np.uint64)
    keys = np.where(bits & sign, ~bits, bits | sign)
    keys[np.isnan(floats)] = np.iinfo(np.uint64).max
    return keys


def check_key(dtype: np.dtype[Any], key: str | None) -> str | None:
    """Return the name of the key field of records of `dtype`, None for plain numbers.

    Raises:
        DemoError: No such field, or its values cannot be ordered as 8-byte numbers.
    """
    if dtype.hasobject:
        raise DemoError(f"records of dtype {dtype} hold Python objects; sort plain numbers")
    names = dtype.names
    if names is None:
        if key is not None:
            raise DemoError(f"--key {key}: the input has no fields (dtype {dtype}); leave it out")
        key_type = dtype
    else:
        key = names[0] if key is None else key
        if key not in names:
            raise DemoError(f"--key {key}: no such field; the input has {', '.join(names)}")
        key_type = dtype[key]
    if key_type.kind not in "ubifmM" or key_type.itemsize > 8:
        raise DemoError(f"cannot sort by a key of dtype {key_type}; it must be a number or a date")
    return key


def open_source(path: str, key: str | None) -> Source:
    """Read the header of the .npy file `path` and return how to read its records.

    Raises:
        DemoError: No such file, not a .npy file, not 1-d, empty, or no usable key.
    """
    try:
        # EOFError is an empty file, ValueError a file of another kind or one of Python objects.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DemoError(f"--input {path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise DemoError(f"--input {path}: not a readable .npy file ({error})") from None
    if not isinstance(array, np.memmap):
        raise DemoError(f"--input {path}: an archive; give a .npy file with one array")
    if array.ndim != 1:
        raise DemoError(f"--input {path}: shape {array.shape}; the array must be 1-dimensional")
    if len(array) == 0 or array.itemsize == 0:
        raise DemoError(f"--input {path}: holds no records")
    key = check_key(array.dtype, key)
    return Source(path, array.dtype, key, array.offset, len(array))


def sample_keys(source: Source) -> Keys:
    """Return the sorted keys of up to 64 Ki records, in blocks spread evenly over the file."""
    records = source.records(0, source.count)
    if source.count <= SAMPLE_BLOCKS * SAMPLE_BLOCK:
        return np.sort(source.keys(records))
    starts = np.linspace(0, source.count - SAMPLE_BLOCK, SAMPLE_BLOCKS).astype(np.int64)
    blocks = [source.keys(records[start : start + SAMPLE_BLOCK]) for start in starts]
    return np.sort(np.concatenate(blocks))


def choose_splitters(sample: Keys, partitions: int) -> Keys:
    """Return the `partitions` - 1 keys that cut a sorted `sample` into equal parts."""
    cuts = np.arange(1, partitions) * len(sample) // partitions
    return sample[cuts]


def make_plan(source: Source, options: argparse.Namespace) -> Plan:
    """Choose what the options leave open, and return the plan.

    Raises:
        DemoError: The numbers asked for do not fit the input.
    """
    cpus = options.num_cpus or len(os.sched_getaffinity(0))
    slices = options.map_tasks or cpus * math.ceil(max(1, source.nbytes / SLICE_BYTES) / cpus)
    parts = options.partitions or max(16, 2 * cpus, math.ceil(source.nbytes / PARTITION_BYTES))
    parts, slices = int(parts), int(slices)
    if not MIN_PARTITIONS <= parts <= MAX_PARTITIONS:
        raise DemoError(f"--partitions {parts}: must be {MIN_PARTITIONS} to {MAX_PARTITIONS}")
    if source.count < parts or source.count < slices:
        raise DemoError(
            f"{source.count} records are too few for {slices} map tasks and {parts} partitions;"
            " give a larger input or smaller numbers"
        )
    store = options.store or int(STORE_FACTOR * source.nbytes) + STORE_SLACK
    if store < STORE_MIN_FACTOR * source.nbytes:
        least = format_size(STORE_MIN_FACTOR * source.nbytes)
        raise DemoError(
            f"--store {format_size(store)}: all {format_size(source.nbytes)} pass through the"
            f" store at once; give at least {least}, or leave it out"
        )
    splitters = choose_splitters(sample_keys(source), parts)
    return Plan(source, splitters, slices, cpus, store)


# --- what a map task does ------------------------------------------------------------------------


def bucket_numbers(keys: Keys, splitters: Keys) -> NDArray[Any]:
    """Return for each key the partition it belongs to: the number of splitters <= key."""
    if len(splitters) > COMPARED_SPLITTERS:
        return np.searchsorted(splitters, keys, side="right").astype(np.uint16)
    buckets = np.zeros(len(keys), np.uint8)
    for splitter in splitters:
        buckets += keys >= splitter
    return buckets


class Split:
    """Which records of one slice belong to which partition, in about 2 bytes a record.

    The order is kept chunk by chunk, so the only large memory is the piece asked for.
    """

    def __init__(self, source: Source, records: Records, splitters: Keys) -> None:
        """Read the keys of `records`, a slice of `source`, once."""
        self._chunks = [records[at : at + CHUNK] for at in range(0, len(records), CHUNK)]
        self._orders: list[NDArray[np.uint16]] = []
        self._bounds = np.zeros((len(self._chunks), len(splitters) + 2), np.int64)
        for row, chunk in zip(self._bounds, self._chunks, strict=True):
            buckets = bucket_numbers(source.keys(chunk), splitters)
            # A stable argsort of 8- or 16-bit integers is a radix sort.
            self._orders.append(np.argsort(buckets, kind="stable").astype(np.uint16))
            row[1:] = np.bincount(buckets, minlength=len(splitters) + 1).cumsum()

    def piece(self, partition: int) -> Records:
        """Return the records of `partition` as one new contiguous array, in input order."""
        starts, stops = self._bounds[:, partition], self._bounds[:, partition + 1]
        out = np.empty(int((stops - starts).sum()), self._chunks[0].dtype)
        at = 0
        for chunk, order, start, stop in zip(
            self._chunks, self._orders, starts, stops, strict=True
        ):
            picked = order[start:stop]
            # mode="clip" writes straight into `out`; "raise" would go through a copy.
            np.take(chunk, picked, out=out[at : at + len(picked)], mode="clip")
            at += len(picked)
        return out


def split_slice(plan: Plan, index: int) -> Split:
    """Return how the slice of map task `index` falls into partitions."""
    records = plan.source.records(*plan.slice_of(index))
    return Split(plan.source, records, plan.splitters)


@ray.remote
def map_generator(plan: Plan, index: int) -> Iterator[Records]:
    """Yield the slice partition by partition: the heap holds one piece at a time."""
    split = split_slice(plan, index)
    for partition in range(plan.partitions):
        yield split.piece(partition)


@ray.remote
def map_list(plan: Plan, index: int) -> list[Records]:
    """Return what `map_generator` yields, all at once: the heap holds the whole slice."""
    split = split_slice(plan, index)
    return [split.piece(partition) for partition in range(plan.partitions)]


# --- what a reduce task does ---------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Written:
    """What a reduce task wrote, or what a file was found to hold; the keys are ordered keys."""

    count: int
    checksum: int
    first: int
    last: int


def sorted_order(keys: Keys) -> Order:
    """Return the stable order that sorts `keys`.

    numpy sorts plain 64-bit integers several times faster than it sorts indices by them, so the
    key's leading bits and the index are packed into one integer. Keys that differ in the bits
    that did not fit are put right by a merge sort, which is quick on what is nearly sorted.
    """
    index_bits = (len(keys) - 1).bit_length()
    low, high = int(keys.min()), int(keys.max())
    lost_bits = max(0, (high - low).bit_length() + index_bits - 64)
    packed = keys - np.uint64(low)
    packed >>= np.uint64(lost_bits)
    packed <<= np.uint64(index_bits)
    packed |= np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    packed &= np.uint64((1 << index_bits) - 1)
    order = packed.view(np.int64)
    if lost_bits:
        arranged = keys.take(order)
        if (arranged[1:] < arranged[:-1]).any():
            order = order.take(np.argsort(arranged, kind="stable"))
    return order


def checksum_of(records: Records) -> int:
    """Return the sum over all records of a 64-bit hash of each: the same in any order.

    A changed, lost or duplicated record changes it; so do bytes that move between records.
    """
    itemsize = records.dtype.itemsize
    width = -(-itemsize // 8)
    if itemsize % 8:
        padded = np.zeros((len(records), width * 8), np.uint8)
        padded[:, :itemsize] = records.view(np.uint8).reshape(len(records), itemsize)
        words = padded.view(np.uint64)
    else:
        words = np.ascontiguousarray(records).view(np.uint64).reshape(len(records), width)
    hashes = np.full(len(records), 0x9E3779B97F4A7C15, np.uint64)
    factor = 0xD1342543DE82EF95
    for column in range(width):
        hashes += words[:, column] * np.uint64(factor)
        factor = (factor * 0xAF251AF3B0F025B5 + 2) & (2**64 - 1)  # stays odd
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0xD6E8FEB86659FD93)
    hashes ^= hashes >> np.uint64(32)
    return int(hashes.sum(dtype=np.uint64))


def write_sorted(
    source: Source, pieces: Sequence[Records], descriptor: int, position: int
) -> Written:
    """Sort the records of `pieces` and write them to `descriptor` from byte `position` on."""
    records = np.concatenate(pieces)
    if len(records) == 0:
        return Written(0, 0, 0, 0)
    keys = source.keys(records)
    order = sorted_order(keys)
    rows = max(1, WRITE_BYTES // records.dtype.itemsize)
    buffer = np.empty(rows, records.dtype)
    checksum = 0
    for at in range(0, len(order), rows):
        picked = order[at : at + rows]
        part = buffer[: len(picked)]
        np.take(records, picked, out=part, mode="clip")
        checksum += checksum_of(part)
        write_all(descriptor, part, position + at * records.dtype.itemsize)
    first, last = int(keys[order[0]]), int(keys[order[-1]])
    return Written(len(records), checksum % 2**64, first, last)


def write_all(descriptor: int, part: Records, position: int) -> None:
    """Write all of `part` at byte `position`; a short write is continued."""
    left = part.view(np.uint8).data
    while left:
        done = os.pwrite(descriptor, left, position)
        left, position = left[done:], position + done


@ray.remote
def reduce_partition(source: Source, path: str, position: int, *pieces: Records) -> Written:
    """Write the sorted records of `pieces` into the file `path` from byte `position` on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return write_sorted(source, pieces, descriptor, position)
    finally:
        os.close(descriptor)


# --- files and their check -----------------------------------------------------------------------


def create_npy(path: str, dtype: np.dtype[Any], count: int) -> int:
    """Create a .npy file for `count` records and return the offset of the first."""
    mapped: Any = np.lib.format.open_memmap(path, "w+", dtype, (count,))
    return int(mapped.offset)


def write_random_input(path: str, nbytes: int, progress: "Progress") -> None:
    """Write a .npy file of seeded random records, `nbytes` in all, rounded down."""
    rng = np.random.default_rng(SEED)
    count = nbytes // RECORD.itemsize
    offset = create_npy(path, RECORD, count)
    rows = 4 * MIB // RECORD.itemsize
    words = RECORD.itemsize // 8
    with open(path, "r+b") as file:
        file.seek(offset)
        for start in range(0, count, rows):
            size = min(rows, count - start) * words
            file.write(rng.integers(0, 2**64, size, np.uint64).data)
            progress.show((start + rows) / count)
        # Else the disk would still be writing it while the sort is timed.
        os.fsync(file.fileno())


def read_file(source: Source, *, in_order: bool, progress: "Progress") -> Written:
    """Read a whole file and return what it holds.

    Args:
        source: The file.
        in_order: Whether keys that go down are an error.
        progress: Told how far the reading is.

    Raises:
        DemoError: `in_order`, and a key is smaller than the one before it.
    """
    checksum, first, last = 0, 0, 0
    for start in range(0, source.count, CHUNK):
        records = source.records(start, min(start + CHUNK, source.count))
        keys = source.keys(records)
        checksum += checksum_of(records)
        first = int(keys[0]) if start == 0 else first
        if in_order:
            check_order(keys, last, start)
        last = int(keys[-1])
        progress.show((start + len(keys)) / source.count)
    return Written(source.count, checksum % 2**64, first, last)


def check_order(keys: Keys, previous: int, start: int) -> None:
    """Raise DemoError unless `keys`, of records from `start` on, rise from `previous` on."""
    falls = keys[1:] < keys[:-1]
    if int(keys[0]) >= previous and not falls.any():
        return
    record = start if int(keys[0]) < previous else start + int(falls.argmax()) + 1
    raise DemoError(f"the output is not sorted: the key of record {record} is less than the last")


def check_ranges(ranges: Sequence[Written], expected: Written) -> None:
    """Raise DemoError unless the reduce tasks wrote every record once, ranges in order."""
    check_same("what the reduce tasks wrote", total_of(ranges), expected)
    filled = [part for part in ranges if part.count]
    for left, right in itertools.pairwise(filled):
        if not left.first <= left.last <= right.first <= right.last:
            raise DemoError("the ranges of two reduce tasks overlap")


def total_of(ranges: Sequence[Written]) -> Written:
    """Return `ranges` as one: sums, and the outermost keys."""
    count = sum(part.count for part in ranges)
    checksum = sum(part.checksum for part in ranges) % 2**64
    filled = [part for part in ranges if part.count]
    if not filled:
        return Written(0, 0, 0, 0)
    return Written(count, checksum, filled[0].first, filled[-1].last)


def check_same(what: str, found: Written, expected: Written) -> None:
    """Raise DemoError unless `found` has the count and the checksum of the input."""
    if found.count != expected.count:
        raise DemoError(f"{what}: {found.count} records, the input has {expected.count}")
    if found.checksum != expected.checksum:
        raise DemoError(
            f"{what}: checksum {found.checksum:016x}, the input has {expected.checksum:016x}"
        )


# --- one version, in a process of its own --------------------------------------------------------

Report = Callable[[dict[str, Any]], None]


def run_maps(plan: Plan, version: str, report: Report) -> list[list[Any]]:
    """Run all map tasks; return for each partition the refs of its pieces."""
    task = map_generator if version == "generator" else map_list
    mapper = task.options(num_returns=plan.partitions)
    refs = [mapper.remote(plan, index) for index in range(plan.map_tasks)]
    # The last piece becomes visible when its task has ended.
    drain([row[-1] for row in refs], "map", report)
    return [list(column) for column in zip(*refs, strict=True)]


def run_reduces(
    plan: Plan, columns: list[list[Any]], path: str, position: int, report: Report
) -> list[Written]:
    """Run one reduce task per column of refs, emptying `columns`; return what each wrote.

    A column is dropped as soon as its task holds it, so its memory is free when the task ends.
    """
    pending = []
    while columns:
        column = columns.pop(0)
        count = sum(len(piece) for piece in ray.get(column))
        pending.append(reduce_partition.remote(plan.source, path, position, *column))
        position += count * plan.source.dtype.itemsize
        column.clear()
    drain(pending, "reduce", report)
    return [ray.get(ref) for ref in pending]


def drain(refs: list[Any], stage: str, report: Report) -> None:
    """Wait for all `refs`, reporting each that is ready; raise what a failed one raises."""
    pending = list(refs)
    report({"stage": stage, "done": 0, "total": len(refs)})
    while pending:
        ready, pending = ray.wait(pending, num_returns=1)
        ray.get(ready)
        report({"stage": stage, "done": len(refs) - len(pending), "total": len(refs)})


@ray.remote
def idle_heap() -> int:
    """Return the anonymous memory of a worker that has imported what the tasks need."""
    return anonymous_bytes(os.getpid())


def sort_once(plan: Plan, version: str, path: str, report: Report) -> dict[str, Any]:
    """Sort by one version in a new session; return seconds and what was written."""
    position = create_npy(path, plan.source.dtype, plan.source.count)
    ray.init(num_cpus=plan.num_cpus, object_store_memory=plan.store)
    try:
        idle = max(ray.get([idle_heap.remote() for _ in range(2 * plan.num_cpus)]))
        started = time.perf_counter()
        columns = run_maps(plan, version, report)
        ranges = run_reduces(plan, columns, path, position, report)
        seconds = time.perf_counter() - started
        report({"stage": "end", "done": 1, "total": 1})
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ray.shutdown()
    return {"seconds": seconds, "idle": idle, "ranges": [asdict(part) for part in ranges]}


def phase_main(version: str, descriptor: int) -> int:
    """Run one version; the job comes in on stdin, reports go out to `descriptor` line by line."""
    os.set_inheritable(descriptor, False)
    plan, path = pickle.load(sys.stdin.buffer)
    with open(descriptor, "w", encoding="utf-8") as out:

        def report(message: dict[str, Any]) -> None:
            out.write(json.dumps(message) + "\n")
            out.flush()

        try:
            report({"result": sort_once(plan, version, path, report)})
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            return 1
        except Exception as error:
            report({"error": f"{type(error).__name__}: {error}"})
            return 1
    return 0


# --- memory of a phase, read from /proc ----------------------------------------------------------


@dataclass(slots=True)
class Peaks:
    """Peak bytes of one phase. Anonymous memory only, so shared pages are never counted twice."""

    worker: dict[str, int] = field(default_factory=dict)
    """By stage: the largest anonymous memory of any one worker."""
    everyone: int = 0
    """Driver, supervisor and workers together."""
    store: int = 0
    """Shared memory that the session's segments occupy."""


class Sampler:
    """A thread that watches a process and all its descendants every 20 ms.

    Workers are the descendants that are not direct children of the phase process.
    """

    def __init__(self, root: int) -> None:
        """Watch the process `root` from `__enter__` to `__exit__`."""
        self.peaks = Peaks()
        self.stage = "start"
        self._root = root
        self._depths: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-sampler", daemon=True)

    def __enter__(self) -> "Sampler":
        """Start to watch."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; `peaks` stay."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        tick, walked = 0, ""
        while not self._stop.wait(SAMPLE_SECONDS):
            # Reading all of /proc is dear: now and then, and when new workers may have started.
            if tick % SAMPLES_PER_WALK == 0 or self.stage != walked:
                walked = self.stage
                self._depths = descendants(self._root)
                near = [pid for pid, depth in self._depths.items() if depth <= 1]
                occupied = segment_bytes(near)
                self.peaks.store = max(self.peaks.store, occupied)
            tick += 1
            self._sample()

    def _sample(self) -> None:
        total = 0
        for pid, depth in self._depths.items():
            anonymous = anonymous_bytes(pid)
            total += anonymous
            if depth >= 2:
                before = self.peaks.worker.get(self.stage, 0)
                self.peaks.worker[self.stage] = max(before, anonymous)
        self.peaks.everyone = max(self.peaks.everyone, total)


def descendants(root: int) -> dict[int, int]:
    """Return `root` and the processes below it, each with its depth (0 for `root`)."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            children.setdefault(parent_of(int(entry)), []).append(int(entry))
    depths, level, depth = {root: 0}, [root], 0
    while level:
        depth += 1
        level = [child for parent in level for child in children.get(parent, [])]
        depths.update(dict.fromkeys(level, depth))
    return depths


def parent_of(pid: int) -> int:
    """Return the parent of `pid`, 0 if it has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in brackets, may hold spaces and brackets itself.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def anonymous_bytes(pid: int) -> int:
    """Return the resident anonymous memory of `pid` in bytes, 0 if it has gone."""
    return status_bytes(pid, b"RssAnon:")


def status_bytes(pid: int, name: bytes) -> int:
    """Return the line `name` of /proc/`pid`/status in bytes, 0 if the process has gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) * KIB
    return 0


def segment_bytes(pids: Iterable[int]) -> int:
    """Return the memory that shared segments open in any of `pids` occupy, each counted once."""
    occupied: dict[tuple[int, int], int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                occupied.update(_segment_of(entry.path))
    return sum(occupied.values())


def _segment_of(descriptor: str) -> dict[tuple[int, int], int]:
    """Return the bytes of a shared segment by its device and inode; nothing for other files."""
    with contextlib.suppress(OSError):
        if os.readlink(descriptor).startswith(("/memfd:", "/dev/shm/")):
            status = os.stat(descriptor)
            return {(status.st_dev, status.st_ino): status.st_blocks * 512}
    return {}


# --- progress ------------------------------------------------------------------------------------


class Progress:
    """A bar on a stream: one rewritten line on a terminal, else a line every 10 %."""

    WIDTH = 24

    def __init__(
        self, label: str, nbytes: int, *, brief: bool = False, stream: TextIO | None = None
    ) -> None:
        """Start the clock of a job called `label` that moves `nbytes` bytes.

        Args:
            label: What is done, at most 18 characters.
            nbytes: Bytes of the whole job, for MB/s.
            brief: Off a terminal, write nothing but the last line.
            stream: Where to write; None is stderr.
        """
        self._label = label
        self._nbytes = nbytes
        self._stream = sys.stderr if stream is None else stream
        self._tty = self._stream.isatty()
        self._steps = 100 if self._tty else 1 if brief else 10
        self._started = time.monotonic()
        self._step = -1

    def restart(self) -> None:
        """Begin to count time now: what came before was not part of the job."""
        self._started = time.monotonic()

    def show(self, fraction: float, note: str = "") -> None:
        """Show that `fraction` (0 to 1) is done, unless that would say nothing new."""
        fraction = min(fraction, 1.0)
        step = int(fraction * self._steps)
        if step <= max(self._step, 0 if self._steps == 1 else -1):
            return
        self._step = step
        line = self.line(fraction, time.monotonic() - self._started, note)
        self._stream.write(f"\r\x1b[K{line}" if self._tty else f"{line}\n")
        if self._tty and fraction >= 1.0:
            self._stream.write("\n")
        self._stream.flush()

    def line(self, fraction: float, elapsed: float, note: str) -> str:
        """Return the line for `fraction` after `elapsed` seconds."""
        bar = "#" * round(fraction * self.WIDTH)
        speed = fraction * self._nbytes / elapsed / 1e6 if elapsed > 0 else 0.0
        if fraction >= 1.0:
            end = f"{elapsed:5.1f} s"
        elif fraction > 0.0:
            end = f"{elapsed / fraction - elapsed:5.1f} s left"
        else:
            end = "    ? s left"
        gap = f"  {note}" if note else ""
        return (
            f"{self._label:<18} [{bar:<{self.WIDTH}}] {fraction:4.0%}{gap}"
            f"  {speed:5.0f} MB/s  {end}"
        )


# --- the main process ----------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Outcome:
    """The figures of one version."""

    seconds: float
    nbytes: int
    idle: int
    peaks: Peaks

    @property
    def speed(self) -> float:
        """GB/s: input bytes over seconds."""
        return self.nbytes / self.seconds / 1e9


def run_version(plan: Plan, version: str, path: str, expected: Written) -> Outcome:
    """Sort into `path` by `version` in a process of its own, check the result, return figures.

    Raises:
        DemoError: The sort failed, or the output is not the sorted input.
    """
    progress = Progress(f"sort, {version}", plan.source.nbytes)
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "ray_lite.demo", "--_phase", version]
    command += ["--_report", str(write_end)]
    # In a process group of its own, so that Ctrl-C reaches it once, from here.
    phase = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(write_end,), process_group=0)
    os.close(write_end)
    try:
        with open(read_end, encoding="utf-8") as reports, Sampler(phase.pid) as sampler:
            hand_over(phase, pickle.dumps((plan, path)))
            result = follow(reports, sampler, progress)
        code = phase.wait()
    finally:
        end_process(phase)
    if "error" in result:
        raise DemoError(f"the {version} version failed: {result['error']}")
    if "seconds" not in result:
        raise DemoError(f"the {version} version ended early, with exit code {code}")
    check_ranges([Written(**part) for part in result["ranges"]], expected)
    verify_file(path, plan.source, expected)
    return Outcome(result["seconds"], plan.source.nbytes, result["idle"], sampler.peaks)


def hand_over(phase: "subprocess.Popen[bytes]", job: bytes) -> None:
    """Give the phase its job; if it has died already, its exit code will say so."""
    if phase.stdin is None:
        raise ValueError("the phase has no stdin")
    with contextlib.suppress(BrokenPipeError):
        phase.stdin.write(job)
        phase.stdin.close()


def follow(reports: TextIO, sampler: Sampler, progress: Progress) -> dict[str, Any]:
    """Show what the phase reports until it closes; return its last word."""
    result: dict[str, Any] = {}
    for line in reports:
        message = json.loads(line)
        if "stage" in message:
            show_stage(message, sampler, progress)
        else:
            result = message.get("result", message)
    return result


def show_stage(message: dict[str, Any], sampler: Sampler, progress: Progress) -> None:
    """Tell the sampler and the bar where the phase is; map and reduce are half of the job each."""
    stage, done, total = message["stage"], message["done"], message["total"]
    if sampler.stage == "start":
        progress.restart()
    sampler.stage = stage
    if stage == "end":
        return
    fraction = 0.5 * done / total + (0.5 if stage == "reduce" else 0.0)
    progress.show(fraction, f"{stage:>6} {done}/{total}")


def end_process(phase: "subprocess.Popen[bytes]") -> None:
    """End the phase if it still runs: politely, so that it shuts its session down, then not."""
    if phase.poll() is None:
        phase.send_signal(signal.SIGINT)
        try:
            phase.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            phase.kill()
            phase.wait()
    if phase.stdin is not None:
        phase.stdin.close()


def verify_file(path: str, source: Source, expected: Written) -> None:
    """Raise DemoError unless `path` holds the records of `source` in order."""
    output = open_source(path, source.key)
    progress = Progress("verify output", output.nbytes, brief=True)
    found = read_file(output, in_order=True, progress=progress)
    check_same("the output file", found, expected)


def available_memory() -> int:
    """Return the bytes that this process may still use: the machine's or its cgroup's."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in meminfo.splitlines())
    machine = int(fields["MemAvailable"].split()[0]) * KIB
    return min(machine, cgroup_room())


def cgroup_room() -> int:
    """Return the bytes left under the limit of the cgroup (v2), a huge number if it has none."""
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return sys.maxsize
    return max(0, limit - used)


def check_memory(plan: Plan, available: int) -> None:
    """Raise DemoError if the store and the heaps of the workers will not fit."""
    slice_bytes = plan.source.nbytes // plan.map_tasks
    partition_bytes = 2 * plan.source.nbytes // plan.partitions
    heaps = plan.num_cpus * max(slice_bytes, partition_bytes)
    if plan.store + heaps > available:
        raise DemoError(
            f"the job needs {format_size(plan.store)} of store and {format_size(heaps)} of heap,"
            f" {format_size(available)} of memory are available; give a smaller --size or --input,"
            " or more --map-tasks and --partitions"
        )


def check_disk(needs: Sequence[tuple[Path, int]]) -> None:
    """Raise DemoError if a file system has not the room for the files to be written to it."""
    by_device: dict[int, tuple[Path, int]] = {}
    for directory, nbytes in needs:
        if not directory.is_dir():
            raise DemoError(f"{directory}: no such directory")
        device = directory.stat().st_dev
        by_device[device] = (directory, by_device.get(device, (directory, 0))[1] + nbytes)
    for directory, nbytes in by_device.values():
        free = shutil.disk_usage(directory).free
        if nbytes > free:
            raise DemoError(
                f"{directory}: {format_size(nbytes)} of disk are needed, {format_size(free)} are"
                " free; give a smaller --size, or another --tmpdir or --output"
            )


def row(label: str, cells: Iterable[str]) -> None:
    """Print one line of a table."""
    print(f"{label:<34}" + "".join(f"{cell:>14}" for cell in cells))


def print_table(outcomes: dict[str, Outcome]) -> None:
    """Print the figures of the versions side by side."""

    def peak(stage: str) -> list[str]:
        return [format_size(one.peaks.worker.get(stage, 0)) for one in outcomes.values()]

    row("map task that", [{"generator": "yields", "list": "returns list"}[v] for v in outcomes])
    row("seconds", [f"{one.seconds:.2f}" for one in outcomes.values()])
    row("GB/s", [f"{one.speed:.2f}" for one in outcomes.values()])
    row("peak heap of one map worker", peak("map"))
    row("  of which before its first task", [format_size(one.idle) for one in outcomes.values()])
    row("peak heap of one reduce worker", peak("reduce"))
    row(
        "peak heap of all processes", [format_size(one.peaks.everyone) for one in outcomes.values()]
    )
    row("peak shared memory", [format_size(one.peaks.store) for one in outcomes.values()])


def run_demo(options: argparse.Namespace, scratch: Path) -> None:
    """Make the input if there is none, sort it by each version, print the figures."""
    target = None if options.output is None else Path(options.output).absolute()
    if target is not None and options.input is not None and same_file(target, options.input):
        raise DemoError(f"--output {target}: is the input; give another file")
    check_room(options, scratch, target)
    source = make_source(options, scratch)
    plan = make_plan(source, options)
    check_memory(plan, available_memory())
    print(describe(plan), flush=True)
    expected = read_file(
        source, in_order=False, progress=Progress("read input", source.nbytes, brief=True)
    )
    outcomes = {}
    for version in VERSIONS[:1] if options.no_compare else VERSIONS:
        keep = target if version == "generator" else None
        with output_file(keep, scratch) as path:
            outcomes[version] = run_version(plan, version, path, expected)
    print(f"verified: {expected.count} records in order, checksum {expected.checksum:016x}")
    print("output:   " + ("a temporary file, removed" if target is None else str(target)), "\n")
    print_table(outcomes)


def same_file(left: Path, right: str) -> bool:
    """Whether both names are one existing file."""
    try:
        return os.path.samefile(left, right)
    except OSError:
        return False


def check_room(options: argparse.Namespace, scratch: Path, target: Path | None) -> None:
    """Raise DemoError if there is no room for the files that will be written."""
    needs: list[tuple[Path, int]] = []
    if options.input is None:
        size = options.size
        needs.append((scratch, size))
    else:
        size = open_source(options.input, options.key).nbytes
    if target is not None:
        needs.append((target.parent, size))
    if target is None or not options.no_compare:
        needs.append((scratch, size))
    check_disk(needs)


def make_source(options: argparse.Namespace, scratch: Path) -> Source:
    """Return the user's input, or a new file of random records."""
    if options.input is not None:
        return open_source(os.path.abspath(options.input), options.key)
    if options.size < RECORD.itemsize:
        raise DemoError(f"--size {options.size}: less than one record ({RECORD.itemsize} bytes)")
    path = str(scratch / "input.npy")
    progress = Progress("write random input", options.size, brief=True)
    write_random_input(path, options.size, progress)
    return open_source(path, options.key)


def describe(plan: Plan) -> str:
    """Return one line that says what will be done."""
    source = plan.source
    key = "value" if source.key is None else f"field {source.key!r}"
    return (
        f"sort {format_size(source.nbytes)}: {source.count} records of {source.dtype.itemsize}"
        f" bytes by {key}; {plan.map_tasks} map tasks x {plan.partitions} partitions on"
        f" {plan.num_cpus} CPUs, store {format_size(plan.store)}"
    )


@contextlib.contextmanager
def output_file(keep: Path | None, scratch: Path) -> Iterator[str]:
    """Give a path to write to; rename it to `keep` if all went well, else remove it."""
    if keep is None:
        path = scratch / "output.npy"
    else:
        path = keep.with_name(f".{keep.name}.{os.getpid()}.part")
    try:
        yield str(path)
        if keep is not None:
            path.replace(keep)
    finally:
        path.unlink(missing_ok=True)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all errors of the demo."""

    def error(self, message: str) -> NoReturn:
        raise DemoError(message)


def positive(text: str) -> int:
    """Return `text` as a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise DemoError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(prog="python -m ray_lite.demo", description=DESCRIPTION)
    add = parser.add_argument
    add("--stream", action="store_true", help="stream the file instead of sorting it")
    add("--input", metavar="FILE.npy", help="1-d array to read (default: a new random one)")
    add("--key", metavar="FIELD", help="field that is the key (default: the first)")
    add("--output", metavar="FILE.npy", help="where to keep the result (default: not kept)")
    add("--size", type=parse_size, default=GIB, help="of the random input (default: 1GiB)")
    add("--partitions", type=positive, metavar="P", help="key ranges, 2 to 4096 (default: by size)")
    add("--map-tasks", type=positive, metavar="M", help="slices of the input (default: by size)")
    add("--num-cpus", type=positive, metavar="N", help="CPUs to use (default: all)")
    add(
        "--store",
        type=parse_size,
        help="size of the store (default: 1.3 times the input; to stream, 128MiB)",
    )
    add("--tmpdir", help="directory for temporary files (default: the system's)")
    add("--no-compare", action="store_true", help="leave out the lists, or the shorter stream")
    add("--_phase", choices=VERSIONS, help=argparse.SUPPRESS)
    add("--_report", type=int, help=argparse.SUPPRESS)
    return parser


def job_of(options: argparse.Namespace) -> Callable[[argparse.Namespace, Path], None]:
    """Return the job that the command line asks for."""
    if not options.stream:
        return run_demo
    from ray_lite.demo_stream import run_stream_demo  # it builds on this module

    return run_stream_demo


def _raise_exit(number: int, frame: FrameType | None) -> None:
    """Turn a signal to end into an exception, so that files and processes are cleaned up."""
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit code: 0 if the output was verified, else not 0."""
    try:
        options = make_parser().parse_args(argv)
        if options._phase is not None:
            return phase_main(options._phase, options._report)
        signal.signal(signal.SIGTERM, _raise_exit)
        if options.tmpdir is not None and not Path(options.tmpdir).is_dir():
            raise DemoError(f"--tmpdir {options.tmpdir}: no such directory")
        with tempfile.TemporaryDirectory(prefix="ray_lite-demo-", dir=options.tmpdir) as scratch:
            job_of(options)(options, Path(scratch))
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # The tasks must belong to the importable module, so that workers import them by name.
    from ray_lite.demo import main as imported_main

    sys.exit(imported_main())
