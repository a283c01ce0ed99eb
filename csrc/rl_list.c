/* rl_list.c - see rl_list.h. */
#include "rl_list.h"

#include "rl_err.h"
#include "rl_table.h"

uint32_t rl_list_take_chunk(rl_mapping *m)
{
    uint32_t i =
        rl_table_take(&m->control->chunks, m->chunks, sizeof(rl_chunk), offsetof(rl_chunk, next));
    m->chunks[i].used = 1;
    m->chunks[i].next = RL_NIL;
    return i;
}

void rl_list_give_chunk(rl_mapping *m, uint32_t i)
{
    m->chunks[i].used = 0;
    rl_table_give(&m->control->chunks, m->chunks, sizeof(rl_chunk), offsetof(rl_chunk, next), i);
}

int rl_list_make(rl_mapping *m, const rl_handle *objects, uint32_t n, rl_list *out)
{
    if (n <= 1) {
        *out = (rl_list){.head = n ? objects[0].index : RL_NIL, .n = n};
        return 0;
    }
    if (rl_list_chunks(n) > rl_table_room(&m->control->chunks)) return RL_ETABLE;

    uint32_t head = rl_list_take_chunk(m);
    uint32_t chunk = head;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = i % RL_CHUNK_NAMES;
        if (k == 0 && i > 0) {
            uint32_t next = rl_list_take_chunk(m);
            m->chunks[chunk].next = next;
            chunk = next;
        }
        m->chunks[chunk].object[k] = objects[i].index;
    }
    *out = (rl_list){.head = head, .n = n};
    return 0;
}

void rl_list_free(rl_mapping *m, rl_list list)
{
    uint32_t chunk = list.head;
    for (uint32_t left = rl_list_chunks(list.n); left > 0; left--) {
        uint32_t next = m->chunks[chunk].next;
        rl_list_give_chunk(m, chunk);
        chunk = next;
    }
}

void rl_list_rebuild_begin(rl_mapping *m)
{
    for (uint32_t i = 0; i < m->control->chunks.high_water; i++) m->chunks[i].used = 0;
}

void rl_list_rebuild_mark(rl_mapping *m, rl_list list)
{
    uint32_t chunk = list.head;
    for (uint32_t left = rl_list_chunks(list.n); left > 0; left--) {
        if (chunk >= m->control->chunks.high_water) return;
        m->chunks[chunk].used = 1;
        chunk = m->chunks[chunk].next;
    }
}

void rl_list_rebuild_end(rl_mapping *m)
{
    rl_table *t = &m->control->chunks;
    rl_table_rebuild_begin(t);
    for (uint32_t i = t->high_water; i-- > 0;) {
        if (!m->chunks[i].used) {
            rl_table_give(t, m->chunks, sizeof(rl_chunk), offsetof(rl_chunk, next), i);
        }
    }
}
