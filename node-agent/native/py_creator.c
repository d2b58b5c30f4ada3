#include "python.h"

typedef struct {
    PyObject_HEAD
    struct creator *creator; /* never NULL in an object that Python has seen */
} CreatorObject;

static struct creator *creator_of(PyObject *self) {
    return ((CreatorObject *)self)->creator;
}

static PyObject *creator_object_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"region",       "table",      "worker",  "memories",  "area_bytes",
                            "memory_bytes", "page_bytes", "guarded", "error_new", NULL};
    module_state *state = PyType_GetModuleState(type);
    struct creator_options options;
    PyObject *region, *table;
    unsigned int worker, memories;
    Py_ssize_t area_bytes, memory_bytes, page_bytes;
    int guarded;
    unsigned long long error_new;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!$IInnnpK:MemoryCreator", names, state->region, &region,
                                     state->slot_table, &table, &worker, &memories, &area_bytes, &memory_bytes,
                                     &page_bytes, &guarded, &error_new))
        return NULL;
    struct mapping *mapping = region_of(region);
    struct slot_table *slots = slot_table_of(table);
    if (mapping == NULL || slots == NULL)
        return NULL;
    if (area_bytes <= 0 || memory_bytes <= 0 || page_bytes <= 0)
        return PyErr_Format(PyExc_ValueError, "area_bytes, memory_bytes and page_bytes must be positive");
    options.worker = worker;
    options.memories = memories;
    options.area_bytes = (size_t)area_bytes;
    options.memory_bytes = (size_t)memory_bytes;
    options.page_bytes = (size_t)page_bytes;
    options.guarded = guarded != 0;
    options.error_new = (wasmtime_error_new_t)(uintptr_t)error_new;
    CreatorObject *self = (CreatorObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    int error = creator_new(mapping, slots, &options, &self->creator);
    if (error != 0) {
        Py_DECREF(self);
        return os_error(error);
    }
    return (PyObject *)self;
}

static void creator_object_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    creator_drop(creator_of(self));
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *callbacks(PyObject *self, PyObject *unused) {
    (void)unused;
    struct creator *owner = creator_share(creator_of(self));
    return Py_BuildValue("KKK", (unsigned long long)(uintptr_t)owner,
                         (unsigned long long)(uintptr_t)creator_new_memory,
                         (unsigned long long)(uintptr_t)creator_finalize);
}

/* What `with creator.placement(slot):` enters: arms the slot on this thread, and disarms it. */
typedef struct {
    PyObject_HEAD
    PyObject *creator;
    uint32_t slot;
} PlacementObject;

static PyObject *placement(PyObject *self, PyObject *slot) {
    module_state *state = PyType_GetModuleState(Py_TYPE(self));
    uint32_t index;
    if (!to_u32(slot, &index))
        return NULL;
    PlacementObject *made = PyObject_New(PlacementObject, state->placement);
    if (made == NULL)
        return NULL;
    made->creator = Py_NewRef(self);
    made->slot = index;
    return (PyObject *)made;
}

static void placement_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(((PlacementObject *)self)->creator);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *placement_enter(PyObject *self, PyObject *unused) {
    (void)unused;
    PlacementObject *entered = (PlacementObject *)self;
    int error = creator_arm(creator_of(entered->creator), entered->slot);
    if (error != 0)
        return os_error(error);
    Py_RETURN_NONE;
}

static PyObject *placement_exit(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    (void)args;
    (void)count;
    creator_disarm();
    Py_RETURN_NONE;
}

static PyMethodDef placement_methods[] = {
    {"__enter__", placement_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))placement_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot placement_slots[] = {
    {Py_tp_dealloc, placement_dealloc},
    {Py_tp_methods, placement_methods},
    {Py_tp_doc, "Entered: this thread's next memories go into the slot."},
    {0, NULL},
};

PyType_Spec placement_spec = {
    .name = "wasmpool_agent._native.Placement",
    .basicsize = sizeof(PlacementObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = placement_slots,
};

static PyObject *finish(PyObject *self, PyObject *slot) {
    uint32_t index;
    bool deferred;
    if (!to_u32(slot, &index))
        return NULL;
    int error = creator_finish(creator_of(self), index, &deferred);
    if (error != 0)
        return os_error(error);
    return PyBool_FromLong(!deferred);
}

static PyObject *live(PyObject *self, PyObject *slot) {
    uint32_t index;
    if (!to_u32(slot, &index))
        return NULL;
    return PyLong_FromUnsignedLong(creator_live(creator_of(self), index));
}

static PyObject *stats(PyObject *self, PyObject *unused) {
    (void)unused;
    struct creator_stats *counted = creator_stats(creator_of(self));
    return Py_BuildValue("KKKKK", atomic_load(&counted->memories), atomic_load(&counted->refused),
                         atomic_load(&counted->grown), atomic_load(&counted->grow_refused),
                         atomic_load(&counted->deferred));
}

static PyMethodDef methods[] = {
    {"callbacks", callbacks, METH_NOARGS,
     PyDoc_STR("callbacks(): (env, new_memory, finalizer) as addresses. Each call makes an owner that only the "
               "finalizer ends: install it in exactly one configuration.")},
    {"placement", placement, METH_O,
     PyDoc_STR("placement(slot): a context manager; inside, this thread's next memories go there")},
    {"finish", finish, METH_O,
     PyDoc_STR("finish(slot): gives it back; False if its last memory's finalizer will do it")},
    {"live", live, METH_O, PyDoc_STR("live(slot): how many memories live in it")},
    {"stats", stats, METH_NOARGS, PyDoc_STR("stats(): (memories, refused, grown, grow_refused, deferred)")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, creator_object_new},
    {Py_tp_dealloc, creator_object_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "The memory creator of one engine: puts an instance's memories into its slot."},
    {0, NULL},
};

PyType_Spec memory_creator_spec = {
    .name = "wasmpool_agent._native.MemoryCreator",
    .basicsize = sizeof(CreatorObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
