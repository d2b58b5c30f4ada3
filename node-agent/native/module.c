/* wasmpool_agent._native: the region, the slot table and the memory creator, for Python. Typed in _native.pyi. */
#include "python.h"

static PyObject *memfd(PyObject *module, PyObject *args) {
    (void)module;
    const char *name;
    Py_ssize_t length, page_bytes;
    int fd;
    if (!PyArg_ParseTuple(args, "snn:memfd", &name, &length, &page_bytes))
        return NULL;
    if (length <= 0 || page_bytes <= 0)
        return PyErr_Format(PyExc_ValueError, "length %zd and page_bytes %zd must be positive", length, page_bytes);
    int error = mapping_memfd(name, (size_t)length, (size_t)page_bytes, &fd);
    return error != 0 ? os_error(error) : PyLong_FromLong(fd);
}

static PyObject *create_slot_table(PyObject *module, PyObject *args) {
    (void)module;
    unsigned int slots;
    unsigned long long seed;
    struct slot_table *table;
    int fd;
    if (!PyArg_ParseTuple(args, "IK:create_slot_table", &slots, &seed))
        return NULL;
    int error = slot_table_create(slots, seed, &fd, &table);
    if (error != 0)
        return os_error(error);
    slot_table_drop(table); /* the descriptor keeps it; SlotTable(fd) maps it */
    return PyLong_FromLong(fd);
}

static PyObject *read_wipe_stats(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyObject *buckets = PyTuple_New(WIPE_BUCKETS);
    for (Py_ssize_t i = 0; buckets != NULL && i < WIPE_BUCKETS; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(atomic_load(&wipe_stats.buckets[i]));
        if (count == NULL)
            Py_CLEAR(buckets);
        else
            PyTuple_SET_ITEM(buckets, i, count);
    }
    if (buckets == NULL)
        return NULL;
    return Py_BuildValue("KKKN", atomic_load(&wipe_stats.wipes), atomic_load(&wipe_stats.bytes),
                         atomic_load(&wipe_stats.nanoseconds), buckets);
}

static PyMethodDef functions[] = {
    {"memfd", memfd, METH_VARARGS,
     PyDoc_STR("memfd(name, length, page_bytes): the descriptor of a memfd of such pages; 4096 means ordinary ones")},
    {"create_slot_table", create_slot_table, METH_VARARGS,
     PyDoc_STR("create_slot_table(slots, seed): the descriptor of a table whose slots are all free and clean")},
    {"wipe_stats", read_wipe_stats, METH_NOARGS,
     PyDoc_STR("wipe_stats(): (wipes, bytes, nanoseconds, buckets) of this process; bucket i: under 2**i us")},
    {"fetch_externs", (PyCFunction)(void (*)(void))fetch_externs, METH_FASTCALL,
     PyDoc_STR("fetch_externs(export_get, context, instances, externs, wanted): how many were found before one was not")},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL || PyModule_AddType(module, (PyTypeObject *)type) != 0) {
        Py_XDECREF(type);
        return NULL;
    }
    return (PyTypeObject *)type;
}

static int execute(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    state->region = add_type(module, &region_spec);
    state->slot_table = state->region == NULL ? NULL : add_type(module, &slot_table_spec);
    state->placement = state->slot_table == NULL ? NULL : add_type(module, &placement_spec);
    PyTypeObject *creator = state->placement == NULL ? NULL : add_type(module, &memory_creator_spec);
    if (creator == NULL)
        return -1;
    Py_DECREF(creator); /* the module's dictionary holds it */
    PyTypeObject *stacks = add_type(module, &stack_creator_spec);
    if (stacks == NULL)
        return -1;
    Py_DECREF(stacks);
    if (PyModule_AddIntConstant(module, "GUARDED_RESERVATION_BYTES", (long)GUARDED_RESERVATION_BYTES) != 0 ||
        PyModule_AddIntConstant(module, "GUARDED_GUARD_BYTES", (long)GUARDED_GUARD_BYTES) != 0 ||
        PyModule_AddIntConstant(module, "SLOTS_MAX", (long)SLOTS_MAX) != 0 ||
        PyModule_AddIntConstant(module, "QUOTAS_MAX", (long)QUOTAS_MAX) != 0)
        return -1;
    return 0;
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    module_state *state = PyModule_GetState(module);
    Py_VISIT(state->region);
    Py_VISIT(state->slot_table);
    Py_VISIT(state->placement);
    return 0;
}

static int clear(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->region);
    Py_CLEAR(state->slot_table);
    Py_CLEAR(state->placement);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

struct PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "wasmpool_agent._native",
    .m_size = sizeof(module_state),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void) {
    return PyModuleDef_Init(&native_module);
}
