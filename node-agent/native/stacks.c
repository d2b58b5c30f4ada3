#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stacks.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct stack {
    struct stacks *stacks;
    struct stack *next; /* while it is idle */
    uint8_t *mapped;
    size_t guard;
    size_t size;
};

struct stacks {
    atomic_uint owners;
    uint32_t idle_max;
    wasmtime_error_new_t error_new;
    pthread_mutex_t mutex; /* guards all below */
    struct stack *idle;
    struct stacks_stats stats;
};

int stacks_new(uint32_t idle_max, wasmtime_error_new_t error_new, struct stacks **stacks) {
    if (error_new == NULL)
        return EINVAL;
    struct stacks *made = calloc(1, sizeof *made);
    if (made == NULL)
        return ENOMEM;
    atomic_init(&made->owners, 1);
    made->idle_max = idle_max;
    made->error_new = error_new;
    int error = pthread_mutex_init(&made->mutex, NULL);
    if (error != 0) {
        free(made);
        return error;
    }
    *stacks = made;
    return 0;
}

struct stacks *stacks_share(struct stacks *stacks) {
    atomic_fetch_add_explicit(&stacks->owners, 1, memory_order_relaxed);
    return stacks;
}

static void unmap(struct stack *stack) {
    munmap(stack->mapped, stack->guard + stack->size);
    free(stack);
}

void stacks_drop(struct stacks *stacks) {
    if (stacks == NULL || atomic_fetch_sub_explicit(&stacks->owners, 1, memory_order_acq_rel) != 1)
        return;
    while (stacks->idle != NULL) {
        struct stack *stack = stacks->idle;
        stacks->idle = stack->next;
        unmap(stack);
    }
    pthread_mutex_destroy(&stacks->mutex);
    free(stacks);
}

void stacks_finalize(void *env) {
    stacks_drop(env);
}

struct stacks_stats stacks_stats(struct stacks *stacks) {
    pthread_mutex_lock(&stacks->mutex);
    struct stacks_stats stats = stacks->stats;
    pthread_mutex_unlock(&stacks->mutex);
    return stats;
}

static uint8_t *get_stack(void *env, size_t *size) {
    struct stack *stack = env;
    *size = stack->size;
    return stack->mapped + stack->guard + stack->size;
}

static void finalize_stack(void *env) {
    struct stack *stack = env;
    struct stacks *stacks = stack->stacks;
    pthread_mutex_lock(&stacks->mutex);
    bool keep = stacks->stats.idle < stacks->idle_max;
    if (keep) {
        stack->next = stacks->idle;
        stacks->idle = stack;
        stacks->stats.idle++;
    }
    pthread_mutex_unlock(&stacks->mutex);
    if (!keep)
        unmap(stack);
    stacks_drop(stacks); /* NB: last, for an idle stack belongs to what this may free */
}

static struct stack *take_idle(struct stacks *stacks, size_t size) {
    pthread_mutex_lock(&stacks->mutex);
    struct stack **link = &stacks->idle;
    while (*link != NULL && (*link)->size != size)
        link = &(*link)->next;
    struct stack *stack = *link;
    if (stack != NULL) {
        *link = stack->next;
        stacks->stats.idle--;
        stacks->stats.reused++;
    } else {
        stacks->stats.mapped++;
    }
    pthread_mutex_unlock(&stacks->mutex);
    return stack;
}

static struct stack *map(struct stacks *stacks, size_t size) {
    struct stack *stack = calloc(1, sizeof *stack);
    if (stack == NULL)
        return NULL;
    stack->stacks = stacks;
    stack->guard = (size_t)sysconf(_SC_PAGESIZE);
    stack->size = size;
    stack->mapped = mmap(NULL, stack->guard + size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack->mapped != MAP_FAILED && mprotect(stack->mapped + stack->guard, size, PROT_READ | PROT_WRITE) == 0)
        return stack;
    if (stack->mapped != MAP_FAILED)
        munmap(stack->mapped, stack->guard + size);
    free(stack);
    return NULL;
}

wasmtime_error_t *stacks_new_stack(void *env, size_t size, bool zeroed, wasmtime_stack_memory_t *result) {
    struct stacks *stacks = env;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size == 0 || size > SIZE_MAX / 2)
        return stacks->error_new("a stack of such a size can't be had");
    size = (size + page - 1) / page * page;
    struct stack *stack = take_idle(stacks, size);
    if (stack != NULL && zeroed)
        memset(stack->mapped + stack->guard, 0, size);
    if (stack == NULL)
        stack = map(stacks, size);
    if (stack == NULL)
        return stacks->error_new("there is no memory for a stack");
    stacks_share(stacks);
    result->env = stack;
    result->get_stack_memory = get_stack;
    result->finalizer = finalize_stack;
    return NULL;
}
