"""A second process joins a session: what it can do, and what is left when it goes."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import eventually

import ray_lite as ray
from ray_lite import attach
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

    counter = ray.remote(Counter).options(name="counter").remote()
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
        "ray.init(address='auto'); ref = ray.put(bytes(10**6)); ray.shutdown()\n"
        "print(ray.is_initialized(), flush=True); input()"
    )
    assert guest.line() == "False"
    assert eventually(lambda: core.usage()["objects"] == before)
    assert core.find_slot(guest.process.pid) is None
    guest.go_on()
    assert guest.end() == 0


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


def test_stale_socket_is_swept_up() -> None:
    path = attach.directory() / f"dead{attach.SUFFIX}"
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stale.bind(str(path))
    stale.close()
    assert path.exists()
    with pytest.raises(ConnectionError):
        ray.init(address="auto")
    assert not path.exists()


def test_directory_that_others_may_enter_is_refused() -> None:
    attach.directory().chmod(0o755)
    with pytest.raises(PermissionError, match="of this user alone"):
        attach.directory()


def test_process_of_another_user_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    listener, path = attach.listen("session")
    other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.connect(str(path))
    monkeypatch.setattr(attach, "peer_of", lambda _: (os.getpid(), os.getuid() + 1))
    assert attach.admit(listener, {"secret": 1}, [0, 1, 2, 2]) is None
    assert other.recv(100) == b""
    other.close()
    listener.close()
