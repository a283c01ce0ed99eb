/* rl_wait.c - see rl_wait.h. */
#include "rl_wait.h"

#include "rl_err.h"
#include "rl_task.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_ROUNDS = 24, PAUSES = 32 };
#define SECOND_NS INT64_C(1000000000)

int64_t rl_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* Wake up to `n` of those that sleep on `word` for any of `bits`. */
static void futex_wake(_Atomic uint32_t *word, int n, uint32_t bits)
{
    syscall(SYS_futex, word, FUTEX_WAKE_BITSET, n, NULL, NULL, bits);
}

/* Sleep for `bits` while *word == seen. Returns 0, RL_ETIMEDOUT at `deadline_ns`, EINTR on a signal
 * or after a second. */
static int futex_wait(_Atomic uint32_t *word, uint32_t bits, uint32_t seen, int64_t deadline_ns)
{
    int64_t now = rl_now_ns();
    if (deadline_ns <= now) return RL_ETIMEDOUT;
    int backstop = deadline_ns - now > SECOND_NS;
    int64_t end = backstop ? now + SECOND_NS : deadline_ns;
    struct timespec until = {.tv_sec = end / SECOND_NS, .tv_nsec = end % SECOND_NS};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, &until, NULL, bits);
    if (rc == 0 || errno == EAGAIN) return 0;
    return errno == ETIMEDOUT && !backstop ? RL_ETIMEDOUT : EINTR;
}

void rl_doorbell_ring(rl_slot *slot)
{
    atomic_fetch_add_explicit(&slot->doorbell, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&slot->sleepers, memory_order_seq_cst)) {
        futex_wake(&slot->doorbell, INT_MAX, FUTEX_BITSET_MATCH_ANY);
    }
}

void rl_callbell_ring(rl_slot *slot, uint32_t groups)
{
    atomic_fetch_add_explicit(&slot->callbell, 1, memory_order_seq_cst);
    int one = (groups & (groups - 1)) == 0 && groups != RL_SHARED_BIT;
    if (one && atomic_load_explicit(&slot->spinning, memory_order_seq_cst) & groups) return;
    if (atomic_load_explicit(&slot->idlers, memory_order_seq_cst)) {
        futex_wake(&slot->callbell, one ? 1 : INT_MAX, groups);
    }
}

uint32_t rl_doorbell_read(const rl_session *s)
{
    return atomic_load_explicit(&s->map.slots[s->slot].doorbell, memory_order_acquire);
}

uint32_t rl_callbell_read(const rl_session *s)
{
    return atomic_load_explicit(&s->map.slots[s->slot].callbell, memory_order_acquire);
}

static int spin_on(const _Atomic uint32_t *word, uint32_t seen)
{
    for (int round = 0; round < SPIN_ROUNDS; round++) {
        for (int i = 0; i < PAUSES; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != seen) return 1;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#elif defined(__aarch64__)
            __asm__ volatile("yield");
#endif
        }
        sched_yield();
    }
    return 0;
}

int rl_doorbell_spin(const rl_session *s, uint32_t seen)
{
    return spin_on(&s->map.slots[s->slot].doorbell, seen);
}

int rl_callbell_spin(const rl_session *s, uint32_t bit, uint32_t seen)
{
    rl_slot *slot = &s->map.slots[s->slot];
    if (atomic_fetch_or_explicit(&slot->spinning, bit, memory_order_seq_cst) & bit) return 0;
    int rung = spin_on(&slot->callbell, seen);
    atomic_fetch_and_explicit(&slot->spinning, ~bit, memory_order_seq_cst);
    return rung;
}

/* The supervisor's pidfd turns readable when it dies. */
static int peer_is_dead(const rl_session *s)
{
    if (s->peer_fd < 0) return 0;
    struct pollfd p = {.fd = s->peer_fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static int session_is_over(const rl_session *s)
{
    return atomic_load_explicit(&s->map.control->ended, memory_order_acquire) || peer_is_dead(s);
}

/* Sleep on `word` for `bits`, counted in `sleepers`, with this process's CPU lent out meanwhile. */
static int sleep_on(rl_session *s, _Atomic uint32_t *word, uint32_t bits,
                    _Atomic uint32_t *sleepers, uint32_t seen, int64_t deadline_ns)
{
    if (session_is_over(s)) return RL_EDEAD;
    if (atomic_load_explicit(&s->map.control->lock.poisoned, memory_order_acquire)) {
        return RL_ECORRUPT; /* what it waits for will never come */
    }
    int lent = rl_task_block(s);
    atomic_fetch_add_explicit(sleepers, 1, memory_order_seq_cst);
    int err = futex_wait(word, bits, seen, deadline_ns);
    atomic_fetch_sub_explicit(sleepers, 1, memory_order_seq_cst);
    if (lent) rl_task_unblock(s);
    return err;
}

int rl_doorbell_wait(rl_session *s, uint32_t seen, int64_t deadline_ns)
{
    if (rl_is_detached(s)) return RL_EDEAD;
    rl_slot *slot = &s->map.slots[s->slot];
    return sleep_on(s, &slot->doorbell, FUTEX_BITSET_MATCH_ANY, &slot->sleepers, seen, deadline_ns);
}

int rl_callbell_wait(rl_session *s, uint32_t bit, uint32_t seen, int64_t deadline_ns)
{
    if (rl_is_detached(s)) return RL_EDEAD;
    rl_slot *slot = &s->map.slots[s->slot];
    return sleep_on(s, &slot->callbell, bit, &slot->idlers, seen, deadline_ns);
}

void rl_room_announce(rl_control *c)
{
    atomic_fetch_add_explicit(&c->freed, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&c->room_waiters, memory_order_seq_cst)) {
        futex_wake(&c->freed, INT_MAX, FUTEX_BITSET_MATCH_ANY);
    }
}

int rl_room_wait(rl_session *s, uint32_t seen, int64_t deadline_ns)
{
    if (rl_is_detached(s)) return RL_EDEAD;
    rl_control *c = s->map.control;
    return sleep_on(s, &c->freed, FUTEX_BITSET_MATCH_ANY, &c->room_waiters, seen, deadline_ns);
}
