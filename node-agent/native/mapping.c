#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE /* Linux 5.14; the C library's headers may be older than the kernel */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4U
#endif
#define HUGE_SIZE_SHIFT 26 /* MFD_HUGE_SHIFT: the logarithm of the page size sits above this bit */

struct wipe_stats wipe_stats;

int mapping_memfd(const char *name, size_t length, size_t page_bytes, int *fd) {
    unsigned flags = MFD_CLOEXEC;
    if (page_bytes == 0 || (page_bytes & (page_bytes - 1)) != 0 || length % page_bytes != 0)
        return EINVAL;
    if (page_bytes > (size_t)sysconf(_SC_PAGESIZE))
        flags |= MFD_HUGETLB | ((unsigned)__builtin_ctzl(page_bytes) << HUGE_SIZE_SHIFT);
    int made = memfd_create(name, flags);
    if (made < 0)
        return errno;
    if (ftruncate(made, (off_t)length) != 0) {
        int error = errno;
        close(made);
        return error;
    }
    *fd = made;
    return 0;
}

int mapping_open(int fd, size_t length, struct mapping **mapping) {
    struct stat status;
    if (fstat(fd, &status) != 0)
        return errno;
    /* A shorter file would be SIGBUS at the first touch of what it lacks. */
    if (length == 0 || status.st_size < 0 || (size_t)status.st_size < length)
        return EINVAL;
    struct mapping *made = calloc(1, sizeof *made);
    if (made == NULL)
        return ENOMEM;
    made->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (made->fd < 0) {
        int error = errno;
        free(made);
        return error;
    }
    /* NB: never MAP_NORESERVE. Without it a shortage of huge pages is ENOMEM here; with it, SIGBUS later. */
    void *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, made->fd, 0);
    if (base == MAP_FAILED) {
        int error = errno;
        close(made->fd);
        free(made);
        return error;
    }
    made->base = base;
    made->length = length;
    atomic_init(&made->owners, 1);
    *mapping = made;
    return 0;
}

struct mapping *mapping_share(struct mapping *mapping) {
    atomic_fetch_add_explicit(&mapping->owners, 1, memory_order_relaxed);
    return mapping;
}

void mapping_drop(struct mapping *mapping) {
    if (mapping == NULL || atomic_fetch_sub_explicit(&mapping->owners, 1, memory_order_acq_rel) != 1)
        return;
    munmap(mapping->base, mapping->length);
    close(mapping->fd);
    free(mapping);
}

bool mapping_holds(const struct mapping *mapping, size_t offset, size_t length) {
    return offset <= mapping->length && length <= mapping->length - offset;
}

int mapping_populate(struct mapping *mapping, size_t offset, size_t length) {
    if (!mapping_holds(mapping, offset, length))
        return ERANGE;
    while (madvise(mapping->base + offset, length, MADV_POPULATE_WRITE) != 0) {
        if (errno != EINTR && errno != EAGAIN)
            return errno;
    }
    return 0;
}

static uint64_t now_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void wipe(uint8_t *start, size_t length) {
    if (length == 0)
        return;
    /* NB: never madvise(MADV_DONTNEED): on huge pages a length below the page size succeeds and clears nothing. */
    uint64_t begin = now_nanoseconds();
    memset(start, 0, length);
    uint64_t took = now_nanoseconds() - begin;
    unsigned bucket = 0;
    while (bucket < WIPE_BUCKETS - 1 && took >= (UINT64_C(1000) << bucket))
        bucket++;
    atomic_fetch_add_explicit(&wipe_stats.wipes, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&wipe_stats.bytes, length, memory_order_relaxed);
    atomic_fetch_add_explicit(&wipe_stats.nanoseconds, took, memory_order_relaxed);
    atomic_fetch_add_explicit(&wipe_stats.buckets[bucket], 1, memory_order_relaxed);
}

size_t first_dirty(const uint8_t *start, size_t length) {
    static const uint8_t zeros[4096];
    size_t offset = 0;
    while (offset < length) {
        size_t step = length - offset < sizeof zeros ? length - offset : sizeof zeros;
        if (memcmp(start + offset, zeros, step) != 0) {
            while (start[offset] == 0)
                offset++;
            return offset;
        }
        offset += step;
    }
    return length;
}
