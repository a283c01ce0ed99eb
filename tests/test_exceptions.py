"""The exception tree, task errors and their duals, and how errors travel between processes."""

import abc
import copy
import errno
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ray_lite.exceptions
from ray_lite import exceptions as rex
from ray_lite.exceptions import (
    RayError,
    RayTaskError,
    TaskCancelledError,
    UnserializableException,
    dumps_error,
    error_from_code,
    error_text,
    loads_error,
    make_task_error,
    nest_error,
)

HEADER = "\x1b[36mray::f()\x1b[39m (pid=7, ip=127.0.0.1)"


def raised(error: BaseException, **more: Any) -> RayTaskError:
    """Return the task error of a function `f` that raised `error`."""
    try:
        raise error
    except BaseException as caught:
        return make_task_error("f", caught, pid=7, **more)


def dual(error: BaseException) -> Any:
    return raised(error).as_instanceof_cause()


def arrived(error: BaseException) -> Any:
    """Return what a driver gets when a task has raised `error`."""
    return loads_error(dumps_error(raised(error)))


def user_function(depth: int = 1) -> NoReturn:
    if depth:
        user_function(depth - 1)
    raise ValueError("boo", 3)


# ---- exceptions as users write them ----


class WithCode(ValueError):
    code = 0

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(f"{message}!")
        self.code = code


class Positional(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Formatting(Exception):
    def __init__(self, message: str = "d") -> None:
        super().__init__(f"{message}:d")


@dataclass
class Data(Exception):
    x: int
    y: int = 2


@dataclass(frozen=True)
class Frozen(Exception):
    x: int


class Slotted(Exception):
    __slots__ = ("where",)

    def __init__(self, *, where: str) -> None:
        super().__init__(where)
        self.where = where


class WithNew(Exception):
    def __new__(cls, *, x: int) -> "WithNew":
        self = super().__new__(cls)
        self.x = x  # type: ignore[attr-defined]
        return self

    def __init__(self, *, x: int) -> None:
        super().__init__("new")


class OwnOSError(OSError):
    def __init__(self, name: str) -> None:
        super().__init__(errno.ENOENT, "gone", name)


class OwnReduce(Exception):
    def __init__(self, *, x: int) -> None:
        super().__init__(x)
        self.x = x

    def __reduce__(self) -> Any:
        return _own_reduce, (self.x,)


def _own_reduce(x: int) -> OwnReduce:
    error = OwnReduce(x=x)
    error.x += 100
    return error


class OwnSetstate(Exception):
    def __init__(self, *, x: int) -> None:
        super().__init__()
        self.x = x

    def __setstate__(self, state: Any) -> None:
        self.x = state["x"] + 100


class BrokenReduce(Exception):
    def __init__(self, *, x: int) -> None:
        super().__init__(x)
        self.x = x

    def __reduce__(self) -> Any:
        return BrokenReduce, (self.x,)


class OwnReduceEx(Exception):
    def __reduce_ex__(self, protocol: object) -> Any:
        return OwnReduceEx, ("by its own rule",)


class OwnGroup(ExceptionGroup[Exception]):
    def __new__(cls, errors: list[Exception]) -> "OwnGroup":
        return super().__new__(cls, "own group", errors)

    def __init__(self, errors: list[Exception]) -> None:
        super().__init__("own group", errors)


class Unreadable(Exception):
    """Pickles well, and can be read back nowhere."""

    def __reduce__(self) -> Any:
        return _refuse, ()

    def __setstate__(self, state: Any) -> None:
        _refuse()


def _refuse() -> NoReturn:
    raise SystemExit("refused")


class OddText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NoSubclass(Exception):
    def __init_subclass__(cls, **kwargs: object) -> None:
        raise TypeError("final")


class Abstract(Exception, abc.ABC):
    @abc.abstractmethod
    def what(self) -> str: ...


class Concrete(Abstract):
    def what(self) -> str:
        return f"{self.args[0]}?"


class WithGetattr(Exception):
    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"<{name}>"


class WithReadOnly(Exception):
    def __init__(self, *, x: int) -> None:
        super().__init__()
        self.__dict__["x"] = x

    @property
    def x(self) -> int:
        number: int = self.__dict__["x"]
        return number + 100


class WithCauseProperty(Exception):
    @property
    def cause(self) -> str:
        return "mine"


# ---- the tree ----


def test_every_public_name_is_a_ray_error() -> None:
    for name in ray_lite.exceptions.__all__:
        assert issubclass(getattr(ray_lite.exceptions, name), RayError), name
        assert name in (ray_lite.exceptions.__doc__ or ""), name


def test_every_ray_error_of_the_module_is_public() -> None:
    found = {
        name
        for name, value in vars(rex).items()
        if isinstance(value, type) and issubclass(value, RayError)
    }
    assert found == set(rex.__all__)


@pytest.mark.parametrize(
    ("cls", "bases"),
    [
        (rex.GetTimeoutError, (RayError, TimeoutError)),
        (rex.ActorAlreadyExistsError, (ValueError, RayError)),
        (rex.ActorHandleNotFoundError, (ValueError, RayError)),
        (rex.ReferenceCountingAssertionError, (rex.ObjectLostError, AssertionError)),
        (rex.ActorDiedError, (rex.RayActorError,)),
        (rex.ActorUnavailableError, (rex.RayActorError,)),
        (rex.OwnerDiedError, (rex.ObjectLostError,)),
        (rex.ArenaCorruptError, (rex.RaySystemError,)),
        (rex.StreamingGeneratorReplayInconsistentError, (rex.RaySystemError,)),
    ],
)
def test_bases_are_those_of_ray(cls: type, bases: tuple[type, ...]) -> None:
    assert cls.__bases__ == bases


SYSTEM_ERRORS = [
    rex.WorkerCrashedError(),
    rex.WorkerCrashedError("killed by signal 9"),
    rex.LocalRayletDiedError(),
    rex.NodeDiedError(message="gone"),
    rex.OutOfMemoryError(message="oom"),
    TaskCancelledError(),
    TaskCancelledError(task_id="TaskID(ab)"),
    TaskCancelledError(task_id="TaskID(ab)", error_message="by hand"),
    rex.RuntimeEnvSetupError(error_message="no pip"),
    rex.TaskUnschedulableError(error_message="no CPU"),
    rex.ActorUnschedulableError(error_message="no CPU"),
    UnserializableException(original_stack_trace="trace"),
    rex.RpcError(message="m", rpc_code=4),
    rex.RayActorError(actor_id="ab", error_msg="m", actor_init_failed=True, preempted=True),
    rex.ActorDiedError(cause="killed by `ray.kill`", actor_id="ab"),
    rex.ActorUnavailableError(error_message="restarting", actor_id="ab"),
    rex.ObjectLostError(object_ref_hex="ab", owner_address=None, call_site="x.py:3"),
    rex.OwnerDiedError(object_ref_hex="ab", owner_address=None, call_site=""),
    rex.ReferenceCountingAssertionError(object_ref_hex="ab", owner_address=None, call_site=""),
    rex.RaySystemError(client_exc="bad", traceback_str="trace"),
    rex.StreamingGeneratorReplayInconsistentError(client_exc="differs"),
    rex.GetTimeoutError("late"),
    rex.ActorAlreadyExistsError("taken"),
]


@pytest.mark.parametrize("error", SYSTEM_ERRORS, ids=repr)
@pytest.mark.parametrize(
    "travel",
    [
        lambda error: pickle.loads(pickle.dumps(error)),
        lambda error: pickle.loads(cloudpickle.dumps(error)),
        lambda error: loads_error(dumps_error(error)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=["pickle", "cloudpickle", "envelope", "copy", "deepcopy"],
)
def test_system_error_travels_whole_although_built_by_keyword(
    error: RayError, travel: Callable[[RayError], RayError]
) -> None:
    copied = travel(error)
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert copied.args == error.args
    assert vars(copied) == vars(error)


def test_task_cancelled_error_without_id_has_no_text() -> None:
    assert str(TaskCancelledError()) == ""
    assert str(TaskCancelledError("TaskID(ab)")) == "Task: TaskID(ab) was cancelled."


def test_actor_died_error_of_a_failed_constructor_shows_its_traceback() -> None:
    error = rex.ActorDiedError(raised(ValueError("ctor")))
    assert error.actor_init_failed
    assert "ValueError: ctor" in str(error)
    assert not isinstance(error, ValueError)
    assert not rex.ActorDiedError().actor_init_failed


def test_object_lost_errors_name_the_object_and_where_it_was_made() -> None:
    text = str(rex.ObjectFreedError("abcd", None, "x.py:3"))
    assert "abcd" in text
    assert "freed" in text
    assert "x.py:3" in text


def test_subclass_of_the_user_with_its_own_constructor_travels() -> None:
    class Mine(rex.RaySystemError):
        def __init__(self, *, x: int) -> None:
            super().__init__(x)
            self.x = x

    copied = pickle.loads(cloudpickle.dumps(Mine(x=3)))
    assert (type(copied), copied.x) == (Mine, 3)


# ---- task errors ----


def test_task_error_keeps_its_fields() -> None:
    cause = ValueError("boo")
    error = RayTaskError("C.m", "text", cause, "ray::C.m", 7, "10.0.0.1", "<C>", "ab")
    assert (error.function_name, error.traceback_str, error.cause) == ("C.m", "text", cause)
    assert (error.proctitle, error.pid, error.ip) == ("ray::C.m", 7, "10.0.0.1")
    assert (error.actor_repr, error.actor_id) == ("<C>", "ab")
    assert error.args == (cause,)
    assert str(error) == "text"
    assert RayTaskError("f", "text", cause).proctitle == "ray::f"


def test_dual_is_an_instance_of_both_with_the_names_of_ray() -> None:
    error = dual(ValueError("boo", 3))
    cls = type(error)
    assert cls.__name__ == cls.__qualname__ == "RayTaskError(ValueError)"
    assert cls.__module__ == "ray_lite.exceptions"
    assert cls.__mro__[1:4] == (RayTaskError, RayError, ValueError)
    assert repr(error) == "RayTaskError(ValueError)(ValueError('boo', 3))"
    assert error.args == (error.cause,)
    assert error.cause.args == ("boo", 3)
    assert error.as_instanceof_cause() is error


def test_dual_class_is_made_once() -> None:
    assert type(dual(ValueError(1))) is type(dual(ValueError(2)))


def test_dual_has_the_attributes_of_its_cause_and_none_of_its_own() -> None:
    cause = WithCode("a", code=5)
    cause.add_note("a note")
    error = dual(cause)
    assert error.code == 5
    assert error.__notes__ == ["a note"]
    with pytest.raises(AttributeError):
        _ = error.function_name
    assert dual(WithGetattr()).anything == "<anything>"


def test_dual_of_a_class_with_a_cause_attribute_keeps_the_meaning_of_cause() -> None:
    assert isinstance(dual(WithCauseProperty()).cause, WithCauseProperty)


def test_dual_that_is_half_made_has_no_attributes_rather_than_no_end() -> None:
    half_made: Any = Exception.__new__(type(dual(ValueError())))
    with pytest.raises(AttributeError, match="missing"):
        _ = half_made.missing


def test_dual_of_a_class_with_a_read_only_property_keeps_what_is_behind_it() -> None:
    assert dual(WithReadOnly(x=1)).x == 101
    assert arrived(WithReadOnly(x=1)).cause.x == 101


def test_dual_runs_methods_of_the_user_class() -> None:
    assert dual(Slotted(where="here")).where == "here"
    assert (dual(Data(1)).x, dual(Data(1)).y) == (1, 2)
    assert dual(Frozen(3)).x == 3
    assert arrived(Concrete("x")).what().endswith("?")


def test_dual_of_an_os_error_keeps_errno_strerror_and_filename() -> None:
    error = arrived(FileNotFoundError(errno.ENOENT, "gone", "a.txt", None, "b.txt"))
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.strerror) == (errno.ENOENT, "gone")
    assert (error.filename, error.filename2) == ("a.txt", "b.txt")


@pytest.mark.parametrize("cause", [Exception("x"), RayError("x"), BaseException("x")], ids=repr)
def test_task_error_of_a_plain_class_is_no_dual(cause: BaseException) -> None:
    assert type(dual(cause)) is RayTaskError
    assert type(arrived(cause)) is RayTaskError


def test_task_error_of_a_class_that_refuses_subclasses_is_no_dual() -> None:
    error = arrived(NoSubclass("x"))
    assert type(error) is RayTaskError
    assert type(error.cause) is NoSubclass


def test_task_error_of_a_group_with_an_interrupt_is_no_dual() -> None:
    error = dual(BaseExceptionGroup("g", [KeyboardInterrupt()]))
    assert type(error) is RayTaskError
    assert isinstance(error.cause, BaseExceptionGroup)


def test_interrupted_task_becomes_task_cancelled_error() -> None:
    error = raised(KeyboardInterrupt(), task_id="TaskID(ab)")
    assert type(error.cause) is TaskCancelledError
    assert str(error).endswith("TaskCancelledError: Task: TaskID(ab) was cancelled.")
    assert isinstance(error.as_instanceof_cause(), TaskCancelledError)


def test_error_that_get_raised_inside_a_task_passes_on_its_root_cause() -> None:
    inner = arrived(ValueError("root"))
    outer = make_task_error("outer", inner, pid=8)
    error: Any = outer.as_instanceof_cause()
    assert type(error).__name__ == "RayTaskError(ValueError)"
    assert error.cause.args == ("root",)
    assert "ray::outer()" in str(error)
    assert HEADER in str(error)


STANDARD_CAUSES: list[BaseException] = [
    ValueError("boo", 3),
    KeyError("k"),
    StopIteration(4),
    GeneratorExit(),
    SystemExit(3),
    OSError(errno.EIO, "io"),
    BlockingIOError(errno.EAGAIN, "again", 3),
    UnicodeDecodeError("utf-8", b"ab", 0, 1, "bad"),
    SyntaxError("bad", ("x.py", 1, 2, "a b", 1, 3)),
    ImportError("no", name="m", path="p"),
    ExceptionGroup("g", [ValueError(1), WithCode("n", code=3)]),
    rex.WorkerCrashedError("x"),
]
USER_CAUSES: list[BaseException] = [
    WithCode("a", code=5),
    Positional(1, two=2),
    Formatting("7"),
    Data(1),
    Data(x=1, y=3),
    Frozen(x=4),
    Slotted(where="here"),
    WithNew(x=3),
    OwnOSError("a.txt"),
    BrokenReduce(x=3),
    OwnGroup([ValueError(1), Positional(3, two=4)]),
    Concrete("x"),
    WithGetattr("x"),
    OddText(1),
]


@pytest.mark.parametrize("cause", STANDARD_CAUSES + USER_CAUSES, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("form", [raised, dual], ids=["plain", "dual"])
@pytest.mark.parametrize(
    "travel",
    [
        lambda error: pickle.loads(pickle.dumps(error)),
        lambda error: pickle.loads(pickle.dumps(error, protocol=0)),
        lambda error: pickle.loads(cloudpickle.dumps(error)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=["pickle", "pickle0", "cloudpickle", "copy", "deepcopy"],
)
def test_task_error_travels_whole(
    cause: BaseException,
    form: Callable[[BaseException], RayTaskError],
    travel: Callable[[Any], Any],
) -> None:
    error = form(cause)
    copied = travel(error)
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert repr(copied) == repr(error)
    assert type(copied.cause) is type(cause)
    if form is raised:
        assert (copied.function_name, copied.pid, copied.ip) == ("f", 7, "127.0.0.1")


# ---- the text ----


def test_text_begins_with_the_task_and_ends_with_what_was_raised() -> None:
    try:
        user_function()
    except ValueError as caught:
        text = str(make_task_error("f", caught, pid=7))
    lines = text.splitlines()
    assert lines[0] == HEADER
    assert f'  File "{__file__}", line' in lines[1]
    assert "in user_function" in text
    assert lines[-1] == "ValueError: ('boo', 3)"
    assert "Traceback" not in text


def test_text_of_an_actor_method_names_the_actor() -> None:
    error = make_task_error("C.m", ValueError(), pid=7, actor_repr="<C>", actor_id="ab", ip="::1")
    first = str(error).splitlines()[0]
    assert first == "\x1b[36mray::C.m()\x1b[39m (pid=7, ip=::1, actor_id=ab, repr=<C>)"


def test_text_shows_the_name_of_the_task_where_it_has_one() -> None:
    error = raised(ValueError(), name="nm")
    assert "ray::nm()" in str(error)
    assert error.function_name == "f"


def test_text_of_a_chain_has_the_line_of_the_task_in_place_of_each_traceback() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("second") from first
    except ValueError as caught:
        text = str(make_task_error("f", caught, pid=7))
    assert text.count(HEADER) == 2
    assert "The above exception was the direct cause of the following exception:" in text
    assert text.index("KeyError: 'first'") < text.index("ValueError: second")


def test_text_keeps_notes() -> None:
    error = ValueError("x")
    error.add_note("look here")
    assert str(raised(error)).endswith("ValueError: x\nlook here")


def test_text_of_a_group_keeps_its_drawing_under_the_line_of_the_task() -> None:
    text = str(raised(ExceptionGroup("g", [ValueError("one")])))
    assert text.startswith(HEADER + "\n  + Exception Group Traceback")
    assert "ValueError: one" in text


def test_text_with_a_traceback_line_in_the_message_leaves_it_alone() -> None:
    message = "child said:\nTraceback (most recent call last):\n  none"
    assert str(raised(ValueError(message))).endswith(message)


def run_as_file(filename: str) -> str:
    """Return the text of an error that passed through a function of `filename`."""
    code = "def machinery(call):\n    call()\n"
    namespace: dict[str, Any] = {}
    exec(compile(code, filename, "exec"), namespace)
    try:
        namespace["machinery"](user_function)
    except ValueError as caught:
        return str(make_task_error("f", caught, pid=7))
    raise AssertionError("user_function raised nothing")


def test_text_leaves_out_frames_of_the_package() -> None:
    package = os.path.dirname(rex.__file__)
    for filename in (os.path.join(package, "worker.py"), "ray_lite/_codec.pyx"):
        text = run_as_file(filename)
        assert "in machinery" not in text
        assert "in user_function" in text


def test_text_keeps_frames_of_the_demo_and_of_anything_else() -> None:
    package = os.path.dirname(rex.__file__)
    for filename in (os.path.join(package, "demo.py"), "/x/ray_lite_user.py", "<stdin>"):
        assert "in machinery" in run_as_file(filename)


def test_text_of_an_exception_that_has_none_names_its_class() -> None:
    assert str(raised(OddText())).endswith("OddText: <exception str() failed>")
    assert "OddText" in error_text(dumps_error(OddText()))


def test_text_of_an_exception_that_breaks_the_formatter_still_names_its_class() -> None:
    error = SyntaxError("bad")
    error.offset = "not a number"  # type: ignore[assignment]
    error.lineno, error.text = 1, "a b"
    text = str(raised(error))
    assert text.startswith(HEADER)
    assert "SyntaxError" in text


# ---- the envelope ----


@pytest.mark.parametrize("cause", STANDARD_CAUSES + USER_CAUSES, ids=lambda c: type(c).__name__)
def test_error_arrives_as_itself(cause: BaseException) -> None:
    sent = raised(cause)
    data = dumps_error(sent)
    error: Any = loads_error(data)
    assert isinstance(error, RayTaskError)
    assert isinstance(error, type(cause))
    assert error_text(data) == str(error) == str(sent)
    assert repr(error.cause) == repr(cause)
    assert repr(error.cause.args) == repr(cause.args)
    assert error.cause.__dict__ == cause.__dict__


def test_error_with_a_formatting_constructor_arrives_without_running_it_again() -> None:
    assert arrived(Formatting("7")).cause.args == ("7:d",)


def test_error_of_an_own_os_error_arrives_with_its_c_fields() -> None:
    cause = arrived(OwnOSError("a.txt")).cause
    assert (cause.errno, cause.filename) == (errno.ENOENT, "a.txt")
    assert str(cause) == str(OwnOSError("a.txt"))


def test_error_with_a_word_on_its_pickling_is_obeyed() -> None:
    assert arrived(OwnReduce(x=1)).cause.x == 101
    assert arrived(OwnSetstate(x=1)).cause.x == 101
    assert arrived(OwnReduceEx("x")).cause.args == ("by its own rule",)


def test_error_that_refers_to_itself_arrives() -> None:
    cause = WithCode("a", code=1)
    cause.me = cause  # type: ignore[attr-defined]
    got = arrived(cause).cause
    assert got.me is got


def test_error_nested_in_an_attribute_arrives_as_itself() -> None:
    cause = Data(1)
    cause.inner = Positional(1, two=2)  # type: ignore[attr-defined]
    assert type(arrived(cause).inner) is Positional


def test_error_of_a_local_class_arrives() -> None:
    class Local(KeyError):
        pass

    assert isinstance(arrived(Local("x")), Local)


def test_error_that_cannot_be_written_arrives_as_plain_task_error_with_its_text() -> None:
    cause = ValueError("x")
    cause.lock = threading.Lock()  # type: ignore[attr-defined]
    error = arrived(cause)
    assert type(error) is RayTaskError
    assert type(error.cause) is RayError
    assert str(error.cause).startswith("Exception builtins.ValueError isn't serializable: ")
    assert "lock" in str(error.cause)
    assert str(error).endswith("ValueError: x")


def test_task_error_that_cannot_be_written_pickles_all_the_same() -> None:
    cause = ValueError("x")
    cause.lock = threading.Lock()  # type: ignore[attr-defined]
    assert type(pickle.loads(pickle.dumps(dual(cause))).cause) is RayError


def test_error_whose_reducer_raises_system_exit_still_arrives() -> None:
    class Hostile(Exception):
        def __reduce__(self) -> Any:
            _refuse()

        def __getattribute__(self, name: str) -> Any:
            if name == "__dict__":
                _refuse()
            return super().__getattribute__(name)

    assert "Hostile isn't serializable" in str(arrived(Hostile()).cause)


def test_error_that_can_be_written_but_not_read_arrives_as_unserializable_exception() -> None:
    cause = Unreadable("the text")
    cause.x = 1  # type: ignore[attr-defined]
    data = dumps_error(raised(cause))
    error = loads_error(data)
    assert type(error) is UnserializableException
    assert not isinstance(error, RayTaskError)
    assert error.original_stack_trace == error_text(data)
    assert "Unreadable: the text" in str(error)


def test_error_of_a_module_that_the_reader_lacks_arrives_as_unserializable_exception() -> None:
    data = dumps_error(raised(Positional(1, 2)))
    error = loads_error(data.replace(b"Positional", b"Notthere!!"))
    assert type(error) is UnserializableException


def test_error_text_keeps_lone_surrogates_readable() -> None:
    data = dumps_error(raised(ValueError("bad \udce9 name")))
    assert "bad \\udce9 name" in error_text(data)
    assert isinstance(loads_error(data), ValueError)


def test_error_text_of_a_system_error_names_its_class() -> None:
    text = error_text(dumps_error(rex.WorkerCrashedError("killed by signal 9")))
    assert text == "ray_lite.exceptions.WorkerCrashedError: killed by signal 9"


def test_error_text_needs_no_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dumps_error(raised(Unreadable("the text")))
    monkeypatch.setattr(pickle, "loads", _refuse)
    assert error_text(data).endswith("Unreadable: the text")
    assert "Unreadable: the text" in error_text(nest_error(data, "g", pid=8))


def test_envelope_is_read_from_any_buffer() -> None:
    data = dumps_error(raised(ValueError("x")))
    for buffer in (bytearray(data), memoryview(data)):
        assert isinstance(loads_error(buffer), ValueError)
        assert error_text(buffer) == error_text(data)


def test_envelope_says_each_text_once() -> None:
    data = dumps_error(raised(ValueError("x")))
    assert data.count(b"in raised") == 1


def test_loads_error_of_a_value_that_is_no_exception_gives_unserializable_exception() -> None:
    data = dumps_error(raised(ValueError("x")))
    pickled_at = data.index(b"\x80")
    error = loads_error(data[:pickled_at] + pickle.dumps(3))
    assert type(error) is UnserializableException
    assert "ValueError: x" in str(error)


@given(st.binary(max_size=64))
def test_loads_error_of_garbage_gives_an_error_and_raises_none(data: bytes) -> None:
    assert isinstance(loads_error(data), UnserializableException)
    assert isinstance(error_text(data), str)
    assert isinstance(loads_error(nest_error(data, "g", pid=8)), UnserializableException)


@given(st.integers(min_value=0, max_value=2000))
def test_loads_error_of_a_cut_envelope_gives_an_error_and_raises_none(nbytes: int) -> None:
    data = dumps_error(raised(ValueError("x")))
    assert isinstance(loads_error(data[:nbytes]), RayError)
    assert isinstance(error_text(data[:nbytes]), str)


# ---- errors of dependents ----


def test_nested_error_has_the_same_cause_and_tells_both_tasks() -> None:
    error: Any = loads_error(nest_error(dumps_error(raised(WithCode("a", code=5))), "g", pid=8))
    assert isinstance(error, WithCode)
    assert error.code == 5
    lines = str(error).splitlines()
    assert lines[0] == "\x1b[36mray::g()\x1b[39m (pid=8, ip=127.0.0.1)"
    assert "At least one of the input arguments for this task could not be computed:" in lines[1]
    assert lines[2] == HEADER
    assert lines[-1].endswith("WithCode: a!")


def test_nested_error_of_a_crash_is_a_task_error_of_a_crash() -> None:
    error = loads_error(nest_error(dumps_error(rex.WorkerCrashedError("sig 9")), "g", pid=8))
    assert type(error).__name__ == "RayTaskError(WorkerCrashedError)"
    assert isinstance(error, rex.WorkerCrashedError)
    assert str(error).endswith("WorkerCrashedError: sig 9")


def test_nested_error_through_a_chain_of_tasks_keeps_the_root() -> None:
    data = dumps_error(raised(KeyError("root")))
    for name in "abc":
        data = nest_error(data, name, pid=8, name=f"task_{name}")
    error = loads_error(data)
    assert isinstance(error, KeyError)
    assert [f"ray::task_{name}()" in str(error) for name in "abc"] == [True] * 3


# ---- return codes ----


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (errno.EEXIST, FileExistsError),
        (errno.EACCES, PermissionError),
        (errno.EIO, OSError),
        (-1, rex.ObjectStoreFullError),
        (-2, rex.GetTimeoutError),
        (-3, ValueError),
        (-4, rex.ArenaCorruptError),
        (-5, rex.RaySystemError),
        (-6, ValueError),
        (-7, RuntimeError),
        (-8, RuntimeError),
        (-9, rex.RaySystemError),
        (-999, rex.RaySystemError),
    ],
)
def test_return_code_becomes_its_exception_with_a_text(code: int, cls: type[Exception]) -> None:
    assert type(error_from_code(code)) is cls
    assert str(error_from_code(code))
    assert "1.2 GiB" in str(error_from_code(code, "put of 1.2 GiB"))


def test_return_code_that_is_an_errno_keeps_it() -> None:
    error = error_from_code(errno.ENOENT)
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.strerror) == (errno.ENOENT, os.strerror(errno.ENOENT))
