"""What the errors of an actor say: of a method, of its constructor, and of its death."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

    from .support import Gate

IP = r"\d+\.\d+\.\d+\.\d+"


def wicked_class(ray: ModuleType) -> Any:
    """Return an actor class whose methods end badly, each in its way."""

    @ray.remote
    class Wicked:
        def __init__(self, error=None):
            if error is not None:
                raise error

        def pid(self):
            return os.getpid()

        def hold(self, path):
            open(path).close()

        def fail(self, error):
            raise error

        def sys_exit(self):
            sys.exit(0)

        def os_exit(self):
            os._exit(3)

        def exit_actor(self):
            ray.actor.exit_actor()

    return Wicked


def test_error_of_a_method_names_the_method_the_process_and_the_actor(ray: ModuleType) -> None:
    actor = wicked_class(ray).remote()
    with pytest.raises(ValueError) as info:
        ray.get(actor.fail.remote(ValueError("boo")))
    header, *_, last = str(info.value).splitlines()
    pid, actor_id = ray.get(actor.pid.remote()), actor._actor_id.hex()
    assert re.match(
        rf"\x1b\[36mray::Wicked\.fail\(\)\x1b\[39m \(pid={pid}, ip={IP}, actor_id={actor_id}\b",
        header,
    )
    assert last == "ValueError: boo"


@pytest.mark.deliberately_different("the text shows what the instance's __repr__ returns, too")
def test_error_of_a_method_is_told_without_the_instances_repr(ray: ModuleType) -> None:
    with pytest.raises(ValueError) as info:
        ray.get(wicked_class(ray).remote().fail.remote(ValueError("boo")))
    assert "repr=" not in str(info.value)


def test_error_of_a_constructor_names_the_constructor_and_its_frames(ray: ModuleType) -> None:
    actor = wicked_class(ray).remote(KeyError("root"))
    with pytest.raises(ray.exceptions.ActorDiedError) as info:
        ray.get(actor.pid.remote())
    assert not isinstance(info.value, KeyError)
    assert not hasattr(info.value, "cause")
    assert info.value.actor_id == actor._actor_id.hex()
    assert not info.value.preempted
    for words in ("ray::Wicked.__init__()", f"actor_id={info.value.actor_id}", "KeyError: 'root'"):
        assert words in str(info.value)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("exit_actor", r"exit_actor\(\) is called"),
        ("sys_exit", "exit"),
        ("os_exit", "process.* died"),
        ("kill", "killed by `ray.kill`"),
    ],
)
def test_death_names_the_class_the_actor_its_place_and_the_reason(
    ray: ModuleType, gate: Gate, how: str, reason: str
) -> None:
    actor = wicked_class(ray).remote()
    pid = ray.get(actor.pid.remote())
    if how == "kill":
        end = actor.hold.remote(gate.path)
        ray.kill(actor)
    else:
        end = getattr(actor, how).remote()
    with pytest.raises(ray.exceptions.ActorDiedError) as info:
        ray.get(end)
    text = str(info.value)
    facts = dict(re.findall(r"^\t(\w+): (.*)$", text, re.MULTILINE))
    assert facts["class_name"].endswith("Wicked")
    assert facts["actor_id"] == info.value.actor_id == actor._actor_id.hex()
    assert facts["namespace"] == ray.get_runtime_context().namespace
    assert re.fullmatch(IP, facts["ip"])
    assert re.search(f"is dead because .*{reason}", text, re.DOTALL)
    if how != "kill":
        assert str(pid) in text


def test_built_in_call_of_an_actor_that_was_not_made_says_why(ray: ModuleType) -> None:
    with pytest.raises(ray.exceptions.ActorDiedError, match="root"):
        ray.get(wicked_class(ray).remote(KeyError("root")).__ray_ready__.remote())
