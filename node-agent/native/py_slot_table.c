#include "python.h"

typedef struct {
    PyObject_HEAD
    struct slot_table *table; /* NULL once closed */
} SlotTableObject;

struct slot_table *slot_table_of(PyObject *object) {
    struct slot_table *table = ((SlotTableObject *)object)->table;
    if (table == NULL)
        PyErr_SetString(PyExc_ValueError, "the slot table is closed");
    return table;
}

static PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd", NULL};
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i:SlotTable", names, &fd))
        return NULL;
    SlotTableObject *self = (SlotTableObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    int error = slot_table_attach(fd, &self->table);
    if (error != 0) {
        Py_DECREF(self);
        return os_error(error);
    }
    return (PyObject *)self;
}

static PyObject *table_close(PyObject *self, PyObject *unused) {
    (void)unused;
    struct slot_table *table = ((SlotTableObject *)self)->table;
    ((SlotTableObject *)self)->table = NULL;
    slot_table_drop(table);
    Py_RETURN_NONE;
}

static void table_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    slot_table_drop(((SlotTableObject *)self)->table);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *view_tuple(const struct quota_view *view) {
    return Py_BuildValue("IIIII", view->reserved, view->burst, view->used, view->borrowed, view->unreserved);
}

static PyObject *table_take(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint32_t worker, strategy, index;
    uint64_t workload, module;
    bool affine;
    struct quota_view view;
    if (table == NULL || !arguments("take", count, 4) || !to_u32(args[0], &worker) || !to_u64(args[1], &workload) ||
        !to_u64(args[2], &module) || !to_u32(args[3], &strategy))
        return NULL;
    if (strategy >= STRATEGIES)
        return PyErr_Format(PyExc_ValueError, "strategy is %u, 0 to %d is wanted", strategy, STRATEGIES - 1);
    int error = slot_table_take(table, worker, workload, module, (enum slot_strategy)strategy, &index, &affine, &view);
    if (error == ENOSPC)
        Py_RETURN_NONE;
    if (error == EDQUOT)
        return view_tuple(&view);
    if (error != 0)
        return os_error(error);
    return Py_BuildValue("IO", index, affine ? Py_True : Py_False);
}

static PyObject *table_release(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint32_t index, worker;
    if (table == NULL || !arguments("release", count, 2) || !to_u32(args[0], &index) || !to_u32(args[1], &worker))
        return NULL;
    int error = slot_table_release(table, index, worker);
    if (error != 0)
        return os_error(error);
    Py_RETURN_NONE;
}

static PyObject *table_quarantine(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint32_t index;
    if (table == NULL || !arguments("quarantine", count, 1) || !to_u32(args[0], &index))
        return NULL;
    int error = slot_table_quarantine(table, index);
    if (error != 0)
        return os_error(error);
    Py_RETURN_NONE;
}

static PyObject *table_reclaim(PyObject *self, PyObject *args) {
    unsigned int worker;
    PyObject *region;
    Py_ssize_t slot_bytes;
    module_state *state = PyType_GetModuleState(Py_TYPE(self));
    if (!PyArg_ParseTuple(args, "IO!n:reclaim", &worker, state->region, &region, &slot_bytes))
        return NULL;
    struct slot_table *table = slot_table_of(self);
    struct mapping *mapping = region_of(region);
    if (table == NULL || mapping == NULL)
        return NULL;
    if (slot_bytes <= 0)
        return PyErr_Format(PyExc_ValueError, "slot_bytes is %zd, at least 1 is wanted", slot_bytes);
    slot_table_share(table);
    mapping_share(mapping);
    uint32_t reclaimed;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = slot_table_reclaim(table, worker, mapping, (size_t)slot_bytes, &reclaimed);
    slot_table_drop(table);
    mapping_drop(mapping);
    Py_END_ALLOW_THREADS
    return error != 0 ? os_error(error) : PyLong_FromUnsignedLong(reclaimed);
}

static PyObject *table_set_quota(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint64_t workload;
    uint32_t reserved, burst;
    if (table == NULL || !arguments("set_quota", count, 3) || !to_u64(args[0], &workload) ||
        !to_u32(args[1], &reserved) || !to_u32(args[2], &burst))
        return NULL;
    int error = slot_table_set_quota(table, workload, reserved, burst);
    if (error != 0)
        return os_error(error);
    Py_RETURN_NONE;
}

static PyObject *table_clear_quota(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint64_t workload;
    if (table == NULL || !arguments("clear_quota", count, 1) || !to_u64(args[0], &workload))
        return NULL;
    int error = slot_table_clear_quota(table, workload);
    if (error != 0)
        return os_error(error);
    Py_RETURN_NONE;
}

static PyObject *table_quota(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint64_t workload;
    struct quota_view view;
    if (table == NULL || !arguments("quota", count, 1) || !to_u64(args[0], &workload))
        return NULL;
    int error = slot_table_quota(table, workload, &view);
    if (error == ENOENT)
        Py_RETURN_NONE;
    return error != 0 ? os_error(error) : view_tuple(&view);
}

static PyObject *table_used_by(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint64_t workload;
    struct quota_view view;
    if (table == NULL || !arguments("used_by", count, 1) || !to_u64(args[0], &workload))
        return NULL;
    int error = slot_table_quota(table, workload, &view);
    return error != 0 && error != ENOENT ? os_error(error) : PyLong_FromUnsignedLong(view.used);
}

static PyObject *table_counts(PyObject *self, PyObject *unused) {
    (void)unused;
    struct slot_table *table = slot_table_of(self);
    uint32_t counts[SLOT_STATES];
    if (table == NULL)
        return NULL;
    int error = slot_table_counts(table, counts);
    if (error != 0)
        return os_error(error);
    return Py_BuildValue("IIIII", counts[SLOT_FREE], counts[SLOT_USED], counts[SLOT_WIPING], counts[SLOT_UNKNOWN],
                         counts[SLOT_QUARANTINED]);
}

static PyObject *table_owned_by(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint32_t worker, owned;
    if (table == NULL || !arguments("owned_by", count, 1) || !to_u32(args[0], &worker))
        return NULL;
    uint32_t *indices = PyMem_Calloc(slot_table_slots(table), sizeof *indices);
    if (indices == NULL)
        return PyErr_NoMemory();
    int error = slot_table_owned_by(table, worker, indices, &owned);
    PyObject *list = error != 0 ? os_error(error) : PyList_New((Py_ssize_t)owned);
    for (uint32_t i = 0; list != NULL && i < owned; i++) {
        PyObject *index = PyLong_FromUnsignedLong(indices[i]);
        if (index == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, index);
    }
    PyMem_Free(indices);
    return list;
}

static PyObject *table_record(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint32_t index;
    struct slot_record record;
    if (table == NULL || !arguments("record", count, 1) || !to_u32(args[0], &index))
        return NULL;
    int error = slot_table_read(table, index, &record);
    if (error != 0)
        return os_error(error);
    return Py_BuildValue("IIKKKK", atomic_load(&record.state), record.worker, (unsigned long long)record.generation,
                         (unsigned long long)record.workload, (unsigned long long)atomic_load(&record.dirty_bytes),
                         (unsigned long long)record.module);
}

static PyObject *table_mark_dirty(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    struct slot_table *table = slot_table_of(self);
    uint32_t index;
    uint64_t bytes;
    if (table == NULL || !arguments("mark_dirty", count, 2) || !to_u32(args[0], &index) || !to_u64(args[1], &bytes))
        return NULL;
    if (index >= slot_table_slots(table))
        return os_error(ERANGE);
    slot_table_mark_dirty(table, index, bytes);
    Py_RETURN_NONE;
}

static PyObject *table_broken(PyObject *self, PyObject *unused) {
    (void)unused;
    struct slot_table *table = slot_table_of(self);
    if (table == NULL)
        return NULL;
    const char *problem = slot_table_broken(table);
    if (problem == NULL)
        Py_RETURN_NONE;
    return PyUnicode_FromString(problem);
}

static PyObject *table_recoveries(PyObject *self, PyObject *unused) {
    (void)unused;
    struct slot_table *table = slot_table_of(self);
    return table == NULL ? NULL : PyLong_FromUnsignedLongLong(slot_table_recoveries(table));
}

static PyObject *table_lock_for_test(PyObject *self, PyObject *unused) {
    (void)unused;
    struct slot_table *table = slot_table_of(self);
    if (table == NULL)
        return NULL;
    int error = slot_table_lock_for_test(table);
    if (error != 0)
        return os_error(error);
    Py_RETURN_NONE;
}

static PyObject *table_slots(PyObject *self, void *unused) {
    (void)unused;
    struct slot_table *table = slot_table_of(self);
    return table == NULL ? NULL : PyLong_FromUnsignedLong(slot_table_slots(table));
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))
static PyMethodDef methods[] = {
    {"take", FAST(table_take), METH_FASTCALL,
     PyDoc_STR("take(worker, workload, module, strategy): (index, affine); None: nothing is free; as quota(): it allows "
               "no more")},
    {"release", FAST(table_release), METH_FASTCALL,
     PyDoc_STR("release(index, worker): gives a wiped slot back; OSError(EPERM) if the worker does not hold it")},
    {"quarantine", FAST(table_quarantine), METH_FASTCALL, PyDoc_STR("quarantine(index): never given out again")},
    {"reclaim", table_reclaim, METH_VARARGS,
     PyDoc_STR("reclaim(worker, region, slot_bytes): wipes and frees what a dead worker held, and counts it")},
    {"set_quota", FAST(table_set_quota), METH_FASTCALL,
     PyDoc_STR("set_quota(workload, reserved, burst): OSError(ENOSPC): others have reserved that; EDQUOT: too many")},
    {"clear_quota", FAST(table_clear_quota), METH_FASTCALL, PyDoc_STR("clear_quota(workload): nothing if it has none")},
    {"quota", FAST(table_quota), METH_FASTCALL,
     PyDoc_STR("quota(workload): (reserved, burst, used, borrowed by all, unreserved by any), or None")},
    {"used_by", FAST(table_used_by), METH_FASTCALL,
     PyDoc_STR("used_by(workload): slots that it holds, with a quota or without")},
    {"counts", table_counts, METH_NOARGS, PyDoc_STR("counts(): (free, used, wiping, unknown, quarantined)")},
    {"owned_by", FAST(table_owned_by), METH_FASTCALL, PyDoc_STR("owned_by(worker): the indices it holds")},
    {"record", FAST(table_record), METH_FASTCALL,
     PyDoc_STR("record(index): (state, worker, generation, workload, dirty_bytes, module)")},
    {"mark_dirty", FAST(table_mark_dirty), METH_FASTCALL, PyDoc_STR("mark_dirty(index, bytes): by its holder")},
    {"broken", table_broken, METH_NOARGS, PyDoc_STR("broken(): which invariant does not hold, or None")},
    {"recoveries", table_recoveries, METH_NOARGS,
     PyDoc_STR("recoveries(): how often a process died inside a critical section")},
    {"lock_for_test", table_lock_for_test, METH_NOARGS, PyDoc_STR("lock_for_test(): takes the lock and keeps it")},
    {"close", table_close, METH_NOARGS, PyDoc_STR("close(): may be called again")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"slots", table_slots, NULL, PyDoc_STR("how many there are"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, table_new},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_tp_doc, "SlotTable(fd): the table that create_slot_table made, mapped. The descriptor may be closed then."},
    {0, NULL},
};

PyType_Spec slot_table_spec = {
    .name = "wasmpool_agent._native.SlotTable",
    .basicsize = sizeof(SlotTableObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
