# cython: language_level=3, binding=False, embedsignature=False
"""Binding of the core (csrc/): types in, one C call, errors out.

Owns the life of what Python holds of shared memory: a reference holds its object, a view pins its
payload, a stored value its block. It must not know what a task's outcome means, how many workers
there should be, or anything else that is a decision; those are returns.py, scheduler.py and api.py.
"""
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EBUSY, EEXIST, EINTR
from libc.signal cimport SIGKILL
from libc.stdint cimport INT64_MAX, UINT32_MAX
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from ray_lite._codec cimport (
    HEAD_ROOM,
    HELD_BY_ENCODED,
    KIND_ARRAY,
    KIND_BYTES,
    Encoded,
    ErrorPayload,
    PlacedSpan,
    Word,
    as_word,
    decode_at,
    decode_call_at,
    freeze,
    has_pickled,
    is_plain_around_arrays,
    sole_memory,
    viewed_memory,
    encode,
    write_large_head,
)

import os
import sys
from sys import getprofile, gettrace

from ray_lite.exceptions import (
    ActorAlreadyExistsError,
    ObjectStoreFullError,
    PendingCallsLimitExceeded,
    error_from_code,
)

cdef extern from "Python.h":
    object PyObject_Call(object function, object args, PyObject *kwargs)
    PyObject *Py_TYPE(PyObject *value)
    bint PyGen_CheckExact(object value)
    bint PyAsyncGen_CheckExact(object value)

cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030D0000
    #define LOCALS_ARE_A_VIEW 0
    #ifndef Py_BUILD_CORE
    #define Py_BUILD_CORE 1
    #endif
    #include "internal/pycore_frame.h"
    static PyObject *local_at(PyObject *frame, Py_ssize_t i)
    {
        return ((PyFrameObject *)frame)->f_frame->localsplus[i];
    }
    #else
    #define LOCALS_ARE_A_VIEW 1 /* PEP 667 */
    static PyObject *local_at(PyObject *frame, Py_ssize_t i)
    {
        (void)frame, (void)i;
        return NULL;
    }
    #endif
    """
    bint LOCALS_ARE_A_VIEW
    PyObject *local_at(object frame, Py_ssize_t i)  # NULL: it is not bound

cdef extern from "signal.h":
    int raise_signal "raise"(int signum)

cdef enum:
    FEW_REFS = 8  # in a task's arguments; more need memory
    TOO_OFTEN = 1 << 30  # for a reference count
    HELD_AND_MET = 2  # references to what one container holds and a loop over that has met
    UNSHARED = 2  # references to a suspended frame that nobody has got hold of: its own, a variable
    HOLDERS = 1   # of an array that is stored where it is although somebody holds it
    LOOK_AHEAD = 12  # objects: what one of them takes to come from memory

cdef int RL_EFULL = -1
cdef int RL_ETIMEDOUT = -2
cdef int RL_EDEAD = -5
cdef int RL_EAGAIN = -10
cdef int RL_EEND = -11
cdef int RL_ETABLE = -8
cdef int RL_EINVAL = -6
cdef int RL_ESTALE = -3
cdef uint32_t PUT_NUMBER = 0x05f5e101  # Ray numbers the objects of a put from here on
cdef size_t ID_NBYTES = 28
cdef size_t TASK_ID_NBYTES = 24
cdef int64_t FIRST_PAUSE_NS = 50_000_000
cdef int64_t LAST_PAUSE_NS = 1_000_000_000

ROLE_DRIVER = RL_ROLE_DRIVER
ROLE_SUPERVISOR = RL_ROLE_SUPERVISOR
ROLE_WORKER = RL_ROLE_WORKER
ROLE_HELPER = RL_ROLE_HELPER

RAISED = RL_TASK_RAISED
WITHDRAWN = RL_TASK_WITHDRAWN
ORPHANED = RL_TASK_ORPHANED
KILL_FOR_EVER = RL_KILL_FOR_EVER

EDEAD = RL_EDEAD
LAYOUT_VERSION = RL_LAYOUT_VERSION

rl_fault_arm_from_environment()


def arm_kill_point(str name not None, unsigned int n):
    """Have this process killed when it passes kill point `name` for the n-th time from now on.

    For crash tests. Does nothing unless the core was built with RL_FAULTS.
    """
    cdef bytes encoded = name.encode()
    rl_fault_arm(encoded, n, SIGKILL)


def switch_repair(bint on):
    """Have this process, and those that it forks, repair after a death or not; as above."""
    rl_fault_switch_repair(on)


cdef int check(int rc) except -1:
    """Return 0 for success; raise the error that return code `rc` names."""
    if rc != 0:
        raise error_from_code(rc)
    return 0


cdef int tell_moved(list moves) except -1:
    """A value has been stored: tell what moved with it."""
    if moves is not None:
        for movable in moves:
            movable.moved()
    return 0


cdef int look_at_signals_between_tasks() except -1:
    """Run signal handlers; an interrupt that meets no task has nothing to interrupt."""
    try:
        PyErr_CheckSignals()
    except KeyboardInterrupt:
        pass
    return 0


@cython.final
cdef class ForkGuard:
    """Puts a signal off while its process forks, for what a handler raises there is lost.

    CPython prints what the hooks of a fork raise, and goes on; the first of them that is written in
    Python is where a signal that came during the fork is handled. So the handler asks `puts_off`,
    and raises only if it is False. The methods are hooks for os.register_at_fork; compiled, since
    the signal that they raise again must find no code of Python's before the forking function's.

    Args:
        signum: The signal.
    """

    cdef int signum, forking
    cdef bint pending

    def __cinit__(self, int signum):
        self.signum = signum

    def before(self):
        """A fork begins."""
        self.forking += 1

    def after_in_parent(self):
        """It is over."""
        self.forking -= 1
        if self.pending and self.forking == 0:
            self.pending = False
            raise_signal(self.signum)

    def after_in_child(self):
        """The child is another process: the signal was not for it."""
        self.forking = 0
        self.pending = False

    def puts_off(self):
        """Whether the signal will come again when the fork is over."""
        self.pending = self.forking > 0
        return self.pending


cpdef Py_ssize_t references(value):
    """Return how many references to `value` there are."""
    return (<PyObject *>value).ob_refcnt


cdef int64_t deadline_of(object timeout) except -1:
    """Return the absolute deadline for `timeout` seconds from now; None is never."""
    if timeout is None:
        return INT64_MAX
    cdef double ns = timeout * 1e9
    if ns > 9e18:
        return INT64_MAX
    return rl_now_ns() + <int64_t>ns


cdef rl_handle *handles_of(Session session, list refs) except? NULL:
    """Return the handles of `refs` in memory that the caller frees; NULL for none.

    Raises:
        ValueError: One is of another session: its handle would name some other object of this one.
    """
    cdef Py_ssize_t n = len(refs), i
    if n == 0:
        return NULL
    cdef rl_handle *handles = <rl_handle *>malloc(n * sizeof(rl_handle))
    if handles == NULL:
        raise MemoryError()
    try:
        for i in range(n):
            handles[i] = handle_of(session, refs[i])
    except BaseException:
        free(handles)
        raise
    return handles


cdef inline void set_item(list new, Py_ssize_t i, PyObject *item) noexcept:
    """Set the place `i`, empty so far, of a list that nobody else knows yet."""
    Py_INCREF(<object>item)
    PyList_SET_ITEM(new, i, <object>item)


cdef void fill_rest(list rest, list items, Py_ssize_t n, list taken) noexcept:
    """Fill `rest` with the first `n` items but those that were `taken`, in the same order."""
    cdef Py_ssize_t ntaken = PyList_GET_SIZE(taken), i, k = 0
    for i in range(n):
        if k < ntaken and PyList_GET_ITEM(items, i) == PyList_GET_ITEM(taken, k):
            k += 1
        else:
            set_item(rest, i - k, PyList_GET_ITEM(items, i))


def split(list items not None, bytes flags not None, Py_ssize_t need):
    """Return (the first `need` of `items` whose flag is set, the rest of them), in their order."""
    cdef const char *flag = flags
    cdef list taken = []
    cdef Py_ssize_t i
    if len(items) != len(flags):
        raise ValueError(f"{len(flags)} flags for {len(items)} items")
    for i in range(len(items)):
        if flag[i]:
            taken.append(items[i])
            if len(taken) == need:
                break
    cdef list rest = PyList_New(len(items) - len(taken))
    fill_rest(rest, items, len(items), taken)
    return taken, rest


cdef rl_handle handle_of(Session session, object ref) except *:
    cdef Session owner
    cdef rl_handle h
    if type(ref) is Stream:
        owner, h = (<Stream>ref).outlet.session, (<Stream>ref).h
    else:
        owner, h = (<ObjectRef?>ref).session, (<ObjectRef>ref).h
    if owner is not session:
        raise ValueError(
            f"{ref!r}: owner is unknown, it belongs to no live session of this process (shutdown "
            f"ends all references); make it again")
    return h


cdef int check_wait(Session session, int rc) except -1:
    """As check; a wait that found the supervisor dead tells the calls that do not wait."""
    if rc == RL_EDEAD and not rl_is_detached(&session.s):
        rl_session_end(&session.s)
    return check(rc)


# ---- segments and session ----

@cython.final
cdef class Segments:
    """The control and the data segment of a session, mapped for as long as this object lives."""

    def __dealloc__(self):
        if self.mapped:
            rl_segment_close(&self.map)

    @staticmethod
    def create(uint64_t data_nbytes):
        """Make new segments with room for `data_nbytes` of payload."""
        cdef Segments segments = Segments.__new__(Segments)
        check(rl_segment_create(data_nbytes, NULL, &segments.map))
        segments.mapped = True
        return segments

    @staticmethod
    def attach(int control_fd, int data_fd):
        """Map segments that another process made; owns the descriptors from now on."""
        cdef Segments segments = Segments.__new__(Segments)
        check(rl_segment_attach(control_fd, data_fd, &segments.map))
        segments.mapped = True
        return segments

    @property
    def fds(self):
        """The two descriptors, (control, data)."""
        return self.map.control_fd, self.map.data_fd

    @property
    def cookie(self):
        """The number that tells this session from every other."""
        return self.map.control.cookie

    @property
    def capacity(self):
        """Bytes of payload that fit."""
        return self.map.data_size

    def close_fds(self):
        """Close the descriptors; the mapping stays."""
        for fd in self.fds:
            if fd >= 0:
                os.close(fd)
        self.map.control_fd = self.map.data_fd = -1


@cython.final
@cython.no_gc_clear  # segments must outlive what is given back in __dealloc__
cdef class Session:
    """This process's membership in a session: its slot, and all that it may do to shared state.

    Args:
        segments: The session's memory.
        role: ROLE_*.
        bell_fd: eventfd that the supervisor polls, or -1.
        peer_fd: pidfd of the supervisor, or -1; waits raise when it has died.
        patience: Seconds that a store without room may go without a byte freed.
    """

    def __cinit__(self, Segments segments not None, uint32_t role, int bell_fd, int peer_fd,
                  double patience):
        self.segments = segments
        self.patience_ns = <int64_t>(patience * 1e9)
        check(rl_session_join(&self.s, &segments.map, role, bell_fd, peer_fd))
        self.joined = True

    def __dealloc__(self):
        free(self.met)
        if self.joined:
            rl_session_detach(&self.s)
            rl_session_dispose(&self.s)

    @property
    def segments(self):
        """The session's memory."""
        return self.segments

    @property
    def slot(self):
        """Index of this process's slot."""
        return self.s.slot

    @property
    def is_over(self):
        """Whether this process has left, or the session has ended for all."""
        return rl_is_detached(&self.s) != 0 or bool(self.s.map.control.ended)

    def leave(self):
        """Give back what this process holds; every later call fails."""
        check(rl_session_leave(&self.s))

    def detach(self):
        """In a forked child: forget the session without touching shared memory."""
        self.private = None  # which its arrays keep, and that keeps this
        rl_session_detach(&self.s)

    def end(self):
        """End the session for every process."""
        rl_session_end(&self.s)

    def interrupt(self):
        """Make `wait_once` return in every thread of this process."""
        rl_session_interrupt(&self.s)

    # ---- storing ----

    cdef uint32_t fill(self, size_t nbytes) except *:
        """Return a block to be filled; waits for room as long as memory is being freed."""
        cdef rl_control *control = self.s.map.control
        cdef int64_t deadline = rl_now_ns() + self.patience_ns
        cdef uint64_t freed_bytes = control.freed_bytes
        cdef uint32_t block = 0, seen
        cdef int rc
        while True:
            seen = control.freed
            with nogil:
                rc = rl_arena_fill(&self.s, nbytes, &block)
            if rc != RL_EFULL:
                check(rc)
                return block
            if nbytes > self.s.map.data_size:
                raise self.store_full(nbytes)
            if control.freed_bytes != freed_bytes:
                freed_bytes = control.freed_bytes
                deadline = rl_now_ns() + self.patience_ns
            with nogil:
                rc = rl_room_wait(&self.s, seen, deadline)
            PyErr_CheckSignals()
            if rc == RL_ETIMEDOUT and control.freed_bytes == freed_bytes:
                raise self.store_full(nbytes)
            if rc not in (0, EINTR, RL_ETIMEDOUT):
                check_wait(self, rc)

    def store_full(self, nbytes):
        """Return the error that says what did not fit."""
        cdef rl_arena_usage usage
        check(rl_arena_measure(&self.s, &usage))
        if nbytes > usage.capacity:
            return ObjectStoreFullError(
                f"a value of {nbytes:,} bytes is larger than the whole object store, "
                f"{usage.capacity:,} bytes; store it in parts, or give "
                f"init(object_store_memory=...) more")
        return ObjectStoreFullError(
            f"no room for a value of {nbytes:,} bytes, a block of {rl_arena_block_size(nbytes):,}: "
            f"{usage.free_bytes:,} of {usage.capacity:,} bytes are free, {usage.largest:,} of them "
            f"in one piece, and "
            f"nothing was freed for {self.patience_ns / 1e9:g} s; release refs and arrays, or "
            f"give init(object_store_memory=...) more")

    def store(self, Encoded encoded not None):
        """Write a value to shared memory without letting anyone see it yet.

        Raises:
            ObjectStoreFullError: No room; nothing was stored.
        """
        cdef Stored stored = Stored.__new__(Stored)
        stored.session = self
        stored.refs = encoded.refs
        stored.moves = encoded.moves
        stored.handles = handles_of(self, encoded.refs)
        stored.value.kind = encoded.kind
        stored.value.nbytes = encoded.nbytes
        stored.value.refs = stored.handles
        stored.value.nrefs = <uint32_t>len(encoded.refs)
        if encoded.nbytes <= RL_INLINE:
            stored.value.bytes = stored.bytes
            encoded.write_to(stored.bytes)
            return stored
        stored.value.block = self.fill(encoded.nbytes)
        encoded.write_to(<char *>rl_arena_bytes(&self.s, stored.value.block))
        return stored

    @property
    def private_memory(self):
        """Where this process's own arrays are: a PrivateMemory, or None."""
        return self.private

    def open_private_memory(self):
        """Make it."""
        self.private = PrivateMemory(self)
        return self.private

    def store_owned(self, Owned owned not None):
        """As `store`, of a value that is given up: one in private memory is not copied."""
        stored = self.store_in_place(owned, 0)
        if stored is None:
            if references(owned.value) <= 1 + HOLDERS:
                stored = self.store_frozen(owned.value)
        if stored is not None:
            return stored
        encoded = encode(owned.value)
        stored = self.store_in_parts(owned, encoded)
        return self.store(encoded) if stored is None else stored

    def steps(self, dead_names not None):
        """Return what takes the values of a generator; see Steps."""
        cdef Steps steps = Steps.__new__(Steps)
        steps.session, steps.dead_names = self, dead_names
        return steps

    def store_value(self, value, bint held_once):
        """As `store`, of any value: an array that was asked for in the store is not copied.

        Args:
            value: It.
            held_once: Whether one reference beside the caller's is all there is to `value`.
        """
        stored = self.store_frozen(value) if held_once else None
        return self.store(encode(value)) if stored is None else stored

    cdef Stored store_in_place(self, Owned owned, uint32_t others):
        """Store an array where it is; None: somebody could change it, or it is elsewhere.

        Args:
            owned: The array.
            others: How many more references to it there are that are known never to be used.
        """
        if self.private is None:
            return None
        cdef void *memory = sole_memory(owned.value)
        if memory == NULL or (<PyObject *>owned.value).ob_refcnt != <Py_ssize_t>(1 + others):
            return None
        cdef uint32_t block = rl_private_block(&self.private.table, memory, 0)
        if block == RL_NIL:
            return None
        stored = self.sealed_at(memory, block, owned.value)
        if stored is not None:
            if others:
                freeze(owned.value)  # who looks into frames can still get at it
            owned.value = None
        return stored

    cdef Stored store_in_parts(self, Owned owned, Encoded encoded):
        """Store a container whose large arrays become objects of their own, where they are.

        Those of which that cannot be are copied, with the rest. None: all of them have to be.

        Args:
            owned: The container; given up if none but plain values and arrays are in it.
            encoded: It.
        """
        cdef Py_ssize_t count = encoded.count_large()
        if self.private is None or count == 0 or not is_plain_around_arrays(owned.value):
            return None
        container = owned.give_up()
        cdef list parts = []
        cdef Py_ssize_t i
        for i in range(count):
            parts.append(self.owned_part(encoded.large_array(i), owned, container))
        if parts.count(None) == count:
            return None
        cdef uint64_t fingerprint = fingerprint_of(encoded)
        refs = [None if part is None else self.put_stored(part) for part in parts]
        cdef Stored stored = self.store(encoded.in_parts(refs))
        stored.value.fingerprint = fingerprint
        stored.value.counts_as = RL_COPIED if None in parts else RL_IN_PLACE
        return stored

    cdef Stored owned_part(self, PyObject *array, Owned owned, object container):
        """A large array that nothing but an Encoded holds, stored where it is; None: it is not.

        Args:
            array: It.
            owned: What it was part of; names known never to be used again may hold it, too.
            container: As `owned.give_up()` says.
        """
        cdef void *memory = sole_memory(<object>array)
        if memory == NULL:
            return None
        cdef Py_ssize_t others = array.ob_refcnt - HELD_BY_ENCODED
        if others != 0:
            if others != count_inside(container, array) + owned.count_dead_names(array):
                return None
        cdef uint32_t block = rl_private_block(&self.private.table, memory, 0)
        if block == RL_NIL:
            return None
        cdef Stored part = self.sealed_at(memory, block, <object>array)
        if part is not None:
            part.value.counts_as = RL_PART
            if others:
                freeze(<object>array)
        return part

    cdef Stored store_frozen(self, object value):
        """Store an array that was asked for in the store where it is, and make it read-only.

        None: it is elsewhere, or some view beside it could still change it. `value` is a view of the
        only other array on its memory, so that numpy has further views hold that one; but those of
        another type, and what other libraries make, hold `value` itself. So the caller has to know
        that no more than HOLDERS do: the name by which it is known.
        """
        cdef void *memory = viewed_memory(value)
        if memory == NULL or self.private is None:
            return None
        cdef uint32_t block = rl_private_block(&self.private.table, memory, 1)
        if block == RL_NIL:
            return None
        stored = self.sealed_at(memory, block, value)
        if stored is not None:
            freeze(value)
        return stored

    cdef Stored sealed_at(self, void *memory, uint32_t block, object array):
        """The value `array` in the block of `memory`; None: it has no head."""
        cdef size_t nbytes = write_large_head(array, <char *>memory - HEAD_ROOM)
        if nbytes == 0:
            return None
        return stored_in_place(self, KIND_ARRAY, memory, block, nbytes, array)

    def put(self, Encoded encoded not None):
        """Store a value and return a reference to it."""
        return self.put_stored(self.store(encoded))

    def put_stored(self, Stored stored not None):
        """Make a stored value an object of its own; return a reference to it."""
        cdef rl_handle h
        check(rl_object_put(&self.s, &stored.value, &h))
        stored.taken()
        return self.adopt(h)

    # ---- references ----

    cdef ObjectRef adopt(self, rl_handle h):
        """Return a reference that owns a hold which this process has already."""
        cdef ObjectRef ref = ObjectRef.__new__(ObjectRef)
        ref.h = h
        ref.session = self
        return ref

    def find(self, bytes binary not None):
        """Return a reference to the object of an id made by `ObjectRef.binary()`.

        Raises:
            ValueError: It is of another session, or its object is gone.
        """
        cdef uint64_t cookie, gen
        cdef uint32_t number
        cdef rl_handle h
        cdef const char *p = binary
        if len(binary) != <Py_ssize_t>ID_NBYTES:
            raise ValueError(f"an object id has {ID_NBYTES} bytes, not {len(binary)}")
        memcpy(&cookie, p, 8)
        memcpy(&gen, p + 8, 8)
        memcpy(&number, p + TASK_ID_NBYTES, 4)
        if number == PUT_NUMBER:
            number = 0
        if (cookie != self.s.map.control.cookie
                or rl_object_find(&self.s, gen, number, &h) != 0):
            raise ValueError(
                f"ObjectRef({binary.hex()}) refers to no object of this session: its owner is "
                f"unknown, the object was freed or the session that made it has ended")
        return self.adopt(h)

    # ---- reading ----

    def is_ready(self, ObjectRef ref not None):
        """Whether the object is sealed: `read` gives its value.

        Raises:
            ValueError: `ref` is not of this session; as for every call that takes one.
        """
        return rl_object_is_sealed(&self.s, handle_of(self, ref)) != 0

    def is_failure(self, ObjectRef ref not None):
        """Whether the object is sealed and a failure; does not count as having asked for it."""
        return rl_object_is_failure(&self.s, ref.h) != 0

    def read(self, ObjectRef ref not None):
        """Return the value of a sealed object; a failure comes as a codec.ErrorPayload.

        Arrays are read-only views of shared memory and keep it pinned.
        """
        return self.read_at(ref.h)

    def read_exported(self, ref not None):
        """As `read`, of what was exported: arrays in it are this process's own, and writable."""
        return self.read_at((<ObjectRef?>ref).h, False)

    cdef object read_at(self, rl_handle h, bint shared=True):
        cdef rl_payload payload
        check(rl_object_read(&self.s, h, &payload))
        cdef list refs = [] if payload.nrefs == 0 else self.read_refs(h, payload.nrefs)
        if not payload.in_block or not shared:
            return decode_at(payload.kind, <const char *>payload.bytes, payload.nbytes, None, refs)
        cdef Pin pin = pin_payload(self, h, <const char *>payload.bytes, payload.nbytes)
        return decode_at(payload.kind, pin.base, pin.nbytes, pin, refs)

    cdef list hold_all(self, const rl_handle *handles, uint32_t n):
        """Return references to objects that something of this process names."""
        cdef list result = []
        cdef uint32_t i
        for i in range(n):
            rl_object_hold(&self.s, handles[i])
            result.append(self.adopt(handles[i]))
        return result

    cdef list read_refs(self, rl_handle h, uint32_t n):
        cdef rl_handle *handles = <rl_handle *>malloc(n * sizeof(rl_handle))
        cdef uint32_t i
        if handles == NULL:
            raise MemoryError()
        try:
            check(rl_object_read_refs(&self.s, h, handles, n))
            return [self.adopt(handles[i]) for i in range(n)]
        finally:
            free(handles)

    def are_distinct(self, list refs not None):
        """Whether these are references of this session, to as many objects."""
        cdef uint32_t round_ = self.next_round()
        for item in refs:
            if not self.is_first(<PyObject *>item, round_):
                return False
        return True

    def split_ready(self, refs, need):
        """Return (the first `need` of `refs` that are sealed, the rest of them), in their order.

        None: that many are not sealed, or this is not a number and a list of which `are_distinct`
        holds; then nothing was found out.
        """
        if type(refs) is not list or type(need) is not int:
            return None
        if not 0 < need <= PyList_GET_SIZE(refs):
            return None
        return self.split_refs(refs, need)

    cdef tuple split_refs(self, list refs, Py_ssize_t need):
        cdef Py_ssize_t n = PyList_GET_SIZE(refs), seen, i
        cdef list ready = PyList_New(need), rest = PyList_New(n - need)
        if PyList_GET_SIZE(refs) != n:
            return None  # making a list collected garbage, and that can run anything
        cdef uint32_t round_ = self.next_round()
        seen = self.fill_ready(ready, refs, round_)
        if seen == 0:
            return None
        fill_rest(rest, refs, seen, ready)
        for i in range(seen, n):
            if not self.is_first(PyList_GET_ITEM(refs, i), round_):
                return None
            set_item(rest, i - need, PyList_GET_ITEM(refs, i))
        return ready, rest

    cdef Py_ssize_t fill_ready(self, list ready, list refs, uint32_t round_) noexcept:
        """Fill `ready` with the first of `refs` that are sealed.

        Returns how many `is_first` was asked of; 0 if `ready` could not be filled.
        """
        cdef Py_ssize_t n = PyList_GET_SIZE(refs), need = PyList_GET_SIZE(ready), nready = 0, i
        cdef PyObject *item
        for i in range(n + LOOK_AHEAD):
            if i < n:
                item = PyList_GET_ITEM(refs, i)
                if not self.is_first(item, round_):
                    return 0
                if (<ObjectRef>item).h.kind != RL_HANDLE_SEALED:
                    rl_object_prefetch(&self.s, (<ObjectRef>item).h)
            if i < LOOK_AHEAD:
                continue
            item = PyList_GET_ITEM(refs, i - LOOK_AHEAD)
            if self.is_sealed(item):
                set_item(ready, nready, item)
                nready += 1
                if nready == need:
                    return min(i + 1, n)
        return 0

    cdef inline bint is_sealed(self, PyObject *ref) noexcept:
        """Is the object of a reference of this session sealed? The reference knows from then on."""
        if (<ObjectRef>ref).h.kind == RL_HANDLE_SEALED:
            return True
        if not rl_object_is_sealed(&self.s, (<ObjectRef>ref).h):
            return False
        (<ObjectRef>ref).h.kind = RL_HANDLE_SEALED
        return True

    cdef uint32_t next_round(self) except 0:
        """Begin another round of `is_first`."""
        cdef size_t nbytes = self.s.map.control.objects.capacity * sizeof(uint32_t)
        if self.met == NULL or self.round == UINT32_MAX:
            free(self.met)
            self.met = <uint32_t *>calloc(1, nbytes)
            self.round = 0
            if self.met == NULL:
                raise MemoryError()
        self.round += 1
        return self.round

    cdef inline bint is_first(self, PyObject *ref, uint32_t round_) noexcept:
        """Is a reference of this session, and the first to its object in this round?"""
        if (<void *>Py_TYPE(ref) != <void *>ObjectRef
                or <void *>(<ObjectRef>ref).session != <void *>self):
            return False
        cdef uint32_t *met = &self.met[(<ObjectRef>ref).h.index]
        if met[0] == round_:
            return False
        met[0] = round_
        return True

    def read_ready(self, list refs not None):
        """Return the values of a list of references, in their order.

        None: one is not sealed, is a failure, or no reference of this session.
        """
        for item in refs:
            if type(item) is not ObjectRef or (<ObjectRef>item).session is not self:
                return None
            if not rl_object_is_sealed(&self.s, (<ObjectRef>item).h):
                return None
            if rl_object_is_failure(&self.s, (<ObjectRef>item).h):
                return None
        return [self.read_at((<ObjectRef?>item).h) for item in refs]

    def wait(self, list refs not None, uint32_t need, timeout, bint stop_at_error):
        """Wait until `need` of `refs` are sealed, or for streams: have an item or have ended.

        Args:
            refs: References and streams of this session.
            need: How many, <= len(refs).
            timeout: Seconds >= 0, or None.
            stop_at_error: Return as soon as any of them is a failure.

        Returns:
            One byte for each ref: 1 if it is sealed. At the timeout fewer than `need` may be.
        """
        cdef int64_t deadline = deadline_of(timeout)
        cdef int64_t pause = FIRST_PAUSE_NS, soon
        cdef rl_handle *handles = handles_of(self, refs)
        cdef bytes flags = PyBytes_FromStringAndSize(NULL, len(refs))
        cdef int rc
        try:
            while True:
                # A signal that comes just before the sleep does not end it: look again soon, later
                # less often.
                soon = min(deadline, rl_now_ns() + pause)
                pause = min(2 * pause, LAST_PAUSE_NS)
                rc = self.sleep(handles, flags, need, soon, stop_at_error, self.s.interrupts)
                PyErr_CheckSignals()
                if rc == EINTR or (rc == RL_ETIMEDOUT and soon < deadline):
                    continue
                if rc != RL_ETIMEDOUT:
                    check_wait(self, rc)
                return flags
        finally:
            free(handles)

    @property
    def interrupts(self):
        """How often `interrupt` was called; read it before making up a list for `wait_once`."""
        return self.s.interrupts

    def wait_once(self, list refs not None, uint32_t interrupts):
        """Wait until one of `refs` is ready, a second passes, or there is another interrupt."""
        cdef rl_handle *handles = handles_of(self, refs)
        cdef bytes flags = PyBytes_FromStringAndSize(NULL, len(refs))
        cdef int rc
        try:
            rc = self.sleep(handles, flags, 1, INT64_MAX, False, interrupts)
        finally:
            free(handles)
        if rc != EINTR:
            check_wait(self, rc)
        return flags

    cdef int sleep(self, const rl_handle *handles, bytes flags, uint32_t need, int64_t deadline,
                   bint stop_at_error, uint32_t interrupts) except? -1:
        """One wait of the core, for as many as there are `flags`, which it sets."""
        cdef uint32_t n = <uint32_t>PyBytes_GET_SIZE(flags), nready = 0
        cdef uint8_t *ready = <uint8_t *>PyBytes_AS_STRING(flags)
        cdef int rc
        with nogil:
            rc = rl_object_wait_since(&self.s, handles, n, need, stop_at_error, deadline,
                                      interrupts, ready, &nready)
        return rc

    # ---- submitting ----

    def resource_index(self, str name not None):
        """Return the index of the resource called `name`, made if it is new."""
        cdef uint32_t index = 0
        cdef int rc = rl_resource_intern(&self.s, name.encode(), &index)
        if rc == RL_ETABLE:
            raise RuntimeError(
                f"resource {name!r} would be one too many: a session knows {RL_MAX_RESOURCES} "
                f"kinds, CPU among them")
        if rc == RL_EINVAL:
            raise ValueError(f"a resource's name has 1 to 63 bytes, not {len(name.encode())}")
        check(rc)
        return index

    def set_resource_total(self, str name not None, int64_t units):
        """Set how much of a resource this machine has, in units of 1/10000."""
        check(rl_resource_set_total(&self.s, self.resource_index(name), units))

    def resources(self):
        """Return {name: (total, available)} in units of 1/10000."""
        result = {}
        for i in range(RL_MAX_RESOURCES):
            r = &self.s.map.control.resources[i]
            if r.name[0]:
                result[(<bytes>r.name).decode()] = (r.total, r.available)
        return result

    def scheduling_class(self, dict demand not None):
        """Return the class of tasks with `demand`: {resource name: units of 1/10000}."""
        cdef int64_t units[16]
        cdef uint32_t index = 0
        memset(units, 0, sizeof(units))
        for name, amount in demand.items():
            units[<uint32_t>self.resource_index(name)] = amount
        cdef int rc = rl_class_intern(&self.s, units, &index)
        if rc == RL_ETABLE:
            raise RuntimeError(
                f"too many different demands: a session knows {RL_MAX_CLASSES} combinations of "
                f"num_cpus and resources; round them, so that tasks share some")
        check(rc)
        return index

    def submit_actor(self, ObjectRef function not None, Encoded args not None, uint32_t class_,
                     bytes name not None, int32_t max_restarts, uint32_t options,
                     bytes actor_name not None, bytes space not None, bint ordered, bint detached,
                     uint32_t most_calls, uint32_t most_untaken, *, bint claim=False):
        """Submit an actor; return a list of the reference to the object that stands for it.

        With `claim`: and of the Job, which this process has to run now.

        Raises:
            ActorAlreadyExistsError: Its name is taken in that namespace.
        """
        cdef rl_actor_spec makes
        cdef rl_spec spec
        cdef rl_handle stands_for
        cdef Job job = None
        memset(&spec, 0, sizeof(spec))
        makes.name = actor_name
        makes.space = space
        makes.flags = RL_ACTOR_ORDERED * ordered + RL_ACTOR_DETACHED * detached
        makes.most_calls = most_calls
        makes.most_untaken = most_untaken
        spec.makes = &makes
        spec.name = name
        spec.function = function.h
        spec.class_ = class_
        spec.nreturns = 1
        spec.max_retries = max_restarts
        spec.options = options
        if claim:
            job = self.new_job(own=True)
            spec.claimed = &job.job
        self.send(&spec, args, &stands_for, NULL)
        actor = self.adopt(stands_for)
        if not claim:
            return [actor]
        job.load_returns()
        return [actor, job]

    cdef Job new_job(self, bint own):
        cdef Job job = Job.__new__(Job)
        job.session = self
        job.own = own
        return job

    cdef int send(self, rl_spec *spec, Encoded args, rl_handle *returns, rl_handle *outlet) except -1:
        """Submit the task that `spec` describes but for its arguments."""
        cdef char short_args[RL_TASK_INLINE]
        cdef ObjectRef long_args = None
        cdef rl_handle *refs = NULL
        cdef int rc
        spec.nrefs = <uint32_t>len(args.refs)
        spec.ndeps = <uint32_t>args.ndeps
        spec.kind = args.kind
        if args.nbytes <= RL_TASK_INLINE:
            args.write_to(short_args)
            spec.bytes = short_args
            spec.nbytes = <uint32_t>args.nbytes
            spec.args.index = RL_NIL
        else:
            long_args = self.put_bare(args)
            spec.args = long_args.h
            spec.nbytes = 0
        try:
            refs = handles_of(self, args.refs)
            spec.refs = refs
            rc = rl_task_submit(&self.s, spec, returns, outlet)
        finally:
            free(refs)
        if rc != 0:
            self.refuse_task(rc, spec)
        return tell_moved(args.moves)

    cdef int refuse_task(self, int rc, const rl_spec *spec) except -1:
        """Say why a task was not accepted."""
        if rc == EEXIST:
            raise ActorAlreadyExistsError(
                f"The name {spec.makes.name.decode()} (namespace={spec.makes.space.decode()}) is "
                f"already taken; use another, get_actor(), or .options(get_if_exists=True)")
        if rc == EBUSY:
            raise PendingCallsLimitExceeded(
                f"call of {spec.name.decode()}: this process has as many calls of the actor "
                f"pending as its max_pending_calls allows; wait for some of them, or raise "
                f"the limit")
        return check(rc)

    def put_bare(self, Encoded args not None):
        """Store long arguments; their refs are named by the task itself."""
        cdef rl_value value
        cdef rl_handle h
        cdef int rc
        memset(&value, 0, sizeof(value))
        value.kind = args.kind
        value.nbytes = args.nbytes
        value.block = self.fill(args.nbytes)
        try:
            args.write_to(<char *>rl_arena_bytes(&self.s, value.block))
            check(rl_object_put(&self.s, &value, &h))
        except BaseException:
            rl_arena_abandon(&self.s, value.block)
            raise
        return self.adopt(h)

    # ---- a worker's side ----

    cpdef Job take(self):
        """Wait for a task and return it as a Job; None: this worker is to end."""
        cdef Job job = self.new_job(own=False)
        cdef int rc = EINTR
        while rc == EINTR:
            rc = rl_task_take(&self.s, RL_NO_WAIT, &job.job)
            if rc == RL_ETIMEDOUT:
                with nogil:
                    rc = rl_task_take(&self.s, INT64_MAX, &job.job)
            if rc == EINTR:  # a task that was taken must not be lost to an exception
                look_at_signals_between_tasks()
        if rc == RL_EAGAIN:
            return None
        check(rc)
        job.load_returns()
        return job

    cpdef Job take_call(self, Job actor, uint32_t group):
        """Wait for a call of the actor that this process is; None: nobody can call it any more."""
        cdef Job job = self.new_job(own=False)
        cdef int rc = EINTR
        while rc == EINTR:
            # Many threads that let go of the GIL for each call would spend their time handing it on.
            rc = rl_task_take_call(&self.s, actor.job.task, group, RL_NO_WAIT, &job.job)
            if rc == RL_ETIMEDOUT:
                with nogil:
                    rc = rl_task_take_call(&self.s, actor.job.task, group, INT64_MAX, &job.job)
            if rc == EINTR:
                look_at_signals_between_tasks()
        if rc in (RL_EEND, RL_ESTALE):
            return None
        check(rc)
        job.load_returns()
        return job

    def poll_call(self, Job actor not None, uint32_t group, bint spin=False):
        """Return a call of the actor that this process is; None: there is none now.

        Args:
            actor: It.
            group: Of the calls.
            spin: None only if there has been none for some tens of microseconds.
        """
        cdef Job job = self.new_job(own=False)
        cdef int64_t deadline
        cdef int rc = rl_task_take_call(&self.s, actor.job.task, group, RL_NO_WAIT, &job.job)
        if spin and rc == RL_ETIMEDOUT:
            with nogil:
                deadline = rl_now_ns()  # has passed when it has spun
                rc = rl_task_take_call(&self.s, actor.job.task, group, deadline, &job.job)
        if rc != 0:
            return None
        job.load_returns()
        return job

    # ---- actors and cancelling ----

    def find_actor(self, str space not None, str name not None):
        """Return (reference to the object that stands for it, to its exported class), or None."""
        cdef rl_handle actor, function
        cdef bytes space_bytes = space.encode(), name_bytes = name.encode()
        cdef int rc = rl_actor_find(&self.s, space_bytes, name_bytes, &actor, &function)
        if rc == RL_ESTALE:
            return None
        check(rc)
        return self.adopt(actor), self.adopt(function)

    def actor_names(self):
        """Return [(namespace, name)] of the actors that have a name."""
        cdef uint32_t cursor = 0
        cdef char space[128]
        cdef char name[128]
        result = []
        while (rc := rl_actor_next_name(&self.s, &cursor, space, name)) == 0:
            result.append(((<bytes>space).decode(), (<bytes>name).decode()))
        if rc != RL_EAGAIN:
            check(rc)
        return result

    def kill_actor(self, ObjectRef actor not None, bint for_ever):
        """Have an actor's process killed; False: it is dead already."""
        cdef int rc = rl_actor_kill(&self.s, handle_of(self, actor),
                                    RL_KILL_FOR_EVER if for_ever else RL_KILL)
        if rc == RL_ESTALE:
            return False
        check(rc)
        return True

    def cancel(self, waitable, bint force, bint recursive):
        """Cancel the task behind a reference or a stream; nothing happens when it is over.

        Raises:
            ValueError: `force` for an actor's call.
        """
        cdef rl_handle h = handle_of(self, waitable)
        cdef int rc = rl_task_cancel(&self.s, h, force, recursive)
        if rc == RL_EINVAL:
            raise ValueError(
                "force=True is not supported for actor tasks: it would end the actor. Cancel "
                "without force, or ray_lite.kill() the actor")
        check(rc)

    def orders(self):
        """Return [(slot, whether to kill it)] of the processes with a cancelled task or a kill."""
        cdef uint32_t cursor = 0, slot = 0
        cdef int kill = 0
        result = []
        if not self.s.map.control.orders:
            return result
        while (rc := rl_task_next_order(&self.s, &cursor, &slot, &kill)) == 0:
            result.append((slot, bool(kill)))
        if rc != RL_EAGAIN:
            check(rc)
        return result

    def pid_of(self, uint32_t slot):
        """Return the process that has `slot`."""
        return self.s.map.slots[slot].pid

    # ---- the supervisor's side ----

    def load(self):
        """Return what the scheduler has to know of the queues and the workers, as a dict."""
        cdef rl_load load
        check(rl_task_load(&self.s, &load))
        infeasible = None
        if load.infeasible != RL_NIL:
            demand = {}
            for i in range(RL_MAX_RESOURCES):
                if load.infeasible_demand[i]:
                    name = (<bytes>self.s.map.control.resources[i].name).decode()
                    demand[name] = load.infeasible_demand[i]
            infeasible = (<bytes>load.infeasible_task).decode("utf-8", "replace"), demand
        return {
            "ready": load.ready, "runnable": bool(load.runnable), "workers": load.workers,
            "idle": load.idle, "blocked": load.blocked, "actors": load.actors, "stranded": load.stranded,
            "reports": load.reports, "infeasible": infeasible,
        }

    def stranded(self):
        """Return [(job, open returns)]; `job.why_stranded` says what became of it."""
        cdef uint32_t cursor = 0, open_returns = 0
        cdef Job job
        result = []
        while True:
            job = self.new_job(own=False)
            rc = rl_task_next_stranded(&self.s, &cursor, &job.job, &open_returns)
            if rc == RL_EAGAIN:
                return result
            check(rc)
            job.load_returns()
            result.append((job, open_returns))

    def requeue(self, Job job not None):
        """Have a stranded task run again."""
        check(rl_task_requeue(&self.s, job.job.task))

    def release_slot(self, uint32_t slot):
        """Give back all that a dead process held."""
        cdef int rc
        with nogil:
            rc = rl_slot_release(&self.s, slot)
        check(rc)

    def find_slot(self, uint32_t pid):
        """Return the slot of process `pid`, alive or half left; None if it has none."""
        cdef uint32_t slot = rl_slot_find(&self.s, pid)
        return None if slot == RL_NIL else slot

    def slots(self):
        """Return [(slot, pid, role, blocked)] of the live processes."""
        result = []
        for i in range(RL_MAX_SLOTS):
            slot = &self.s.map.slots[i]
            if slot.state == RL_SLOT_LIVE:
                result.append((i, slot.pid, slot.role, bool(slot.blocked)))
        return result

    def take_report(self):
        """Return a failure that nobody read, as a codec.ErrorPayload, or None."""
        cdef rl_handle h
        cdef int rc = rl_object_take_report(&self.s, &h)
        if rc == RL_EAGAIN:
            return None
        check(rc)
        return self.read(self.adopt(h))

    def set_growable(self, bint growable):
        """Say whether the supervisor wants to hear of a task that finds no idle worker."""
        self.s.map.control.growable = growable

    def set_depth_first(self, bint depth_first):
        """Say whether tasks that tasks submitted go before others."""
        self.s.map.control.depth_first = depth_first

    def clear_bell(self):
        """The supervisor is about to look: later events ring again."""
        self.s.map.control.bell = 0

    def idle_slots(self):
        """Return the slots of the workers that have no task."""
        return [i for i in range(RL_MAX_SLOTS)
                if self.s.map.slots[i].state == RL_SLOT_LIVE
                and self.s.map.slots[i].role == RL_ROLE_WORKER
                and self.s.map.slots[i].task == RL_NIL]

    def dismiss(self, uint32_t slot):
        """Ask a worker to end once it is idle."""
        check(rl_worker_dismiss(&self.s, slot))

    # ---- operators and tests ----

    def usage(self):
        """Return the store's and the tables' figures, as a dict."""
        cdef rl_arena_usage usage
        cdef rl_control *control = self.s.map.control
        check(rl_arena_measure(&self.s, &usage))
        return {
            "capacity": usage.capacity, "free": usage.free_bytes, "largest": usage.largest,
            "peak": usage.peak, "objects": control.objects_live, "tasks": control.tasks_live,
            "finished": control.tasks_finished, "repairs": control.lock.repairs,
            "sealed_in_place": control.sealed_in_place, "copied": control.copied,
        }

    def broken_invariant(self):
        """Check every invariant of the core; return the text of a broken one, or None."""
        cdef const char *text = NULL
        check(rl_check(&self.s, &text))
        return None if text == NULL else text.decode()


# ---- references ----

cdef class Hooks:
    """What the layers above lend to this one; set once, at import."""

    cdef public object restore  # id -> ObjectRef of this process's session

hooks = Hooks()


class Id:
    """An id that is not an object's: `binary()` and `hex()`; equal if the bytes are."""

    __slots__ = ("_binary",)

    def __init__(self, binary):
        self._binary = bytes(binary)

    def binary(self):
        """Return the id."""
        return self._binary

    def hex(self):
        """Return the id in hexadecimal digits."""
        return self._binary.hex()

    def __eq__(self, other):
        return isinstance(other, Id) and self._binary == other._binary

    def __hash__(self):
        return hash(self._binary)

    def __repr__(self):
        return f"Id({self.hex()})"


@cython.final
@cython.no_gc
@cython.freelist(512)
cdef class ObjectRef:
    """A reference to an object. The object lives at least as long as the reference.

    `ObjectRef(binary)` is a reference to the object of that id, which must be alive.

    Equality and hash go by the object's id. Release is automatic; a reference of a session that has
    ended, or that was inherited by fork, refers to nothing and is harmless.
    """

    def __cinit__(self, bytes binary=None):
        if binary is None:
            return
        cdef ObjectRef found = hooks.restore(binary)
        if found.session is not None:
            rl_object_hold(&found.session.s, found.h)
        self.session, self.h, self.stray = found.session, found.h, found.stray

    def __dealloc__(self):
        if self.session is not None:
            rl_object_release(&self.session.s, self.h)

    def __hash__(self):
        return hash((self.h.gen, self.h.index, self.stray))

    def __eq__(self, other):
        if type(other) is not ObjectRef:
            return NotImplemented
        cdef ObjectRef ref = <ObjectRef>other
        return (self.h.gen == ref.h.gen and self.h.index == ref.h.index
                and self.session is ref.session and self.stray == ref.stray)

    def __ne__(self, other):
        if type(other) is not ObjectRef:
            return NotImplemented
        return not self == other

    def __repr__(self):
        return f"ObjectRef({self.hex()})"

    def binary(self):
        """Return the id: 24 bytes of the task, then the number of the return value."""
        cdef char buffer[28]
        cdef uint64_t cookie
        cdef uint32_t number
        if self.session is None:
            return self.stray or b"\xff" * ID_NBYTES
        cookie = self.session.s.map.control.cookie
        number = rl_object_number(&self.session.s, self.h) or PUT_NUMBER
        memset(buffer, 0, sizeof(buffer))
        memcpy(buffer, &cookie, 8)
        memcpy(buffer + 8, &self.h.gen, 8)
        memcpy(buffer + TASK_ID_NBYTES, &number, 4)
        return PyBytes_FromStringAndSize(buffer, ID_NBYTES)

    def task_id(self):
        """Return the id of the task that makes the object, 24 bytes."""
        return Id(self.binary()[:TASK_ID_NBYTES])

    def job_id(self):
        """Return the id of the session, 8 bytes."""
        return Id(self.binary()[:8])

    def owner_address(self):
        """Return b"": an object has no owner, it lives while it is referred to."""
        return b""

    def __bytes__(self):
        return self.binary()

    def hex(self):
        """Return the id as 56 hexadecimal digits."""
        return self.binary().hex()

    def is_nil(self):
        """Whether this is the nil reference."""
        return self.session is None and self.stray is None

    @classmethod
    def size(cls):
        """Return the length of an id in bytes."""
        return ID_NBYTES

    @classmethod
    def from_binary(cls, binary):
        """Return a reference to the object with that id; see Session.find."""
        return ObjectRef(binary)

    @classmethod
    def from_hex(cls, text):
        """Return a reference to the object with that id in hexadecimal digits."""
        return ObjectRef(bytes.fromhex(text))

    @classmethod
    def nil(cls):
        """Return the reference that refers to nothing."""
        return ObjectRef.__new__(ObjectRef)

    @classmethod
    def from_random(cls):
        """Return a reference that no value will ever come to; equal to none but itself."""
        cdef ObjectRef ref = ObjectRef.__new__(ObjectRef)
        ref.stray = os.urandom(ID_NBYTES)
        return ref

    def call_site(self):
        """Return "": call sites are not recorded."""
        return ""

    def future(self):
        """Return a concurrent.futures.Future with the value, or the error that get would raise.

        Unlike `get`, waiting for it inside a task does not lend the task's CPU to others.
        """
        if self.session is None or self.session.make_future is None:
            raise ValueError(f"{self!r} belongs to no live session of this process")
        return self.session.make_future(self)

    def as_future(self):
        """Return an asyncio.Future of the running loop."""
        import asyncio
        return asyncio.wrap_future(self.future())

    def __await__(self):
        return self.as_future().__await__()

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    @classmethod
    def __class_getitem__(cls, item):
        import types
        return types.GenericAlias(cls, item)


# ---- streams ----

@cython.final
@cython.no_gc
cdef class Stream:
    """The consumer's end of a generator task's stream: items come out once, in order.

    Letting go of its outlet frees what was not taken; the task runs on.

    Args:
        outlet: The object that stands for this end.
    """

    def __cinit__(self, ObjectRef outlet not None):
        check(rl_stream_of(&outlet.session.s, outlet.h, &self.h))
        self.outlet = outlet

    def __repr__(self):
        return "<a generator's stream>"

    def next(self, Job job=None):
        """Return the next item's reference; None: there is none now; False: there will be none.

        Args:
            job: A task of this process that must not be run again once it has the item.
        """
        cdef rl_handle item
        cdef const rl_handle *task = NULL if job is None else &job.job.task
        cdef int rc = rl_stream_next(&self.outlet.session.s, self.h, task, &item)
        if rc == RL_EAGAIN:
            return None
        if rc == RL_EEND:
            return False
        check(rc)
        return self.outlet.session.adopt(item)

    @property
    def is_ready(self):
        """Whether there is an item, or the stream has ended."""
        return rl_stream_is_ready(&self.outlet.session.s, self.h) != 0

    @property
    def has_item(self):
        """Whether `next` would return an item."""
        return rl_stream_has_item(&self.outlet.session.s, self.h) != 0

    @property
    def session(self):
        """The session it belongs to."""
        return self.outlet.session


# ---- pins ----

@cython.final
@cython.no_gc
cdef class Pin:
    """A read-only buffer over the payload of an object, which stays as long as this lives."""

    def __dealloc__(self):
        if self.session is not None:
            rl_object_release(&self.session.s, self.h)

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("values in the object store are read-only; make a copy to change one")
        PyBuffer_FillInfo(view, self, <void *>self.base, self.nbytes, 1, flags)

    def __len__(self):
        return self.nbytes


cdef Pin pin_payload(Session session, rl_handle h, const char *base, size_t nbytes):
    cdef Pin pin = Pin.__new__(Pin)
    rl_object_hold(&session.s, h)
    pin.session = session
    pin.h = h
    pin.base = base
    pin.nbytes = nbytes
    return pin


@cython.final
cdef class InlinePin:
    """A private copy of short arguments, aligned as a block is."""

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("arguments are read-only; make a copy to change one")
        PyBuffer_FillInfo(view, self, self.base, self.nbytes, 1, flags)


cdef InlinePin pin_inline(const uint8_t *bytes, size_t nbytes):
    cdef InlinePin pin = InlinePin.__new__(InlinePin)
    pin.base = <char *>((<size_t>pin.room + 63) & ~<size_t>63)
    pin.nbytes = nbytes
    memcpy(pin.base, bytes, nbytes)
    return pin


# ---- private memory ----

@cython.final
cdef class PrivateMemory:
    """Memory of the store in which this process computes; see csrc/rl_private.h.

    Lives as long as anything in it, and so does the mapping.
    """

    def __cinit__(self, Session session not None):
        check(rl_private_open(&self.table, &session.s))
        self.opened = True
        self.session = session

    def __dealloc__(self):
        if self.opened:
            rl_private_close(&self.table)

    cdef void *alloc(self, size_t nbytes, bint asked_for) noexcept nogil:
        return rl_private_alloc(&self.table, nbytes, asked_for)

    cdef bint owns(self, const void *memory) noexcept nogil:
        cdef const uint8_t *rw = self.session.s.map.rw
        return rw <= <const uint8_t *>memory < rw + self.session.s.map.data_size

    cdef size_t size(self, const void *memory) noexcept nogil:
        return rl_private_size(&self.table, memory)

    cdef void free(self, void *memory) noexcept nogil:
        rl_private_free(&self.table, memory)

    cdef void expose(self, const void *address) noexcept nogil:
        if self.owns(address):
            rl_private_expose(&self.table, address)

    @property
    def nbytes(self):
        """Bytes that are no values yet."""
        return self.table.nbytes


@cython.final
@cython.freelist(8)
cdef class Owned:
    """A value and nothing else that holds it, but what the value itself is part of."""

    def __cinit__(self, value):
        self.value = value

    def take(self):
        """Return the value, and hold it no more."""
        value, self.value = self.value, None
        return value

    @property
    def value(self):
        """The value."""
        return self.value

    cdef object give_up(self):
        """Let go of a container; return it if names that are never read again are all that holds it.

        Then it will never be read, but is there. Otherwise None: it is gone, or somebody has it. In
        that case the references of what is in it tell: one of them is the container's.
        """
        container, self.value = self.value, None
        cdef Py_ssize_t others = (<PyObject *>container).ob_refcnt - 1
        if others == 0 or others != self.count_dead_names(<PyObject *>container):
            return None
        return container

    cdef int count_dead_names(self, PyObject *part) except -1:
        """How many names that are never read again hold the value, or what was part of it."""
        return 0 if self.steps is None else self.steps.count_dead_names(self.items, part)


cdef Py_ssize_t count_inside(object container, PyObject *array) except -1:
    """How often `array` is in plain containers, each inner one of which is held by its outer alone.

    0: there are none. If another one holds an inner one: TOO_OFTEN or more.
    """
    if container is None:
        return 0
    cdef Py_ssize_t count = 0
    items = (<dict>container).values() if type(container) is dict else container
    for item in items:
        if <PyObject *>item == array:
            count += 1
        elif type(item) is list or type(item) is tuple or type(item) is dict:
            inside = count_inside(item, array)
            if inside and (<PyObject *>item).ob_refcnt > HELD_AND_MET:
                return TOO_OFTEN
            count += inside
    return count


cdef bint is_bound_to(object frame, object code, str name, PyObject *value) except -1:
    """Does a local of a frame, none that is in a cell, stand for this object?

    Asked without f_locals before 3.13: that is a dict of the frame's own, which others may have got
    and would find changed.
    """
    if LOCALS_ARE_A_VIEW:
        found = frame.f_locals.get(name)
        return <PyObject *>found == value
    return local_at(frame, code.co_varnames.index(name)) == value


cdef object suspended_frame(object items):
    """The frame that has yielded what `items` yielded last; None if no generator's frame did.

    Only these types promise that the one value is the other: an object that looks like a generator,
    since it passes on the attributes of one, may yield something else.
    """
    while PyGen_CheckExact(items):
        inner = items.gi_yieldfrom
        if inner is None:
            return items.gi_frame
        items = inner
    return items.ag_frame if PyAsyncGen_CheckExact(items) else None


@cython.final
cdef class Steps:
    """The steps of a task's generator: what it yields, stored where it is if that is possible.

    Compiled because a producer of large arrays has cold caches whenever it comes here: what costs
    time then is how much code and data it meets on the way.

    Args of Session.steps:
        dead_names: As liveness.dead_names; asked when the code object is another than before.
    """

    def next(self, items not None):
        """Take the next value: Stored if it needs no copy, else Owned. StopIteration at the end."""
        cdef Owned value = Owned.__new__(Owned, next(items))
        stored = self.seal(items, value)
        return value if stored is None else stored

    cpdef Stored seal(self, object items, Owned value):
        """Store where it is what `items` has yielded; None: it has to be copied."""
        if self.session.private is None:
            return None
        if sole_memory(value.value) == NULL:
            value.steps, value.items = self, items
            return None
        frame = self.unwatched_frame(items)
        return self.session.store_in_place(value, frame is not None and frame.f_lasti in self.plain)

    cdef object unwatched_frame(self, object items):
        """The frame that has yielded a value; None: somebody else may look into it, or it has none.

        What dies in it is known then.
        """
        if gettrace() is not None or getprofile() is not None:
            return None
        frame = suspended_frame(items)
        if frame is None or (<PyObject *>frame).ob_refcnt > UNSHARED:
            return None
        code = frame.f_code
        if code is not self.code:
            self.code, self.dead = code, self.dead_names(code)
            self.plain = self.dead.plain
        return frame

    cdef int count_dead_names(self, object items, PyObject *part) except -1:
        frame = self.unwatched_frame(items)
        if frame is None:
            return 0
        cdef int count = 0
        for name in self.dead.names.get(frame.f_lasti, ()):
            count += is_bound_to(frame, self.code, name, part)
        return count


@cython.final
@cython.freelist(8)
cdef class Call:
    """One call of a user's function, which alone holds its arguments: they go when it returns.

    Args:
        function: What is called.
        args, kwargs: With what.
    """

    def __cinit__(self, function, tuple args=(), dict kwargs=None):
        self.function = function
        self.args = args
        self.kwargs = kwargs

    cdef object make(self):
        cdef tuple args = self.args
        cdef dict kwargs = self.kwargs
        self.args, self.kwargs = (), None
        return PyObject_Call(self.function, args, NULL if kwargs is None else <PyObject *>kwargs)

    def __call__(self):
        """Make the call; once."""
        return self.make()


# ---- values on their way ----

cdef bint describe_small(object value, rl_value *out, char *room) except -1:
    """Describe a value that is stored in the record itself; False: it is none of the usual ones.

    Args:
        value: The value, which must outlive `out`.
        room: For RL_INLINE bytes.
    """
    cdef Word word
    memset(out, 0, sizeof(rl_value))
    out.block = RL_NIL
    out.bytes = room
    if as_word(value, &word):
        out.kind, out.nbytes = word.kind, word.nbytes
        memcpy(room, &word.bits, sizeof(word.bits))
    elif type(value) is bytes and PyBytes_GET_SIZE(value) <= RL_INLINE:
        out.kind, out.nbytes = KIND_BYTES, <uint64_t>PyBytes_GET_SIZE(value)
        memcpy(room, PyBytes_AS_STRING(value), out.nbytes)
    else:
        return False
    return True


def read_part(ObjectRef ref not None):
    """Return the value of a sealed object that is part of one that its session reads."""
    return ref.session.read_at(ref.h)


cpdef int flush_output() except -1:
    """What a task printed goes out before its value: the session may end once that is there."""
    sys.stdout.flush()
    sys.stderr.flush()
    return 0


@cython.final
@cython.no_gc_clear  # __dealloc__ needs the session
cdef class Stored:
    """A value in shared memory that nobody can see yet; given up when this object dies untaken."""

    def __cinit__(self):
        self.value.block = RL_NIL

    def __dealloc__(self):
        if self.session is not None and self.value.block != RL_NIL and self.memory == NULL:
            rl_arena_abandon(&self.session.s, self.value.block)
        free(self.handles)

    cdef int taken(self) except -1:
        """The block belongs to an object now."""
        self.value.block = RL_NIL
        if self.memory != NULL:
            rl_private_sealed(&self.session.private.table, self.memory, self.kept)
            self.array = None
        return tell_moved(self.moves)

    cdef int keep(self, rl_handle object) except -1:
        """It is about to become this object, which the caller's task names."""
        if self.memory != NULL:
            rl_object_hold(&self.session.s, object)
            self.kept = object
        return 0

    cdef int unkeep(self) except -1:
        """It became no object after all."""
        if self.memory != NULL:
            rl_object_release(&self.session.s, self.kept)
        return 0

    cdef int settle(self, int rc) except -1:
        """It became that object, or, if `rc` says so, it did not."""
        if rc != 0:
            self.unkeep()
            check(rc)
        return self.taken()

    @property
    def nbytes(self):
        """Payload length."""
        return self.value.nbytes

    def fingerprint(self):
        """Compute and keep the fingerprint by which a second attempt is compared.

        That of a value in parts is known already: it is the same as if it had been copied.
        """
        if self.value.fingerprint != 0:
            return self.value.fingerprint
        cdef const void *p = self.value.bytes
        if self.value.block != RL_NIL:
            p = rl_arena_bytes(&self.session.s, self.value.block)
        self.value.fingerprint = rl_fingerprint(self.value.kind, p, self.value.nbytes)
        return self.value.fingerprint


cdef uint64_t fingerprint_of(Encoded encoded) except 0:
    """The fingerprint of a value that is_plain_around_arrays() is true of, before it is written."""
    cdef Py_ssize_t count = encoded.count_spans()
    cdef Py_ssize_t i
    cdef PlacedSpan span
    cdef rl_piece *pieces = <rl_piece *>malloc(count * sizeof(rl_piece))
    if pieces == NULL:
        raise MemoryError()
    try:
        for i in range(count):
            span = encoded.span(i)
            pieces[i] = rl_piece(span.offset, span.nbytes, span.bytes)
        return rl_fingerprint_pieces(encoded.kind, pieces, count, encoded.nbytes)
    finally:
        free(pieces)


cdef Stored stored_in_place(
        Session session, uint32_t kind, void *memory, uint32_t block, size_t nbytes, object owner):
    """The value whose payload surrounds `memory`, which is `owner`'s."""
    cdef Stored stored = Stored.__new__(Stored)
    stored.session = session
    stored.refs = []
    stored.array = owner
    stored.memory = memory
    stored.value.kind = kind
    stored.value.block = block
    stored.value.nbytes = nbytes
    stored.value.counts_as = RL_IN_PLACE
    stored.value.kept = &stored.kept
    return stored


@cython.final
cdef class Submission:
    """All of a call but its arguments, made once for many.

    Args:
        session: Where it is submitted.
        function: What was exported.
        class_: From `scheduling_class`.
        nreturns: How many return objects it has.
        name: Shown in logs and errors.
        max_retries: How often it may be run again; < 0: without end.
        options: Bits that the core does not look at.
        stream_limit: -1: it fills no stream; 0: that runs ahead; else it may pause when so many
            items are untaken.
        group: Of the actor's threads, that are to run a call.
    """

    def __cinit__(self, Session session not None, ObjectRef function not None, uint32_t class_,
                  uint32_t nreturns, bytes name not None, int32_t max_retries, uint32_t options,
                  int64_t stream_limit, uint32_t group=0):
        self.session, self.function, self.name = session, function, name
        memset(&self.spec, 0, sizeof(self.spec))
        self.spec.name = name
        self.spec.function = function.h
        self.spec.class_ = class_
        self.spec.nreturns = nreturns
        self.spec.max_retries = max_retries
        self.spec.options = options
        self.spec.streams = stream_limit >= 0
        self.spec.stream_limit = <uint32_t>max(stream_limit, 0)
        self.spec.group = group

    @property
    def is_over(self):
        """Whether its session is over for this process."""
        return self.session.is_over

    @property
    def pauses(self):
        """Whether it fills a stream that may pause."""
        return self.spec.stream_limit != 0

    def submit(self, Encoded args not None, ObjectRef actor=None, Job parent=None):
        """Submit a task, or with `actor` a call of that one.

        `parent` is the job of this process that submits it, where it runs several at once.

        Returns:
            The reference to its return object; or a list of them, if it has none, several, or a
            stream, which is the last item then.

        Raises:
            PendingCallsLimitExceeded: The actor has as many calls as it may.
        """
        return self.submit_as(args, actor, parent, None)

    def claim(self, Encoded args not None, ObjectRef actor=None, Job parent=None):
        """As `submit`, for this process to run; return (what that does, the Job to run now).

        None instead of the Job: others will run it.
        """
        cdef Job job = self.session.new_job(own=True)
        refs = self.submit_as(args, actor, parent, job)
        if job.job.task.index == RL_NIL:
            return refs, None
        job.load_returns()
        return refs, job

    cdef object submit_as(self, Encoded args, ObjectRef actor, Job parent, Job job):
        cdef rl_spec spec = self.spec
        cdef rl_handle one, outlet, callee
        cdef rl_handle *returns = &one
        cdef uint32_t i
        if parent is not None:
            spec.parent = &parent.job.task
        if actor is not None:
            callee = handle_of(self.session, actor)
            spec.actor = &callee
        if job is not None:
            spec.claimed = &job.job
        if spec.nreturns == 1 and not spec.streams:
            self.session.send(&spec, args, returns, NULL)
            return self.session.adopt(one)
        if spec.nreturns > 1:
            returns = <rl_handle *>malloc(spec.nreturns * sizeof(rl_handle))
            if returns == NULL:
                raise MemoryError()
        try:
            self.session.send(&spec, args, returns, &outlet)
            refs = [self.session.adopt(returns[i]) for i in range(spec.nreturns)]
        finally:
            if returns != &one:
                free(returns)
        if spec.streams:
            refs.append(Stream(self.session.adopt(outlet)))
        return refs


@cython.final
@cython.no_gc_clear  # __dealloc__ needs the session
cdef class Job:
    """A task that this process has taken (or, in the supervisor, one that has stranded)."""

    def __dealloc__(self):
        if self.returns_ != &self.only:
            free(self.returns_)

    cdef int load_returns(self) except -1:
        cdef uint32_t n = self.job.nreturns
        if n == 0:
            return 0
        if n == 1:
            self.returns_ = &self.only
            return check(rl_task_returns(&self.session.s, self.job.task, self.returns_, 1))
        self.returns_ = <rl_handle *>malloc(n * sizeof(rl_handle))
        if self.returns_ == NULL:
            raise MemoryError()
        return check(rl_task_returns(&self.session.s, self.job.task, self.returns_, n))

    @property
    def name(self):
        """The task's name, cut to 47 bytes."""
        return (<bytes>self.job.name).decode("utf-8", "replace")

    @property
    def attempt(self):
        """0 for the first."""
        return self.job.attempt

    @property
    def nreturns(self):
        """How many return objects it has."""
        return self.job.nreturns

    @property
    def options(self):
        """The bits that were given to submit."""
        return self.job.options

    @property
    def max_retries(self):
        """How often it may be run again; < 0: without end."""
        return self.job.max_retries

    @property
    def function_key(self):
        """Tells functions apart: equal for tasks of the same exported function."""
        return self.job.function.gen

    def function(self):
        """Return the exported function's value."""
        return self.session.read_at(self.job.function, False)

    def function_ref(self):
        """Return a reference to the exported function."""
        rl_object_hold(&self.session.s, self.job.function)
        return self.session.adopt(self.job.function)

    def demand(self):
        """Return what the task holds while it runs: {resource name: units of 1/10000}."""
        cdef rl_class *class_ = &self.session.s.map.classes[self.job.class_]
        result = {}
        for i in range(RL_MAX_RESOURCES):
            if class_.demand[i]:
                name = (<bytes>self.session.s.map.control.resources[i].name).decode()
                result[name] = class_.demand[i]
        return result

    cpdef object bind(self, object function):
        """Return the Call of `function` with the task's arguments.

        Or the failure (a codec.ErrorPayload) of the first argument that is one.
        """
        cdef uint32_t n = self.job.nrefs
        if n == 0 and self.job.nbytes == 0 and self.job.args.index == RL_NIL:
            return Call.__new__(Call, function)
        cdef rl_handle few[FEW_REFS]
        cdef rl_handle *refs = few
        if n > FEW_REFS:
            refs = <rl_handle *>malloc(n * sizeof(rl_handle))
            if refs == NULL:
                raise MemoryError()
        try:
            check(rl_task_refs(&self.session.s, self.job.task, refs, n))
            return self.bound(refs, function)
        finally:
            if refs != few:
                free(refs)

    cdef object bound(self, const rl_handle *refs, object function):
        cdef list resolved = [], nested = None
        cdef rl_payload payload
        cdef Pin pin
        cdef InlinePin inline
        cdef uint32_t i
        for i in range(self.job.ndeps):
            value = self.session.read_at(refs[i])
            if type(value) is ErrorPayload:
                return value
            resolved.append(value)
        if self.job.args.index == RL_NIL:
            inline = pin_inline(self.job.bytes, self.job.nbytes)
            if has_pickled(inline.base, inline.nbytes):
                nested = self.session.hold_all(refs, self.job.nrefs)
            args, kwargs = decode_call_at(
                self.job.kind, inline.base, inline.nbytes, inline, nested, resolved)
            return Call.__new__(Call, function, args, kwargs)
        nested = self.session.hold_all(refs, self.job.nrefs)
        check(rl_object_read(&self.session.s, self.job.args, &payload))
        pin = pin_payload(self.session, self.job.args, <const char *>payload.bytes, payload.nbytes)
        args, kwargs = decode_call_at(payload.kind, pin.base, pin.nbytes, pin, nested, resolved)
        return Call.__new__(Call, function, args, kwargs)

    def run(self, call not None, bint as_value):
        """Make a call that the task is; return its result, an Owned.

        With `as_value`, a result that is a small value becomes the task's only one at once, and
        None is returned: the task is over.
        """
        cdef Owned result = Owned.__new__(Owned, (<Call>call).make() if type(call) is Call else call())
        return None if as_value and self.finish_small(result.value) else result

    cdef bint finish_small(self, object value) except -1:
        """Make a small value the task's only one, and end the task; False: nothing has happened."""
        cdef rl_value small
        cdef char room[RL_INLINE]
        if self.job.nreturns != 1 or self.job.stream.index != RL_NIL:
            return False
        if self.job.actor.index != RL_NIL and self.is_cancelled:
            return False
        if not describe_small(value, &small, room):
            return False
        flush_output()
        check(rl_task_finish(&self.session.s, self.job.task, self.only, &small))
        return True

    def returned(self, uint32_t i):
        """Return the fingerprint of return value i if an earlier attempt stored it, else None."""
        cdef uint64_t fingerprint = 0
        if i >= self.job.nreturns:
            raise IndexError(i)
        if rl_task_returned(&self.session.s, self.returns_[i], &fingerprint):
            return fingerprint
        return None

    def give(self, uint32_t i, Stored value not None):
        """Make return value i visible."""
        if i >= self.job.nreturns:
            raise IndexError(i)
        value.keep(self.returns_[i])
        value.settle(
            rl_task_return(&self.session.s, self.job.task, self.returns_[i], &value.value))

    def finish(self):
        """End the task; all its return values have been given."""
        cdef rl_handle none
        memset(&none, 0, sizeof(none))
        check(rl_task_finish(&self.session.s, self.job.task, none, NULL))

    def finish_with(self, uint32_t i, Stored value not None):
        """Give return value i, the last that was open, and end the task."""
        if i >= self.job.nreturns:
            raise IndexError(i)
        value.keep(self.returns_[i])
        value.settle(
            rl_task_finish(&self.session.s, self.job.task, self.returns_[i], &value.value))

    def open_returns(self):
        """Return the indices of the return values that nobody has given yet."""
        return [i for i in range(self.job.nreturns) if self.returned(i) is None]

    def conclude(self, list values not None):
        """Give each open return value one of `values` (Stored), in order, and end the task."""
        cdef uint32_t n = <uint32_t>len(values), i
        cdef rl_value *array = <rl_value *>calloc(n + 1, sizeof(rl_value))
        if array == NULL:
            raise MemoryError()
        try:
            self.keep_all(values)
            for i in range(n):
                array[i] = (<Stored?>values[i]).value
            rc = rl_task_conclude(&self.session.s, self.job.task, array, n)
        finally:
            free(array)
        if rc != 0:
            for value in values:
                (<Stored>value).unkeep()
            check(rc)
        for value in values:
            (<Stored>value).taken()

    cdef int keep_all(self, list values) except -1:
        """As Stored.keep, for one value to each open return value."""
        if any((<Stored?>value).memory != NULL for value in values):
            for i, value in zip(self.open_returns(), values):
                (<Stored>value).keep(self.returns_[i])
        return 0

    @property
    def is_actor(self):
        """Whether the task is an actor."""
        return bool(self.job.is_actor)

    @property
    def is_call(self):
        """Whether it is a call of an actor."""
        return self.job.actor.index != RL_NIL

    def actor(self):
        """Return a reference to the object of the actor that a call is for; None: it calls none."""
        if self.job.actor.index == RL_NIL:
            return None
        rl_object_hold(&self.session.s, self.job.actor)
        return self.session.adopt(self.job.actor)

    def return_ref(self, uint32_t i):
        """Return a reference to return object i."""
        if i >= self.job.nreturns:
            raise IndexError(i)
        rl_object_hold(&self.session.s, self.returns_[i])
        return self.session.adopt(self.returns_[i])

    @property
    def why_stranded(self):
        """RAISED, WITHDRAWN, ORPHANED, or 0: its worker died."""
        return self.job.stranded

    @property
    def was_cancelled(self):
        """Whether it was cancelled when this was made."""
        return bool(self.job.cancel)

    @property
    def kill(self):
        """How the actor was to be killed: 0, 1 or KILL_FOR_EVER."""
        return self.job.kill

    @property
    def is_cancelled(self):
        """Whether somebody has cancelled the task, which this process runs, by now."""
        return rl_task_is_cancelled(&self.session.s, self.job.task) != 0

    def run_once(self):
        """The task must not be run again: it has taken, or passed on, what will not be there."""
        rl_task_run_once(&self.session.s, self.job.task)

    @property
    def is_run_once(self):
        """Whether that was said."""
        return rl_task_is_run_once(&self.session.s, self.job.task) != 0

    @property
    def task_id(self):
        """Return the first 24 bytes of the ids of its return objects."""
        cdef uint64_t seq
        cdef uint64_t cookie = self.session.s.map.control.cookie
        cdef char buffer[24]
        seq = self.returns_[0].gen if self.job.nreturns else self.job.task.gen
        memset(buffer, 0, sizeof(buffer))
        memcpy(buffer, &cookie, 8)
        memcpy(buffer + 8, &seq, 8)
        return PyBytes_FromStringAndSize(buffer, TASK_ID_NBYTES)

    @property
    def fills_stream(self):
        """Whether its values go into a stream."""
        return self.job.stream.index != RL_NIL

    def append(self, Stored value not None):
        """Append a value to the task's stream; False: nobody wants it, nothing was stored."""
        cdef int rc = rl_stream_append(&self.session.s, self.job.task, &value.value)
        if rc == RL_EAGAIN:
            return False
        check(rc)
        value.taken()
        return True

    @property
    def has_stream_room(self):
        """Whether `wait_for_stream_room` would not wait."""
        return rl_stream_has_room(&self.session.s, self.job.stream) != 0

    def wait_for_stream_room(self):
        """Wait while more items are untaken than the producer may be ahead, or until cancelled."""
        cdef int rc = EINTR
        while rc == EINTR and not self.is_cancelled:
            with nogil:
                rc = rl_stream_wait_room(&self.session.s, self.job.stream, INT64_MAX)
            PyErr_CheckSignals()
        check(0 if rc in (EINTR, RL_ESTALE) else rc)  # cancelled, or over

    def stream_log(self):
        """Return the fingerprints of the items that earlier attempts appended."""
        cdef uint32_t n = rl_stream_produced(&self.session.s, self.job.stream), i
        cdef uint64_t *log
        if n == 0:
            return []
        log = <uint64_t *>malloc(n * sizeof(uint64_t))
        if log == NULL:
            raise MemoryError()
        try:
            check(rl_stream_log(&self.session.s, self.job.stream, log, n))
            return [log[i] for i in range(n)]
        finally:
            free(log)

    def strand(self):
        """Have the task run again: hand it to the supervisor, or count one more attempt of one's own."""
        if not self.own:
            check(rl_task_strand(&self.session.s, self.job.task))
            return
        check(rl_task_repeat(&self.session.s, self.job.task))
        self.job.attempt += 1
