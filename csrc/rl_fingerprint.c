/* rl_fingerprint.c - see rl_fingerprint.h. */
#include "rl_fingerprint.h"

#include <string.h>

enum { LINE = 64, WORDS = LINE / 8, SAMPLES = 64 };

static uint64_t mix(uint64_t hash, uint64_t word)
{
    uint64_t z = (hash ^ word) + UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Hash what follows the last whole line. */
static uint64_t mix_tail(uint64_t hash, const uint8_t *bytes, size_t nbytes)
{
    uint64_t words[WORDS] = {0};
    memcpy(words, bytes, nbytes);
    for (size_t i = 0; i < (nbytes + 7) / 8; i++) hash = mix(hash, words[i]);
    return hash;
}

/* Offset of sample k of `nlines` lines. */
static size_t sample_at(size_t k, size_t nlines)
{
    return LINE * (nlines <= SAMPLES ? k : k * (nlines - 1) / (SAMPLES - 1));
}

/* Hash the sampled lines. Each word of a line has a chain of its own, so that the multiplications
 * of one need not wait for those of another. The lines of a large value are far apart, each on a
 * page of its own: fetched one by one, they would cost a long walk to memory each. */
static uint64_t mix_lines(uint64_t hash, const uint8_t *bytes, size_t nlines)
{
    size_t count = nlines < SAMPLES ? nlines : SAMPLES;
    for (size_t k = 0; k < count; k++) __builtin_prefetch(bytes + sample_at(k, nlines));

    uint64_t chains[WORDS] = {0};
    for (size_t k = 0; k < count; k++) {
        uint64_t words[WORDS];
        memcpy(words, bytes + sample_at(k, nlines), LINE);
        for (size_t i = 0; i < WORDS; i++) chains[i] = mix(chains[i], words[i]);
    }
    for (size_t i = 0; i < WORDS; i++) hash = mix(hash, chains[i]);
    return hash;
}

/* Hash a payload of `nbytes` bytes: its whole lines, or the sampled ones of them alone, and the rest. */
static uint64_t hash_payload(uint32_t kind, size_t nbytes, const uint8_t *lines, size_t nlines,
                             const uint8_t *tail)
{
    uint64_t hash = mix(mix(0, kind), nbytes);
    if (nbytes % LINE) hash = mix_tail(hash, tail, nbytes % LINE);
    if (nlines) hash = mix_lines(hash, lines, nlines);
    return hash ? hash : 1;
}

uint64_t rl_fingerprint(uint32_t kind, const void *bytes, size_t nbytes)
{
    const uint8_t *p = bytes;
    size_t nlines = nbytes / LINE;
    return hash_payload(kind, nbytes, p, nlines, p + nlines * LINE);
}

/* Copy out [offset, offset + nbytes) of a payload in pieces. */
static void gather(const rl_piece *pieces, size_t n, size_t offset, size_t nbytes, uint8_t *dest)
{
    memset(dest, 0, nbytes);
    for (const rl_piece *p = pieces; p < pieces + n; p++) {
        size_t begin = p->offset > offset ? p->offset : offset;
        size_t end = p->offset + p->nbytes;
        if (end > offset + nbytes) end = offset + nbytes;
        if (begin >= end) continue;
        memcpy(dest + (begin - offset), (const uint8_t *)p->bytes + (begin - p->offset),
               end - begin);
    }
}

uint64_t rl_fingerprint_pieces(uint32_t kind, const rl_piece *pieces, size_t n, size_t nbytes)
{
    uint8_t lines[SAMPLES * LINE], tail[LINE];
    size_t nlines = nbytes / LINE;
    size_t count = nlines < SAMPLES ? nlines : SAMPLES;
    for (size_t k = 0; k < count; k++)
        gather(pieces, n, sample_at(k, nlines), LINE, lines + k * LINE);
    gather(pieces, n, nlines * LINE, nbytes % LINE, tail);
    return hash_payload(kind, nbytes, lines, count, tail);
}
