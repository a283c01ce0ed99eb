/* rl_slot.c - see rl_slot.h. */
#include "rl_slot.h"

#include "rl_arena.h"
#include "rl_err.h"
#include "rl_fault.h"
#include "rl_object.h"
#include "rl_stream.h"
#include "rl_task.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t rl_process_start_time(uint32_t pid)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;

    /* Field 22; the command in field 2 may hold spaces and brackets, so count from its end. */
    const char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++) p = strchr(p + 1, ' ');
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

static uint32_t find_free_slot(const rl_mapping *m)
{
    for (uint32_t i = 0; i < RL_MAX_SLOTS; i++) {
        if (atomic_load_explicit(&m->slots[i].state, memory_order_relaxed) == RL_SLOT_FREE) {
            return i;
        }
    }
    return RL_NIL;
}

int rl_slot_claim(rl_session *s, uint32_t role)
{
    uint64_t start_time = rl_process_start_time(s->pid);
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_SLOT);
    if (err) return err;

    uint32_t i = find_free_slot(&s->map);
    if (i == RL_NIL) {
        err = RL_ENOSLOT;
    } else {
        rl_control *c = s->map.control;
        rl_slot *slot = &s->map.slots[i];
        slot->pid = s->pid;
        slot->start_time = start_time;
        slot->gen++;
        slot->role = role;
        atomic_store_explicit(&slot->blocked, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->task, RL_NIL, memory_order_relaxed);
        atomic_store_explicit(&slot->leaving, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->sleepers, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->idlers, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->spinning, 0, memory_order_relaxed);
        atomic_store_explicit(&c->private_nbytes[i], 0, memory_order_relaxed);
        c->slots.high_water = i >= c->slots.high_water ? i + 1 : c->slots.high_water;
        RL_KILL_POINT("slot.claim.before");
        atomic_store_explicit(&slot->state, RL_SLOT_LIVE, memory_order_release); /* COMMIT */
        RL_KILL_POINT("slot.claim.after");
        if (role == RL_ROLE_SUPERVISOR) c->supervisor = i;
        c->workers += role == RL_ROLE_WORKER;
        s->slot = i;
    }
    rl_leave(&section);
    return err;
}

int rl_slot_release(rl_session *s, uint32_t index)
{
    if (index >= RL_MAX_SLOTS) return RL_EINVAL;
    rl_section section;
    int err = rl_enter(s, &section, RL_OP_JANITOR);
    if (err) return err;

    rl_mapping *m = &s->map;
    rl_slot *slot = &m->slots[index];
    if (atomic_load_explicit(&slot->state, memory_order_relaxed) != RL_SLOT_FREE) {
        atomic_store_explicit(&slot->state, RL_SLOT_DYING, memory_order_release);
        m->control->idle[index / 64] &= ~(UINT64_C(1) << (index % 64));
        /* From here on nothing is handed to it. */
        if (m->control->supervisor == index) m->control->supervisor = RL_NIL;
        RL_KILL_POINT("slot.release.dying");
        rl_task_strand_claims(&section, index);
        RL_KILL_POINT("slot.release.tasks");
        rl_arena_free_filling(&section, index);
        atomic_store_explicit(&m->control->private_nbytes[index], 0, memory_order_relaxed);
        RL_KILL_POINT("slot.release.blocks");
        rl_object_drop_holds(&section, index);
        rl_task_recheck_waiting(&section);
        RL_KILL_POINT("slot.release.before");
        atomic_store_explicit(&slot->state, RL_SLOT_FREE, memory_order_release); /* COMMIT */
        m->control->workers -= slot->role == RL_ROLE_WORKER;
        RL_KILL_POINT("slot.release.after");
        for (uint32_t w = 0; w < RL_SLOT_WORDS; w++) section.ring[w] = UINT64_MAX;
        section.called_all = 1;
        section.freed = 1;
    }
    rl_leave(&section);
    return 0;
}

uint32_t rl_slot_find(const rl_session *s, uint32_t pid)
{
    for (uint32_t i = 0; i < RL_MAX_SLOTS; i++) {
        const rl_slot *slot = &s->map.slots[i];
        uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
        if (state != RL_SLOT_FREE && slot->pid == pid) return i;
    }
    return RL_NIL;
}

void rl_slot_ring(rl_section *section, uint32_t i)
{
    section->s->map.control->idle[i / 64] &= ~(UINT64_C(1) << (i % 64));
    section->ring[i / 64] |= UINT64_C(1) << (i % 64);
}

void rl_slot_ring_call(rl_section *section, uint32_t i, uint32_t groups)
{
    if (section->called != RL_NIL && section->called != i) {
        section->called_all = 1;
        return;
    }
    section->called = i;
    section->called_groups |= groups;
}

/* An idle worker, or RL_NIL. One that still spins rather than one that sleeps: it is there at once,
 * and costs no system call. */
static uint32_t choose_idle(const rl_mapping *m)
{
    uint32_t sleeper = RL_NIL;
    for (uint32_t w = 0; w < RL_SLOT_WORDS; w++) {
        for (uint64_t bits = m->control->idle[w]; bits; bits &= bits - 1) {
            uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);
            if (!atomic_load_explicit(&m->slots[i].sleepers, memory_order_relaxed)) return i;
            if (sleeper == RL_NIL) sleeper = i;
        }
    }
    return sleeper;
}

int rl_slot_ring_idle(rl_section *section)
{
    uint32_t i = choose_idle(&section->s->map);
    if (i == RL_NIL) return 0;
    rl_slot_ring(section, i);
    return 1;
}
