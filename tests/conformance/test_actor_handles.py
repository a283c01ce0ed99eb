"""Handles of actors: where they may travel, what they keep, and what they are."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from .support import Gate


def box_class(ray: ModuleType) -> Any:
    """Return an actor class that keeps one value, and calls and makes other actors."""

    @ray.remote
    class Box:
        def __init__(self, value=None):
            self.held = value

        def get(self):
            return self.held

        def add(self, amount):
            self.held += amount
            return self.held

        def call(self, handle, name, *args):
            return ray.get(getattr(handle, name).remote(*args))

        def call_held(self, name, *args):
            return ray.get(getattr(self.held, name).remote(*args))

        def make(self, cls, *args):
            return cls.remote(*args)

    return Box


# ---- in tasks ----


def test_handle_reaches_a_task_as_itself_within_a_value_and_by_reference(ray: ModuleType) -> None:
    box = box_class(ray).remote(0)
    add = ray.remote(lambda handle: ray.get(handle.add.remote(5)))
    add_to_it = ray.remote(lambda handles: ray.get(handles["it"].add.remote(5)))
    assert ray.get(add.remote(box)) == 5
    assert ray.get(add_to_it.remote({"it": box})) == 10
    assert ray.get(add.remote(ray.put(box))) == 15


def test_handle_is_found_in_a_closure(ray: ModuleType) -> None:
    box = box_class(ray).remote(1)
    assert ray.get(ray.remote(lambda: ray.get(box.add.remote(1))).remote()) == 2


def test_handle_is_passed_on_and_on(ray: ModuleType) -> None:
    box = box_class(ray).remote(0)

    @ray.remote
    def pass_on(handle, depth):
        if depth:
            return ray.get(pass_on.remote(handle, depth - 1))
        return ray.get(handle.add.remote(7))

    assert ray.get(pass_on.remote(box, 3)) == 7
    assert ray.get(box.get.remote()) == 7


def test_actor_class_is_passed_to_a_task_and_used_there(ray: ModuleType) -> None:
    make = ray.remote(lambda cls: ray.get(cls.remote(4).add.remote(1)))
    assert ray.get(make.remote(box_class(ray))) == 5


def test_handle_that_a_task_returns_keeps_the_actor(ray: ModuleType) -> None:
    box = box_class(ray)
    handle = ray.get(ray.remote(lambda: box.remote(3)).remote())
    assert ray.get(handle.add.remote(1)) == 4


def test_many_callers_lose_no_call(ray: ModuleType) -> None:
    box = box_class(ray).remote(0)
    call = ray.remote(lambda handle: ray.get([handle.add.remote(1) for _ in range(50)]))
    results = ray.get([call.remote(box) for _ in range(4)])
    assert all(result == sorted(result) for result in results)
    assert sorted(value for result in results for value in result) == list(range(1, 201))


# ---- in actors and objects ----


def test_handle_held_by_another_actor_keeps_the_actor(ray: ModuleType) -> None:
    inner = box_class(ray).remote(0)
    holder = box_class(ray).remote(inner)
    assert ray.get(holder.call_held.remote("add", 1)) == 1
    del inner
    assert ray.get(holder.call_held.remote("add", 1)) == 2


def test_handle_that_an_actor_returns_keeps_the_other(ray: ModuleType) -> None:
    box = box_class(ray)
    parent = box.remote()
    child = ray.get(parent.make.remote(box, 3))
    assert ray.get([child.add.remote(1), child.add.remote(1)]) == [4, 5]


def test_handle_given_to_a_call_lives_as_long_as_the_call(ray: ModuleType, gate: Gate) -> None:
    box = box_class(ray)
    slow = ray.remote(lambda path: (open(path).close(), 1)[1]).remote(gate.path)
    ref = box.remote().call.remote(box.remote(1), "add", slow)
    gate.meet()
    assert ray.get(ref) == 2


def test_actors_call_each_other(ray: ModuleType) -> None:
    first, second = box_class(ray).remote(1), box_class(ray).remote(10)
    assert ray.get(first.call.remote(second, "add", 1)) == 11
    assert ray.get(second.call.remote(first, "add", 1)) == 2


def test_actor_knows_its_own_handle(ray: ModuleType) -> None:
    box = box_class(ray).remote(1)
    itself = ray.get(box.__ray_call__.remote(lambda self: ray.get_runtime_context().current_actor))
    assert itself == box
    assert ray.get(itself.add.remote(1)) == 2


# ---- what they are ----


def test_temporary_handle_is_enough_for_a_call(ray: ModuleType) -> None:
    assert ray.get(box_class(ray).remote(1).add.remote(1)) == 2


def test_handles_of_an_actor_are_one_key(ray: ModuleType) -> None:
    first, second = box_class(ray).remote(), box_class(ray).remote()
    copies = [pickle.loads(pickle.dumps(first)), ray.get(ray.put([first]))[0]]
    for again in copies:
        assert again == first
        assert {first: 1, second: 2}[again] == 1
    assert len({first, second, *copies}) == 2
    assert first != "first"


def test_copy_of_a_handle_calls_the_same_actor(ray: ModuleType) -> None:
    box = box_class(ray).remote(1)
    assert copy.copy(box) == copy.deepcopy(box) == box
    assert ray.get([copy.copy(box).add.remote(1), copy.deepcopy(box).add.remote(1)]) == [2, 3]


def test_handle_shows_its_class_and_methods(ray: ModuleType) -> None:
    box = box_class(ray).remote(0)
    assert isinstance(box, ray.actor.ActorHandle)
    assert repr(box).startswith("Actor(")
    assert "Box" in repr(box)
    assert "add" in dir(box)
    assert ray.get(ray.remote(lambda handle: repr(handle)).remote(box)) == repr(box)
    assert ray.get(pickle.loads(pickle.dumps(box)).add.remote(1)) == 1
