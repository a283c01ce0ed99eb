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

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Sleep while *word == seen. Returns 0, RL_ETIMEDOUT at `deadline_ns`, EINTR on a signal or after a
 * second. */
static int futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline_ns)
{
    int64_t left = deadline_ns == INT64_MAX ? SECOND_NS : deadline_ns - rl_now_ns();
    if (left <= 0) return RL_ETIMEDOUT;
    int backstop = left > SECOND_NS || deadline_ns == INT64_MAX;
    if (left > SECOND_NS) left = SECOND_NS;
    struct timespec timeout = {.tv_sec = left / SECOND_NS, .tv_nsec = left % SECOND_NS};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT, seen, &timeout, NULL, 0);
    if (rc == 0 || errno == EAGAIN) return 0;
    return errno == ETIMEDOUT && !backstop ? RL_ETIMEDOUT : EINTR;
}

void rl_doorbell_ring(rl_slot *slot)
{
    atomic_fetch_add_explicit(&slot->doorbell, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&slot->sleepers, memory_order_seq_cst)) {
        futex_wake_all(&slot->doorbell);
    }
}

uint32_t rl_doorbell_read(const rl_session *s)
{
    return atomic_load_explicit(&s->map.slots[s->slot].doorbell, memory_order_acquire);
}

int rl_doorbell_spin(const rl_session *s, uint32_t seen)
{
    for (int round = 0; round < SPIN_ROUNDS; round++) {
        for (int i = 0; i < PAUSES; i++) {
            if (rl_doorbell_read(s) != seen) return 1;
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

/* Sleep on `word`, counted in `sleepers`, with this process's CPU lent out meanwhile. */
static int sleep_on(rl_session *s, _Atomic uint32_t *word, _Atomic uint32_t *sleepers,
                    uint32_t seen, int64_t deadline_ns)
{
    if (session_is_over(s)) return RL_EDEAD;
    if (atomic_load_explicit(&s->map.control->lock.poisoned, memory_order_acquire)) {
        return RL_ECORRUPT; /* what it waits for will never come */
    }
    int lent = rl_task_block(s);
    atomic_fetch_add_explicit(sleepers, 1, memory_order_seq_cst);
    int err = futex_wait(word, seen, deadline_ns);
    atomic_fetch_sub_explicit(sleepers, 1, memory_order_seq_cst);
    if (lent) rl_task_unblock(s);
    return err;
}

int rl_doorbell_wait(rl_session *s, uint32_t seen, int64_t deadline_ns)
{
    if (rl_is_detached(s)) return RL_EDEAD;
    rl_slot *slot = &s->map.slots[s->slot];
    return sleep_on(s, &slot->doorbell, &slot->sleepers, seen, deadline_ns);
}

void rl_room_announce(rl_control *c)
{
    atomic_fetch_add_explicit(&c->freed, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&c->room_waiters, memory_order_seq_cst)) futex_wake_all(&c->freed);
}

int rl_room_wait(rl_session *s, uint32_t seen, int64_t deadline_ns)
{
    if (rl_is_detached(s)) return RL_EDEAD;
    rl_control *c = s->map.control;
    return sleep_on(s, &c->freed, &c->room_waiters, seen, deadline_ns);
}
