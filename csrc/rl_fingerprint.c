/* rl_fingerprint.c - see rl_fingerprint.h. */
#include "rl_fingerprint.h"

#include <string.h>

enum { LINE = 64, SAMPLES = 64 };

static uint64_t mix(uint64_t hash, uint64_t word)
{
    uint64_t z = (hash ^ word) + UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Hash up to one line. */
static uint64_t mix_bytes(uint64_t hash, const uint8_t *bytes, size_t nbytes)
{
    uint64_t words[LINE / 8] = {0};
    memcpy(words, bytes, nbytes);
    for (size_t i = 0; i < (nbytes + 7) / 8; i++) hash = mix(hash, words[i]);
    return hash;
}

uint64_t rl_fingerprint(uint32_t kind, const void *bytes, size_t nbytes)
{
    const uint8_t *p = bytes;
    uint64_t hash = mix(mix(0, kind), nbytes);
    size_t nlines = nbytes / LINE;
    size_t tail = nbytes % LINE;
    if (tail) hash = mix_bytes(hash, p + nlines * LINE, tail);
    size_t count = nlines < SAMPLES ? nlines : SAMPLES;
    for (size_t k = 0; k < count; k++) {
        size_t line = nlines <= SAMPLES ? k : k * (nlines - 1) / (SAMPLES - 1);
        hash = mix_bytes(hash, p + line * LINE, LINE);
    }
    return hash ? hash : 1;
}
