/* Drives the slot table and the memory creator as many threads and processes at once, for the sanitizers.
 *
 * Without Python and without Wasmtime: what they would do to our callbacks is done here by hand. Built and run by
 * ../sanitize.sh. Says nothing and ends with 0, or says what is wrong and ends with 1.
 *
 * Covered: no slot is held twice, by threads and by processes of which some are killed at random; every tenant finds
 * zeros; recovery after a death inside a critical section; memories that grow, at every size, compact and guarded;
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
        int error = slot_table_take(thread->pool->table, 1, 5, next_random(&thread->random) % 3, strategy, &slot, &affine);
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
    CHECK(slot_table_take(pool.table, 1, 5, 0, STRATEGY_NEXT_AVAILABLE, &slot, &flag) == 0);
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
                                    &affine);
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
    CHECK(slot_table_take(pool.table, 1, 5, 0, STRATEGY_NEXT_AVAILABLE, &slot, &flag) == 0);
    CHECK(slot_table_quarantine(pool.table, slot) == 0);
    CHECK(slot_table_quarantine(pool.table, (slot + 1) % 3) == 0);
    CHECK(creator_finish(pool.creator, slot, &flag) == 0 && !flag);
    CHECK(slot_table_take(pool.table, 1, 5, 0, STRATEGY_RANDOM, &other, &flag) == 0 && other == (slot + 2) % 3);
    CHECK(slot_table_take(pool.table, 1, 5, 0, STRATEGY_RANDOM, &other, &flag) == ENOSPC);
    CHECK(slot_table_release(pool.table, other, 2) == EPERM && slot_table_release(pool.table, 9, 1) == ERANGE);
    CHECK(slot_table_broken(pool.table) == NULL);
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
    a_death_under_the_lock_is_recovered();
    killed_workers_lose_no_slot();
    return 0;
}
