"""The scheduler: pure judgement. Events in, instructions out; no I/O, no clock, no processes.

Owns how many workers there should be, and what becomes of a task whose worker died or that raised
an exception to be retried. It must not know how a worker is started or a task is failed: the
supervisor does what the instructions say and reports what happened. Which queued task may run now
is decided in C, by the limits that were written on these instructions.

    Started ─┐
    Joined   │                    ┌─► StartWorker
    Exited   ├──► handle(event) ──┼─► DismissWorker
    Loaded   │                    ├─► Requeue, Fail, Finish
    Stranded │                    ├─► FailCancelled, FailOrphan, FailUnavailable, Bury
    Ticked ──┘                    └─► SetGrowable, SetDepthFirst, Warn
"""

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ray_lite.certificate import KILLED
from ray_lite.exceptions import RUN_ONCE

IDLE_TICKS: Final = 5  # seconds that a worker above the number of CPUs may idle
MAX_WORKERS: Final = 240  # of 256 slots
MOST_KEPT: Final = 64  # workers that are kept, whatever the number of CPUs
MANY_BLOCKED: Final = 8  # workers that wait for tasks of their own
START_FAILURES: Final = 3  # workers in a row that die before they join


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker process has claimed its slot."""

    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker process has ended; what it held has been given back."""

    pid: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the queues and the workers look like now."""

    runnable: bool  # the head of some queue may run now
    workers: int  # that have joined
    idle: int  # of them, that have no task
    blocked: int  # of them, whose task waits and has lent its CPU
    infeasible: str | None = None  # which task wants more than there is, and what
    actors: int = 0  # of the workers, that are actors and take no more tasks


@dataclass(frozen=True, slots=True)
class Stranded:
    """A task has lost its worker, is to be run again, was cancelled, or calls a dead actor."""

    task: int  # the supervisor's name for it
    name: str
    attempt: int  # from 0
    max_retries: int  # < 0: without end
    open_returns: int  # return values that are not stored yet
    nreturns: int
    raised: bool
    cause: str = ""  # how the worker ended
    cancelled: bool = False
    is_actor: bool = False
    killed: bool = False  # an actor that is not to be restarted
    is_call: bool = False
    orphaned: bool = False  # a call whose actor is dead
    run_once: bool = False  # it has taken, or passed on, items of a stream that came to it

    @property
    def may_run_again(self) -> bool:
        """Whether its options and what it has done allow one more attempt."""
        return not self.run_once and (self.max_retries < 0 or self.attempt < self.max_retries)


@dataclass(frozen=True, slots=True)
class Ticked:
    """About a second has passed."""


Event: TypeAlias = Joined | Exited | Loaded | Stranded | Ticked


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Fork a worker."""


@dataclass(frozen=True, slots=True)
class DismissWorker:
    """Ask one idle worker to end."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """Run the task again."""

    task: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The task had stored all its values; only its end is missing."""

    task: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Fail what is open of the task, as a crash."""

    task: int
    message: str


@dataclass(frozen=True, slots=True)
class FailCancelled:
    """Fail what is open of the task, as cancelled."""

    task: int


@dataclass(frozen=True, slots=True)
class FailOrphan:
    """Fail what is open of the call with the reason of its actor's death."""

    task: int


@dataclass(frozen=True, slots=True)
class FailUnavailable:
    """Fail what is open of the call: its actor's process died, and is being replaced."""

    task: int
    message: str


@dataclass(frozen=True, slots=True)
class Bury:
    """The actor is dead for good, for this reason."""

    task: int
    reason: str


@dataclass(frozen=True, slots=True)
class SetGrowable:
    """Have the core ring, or not, when a task finds every worker occupied."""

    growable: bool


@dataclass(frozen=True, slots=True)
class SetDepthFirst:
    """Have tasks that tasks submitted go before others, or not."""

    depth_first: bool


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell the user."""

    message: str


Instruction: TypeAlias = (
    StartWorker
    | DismissWorker
    | Requeue
    | Finish
    | Fail
    | FailCancelled
    | FailOrphan
    | FailUnavailable
    | Bury
    | SetGrowable
    | SetDepthFirst
    | Warn
)


@dataclass(slots=True)
class Scheduler:
    """Decides; see the module's picture."""

    #: CPUs of the session.
    base: int
    #: The driver runs everything, and there are no workers.
    local_mode: bool = False
    #: Workers that were started and have not joined, nor died.
    starting: int = 0
    #: Workers that have joined and not died.
    joined: set[int] = field(default_factory=set)
    #: Workers in a row that died before they joined.
    failed_starts: int = 0
    #: Ticks in a row at which there was an idle worker too many.
    idle_ticks: int = 0
    #: What the core was told last.
    growable: bool = False
    #: Whether tasks of tasks go first; what the core was told last.
    depth_first: bool = False
    #: What the user has been told that cannot run.
    warned: set[str] = field(default_factory=set)
    #: The last known load.
    load: Loaded = field(default_factory=lambda: Loaded(False, 0, 0, 0))

    @property
    def kept(self) -> int:
        """How many workers are kept: as many as there are CPUs, but others start when needed."""
        return 0 if self.local_mode else min(max(self.base, 1), MOST_KEPT)

    @property
    def pool(self) -> int:
        """How many workers are there to take tasks."""
        return len(self.joined) - self.load.actors

    @property
    def most_active(self) -> int:
        """How many workers may be at work at once; those whose task waits do not count."""
        return min(max(4 * self.base, MOST_KEPT), MAX_WORKERS)

    def start(self) -> list[Instruction]:
        """Return what is to be done first: start the workers that are kept."""
        self.starting = self.kept
        instructions: list[Instruction] = [StartWorker() for _ in range(self.starting)]
        return instructions + self._set_growable()

    def handle(self, event: Event) -> list[Instruction]:
        """Return what is to be done about `event`."""
        match event:
            case Joined(pid):
                self.starting -= 1
                self.failed_starts = 0
                self.joined.add(pid)
                return self._set_growable()
            case Exited(pid):
                return self._worker_ended(pid)
            case Loaded():
                self.load = event
                return [
                    *self._warn_of_infeasible(event),
                    *self._warn_of_nesting(),
                    *self._set_depth_first(),
                    *self._grow(),
                    *self._refill(),
                ]
            case Stranded():
                return [self._judge(event)]
            case Ticked():
                return self._shrink()

    def validate(self) -> None:
        """Raise AssertionError if the state contradicts itself."""
        assert self.starting >= 0, self
        assert self.idle_ticks >= 0, self
        assert len(self.joined) + self.starting <= MAX_WORKERS, self

    # ---- workers ----

    def _worker_ended(self, pid: int) -> list[Instruction]:
        if pid in self.joined:
            self.joined.discard(pid)
            return self._refill()
        self.starting -= 1
        self.failed_starts += 1
        if self.failed_starts < START_FAILURES:
            return self._refill()
        self.failed_starts = 0
        return [Warn(f"{START_FAILURES} workers in a row ended before they could take a task")]

    def _refill(self) -> list[Instruction]:
        """Replace a worker that is to be kept, and has died or become an actor."""
        room = MAX_WORKERS - len(self.joined) - self.starting
        missing = min(self.kept - self.pool - self.starting, room)
        instructions: list[Instruction] = [StartWorker() for _ in range(max(missing, 0))]
        self.starting += len(instructions)
        return instructions + self._set_growable()

    def _grow(self) -> list[Instruction]:
        """Start one more worker if a task could run and every worker has one."""
        wanted = self.load.runnable and self.load.idle == 0 and self.starting == 0
        if not wanted or not self._may_grow():
            return self._set_growable()
        self.starting += 1
        return [StartWorker(), *self._set_growable()]

    def _may_grow(self) -> bool:
        active = self.pool - self.load.blocked
        return active < self.most_active and len(self.joined) + self.starting < MAX_WORKERS

    def _set_growable(self) -> list[Instruction]:
        """One worker at a time: while one starts, nobody needs to ring."""
        growable = self.starting == 0 and self._may_grow()
        if growable == self.growable:
            return []
        self.growable = growable
        return [SetGrowable(growable)]

    def _set_depth_first(self) -> list[Instruction]:
        """Many workers wait for tasks of their own: these go before what would wait as well."""
        depth_first = self.load.blocked >= max(MANY_BLOCKED, 2 * self.base)
        if depth_first == self.depth_first:
            return []
        self.depth_first = depth_first
        return [SetDepthFirst(depth_first)]

    def _warn_of_nesting(self) -> list[Instruction]:
        stuck = self.load.runnable and self.load.blocked >= MAX_WORKERS and self.load.idle == 0
        text = (
            f"{self.load.blocked} tasks wait for tasks of their own, and no process is left to run "
            "these: they are nested too deep, and will wait for ever"
        )
        if not stuck or "nesting" in self.warned:
            return []
        self.warned.add("nesting")
        return [Warn(text)]

    def _shrink(self) -> list[Instruction]:
        """Dismiss a worker that was started while others waited, once it has idled long enough."""
        surplus = self.pool > self.kept and self.load.idle > 0
        self.idle_ticks = self.idle_ticks + 1 if surplus else 0
        if self.idle_ticks < IDLE_TICKS:
            return []
        self.idle_ticks = 0
        return [DismissWorker()]

    # ---- tasks ----

    def _judge(self, task: Stranded) -> Instruction:
        """Decide about a stranded task."""
        if task.is_actor:
            return self._judge_actor(task)
        if task.orphaned:
            return FailOrphan(task.task)
        if task.cancelled:
            return FailCancelled(task.task)
        if task.open_returns == 0 and task.nreturns > 0 and not task.raised:
            return Finish(task.task)
        if task.may_run_again:
            return Requeue(task.task)
        attempts = task.attempt + 1
        if task.is_call and not task.raised:
            return FailUnavailable(
                task.task,
                f"{task.cause or 'its process died'} while it ran {task.name}. The actor is being "
                "restarted: "
                + (
                    f"the call was not run again, for {RUN_ONCE}"
                    if task.run_once
                    else "call again, or give max_task_retries=... to have it done"
                ),
            )
        return Fail(
            task.task,
            f"Task {task.name} ended with its worker: {task.cause or 'the worker died'} "
            f"(attempt {attempts} of {attempts}). " + _advice(task),
        )

    def _judge_actor(self, actor: Stranded) -> Instruction:
        """Restart an actor whose process died, or bury it."""
        if actor.killed:
            return Bury(actor.task, KILLED)
        if actor.may_run_again:
            return Requeue(actor.task)
        restarts = f"; it was restarted {actor.attempt} times" if actor.attempt else ""
        if actor.run_once:
            restarts += f"; {RUN_ONCE}"
        return Bury(actor.task, f"its process died: {actor.cause or 'killed'}{restarts}")

    def _warn_of_infeasible(self, load: Loaded) -> list[Instruction]:
        if load.infeasible is None or load.infeasible in self.warned:
            return []
        self.warned.add(load.infeasible)
        return [
            Warn(
                f"{load.infeasible}; it will wait for ever. Ask for less, or give "
                "init(num_cpus=..., resources=...) more"
            )
        ]


def _advice(task: Stranded) -> str:
    """Return what to do about a task that died with its worker."""
    if task.run_once:
        return f"It was not run again: {RUN_ONCE}"
    if task.max_retries:
        return "Look into the task's output above"
    return "Give max_retries=... to have it run again"
