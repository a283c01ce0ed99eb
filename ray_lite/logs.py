"""The log process: carries what workers print to the driver, line by line, with a prefix.

Owns the pipes' read ends and the writing to the driver's stdout and stderr, which may block: that
is why it is a process of its own, forked by the supervisor. A worker whose pipe is full waits, so
nothing is lost. It must not know tasks: a worker announces the name of what it runs in its own
output stream (`TitledStream`), so a line always carries the right name.

It is also the witness of the supervisor's death: who closes the socket without a goodbye was
killed, and the log process then sweeps up the session before it ends itself. When it is the log
process that is killed, the supervisor, which has the pipes' read ends too, forks another.

    worker 1 ──stdout, stderr──┐
    worker 2 ──stdout, stderr──┼──► log process ──► driver's stdout, stderr
    supervisor ──messages──────┘
"""

import array
import contextlib
import io
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

TITLE: Final = b"\x00ray_lite "  # a title reaches from here to the end of the line
GOODBYE: Final = b"{}"
LAST_WORDS: Final = 1  # seconds that the pipes may stay open when the supervisor was killed
CHUNK: Final = 1 << 16
LONGEST_LINE: Final = 1 << 20  # a longer line is cut in pieces


class TitledStream(io.TextIOWrapper):
    """A worker's stdout or stderr: announces the running task's name before its first output.

    Args:
        fd: Where to write to; stays open when this is closed.
    """

    def __init__(self, fd: int) -> None:
        """Begin with a title that says nothing."""
        buffered = io.BufferedWriter(io.FileIO(fd, "wb", closefd=False))
        super().__init__(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self._announced = ""
        #: Asked before each output for the name of the task that runs now.
        self.title: Callable[[], str] = str

    def write(self, text: str) -> int:
        """Write `text`, after the title if that is new."""
        title = self.title()
        if title != self._announced:
            self._announced = title
            super().flush()
            title = " ".join(title.splitlines())
            self.buffer.write(TITLE + title.encode("utf-8", "replace") + b"\n")
        return super().write(text)


class _Source:
    """One pipe: its pid, where it goes, and the line that is not complete yet."""

    def __init__(self, fd: int, pid: int, out: int) -> None:
        self.fd = fd
        self.pid = pid
        self.out = out
        self.title = "worker"
        self.partial = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the complete lines in `data`, with their prefix."""
        lines = (self.partial + data).split(b"\n")
        self.partial = lines.pop()
        done = []
        for line in lines:
            done += self._take_line(line)
        if len(self.partial) > LONGEST_LINE and TITLE not in self.partial:
            done += self.rest()
        return done

    def rest(self) -> list[bytes]:
        """Return what is left when the pipe ends."""
        line, self.partial = self.partial, b""
        return self._take_line(line) if line else []

    def _take_line(self, line: bytes) -> list[bytes]:
        text, mark, title = line.partition(TITLE)
        if not mark:
            return [self._prefix() + text + b"\n"]
        done = [self._prefix() + text + b"\n"] if text else []
        self.title = title.decode("utf-8", "replace")
        return done

    def _prefix(self) -> bytes:
        if self.pid == 0:
            return b""
        prefix = f"({self.title} pid={self.pid})"
        if os.isatty(self.out):
            prefix = f"\x1b[36m{prefix}\x1b[0m"
        return prefix.encode() + b" "


class LogProcess:
    """Reads every pipe it is handed until all of them, and the supervisor's socket, have ended.

    Args:
        control: The socket to the supervisor.
        mute: Read what workers print and drop it (log_to_driver=False).
        orphaned: What is to be done if the supervisor is killed.
    """

    def __init__(self, control: socket.socket, *, mute: bool, orphaned: Callable[[], None]) -> None:
        """Listen to `control` for pipes."""
        self._mute = mute
        self._orphaned = orphaned
        self._control: socket.socket | None = control
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._sources: dict[int, _Source] = {}

    def run(self) -> None:
        """Work until nothing can come any more."""
        while self._control is not None or self._sources:
            for fd, _ in self._poll.poll():
                if self._control is not None and fd == self._control.fileno():
                    self._accept()
                else:
                    self._read(self._sources[fd])

    def _accept(self) -> None:
        """Take over the pipes of a new worker, or learn that the supervisor has ended."""
        assert self._control is not None
        message, ancillary, _, _ = self._control.recvmsg(4096, socket.CMSG_SPACE(16))
        if message in (b"", GOODBYE):
            self._poll.unregister(self._control)
            self._control.close()
            self._control = None
            if not message:
                signal.alarm(LAST_WORDS)  # the end, even if somebody keeps a pipe open
                self._orphaned()
            return
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        pid = json.loads(message)["pid"]
        for fd, out in zip(fds, (1, 2) if len(fds) == 2 else (2,), strict=True):
            self._sources[fd] = _Source(fd, pid, out)
            self._poll.register(fd, select.EPOLLIN)

    def _read(self, source: _Source) -> None:
        data = os.read(source.fd, CHUNK)
        lines = source.feed(data) if data else source.rest()
        if source.pid == 0 or not self._mute:
            self._emit(source.out, lines)
        if not data:
            self._poll.unregister(source.fd)
            os.close(source.fd)
            del self._sources[source.fd]

    def _emit(self, out: int, lines: list[bytes]) -> None:
        """Write whole lines; this may block, and then so do the workers whose pipes are full."""
        data = b"".join(lines)
        while data:
            try:
                data = data[os.write(out, data) :]
            except BlockingIOError:
                select.select([], [out], [])
            except OSError:
                return  # the driver's terminal or pipe is gone; drain on, or workers would hang


def send_pipes(control: socket.socket, pid: int, fds: list[int]) -> None:
    """Hand the read ends of a process's pipes to the log process (pid 0: no prefix, to stderr)."""
    packed = array.array("i", fds)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        control.sendmsg(
            [json.dumps({"pid": pid}).encode()],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)],
        )


def say_goodbye(control: socket.socket) -> None:
    """Tell the log process that the session ends in good order."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        control.send(GOODBYE)
    control.close()


def main(control: socket.socket, *, mute: bool, orphaned: Callable[[], None]) -> None:
    """Be the log process until the end; see LogProcess."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    LogProcess(control, mute=mute, orphaned=orphaned).run()


def title_setter(streams: list[TitledStream]) -> Any:
    """Return a function that tells all `streams` whom to ask for the title."""

    def set_title(title: Callable[[], str]) -> None:
        for stream in streams:
            stream.title = title

    return set_title
