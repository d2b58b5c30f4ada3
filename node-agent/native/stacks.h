/* The stack creator: stacks for asynchronous guests, kept for the next one instead of being unmapped.
 *
 *      | guard: faults | usable, `size` bytes ........... top |
 *
 * What holds: a stack is in use or idle, never both; at most `idle_max` are idle. A used one is not cleared, as in
 * Wasmtime's own pool: a guest can't read its stack, only what its compiled code put there itself.
 */
#ifndef WASMPOOL_STACKS_H
#define WASMPOOL_STACKS_H

#include <stdint.h>

#include "wasmtime_abi.h"

struct stacks; /* counted owners: the Python object, each configuration it was installed in, each stack in use */

struct stacks_stats {
    uint64_t mapped; /* since the start */
    uint64_t reused;
    uint32_t idle; /* now */
};

int stacks_new(uint32_t idle_max, wasmtime_error_new_t error_new, struct stacks **stacks);
struct stacks *stacks_share(struct stacks *stacks);
void stacks_drop(struct stacks *stacks);
struct stacks_stats stacks_stats(struct stacks *stacks);

/* wasmtime_stack_creator_t's callbacks. */
wasmtime_error_t *stacks_new_stack(void *env, size_t size, bool zeroed, wasmtime_stack_memory_t *result);
void stacks_finalize(void *env);

#endif
