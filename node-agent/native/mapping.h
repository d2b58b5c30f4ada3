/* The region: a memfd of huge or base pages, mapped whole into this process.
 *
 * Errors are returned as errno values, 0 is success. Nothing here knows Python.
 */
#ifndef WASMPOOL_MAPPING_H
#define WASMPOOL_MAPPING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Owner count: the Python object and every memory creator over the region hold one each, for an engine may outlive the
 * Python objects that it was made from. */
struct mapping {
    atomic_uint owners;
    int fd; /* our own duplicate */
    uint8_t *base;
    size_t length;
};

/* A memfd of `length` bytes of pages of `page_bytes`; 4096 means ordinary pages. */
int mapping_memfd(const char *name, size_t length, size_t page_bytes, int *fd);

int mapping_open(int fd, size_t length, struct mapping **mapping);
struct mapping *mapping_share(struct mapping *mapping);
void mapping_drop(struct mapping *mapping);

/* Gives every page of the range its memory now. Fails with an errno where a touch would be SIGBUS. */
int mapping_populate(struct mapping *mapping, size_t offset, size_t length);

/* Whether [offset, offset + length) lies inside. */
bool mapping_holds(const struct mapping *mapping, size_t offset, size_t length);

/* Sets the bytes to zero, and measures it. */
void wipe(uint8_t *start, size_t length);

/* Offset of the first byte that is not zero, or `length`. */
size_t first_dirty(const uint8_t *start, size_t length);

/* Of this process. Bucket i counts wipes that took less than 2^i microseconds, the last one all longer ones. */
#define WIPE_BUCKETS 16
struct wipe_stats {
    atomic_ullong wipes;
    atomic_ullong bytes;
    atomic_ullong nanoseconds;
    atomic_ullong buckets[WIPE_BUCKETS];
};
extern struct wipe_stats wipe_stats;

#endif
