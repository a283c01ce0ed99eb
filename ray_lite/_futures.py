"""Futures of references: the one thread that waits on behalf of asyncio.

Owns that thread, started with the first `await ref` or `ref.future()` and ended when nothing is
pending. It must not know event loops: asyncio wraps these futures itself.
"""

import threading
from concurrent.futures import Future
from typing import Any, TypeAlias

from ray_lite import _core
from ray_lite._values import read

Waitable: TypeAlias = _core.ObjectRef[Any] | _core.Stream


class FutureMaker:
    """Makes futures that are completed when their object is sealed, or their stream has an item.

    Args:
        core: The session whose references these are.
    """

    def __init__(self, core: _core.Session) -> None:
        self._core = core
        self._lock = threading.Lock()
        #: What is waited for, and the futures that it completes; in the order of their making.
        self._pending: list[tuple[Waitable, Future[Any]]] = []
        self._thread: threading.Thread | None = None

    def make(self, waitable: Waitable) -> "Future[Any]":
        """Return a future with the value of a reference, or the error that `get` would raise.

        That of a stream has the value None and says that there is an item, or the end.
        """
        future: Future[Any] = Future()
        if self._is_ready(waitable):
            self._settle(waitable, future)
            return future
        with self._lock:
            self._pending.append((waitable, future))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="ray_lite-futures", daemon=True
                )
                self._thread.start()
        self._core.interrupt()
        return future

    def _run(self) -> None:
        """Wait for whatever is pending, until nothing is or the session has ended."""
        while True:
            interrupts = self._core.interrupts
            with self._lock:
                self._pending = [item for item in self._pending if not item[1].cancelled()]
                if not self._pending:
                    self._thread = None
                    return
                pending = list(self._pending)
            try:
                flags = self._core.wait_once([waitable for waitable, _ in pending], interrupts)
            except Exception as error:
                self._fail_all(error)
                return
            done = [item for item, flag in zip(pending, flags, strict=True) if flag]
            with self._lock:
                self._pending = [item for item in self._pending if item not in done]
            for waitable, future in done:
                if future.set_running_or_notify_cancel():
                    self._settle(waitable, future)

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            pending, self._pending, self._thread = self._pending, [], None
        for _, future in pending:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _is_ready(self, waitable: Waitable) -> bool:
        if isinstance(waitable, _core.Stream):
            return waitable.is_ready
        return self._core.is_ready(waitable)

    def _settle(self, waitable: Waitable, future: "Future[Any]") -> None:
        if isinstance(waitable, _core.Stream):
            future.set_result(None)
            return
        try:
            value = read(self._core, waitable)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(value)
