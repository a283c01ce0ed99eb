/* rl_stream.h - streams: the growing list of objects that a generator task yields.
 *
 * One producer (the worker that runs the task). Its reading end is an object, the outlet: who holds
 * that may take items, and it can be passed on like any reference. Items are appended, and taken in
 * order; an item is named by the stream until it is taken.
 *
 * INVARIANTS
 *   R1  A stream is LIVE while its outlet is SEALED or its task lives, else FREE.
 *   R2  taken <= produced. Items [taken, produced) stand in the chunks from `head` on; the stream
 *       names each of them (O2).
 *   R3  `task` is the live task that produces it, or RL_NIL: then it has ended (derived).
 *   R4  Without an outlet, no item is kept: those untaken are freed, later ones are not stored.
 *   R5  `outlet` is the SEALED object whose payload is this stream's handle, or RL_NIL (derived).
 *   R6  The fingerprint of every item ever appended is in the chunks from `log` on, unless its task
 *       cannot be run again.
 * CRASHES     make: COMMIT state = LIVE, then the outlet's own COMMIT; without it, and without a task,
 *             repair frees the stream.
 *             append: the item as a SEALED object, the chunk's entry and the fingerprint, then
 *             COMMIT produced + 1; before it, nobody names the object and repair frees it.
 *             take: the consumer's holder bit, then COMMIT taken + 1.
 * BACKPRESSURE  The producer asks rl_stream_wait_room() before it goes on. It has to pause at
 *             `limit` untaken items, at the `most_untaken` of its actor (unless somebody waits for an
 *             item of this stream), and, if it is a task and no
 *             actor's call (which would keep later calls waiting), while the untaken items take
 *             more than their share of the store. That last one only delays: it ends when somebody
 *             waits for the task's end, or a task depends on it. It does not hold in a driver that
 *             runs its own tasks (rl_task_runs_at_home), and would wait for itself.
 */
#ifndef RL_STREAM_H
#define RL_STREAM_H

#include "rl_object.h"

/* The stream of an outlet that the caller holds; RL_EINVAL if the object is none. */
int rl_stream_of(const rl_session *s, rl_handle outlet, rl_handle *stream);

/* Append a value, from the worker that runs `task`. Returns RL_EAGAIN when the outlet is gone:
 * nothing was stored and the value stays the caller's. */
int rl_stream_append(rl_session *s, rl_handle task, const rl_value *value);

/* Take the next item of a stream whose outlet the caller holds; the caller then holds the item.
 * `task`: one of this process that must not be run again without the item, or NULL. Returns
 * RL_EAGAIN when there is none now, RL_EEND when there will be none. */
int rl_stream_next(rl_session *s, rl_handle stream, const rl_handle *task, rl_handle *item);

/* Wait until the producer may go on (BACKPRESSURE), or the outlet is gone. As rl_doorbell_wait. */
int rl_stream_wait_room(rl_session *s, rl_handle stream, int64_t deadline_ns);

/* How many items were ever appended, and the fingerprints of the first `n` of them. */
uint32_t rl_stream_produced(const rl_session *s, rl_handle stream);
int rl_stream_log(rl_session *s, rl_handle stream, uint64_t *fingerprints, uint32_t n);

/* Is there an item, or the end? Leaves word that the caller waits. For rl_object_wait(). */
int rl_stream_is_ready(const rl_session *s, rl_handle stream);

/* Would rl_stream_wait_room() not wait? */
int rl_stream_has_room(const rl_session *s, rl_handle stream);

/* Is there an item now? */
int rl_stream_has_item(const rl_session *s, rl_handle stream);

/* ---- for the other modules, inside a section ---- */

typedef struct rl_stream_spec {
    uint32_t task; /* that fills it */
    uint64_t gen;
    uint32_t actor; /* that the task calls, or RL_NIL */
    uint32_t limit;
    int logged; /* keep fingerprints */
} rl_stream_spec;

/* A new stream; `*outlet` is held by this process. */
uint32_t rl_stream_make(rl_session *s, const rl_stream_spec *spec, rl_handle *outlet);
/* Somebody has begun to wait for a return of `task` (an index, or RL_NIL). Also outside a section. */
void rl_stream_end_is_awaited(const rl_mapping *m, uint32_t task);
/* The actor is over: its record will be another's. */
void rl_stream_forget_actor(rl_mapping *m, uint32_t actor);
/* Its outlet is gone. What becomes unreachable goes on the work-list `*todo`. */
void rl_stream_let_go(rl_section *section, rl_handle stream, uint32_t *todo);
/* Its task is over: no more items will come. */
void rl_stream_end(rl_section *section, uint32_t stream);

/* Rebuild, part of rl_repair(). */
void rl_stream_rebuild_begin(rl_mapping *m);
void rl_stream_rebuild_names(rl_mapping *m);
void rl_stream_rebuild_end(rl_section *section);

const char *rl_stream_check(const rl_mapping *m);

/* Call for each untaken item of a live stream; for recounting names. */
typedef void (*rl_stream_visit)(void *context, uint32_t object);
void rl_stream_each_item(const rl_mapping *m, uint32_t stream, rl_stream_visit visit,
                         void *context);
/* Chunks that the stream owns. */
uint32_t rl_stream_chunks(const rl_mapping *m, uint32_t stream);

#endif
