"""What workers print: prefixed, in order, all of it, and there before shutdown returns."""

import os
import re
import subprocess
import sys
import textwrap

import pytest
from support import MIB, Gate, Output

import ray_lite as ray
from ray_lite import logs
from ray_lite.session import Connection


def lines_of(text: str, name: str) -> list[str]:
    """Return the lines that the task `name` printed, without their prefix."""
    return re.findall(rf"^\({name} pid=\d+\) (.*)$", text, re.MULTILINE)


# ---- prefix and order ----


def test_print_in_a_task_reaches_the_driver_with_the_name_and_pid_of_the_task(
    session: Connection, printed: Output
) -> None:
    @ray.remote
    def speak():
        print("to stdout")
        print("to stderr", file=sys.stderr)
        return os.getpid()

    pid = ray.get(speak.remote())
    ray.shutdown()
    assert printed.out == f"(speak pid={pid}) to stdout\n"
    assert printed.err == f"(speak pid={pid}) to stderr\n"


def test_print_appears_while_the_task_still_runs(
    session: Connection, printed: Output, gate: Gate
) -> None:
    @ray.remote
    def speak(path):
        print("before the gate")
        open(path).close()

    ref = speak.remote(gate.path)
    assert printed.until("before the gate")
    assert ray.wait([ref], timeout=0)[0] == []
    gate.meet()
    ray.get(ref)


@pytest.mark.session(num_cpus=1)
def test_prefix_follows_the_tasks_of_a_worker(session: Connection, printed: Output) -> None:
    @ray.remote
    def first():
        print("one")

    @ray.remote
    def second():
        print("two")

    ray.get([first.remote(), second.remote()])
    ray.get(first.options(name="renamed").remote())
    ray.get(second.remote())
    ray.shutdown()
    names = re.findall(r"^\((\w+) pid=\d+\) (\w+)$", printed.out, re.MULTILINE)
    assert names == [("first", "one"), ("second", "two"), ("renamed", "one"), ("second", "two")]


@pytest.mark.parametrize("name", ["zwei Wörter", "a\nb", "x" * 100, "%s {}"])
def test_prefix_of_a_task_with_an_odd_name_is_one_line(
    session: Connection, printed: Output, name: str
) -> None:
    ray.get(ray.remote(name=name)(lambda: print("text")).remote())
    ray.shutdown()
    assert len(printed.out.splitlines()) == 1
    assert printed.out.endswith("text\n")


def test_lines_of_one_task_keep_their_order(session: Connection, printed: Output) -> None:
    @ray.remote
    def count():
        for i in range(1000):
            print(i)

    ray.get(count.remote())
    ray.shutdown()
    assert lines_of(printed.out, "count") == [str(i) for i in range(1000)]


# ---- nothing is lost ----


@pytest.mark.session(num_cpus=4)
def test_hundred_thousand_lines_from_several_workers_all_arrive(
    session: Connection, printed: Output
) -> None:
    @ray.remote
    def count(task):
        for i in range(25_000):
            print(task, i)

    ray.get([count.remote(task) for task in range(4)])
    ray.shutdown()
    lines = lines_of(printed.out, "count")
    assert len(lines) == 100_000
    for task in range(4):
        mine = [line for line in lines if line.startswith(f"{task} ")]
        assert mine == [f"{task} {i}" for i in range(25_000)]


def test_print_right_before_shutdown_arrives(session: Connection, printed: Output) -> None:
    @ray.remote
    def count():
        for i in range(20_000):
            print(i)
        print("the end", file=sys.stderr)

    ray.get(count.remote())
    ray.shutdown()
    assert lines_of(printed.out, "count")[-1] == "19999"
    assert lines_of(printed.err, "count") == ["the end"]


def test_print_right_before_a_crash_arrives(session: Connection, printed: Output) -> None:
    @ray.remote(max_retries=0)
    def crash():
        print("last words")
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crash.remote())
    assert printed.until("last words")


def test_print_before_sys_exit_arrives_even_without_a_newline(
    session: Connection, printed: Output
) -> None:
    @ray.remote(max_retries=0)
    def leave():
        print("last words", end="")
        sys.exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(leave.remote())
    assert printed.until("last words")


DRIVER = """
    import sys
    import ray_lite as ray

    ray.init(num_cpus=2, object_store_memory=100 * 2**20)

    @ray.remote
    def count(task):
        for i in range(20_000):
            print(task, i)
        return task

    refs = [count.remote(task) for task in range(3)]
    assert ray.get(refs) == [0, 1, 2]
    print("done", file=sys.stderr)
"""


def start_driver(**streams: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", textwrap.dedent(DRIVER)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        **streams,
    )


def test_lines_into_a_pipe_that_is_read_slowly_all_arrive() -> None:
    with start_driver(stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
        assert driver.stdout is not None and driver.stderr is not None
        assert driver.stdout.readline().endswith(b" 0\n")
        assert driver.stdout.read().count(b"\n") == 60_000 - 1
        assert driver.stderr.read() == b"done\n"


def test_driver_whose_output_nobody_reads_any_more_finishes_all_the_same() -> None:
    read, write = os.pipe()
    os.close(read)
    with start_driver(stdout=write, stderr=subprocess.PIPE) as driver:
        os.close(write)
        assert driver.stderr is not None
        assert driver.stderr.read() == b"done\n"
    assert driver.returncode == 0


# ---- odd output ----


def test_pieces_of_a_line_come_as_one_line(session: Connection, printed: Output) -> None:
    @ray.remote
    def stutter():
        for i in range(5):
            print(i, end=" ", flush=True)
        print("end")

    ray.get(stutter.remote())
    ray.shutdown()
    assert lines_of(printed.out, "stutter") == ["0 1 2 3 4 end"]


def test_line_without_an_end_arrives_at_the_latest_at_shutdown(
    session: Connection, printed: Output
) -> None:
    @ray.remote
    def trail_off():
        print("and then", end="")

    ray.get(trail_off.remote())
    ray.shutdown()
    assert lines_of(printed.out, "trail_off") == ["and then"]


def test_line_of_megabytes_arrives_whole_in_pieces(session: Connection, printed: Output) -> None:
    @ray.remote
    def drone():
        print("x" * (3 * MIB) + "end")

    ray.get(drone.remote())
    ray.shutdown()
    pieces = lines_of(printed.out, "drone")
    assert "".join(pieces) == "x" * (3 * MIB) + "end"
    assert max(map(len, pieces)) <= logs.LONGEST_LINE + logs.CHUNK


def test_empty_lines_arrive(session: Connection, printed: Output) -> None:
    @ray.remote
    def pause():
        print("\n\n")

    ray.get(pause.remote())
    ray.shutdown()
    assert lines_of(printed.out, "pause") == ["", "", ""]


def test_bytes_that_are_not_utf_8_arrive_as_they_are(session: Connection, printed: Output) -> None:
    @ray.remote
    def mumble():
        sys.stdout.buffer.write(b"through buffer \xff\xfe\n")
        sys.stdout.flush()
        os.write(1, b"through write \x80\x00\xff\n")

    ray.get(mumble.remote())
    ray.shutdown()
    raw = printed.out.encode("utf-8", "surrogateescape")
    assert b"through buffer \xff\xfe\n" in raw
    assert b"through write \x80\x00\xff\n" in raw


def test_text_that_utf_8_cannot_carry_is_escaped(session: Connection, printed: Output) -> None:
    ray.get(ray.remote(lambda: print("a\udc80b", "ü€😀")).remote())
    ray.shutdown()
    assert "a\\udc80b ü€😀\n" in printed.out


def test_output_of_a_process_that_a_task_started_arrives_with_the_pid_of_the_worker(
    session: Connection, printed: Output
) -> None:
    @ray.remote
    def delegate():
        subprocess.run(["/bin/sh", "-c", "echo child out; echo child err >&2"], check=True)
        return os.getpid()

    pid = ray.get(delegate.remote())
    ray.shutdown()
    assert re.fullmatch(rf"\(\w+ pid={pid}\) child out\n", printed.out)
    assert re.fullmatch(rf"\(\w+ pid={pid}\) child err\n", printed.err)


def test_worker_streams_have_descriptors_and_no_terminal(shared_session: Connection) -> None:
    look = ray.remote(
        lambda: [(s.fileno(), s.isatty(), s.encoding) for s in (sys.stdout, sys.stderr)]
    )
    assert ray.get(look.remote()) == [(1, False, "utf-8"), (2, False, "utf-8")]


@pytest.mark.session(log_to_driver=False)
def test_log_to_driver_false_drops_what_workers_print_but_not_what_went_wrong(
    session: Connection, printed: Output
) -> None:
    @ray.remote
    def speak():
        print("out")
        print("err", file=sys.stderr)
        for i in range(20_000):
            print(i)

    ray.get(speak.remote())
    ray.remote(lambda: 1 / 0).remote()
    assert printed.until("Unhandled error", "ZeroDivisionError")
    ray.shutdown()
    assert printed.out == ""
    assert "pid=" not in printed.err.partition("Unhandled")[0]


# ---- the lines of one pipe, without processes ----


def test_source_cuts_at_newlines_however_the_bytes_come() -> None:
    text = b"one\n\ntwo\r\nthree"
    for size in range(1, len(text) + 1):
        source = logs._Source(-1, 0, 1)
        lines = []
        for start in range(0, len(text), size):
            lines += source.feed(text[start : start + size])
        assert lines == [b"one\n", b"\n", b"two\r\n"]
        assert source.rest() == [b"three\n"]
        assert source.rest() == []


def test_source_takes_titles_out_wherever_they_stand() -> None:
    title = logs.TITLE + b"task\n"
    for text in (title + b"line\n", b"line" + title, title + b"line"):
        for size in range(1, len(text) + 1):
            source = logs._Source(-1, 7, -1)
            lines = []
            for start in range(0, len(text), size):
                lines += source.feed(text[start : start + size])
            (line,) = lines + source.rest()
            assert line.endswith(b" pid=7) line\n")
            assert source.title == "task"


def test_source_never_cuts_a_title_of_a_long_line() -> None:
    source = logs._Source(-1, 7, -1)
    first = source.feed(b"x" * logs.LONGEST_LINE + logs.TITLE)
    second = source.feed(b"task\nline\n")
    assert first == []
    assert [len(line) for line in second] == [logs.LONGEST_LINE + 16, 19 - 1]
