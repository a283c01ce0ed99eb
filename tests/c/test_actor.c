/* test_actor.c - actors: their mailboxes, who holds up whom, names, kills, and the end. */
#include "harness.h"

#include "rl_repair.h"

static rig r;
static rl_session worker, other;
static rl_handle actor;
static rl_job self;

static rl_handle make(rl_session *s, const char *name, uint32_t flags, uint32_t most_calls)
{
    rl_handle out;
    rl_actor_spec makes = {.name = name, .space = "", .flags = flags, .most_calls = most_calls};
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.makes = &makes;
    spec.max_retries = 1;
    OK(&r.s, rl_task_submit(s, &spec, &out, NULL));
    return out;
}

static void set_up(uint32_t flags, uint32_t most_calls)
{
    rig_make_sized(&r, 4 * MIB, &small_tables);
    rig_join(&r, &worker);
    rig_join(&r, &other);
    actor = make(&r.s, "a", flags, most_calls);
    OK(&r.s, rl_task_take(&worker, 0, &self));
    CHECK(self.is_actor);
}

static int try_call(rl_session *s, const rl_handle *refs, uint32_t nrefs, rl_handle *out)
{
    rl_spec spec = rig_spec(&r, 1, refs, nrefs);
    spec.actor = &actor;
    int err = rl_task_submit(s, &spec, out, NULL);
    CHECK_CLEAN(&r.s);
    return err;
}

static rl_handle call(rl_session *s, const rl_handle *refs, uint32_t nrefs)
{
    rl_handle out;
    CHECK_EQ(try_call(s, refs, nrefs, &out), 0);
    return out;
}

static void release(rl_session *s, rl_handle h)
{
    rl_object_release(s, h);
    CHECK_CLEAN(&r.s);
}

static int take_call(rl_job *job)
{
    int err = rl_task_take_call(&worker, self.task, 0, 0, job);
    CHECK_CLEAN(&r.s);
    return err;
}

static void finish(const rl_job *job, rl_handle out)
{
    rl_value none = {.kind = 1, .block = RL_NIL};
    OK(&r.s, rl_task_finish(&worker, job->task, out, &none));
}

static void run_next(rl_handle expected)
{
    rl_job job;
    rl_handle out;
    CHECK_EQ(take_call(&job), 0);
    CHECK_EQ(rl_task_returns(&worker, job.task, &out, 1), 0);
    CHECK_EQ(out.index, expected.index);
    finish(&job, expected);
}

/* The supervisor's judgement: all that is stranded fails. */
static uint32_t fail_stranded(void)
{
    rl_job job;
    uint32_t cursor = 0, open, n = 0;
    while (rl_task_next_stranded(&r.s, &cursor, &job, &open) == 0) {
        uint8_t bytes[RL_INLINE];
        rl_value failure = failure_value(1, bytes);
        OK(&r.s, rl_task_conclude(&r.s, job.task, &failure, open));
        n++;
        cursor = 0;
    }
    rl_handle h;
    while (rl_object_take_report(&r.s, &h) == 0) rl_object_release(&r.s, h);
    return n;
}

static void end_actor(void)
{
    rl_value reason = {.kind = 1, .block = RL_NIL};
    OK(&r.s, rl_task_conclude(&worker, self.task, &reason, 1));
}

static void tear_down(void)
{
    fail_stranded();
    release(&r.s, actor);
    const rl_table *actors = &r.map.control->actors;
    CHECK_EQ(actors->nfree, actors->high_water);
    leave_session(&worker);
    leave_session(&other);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_calls_run_in_the_order_of_submission(void)
{
    rl_handle calls[5];
    set_up(RL_ACTOR_ORDERED, 0);
    for (int i = 0; i < 5; i++) calls[i] = call(&r.s, NULL, 0);
    for (int i = 0; i < 5; i++) run_next(calls[i]);
    for (int i = 0; i < 5; i++) release(&r.s, calls[i]);
    end_actor();
    tear_down();
}

/* A task of the class, that never runs here: what waits for it waits. */
static rl_handle never(void)
{
    rl_handle out;
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    OK(&r.s, rl_task_submit(&r.s, &spec, &out, NULL));
    return out;
}

static void test_ordered_call_that_waits_holds_up_its_caller_and_no_other(void)
{
    rl_job job;
    set_up(RL_ACTOR_ORDERED, 0);
    rl_handle dependency = never();
    rl_handle first = call(&r.s, &dependency, 1), second = call(&r.s, NULL, 0);
    rl_handle others = call(&other, NULL, 0);
    run_next(others);
    CHECK_EQ(take_call(&job), RL_ETIMEDOUT);
    OK(&r.s, rl_task_cancel(&r.s, dependency, 0, 0));
    fail_stranded();
    run_next(first);
    run_next(second);
    release(&other, others);
    release(&r.s, first);
    release(&r.s, second);
    release(&r.s, dependency);
    end_actor();
    tear_down();
}

static void test_cancelled_call_that_held_up_others_has_the_actor_look_again(void)
{
    set_up(RL_ACTOR_ORDERED, 0);
    rl_handle dependency = never();
    rl_handle first = call(&r.s, &dependency, 1), second = call(&r.s, NULL, 0);
    uint32_t seen = rl_callbell_read(&worker);
    OK(&r.s, rl_task_cancel(&r.s, first, 0, 0));
    CHECK(rl_callbell_read(&worker) != seen);
    run_next(second);
    OK(&r.s, rl_task_cancel(&r.s, dependency, 0, 0));
    fail_stranded();
    release(&r.s, first);
    release(&r.s, second);
    release(&r.s, dependency);
    end_actor();
    tear_down();
}

static int wait_for_a_call(void *argument)
{
    uint32_t seen = rl_callbell_read(&r.s);
    rig_use_in_child(&r, &r.s);
    return rl_callbell_wait(&r.s, rl_group_bit(0), seen, *(int64_t *)argument);
}

/* As in local mode, where the driver is all actors: a thread of the wrong one must not eat a ring. */
static void test_call_of_an_actor_that_is_no_worker_wakes_the_threads_of_all(void)
{
    rl_job local;
    pid_t pids[2];
    int64_t deadline = rl_now_ns() + 20000 * MS_NS;
    set_up(RL_ACTOR_ORDERED, 0);
    rl_handle workers = actor;
    actor = make(&r.s, "local", RL_ACTOR_ORDERED, 0);
    OK(&r.s, rl_task_take(&r.s, 0, &local));
    for (uint32_t k = 0; k < 2; k++) {
        pids[k] = spawn(wait_for_a_call, &deadline);
        rig_await_idler(&r, r.s.slot, k + 1, pids[k]);
    }
    rl_handle out = call(&r.s, NULL, 0);
    for (int k = 0; k < 2; k++) CHECK_EQ(reap(pids[k]), 0); /* EINTR: by the backstop */
    rl_value none = {.kind = 1, .block = RL_NIL};
    OK(&r.s, rl_task_conclude(&r.s, local.task, &none, 1));
    fail_stranded();
    release(&r.s, out);
    release(&r.s, actor);
    actor = workers;
    end_actor();
    tear_down();
}

static _Atomic int is_quiet;

/* Ring for calls of another group whenever a thread of group 0 spins; return how often. */
static void *ring_for_another_group(void *rung)
{
    rl_slot *slot = &r.map.slots[worker.slot];
    uint32_t bit = rl_group_bit(0);
    while (!atomic_load(&is_quiet)) {
        if (!(atomic_load(&slot->spinning) & bit)) continue;
        rl_callbell_ring(slot, rl_group_bit(1));
        ++*(int *)rung;
        while (atomic_load(&slot->spinning) & bit && !atomic_load(&is_quiet)) {
        }
    }
    return NULL;
}

static void test_look_for_a_call_ends_though_another_group_is_rung_for(void)
{
    enum { LOOKS = 200 };
    pthread_t thread;
    rl_job job;
    int rung = 0;
    set_up(0, 0);
    atomic_store(&is_quiet, 0);
    CHECK_EQ(pthread_create(&thread, NULL, ring_for_another_group, &rung), 0);
    for (int k = 0; k < LOOKS; k++) {
        CHECK_EQ(rl_task_take_call(&worker, self.task, 0, rl_now_ns(), &job), RL_ETIMEDOUT);
    }
    atomic_store(&is_quiet, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(rung <= LOOKS); /* each has spun once */
    end_actor();
    tear_down();
}

static void test_call_of_an_actor_without_order_overtakes_one_that_waits(void)
{
    set_up(0, 0);
    rl_handle dependency = never();
    rl_handle first = call(&r.s, &dependency, 1), second = call(&r.s, NULL, 0);
    run_next(second);
    OK(&r.s, rl_task_cancel(&r.s, dependency, 0, 0));
    fail_stranded();
    run_next(first);
    release(&r.s, first);
    release(&r.s, second);
    release(&r.s, dependency);
    end_actor();
    tear_down();
}

static void test_actor_is_over_when_nobody_can_reach_it_and_no_call_is_left(void)
{
    rl_job job;
    set_up(RL_ACTOR_ORDERED, 0);
    rl_handle last = call(&other, NULL, 0);
    release(&other, last);
    rl_handle kept = actor;
    rl_object_release(&r.s, actor);
    CHECK_EQ(take_call(&job), 0);
    rl_value none = {.kind = 1, .block = RL_NIL};
    rl_handle out;
    CHECK_EQ(rl_task_returns(&worker, job.task, &out, 1), 0);
    OK(&r.s, rl_task_finish(&worker, job.task, out, &none));
    CHECK_EQ(take_call(&job), RL_EEND);
    end_actor();
    actor = kept;
    leave_session(&worker);
    leave_session(&other);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_detached_actor_is_not_over(void)
{
    rl_job job;
    rl_handle found, function;
    set_up(RL_ACTOR_ORDERED | RL_ACTOR_DETACHED, 0);
    release(&r.s, actor);
    CHECK_EQ(take_call(&job), RL_ETIMEDOUT);
    CHECK_EQ(rl_actor_find(&r.s, "", "a", &found, &function), 0);
    CHECK_EQ(found.index, actor.index);
    end_actor();
    release(&r.s, function);
    tear_down();
}

static void test_found_actor_and_its_class_are_held_by_who_looked(void)
{
    rl_handle found, function;
    set_up(RL_ACTOR_ORDERED, 0);
    CHECK_EQ(rl_actor_find(&other, "", "a", &found, &function), 0);
    uint64_t bit = UINT64_C(1) << (other.slot % 64);
    CHECK(r.map.objects[found.index].holders[other.slot / 64] & bit);
    CHECK(r.map.objects[function.index].holders[other.slot / 64] & bit);
    end_actor();
    release(&other, found);
    release(&other, function);
    tear_down();
}

static void test_names_are_unique_until_their_actor_is_killed(void)
{
    rl_handle out, found, function;
    set_up(RL_ACTOR_ORDERED, 0);
    rl_actor_spec makes = {.name = "a", .space = ""};
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.makes = &makes;
    CHECK_EQ(rl_task_submit(&r.s, &spec, &out, NULL), EEXIST);
    makes.space = "elsewhere";
    OK(&r.s, rl_task_submit(&r.s, &spec, &out, NULL));
    CHECK_EQ(rl_actor_find(&r.s, "", "b", &found, &function), RL_ESTALE);
    OK(&r.s, rl_actor_kill(&r.s, actor, RL_KILL_FOR_EVER));
    CHECK_EQ(rl_actor_find(&r.s, "", "a", &found, &function), RL_ESTALE);
    OK(&r.s, rl_actor_kill(&r.s, out, RL_KILL_FOR_EVER));
    uint32_t cursor = 0, slot = 0, kills = 0;
    int kill = 0;
    while (rl_task_next_order(&r.s, &cursor, &slot, &kill) == 0)
        kills += kill && slot == worker.slot;
    CHECK_EQ(kills, 1);
    CHECK_EQ(fail_stranded(), 1); /* the one that no process had */
    release(&r.s, out);
    end_actor();
    tear_down();
}

static void test_calls_beyond_the_limit_of_one_caller_are_refused(void)
{
    rl_handle out;
    set_up(RL_ACTOR_ORDERED, 2);
    rl_handle first = call(&r.s, NULL, 0), second = call(&r.s, NULL, 0);
    CHECK_EQ(try_call(&r.s, NULL, 0, &out), EBUSY);
    rl_handle others = call(&other, NULL, 0);
    CHECK_EQ(rl_repair(&r.s), 0); /* which counts anew */
    CHECK_EQ(try_call(&r.s, NULL, 0, &out), EBUSY);
    run_next(first);
    rl_handle third = call(&r.s, NULL, 0);
    run_next(second);
    run_next(others);
    run_next(third);
    release(&r.s, first);
    release(&r.s, second);
    release(&r.s, third);
    release(&other, others);
    end_actor();
    tear_down();
}

static void test_restarted_actor_has_its_mailbox_still(void)
{
    rl_job job;
    uint32_t cursor = 0, open;
    set_up(RL_ACTOR_ORDERED, 0);
    rl_handle running = call(&r.s, NULL, 0), queued = call(&r.s, NULL, 0);
    CHECK_EQ(take_call(&job), 0);
    leave_session(&worker);
    CHECK_CLEAN(&r.s);
    rig_join(&r, &worker);
    while (rl_task_next_stranded(&r.s, &cursor, &job, &open) == 0) {
        OK(&r.s, rl_task_requeue(&r.s, job.task));
    }
    OK(&r.s, rl_task_take(&worker, 0, &self));
    CHECK_EQ(self.attempt, 1);
    run_next(running);
    run_next(queued);
    release(&r.s, running);
    release(&r.s, queued);
    end_actor();
    tear_down();
}

static void test_calls_of_a_dead_actor_strand(void)
{
    set_up(RL_ACTOR_ORDERED, 0);
    rl_handle before = call(&r.s, NULL, 0);
    end_actor();
    rl_handle after = call(&r.s, NULL, 0);
    CHECK_EQ(r.map.control->stranded, 2);
    CHECK_EQ(fail_stranded(), 2);
    release(&r.s, before);
    release(&r.s, after);
    tear_down();
}

static void repair(void)
{
    rl_section section;
    CHECK_EQ(rl_enter(&r.s, &section, RL_OP_CHECK), 0);
    CHECK_EQ(rl_repair(&r.s), 0);
    rl_leave(&section);
    CHECK_CLEAN(&r.s);
}

static void test_repair_finds_mailboxes_again(void)
{
    set_up(RL_ACTOR_ORDERED, 0);
    rl_handle calls[4];
    for (int i = 0; i < 4; i++) calls[i] = call(&r.s, NULL, 0);
    repair();
    for (int i = 0; i < 4; i++) run_next(calls[i]);
    for (int i = 0; i < 4; i++) release(&r.s, calls[i]);
    end_actor();
    tear_down();
}

/* ---- streams of its calls ---- */

enum { MOST = 2 };

typedef struct stream_call {
    rl_handle completion, outlet, stream;
    rl_job job;
} stream_call;

static stream_call start_stream(void)
{
    stream_call c;
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.actor = &actor;
    spec.streams = 1;
    OK(&r.s, rl_task_submit(&r.s, &spec, &c.completion, &c.outlet));
    CHECK_EQ(rl_stream_of(&r.s, c.outlet, &c.stream), 0);
    CHECK_EQ(take_call(&c.job), 0);
    return c;
}

static void append(const stream_call *c)
{
    rl_value v = {.kind = 1, .block = RL_NIL};
    OK(&r.s, rl_stream_append(&worker, c->job.task, &v));
    CHECK_CLEAN(&r.s);
}

static void take_item(const stream_call *c)
{
    rl_handle item;
    OK(&r.s, rl_stream_next(&r.s, c->stream, NULL, &item));
    release(&r.s, item);
}

static int room(const stream_call *c)
{
    return rl_stream_wait_room(&worker, c->job.stream, 0);
}

static void make_limited(void)
{
    rl_actor_spec makes = {.name = "", .space = "", .most_untaken = MOST};
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.makes = &makes;
    OK(&r.s, rl_task_submit(&r.s, &spec, &actor, NULL));
    OK(&r.s, rl_task_take(&worker, 0, &self));
}

static void set_up_limited(void)
{
    rig_make_sized(&r, 4 * MIB, &small_tables);
    rig_join(&r, &worker);
    rig_join(&r, &other);
    make_limited();
}

static void end_stream(stream_call *c)
{
    finish(&c->job, c->completion);
    release(&r.s, c->outlet);
    release(&r.s, c->completion);
}

static void test_untaken_items_of_all_streams_of_an_actor_count_together(void)
{
    set_up_limited();
    stream_call a = start_stream(), b = start_stream();
    append(&a);
    CHECK_EQ(room(&b), 0);
    append(&b);
    CHECK_EQ(room(&a), RL_ETIMEDOUT);
    CHECK_EQ(room(&b), RL_ETIMEDOUT);
    repair();
    CHECK_EQ(room(&a), RL_ETIMEDOUT);
    finish(&a.job, a.completion); /* its item counts on */
    CHECK_EQ(room(&b), RL_ETIMEDOUT);
    take_item(&a);
    CHECK_EQ(room(&b), 0);
    append(&b);
    CHECK_EQ(room(&b), RL_ETIMEDOUT);
    release(&r.s, a.outlet);
    release(&r.s, a.completion);
    end_stream(&b);
    end_actor();
    tear_down();
}

static void test_dropped_stream_makes_room_for_the_others(void)
{
    set_up_limited();
    stream_call a = start_stream(), b = start_stream();
    append(&a);
    append(&a);
    CHECK_EQ(room(&b), RL_ETIMEDOUT);
    release(&r.s, a.outlet);
    CHECK_EQ(room(&b), 0);
    finish(&a.job, a.completion);
    release(&r.s, a.completion);
    end_stream(&b);
    end_actor();
    tear_down();
}

static void test_who_waits_for_one_stream_does_not_wait_for_the_items_of_others(void)
{
    set_up_limited();
    stream_call a = start_stream(), b = start_stream();
    append(&a);
    append(&a);
    CHECK_EQ(room(&b), RL_ETIMEDOUT);
    CHECK_EQ(rl_stream_is_ready(&r.s, b.stream), 0);
    CHECK_EQ(room(&b), 0);
    append(&b);
    CHECK_EQ(room(&b), RL_ETIMEDOUT);
    end_stream(&a);
    end_stream(&b);
    end_actor();
    tear_down();
}

static void test_items_that_outlive_their_actor_do_not_count_for_the_next(void)
{
    set_up_limited();
    stream_call a = start_stream();
    append(&a);
    append(&a);
    finish(&a.job, a.completion);
    release(&r.s, a.completion);
    end_actor();
    release(&r.s, actor);
    make_limited();
    stream_call b = start_stream();
    CHECK_EQ(room(&b), 0);
    take_item(&a);
    take_item(&a);
    release(&r.s, a.outlet);
    end_stream(&b);
    end_actor();
    tear_down();
}

/* A call by the actor's own process, which may claim it at once. */
static rl_handle call_self(rl_job *job)
{
    rl_handle out;
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.actor = &actor;
    spec.claimed = job;
    OK(&r.s, rl_task_submit(&worker, &spec, &out, NULL));
    return out;
}

static void test_own_call_of_an_ordered_actor_is_claimed_only_if_there_is_no_other(void)
{
    rl_job first, second;
    set_up(RL_ACTOR_ORDERED, 0);
    OK(&r.s, find_for(&worker, &r.s, actor));
    rl_handle first_out = call_self(&first);
    rl_handle second_out = call_self(&second);
    CHECK(first.task.index != RL_NIL);
    CHECK_EQ(second.task.index, RL_NIL);
    finish(&first, first_out);
    run_next(second_out);
    release(&worker, first_out);
    release(&worker, second_out);
    release(&worker, actor);
    end_actor();
    tear_down();
}

static void test_own_call_of_an_actor_without_order_is_always_claimed(void)
{
    rl_job first, second;
    set_up(0, 0);
    OK(&r.s, find_for(&worker, &r.s, actor));
    rl_handle first_out = call_self(&first);
    rl_handle second_out = call_self(&second);
    finish(&second, second_out);
    finish(&first, first_out);
    release(&worker, first_out);
    release(&worker, second_out);
    release(&worker, actor);
    end_actor();
    tear_down();
}

static void test_own_call_of_a_dead_actor_strands(void)
{
    rl_job job;
    set_up(0, 0);
    OK(&r.s, find_for(&worker, &r.s, actor));
    end_actor();
    rl_handle out = call_self(&job);
    CHECK_EQ(job.task.index, RL_NIL);
    CHECK_EQ(fail_stranded(), 1);
    release(&worker, out);
    release(&worker, actor);
    tear_down();
}

int main(void)
{
    RUN(test_calls_run_in_the_order_of_submission);
    RUN(test_ordered_call_that_waits_holds_up_its_caller_and_no_other);
    RUN(test_cancelled_call_that_held_up_others_has_the_actor_look_again);
    RUN(test_call_of_an_actor_that_is_no_worker_wakes_the_threads_of_all);
    RUN(test_look_for_a_call_ends_though_another_group_is_rung_for);
    RUN(test_call_of_an_actor_without_order_overtakes_one_that_waits);
    RUN(test_actor_is_over_when_nobody_can_reach_it_and_no_call_is_left);
    RUN(test_detached_actor_is_not_over);
    RUN(test_found_actor_and_its_class_are_held_by_who_looked);
    RUN(test_names_are_unique_until_their_actor_is_killed);
    RUN(test_calls_beyond_the_limit_of_one_caller_are_refused);
    RUN(test_restarted_actor_has_its_mailbox_still);
    RUN(test_calls_of_a_dead_actor_strand);
    RUN(test_repair_finds_mailboxes_again);
    RUN(test_untaken_items_of_all_streams_of_an_actor_count_together);
    RUN(test_dropped_stream_makes_room_for_the_others);
    RUN(test_who_waits_for_one_stream_does_not_wait_for_the_items_of_others);
    RUN(test_items_that_outlive_their_actor_do_not_count_for_the_next);
    RUN(test_own_call_of_an_ordered_actor_is_claimed_only_if_there_is_no_other);
    RUN(test_own_call_of_an_actor_without_order_is_always_claimed);
    RUN(test_own_call_of_a_dead_actor_strands);
    return 0;
}
