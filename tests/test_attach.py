"""A second process joins a session: what it can do, and what is left when it goes."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import MIB, Gate, eventually, in_child, is_gone, pass_through

import ray_lite as ray
from ray_lite import _core, attach
from ray_lite import session as sessions
from ray_lite.session import Connection, current


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of other tests are not to be found."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def address() -> Any:
    """The address of a session of this process."""
    yield ray.init(num_cpus=2, namespace="tests", log_to_driver=False)["address"]
    ray.shutdown()


def connection() -> Connection:
    """Return this process's connection."""
    found = current()
    assert found is not None
    return found


class Guest:
    """Another process that runs `program` line by line and answers each with a line."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import ray_lite as ray\n{program}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let it pass its next input()."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Wait for its end."""
        self.process.communicate(timeout=30)
        return self.process.returncode


def run_guest(program: str) -> str:
    """Return what a guest prints."""
    run = subprocess.run(
        [sys.executable, "-c", f"import ray_lite as ray\n{program}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


WORK = """
print(ray.get(ray.remote(lambda x: x + 1).remote(ray.put(2))))
print([ray.get(ref) for ref in ray.remote(lambda: (yield from range(3))).remote()])
dynamic = ray.remote(num_returns="dynamic")(lambda: (yield from range(2)))
print([ray.get(ref) for ref in ray.get(dynamic.remote())])
ray.shutdown()
"""


@pytest.mark.parametrize("by", ["auto", "path"])
def test_guest_runs_tasks_and_generators_of_all_kinds(address: str, by: str) -> None:
    where = "auto" if by == "auto" else address
    out = run_guest(f"ray.init(address={where!r})\n{WORK}")
    assert out.split("\n")[:3] == ["3", "[0, 1, 2]", "[0, 1]"]
    assert connection().core.broken_invariant() is None


def test_guest_finds_an_actor_by_name(address: str) -> None:
    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def add(self) -> int:
            self.n += 1
            return self.n

    counter: Any = ray.remote(Counter).options(name="counter").remote()
    assert ray.get(counter.add.remote()) == 1
    out = run_guest(
        "ray.init(address='auto', namespace='tests')\n"
        "print(ray.get(ray.get_actor('counter').add.remote()))"
    )
    assert out.strip() == "2"
    assert ray.get(counter.add.remote()) == 3


def test_two_guests_work_at_once(address: str) -> None:
    program = f"ray.init(address='auto'); print('in', flush=True); input()\n{WORK}"
    guests = [Guest(program) for _ in range(2)]
    assert [guest.line() for guest in guests] == ["in", "in"]
    for guest in guests:
        guest.go_on()
    assert [guest.line() for guest in guests] == ["3", "3"]
    assert [guest.end() for guest in guests] == [0, 0]


def test_killed_guest_leaves_nothing_and_the_session_goes_on(address: str) -> None:
    double = ray.remote(lambda x: 2 * x)
    ray.get(double.remote(1))
    core = connection().core
    before = core.usage()["objects"]
    guest = Guest(
        "import time\n"
        "ray.init(address='auto')\n"
        "kept = [ray.put(bytes(10**6)) for _ in range(5)]\n"
        "ray.remote(lambda: 1).remote()\n"
        "stream = ray.remote(lambda: (yield from range(100))).remote()\n"
        "print('there', flush=True)\n"
        "input()"
    )
    assert guest.line() == "there"
    assert core.usage()["objects"] >= before + 5
    os.kill(guest.process.pid, signal.SIGKILL)
    assert guest.end() == -signal.SIGKILL
    assert eventually(lambda: core.find_slot(guest.process.pid) is None)
    assert eventually(lambda: core.usage()["objects"] == before), core.usage()
    assert core.broken_invariant() is None
    assert ray.get(double.remote(2)) == 4


def test_guest_that_leaves_leaves_nothing(address: str) -> None:
    core = connection().core
    before = core.usage()["objects"]
    guest = Guest(
        "ray.init(address='auto'); ref = ray.put(bytes(10**6)); ray.shutdown(); del ref\n"
        "print(ray.is_initialized(), flush=True); input()"
    )
    assert guest.line() == "False"
    assert eventually(lambda: core.usage()["objects"] == before)
    assert eventually(lambda: core.find_slot(guest.process.pid) is None)
    guest.go_on()
    assert guest.end() == 0


def test_array_of_a_guest_that_has_left_stays_what_it_was(address: str) -> None:
    def leave() -> None:
        ray.init(address="auto")
        array = ray.get(ray.put(np.full(MIB, 7, np.uint8)))
        slot = connection().core.slot
        ray.shutdown()
        ray.init(address="auto")
        newer = [ray.put(np.zeros(MIB, np.uint8)) for _ in range(4)]
        assert (array == 7).all()
        assert slot in slots_of_this_process()
        del array
        assert eventually(lambda: slots_of_this_process() == {connection().core.slot})
        assert ray.get(newer[0])[0] == 0

    assert in_child(leave) == 0
    assert connection().core.broken_invariant() is None


def test_array_that_a_guest_has_made_in_the_store_is_its_own_after_it_has_left(
    address: str,
) -> None:
    core = connection().core
    before = core.usage()["free"]
    guest = Guest(
        "import numpy as np\n"
        "ray.init(address='auto'); mine, stored = ray.full(10**6, 7.0), ray.full(10**6, 8.0)\n"
        "ref = ray.put(stored); ray.shutdown(); mine += 1\n"
        "print('left', flush=True); input()\n"
        "print((mine == 8).all() and (stored == 8).all(), flush=True); input()\n"
        "del ref, mine, stored; print('gone', flush=True); input()"
    )
    assert guest.line() == "left"
    newer = [ray.put(np.zeros(10**6)) for _ in range(4)]
    guest.go_on()
    assert guest.line() == "True"
    assert all((ray.get(ref) == 0).all() for ref in newer)
    del newer
    guest.go_on()
    assert guest.line() == "gone"
    assert eventually(lambda: core.usage()["free"] == before)
    assert eventually(lambda: core.find_slot(guest.process.pid) is None)
    assert core.broken_invariant() is None
    guest.go_on()
    assert guest.end() == 0


def slots_of_this_process() -> set[int]:
    """Return them; they are more than one if something of a former session is alive."""
    return {slot for slot, pid, _, _ in connection().core.slots() if pid == os.getpid()}


def test_guest_is_told_when_the_session_has_ended() -> None:
    ray.init(num_cpus=1)
    guest = Guest(
        "ray.init(address='auto'); ref = ray.put(1)\n"
        "print('there', flush=True); input()\n"
        "try:\n    ray.put(2)\n"
        "except ray.exceptions.RaySystemError as error: print(type(error).__name__)\n"
        "ray.shutdown()"
    )
    assert guest.line() == "there"
    ray.shutdown()
    guest.go_on()
    assert guest.line() == "RaySystemError"
    assert guest.end() == 0


def test_address_goes_with_the_session(address: str) -> None:
    path = Path(address)
    assert path.is_socket()
    assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0
    ray.shutdown()
    assert not path.exists()


def test_no_session_is_a_connection_error_that_says_what_to_do() -> None:
    with pytest.raises(ConnectionError, match=r"init\(\) in another process"):
        ray.init(address="auto")
    with pytest.raises(ConnectionError, match=r"init\(\) in another process"):
        ray.init(address="/nowhere/at/all.sock")
    assert not ray.is_initialized()


def test_settings_of_a_session_cannot_be_given_with_an_address() -> None:
    with pytest.raises(ValueError, match="num_cpus"):
        ray.init(address="auto", num_cpus=2)


def make_stale_socket(name: str) -> Path:
    """Return the socket of a session that was killed."""
    listener, path = attach.listen(name)
    listener.close()
    return path


def test_stale_socket_is_swept_up() -> None:
    old, young = make_stale_socket("old"), make_stale_socket("young")
    os.utime(old, (0, 0))
    with pytest.raises(ConnectionError, match="refused"):
        ray.init(address="auto")
    ray.init(num_cpus=1)
    assert not old.exists()
    assert young.exists(), "its session may be about to listen"
    ray.shutdown()


def test_directory_that_others_may_enter_is_refused() -> None:
    attach.directory().mkdir(mode=0o755)
    with pytest.raises(PermissionError, match=r"to user \d+ alone"):
        attach.listen("session")


def test_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    attach.directory().symlink_to(tmp_path)
    with pytest.raises(OSError, match="ray_lite"):
        attach.listen("session")


def test_session_without_a_private_directory_works_alone(tmp_path: Path) -> None:
    attach.directory().mkdir(mode=0o755)
    assert ray.init(num_cpus=1)["address"] == "local"
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    ray.shutdown()


def test_runtime_directory_of_another_user_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert attach.directory() == Path(tempfile.gettempdir()) / "ray_lite-12345"


def test_directory_may_have_a_long_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100) / ("y" * 100)
    long.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    address = ray.init(num_cpus=1)["address"]
    assert len(address) > 200
    assert in_child(lambda: ray.init(address=address)) == 0
    ray.shutdown()


def test_process_of_another_user_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    listener, path = attach.listen("session")
    other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.connect(str(path))
    monkeypatch.setattr(attach, "peer_of", lambda _: (os.getpid(), os.getuid() + 1))
    assert attach.admit(listener, {"secret": 1}, [0, 1, 2, 2]) is None
    assert other.recv(100) == b""
    other.close()
    listener.close()


def test_session_of_another_user_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    listener, path = attach.listen("session")
    monkeypatch.setattr(attach, "peer_of", lambda _: (1, os.geteuid() + 1))
    with pytest.raises(ConnectionError, match=r"that session is user \d+'s"):
        attach.join(str(path))
    listener.close()


def test_session_of_another_version_is_not_joined(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def join() -> None:
        monkeypatch.setattr(sessions, "version", lambda: "Python 2.7")
        with pytest.raises(ConnectionError, match=r"runs Python 3.*this process Python 2\.7"):
            ray.init(address="auto")
        assert not ray.is_initialized()

    assert in_child(join) == 0


def test_session_outside_of_the_container_is_not_joined(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def join() -> None:
        opened = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)  # as in a pid namespace of its own
            with pytest.raises(ConnectionError, match=r"1 here and \d+ to the session"):
                ray.init(address=address)
        assert not ray.is_initialized()
        assert len(os.listdir("/proc/self/fd")) == opened

    assert in_child(join) == 0
    assert eventually(lambda: drivers() == {os.getpid()})


# ---- forked children join quickly: what needs many guests ----


def test_forked_child_of_a_driver_joins_as_a_guest(address: str) -> None:
    def work() -> None:
        ray.init(address="auto")
        assert ray.get(ray.remote(lambda: 1).remote()) == 1
        assert in_child(work_once_more) == 0
        assert ray.get(ray.put(3)) == 3

    def work_once_more() -> None:
        assert not ray.is_initialized()
        ray.init(address="auto")
        assert ray.get(ray.put(2)) == 2

    assert in_child(work) == 0
    assert eventually(lambda: drivers() == {os.getpid()})


@pytest.mark.parametrize("where", ["directory", "environment"])
def test_address_may_be_a_directory_or_come_from_the_environment(
    address: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def join() -> None:
        monkeypatch.setenv("RAY_ADDRESS", address)
        given = str(Path(address).parent) if where == "directory" else None
        assert ray.init(given)["address"] == address

    assert in_child(join) == 0


def test_address_of_a_cluster_in_the_environment_is_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    ray.init(num_cpus=1)
    ray.shutdown()


def test_guest_is_warned_of_environment_variables_that_do_nothing(address: str) -> None:
    def join() -> None:
        with pytest.warns(UserWarning, match="give it to the task"):
            ray.init(address="auto", runtime_env={"env_vars": {"A": "1"}})

    assert in_child(join) == 0


def test_process_may_join_and_leave_many_times(address: str) -> None:
    supervisor = connection().supervisor
    assert supervisor is not None
    descriptors = Path(f"/proc/{supervisor.pid}/fd")
    assert eventually(lambda: connection().core.load()["idle"] > 0)
    before = len(list(descriptors.iterdir()))

    def come_and_go() -> None:
        for _ in range(50):  # more often than there are slots for drivers
            ray.init(address="auto")
            ray.put(bytes(1000))
            ray.shutdown()
        assert eventually(lambda: len(list(descriptors.iterdir())) <= before)

    assert in_child(come_and_go) == 0
    assert eventually(lambda: drivers() == {os.getpid()})
    assert connection().core.broken_invariant() is None


def test_tasks_of_a_guest_that_has_left_run(address: str, gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "ran"

    def run(gate: str, path: str) -> None:
        pass_through(gate)
        Path(path).touch()

    def submit() -> None:
        ray.init(address="auto")
        ray.remote(run).remote(str(gate.path), str(path))

    assert in_child(submit) == 0
    assert eventually(lambda: drivers() == {os.getpid()})
    gate.open()
    assert eventually(path.exists)


def test_guests_killed_anywhere_leave_nothing(address: str) -> None:
    core = connection().core
    double = ray.remote(lambda x: 2 * x)
    assert ray.get(double.remote(1)) == 2
    before = core.usage()["objects"]
    for steps in range(1, 25):
        pid, progress = start_busy_guest()
        for _ in range(steps):
            assert os.read(progress, 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(progress)
    assert eventually(lambda: drivers() == {os.getpid()})
    assert eventually(lambda: core.usage()["objects"] == before), core.usage()
    assert eventually(lambda: core.usage()["tasks"] == 0)
    assert core.broken_invariant() is None
    assert ray.get(double.remote(2)) == 4


def start_busy_guest() -> tuple[int, int]:
    """Return the pid of a guest that comes and goes for ever; a pipe gets a byte for each step."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        while True:
            ray.init(address="auto")
            os.write(write, b".")
            refs = [ray.put(bytes(10**5)) for _ in range(3)]
            os.write(write, b".")
            stream = ray.remote(count).remote(refs)
            os.write(write, b".")
            next(stream)
            os.write(write, b".")
            ray.shutdown()
    os.close(write)
    return pid, read


def count(refs: list[ray.ObjectRef[bytes]]) -> Iterator[int]:
    """Yield a few numbers."""
    yield from range(5)


def drivers() -> set[int]:
    """Return the pids of the session's drivers."""
    return {pid for _, pid, role, _ in connection().core.slots() if role == _core.ROLE_DRIVER}


# ---- this process is the guest ----


@pytest.mark.parametrize("victim", ["driver", "supervisor"])
def test_guest_that_waits_is_told_when_the_session_was_killed(victim: str) -> None:
    driver = Guest(
        "from ray_lite.session import current\n"
        "print(ray.init(num_cpus=1)['address'], flush=True)\n"
        "print(current().supervisor.pid, flush=True); input()"
    )
    path, supervisor = Path(driver.line()), int(driver.line())
    ray.init(address=str(path))
    blocked = ray.remote(num_cpus=99)(lambda: 1).remote()
    os.kill(driver.process.pid if victim == "driver" else supervisor, signal.SIGKILL)
    with pytest.raises(ray.exceptions.RaySystemError):
        ray.get(blocked)
    with pytest.raises(ray.exceptions.RaySystemError):
        ray.put(1)
    driver.process.kill()
    driver.end()
    assert eventually(lambda: not path.exists())
    assert eventually(lambda: is_gone(supervisor))
    with pytest.raises(ConnectionError):
        ray.init(address="auto")
    assert not ray.is_initialized()
