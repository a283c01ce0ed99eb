/* rl_list.h - lists of objects: what a value contains, what a task needs, what it returns.
 *
 * A list is written completely before its owner's COMMIT store and never changes afterwards, so a
 * reader that holds the owner walks it without the lock. A list of one needs no chunk.
 *
 * CRASHES   A chunk that no live owner's list reaches is free: rebuild marks the reachable ones.
 */
#ifndef RL_LIST_H
#define RL_LIST_H

#include "rl_segment.h"

/* Chunks that a list of n objects takes. */
static inline uint32_t rl_list_chunks(uint32_t n)
{
    return n <= 1 ? 0 : (n + RL_CHUNK_NAMES - 1) / RL_CHUNK_NAMES;
}

/* Where a walk over a list is. */
typedef struct rl_walk {
    const rl_mapping *m;
    uint32_t chunk;
    uint32_t at; /* next position in the whole list */
    uint32_t n;
    uint32_t head;
} rl_walk;

static inline rl_walk rl_list_walk(const rl_mapping *m, rl_list list)
{
    return (rl_walk){.m = m, .chunk = list.head, .n = list.n, .head = list.head};
}

/* Next object of the walk, or RL_NIL at the end (or at nonsense: every index is checked). */
static inline uint32_t rl_walk_next(rl_walk *w)
{
    if (w->at >= w->n) return RL_NIL;
    uint32_t object = w->head;
    if (w->n > 1) {
        uint32_t k = w->at % RL_CHUNK_NAMES;
        if (k == 0 && w->at > 0) w->chunk = w->m->chunks[w->chunk].next;
        if (w->chunk >= w->m->control->chunks.capacity) return RL_NIL;
        object = w->m->chunks[w->chunk].object[k];
    }
    w->at++;
    return object < w->m->control->objects.capacity ? object : RL_NIL;
}

/* Make a list of `n` objects, inside a section. Returns RL_ETABLE and makes nothing when the chunks
 * are used up. Counts no names: the owner does at its COMMIT. */
int rl_list_make(rl_mapping *m, const rl_handle *objects, uint32_t n, rl_list *out);

/* One chunk, for a list that grows (a stream's); the caller has looked that there is room. */
uint32_t rl_list_take_chunk(rl_mapping *m);
void rl_list_give_chunk(rl_mapping *m, uint32_t chunk);

/* Give the chunks of a list back, inside a section. */
void rl_list_free(rl_mapping *m, rl_list list);

/* Rebuild, part of rl_repair(): first forget all, then mark each live list, then collect. */
void rl_list_rebuild_begin(rl_mapping *m);
void rl_list_rebuild_mark(rl_mapping *m, rl_list list);
void rl_list_rebuild_end(rl_mapping *m);

#endif
