/* Exports of core instances, many at once: through ctypes each takes longer than instantiating what imports it. */
#include "python.h"

#include <string.h>

/* wasmtime_instance_export_get; everything is passed on as it came. */
typedef bool (*export_get_fn)(void *context, const void *instance, const char *name, size_t length, void *item);

struct header {
    uint32_t count, instance_bytes, extern_bytes;
};

struct wanted {
    uint32_t instance, name, length; /* the name is in the names behind the last of these */
};

/* NB: keeps the GIL, as the caller's other short calls do. */
PyObject *fetch_externs(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    (void)module;
    uint64_t addresses[4];
    if (!arguments("fetch_externs", given, 5))
        return NULL;
    for (int i = 0; i < 4; i++)
        if (!to_u64(args[i], &addresses[i]))
            return NULL;
    char *bytes;
    Py_ssize_t size;
    struct header header;
    if (PyBytes_AsStringAndSize(args[4], &bytes, &size) != 0)
        return NULL;
    if (size < (Py_ssize_t)sizeof header)
        return PyErr_Format(PyExc_ValueError, "%zd bytes are no list of externs", size);
    memcpy(&header, bytes, sizeof header);
    const char *entries = bytes + sizeof header;
    size_t left = (size_t)size - sizeof header;
    if (header.count > left / sizeof(struct wanted))
        return PyErr_Format(PyExc_ValueError, "%u externs can't be in %zd bytes", header.count, size);
    const char *names = entries + header.count * sizeof(struct wanted);
    left -= header.count * sizeof(struct wanted);

    export_get_fn export_get = (export_get_fn)(uintptr_t)addresses[0];
    void *context = (void *)(uintptr_t)addresses[1];
    const char *instances = (const char *)(uintptr_t)addresses[2];
    char *externs = (char *)(uintptr_t)addresses[3];
    for (uint32_t i = 0; i < header.count; i++) {
        struct wanted wanted;
        memcpy(&wanted, entries + i * sizeof wanted, sizeof wanted);
        if (wanted.name > left || wanted.length > left - wanted.name)
            return PyErr_Format(PyExc_ValueError, "the name of extern %u is not within the %zu bytes of names", i, left);
        const char *instance = instances + (size_t)wanted.instance * header.instance_bytes;
        char *item = externs + (size_t)i * header.extern_bytes;
        if (!export_get(context, instance, names + wanted.name, wanted.length, item))
            return PyLong_FromUnsignedLong(i);
    }
    return PyLong_FromUnsignedLong(header.count);
}
