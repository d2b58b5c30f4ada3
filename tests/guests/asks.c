// Passes a request on: /<authority>/<path> is asked for by http, what is sent is sent on, and what comes is the answer.
// Where nothing comes, the answer is the number of the error-code. See tests/standalone/test_outgoing_requests.py.
#include "web.h"

HOST(outgoing_new) int outgoing_new(int fields);
HOST(outgoing_method) int outgoing_method(int request, int method, const char *other, size_t length);
HOST(outgoing_scheme) int outgoing_scheme(int request, int some, int scheme, const char *other, size_t length);
HOST(outgoing_authority) int outgoing_authority(int request, int some, const char *authority, size_t length);
HOST(outgoing_path) int outgoing_path(int request, int some, const char *path, size_t length);
HOST(outgoing_body) void outgoing_body(int request, void *out);
HOST(outgoing_handle) void outgoing_handle(int request, int some, int options, void *out);
HOST(future_subscribe) int future_subscribe(int future);
HOST(future_get) void future_get(int future, void *out);
HOST(future_drop) void future_drop(int future);
HOST(incoming_status) int incoming_status(int response);
HOST(incoming_consume) void incoming_consume(int response, void *out);
HOST(incoming_drop) void incoming_drop(int response);

// result<own<future-incoming-response>, error-code>
struct handled {
    _Alignas(8) uint8_t tag;
    _Alignas(8) union {
        int32_t handle;
        uint8_t error[32];
    };
};

// option<result<result<own<incoming-response>, error-code>>>
struct got {
    _Alignas(8) uint8_t some;
    _Alignas(8) uint8_t taken;
    _Alignas(8) uint8_t tag;
    _Alignas(8) union {
        int32_t handle;
        uint8_t error[32];
    };
};

static int handle_or_trap(struct returned *returned) {
    if (returned->tag != 0)
        __builtin_trap();
    return returned->handle;
}

// Gives 0 where nobody reads any more.
static int write_all(int stream, const char *data, size_t length) {
    struct returned returned;
    while (length > 0) {
        size_t some = length < 4096 ? length : 4096;
        stream_write(stream, data, some, &returned);
        if (returned.tag != 0)
            return 0;
        data += some;
        length -= some;
    }
    return 1;
}

// All of a body, as it comes. Gives 0 where it did not come whole.
static int copy(int body, int out) {
    struct returned returned;
    int writes = 1;
    body_stream(body, &returned);
    int in = handle_or_trap(&returned);
    for (;;) {
        reset();
        stream_read(in, 65536, &returned);
        if (returned.tag != 0)
            break;
        if (writes)
            writes = write_all(out, returned.data, returned.length);
    }
    input_drop(in);
    incoming_body_drop(body);
    return returned.error == 1; // stream-error: closed, not last-operation-failed
}

static int response_with(int status, int *body, int outparam) {
    struct returned returned;
    int response = response_new(fields_new());
    response_status(response, status);
    response_body(response, &returned);
    *body = handle_or_trap(&returned);
    body_write(*body, &returned);
    int out = handle_or_trap(&returned);
    outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);
    return out;
}

static void finish(int body, int out) {
    struct finished finished;
    output_drop(out);
    body_finish(body, 0, 0, &finished);
}

static void say_error(int code, int outparam) {
    char text[3] = {(char)('0' + code / 10), (char)('0' + code % 10), '\n'};
    int body, out = response_with(502, &body, outparam);
    write_all(out, text, sizeof text);
    finish(body, out);
}

__attribute__((export_name("handle"))) void handle(int request, int outparam) {
    struct returned path, returned;
    struct handled handled;
    struct got got;
    struct finished finished;
    request_path(request, &path);
    if (path.tag == 0)
        __builtin_trap();
    size_t end = 1;
    while (end < path.length && path.data[end] != '/')
        end++;
    int outgoing = outgoing_new(fields_new());
    if (outgoing_scheme(outgoing, 1, 0, 0, 0) || outgoing_method(outgoing, 2, 0, 0)
        || outgoing_authority(outgoing, 1, path.data + 1, end - 1)
        || outgoing_path(outgoing, end < path.length, path.data + end, path.length - end))
        __builtin_trap();
    outgoing_body(outgoing, &returned);
    int sent = handle_or_trap(&returned);
    body_write(sent, &returned);
    int to = handle_or_trap(&returned);
    outgoing_handle(outgoing, 0, 0, &handled);
    if (handled.tag != 0) {
        say_error(handled.error[0], outparam);
        return;
    }
    request_consume(request, &returned);
    copy(handle_or_trap(&returned), to);
    output_drop(to);
    body_finish(sent, 0, 0, &finished);
    int ready = future_subscribe(handled.handle);
    pollable_block(ready);
    pollable_drop(ready);
    future_get(handled.handle, &got);
    if (!got.some || got.taken != 0)
        __builtin_trap();
    if (got.tag != 0) {
        say_error(got.error[0], outparam);
        return;
    }
    int response = got.handle, body;
    int status = incoming_status(response);
    incoming_consume(response, &returned);
    int from = handle_or_trap(&returned);
    int out = response_with(status, &body, outparam);
    if (!copy(from, out))
        __builtin_trap();
    finish(body, out);
    incoming_drop(response);
    future_drop(handled.handle);
}
