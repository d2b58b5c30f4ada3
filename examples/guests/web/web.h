// The host's interfaces as the canonical ABI lowers them: see world.wat. Handles are numbers; what comes back in memory
// is at `out`, or in an area that lasts until reset().
#ifndef WEB_H
#define WEB_H

#include <stddef.h>
#include <stdint.h>

#define HOST(name) __attribute__((import_module("host"), import_name(#name)))

__attribute__((import_module("env"), import_name("reset"))) void reset(void);
HOST(pollable_block) void pollable_block(int pollable);
HOST(pollable_drop) void pollable_drop(int pollable);
HOST(stream_read) void stream_read(int stream, uint64_t length, void *out);
HOST(stream_write) void stream_write(int stream, const void *data, size_t length, void *out);
HOST(input_drop) void input_drop(int stream);
HOST(output_drop) void output_drop(int stream);
HOST(after) int after(uint64_t nanoseconds);
HOST(fields_new) int fields_new(void);
HOST(fields_append) void fields_append(int fields, const char *name, size_t name_length, const void *value,
                                       size_t value_length, void *out);
HOST(request_path) void request_path(int request, void *out);
HOST(request_consume) void request_consume(int request, void *out);
HOST(request_drop) void request_drop(int request);
HOST(body_stream) void body_stream(int body, void *out);
HOST(incoming_body_drop) void incoming_body_drop(int body);
HOST(response_new) int response_new(int fields);
HOST(response_status) int response_status(int response, int status);
HOST(response_body) void response_body(int response, void *out);
HOST(body_write) void body_write(int body, void *out);
HOST(body_finish) void body_finish(int body, int has_trailers, int trailers, void *out);
HOST(outparam_set) void outparam_set(int outparam, int failed, int response, int, int64_t, int, int, int, int);

// result<own<T>>, result<list<u8>, stream-error>, option<string>: the first byte tells which.
struct returned {
    uint8_t tag;
    union {
        int32_t handle;
        struct {
            const char *data;
            uint32_t length;
        };
        uint8_t error;
    };
};

// result<_, error-code>
struct finished {
    _Alignas(8) uint8_t tag;
    uint8_t error[39];
};

#endif
