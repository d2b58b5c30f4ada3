/* The slot table: who holds which slot of the region, shared by the supervisor and its workers.
 *
 *   memfd:  | header (mutex, counts) | records, 64 bytes each | free stack, 8 bytes an entry |
 *
 * The records are the truth; the free stack is derived from them and made anew after a process died inside a critical
 * section. What holds between critical sections:
 *
 *   I1  FREE      => dirty_bytes == 0: every byte of the slot is zero, and it is on the free stack exactly once.
 *   I2  a record's owner is written before its state becomes USED, and dirty_bytes before the first byte is used.
 *   I3  dirty_bytes returns to 0 only after the wipe.
 *   I4  UNKNOWN   => on no stack; taken only when nothing is FREE, and wiped whole before use (dirty_bytes is not 0).
 *   I5  QUARANTINED is for ever: no transition leaves it.
 *
 *   FREE --take--> USED --finalizer--> WIPING --release--> FREE
 *                    |                    |
 *                    +---- its worker died: reclaim, wiped whole, proved clean ----> FREE, else QUARANTINED
 *   release with dirty_bytes != 0 --> UNKNOWN --take--> USED
 *
 * Everything read from the table is checked before it is used as an index: another process writes to it.
 */
#ifndef WASMPOOL_SLOT_TABLE_H
#define WASMPOOL_SLOT_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mapping.h"

enum slot_state { SLOT_FREE, SLOT_USED, SLOT_WIPING, SLOT_UNKNOWN, SLOT_QUARANTINED, SLOT_STATES };

/* NEXT_AVAILABLE: the slot that was freed last, still warm in the caches. RANDOM: any free slot, evenly.
 * MODULE_AFFINITY: the one freed last by the same module, else the one free for longest. */
enum slot_strategy { STRATEGY_NEXT_AVAILABLE, STRATEGY_RANDOM, STRATEGY_MODULE_AFFINITY, STRATEGIES };

struct slot_record {
    _Atomic uint32_t state;
    uint32_t worker;
    uint64_t generation; /* grows by one with each take */
    uint64_t workload;
    _Atomic uint64_t dirty_bytes;
    uint64_t module; /* of the last tenant: what MODULE_AFFINITY looks for */
    uint32_t padding[6];
};

struct slot_table; /* counted owners, like struct mapping */

#define SLOTS_MAX (1u << 20)

int slot_table_create(uint32_t slots, uint64_t seed, int *fd, struct slot_table **table);
int slot_table_attach(int fd, struct slot_table **table);
struct slot_table *slot_table_share(struct slot_table *table);
void slot_table_drop(struct slot_table *table);
uint32_t slot_table_slots(const struct slot_table *table);

/* ENOSPC: nothing to take. `affine`: the slot was last used by the same module. */
int slot_table_take(struct slot_table *table, uint32_t worker, uint64_t workload, uint64_t module,
                    enum slot_strategy strategy, uint32_t *index, bool *affine);
/* Gives a slot back: FREE if it is clean, else UNKNOWN. EPERM: the worker does not hold it. */
int slot_table_release(struct slot_table *table, uint32_t index, uint32_t worker);
int slot_table_quarantine(struct slot_table *table, uint32_t index);
/* Wipes everything that a dead worker held, proves it clean and frees it, and counts that; what is not clean afterwards
 * is quarantined. NB: the worker must be dead. */
int slot_table_reclaim(struct slot_table *table, uint32_t worker, struct mapping *region, size_t slot_bytes,
                       uint32_t *reclaimed);
int slot_table_counts(struct slot_table *table, uint32_t counts[SLOT_STATES]);
/* Fills `indices` (room for all slots) with what the worker holds. */
int slot_table_owned_by(struct slot_table *table, uint32_t worker, uint32_t *indices, uint32_t *count);
int slot_table_read(struct slot_table *table, uint32_t index, struct slot_record *record);
/* How often a process died inside a critical section. */
uint64_t slot_table_recoveries(struct slot_table *table);
/* Checks I1 to I5 and the shape of the free stack; a sentence, or NULL. For tests and for `check`. */
const char *slot_table_broken(struct slot_table *table);

/* The owner's own moves; no lock, for nobody else may move a slot that is USED or WIPING while its worker lives. */
bool slot_table_held_by(const struct slot_table *table, uint32_t index, uint32_t worker);
uint64_t slot_table_dirty(const struct slot_table *table, uint32_t index);
void slot_table_mark_dirty(struct slot_table *table, uint32_t index, uint64_t bytes);
void slot_table_mark_used(struct slot_table *table, uint32_t index);
void slot_table_mark_wiping(struct slot_table *table, uint32_t index);
void slot_table_mark_clean(struct slot_table *table, uint32_t index);

/* For the test of recovery: takes the lock and does not give it back.
 * NB: the process must die with the table mapped: the kernel finds a dead owner's lock through its memory. */
int slot_table_lock_for_test(struct slot_table *table);

#endif
