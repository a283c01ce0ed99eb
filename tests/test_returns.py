"""The rules of returns.py, step by step, with a job and a core that write down what they are told.

What comes of them in real tasks is in test_generators.py and in tests/conformance.
"""

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from support import CopyingSteps

from ray_lite import _codec as codec
from ray_lite import _core
from ray_lite.exceptions import (
    ObjectStoreFullError,
    RayTaskError,
    StreamingGeneratorReplayInconsistentError,
    loads_error,
)
from ray_lite.returns import Returns

Journal = list[tuple[Any, ...]]


class Stored:
    """A value in no store at all."""

    def __init__(self, encoded: codec.Encoded) -> None:
        self.kind, self.payload = encoded.kind, encoded.to_bytes()

    def fingerprint(self) -> int:
        return hash((self.kind, self.payload))

    @property
    def value(self) -> Any:
        """The value, or the exception that a get would raise."""
        value = codec.decode(self.kind, self.payload, [])
        return loads_error(value.data) if isinstance(value, codec.ErrorPayload) else value


class Core:
    """Stores until there is no room."""

    def __init__(self, room: int = 10**6) -> None:
        self.room = room

    def steps(self, dead_yields: Any) -> CopyingSteps:
        return CopyingSteps()

    def store_owned(self, value: Any) -> Stored:
        return self.store(codec.encode(value.value))

    def store(self, encoded: codec.Encoded) -> Stored:
        if encoded.nbytes > self.room:
            raise ObjectStoreFullError("no room")
        return Stored(encoded)


class Job:
    """A task that writes a journal, maybe with values that an earlier attempt has shown."""

    task_id = bytes(24)
    fills_stream = False
    is_call = False
    is_cancelled = False
    is_run_once = False

    def __init__(
        self, nreturns: int, shown: Iterable[Any] = (), max_retries: int = 0, attempt: int = 0
    ) -> None:
        self.nreturns = nreturns
        self.max_retries = max_retries
        self.attempt = attempt
        self.values = {i: Stored(codec.encode(value)) for i, value in enumerate(shown)}
        self.journal: Journal = []

    def run(self, call: Callable[[], Any], as_value: bool) -> _core.Owned:
        return _core.Owned(call())

    def returned(self, i: int) -> int | None:
        return self.values[i].fingerprint() if i in self.values else None

    def open_returns(self) -> list[int]:
        return [i for i in range(self.nreturns) if i not in self.values]

    def give(self, i: int, stored: Stored) -> None:
        assert i not in self.values
        self.values[i] = stored
        self.journal.append(("give", i))

    def finish(self) -> None:
        assert not self.open_returns()
        self.journal.append(("finish",))

    def finish_with(self, i: int, stored: Stored) -> None:
        self.give(i, stored)
        self.finish()

    def conclude(self, outcomes: list[Stored]) -> None:
        for i, stored in zip(self.open_returns(), outcomes, strict=True):
            self.values[i] = stored
        self.journal.append(("conclude", len(outcomes)))

    def strand(self) -> None:
        self.journal.append(("strand",))

    def outcome(self) -> list[Any]:
        """Return each value; of a failure the type of its cause."""
        outcome = []
        for i in range(self.nreturns):
            value = self.values[i].value
            failed = isinstance(value, RayTaskError)
            outcome.append(type(value.cause) if failed else value)
        return outcome


def deliver(
    job: Job,
    call: Callable[[], Any],
    *,
    room: int = 10**6,
    retry: type[BaseException] | None = None,
) -> Job:
    """Run a task's function and store its outcome; returns the job."""
    returns = Returns(Core(room), job, "task", (retry,) if retry else False)  # type: ignore[arg-type]
    returns.deliver(call, dynamic=False)
    return job


# ---- generators: what is stored ----


def raising(values: Iterable[Any], error: BaseException) -> Iterator[Any]:
    yield from values
    raise error


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("length", range(7))
def test_generator_of_any_length_has_the_outcome_of_the_table(n: int, length: int) -> None:
    outcome = deliver(Job(n), lambda: (i for i in range(length))).outcome()
    values: list[Any] = list(range(min(n, length)))
    if length < n:
        values += [ValueError] * (n - length)
    elif length > n:
        values[-1] = ValueError
    assert outcome == values


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("good", range(6))
def test_generator_that_raises_anywhere_has_the_outcome_of_the_table(n: int, good: int) -> None:
    outcome = deliver(Job(n), lambda: raising(range(good), KeyError())).outcome()
    if good < n:
        assert outcome == [*range(good), *[KeyError] * (n - good)]
    elif good == n:
        assert outcome == [*range(n - 1), KeyError]
    else:
        assert outcome == [*range(n - 1), ValueError]


@pytest.mark.parametrize("error", [GeneratorExit(), KeyboardInterrupt(), BaseException("odd")])
def test_generator_that_raises_no_exception_proper_still_delivers(error: BaseException) -> None:
    job = deliver(Job(2), lambda: raising([0], error))
    assert job.outcome()[0] == 0
    assert job.journal[-1] == ("conclude", 1)


def test_generator_that_exits_is_left_to_the_worker() -> None:
    job = Job(2)
    with pytest.raises(SystemExit):
        deliver(job, lambda: raising([0], SystemExit(3)))
    assert job.journal == [("give", 0)]


# ---- generators: when it is stored ----


def test_generator_values_are_given_before_the_next_one_is_asked_for_and_the_last_at_the_end() -> (
    None
):
    job = Job(3)

    def generate() -> Iterator[int]:
        for i in range(3):
            job.journal.append(("asked", i))
            yield i
        job.journal.append(("end",))

    assert deliver(job, generate).journal == [
        ("asked", 0),
        ("give", 0),
        ("asked", 1),
        ("give", 1),
        ("asked", 2),
        ("end",),
        ("give", 2),
        ("finish",),
    ]


class Thing:
    """A value whose end can be seen."""


@pytest.mark.parametrize("n", [0, 1, 3])
def test_generator_value_is_dead_when_the_next_one_is_asked_for(n: int) -> None:
    alive = []

    def generate() -> Iterator[Thing]:
        for _ in range(max(n, 2)):
            thing = Thing()
            seen = weakref.ref(thing)
            yield thing
            del thing
            alive.append(seen() is not None)

    gc.disable()  # by reference counting alone
    try:
        deliver(Job(n), generate)
    finally:
        gc.enable()
    assert alive
    assert not any(alive)


def test_generator_is_closed_before_its_failure_shows() -> None:
    job = Job(1)

    def generate() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            job.journal.append(("closed",))

    assert deliver(job, generate).journal == [("closed",), ("conclude", 1)]


# ---- what cannot be stored ----


def test_value_that_cannot_be_pickled_fails_from_there_and_the_rest_is_not_asked_for() -> None:
    job = Job(4)

    def generate() -> Iterator[Any]:
        yield 0
        yield (i for i in ())
        job.journal.append(("asked too much",))

    assert deliver(job, generate).outcome() == [0, TypeError, TypeError, TypeError]
    assert job.journal == [("give", 0), ("conclude", 3)]


def test_value_without_room_fails_from_there_even_if_its_error_has_no_room_either() -> None:
    job = deliver(Job(3), lambda: iter_of(b"", b"x" * 100, b""), room=50)
    assert job.values[0].value == b""
    for i in (1, 2):
        assert isinstance(job.values[i].value, Exception)


def iter_of(*values: Any) -> Iterator[Any]:
    yield from values


# ---- lists and single values ----


@pytest.mark.parametrize("value", [[1, 2], (1, 2), "ab", {1: 0, 2: 0}, range(2)], ids=repr)
def test_sequence_of_the_right_length_is_shown_at_once(value: Any) -> None:
    job = deliver(Job(2), lambda: value)
    assert job.outcome() == list(value)
    assert job.journal == [("conclude", 2)]


@pytest.mark.parametrize(
    ("value", "error"),
    [([1], ValueError), ([1, 2, 3], ValueError), (5, TypeError), (None, TypeError)],
)
def test_result_of_another_length_or_none_fails_every_return(
    value: Any, error: type[Exception]
) -> None:
    assert deliver(Job(2), lambda: value).outcome() == [error, error]


def test_sequence_that_lies_about_its_length_fails_what_is_missing() -> None:
    class Liar(list[int]):
        def __len__(self) -> int:
            return 2

    assert deliver(Job(2), lambda: Liar([1])).outcome() == [1, ValueError]
    assert deliver(Job(2), lambda: Liar([1, 2, 3])).outcome() == [1, 2]


def test_sequence_whose_iteration_raises_fails_from_there() -> None:
    class Broken:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[int]:
            return raising([1], KeyError())

    assert deliver(Job(3), Broken).outcome() == [1, KeyError, KeyError]


def test_single_value_is_stored_whole() -> None:
    job = deliver(Job(1), lambda: [1, 2])
    assert job.outcome() == [[1, 2]]
    assert job.journal == [("give", 0), ("finish",)]


def test_function_that_raises_fails_every_return() -> None:
    assert deliver(Job(3), lambda: 1 // 0).outcome() == [ZeroDivisionError] * 3


# ---- no returns ----


def test_no_returns_drain_the_generator_and_say_what_was_dropped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = deliver(Job(0), lambda: raising([1, 2], KeyError("nobody hears")))
    assert job.journal == [("finish",)]
    err = capsys.readouterr().err
    assert "nobody hears" in err
    assert "yielded 2 values" in err


def test_no_returns_of_a_function_that_raises_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert deliver(Job(0), lambda: 1 // 0).journal == [("conclude", 0)]
    assert "ZeroDivisionError" in capsys.readouterr().err


# ---- another attempt ----


def second(nreturns: int, shown: Iterable[Any]) -> Job:
    """Return the second attempt of a task whose first one had shown some values."""
    return Job(nreturns, shown, max_retries=1, attempt=1)


@pytest.mark.parametrize("shown", range(4))
def test_second_attempt_that_agrees_gives_what_is_missing(shown: int) -> None:
    job = deliver(second(3, range(shown)), lambda: (i for i in range(3)))
    assert job.outcome() == [0, 1, 2]
    assert job.journal == [*[("give", i) for i in range(shown, 3)], ("finish",)]


@pytest.mark.parametrize("differs_at", [0, 1])
def test_second_attempt_that_differs_fails_the_rest_and_closes_the_generator(
    differs_at: int,
) -> None:
    job = second(4, [0, 1])

    def generate() -> Iterator[Any]:
        try:
            for i in range(4):
                yield "other" if i == differs_at else i
        finally:
            job.journal.append(("closed",))

    inconsistent = StreamingGeneratorReplayInconsistentError
    assert deliver(job, generate).outcome() == [0, 1, inconsistent, inconsistent]
    assert job.journal == [("closed",), ("conclude", 2)]


@pytest.mark.parametrize("length", [0, 1])
def test_second_attempt_that_ends_before_what_was_shown_fails_the_rest(length: int) -> None:
    job = deliver(second(3, [0, 1]), lambda: (i for i in range(length)))
    assert job.outcome() == [0, 1, StreamingGeneratorReplayInconsistentError]


def test_second_attempt_that_ends_right_after_what_was_shown_has_too_few_values() -> None:
    job = deliver(second(3, [0, 1]), lambda: (i for i in range(2)))
    assert job.outcome() == [0, 1, ValueError]


def test_exception_that_is_to_be_retried_strands_the_task_and_stores_nothing_more() -> None:
    job = deliver(Job(3, max_retries=1), lambda: raising([0], KeyError()), retry=KeyError)
    assert job.journal == [("give", 0), ("strand",)]


def test_exception_of_the_last_attempt_is_stored() -> None:
    job = second(2, [0])
    deliver(job, lambda: raising([0], KeyError()), retry=KeyError)
    assert job.outcome() == [0, KeyError]


def test_exception_of_another_type_is_not_retried() -> None:
    job = deliver(Job(2, max_retries=1), lambda: raising([0], KeyError()), retry=OSError)
    assert job.outcome() == [0, KeyError]


def test_exception_behind_the_last_value_is_retried_too() -> None:
    job = deliver(Job(1, max_retries=1), lambda: raising([0], KeyError()), retry=KeyError)
    assert job.journal == [("strand",)]


def test_wrong_count_and_unpicklable_values_are_not_retried() -> None:
    for call in (lambda: iter_of(1), lambda: iter_of(1, 2, 3), lambda: iter_of(1, (i for i in ()))):
        job = deliver(Job(2, max_retries=5), call, retry=Exception)
        assert ("strand",) not in job.journal


def test_task_that_is_never_run_again_computes_no_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Stored, "fingerprint", lambda self: 1 / 0)
    assert deliver(Job(2), lambda: iter_of(1, 2)).outcome() == [1, 2]
