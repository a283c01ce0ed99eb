/* test_threads.c - threads as processes: each has a session of its own on one mapping.
 *
 * ThreadSanitizer sees no race between processes, so here the actors of the kill storm are threads,
 * and nobody is killed. A thread leaves its session and joins anew now and then.
 */
#include "mix.h"

#include <pthread.h>

enum { THREADS = 3, STEPS = SANITIZED ? 60000 : 300000, STEPS_A_LIFE = 1000 };

typedef struct part {
    rig *r;
    mix_board *board;
    uint64_t seed;
    _Atomic uint32_t done;
} part;

static void *act(void *argument)
{
    part *p = argument;
    mix_actor *a = calloc(1, sizeof *a);
    CHECK(a != NULL);
    a->board = p->board;
    a->function = p->r->function;
    a->rng = p->seed;
    while (a->steps < STEPS) {
        rig_join(p->r, &a->s);
        do {
            mix_step(a);
        } while (a->steps % STEPS_A_LIFE);
        mix_let_go(a);
        leave_session(&a->s);
    }
    free(a);
    atomic_store(&p->done, 1);
    return NULL;
}

static int all_done(part *parts)
{
    for (int i = 0; i < THREADS; i++) {
        if (!atomic_load(&parts[i].done)) return 0;
    }
    return 1;
}

static void test_threads_as_processes_leave_nothing(void)
{
    static mix_board board;
    static part parts[THREADS];
    pthread_t threads[THREADS];
    rig r;
    rig_make_sized(&r, MIB, &small_tables);
    mix_intern(&r.s, 2);
    for (int i = 0; i < THREADS; i++) {
        parts[i] = (part){.r = &r, .board = &board, .seed = mix64((uint64_t)i)};
        CHECK_EQ(pthread_create(&threads[i], NULL, act, &parts[i]), 0);
    }
    while (!all_done(parts)) {
        mix_supervise(&r.s);
        mix_take_reports(&r.s);
        const char *broken = mix_audit(&r.s);
        if (broken) FAIL("while the threads run: %s", broken);
        rl_doorbell_wait(&r.s, rl_doorbell_read(&r.s), rl_now_ns() + MS_NS);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);

    mix_actor last = {.s = r.s, .board = &board, .function = r.function};
    mix_drain(&last);
    rig_check_empty(&r);
    printf("    %" PRIu64 " tasks\n", r.map.control->tasks_finished);
    CHECK(r.map.control->tasks_finished > THREADS * STEPS / 100);
    rig_drop(&r);
}

/* ---- threads of one process: one session, one count of references ---- */

enum { SHARED_OBJECTS = 8 };

typedef struct shared {
    rl_session *s;
    rl_handle h[SHARED_OBJECTS];
} shared;

static void *use_shared(void *argument)
{
    shared *sh = argument;
    uint64_t rng = (uint64_t)(uintptr_t)&rng;
    for (int step = 0; step < STEPS; step++) {
        rl_handle h = sh->h[rng_below(&rng, SHARED_OBJECTS)], mine;
        rl_payload p;
        rl_object_hold(sh->s, h);
        CHECK_EQ(rl_object_read(sh->s, h, &p), 0);
        CHECK(payload_is_whole(&p));
        rl_object_release(sh->s, h);
        if (step % 8) continue;
        CHECK_EQ(value_put(sh->s, step % 64 ? 16 : 80 * KIB, 5, &h, 1, &mine), 0);
        rl_object_release(sh->s, mine);
    }
    return NULL;
}

static void test_threads_of_one_session_count_their_references_together(void)
{
    rig r;
    shared sh = {.s = &r.s};
    pthread_t threads[THREADS];
    rig_make(&r);
    for (int i = 0; i < SHARED_OBJECTS; i++) {
        CHECK_EQ(value_put(&r.s, 16u << i, (uint64_t)i, NULL, 0, &sh.h[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, use_shared, &sh), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    CHECK_CLEAN(&r.s);
    for (int i = 0; i < SHARED_OBJECTS; i++) rl_object_release(&r.s, sh.h[i]);
    rig_check_empty(&r);
    rig_drop(&r);
}

int main(void)
{
    RUN(test_threads_as_processes_leave_nothing);
    RUN(test_threads_of_one_session_count_their_references_together);
    return 0;
}
