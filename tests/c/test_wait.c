/* test_wait.c - sleeping until objects are sealed, a task comes, a block is freed; and what ends it. */
#include "harness.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>

static rig r;
static rl_handle out[4];
static rl_session worker;
static rl_job job;

static int64_t soon(void)
{
    return rl_now_ns() + 20 * MS_NS;
}

static int64_t late(void)
{
    return rl_now_ns() + 20000 * MS_NS;
}

/* Four returns of a task that `worker` runs. */
static void set_up(void)
{
    rig_make(&r);
    rig_join(&r, &worker);
    rl_spec spec = rig_spec(&r, 4, NULL, 0);
    OK(&r.s, rl_task_submit(&r.s, &spec, out, NULL));
    OK(&r.s, rl_task_take(&worker, 0, &job));
}

static void seal(rl_session *s, int k, uint32_t kind)
{
    rl_value v = {.kind = kind, .block = RL_NIL, .nbytes = 2, .bytes = "x"};
    OK(&r.s, rl_task_return(s, job.task, out[k], &v));
}

static void tear_down(void)
{
    for (int k = 0; k < 4; k++) {
        rl_payload p;
        if (!rl_object_is_sealed(&r.s, out[k])) seal(&worker, k, 1);
        CHECK_EQ(rl_object_read(&r.s, out[k], &p), 0);
        rl_object_release(&r.s, out[k]);
    }
    CHECK_EQ(rl_task_finish(&worker, job.task, (rl_handle){.index = RL_NIL}, NULL), 0);
    leave_session(&worker);
    rig_check_empty(&r);
    rig_drop(&r);
}

static int wait_for(uint32_t need, int stop_at_error, int64_t deadline, uint32_t *nready)
{
    uint8_t ready[4];
    int err = rl_object_wait(&r.s, out, 4, need, stop_at_error, deadline, ready, nready);
    uint32_t n = 0;
    for (int k = 0; k < 4; k++) {
        n += ready[k];
        if (ready[k]) CHECK(rl_object_is_sealed(&r.s, out[k]));
    }
    CHECK_EQ(n, *nready);
    return err;
}

/* ---- how many, how long ---- */

static void test_wait_ends_when_as_many_as_needed_are_sealed(void)
{
    uint32_t nready;
    set_up();
    CHECK_EQ(wait_for(0, 0, soon(), &nready), 0);
    CHECK_EQ(nready, 0);
    for (int k = 0; k < 4; k++) {
        CHECK_EQ(wait_for((uint32_t)k + 1, 0, soon(), &nready), RL_ETIMEDOUT);
        CHECK_EQ(nready, k);
        seal(&worker, 3 - k, 1);
        CHECK_EQ(wait_for((uint32_t)k + 1, 0, soon(), &nready), 0);
        CHECK_EQ(nready, k + 1);
    }
    tear_down();
}

static void test_wait_with_a_deadline_in_the_past_only_looks(void)
{
    uint32_t nready;
    set_up();
    CHECK_EQ(wait_for(1, 0, 0, &nready), RL_ETIMEDOUT);
    seal(&worker, 2, 1);
    CHECK_EQ(wait_for(1, 0, 0, &nready), 0);
    CHECK_EQ(nready, 1);
    tear_down();
}

static void test_wait_does_not_end_before_its_deadline(void)
{
    uint32_t nready;
    set_up();
    int64_t deadline = soon();
    CHECK_EQ(wait_for(1, 0, deadline, &nready), RL_ETIMEDOUT);
    CHECK(rl_now_ns() >= deadline);
    tear_down();
}

static void test_wait_that_is_to_stop_at_a_failure_does(void)
{
    uint32_t nready;
    set_up();
    seal(&worker, 1, 1);
    CHECK_EQ(wait_for(4, 1, soon(), &nready), RL_ETIMEDOUT);
    seal(&worker, 2, RL_KIND_ERROR);
    CHECK_EQ(wait_for(4, 0, soon(), &nready), RL_ETIMEDOUT);
    CHECK_EQ(wait_for(4, 1, soon(), &nready), 0);
    CHECK_EQ(nready, 2);
    tear_down();
}

static void test_handle_of_what_was_put_says_that_it_is_sealed(void)
{
    const uint64_t word = 7;
    const rl_value v = {.kind = 1, .block = RL_NIL, .nbytes = sizeof word, .bytes = &word};
    uint8_t ready;
    uint32_t nready;
    rl_handle h;
    set_up();
    CHECK_EQ(rl_object_put(&r.s, &v, &h), 0);
    CHECK_EQ(h.kind, RL_HANDLE_SEALED);
    CHECK_EQ(rl_object_wait(&r.s, &h, 1, 1, 0, 0, &ready, &nready), 0);
    CHECK_EQ(nready, 1);
    rl_object_release(&r.s, h);
    h.index = RL_NIL;
    CHECK_EQ(rl_object_wait(&r.s, &h, 1, 1, 0, 0, &ready, &nready), RL_ESTALE);
    tear_down();
}

static void test_wait_for_a_handle_out_of_range_is_refused(void)
{
    uint8_t ready;
    uint32_t nready;
    rl_handle h = {.index = RL_NIL};
    set_up();
    CHECK_EQ(rl_object_wait(&r.s, &h, 1, 1, 0, late(), &ready, &nready), RL_ESTALE);
    tear_down();
}

/* ---- wakes ---- */

static int seal_later(void *argument)
{
    (void)argument;
    rig_use_in_child(&r, &worker);
    rig_await_sleeper(&r, r.s.slot);
    seal(&worker, 0, 1);
    return 0;
}

static void test_seal_in_another_process_wakes_the_sleeper(void)
{
    uint32_t nready;
    set_up();
    pid_t pid = spawn(seal_later, NULL);
    int64_t start = rl_now_ns();
    CHECK_EQ(wait_for(1, 0, late(), &nready), 0);
    CHECK(rl_now_ns() - start < 900 * MS_NS); /* and not the backstop of a second */
    CHECK_EQ(reap(pid), 0);
    tear_down();
}

static int submit_later(void *argument)
{
    (void)argument;
    rl_session s;
    rl_handle h;
    rig_join(&r, &s);
    rig_await_sleeper(&r, r.s.slot);
    rl_spec spec = rig_spec(&r, 1, NULL, 0);
    CHECK_EQ(rl_task_submit(&s, &spec, &h, NULL), 0);
    leave_session(&s);
    return 0;
}

static void test_submit_in_another_process_wakes_an_idle_worker(void)
{
    rl_job taken;
    set_up();
    pid_t pid = spawn(submit_later, NULL);
    int64_t start = rl_now_ns();
    CHECK_EQ(rl_task_take(&r.s, late(), &taken), 0);
    CHECK(rl_now_ns() - start < 900 * MS_NS);
    CHECK_EQ(reap(pid), 0);
    rl_handle h;
    rl_value v = {.block = RL_NIL};
    CHECK_EQ(rl_task_returns(&r.s, taken.task, &h, 1), 0);
    CHECK_EQ(rl_task_finish(&r.s, taken.task, h, &v), 0);
    tear_down();
}

static int free_later(void *argument)
{
    uint32_t block = *(uint32_t *)argument;
    rig_use_in_child(&r, &worker);
    while (atomic_load(&r.map.control->room_waiters) == 0) sched_yield();
    CHECK_EQ(rl_arena_abandon(&worker, block), 0);
    return 0;
}

static void test_free_in_another_process_wakes_who_waits_for_room(void)
{
    uint32_t block;
    set_up();
    CHECK_EQ(rl_arena_fill(&worker, 3 * MIB, &block), 0);
    uint32_t seen = atomic_load(&r.map.control->freed), more;
    CHECK_EQ(rl_arena_fill(&r.s, 3 * MIB, &more), RL_EFULL);
    pid_t pid = spawn(free_later, &block);
    CHECK_EQ(rl_room_wait(&r.s, seen, late()), 0);
    OK(&r.s, rl_arena_fill(&r.s, 3 * MIB, &more));
    OK(&r.s, rl_arena_abandon(&r.s, more));
    CHECK_EQ(reap(pid), 0);
    CHECK_EQ(rl_room_wait(&r.s, atomic_load(&r.map.control->freed), soon()), RL_ETIMEDOUT);
    tear_down();
}

static void test_ring_before_the_sleep_is_not_lost(void)
{
    set_up();
    uint32_t seen = rl_doorbell_read(&r.s);
    CHECK_EQ(rl_doorbell_spin(&r.s, seen), 0);
    rl_doorbell_ring(&r.map.slots[r.s.slot]);
    CHECK_EQ(rl_doorbell_spin(&r.s, seen), 1);
    CHECK_EQ(rl_doorbell_wait(&r.s, seen, late()), 0);
    CHECK_EQ(rl_doorbell_wait(&r.s, rl_doorbell_read(&r.s), soon()), RL_ETIMEDOUT);
    tear_down();
}

/* Like a thread of a group of the worker, which is an actor. */
static int wait_for_a_call(void *argument)
{
    uint32_t group = *(uint32_t *)argument;
    rig_use_in_child(&r, &worker);
    return rl_callbell_wait(&worker, rl_group_bit(group), rl_callbell_read(&worker), late());
}

static void start_waiting_for_calls(uint32_t first, uint32_t second, pid_t pids[2])
{
    pids[0] = spawn(wait_for_a_call, &first);
    rig_await_idler(&r, worker.slot, 1, pids[0]);
    pids[1] = spawn(wait_for_a_call, &second);
    rig_await_idler(&r, worker.slot, 2, pids[1]);
}

static void ring_for_a_call(uint32_t group)
{
    rl_callbell_ring(&r.map.slots[worker.slot], rl_group_bit(group));
}

static void test_ring_for_a_call_wakes_one_thread_of_its_group(void)
{
    pid_t pids[2];
    set_up();
    start_waiting_for_calls(0, 1, pids);
    ring_for_a_call(1);
    CHECK_EQ(reap(pids[1]), 0); /* and not the backstop of a second, which is EINTR */
    CHECK_EQ(atomic_load(&r.map.slots[worker.slot].idlers), 1);
    ring_for_a_call(0);
    CHECK_EQ(reap(pids[0]), 0);
    tear_down();
}

static void test_ring_for_a_call_of_one_of_very_many_groups_wakes_its_thread(void)
{
    pid_t pids[2];
    set_up();
    start_waiting_for_calls(1, 33, pids);
    ring_for_a_call(33);
    CHECK_EQ(reap(pids[1]), 0);
    ring_for_a_call(1);
    CHECK_EQ(reap(pids[0]), 0);
    start_waiting_for_calls(33, 65, pids);
    ring_for_a_call(65);
    CHECK_EQ(reap(pids[1]), 0);
    CHECK_EQ(reap(pids[0]), 0); /* woken too: they cannot be told apart */
    tear_down();
}

static void test_task_that_waits_lends_its_cpu_meanwhile(void)
{
    rl_handle more[2];
    rl_job other;
    set_up();
    OK(&r.s, rl_resource_set_total(&r.s, RL_CPU, RL_RESOURCE_UNIT));
    rl_spec spec = rig_spec(&r, 2, NULL, 0);
    OK(&r.s, rl_task_submit(&r.s, &spec, more, NULL));
    CHECK_EQ(rl_task_take(&r.s, 0, &other), RL_ETIMEDOUT); /* the worker has the one CPU */
    CHECK_EQ(rl_doorbell_wait(&worker, rl_doorbell_read(&worker), soon()), RL_ETIMEDOUT);
    CHECK_EQ(rl_task_take(&r.s, 0, &other), RL_ETIMEDOUT); /* it is awake again */
    CHECK_EQ(rl_task_block(&worker), 1);
    OK(&r.s, rl_task_take(&r.s, 0, &other));
    rl_task_unblock(&worker);
    rl_value v[2] = {{.block = RL_NIL}, {.block = RL_NIL}};
    OK(&r.s, rl_task_conclude(&r.s, other.task, v, 2));
    rl_object_release(&r.s, more[0]);
    rl_object_release(&r.s, more[1]);
    tear_down();
}

/* ---- which seals wake ---- */

/* Does the seal of return k ring this process? */
static int seal_rings(int k, uint32_t kind)
{
    uint32_t seen = rl_doorbell_read(&r.s);
    seal(&worker, k, kind);
    return rl_doorbell_read(&r.s) != seen;
}

static void test_wait_for_all_is_rung_for_the_last_one_alone(void)
{
    uint32_t nready;
    set_up();
    CHECK_EQ(wait_for(4, 0, soon(), &nready), RL_ETIMEDOUT);
    CHECK(!seal_rings(0, 1));
    CHECK(!seal_rings(1, 1));
    CHECK(seal_rings(3, 1));
    CHECK_EQ(wait_for(4, 0, soon(), &nready), RL_ETIMEDOUT);
    CHECK_EQ(nready, 3);
    CHECK(seal_rings(2, 1)); /* which is the last one now */
    CHECK_EQ(wait_for(4, 0, soon(), &nready), 0);
    tear_down();
}

static void test_wait_for_some_is_rung_once_enough_may_be_there(void)
{
    uint32_t nready;
    set_up();
    CHECK_EQ(wait_for(2, 0, soon(), &nready), RL_ETIMEDOUT);
    CHECK(!seal_rings(0, 1));
    CHECK(seal_rings(2, 1));
    CHECK_EQ(wait_for(2, 0, soon(), &nready), 0);
    CHECK_EQ(nready, 2);
    tear_down();
}

static void test_wait_for_one_is_rung_by_whichever_comes_first(void)
{
    for (int k = 0; k < 4; k++) {
        uint32_t nready;
        set_up();
        CHECK_EQ(wait_for(1, 0, soon(), &nready), RL_ETIMEDOUT);
        CHECK(seal_rings(k, 1));
        CHECK_EQ(wait_for(1, 0, soon(), &nready), 0);
        tear_down();
    }
}

static void test_failure_rings_who_would_stop_at_it_wherever_it_is(void)
{
    for (int k = 0; k < 4; k++) {
        uint32_t nready;
        set_up();
        CHECK_EQ(wait_for(4, 1, soon(), &nready), RL_ETIMEDOUT);
        CHECK(seal_rings(k, RL_KIND_ERROR));
        tear_down();
    }
}

/* Seal the four in the order of their digits, each once the other process sleeps. */
static int seal_in_order(void *argument)
{
    const char *order = argument;
    rig_use_in_child(&r, &worker);
    for (int k = 0; k < 4; k++) {
        rig_await_sleeper(&r, r.s.slot);
        seal(&worker, order[k] - '0', 1);
    }
    return 0;
}

static void test_wait_for_all_ends_in_whatever_order_they_come(void)
{
    const char *orders[] = {"3210", "1302", "2031", "3012"};
    for (uint32_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        uint32_t nready;
        set_up();
        pid_t pid = spawn(seal_in_order, (void *)orders[i]);
        int64_t start = rl_now_ns();
        CHECK_EQ(wait_for(4, 0, late(), &nready), 0);
        CHECK(rl_now_ns() - start < 900 * MS_NS);
        CHECK_EQ(nready, 4);
        CHECK_EQ(reap(pid), 0);
        tear_down();
    }
}

static int fail_later(void *argument)
{
    rig_use_in_child(&r, &worker);
    rig_await_sleeper(&r, r.s.slot);
    seal(&worker, *(int *)argument, RL_KIND_ERROR);
    return 0;
}

static void test_failure_ends_the_sleep_of_who_would_stop_at_it_wherever_it_is(void)
{
    for (int k = 0; k < 4; k++) {
        uint32_t nready;
        set_up();
        pid_t pid = spawn(fail_later, &k);
        int64_t start = rl_now_ns();
        CHECK_EQ(wait_for(4, 1, late(), &nready), 0);
        CHECK(rl_now_ns() - start < 900 * MS_NS);
        CHECK_EQ(nready, 1);
        CHECK_EQ(reap(pid), 0);
        tear_down();
    }
}

static int die_after_a_failure(void *argument)
{
    (void)argument;
    rig_use_in_child(&r, &worker);
    rl_fault_arm("object.seal.after", 1, SIGKILL);
    seal(&worker, 0, RL_KIND_ERROR);
    return 1;
}

static int fail_and_die_later(void *argument)
{
    (void)argument;
    rl_session janitor;
    rig_use_in_child(&r, &worker);
    rig_join(&r, &janitor);
    rig_await_sleeper(&r, r.s.slot);
    CHECK_EQ(reap(spawn(die_after_a_failure, NULL)), -SIGKILL);
    CHECK_EQ(rl_slot_release(&janitor, worker.slot), 0);
    leave_session(&janitor);
    return 0;
}

static void test_failure_of_a_process_that_died_before_it_rang_ends_the_sleep(void)
{
    uint32_t nready, cursor = 0, open;
    rl_job stranded;
    set_up();
    pid_t pid = spawn(fail_and_die_later, NULL);
    CHECK_EQ(wait_for(4, 1, late(), &nready), 0);
    CHECK_EQ(nready, 1);
    CHECK_EQ(reap(pid), 0);
    rl_session_detach(&worker);
    rl_session_dispose(&worker);
    CHECK_EQ(rl_task_next_stranded(&r.s, &cursor, &stranded, &open), 0);
    CHECK_EQ(open, 3);
    const rl_value none[3] = {{.block = RL_NIL}, {.block = RL_NIL}, {.block = RL_NIL}};
    OK(&r.s, rl_task_conclude(&r.s, stranded.task, none, open));
    for (int k = 0; k < 4; k++) rl_object_release(&r.s, out[k]);
    rig_check_empty(&r);
    rig_drop(&r);
}

/* ---- what ends a wait early ---- */

static void ignore(int signal)
{
    (void)signal;
}

static void arm_timer(time_t microseconds)
{
    const struct sigaction action = {.sa_handler = ignore}; /* no SA_RESTART */
    const struct itimerval timer = {.it_value.tv_usec = microseconds};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void test_signal_ends_each_wait_with_eintr(void)
{
    uint32_t nready;
    rl_job taken;
    set_up();
    arm_timer(20000);
    CHECK_EQ(wait_for(1, 0, late(), &nready), EINTR);
    arm_timer(20000);
    CHECK_EQ(rl_task_take(&r.s, late(), &taken), EINTR);
    arm_timer(20000);
    CHECK_EQ(rl_room_wait(&r.s, atomic_load(&r.map.control->freed), late()), EINTR);
    CHECK_CLEAN(&r.s);
    tear_down();
}

static void test_wait_without_end_lets_its_caller_look_after_a_second(void)
{
    uint32_t nready;
    set_up();
    int64_t start = rl_now_ns();
    CHECK_EQ(wait_for(1, 0, INT64_MAX, &nready), EINTR);
    CHECK(rl_now_ns() - start >= 900 * MS_NS);
    tear_down();
}

static int interrupt_later(void *argument)
{
    rig_await_sleeper(&r, r.s.slot);
    kill(*(pid_t *)argument, SIGUSR1);
    return 0;
}

static void interrupt_now(int signal)
{
    (void)signal;
    rl_session_interrupt(&r.s);
}

static void test_interrupt_of_the_session_ends_a_wait_with_eintr(void)
{
    uint32_t nready;
    pid_t self = getpid();
    const struct sigaction action = {.sa_handler = interrupt_now, .sa_flags = SA_RESTART};
    set_up();
    sigaction(SIGUSR1, &action, NULL);
    pid_t pid = spawn(interrupt_later, &self);
    CHECK_EQ(wait_for(1, 0, late(), &nready), EINTR);
    CHECK_EQ(reap(pid), 0);
    tear_down();
}

static int end_later(void *argument)
{
    (void)argument;
    rig_await_sleeper(&r, r.s.slot);
    rl_session_end(&worker);
    return 0;
}

static void test_end_of_the_session_ends_each_wait(void)
{
    uint32_t nready;
    rl_job taken;
    set_up();
    pid_t pid = spawn(end_later, NULL);
    int64_t start = rl_now_ns();
    CHECK_EQ(wait_for(1, 0, late(), &nready), RL_EDEAD);
    CHECK(rl_now_ns() - start < 900 * MS_NS);
    CHECK_EQ(reap(pid), 0);
    CHECK_EQ(rl_task_take(&r.s, late(), &taken), RL_EDEAD);
    CHECK_EQ(rl_room_wait(&r.s, atomic_load(&r.map.control->freed), late()), RL_EDEAD);
    seal(&worker, 0, 1);
    CHECK_EQ(wait_for(1, 0, late(), &nready), 0); /* what is there can still be had */
    tear_down();
}

static int sleep_on(void *argument)
{
    (void)argument;
    pause();
    return 0;
}

static void test_death_of_the_supervisor_ends_each_wait(void)
{
    uint32_t nready;
    set_up();
    pid_t pid = spawn(sleep_on, NULL);
    r.s.peer_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    CHECK(r.s.peer_fd >= 0);
    CHECK_EQ(wait_for(1, 0, soon(), &nready), RL_ETIMEDOUT);
    kill(pid, SIGKILL);
    CHECK_EQ(reap(pid), -SIGKILL);
    CHECK_EQ(wait_for(1, 0, late(), &nready), RL_EDEAD);
    close(r.s.peer_fd);
    r.s.peer_fd = -1;
    tear_down();
}

static void test_wait_in_a_poisoned_session_is_refused(void)
{
    uint32_t nready;
    set_up();
    atomic_store(&r.map.control->lock.poisoned, 1);
    CHECK_EQ(wait_for(1, 0, late(), &nready), RL_ECORRUPT);
    atomic_store(&r.map.control->lock.poisoned, 0);
    tear_down();
}

int main(void)
{
    RUN(test_wait_ends_when_as_many_as_needed_are_sealed);
    RUN(test_wait_with_a_deadline_in_the_past_only_looks);
    RUN(test_wait_does_not_end_before_its_deadline);
    RUN(test_wait_that_is_to_stop_at_a_failure_does);
    RUN(test_handle_of_what_was_put_says_that_it_is_sealed);
    RUN(test_wait_for_a_handle_out_of_range_is_refused);
    RUN(test_seal_in_another_process_wakes_the_sleeper);
    RUN(test_submit_in_another_process_wakes_an_idle_worker);
    RUN(test_free_in_another_process_wakes_who_waits_for_room);
    RUN(test_ring_before_the_sleep_is_not_lost);
    RUN(test_ring_for_a_call_wakes_one_thread_of_its_group);
    RUN(test_ring_for_a_call_of_one_of_very_many_groups_wakes_its_thread);
    RUN(test_task_that_waits_lends_its_cpu_meanwhile);
    RUN(test_wait_for_all_is_rung_for_the_last_one_alone);
    RUN(test_wait_for_some_is_rung_once_enough_may_be_there);
    RUN(test_wait_for_one_is_rung_by_whichever_comes_first);
    RUN(test_failure_rings_who_would_stop_at_it_wherever_it_is);
    RUN(test_wait_for_all_ends_in_whatever_order_they_come);
    RUN(test_failure_ends_the_sleep_of_who_would_stop_at_it_wherever_it_is);
    RUN(test_failure_of_a_process_that_died_before_it_rang_ends_the_sleep);
    RUN(test_signal_ends_each_wait_with_eintr);
    RUN(test_wait_without_end_lets_its_caller_look_after_a_second);
    RUN(test_interrupt_of_the_session_ends_a_wait_with_eintr);
    RUN(test_end_of_the_session_ends_each_wait);
    RUN(test_death_of_the_supervisor_ends_each_wait);
    RUN(test_wait_in_a_poisoned_session_is_refused);
    return 0;
}
