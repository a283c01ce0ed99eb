/* test_arena.c - blocks of the data segment, against a model that only knows offsets. */
#include "harness.h"

enum { MODEL_BLOCKS = 200, STEPS = SANITIZED ? 4000 : 20000 };

static rig r;

static uint64_t offset_of(uint32_t block)
{
    return r.map.blocks[block].offset;
}

static uint64_t length_of(uint32_t block)
{
    return r.map.blocks[block].length;
}

/* ---- the model ---- */

typedef struct model {
    uint32_t n;
    uint32_t blocks[MODEL_BLOCKS];
    uint64_t seeds[MODEL_BLOCKS];
    uint64_t asked[MODEL_BLOCKS];
} model;

static int by_offset(const void *a, const void *b)
{
    uint64_t x = offset_of(*(const uint32_t *)a), y = offset_of(*(const uint32_t *)b);
    return (x > y) - (x < y);
}

/* Largest gap between the model's blocks; also: they do not overlap. The function's object is
 * short and has no block. */
static uint64_t model_largest_gap(const model *md, uint64_t *free_total)
{
    uint32_t sorted[MODEL_BLOCKS];
    memcpy(sorted, md->blocks, sizeof sorted);
    qsort(sorted, md->n, sizeof sorted[0], by_offset);
    uint64_t at = 0, largest = 0;
    *free_total = 0;
    for (uint32_t i = 0; i <= md->n; i++) {
        uint64_t begin = i < md->n ? offset_of(sorted[i]) : r.map.data_size;
        CHECK(begin >= at);
        *free_total += begin - at;
        if (begin - at > largest) largest = begin - at;
        if (i < md->n) at = begin + length_of(sorted[i]);
    }
    return largest;
}

static void model_fill(model *md, uint64_t nbytes, uint64_t seed)
{
    uint64_t total, gap = model_largest_gap(md, &total);
    uint32_t block;
    int err = rl_arena_fill(&r.s, nbytes, &block);
    if (err) {
        CHECK_EQ(err, RL_EFULL);
        uint64_t unit = nbytes >= 32768 ? 4096 : RL_ALIGN;
        CHECK(gap < (nbytes + unit - 1) / unit * unit);
        return;
    }
    CHECK_EQ(offset_of(block) % RL_ALIGN, 0);
    CHECK(length_of(block) >= nbytes);
    CHECK(length_of(block) < nbytes + 4096);
    pattern_write(rl_arena_bytes(&r.s, block), nbytes, seed);
    md->blocks[md->n] = block;
    md->seeds[md->n] = seed;
    md->asked[md->n++] = nbytes;
}

static void model_abandon(model *md, uint32_t k)
{
    CHECK(pattern_holds(r.map.ro + offset_of(md->blocks[k]), md->asked[k], md->seeds[k]));
    CHECK_EQ(rl_arena_abandon(&r.s, md->blocks[k]), 0);
    md->n--;
    md->blocks[k] = md->blocks[md->n];
    md->seeds[k] = md->seeds[md->n];
    md->asked[k] = md->asked[md->n];
}

static void model_compare(const model *md)
{
    uint64_t total, largest = model_largest_gap(md, &total);
    rl_arena_usage usage;
    CHECK_EQ(rl_arena_measure(&r.s, &usage), 0);
    CHECK_EQ(usage.free_bytes, total);
    CHECK_EQ(usage.largest, largest);
    CHECK(usage.peak >= usage.capacity - usage.free_bytes);
}

static void test_random_fills_and_frees_agree_with_a_model(void)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        model md = {0};
        uint64_t rng = seed;
        rig_make(&r);
        for (int step = 0; step < STEPS; step++) {
            uint32_t scale = rng_below(&rng, 18);
            uint64_t nbytes = rng_below(&rng, 1u << scale) + 1;
            int grow = rng_below(&rng, MODEL_BLOCKS) >= md.n;
            if (grow && md.n < MODEL_BLOCKS)
                model_fill(&md, nbytes, rng_next(&rng));
            else if (md.n > 0)
                model_abandon(&md, rng_below(&rng, md.n));
            if (step % 16) continue;
            model_compare(&md);
            CHECK_CLEAN(&r.s);
        }
        while (md.n > 0) model_abandon(&md, 0);
        rig_check_empty(&r);
        rig_drop(&r);
    }
}

/* ---- choice of a block ---- */

static void test_fill_of_a_size_just_freed_gets_the_same_warm_block(void)
{
    uint32_t a, b, again;
    rig_make(&r);
    for (uint64_t nbytes = 64; nbytes <= MIB; nbytes *= 4) {
        OK(&r.s, rl_arena_fill(&r.s, nbytes, &a));
        OK(&r.s, rl_arena_fill(&r.s, 64, &b)); /* so that it is not joined with the rest */
        uint64_t offset = offset_of(a);
        OK(&r.s, rl_arena_abandon(&r.s, a));
        OK(&r.s, rl_arena_fill(&r.s, nbytes, &again));
        CHECK_EQ(offset_of(again), offset);
        OK(&r.s, rl_arena_abandon(&r.s, again));
        OK(&r.s, rl_arena_abandon(&r.s, b));
    }
    rig_check_empty(&r);
    rig_drop(&r);
}

static int is_warm(uint64_t offset)
{
    uint64_t granule = offset >> 16;
    return (r.s.warm[granule / 8] >> (granule % 8)) & 1;
}

static void test_block_that_was_filled_is_warm_from_its_first_byte_to_its_last(void)
{
    uint32_t odd, block, last;
    rig_make(&r);
    OK(&r.s, rl_arena_fill(&r.s, 64, &odd)); /* so that no end of the next is where a page begins */
    CHECK(!is_warm(0));
    for (uint64_t nbytes = 64 << 10; nbytes <= MIB; nbytes *= 2) {
        OK(&r.s, rl_arena_fill(&r.s, nbytes, &block));
        for (uint64_t i = 0; i < nbytes; i++) CHECK(is_warm(offset_of(block) + i));
        OK(&r.s, rl_arena_abandon(&r.s, block));
    }
    OK(&r.s, rl_arena_fill(&r.s, r.map.data_size - 4096, &last));
    CHECK(is_warm(r.map.data_size - 1));
    OK(&r.s, rl_arena_abandon(&r.s, last));
    OK(&r.s, rl_arena_abandon(&r.s, odd));
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_fill_of_a_full_store_is_refused_until_a_block_is_freed(void)
{
    uint32_t blocks[4], extra;
    rig_make(&r);
    for (int i = 0; i < 4; i++) OK(&r.s, rl_arena_fill(&r.s, MIB, &blocks[i]));
    CHECK_EQ(free_bytes(&r.s), 0);
    CHECK_EQ(rl_arena_fill(&r.s, 1, &extra), RL_EFULL);
    OK(&r.s, rl_arena_abandon(&r.s, blocks[2]));
    CHECK_EQ(rl_arena_fill(&r.s, MIB + 1, &extra), RL_EFULL);
    OK(&r.s, rl_arena_fill(&r.s, MIB, &blocks[2]));
    for (int i = 0; i < 4; i++) OK(&r.s, rl_arena_abandon(&r.s, blocks[i]));
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_free_in_every_order_joins_neighbours_to_one_extent(void)
{
    static const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {0, 2, 1, 3},
                                    {1, 3, 0, 2}, {2, 0, 3, 1}, {1, 2, 0, 3}};
    for (size_t k = 0; k < sizeof orders / sizeof orders[0]; k++) {
        uint32_t blocks[4], whole;
        rig_make(&r);
        for (int i = 0; i < 4; i++) OK(&r.s, rl_arena_fill(&r.s, 1000, &blocks[i]));
        for (int i = 0; i < 4; i++) OK(&r.s, rl_arena_abandon(&r.s, blocks[orders[k][i]]));
        OK(&r.s, rl_arena_fill(&r.s, r.map.data_size, &whole));
        CHECK_EQ(offset_of(whole), 0);
        OK(&r.s, rl_arena_abandon(&r.s, whole));
        rig_check_empty(&r);
        rig_drop(&r);
    }
}

static void test_fill_without_a_spare_record_takes_the_block_whole(void)
{
    rl_capacities tables = small_tables;
    tables.blocks = 2;
    uint32_t a, b, extra;
    rig_make_sized(&r, MIB, &tables);
    OK(&r.s, rl_arena_fill(&r.s, 100, &a));
    OK(&r.s, rl_arena_fill(&r.s, 100, &b));
    CHECK_EQ(length_of(b), MIB - 128);
    CHECK_EQ(rl_arena_fill(&r.s, 100, &extra), RL_EFULL);
    OK(&r.s, rl_arena_abandon(&r.s, a));
    OK(&r.s, rl_arena_abandon(&r.s, b));
    rig_check_empty(&r);
    rig_drop(&r);
}

/* ---- errors ---- */

static void test_fill_of_nothing_or_of_more_than_there_is_is_refused(void)
{
    uint32_t block = 77;
    rig_make(&r);
    CHECK_EQ(rl_arena_fill(&r.s, 0, &block), RL_EINVAL);
    CHECK_EQ(rl_arena_fill(&r.s, r.map.data_size + 1, &block), RL_EFULL);
    CHECK_EQ(rl_arena_fill(&r.s, UINT64_MAX, &block), RL_EFULL);
    CHECK_EQ(block, 77);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_abandon_of_what_one_does_not_fill_is_refused(void)
{
    rl_session other;
    uint32_t block;
    rig_make(&r);
    rig_join(&r, &other);
    OK(&r.s, rl_arena_fill(&r.s, 100, &block));
    CHECK_EQ(rl_arena_abandon(&other, block), RL_ESTALE);
    CHECK_EQ(rl_arena_abandon(&r.s, 9999), RL_ESTALE);
    CHECK_EQ(rl_arena_abandon(&r.s, RL_NIL), RL_ESTALE);
    OK(&r.s, rl_arena_abandon(&r.s, block));
    CHECK_EQ(rl_arena_abandon(&r.s, block), RL_ESTALE);
    leave_session(&other);
    rig_check_empty(&r);
    rig_drop(&r);
}

static void test_free_is_announced_to_those_who_wait_for_room(void)
{
    uint32_t block;
    rig_make(&r);
    CHECK_EQ(rl_arena_fill(&r.s, 100, &block), 0);
    uint32_t seen = atomic_load(&r.map.control->freed);
    uint64_t freed = atomic_load(&r.map.control->freed_bytes);
    CHECK_EQ(rl_arena_abandon(&r.s, block), 0);
    CHECK(atomic_load(&r.map.control->freed) != seen);
    CHECK_EQ(atomic_load(&r.map.control->freed_bytes) - freed, 128);
    CHECK_EQ(rl_room_wait(&r.s, seen, rl_now_ns() + 1000 * MS_NS), 0);
    rig_drop(&r);
}

int main(void)
{
    RUN(test_random_fills_and_frees_agree_with_a_model);
    RUN(test_fill_of_a_size_just_freed_gets_the_same_warm_block);
    RUN(test_block_that_was_filled_is_warm_from_its_first_byte_to_its_last);
    RUN(test_fill_of_a_full_store_is_refused_until_a_block_is_freed);
    RUN(test_free_in_every_order_joins_neighbours_to_one_extent);
    RUN(test_fill_without_a_spare_record_takes_the_block_whole);
    RUN(test_fill_of_nothing_or_of_more_than_there_is_is_refused);
    RUN(test_abandon_of_what_one_does_not_fill_is_refused);
    RUN(test_free_is_announced_to_those_who_wait_for_room);
    return 0;
}
