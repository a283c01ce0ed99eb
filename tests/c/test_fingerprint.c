/* test_fingerprint.c - what changes a fingerprint. */
#include "harness.h"
#include "rl_fingerprint.h"

enum { WHOLE = 64 * 64, LARGE = 1 << 20 };

static uint8_t bytes[LARGE];

static void fill(void)
{
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 37 + i / 251);
}

static void test_fingerprint_of_equal_bytes_is_equal_and_never_0(void)
{
    fill();
    for (size_t n = 0; n <= LARGE; n = n * 3 + 1) {
        uint64_t first = rl_fingerprint(7, bytes, n);
        CHECK(first != 0);
        CHECK_EQ(rl_fingerprint(7, bytes, n), first);
    }
}

static void test_fingerprint_differs_for_another_kind_or_length(void)
{
    static const uint8_t zeros[256];
    CHECK(rl_fingerprint(1, zeros, 8) != rl_fingerprint(2, zeros, 8));
    for (size_t n = 0; n < sizeof zeros; n++) {
        CHECK(rl_fingerprint(1, zeros, n) != rl_fingerprint(1, zeros, n + 1));
    }
}

static void test_fingerprint_of_up_to_64_lines_sees_every_byte(void)
{
    fill();
    for (size_t n = 61; n <= WHOLE; n += 673) {
        uint64_t before = rl_fingerprint(1, bytes, n);
        for (size_t i = 0; i < n; i++) {
            bytes[i] ^= 1;
            CHECK(rl_fingerprint(1, bytes, n) != before);
            bytes[i] ^= 1;
        }
    }
}

static void swap(uint8_t *a, uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t kept = a[i];
        a[i] = b[i];
        b[i] = kept;
    }
}

static void test_fingerprint_differs_when_words_or_lines_change_places(void)
{
    fill();
    uint64_t before = rl_fingerprint(1, bytes, WHOLE);
    swap(bytes, bytes + 8, 8);
    CHECK(rl_fingerprint(1, bytes, WHOLE) != before);
    swap(bytes, bytes + 8, 8);
    swap(bytes, bytes + 64, 64);
    CHECK(rl_fingerprint(1, bytes, WHOLE) != before);
}

static void test_fingerprint_of_a_large_value_sees_its_two_ends(void)
{
    fill();
    uint64_t before = rl_fingerprint(1, bytes, LARGE);
    bytes[0] ^= 1;
    CHECK(rl_fingerprint(1, bytes, LARGE) != before);
    bytes[0] ^= 1;
    bytes[LARGE - 1] ^= 1;
    CHECK(rl_fingerprint(1, bytes, LARGE) != before);
}

static void test_fingerprint_of_pieces_is_that_of_the_whole(void)
{
    static const size_t lengths[] = {0, 1, 63, 64, 65, 4096, 4097, WHOLE, LARGE - 1, LARGE};
    fill();
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t n = lengths[i];
        size_t from = n / 3, to = n - n / 5; /* zeros in between */
        memset(bytes + from, 0, to - from);
        rl_piece pieces[] = {
            {0, from / 2, bytes},
            {from / 2, from - from / 2, bytes + from / 2},
            {to, n - to, bytes + to},
        };
        CHECK_EQ(rl_fingerprint_pieces(7, pieces, 3, n), rl_fingerprint(7, bytes, n));
        fill();
    }
}

int main(void)
{
    RUN(test_fingerprint_of_equal_bytes_is_equal_and_never_0);
    RUN(test_fingerprint_differs_for_another_kind_or_length);
    RUN(test_fingerprint_of_pieces_is_that_of_the_whole);
    RUN(test_fingerprint_of_up_to_64_lines_sees_every_byte);
    RUN(test_fingerprint_differs_when_words_or_lines_change_places);
    RUN(test_fingerprint_of_a_large_value_sees_its_two_ends);
    return 0;
}
