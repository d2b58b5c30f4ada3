/* Drives the slot table and the memory creator as many threads and processes at once, for the sanitizers.
 *
 * Without Python and without Wasmtime: what they would do to our callbacks is done here by hand. Built and run by
 * ../sanitize.sh. Says nothing and ends with 0, or says what is wrong and ends with 1.
 *
 * Covered: no slot is held twice, by threads and by processes of which some are killed at random; every tenant finds
 * zeros; no workload gets more than its quota, nor what another has reserved; recovery after a death inside a critical
 * section; memories that grow, at every size, compact and guarded;
 * refusals; release before the last finalizer.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../creator.h"
#include "../stacks.h"

#define PAGE 4096u
#define WASM ((size_t)65536)
#define AREA (6 * WASM)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static wasmtime_error_t *error_new(const char *message) {
    return (wasmtime_error_t *)(uintptr_t)(message[0] != 0 ? 1 : 2); /* opaque: only ever compared with NULL */
}

struct pool {
    struct mapping *region;
    struct slot_table *table;
    struct creator *creator;
};

static struct pool pool_new(uint32_t slots, uint32_t memories, bool guarded) {
    struct pool pool;
    int region_fd, table_fd;
    size_t bytes = (size_t)slots * memories * AREA;
    CHECK(mapping_memfd("test", bytes, PAGE, &region_fd) == 0);
    CHECK(mapping_open(region_fd, bytes, &pool.region) == 0);
    CHECK(mapping_populate(pool.region, 0, bytes) == 0);
    CHECK(slot_table_create(slots, 7, &table_fd, &pool.table) == 0);
    struct creator_options options = {1, memories, AREA, AREA, PAGE, guarded, error_new};
    CHECK(creator_new(pool.region, pool.table, &options, &pool.creator) == 0);
    close(region_fd);
    close(table_fd);
    return pool;
}

static void pool_drop(struct pool *pool) {
    creator_drop(pool->creator);
    mapping_drop(pool->region);
    slot_table_drop(pool->table);
}

static uint32_t next_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

static wasmtime_error_t *make(struct creator *creator, bool guarded, size_t minimum, wasmtime_linear_memory_t *memory) {
    return creator_new_memory(creator, NULL, minimum, SIZE_MAX, guarded ? GUARDED_RESERVATION_BYTES : 0,
                              guarded ? GUARDED_GUARD_BYTES : 0, memory);
}

/* One tenant: looks for zeros, fills all it has, grows, fills again, ends. */
static void tenant(struct pool *pool, uint32_t slot, bool guarded, uint32_t *random) {
    wasmtime_linear_memory_t memory;
    size_t size, capacity;
    CHECK(creator_arm(pool->creator, slot) == 0);
    CHECK(creator_arm(pool->creator, slot) == EBUSY);
    CHECK(make(pool->creator, guarded, AREA + WASM, &memory) != NULL);
    CHECK(make(pool->creator, !guarded, WASM, &memory) != NULL);
    CHECK(make(pool->creator, guarded, (next_random(random) % 4) * WASM, &memory) == NULL);
    creator_disarm();
    uint8_t *base = memory.get_memory(memory.env, &size, &capacity);
    CHECK(first_dirty(base, size) == size);
    memset(base, 0xa5, size);
    while (next_random(random) % 4 != 0) {
        size_t before = size, wanted = size + (next_random(random) % 3) * WASM;
        wasmtime_error_t *refused = memory.grow_memory(memory.env, wanted);
        CHECK((refused != NULL) == (wanted > AREA));
        uint8_t *now = memory.get_memory(memory.env, &size, &capacity);
        CHECK(now == base && size == (refused != NULL ? before : wanted));
        CHECK(size == before || first_dirty(base + before, size - before) == size - before);
        CHECK(before == 0 || (base[0] == 0xa5 && base[before - 1] == 0xa5));
        memset(base, 0xa5, size);
    }
    bool deferred;
    bool early = next_random(random) % 2 != 0;
    if (early) {
        CHECK(creator_finish(pool->creator, slot, &deferred) == 0 && deferred);
    }
    memory.finalizer(memory.env);
    if (!early) {
        CHECK(first_dirty(pool->region->base + slot * AREA, AREA) == AREA);
        CHECK(creator_finish(pool->creator, slot, &deferred) == 0 && !deferred);
    }
}

struct thread {
    struct pool *pool;
    atomic_int *holders;
    uint32_t random;
    int rounds;
    bool guarded;
};

static void *run_thread(void *argument) {
    struct thread *thread = argument;
    for (int i = 0; i < thread->rounds; i++) {
        uint32_t slot;
        bool affine;
        enum slot_strategy strategy = (enum slot_strategy)(next_random(&thread->random) % STRATEGIES);
        int error = slot_table_take(thread->pool->table, 1, 5, next_random(&thread->random) % 3, strategy, &slot, &affine,
                                    NULL);
        if (error == ENOSPC)
            continue;
        CHECK(error == 0);
        CHECK(atomic_fetch_add(&thread->holders[slot], 1) == 0);
        atomic_fetch_sub(&thread->holders[slot], 1); /* before the release: afterwards it may be another's */
        tenant(thread->pool, slot, thread->guarded, &thread->random);
    }
    return NULL;
}

static void threads_share_a_table(bool guarded) {
    struct pool pool = pool_new(5, 1, guarded);
    atomic_int holders[5] = {0};
    pthread_t ids[4];
    struct thread threads[4];
    for (int i = 0; i < 4; i++) {
        threads[i] = (struct thread){&pool, holders, (uint32_t)(i + 1) * 7919u, 300, guarded};
        CHECK(pthread_create(&ids[i], NULL, run_thread, &threads[i]) == 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(ids[i], NULL) == 0);
    CHECK(slot_table_broken(pool.table) == NULL);
    uint32_t counts[SLOT_STATES];
    CHECK(slot_table_counts(pool.table, counts) == 0 && counts[SLOT_FREE] == 5);
    pool_drop(&pool);
}

static void memories_are_counted_in_a_slot(void) {
    struct pool pool = pool_new(2, 2, false);
    wasmtime_linear_memory_t first, second, third;
    uint32_t slot;
    bool flag;
    CHECK(make(pool.creator, false, WASM, &first) != NULL); /* nothing is armed */
    CHECK(creator_arm(pool.creator, 0) == EPERM);
    CHECK(slot_table_take(pool.table, 1, 5, 0, STRATEGY_NEXT_AVAILABLE, &slot, &flag, NULL) == 0);
    CHECK(creator_arm(pool.creator, slot) == 0);
    CHECK(make(pool.creator, false, WASM, &first) == NULL);
    CHECK(make(pool.creator, false, WASM, &second) == NULL);
    CHECK(make(pool.creator, false, 0, &third) != NULL);
    first.finalizer(first.env);
    CHECK(make(pool.creator, false, WASM, &first) == NULL); /* its area is free again */
    creator_disarm();
    CHECK(creator_live(pool.creator, slot) == 2);
    CHECK(creator_finish(pool.creator, slot, &flag) == 0 && flag);
    struct creator *engine = creator_share(pool.creator);
    struct slot_table *table = slot_table_share(pool.table);
    pool_drop(&pool); /* the Python objects go first, the engine later */
    first.finalizer(first.env);
    second.finalizer(second.env);
    creator_finalize(engine);
    CHECK(slot_table_broken(table) == NULL);
    slot_table_drop(table);
}

/* A worker until it is killed: takes, dirties, wipes, releases. */
static void worker(struct pool *pool, uint32_t id, atomic_uint *owners) {
    uint32_t random = id * 2654435761u + 1;
    for (;;) {
        uint32_t slot, nobody = 0;
        bool affine;
        int error = slot_table_take(pool->table, id, id, random % 3, (enum slot_strategy)(random % STRATEGIES), &slot,
                                    &affine, NULL);
        next_random(&random);
        if (error == ENOSPC)
            continue;
        CHECK(error == 0);
        CHECK(atomic_compare_exchange_strong(&owners[slot], &nobody, id));
        uint8_t *bytes = pool->region->base + slot * AREA;
        CHECK(slot_table_dirty(pool->table, slot) != 0 || first_dirty(bytes, AREA) == AREA);
        slot_table_mark_dirty(pool->table, slot, AREA);
        memset(bytes, (int)id, AREA);
        if (random % 8 != 0) { /* else it goes back UNKNOWN, and the next tenant is told */
            wipe(bytes, AREA);
            slot_table_mark_clean(pool->table, slot);
        }
        atomic_store(&owners[slot], 0);
        CHECK(slot_table_release(pool->table, slot, id) == 0);
    }
}

static void killed_workers_lose_no_slot(void) {
    enum { SLOTS = 6, WORKERS = 3, ROUNDS = 60 };
    struct pool pool = pool_new(SLOTS, 1, false);
    int fd;
    struct mapping *shared;
    CHECK(mapping_memfd("owners", PAGE, PAGE, &fd) == 0 && mapping_open(fd, PAGE, &shared) == 0);
    atomic_uint *owners = (atomic_uint *)shared->base;
    pid_t pids[WORKERS] = {0};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < WORKERS; i++) {
            if (pids[i] == 0 && (pids[i] = fork()) == 0) {
                worker(&pool, 1 + i, owners);
                _exit(0);
            }
        }
        struct timespec moment = {0, 1000000 + (long)(round * 7919 % 3000000)};
        nanosleep(&moment, NULL);
        uint32_t victim = round % WORKERS, reclaimed;
        kill(pids[victim], SIGKILL);
        int status;
        CHECK(waitpid(pids[victim], &status, 0) == pids[victim]);
        CHECK(WIFSIGNALED(status)); /* else a CHECK of its own ended it */
        pids[victim] = 0;
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            uint32_t expected = victim + 1;
            atomic_compare_exchange_strong(&owners[slot], &expected, 0);
        }
        CHECK(slot_table_reclaim(pool.table, victim + 1, pool.region, AREA, &reclaimed) == 0);
        CHECK(slot_table_broken(pool.table) == NULL);
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        uint32_t reclaimed;
        if (pids[i] == 0)
            continue;
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
        CHECK(slot_table_reclaim(pool.table, 1 + i, pool.region, AREA, &reclaimed) == 0);
    }
    uint32_t counts[SLOT_STATES];
    CHECK(slot_table_broken(pool.table) == NULL && slot_table_counts(pool.table, counts) == 0);
    CHECK(counts[SLOT_FREE] + counts[SLOT_UNKNOWN] == SLOTS);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (slot_table_dirty(pool.table, slot) == 0)
            CHECK(first_dirty(pool.region->base + slot * AREA, AREA) == AREA);
    mapping_drop(shared);
    close(fd);
    pool_drop(&pool);
}

static void a_death_under_the_lock_is_recovered(void) {
    struct pool pool = pool_new(4, 1, false);
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            slot_table_lock_for_test(pool.table);
            kill(getpid(), SIGKILL);
        }
        waitpid(pid, NULL, 0);
        CHECK(slot_table_broken(pool.table) == NULL);
        CHECK(slot_table_recoveries(pool.table) == (uint64_t)i + 1);
    }
    pool_drop(&pool);
}

static void quarantine_is_for_ever(void) {
    struct pool pool = pool_new(3, 1, false);
    uint32_t slot, other;
    bool flag;
    CHECK(slot_table_take(pool.table, 1, 5, 0, STRATEGY_NEXT_AVAILABLE, &slot, &flag, NULL) == 0);
    CHECK(slot_table_quarantine(pool.table, slot) == 0);
    CHECK(slot_table_quarantine(pool.table, (slot + 1) % 3) == 0);
    CHECK(creator_finish(pool.creator, slot, &flag) == 0 && !flag);
    CHECK(slot_table_take(pool.table, 1, 5, 0, STRATEGY_RANDOM, &other, &flag, NULL) == 0 && other == (slot + 2) % 3);
    CHECK(slot_table_take(pool.table, 1, 5, 0, STRATEGY_RANDOM, &other, &flag, NULL) == ENOSPC);
    CHECK(slot_table_release(pool.table, other, 2) == EPERM && slot_table_release(pool.table, 9, 1) == ERANGE);
    CHECK(slot_table_broken(pool.table) == NULL);
    pool_drop(&pool);
}

static int take_for(struct pool *pool, uint64_t workload, uint32_t *slot) {
    bool affine;
    return slot_table_take(pool->table, 1, workload, 0, STRATEGY_NEXT_AVAILABLE, slot, &affine, NULL);
}

static uint32_t used_by(struct pool *pool, uint64_t workload) {
    struct quota_view view;
    int error = slot_table_quota(pool->table, workload, &view);
    CHECK(error == 0 || error == ENOENT);
    return view.used;
}

static void a_quota_bounds_what_a_workload_takes(void) {
    struct pool pool = pool_new(6, 1, false);
    struct slot_table *table = pool.table;
    uint32_t slot, first;
    bool flag;
    struct quota_view view;
    CHECK(slot_table_set_quota(table, 0, 1, 1) == EINVAL);
    CHECK(take_for(&pool, 8, &first) == 0 && used_by(&pool, 8) == 1);
    CHECK(slot_table_set_quota(table, 8, 2, 3) == 0 && used_by(&pool, 8) == 1); /* it held one already */
    CHECK(slot_table_set_quota(table, 9, 5, 0) == ENOSPC && slot_table_quota(table, 9, &view) == ENOENT);
    CHECK(slot_table_set_quota(table, 9, 2, 1) == 0);
    CHECK(take_for(&pool, 8, &slot) == 0);
    CHECK(take_for(&pool, 8, &slot) == 0 && take_for(&pool, 8, &slot) == 0);
    CHECK(slot_table_take(table, 1, 8, 0, STRATEGY_RANDOM, &slot, &flag, &view) == EDQUOT);
    CHECK(view.used == 4 && view.reserved == 2 && view.burst == 3 && view.borrowed == 2 && view.unreserved == 2);
    CHECK(take_for(&pool, 9, &slot) == 0 && take_for(&pool, 9, &slot) == 0 && take_for(&pool, 9, &slot) == EDQUOT);
    CHECK(take_for(&pool, 7, &slot) == ENOSPC);
    CHECK(slot_table_release(table, first, 1) == 0 && take_for(&pool, 9, &slot) == 0 && used_by(&pool, 9) == 3);
    CHECK(slot_table_quarantine(table, slot) == 0 && used_by(&pool, 9) == 2);
    CHECK(slot_table_clear_quota(table, 8) == 0 && slot_table_clear_quota(table, 8) == 0);
    CHECK(slot_table_quota(table, 8, &view) == ENOENT && view.used == 3 && view.borrowed == 3 && view.unreserved == 3);
    CHECK(slot_table_broken(table) == NULL);
    pool_drop(&pool);
}

static void quotas_are_bounded_and_come_and_go(void) {
    struct pool pool = pool_new(3, 1, false);
    uint32_t random = 3, slot;
    for (uint64_t id = 1; id <= QUOTAS_MAX; id++)
        CHECK(slot_table_set_quota(pool.table, id * 0x100000001, 0, 1) == 0);
    CHECK(slot_table_set_quota(pool.table, 5, 0, 1) == EDQUOT);
    for (int i = 0; i < 300; i++) {
        uint64_t id = (1 + next_random(&random) % QUOTAS_MAX) * 0x100000001;
        CHECK(slot_table_clear_quota(pool.table, id) == 0 && slot_table_set_quota(pool.table, id + 1, 0, 1) == 0);
        CHECK(take_for(&pool, id + 1, &slot) == 0 && take_for(&pool, id + 1, &slot) == EDQUOT);
        CHECK(slot_table_release(pool.table, slot, 1) == 0);
        CHECK(slot_table_clear_quota(pool.table, id + 1) == 0 && slot_table_set_quota(pool.table, id, 0, 1) == 0);
    }
    CHECK(slot_table_broken(pool.table) == NULL);
    pool_drop(&pool);
}

/* A worker until it is killed, of both workloads in turn; none may ever hold more than its quota. */
static void quota_worker(struct pool *pool, uint32_t id) {
    uint32_t random = id * 2654435761u + 1;
    for (;;) {
        uint64_t workload = 11 + next_random(&random) % 2;
        uint32_t slot[2], taken = 0, wanted = 1 + next_random(&random) % 2;
        bool affine;
        while (taken < wanted) {
            int error = slot_table_take(pool->table, id, workload, 0, (enum slot_strategy)(random % STRATEGIES),
                                        &slot[taken], &affine, NULL);
            CHECK(error == 0 || error == EDQUOT); /* never ENOSPC: what a quota allows is there */
            if (error != 0)
                break;
            taken++;
        }
        while (taken-- > 0) {
            slot_table_mark_dirty(pool->table, slot[taken], random % 4 == 0);
            CHECK(slot_table_release(pool->table, slot[taken], id) == 0);
        }
    }
}

static void a_kill_breaks_no_quota(void) {
    enum { SLOTS = 5, WORKERS = 4, ROUNDS = 80, RESERVED = 2, BURST = 2 };
    struct pool pool = pool_new(SLOTS, 1, false);
    pid_t pids[WORKERS] = {0};
    for (uint64_t workload = 11; workload <= 12; workload++)
        CHECK(slot_table_set_quota(pool.table, workload, RESERVED, workload == 11 ? BURST : 0) == 0);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < WORKERS; i++) {
            if (pids[i] == 0 && (pids[i] = fork()) == 0) {
                quota_worker(&pool, 1 + i);
                _exit(0);
            }
        }
        struct timespec moment = {0, 500000 + (long)(round * 7919 % 2000000)};
        nanosleep(&moment, NULL);
        for (uint64_t workload = 11; workload <= 12; workload++) {
            struct quota_view view;
            CHECK(slot_table_quota(pool.table, workload, &view) == 0);
            CHECK(view.used <= RESERVED + (workload == 11 ? BURST : 0) && view.borrowed <= view.unreserved);
        }
        uint32_t victim = round % WORKERS, reclaimed;
        int status;
        kill(pids[victim], SIGKILL);
        CHECK(waitpid(pids[victim], &status, 0) == pids[victim] && WIFSIGNALED(status));
        pids[victim] = 0;
        CHECK(slot_table_broken(pool.table) == NULL);
        CHECK(slot_table_reclaim(pool.table, victim + 1, pool.region, AREA, &reclaimed) == 0);
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        uint32_t reclaimed;
        if (pids[i] == 0)
            continue;
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
        CHECK(slot_table_reclaim(pool.table, 1 + i, pool.region, AREA, &reclaimed) == 0);
    }
    CHECK(slot_table_broken(pool.table) == NULL && used_by(&pool, 11) == 0 && used_by(&pool, 12) == 0);
    pool_drop(&pool);
}

static void *take_within_quotas(void *argument) {
    struct thread *thread = argument;
    uint64_t workload = 11 + thread->random % 2;
    for (int i = 0; i < thread->rounds; i++) {
        uint32_t slot;
        int error = take_for(thread->pool, workload, &slot);
        CHECK(error == 0 || error == EDQUOT);
        if (error == 0) {
            uint32_t most = workload == 11 ? 3 : 2;
            CHECK((uint32_t)atomic_fetch_add(&thread->holders[workload - 11], 1) < most);
            atomic_fetch_sub(&thread->holders[workload - 11], 1);
            CHECK(slot_table_release(thread->pool->table, slot, 1) == 0);
        } else if (i % 16 == 0) { /* what is set again is no other quota */
            CHECK(slot_table_set_quota(thread->pool->table, workload, 1, workload == 11 ? 2 : 1) == 0);
        }
    }
    return NULL;
}

static void threads_keep_to_quotas(void) {
    struct pool pool = pool_new(3, 1, false);
    atomic_int holders[2] = {0};
    pthread_t ids[4];
    struct thread threads[4];
    CHECK(slot_table_set_quota(pool.table, 11, 1, 2) == 0 && slot_table_set_quota(pool.table, 12, 1, 1) == 0);
    for (int i = 0; i < 4; i++) {
        threads[i] = (struct thread){&pool, holders, (uint32_t)i, 2000, false};
        CHECK(pthread_create(&ids[i], NULL, take_within_quotas, &threads[i]) == 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(ids[i], NULL) == 0);
    CHECK(slot_table_broken(pool.table) == NULL && used_by(&pool, 11) == 0 && used_by(&pool, 12) == 0);
    pool_drop(&pool);
}

static void *use_stacks(void *argument) {
    struct stacks *stacks = argument;
    wasmtime_stack_memory_t stack[3];
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 3; i++) {
            size_t size;
            CHECK(stacks_new_stack(stacks, i == 2 ? 5000 : 65536, round % 5 == 0, &stack[i]) == NULL);
            uint8_t *top = stack[i].get_stack_memory(stack[i].env, &size);
            CHECK(size == (i == 2 ? 8192 : 65536));
            CHECK(round % 5 != 0 || first_dirty(top - size, size) == size);
            memset(top - size, 0xcc, size);
        }
        for (int i = 0; i < 3; i++)
            stack[i].finalizer(stack[i].env);
    }
    return NULL;
}

static void stacks_are_reused_and_outlive_their_creator(void) {
    struct stacks *stacks;
    pthread_t ids[3];
    wasmtime_stack_memory_t last;
    CHECK(stacks_new(4, error_new, &stacks) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&ids[i], NULL, use_stacks, stacks) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(ids[i], NULL) == 0);
    CHECK(stacks_stats(stacks).idle <= 4 && stacks_stats(stacks).reused > 0);
    CHECK(stacks_new_stack(stacks, 0, false, &last) != NULL && stacks_new_stack(stacks, SIZE_MAX, false, &last) != NULL);
    CHECK(stacks_new_stack(stacks, 65536, false, &last) == NULL);
    stacks_drop(stacks);
    last.finalizer(last.env);
}

int main(void) {
    stacks_are_reused_and_outlive_their_creator();
    threads_share_a_table(false);
    threads_share_a_table(true);
    memories_are_counted_in_a_slot();
    quarantine_is_for_ever();
    a_quota_bounds_what_a_workload_takes();
    quotas_are_bounded_and_come_and_go();
    threads_keep_to_quotas();
    a_kill_breaks_no_quota();
    a_death_under_the_lock_is_recovered();
    killed_workers_lose_no_slot();
    return 0;
}
