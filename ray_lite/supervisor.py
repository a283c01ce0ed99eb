"""The supervisor: starts workers, notices their deaths, carries out what the scheduler decides.

Owns every process of the session but the driver, and the event loop over their pidfds, the bell and
the driver's socket. Single-threaded, never runs or unpickles user code, never waits for anything
but its events, so it can be forked from at any time. It must not decide: scheduler.py does.
"""

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray_lite import _core, attach, janitor, logs, session, worker
from ray_lite import scheduler as sched
from ray_lite._blas import set_blas_threads
from ray_lite._values import fail_open_returns
from ray_lite.certificate import actor_id_of, certify_death, read_certificate, was_asked_for
from ray_lite.exceptions import (
    ActorUnavailableError,
    TaskCancelledError,
    WorkerCrashedError,
    dumps_error,
    error_text,
    is_cancel,
)

TICK: Final = 1.0  # seconds
PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(frozen=True, slots=True)
class Config:
    """What the driver tells first."""

    control_fd: int
    data_fd: int
    bell_fd: int
    driver_pid: int
    num_cpus: int
    local_mode: bool
    log_to_driver: bool
    namespace: str
    patience: float
    #: Environment variables as the driver has them, where the supervisor's own differ.
    environment: dict[str, str | None]


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


class Supervisor:
    """One session's supervisor.

    Args:
        driver: The control socket to the driver.
        driver_pidfd: Turns readable when the driver dies.
        config: What the driver said first.
    """

    def __init__(self, driver: socket.socket, driver_pidfd: int, config: Config) -> None:
        """Join the session and start its log process; no worker yet."""
        self._driver = driver
        self._driver_pidfd = driver_pidfd
        self._config = config
        self._segments = _core.Segments.attach(config.control_fd, config.data_fd)
        # It must not wait for room in the store: patience 0.
        self._core = _core.Session(self._segments, _core.ROLE_SUPERVISOR, -1, -1, 0.0)
        self._scheduler = sched.Scheduler(config.num_cpus, local_mode=config.local_mode)
        self._poll = select.epoll()
        #: pidfd -> pid of every worker.
        self._workers: dict[int, int] = {}
        #: Workers whose slot has been seen.
        self._joined: set[int] = set()
        #: What the scheduler's task numbers stand for.
        self._tasks: dict[int, _core.Job] = {}
        #: How the last worker that had a task ended, for the error of that task.
        self._cause = ""
        #: pid -> read ends of what a worker prints (0: messages of our own). The log process has
        #: them too; should it be killed, they do not go with it.
        self._pipes: dict[int, list[int]] = {}
        #: The session's name, for its socket.
        self._name = session.session_id(self._segments)
        #: Descriptor of the pidfd or the connection -> another driver that has joined.
        self._guests: dict[int, attach.Guest] = {}
        #: pidfd of this process, for guests.
        self._own_pidfd = os.pidfd_open(os.getpid())
        self._log, self._log_pid, self._log_pidfd = self._fork_log()
        self._messages = self._open_messages()

    # ---- the loop ----

    def run(self) -> None:
        """Supervise until the driver ends the session, or dies."""
        driver = self._driver.fileno()
        for fd in (driver, self._config.bell_fd, self._driver_pidfd, self._log_pidfd):
            self._poll.register(fd, select.EPOLLIN)
        self._carry_out(self._scheduler.start())
        self._listener, self._address = self._listen()
        ready = {"pid": os.getpid(), "address": str(self._address or "local")}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the driver has died
            self._driver.sendall(json.dumps(ready).encode())
        while not self._handle_events(self._poll.poll(TICK)):
            self._look()
        self._end()

    def _handle_events(self, events: list[tuple[int, int]]) -> bool:
        """Deal with what the kernel reports; returns whether the session is to end."""
        if not events:
            self._decide(sched.Ticked())
        knocking = False
        for fd, _ in events:
            if fd in (self._driver.fileno(), self._driver_pidfd):
                return True
            if fd == self._config.bell_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
            elif fd == self._log_pidfd:
                self._replace_log()
            elif self._listener is not None and fd == self._listener.fileno():
                knocking = True
            elif fd in self._guests:
                self._part_from_guest(fd)
            else:
                self._bury(fd)
        if knocking:  # last, so that a dead guest's pid is not yet somebody else's
            self._admit_guest()
        return False

    def _look(self) -> None:
        """See what has happened in shared memory since the last look."""
        self._core.clear_bell()
        for _, pid, role, _ in self._core.slots():
            if role == _core.ROLE_WORKER:
                self._welcome(pid)
        self._carry_out_orders()
        load = self._core.load()
        if load["stranded"]:
            self._judge_stranded()
        if load["reports"]:
            self._print_reports()
        self._decide(
            sched.Loaded(
                load["runnable"],
                load["workers"],
                load["idle"],
                load["blocked"],
                self._describe_infeasible(load["infeasible"]),
                load["actors"],
            )
        )

    def _describe_infeasible(self, task: tuple[str, dict[str, int]] | None) -> str | None:
        if task is None:
            return None
        name, demand = task
        totals = {key: total / 10_000 for key, (total, _) in self._core.resources().items()}
        wanted = ", ".join(
            f"{units / 10_000:g} {key} of {totals[key]:g}"
            for key, units in demand.items()
            if units / 10_000 > totals[key]
        )
        return f"Task {name} asks for {wanted}, which this session does not have"

    def _welcome(self, pid: int) -> None:
        """A worker has joined; the scheduler is told once."""
        if pid not in self._joined:
            self._joined.add(pid)
            self._decide(sched.Joined(pid))

    def _decide(self, event: sched.Event) -> None:
        self._carry_out(self._scheduler.handle(event))

    def _carry_out(self, instructions: list[sched.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case sched.StartWorker():
                    self._start_worker()
                case sched.DismissWorker():
                    self._dismiss_worker()
                case sched.Requeue(task):
                    self._core.requeue(self._tasks.pop(task))
                case sched.Finish(task):
                    self._tasks.pop(task).conclude([])
                case sched.Fail(task, message):
                    self._fail(self._tasks.pop(task), message)
                case sched.FailCancelled(task):
                    self._fail_with(self._tasks.pop(task), TaskCancelledError())
                case sched.FailOrphan(task):
                    job = self._tasks.pop(task)
                    self._fail_with_data(job, read_certificate(self._core, _actor_of(job)))
                case sched.FailUnavailable(task, message):
                    job = self._tasks.pop(task)
                    actor_id = actor_id_of(_actor_of(job)).hex()
                    self._fail_with(job, ActorUnavailableError(message, actor_id))
                case sched.Bury(task, reason):
                    job = self._tasks.pop(task)
                    space = self._config.namespace
                    certify_death(self._core, job, reason, name=job.name, namespace=space)
                case sched.SetGrowable(growable):
                    self._core.set_growable(growable)
                case sched.SetDepthFirst(depth_first):
                    self._core.set_depth_first(depth_first)
                case sched.Warn(message):
                    self._say(f"ray_lite: {message}")

    # ---- workers ----

    def _start_worker(self) -> None:
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        assert len(os.listdir("/proc/self/task")) == 1, "the supervisor must have one thread"
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(me, out_write, err_write)
        pidfd = os.pidfd_open(pid)
        self._workers[pidfd] = pid
        self._poll.register(pidfd, select.EPOLLIN)
        os.close(out_write)
        os.close(err_write)
        self._pipes[pid] = [out_read, err_read]
        logs.send_pipes(self._log, pid, self._pipes[pid])

    def _become_worker(self, supervisor: int, out: int, err: int) -> None:
        """In the forked child: shed what is the supervisor's, join, work, end."""
        status = 1
        try:
            self._core.detach()
            _detach_process(supervisor, out, err, keep=self._config.bell_fd)
            streams = [logs.TitledStream(1), logs.TitledStream(2)]
            sys.stdout, sys.stderr = streams
            set_blas_threads()
            core = _core.Session(
                self._segments,
                _core.ROLE_WORKER,
                self._config.bell_fd,
                -1,
                self._config.patience,
            )
            os.eventfd_write(self._config.bell_fd, 1)
            worker.main(core, self._config.namespace, logs.title_setter(streams))
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _dismiss_worker(self) -> None:
        idle = self._core.idle_slots()
        if idle:
            self._core.dismiss(idle[-1])

    def _carry_out_orders(self) -> None:
        """Kill or signal the workers whose task was cancelled, or whose actor is to die."""
        workers = set(self._workers.values())
        for slot, kill in self._core.orders():
            pid = self._core.pid_of(slot)
            if pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if kill else session.CANCEL_SIGNAL)

    def _bury(self, pidfd: int) -> None:
        """A worker has died: reap it, give back what it held, decide about its task."""
        pid = self._workers.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        for fd in self._pipes.pop(pid):
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        self._cause = janitor.describe_status(pid, status)
        janitor.sweep(pid, keep={self._log_pid, *self._workers.values()})
        if janitor.give_back(self._core, pid) or status == 0:
            self._welcome(pid)  # it may have come and gone between two looks
        self._joined.discard(pid)
        self._decide(sched.Exited(pid))
        self._judge_stranded()

    # ---- other drivers ----

    def _listen(self) -> tuple[socket.socket | None, Path | None]:
        """Let other processes of this user join; without a private place for it, nobody may.

        Nor in local mode, where nobody would run their tasks.
        """
        if self._config.local_mode:
            return None, None
        try:
            listener, path = attach.listen(self._name)
        except OSError as error:
            self._say(f"ray_lite: no other process can join this session: {error}")
            return None, None
        self._poll.register(listener, select.EPOLLIN)
        return listener, path

    def _admit_guest(self) -> None:
        assert self._listener is not None
        config = {
            "version": session.version(),
            "info": {
                "num_cpus": self._config.num_cpus,
                "object_store_memory": self._segments.capacity,
                "address": str(self._address),
            },
        }
        fds = [*self._segments.fds, self._config.bell_fd, self._own_pidfd]
        guest = attach.admit(self._listener, config, fds)
        if guest is not None:
            for fd in (guest.pidfd, guest.connection.fileno()):
                self._guests[fd] = guest
                self._poll.register(fd, select.EPOLLIN)

    def _part_from_guest(self, fd: int) -> None:
        """A guest has left, or is dead: then give back what it held."""
        guest = self._guests[fd]
        if fd == guest.pidfd:
            self._forget_guest(fd)
            janitor.give_back(self._core, guest.pid)
            return
        slot = attach.farewell_of(guest)
        self._forget_guest(fd)
        if (slot, guest.pid) in [(index, pid) for index, pid, _, _ in self._core.slots()]:
            self._core.release_slot(slot)
        elif self._core.find_slot(guest.pid) is not None:
            return  # it is dying, or another program now: its death will tell
        if self._guests.get(guest.pidfd) is guest and not attach.is_dead(guest.pidfd):
            self._forget_guest(guest.pidfd)

    def _forget_guest(self, fd: int) -> None:
        self._poll.unregister(fd)
        guest = self._guests.pop(fd)
        if fd == guest.pidfd:
            os.close(fd)
        else:
            guest.connection.close()

    # ---- tasks ----

    def _judge_stranded(self) -> None:
        """Decide about what is stranded.

        Actors first: what becomes of a call depends on whether its actor is dead, and one that is
        buried leaves its mailbox stranded.
        """
        stranded = self._core.stranded()
        actors = [item for item in stranded if item[0].is_actor]
        if actors:
            self._judge(actors)
            stranded = self._core.stranded()
        self._judge([item for item in stranded if not item[0].is_actor])

    def _judge(self, stranded: list[tuple[_core.Job, int]]) -> None:
        for job, open_returns in stranded:
            key = id(job)
            self._tasks[key] = job
            self._decide(
                sched.Stranded(
                    key,
                    job.name,
                    job.attempt,
                    job.max_retries,
                    open_returns,
                    job.nreturns,
                    job.why_stranded == _core.RAISED,
                    self._cause,
                    cancelled=job.was_cancelled,
                    is_actor=job.is_actor,
                    killed=job.kill == _core.KILL_FOR_EVER or job.why_stranded == _core.WITHDRAWN,
                    is_call=job.is_call,
                    orphaned=job.is_call and self._core.is_ready(_actor_of(job)),
                    run_once=job.is_run_once,
                )
            )

    def _fail(self, job: _core.Job, message: str) -> None:
        """Put the failure in every return that is still open; print it if there is none."""
        if job.nreturns == 0:
            self._say(message)
        self._fail_with(job, WorkerCrashedError(message))

    def _fail_with(self, job: _core.Job, error: BaseException) -> None:
        self._fail_with_data(job, dumps_error(error))

    def _fail_with_data(self, job: _core.Job, data: bytes) -> None:
        fail_open_returns(self._core, job, data)

    def _print_reports(self) -> None:
        """Print the failures whose references died before anyone asked."""
        counts: Counter[str] = Counter()
        while (report := self._core.take_report()) is not None:
            if not is_cancel(report.data) and not was_asked_for(report.data):
                counts[error_text(report.data)] += 1
        if os.environ.get("RAY_IGNORE_UNHANDLED_ERRORS"):
            return
        for text, count in counts.items():
            times = "" if count == 1 else f", {count} times"
            self._say(
                f"Unhandled error{times} (suppress with 'RAY_IGNORE_UNHANDLED_ERRORS=1'): {text}"
            )

    # ---- output ----

    def _fork_log(self) -> tuple[socket.socket, int, int]:
        """Start the log process; returns the socket to it, its pid and its pidfd."""
        mark = f"{session.MARK}={os.environ[session.MARK]}"
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            try:
                self._core.detach()
                _close_all_but({0, 1, 2, theirs.fileno()})
                logs.main(
                    theirs,
                    mute=not self._config.log_to_driver,
                    orphaned=lambda: _sweep_up(mark, self._name),
                )
            finally:
                os._exit(0)
        theirs.close()
        return mine, pid, os.pidfd_open(pid)

    def _replace_log(self) -> None:
        """The log process was killed: another one goes on with the same pipes."""
        self._poll.unregister(self._log_pidfd)
        os.close(self._log_pidfd)
        os.waitpid(self._log_pid, 0)
        self._log.close()
        self._log, self._log_pid, self._log_pidfd = self._fork_log()
        self._poll.register(self._log_pidfd, select.EPOLLIN)
        for pid, fds in self._pipes.items():
            logs.send_pipes(self._log, pid, fds)

    def _open_messages(self) -> int:
        """Open the supervisor's own way to the driver's stderr."""
        read, write = os.pipe()
        self._pipes[0] = [read]
        logs.send_pipes(self._log, 0, self._pipes[0])
        os.set_blocking(write, False)
        return write

    def _say(self, text: str) -> None:
        """Print on the driver's stderr; what does not fit the pipe is dropped, never waited for."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._messages, text.encode("utf-8", "replace") + b"\n")

    # ---- the end ----

    def _end(self) -> None:
        """End every process of the session; the log process last, once all is written."""
        self._print_reports()
        attach.remove(self._name)
        self._core.end()
        for pid in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._workers.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            janitor.sweep(pid, keep={self._log_pid, *self._workers.values()})
        os.close(self._messages)
        logs.say_goodbye(self._log)
        if not select.select([self._log_pidfd], [], [], 2.0)[0]:
            os.kill(self._log_pid, signal.SIGKILL)
        os.waitpid(self._log_pid, 0)


def _sweep_up(mark: str, name: str) -> None:
    """The supervisor was killed: end what is left of the session."""
    attach.remove(name)
    janitor.sweep_marked(mark)


def _actor_of(job: _core.Job) -> _core.ObjectRef[Any]:
    actor = job.actor()
    assert actor is not None
    return actor


def _close_all_but(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)


def _detach_process(supervisor: int, out: int, err: int, *, keep: int) -> None:
    """Make this forked child a process of its own: group, output, descriptors, signals, seeds."""
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)  # it died before the line above
    os.dup2(out, 1)
    os.dup2(err, 2)
    _close_all_but({0, 1, 2, keep})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def main(control_fd: int) -> None:
    """Be the supervisor of the session whose driver holds the other end of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver = socket.socket(fileno=control_fd)
    message: dict[str, Any] = json.loads(driver.recv(1 << 20) or b"{}")
    if not message:
        return  # the driver died at once
    config = Config(**message)
    try:
        driver_pidfd = os.pidfd_open(config.driver_pid)
    except ProcessLookupError:
        return
    for key, value in config.environment.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor = Supervisor(driver, driver_pidfd, config)
    gc.freeze()  # what is there now will not change: keep its pages shared with the workers
    gc.enable()  # off since the interpreter's start
    supervisor.run()
