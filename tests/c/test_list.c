/* test_list.c - lists of objects and the chunks that they take. */
#include "harness.h"

#include "rl_list.h"

enum { MOST = 100 };

static rig r;
static rl_handle objects[MOST];

static void set_up(void)
{
    rig_make(&r);
    for (uint32_t i = 0; i < MOST; i++) {
        CHECK_EQ(value_put(&r.s, 8, i, NULL, 0, &objects[i]), 0);
    }
}

static void tear_down(void)
{
    for (uint32_t i = 0; i < MOST; i++) rl_object_release(&r.s, objects[i]);
    rig_check_empty(&r);
    rig_drop(&r);
}

static int list_make(uint32_t n, rl_list *out)
{
    rl_section section;
    CHECK_EQ(rl_enter(&r.s, &section, RL_OP_OBJECT), 0);
    int err = rl_list_make(&r.s.map, objects, n, out);
    rl_leave(&section);
    return err;
}

static void list_free(rl_list list)
{
    rl_section section;
    CHECK_EQ(rl_enter(&r.s, &section, RL_OP_OBJECT), 0);
    rl_list_free(&r.s.map, list);
    rl_leave(&section);
}

static uint32_t chunks_in_use(void)
{
    return r.map.control->chunks.high_water - r.map.control->chunks.nfree;
}

static void test_walk_over_a_list_of_any_length_gives_it_in_order(void)
{
    set_up();
    for (uint32_t n = 0; n <= MOST; n++) {
        rl_list list;
        CHECK_EQ(list_make(n, &list), 0);
        CHECK_EQ(list.n, n);
        CHECK_EQ(chunks_in_use(), rl_list_chunks(n));
        rl_walk w = rl_list_walk(&r.map, list);
        for (uint32_t i = 0; i < n; i++) CHECK_EQ(rl_walk_next(&w), objects[i].index);
        CHECK_EQ(rl_walk_next(&w), RL_NIL);
        list_free(list);
        CHECK_CLEAN(&r.s);
    }
    tear_down();
}

static void test_list_of_one_takes_no_chunk(void)
{
    rl_list list;
    set_up();
    CHECK_EQ(list_make(1, &list), 0);
    CHECK_EQ(list.head, objects[0].index);
    CHECK_EQ(chunks_in_use(), 0);
    tear_down();
}

static void test_list_for_which_chunks_are_missing_is_refused_and_takes_none(void)
{
    rl_capacities tables = small_tables;
    tables.chunks = 3;
    rig_make_sized(&r, MIB, &tables);
    for (uint32_t i = 0; i < MOST; i++) {
        CHECK_EQ(value_put(&r.s, 8, i, NULL, 0, &objects[i]), 0);
    }
    rl_list two, list = {.head = 5, .n = 5};
    CHECK_EQ(list_make(2 * RL_CHUNK_NAMES, &two), 0);
    CHECK_EQ(list_make(RL_CHUNK_NAMES + 1, &list), RL_ETABLE);
    CHECK_EQ(list.n, 5);
    CHECK_EQ(chunks_in_use(), 2);
    CHECK_EQ(list_make(2, &list), 0);
    CHECK_EQ(chunks_in_use(), 3);
    list_free(two);
    list_free(list);
    tear_down();
}

static void test_walk_over_nonsense_ends(void)
{
    rl_list list;
    set_up();
    CHECK_EQ(list_make(40, &list), 0);
    uint32_t next = r.map.chunks[list.head].next;
    uint32_t first = r.map.chunks[list.head].object[0];

    r.map.chunks[list.head].next = RL_NIL - 1;
    rl_walk w = rl_list_walk(&r.map, list);
    for (uint32_t i = 0; i < RL_CHUNK_NAMES; i++) CHECK(rl_walk_next(&w) != RL_NIL);
    CHECK_EQ(rl_walk_next(&w), RL_NIL);

    r.map.chunks[list.head].next = list.head; /* a cycle: as long as the list says */
    w = rl_list_walk(&r.map, list);
    for (uint32_t i = 0; i < 40; i++) CHECK(rl_walk_next(&w) != RL_NIL);
    CHECK_EQ(rl_walk_next(&w), RL_NIL);

    r.map.chunks[list.head].object[0] = r.map.control->objects.capacity;
    w = rl_list_walk(&r.map, list);
    CHECK_EQ(rl_walk_next(&w), RL_NIL);

    r.map.chunks[list.head].next = next;
    r.map.chunks[list.head].object[0] = first;
    list_free(list);
    tear_down();
}

static void test_rebuild_keeps_the_chunks_of_marked_lists_and_frees_the_others(void)
{
    rl_list kept, lost;
    rl_section section;
    set_up();
    CHECK_EQ(list_make(50, &kept), 0);
    CHECK_EQ(list_make(50, &lost), 0);
    CHECK_EQ(rl_enter(&r.s, &section, RL_OP_OBJECT), 0);
    rl_list_rebuild_begin(&r.s.map);
    rl_list_rebuild_mark(&r.s.map, kept);
    rl_list_rebuild_end(&r.s.map);
    rl_leave(&section);
    CHECK_EQ(chunks_in_use(), rl_list_chunks(50));
    rl_walk w = rl_list_walk(&r.map, kept);
    for (uint32_t i = 0; i < 50; i++) CHECK_EQ(rl_walk_next(&w), objects[i].index);
    list_free(kept);
    tear_down();
}

int main(void)
{
    RUN(test_walk_over_a_list_of_any_length_gives_it_in_order);
    RUN(test_list_of_one_takes_no_chunk);
    RUN(test_list_for_which_chunks_are_missing_is_refused_and_takes_none);
    RUN(test_walk_over_nonsense_ends);
    RUN(test_rebuild_keeps_the_chunks_of_marked_lists_and_frees_the_others);
    return 0;
}
