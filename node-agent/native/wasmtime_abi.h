/* The few shapes of Wasmtime's C API that the memory and stack creators need.
 *
 * Declared here instead of included: the extension never links to Wasmtime. The worker hands in the address of
 * wasmtime_error_new, and the engine gets the addresses of our callbacks. Checked against version 50.0.1 by
 * tests/unit/agent/test_native.py, which compares these layouts with the wheel's own bindings.
 */
#ifndef WASMPOOL_WASMTIME_ABI_H
#define WASMPOOL_WASMTIME_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct wasmtime_error wasmtime_error_t;
typedef struct wasm_memorytype_t wasm_memorytype_t;

typedef struct wasmtime_linear_memory {
    void *env;
    uint8_t *(*get_memory)(void *env, size_t *byte_size, size_t *byte_capacity);
    wasmtime_error_t *(*grow_memory)(void *env, size_t new_size);
    void (*finalizer)(void *env);
} wasmtime_linear_memory_t;

typedef struct wasmtime_stack_memory {
    void *env;
    uint8_t *(*get_stack_memory)(void *env, size_t *size); /* returns the top: the stack is the `size` bytes below */
    void (*finalizer)(void *env);
} wasmtime_stack_memory_t;

typedef wasmtime_error_t *(*wasmtime_error_new_t)(const char *message);

#endif
