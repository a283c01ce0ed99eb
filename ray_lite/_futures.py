"""Futures of references: the one thread that waits on behalf of asyncio.

Owns that thread, started with the first `await ref` or `ref.future()` and ended when nothing is
pending. It must not know event loops: asyncio wraps these futures itself.
"""

import threading
from concurrent.futures import Future
from typing import Any

from ray_lite import _core
from ray_lite._values import read


class FutureMaker:
    """Makes futures that are completed when their object is sealed.

    Args:
        core: The session whose references these are.
    """

    def __init__(self, core: _core.Session) -> None:
        self._core = core
        self._lock = threading.Lock()
        #: Futures that are not done, in the order in which they were made.
        self._pending: list[tuple[_core.ObjectRef[Any], Future[Any]]] = []
        self._thread: threading.Thread | None = None

    def make(self, ref: _core.ObjectRef[Any]) -> "Future[Any]":
        """Return a future with the value of `ref`, or the error that `get` would raise."""
        future: Future[Any] = Future()
        if self._core.is_ready(ref):
            self._settle(ref, future)
            return future
        with self._lock:
            self._pending.append((ref, future))
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
            with self._lock:
                self._pending = [item for item in self._pending if not item[1].cancelled()]
                if not self._pending:
                    self._thread = None
                    return
                pending = list(self._pending)
            try:
                flags = self._core.wait_once([ref for ref, _ in pending])
            except Exception as error:
                self._fail_all(error)
                return
            done = [item for item, flag in zip(pending, flags, strict=True) if flag]
            with self._lock:
                self._pending = [item for item in self._pending if item not in done]
            for ref, future in done:
                if future.set_running_or_notify_cancel():
                    self._settle(ref, future)

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            pending, self._pending, self._thread = self._pending, [], None
        for _, future in pending:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _settle(self, ref: _core.ObjectRef[Any], future: "Future[Any]") -> None:
        try:
            value = read(self._core, ref)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(value)
