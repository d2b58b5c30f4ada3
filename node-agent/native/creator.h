/* The memory creator: puts the linear memories of an instance into the slot that it was given.
 *
 * One creator serves one engine. Wasmtime tells new_memory nothing about the store, so a slot is *armed* on the thread
 * that instantiates, right before it does: new_memory takes the next free area of the armed slot and refuses without
 * one. Nothing in a callback allocates, calls Python or can fail in another way than by a wasmtime_error_t.
 *
 * Compact: the areas lie side by side in the region, and compiled code checks every bound (reservation 0, guard 0).
 *
 *      region  | slot 0                       | slot 1 ...
 *              | area 0       | area 1        |
 *              |memory 0 |zero|memory 1|zero  |
 *
 * Guarded: each area has `stride_bytes` of address space of its own. Its huge pages are mapped once, at the front; the
 * memory begins so that what it starts with ends where they end. Behind lie 4 GiB + 32 MiB that fault, so compiled code
 * needs no checks. It grows by mapping the huge pages that it does not use behind the end, one by one, and a remainder
 * of ordinary pages.
 *
 *      stride  | huge pages          |                 PROT_NONE                    |
 *              |0       |1     <base |0 again   |tail|                              |
 *                               ^ minimum bytes ^ end of the huge pages
 *
 * A fork of the process can do nothing to a slot: it gets no memory, grows none, and what it closes is not wiped.
 *
 * What holds: a memory's bytes are zero when it is made; `size` is what it may use and never shrinks; the finalizer
 * wipes all of it, and only then is the slot's record clean.
 */
#ifndef WASMPOOL_CREATOR_H
#define WASMPOOL_CREATOR_H

#include "mapping.h"
#include "slot_table.h"
#include "wasmtime_abi.h"

#define GUARDED_RESERVATION_BYTES (UINT64_C(4) << 30)
#define GUARDED_GUARD_BYTES (UINT64_C(32) << 20)

struct creator_options {
    uint32_t worker;
    uint32_t memories;   /* areas per slot */
    size_t area_bytes;   /* of the region, per area: a multiple of 64 KiB; guarded: of the page size */
    size_t memory_bytes; /* what one memory may grow to; at most area_bytes */
    size_t page_bytes;   /* of the region */
    bool guarded;
    wasmtime_error_new_t error_new;
};

struct creator_stats {
    atomic_ullong memories; /* made */
    atomic_ullong refused;  /* new_memory refused */
    atomic_ullong grown;
    atomic_ullong grow_refused;
    atomic_ullong deferred; /* slots released by a finalizer, after finish() */
};

struct creator;

int creator_new(struct mapping *region, struct slot_table *table, const struct creator_options *options,
                struct creator **creator);
struct creator *creator_share(struct creator *creator);
void creator_drop(struct creator *creator);
struct creator_stats *creator_stats(struct creator *creator);

/* Until creator_disarm, memories that this thread makes go into the slot. Wipes it first if it is not known to be
 * clean. EPERM: the worker does not hold it, or this is a fork. EBUSY: this thread has armed one already. */
int creator_arm(struct creator *creator, uint32_t slot);
void creator_disarm(void);
/* Gives the slot back, at once if none of its memories lives, else when the last one is gone (`*deferred`). */
int creator_finish(struct creator *creator, uint32_t slot, bool *deferred);
/* How many memories live in the slot. */
uint32_t creator_live(struct creator *creator, uint32_t slot);

/* wasmtime_memory_creator_t's callbacks; `env` is a struct creator whose owner is the engine. */
wasmtime_error_t *creator_new_memory(void *env, const wasm_memorytype_t *type, size_t minimum, size_t maximum,
                                     size_t reserved, size_t guard, wasmtime_linear_memory_t *memory);
void creator_finalize(void *env);

#endif
