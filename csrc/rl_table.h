/* rl_table.h - taking and giving records of a table: a free list over a high-water mark.
 *
 * Everything here is derived: a record is free because its own state says so; the list only finds
 * it quickly. The link is a uint32_t at byte `link` of each record.
 */
#ifndef RL_TABLE_H
#define RL_TABLE_H

#include "rl_layout.h"

#include <stddef.h>

static inline uint32_t *rl_table_link(void *records, size_t record, size_t link, uint32_t i)
{
    return (uint32_t *)(void *)((char *)records + (size_t)i * record + link);
}

/* A free record's index, or RL_NIL when the table is full. */
static inline uint32_t rl_table_take(rl_table *t, void *records, size_t record, size_t link)
{
    uint32_t i = t->free;
    if (i != RL_NIL) {
        t->free = *rl_table_link(records, record, link, i);
        t->nfree--;
        return i;
    }
    return t->high_water < t->capacity ? t->high_water++ : RL_NIL;
}

static inline void rl_table_give(rl_table *t, void *records, size_t record, size_t link, uint32_t i)
{
    *rl_table_link(records, record, link, i) = t->free;
    t->free = i;
    t->nfree++;
}

/* How many records can still be taken. */
static inline uint32_t rl_table_room(const rl_table *t)
{
    return t->nfree + (t->capacity - t->high_water);
}

static inline void rl_table_rebuild_begin(rl_table *t)
{
    t->free = RL_NIL;
    t->nfree = 0;
}

#endif
