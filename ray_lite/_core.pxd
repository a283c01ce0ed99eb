# _core.pxd - the C core as Cython sees it, and the classes of the binding. Declarations only.
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from ray_lite._codec cimport Encoded

cdef extern from "rl_layout.h" nogil:
    enum:
        RL_INLINE
        RL_TASK_INLINE
        RL_TASK_NAME
        RL_MAX_RESOURCES
        RL_MAX_CLASSES
        RL_MAX_SLOTS
        RL_ACTOR_NAME
        RL_ACTOR_ORDERED
        RL_ACTOR_DETACHED
        RL_TASK_RAISED
        RL_TASK_WITHDRAWN
        RL_TASK_ORPHANED
        RL_KILL
        RL_KILL_FOR_EVER
        RL_ROLE_DRIVER
        RL_ROLE_SUPERVISOR
        RL_ROLE_WORKER
        RL_ROLE_HELPER
        RL_SLOT_LIVE
        RL_HANDLE_OBJECT
        RL_HANDLE_STREAM
        RL_HANDLE_SEALED
    uint32_t RL_NIL
    uint32_t RL_LAYOUT_VERSION
    ctypedef struct rl_handle:
        uint64_t gen
        uint32_t index
        uint32_t kind
    ctypedef struct rl_resource:
        char name[64]
        int64_t total
        int64_t available
    ctypedef struct rl_lock:
        uint32_t repairs
    ctypedef struct rl_table:
        uint32_t capacity
    ctypedef struct rl_control:
        rl_table objects
        uint64_t cookie
        uint64_t data_size
        uint32_t growable
        uint32_t depth_first
        uint32_t orders
        uint32_t bell
        uint32_t ended
        uint32_t freed
        uint64_t freed_bytes
        uint64_t objects_live
        uint64_t tasks_live
        uint64_t tasks_finished
        uint64_t sealed_in_place
        uint64_t copied
        rl_resource resources[16]
        rl_lock lock
    ctypedef struct rl_class:
        int64_t demand[16]
    ctypedef struct rl_slot:
        uint32_t state
        uint32_t pid
        uint32_t role
        uint32_t blocked
        uint32_t task

cdef extern from "rl_segment.h" nogil:
    ctypedef struct rl_mapping:
        int control_fd
        int data_fd
        rl_control *control
        rl_class *classes
        rl_slot *slots
        uint64_t control_size
        uint8_t *rw
        uint64_t data_size
    ctypedef struct rl_capacities:
        pass
    int rl_segment_create(uint64_t data_size, const rl_capacities *capacities, rl_mapping *out)
    int rl_segment_attach(int control_fd, int data_fd, rl_mapping *out)
    void rl_segment_close(rl_mapping *m)

cdef extern from "rl_session.h" nogil:
    ctypedef struct rl_session:
        rl_mapping map
        uint32_t slot
        uint32_t pid
        uint32_t interrupts
    int rl_session_join(rl_session *s, const rl_mapping *m, uint32_t role, int bell_fd, int peer_fd)
    int rl_session_leave(rl_session *s)
    void rl_session_detach(rl_session *s)
    int rl_is_detached(const rl_session *s)
    void rl_session_dispose(rl_session *s)
    void rl_session_interrupt(rl_session *s)
    void rl_session_end(rl_session *s)

cdef extern from "rl_fault.h" nogil:
    void rl_fault_arm(const char *name, unsigned n, int signal)
    void rl_fault_arm_from_environment()
    void rl_fault_switch_repair(int on)

cdef extern from "rl_fingerprint.h" nogil:
    ctypedef struct rl_piece:
        size_t offset
        size_t nbytes
        const void *bytes
    uint64_t rl_fingerprint(uint32_t kind, const void *bytes, size_t nbytes)
    uint64_t rl_fingerprint_pieces(uint32_t kind, const rl_piece *pieces, size_t n, size_t nbytes)

cdef extern from "rl_wait.h" nogil:
    int64_t RL_NO_WAIT
    int64_t rl_now_ns()
    int rl_room_wait(rl_session *s, uint32_t seen, int64_t deadline_ns)

cdef extern from "rl_slot.h" nogil:
    int rl_slot_release(rl_session *s, uint32_t index)
    uint32_t rl_slot_find(const rl_session *s, uint32_t pid)

cdef extern from "rl_arena.h" nogil:
    ctypedef struct rl_arena_usage:
        uint64_t capacity
        uint64_t free_bytes
        uint64_t largest
        uint64_t peak
    int rl_arena_fill(rl_session *s, uint64_t nbytes, uint32_t *block)
    int rl_arena_abandon(rl_session *s, uint32_t block)
    uint8_t *rl_arena_bytes(const rl_session *s, uint32_t block)
    uint64_t rl_arena_block_size(uint64_t nbytes)
    int rl_arena_measure(rl_session *s, rl_arena_usage *out)

cdef extern from "rl_object.h" nogil:
    enum:
        RL_COPIED
        RL_IN_PLACE
        RL_PART
    ctypedef struct rl_value:
        uint32_t kind
        uint32_t block
        uint64_t nbytes
        const void *bytes
        const rl_handle *refs
        uint32_t nrefs
        uint64_t fingerprint
        uint32_t counts_as
        rl_handle *kept
    ctypedef struct rl_payload:
        uint32_t kind
        uint32_t nrefs
        uint64_t nbytes
        uint64_t fingerprint
        const uint8_t *bytes
        uint32_t in_block
    int rl_object_put(rl_session *s, const rl_value *value, rl_handle *out)
    void rl_object_hold(rl_session *s, rl_handle h)
    int rl_object_find(rl_session *s, uint64_t gen, uint32_t number, rl_handle *out)
    uint32_t rl_object_number(const rl_session *s, rl_handle h)
    void rl_object_release(rl_session *s, rl_handle h)
    int rl_object_read(rl_session *s, rl_handle h, rl_payload *out)
    int rl_object_read_refs(rl_session *s, rl_handle h, rl_handle *out, uint32_t n)
    int rl_object_is_failure(const rl_session *s, rl_handle h)
    void rl_object_prefetch(const rl_session *s, rl_handle h)
    int rl_object_is_sealed(const rl_session *s, rl_handle h)
    int rl_object_wait_since(rl_session *s, const rl_handle *h, uint32_t n, uint32_t need,
                             int stop_at_error, int64_t deadline_ns, uint32_t interrupts,
                             uint8_t *ready, uint32_t *nready)
    int rl_object_take_report(rl_session *s, rl_handle *out)

cdef extern from "rl_private.h" nogil:
    ctypedef struct rl_private_table:
        uint32_t count
        uint64_t nbytes
    int rl_private_open(rl_private_table *t, rl_session *s)
    void rl_private_close(rl_private_table *t)
    void *rl_private_alloc(rl_private_table *t, uint64_t nbytes, int asked_for)
    int rl_private_free(rl_private_table *t, void *memory)
    uint64_t rl_private_size(rl_private_table *t, const void *memory)
    void rl_private_expose(rl_private_table *t, const void *address)
    uint32_t rl_private_block(rl_private_table *t, const void *memory, int asked_for)
    void rl_private_sealed(rl_private_table *t, const void *memory, rl_handle object)

cdef extern from "rl_actor.h" nogil:
    ctypedef struct rl_actor_spec:
        const char *name
        const char *space
        uint32_t flags
        uint32_t most_calls
        uint32_t most_untaken
    int rl_actor_find(rl_session *s, const char *space, const char *name, rl_handle *actor,
                      rl_handle *function)
    int rl_actor_next_name(rl_session *s, uint32_t *cursor, char *space, char *name)
    int rl_actor_kill(rl_session *s, rl_handle actor, uint32_t kill)

cdef extern from "rl_task.h" nogil:
    ctypedef struct rl_job:
        rl_handle task
        rl_handle function
        rl_handle args
        rl_handle stream
        rl_handle actor
        uint32_t stranded
        uint32_t cancel
        uint32_t class_
        uint32_t is_actor
        uint32_t kill
        uint32_t attempt
        uint32_t nreturns
        uint32_t nrefs
        uint32_t ndeps
        uint32_t kind
        uint32_t nbytes
        uint32_t options
        int32_t max_retries
        char name[48]
        uint8_t bytes[148]
    ctypedef struct rl_spec:
        const char *name
        rl_handle function
        uint32_t class_
        uint32_t nreturns
        const rl_handle *refs
        uint32_t nrefs
        uint32_t ndeps
        uint32_t kind
        uint32_t nbytes
        const void *bytes
        rl_handle args
        int32_t max_retries
        uint32_t options
        uint32_t streams
        uint32_t stream_limit
        const rl_actor_spec *makes
        const rl_handle *actor
        uint32_t group
        const rl_handle *parent
        rl_job *claimed
    ctypedef struct rl_load:
        uint32_t ready
        uint32_t runnable
        uint32_t workers
        uint32_t idle
        uint32_t blocked
        uint32_t actors
        uint32_t stranded
        uint32_t reports
        uint32_t infeasible
        int64_t infeasible_demand[16]
        char infeasible_task[48]
    int rl_class_intern(rl_session *s, const int64_t *demand, uint32_t *out)
    int rl_resource_intern(rl_session *s, const char *name, uint32_t *out)
    int rl_resource_set_total(rl_session *s, uint32_t resource, int64_t total)
    int rl_task_submit(rl_session *s, const rl_spec *spec, rl_handle *returns, rl_handle *outlet)
    int rl_task_take(rl_session *s, int64_t deadline_ns, rl_job *out)
    int rl_task_take_call(rl_session *s, rl_handle actor, uint32_t group, int64_t deadline_ns,
                          rl_job *out)
    int rl_task_cancel(rl_session *s, rl_handle h, int force, int recursive)
    int rl_task_is_cancelled(const rl_session *s, rl_handle task)
    void rl_task_run_once(rl_session *s, rl_handle task)
    int rl_task_is_run_once(const rl_session *s, rl_handle task)
    int rl_task_next_order(rl_session *s, uint32_t *cursor, uint32_t *slot, int *kill)
    int rl_task_returns(rl_session *s, rl_handle task, rl_handle *out, uint32_t n)
    int rl_task_refs(rl_session *s, rl_handle task, rl_handle *out, uint32_t n)
    int rl_task_return(rl_session *s, rl_handle task, rl_handle object, const rl_value *value)
    int rl_task_returned(rl_session *s, rl_handle object, uint64_t *fingerprint)
    int rl_task_finish(rl_session *s, rl_handle task, rl_handle object, const rl_value *value)
    int rl_task_strand(rl_session *s, rl_handle task)
    int rl_task_repeat(rl_session *s, rl_handle task)
    int rl_task_next_stranded(rl_session *s, uint32_t *cursor, rl_job *out, uint32_t *open)
    int rl_task_requeue(rl_session *s, rl_handle task)
    int rl_task_conclude(rl_session *s, rl_handle task, const rl_value *values, uint32_t nvalues)
    int rl_task_load(rl_session *s, rl_load *out)
    int rl_worker_dismiss(rl_session *s, uint32_t slot)

cdef extern from "rl_stream.h" nogil:
    int rl_stream_append(rl_session *s, rl_handle task, const rl_value *value)
    int rl_stream_of(const rl_session *s, rl_handle outlet, rl_handle *stream)
    int rl_stream_next(rl_session *s, rl_handle stream, const rl_handle *task, rl_handle *item)
    int rl_stream_wait_room(rl_session *s, rl_handle stream, int64_t deadline_ns)
    int rl_stream_has_room(const rl_session *s, rl_handle stream)
    int rl_stream_has_item(const rl_session *s, rl_handle stream)
    int rl_stream_is_ready(const rl_session *s, rl_handle stream)
    uint32_t rl_stream_produced(const rl_session *s, rl_handle stream)
    int rl_stream_log(rl_session *s, rl_handle stream, uint64_t *fingerprints, uint32_t n)

cdef extern from "rl_check.h" nogil:
    int rl_check(rl_session *s, const char **broken)


cdef class Segments:
    cdef rl_mapping map      # both segments, mapped until this object dies
    cdef bint mapped


cdef class Job
cdef class ObjectRef


cdef class Session:
    cdef rl_session s
    cdef bint joined
    cdef Segments segments             # keeps the mapping
    cdef uint32_t *met                 # [objects.capacity]: round in which a list last had it
    cdef uint32_t round
    cdef PrivateMemory private         # where this process's own arrays are, or None
    cdef int64_t patience_ns           # how long a full store may stay without a byte freed
    cdef public object make_future     # ObjectRef -> concurrent.futures.Future, set by session.py

    cdef uint32_t fill(self, size_t nbytes) except *
    cdef Stored store_in_place(self, Owned owned, uint32_t others)
    cdef Stored store_in_parts(self, Owned owned, Encoded encoded)
    cdef Stored owned_part(self, PyObject *array, Owned owned, object container)
    cdef Stored store_frozen(self, object value)
    cdef Stored sealed_at(self, void *memory, uint32_t block, object array)
    cdef ObjectRef adopt(self, rl_handle h)
    cdef Job new_job(self, bint own)
    cdef int send(self, rl_spec *spec, Encoded args, rl_handle *returns, rl_handle *outlet) except -1
    cdef int refuse_task(self, int rc, const rl_spec *spec) except -1
    cpdef Job take(self)
    cpdef Job take_call(self, Job actor, uint32_t group)
    cdef tuple split_refs(self, list refs, Py_ssize_t need)
    cdef Py_ssize_t fill_ready(self, list ready, list refs, uint32_t round_) noexcept
    cdef uint32_t next_round(self) except 0
    cdef bint is_sealed(self, PyObject *ref) noexcept
    cdef bint is_first(self, PyObject *ref, uint32_t round_) noexcept
    cdef int sleep(self, const rl_handle *handles, bytes flags, uint32_t need, int64_t deadline,
                   bint stop_at_error, uint32_t interrupts) except? -1
    cdef list hold_all(self, const rl_handle *handles, uint32_t n)
    cdef list read_refs(self, rl_handle h, uint32_t n)
    cdef object read_at(self, rl_handle h, bint shared=*)


cdef class ObjectRef:
    cdef rl_handle h           # held once by this process for as long as this object lives
    cdef Session session       # None: it refers to nothing
    cdef bytes stray           # id of a reference to nothing; None: that of all ones


cdef class Stream:
    cdef rl_handle h
    cdef readonly ObjectRef outlet     # keeps the stream


cdef class PrivateMemory:
    cdef rl_private_table table
    cdef bint opened
    cdef Session session       # keeps the mapping
    cdef object __weakref__

    cdef void *alloc(self, size_t nbytes, bint asked_for) noexcept nogil
    cdef bint owns(self, const void *memory) noexcept nogil
    cdef size_t size(self, const void *memory) noexcept nogil
    cdef void expose(self, const void *address) noexcept nogil
    cdef void free(self, void *memory) noexcept nogil


cdef class Owned:
    cdef object value
    cdef Steps steps           # that have yielded it, or None
    cdef object items          # the generator

    cdef object give_up(self)
    cdef int count_dead_names(self, PyObject *part) except -1


cdef class Steps:
    cdef Session session
    cdef object dead_names
    cdef object code           # what was asked for last
    cdef object dead           # the answer
    cdef object plain          # of it

    cpdef Stored seal(self, object items, Owned value)
    cdef object unwatched_frame(self, object items)
    cdef int count_dead_names(self, object items, PyObject *part) except -1


cdef class Call:
    cdef object function
    cdef tuple args
    cdef dict kwargs

    cdef object make(self)


cdef class Pin:
    cdef Session session
    cdef rl_handle h           # held once: the payload stays where it is
    cdef const char *base
    cdef size_t nbytes


cdef class InlinePin:
    cdef char room[192]
    cdef char *base            # first 64-byte boundary in `room`
    cdef size_t nbytes


cdef class Stored:
    cdef Session session
    cdef rl_value value        # its block belongs to this process until the value is taken
    cdef char bytes[32]        # the payload, if short
    cdef list refs             # keeps the contained objects held
    cdef list moves            # what moves with the value, or None
    cdef object array          # the array that the value is, until it is taken
    cdef void *memory          # of that array, if it is sealed in place; or NULL
    cdef rl_handle kept        # the object for which `memory` is a holder then
    cdef rl_handle *handles    # of refs

    cdef int taken(self) except -1
    cdef int keep(self, rl_handle object) except -1
    cdef int unkeep(self) except -1
    cdef int settle(self, int rc) except -1


cdef class Submission:
    cdef Session session
    cdef ObjectRef function    # keeps it
    cdef bytes name            # keeps that of spec
    cdef rl_spec spec          # what differs from call to call is filled into a copy

    cdef object submit_as(self, Encoded args, ObjectRef actor, Job parent, Job job)


cdef class Job:
    cdef Session session
    cdef rl_job job
    cdef rl_handle *returns_   # [nreturns]; `only`, if it has one
    cdef rl_handle only
    cdef bint own              # this process has submitted it, and runs it itself

    cdef int load_returns(self) except -1
    cdef int keep_all(self, list values) except -1
    cpdef object bind(self, object function)
    cdef bint finish_small(self, object value) except -1
    cdef object bound(self, const rl_handle *refs, object function)


# Run signal handlers; an interrupt that meets no task has nothing to interrupt.
cdef int look_at_signals_between_tasks() except -1
