"""The janitor: what has to happen when a worker has died, in the order in which it must happen.

Owns that order: first the processes that the worker left behind, for they may still read its views;
then its slot, with everything that it held. Owns as well what is left to do when the supervisor
itself has died. It must not know what becomes of the worker's task: the core strands it, the
scheduler decides.
"""

import contextlib
import os
import signal
from pathlib import Path

from ray_lite import _core


def describe_status(pid: int, status: int) -> str:
    """Return how a process ended, from its wait status, in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"worker {pid} exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = "; was the machine out of memory?" if -code == signal.SIGKILL else ""
    return f"worker {pid} was killed by signal {-code} ({name}){hint}"


def sweep(pid: int, keep: set[int]) -> None:
    """Kill what the dead worker `pid` left behind: its process group, and orphans of it.

    The supervisor is a subreaper, so an orphan is its child now: every child that is not in `keep`.
    The trackers among them are spared: when all who use one are dead it removes the semaphores and
    the shared memory that they had named, and ends.
    """
    trackers = {child for child in _children() if child not in keep and _is_tracker(child)}
    _kill_group(pid, trackers)
    while orphans := set(_children()) - keep - trackers:
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, 0)


def _kill_group(group: int, spared: set[int]) -> None:
    if not spared:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        return
    # Passes until one finds nobody new, since a process may fork while it is looked for.
    killed: set[int] = set()
    while members := {pid for pid in _all_pids() if _group_of(pid) == group} - spared - killed:
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= members


def _is_tracker(pid: int) -> bool:
    """Whether a process is a resource tracker: multiprocessing's own, or loky's copy of it."""
    try:
        return b"resource_tracker import main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def sweep_marked(mark: str) -> None:
    """Kill every process whose first environment had the entry `mark`, but this one and trackers.

    For when the supervisor, to which orphans fall, is dead. Passes until one finds nobody, since a
    process may fork while it is looked for.
    """
    entry = mark.encode()
    others = {os.getpid()}
    while sum([_kill_if_marked(pid, entry) for pid in _all_pids() if pid not in others]):
        pass


def _kill_if_marked(pid: int, entry: bytes) -> bool:
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)  # first, so that the one looked at is the one killed
        try:
            marked = entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            marked = marked and not _is_tracker(pid)
            if marked:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            return marked
        finally:
            os.close(fd)
    return False


def _children() -> list[int]:
    """Return the pids of this process's children."""
    me = os.getpid()
    path = Path(f"/proc/{me}/task/{me}/children")
    try:
        return [int(pid) for pid in path.read_text().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [pid for pid in _all_pids() if _parent_of(pid) == me]


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent_of(pid: int) -> int | None:
    return _number_of(pid, 1)


def _group_of(pid: int) -> int | None:
    return _number_of(pid, 2)


def _number_of(pid: int, place: int) -> int | None:
    """Return a number of /proc/[pid]/stat: 1 is the parent, 2 the process group."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[place])


def give_back(core: _core.Session, pid: int) -> bool:
    """Release the slot of a dead process; returns whether it had one.

    Also a slot that it died in the middle of leaving.
    """
    slot = core.find_slot(pid)
    if slot is not None:
        core.release_slot(slot)
    return slot is not None
