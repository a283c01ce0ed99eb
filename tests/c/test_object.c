/* test_object.c - values: stored, held, contained in each other, freed, and failures nobody read. */
#include "harness.h"

static rig r;

static rl_handle put(uint64_t nbytes, uint64_t seed, const rl_handle *refs, uint32_t nrefs)
{
    rl_handle h;
    OK(&r.s, value_put(&r.s, nbytes, seed, refs, nrefs, &h));
    return h;
}

static void check_value(rl_session *s, rl_handle h, uint64_t nbytes, uint64_t seed)
{
    rl_payload p;
    CHECK_EQ(rl_object_read(s, h, &p), 0);
    CHECK_EQ(p.nbytes, nbytes);
    CHECK_EQ(p.fingerprint, seed);
    CHECK(payload_is_whole(&p));
}

static void check_gone(rl_handle h)
{
    rl_handle found;
    CHECK_EQ(rl_object_find(&r.s, h.gen, 0, &found), RL_ESTALE);
}

/* ---- values ---- */

static void test_value_of_any_size_is_read_back(void)
{
    static const uint64_t sizes[] = {0, 1, 31, 32, 33, 64, 4095, 4096, 4097, 65536, 100001, MIB};
    rig_make(&r);
    for (uint64_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        rl_handle h = put(sizes[i], i + 1, NULL, 0);
        rl_payload p;
        CHECK_EQ(rl_object_read(&r.s, h, &p), 0);
        CHECK_EQ(p.in_block, sizes[i] > RL_INLINE);
        check_value(&r.s, h, sizes[i], i + 1);
        rl_object_release(&r.s, h);
        CHECK_CLEAN(&r.s);
    }
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_put_of_a_block_that_is_not_ones_own_is_refused(void)
{
    rl_session other;
    rl_handle h = {.index = 5};
    uint32_t block;
    rig_make(&r);
    rig_join(&r, &other);
    CHECK_EQ(rl_arena_fill(&other, 100, &block), 0);
    rl_value v = {.block = block, .nbytes = 100};
    CHECK_EQ(rl_object_put(&r.s, &v, &h), RL_EINVAL);
    v.block = 99999;
    CHECK_EQ(rl_object_put(&r.s, &v, &h), RL_EINVAL);
    v = (rl_value){.block = RL_NIL, .nbytes = RL_INLINE + 1, .bytes = "x"};
    CHECK_EQ(rl_object_put(&r.s, &v, &h), RL_EINVAL);
    v = (rl_value){.block = block, .nbytes = 129};
    CHECK_EQ(rl_object_put(&other, &v, &h), RL_EINVAL);
    CHECK_EQ(h.index, 5);
    leave_session(&other); /* the block goes with it */
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_put_into_a_full_table_is_refused_and_leaves_the_block_to_the_caller(void)
{
    rl_capacities tables = small_tables;
    tables.objects = 4;
    rl_handle h[3], extra;
    uint32_t block;
    rig_make_sized(&r, MIB, &tables);
    for (int i = 0; i < 3; i++) h[i] = put(8, 1, NULL, 0);
    CHECK_EQ(rl_arena_fill(&r.s, 100, &block), 0);
    rl_value v = {.block = block, .nbytes = 100};
    CHECK_EQ(rl_object_put(&r.s, &v, &extra), RL_ETABLE);
    rl_object_release(&r.s, h[0]);
    OK(&r.s, rl_object_put(&r.s, &v, &h[0]));
    for (int i = 0; i < 3; i++) rl_object_release(&r.s, h[i]);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_put_of_refs_for_which_chunks_are_missing_is_refused(void)
{
    rl_capacities tables = small_tables;
    tables.chunks = 1;
    rl_handle refs[RL_CHUNK_NAMES + 1], h;
    rig_make_sized(&r, MIB, &tables);
    for (int i = 0; i <= RL_CHUNK_NAMES; i++) refs[i] = r.function;
    CHECK_EQ(value_put(&r.s, 100, 1, refs, RL_CHUNK_NAMES + 1, &h), RL_ETABLE);
    rig_check_empty(&r);
    h = put(100, 1, refs, RL_CHUNK_NAMES);
    rl_object_release(&r.s, h);
    rig_check_empty(&r);
    rig_drop(&r);
}

/* ---- holding ---- */

static void test_object_lives_until_its_last_holder_lets_go(void)
{
    rl_session other;
    rig_make(&r);
    rig_join(&r, &other);
    rl_handle h = put(1000, 7, NULL, 0);
    CHECK_EQ(find_for(&other, &r.s, h), 0);
    rl_object_hold(&r.s, h);
    rl_object_release(&r.s, h);
    rl_object_release(&r.s, h);
    CHECK_CLEAN(&r.s);
    check_value(&other, h, 1000, 7);
    rl_object_release(&other, h);
    check_gone(h);
    leave_session(&other);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_handle_of_a_freed_object_is_refused_also_when_its_record_is_used_again(void)
{
    rl_payload p;
    rl_handle refs[1];
    rig_make(&r);
    rl_handle old = put(8, 1, NULL, 0);
    rl_object_release(&r.s, old);
    rl_handle new = put(8, 2, NULL, 0);
    CHECK_EQ(new.index, old.index);
    CHECK(new.gen != old.gen);
    check_gone(old);
    CHECK_EQ(rl_object_read(&r.s, old, &p), RL_ESTALE);
    CHECK_EQ(rl_object_read_refs(&r.s, old, refs, 0), RL_ESTALE);
    rl_handle nowhere = {.index = RL_NIL};
    CHECK_EQ(rl_object_read(&r.s, nowhere, &p), RL_ESTALE);
    rl_handle unused = {.index = 900};
    CHECK_EQ(rl_object_read(&r.s, unused, &p), RL_ESTALE);
    rl_object_release(&r.s, new);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_detached_session_does_nothing(void)
{
    rl_session other;
    rl_payload p;
    rl_handle extra;
    uint8_t ready;
    uint32_t nready;
    rig_make(&r);
    rig_join(&r, &other);
    rl_handle h = put(100, 7, NULL, 0);
    CHECK_EQ(find_for(&other, &r.s, h), 0);
    uint32_t slot = other.slot;
    rl_session_detach(&other);
    CHECK_EQ(find_for(&other, &r.s, h), RL_EDEAD);
    CHECK_EQ(rl_object_read(&other, h, &p), RL_EDEAD);
    CHECK_EQ(value_put(&other, 8, 1, NULL, 0, &extra), RL_EDEAD);
    CHECK_EQ(rl_object_wait(&other, &h, 1, 1, 0, 0, &ready, &nready), RL_EDEAD);
    rl_object_hold(&other, h);
    rl_object_release(&other, h);
    rl_object_release(&r.s, h);
    check_value(&r.s, h, 100, 7); /* the slot still holds it */
    OK(&r.s, rl_slot_release(&r.s, slot));
    check_gone(h);
    rig_check_empty(&r);
    rig_drop(&r);
}

/* ---- objects in objects ---- */

static void test_contained_object_lives_as_long_as_its_container(void)
{
    rl_handle got;
    rig_make(&r);
    rl_handle inner = put(5000, 1, NULL, 0);
    rl_handle outer = put(8, 2, &inner, 1);
    rl_object_release(&r.s, inner);
    CHECK_CLEAN(&r.s);
    CHECK_EQ(rl_object_read_refs(&r.s, outer, &got, 1), 0);
    CHECK_EQ(got.index, inner.index);
    CHECK_EQ(got.gen, inner.gen);
    CHECK_EQ(rl_object_read_refs(&r.s, outer, &got, 2), RL_EINVAL);
    rl_object_release(&r.s, outer);
    CHECK_CLEAN(&r.s);
    check_value(&r.s, inner, 5000, 1);
    rl_object_release(&r.s, inner);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_object_contained_many_times_is_counted_as_often(void)
{
    rl_handle refs[40], got[40];
    rig_make(&r);
    rl_handle inner = put(100, 1, NULL, 0);
    for (int i = 0; i < 40; i++) refs[i] = inner;
    rl_handle outer = put(8, 2, refs, 40);
    CHECK_EQ(atomic_load(&r.map.objects[inner.index].names), 40);
    rl_object_release(&r.s, inner);
    CHECK_EQ(rl_object_read_refs(&r.s, outer, got, 40), 0);
    for (int i = 0; i < 40; i++) rl_object_release(&r.s, got[i]);
    CHECK_CLEAN(&r.s);
    rl_object_release(&r.s, outer);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_long_chain_is_freed_without_recursion(void)
{
    enum { LENGTH = 100000 };
    const rl_capacities tables = {.objects = LENGTH + 10};
    rig_make_sized(&r, MIB, &tables);
    rl_handle last;
    CHECK_EQ(value_put(&r.s, 8, 0, NULL, 0, &last), 0);
    for (int i = 1; i < LENGTH; i++) {
        rl_handle next;
        CHECK_EQ(value_put(&r.s, 8, 1, &last, 1, &next), 0);
        rl_object_release(&r.s, last);
        last = next;
    }
    CHECK_EQ(r.map.control->objects_live, LENGTH + 1);
    CHECK_CLEAN(&r.s);
    rl_object_release(&r.s, last);
    rig_check_empty(&r);
    rig_drop(&r);
}

/* ---- failures ---- */

static rl_handle put_failure(uint64_t seed)
{
    uint8_t bytes[RL_INLINE];
    rl_value v = failure_value(seed, bytes);
    rl_handle h;
    OK(&r.s, rl_object_put(&r.s, &v, &h));
    return h;
}

static void test_failure_that_nobody_read_is_handed_to_the_supervisor_once(void)
{
    rl_handle h, got;
    rig_make(&r);
    h = put_failure(3);
    rl_object_release(&r.s, h);
    CHECK_EQ(r.map.control->reports, 1);
    CHECK_CLEAN(&r.s);
    CHECK_EQ(rl_object_take_report(&r.s, &got), 0);
    CHECK_EQ(got.index, h.index);
    check_value(&r.s, got, 16, 3);
    CHECK_EQ(rl_object_take_report(&r.s, &h), RL_EAGAIN);
    rl_object_release(&r.s, got);
    CHECK_EQ(rl_object_take_report(&r.s, &h), RL_EAGAIN);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_failure_that_was_read_is_freed(void)
{
    rig_make(&r);
    rl_handle h = put_failure(3);
    check_value(&r.s, h, 16, 3);
    rl_object_release(&r.s, h);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_failure_within_a_freed_value_is_handed_over_too(void)
{
    rl_handle got;
    rig_make(&r);
    rl_handle h = put_failure(3);
    rl_handle outer = put(8, 1, &h, 1);
    rl_object_release(&r.s, h);
    CHECK_EQ(r.map.control->reports, 0);
    rl_object_release(&r.s, outer);
    CHECK_CLEAN(&r.s);
    CHECK_EQ(rl_object_take_report(&r.s, &got), 0);
    rl_object_release(&r.s, got);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_unread_failures_of_a_supervisor_that_leaves_are_freed(void)
{
    rl_session other;
    rig_make(&r);
    rig_join(&r, &other);
    rl_handle h = put_failure(3);
    rl_object_release(&r.s, h);
    h = put_failure(4);
    CHECK_EQ(rl_slot_release(&other, r.s.slot), 0);
    CHECK_CLEAN(&other);
    CHECK_EQ(r.map.control->objects_live, 0);
    CHECK_EQ(r.map.control->reports, 0);
    leave_session(&other);
    rl_session_detach(&r.s);
    rl_session_dispose(&r.s);
    rl_segment_close(&r.map);
}

int main(void)
{
    RUN(test_value_of_any_size_is_read_back);
    RUN(test_put_of_a_block_that_is_not_ones_own_is_refused);
    RUN(test_put_into_a_full_table_is_refused_and_leaves_the_block_to_the_caller);
    RUN(test_put_of_refs_for_which_chunks_are_missing_is_refused);
    RUN(test_object_lives_until_its_last_holder_lets_go);
    RUN(test_handle_of_a_freed_object_is_refused_also_when_its_record_is_used_again);
    RUN(test_detached_session_does_nothing);
    RUN(test_contained_object_lives_as_long_as_its_container);
    RUN(test_object_contained_many_times_is_counted_as_often);
    RUN(test_long_chain_is_freed_without_recursion);
    RUN(test_failure_that_nobody_read_is_handed_to_the_supervisor_once);
    RUN(test_failure_that_was_read_is_freed);
    RUN(test_failure_within_a_freed_value_is_handed_over_too);
    RUN(test_unread_failures_of_a_supervisor_that_leaves_are_freed);
    return 0;
}
