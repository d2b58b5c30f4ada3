// Answers requests as a tenant would who means harm: what it does is in the path. For examples/guests/web/world.wat.
#include "web.h"

static const char *area(void) { return (const char *)0x20000; }

static int begin(int outparam, int *body) {
    struct returned returned;
    int response = response_new(fields_new());
    response_body(response, &returned);
    *body = returned.handle;
    body_write(*body, &returned);
    outparam_set(outparam, 0, response, 0, 0, 0, 0, 0, 0);
    return returned.handle;
}

static int deep(volatile int depth) {
    volatile char frame[1024];
    frame[depth % sizeof frame] = (char)depth;
    return depth < 0 ? 0 : deep(depth + 1) + frame[0];
}

static int sleep_for(uint64_t nanoseconds) {
    int pollable = after(nanoseconds);
    pollable_block(pollable);
    pollable_drop(pollable);
    return 0;
}

__attribute__((export_name("handle"))) void handle(int request, int outparam) {
    struct returned path, returned;
    struct finished finished;
    int body, out;
    request_path(request, &path);
    switch (path.length > 1 ? path.data[1] : 0) {
    case 's': // spins
        for (volatile int at = 0;; at++)
            ;
    case 'w': // waits
        sleep_for(3600000000000u);
        break;
    case 'm': // takes all memory
        while (__builtin_wasm_memory_grow(0, 1) != (size_t)-1)
            ;
        __builtin_trap();
    case 'd': // recurses
        deep(0);
        break;
    case 't': // traps
        __builtin_trap();
    case 'n': // ends without an answer
        return;
    case 'h': // leaves an answer half done
        out = begin(outparam, &body);
        stream_write(out, "half", 4, &returned);
        return;
    case 'e': // answers without end
        out = begin(outparam, &body);
        for (;;) {
            stream_write(out, area(), 4096, &returned);
            if (returned.tag != 0)
                __builtin_trap();
        }
    case 'c': // calls the host without end
        for (;;)
            pollable_drop(after(0));
    case 'p': // a pointer out of its memory
        out = begin(outparam, &body);
        stream_write(out, (const void *)0xfffff000, 4096, &returned);
        break;
    case 'x': // a handle that it does not have
        input_drop(12345);
        break;
    case 'r': // takes its time
        sleep_for(300000000u);
        break;
    }
    out = begin(outparam, &body);
    stream_write(out, "ok", 2, &returned);
    output_drop(out);
    body_finish(body, 0, 0, &finished);
}
