/* rl_actor.c - see rl_actor.h. */
#include "rl_actor.h"

#include "rl_err.h"
#include "rl_object.h"
#include "rl_slot.h"
#include "rl_table.h"
#include "rl_task.h"
#include "rl_wait.h"

#include <errno.h>
#include <string.h>

/* ---- records and names ---- */

static uint32_t search(const rl_mapping *m, const char *space, const char *name)
{
    for (uint32_t i = 0; name[0] && i < m->control->actors.high_water; i++) {
        const rl_actor *a = &m->actors[i];
        if (a->task != RL_NIL && !strcmp(a->name, name) && !strcmp(a->space, space)) return i;
    }
    return RL_NIL;
}

int rl_actor_check_spec(const rl_mapping *m, const rl_actor_spec *spec)
{
    if (strlen(spec->name) >= RL_ACTOR_NAME || strlen(spec->space) >= RL_ACTOR_NAME) {
        return RL_EINVAL;
    }
    if (search(m, spec->space, spec->name) != RL_NIL) return EEXIST;
    return rl_table_room(&m->control->actors) ? 0 : RL_ETABLE;
}

uint32_t rl_actor_make(rl_mapping *m, uint32_t task, const rl_actor_spec *spec)
{
    uint32_t i =
        rl_table_take(&m->control->actors, m->actors, sizeof(rl_actor), offsetof(rl_actor, next));
    rl_actor *a = &m->actors[i];
    *a = (rl_actor){.task = task,
                    .head = RL_NIL,
                    .tail = RL_NIL,
                    .flags = spec->flags,
                    .most_calls = spec->most_calls,
                    .most_untaken = spec->most_untaken};
    strncpy(a->name, spec->name, RL_ACTOR_NAME - 1);
    strncpy(a->space, spec->space, RL_ACTOR_NAME - 1);
    return i;
}

void rl_actor_free(rl_mapping *m, uint32_t actor)
{
    m->actors[actor].task = RL_NIL;
    rl_table_give(&m->control->actors, m->actors, sizeof(rl_actor), offsetof(rl_actor, next),
                  actor);
}

uint32_t rl_actor_of(const rl_mapping *m, uint32_t object)
{
    uint32_t task = atomic_load_explicit(&m->objects[object].producer, memory_order_relaxed);
    if (task >= m->control->tasks.high_water) return RL_NIL;
    return m->tasks[task].mailbox;
}

/* The object that stands for the actor. */
static uint32_t object_of(const rl_mapping *m, const rl_actor *a)
{
    return m->tasks[a->task].returns.head;
}

int rl_actor_find(rl_session *s, const char *space, const char *name, rl_handle *actor,
                  rl_handle *function)
{
    rl_section section;
    pthread_mutex_lock(&s->local_mutex);
    int err = rl_enter(s, &section, RL_OP_OBJECT);
    if (err) goto unlock;
    const rl_mapping *m = &s->map;
    uint32_t i = search(m, space, name);
    if (i == RL_NIL) {
        err = RL_ESTALE;
    } else {
        *actor = rl_object_adopt(s, object_of(m, &m->actors[i]));
        *function = rl_object_adopt(s, m->tasks[m->actors[i].task].function);
    }
    rl_leave(&section);
unlock:
    pthread_mutex_unlock(&s->local_mutex);
    return err;
}

int rl_actor_next_name(rl_session *s, uint32_t *cursor, char space[RL_ACTOR_NAME],
                       char name[RL_ACTOR_NAME])
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_OBJECT);
    if (err) return err;
    const rl_mapping *m = &s->map;
    err = RL_EAGAIN;
    for (uint32_t i = *cursor; i < m->control->actors.high_water && err; i++) {
        const rl_actor *a = &m->actors[i];
        if (a->task == RL_NIL || !a->name[0]) continue;
        memcpy(space, a->space, RL_ACTOR_NAME);
        memcpy(name, a->name, RL_ACTOR_NAME);
        *cursor = i + 1;
        err = 0;
    }
    rl_leave(&section);
    return err;
}

int rl_actor_kill(rl_session *s, rl_handle actor, uint32_t kill)
{
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_OBJECT);
    if (err) return err;
    rl_mapping *m = &s->map;
    uint32_t i = rl_actor_of(m, actor.index);
    if (rl_object_handle(m, actor.index).gen != actor.gen || i == RL_NIL) {
        err = RL_ESTALE;
    } else {
        rl_actor *a = &m->actors[i];
        if (kill > atomic_load_explicit(&a->kill, memory_order_relaxed)) {
            atomic_store_explicit(&a->kill, kill, memory_order_relaxed);
        }
        if (kill == RL_KILL_FOR_EVER) a->name[0] = 0;
        atomic_store_explicit(&m->control->orders, 1, memory_order_relaxed);
        section.bell = 1;
    }
    rl_leave(&section);
    return err;
}

/* ---- live calls ---- */

void rl_actor_count(rl_mapping *m, uint32_t actor, uint32_t submitter, int n)
{
    m->actors[actor].calls += (uint32_t)n;
    m->actors[actor].calls_of[submitter] += (uint32_t)n;
}

int rl_actor_is_full(const rl_mapping *m, uint32_t actor, uint32_t submitter)
{
    const rl_actor *a = &m->actors[actor];
    return a->most_calls && a->calls_of[submitter] >= a->most_calls;
}

/* ---- mailboxes ---- */

void rl_mailbox_add(rl_mapping *m, uint32_t actor, uint32_t call)
{
    rl_actor *a = &m->actors[actor];
    uint64_t seq = m->tasks[call].seq;
    uint32_t before = RL_NIL;
    if (a->tail != RL_NIL && m->tasks[a->tail].seq < seq) {
        before = a->tail; /* as nearly always */
    } else {
        for (uint32_t i = a->head; i != RL_NIL && m->tasks[i].seq < seq; i = m->tasks[i].next) {
            before = i;
        }
    }
    uint32_t *link = before == RL_NIL ? &a->head : &m->tasks[before].next;
    m->tasks[call].next = *link;
    *link = call;
    if (m->tasks[call].next == RL_NIL) a->tail = call;
}

void rl_mailbox_remove(rl_mapping *m, uint32_t actor, uint32_t call)
{
    rl_actor *a = &m->actors[actor];
    uint32_t before = RL_NIL;
    for (uint32_t i = a->head; i != call; i = m->tasks[i].next) {
        if (i == RL_NIL) return;
        before = i;
    }
    *(before == RL_NIL ? &a->head : &m->tasks[before].next) = m->tasks[call].next;
    if (a->tail == call) a->tail = before;
}

uint32_t rl_mailbox_choose(const rl_mapping *m, uint32_t actor, uint32_t group)
{
    const rl_actor *a = &m->actors[actor];
    uint64_t held_up[RL_SLOT_WORDS] = {0}; /* submitters with an older call that waits */
    for (uint32_t i = a->head; i != RL_NIL; i = m->tasks[i].next) {
        const rl_task *t = &m->tasks[i];
        if (t->group != group) continue;
        uint64_t bit = UINT64_C(1) << (t->submitter % 64);
        uint64_t *word = &held_up[t->submitter / 64];
        uint32_t state = atomic_load_explicit(&t->state, memory_order_relaxed);
        if (state == RL_TASK_READY && !(*word & bit)) return i;
        if (a->flags & RL_ACTOR_ORDERED) *word |= bit;
    }
    return RL_NIL;
}

static uint32_t slot_of(const rl_mapping *m, uint32_t actor)
{
    return rl_task_worker(m, m->actors[actor].task);
}

void rl_actor_ring(rl_section *section, uint32_t actor)
{
    uint32_t slot = slot_of(&section->s->map, actor);
    if (slot != RL_NIL) rl_slot_ring(section, slot);
}

void rl_actor_ring_group(rl_section *section, uint32_t actor, uint32_t group)
{
    const rl_mapping *m = &section->s->map;
    uint32_t slot = slot_of(m, actor);
    if (slot == RL_NIL) return;
    int is_alone = m->slots[slot].role == RL_ROLE_WORKER; /* local mode: many actors in a driver */
    rl_slot_ring_call(section, slot, is_alone ? rl_group_bit(group) : RL_ALL_GROUPS);
}

void rl_actor_ring_over(rl_section *section, uint32_t actor)
{
    uint32_t slot = slot_of(&section->s->map, actor);
    if (slot != RL_NIL) rl_slot_ring_call(section, slot, RL_ALL_GROUPS);
}

int rl_actor_is_over(const rl_mapping *m, uint32_t actor)
{
    const rl_actor *a = &m->actors[actor];
    if (a->calls || (a->flags & RL_ACTOR_DETACHED)) return 0;
    return rl_object_is_only_produced(m, object_of(m, a));
}

/* ---- rebuild ---- */

void rl_actor_rebuild_begin(rl_mapping *m)
{
    for (uint32_t i = 0; i < m->control->actors.high_water; i++) {
        rl_actor *a = &m->actors[i];
        a->task = a->head = a->tail = RL_NIL;
        a->calls = 0;
        atomic_store_explicit(&a->untaken, 0, memory_order_relaxed);
        memset(a->calls_of, 0, sizeof(a->calls_of));
    }
    rl_table_rebuild_begin(&m->control->actors);
}

void rl_actor_rebuild_use(rl_mapping *m, uint32_t actor, uint32_t task)
{
    m->actors[actor].task = task;
}

void rl_actor_rebuild_end(rl_mapping *m)
{
    for (uint32_t i = m->control->actors.high_water; i-- > 0;) {
        if (m->actors[i].task == RL_NIL) rl_actor_free(m, i);
    }
    /* A kill whose actor's name was taken may not have reached the supervisor. */
    atomic_store_explicit(&m->control->orders, 1, memory_order_relaxed);
}

/* ---- check ---- */

static const char *check_mailbox(const rl_mapping *m, const rl_actor *a)
{
    uint64_t seq = 0;
    uint32_t last = RL_NIL, n = 0;
    for (uint32_t i = a->head; i != RL_NIL; i = m->tasks[i].next) {
        if (i >= m->control->tasks.high_water || ++n > a->calls)
            return "actor: broken mailbox (A2)";
        const rl_task *t = &m->tasks[i];
        uint32_t state = atomic_load(&t->state) & RL_TASK_STATE;
        if (state != RL_TASK_WAITING && state != RL_TASK_READY) {
            return "actor: its mailbox has a call that is over (A2)";
        }
        if (t->actor != object_of(m, a) || t->seq <= seq) {
            return "actor: its mailbox has a stranger, or is out of order (A2)";
        }
        seq = t->seq;
        last = i;
    }
    return last == a->tail ? NULL : "actor: wrong end of a mailbox (A2)";
}

const char *rl_actor_check(const rl_mapping *m)
{
    uint32_t nfree = 0, queued = 0, in_mailboxes = 0;
    for (uint32_t i = 0; i < m->control->actors.high_water; i++) {
        const rl_actor *a = &m->actors[i];
        nfree += a->task == RL_NIL;
        if (a->task == RL_NIL) continue;
        if (a->task >= m->control->tasks.high_water || m->tasks[a->task].mailbox != i) {
            return "actor: its task is another's (A1)";
        }
        uint32_t calls = 0;
        for (uint32_t k = 0; k < RL_MAX_SLOTS; k++) calls += a->calls_of[k];
        if (calls != a->calls) return "actor: a call has no submitter (A3)";
        const char *broken = check_mailbox(m, a);
        if (broken) return broken;
        for (uint32_t k = a->head; k != RL_NIL; k = m->tasks[k].next) in_mailboxes++;
    }
    for (uint32_t i = 0; i < m->control->tasks.high_water; i++) {
        const rl_task *t = &m->tasks[i];
        uint32_t state = atomic_load(&t->state) & RL_TASK_STATE;
        queued += (state == RL_TASK_WAITING || state == RL_TASK_READY) && t->actor != RL_NIL;
    }
    if (queued != in_mailboxes) return "actor: a call is in no mailbox (A2)";
    return nfree == m->control->actors.nfree ? NULL : "actor: a free record is lost";
}
