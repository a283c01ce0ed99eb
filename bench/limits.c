/* limits.c - what this machine can do at most, in the units of the benchmarks.
 *
 * Owns three measurements and nothing of ray_lite, so that no bug of ours can move a limit.
 *   memcpy   copy of 512 MiB to pages that are warm in this process, by one and by two threads;
 *            and of 1 MB, over and over to one block, as a put does that gets the block it wrote last
 *   futex    round trip between two processes that wait for each other's futex word: asleep in the
 *            kernel each time, and spinning (with sched_yield) before they would sleep
 *   fill     50 MB blocks, warm, written in turn: what a producer of arrays does at the very least
 * Prints `name<TAB>value<TAB>unit` lines, each the best of some rounds. Arguments choose.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 7
#define COPY_BYTES ((size_t)512 << 20)
#define SMALL_COPY_BYTES ((size_t)1000000)
#define FILL_BYTES ((size_t)50000000)
#define FILL_BLOCKS 8
#define TRIPS 20000

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *map_shared(size_t nbytes)
{
    void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

static void report(const char *name, double value, const char *unit)
{
    printf("%s\t%.6g\t%s\n", name, value, unit);
}

/* ---- memcpy ---- */

typedef struct copy {
    char *to;
    const char *from;
    size_t nbytes;
} copy;

static void *copy_run(void *arg)
{
    const copy *c = arg;
    memcpy(c->to, c->from, c->nbytes);
    return NULL;
}

static void copy_with_two_threads(char *to, const char *from, size_t nbytes)
{
    copy half = {to, from, nbytes / 2};
    pthread_t other;
    if (pthread_create(&other, NULL, copy_run, &half)) {
        fputs("limits: no second thread\n", stderr);
        exit(1);
    }
    memcpy(to + nbytes / 2, from + nbytes / 2, nbytes - nbytes / 2);
    pthread_join(other, NULL);
}

static double best_copy(char *to, const char *from, int threads)
{
    double best = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double start = now_s();
        if (threads == 2) {
            copy_with_two_threads(to, from, COPY_BYTES);
        } else {
            memcpy(to, from, COPY_BYTES);
        }
        double rate = (double)COPY_BYTES / (now_s() - start) / 1e9;
        if (rate > best) best = rate;
    }
    return best;
}

/* Both stay in the cache. The compiler must not see that all but the last copy are in vain. */
static double best_small_copy(char *to, const char *from)
{
    const size_t n = COPY_BYTES / SMALL_COPY_BYTES;
    void *(*volatile copy_bytes)(void *, const void *, size_t) = memcpy;
    double best = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double start = now_s();
        for (size_t k = 0; k < n; k++) copy_bytes(to, from, SMALL_COPY_BYTES);
        double rate = (double)(n * SMALL_COPY_BYTES) / (now_s() - start) / 1e9;
        if (rate > best) best = rate;
    }
    return best;
}

static void measure_memcpy(void)
{
    char *from = map_shared(COPY_BYTES), *to = map_shared(COPY_BYTES);
    memset(from, 1, COPY_BYTES);
    memset(to, 2, COPY_BYTES);
    report("memcpy to warm pages, one thread", best_copy(to, from, 1), "GB/s");
    report("memcpy to warm pages, two threads", best_copy(to, from, 2), "GB/s");
    report("memcpy of 1 MB to one warm block", best_small_copy(to, from), "GB/s");
    munmap(from, COPY_BYTES);
    munmap(to, COPY_BYTES);
}

/* ---- futex ---- */

/* One word for each direction, on a line of its own: the number of the last trip. */
typedef struct court {
    _Alignas(64) _Atomic uint32_t ping;
    _Alignas(64) _Atomic uint32_t pong;
} court;

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    if (syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0) && errno != EAGAIN &&
        errno != EINTR) {
        perror("futex");
        exit(1);
    }
}

static void await(_Atomic uint32_t *word, uint32_t trip, int spins)
{
    for (;;) {
        uint32_t seen = atomic_load_explicit(word, memory_order_acquire);
        if (seen == trip) return;
        if (spins-- > 0) {
            if (spins % 32 == 0) sched_yield();
        } else {
            futex_wait(word, seen);
        }
    }
}

static void hit(_Atomic uint32_t *word, uint32_t trip)
{
    atomic_store_explicit(word, trip, memory_order_release);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* The one who answers ends with the one who asks, whatever becomes of it. */
static void answer(court *c, int spins)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint32_t trip = 1; trip <= ROUNDS * TRIPS; trip++) {
        await(&c->ping, trip, spins);
        hit(&c->pong, trip);
    }
    _exit(0);
}

static double best_round_trips(int spins)
{
    court *c = map_shared(sizeof *c);
    pid_t other = fork();
    if (other < 0) {
        perror("fork");
        exit(1);
    }
    if (other == 0) answer(c, spins);

    double best = 0;
    uint32_t trip = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double start = now_s();
        for (int k = 0; k < TRIPS; k++) {
            hit(&c->ping, ++trip);
            await(&c->pong, trip, spins);
        }
        double rate = TRIPS / (now_s() - start);
        if (rate > best) best = rate;
    }
    waitpid(other, NULL, 0);
    munmap(c, sizeof *c);
    return best;
}

static void measure_futex(void)
{
    report("futex round trip, asleep", best_round_trips(0), "1/s");
    report("futex round trip, spinning", best_round_trips(INT_MAX), "1/s");
}

/* ---- fill ---- */

/* Eight bytes at a time, as an array of numbers is filled; the compiler may widen it. */
static void fill(uint64_t *to, size_t nbytes, uint64_t value)
{
    for (size_t i = 0; i < nbytes / sizeof *to; i++) to[i] = value;
}

static void measure_fill(void)
{
    uint64_t *blocks = map_shared(FILL_BYTES * FILL_BLOCKS);
    memset(blocks, 1, FILL_BYTES * FILL_BLOCKS);
    double best = 0;
    for (uint64_t i = 0; i < ROUNDS * FILL_BLOCKS; i++) {
        uint64_t *block = blocks + i % FILL_BLOCKS * (FILL_BYTES / sizeof *blocks);
        double start = now_s();
        fill(block, FILL_BYTES, i);
        double rate = (double)FILL_BYTES / (now_s() - start) / 1e9;
        if (rate > best) best = rate;
    }
    report("fill of warm memory", best, "GB/s");
    munmap(blocks, FILL_BYTES * FILL_BLOCKS);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*measure)(void);
    } limits[] = {{"memcpy", measure_memcpy}, {"futex", measure_futex}, {"fill", measure_fill}};

    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        int wanted = argc == 1;
        for (int k = 1; k < argc; k++) wanted |= !strcmp(argv[k], limits[i].name);
        if (wanted) limits[i].measure();
    }
    return 0;
}
