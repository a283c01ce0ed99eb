"""Errors of tasks: their types, what they carry, their text, and how they spread."""

from __future__ import annotations

import builtins
import os
import pickle
import re
import sys
import threading
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .support import Attempts


def raise_in_task(ray: ModuleType, make: Callable[[], BaseException]) -> BaseException:
    """Return what `get` raises for a task that raises `make()`."""

    @ray.remote(max_retries=0)
    def fail():
        raise make()

    with pytest.raises(BaseException) as info:
        ray.get(fail.remote())
    return info.value


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("RayError", ["Exception"]),
        ("CrossLanguageError", ["RayError"]),
        ("RayTaskError", ["RayError"]),
        ("TaskCancelledError", ["RayError"]),
        ("WorkerCrashedError", ["RayError"]),
        ("LocalRayletDiedError", ["RayError"]),
        ("NodeDiedError", ["RayError"]),
        ("OutOfMemoryError", ["RayError"]),
        ("OutOfDiskError", ["RayError"]),
        ("ObjectStoreFullError", ["RayError"]),
        ("PlasmaObjectNotAvailable", ["RayError"]),
        ("AsyncioActorExit", ["RayError"]),
        ("RuntimeEnvSetupError", ["RayError"]),
        ("PendingCallsLimitExceeded", ["RayError"]),
        ("TaskUnschedulableError", ["RayError"]),
        ("ActorUnschedulableError", ["RayError"]),
        ("UnserializableException", ["RayError"]),
        ("UserCodeException", ["RayError"]),
        ("AuthenticationError", ["RayError"]),
        ("RpcError", ["RayError"]),
        ("RayActorError", ["RayError"]),
        ("ActorDiedError", ["RayActorError"]),
        ("ActorUnavailableError", ["RayActorError"]),
        ("ObjectLostError", ["RayError"]),
        ("ObjectFetchTimedOutError", ["ObjectLostError"]),
        ("ObjectFreedError", ["ObjectLostError"]),
        ("OwnerDiedError", ["ObjectLostError"]),
        ("ObjectReconstructionFailedError", ["ObjectLostError"]),
        ("ReferenceCountingAssertionError", ["ObjectLostError", "AssertionError"]),
        ("RaySystemError", ["RayError"]),
        ("StreamingGeneratorReplayInconsistentError", ["RaySystemError"]),
        ("GetTimeoutError", ["RayError", "TimeoutError"]),
        ("ActorAlreadyExistsError", ["ValueError", "RayError"]),
        ("ActorHandleNotFoundError", ["ValueError", "RayError"]),
    ],
)
def test_exception_class_has_its_place_in_the_tree(
    ray: ModuleType, name: str, bases: list[str]
) -> None:
    assert [base.__name__ for base in getattr(ray.exceptions, name).__bases__] == bases


@pytest.mark.deliberately_different("they are there, for what ray_lite does not have")
@pytest.mark.parametrize(
    "name",
    [
        "ActorPlacementGroupRemoved",
        "TaskPlacementGroupRemoved",
        "RayCgraphCapacityExceeded",
        "RayChannelError",
        "RayChannelTimeoutError",
        "RayDirectTransportError",
    ],
)
def test_exception_of_what_is_not_there_is_not_there(ray: ModuleType, name: str) -> None:
    assert not hasattr(ray.exceptions, name)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("TaskCancelledError", (), ""),
        ("TaskCancelledError", (None, "words"), "words"),
        ("WorkerCrashedError", (), "died"),
        ("NodeDiedError", ("words",), "words"),
        ("OutOfMemoryError", ("words",), "words"),
        ("RuntimeEnvSetupError", ("words",), "words"),
        ("TaskUnschedulableError", ("words",), "words"),
        ("ActorUnschedulableError", ("words",), "words"),
        ("UnserializableException", ("words",), "words"),
        ("RpcError", ("words", 5), "words"),
        ("RaySystemError", ("words",), "words"),
        ("RayActorError", (None, "words"), "words"),
        ("ActorDiedError", (), "died"),
        ("ActorUnavailableError", ("words", None), "words"),
        ("ObjectLostError", ("0abc", None, ""), "0abc"),
        ("ObjectFreedError", ("0abc", None, ""), "0abc"),
        ("OwnerDiedError", ("0abc", None, ""), "0abc"),
    ],
)
def test_exception_is_made_as_in_ray(
    ray: ModuleType, name: str, args: tuple[Any, ...], words: str
) -> None:
    assert words in str(getattr(ray.exceptions, name)(*args))


def test_task_error_is_made_of_its_parts(ray: ModuleType) -> None:
    plain = ray.exceptions.RayTaskError("f", "the text", ValueError("boo"), pid=7)
    assert (plain.function_name, plain.traceback_str, plain.pid) == ("f", "the text", 7)
    dual = plain.as_instanceof_cause()
    assert isinstance(dual, ValueError)
    assert str(dual) == "the text"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boo", 3),
        KeyError("boo"),
        ZeroDivisionError("boo"),
        AssertionError("boo"),
        NotImplementedError("boo"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "boo"),
        StopIteration("boo"),
        GeneratorExit("boo"),
        ExceptionGroup("boo", [ValueError("inner")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_task_error_is_also_an_instance_of_what_was_raised(
    ray: ModuleType, error: Exception
) -> None:
    caught: Any = raise_in_task(ray, lambda: error)
    assert type(caught.cause) is type(error)
    assert isinstance(caught, ray.exceptions.RayTaskError)
    assert isinstance(caught, type(error))


def test_task_error_class_is_named_after_both(ray: ModuleType) -> None:
    caught = raise_in_task(ray, lambda: ValueError("boo", 3))
    assert type(caught).__module__ == ray.exceptions.__name__
    assert [cls.__name__ for cls in type(caught).__mro__][:4] == [
        "RayTaskError(ValueError)",
        "RayTaskError",
        "RayError",
        "ValueError",
    ]
    assert repr(caught) == "RayTaskError(ValueError)(ValueError('boo', 3))"


@pytest.mark.parametrize("name", ["function_name", "traceback_str", "proctitle", "pid", "ip"])
def test_task_error_that_was_got_tells_only_what_its_cause_does(ray: ModuleType, name: str) -> None:
    assert not hasattr(raise_in_task(ray, lambda: ValueError("boo")), name)


def test_task_error_carries_its_cause(ray: ModuleType) -> None:
    caught: Any = raise_in_task(ray, lambda: ValueError("boo", 3))
    assert caught.cause.args == ("boo", 3)
    assert caught.args == (caught.cause,)


def test_task_error_of_a_local_class_is_an_instance_of_it(ray: ModuleType) -> None:
    class Mine(KeyError):
        pass

    assert isinstance(raise_in_task(ray, lambda: Mine("boo")), Mine)


def test_task_error_forwards_the_attributes_and_notes_of_its_cause(ray: ModuleType) -> None:
    def make() -> Exception:
        error = ValueError("boo")
        error.code = 42  # type: ignore[attr-defined]
        error.add_note("a note")
        return error

    caught: Any = raise_in_task(ray, make)
    assert caught.code == 42
    assert caught.cause.__notes__ == ["a note"]


def test_task_error_survives_cloudpickle(ray: ModuleType) -> None:
    caught = raise_in_task(ray, lambda: ValueError("boo"))
    again = cloudpickle.loads(cloudpickle.dumps(caught))
    assert isinstance(again, ValueError)
    assert isinstance(again, ray.exceptions.RayTaskError)


@pytest.mark.deliberately_different("a task error cannot be pickled, but by cloudpickle")
def test_task_error_survives_pickle(ray: ModuleType) -> None:
    caught = raise_in_task(ray, lambda: ValueError("boo"))
    again = pickle.loads(pickle.dumps(caught))
    assert type(again) is type(caught)
    assert str(again) == str(caught)


@pytest.mark.parametrize("name", ["Exception", "BaseException", "RayError"])
def test_task_error_of_a_bare_exception_is_a_plain_task_error(ray: ModuleType, name: str) -> None:
    cls = getattr(builtins, name, None) or getattr(ray.exceptions, name)
    caught: Any = raise_in_task(ray, lambda: cls("boo"))
    assert type(caught) is ray.exceptions.RayTaskError
    assert type(caught.cause) is cls
    assert "boo" in str(caught)


def test_task_error_text_names_task_process_place_and_error(ray: ModuleType) -> None:
    @ray.remote(num_returns=2)
    def my_task():
        yield os.getpid()
        raise ValueError("boo")  # the line that the text must show

    pid, failed = my_task.remote()
    with pytest.raises(ValueError) as info:
        ray.get(failed)
    text = str(info.value)
    assert "my_task()" in text
    assert f"pid={ray.get(pid)}" in text
    assert "test_errors.py" in text
    assert "the line that the text must show" in text
    assert text.rstrip().endswith("ValueError: boo")


def test_task_error_text_is_a_header_the_frames_of_the_user_and_the_error(ray: ModuleType) -> None:
    @ray.remote
    def my_task():
        raise ValueError("boo")

    with pytest.raises(ValueError) as info:
        ray.get(my_task.remote())
    first, *frames, last = str(info.value).splitlines()
    header = r"\x1b\[36mray::my_task\(\)\x1b\[39m \(pid=\d+, ip=\d+\.\d+\.\d+\.\d+\)"
    assert re.fullmatch(header, first)
    assert [line.split(", in ")[1] for line in frames if line.startswith("  File ")] == ["my_task"]
    assert last == "ValueError: boo"


def test_task_error_text_of_a_group_shows_its_members(ray: ModuleType) -> None:
    text = str(raise_in_task(ray, lambda: ExceptionGroup("both", [KeyError("a"), OSError("b")])))
    for words in ("Exception Group", "both (2 sub-exceptions)", "KeyError: 'a'", "OSError: b"):
        assert words in text


def test_task_error_text_shows_the_name_of_the_options(ray: ModuleType) -> None:
    @ray.remote
    def fail():
        raise ValueError("boo")

    with pytest.raises(ValueError, match=re.escape("ray::a name()")):
        ray.get(fail.options(name="a name").remote())


def test_task_error_text_shows_the_frames_between(ray: ModuleType) -> None:
    def helper() -> Exception:
        raise KeyError("deep")

    assert "in helper" in str(raise_in_task(ray, helper))


def test_task_error_text_keeps_the_chain_of_causes(ray: ModuleType) -> None:
    def make() -> Exception:
        try:
            raise KeyError("the root")
        except KeyError as error:
            raise ValueError("the surface") from error

    caught: Any = raise_in_task(ray, make)
    root, surface = re.split("\n.*direct cause.*\n", str(caught))
    for part, words in ((root, "the root"), (surface, "the surface")):
        assert words in part
        assert "ray::" in part
        assert "Traceback" not in part
    # The text is all that is left of the chain.
    assert caught.__cause__ is None
    assert caught.cause.__cause__ is None
    assert caught.cause.__traceback__ is None


def test_task_error_of_a_nested_task_is_an_instance_of_the_root_cause(ray: ModuleType) -> None:
    @ray.remote
    def inner():
        raise KeyError("deep")

    @ray.remote
    def outer():
        return ray.get(inner.remote())

    with pytest.raises(KeyError) as info:
        ray.get(outer.remote())
    assert isinstance(info.value, ray.exceptions.RayTaskError)
    assert type(info.value).__name__ == "RayTaskError(KeyError)"


def test_task_error_can_be_caught_inside_a_task(ray: ModuleType) -> None:
    @ray.remote
    def inner():
        raise KeyError("deep")

    @ray.remote
    def outer():
        try:
            ray.get(inner.remote())
        except KeyError:
            return "caught"

    assert ray.get(outer.remote()) == "caught"


def test_exception_with_default_arguments_keeps_type_and_attributes(ray: ModuleType) -> None:
    class Mine(Exception):
        def __init__(self, code: int, detail: str = "d") -> None:
            super().__init__(f"{code}:{detail}")
            self.code = code

    caught: Any = raise_in_task(ray, lambda: Mine(7))
    assert isinstance(caught, Mine)
    assert caught.code == 7


@pytest.mark.deliberately_different("the constructor runs again, with the formatted text")
def test_exception_with_default_arguments_is_not_constructed_again(ray: ModuleType) -> None:
    class Mine(Exception):
        def __init__(self, code: int, detail: str = "d") -> None:
            super().__init__(f"{code}:{detail}")

    caught: Any = raise_in_task(ray, lambda: Mine(7))
    assert caught.cause.args == ("7:d",)


def test_exception_with_own_pickling_keeps_type_and_arguments(ray: ModuleType) -> None:
    class Mine(Exception):
        def __init__(self, code: int, detail: str) -> None:
            super().__init__(code, detail)
            self.code, self.detail = code, detail

        def __reduce__(self) -> tuple[Any, ...]:
            return Mine, (self.code, self.detail)

    caught: Any = raise_in_task(ray, lambda: Mine(7, "d"))
    assert isinstance(caught, Mine)
    assert (caught.code, caught.detail) == (7, "d")


@pytest.mark.deliberately_different(
    "an exception with required arguments is UnserializableException"
)
def test_exception_with_required_arguments_arrives_as_itself(ray: ModuleType) -> None:
    class Mine(Exception):
        def __init__(self, code: int, detail: str) -> None:
            super().__init__(f"{code}: {detail}")
            self.code = code

    caught: Any = raise_in_task(ray, lambda: Mine(7, "d"))
    assert isinstance(caught, Mine)
    assert isinstance(caught, ray.exceptions.RayTaskError)
    assert caught.code == 7


@pytest.mark.deliberately_different("an exception with keyword-only arguments is unserialisable")
def test_exception_with_keyword_only_arguments_arrives_as_itself(ray: ModuleType) -> None:
    class Mine(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__(f"code {code}")
            self.code = code

    caught: Any = raise_in_task(ray, lambda: Mine(code=7))
    assert isinstance(caught, Mine)
    assert caught.code == 7


def test_os_error_arrives_as_its_subclass(ray: ModuleType) -> None:
    caught = raise_in_task(ray, lambda: FileNotFoundError(2, "No such file", "/nowhere"))
    assert isinstance(caught, FileNotFoundError)
    assert "/nowhere" in str(caught)


@pytest.mark.deliberately_different("errno and filename of an OSError are lost")
def test_os_error_keeps_errno_and_filename(ray: ModuleType) -> None:
    caught: Any = raise_in_task(ray, lambda: FileNotFoundError(2, "No such file", "/nowhere"))
    assert caught.errno == 2
    assert caught.filename == "/nowhere"


def maker_of_unpicklable() -> Callable[[], Exception]:
    """Return a closure, which travels by value, that makes an exception that holds a lock."""

    class Mine(Exception):
        lock: Any = None

    def make() -> Exception:
        error = Mine("boo")
        error.lock = threading.Lock()
        return error

    return make


def assert_names_what_cannot_be_pickled(ray: ModuleType, caught: Any) -> None:
    assert type(caught) is ray.exceptions.RayTaskError
    assert type(caught.cause) is ray.exceptions.RayError
    assert re.match(r"Exception \S+\.Mine isn't serializable: ", str(caught.cause))
    assert "Mine: boo" in str(caught)


def test_exception_that_cannot_be_pickled_is_a_plain_task_error(ray: ModuleType) -> None:
    assert_names_what_cannot_be_pickled(ray, raise_in_task(ray, maker_of_unpicklable()))


def test_exception_of_a_stream_that_cannot_be_pickled_is_a_plain_task_error(
    ray: ModuleType,
) -> None:
    make = maker_of_unpicklable()

    @ray.remote
    def stream():
        yield 1
        raise make()

    _, failed = stream.remote()
    with pytest.raises(ray.exceptions.RayTaskError) as info:
        ray.get(failed)
    assert_names_what_cannot_be_pickled(ray, info.value)


def test_exception_that_only_its_own_process_can_read_arrives_as_its_text(ray: ModuleType) -> None:
    def read(pid: int) -> Exception:
        if os.getpid() != pid:
            raise ImportError("not here")
        return Mine("boo")

    class Mine(Exception):
        def __reduce__(self) -> tuple[Any, ...]:
            return read, (os.getpid(),)

    caught = raise_in_task(ray, lambda: Mine("boo"))
    assert type(caught) is ray.exceptions.UnserializableException
    assert "Mine: boo" in str(caught)
    assert "in fail" in str(caught)


def test_result_that_cannot_be_pickled_fails_with_type_error(ray: ModuleType) -> None:
    with pytest.raises(TypeError) as info:
        ray.get(ray.remote(lambda: threading.Lock()).remote())
    assert isinstance(info.value, ray.exceptions.RayTaskError)


def test_results_that_cannot_be_pickled_do_not_hang(ray: ModuleType) -> None:
    refs = ray.remote(num_returns=2)(lambda: [threading.Lock(), 1]).remote()
    with pytest.raises(TypeError):
        ray.get(refs[0])


def test_keyboard_interrupt_in_a_task_becomes_task_cancelled_error(ray: ModuleType) -> None:
    assert isinstance(
        raise_in_task(ray, lambda: KeyboardInterrupt()), ray.exceptions.TaskCancelledError
    )


def test_task_error_fails_every_ref_of_the_task(ray: ModuleType) -> None:
    @ray.remote(num_returns=3)
    def fail():
        raise ValueError("boo")

    for ref in fail.remote():
        with pytest.raises(ValueError, match="boo"):
            ray.get(ref)


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("leave", [sys.exit, os._exit], ids=["sys.exit", "os._exit"])
def test_task_that_exits_is_a_crash_whatever_its_code(
    ray: ModuleType, leave: Callable[[int], None], code: int
) -> None:
    @ray.remote(max_retries=0)
    def f():
        leave(code)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(f.remote())


def test_worker_crashed_error_is_no_task_error(ray: ModuleType) -> None:
    caught = raise_in_task(ray, lambda: SystemExit(1))
    assert isinstance(caught, ray.exceptions.WorkerCrashedError)
    assert not isinstance(caught, ray.exceptions.RayTaskError)


def test_dependent_of_a_failed_task_never_runs_and_fails_alike(
    ray: ModuleType, attempts: Attempts
) -> None:
    begin = attempts.begin

    @ray.remote
    def fail():
        raise KeyError("the root")

    @ray.remote
    def after(x):
        begin()
        return x

    ref = fail.remote()
    for dependent in (after.remote(ref), after.remote(x=ref), after.remote(after.remote(ref))):
        with pytest.raises(KeyError, match="the root") as info:
            ray.get(dependent)
        assert isinstance(info.value, ray.exceptions.RayTaskError)
        header, reason, root = str(info.value).split("\n", 2)
        assert "after()" in header
        assert reason.strip().startswith("At least one of the input arguments for this task could")
        assert "fail()" in root
    assert attempts.made() == 0


def test_dependent_with_several_returns_fails_in_each(ray: ModuleType) -> None:
    @ray.remote
    def fail():
        raise KeyError("the root")

    for ref in ray.remote(num_returns=2)(lambda x: x).remote(fail.remote()):
        with pytest.raises(KeyError, match="the root"):
            ray.get(ref)


def test_dependent_of_a_crashed_task_fails_with_worker_crashed_error(ray: ModuleType) -> None:
    @ray.remote(max_retries=0)
    def crash():
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError) as info:
        ray.get(ray.remote(lambda x: x).remote(crash.remote()))
    assert type(info.value).__name__ == "RayTaskError(WorkerCrashedError)"


def test_failed_ref_inside_a_container_fails_only_when_it_is_got(ray: ModuleType) -> None:
    @ray.remote
    def fail():
        raise KeyError("the root")

    @ray.remote
    def length(refs):
        return len(refs)

    assert ray.get(length.remote([fail.remote()])) == 1


def test_task_after_a_failed_one_works(ray: ModuleType) -> None:
    raise_in_task(ray, lambda: ValueError("boo"))
    assert ray.get(ray.remote(lambda: "fine").remote()) == "fine"
