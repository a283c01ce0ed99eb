/* rl_arena.h - blocks: extents of the data segment.
 *
 * Storage only: no waiting, no idea what a block holds. All but rl_arena_fill() and
 * rl_arena_abandon() run inside a section of their caller.
 *
 * LAYOUT      The blocks in use as records, by address, tile DATA without gap or overlap: a block
 *             reaches to where the next begins. So one store splits (a new record goes live) and
 *             one store joins (a record goes unused).
 * INVARIANTS
 *   B1  block 0 is at offset 0 and never UNUSED; offsets are multiples of RL_ALIGN, all different.
 *   B2  length, prev, next, bins, free_bytes follow from tags and offsets (derived).
 *   B3  no two neighbours are both FREE.
 *   B4  a FILLING block belongs to the slot in its tag; a SEALED one to the object whose `block` it
 *       is.
 * CHOICE      Good fit by size class (four to each power of two), last freed first, and joined
 *             with its neighbours when freed: low, warm addresses are used again before the
 *             untouched rest of DATA, which is the largest block and so the last resort.
 * CRASHES     claim: split COMMIT (harmless alone), then COMMIT tag = FILLING | slot.
 *             free: COMMIT tag = FREE, then joins, each one COMMIT (harmless if missing: rebuild
 *             joins too).
 */
#ifndef RL_ARENA_H
#define RL_ARENA_H

#include "rl_session.h"

/* Claim a block of at least `nbytes` (> 0) for this process to fill; its pages are resident and
 * in this process's page table. Returns RL_EFULL when no free extent is large enough now; nothing
 * waits here. The block belongs to the slot until an object takes it, or rl_arena_abandon(). */
int rl_arena_fill(rl_session *s, uint64_t nbytes, uint32_t *block);

/* Length of a block for `nbytes`. */
uint64_t rl_arena_block_size(uint64_t nbytes);

/* Give back a block that this process was filling. */
int rl_arena_abandon(rl_session *s, uint32_t block);

/* Where this process writes the block that it fills. */
uint8_t *rl_arena_bytes(const rl_session *s, uint32_t block);

typedef struct rl_arena_usage {
    uint64_t capacity;   /* bytes */
    uint64_t free_bytes; /* may be in several extents */
    uint64_t largest;    /* largest free extent */
    uint64_t peak;       /* most bytes ever in use */
} rl_arena_usage;
int rl_arena_measure(rl_session *s, rl_arena_usage *out);

/* ---- for the other modules, inside a section ---- */

/* The block now belongs to `object`, whose `block` field names it. */
void rl_arena_seal(rl_mapping *m, uint32_t block, uint32_t object);
void rl_arena_free(rl_section *section, uint32_t block);
void rl_arena_free_filling(rl_section *section, uint32_t slot);

/* Rebuild all that is derived (B2, B3). Returns 0 or RL_ECORRUPT. */
int rl_arena_rebuild(rl_mapping *m);

/* NULL, or which invariant is broken. */
const char *rl_arena_check(const rl_mapping *m);

#endif
