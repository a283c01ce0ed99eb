"""Property test of the allocator, through the binding: a store of 256 KiB against a dict."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from ray_lite import _core
from ray_lite._codec import encode
from ray_lite.exceptions import ObjectStoreFullError

CAPACITY = 256 << 10
INLINE = 32  # a shorter payload takes no block


def pattern(number: int, nbytes: int) -> bytes:
    """Bytes that no other value of the run has at the same place."""
    word = number.to_bytes(8, "little")
    return (word * (nbytes // 8 + 1))[:nbytes]


class Arena(RuleBasedStateMachine):
    """Values are stored, shown, given up and dropped in any order."""

    hidden: Bundle[Any] = Bundle("hidden")
    shown: Bundle[Any] = Bundle("shown")

    @initialize()
    def start(self) -> None:
        """A new session, of which this process is the only member."""
        self.core = _core.Session(_core.Segments.create(CAPACITY), _core.ROLE_DRIVER, -1, -1, 0.0)
        self.count = 0
        self.alive: dict[int, int] = {}

    def _bytes_alive(self) -> int:
        return sum(nbytes for nbytes in self.alive.values() if nbytes > INLINE)

    @rule(target=hidden, nbytes=st.one_of(st.integers(0, 300), st.integers(0, CAPACITY // 3)))
    def store(self, nbytes: int) -> Any:
        """A value in a block that only this process knows."""
        self.count += 1
        value = pattern(self.count, nbytes)
        largest = self.core.usage()["largest"]
        try:
            stored = self.core.store(encode(value))
        except ObjectStoreFullError:
            assert nbytes > largest - 4096  # blocks are rounded up to a page at most
            return None
        self.alive[self.count] = nbytes
        return [self.count, value, stored]

    @rule(target=shown, item=consumes(hidden))
    def show(self, item: Any) -> Any:
        """The value becomes an object."""
        if item is None:
            return None
        number, value, stored = item
        return [number, value, self.core.put_stored(stored)]

    @rule(item=consumes(hidden))
    def give_up(self, item: Any) -> None:
        """A value that nobody has seen goes with its Stored."""
        if item is not None:
            del self.alive[item[0]]
            item.clear()

    @rule(item=consumes(shown))
    def drop(self, item: Any) -> None:
        """The last reference goes."""
        if item is not None:
            del self.alive[item[0]]
            item.clear()

    @rule(item=shown)
    def read(self, item: Any) -> None:
        """Nobody else's bytes are in a value's block."""
        if item:
            assert self.core.read(item[2]) == item[1]

    @invariant()
    def books_are_right(self) -> None:
        """Free and used bytes add up, every invariant of the core holds."""
        if not hasattr(self, "core"):
            return
        assert self.core.broken_invariant() is None
        used = CAPACITY - self.core.usage()["free"]
        least = self._bytes_alive()
        assert least <= used <= least + 4096 * len(self.alive)

    def teardown(self) -> None:
        """Once all is given up, the store is one free block again."""
        if not hasattr(self, "core"):
            return
        for item in [*self._items("hidden"), *self._items("shown")]:
            if item:
                item.clear()
        usage = self.core.usage()
        assert usage["free"] == usage["largest"] == CAPACITY
        assert usage["objects"] == 0

    def _items(self, bundle: str) -> list[Any]:
        names = [variable.name for variable in self.bundles.get(bundle, [])]
        return [self.names_to_values[name] for name in names]


TestArena = pytest.mark.timeout(120)(Arena.TestCase)
TestArena.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
