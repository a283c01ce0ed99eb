/* harness.h - what the programs of tests/c share: checks, small sessions, values that can be
 * verified, children that are killed. Knows the core's public functions, nothing of one test.
 *
 * A check that fails prints where and what, and ends the program with 1. Values are patterns that
 * follow from their fingerprint, so any reader can tell a torn value.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include "rl_arena.h"
#include "rl_check.h"
#include "rl_err.h"
#include "rl_fault.h"
#include "rl_object.h"
#include "rl_session.h"
#include "rl_slot.h"
#include "rl_stream.h"
#include "rl_task.h"
#include "rl_wait.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_NOT_HERE = 77 };

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define MS_NS INT64_C(1000000)

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* ---- checks ---- */

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                            \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        fflush(NULL);                                                                              \
        _exit(1);                                                                                  \
    } while (0)

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) FAIL("%s: does not hold: %s", __func__, #condition);                     \
    } while (0)

#define CHECK_EQ(got, expected)                                                                    \
    do {                                                                                           \
        int64_t got_ = (int64_t)(got), expected_ = (int64_t)(expected);                            \
        if (got_ != expected_) {                                                                   \
            FAIL("%s: %s is %" PRId64 ", expected %s = %" PRId64, __func__, #got, got_, #expected, \
                 expected_);                                                                       \
        }                                                                                          \
    } while (0)

/* Run one test function, named so that a hang shows where. */
#define RUN(test)                                                                                  \
    do {                                                                                           \
        printf("  %s\n", #test);                                                                   \
        fflush(stdout);                                                                            \
        test();                                                                                    \
    } while (0)

/* Every invariant of the session holds. */
#define CHECK_CLEAN(session)                                                                       \
    do {                                                                                           \
        const char *broken_ = NULL;                                                                \
        CHECK_EQ(rl_check((session), &broken_), 0);                                                \
        if (broken_) FAIL("%s: broken invariant: %s", __func__, broken_);                          \
    } while (0)

/* The call succeeds and leaves every invariant intact. */
#define OK(session, call)                                                                          \
    do {                                                                                           \
        CHECK_EQ(call, 0);                                                                         \
        CHECK_CLEAN(session);                                                                      \
    } while (0)

/* ---- random numbers and patterns ---- */

static inline uint64_t mix64(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static inline uint64_t rng_next(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return mix64(*state);
}

static inline uint32_t rng_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(rng_next(state) % n);
}

static inline uint64_t pattern_word(uint64_t seed, uint64_t i)
{
    return (seed ^ i) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline void pattern_write(uint8_t *bytes, uint64_t nbytes, uint64_t seed)
{
    uint64_t i = 0;
    for (; i + 8 <= nbytes; i += 8) {
        uint64_t word = pattern_word(seed, i / 8);
        memcpy(bytes + i, &word, 8);
    }
    uint64_t last = pattern_word(seed, i / 8);
    memcpy(bytes + i, &last, nbytes - i);
}

static inline int pattern_holds(const uint8_t *bytes, uint64_t nbytes, uint64_t seed)
{
    uint64_t i = 0;
    for (; i + 8 <= nbytes; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, 8);
        if (word != pattern_word(seed, i / 8)) return 0;
    }
    uint64_t last = pattern_word(seed, i / 8);
    return memcmp(bytes + i, &last, nbytes - i) == 0;
}

/* ---- values ---- */

/* The value of `nbytes` that follows from `seed`. Its bytes are in `*bytes` when they are few, else
 * in a block that this process has filled; the caller passes it on or abandons it. */
static inline int value_make(rl_session *s, uint64_t nbytes, uint64_t seed,
                             uint8_t bytes[RL_INLINE], rl_value *out)
{
    *out = (rl_value){
        .kind = 1, .block = RL_NIL, .nbytes = nbytes, .bytes = bytes, .fingerprint = seed};
    if (nbytes <= RL_INLINE) {
        pattern_write(bytes, nbytes, seed);
        return 0;
    }
    int err = rl_arena_fill(s, nbytes, &out->block);
    if (!err) pattern_write(rl_arena_bytes(s, out->block), nbytes, seed);
    return err;
}

static inline int value_put(rl_session *s, uint64_t nbytes, uint64_t seed, const rl_handle *refs,
                            uint32_t nrefs, rl_handle *out)
{
    uint8_t bytes[RL_INLINE];
    rl_value v;
    int err = value_make(s, nbytes, seed, bytes, &v);
    if (err) return err;
    v.refs = refs;
    v.nrefs = nrefs;
    err = rl_object_put(s, &v, out);
    if (err && v.block != RL_NIL) rl_arena_abandon(s, v.block);
    return err;
}

/* A failure, short enough for the record. */
static inline rl_value failure_value(uint64_t seed, uint8_t bytes[RL_INLINE])
{
    pattern_write(bytes, 16, seed);
    return (rl_value){
        .kind = RL_KIND_ERROR, .block = RL_NIL, .nbytes = 16, .bytes = bytes, .fingerprint = seed};
}

static inline int payload_is_whole(const rl_payload *p)
{
    return pattern_holds(p->bytes, p->nbytes, p->fingerprint);
}

/* ---- sessions ---- */

/* Tables small enough to run full, and to be scanned quickly. */
static const rl_capacities small_tables = {
    .blocks = 1024, .objects = 1024, .tasks = 512, .chunks = 512, .edges = 512};

/* A session of this process, which is its supervisor: two CPUs, one class that wants one, and an
 * object that stands for the function of every task. */
typedef struct rig {
    rl_mapping map;
    rl_session s;
    rl_handle function;
    uint32_t class_;
} rig;

static inline void rig_make_sized(rig *r, uint64_t data_size, const rl_capacities *tables)
{
    CHECK_EQ(rl_segment_create(data_size, tables, &r->map), 0);
    CHECK_EQ(rl_session_join(&r->s, &r->map, RL_ROLE_SUPERVISOR, -1, -1), 0);
    uint32_t cpu;
    CHECK_EQ(rl_resource_intern(&r->s, "CPU", &cpu), 0);
    CHECK_EQ(cpu, RL_CPU);
    CHECK_EQ(rl_resource_set_total(&r->s, RL_CPU, 2 * RL_RESOURCE_UNIT), 0);
    int64_t demand[RL_MAX_RESOURCES] = {[RL_CPU] = RL_RESOURCE_UNIT};
    CHECK_EQ(rl_class_intern(&r->s, demand, &r->class_), 0);
    CHECK_EQ(value_put(&r->s, 8, 1, NULL, 0, &r->function), 0);
    CHECK_CLEAN(&r->s);
}

static inline void rig_make(rig *r)
{
    rig_make_sized(r, 4 * MIB, &small_tables);
}

/* Let another process fall asleep: its slot's `sleepers` says when it has. */
static inline void rig_await_sleeper(rig *r, uint32_t slot)
{
    while (atomic_load(&r->map.slots[slot].sleepers) == 0) sched_yield();
}

/* The same for child `pid`, the n-th that waits for a call of the actor that the slot's process is.
 * One that has not fallen asleep yet would see a ring that was not for it. */
static inline void rig_await_idler(rig *r, uint32_t slot, uint32_t n, pid_t pid)
{
    char path[32], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    while (atomic_load(&r->map.slots[slot].idlers) != n) sched_yield();
    while (state != 'S') {
        FILE *f = fopen(path, "r");
        CHECK(f && fscanf(f, "%*d %*s %c", &state) == 1);
        fclose(f);
    }
}

/* In a forked child: use the slot of `member` as if this process had joined by itself. */
static inline void rig_use_in_child(rig *r, rl_session *member)
{
    member->pid = (uint32_t)getpid();
    atomic_store(member->attached, 1);
    atomic_store(r->s.attached, 1);
}

/* Only the function is left. */
static inline void rig_check_empty(rig *r)
{
    rl_arena_usage usage;
    CHECK_EQ(rl_arena_measure(&r->s, &usage), 0);
    CHECK_EQ(usage.free_bytes, usage.capacity);
    CHECK_EQ(r->map.control->objects_live, 1);
    CHECK_EQ(r->map.control->tasks_live, 0);
    CHECK_CLEAN(&r->s);
}

static inline void leave_session(rl_session *s)
{
    CHECK_EQ(rl_session_leave(s), 0);
    rl_session_dispose(s);
}

static inline void rig_drop(rig *r)
{
    rl_object_release(&r->s, r->function);
    CHECK_CLEAN(&r->s);
    leave_session(&r->s);
    rl_segment_close(&r->map);
}

/* A second member of the session within this process, as a thread would be one. */
static inline void rig_join(rig *r, rl_session *s)
{
    CHECK_EQ(rl_session_join(s, &r->map, RL_ROLE_WORKER, -1, -1), 0);
}

/* Have session `s` hold an object that `holder` holds, as if its reference had been pickled. */
static inline int find_for(rl_session *s, const rl_session *holder, rl_handle h)
{
    rl_handle found;
    int err = rl_object_find(s, h.gen, rl_object_number(holder, h), &found);
    if (!err) CHECK_EQ(found.index, h.index);
    return err;
}

static inline uint64_t free_bytes(rl_session *s)
{
    rl_arena_usage usage;
    CHECK_EQ(rl_arena_measure(s, &usage), 0);
    return usage.free_bytes;
}

/* ---- tasks ---- */

static inline rl_spec rig_spec(const rig *r, uint32_t nreturns, const rl_handle *refs,
                               uint32_t nrefs)
{
    return (rl_spec){.name = "task",
                     .function = r->function,
                     .class_ = r->class_,
                     .nreturns = nreturns,
                     .refs = refs,
                     .nrefs = nrefs,
                     .ndeps = nrefs,
                     .args = {.index = RL_NIL}};
}

/* ---- children ---- */

/* Fork; the child runs `body(argument)` and ends with what it returns. It dies with its parent. */
static inline pid_t spawn(int (*body)(void *), void *argument)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) FAIL("fork: %s", strerror(errno));
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit(body(argument));
}

/* How process `pid` ended: its exit code, or minus the signal that killed it. */
static inline int reap(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) FAIL("waitpid: %s", strerror(errno));
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

#endif
