/* rl_check.c - see rl_check.h. */
#include "rl_check.h"

#include "rl_actor.h"
#include "rl_arena.h"
#include "rl_err.h"
#include "rl_list.h"
#include "rl_object.h"
#include "rl_stream.h"
#include "rl_task.h"

#include <stdlib.h>

static void count(const rl_mapping *m, rl_list list, uint32_t *names, uint32_t *chunks)
{
    rl_walk w = rl_list_walk(m, list);
    for (uint32_t i = rl_walk_next(&w); i != RL_NIL; i = rl_walk_next(&w)) names[i]++;
    *chunks += rl_list_chunks(list.n);
}

static void count_item(void *names, uint32_t object)
{
    ((uint32_t *)names)[object]++;
}

/* Recount the names of every object from all owners (O2), and the chunks in use. */
static const char *check_names(const rl_mapping *m, uint32_t *names)
{
    const rl_control *c = m->control;
    uint32_t chunks = 0;
    for (uint32_t i = 0; i < c->objects.high_water; i++) {
        const rl_object *o = &m->objects[i];
        if ((atomic_load(&o->state) & RL_OBJECT_STATE) != RL_OBJECT_SEALED) continue;
        count(m, o->refs, names, &chunks);
    }
    for (uint32_t i = 0; i < c->tasks.high_water; i++) {
        const rl_task *t = &m->tasks[i];
        uint32_t state = atomic_load(&t->state) & RL_TASK_STATE;
        if (state == RL_TASK_FREE || state == RL_TASK_FREEING) continue;
        count(m, t->returns, names, &chunks);
        count(m, t->refs, names, &chunks);
        names[t->function]++;
        if (t->args != RL_NIL) names[t->args]++;
        if (t->actor != RL_NIL) names[t->actor]++;
    }
    for (uint32_t i = 0; i < c->streams.high_water; i++) {
        if (atomic_load(&m->streams[i].state) == RL_STREAM_FREE) continue;
        rl_stream_each_item(m, i, count_item, names);
        chunks += rl_stream_chunks(m, i);
    }
    for (uint32_t i = 0; i < c->objects.high_water; i++) {
        if (atomic_load(&m->objects[i].names) != names[i]) return "object: names differ (O2)";
    }
    return chunks + c->chunks.nfree == c->chunks.high_water ? NULL : "list: a chunk is lost";
}

/* A FREE slot holds nothing (S3). */
static const char *check_slots(const rl_mapping *m)
{
    uint64_t free_slots[RL_SLOT_WORDS] = {0};
    for (uint32_t i = 0; i < RL_MAX_SLOTS; i++) {
        if (atomic_load(&m->slots[i].state) == RL_SLOT_FREE) {
            free_slots[i / 64] |= UINT64_C(1) << (i % 64);
        }
    }
    for (uint32_t i = 0; i < m->control->objects.high_water; i++) {
        for (int w = 0; w < RL_SLOT_WORDS; w++) {
            if (atomic_load(&m->objects[i].holders[w]) & free_slots[w]) {
                return "slot: a free one holds an object (S3)";
            }
        }
    }
    for (uint32_t i = 0; i < m->control->blocks.high_water; i++) {
        uint32_t tag = atomic_load(&m->blocks[i].tag);
        uint32_t who = tag & RL_BLOCK_WHO;
        if ((tag & RL_BLOCK_KIND) != RL_BLOCK_FILLING) continue;
        if ((free_slots[who / 64] >> (who % 64)) & 1) return "slot: a free one fills a block (S3)";
    }
    return NULL;
}

const char *rl_check_modules(const rl_mapping *m)
{
    const char *broken = rl_arena_check(m);
    if (!broken) broken = rl_object_check(m);
    if (!broken) broken = rl_task_check(m);
    if (!broken) broken = rl_stream_check(m);
    if (!broken) broken = rl_actor_check(m);
    return broken;
}

int rl_check(rl_session *s, const char **broken)
{
    uint32_t capacity = s->map.control->objects.capacity;
    uint32_t *names = rl_reserve((size_t)capacity * sizeof *names);
    if (names == NULL) return RL_ETABLE;
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_CHECK);
    if (!err) {
        *broken = rl_check_modules(&s->map);
        if (!*broken) *broken = rl_object_check_reachable(&s->map);
        if (!*broken) *broken = check_names(&s->map, names);
        if (!*broken) *broken = check_slots(&s->map);
        rl_leave(&section);
    }
    rl_unreserve(names, (size_t)capacity * sizeof *names);
    return err;
}
