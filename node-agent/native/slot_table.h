/* The slot table: who holds which slot of the region, shared by the supervisor and its workers.
 *
 *   memfd:  | header (mutex, counts) | records, 64 bytes each | free stack, 8 bytes an entry | quotas, 32 bytes each | their buckets |
 *
 * The records and the limits of the quotas are the truth; the free stack, what a quota has used and the sums over
 * quotas are derived from them and made anew after a process died inside a critical section. What holds between
 * critical sections:
 *
 *   I1  FREE      => dirty_bytes == 0: every byte of the slot is zero, and it is on the free stack exactly once.
 *   I2  a record's owner is written before its state becomes USED, and dirty_bytes before the first byte is used.
 *   I3  dirty_bytes returns to 0 only after the wipe.
 *   I4  UNKNOWN   => on no stack; taken only when nothing is FREE, and wiped whole before use (dirty_bytes is not 0).
 *   I5  QUARANTINED is for ever: no transition leaves it.
 *   I6  a quota's `used` is the number of records that are USED or WIPING with its workload: a slot counts from its take
 *       until another tenant could take it (FREE, UNKNOWN), or nobody can any more (QUARANTINED).
 *
 *   FREE --take--> USED --finalizer--> WIPING --release--> FREE
 *                    |                    |
 *                    +---- its worker died: reclaim, wiped whole, proved clean ----> FREE, else QUARANTINED
 *   release with dirty_bytes != 0 --> UNKNOWN --take--> USED
 *
 * Quotas. A slot that a workload holds beyond what it has reserved is borrowed; so is each that is held by a workload
 * without a quota, which nothing bounds here. A take for a workload with a quota succeeds only within its reserved
 * slots, or within its burst while fewer slots are borrowed than nobody has reserved. So, as long as all who take have
 * quotas, reserved slots can always be had, whatever the order of calls and whoever is killed:
 *
 *   held = (sum of min(used, reserved)) + borrowed < (sum of reserved) + (usable - sum of reserved) = usable
 *
 * when some workload has used < reserved. What breaks that is not refused but mends as slots come back: a quota that is
 * set while others borrow what it reserves, a slot that is quarantined, a take without a quota.
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
#define QUOTAS_MAX 4096u

/* One workload's, at one moment. `borrowed` and `unreserved` are of all workloads: the slots held beyond what is
 * reserved, and those that nobody has reserved (0 if more is reserved than there are slots left). */
struct quota_view {
    uint32_t reserved, burst, used, borrowed, unreserved;
};

int slot_table_create(uint32_t slots, uint64_t seed, int *fd, struct slot_table **table);
int slot_table_attach(int fd, struct slot_table **table);
struct slot_table *slot_table_share(struct slot_table *table);
void slot_table_drop(struct slot_table *table);
uint32_t slot_table_slots(const struct slot_table *table);

/* ENOSPC: nothing to take. EDQUOT: the workload's quota allows no more; `view`, if it is not NULL, says why. `affine`: the slot was last used by the same module. */
int slot_table_take(struct slot_table *table, uint32_t worker, uint64_t workload, uint64_t module,
                    enum slot_strategy strategy, uint32_t *index, bool *affine, struct quota_view *view);
/* Gives a slot back: FREE if it is clean, else UNKNOWN. EPERM: the worker does not hold it. */
int slot_table_release(struct slot_table *table, uint32_t index, uint32_t worker);
int slot_table_quarantine(struct slot_table *table, uint32_t index);
/* Wipes everything that a dead worker held, proves it clean and frees it, and counts that; what is not clean afterwards
 * is quarantined. NB: the worker must be dead. */
int slot_table_reclaim(struct slot_table *table, uint32_t worker, struct mapping *region, size_t slot_bytes,
                       uint32_t *reclaimed);
/* Sets or changes the quota of a workload (not 0); one that uses slots already goes on using them. ENOSPC: `reserved`
 * grows beyond the usable slots that no other has reserved. EDQUOT: there are QUOTAS_MAX others. */
int slot_table_set_quota(struct slot_table *table, uint64_t workload, uint32_t reserved, uint32_t burst);
/* The workload's slots are its own until they are given back. Does nothing if it has no quota. */
int slot_table_clear_quota(struct slot_table *table, uint64_t workload);
/* ENOENT: the workload has no quota; `used`, `borrowed` and `unreserved` are filled all the same. */
int slot_table_quota(struct slot_table *table, uint64_t workload, struct quota_view *view);
int slot_table_counts(struct slot_table *table, uint32_t counts[SLOT_STATES]);
/* Fills `indices` (room for all slots) with what the worker holds. */
int slot_table_owned_by(struct slot_table *table, uint32_t worker, uint32_t *indices, uint32_t *count);
int slot_table_read(struct slot_table *table, uint32_t index, struct slot_record *record);
/* How often a process died inside a critical section. */
uint64_t slot_table_recoveries(struct slot_table *table);
/* Checks I1 to I6 and the shape of the free stack; a sentence, or NULL. For tests and for `check`. */
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
