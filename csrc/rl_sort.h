/* rl_sort.h - sorting records by a key, without memory: for repair, which may allocate none.
 *
 * A bottom-up merge sort over lists. The key is a uint64_t at byte `key` of a record, the link a
 * uint32_t at byte `link`. All of it is derived: whoever is killed here leaves nothing to mend.
 */
#ifndef RL_SORT_H
#define RL_SORT_H

#include "rl_table.h"

enum { RL_SORT_RUNS = 32 };

typedef struct rl_sorter {
    void *records;
    size_t record, link, key;
    uint32_t runs[RL_SORT_RUNS]; /* runs[k]: a sorted list of 2^k records, or RL_NIL */
} rl_sorter;

static inline rl_sorter rl_sort_begin(void *records, size_t record, size_t link, size_t key)
{
    rl_sorter s = {.records = records, .record = record, .link = link, .key = key};
    for (int k = 0; k < RL_SORT_RUNS; k++) s.runs[k] = RL_NIL;
    return s;
}

static inline uint64_t rl_sort_key(const rl_sorter *s, uint32_t i)
{
    return *(const uint64_t *)(const void *)((const char *)s->records + i * s->record + s->key);
}

static inline uint32_t rl_sort_merge(rl_sorter *s, uint32_t a, uint32_t b)
{
    uint32_t head = RL_NIL;
    uint32_t *tail = &head;
    while (a != RL_NIL && b != RL_NIL) {
        uint32_t *lesser = rl_sort_key(s, a) <= rl_sort_key(s, b) ? &a : &b;
        *tail = *lesser;
        tail = rl_table_link(s->records, s->record, s->link, *lesser);
        *lesser = *tail;
    }
    *tail = a != RL_NIL ? a : b;
    return head;
}

static inline void rl_sort_add(rl_sorter *s, uint32_t i)
{
    *rl_table_link(s->records, s->record, s->link, i) = RL_NIL;
    int k = 0;
    for (; k < RL_SORT_RUNS - 1 && s->runs[k] != RL_NIL; k++) {
        i = rl_sort_merge(s, s->runs[k], i);
        s->runs[k] = RL_NIL;
    }
    s->runs[k] = s->runs[k] == RL_NIL ? i : rl_sort_merge(s, s->runs[k], i);
}

/* First of all records that were added, linked in the order of their keys; RL_NIL for none. */
static inline uint32_t rl_sort_end(rl_sorter *s)
{
    uint32_t all = RL_NIL;
    for (int k = 0; k < RL_SORT_RUNS; k++) all = rl_sort_merge(s, s->runs[k], all);
    return all;
}

#endif
