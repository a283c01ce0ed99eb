"""The demo: its pure parts against numpy, its check against damaged data, and whole runs."""

import io
import itertools
import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import eventually

import ray_lite as ray
from ray_lite import demo, demo_stream

Array = NDArray[Any]


class Silent(demo.Progress):
    """A progress bar that writes nowhere."""

    def __init__(self) -> None:
        super().__init__("", 0, stream=io.StringIO())


def random_records(count: int, seed: int = 1) -> Array:
    """Return `count` records as the demo writes them, with few distinct keys."""
    rng = np.random.default_rng(seed)
    records = np.empty(count, demo.RECORD)
    records.view(np.uint64)[:] = rng.integers(0, 2**64, count * 4, np.uint64)
    records["key"] %= np.uint64(max(1, count // 3))
    return records


def saved(directory: Path, array: Array, key: str | None = None) -> demo.Source:
    """Save `array` and open it as a source."""
    path = directory / "saved.npy"
    np.save(path, array)
    return demo.open_source(str(path), key)


def raw(records: Array) -> demo.Records:
    """Return records as the opaque bytes in which tasks move them."""
    return records.view(np.dtype((np.void, records.dtype.itemsize)))


def plan_for(source: demo.Source, *options: str) -> demo.Plan:
    """Return the plan for `source` under the given command line."""
    return demo.make_plan(source, demo.make_parser().parse_args(options))


def run(
    *options: str, tmpdir: Path, expect: int = 0, timeout: float = 50.0
) -> "subprocess.CompletedProcess[str]":
    """Run the demo as a user does, and check its exit code."""
    command = [sys.executable, "-m", "ray_lite.demo", "--tmpdir", str(tmpdir), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == expect, done.stderr
    return done


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("4096", 4096),
        ("1B", 1),
        ("3KiB", 3 << 10),
        ("64MiB", 64 << 20),
        ("1.5 GiB", 3 << 29),
        ("64mib", 64 << 20),
    ],
)
def test_parse_size_of_binary_units_returns_bytes(text: str, nbytes: int) -> None:
    assert demo.parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "MiB", "-1MiB", "0", "64MB", "1e400", "nan", "64 Mi", "x"])
def test_parse_size_of_anything_else_says_what_to_write(text: str) -> None:
    with pytest.raises(demo.DemoError, match="write for example"):
        demo.parse_size(text)


def test_format_size_names_the_largest_unit_that_fits() -> None:
    sizes = [1023, 1 << 10, 3 << 19, 5 << 30]
    assert [demo.format_size(n) for n in sizes] == ["1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB"]


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.array([3, 0, 255, 3], np.uint8),
        np.array([2**63, 2**64 - 1, 0], np.uint64),
        np.array([-(2**63), -1, 0, 1, 2**63 - 1], np.int64)[::-1],
        np.array([-5, 7, 0], ">i4"),
        np.array([np.inf, -1.5, 0.0, -np.inf, 1e-300, np.nan], np.float64),
        np.array([2.5, -0.5, 0.0], ">f4"),
        np.array([True, False]),
        np.array(["2020-01-02", "1969-01-01", "NaT"], "datetime64[D]"),
        np.array([5, -5, 0], ">m8[s]"),
    ],
    ids=lambda values: str(values.dtype),
)
def test_ordered_keys_sort_as_the_values_do(values: Array) -> None:
    order = np.argsort(demo.ordered_keys(values), kind="stable")
    np.testing.assert_array_equal(values[order], np.sort(values))


def test_ordered_keys_of_equal_floats_are_equal() -> None:
    keys = demo.ordered_keys(np.array([0.0, -0.0, np.nan, -np.nan]))
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]


@pytest.mark.parametrize(
    "keys",
    [
        np.array([5], np.uint64),
        np.zeros(1000, np.uint64),
        np.arange(1000, dtype=np.uint64)[::-1].copy(),
        np.random.default_rng(1).integers(0, 50, 5000).astype(np.uint64),
        np.random.default_rng(2).integers(0, 2**64, 5000, np.uint64),
        np.append(np.arange(4000, dtype=np.uint64)[::-1] % 7, np.uint64(2**64 - 1)),
    ],
    ids=["one", "equal", "falling", "few values", "full range", "one far away"],
)
def test_sorted_order_equals_numpys_stable_argsort(keys: demo.Keys) -> None:
    np.testing.assert_array_equal(demo.sorted_order(keys), np.argsort(keys, kind="stable"))


# --- the plan ------------------------------------------------------------------------------------


def test_slices_of_a_plan_cover_the_input_without_gap_or_overlap(tmp_path: Path) -> None:
    plan = plan_for(saved(tmp_path, random_records(1001)), "--map-tasks", "7", "--num-cpus", "2")
    slices = [plan.slice_of(index) for index in range(7)]
    assert slices[0][0] == 0
    assert slices[-1][1] == 1001
    assert all(left[1] == right[0] for left, right in itertools.pairwise(slices))


def test_plan_gives_every_cpu_the_same_number_of_map_tasks(tmp_path: Path) -> None:
    plan = plan_for(saved(tmp_path, random_records(1000)), "--num-cpus", "3")
    assert plan.map_tasks % 3 == 0
    assert plan.partitions >= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--partitions", "1"], "must be 2 to 4096"),
        (["--partitions", "5000"], "must be 2 to 4096"),
        (["--partitions", "200"], "100 records are too few"),
        (["--map-tasks", "200"], "100 records are too few"),
        (["--store", "1KiB"], "pass through the store"),
    ],
)
def test_plan_that_cannot_work_says_why(
    tmp_path: Path, options: Sequence[str], message: str
) -> None:
    with pytest.raises(demo.DemoError, match=message):
        plan_for(saved(tmp_path, random_records(100)), *options)


def test_check_memory_without_room_says_the_numbers(tmp_path: Path) -> None:
    plan = plan_for(saved(tmp_path, random_records(1000)), "--store", "64MiB")
    demo.check_memory(plan, 65 << 20)
    with pytest.raises(demo.DemoError, match=r"needs 64\.0 MiB of store.*63\.0 MiB of memory"):
        demo.check_memory(plan, 63 << 20)


def test_check_disk_adds_up_what_goes_to_one_file_system(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    demo.check_disk([(tmp_path, free // 8)])
    with pytest.raises(demo.DemoError, match="of disk are needed"):
        demo.check_disk([(tmp_path, free // 2), (tmp_path, free)])


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "key", "message"),
    [
        (np.zeros((2, 3)), None, "1-dimensional"),
        (np.zeros(0), None, "holds no records"),
        (np.array(["a", "b"]), None, "must be a number or a date"),
        (np.zeros(3, np.complex128), None, "must be a number or a date"),
        (np.zeros(3, np.longdouble), None, "must be a number or a date"),
        (np.zeros(3), "key", "has no fields"),
        (np.zeros(3, demo.RECORD), "nothing", "the input has key, payload"),
        (np.zeros(3, demo.RECORD), "payload", "must be a number or a date"),
    ],
)
def test_open_source_of_what_cannot_be_sorted_says_why(
    tmp_path: Path, array: Array, key: str | None, message: str
) -> None:
    with pytest.raises(demo.DemoError, match=message):
        saved(tmp_path, array, key)


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_open_source_of_another_file_says_it_is_no_npy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.npy"
    path.write_bytes(content)
    with pytest.raises(demo.DemoError, match=r"not a readable \.npy file"):
        demo.open_source(str(path), None)


def test_open_source_of_python_objects_says_they_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{}, None]), allow_pickle=True)
    with pytest.raises(demo.DemoError, match="Python objects"):
        demo.open_source(str(path), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "/nowhere/x.npy"], "no such file"),
        (["--size", "64MB"], "is not a size"),
        (["--size", "16"], "less than one record"),
        (["--size", "1KiB", "--partitions", "64"], "too few"),
        (["--size", "8000000GiB"], "of disk are needed"),
        (["--partitions", "0"], "not a whole number of at least 1"),
        (["--output", "/nowhere/x.npy"], "no such directory"),
        (["--tmpdir", "/nowhere"], "no such directory"),
        (["--surprise"], "unrecognized arguments"),
    ],
)
def test_main_with_bad_arguments_prints_one_line_and_fails(
    options: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(["--tmpdir", str(tmp_path), *options]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_main_with_the_input_as_output_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, random_records(100)).path
    assert demo.main(["--input", path, "--output", path]) == 2
    assert "is the input" in capsys.readouterr().err


# --- map and reduce ------------------------------------------------------------------------------


@pytest.mark.parametrize("splitters", [1, 5, 64, 65, 300])
def test_bucket_numbers_equal_numpys_searchsorted(splitters: int) -> None:
    rng = np.random.default_rng(splitters)
    cuts = np.sort(rng.integers(0, 500, splitters)).astype(np.uint64)
    keys = rng.integers(0, 600, 3000).astype(np.uint64)
    expected = np.searchsorted(cuts, keys, side="right")
    np.testing.assert_array_equal(demo.bucket_numbers(keys, cuts), expected)


@pytest.mark.parametrize("count", [1, demo.CHUNK, 2 * demo.CHUNK + 17])
def test_pieces_of_a_split_are_the_records_of_each_range_in_input_order(
    tmp_path: Path, count: int
) -> None:
    records = random_records(count)
    source = saved(tmp_path, records)
    splitters = np.array([0, count // 9, count // 9, 2**63], np.uint64)
    split = demo.Split(source, source.records(0, count), splitters)
    buckets = np.searchsorted(splitters, records["key"], side="right")
    for partition in range(len(splitters) + 1):
        expected = raw(records[buckets == partition])
        assert split.piece(partition).tobytes() == expected.tobytes()


def test_reduce_of_the_pieces_writes_what_numpys_stable_sort_gives(tmp_path: Path) -> None:
    records = random_records(70_000)
    source = saved(tmp_path, records)
    out = tmp_path / "out"
    with out.open("wb") as file:
        pieces = np.array_split(raw(records), 3)
        written = demo.write_sorted(source, pieces, file.fileno(), 5)
    expected = records[np.argsort(records["key"], kind="stable")]
    assert out.read_bytes()[5:] == expected.tobytes()
    first, last = int(expected["key"][0]), int(expected["key"][-1])
    assert written == demo.Written(len(records), demo.checksum_of(raw(records)), first, last)


def test_records_with_padding_keep_every_byte(tmp_path: Path) -> None:
    padded = np.dtype([("flag", "u1"), ("key", "<i4")], align=True)
    records = np.zeros(1000, padded)
    records.view(np.uint8)[:] = np.random.default_rng(3).integers(0, 256, 8000).astype(np.uint8)
    path = tmp_path / "records"
    path.write_bytes(records.tobytes())
    source = demo.Source(str(path), padded, "key", 0, 1000)
    out = tmp_path / "out"
    with out.open("wb") as file:
        written = demo.write_sorted(source, [source.records(0, 1000)], file.fileno(), 0)
    assert written.checksum == demo.checksum_of(raw(records))
    assert demo.checksum_of(np.fromfile(out, np.dtype("V8"))) == written.checksum


# --- the check -----------------------------------------------------------------------------------


def test_checksum_is_the_same_in_any_order_and_any_grouping() -> None:
    records = raw(random_records(1000))
    shuffled = np.random.default_rng(4).permutation(records)
    halves = demo.checksum_of(records[:400]) + demo.checksum_of(records[400:])
    assert demo.checksum_of(records) == demo.checksum_of(shuffled) == halves % 2**64


@pytest.mark.parametrize("itemsize", [1, 7, 8, 32, 33])
def test_checksum_sees_a_changed_a_lost_and_a_doubled_record(itemsize: int) -> None:
    rng = np.random.default_rng(itemsize)
    rows = rng.integers(0, 256, (200, itemsize)).astype(np.uint8)
    changed, doubled = rows.copy(), rows.copy()
    changed[77, -1] ^= 1
    rows[5], rows[6], doubled[5], doubled[6] = 1, 2, 1, 1
    checksum = demo.checksum_of(raw_rows(rows))
    assert demo.checksum_of(raw_rows(changed)) != checksum
    assert demo.checksum_of(raw_rows(doubled)) != checksum
    assert demo.checksum_of(raw_rows(rows[1:])) != checksum


def test_checksum_sees_words_that_moved_between_records() -> None:
    rows = np.random.default_rng(5).integers(0, 256, (10, 32)).astype(np.uint8)
    crossed = rows.copy()
    crossed[[2, 3], 8:16] = rows[[3, 2], 8:16]
    assert demo.checksum_of(raw_rows(crossed)) != demo.checksum_of(raw_rows(rows))


def raw_rows(rows: NDArray[np.uint8]) -> demo.Records:
    """Return the rows of a matrix of bytes as records."""
    return np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).reshape(-1)


@pytest.mark.parametrize("wrong", [1, 500, demo.CHUNK, demo.CHUNK + 1])
def test_read_file_finds_a_record_out_of_order(tmp_path: Path, wrong: int) -> None:
    values = np.arange(10, demo.CHUNK + 100)
    values[wrong] = 1
    source = saved(tmp_path, values)
    with pytest.raises(demo.DemoError, match=f"record {wrong} "):
        demo.read_file(source, in_order=True, progress=Silent())
    found = demo.read_file(source, in_order=False, progress=Silent())
    assert found.count == len(values)


def test_verify_of_a_file_with_a_damaged_record_fails(tmp_path: Path) -> None:
    records = np.sort(random_records(500), order="key")
    source = saved(tmp_path, records)
    expected = demo.read_file(source, in_order=True, progress=Silent())
    demo.verify_file(source.path, source, expected)
    records["payload"][7] = b"damaged"
    saved(tmp_path, records)
    with pytest.raises(demo.DemoError, match="checksum"):
        demo.verify_file(source.path, source, expected)


def test_check_ranges_passes_ranges_in_order_with_empty_ones_between() -> None:
    ranges = [demo.Written(2, 10, 1, 5), demo.Written(0, 0, 0, 0), demo.Written(1, 20, 5, 5)]
    demo.check_ranges(ranges, demo.Written(3, 30, 1, 5))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (demo.Written(1, 20, 4, 9), "overlap"),
        (demo.Written(2, 20, 6, 9), "4 records, the input has 3"),
        (demo.Written(1, 21, 6, 9), "checksum"),
    ],
)
def test_check_ranges_finds_overlap_loss_and_damage(second: demo.Written, message: str) -> None:
    with pytest.raises(demo.DemoError, match=message):
        demo.check_ranges([demo.Written(2, 10, 1, 5), second], demo.Written(3, 30, 1, 9))


# --- memory and progress -------------------------------------------------------------------------


def test_descendants_of_this_process_hold_its_child_at_depth_one() -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        depths = demo.descendants(os.getpid())
        assert depths[os.getpid()] == 0
        assert depths[child.pid] == 1


def test_anonymous_bytes_grow_by_what_is_allocated() -> None:
    nbytes = 32 << 20
    before = demo.anonymous_bytes(os.getpid())
    # Not through malloc, which may hand out pages that are resident already.
    with mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(bytes(nbytes))
        assert demo.anonymous_bytes(os.getpid()) - before > nbytes * 0.9


def test_segment_bytes_count_a_memfd_once_and_only_what_is_in_use() -> None:
    before = demo.segment_bytes([os.getpid()])
    first = os.memfd_create("test")
    second = os.dup(first)
    try:
        os.truncate(first, 64 << 20)
        os.pwrite(first, bytes(1 << 20), 0)
        assert demo.segment_bytes([os.getpid()]) - before == 1 << 20
    finally:
        os.close(first)
        os.close(second)


def test_progress_off_a_terminal_writes_a_line_every_tenth() -> None:
    stream = io.StringIO()
    progress = demo.Progress("job", 100, stream=stream)
    for step in range(1001):
        progress.show(step / 1000)
    assert len(stream.getvalue().splitlines()) == 11


def test_progress_line_tells_speed_and_time_left() -> None:
    line = demo.Progress("job", 200_000_000, stream=io.StringIO()).line(0.5, 2.0, "map 1/2")
    assert " 50%" in line
    assert "50 MB/s" in line
    assert "2.0 s left" in line


# --- whole runs ----------------------------------------------------------------------------------


def test_demo_of_random_records_verifies_both_versions_and_leaves_no_file(tmp_path: Path) -> None:
    done = run("--size", "8MiB", "--num-cpus", "2", tmpdir=tmp_path)
    assert "verified: 262144 records in order" in done.stdout
    assert "returns list" in done.stdout
    assert "100%" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_demo_of_a_users_file_writes_what_numpy_sorts(tmp_path: Path) -> None:
    values = np.random.default_rng(6).normal(size=200_000)
    np.save(tmp_path / "in.npy", values)
    out = tmp_path / "out.npy"
    options = ["--input", str(tmp_path / "in.npy"), "--output", str(out), "--no-compare"]
    run(*options, "--num-cpus", "2", "--partitions", "5", "--map-tasks", "3", tmpdir=tmp_path)
    np.testing.assert_array_equal(np.load(out), np.sort(values))
    assert {path.name for path in tmp_path.iterdir()} == {"in.npy", "out.npy"}


def test_demo_interrupted_while_sorting_ends_cleanly(tmp_path: Path) -> None:
    # 32 Mi records in a file without blocks: seconds of work, so the signal comes in the midst.
    path, scratch = tmp_path / "zeros.npy", tmp_path / "scratch"
    demo.create_npy(str(path), np.dtype("<i8"), 32 << 20)
    scratch.mkdir()
    command = [sys.executable, "-m", "ray_lite.demo", "--tmpdir", str(scratch)]
    command += ["--input", str(path), "--num-cpus", "1", "--no-compare"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("sort"):
                break
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
    assert child.returncode == 130, rest
    assert "Traceback" not in rest
    assert list(scratch.iterdir()) == []


# --- the job that streams ------------------------------------------------------------------------

SPENDER = """
import mmap
from ray_lite.demo_stream import name_process
name_process("sums")
block = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
block.write(bytes(64 << 20))
block.close()
print("spent", flush=True)
input()
"""


# Each of two stages: values ahead, one being read and one being written, and one to spare.
HELD = 2 * (demo_stream.AHEAD + 3) * demo_stream.BLOCK_BYTES


def zeros(directory: Path, count: int) -> demo.Source:
    """Return a file of `count` integers that takes no room on the disk."""
    path = directory / "zeros.npy"
    demo.create_npy(str(path), np.dtype("<u8"), count)
    return demo.open_source(str(path), None)


def stream_of(array: Array, directory: Path) -> tuple[demo.Source, demo_stream.Run]:
    """Save `array` and stream it on two CPUs."""
    source = saved(directory, array)
    return source, demo_stream.run_pipeline(source, 2, demo_stream.STORE)


def test_stream_of_numbers_finds_what_numpy_finds(tmp_path: Path) -> None:
    values = np.random.default_rng(7).integers(0, 2**64, 1_300_001, np.uint64)
    source, run = stream_of(values, tmp_path)
    assert source.count > 2 * demo_stream.rows_of(source)
    kept = values[values % 2 == 0]
    assert run.totals == (len(kept), sum(kept.tolist()) % 2**64)


def test_stream_of_a_long_file_holds_a_few_blocks_only(tmp_path: Path) -> None:
    # 160 MiB of keys, all even: more than the store can hold.
    run = demo_stream.run_pipeline(zeros(tmp_path, 20 << 20), 2, demo_stream.STORE)
    assert run.totals == (20 << 20, 0)
    assert run.peaks.store < HELD
    assert sorted(run.peaks.stages) == sorted(demo_stream.STAGES)
    # A page of the store counts twice, once for each of its two mappings.
    heap = 4 * demo_stream.BLOCK_BYTES
    assert max(run.peaks.stages.values()) < run.idle + 2 * run.peaks.store + heap


@pytest.mark.session(worker_exports=1)
def test_stages_pause_when_nobody_takes_their_blocks(tmp_path: Path, session: object) -> None:
    stream = demo_stream.chosen.remote(zeros(tmp_path, 20 << 20))
    next(stream)  # both stages run
    assert eventually(lambda: ray.available_resources().get("CPU") == 2.0)
    assert demo.segment_bytes([os.getpid()]) < HELD


@pytest.mark.parametrize("itemsize", [1, 8, 32, 1 << 23])
def test_blocks_of_any_records_stay_small(itemsize: int) -> None:
    source = demo.Source("", np.dtype((np.void, itemsize)), None, 0, 100)
    rows = demo_stream.rows_of(source)
    assert rows == 1 or rows * max(itemsize, 8) <= demo_stream.BLOCK_BYTES


def test_quarter_of_a_file_with_one_record_is_that_record(tmp_path: Path) -> None:
    assert demo_stream.quarter_of(saved(tmp_path, np.arange(1))).count == 1
    assert demo_stream.quarter_of(saved(tmp_path, np.arange(11))).count == 2


def test_stage_peaks_include_memory_that_was_given_back_before_the_look() -> None:
    command = [sys.executable, "-c", SPENDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"spent\n"
        peaks = demo_stream.StagePeaks()
        peaks.look()
        assert demo.anonymous_bytes(child.pid) < 64 << 20 <= peaks.stages["sums"]


def test_check_totals_of_another_result_says_both() -> None:
    demo_stream.check_totals((3, 20), (3, 20))
    with pytest.raises(demo.DemoError, match=r"found 3 even keys .*14, a direct .* 3 .*15"):
        demo_stream.check_totals((3, 20), (3, 21))


def test_streaming_demo_on_one_cpu_verifies_and_prints_both_sizes(tmp_path: Path) -> None:
    done = run("--stream", "--size", "16MiB", "--num-cpus", "1", tmpdir=tmp_path)
    assert "of 524288 keys are even" in done.stdout
    table = [line.split("  ") for line in done.stdout.splitlines()]
    assert [cell.strip() for cell in table[3] if cell] == ["file", "4.0 MiB", "16.0 MiB"]
    assert list(tmp_path.iterdir()) == []


def test_streaming_demo_of_a_users_file_leaves_it_alone(tmp_path: Path) -> None:
    source = saved(tmp_path, np.arange(1001.0))
    before = Path(source.path).read_bytes()
    done = run("--stream", "--input", source.path, "--no-compare", tmpdir=tmp_path)
    assert "of 1001 keys are even" in done.stdout
    assert Path(source.path).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved.npy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "x.npy"], "--output is for sorting"),
        (["--map-tasks", "2"], "--map-tasks is for sorting"),
        (["--size", "8000000GiB"], "of disk are needed"),
        (["--size", "1MiB", "--store", "4KiB"], "object_store_memory=4,096 bytes is too small"),
    ],
)
def test_streaming_demo_with_bad_arguments_prints_one_line_and_fails(
    options: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(["--stream", "--tmpdir", str(tmp_path), *options]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_streaming_demo_interrupted_ends_cleanly(tmp_path: Path) -> None:
    # 16 GiB of keys: it would take many seconds.
    path, scratch = zeros(tmp_path, 2 << 30).path, tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "ray_lite.demo", "--stream", "--input", path]
    with subprocess.Popen(
        [*command, "--tmpdir", str(scratch), "--num-cpus", "1", "--no-compare"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline().startswith("stream 16.0 GiB")
        assert eventually(lambda: "sums" in map(demo_stream.name_of, demo.descendants(child.pid)))
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does
        rest = child.stderr.read()
    assert child.returncode == 130, rest
    assert "Traceback" not in rest
    assert list(scratch.iterdir()) == []
