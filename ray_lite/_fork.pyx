# cython: language_level=3, binding=False, embedsignature=False
"""A fork means for private memory what it means for the heap: parent and child have their own.

Owns the hooks that see to it. It must not know what is in that memory, nor who uses it.

The memory is shared, so the parent stands still until the child has made copies: all of its threads
that run Python, since the one that forks keeps the GIL while it waits. (A thread that computes
without the GIL meanwhile may be seen by the child a little further on than it was at the fork.)

Compiled because a hook written in Python is where a pending signal is handled, and what a handler
raises there is lost: a task that forks could not be cancelled.
"""
import os
import threading
import weakref

cimport cython
from libc.errno cimport EINTR, errno

cdef extern from "unistd.h":
    Py_ssize_t read_bytes "read"(int fd, void *bytes, size_t count)


@cython.final
cdef class Fork:
    """The hooks of one process, for os.register_at_fork.

    Args:
        memory: A _core.PrivateMemory of this process; not kept alive, unlike the hooks.
    """

    cdef object memory
    cdef dict pipes  # {thread: (read end, write end)}: others' hooks may let another thread fork

    def __init__(self, memory):
        self.memory = weakref.ref(memory)
        self.pipes = {}

    def before(self):
        """Make the pipe on which the parent will wait."""
        if self.memory() is not None:
            self.pipes[threading.get_ident()] = os.pipe()

    def after_in_child(self):
        """Copy, then let the parent go on; end if there is no memory to copy to."""
        memory = self.memory()
        if memory is None:
            return
        try:
            memory.copy_after_fork()
        except BaseException as error:
            os.write(2, f"No memory for what a forked process has to copy: {error}\n".encode())
            os._exit(1)
        own = self.pipes.pop(threading.get_ident(), None)
        for ends in self.pipes.values():
            close_both(ends)
        self.pipes.clear()
        if own is not None:
            os.write(own[1], b"!")
            close_both(own)

    def after_in_parent(self):
        """Wait until the child has copied, or is dead."""
        ends = self.pipes.pop(threading.get_ident(), None)
        if ends is not None:
            os.close(ends[1])
            wait_for_byte(ends[0])
            os.close(ends[0])


cdef int close_both(tuple ends) except -1:
    os.close(ends[0])
    os.close(ends[1])
    return 0


cdef int wait_for_byte(int fd) noexcept:
    """Wait, with the GIL, for a byte or the end of a pipe."""
    cdef char byte
    while read_bytes(fd, &byte, 1) < 0 and errno == EINTR:
        pass
    return 0
