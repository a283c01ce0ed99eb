/* mix.h - actors that do at random all that a process of a session does, and verify what they see.
 *
 * Used by the kill storm (an actor is a process) and by the thread test (an actor is a thread).
 * Every value is the pattern of its fingerprint. A task's results follow from the seed in its
 * arguments, so whoever submitted it can tell a right answer, also after a second attempt.
 */
#ifndef MIX_H
#define MIX_H

#include "harness.h"

#include <sched.h>

enum {
    MIX_HELD = 24,
    MIX_BOARD = 32,
    MIX_CLASSES = 4,
    MIX_RETURNS = 18,
    MIX_STREAMS = 3,
    MIX_CUSTOM = 1
};

/* Handles that actors show each other: how a pickled reference travels. */
typedef struct mix_board {
    struct {
        _Atomic uint64_t gen;
        _Atomic uint32_t number;
    } shown[MIX_BOARD];
    _Atomic uint32_t stop;
} mix_board;

typedef struct mix_held {
    rl_handle h;
    uint64_t expected; /* fingerprint of the value, unless it is a failure; 0 = any */
} mix_held;

/* A stream and how far it has been read: item i must be the one that the task's seed says. */
typedef struct mix_stream {
    rl_handle outlet;
    uint64_t seed;
    uint32_t taken;
} mix_stream;

typedef struct mix_actor {
    rl_session s;
    mix_board *board;
    rl_handle function;
    uint64_t rng;
    uint32_t nheld;
    mix_held held[MIX_HELD];
    uint32_t nstreams;
    mix_stream streams[MIX_STREAMS];
    uint64_t steps;
} mix_actor;

typedef struct mix_args {
    uint64_t seed;
    uint32_t nreturns;
    uint32_t pad;
} mix_args;

static const int64_t mix_demands[MIX_CLASSES][RL_MAX_RESOURCES] = {
    {[RL_CPU] = RL_RESOURCE_UNIT},
    {[RL_CPU] = 2 * RL_RESOURCE_UNIT},
    {[RL_CPU] = RL_RESOURCE_UNIT, [MIX_CUSTOM] = RL_RESOURCE_UNIT},
    {[MIX_CUSTOM] = 2 * RL_RESOURCE_UNIT},
};

/* Anything but success and the refusals that a full store or a busy session gives is damage. */
#define MIX_ALLOW(err, ...)                                                                        \
    do {                                                                                           \
        const int allowed_[] = {0, __VA_ARGS__};                                                   \
        int known_ = 0;                                                                            \
        for (size_t i_ = 0; i_ < sizeof allowed_ / sizeof allowed_[0]; i_++) {                     \
            known_ |= (err) == allowed_[i_];                                                       \
        }                                                                                          \
        if (!known_) FAIL("%s: unexpected code %d", __func__, (err));                              \
    } while (0)

/* ---- what an actor holds ---- */

static inline void mix_keep(mix_actor *a, rl_handle h, uint64_t expected)
{
    if (a->nheld == MIX_HELD) {
        uint32_t k = rng_below(&a->rng, MIX_HELD);
        rl_object_release(&a->s, a->held[k].h);
        a->held[k] = a->held[--a->nheld];
    }
    a->held[a->nheld++] = (mix_held){.h = h, .expected = expected};
}

static inline mix_held *mix_pick(mix_actor *a)
{
    return a->nheld ? &a->held[rng_below(&a->rng, a->nheld)] : NULL;
}

/* Up to `most` of the held handles, in no order, perhaps one twice. */
static inline uint32_t mix_pick_some(mix_actor *a, rl_handle *out, uint32_t most)
{
    uint32_t n = a->nheld ? rng_below(&a->rng, most + 1) : 0;
    for (uint32_t i = 0; i < n; i++) out[i] = mix_pick(a)->h;
    return n;
}

static inline uint64_t mix_size(uint64_t seed)
{
    uint64_t x = mix64(seed);
    if (x % 128 == 0) return (x >> 8) % (96 * KIB);
    if (x % 8 == 1) return (x >> 8) % (4 * KIB);
    if (x % 4 == 2) return (x >> 8) % 512;
    return (x >> 8) % (RL_INLINE + 1);
}

static inline uint64_t mix_return_seed(uint64_t seed, uint32_t k)
{
    return mix64(seed + k) | 1;
}

static inline uint64_t mix_item_seed(uint64_t seed, uint32_t i)
{
    return mix64(seed ^ (UINT64_C(77) << 32) ^ i) | 1;
}

static inline uint32_t mix_stream_length(uint64_t seed)
{
    return (uint32_t)(mix64(seed) % 40);
}

/* Read a held object and verify it; returns how many objects it contains. */
static inline uint32_t mix_verify(mix_actor *a, rl_handle h, uint64_t expected)
{
    rl_payload p;
    int err = rl_object_read(&a->s, h, &p);
    MIX_ALLOW(err, RL_EAGAIN);
    if (err) return 0;
    if (!payload_is_whole(&p)) FAIL("torn value: object %u, %" PRIu64 " bytes", h.index, p.nbytes);
    if (expected && p.kind != RL_KIND_ERROR && p.fingerprint != expected) {
        FAIL("wrong value in object %u", h.index);
    }
    return p.nrefs;
}

/* ---- operations on objects ---- */

static inline void mix_put(mix_actor *a)
{
    rl_handle refs[MIX_RETURNS], h;
    uint32_t most = rng_below(&a->rng, 8) ? 2 : MIX_RETURNS;
    uint32_t nrefs = mix_pick_some(a, refs, most);
    uint64_t seed = rng_next(&a->rng) | 1;
    int err = value_put(&a->s, mix_size(seed), seed, refs, nrefs, &h);
    MIX_ALLOW(err, RL_EFULL, RL_ETABLE);
    if (!err) mix_keep(a, h, seed);
}

static inline void mix_read(mix_actor *a)
{
    mix_held *held = mix_pick(a);
    if (held == NULL) return;
    rl_handle h = held->h, refs[MIX_RETURNS];
    uint32_t nrefs = mix_verify(a, h, held->expected);
    if (nrefs == 0 || rng_below(&a->rng, 2)) return;
    if (nrefs > 3) nrefs = 3;
    CHECK_EQ(rl_object_read_refs(&a->s, h, refs, nrefs), 0);
    for (uint32_t i = 0; i < nrefs; i++) mix_keep(a, refs[i], 0);
}

static inline void mix_hold_twice(mix_actor *a)
{
    mix_held *held = mix_pick(a);
    if (held == NULL) return;
    rl_object_hold(&a->s, held->h);
    rl_object_release(&a->s, held->h);
}

static inline void mix_release(mix_actor *a)
{
    for (uint32_t n = rng_below(&a->rng, 3) + 1; n > 0 && a->nheld > 0; n--) {
        uint32_t k = rng_below(&a->rng, a->nheld);
        rl_object_release(&a->s, a->held[k].h);
        a->held[k] = a->held[--a->nheld];
    }
}

static inline void mix_show(mix_actor *a)
{
    mix_held *held = mix_pick(a);
    if (held == NULL) return;
    uint32_t k = rng_below(&a->rng, MIX_BOARD);
    atomic_store(&a->board->shown[k].number, rl_object_number(&a->s, held->h));
    atomic_store(&a->board->shown[k].gen, held->h.gen);
}

static inline void mix_find(mix_actor *a)
{
    uint32_t k = rng_below(&a->rng, MIX_BOARD);
    rl_handle h;
    int err = rl_object_find(&a->s, atomic_load(&a->board->shown[k].gen),
                             atomic_load(&a->board->shown[k].number), &h);
    MIX_ALLOW(err, RL_ESTALE);
    if (!err) mix_keep(a, h, 0);
}

static inline void mix_wait(mix_actor *a)
{
    rl_handle h[4];
    uint8_t ready[4];
    uint32_t nready, n = mix_pick_some(a, h, 4);
    if (n == 0) return;
    int64_t deadline = rl_now_ns() + rng_below(&a->rng, 50) * INT64_C(1000);
    int err = rl_object_wait(&a->s, h, n, rng_below(&a->rng, n) + 1, (int)rng_below(&a->rng, 2),
                             deadline, ready, &nready);
    MIX_ALLOW(err, RL_ETIMEDOUT, EINTR);
    for (uint32_t i = 0; i < n && !err; i++) {
        if (ready[i] && !rl_object_is_sealed(&a->s, h[i])) FAIL("ready, but not sealed");
    }
}

static inline void mix_abandon(mix_actor *a)
{
    uint32_t block;
    uint64_t nbytes = mix_size(rng_next(&a->rng)) + 1;
    int err = rl_arena_fill(&a->s, nbytes, &block);
    MIX_ALLOW(err, RL_EFULL);
    if (err) return;
    memset(rl_arena_bytes(&a->s, block), 0xa5, nbytes);
    CHECK_EQ(rl_arena_abandon(&a->s, block), 0);
}

/* ---- operations on tasks ---- */

static inline void mix_submit(mix_actor *a)
{
    uint32_t class_;
    int err = rl_class_intern(&a->s, mix_demands[rng_below(&a->rng, MIX_CLASSES)], &class_);
    CHECK_EQ(err, 0);
    rl_handle refs[MIX_RETURNS], returns[MIX_RETURNS], outlet;
    uint32_t nrefs = mix_pick_some(a, refs, rng_below(&a->rng, 8) ? 3 : MIX_RETURNS);
    mix_args args = {.seed = rng_next(&a->rng) | 1, .nreturns = rng_below(&a->rng, 4)};
    if (rng_below(&a->rng, 16) == 0) args.nreturns = MIX_RETURNS;
    rl_spec spec = {.name = "mix",
                    .function = a->function,
                    .class_ = class_,
                    .nreturns = args.nreturns,
                    .refs = refs,
                    .nrefs = nrefs,
                    .ndeps = rng_below(&a->rng, nrefs + 1),
                    .nbytes = sizeof args,
                    .bytes = &args,
                    .args = {.index = RL_NIL},
                    .max_retries = (int32_t)rng_below(&a->rng, 2),
                    .streams = a->nstreams < MIX_STREAMS && rng_below(&a->rng, 4) == 0,
                    .stream_limit = rng_below(&a->rng, 2) * 8};
    err = rl_task_submit(&a->s, &spec, returns, &outlet);
    MIX_ALLOW(err, RL_ETABLE);
    if (!err && spec.streams) {
        a->streams[a->nstreams++] = (mix_stream){.outlet = outlet, .seed = args.seed};
    }
    for (uint32_t k = 0; k < args.nreturns && !err; k++) {
        mix_keep(a, returns[k], mix_return_seed(args.seed, k));
    }
}

/* Store return value k of a task, or a failure when there is no room for it. With `finish`, in the
 * section that ends the task. */
static inline void mix_return(mix_actor *a, const rl_job *job, rl_handle object, uint64_t seed,
                              int finish)
{
    uint8_t bytes[RL_INLINE];
    rl_value v;
    int err = value_make(&a->s, mix_size(seed), seed, bytes, &v);
    MIX_ALLOW(err, RL_EFULL);
    if (err) v = failure_value(seed, bytes);
    err = finish ? rl_task_finish(&a->s, job->task, object, &v)
                 : rl_task_return(&a->s, job->task, object, &v);
    MIX_ALLOW(err, EEXIST);
    if (err != EEXIST) return;

    uint64_t fingerprint;
    CHECK_EQ(rl_task_returned(&a->s, object, &fingerprint), 1);
    if (v.block != RL_NIL) CHECK_EQ(rl_arena_abandon(&a->s, v.block), 0);
    if (finish) CHECK_EQ(rl_task_finish(&a->s, job->task, object, NULL), 0);
}

static inline void mix_look_at_refs(mix_actor *a, const rl_job *job)
{
    rl_handle refs[MIX_RETURNS];
    CHECK_EQ(rl_task_refs(&a->s, job->task, refs, job->nrefs), 0);
    for (uint32_t k = 0; k < job->nrefs; k++) {
        if (k < job->ndeps && !rl_object_is_sealed(&a->s, refs[k])) {
            FAIL("task runs before what it needs is there");
        }
        rl_object_hold(&a->s, refs[k]);
        mix_verify(a, refs[k], 0);
        rl_object_release(&a->s, refs[k]);
    }
}

/* Take some items of a stream, in order and each as it should be; let go of it at its end, or
 * before. */
static inline void mix_consume(mix_actor *a)
{
    if (a->nstreams == 0) return;
    uint32_t k = rng_below(&a->rng, a->nstreams);
    mix_stream *st = &a->streams[k];
    int err = 0;
    for (uint32_t n = rng_below(&a->rng, 8) + 1; n > 0 && !err; n--) {
        rl_handle stream, item;
        CHECK_EQ(rl_stream_of(&a->s, st->outlet, &stream), 0);
        err = rl_stream_next(&a->s, stream, NULL, &item);
        MIX_ALLOW(err, RL_EAGAIN, RL_EEND);
        if (err) break;
        uint64_t expected = mix_item_seed(st->seed, st->taken++);
        mix_verify(a, item, expected);
        mix_keep(a, item, expected);
    }
    if (err != RL_EEND && rng_below(&a->rng, 16)) return;
    rl_object_release(&a->s, st->outlet);
    a->streams[k] = a->streams[--a->nstreams];
}

/* A second attempt finds what the first has stored, and goes on from there. */
static inline uint32_t mix_look_at_log(mix_actor *a, const rl_job *job, uint64_t seed)
{
    uint64_t fingerprints[64];
    uint32_t produced = rl_stream_produced(&a->s, job->stream);
    CHECK(produced <= mix_stream_length(seed));
    if (job->max_retries == 0) return produced;
    CHECK_EQ(rl_stream_log(&a->s, job->stream, fingerprints, produced), 0);
    for (uint32_t i = 0; i < produced; i++) {
        if (fingerprints[i] != mix_item_seed(seed, i)) FAIL("wrong fingerprint of item %u", i);
    }
    return produced;
}

/* Yield the items of the task's stream, while there is room and somebody who wants them. Returns 1
 * if the attempt ended in the midst of it. */
static inline int mix_yield(mix_actor *a, const rl_job *job, uint64_t seed)
{
    uint32_t length = mix_stream_length(seed);
    int err = 0;
    for (uint32_t i = mix_look_at_log(a, job, seed); i < length && !err; i++) {
        uint8_t bytes[RL_INLINE];
        uint64_t item = mix_item_seed(seed, i);
        rl_value v;
        err = value_make(&a->s, mix_size(item), item, bytes, &v);
        MIX_ALLOW(err, RL_EFULL);
        if (err) return 0;
        err = rl_stream_append(&a->s, job->task, &v);
        MIX_ALLOW(err, RL_EAGAIN, RL_ETABLE);
        if (err && v.block != RL_NIL) CHECK_EQ(rl_arena_abandon(&a->s, v.block), 0);
        if (rng_below(&a->rng, 64) == 0) {
            CHECK_EQ(rl_task_strand(&a->s, job->task), 0);
            return 1;
        }
        if (rng_below(&a->rng, 64)) continue;
        int waited = rl_stream_wait_room(&a->s, job->stream, rl_now_ns() + 20 * INT64_C(1000));
        MIX_ALLOW(waited, RL_ETIMEDOUT, EINTR);
    }
    return 0;
}

/* Run the task that was taken to its end. */
static inline void mix_run(mix_actor *a, const rl_job *job)
{
    mix_args args;
    CHECK_EQ(job->nbytes, sizeof args);
    memcpy(&args, job->bytes, sizeof args);
    CHECK_EQ(job->nreturns, args.nreturns);
    mix_look_at_refs(a, job);
    if (rng_below(&a->rng, 8) == 0) mix_wait(a);
    if (rng_below(&a->rng, 32) == 0) {
        CHECK_EQ(rl_task_strand(&a->s, job->task), 0);
        return;
    }
    if (job->stream.index != RL_NIL && mix_yield(a, job, args.seed)) return;
    rl_handle returns[MIX_RETURNS];
    CHECK_EQ(rl_task_returns(&a->s, job->task, returns, job->nreturns), 0);
    int joined = (int)rng_below(&a->rng, 2);
    for (uint32_t k = 0; k < job->nreturns; k++) {
        int finish = joined && k + 1 == job->nreturns;
        mix_return(a, job, returns[k], mix_return_seed(args.seed, k), finish);
    }
    if (joined && job->nreturns > 0) return;
    CHECK_EQ(rl_task_finish(&a->s, job->task, (rl_handle){.index = RL_NIL}, NULL), 0);
}

/* Take a task within `patience_ns` and run it; returns 1 if there was one. */
static inline int mix_take(mix_actor *a, int64_t patience_ns)
{
    rl_job job;
    int err = rl_task_take(&a->s, rl_now_ns() + patience_ns, &job);
    MIX_ALLOW(err, RL_ETIMEDOUT, EINTR);
    if (!err) mix_run(a, &job);
    return err == 0;
}

/* Mostly where there is something to take: a worker that sleeps is killed outside all sections. */
static inline void mix_work(mix_actor *a)
{
    rl_load load;
    CHECK_EQ(rl_task_load(&a->s, &load), 0);
    int blindly = rng_below(&a->rng, 64) == 0;
    if (load.runnable || blindly) mix_take(a, blindly ? 50 * INT64_C(1000) : 0);
}

/* ---- an actor's life ---- */

typedef struct mix_act {
    void (*run)(mix_actor *);
    uint32_t weight;
} mix_act;

static const mix_act mix_acts[] = {
    {mix_put, 36},    {mix_read, 28}, {mix_hold_twice, 10}, {mix_release, 30},
    {mix_show, 8},    {mix_find, 12}, {mix_wait, 3},        {mix_abandon, 12},
    {mix_submit, 24}, {mix_work, 32}, {mix_consume, 20},
};

static inline void mix_step(mix_actor *a)
{
    uint32_t total = 0, k = 0;
    for (size_t i = 0; i < sizeof mix_acts / sizeof mix_acts[0]; i++) total += mix_acts[i].weight;
    for (uint32_t dice = rng_below(&a->rng, total); dice >= mix_acts[k].weight; k++) {
        dice -= mix_acts[k].weight;
    }
    mix_acts[k].run(a);
    a->steps++;
}

static inline void mix_let_go(mix_actor *a)
{
    while (a->nheld > 0) rl_object_release(&a->s, a->held[--a->nheld].h);
    while (a->nstreams > 0) {
        rl_object_release(&a->s, a->streams[--a->nstreams].outlet);
    }
}

/* ---- the supervisor's part ---- */

static inline void mix_intern(rl_session *s, int64_t custom)
{
    uint32_t i;
    CHECK_EQ(rl_resource_intern(s, "CPU", &i), 0);
    CHECK_EQ(rl_resource_intern(s, "custom", &i), 0);
    CHECK_EQ(i, MIX_CUSTOM);
    CHECK_EQ(rl_resource_set_total(s, RL_CPU, 3 * RL_RESOURCE_UNIT), 0);
    CHECK_EQ(rl_resource_set_total(s, MIX_CUSTOM, custom * RL_RESOURCE_UNIT), 0);
}

/* Decide about every stranded task: run it again, or fail what is still open. */
static inline void mix_supervise(rl_session *s)
{
    rl_job job;
    uint32_t cursor = 0, open;
    while (rl_task_next_stranded(s, &cursor, &job, &open) == 0) {
        if (open > 0 && job.attempt < 3) {
            CHECK_EQ(rl_task_requeue(s, job.task), 0);
            continue;
        }
        uint8_t bytes[RL_INLINE];
        rl_value values[MIX_RETURNS];
        for (uint32_t k = 0; k < open; k++) values[k] = failure_value(7, bytes);
        CHECK_EQ(rl_task_conclude(s, job.task, values, open), 0);
    }
}

static inline void mix_take_reports(rl_session *s)
{
    rl_handle h;
    while (rl_object_take_report(s, &h) == 0) {
        rl_payload p;
        CHECK_EQ(rl_object_read(s, h, &p), 0);
        CHECK_EQ(p.kind, RL_KIND_ERROR);
        rl_object_release(s, h);
    }
}

/* Check every invariant while others go on. One of them may be just between dropping its last
 * reference and freeing the object, so that finding must last to count. NULL: all is well. */
static inline const char *mix_audit(rl_session *s)
{
    const char *broken = NULL;
    for (int64_t start = rl_now_ns(); rl_now_ns() - start < 2000 * MS_NS; sched_yield()) {
        int err = rl_check(s, &broken);
        if (err) return "the session is poisoned";
        if (broken == NULL || strstr(broken, "nobody can reach it") == NULL) return broken;
    }
    return broken;
}

/* All actors are gone: run what is queued, then nothing may be left but the function. */
static inline void mix_drain(mix_actor *a)
{
    mix_intern(&a->s, 4);
    do {
        mix_supervise(&a->s);
    } while (mix_take(a, 0) || a->s.map.control->stranded);
    mix_let_go(a);
    mix_take_reports(&a->s);
    const char *broken = mix_audit(&a->s);
    if (broken) FAIL("after the end: %s", broken);
}

#endif
