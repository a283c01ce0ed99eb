/* rl_lock.c - see rl_lock.h. */
#include "rl_lock.h"

#include "rl_err.h"
#include "rl_fault.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { SPINS = 100 };

int rl_lock_init(rl_lock *lock)
{
    pthread_mutexattr_t attributes;
    int err = pthread_mutexattr_init(&attributes);
    if (err) return err;
    err = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (!err) err = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (!err) err = pthread_mutex_init(&lock->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return err;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Asked before the mutex is: glibc's pthread_mutex_trylock() says ENOTRECOVERABLE once and leaves
 * the mutex locked, so that who comes next would wait for ever (seen in 2.36). */
static int is_poisoned(const rl_lock *lock)
{
    return atomic_load_explicit(&lock->poisoned, memory_order_acquire) != 0;
}

/* The holder is slow or stopped. Wait, and after a second say who it is. */
static int lock_slowly(rl_lock *lock)
{
    for (int told = 0;; told = 1) {
        struct timespec deadline;
        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_sec += 1;
        int err = pthread_mutex_timedlock(&lock->mutex, &deadline);
        if (err != ETIMEDOUT) return err;
        if (is_poisoned(lock)) return ENOTRECOVERABLE;
        if (told) continue;
        dprintf(STDERR_FILENO,
                "ray_lite: process %u has held the session's lock for a second; is it stopped? "
                "Waiting for it (continue or kill it).\n",
                atomic_load_explicit(&lock->holder, memory_order_relaxed));
    }
}

static int lock_mutex(rl_lock *lock)
{
    for (int i = 0; i < SPINS; i++) {
        int err = pthread_mutex_trylock(&lock->mutex);
        if (err != EBUSY) return err;
        relax();
    }
    return lock_slowly(lock);
}

/* We own the mutex of a dead process. */
static int take_over(rl_lock *lock, rl_repair_fn repair, void *context)
{
    RL_KILL_POINT("lock.take_over");
    if (RL_REPAIRS() && atomic_load_explicit(&lock->dirty, memory_order_acquire) != 0) {
        if (repair(context) != 0) {
            atomic_store_explicit(&lock->poisoned, 1, memory_order_release);
            pthread_mutex_unlock(&lock->mutex); /* not made consistent: nobody gets it again (I2) */
            return RL_ECORRUPT;
        }
        atomic_fetch_add_explicit(&lock->repairs, 1, memory_order_relaxed);
        RL_KILL_POINT("lock.repaired");
        atomic_store_explicit(&lock->dirty, 0, memory_order_release);
    }
    pthread_mutex_consistent(&lock->mutex);
    return 0;
}

int rl_lock_acquire(rl_lock *lock, uint32_t pid, uint32_t op, rl_repair_fn repair, void *context)
{
    if (is_poisoned(lock)) return RL_ECORRUPT;
    int err = lock_mutex(lock);
    if (err == EOWNERDEAD) err = take_over(lock, repair, context);
    if (err) return err == ENOTRECOVERABLE ? RL_ECORRUPT : err;

    atomic_store_explicit(&lock->holder, pid, memory_order_relaxed);
    atomic_store_explicit(&lock->dirty, op, memory_order_relaxed);
    /* The compiler must not move a write of the section before `dirty`: a kill falls between two
     * instructions. The processor's order does not matter: the kernel's exit path settles it. */
    atomic_signal_fence(memory_order_seq_cst);
    return 0;
}

void rl_lock_release(rl_lock *lock)
{
    atomic_store_explicit(&lock->dirty, 0, memory_order_release);
    RL_KILL_POINT("lock.clean");
    pthread_mutex_unlock(&lock->mutex);
}
