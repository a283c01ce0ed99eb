/* test_stream.c - what a generator task yields: appended, taken, waited for, dropped, replayed. */
#include "harness.h"

#include "rl_repair.h"

#include <sched.h>

enum { LOGGED = RL_CHUNK_NAMES / 2, BIG = 100000 };

static rig r;
static rl_session worker, second;
static rl_handle completion, outlet, stream;
static rl_job job;

/* ---- shorthands ---- */

static int64_t soon(void)
{
    return rl_now_ns() + 20 * MS_NS;
}

static int64_t late(void)
{
    return rl_now_ns() + 20000 * MS_NS;
}

static rl_spec stream_spec(uint32_t limit)
{
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.streams = 1;
    spec.stream_limit = limit;
    spec.max_retries = 1;
    return spec;
}

static void submit(rl_session *s, const rl_spec *spec)
{
    OK(&r.s, rl_task_submit(s, spec, &completion, &outlet));
    if (spec->streams) CHECK_EQ(rl_stream_of(s, outlet, &stream), 0);
}

static void start(const rl_spec *spec)
{
    submit(&r.s, spec);
    OK(&r.s, rl_task_take(&worker, 0, &job));
}

/* A session in which `worker` runs a task that fills `stream`, of at most `limit` untaken items. */
static void set_up_sized(uint32_t limit, const rl_capacities *tables)
{
    rig_make_sized(&r, 4 * MIB, tables);
    rig_join(&r, &worker);
    rig_join(&r, &second);
    rl_spec spec = stream_spec(limit);
    start(&spec);
}

static void set_up(uint32_t limit)
{
    set_up_sized(limit, &small_tables);
}

static void end(rl_session *s)
{
    rl_value none = {.kind = 1, .block = RL_NIL};
    OK(&r.s, rl_task_finish(s, job.task, completion, &none));
}

static void release(void)
{
    rl_object_release(&r.s, outlet);
    CHECK_CLEAN(&r.s);
}

static void drop(rl_handle h)
{
    rl_object_release(&r.s, h);
    CHECK_CLEAN(&r.s);
}

/* Be done with the present task, and run another. */
static void start_over(const rl_spec *spec)
{
    end(&worker);
    release();
    drop(completion);
    start(spec);
}

static void check_no_stream_is_left(void)
{
    const rl_table *streams = &r.map.control->streams;
    CHECK_EQ(streams->nfree, streams->high_water);
    CHECK_EQ(r.map.control->chunks.nfree, r.map.control->chunks.high_water);
}

/* The stream must have been released and its task be over. */
static void tear_down(void)
{
    drop(completion);
    check_no_stream_is_left();
    leave_session(&worker);
    leave_session(&second);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void end_and_tear_down(void)
{
    end(&worker);
    release();
    tear_down();
}

/* Append the value of `nbytes` that follows from `seed`; a refused one must still be `s`'s own. */
static int try_append(rl_session *s, uint64_t nbytes, uint64_t seed)
{
    uint8_t bytes[RL_INLINE];
    rl_value v;
    CHECK_EQ(value_make(s, nbytes, seed, bytes, &v), 0);
    int err = rl_stream_append(s, job.task, &v);
    if (err && v.block != RL_NIL) CHECK_EQ(rl_arena_abandon(s, v.block), 0);
    CHECK_CLEAN(&r.s);
    return err;
}

/* Items first..last, each the value of its number. */
static void append_range(rl_session *s, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++) CHECK_EQ(try_append(s, i % 3 ? 8 : 100, i), 0);
}

static rl_handle take_item(uint64_t seed)
{
    rl_handle item;
    rl_payload p;
    OK(&r.s, rl_stream_next(&r.s, stream, NULL, &item));
    CHECK_EQ(rl_object_read(&r.s, item, &p), 0);
    CHECK_EQ(p.fingerprint, seed);
    CHECK(payload_is_whole(&p));
    return item;
}

static void take_range(uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++) drop(take_item(i));
}

static int try_next(void)
{
    rl_handle item = {.index = RL_NIL};
    int err = rl_stream_next(&r.s, stream, NULL, &item);
    CHECK_CLEAN(&r.s);
    CHECK_EQ(item.index, RL_NIL);
    return err;
}

static void check_log(rl_session *s, uint32_t n)
{
    uint64_t log[128];
    CHECK_EQ(rl_stream_produced(s, job.stream), n);
    CHECK_EQ(rl_stream_log(s, job.stream, log, n), 0);
    for (uint32_t i = 0; i < n; i++) CHECK_EQ(log[i], i + 1);
}

static int wait_now(const rl_handle *h, uint32_t n, uint8_t *ready)
{
    uint32_t nready, count = 0;
    int err = rl_object_wait(&r.s, h, n, n, 0, 0, ready, &nready);
    for (uint32_t i = 0; i < n; i++) count += ready[i];
    CHECK_EQ(nready, count);
    return err;
}

static rl_job next_stranded(uint32_t expected_open)
{
    rl_job stranded;
    uint32_t cursor = 0, open;
    CHECK_EQ(rl_task_next_stranded(&r.s, &cursor, &stranded, &open), 0);
    CHECK_EQ(open, expected_open);
    return stranded;
}

static void kill_worker(void)
{
    OK(&r.s, rl_slot_release(&r.s, worker.slot));
    rl_session_detach(&worker);
    rl_session_dispose(&worker);
}

/* ---- items and the end ---- */

static void test_items_come_out_in_the_order_in_which_they_were_appended(void)
{
    set_up(0);
    append_range(&worker, 1, 3);
    take_range(1, 2);
    append_range(&worker, 4, 50);
    take_range(3, 50);
    append_range(&worker, 51, 51);
    take_range(51, 51);
    end_and_tear_down();
}

static void test_item_is_numbered_after_the_return_of_its_task(void)
{
    set_up(0);
    append_range(&worker, 1, 2);
    for (uint32_t i = 0; i < 2; i++) {
        rl_handle item = take_item(i + 1);
        CHECK_EQ(item.gen, completion.gen);
        CHECK_EQ(rl_object_number(&r.s, item), i + 2);
        drop(item);
    }
    end_and_tear_down();
}

static void test_next_tells_none_yet_from_none_any_more(void)
{
    set_up(0);
    CHECK_EQ(try_next(), RL_EAGAIN);
    append_range(&worker, 1, 1);
    CHECK_EQ(rl_stream_has_item(&r.s, stream), 1);
    take_range(1, 1);
    CHECK_EQ(rl_stream_has_item(&r.s, stream), 0);
    CHECK_EQ(try_next(), RL_EAGAIN);
    append_range(&worker, 2, 2);
    end(&worker);
    take_range(2, 2);
    CHECK_EQ(try_next(), RL_EEND);
    CHECK_EQ(try_next(), RL_EEND);
    CHECK_EQ(rl_stream_has_item(&r.s, stream), 0);
    CHECK_EQ(rl_stream_is_ready(&r.s, stream), 1);
    release();
    tear_down();
}

static void test_item_that_was_taken_outlives_the_stream(void)
{
    rl_payload p;
    set_up(0);
    CHECK_EQ(try_append(&worker, BIG, 7), 0);
    rl_handle item = take_item(7);
    end(&worker);
    release();
    CHECK_EQ(rl_object_read(&r.s, item, &p), 0);
    CHECK(payload_is_whole(&p));
    CHECK(free_bytes(&r.s) < r.map.data_size);
    drop(item);
    tear_down();
}

static void test_item_may_contain_other_objects(void)
{
    rl_handle inner[3], seen[3];
    uint8_t bytes[RL_INLINE];
    rl_value v;
    set_up(0);
    for (uint32_t i = 0; i < 3; i++) CHECK_EQ(value_put(&worker, 8, i, NULL, 0, &inner[i]), 0);
    CHECK_EQ(value_make(&worker, 8, 1, bytes, &v), 0);
    v.refs = inner;
    v.nrefs = 3;
    OK(&r.s, rl_stream_append(&worker, job.task, &v));
    for (uint32_t i = 0; i < 3; i++) rl_object_release(&worker, inner[i]);
    rl_handle item = take_item(1);
    CHECK_EQ(rl_object_read_refs(&r.s, item, seen, 3), 0);
    drop(item);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_EQ(seen[i].index, inner[i].index);
        drop(seen[i]);
    }
    end_and_tear_down();
}

static void test_taken_items_give_the_chunks_that_named_them_back(void)
{
    set_up(0);
    rl_spec unlogged = stream_spec(0);
    unlogged.max_retries = 0;
    start_over(&unlogged);
    for (uint64_t i = 1; i <= 20 * RL_CHUNK_NAMES; i++) {
        append_range(&worker, i, i);
        take_range(i, i);
        CHECK(r.map.control->chunks.high_water - r.map.control->chunks.nfree <= 2);
    }
    end_and_tear_down();
}

static void test_append_by_who_does_not_run_the_task_is_refused(void)
{
    set_up(0);
    CHECK_EQ(try_append(&second, BIG, 1), RL_ESTALE);
    CHECK_EQ(try_append(&r.s, 8, 1), RL_ESTALE);
    end(&worker);
    CHECK_EQ(try_append(&worker, BIG, 1), RL_ESTALE);
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    release();
    tear_down();
}

static void test_append_from_a_task_without_a_stream_is_refused(void)
{
    rig_make(&r);
    rig_join(&r, &worker);
    rig_join(&r, &second);
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    start(&spec);
    CHECK_EQ(job.stream.index, RL_NIL);
    CHECK_EQ(try_append(&worker, BIG, 1), RL_ESTALE);
    end(&worker);
    tear_down();
}

/* ---- dropping ---- */

static void test_dropped_stream_frees_the_items_that_nobody_took(void)
{
    set_up(0);
    for (uint64_t i = 1; i <= 2 * RL_CHUNK_NAMES + 3; i++) {
        CHECK_EQ(try_append(&worker, 30000, i), 0);
    }
    rl_handle kept = take_item(1);
    CHECK(free_bytes(&r.s) < r.map.data_size - 30 * 30000);
    release();
    CHECK(free_bytes(&r.s) > r.map.data_size - 40000);
    drop(kept);
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    end(&worker);
    tear_down();
}

static void test_append_to_a_dropped_stream_is_refused_and_leaves_the_value_to_the_caller(void)
{
    uint8_t bytes[RL_INLINE];
    rl_value v;
    set_up(0);
    append_range(&worker, 1, 1);
    release();
    CHECK_EQ(value_make(&worker, BIG, 2, bytes, &v), 0);
    CHECK_EQ(rl_stream_append(&worker, job.task, &v), RL_EAGAIN);
    CHECK(free_bytes(&r.s) < r.map.data_size);
    OK(&r.s, rl_arena_abandon(&worker, v.block));
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    CHECK_EQ(rl_stream_produced(&worker, job.stream), 1);
    end(&worker);
    tear_down();
}

static void test_stream_that_is_dropped_after_its_end_frees_all(void)
{
    set_up(0);
    CHECK_EQ(try_append(&worker, BIG, 1), 0);
    end(&worker);
    CHECK(free_bytes(&r.s) < r.map.data_size);
    release();
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    tear_down();
}

static void test_failure_among_the_dropped_items_is_handed_to_the_supervisor(void)
{
    uint8_t bytes[RL_INLINE];
    rl_handle report;
    set_up(0);
    rl_value v = failure_value(3, bytes);
    OK(&r.s, rl_stream_append(&worker, job.task, &v));
    release();
    CHECK_EQ(rl_object_take_report(&r.s, &report), 0);
    drop(report);
    end(&worker);
    tear_down();
}

static void test_stream_of_a_dead_consumer_is_dropped(void)
{
    rl_spec spec = stream_spec(1);
    set_up(0);
    end(&worker);
    release();
    drop(completion);
    submit(&second, &spec);
    OK(&r.s, rl_task_take(&worker, 0, &job));
    CHECK_EQ(try_append(&worker, BIG, 1), 0);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), RL_ETIMEDOUT);

    OK(&r.s, rl_slot_release(&r.s, second.slot));
    rl_session_detach(&second);
    rl_session_dispose(&second);
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    CHECK_EQ(try_append(&worker, BIG, 2), RL_EAGAIN);
    end(&worker);
    check_no_stream_is_left();
    leave_session(&worker);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_stream_that_is_dropped_before_its_task_runs_takes_nothing(void)
{
    set_up(0);
    end(&worker);
    release();
    drop(completion);
    rl_spec spec = stream_spec(0);
    submit(&r.s, &spec);
    CHECK_EQ(rl_stream_is_ready(&r.s, stream), 0);
    release();
    OK(&r.s, rl_task_take(&worker, 0, &job));
    CHECK_EQ(try_append(&worker, BIG, 1), RL_EAGAIN);
    end(&worker);
    tear_down();
}

/* ---- the outlet ---- */

/* Put a value that contains the outlet, and let go of the outlet itself. */
static rl_handle pass_on(void)
{
    rl_handle container;
    rl_value v = {.kind = 1, .block = RL_NIL, .refs = &outlet, .nrefs = 1};
    OK(&r.s, rl_object_put(&r.s, &v, &container));
    release();
    return container;
}

static void test_outlet_in_a_value_keeps_the_items_for_whoever_reads_it(void)
{
    rl_handle item, found;
    set_up(0);
    append_range(&worker, 1, 2);
    rl_handle container = pass_on();
    CHECK_EQ(try_append(&worker, 8, 3), 0);
    OK(&r.s, rl_object_read_refs(&second, container, &outlet, 1));
    OK(&r.s, rl_stream_of(&second, outlet, &found));
    CHECK_EQ(found.index, stream.index);
    for (uint64_t i = 1; i <= 3; i++) {
        OK(&r.s, rl_stream_next(&second, found, NULL, &item));
        rl_object_release(&second, item);
    }
    drop(container);
    rl_object_release(&second, outlet);
    CHECK_EQ(try_append(&worker, 8, 4), RL_EAGAIN);
    end(&worker);
    tear_down();
}

static void test_items_go_with_the_value_that_contains_the_outlet(void)
{
    set_up(1);
    CHECK_EQ(try_append(&worker, BIG, 1), 0);
    rl_handle container = pass_on();
    CHECK(free_bytes(&r.s) < r.map.data_size);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), RL_ETIMEDOUT);
    drop(container);
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    end(&worker);
    tear_down();
}

/* The items of a stream that contain outlets of streams, whose items contain outlets ... */
static void test_chain_of_streams_in_streams_is_freed_by_a_work_list(void)
{
    enum { LENGTH = 40 };
    rl_handle done[LENGTH];
    rig_make_sized(&r, 4 * MIB, &small_tables);
    rig_join(&r, &worker);
    rig_join(&r, &second);
    for (int i = 0; i < LENGTH; i++) {
        rl_handle inner = outlet;
        rl_spec spec = stream_spec(0);
        start(&spec);
        rl_value v = {.kind = 1, .block = RL_NIL, .refs = &inner, .nrefs = i > 0};
        OK(&r.s, rl_stream_append(&worker, job.task, &v));
        if (i > 0) rl_object_release(&r.s, inner);
        done[i] = completion;
        end(&worker);
    }
    CHECK_CLEAN(&r.s);
    release();
    check_no_stream_is_left();
    for (int i = 0; i < LENGTH - 1; i++) drop(done[i]);
    tear_down();
}

static void test_object_that_is_no_outlet_has_no_stream(void)
{
    rl_handle found;
    set_up(0);
    CHECK_EQ(rl_stream_of(&r.s, completion, &found), RL_EINVAL);
    CHECK_EQ(rl_stream_of(&r.s, (rl_handle){.index = RL_NIL}, &found), RL_EINVAL);
    end_and_tear_down();
}

static void test_task_that_has_taken_an_item_is_not_run_again(void)
{
    rl_handle item, mine;
    rl_job own;
    set_up(0);
    append_range(&worker, 1, 1);
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.max_retries = 3;
    OK(&r.s, rl_task_submit(&r.s, &spec, &mine, NULL));
    OK(&r.s, rl_task_take(&second, 0, &own));
    CHECK_EQ(rl_stream_next(&second, stream, &own.task, &item), 0);
    CHECK_EQ(rl_stream_next(&second, stream, &own.task, &item), RL_EAGAIN);
    rl_object_release(&second, item);
    OK(&r.s, rl_task_strand(&second, own.task));
    uint32_t cursor = 0, open;
    OK(&r.s, rl_task_next_stranded(&r.s, &cursor, &own, &open));
    CHECK_EQ(own.max_retries, RL_TASK_ONCE);
    rl_value v = {.kind = 1, .block = RL_NIL};
    OK(&r.s, rl_task_conclude(&r.s, own.task, &v, 1));
    drop(mine);
    end_and_tear_down();
}

/* ---- stale handles ---- */

static void check_stale(rl_handle h)
{
    rl_handle item = {.index = 5};
    uint64_t fingerprint;
    CHECK_EQ(rl_stream_next(&r.s, h, NULL, &item), RL_ESTALE);
    CHECK_EQ(item.index, 5);
    CHECK_EQ(rl_stream_is_ready(&r.s, h), 1); /* next() says why */
    CHECK_EQ(rl_stream_has_item(&r.s, h), 0);
    CHECK_EQ(rl_stream_wait_room(&r.s, h, late()), RL_ESTALE);
    CHECK_EQ(rl_stream_produced(&r.s, h), 0);
    CHECK_EQ(rl_stream_log(&r.s, h, &fingerprint, 1), RL_EINVAL);
    CHECK_CLEAN(&r.s);
}

static void test_stale_handle_is_refused_also_when_its_record_lives_again(void)
{
    rl_handle old, nonsense = {.index = RL_NIL, .kind = RL_HANDLE_STREAM};
    set_up(0);
    old = stream;
    end(&worker);
    release();
    drop(completion);
    check_stale(old);
    check_stale(nonsense);
    rl_spec spec = stream_spec(0);
    start(&spec);
    CHECK_EQ(stream.index, old.index);
    append_range(&worker, 1, 1);
    check_stale(old);
    take_range(1, 1);
    end_and_tear_down();
}

/* ---- the log ---- */

static void test_log_has_the_fingerprint_of_every_item_also_of_those_taken(void)
{
    set_up(0);
    check_log(&worker, 0);
    for (uint32_t i = 1; i <= 5 * LOGGED + 3; i++) {
        append_range(&worker, i, i);
        check_log(&worker, i);
        if (i % 2) take_range(i / 2 + 1, i / 2 + 1);
    }
    take_range((5 * LOGGED + 3) / 2 + 1, 5 * LOGGED + 3);
    check_log(&worker, 5 * LOGGED + 3);
    end_and_tear_down();
}

static void test_log_of_more_than_was_appended_is_refused(void)
{
    uint64_t log[4];
    set_up(0);
    append_range(&worker, 1, 3);
    CHECK_EQ(rl_stream_log(&worker, job.stream, log, 3), 0);
    CHECK_EQ(rl_stream_log(&worker, job.stream, log, 4), RL_EINVAL);
    end_and_tear_down();
}

static void test_stream_of_a_task_that_is_never_run_again_keeps_no_log(void)
{
    uint64_t log[1];
    set_up(0);
    rl_spec spec = stream_spec(0);
    spec.max_retries = 0;
    start_over(&spec);
    append_range(&worker, 1, 3);
    CHECK_EQ(rl_stream_produced(&worker, job.stream), 3);
    CHECK_EQ(rl_stream_log(&worker, job.stream, log, 1), RL_EINVAL);
    take_range(1, 3);
    end_and_tear_down();
}

/* ---- second attempts ---- */

static void test_second_attempt_finds_what_the_first_has_appended_and_goes_on(void)
{
    set_up(0);
    append_range(&worker, 1, 20);
    take_range(1, 4);
    OK(&r.s, rl_task_strand(&worker, job.task));
    CHECK_EQ(rl_stream_is_ready(&r.s, stream), 1);
    take_range(5, 6); /* while nobody runs it */
    OK(&r.s, rl_task_requeue(&r.s, next_stranded(1).task));
    OK(&r.s, rl_task_take(&second, 0, &job));
    CHECK_EQ(job.attempt, 1);
    check_log(&second, 20);
    CHECK_EQ(try_append(&worker, BIG, 21), RL_ESTALE);
    append_range(&second, 21, 30);
    end(&second);
    take_range(7, 30);
    CHECK_EQ(try_next(), RL_EEND);
    release();
    tear_down();
}

static void test_items_of_a_dead_worker_stay_and_its_stream_does_not_end(void)
{
    set_up(0);
    append_range(&worker, 1, 2 * RL_CHUNK_NAMES);
    kill_worker();
    take_range(1, 2 * RL_CHUNK_NAMES);
    CHECK_EQ(try_next(), RL_EAGAIN);
    CHECK_EQ(rl_stream_is_ready(&r.s, stream), 0);
    OK(&r.s, rl_task_requeue(&r.s, next_stranded(1).task));
    OK(&r.s, rl_task_take(&second, 0, &job));
    check_log(&second, 2 * RL_CHUNK_NAMES);
    append_range(&second, 2 * RL_CHUNK_NAMES + 1, 2 * RL_CHUNK_NAMES + 1);
    take_range(2 * RL_CHUNK_NAMES + 1, 2 * RL_CHUNK_NAMES + 1);
    end(&second);
    release();
    rig_join(&r, &worker);
    tear_down();
}

static void test_task_that_is_failed_ends_its_stream_after_the_items(void)
{
    uint8_t bytes[RL_INLINE];
    rl_payload p;
    set_up(0);
    append_range(&worker, 1, 2);
    kill_worker();
    rl_value failure = failure_value(9, bytes);
    OK(&r.s, rl_task_conclude(&r.s, next_stranded(1).task, &failure, 1));
    take_range(1, 2);
    CHECK_EQ(try_next(), RL_EEND);
    CHECK_EQ(rl_object_is_failure(&r.s, completion), 1);
    CHECK_EQ(rl_object_read(&r.s, completion, &p), 0);
    release();
    rig_join(&r, &worker);
    tear_down();
}

static void test_repair_changes_nothing_of_a_sound_stream(void)
{
    rl_section section;
    set_up(0);
    for (uint32_t i = 1; i <= 3 * RL_CHUNK_NAMES; i++) {
        append_range(&worker, i, i);
        if (i % 3 == 0) take_range(i / 3, i / 3);
        CHECK_EQ(rl_enter(&r.s, &section, RL_OP_CHECK), 0);
        CHECK_EQ(rl_repair(&r.s), 0);
        rl_leave(&section);
        CHECK_CLEAN(&r.s);
        check_log(&worker, i);
    }
    take_range(RL_CHUNK_NAMES + 1, 3 * RL_CHUNK_NAMES);
    end_and_tear_down();
}

/* ---- waiting ---- */

static void test_wait_takes_objects_and_streams_together(void)
{
    uint8_t ready[4];
    rl_handle value;
    set_up(0);
    CHECK_EQ(value_put(&r.s, 8, 1, NULL, 0, &value), 0);
    const rl_handle h[] = {stream, value, completion};
    CHECK_EQ(wait_now(h, 3, ready), RL_ETIMEDOUT);
    CHECK(!ready[0] && ready[1] && !ready[2]);
    append_range(&worker, 1, 1);
    CHECK_EQ(wait_now(h, 3, ready), RL_ETIMEDOUT);
    CHECK(ready[0] && ready[1] && !ready[2]);
    take_range(1, 1);
    CHECK_EQ(wait_now(h, 3, ready), RL_ETIMEDOUT);
    CHECK(!ready[0] && ready[1] && !ready[2]);
    end(&worker);
    CHECK_EQ(wait_now(h, 3, ready), 0);
    CHECK(ready[0] && ready[1] && ready[2]);
    drop(value);
    release();
    tear_down();
}

static int append_later(void *argument)
{
    (void)argument;
    rig_use_in_child(&r, &worker);
    rig_await_sleeper(&r, r.s.slot);
    append_range(&worker, 1, 1);
    return 0;
}

static int end_later(void *argument)
{
    (void)argument;
    rig_use_in_child(&r, &worker);
    rig_await_sleeper(&r, r.s.slot);
    end(&worker);
    return 0;
}

/* Sleep until the stream has an item or has ended, and not by the backstop of a second. */
static void sleep_until_ready(int (*cause)(void *))
{
    uint8_t ready;
    uint32_t nready;
    pid_t pid = spawn(cause, NULL);
    int64_t start_ns = rl_now_ns();
    CHECK_EQ(rl_object_wait(&r.s, &stream, 1, 1, 0, late(), &ready, &nready), 0);
    CHECK(rl_now_ns() - start_ns < 900 * MS_NS);
    CHECK_EQ(nready, 1);
    CHECK_EQ(reap(pid), 0);
}

static void test_append_in_another_process_wakes_the_sleeping_consumer(void)
{
    set_up(0);
    sleep_until_ready(append_later);
    take_range(1, 1);
    end_and_tear_down();
}

static void test_end_in_another_process_wakes_the_sleeping_consumer(void)
{
    set_up(0);
    sleep_until_ready(end_later);
    CHECK_EQ(try_next(), RL_EEND);
    release();
    tear_down();
}

/* ---- backpressure ---- */

static void test_producer_has_room_for_as_many_untaken_items_as_the_limit_says(void)
{
    set_up(2);
    for (uint64_t i = 1; i <= 2; i++) {
        CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
        append_range(&worker, i, i);
    }
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), RL_ETIMEDOUT);
    take_range(1, 1);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    append_range(&worker, 3, 3);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), RL_ETIMEDOUT);
    release();
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    end(&worker);
    tear_down();
}

static void test_producer_without_a_limit_has_room_for_any_number_of_small_items(void)
{
    set_up(0);
    append_range(&worker, 1, 100);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    end_and_tear_down();
}

/* Append items until they take more than the share of the store that a task's stream may have. */
static uint64_t fill_share(void)
{
    uint64_t n = 0;
    while (rl_stream_wait_room(&worker, job.stream, 0) == 0) {
        CHECK_EQ(try_append(&worker, BIG, ++n), 0);
    }
    CHECK(n * BIG > r.map.data_size / RL_STREAM_SHARE);
    CHECK((n - 1) * BIG <= r.map.data_size / RL_STREAM_SHARE);
    return n;
}

static void test_producer_without_a_limit_pauses_at_a_share_of_the_store(void)
{
    set_up(0);
    uint64_t n = fill_share();
    take_range(1, 1);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    CHECK_EQ(try_append(&worker, BIG, n + 1), 0);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), RL_ETIMEDOUT);
    rl_section section;
    CHECK_EQ(rl_enter(&r.s, &section, RL_OP_CHECK), 0);
    CHECK_EQ(rl_repair(&r.s), 0);
    rl_leave(&section);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), RL_ETIMEDOUT);
    take_range(2, n + 1);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    end_and_tear_down();
}

/* Somebody waits for the end of the task. */
static void await_end(void)
{
    uint8_t ready;
    uint32_t nready;
    CHECK_EQ(rl_object_wait(&r.s, &completion, 1, 1, 0, 0, &ready, &nready), RL_ETIMEDOUT);
}

static void test_task_that_depends_on_the_end_lifts_the_share(void)
{
    rl_handle out;
    set_up(0);
    fill_share();
    rl_spec spec = rig_spec(&r, 1, &completion, 1);
    spec.ndeps = 1;
    OK(&r.s, rl_task_submit(&r.s, &spec, &out, NULL));
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    end(&worker);
    release();
    rl_value none = {.kind = 1, .block = RL_NIL};
    rl_job dependent;
    OK(&r.s, rl_task_take(&worker, 0, &dependent));
    OK(&r.s, rl_task_finish(&worker, dependent.task, out, &none));
    drop(out);
    tear_down();
}

static void test_producer_that_is_over_does_not_wait_for_room(void)
{
    set_up(1);
    append_range(&worker, 1, 1);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), RL_ETIMEDOUT);
    end(&worker);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    release();
    tear_down();
}

static void test_wait_for_the_end_lifts_the_share_but_no_limit(void)
{
    set_up(0);
    fill_share();
    await_end();
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    rl_spec spec = stream_spec(1);
    start_over(&spec);
    append_range(&worker, 1, 1);
    await_end();
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), RL_ETIMEDOUT);
    end_and_tear_down();
}

static void test_wait_for_the_end_among_others_lifts_the_share_too(void)
{
    uint8_t ready[2];
    uint32_t nready;
    rl_handle other;
    set_up(0);
    fill_share();
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    OK(&r.s, rl_task_submit(&r.s, &spec, &other, NULL));
    const rl_handle both[2] = {completion, other};
    CHECK_EQ(rl_object_wait(&r.s, both, 2, 2, 0, soon(), ready, &nready), RL_ETIMEDOUT);
    CHECK_EQ(nready, 0);
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, 0), 0);
    rl_value none = {.kind = 1, .block = RL_NIL};
    rl_job second_job;
    OK(&r.s, rl_task_take(&second, 0, &second_job));
    OK(&r.s, rl_task_finish(&second, second_job.task, other, &none));
    drop(other);
    end_and_tear_down();
}

/* Items 1 and 2, the first of which somebody else takes meanwhile. */
static int take_seal_and_append(void *argument)
{
    const rl_handle *other = argument;
    rl_value none = {.kind = 1, .block = RL_NIL};
    rl_job second_job;
    rig_use_in_child(&r, &worker);
    atomic_store(second.attached, 1);
    rig_await_sleeper(&r, r.s.slot);
    take_range(1, 1);
    CHECK_EQ(rl_task_take(&second, 0, &second_job), 0);
    CHECK_EQ(rl_task_finish(&second, second_job.task, *other, &none), 0);
    while (!atomic_load(&r.map.streams[stream.index].waited)) sched_yield();
    append_range(&worker, 2, 2);
    return 0;
}

static void test_wait_does_not_count_an_item_that_was_taken_meanwhile(void)
{
    uint8_t ready[2];
    uint32_t nready;
    rl_handle other;
    set_up(0);
    append_range(&worker, 1, 1);
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    OK(&r.s, rl_task_submit(&r.s, &spec, &other, NULL));
    const rl_handle both[2] = {other, stream};
    pid_t pid = spawn(take_seal_and_append, &other);
    int64_t start_ns = rl_now_ns();
    CHECK_EQ(rl_object_wait(&r.s, both, 2, 2, 0, late(), ready, &nready), 0);
    CHECK(rl_now_ns() - start_ns < 900 * MS_NS);
    CHECK_EQ(rl_stream_produced(&r.s, job.stream), 2);
    CHECK_EQ(reap(pid), 0);
    take_range(2, 2);
    drop(other);
    end_and_tear_down();
}

static int produce_with_room(void *argument)
{
    (void)argument;
    rig_use_in_child(&r, &worker);
    int64_t start_ns = rl_now_ns();
    CHECK_EQ(rl_stream_wait_room(&worker, job.stream, late()), 0);
    CHECK(rl_now_ns() - start_ns < 900 * MS_NS);
    return 0;
}

static void take_one(void)
{
    take_range(1, 1);
}

/* A producer in another process that sleeps for want of room is woken by `cause`. */
static void wake_producer_by(void (*cause)(void))
{
    pid_t pid = spawn(produce_with_room, NULL);
    rig_await_sleeper(&r, worker.slot);
    cause();
    CHECK_EQ(reap(pid), 0);
}

static void test_next_wakes_the_paused_producer(void)
{
    set_up(1);
    append_range(&worker, 1, 1);
    wake_producer_by(take_one);
    end_and_tear_down();
}

static void test_release_wakes_the_paused_producer(void)
{
    set_up(1);
    append_range(&worker, 1, 1);
    wake_producer_by(release);
    end(&worker);
    tear_down();
}

static void test_wait_for_the_end_wakes_the_producer_that_pauses_for_its_share(void)
{
    set_up(0);
    fill_share();
    wake_producer_by(await_end);
    end_and_tear_down();
}

static void test_paused_producer_lends_its_cpu(void)
{
    rl_handle out;
    rl_job other;
    rl_value none = {.kind = 1, .block = RL_NIL};
    set_up(1);
    OK(&r.s, rl_resource_set_total(&r.s, RL_CPU, RL_RESOURCE_UNIT));
    append_range(&worker, 1, 1);
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    OK(&r.s, rl_task_submit(&r.s, &spec, &out, NULL));
    CHECK_EQ(rl_task_take(&second, 0, &other), RL_ETIMEDOUT);
    pid_t pid = spawn(produce_with_room, NULL);
    rig_await_sleeper(&r, worker.slot);
    OK(&r.s, rl_task_take(&second, 0, &other));
    OK(&r.s, rl_task_finish(&second, other.task, out, &none));
    take_range(1, 1);
    CHECK_EQ(reap(pid), 0);
    drop(out);
    end_and_tear_down();
}

/* ---- full tables ---- */

static void test_submit_into_a_full_table_of_streams_is_refused_and_takes_nothing(void)
{
    rl_capacities tables = small_tables;
    rl_handle out, more;
    tables.streams = 1;
    set_up_sized(0, &tables);
    rl_spec spec = stream_spec(0);
    uint64_t objects = r.map.control->objects_live;
    CHECK_EQ(rl_task_submit(&r.s, &spec, &out, &more), RL_ETABLE);
    CHECK_CLEAN(&r.s);
    CHECK_EQ(r.map.control->objects_live, objects);
    start_over(&spec);
    end_and_tear_down();
}

static void test_append_into_full_chunks_is_refused_until_items_are_taken(void)
{
    rl_capacities tables = small_tables;
    tables.chunks = 4;
    set_up_sized(0, &tables);
    rl_spec spec = stream_spec(0);
    spec.max_retries = 0;
    start_over(&spec);
    uint32_t n = 0;
    while (try_append(&worker, 100, n + 1) == 0) n++;
    CHECK(n >= 2 * RL_CHUNK_NAMES);
    CHECK_EQ(try_append(&worker, 100, n + 1), RL_ETABLE);
    CHECK_EQ(rl_stream_produced(&worker, job.stream), n);
    take_range(1, RL_CHUNK_NAMES);
    CHECK_EQ(try_append(&worker, 100, n + 1), 0);
    take_range(RL_CHUNK_NAMES + 1, n + 1);
    end_and_tear_down();
}

static void test_append_into_a_full_table_of_objects_is_refused_until_one_is_dropped(void)
{
    rl_capacities tables = small_tables;
    tables.objects = 8;
    set_up_sized(0, &tables);
    uint32_t n = 0;
    while (try_append(&worker, 100, n + 1) == 0) n++;
    CHECK_EQ(n, 5); /* the function, the completion and the outlet are the others */
    CHECK_EQ(try_append(&worker, 100, n + 1), RL_ETABLE);
    take_range(1, 1);
    CHECK_EQ(try_append(&worker, 100, n + 1), 0);
    check_log(&worker, n + 1);
    end_and_tear_down();
}

int main(void)
{
    RUN(test_items_come_out_in_the_order_in_which_they_were_appended);
    RUN(test_item_is_numbered_after_the_return_of_its_task);
    RUN(test_next_tells_none_yet_from_none_any_more);
    RUN(test_item_that_was_taken_outlives_the_stream);
    RUN(test_item_may_contain_other_objects);
    RUN(test_taken_items_give_the_chunks_that_named_them_back);
    RUN(test_append_by_who_does_not_run_the_task_is_refused);
    RUN(test_append_from_a_task_without_a_stream_is_refused);
    RUN(test_dropped_stream_frees_the_items_that_nobody_took);
    RUN(test_append_to_a_dropped_stream_is_refused_and_leaves_the_value_to_the_caller);
    RUN(test_stream_that_is_dropped_after_its_end_frees_all);
    RUN(test_failure_among_the_dropped_items_is_handed_to_the_supervisor);
    RUN(test_stream_of_a_dead_consumer_is_dropped);
    RUN(test_stream_that_is_dropped_before_its_task_runs_takes_nothing);
    RUN(test_outlet_in_a_value_keeps_the_items_for_whoever_reads_it);
    RUN(test_items_go_with_the_value_that_contains_the_outlet);
    RUN(test_chain_of_streams_in_streams_is_freed_by_a_work_list);
    RUN(test_object_that_is_no_outlet_has_no_stream);
    RUN(test_task_that_has_taken_an_item_is_not_run_again);
    RUN(test_stale_handle_is_refused_also_when_its_record_lives_again);
    RUN(test_log_has_the_fingerprint_of_every_item_also_of_those_taken);
    RUN(test_log_of_more_than_was_appended_is_refused);
    RUN(test_stream_of_a_task_that_is_never_run_again_keeps_no_log);
    RUN(test_second_attempt_finds_what_the_first_has_appended_and_goes_on);
    RUN(test_items_of_a_dead_worker_stay_and_its_stream_does_not_end);
    RUN(test_task_that_is_failed_ends_its_stream_after_the_items);
    RUN(test_repair_changes_nothing_of_a_sound_stream);
    RUN(test_wait_takes_objects_and_streams_together);
    RUN(test_append_in_another_process_wakes_the_sleeping_consumer);
    RUN(test_end_in_another_process_wakes_the_sleeping_consumer);
    RUN(test_producer_has_room_for_as_many_untaken_items_as_the_limit_says);
    RUN(test_producer_without_a_limit_has_room_for_any_number_of_small_items);
    RUN(test_producer_without_a_limit_pauses_at_a_share_of_the_store);
    RUN(test_task_that_depends_on_the_end_lifts_the_share);
    RUN(test_producer_that_is_over_does_not_wait_for_room);
    RUN(test_wait_for_the_end_lifts_the_share_but_no_limit);
    RUN(test_wait_for_the_end_among_others_lifts_the_share_too);
    RUN(test_wait_does_not_count_an_item_that_was_taken_meanwhile);
    RUN(test_next_wakes_the_paused_producer);
    RUN(test_release_wakes_the_paused_producer);
    RUN(test_wait_for_the_end_wakes_the_producer_that_pauses_for_its_share);
    RUN(test_paused_producer_lends_its_cpu);
    RUN(test_submit_into_a_full_table_of_streams_is_refused_and_takes_nothing);
    RUN(test_append_into_full_chunks_is_refused_until_items_are_taken);
    RUN(test_append_into_a_full_table_of_objects_is_refused_until_one_is_dropped);
    return 0;
}
