#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "creator.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WASM_PAGE_BYTES ((size_t)65536)

/* One area of one slot. Made once for the creator's life, so that no callback allocates. */
struct memory {
    struct creator *creator;
    uint8_t *area;  /* its bytes of the region, as mapped for this engine */
    uint8_t *base;  /* of the live memory: area (compact) or area + area_bytes - minimum (guarded) */
    size_t minimum; /* bytes it started with */
    size_t size;    /* bytes it has now */
    uint32_t slot;
    bool live;
};

struct slot {
    uint32_t live; /* memories; a slot belongs to one store, so to one thread at a time */
    bool finished; /* finish() came first: the last finalizer gives the slot back */
};

struct creator {
    pid_t process;      /* that made it; in a fork of that one it does nothing */
    atomic_uint owners; /* the Python object, and each engine configuration it was installed in */
    struct creator_options options;
    struct mapping *region;
    struct slot_table *table;
    uint32_t slots;
    size_t slot_bytes;
    uint8_t *arena; /* guarded: all strides, else NULL */
    size_t arena_bytes;
    struct memory *memories; /* [slot * options.memories + ordinal] */
    struct slot *slot;
    struct creator_stats stats;
};

static _Thread_local struct {
    struct creator *creator;
    uint32_t slot;
} armed;

/* A fork has its parent's slots, under the same worker id and mapped shared: a store that it closes, if only at its
 * exit, would wipe the memory under the parent's guest and give the slot to somebody else. */
static pid_t this_process;
static pthread_once_t this_process_once = PTHREAD_ONCE_INIT;

static void note_this_process(void) {
    this_process = getpid();
}

static void follow_forks(void) {
    note_this_process();
    if (pthread_atfork(NULL, NULL, note_this_process) != 0)
        abort();
}

static bool in_a_fork(const struct creator *creator) {
    return creator->process != this_process;
}

static size_t round_up(size_t bytes, size_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

static wasmtime_error_t *refuse(struct creator *creator, const char *message) {
    return creator->options.error_new(message);
}

/* Address space that faults. With `at`, in place of what is there. */
static uint8_t *nothing_mapped(uint8_t *at, size_t length) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at != NULL ? MAP_FIXED : 0);
    return mmap(at, length, PROT_NONE, flags, -1, 0);
}

/* Then the memory is there already, and populating makes this process's page tables: no guest takes a fault. */
static bool huge_pages(const struct creator_options *options) {
    return options->page_bytes > (size_t)sysconf(_SC_PAGESIZE);
}

static int map_arena(struct creator *creator) {
    const struct creator_options *options = &creator->options;
    size_t stride = round_up(options->area_bytes + GUARDED_RESERVATION_BYTES + GUARDED_GUARD_BYTES, options->page_bytes);
    size_t areas = (size_t)creator->slots * options->memories;
    if (areas > (SIZE_MAX / 4) / stride)
        return ENOMEM;
    creator->arena_bytes = areas * stride + options->page_bytes;
    creator->arena = nothing_mapped(NULL, creator->arena_bytes);
    if (creator->arena == MAP_FAILED) {
        creator->arena = NULL;
        return errno;
    }
    uint8_t *first = (uint8_t *)round_up((size_t)creator->arena, options->page_bytes);
    for (size_t i = 0; i < areas; i++) {
        uint8_t *area = first + i * stride;
        off_t offset = (off_t)(i * options->area_bytes);
        int flags = MAP_SHARED | MAP_FIXED | (huge_pages(options) ? MAP_POPULATE : 0);
        if (mmap(area, options->area_bytes, PROT_READ | PROT_WRITE, flags, creator->region->fd, offset) == MAP_FAILED)
            return errno;
        creator->memories[i].area = area;
    }
    return 0;
}

int creator_new(struct mapping *region, struct slot_table *table, const struct creator_options *options,
                struct creator **creator) {
    uint32_t slots = slot_table_slots(table);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bool sizes_fit = options->memories > 0 && options->memory_bytes > 0 && options->memory_bytes % WASM_PAGE_BYTES == 0 &&
                     options->memory_bytes <= options->area_bytes &&
                     options->memory_bytes <= GUARDED_RESERVATION_BYTES && options->page_bytes >= page &&
                     (options->page_bytes & (options->page_bytes - 1)) == 0 &&
                     options->area_bytes % (options->guarded ? options->page_bytes : WASM_PAGE_BYTES) == 0;
    if (!sizes_fit || options->error_new == NULL ||
        !mapping_holds(region, 0, (size_t)slots * options->memories * options->area_bytes))
        return EINVAL;
    struct creator *made = calloc(1, sizeof *made);
    if (made == NULL)
        return ENOMEM;
    pthread_once(&this_process_once, follow_forks);
    made->process = this_process;
    atomic_init(&made->owners, 1);
    made->options = *options;
    made->region = mapping_share(region);
    made->table = slot_table_share(table);
    made->slots = slots;
    made->slot_bytes = options->memories * options->area_bytes;
    size_t areas = (size_t)slots * options->memories;
    made->memories = calloc(areas, sizeof *made->memories);
    made->slot = calloc(slots, sizeof *made->slot);
    int error = made->memories == NULL || made->slot == NULL ? ENOMEM : 0;
    for (size_t i = 0; error == 0 && i < areas; i++) {
        made->memories[i].creator = made;
        made->memories[i].area = region->base + i * options->area_bytes;
        made->memories[i].slot = (uint32_t)(i / options->memories);
    }
    if (error == 0 && options->guarded)
        error = map_arena(made);
    else if (error == 0 && huge_pages(options))
        error = mapping_populate(region, 0, slots * made->slot_bytes);
    if (error != 0) {
        creator_drop(made);
        return error;
    }
    *creator = made;
    return 0;
}

struct creator *creator_share(struct creator *creator) {
    atomic_fetch_add_explicit(&creator->owners, 1, memory_order_relaxed);
    return creator;
}

void creator_drop(struct creator *creator) {
    if (creator == NULL || atomic_fetch_sub_explicit(&creator->owners, 1, memory_order_acq_rel) != 1)
        return;
    if (creator->arena != NULL)
        munmap(creator->arena, creator->arena_bytes);
    mapping_drop(creator->region);
    slot_table_drop(creator->table);
    free(creator->memories);
    free(creator->slot);
    free(creator);
}

void creator_finalize(void *env) {
    creator_drop(env);
}

struct creator_stats *creator_stats(struct creator *creator) {
    return &creator->stats;
}

int creator_arm(struct creator *creator, uint32_t slot) {
    if (armed.creator != NULL)
        return EBUSY;
    if (in_a_fork(creator) || !slot_table_held_by(creator->table, slot, creator->options.worker))
        return EPERM;
    if (slot_table_dirty(creator->table, slot) != 0 && creator->slot[slot].live == 0) {
        wipe(creator->region->base + slot * creator->slot_bytes, creator->slot_bytes);
        slot_table_mark_clean(creator->table, slot);
    }
    slot_table_mark_used(creator->table, slot);
    armed.creator = creator;
    armed.slot = slot;
    return 0;
}

void creator_disarm(void) {
    armed.creator = NULL;
}

int creator_finish(struct creator *creator, uint32_t slot, bool *deferred) {
    *deferred = false;
    if (in_a_fork(creator))
        return EPERM;
    if (!slot_table_held_by(creator->table, slot, creator->options.worker))
        return slot < creator->slots ? slot_table_release(creator->table, slot, creator->options.worker) : ERANGE;
    if (creator->slot[slot].live != 0) {
        creator->slot[slot].finished = true;
        *deferred = true;
        return 0;
    }
    return slot_table_release(creator->table, slot, creator->options.worker);
}

uint32_t creator_live(struct creator *creator, uint32_t slot) {
    return slot < creator->slots ? creator->slot[slot].live : 0;
}

static uint8_t *get_memory(void *env, size_t *byte_size, size_t *byte_capacity) {
    struct memory *memory = env;
    *byte_size = memory->size;
    /* Not what fits, but all that an index reaches: then each growth that does not fit comes to grow_memory, is refused
     * there and counted. The base never moves, so the promise that goes with a capacity is kept. */
    *byte_capacity = GUARDED_RESERVATION_BYTES;
    return memory->base;
}

/* Behind a failed mmap over an existing mapping may be a hole, which a later mmap of anybody could fill: a guest could
 * then reach it without a check. So either it faults again, or this worker ends. */
static void fault_or_die(uint8_t *start, size_t length) {
    if (length != 0 && nothing_mapped(start, length) == MAP_FAILED)
        abort();
}

/* The guarded slot's growth from `memory->size` to `size`; false with everything as it was. */
static bool grow_guarded(struct memory *memory, size_t size) {
    const struct creator_options *options = &memory->creator->options;
    size_t page = options->page_bytes;
    size_t before = memory->size - memory->minimum, after = size - memory->minimum;
    size_t pages_before = before / page, pages_after = after / page;
    size_t tail_before = before % page, tail_after = after % page;
    uint8_t *end = memory->area + options->area_bytes;
    uint8_t *tail = end + pages_before * page;
    if (tail_after != 0 && mprotect(end + pages_after * page + (pages_after == pages_before ? tail_before : 0),
                                    tail_after - (pages_after == pages_before ? tail_before : 0),
                                    PROT_READ | PROT_WRITE) != 0)
        return false;
    if (pages_after == pages_before)
        return true;
    /* The tail moves into the next unused huge page, by way of its first mapping, and that page takes its place. */
    if (tail_before != 0)
        memcpy(memory->area + pages_before * page, tail, tail_before);
    size_t length = (pages_after - pages_before) * page;
    off_t offset = (off_t)((size_t)(memory - memory->creator->memories) * options->area_bytes + pages_before * page);
    if (mmap(tail, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE, memory->creator->region->fd,
             offset) != MAP_FAILED)
        return true;
    fault_or_die(tail, length + tail_after);
    if (tail_before != 0) {
        if (mprotect(tail, tail_before, PROT_READ | PROT_WRITE) != 0)
            abort();
        memcpy(tail, memory->area + pages_before * page, tail_before);
        memset(memory->area + pages_before * page, 0, tail_before);
    }
    return false;
}

static wasmtime_error_t *grow_memory(void *env, size_t size) {
    struct memory *memory = env;
    struct creator *creator = memory->creator;
    if (in_a_fork(creator) || size > creator->options.memory_bytes || size < memory->size ||
        (creator->options.guarded && !grow_guarded(memory, size))) {
        atomic_fetch_add_explicit(&creator->stats.grow_refused, 1, memory_order_relaxed);
        return refuse(creator, "the slot is full");
    }
    memory->size = size;
    atomic_fetch_add_explicit(&creator->stats.grown, 1, memory_order_relaxed);
    return NULL;
}

static void wipe_guarded(struct memory *memory) {
    const struct creator_options *options = &memory->creator->options;
    size_t grown = memory->size - memory->minimum;
    if (grown != 0) {
        fault_or_die(memory->area + options->area_bytes, round_up(grown, options->page_bytes)); /* the tail is gone */
        wipe(memory->area, grown / options->page_bytes * options->page_bytes);
    }
    wipe(memory->base, memory->minimum);
}

static void finalize_memory(void *env) {
    struct memory *memory = env;
    struct creator *creator = memory->creator;
    struct slot *slot = &creator->slot[memory->slot];
    if (in_a_fork(creator))
        return;
    slot_table_mark_wiping(creator->table, memory->slot);
    if (creator->options.guarded)
        wipe_guarded(memory);
    else
        wipe(memory->base, memory->size);
    memory->live = false;
    if (--slot->live != 0)
        return;
    slot_table_mark_clean(creator->table, memory->slot);
    if (slot->finished) {
        slot->finished = false;
        atomic_fetch_add_explicit(&creator->stats.deferred, 1, memory_order_relaxed);
        slot_table_release(creator->table, memory->slot, creator->options.worker);
    }
}

static wasmtime_error_t *refuse_memory(struct creator *creator, const char *message) {
    atomic_fetch_add_explicit(&creator->stats.refused, 1, memory_order_relaxed);
    return refuse(creator, message);
}

wasmtime_error_t *creator_new_memory(void *env, const wasm_memorytype_t *type, size_t minimum, size_t maximum,
                                     size_t reserved, size_t guard, wasmtime_linear_memory_t *result) {
    (void)type;
    (void)maximum; /* growth stops at the slot's end whatever the module declares */
    struct creator *creator = env;
    const struct creator_options *options = &creator->options;
    char message[200];
    /* An engine with other settings would compile code that trusts address space which is not there. */
    if (reserved != (options->guarded ? GUARDED_RESERVATION_BYTES : 0) ||
        guard != (options->guarded ? GUARDED_GUARD_BYTES : 0)) {
        snprintf(message, sizeof message,
                 "the engine's settings are not those of %s slots: memory reservation %zu bytes, guard %zu bytes",
                 options->guarded ? "guarded" : "compact", reserved, guard);
        return refuse_memory(creator, message);
    }
    if (armed.creator != creator || in_a_fork(creator))
        return refuse_memory(creator, "a memory was asked for outside of an instantiation in a slot");
    struct slot *slot = &creator->slot[armed.slot];
    if (slot->live >= options->memories) {
        snprintf(message, sizeof message, "memories: %u are asked for, a slot holds %u", slot->live + 1,
                 options->memories);
        return refuse_memory(creator, message);
    }
    if (minimum > options->memory_bytes || minimum % WASM_PAGE_BYTES != 0) {
        snprintf(message, sizeof message, "memory %u needs %zu bytes, a slot holds %zu in multiples of %zu",
                 slot->live, minimum, options->memory_bytes, WASM_PAGE_BYTES);
        return refuse_memory(creator, message);
    }
    struct memory *memory = &creator->memories[(size_t)armed.slot * options->memories];
    while (memory->live)
        memory++;
    slot_table_mark_dirty(creator->table, armed.slot, creator->slot_bytes); /* I2: before the first byte is used */
    memory->minimum = minimum;
    memory->size = minimum;
    memory->base = options->guarded ? memory->area + options->area_bytes - minimum : memory->area;
    memory->live = true;
    slot->live++;
    result->env = memory;
    result->get_memory = get_memory;
    result->grow_memory = grow_memory;
    result->finalizer = finalize_memory;
    atomic_fetch_add_explicit(&creator->stats.memories, 1, memory_order_relaxed);
    return NULL;
}
