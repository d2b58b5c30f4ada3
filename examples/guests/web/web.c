// Answers every request with the path that was asked for; what is sent to /echo comes back as it was.
#include "web.h"

static size_t length_of(const char *text) {
    size_t length = 0;
    while (text[length] != 0)
        length++;
    return length;
}

static int handle_or_trap(struct returned *returned) {
    if (returned->tag != 0)
        __builtin_trap();
    return returned->handle;
}

static void write_all(int stream, const char *data, size_t length) {
    struct returned returned;
    while (length > 0) {
        size_t some = length < 4096 ? length : 4096; // what blocking-write-and-flush takes at most
        stream_write(stream, data, some, &returned);
        if (returned.tag != 0)
            return; // nobody reads any more
        data += some;
        length -= some;
    }
}

static void echo(int request, int out) {
    struct returned returned;
    request_consume(request, &returned);
    int body = handle_or_trap(&returned);
    body_stream(body, &returned);
    int in = handle_or_trap(&returned);
    for (;;) {
        reset();
        stream_read(in, 65536, &returned);
        if (returned.tag != 0)
            break;
        write_all(out, returned.data, returned.length);
    }
    input_drop(in);
    incoming_body_drop(body);
}

static int starts_with(const char *text, size_t length, const char *start) {
    size_t at = 0;
    for (; start[at] != 0; at++)
        if (at >= length || text[at] != start[at])
            return 0;
    return 1;
}

__attribute__((export_name("handle"))) void handle(int request, int outparam) {
    struct returned path, returned;
    struct finished finished;
    static const char type[] = "text/plain";
    static const char greeting[] = "hello from a slot: ";
    int fields = fields_new();
    fields_append(fields, "content-type", 12, type, sizeof type - 1, &returned);
    int response = response_new(fields);
    response_body(response, &returned);
    int body = handle_or_trap(&returned);
    body_write(body, &returned);
    int out = handle_or_trap(&returned);
    request_path(request, &path);
    outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);
    if (path.tag != 0 && starts_with(path.data, path.length, "/echo")) {
        echo(request, out);
    } else {
        write_all(out, greeting, length_of(greeting));
        if (path.tag != 0)
            write_all(out, path.data, path.length);
        write_all(out, "\n", 1);
    }
    output_drop(out);
    body_finish(body, 0, 0, &finished);
    request_drop(request);
}
