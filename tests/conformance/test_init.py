"""init and shutdown: sessions that start, end, start again, and start by themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from .support import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def down(engine: ModuleType) -> Iterator[ModuleType]:
    """The module of the chosen engine; no session is up before or after the case."""
    engine.shutdown()
    yield engine
    engine.shutdown()


class TestInOneSession:
    """Cases that leave the session of this file as they found it."""

    def test_is_initialized_in_a_session_is_true(self, ray: ModuleType) -> None:
        assert ray.is_initialized() is True

    def test_is_initialized_in_a_task_is_true(self, ray: ModuleType) -> None:
        assert ray.get(ray.remote(lambda: ray.is_initialized()).remote()) is True

    def test_init_again_raises_runtime_error(self, ray: ModuleType) -> None:
        with pytest.raises(RuntimeError, match="twice"):
            ray.init(num_cpus=1)

    def test_init_again_with_ignore_reinit_error_changes_nothing(self, ray: ModuleType) -> None:
        ref = ray.put("kept")
        assert ray.init(ignore_reinit_error=True) is not None
        assert ray.get(ref) == "kept"

    def test_init_gives_facts_by_name(self, ray: ModuleType) -> None:
        context = ray.init(ignore_reinit_error=True)
        for name in ("address", "node_id", "node_ip_address", "session_dir"):
            assert context[name] == context.address_info[name]
            assert isinstance(context[name], str)
        assert context["node_id"] == ray.get_runtime_context().get_node_id()

    def test_init_takes_only_the_address_by_position(self, ray: ModuleType) -> None:
        with pytest.raises(TypeError):
            ray.init(None, 2)

    def test_shutdown_takes_nothing_by_position(self, ray: ModuleType) -> None:
        with pytest.raises(TypeError):
            ray.shutdown(True)
        assert ray.is_initialized() is True

    def test_init_in_a_task_raises_runtime_error(self, ray: ModuleType) -> None:
        @ray.remote
        def f():
            ray.init(num_cpus=1)

        with pytest.raises(RuntimeError):
            ray.get(f.remote())

    def test_worker_does_not_see_environment_changes_after_init(
        self, ray: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONFORMANCE_LATE", "1")
        assert ray.get(ray.remote(lambda: os.environ.get("CONFORMANCE_LATE")).remote()) is None


class TestWithoutSession:
    """Cases that start no session, or their own."""

    def test_shutdown_without_a_session_does_nothing(self, down: ModuleType) -> None:
        assert down.shutdown() is None
        assert down.shutdown(wait_for_processes=True) is None
        assert down.is_initialized() is False

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"num_cpu": 2}, RuntimeError),
            ({"num_cpus": -1}, ValueError),
            ({"object_store_memory": 75 * MIB - 1}, ValueError),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_init_with_a_bad_keyword_raises_and_starts_nothing(
        self, down: ModuleType, options: dict[str, Any], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            down.init(**options)
        assert down.is_initialized() is False

    @pytest.mark.filterwarnings("ignore:.*they do nothing on one machine")
    def test_init_accepts_the_smallest_store_and_the_keywords_of_clusters(
        self, down: ModuleType, tmp_path: Path
    ) -> None:
        down.init(
            num_cpus=1,
            num_gpus=0,
            labels={"key": "value"},
            object_store_memory=75 * MIB,
            include_dashboard=False,
            dashboard_host="127.0.0.1",
            dashboard_port=None,
            job_config=None,
            configure_logging=True,
            logging_level="error",
            logging_format=None,
            logging_config=None,
            log_to_driver=None,
            namespace=None,
            runtime_env=None,
            object_spilling_directory=str(tmp_path),
            _system_config={"automatic_object_spilling_enabled": False},
        )
        assert down.cluster_resources()["object_store_memory"] == 75 * MIB

    def test_what_a_session_made_is_refused_after_its_end(
        self, down: ModuleType, session_options: dict[str, Any]
    ) -> None:
        @down.remote
        class Counter:
            def add(self):
                return 1

        down.init(**session_options)
        ref, actor = down.put(1), Counter.remote()
        assert down.get(actor.add.remote()) == 1
        down.shutdown()
        with pytest.raises(ValueError, match="owner is unknown"):
            down.get(ref)
        assert down.is_initialized() is True
        with pytest.raises(Exception, match=r"(?i)failed to submit .*can't find actor"):
            actor.add.remote()
        with pytest.raises(down.exceptions.ActorHandleNotFoundError):
            down.kill(actor)

    @pytest.mark.deliberately_different("next of a stream without a session is an AttributeError")
    def test_next_of_a_stream_after_shutdown_says_that_its_session_is_over(
        self, down: ModuleType, session_options: dict[str, Any]
    ) -> None:
        @down.remote
        def generate():
            yield 1

        down.init(**session_options)
        stream = generate.remote()
        down.shutdown()
        with pytest.raises(down.exceptions.RaySystemError, match="session"):
            next(stream)
        assert down.is_initialized() is False

    def test_init_after_shutdown_starts_a_new_session(
        self, down: ModuleType, session_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @down.remote
        def setting():
            return os.environ.get("CONFORMANCE_EARLY")

        stale = None
        for session in ("first", "second"):
            monkeypatch.setenv("CONFORMANCE_EARLY", session)
            context = down.init(namespace=session, **session_options)
            assert "node_id" in context.address_info
            # The remote function is used in both sessions; workers see each session's environment.
            assert down.get(setting.remote()) == session
            if stale is not None:
                with pytest.raises(ValueError):
                    down.get(stale)
            stale = down.put(1)
            down.shutdown()
            assert down.is_initialized() is False

    @pytest.mark.parametrize(
        "call",
        [
            lambda ray: ray.get(ray.remote(lambda: 1).remote()),
            lambda ray: ray.get(ray.put(1)),
            lambda ray: ray.wait([]) == ([], []),
        ],
        ids=["remote", "put", "wait"],
    )
    def test_first_use_starts_a_session(
        self, down: ModuleType, call: Callable[[ModuleType], int]
    ) -> None:
        assert call(down) == 1
        assert down.is_initialized() is True

    @pytest.mark.parametrize(
        "call",
        [
            lambda ray: ray.get(3),
            lambda ray: ray.kill(3),
            lambda ray: ray.cancel(3),
            lambda ray: ray.get_actor("nobody"),
        ],
        ids=["get", "kill", "cancel", "get_actor"],
    )
    def test_first_use_starts_a_session_even_for_a_bad_call(
        self, down: ModuleType, call: Callable[[ModuleType], object]
    ) -> None:
        with pytest.raises((ValueError, TypeError)):
            call(down)
        assert down.is_initialized() is True
        # What nobody has chosen: a name space of its own, and less than a third of the memory.
        assert uuid.UUID(down.get_runtime_context().namespace).version == 4
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        store = down.cluster_resources()["object_store_memory"]
        assert 75 * MIB <= store <= min(0.3 * memory, 200e9)


DRIVER = """
import sys
import {engine} as ray

ray.init(log_to_driver=True, **{options})
{body}
sys.stdin.read()
ray.shutdown()
"""


def read_driver_until(
    engine: ModuleType, options: dict[str, Any], body: str, patterns: list[str]
) -> None:
    """Run `body` in a driver of its own until its output holds a line of each pattern."""
    program = DRIVER.format(engine=engine.__name__, options=options, body=body)
    driver = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    missing = set(patterns)
    with driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            plain = re.sub(r"\x1b\[\d+m", "", line)
            missing -= {pattern for pattern in missing if re.search(pattern, plain)}
            if not missing:
                break
        driver.communicate()
    assert not missing


class TestOutput:
    """What a driver's own streams show; each case runs a driver of its own."""

    def test_task_output_reaches_the_driver_with_name_and_pid(
        self, engine: ModuleType, session_options: dict[str, Any]
    ) -> None:
        body = """
@ray.remote
def chatty():
    print("to stdout")
    print("to stderr", file=sys.stderr)

ray.get(chatty.remote())
"""
        options = {k: v for k, v in session_options.items() if k != "log_to_driver"}
        patterns = [rf"\(chatty pid=\d+\) to {stream}" for stream in ("stdout", "stderr")]
        read_driver_until(engine, options, body, patterns)

    def test_actor_output_reaches_the_driver_with_the_class_or_the_repr(
        self, engine: ModuleType, session_options: dict[str, Any]
    ) -> None:
        body = """
@ray.remote
class Plain:
    def say(self):
        print("from the plain one")

@ray.remote
class Named:
    def __repr__(self):
        return "number 7"
    def say(self):
        print("from the named one")

ray.get([cls.remote().say.remote() for cls in (Plain, Named)])
"""
        options = {k: v for k, v in session_options.items() if k != "log_to_driver"}
        patterns = [r"\(Plain pid=\d+\) from the plain", r"\(number 7 pid=\d+\) from the named"]
        read_driver_until(engine, options, body, patterns)

    def test_error_of_an_attempt_that_is_retried_is_printed(
        self, engine: ModuleType, session_options: dict[str, Any], tmp_path: Path
    ) -> None:
        body = f"""
@ray.remote(retry_exceptions=True)
def flaky(mark={str(tmp_path / "mark")!r}):
    import os
    if not os.path.exists(mark):
        open(mark, "w").close()
        raise ValueError("first attempt")

ray.get(flaky.remote())
"""
        options = {k: v for k, v in session_options.items() if k != "log_to_driver"}
        read_driver_until(engine, options, body, ["ValueError: first attempt"])

    def test_error_that_nobody_asked_for_is_printed(
        self, engine: ModuleType, session_options: dict[str, Any]
    ) -> None:
        body = """
@ray.remote
def fail():
    raise ValueError("nobody asked")

fail.remote()
"""
        options = {k: v for k, v in session_options.items() if k != "log_to_driver"}
        read_driver_until(engine, options, body, ["nobody asked"])

    @pytest.mark.deliberately_different(
        "the body of a generator with num_returns=0 never runs; of a function, the error is lost",
        runs_on_ray=False,
    )
    @pytest.mark.parametrize("first", ["yield from ()", "pass"], ids=["generator", "function"])
    @pytest.mark.parametrize("statement", ['raise ValueError("no ref")', 'yield "no ref"'])
    def test_task_with_num_returns_zero_prints_what_has_no_ref(
        self, engine: ModuleType, session_options: dict[str, Any], first: str, statement: str
    ) -> None:
        body = f"""
@ray.remote(num_returns=0)
def orphan():
    {first}
    {statement}

orphan.remote()
"""
        options = {k: v for k, v in session_options.items() if k != "log_to_driver"}
        read_driver_until(engine, options, body, ["orphan"])
