"""The scheduler, fed with events: fixed sequences, then random ones from a model of a machine."""

import random
from dataclasses import dataclass, field

import pytest

from ray_lite.scheduler import (
    IDLE_TICKS,
    MAX_WORKERS,
    START_FAILURES,
    DismissWorker,
    Event,
    Exited,
    Fail,
    Finish,
    Instruction,
    Joined,
    Loaded,
    Requeue,
    Scheduler,
    SetDepthFirst,
    SetGrowable,
    StartWorker,
    Stranded,
    Ticked,
    Warn,
)


def started(base: int) -> Scheduler:
    """Return a scheduler whose first workers have joined: pids 1 to `base`."""
    scheduler = Scheduler(base)
    scheduler.start()
    feed(scheduler, *(Joined(pid) for pid in range(1, max(base, 1) + 1)))
    return scheduler


def feed(scheduler: Scheduler, *events: Event) -> list[Instruction]:
    """Handle `events`, check after each, and return all instructions."""
    instructions = []
    for event in events:
        instructions += scheduler.handle(event)
        scheduler.validate()
    return instructions


def starts(instructions: list[Instruction]) -> int:
    return instructions.count(StartWorker())


def busy(scheduler: Scheduler, blocked: int = 0) -> Loaded:
    """Return a load at which a task could run and every worker has one."""
    return Loaded(True, len(scheduler.joined), 0, blocked)


def stranded(
    attempt: int = 0,
    max_retries: int = 3,
    open_returns: int = 1,
    nreturns: int = 1,
    raised: bool = False,
    cause: str = "worker 7 was killed by signal 9 (SIGKILL)",
) -> Stranded:
    return Stranded(42, "job", attempt, max_retries, open_returns, nreturns, raised, cause)


# ---- workers ----


@pytest.mark.parametrize(("base", "count"), [(0, 1), (1, 1), (2, 2), (64, 64)])
def test_start_starts_a_worker_for_each_cpu_but_at_least_one(base: int, count: int) -> None:
    scheduler = Scheduler(base)
    assert starts(scheduler.start()) == count
    assert scheduler.starting == count
    scheduler.validate()


def test_core_is_told_to_ring_once_all_workers_have_joined() -> None:
    scheduler = Scheduler(2)
    assert SetGrowable(True) not in scheduler.start()
    assert feed(scheduler, Joined(1)) == []
    assert feed(scheduler, Joined(2)) == [SetGrowable(True)]


def test_worker_that_dies_is_replaced() -> None:
    scheduler = started(2)
    assert starts(feed(scheduler, Exited(1))) == 1
    assert scheduler.joined == {2}


def test_surplus_worker_that_dies_is_not_replaced() -> None:
    scheduler = started(2)
    feed(scheduler, busy(scheduler), Joined(3))
    assert starts(feed(scheduler, Exited(1))) == 0
    assert starts(feed(scheduler, Exited(2))) == 1


def test_task_that_finds_every_worker_occupied_gets_one_more_worker_at_a_time() -> None:
    scheduler = started(2)
    instructions = feed(scheduler, busy(scheduler))
    assert instructions == [StartWorker(), SetGrowable(False)]
    assert feed(scheduler, busy(scheduler)) == []
    assert feed(scheduler, Joined(3)) == [SetGrowable(True)]
    assert starts(feed(scheduler, busy(scheduler))) == 1


@pytest.mark.parametrize("load", [Loaded(False, 2, 0, 0), Loaded(True, 2, 1, 0)])
def test_no_worker_is_started_when_no_task_can_run_or_a_worker_idles(load: Loaded) -> None:
    assert feed(started(2), load) == []


def test_workers_that_all_work_stop_being_added_at_a_bound() -> None:
    scheduler = started(2)
    for pid in range(3, 100):
        if StartWorker() in feed(scheduler, busy(scheduler)):
            feed(scheduler, Joined(pid))
    assert len(scheduler.joined) == scheduler.most_active == 64


def test_workers_that_wait_do_not_count_towards_that_bound() -> None:
    scheduler = started(2)
    for pid in range(3, 300):
        blocked = len(scheduler.joined) - 1
        if StartWorker() in feed(scheduler, busy(scheduler, blocked)):
            feed(scheduler, Joined(pid))
    assert len(scheduler.joined) == MAX_WORKERS


def test_surplus_worker_is_dismissed_once_it_has_idled_long_enough() -> None:
    scheduler = started(2)
    feed(scheduler, busy(scheduler), Joined(3), Loaded(False, 3, 1, 0))
    ticks = [feed(scheduler, Ticked()) for _ in range(IDLE_TICKS)]
    assert ticks == [[]] * (IDLE_TICKS - 1) + [[DismissWorker()]]
    feed(scheduler, Exited(3), Loaded(False, 2, 2, 0))
    assert [feed(scheduler, Ticked()) for _ in range(3 * IDLE_TICKS)] == [[]] * 3 * IDLE_TICKS


def test_surplus_worker_that_works_now_and_then_is_kept() -> None:
    scheduler = started(2)
    feed(scheduler, busy(scheduler), Joined(3))
    for _ in range(10):
        feed(scheduler, Loaded(False, 3, 1, 0))
        assert feed(scheduler, *[Ticked()] * (IDLE_TICKS - 1)) == []
        assert feed(scheduler, Loaded(False, 3, 0, 0), Ticked()) == []


def test_workers_that_die_before_they_join_are_replaced_a_few_times_then_the_user_is_told() -> None:
    scheduler = Scheduler(1)
    scheduler.start()
    for _ in range(START_FAILURES - 1):
        assert starts(feed(scheduler, Exited(9))) == 1
    (warning,) = feed(scheduler, Exited(9))
    assert isinstance(warning, Warn)
    assert str(START_FAILURES) in warning.message


def test_local_mode_has_no_workers_but_judges_what_strands() -> None:
    scheduler = Scheduler(2, local_mode=True)
    assert starts(scheduler.start()) == 0
    assert starts(feed(scheduler, Loaded(False, 0, 0, 0), Ticked())) == 0
    assert [type(each) for each in feed(scheduler, stranded(0, max_retries=3))] == [Requeue]


def test_worker_that_joins_forgives_the_failed_starts_before_it() -> None:
    scheduler = Scheduler(1)
    scheduler.start()
    for pid in range(10):
        assert starts(feed(scheduler, *[Exited(99)] * (START_FAILURES - 1))) == 2
        assert starts(feed(scheduler, Joined(pid), Exited(pid))) == 1


# ---- tasks ----


@pytest.mark.parametrize(
    ("attempt", "max_retries", "verdict"),
    [
        (0, 0, Fail),
        (0, 1, Requeue),
        (1, 1, Fail),
        (2, 3, Requeue),
        (3, 3, Fail),
        (0, -1, Requeue),
        (10**6, -1, Requeue),
    ],
)
@pytest.mark.parametrize("raised", [False, True])
def test_stranded_task_is_run_again_as_often_as_it_may(
    attempt: int, max_retries: int, verdict: type[Instruction], raised: bool
) -> None:
    (instruction,) = feed(started(1), stranded(attempt, max_retries, raised=raised))
    assert isinstance(instruction, verdict)
    assert instruction.task == 42  # type: ignore[union-attr]


def test_stranded_task_that_had_stored_all_its_values_is_finished() -> None:
    assert feed(started(1), stranded(open_returns=0, nreturns=3)) == [Finish(42)]


def test_stranded_task_without_returns_is_run_again_for_nobody_knows_how_far_it_came() -> None:
    assert feed(started(1), stranded(open_returns=0, nreturns=0)) == [Requeue(42)]


def test_stranded_task_with_some_values_stored_is_run_again() -> None:
    assert feed(started(1), stranded(open_returns=1, nreturns=3)) == [Requeue(42)]


def test_failure_names_the_task_the_cause_and_the_attempts() -> None:
    (fail,) = feed(started(1), stranded(2, 2))
    assert isinstance(fail, Fail)
    for word in ("job", "SIGKILL", "attempt 3 of 3"):
        assert word in fail.message
    (fail,) = feed(started(1), stranded(0, 0, cause=""))
    assert isinstance(fail, Fail)
    for word in ("the worker died", "max_retries"):
        assert word in fail.message


def test_infeasible_class_is_warned_of_once() -> None:
    scheduler = started(1)
    load = Loaded(False, 1, 1, 0, infeasible="task f")
    (warning,) = feed(scheduler, load)
    assert isinstance(warning, Warn)
    assert "wait for ever" in warning.message
    assert feed(scheduler, load, Ticked(), load) == []
    assert isinstance(feed(scheduler, Loaded(False, 1, 1, 0, infeasible="task g"))[0], Warn)


# ---- random sequences ----


@dataclass
class Machine:
    """A model of the supervisor's world: does what it is told, and has accidents."""

    base: int
    dice: random.Random
    scheduler: Scheduler = field(init=False)
    starting: list[int] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)
    growable: bool = False
    next_pid: int = 1
    next_task: int = 1
    open_tasks: set[int] = field(default_factory=set)
    idle: int = 0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.base)
        self.carry_out(self.scheduler.start())

    def step(self) -> None:
        event = self.dice.choice([self.join, self.exit, self.load, self.tick, self.strand])()
        if event is not None:
            self.carry_out(self.scheduler.handle(event))
        self.check()

    def join(self) -> Event | None:
        if not self.starting:
            return None
        self.joined.append(self.starting.pop(0))
        return Joined(self.joined[-1])

    def exit(self) -> Event | None:
        crowd = self.dice.choice([self.starting, self.joined])
        if not crowd or self.dice.random() < 0.7:
            return None
        return Exited(crowd.pop(self.dice.randrange(len(crowd))))

    def load(self) -> Event:
        workers = len(self.joined)
        self.idle = self.dice.choice([0, 0, self.dice.randint(0, workers)])
        blocked = self.dice.randint(0, workers - self.idle)
        infeasible = self.dice.choice([None, None, "task f", "task g"])
        return Loaded(self.dice.random() < 0.8, workers, self.idle, blocked, infeasible)

    def tick(self) -> Event:
        return Ticked()

    def strand(self) -> Event:
        task, self.next_task = self.next_task, self.next_task + 1
        self.open_tasks.add(task)
        nreturns = self.dice.randrange(4)
        return Stranded(
            task,
            "job",
            self.dice.randrange(5),
            self.dice.randrange(-1, 5),
            self.dice.randint(0, nreturns),
            nreturns,
            self.dice.random() < 0.5,
        )

    def carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case StartWorker():
                    self.starting.append(self.next_pid)
                    self.next_pid += 1
                case DismissWorker():
                    assert len(self.joined) > max(self.base, 1)
                case Requeue(task) | Finish(task) | Fail(task):
                    self.open_tasks.remove(task)
                case SetGrowable(growable):
                    assert growable != self.growable
                    self.growable = growable
                case Warn(message):
                    assert message

    def check(self) -> None:
        self.scheduler.validate()
        assert self.scheduler.joined == set(self.joined)
        assert self.scheduler.starting == len(self.starting)
        assert len(self.joined) + len(self.starting) <= MAX_WORKERS
        assert not self.open_tasks, "each stranded task is decided about at once"
        assert self.scheduler.growable == self.growable
        assert not (self.growable and self.starting), "one worker at a time"

    def settle(self) -> None:
        """Let what is starting join, without accidents."""
        while self.starting:
            event = self.join()
            assert event is not None
            self.carry_out(self.scheduler.handle(event))
            self.check()


@pytest.mark.parametrize("seed", range(40))
def test_scheduler_stays_sound_and_agrees_with_the_machine_whatever_happens(seed: int) -> None:
    dice = random.Random(seed)
    machine = Machine(dice.choice([0, 1, 2, 8, 64]), dice)
    for _ in range(500):
        machine.step()
    assert machine.next_pid > machine.base


@pytest.mark.parametrize("seed", range(10))
def test_scheduler_serves_a_busy_machine_again_after_any_history(seed: int) -> None:
    dice = random.Random(1000 + seed)
    machine = Machine(dice.choice([0, 1, 2, 8]), dice)
    for _ in range(300):
        machine.step()
    machine.settle()
    # Whatever was: while all workers wait and a task could run, there will be one more worker.
    before = len(machine.joined)
    load = Loaded(True, before, 0, before)
    machine.carry_out(machine.scheduler.handle(load))
    machine.settle()
    assert len(machine.joined) == min(before + 1, MAX_WORKERS)


# ---- tasks of tasks ----


def test_tasks_of_tasks_go_first_while_many_workers_wait_for_theirs() -> None:
    scheduler = started(2)
    assert feed(scheduler, Loaded(False, 9, 0, 8)) == [SetDepthFirst(True)]
    assert feed(scheduler, Loaded(False, 9, 0, 9)) == []
    assert feed(scheduler, Loaded(False, 9, 3, 1)) == [SetDepthFirst(False)]


def test_nesting_too_deep_for_the_number_of_processes_is_warned_of_once() -> None:
    scheduler = started(2)
    stuck = Loaded(True, 240, 0, 240)
    warnings = [i for i in feed(scheduler, stuck) if isinstance(i, Warn)]
    assert len(warnings) == 1
    assert "240 tasks wait" in warnings[0].message
    assert not any(isinstance(i, Warn) for i in feed(scheduler, stuck))


def test_many_cpus_do_not_mean_many_workers_at_once() -> None:
    scheduler = Scheduler(base=100_000)
    assert scheduler.start().count(StartWorker()) == 64
    scheduler.validate()
