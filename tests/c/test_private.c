/* test_private.c - memory that a process computes in: taken, sealed as it is, given back, forked. */
#include "harness.h"

#include "rl_private.h"
#include "rl_repair.h"

#include <sys/wait.h>
#include <unistd.h>

enum { BIG = 400000 };

static rig r;
static rl_session worker;
static rl_private_table table;

static void set_up(void)
{
    rig_make_sized(&r, 4 * MIB, &small_tables);
    rig_join(&r, &worker);
    CHECK_EQ(rl_private_open(&table, &worker), 0);
}

static void tear_down(void)
{
    CHECK_EQ(table.count, 0);
    CHECK_EQ(table.nbytes, 0);
    rl_private_close(&table);
    leave_session(&worker);
    rig_check_empty(&r);
    rig_drop(&r);
}

static uint8_t *take(uint64_t nbytes)
{
    uint8_t *memory = rl_private_alloc(&table, nbytes, 0);
    CHECK(memory != NULL);
    CHECK_CLEAN(&r.s);
    return memory;
}

static void give(void *memory)
{
    CHECK_EQ(rl_private_free(&table, memory), 1);
    CHECK_CLEAN(&r.s);
}

/* The value of which `memory` is the payload behind its head. */
static rl_value value_at(const void *memory, uint64_t nbytes, rl_handle *kept)
{
    return (rl_value){.kind = 8,
                      .block = rl_private_block(&table, memory, 0),
                      .nbytes = RL_HEAD_ROOM + nbytes,
                      .counts_as = RL_IN_PLACE,
                      .kept = kept};
}

static rl_handle seal(uint8_t *memory, uint64_t nbytes)
{
    rl_handle out, kept;
    rl_value v = value_at(memory, nbytes, &kept);
    OK(&worker, rl_object_put(&worker, &v, &out));
    CHECK_EQ(out.index, kept.index);
    CHECK_EQ(out.gen, kept.gen);
    rl_private_sealed(&table, memory, kept);
    CHECK_EQ(rl_private_block(&table, memory, 0), RL_NIL);
    return out;
}

static void test_memory_is_aligned_and_the_callers_own(void)
{
    set_up();
    uint8_t *a = take(BIG), *b = take(BIG);
    CHECK_EQ((uintptr_t)a % RL_ALIGN, 0);
    memset(a, 1, BIG);
    memset(b, 2, BIG);
    CHECK_EQ(a[BIG - 1], 1);
    CHECK_EQ(rl_private_size(&table, a), BIG);
    CHECK_EQ(rl_private_size(&table, a + 64), 0);
    CHECK_EQ(table.nbytes, 2 * BIG);
    give(a);
    give(b);
    CHECK_EQ(rl_private_free(&table, a), 0);
    tear_down();
}

static void test_memory_beyond_the_share_is_refused_unless_it_was_asked_for(void)
{
    uint64_t share;
    set_up();
    share = r.map.data_size / RL_PRIVATE_SHARE;
    uint8_t *first = take(share - BIG);
    CHECK(rl_private_alloc(&table, BIG + 1, 0) == NULL);
    CHECK_EQ(table.nbytes, share - BIG);
    uint8_t *asked = rl_private_alloc(&table, BIG + 1, 1);
    CHECK(asked != NULL);
    CHECK_EQ(rl_private_block(&table, asked, 0), RL_NIL);
    CHECK(rl_private_block(&table, asked, 1) != RL_NIL);
    CHECK(rl_private_alloc(&table, r.map.data_size, 1) == NULL);
    give(first);
    give(asked);
    tear_down();
}

static void test_memory_beyond_the_share_of_all_processes_is_refused(void)
{
    rl_session others[RL_PRIVATE_SHARE];
    rl_private_table tables[RL_PRIVATE_SHARE];
    void *memory[RL_PRIVATE_SHARE];
    set_up();
    uint64_t share = r.map.data_size / RL_PRIVATE_SHARE - 1024;
    for (int i = 0; i < RL_PRIVATE_SHARE; i++) {
        rig_join(&r, &others[i]);
        CHECK_EQ(rl_private_open(&tables[i], &others[i]), 0);
        memory[i] = rl_private_alloc(&tables[i], share, 0);
        CHECK_EQ(memory[i] != NULL, i < RL_PRIVATE_SHARE / RL_PRIVATE_SHARE_OF_ALL);
    }
    CHECK(rl_private_alloc(&table, BIG, 0) == NULL);
    CHECK_EQ(rl_private_free(&tables[0], memory[0]), 1);
    uint8_t *mine = take(BIG);

    CHECK_EQ(rl_private_free(&tables[1], memory[1]), 1);
    for (int i = 0; i < RL_PRIVATE_SHARE; i++) {
        rl_private_close(&tables[i]);
        leave_session(&others[i]);
    }
    give(mine);
    tear_down();
}

static void test_memory_whose_address_was_told_is_no_value_any_more(void)
{
    set_up();
    uint8_t *told = take(BIG), *quiet = take(BIG);
    rl_private_expose(&table, told + BIG); /* just behind it */
    rl_private_expose(&table, told - 1);
    rl_private_expose(&table, &table);
    CHECK(rl_private_block(&table, told, 0) != RL_NIL);
    rl_private_expose(&table, told + BIG - 1);
    CHECK_EQ(rl_private_block(&table, told, 0), RL_NIL);
    CHECK(rl_private_block(&table, quiet, 0) != RL_NIL);
    give(told);
    give(quiet);
    tear_down();
}

static void test_asked_for_memory_whose_address_was_told_is_no_value_either(void)
{
    set_up();
    uint8_t *asked = rl_private_alloc(&table, BIG, 1);
    CHECK(rl_private_block(&table, asked, 1) != RL_NIL);
    rl_private_expose(&table, asked);
    CHECK_EQ(rl_private_block(&table, asked, 1), RL_NIL);
    give(asked);
    tear_down();
}

static void test_sealed_memory_is_read_in_place_and_counts_as_such(void)
{
    rl_payload p;
    set_up();
    uint8_t *memory = take(BIG);
    memset(memory, 7, BIG);
    rl_handle h = seal(memory, BIG);
    CHECK_EQ(table.nbytes, 0);
    CHECK_EQ(r.map.control->sealed_in_place, 1);
    CHECK_EQ(r.map.control->copied, 0);
    CHECK_EQ(rl_object_read(&worker, h, &p), 0);
    CHECK_EQ(p.nbytes, RL_HEAD_ROOM + BIG);
    CHECK_EQ(p.bytes[RL_HEAD_ROOM + BIG - 1], 7);
    rl_object_release(&worker, h);
    give(memory);
    tear_down();
}

static void test_memory_holds_its_block_after_every_reference_has_gone(void)
{
    set_up();
    uint8_t *memory = take(BIG);
    memset(memory, 7, BIG);
    rl_object_release(&worker, seal(memory, BIG));
    CHECK(free_bytes(&r.s) < r.map.data_size);
    uint8_t *other = take(BIG);
    memset(other, 8, BIG);
    CHECK_EQ(memory[0], 7);
    give(memory);
    give(other);
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    tear_down();
}

static void test_memory_of_a_dead_process_is_freed_and_what_it_sealed_stays(void)
{
    set_up();
    uint8_t *sealed = take(BIG);
    rl_handle h = seal(sealed, BIG);
    rl_object_hold(&r.s, h);
    take(BIG);
    OK(&r.s, rl_slot_release(&r.s, worker.slot));
    CHECK_CLEAN(&r.s);
    CHECK(r.map.data_size - free_bytes(&r.s) < 2 * BIG);
    rl_object_release(&r.s, h);
    CHECK_EQ(free_bytes(&r.s), r.map.data_size);
    rl_session_detach(&worker);
    rl_session_dispose(&worker);
    rl_private_close(&table);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_table_finds_every_entry_whatever_the_order_of_frees(void)
{
    enum { N = 200 };
    uint8_t *memory[N];
    set_up();
    for (int i = 0; i < N; i++) memory[i] = take(64 + (uint64_t)i);
    for (int i = 0; i < N; i += 3) give(memory[i]);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(rl_private_size(&table, memory[i]), i % 3 ? 64 + (uint64_t)i : 0);
    }
    for (int i = N - 1; i >= 0; i--) {
        if (i % 3) give(memory[i]);
    }
    tear_down();
}

static void test_forked_child_has_memory_of_its_own(void)
{
    int go[2];
    uint8_t byte = 0;
    set_up();
    uint8_t *memory = take(BIG);
    memset(memory, 1, BIG);
    CHECK_EQ(pipe(go), 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(read(go[0], &byte, 1), 1);
        CHECK_EQ(memory[BIG - 1], 1); /* not what the parent has written since */
        memset(memory, 3, BIG);
        CHECK_EQ(rl_private_free(&table, memory), 1);
        _exit(0);
    }
    memset(memory, 2, BIG);
    CHECK_EQ(write(go[1], &byte, 1), 1);
    CHECK_EQ(reap(pid), 0);
    CHECK_EQ(memory[BIG - 1], 2);
    give(memory);
    tear_down();
}

int main(void)
{
    RUN(test_memory_is_aligned_and_the_callers_own);
    RUN(test_memory_beyond_the_share_is_refused_unless_it_was_asked_for);
    RUN(test_memory_beyond_the_share_of_all_processes_is_refused);
    RUN(test_memory_whose_address_was_told_is_no_value_any_more);
    RUN(test_asked_for_memory_whose_address_was_told_is_no_value_either);
    RUN(test_sealed_memory_is_read_in_place_and_counts_as_such);
    RUN(test_memory_holds_its_block_after_every_reference_has_gone);
    RUN(test_memory_of_a_dead_process_is_freed_and_what_it_sealed_stays);
    RUN(test_table_finds_every_entry_whatever_the_order_of_frees);
    RUN(test_forked_child_has_memory_of_its_own);
    return 0;
}
