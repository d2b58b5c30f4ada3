#include "python.h"
#include "stacks.h"

typedef struct {
    PyObject_HEAD
    struct stacks *stacks; /* never NULL in an object that Python has seen */
} StackCreatorObject;

static struct stacks *stacks_of(PyObject *self) {
    return ((StackCreatorObject *)self)->stacks;
}

static PyObject *stack_creator_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"idle_max", "error_new", NULL};
    unsigned int idle_max;
    unsigned long long error_new;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$IK:StackCreator", names, &idle_max, &error_new))
        return NULL;
    StackCreatorObject *self = (StackCreatorObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    int error = stacks_new(idle_max, (wasmtime_error_new_t)(uintptr_t)error_new, &self->stacks);
    if (error != 0) {
        Py_DECREF(self);
        return os_error(error);
    }
    return (PyObject *)self;
}

static void stack_creator_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    stacks_drop(stacks_of(self));
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *callbacks(PyObject *self, PyObject *unused) {
    (void)unused;
    struct stacks *owner = stacks_share(stacks_of(self));
    return Py_BuildValue("KKK", (unsigned long long)(uintptr_t)owner, (unsigned long long)(uintptr_t)stacks_new_stack,
                         (unsigned long long)(uintptr_t)stacks_finalize);
}

static PyObject *stats(PyObject *self, PyObject *unused) {
    (void)unused;
    struct stacks_stats counted = stacks_stats(stacks_of(self));
    return Py_BuildValue("KKI", (unsigned long long)counted.mapped, (unsigned long long)counted.reused, counted.idle);
}

static PyMethodDef methods[] = {
    {"callbacks", callbacks, METH_NOARGS,
     PyDoc_STR("callbacks(): (env, new_stack, finalizer) as addresses; as MemoryCreator.callbacks")},
    {"stats", stats, METH_NOARGS, PyDoc_STR("stats(): (mapped, reused, idle)")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, stack_creator_new},
    {Py_tp_dealloc, stack_creator_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "The stack creator of one engine: keeps up to idle_max stacks for the next guest."},
    {0, NULL},
};

PyType_Spec stack_creator_spec = {
    .name = "wasmpool_agent._native.StackCreator",
    .basicsize = sizeof(StackCreatorObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
