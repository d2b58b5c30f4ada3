#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "slot_table.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC UINT64_C(0x32306c6f6f707377) /* "wspool02" */

struct header {
    uint64_t magic;
    uint32_t slots;
    uint32_t record_bytes;
    pthread_mutex_t mutex; /* robust and shared between processes; guards all below and all of the stack */
    uint32_t free_count;
    uint32_t unknown_count;
    uint64_t recoveries;
    uint64_t random;
    /* Derived, as the counts above are. */
    uint64_t reserved; /* sum over all quotas */
    uint32_t quarantined;
    uint32_t borrowed;
    uint32_t quotas;
};

/* Alive while `workload` is not 0: it is written after the limits, and they in one piece, for whoever is killed meanwhile. */
struct quota_entry {
    _Atomic uint64_t workload;
    _Atomic uint64_t limits; /* reserved, and burst in the upper half */
    uint32_t used;           /* derived */
    uint16_t next;           /* derived: the number, plus 1, of the next one in its bucket, or 0 */
    uint16_t padding[5];
};

/* `tag` is the low half of the record's module, so that looking for affinity reads the stack alone. */
struct free_entry {
    uint32_t index;
    uint32_t tag;
};

struct slot_table {
    atomic_uint owners;
    size_t length;
    uint32_t slots; /* our own copy: the one in the header can be written by others */
    struct header *header;
    struct slot_record *records;
    struct free_entry *stack; /* [0] is free for longest, [free_count - 1] was freed last */
    struct quota_entry *quotas;
    uint16_t *buckets; /* derived: the first one of each, as in quota_entry.next */
};

#define HEADER_BYTES 4096u

/* Inside are about a microsecond and no system call. Whoever waits longer waits for a process that is stopped, and is
 * told so (ETIMEDOUT) instead of stopping with it. */
#define LOCK_SECONDS 10

_Static_assert(sizeof(struct header) <= HEADER_BYTES, "the header is one page");
_Static_assert(sizeof(struct quota_entry) == 32, "as the picture says");
_Static_assert(sizeof(struct slot_record) == 64, "a record is one cache line");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LONG_LOCK_FREE == 2, "atomics work between processes");

static size_t table_bytes(uint32_t slots) {
    return HEADER_BYTES + (size_t)slots * (sizeof(struct slot_record) + sizeof(struct free_entry)) +
           QUOTAS_MAX * (sizeof(struct quota_entry) + sizeof(uint16_t));
}

static enum slot_state state_of(const struct slot_table *table, uint32_t index) {
    return (enum slot_state)atomic_load_explicit(&table->records[index].state, memory_order_acquire);
}

static void set_state(struct slot_table *table, uint32_t index, enum slot_state state) {
    atomic_store_explicit(&table->records[index].state, (uint32_t)state, memory_order_release);
}

static uint32_t tag_of(uint64_t module) {
    return (uint32_t)module;
}

static bool held(enum slot_state state) {
    return state == SLOT_USED || state == SLOT_WIPING;
}

static uint64_t workload_of(const struct quota_entry *quota) {
    return atomic_load_explicit(&quota->workload, memory_order_relaxed);
}

static uint32_t reserved_of(const struct quota_entry *quota) {
    return (uint32_t)atomic_load_explicit(&quota->limits, memory_order_relaxed);
}

static uint32_t burst_of(const struct quota_entry *quota) {
    return (uint32_t)(atomic_load_explicit(&quota->limits, memory_order_relaxed) >> 32);
}

static uint16_t *bucket_of(const struct slot_table *table, uint64_t workload) {
    return &table->buckets[(workload * UINT64_C(0x9e3779b97f4a7c15)) >> 52];
}

_Static_assert(QUOTAS_MAX == 1u << (64 - 52), "a hash is a bucket");

/* NULL: the workload has none. At most QUOTAS_MAX steps, even if another process has made the chain a ring. */
static struct quota_entry *find_quota(const struct slot_table *table, uint64_t workload) {
    uint32_t number = *bucket_of(table, workload);
    for (uint32_t steps = 0; number != 0 && number <= QUOTAS_MAX && steps < QUOTAS_MAX; steps++) {
        struct quota_entry *quota = &table->quotas[number - 1];
        if (workload_of(quota) == workload)
            return quota;
        number = quota->next;
    }
    return NULL;
}

static void link_quota(struct slot_table *table, struct quota_entry *quota) {
    uint16_t *bucket = bucket_of(table, workload_of(quota));
    quota->next = *bucket;
    *bucket = (uint16_t)(quota - table->quotas + 1);
    table->header->quotas++;
    table->header->reserved += reserved_of(quota);
}

/* One more of the workload's slots is held; `quota` is NULL if it has none. */
static void count_taken(struct slot_table *table, struct quota_entry *quota) {
    if (quota == NULL || quota->used++ >= reserved_of(quota))
        table->header->borrowed++;
}

/* I6, and the sums over all quotas, from the records and the limits. */
static void recount(struct slot_table *table) {
    struct header *header = table->header;
    memset(table->buckets, 0, QUOTAS_MAX * sizeof *table->buckets);
    header->quotas = header->borrowed = header->quarantined = 0;
    header->reserved = 0;
    for (uint32_t i = 0; i < QUOTAS_MAX; i++) {
        struct quota_entry *quota = &table->quotas[i];
        quota->used = 0;
        if (workload_of(quota) != 0)
            link_quota(table, quota);
    }
    for (uint32_t i = 0; i < table->slots; i++) {
        enum slot_state state = state_of(table, i);
        if (held(state))
            count_taken(table, find_quota(table, table->records[i].workload));
        header->quarantined += state == SLOT_QUARANTINED;
    }
}

/* The slot is held no more. */
static void count_given_back(struct slot_table *table, struct quota_entry *quota) {
    if (table->header->borrowed == 0 && (quota == NULL || quota->used == 0 || quota->used > reserved_of(quota)))
        recount(table); /* not what it should be */
    else if (quota == NULL || quota->used-- > reserved_of(quota))
        table->header->borrowed--;
}

/* Of those that can be used. */
static uint32_t unreserved(const struct slot_table *table) {
    const struct header *header = table->header;
    uint32_t usable = header->quarantined < table->slots ? table->slots - header->quarantined : 0;
    return header->reserved < usable ? usable - (uint32_t)header->reserved : 0;
}

static bool quota_allows(const struct slot_table *table, const struct quota_entry *quota) {
    uint32_t reserved = reserved_of(quota);
    if (quota->used < reserved)
        return true;
    return quota->used - reserved < burst_of(quota) && table->header->borrowed < unreserved(table);
}

/* Brings records into a state that I1 to I5 allow, and makes the free stack, the counts and I6 anew. Runs under the lock.
 * May itself be killed at any point: it only moves records towards a good state, and the next one starts over. */
static void recover(struct slot_table *table) {
    struct header *header = table->header;
    uint32_t free_count = 0, unknown_count = 0;
    for (uint32_t i = table->slots; i-- > 0;) {
        struct slot_record *record = &table->records[i];
        uint32_t state = atomic_load_explicit(&record->state, memory_order_relaxed);
        bool clean = atomic_load_explicit(&record->dirty_bytes, memory_order_relaxed) == 0;
        if (state >= SLOT_STATES || (state == SLOT_FREE && !clean)) {
            if (clean)
                atomic_store_explicit(&record->dirty_bytes, UINT64_MAX, memory_order_relaxed);
            set_state(table, i, SLOT_UNKNOWN);
            state = SLOT_UNKNOWN;
        }
        if (state == SLOT_FREE) {
            record->worker = 0;
            record->workload = 0;
            table->stack[free_count++] = (struct free_entry){i, tag_of(record->module)};
        } else if (state == SLOT_UNKNOWN) {
            unknown_count++;
        }
    }
    header->free_count = free_count;
    header->unknown_count = unknown_count;
    recount(table);
}

static int wait_for(pthread_mutex_t *mutex) {
#if defined(__SANITIZE_THREAD__)
    return pthread_mutex_lock(mutex); /* ThreadSanitizer does not see that timedlock takes a dead owner's lock */
#else
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += LOCK_SECONDS;
    return pthread_mutex_timedlock(mutex, &deadline);
#endif
}

static int lock(struct slot_table *table) {
    int error = pthread_mutex_trylock(&table->header->mutex);
    if (error == EBUSY)
        error = wait_for(&table->header->mutex);
    if (error == EOWNERDEAD) {
        table->header->recoveries++;
        recover(table);
        return pthread_mutex_consistent(&table->header->mutex);
    }
    if (error == 0 && table->header->free_count > table->slots)
        recover(table);
    return error;
}

static void unlock(struct slot_table *table) {
    pthread_mutex_unlock(&table->header->mutex);
}

static int map(int fd, uint32_t slots, struct slot_table **table) {
    struct slot_table *made = calloc(1, sizeof *made);
    if (made == NULL)
        return ENOMEM;
    made->length = table_bytes(slots);
    made->slots = slots;
    uint8_t *base = mmap(NULL, made->length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        int error = errno;
        free(made);
        return error;
    }
    made->header = (struct header *)base;
    made->records = (struct slot_record *)(base + HEADER_BYTES);
    made->stack = (struct free_entry *)(base + HEADER_BYTES + (size_t)slots * sizeof(struct slot_record));
    made->quotas = (struct quota_entry *)(made->stack + slots);
    made->buckets = (uint16_t *)(made->quotas + QUOTAS_MAX);
    atomic_init(&made->owners, 1);
    *table = made;
    return 0;
}

static int init_mutex(pthread_mutex_t *mutex) {
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0)
        return error;
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    error = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return error;
}

int slot_table_create(uint32_t slots, uint64_t seed, int *fd, struct slot_table **table) {
    if (slots == 0 || slots > SLOTS_MAX)
        return EINVAL;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t length = (table_bytes(slots) + page - 1) / page * page;
    int made;
    int error = mapping_memfd("wasmpool-slots", length, page, &made);
    if (error != 0)
        return error;
    error = map(made, slots, table);
    if (error == 0)
        error = init_mutex(&(*table)->header->mutex);
    if (error != 0) {
        close(made);
        return error;
    }
    struct header *header = (*table)->header;
    header->slots = slots;
    header->record_bytes = sizeof(struct slot_record);
    header->random = seed != 0 ? seed : 1;
    recover(*table);
    header->magic = MAGIC;
    *fd = made;
    return 0;
}

int slot_table_attach(int fd, struct slot_table **table) {
    struct stat status;
    struct header start;
    if (fstat(fd, &status) != 0)
        return errno;
    if (pread(fd, &start, sizeof start, 0) != (ssize_t)sizeof start)
        return EINVAL;
    if (start.magic != MAGIC || start.record_bytes != sizeof(struct slot_record) || start.slots == 0 ||
        start.slots > SLOTS_MAX || (size_t)status.st_size < table_bytes(start.slots))
        return EINVAL;
    return map(fd, start.slots, table);
}

struct slot_table *slot_table_share(struct slot_table *table) {
    atomic_fetch_add_explicit(&table->owners, 1, memory_order_relaxed);
    return table;
}

void slot_table_drop(struct slot_table *table) {
    if (table == NULL || atomic_fetch_sub_explicit(&table->owners, 1, memory_order_acq_rel) != 1)
        return;
    munmap(table->header, table->length);
    free(table);
}

uint32_t slot_table_slots(const struct slot_table *table) {
    return table->slots;
}

/* splitmix64, and rejection so that every slot is equally likely. */
static uint32_t random_below(struct header *header, uint32_t bound) {
    uint64_t limit = UINT64_MAX - UINT64_MAX % bound, x;
    do {
        x = header->random += UINT64_C(0x9e3779b97f4a7c15);
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        x ^= x >> 31;
    } while (x >= limit);
    return (uint32_t)(x % bound);
}

/* Which entry of the stack to take; free_count is at least 1. */
static uint32_t choose(struct slot_table *table, enum slot_strategy strategy, uint64_t module) {
    struct header *header = table->header;
    switch (strategy) {
    case STRATEGY_RANDOM:
        return random_below(header, header->free_count);
    case STRATEGY_MODULE_AFFINITY:
        for (uint32_t i = header->free_count; i-- > 0;) {
            uint32_t index = table->stack[i].index;
            if (table->stack[i].tag == tag_of(module) && index < table->slots && table->records[index].module == module)
                return i;
        }
        return 0;
    default:
        return header->free_count - 1;
    }
}

static void unstack(struct slot_table *table, uint32_t position) {
    uint32_t rest = --table->header->free_count - position;
    memmove(&table->stack[position], &table->stack[position + 1], rest * sizeof *table->stack);
}

static void push(struct slot_table *table, uint32_t index) {
    if (table->header->free_count < table->slots) /* else the stack is not what it should be: recover() will mend it */
        table->stack[table->header->free_count++] = (struct free_entry){index, tag_of(table->records[index].module)};
}

/* I2: the owner first, the state last. */
static void give(struct slot_table *table, uint32_t index, uint32_t worker, uint64_t workload, uint64_t module) {
    struct slot_record *record = &table->records[index];
    record->worker = worker;
    record->workload = workload;
    record->module = module;
    record->generation++;
    set_state(table, index, SLOT_USED);
}

static struct quota_view view_of(const struct slot_table *table, const struct quota_entry *quota) {
    struct quota_view view = {.borrowed = table->header->borrowed, .unreserved = unreserved(table)};
    if (quota != NULL) {
        view.reserved = reserved_of(quota);
        view.burst = burst_of(quota);
        view.used = quota->used;
    }
    return view;
}

static bool take_unknown(struct slot_table *table, uint32_t *index) {
    if (table->header->unknown_count == 0)
        return false;
    for (uint32_t i = 0; i < table->slots; i++) {
        if (state_of(table, i) == SLOT_UNKNOWN) {
            table->header->unknown_count--;
            *index = i;
            return true;
        }
    }
    return false;
}

int slot_table_take(struct slot_table *table, uint32_t worker, uint64_t workload, uint64_t module,
                    enum slot_strategy strategy, uint32_t *index, bool *affine, struct quota_view *view) {
    int error = lock(table);
    if (error != 0)
        return error;
    struct header *header = table->header;
    struct quota_entry *quota = header->quotas != 0 ? find_quota(table, workload) : NULL;
    if (quota != NULL && !quota_allows(table, quota)) {
        if (view != NULL)
            *view = view_of(table, quota);
        unlock(table);
        return EDQUOT;
    }
    bool mended = false;
    while (header->free_count > 0) {
        uint32_t position = choose(table, strategy, module);
        uint32_t found = table->stack[position].index;
        if (found < table->slots && state_of(table, found) == SLOT_FREE) {
            *index = found;
            *affine = module != 0 && table->records[found].module == module;
            give(table, found, worker, workload, module);
            count_taken(table, quota);
            unstack(table, position);
            unlock(table);
            return 0;
        }
        if (mended) { /* a stack made anew a moment ago is wrong again: some process writes at random */
            unlock(table);
            return EIO;
        }
        recover(table);
        mended = true;
    }
    if (take_unknown(table, index)) {
        *affine = false;
        give(table, *index, worker, workload, module);
        count_taken(table, quota);
    } else {
        error = ENOSPC;
    }
    unlock(table);
    return error;
}

/* Under the lock; the slot is held. */
static void let_go(struct slot_table *table, uint32_t index) {
    struct slot_record *record = &table->records[index];
    if (atomic_load_explicit(&record->dirty_bytes, memory_order_acquire) != 0) {
        set_state(table, index, SLOT_UNKNOWN);
        table->header->unknown_count++;
    } else {
        set_state(table, index, SLOT_FREE);
        push(table, index);
    }
    count_given_back(table, table->header->quotas != 0 ? find_quota(table, record->workload) : NULL);
    record->worker = 0;
    record->workload = 0;
}

int slot_table_release(struct slot_table *table, uint32_t index, uint32_t worker) {
    if (index >= table->slots)
        return ERANGE;
    int error = lock(table);
    if (error != 0)
        return error;
    enum slot_state state = state_of(table, index);
    if (held(state) && table->records[index].worker == worker)
        let_go(table, index);
    else if (state != SLOT_QUARANTINED)
        error = EPERM;
    unlock(table);
    return error;
}

int slot_table_quarantine(struct slot_table *table, uint32_t index) {
    if (index >= table->slots)
        return ERANGE;
    int error = lock(table);
    if (error != 0)
        return error;
    set_state(table, index, SLOT_QUARANTINED);
    recover(table); /* takes it off the free stack, if it was on it; the order of the others is no promise */
    unlock(table);
    return 0;
}

int slot_table_reclaim(struct slot_table *table, uint32_t worker, struct mapping *region, size_t slot_bytes,
                       uint32_t *reclaimed) {
    *reclaimed = 0;
    for (uint32_t i = 0; i < table->slots; i++) {
        if (!mapping_holds(region, i * slot_bytes, slot_bytes))
            return ERANGE;
        int error = lock(table);
        if (error != 0)
            return error;
        bool ours = held(state_of(table, i)) && table->records[i].worker == worker;
        if (ours)
            set_state(table, i, SLOT_WIPING); /* still the dead worker's: if we die too, the next reclaim finds it */
        unlock(table);
        if (!ours)
            continue;
        if (slot_table_dirty(table, i) != 0) {
            uint8_t *slot = region->base + i * slot_bytes;
            wipe(slot, slot_bytes);
            if (first_dirty(slot, slot_bytes) != slot_bytes) {
                /* Somebody still writes: whatever that is, no tenant may be put there. */
                error = slot_table_quarantine(table, i);
                if (error != 0)
                    return error;
                continue;
            }
            slot_table_mark_clean(table, i);
        }
        error = slot_table_release(table, i, worker);
        if (error != 0)
            return error;
        ++*reclaimed;
    }
    return 0;
}

int slot_table_set_quota(struct slot_table *table, uint64_t workload, uint32_t reserved, uint32_t burst) {
    if (workload == 0)
        return EINVAL;
    int error = lock(table);
    if (error != 0)
        return error;
    struct quota_entry *quota = find_quota(table, workload);
    uint32_t before = quota != NULL ? reserved_of(quota) : 0;
    if (reserved > before && reserved - before > unreserved(table)) {
        error = ENOSPC;
    } else {
        bool made = quota == NULL;
        for (uint32_t i = 0; quota == NULL && i < QUOTAS_MAX; i++)
            if (workload_of(&table->quotas[i]) == 0)
                quota = &table->quotas[i];
        if (quota == NULL) {
            error = EDQUOT;
        } else {
            atomic_store_explicit(&quota->limits, (uint64_t)burst << 32 | reserved, memory_order_release);
            if (made)
                atomic_store_explicit(&quota->workload, workload, memory_order_release);
            recount(table); /* it may use slots already */
        }
    }
    unlock(table);
    return error;
}

int slot_table_clear_quota(struct slot_table *table, uint64_t workload) {
    int error = lock(table);
    if (error != 0)
        return error;
    struct quota_entry *quota = workload != 0 ? find_quota(table, workload) : NULL;
    if (quota != NULL) {
        atomic_store_explicit(&quota->workload, 0, memory_order_release);
        recount(table);
    }
    unlock(table);
    return 0;
}

int slot_table_quota(struct slot_table *table, uint64_t workload, struct quota_view *view) {
    int error = lock(table);
    if (error != 0)
        return error;
    const struct quota_entry *quota = workload != 0 ? find_quota(table, workload) : NULL;
    *view = view_of(table, quota);
    if (quota == NULL) {
        error = ENOENT;
        for (uint32_t i = 0; i < table->slots; i++)
            view->used += held(state_of(table, i)) && table->records[i].workload == workload;
    }
    unlock(table);
    return error;
}

int slot_table_counts(struct slot_table *table, uint32_t counts[SLOT_STATES]) {
    int error = lock(table);
    if (error != 0)
        return error;
    memset(counts, 0, SLOT_STATES * sizeof *counts);
    for (uint32_t i = 0; i < table->slots; i++) {
        uint32_t state = state_of(table, i);
        counts[state < SLOT_STATES ? state : SLOT_UNKNOWN]++;
    }
    unlock(table);
    return 0;
}

int slot_table_owned_by(struct slot_table *table, uint32_t worker, uint32_t *indices, uint32_t *count) {
    int error = lock(table);
    if (error != 0)
        return error;
    *count = 0;
    for (uint32_t i = 0; i < table->slots; i++)
        if (held(state_of(table, i)) && table->records[i].worker == worker)
            indices[(*count)++] = i;
    unlock(table);
    return 0;
}

int slot_table_read(struct slot_table *table, uint32_t index, struct slot_record *record) {
    if (index >= table->slots)
        return ERANGE;
    int error = lock(table);
    if (error != 0)
        return error;
    struct slot_record *source = &table->records[index];
    atomic_init(&record->state, state_of(table, index));
    record->worker = source->worker;
    record->generation = source->generation;
    record->workload = source->workload;
    record->module = source->module;
    atomic_init(&record->dirty_bytes, slot_table_dirty(table, index));
    unlock(table);
    return 0;
}

uint64_t slot_table_recoveries(struct slot_table *table) {
    if (lock(table) != 0)
        return 0;
    uint64_t recoveries = table->header->recoveries;
    unlock(table);
    return recoveries;
}

/* I6; under the lock. */
static const char *quotas_broken(struct slot_table *table) {
    struct header *header = table->header;
    uint64_t reserved = 0, borrowed = 0;
    uint32_t quotas = 0, quarantined = 0;
    uint32_t *used = calloc(QUOTAS_MAX, sizeof *used);
    if (used == NULL)
        return "there is no memory to check it";
    for (uint32_t i = 0; i < table->slots; i++) {
        enum slot_state state = state_of(table, i);
        quarantined += state == SLOT_QUARANTINED;
        if (!held(state))
            continue;
        struct quota_entry *quota = find_quota(table, table->records[i].workload);
        if (quota == NULL || used[quota - table->quotas]++ >= reserved_of(quota))
            borrowed++;
    }
    const char *problem = NULL;
    for (uint32_t i = 0; i < QUOTAS_MAX && problem == NULL; i++) {
        struct quota_entry *quota = &table->quotas[i];
        if (workload_of(quota) == 0)
            continue;
        quotas++;
        reserved += reserved_of(quota);
        if (find_quota(table, workload_of(quota)) != quota)
            problem = "a quota can't be found by its workload";
        else if (quota->used != used[i])
            problem = "a workload's quota counts other slots than it holds";
    }
    free(used);
    if (problem == NULL && (quotas != header->quotas || reserved != header->reserved))
        problem = "the sums over all quotas are wrong";
    if (problem == NULL && (borrowed != header->borrowed || quarantined != header->quarantined))
        problem = "the count of borrowed or of quarantined slots is wrong";
    return problem;
}

const char *slot_table_broken(struct slot_table *table) {
    if (lock(table) != 0)
        return "the lock can't be had";
    const char *problem = NULL;
    uint32_t free_slots = 0, unknown = 0, stacked = 0;
    for (uint32_t i = 0; i < table->slots && problem == NULL; i++) {
        enum slot_state state = state_of(table, i);
        if (state >= SLOT_STATES)
            problem = "a record's state is none of the five";
        else if (state == SLOT_FREE && slot_table_dirty(table, i) != 0)
            problem = "a free slot is not clean";
        free_slots += state == SLOT_FREE;
        unknown += state == SLOT_UNKNOWN;
    }
    uint8_t *seen = calloc(table->slots, 1);
    for (uint32_t i = 0; seen != NULL && problem == NULL && i < table->header->free_count; i++) {
        uint32_t index = table->stack[i].index;
        if (index >= table->slots || state_of(table, index) != SLOT_FREE)
            problem = "the free stack names a slot that is not free";
        else if (seen[index]++)
            problem = "the free stack names a slot twice";
        stacked++;
    }
    free(seen);
    if (problem == NULL && stacked != free_slots)
        problem = "a free slot is missing from the free stack";
    if (problem == NULL && unknown != table->header->unknown_count)
        problem = "the count of unknown slots is wrong";
    if (problem == NULL)
        problem = quotas_broken(table);
    unlock(table);
    return problem;
}

bool slot_table_held_by(const struct slot_table *table, uint32_t index, uint32_t worker) {
    return index < table->slots && held(state_of(table, index)) && table->records[index].worker == worker;
}

uint64_t slot_table_dirty(const struct slot_table *table, uint32_t index) {
    return atomic_load_explicit(&table->records[index].dirty_bytes, memory_order_acquire);
}

void slot_table_mark_dirty(struct slot_table *table, uint32_t index, uint64_t bytes) {
    atomic_store_explicit(&table->records[index].dirty_bytes, bytes, memory_order_release);
}

/* NB: not a plain store, for it must not overwrite QUARANTINED. */
static void move(struct slot_table *table, uint32_t index, enum slot_state from, enum slot_state to) {
    uint32_t expected = (uint32_t)from;
    atomic_compare_exchange_strong_explicit(&table->records[index].state, &expected, (uint32_t)to, memory_order_acq_rel,
                                            memory_order_relaxed);
}

void slot_table_mark_used(struct slot_table *table, uint32_t index) {
    move(table, index, SLOT_WIPING, SLOT_USED);
}

void slot_table_mark_wiping(struct slot_table *table, uint32_t index) {
    move(table, index, SLOT_USED, SLOT_WIPING);
}

void slot_table_mark_clean(struct slot_table *table, uint32_t index) {
    atomic_store_explicit(&table->records[index].dirty_bytes, 0, memory_order_release);
}

int slot_table_lock_for_test(struct slot_table *table) {
    return lock(table);
}
