/* rl_session.c - see rl_session.h. */
#include "rl_session.h"

#include "rl_check.h"
#include "rl_err.h"
#include "rl_lock.h"
#include "rl_repair.h"
#include "rl_slot.h"
#include "rl_wait.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Give back the private memory; any of it may be missing. */
static void unreserve(rl_session *s)
{
    if (s->attached) rl_unreserve(s->attached, sizeof *s->attached);
    if (s->local) rl_unreserve(s->local, s->local_nbytes);
    if (s->warm) rl_unreserve(s->warm, s->warm_nbytes);
}

static int reserve(rl_session *s)
{
    s->attached = rl_reserve_wiped(sizeof *s->attached);
    s->local = rl_reserve(s->local_nbytes);
    s->warm = rl_reserve(s->warm_nbytes);
    return s->attached && s->local && s->warm ? 0 : ENOMEM;
}

int rl_session_join(rl_session *s, const rl_mapping *m, uint32_t role, int bell_fd, int peer_fd)
{
    memset(s, 0, sizeof *s);
    s->map = *m;
    s->slot = RL_NIL;
    s->pid = (uint32_t)getpid();
    s->bell_fd = bell_fd;
    s->peer_fd = peer_fd;
    s->local_nbytes = (size_t)m->control->objects.capacity * sizeof *s->local;
    s->warm_nbytes = (size_t)(m->data_size >> 16) / 8 + 1;
    int err = reserve(s);
    if (!err) err = pthread_mutex_init(&s->local_mutex, NULL);
    if (!err) {
        atomic_store_explicit(s->attached, 1, memory_order_relaxed);
        err = rl_slot_claim(s, role);
    }
    if (err) unreserve(s);
    return err;
}

int rl_session_leave(rl_session *s)
{
    int err = rl_slot_release(s, s->slot);
    rl_session_detach(s);
    return err;
}

void rl_session_detach(rl_session *s)
{
    atomic_store_explicit(s->attached, 0, memory_order_release);
}

void rl_session_interrupt(rl_session *s)
{
    atomic_fetch_add_explicit(&s->interrupts, 1, memory_order_seq_cst);
    rl_doorbell_ring(&s->map.slots[s->slot]);
}

void rl_session_dispose(rl_session *s)
{
    unreserve(s);
    pthread_mutex_destroy(&s->local_mutex);
}

static int repair(void *context)
{
    rl_session *s = context;
    return rl_repair(s);
}

int rl_enter(rl_session *s, rl_section *section, uint32_t op)
{
    if (rl_is_detached(s)) return RL_EDEAD;
    *section = (rl_section){.s = s, .called = RL_NIL};
    return rl_lock_acquire(&s->map.control->lock, s->pid, op, repair, s);
}

static void ring_supervisor(rl_session *s)
{
    if (s->bell_fd < 0) return;
    if (atomic_exchange_explicit(&s->map.control->bell, 1, memory_order_acq_rel)) return;
    uint64_t one = 1;
    /* A full counter or a closed reader loses nothing: the supervisor looks once a second too. */
    ssize_t n = write(s->bell_fd, &one, sizeof one);
    (void)n;
}

/* Debug builds look at every invariant now and then: always would make each section O(tables). */
static void check_now_and_then(rl_session *s)
{
#ifdef RL_CHECKS
    uint32_t n = atomic_fetch_add_explicit(&s->sections, 1, memory_order_relaxed) + 1;
    if (n % RL_CHECK_EVERY) return;
    const char *broken = rl_check_modules(&s->map);
    if (broken == NULL) return;
    dprintf(STDERR_FILENO, "ray_lite: broken invariant: %s\n", broken);
    abort();
#else
    (void)s;
#endif
}

static void ring_all_callbells(const rl_session *s)
{
    for (uint32_t i = 0; i < RL_MAX_SLOTS; i++) {
        rl_callbell_ring(&s->map.slots[i], RL_ALL_GROUPS);
    }
}

void rl_leave(rl_section *section)
{
    rl_session *s = section->s;
    check_now_and_then(s);
    rl_lock_release(&s->map.control->lock);
    for (uint32_t w = 0; w < RL_SLOT_WORDS; w++) {
        for (uint64_t bits = section->ring[w]; bits; bits &= bits - 1) {
            rl_doorbell_ring(&s->map.slots[w * 64 + (uint32_t)__builtin_ctzll(bits)]);
        }
    }
    if (section->called != RL_NIL) {
        rl_callbell_ring(&s->map.slots[section->called], section->called_groups);
    }
    if (section->called_all) ring_all_callbells(s);
    if (section->freed) rl_room_announce(s->map.control);
    if (section->bell) ring_supervisor(s);
}

void rl_session_end(rl_session *s)
{
    atomic_store_explicit(&s->map.control->ended, 1, memory_order_release);
    for (uint32_t i = 0; i < RL_MAX_SLOTS; i++) rl_doorbell_ring(&s->map.slots[i]);
    ring_all_callbells(s);
    rl_room_announce(s->map.control);
}
