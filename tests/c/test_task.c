/* test_task.c - tasks from submission to their end: dependencies, queues, resources, second attempts. */
#include "harness.h"

#include "rl_repair.h"

static rig r;
static rl_session worker, second;

static void set_up(void)
{
    rig_make(&r);
    rig_join(&r, &worker);
    rig_join(&r, &second);
}

static void tear_down(void)
{
    leave_session(&worker);
    leave_session(&second);
    rig_check_empty(&r);
    rig_drop(&r);
}

/* ---- shorthands ---- */

static void submit_as(const rl_spec *spec, rl_handle *returns)
{
    OK(&r.s, rl_task_submit(&r.s, spec, returns, NULL));
}

static rl_handle submit(const rl_handle *refs, uint32_t nrefs)
{
    rl_handle out;
    rl_spec spec = rig_spec(&r, 1, refs, nrefs);
    submit_as(&spec, &out);
    return out;
}

static rl_handle submit_class(uint32_t class_)
{
    rl_handle out;
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.class_ = class_;
    submit_as(&spec, &out);
    return out;
}

static int try_take(rl_session *s, rl_job *job)
{
    int err = rl_task_take(s, 0, job);
    CHECK_CLEAN(&r.s);
    return err;
}

static rl_job take(rl_session *s)
{
    rl_job job;
    CHECK_EQ(try_take(s, &job), 0);
    return job;
}

static void check_nothing_to_take(rl_session *s)
{
    rl_job job;
    CHECK_EQ(try_take(s, &job), RL_ETIMEDOUT);
}

static rl_handle return_of(rl_session *s, const rl_job *job, uint32_t k)
{
    rl_handle returns[64];
    CHECK_EQ(rl_task_returns(s, job->task, returns, job->nreturns), 0);
    return returns[k];
}

static int put_return(rl_session *s, const rl_job *job, uint32_t k, uint64_t nbytes, uint64_t seed)
{
    uint8_t bytes[RL_INLINE];
    rl_value v;
    CHECK_EQ(value_make(s, nbytes, seed, bytes, &v), 0);
    int err = rl_task_return(s, job->task, return_of(s, job, k), &v);
    if (err && v.block != RL_NIL) CHECK_EQ(rl_arena_abandon(s, v.block), 0);
    CHECK_CLEAN(&r.s);
    return err;
}

static int end_task(rl_session *s, const rl_job *job)
{
    int err = rl_task_finish(s, job->task, (rl_handle){.index = RL_NIL}, NULL);
    CHECK_CLEAN(&r.s);
    return err;
}

static void run(rl_session *s, const rl_job *job)
{
    for (uint32_t k = 0; k < job->nreturns; k++) CHECK_EQ(put_return(s, job, k, 8, k + 1), 0);
    CHECK_EQ(end_task(s, job), 0);
}

static void take_and_run(rl_session *s)
{
    rl_job job = take(s);
    run(s, &job);
}

static void drop(rl_handle h)
{
    rl_object_release(&r.s, h);
    CHECK_CLEAN(&r.s);
}

static int64_t cpus_free(void)
{
    return r.map.control->resources[RL_CPU].available / RL_RESOURCE_UNIT;
}

static uint32_t class_of(int64_t cpus)
{
    uint32_t out;
    int64_t demand[RL_MAX_RESOURCES] = {[RL_CPU] = cpus * RL_RESOURCE_UNIT};
    OK(&r.s, rl_class_intern(&r.s, demand, &out));
    return out;
}

static void set_cpus(int64_t cpus)
{
    OK(&r.s, rl_resource_set_total(&r.s, RL_CPU, cpus * RL_RESOURCE_UNIT));
}

/* ---- the plain path ---- */

static void test_task_is_taken_with_all_that_it_was_submitted_with(void)
{
    static const char bytes[] = "arguments";
    rl_handle refs[3], got[3], returns[20];
    set_up();
    for (int i = 0; i < 3; i++) CHECK_EQ(value_put(&r.s, 8, 1, NULL, 0, &refs[i]), 0);
    rl_spec spec = rig_spec(&r, 20, refs, 3);
    spec.name = "a name that is a good deal longer than what the record of a task has room for";
    spec.ndeps = 2;
    spec.kind = 5;
    spec.nbytes = sizeof bytes;
    spec.bytes = bytes;
    spec.max_retries = -1;
    spec.options = 9;
    submit_as(&spec, returns);

    rl_job job = take(&worker);
    CHECK_EQ(strlen(job.name), RL_TASK_NAME - 1);
    CHECK_EQ(strncmp(job.name, spec.name, RL_TASK_NAME - 1), 0);
    CHECK_EQ(job.nreturns, 20);
    CHECK_EQ(job.nrefs, 3);
    CHECK_EQ(job.ndeps, 2);
    CHECK_EQ(job.kind, 5);
    CHECK_EQ(job.options, 9);
    CHECK_EQ(job.max_retries, -1);
    CHECK_EQ(job.attempt, 0);
    CHECK_EQ(job.nbytes, sizeof bytes);
    CHECK_EQ(memcmp(job.bytes, bytes, sizeof bytes), 0);
    CHECK_EQ(job.function.index, r.function.index);
    CHECK_EQ(job.args.index, RL_NIL);
    CHECK_EQ(rl_task_refs(&worker, job.task, got, 3), 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(got[i].index, refs[i].index);
    for (uint32_t k = 0; k < 20; k++) {
        CHECK_EQ(return_of(&worker, &job, k).index, returns[k].index);
        CHECK_EQ(rl_object_number(&r.s, returns[k]), k + 1);
    }
    run(&worker, &job);
    for (int i = 0; i < 3; i++) drop(refs[i]);
    for (uint32_t k = 0; k < 20; k++) {
        rl_payload p;
        CHECK_EQ(rl_object_read(&r.s, returns[k], &p), 0);
        CHECK_EQ(p.fingerprint, k + 1);
        drop(returns[k]);
    }
    tear_down();
}

static void test_arguments_in_an_object_live_as_long_as_their_task(void)
{
    rl_handle args, out;
    set_up();
    CHECK_EQ(value_put(&r.s, 1000, 4, NULL, 0, &args), 0);
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.args = args;
    submit_as(&spec, &out);
    drop(args);
    rl_job job = take(&worker);
    rl_payload p;
    CHECK_EQ(rl_object_read(&worker, job.args, &p), 0);
    CHECK(payload_is_whole(&p));
    run(&worker, &job);
    drop(out);
    tear_down();
}

static void test_return_is_visible_before_the_task_ends(void)
{
    rl_handle out[2];
    rl_payload p;
    set_up();
    rl_spec spec = rig_spec(&r, 2, NULL, 0);
    submit_as(&spec, out);
    rl_job job = take(&worker);
    CHECK_EQ(rl_object_read(&r.s, out[0], &p), RL_EAGAIN);
    CHECK_EQ(put_return(&worker, &job, 0, 100, 3), 0);
    CHECK_EQ(rl_object_read(&r.s, out[0], &p), 0);
    CHECK_EQ(rl_object_read(&r.s, out[1], &p), RL_EAGAIN);
    CHECK_EQ(end_task(&worker, &job), RL_EINVAL); /* a return is open */
    CHECK_EQ(put_return(&worker, &job, 1, 100, 3), 0);
    CHECK_EQ(end_task(&worker, &job), 0);
    CHECK_EQ(end_task(&worker, &job), RL_ESTALE);
    drop(out[0]);
    drop(out[1]);
    tear_down();
}

static void test_task_without_returns_is_run_and_gone(void)
{
    set_up();
    rl_spec spec = rig_spec(&r, 0, NULL, 0);
    submit_as(&spec, NULL);
    take_and_run(&worker);
    tear_down();
}

static void test_task_of_another_worker_is_out_of_reach(void)
{
    rl_handle out, got;
    rl_value v = {.block = RL_NIL};
    set_up();
    out = submit(NULL, 0);
    rl_job job = take(&worker);
    CHECK_EQ(rl_task_returns(&second, job.task, &got, 1), RL_ESTALE);
    CHECK_EQ(rl_task_refs(&second, job.task, &got, 0), RL_ESTALE);
    CHECK_EQ(rl_task_return(&second, job.task, out, &v), RL_ESTALE);
    CHECK_EQ(rl_task_finish(&second, job.task, out, &v), RL_ESTALE);
    CHECK_EQ(rl_task_strand(&second, job.task), RL_ESTALE);
    CHECK_EQ(rl_task_requeue(&r.s, job.task), RL_ESTALE);
    CHECK_EQ(rl_task_conclude(&r.s, job.task, &v, 1), RL_ESTALE);
    run(&worker, &job);
    drop(out);
    tear_down();
}

static void test_submit_of_nonsense_is_refused_and_takes_nothing(void)
{
    rl_handle out = {.index = 77};
    uint64_t bytes[32] = {0};
    set_up();
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    spec.class_ = 50;
    CHECK_EQ(rl_task_submit(&r.s, &spec, &out, NULL), RL_EINVAL);
    spec.class_ = RL_MAX_CLASSES;
    CHECK_EQ(rl_task_submit(&r.s, &spec, &out, NULL), RL_EINVAL);
    spec = rig_spec(&r, 1, NULL, 0);
    spec.ndeps = 1;
    CHECK_EQ(rl_task_submit(&r.s, &spec, &out, NULL), RL_EINVAL);
    spec = rig_spec(&r, 1, NULL, 0);
    spec.nbytes = RL_TASK_INLINE + 1;
    spec.bytes = bytes;
    CHECK_EQ(rl_task_submit(&r.s, &spec, &out, NULL), RL_EINVAL);
    spec = rig_spec(&r, 1, NULL, 0);
    spec.function.index = RL_NIL;
    CHECK_EQ(rl_task_submit(&r.s, &spec, &out, NULL), RL_EINVAL);
    CHECK_EQ(out.index, 77);
    tear_down();
}

static void test_submit_into_full_tables_is_refused_and_takes_nothing(void)
{
    rl_capacities tables = {.blocks = 64, .objects = 8, .tasks = 2, .chunks = 1, .edges = 1};
    rl_handle out[8], refs[2];
    rig_make_sized(&r, MIB, &tables);
    CHECK_EQ(value_put(&r.s, 8, 1, NULL, 0, &refs[0]), 0);
    refs[1] = refs[0];
    rl_spec spec = rig_spec(&r, 7, NULL, 0);
    CHECK_EQ(rl_task_submit(&r.s, &spec, out, NULL), RL_ETABLE); /* objects */
    spec = rig_spec(&r, 2, refs, 2);
    CHECK_EQ(rl_task_submit(&r.s, &spec, out, NULL), RL_ETABLE); /* chunks */
    spec = rig_spec(&r, 1, refs, 2);
    CHECK_EQ(rl_task_submit(&r.s, &spec, out, NULL), RL_ETABLE); /* edges */
    CHECK_CLEAN(&r.s);
    spec = rig_spec(&r, 0, NULL, 0);
    submit_as(&spec, out);
    submit_as(&spec, out);
    CHECK_EQ(rl_task_submit(&r.s, &spec, out, NULL), RL_ETABLE); /* tasks */
    take_and_run(&r.s);
    take_and_run(&r.s);
    drop(refs[0]);
    rig_check_empty(&r);
    rig_drop(&r);
}

/* ---- dependencies ---- */

static void test_dependent_waits_for_all_that_it_needs(void)
{
    rl_handle out[2], dependent;
    set_up();
    rl_spec spec = rig_spec(&r, 2, NULL, 0);
    submit_as(&spec, out);
    dependent = submit(out, 2);
    rl_job first = take(&worker);
    check_nothing_to_take(&second);
    CHECK_EQ(put_return(&worker, &first, 1, 8, 1), 0);
    check_nothing_to_take(&second);
    CHECK_EQ(put_return(&worker, &first, 0, 8, 1), 0);
    rl_job next = take(&second); /* while the first still runs */
    CHECK_EQ(end_task(&worker, &first), 0);
    run(&second, &next);
    drop(out[0]);
    drop(out[1]);
    drop(dependent);
    tear_down();
}

static void test_ref_beyond_the_dependencies_is_not_waited_for(void)
{
    rl_handle out, passer;
    set_up();
    out = submit(NULL, 0);
    rl_spec spec = rig_spec(&r, 1, &out, 1);
    spec.ndeps = 0;
    submit_as(&spec, &passer);
    rl_job first = take(&worker);
    take_and_run(&second);
    run(&worker, &first);
    drop(out);
    drop(passer);
    tear_down();
}

static void test_chain_of_tasks_runs_in_order(void)
{
    enum { LENGTH = 100 };
    rl_handle out[LENGTH];
    set_up();
    out[0] = submit(NULL, 0);
    for (int i = 1; i < LENGTH; i++) out[i] = submit(&out[i - 1], 1);
    for (int i = 0; i < LENGTH; i++) {
        rl_job job = take(&worker);
        CHECK_EQ(return_of(&worker, &job, 0).index, out[i].index);
        run(&worker, &job);
    }
    for (int i = 0; i < LENGTH; i++) drop(out[i]);
    tear_down();
}

static void test_same_dependency_twice_is_waited_for_once_it_is_sealed(void)
{
    rl_handle refs[2];
    set_up();
    refs[0] = refs[1] = submit(NULL, 0);
    rl_handle dependent = submit(refs, 2);
    take_and_run(&worker);
    take_and_run(&worker);
    drop(refs[0]);
    drop(dependent);
    tear_down();
}

/* ---- queues ---- */

static void test_tasks_of_several_classes_run_in_the_order_of_submission(void)
{
    rl_handle out[9];
    set_up();
    uint32_t classes[3] = {class_of(1), class_of(0), class_of(2)};
    for (int i = 0; i < 9; i++) out[i] = submit_class(classes[i % 3]);
    for (int i = 0; i < 9; i++) {
        rl_job job = take(&worker);
        CHECK_EQ(return_of(&worker, &job, 0).index, out[i].index);
        run(&worker, &job);
        drop(out[i]);
    }
    tear_down();
}

static void test_retried_task_goes_before_those_submitted_later(void)
{
    rl_handle out[4];
    set_up();
    for (int i = 0; i < 4; i++) out[i] = submit(NULL, 0);
    rl_job first = take(&worker), later = take(&second);
    CHECK_EQ(rl_task_strand(&second, later.task), 0);
    CHECK_EQ(rl_task_strand(&worker, first.task), 0);
    CHECK_CLEAN(&r.s);
    OK(&r.s, rl_task_requeue(&r.s, later.task));
    OK(&r.s, rl_task_requeue(&r.s, first.task));
    for (int i = 0; i < 4; i++) {
        rl_job job = take(&worker);
        CHECK_EQ(return_of(&worker, &job, 0).index, out[i].index);
        CHECK_EQ(job.attempt, i < 2);
        run(&worker, &job);
        drop(out[i]);
    }
    tear_down();
}

static void test_class_and_resource_are_interned_once(void)
{
    uint32_t a, b;
    char name[RL_RESOURCE_NAME + 1];
    set_up();
    CHECK_EQ(class_of(1), r.class_);
    CHECK_EQ(class_of(7), class_of(7));
    CHECK_EQ(rl_resource_intern(&r.s, "disk", &a), 0);
    CHECK_EQ(rl_resource_intern(&r.s, "disk", &b), 0);
    CHECK_EQ(a, b);
    CHECK_EQ(rl_resource_intern(&r.s, "", &a), RL_EINVAL);
    memset(name, 'x', sizeof name);
    name[RL_RESOURCE_NAME] = 0;
    CHECK_EQ(rl_resource_intern(&r.s, name, &a), RL_EINVAL);
    name[RL_RESOURCE_NAME - 1] = 0;
    CHECK_EQ(rl_resource_intern(&r.s, name, &a), 0);
    CHECK_EQ(rl_resource_intern(&r.s, name, &b), 0);
    CHECK_EQ(a, b);
    for (int i = 3; i < RL_MAX_RESOURCES; i++) {
        snprintf(name, sizeof name, "resource %d", i);
        CHECK_EQ(rl_resource_intern(&r.s, name, &a), 0);
    }
    CHECK_EQ(rl_resource_intern(&r.s, "one more", &a), RL_ETABLE);
    CHECK_EQ(rl_resource_set_total(&r.s, RL_MAX_RESOURCES, 1), RL_EINVAL);
    int64_t demand[RL_MAX_RESOURCES] = {0};
    int err = 0;
    for (int i = 0; i < RL_MAX_CLASSES && !err; i++) {
        demand[5] = i + 1;
        err = rl_class_intern(&r.s, demand, &a);
    }
    CHECK_EQ(err, RL_ETABLE);
    tear_down();
}

/* ---- resources ---- */

static void test_task_runs_only_when_its_resources_are_free(void)
{
    rl_handle out[3];
    rl_load load;
    set_up();
    for (int i = 0; i < 3; i++) out[i] = submit(NULL, 0);
    rl_job first = take(&worker), next = take(&second);
    CHECK_EQ(cpus_free(), 0);
    check_nothing_to_take(&r.s);
    CHECK_EQ(rl_task_load(&r.s, &load), 0);
    CHECK_EQ(load.ready, 1);
    CHECK_EQ(load.runnable, 0);
    CHECK_EQ(load.workers, 2);
    CHECK_EQ(load.infeasible, RL_NIL);
    run(&worker, &first);
    CHECK_EQ(cpus_free(), 1);
    take_and_run(&worker);
    run(&second, &next);
    CHECK_EQ(cpus_free(), 2);
    for (int i = 0; i < 3; i++) drop(out[i]);
    tear_down();
}

static void test_task_that_wants_more_than_there_is_is_infeasible_until_there_is_more(void)
{
    rl_load load;
    set_up();
    uint32_t big = class_of(5);
    rl_handle out = submit_class(big);
    check_nothing_to_take(&worker);
    CHECK_EQ(rl_task_load(&r.s, &load), 0);
    CHECK_EQ(load.infeasible, big);
    set_cpus(5);
    take_and_run(&worker);
    set_cpus(2);
    drop(out);
    tear_down();
}

/* A thread of the worker that does not run the task lends nothing. */
static void *other_thread_sleeps(void *argument)
{
    CHECK_EQ(rl_task_block(&worker), 0);
    return argument;
}

static void test_blocked_worker_lends_its_cpu_and_takes_it_back(void)
{
    rl_handle out[2];
    rl_load load;
    set_up();
    set_cpus(1);
    for (int i = 0; i < 2; i++) out[i] = submit(NULL, 0);
    rl_job parent = take(&worker);
    check_nothing_to_take(&second);
    CHECK_EQ(rl_task_block(&worker), 1);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, other_thread_sleeps, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(cpus_free(), 1);
    CHECK_EQ(rl_task_load(&r.s, &load), 0);
    CHECK_EQ(load.blocked, 1);
    rl_job child = take(&second);
    CHECK_EQ(cpus_free(), 0);
    rl_task_unblock(&worker);
    CHECK_EQ(cpus_free(), -1); /* both run until one ends */
    CHECK_CLEAN(&r.s);
    run(&second, &child);
    CHECK_EQ(cpus_free(), 0);
    run(&worker, &parent);
    CHECK_EQ(cpus_free(), 1);
    CHECK_EQ(rl_task_block(&worker), 0); /* it runs no task */
    set_cpus(2);
    for (int i = 0; i < 2; i++) drop(out[i]);
    tear_down();
}

static void test_task_that_ends_blocked_leaves_the_books_right(void)
{
    set_up();
    rl_handle out = submit(NULL, 0);
    rl_job job = take(&worker);
    CHECK_EQ(rl_task_block(&worker), 1);
    run(&worker, &job);
    CHECK_EQ(cpus_free(), 2);
    rl_task_unblock(&worker);
    CHECK_EQ(cpus_free(), 2);
    CHECK_CLEAN(&r.s);
    drop(out);
    tear_down();
}

static void test_task_that_wants_all_cpus_is_not_starved_by_small_ones(void)
{
    enum { MANY = 2 * RL_PATIENCE };
    rl_handle small[MANY + 2], big;
    set_up();
    uint32_t all = class_of(2);
    small[0] = submit(NULL, 0);
    small[1] = submit(NULL, 0);
    big = submit_class(all);
    rl_job running[2] = {take(&worker), take(&second)};
    uint32_t n = 2, passed = 0;
    for (;;) {
        small[n++] = submit(NULL, 0);
        rl_session *s = n % 2 ? &worker : &second;
        run(s, &running[!(n % 2)]);
        if (try_take(s, &running[!(n % 2)])) break;
        passed++;
        CHECK(passed < MANY - 4);
    }
    CHECK(passed >= RL_PATIENCE - 2);
    rl_session *other = n % 2 ? &second : &worker;
    run(other, &running[n % 2]);
    rl_job job = take(&worker);
    CHECK_EQ(return_of(&worker, &job, 0).index, big.index);
    run(&worker, &job);
    take_and_run(&worker); /* the small one that had to wait */
    for (uint32_t i = 0; i < n; i++) drop(small[i]);
    drop(big);
    tear_down();
}

/* `worker` runs a task that never ends; a task that wants both CPUs has been passed over so often
 * that the other one is kept free for it. */
static rl_handle reserve_for_big(rl_job *service, rl_handle *service_out)
{
    *service_out = submit(NULL, 0);
    *service = take(&worker);
    rl_handle big = submit_class(class_of(2));
    for (int i = 0; i < RL_PATIENCE; i++) {
        rl_handle small = submit(NULL, 0);
        take_and_run(&second);
        drop(small);
    }
    return big;
}

static void end_service_and_run_big(const rl_job *service, rl_handle service_out, rl_handle big)
{
    run(&worker, service);
    rl_job job = take(&worker);
    CHECK_EQ(return_of(&worker, &job, 0).index, big.index);
    run(&worker, &job);
    drop(big);
    drop(service_out);
}

static void test_cpus_are_kept_free_for_a_big_task_for_a_bounded_time(void)
{
    rl_job service;
    rl_handle service_out;
    set_up();
    rl_handle big = reserve_for_big(&service, &service_out);
    rl_class *all = &r.map.classes[class_of(2)];
    for (int turn = 0; turn < 3; turn++) {
        rl_handle small = submit(NULL, 0);
        check_nothing_to_take(&second);
        CHECK(all->reserved_ns > rl_now_ns());
        CHECK(all->reserved_ns <= rl_now_ns() + RL_RESERVE_NS);
        all->reserved_ns = rl_now_ns(); /* the time is over: small ones have their turn again */
        take_and_run(&second);
        drop(small);
        for (int i = 1; i < RL_PATIENCE; i++) {
            small = submit(NULL, 0);
            take_and_run(&second);
            drop(small);
        }
    }
    end_service_and_run_big(&service, service_out, big);
    tear_down();
}

/* A task of one CPU as a worker's task submits it: in a class of its own. */
static rl_spec nested_spec(void)
{
    int64_t demand[RL_MAX_RESOURCES] = {[RL_CPU] = RL_RESOURCE_UNIT};
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    OK(&r.s, rl_class_intern(&worker, demand, &spec.class_));
    return spec;
}

static void test_task_of_a_task_goes_first_only_when_that_is_asked_for(void)
{
    rl_handle inner[2];
    set_up();
    set_cpus(1);
    rl_spec spec = nested_spec();
    for (int asked = 0; asked < 2; asked++) {
        rl_handle outer = submit(NULL, 0);
        OK(&r.s, rl_task_submit(&worker, &spec, &inner[asked], NULL));
        atomic_store(&r.map.control->depth_first, (uint32_t)asked);
        rl_job job = take(&second);
        CHECK_EQ(return_of(&second, &job, 0).index, asked ? inner[1].index : outer.index);
        run(&second, &job);
        take_and_run(&second); /* the other one */
        rl_object_release(&worker, inner[asked]);
        drop(outer);
    }
    set_cpus(2);
    tear_down();
}

static void test_task_of_a_task_runs_though_cpus_are_kept_free(void)
{
    rl_job service;
    rl_handle service_out, inner;
    set_up();
    rl_handle big = reserve_for_big(&service, &service_out);
    rl_handle small = submit(NULL, 0);
    check_nothing_to_take(&second);
    rl_spec spec = nested_spec();
    OK(&r.s, rl_task_submit(&worker, &spec, &inner, NULL));
    rl_job job = take(&second);
    CHECK_EQ(return_of(&second, &job, 0).index, inner.index);
    run(&second, &job);
    rl_object_release(&worker, inner);
    check_nothing_to_take(&second);
    end_service_and_run_big(&service, service_out, big);
    take_and_run(&second);
    drop(small);
    tear_down();
}

static void test_task_without_cpus_runs_though_cpus_are_kept_free(void)
{
    rl_job service;
    rl_handle service_out;
    set_up();
    rl_handle big = reserve_for_big(&service, &service_out);
    rl_handle light = submit_class(class_of(0));
    take_and_run(&second);
    drop(light);
    end_service_and_run_big(&service, service_out, big);
    tear_down();
}

static void test_task_that_lacks_more_than_cpus_has_none_kept_free(void)
{
    uint32_t stamp, holder, wanter;
    set_up();
    OK(&r.s, rl_resource_intern(&r.s, "stamp", &stamp));
    OK(&r.s, rl_resource_set_total(&r.s, stamp, RL_RESOURCE_UNIT));
    int64_t demand[RL_MAX_RESOURCES] = {[RL_CPU] = RL_RESOURCE_UNIT};
    demand[stamp] = RL_RESOURCE_UNIT;
    OK(&r.s, rl_class_intern(&r.s, demand, &holder));
    demand[RL_CPU] = 2 * RL_RESOURCE_UNIT;
    OK(&r.s, rl_class_intern(&r.s, demand, &wanter));
    rl_handle held = submit_class(holder);
    rl_job job = take(&worker);
    rl_handle wants = submit_class(wanter);
    for (int i = 0; i < 3 * RL_PATIENCE; i++) {
        rl_handle small = submit(NULL, 0);
        take_and_run(&second);
        drop(small);
    }
    run(&worker, &job);
    take_and_run(&worker);
    drop(wants);
    drop(held);
    tear_down();
}

/* Each goes to the end of the queue in one step: sealing what they wait for takes a time that grows
 * with their number alone, whatever is queued. Not with set_up(): its tables are small. */
static void test_dependents_released_at_once_go_behind_what_is_ready(void)
{
    enum { N = 20000 };
    static rl_handle dependents[N];
    rl_job job;
    rl_handle younger;
    const rl_capacities tables = {
        .blocks = 1024, .objects = 2 * N, .tasks = 2 * N, .chunks = 512, .edges = 2 * N};
    rig_make_sized(&r, 4 * MIB, &tables);
    rig_join(&r, &worker);
    rl_handle source = submit(NULL, 0);
    rl_job first = take(&worker);
    rl_spec spec = rig_spec(&r, 1, &source, 1);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(rl_task_submit(&r.s, &spec, &dependents[i], NULL), 0);
        CHECK(dependents[i].index < 2 * N);
    }
    younger = submit(NULL, 0);
    run(&worker, &first);
    CHECK_EQ(r.map.classes[r.class_].count, N + 1);
    for (int i = 0; i <= N; i++) {
        CHECK_EQ(rl_task_take(&worker, 0, &job), 0);
        rl_handle out = return_of(&worker, &job, 0);
        CHECK_EQ(out.index, i == 0 ? younger.index : dependents[i - 1].index);
        rl_value v = {.kind = 1, .block = RL_NIL};
        CHECK_EQ(rl_task_finish(&worker, job.task, out, &v), 0);
    }
    CHECK_CLEAN(&r.s);
    for (int i = 0; i < N; i++) rl_object_release(&r.s, dependents[i]);
    rl_object_release(&r.s, younger);
    rl_object_release(&r.s, source);
    leave_session(&worker);
    rig_check_empty(&r);
    rig_drop(&r);
}

/* ---- workers that die, second attempts ---- */

static rl_job next_stranded(uint32_t expected_open, int expected_raised)
{
    rl_job job;
    uint32_t cursor = 0, open;
    CHECK_EQ(rl_task_next_stranded(&r.s, &cursor, &job, &open), 0);
    CHECK_EQ(open, expected_open);
    CHECK_EQ(job.stranded == RL_TASK_RAISED, expected_raised);
    CHECK_EQ(rl_task_next_stranded(&r.s, &cursor, &job, &open), RL_EAGAIN);
    return job;
}

static void kill_worker(void)
{
    OK(&r.s, rl_slot_release(&r.s, worker.slot));
    rl_session_detach(&worker);
    rl_session_dispose(&worker);
}

static void test_task_of_a_dead_worker_is_stranded_and_run_again(void)
{
    rl_handle out;
    set_up();
    out = submit(NULL, 0);
    rl_job job = take(&worker);
    kill_worker();
    CHECK_EQ(cpus_free(), 2);
    CHECK_EQ(r.map.control->stranded, 1);
    check_nothing_to_take(&second);
    rl_job stranded = next_stranded(1, 0);
    CHECK_EQ(stranded.task.index, job.task.index);
    OK(&r.s, rl_task_requeue(&r.s, stranded.task));
    job = take(&second);
    CHECK_EQ(job.attempt, 1);
    run(&second, &job);
    drop(out);
    rig_join(&r, &worker);
    tear_down();
}

static void test_task_of_a_dead_worker_is_failed_and_its_dependents_see_the_failure(void)
{
    rl_handle out[3], dependent;
    uint8_t bytes[RL_INLINE], ready[3];
    uint32_t nready;
    rl_payload p;
    set_up();
    rl_spec spec = rig_spec(&r, 3, NULL, 0);
    submit_as(&spec, out);
    dependent = submit(out, 3);
    rl_job job = take(&worker);
    CHECK_EQ(put_return(&worker, &job, 1, 3000, 5), 0);
    kill_worker();
    job = next_stranded(2, 0);
    rl_value values[2] = {failure_value(1, bytes), failure_value(1, bytes)};
    CHECK_EQ(rl_task_conclude(&r.s, job.task, values, 1), RL_EINVAL);
    OK(&r.s, rl_task_conclude(&r.s, job.task, values, 2));
    CHECK_EQ(rl_object_wait(&r.s, out, 3, 3, 0, 0, ready, &nready), 0);
    CHECK_EQ(rl_object_read(&r.s, out[1], &p), 0);
    CHECK_EQ(p.nbytes, 3000);
    CHECK(payload_is_whole(&p));
    for (int k = 0; k < 3; k += 2) {
        CHECK_EQ(rl_object_read(&r.s, out[k], &p), 0);
        CHECK_EQ(p.kind, RL_KIND_ERROR);
    }
    take_and_run(&second);
    for (int k = 0; k < 3; k++) drop(out[k]);
    drop(dependent);
    rig_join(&r, &worker);
    tear_down();
}

static void test_second_attempt_keeps_what_the_first_has_returned(void)
{
    rl_handle out[2];
    uint64_t fingerprint;
    rl_payload p;
    set_up();
    rl_spec spec = rig_spec(&r, 2, NULL, 0);
    submit_as(&spec, out);
    rl_job job = take(&worker);
    CHECK_EQ(put_return(&worker, &job, 0, 3000, 11), 0);
    CHECK_EQ(rl_task_strand(&worker, job.task), 0);
    CHECK_CLEAN(&r.s);
    job = next_stranded(1, 1);
    OK(&r.s, rl_task_requeue(&r.s, job.task));
    job = take(&second);
    CHECK_EQ(rl_task_returned(&second, out[0], &fingerprint), 1);
    CHECK_EQ(fingerprint, 11);
    CHECK_EQ(rl_task_returned(&second, out[1], &fingerprint), 0);
    CHECK_EQ(put_return(&second, &job, 0, 500, 12), EEXIST);
    CHECK_EQ(put_return(&second, &job, 1, 500, 13), 0);
    CHECK_EQ(end_task(&second, &job), 0);
    CHECK_EQ(rl_object_read(&r.s, out[0], &p), 0);
    CHECK_EQ(p.fingerprint, 11);
    drop(out[0]);
    drop(out[1]);
    tear_down();
}

static void test_task_killed_after_its_last_return_is_ended_without_a_second_run(void)
{
    rl_handle out;
    set_up();
    out = submit(NULL, 0);
    rl_job job = take(&worker);
    CHECK_EQ(put_return(&worker, &job, 0, 8, 1), 0);
    kill_worker();
    job = next_stranded(0, 0);
    OK(&r.s, rl_task_conclude(&r.s, job.task, NULL, 0));
    CHECK_EQ(r.map.control->tasks_live, 0);
    drop(out);
    rig_join(&r, &worker);
    tear_down();
}

/* ---- returns that nobody wants ---- */

static void test_return_that_nobody_holds_gives_its_memory_back_at_once(void)
{
    rl_handle out[2];
    uint64_t fingerprint;
    set_up();
    rl_spec spec = rig_spec(&r, 2, NULL, 0);
    submit_as(&spec, out);
    rl_job job = take(&worker);
    rl_handle first = return_of(&worker, &job, 0);
    drop(out[0]); /* before it is there */
    CHECK_EQ(put_return(&worker, &job, 0, 100000, 3), 0);
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    CHECK_EQ(put_return(&worker, &job, 1, 100000, 4), 0);
    CHECK(free_bytes(&r.s) < r.map.data_size);
    drop(out[1]); /* after */
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    CHECK_EQ(rl_task_returned(&worker, first, &fingerprint), 1);
    CHECK_EQ(fingerprint, 3);
    CHECK_EQ(put_return(&worker, &job, 0, 100, 3), EEXIST);
    CHECK_EQ(end_task(&worker, &job), 0);
    tear_down();
}

static void test_return_that_only_a_dependent_needed_gives_its_memory_back_when_that_ends(void)
{
    rl_handle out[2], dependent;
    set_up();
    rl_spec spec = rig_spec(&r, 2, NULL, 0);
    submit_as(&spec, out);
    dependent = submit(&out[0], 1);
    drop(out[0]);
    rl_job producer = take(&worker);
    CHECK_EQ(put_return(&worker, &producer, 0, 100000, 3), 0);
    CHECK(free_bytes(&r.s) < r.map.data_size);
    take_and_run(&second);
    CHECK_EQ(free_bytes(&r.s), r.map.data_size); /* though its producer still runs */
    CHECK_EQ(put_return(&worker, &producer, 1, 8, 3), 0);
    CHECK_EQ(end_task(&worker, &producer), 0);
    drop(out[1]);
    drop(dependent);
    tear_down();
}

static void test_failure_returned_for_nobody_is_handed_to_the_supervisor(void)
{
    uint8_t bytes[RL_INLINE];
    rl_handle out, got;
    set_up();
    out = submit(NULL, 0);
    drop(out);
    rl_job job = take(&worker);
    rl_value v = failure_value(3, bytes);
    CHECK_EQ(rl_task_finish(&worker, job.task, return_of(&worker, &job, 0), &v), 0);
    CHECK_CLEAN(&r.s);
    CHECK_EQ(rl_object_take_report(&r.s, &got), 0);
    drop(got);
    tear_down();
}

static void test_failures_returned_for_nobody_are_found_without_a_look_at_all_objects(void)
{
    enum { N = 50 };
    uint8_t bytes[RL_INLINE];
    rl_handle others[N], got;
    set_up();
    for (uint32_t i = 0; i < N; i++) {
        CHECK_EQ(value_put(&r.s, 8, i, NULL, 0, &others[i]), 0);
        drop(submit(NULL, 0));
        rl_job job = take(&worker);
        rl_value v = failure_value(i, bytes);
        CHECK_EQ(rl_task_finish(&worker, job.task, return_of(&worker, &job, 0), &v), 0);
    }
    uint32_t steps = 0, high_water = r.map.control->objects.high_water;
    for (uint32_t i = 0; i < N; i++) {
        uint32_t from = r.map.control->report_from;
        CHECK_EQ(rl_object_take_report(&r.s, &got), 0);
        CHECK_EQ(r.map.control->report_from, got.index); /* where the next look begins */
        steps += (got.index + high_water - from) % high_water;
        drop(got);
    }
    CHECK(steps <= high_water); /* of all looks together */
    CHECK_EQ(rl_object_take_report(&r.s, &got), RL_EAGAIN);
    for (uint32_t i = 0; i < N; i++) drop(others[i]);
    tear_down();
}

/* ---- workers that are to leave ---- */

static void test_dismissed_worker_takes_no_task_any_more(void)
{
    rl_job job;
    set_up();
    OK(&r.s, rl_worker_dismiss(&r.s, worker.slot));
    rl_handle out = submit(NULL, 0);
    CHECK_EQ(try_take(&worker, &job), RL_EAGAIN);
    take_and_run(&second);
    CHECK_EQ(rl_worker_dismiss(&r.s, RL_MAX_SLOTS), RL_EINVAL);
    drop(out);
    tear_down();
}

/* ---- local mode ---- */

static void join_as_driver(rl_session *driver)
{
    CHECK_EQ(rl_session_join(driver, &r.map, RL_ROLE_DRIVER, -1, -1), 0);
}

static rl_handle submit_own(rl_session *driver, const rl_handle *ref, rl_job *job)
{
    rl_handle out;
    rl_spec spec = rig_spec(&r, 1, ref, ref != NULL);
    spec.ndeps = ref != NULL;
    spec.claimed = job;
    OK(&r.s, rl_task_submit(driver, &spec, &out, NULL));
    return out;
}

static void test_driver_runs_any_number_of_its_own_tasks_and_holds_nothing_for_them(void)
{
    rl_session driver;
    rl_job outer, inner;
    set_up();
    join_as_driver(&driver);
    rl_handle outer_out = submit_own(&driver, NULL, &outer);
    rl_handle inner_out = submit_own(&driver, NULL, &inner);
    CHECK_EQ(cpus_free(), 2);
    check_nothing_to_take(&worker);
    run(&driver, &inner);
    OK(&r.s, rl_task_repeat(&driver, outer.task));
    CHECK_EQ(rl_task_repeat(&worker, outer.task), RL_ESTALE);
    run(&driver, &outer);
    CHECK_EQ(rl_task_repeat(&driver, outer.task), RL_ESTALE);
    rl_object_release(&driver, outer_out);
    rl_object_release(&driver, inner_out);
    leave_session(&driver);
    tear_down();
}

static void test_driver_does_not_claim_what_waits_for_an_object(void)
{
    rl_session driver;
    rl_job job;
    set_up();
    join_as_driver(&driver);
    rl_handle first = submit(NULL, 0);
    OK(&r.s, find_for(&driver, &r.s, first));
    rl_handle out = submit_own(&driver, &first, &job);
    CHECK_EQ(job.task.index, RL_NIL);
    take_and_run(&worker);
    take_and_run(&worker);
    rl_object_release(&driver, first);
    rl_object_release(&driver, out);
    leave_session(&driver);
    drop(first);
    tear_down();
}

static void test_repair_leaves_a_drivers_own_tasks_as_they_are(void)
{
    rl_session driver;
    rl_job outer, inner;
    set_up();
    join_as_driver(&driver);
    rl_handle outer_out = submit_own(&driver, NULL, &outer);
    rl_handle inner_out = submit_own(&driver, NULL, &inner);
    CHECK_EQ(rl_repair(&r.s), 0);
    CHECK_CLEAN(&r.s);
    CHECK_EQ(cpus_free(), 2);
    run(&driver, &inner);
    run(&driver, &outer);
    rl_object_release(&driver, outer_out);
    rl_object_release(&driver, inner_out);
    leave_session(&driver);
    tear_down();
}

int main(void)
{
    RUN(test_task_is_taken_with_all_that_it_was_submitted_with);
    RUN(test_arguments_in_an_object_live_as_long_as_their_task);
    RUN(test_return_is_visible_before_the_task_ends);
    RUN(test_task_without_returns_is_run_and_gone);
    RUN(test_task_of_another_worker_is_out_of_reach);
    RUN(test_submit_of_nonsense_is_refused_and_takes_nothing);
    RUN(test_submit_into_full_tables_is_refused_and_takes_nothing);
    RUN(test_dependent_waits_for_all_that_it_needs);
    RUN(test_ref_beyond_the_dependencies_is_not_waited_for);
    RUN(test_chain_of_tasks_runs_in_order);
    RUN(test_same_dependency_twice_is_waited_for_once_it_is_sealed);
    RUN(test_tasks_of_several_classes_run_in_the_order_of_submission);
    RUN(test_retried_task_goes_before_those_submitted_later);
    RUN(test_class_and_resource_are_interned_once);
    RUN(test_task_runs_only_when_its_resources_are_free);
    RUN(test_task_that_wants_more_than_there_is_is_infeasible_until_there_is_more);
    RUN(test_blocked_worker_lends_its_cpu_and_takes_it_back);
    RUN(test_task_that_ends_blocked_leaves_the_books_right);
    RUN(test_task_that_wants_all_cpus_is_not_starved_by_small_ones);
    RUN(test_cpus_are_kept_free_for_a_big_task_for_a_bounded_time);
    RUN(test_task_of_a_task_goes_first_only_when_that_is_asked_for);
    RUN(test_task_of_a_task_runs_though_cpus_are_kept_free);
    RUN(test_task_without_cpus_runs_though_cpus_are_kept_free);
    RUN(test_task_that_lacks_more_than_cpus_has_none_kept_free);
    RUN(test_dependents_released_at_once_go_behind_what_is_ready);
    RUN(test_task_of_a_dead_worker_is_stranded_and_run_again);
    RUN(test_task_of_a_dead_worker_is_failed_and_its_dependents_see_the_failure);
    RUN(test_second_attempt_keeps_what_the_first_has_returned);
    RUN(test_task_killed_after_its_last_return_is_ended_without_a_second_run);
    RUN(test_return_that_nobody_holds_gives_its_memory_back_at_once);
    RUN(test_return_that_only_a_dependent_needed_gives_its_memory_back_when_that_ends);
    RUN(test_failure_returned_for_nobody_is_handed_to_the_supervisor);
    RUN(test_failures_returned_for_nobody_are_found_without_a_look_at_all_objects);
    RUN(test_dismissed_worker_takes_no_task_any_more);
    RUN(test_driver_runs_any_number_of_its_own_tasks_and_holds_nothing_for_them);
    RUN(test_driver_does_not_claim_what_waits_for_an_object);
    RUN(test_repair_leaves_a_drivers_own_tasks_as_they_are);
    return 0;
}
