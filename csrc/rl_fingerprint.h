/* rl_fingerprint.h - a cheap hash that tells two attempts' values apart.
 *
 * A generator that runs a second time must yield what it yielded before. Comparing whole values
 * would cost a pass over memory, so a payload's length, its first lines and 64 lines spread evenly
 * over the rest are hashed (every line of a payload of up to 64 of them). */
#ifndef RL_FINGERPRINT_H
#define RL_FINGERPRINT_H

#include <stddef.h>
#include <stdint.h>

/* Never 0. The mixing step is that of splitmix64 (Steele, Lea, Flood, OOPSLA 2014). */
uint64_t rl_fingerprint(uint32_t kind, const void *bytes, size_t nbytes);

/* Part of a payload that is not in one place. */
typedef struct rl_piece {
    size_t offset; /* from the start of the payload */
    size_t nbytes;
    const void *bytes;
} rl_piece;

/* The fingerprint of a payload of `nbytes` bytes that is made of these pieces, in the order of their
 * offsets; what lies between them is zero. */
uint64_t rl_fingerprint_pieces(uint32_t kind, const rl_piece *pieces, size_t n, size_t nbytes);

#endif
