"""Names of actors: who is found, for how long, and where."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from .actors import eventually, obedient_class, wait_until_gone

if TYPE_CHECKING:
    from types import ModuleType


def is_found(ray: ModuleType, name: str, namespace: str | None = None) -> bool:
    """Return whether there is an actor of that name."""
    try:
        ray.get_actor(name, namespace=namespace)
    except ValueError:
        return False
    return True


# ---- found ----


def test_named_actor_is_found_as_soon_as_remote_returns(ray: ModuleType) -> None:
    actor = obedient_class(ray).options(name="found").remote(5)
    other = ray.get_actor("found")
    assert other == actor
    assert repr(other) == repr(actor)
    assert ray.get(other.add.remote()) == 6
    assert ray.get(actor.add.remote()) == 7


def test_named_actor_is_found_in_a_task(ray: ModuleType) -> None:
    actor = obedient_class(ray).options(name="in a task").remote()
    find = ray.remote(lambda: ray.get(ray.get_actor("in a task").add.remote()))
    assert ray.get(find.remote()) == 1
    assert ray.get(actor.add.remote()) == 2


def test_decorator_may_name_the_actor(ray: ModuleType) -> None:
    cls = obedient_class(ray, name="by decorator")
    actor = cls.remote()
    assert ray.get_actor("by decorator") == actor
    with pytest.raises(ray.exceptions.ActorAlreadyExistsError):
        cls.remote()


def test_found_handle_knows_methods_and_signatures(ray: ModuleType) -> None:
    _actor = obedient_class(ray).options(name="checks").remote()
    found = ray.get_actor("checks")
    with pytest.raises(TypeError, match="too many positional arguments"):
        found.add.remote(1, 2)
    with pytest.raises(AttributeError):
        found.nothing.remote()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("nobody", ValueError, "Failed to look up actor with name 'nobody'"),
        ("", ValueError, None),
        (3, TypeError, None),
    ],
    ids=repr,
)
def test_wrong_name_is_refused(
    ray: ModuleType, name: Any, error: type[Exception], words: str | None
) -> None:
    with pytest.raises(error, match=words):
        ray.get_actor(name)


def test_actor_knows_its_name_and_namespace(ray: ModuleType) -> None:
    actor = obedient_class(ray).options(name="known", namespace="space").remote()

    def ask():
        name = ray.get_runtime_context().get_actor_name()
        return name, ray.get_actor(name, namespace="space")

    assert ray.get(actor.do.remote(ask)) == ("known", actor)


# ---- taken ----


def test_taken_name_is_refused_and_leaves_the_first_alone(ray: ModuleType) -> None:
    cls = obedient_class(ray).options(name="taken")
    actor = cls.remote(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="taken") as caught:
            cls.remote(2)
        assert isinstance(caught.value, ray.exceptions.ActorAlreadyExistsError)
    assert ray.get_actor("taken") == actor
    assert ray.get(actor.add.remote()) == 2


def test_get_if_exists_makes_an_actor_once(ray: ModuleType) -> None:
    cls = obedient_class(ray).options(name="once", get_if_exists=True)
    first, second = cls.remote(1), cls.remote(100)
    assert first == second
    assert ray.get([first.add.remote(), second.add.remote()]) == [2, 3]


def test_get_if_exists_in_several_tasks_makes_one_actor(ray: ModuleType) -> None:
    cls = obedient_class(ray)

    @ray.remote(num_cpus=0)
    def ask():
        actor = cls.options(name="asked", get_if_exists=True, lifetime="detached").remote()
        return actor, ray.get(actor.add.remote())

    results = ray.get([ask.remote() for _ in range(3)])
    assert len({actor for actor, _ in results}) == 1
    assert sorted(value for _, value in results) == [1, 2, 3]
    ray.kill(results[0][0])


@pytest.mark.parametrize(
    "options",
    [{"get_if_exists": True}, {"name": ""}, {"name": "", "get_if_exists": True}],
    ids=["none", "empty", "empty, for an existing one"],
)
def test_name_that_is_missing_is_refused_at_the_call(
    ray: ModuleType, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        obedient_class(ray).options(**options).remote()


# ---- namespaces ----


def test_namespaces_keep_names_apart(ray: ModuleType) -> None:
    cls = obedient_class(ray)
    actors = {space: cls.options(name="apart", namespace=space).remote() for space in "ab"}
    assert actors["a"] != actors["b"]
    assert not is_found(ray, "apart")
    for space, actor in actors.items():
        assert ray.get_actor("apart", namespace=space) == actor
        with pytest.raises(ray.exceptions.ActorAlreadyExistsError):
            cls.options(name="apart", namespace=space).remote()


def test_named_actors_are_listed_with_their_namespaces(ray: ModuleType) -> None:
    cls = obedient_class(ray)
    here = cls.options(name="listed").remote()
    there = cls.options(name="listed", namespace="other").remote()
    assert ray.util.list_named_actors().count("listed") == 1
    pairs = ray.util.list_named_actors(all_namespaces=True)
    for space in ("other", ray.get_runtime_context().namespace):
        assert {"name": "listed", "namespace": space} in pairs
    ray.kill(here)
    ray.kill(there)
    assert eventually(lambda: "listed" not in ray.util.list_named_actors())


# ---- left ----


@pytest.mark.parametrize("lifetime", ["non_detached", "detached"])
def test_killed_actor_leaves_its_name_to_others(ray: ModuleType, lifetime: str) -> None:
    name = f"left by {lifetime}"
    cls = obedient_class(ray).options(name=name, lifetime=lifetime)
    first = cls.remote(10)
    assert ray.get(first.add.remote()) == 11
    ray.kill(first)
    assert eventually(lambda: not is_found(ray, name))
    second = cls.remote()
    assert second != first
    assert ray.get(second.add.remote()) == 1
    ray.kill(second)


def test_actor_out_of_scope_leaves_its_name_to_others(ray: ModuleType) -> None:
    cls = obedient_class(ray).options(name="out of scope")
    actor = cls.remote()
    ray.get(actor.add.remote())
    del actor
    assert eventually(lambda: not is_found(ray, "out of scope"))
    assert ray.get(cls.remote(5).add.remote()) == 6


@pytest.mark.deliberately_different("it stays taken while there is a handle")
def test_name_of_an_actor_whose_constructor_failed_is_left_to_others(ray: ModuleType) -> None:
    @ray.remote
    class Broken:
        def __init__(self):
            raise KeyError("broken")

        def one(self):
            return 1

    broken = Broken.options(name="broken").remote()
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(broken.one.remote())
    patience = 1 if ray.__name__ == "ray" else 30
    assert eventually(lambda: not is_found(ray, "broken"), patience)
    actor = obedient_class(ray).options(name="broken").remote()
    assert ray.get(actor.add.remote()) == 1


# ---- kept ----


def test_detached_actor_outlives_the_task_that_made_it(ray: ModuleType) -> None:
    cls = obedient_class(ray)

    @ray.remote
    def make():
        actor = cls.options(name="left behind", lifetime="detached").remote(7)
        return ray.get(actor.do.remote(os.getpid))

    pid = ray.get(make.remote(), timeout=30)
    actor = ray.get_actor("left behind")
    assert ray.get([actor.do.remote(os.getpid), actor.add.remote()], timeout=30) == [pid, 8]
    ray.kill(actor)
    wait_until_gone(pid)


def test_detached_actor_outlives_its_handles(ray: ModuleType) -> None:
    actor = obedient_class(ray).options(name="stays", lifetime="detached").remote(1)
    pid = ray.get(actor.do.remote(os.getpid))
    del actor
    again = ray.get_actor("stays")
    assert ray.get(again.do.remote(os.getpid), timeout=30) == pid
    ray.kill(again)


def test_detached_actor_may_be_without_a_name(ray: ModuleType) -> None:
    actor = obedient_class(ray).options(lifetime="detached").remote(1)
    assert ray.get(actor.add.remote()) == 2
    ray.kill(actor)


@pytest.mark.deliberately_different("Ray ends it with its creator's handle, whoever else has one")
@pytest.mark.parametrize("finder", ["driver", "actor"])
def test_handle_of_get_actor_keeps_the_actor(ray: ModuleType, finder: str) -> None:
    name = f"kept by the {finder}"

    class Finder:
        def find(self):
            self.found = ray.get_actor(name)

        def add(self):
            return ray.get(self.found.add.remote(), timeout=30)

    actor = obedient_class(ray).options(name=name).remote()
    pid = ray.get(actor.do.remote(os.getpid))
    if finder == "driver":
        here = Finder()
        here.find()
        add = here.add
    else:
        there = ray.remote(Finder).remote()
        ray.get(there.find.remote())
        add = lambda: ray.get(there.add.remote(), timeout=30)  # noqa: E731
    del actor
    if ray.__name__ == "ray":
        wait_until_gone(pid)
    assert add() == 1
