/* What the three Python types share. */
#ifndef WASMPOOL_PYTHON_H
#define WASMPOOL_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "creator.h"
#include "mapping.h"
#include "slot_table.h"

extern PyType_Spec region_spec, slot_table_spec, memory_creator_spec, placement_spec, stack_creator_spec;

typedef struct {
    PyTypeObject *region;
    PyTypeObject *slot_table;
    PyTypeObject *placement;
} module_state;

extern struct PyModuleDef native_module;

/* fetch_externs(export_get, context, instances, externs, wanted): see _native.pyi. */
PyObject *fetch_externs(PyObject *module, PyObject *const *args, Py_ssize_t given);

/* NULL with an exception set: ValueError once the object is closed. */
struct mapping *region_of(PyObject *object);
struct slot_table *slot_table_of(PyObject *object);

/* Sets OSError (with its errno) and returns NULL. */
static inline PyObject *os_error(int error) {
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* False with OverflowError or TypeError set. */
static inline bool to_u32(PyObject *value, uint32_t *result) {
    unsigned long wide = PyLong_AsUnsignedLong(value);
    if (wide == (unsigned long)-1 && PyErr_Occurred())
        return false;
    if (wide > UINT32_MAX) {
        PyErr_Format(PyExc_OverflowError, "%lu does not fit 32 bits", wide);
        return false;
    }
    *result = (uint32_t)wide;
    return true;
}

static inline bool to_u64(PyObject *value, uint64_t *result) {
    unsigned long long wide = PyLong_AsUnsignedLongLong(value);
    *result = wide;
    return !(wide == (unsigned long long)-1 && PyErr_Occurred());
}

static inline bool arguments(const char *name, Py_ssize_t given, Py_ssize_t wanted) {
    if (given == wanted)
        return true;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, %zd given", name, wanted, given);
    return false;
}

#endif
