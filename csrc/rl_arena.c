/* rl_arena.c - see rl_arena.h. */
#include "rl_arena.h"

#include "rl_err.h"
#include "rl_fault.h"
#include "rl_sort.h"
#include "rl_table.h"

#include <string.h>

enum { MIN_LOG2 = 6, SCAN = 8 };
#define WARM_SHIFT 16
#define POPULATE_FROM (UINT64_C(64) << 10)

/* ---- bins ---- */

/* Four size classes to each power of two. */
static uint32_t bin_of(uint64_t length)
{
    uint32_t log2 = 63u - (uint32_t)__builtin_clzll(length);
    if (log2 < MIN_LOG2) return 0;
    uint32_t quarter = (uint32_t)(length >> (log2 - 2)) & 3u;
    uint32_t bin = (log2 - MIN_LOG2) * 4 + quarter;
    return bin < RL_BINS ? bin : RL_BINS - 1;
}

static void bin_push(rl_mapping *m, uint32_t i)
{
    rl_control *c = m->control;
    rl_block *b = &m->blocks[i];
    b->bin = bin_of(b->length);
    b->bin_prev = RL_NIL;
    b->bin_next = c->bins[b->bin];
    if (b->bin_next != RL_NIL) m->blocks[b->bin_next].bin_prev = i;
    c->bins[b->bin] = i;
    c->bin_map[b->bin / 64] |= UINT64_C(1) << (b->bin % 64);
    c->free_bytes += b->length;
}

static void bin_remove(rl_mapping *m, uint32_t i)
{
    rl_control *c = m->control;
    rl_block *b = &m->blocks[i];
    if (b->bin_prev != RL_NIL) {
        m->blocks[b->bin_prev].bin_next = b->bin_next;
    } else {
        c->bins[b->bin] = b->bin_next;
    }
    if (b->bin_next != RL_NIL) m->blocks[b->bin_next].bin_prev = b->bin_prev;
    if (c->bins[b->bin] == RL_NIL) c->bin_map[b->bin / 64] &= ~(UINT64_C(1) << (b->bin % 64));
    c->free_bytes -= b->length;
}

static uint32_t next_filled_bin(const rl_control *c, uint32_t from)
{
    for (uint32_t w = from / 64; w < RL_BIN_WORDS; w++) {
        uint64_t bits = c->bin_map[w];
        if (w == from / 64) bits &= UINT64_MAX << (from % 64);
        if (bits) return w * 64 + (uint32_t)__builtin_ctzll(bits);
    }
    return RL_NIL;
}

/* First block in `bin` of at least `nbytes`, looking at `most` blocks. */
static uint32_t scan_bin(const rl_mapping *m, uint32_t bin, uint64_t nbytes, uint32_t most)
{
    uint32_t i = m->control->bins[bin];
    for (; i != RL_NIL && most > 0; most--) {
        if (m->blocks[i].length >= nbytes) return i;
        i = m->blocks[i].bin_next;
    }
    return RL_NIL;
}

/* A free block of at least `nbytes`: a few of its own class, else any of a larger one, else, when
 * memory is short, all of its own. */
static uint32_t find_fit(const rl_mapping *m, uint64_t nbytes)
{
    uint32_t own = bin_of(nbytes);
    uint32_t i = scan_bin(m, own, nbytes, SCAN);
    if (i != RL_NIL) return i;
    uint32_t larger = next_filled_bin(m->control, own + 1);
    if (larger != RL_NIL) return m->control->bins[larger];
    return scan_bin(m, own, nbytes, m->control->blocks.high_water);
}

/* ---- split and join ---- */

static rl_block *neighbour(rl_mapping *m, uint32_t i)
{
    return i == RL_NIL ? NULL : &m->blocks[i];
}

/* Cut block i (in no bin) after `nbytes`; the rest becomes a free block. Without a spare record
 * the block is left whole. */
static void split(rl_mapping *m, uint32_t i, uint64_t nbytes)
{
    rl_block *b = &m->blocks[i];
    uint32_t r =
        rl_table_take(&m->control->blocks, m->blocks, sizeof(rl_block), offsetof(rl_block, next));
    if (r == RL_NIL) return;

    rl_block *rest = &m->blocks[r];
    rest->offset = b->offset + nbytes;
    rest->length = b->length - nbytes;
    rest->prev = i;
    rest->next = b->next;
    RL_KILL_POINT("arena.split.before");
    atomic_store_explicit(&rest->tag, RL_BLOCK_FREE, memory_order_release); /* COMMIT */
    RL_KILL_POINT("arena.split.after");
    b->length = nbytes;
    if (b->next != RL_NIL) m->blocks[b->next].prev = r;
    b->next = r;
    bin_push(m, r);
}

/* Join block i with its right neighbour; both are free and in no bin. */
static void join_right(rl_mapping *m, uint32_t i)
{
    rl_block *b = &m->blocks[i];
    uint32_t r = b->next;
    rl_block *right = &m->blocks[r];
    RL_KILL_POINT("arena.join.before");
    atomic_store_explicit(&right->tag, RL_BLOCK_UNUSED, memory_order_release); /* COMMIT */
    RL_KILL_POINT("arena.join.after");
    b->length += right->length;
    b->next = right->next;
    if (b->next != RL_NIL) m->blocks[b->next].prev = i;
    rl_table_give(&m->control->blocks, m->blocks, sizeof(rl_block), offsetof(rl_block, next), r);
}

static int is_free(const rl_block *b)
{
    return b && atomic_load_explicit(&b->tag, memory_order_relaxed) == RL_BLOCK_FREE;
}

/* ---- claim and free ---- */

uint64_t rl_arena_block_size(uint64_t nbytes)
{
    uint64_t unit = nbytes >= 32768 ? 4096 : RL_ALIGN;
    return (nbytes + unit - 1) / unit * unit;
}

static int claim(rl_session *s, uint64_t nbytes, uint32_t *out)
{
    rl_mapping *m = &s->map;
    rl_control *c = m->control;
    uint64_t size = rl_arena_block_size(nbytes);
    uint32_t i = find_fit(m, size);
    if (i == RL_NIL) return RL_EFULL;

    rl_block *b = &m->blocks[i];
    bin_remove(m, i);
    if (b->length - size >= RL_ALIGN) split(m, i, size);
    RL_KILL_POINT("arena.claim.before");
    atomic_store_explicit(&b->tag, RL_BLOCK_FILLING | s->slot, memory_order_release); /* COMMIT */
    RL_KILL_POINT("arena.claim.after");
    uint64_t used = c->data_size - c->free_bytes;
    if (used > c->peak_bytes) c->peak_bytes = used;
    *out = i;
    return 0;
}

static int is_warm(const rl_session *s, uint64_t granule)
{
    return (s->warm[granule / 8] >> (granule % 8)) & 1;
}

/* The first of the granules [i, end) that this process has not written, or `end`. */
static uint64_t skip_warm(const rl_session *s, uint64_t i, uint64_t end)
{
    while (i < end && is_warm(s, i)) i += i % 8 == 0 && s->warm[i / 8] == 0xff ? 8 : 1;
    return i < end ? i : end;
}

/* Populate what of [offset, offset + nbytes) this process has not written yet. Whole granules, also
 * those that reach beyond: the ends of a block would else be populated each time it is filled. */
static int warm(rl_session *s, uint64_t offset, uint64_t nbytes)
{
    uint64_t end = ((offset + nbytes - 1) >> WARM_SHIFT) + 1;
    uint64_t i = offset >> WARM_SHIFT;
    while ((i = skip_warm(s, i, end)) < end) {
        uint64_t first = i;
        while (i < end && !is_warm(s, i)) i++;
        uint64_t begin = first << WARM_SHIFT;
        uint64_t stop = i << WARM_SHIFT;
        if (stop > s->map.data_size) stop = s->map.data_size;
        int err = rl_segment_populate(&s->map, begin, stop - begin);
        if (err) return err;
        for (uint64_t k = first; k < i; k++) s->warm[k / 8] |= (uint8_t)(1u << (k % 8));
    }
    return 0;
}

int rl_arena_fill(rl_session *s, uint64_t nbytes, uint32_t *block)
{
    if (nbytes == 0) return RL_EINVAL;
    if (nbytes > s->map.data_size) return RL_EFULL;
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_ARENA);
    if (err) return err;
    uint32_t i;
    err = claim(s, nbytes, &i);
    rl_leave(&section);
    if (err) return err;

    if (nbytes >= POPULATE_FROM) {
        err = warm(s, s->map.blocks[i].offset, nbytes);
        if (err) {
            rl_arena_abandon(s, i);
            return err;
        }
    }
    *block = i;
    return 0;
}

int rl_arena_abandon(rl_session *s, uint32_t block)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_ARENA);
    if (err) return err;
    uint32_t mine = RL_BLOCK_FILLING | s->slot;
    if (block >= s->map.control->blocks.high_water ||
        atomic_load_explicit(&s->map.blocks[block].tag, memory_order_relaxed) != mine) {
        err = RL_ESTALE;
    } else {
        rl_arena_free(&section, block);
    }
    rl_leave(&section);
    return err;
}

uint8_t *rl_arena_bytes(const rl_session *s, uint32_t block)
{
    return s->map.rw + s->map.blocks[block].offset;
}

int rl_arena_measure(rl_session *s, rl_arena_usage *out)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_ARENA);
    if (err) return err;
    const rl_control *c = s->map.control;
    *out = (rl_arena_usage){
        .capacity = c->data_size, .free_bytes = c->free_bytes, .peak = c->peak_bytes};
    for (uint32_t w = RL_BIN_WORDS; w-- > 0 && out->largest == 0;) {
        if (c->bin_map[w] == 0) continue;
        uint32_t bin = w * 64 + 63u - (uint32_t)__builtin_clzll(c->bin_map[w]);
        for (uint32_t i = c->bins[bin]; i != RL_NIL; i = s->map.blocks[i].bin_next) {
            uint64_t length = s->map.blocks[i].length;
            if (length > out->largest) out->largest = length;
        }
    }
    rl_leave(&section);
    return 0;
}

void rl_arena_seal(rl_mapping *m, uint32_t block, uint32_t object)
{
    atomic_store_explicit(&m->blocks[block].tag, RL_BLOCK_SEALED | object, memory_order_release);
}

void rl_arena_free(rl_section *section, uint32_t i)
{
    rl_mapping *m = &section->s->map;
    rl_block *b = &m->blocks[i];
    atomic_fetch_add_explicit(&m->control->freed_bytes, b->length, memory_order_relaxed);
    section->freed = 1;
    RL_KILL_POINT("arena.free.before");
    atomic_store_explicit(&b->tag, RL_BLOCK_FREE, memory_order_release); /* COMMIT */
    RL_KILL_POINT("arena.free.after");
    if (is_free(neighbour(m, b->next))) {
        bin_remove(m, b->next);
        join_right(m, i);
    }
    if (is_free(neighbour(m, b->prev))) {
        i = b->prev;
        bin_remove(m, i);
        join_right(m, i);
    }
    bin_push(m, i);
}

void rl_arena_free_filling(rl_section *section, uint32_t slot)
{
    rl_mapping *m = &section->s->map;
    for (uint32_t i = 0; i < m->control->blocks.high_water; i++) {
        uint32_t tag = atomic_load_explicit(&m->blocks[i].tag, memory_order_relaxed);
        if (tag == (RL_BLOCK_FILLING | slot)) rl_arena_free(section, i);
    }
}

/* ---- rebuild ---- */

/* All live blocks as a list ordered by offset. */
static uint32_t sort_live(rl_mapping *m)
{
    rl_sorter sorter = rl_sort_begin(m->blocks, sizeof(rl_block), offsetof(rl_block, next),
                                     offsetof(rl_block, offset));
    for (uint32_t i = 0; i < m->control->blocks.high_water; i++) {
        uint32_t tag = atomic_load_explicit(&m->blocks[i].tag, memory_order_relaxed);
        if (tag != RL_BLOCK_UNUSED) rl_sort_add(&sorter, i);
    }
    return rl_sort_end(&sorter);
}

/* Set lengths and back links along the address-ordered list. */
static int measure_live(rl_mapping *m, uint32_t first)
{
    uint32_t prev = RL_NIL;
    for (uint32_t i = first; i != RL_NIL; i = m->blocks[i].next) {
        rl_block *b = &m->blocks[i];
        uint64_t end = b->next == RL_NIL ? m->control->data_size : m->blocks[b->next].offset;
        if (end <= b->offset || b->offset % RL_ALIGN) return RL_ECORRUPT;
        b->length = end - b->offset;
        b->prev = prev;
        prev = i;
    }
    return 0;
}

int rl_arena_rebuild(rl_mapping *m)
{
    rl_control *c = m->control;
    uint32_t first = sort_live(m);
    if (first != 0 || m->blocks[0].offset != 0) return RL_ECORRUPT; /* B1 */
    if (measure_live(m, first)) return RL_ECORRUPT;

    rl_table_rebuild_begin(&c->blocks);
    for (uint32_t i = c->blocks.high_water; i-- > 0;) {
        if (atomic_load_explicit(&m->blocks[i].tag, memory_order_relaxed) == RL_BLOCK_UNUSED) {
            rl_table_give(&c->blocks, m->blocks, sizeof(rl_block), offsetof(rl_block, next), i);
        }
    }
    for (uint32_t i = 0; i < RL_BINS; i++) c->bins[i] = RL_NIL;
    memset(c->bin_map, 0, sizeof c->bin_map);
    c->free_bytes = 0;
    for (uint32_t i = first; i != RL_NIL; i = m->blocks[i].next) {
        if (!is_free(&m->blocks[i])) continue;
        while (is_free(neighbour(m, m->blocks[i].next))) join_right(m, i);
        bin_push(m, i);
    }
    return 0;
}

/* ---- check ---- */

static const char *check_bins(const rl_mapping *m, uint32_t nfree)
{
    uint32_t seen = 0;
    for (uint32_t bin = 0; bin < RL_BINS; bin++) {
        int filled = (m->control->bin_map[bin / 64] >> (bin % 64)) & 1;
        if (filled != (m->control->bins[bin] != RL_NIL)) return "arena: bin map differs (B2)";
        for (uint32_t i = m->control->bins[bin]; i != RL_NIL; i = m->blocks[i].bin_next) {
            if (!is_free(&m->blocks[i])) return "arena: a block in a bin is not free (B2)";
            if (bin_of(m->blocks[i].length) != bin) return "arena: block in the wrong bin (B2)";
            if (++seen > nfree) return "arena: a bin has a cycle (B2)";
        }
    }
    return seen == nfree ? NULL : "arena: a free block is in no bin (B2)";
}

const char *rl_arena_check(const rl_mapping *m)
{
    uint64_t end = 0, free_bytes = 0;
    uint32_t nlive = 0, nfree = 0, prev = RL_NIL;
    int last_free = 0;
    for (uint32_t i = 0; i != RL_NIL; i = m->blocks[i].next) {
        const rl_block *b = &m->blocks[i];
        if (b->offset != end) return "arena: gap or overlap between blocks (B2)";
        if (b->prev != prev) return "arena: broken back link (B2)";
        if (is_free(b) && last_free) return "arena: two free neighbours (B3)";
        if (++nlive > m->control->blocks.high_water) return "arena: cycle by address (B2)";
        last_free = is_free(b);
        if (last_free) {
            nfree++;
            free_bytes += b->length;
        }
        end += b->length;
        prev = i;
    }
    if (end != m->control->data_size) return "arena: blocks do not tile the segment (B2)";
    if (free_bytes != m->control->free_bytes) return "arena: free_bytes differs (B2)";
    if (nlive + m->control->blocks.nfree != m->control->blocks.high_water) {
        return "arena: a block record is lost";
    }
    return check_bins(m, nfree);
}
