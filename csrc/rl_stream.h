/* rl_stream.h - streams: the growing list of objects that a generator task yields.
 *
 * One producer (the worker that runs the task), consumers that hold the stream by a bit of their
 * slot. Items are appended, and taken in order; an item is named by the stream until it is taken.
 *
 * INVARIANTS
 *   R1  A stream is LIVE while a process holds it or its task lives, else FREE.
 *   R2  taken <= produced. Items [taken, produced) stand in the chunks from `head` on; the stream
 *       names each of them (O2).
 *   R3  `task` is the live task that produces it, or RL_NIL: then it has ended (derived).
 *   R4  Without a holder, no item is kept: those untaken are freed, later ones are not stored.
 *   R5  The fingerprint of every item ever appended is in the chunks from `log` on, unless its task
 *       cannot be run again.
 * CRASHES     append: the item as a SEALED object, the chunk's entry and the fingerprint, then
 *             COMMIT produced + 1; before it, nobody names the object and repair frees it.
 *             take: the consumer's holder bit, then COMMIT taken + 1.
 * BACKPRESSURE  With `limit`, the producer asks rl_stream_wait_room() before it goes on.
 */
#ifndef RL_STREAM_H
#define RL_STREAM_H

#include "rl_object.h"

/* Append a value, from the worker that runs `task`. Returns RL_EAGAIN when nobody holds the stream
 * any more: nothing was stored and the value stays the caller's. */
int rl_stream_append(rl_session *s, rl_handle task, const rl_value *value);

/* Take the next item of a held stream; the caller then holds the item. Returns RL_EAGAIN when there
 * is none now, RL_EEND when there will be none. */
int rl_stream_next(rl_session *s, rl_handle stream, rl_handle *item);

/* Let go of a held stream. */
void rl_stream_release(rl_session *s, rl_handle stream);

/* Wait until fewer than `limit` items are untaken, or nobody holds the stream. As
 * rl_doorbell_wait. */
int rl_stream_wait_room(rl_session *s, rl_handle stream, int64_t deadline_ns);

/* How many items were ever appended, and the fingerprints of the first `n` of them. */
uint32_t rl_stream_produced(const rl_session *s, rl_handle stream);
int rl_stream_log(rl_session *s, rl_handle stream, uint64_t *fingerprints, uint32_t n);

/* Is there an item, or the end? Leaves word that the caller waits. For rl_object_wait(). */
int rl_stream_is_ready(const rl_session *s, rl_handle stream);

/* Is there an item now? */
int rl_stream_has_item(const rl_session *s, rl_handle stream);

/* ---- for the other modules, inside a section ---- */

/* A new stream of task `task`, held by this process. `logged`: keep fingerprints. */
uint32_t rl_stream_make(rl_session *s, uint32_t task, uint64_t gen, uint32_t limit, int logged);
/* Its task is over: no more items will come. */
void rl_stream_end(rl_section *section, uint32_t stream);
void rl_stream_drop_holds(rl_section *section, uint32_t slot);

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
