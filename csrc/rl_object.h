/* rl_object.h - objects: immutable values, who can reach them, and when they go.
 *
 * INVARIANTS
 *   O1  An object is PENDING or SEALED or DROPPED while it has a holder bit or a name, and FREE (or
 *       about to be) otherwise.
 *   O2  `names` == how often it stands in the lists (refs, returns, function, args, actor) of live
 *       owners: SEALED objects and tasks that are neither FREE nor FREEING (derived).
 *   O3  While SEALED, all of the record but state, holders, names, waiting and flags is constant:
 *       read without the lock by whoever holds it.
 *   O4  SEALED with block b  =>  b's tag is SEALED | this object.
 *   O5  `producer` is the live task that has the object in its returns, or RL_NIL (derived). Each
 *       PENDING object has one.
 *   O6  Bit i of `holders` is set only by slot i's process, or inside a section on its behalf.
 *
 * HOLDING    A process may set its bit without the lock when something it holds already names the
 *            object (rl_object_hold): the name keeps it from being freed meanwhile. For a handle
 *            out of nowhere (rl_object_find) the lock is taken and the generation compared.
 * FREEING    Whoever clears the last bit or removes the last name looks at the other afterwards, so
 *            one of the two sees both gone, and frees inside a section. A chain of values is freed
 *            by a work-list, not by recursion.
 * A FAILURE (kind RL_KIND_ERROR) that nobody has read is not freed but handed to the supervisor,
 *            which prints it.
 * AN OUTLET (kind RL_KIND_OUTLET) is held and named like any value. When it goes, its stream is let
 *            go of, in the same work-list.
 *
 * CRASHES    put: fields, holder bit, then COMMIT state = SEALED.
 *            seal: fields, then COMMIT state = SEALED; then waiting tasks are counted down
 *            (derived) and holders rung (the janitor rings again).
 *            free: COMMIT state = FREEING: its names no longer count; then its block is freed (a
 *            COMMIT of its own), COMMIT state = FREE. A handle is stale as soon as the record lives
 *            again with another generation. Rebuild finishes what
 *            is FREEING.
 */
#ifndef RL_OBJECT_H
#define RL_OBJECT_H

#include "rl_session.h"

/* What the counters of the control block take a value in a block for. */
enum {
    RL_COPIED,   /* to its block */
    RL_IN_PLACE, /* computed in its block */
    RL_PART,     /* of another value, which is counted */
};

/* A value to be stored. Either `block` (filled by this process) or `bytes` (nbytes <= RL_INLINE). */
typedef struct rl_value {
    uint32_t kind;
    uint32_t block; /* or RL_NIL */
    uint64_t nbytes;
    const void *bytes;
    const rl_handle *refs; /* objects that the value contains; the caller holds each of them */
    uint32_t nrefs;
    uint64_t fingerprint;
    uint32_t counts_as; /* RL_COPIED etc. */
    rl_handle *kept;    /* where to put the new object's handle, which this process then holds once
                           more; NULL: it does not. Not for what rl_task.h returns */
} rl_value;

/* A sealed value, as its reader sees it. */
typedef struct rl_payload {
    uint32_t kind;
    uint32_t nrefs;
    uint64_t nbytes;
    uint64_t fingerprint;
    const uint8_t *bytes;    /* in the read-only view, or `copy` */
    uint32_t in_block;       /* 1: bytes stay valid while the object is held */
    uint8_t copy[RL_INLINE]; /* short values are copied out of the record */
} rl_payload;

/* Store a value; the caller holds the new object once, by a handle of kind RL_HANDLE_SEALED. On
 * failure the block stays the caller's. */
int rl_object_put(rl_session *s, const rl_value *value, rl_handle *out);

/* One more reference of this process to an object that it can reach already: it holds it, or holds
 * something that names it. */
void rl_object_hold(rl_session *s, rl_handle h);

/* As rl_object_hold for an object known from outside by generation and number (a reference that was
 * pickled): RL_ESTALE if it is gone. A scan of the table. */
int rl_object_find(rl_session *s, uint64_t gen, uint32_t number, rl_handle *out);

/* Is a held, sealed object a failure? Does not count as having read it. */
int rl_object_is_failure(const rl_session *s, rl_handle h);

/* Place of a held object among its task's returns, from 1; 0 for one that was put. */
uint32_t rl_object_number(const rl_session *s, rl_handle h);

/* One reference of this process less. Never fails; does nothing in a forked child. */
void rl_object_release(rl_session *s, rl_handle h);

/* Read an object that the caller holds. Returns RL_EAGAIN while it is not sealed. */
int rl_object_read(rl_session *s, rl_handle h, rl_payload *out);

/* Handles of the first `n` objects that a held, sealed value contains, each held once more. */
int rl_object_read_refs(rl_session *s, rl_handle h, rl_handle *out, uint32_t n);

/* Have the processor fetch what rl_object_is_sealed() will look at: of many objects, most are in no
 * cache. */
static inline void rl_object_prefetch(const rl_session *s, rl_handle h)
{
    __builtin_prefetch(&s->map.objects[h.index]);
}

int rl_object_is_sealed(const rl_session *s, rl_handle h);

/* Wait until `need` of `n` held objects are sealed (streams: have an item, or have ended).
 *
 * ready[i] = 1 for each that is; *nready counts them. With `stop_at_error`, returns as soon as any
 * of them is a failure, and all count as asked for. Returns 0, RL_ETIMEDOUT (ready is filled),
 * EINTR (call again), RL_EDEAD. */
int rl_object_wait(rl_session *s, const rl_handle *h, uint32_t n, uint32_t need, int stop_at_error,
                   int64_t deadline_ns, uint8_t *ready, uint32_t *nready);

/* The same, EINTR at once if rl_session_interrupt() was called since s->interrupts was read as
 * `interrupts`: for who makes up the list before. */
int rl_object_wait_since(rl_session *s, const rl_handle *h, uint32_t n, uint32_t need,
                         int stop_at_error, int64_t deadline_ns, uint32_t interrupts,
                         uint8_t *ready, uint32_t *nready);

/* Supervisor: take one failure that nobody read; RL_EAGAIN when there is none. The caller holds it
 * (release it once printed). */
int rl_object_take_report(rl_session *s, rl_handle *out);

/* ---- for the other modules, inside a section ---- */

rl_handle rl_object_handle(const rl_mapping *m, uint32_t object);
/* A new PENDING object, return value `number` (from 1) of task `producer`, held once by this
 * process. RL_NIL: table full. */
uint32_t rl_object_make_pending(rl_session *s, uint32_t producer, uint64_t gen, uint32_t number);
/* Is the task that is to fill it all that still names a pending object, and does nobody hold it? */
int rl_object_is_only_produced(const rl_mapping *m, uint32_t object);
int rl_object_is_of(const rl_mapping *m, uint32_t object, uint32_t task);
void rl_object_set_producer(rl_mapping *m, uint32_t object, uint32_t task);
/* A new SEALED object that nobody holds or names yet, item `number` of a stream. */
int rl_object_make_item(rl_section *section, const rl_value *value, uint64_t gen, uint32_t number,
                        uint32_t *out);
/* A new outlet of `stream`, held once by this process. RL_NIL: table full. */
uint32_t rl_object_make_outlet(rl_session *s, rl_handle stream);
/* Is the object an outlet? Then of which stream. */
int rl_object_is_outlet(const rl_mapping *m, uint32_t object, rl_handle *stream);
/* A task depends on a pending object: if that is the end of a stream, somebody waits for it. */
void rl_object_await_end(rl_mapping *m, uint32_t object);
/* Does somebody wait for a pending object? */
int rl_object_is_awaited(const rl_mapping *m, uint32_t object);
/* This process's reference to an object that something names; under local_mutex. */
rl_handle rl_object_adopt(rl_session *s, uint32_t object);
/* Could all of these values be stored now? 0, RL_EINVAL or RL_ETABLE. */
int rl_object_check_values(const rl_session *s, const rl_value *values, uint32_t n);
/* Fill a PENDING object; RL_ESTALE if it is not pending any more. */
int rl_object_seal(rl_section *section, uint32_t object, const rl_value *value);
void rl_object_name(rl_mapping *m, uint32_t object);
/* One name less; frees what nobody can reach any more. */
void rl_object_unname(rl_section *section, uint32_t object);
void rl_object_unname_list(rl_section *section, rl_list list);
/* The same in two steps: what nobody can reach any more is put on the work-list `*todo` (RL_NIL:
 * empty), and freed by the second. */
void rl_object_unname_later(rl_section *section, uint32_t object, uint32_t *todo);
void rl_object_work_off(rl_section *section, uint32_t todo);
/* Have the processes that hold an object rung. */
void rl_object_ring_holders(rl_section *section, uint32_t object);
void rl_object_drop_holds(rl_section *section, uint32_t slot);

/* Rebuild, part of rl_repair(). */
int rl_object_rebuild_begin(rl_mapping *m);
void rl_object_rebuild_names(rl_mapping *m);
void rl_object_rebuild_end(rl_section *section);

const char *rl_object_check(const rl_mapping *m);
/* O1, which does not hold for the moment in which a live process has cleared the last bit and has
 * not entered the section in which it frees; and O5, which does not hold between a death within a
 * submit and the janitor's round. */
const char *rl_object_check_reachable(const rl_mapping *m);

#endif
