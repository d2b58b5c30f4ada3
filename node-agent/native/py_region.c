#include "python.h"

typedef struct {
    PyObject_HEAD
    struct mapping *mapping; /* NULL once closed */
} RegionObject;

struct mapping *region_of(PyObject *object) {
    struct mapping *mapping = ((RegionObject *)object)->mapping;
    if (mapping == NULL)
        PyErr_SetString(PyExc_ValueError, "the region is closed");
    return mapping;
}

/* With the GIL; on success the mapping has one owner more, for the time without the GIL. */
static struct mapping *range_of(PyObject *self, Py_ssize_t offset, Py_ssize_t length) {
    struct mapping *mapping = region_of(self);
    if (mapping == NULL)
        return NULL;
    if (offset < 0 || length < 0 || !mapping_holds(mapping, (size_t)offset, (size_t)length)) {
        PyErr_Format(PyExc_ValueError, "offset %zd, length %zd is outside of the region's %zu bytes", offset, length,
                     mapping->length);
        return NULL;
    }
    return mapping_share(mapping);
}

static PyObject *region_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd", "length", NULL};
    int fd;
    Py_ssize_t length;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "in:Region", names, &fd, &length))
        return NULL;
    if (length <= 0)
        return PyErr_Format(PyExc_ValueError, "length is %zd, at least 1 is wanted", length);
    RegionObject *self = (RegionObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    int error = mapping_open(fd, (size_t)length, &self->mapping);
    if (error != 0) {
        Py_DECREF(self);
        return os_error(error);
    }
    return (PyObject *)self;
}

static PyObject *region_close(PyObject *self, PyObject *unused) {
    (void)unused;
    struct mapping *mapping = ((RegionObject *)self)->mapping;
    ((RegionObject *)self)->mapping = NULL;
    mapping_drop(mapping);
    Py_RETURN_NONE;
}

static void region_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    mapping_drop(((RegionObject *)self)->mapping);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *region_populate(PyObject *self, PyObject *args) {
    Py_ssize_t offset, length;
    if (!PyArg_ParseTuple(args, "nn:populate", &offset, &length))
        return NULL;
    struct mapping *mapping = range_of(self, offset, length);
    if (mapping == NULL)
        return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = mapping_populate(mapping, (size_t)offset, (size_t)length);
    mapping_drop(mapping);
    Py_END_ALLOW_THREADS
    if (error != 0)
        return os_error(error);
    Py_RETURN_NONE;
}

static PyObject *region_wipe(PyObject *self, PyObject *args) {
    Py_ssize_t offset, length;
    if (!PyArg_ParseTuple(args, "nn:wipe", &offset, &length))
        return NULL;
    struct mapping *mapping = range_of(self, offset, length);
    if (mapping == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    wipe(mapping->base + offset, (size_t)length);
    mapping_drop(mapping);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *region_first_dirty(PyObject *self, PyObject *args) {
    Py_ssize_t offset, length;
    if (!PyArg_ParseTuple(args, "nn:first_dirty", &offset, &length))
        return NULL;
    struct mapping *mapping = range_of(self, offset, length);
    if (mapping == NULL)
        return NULL;
    size_t found;
    Py_BEGIN_ALLOW_THREADS
    found = first_dirty(mapping->base + offset, (size_t)length);
    mapping_drop(mapping);
    Py_END_ALLOW_THREADS
    if (found == (size_t)length)
        Py_RETURN_NONE;
    return PyLong_FromSize_t((size_t)offset + found);
}

static PyObject *region_read(PyObject *self, PyObject *args) {
    Py_ssize_t offset, length;
    if (!PyArg_ParseTuple(args, "nn:read", &offset, &length))
        return NULL;
    struct mapping *mapping = range_of(self, offset, length);
    if (mapping == NULL)
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)mapping->base + offset, length);
    mapping_drop(mapping);
    return bytes;
}

static PyObject *region_write(PyObject *self, PyObject *args) {
    Py_ssize_t offset;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "ny*:write", &offset, &data))
        return NULL;
    struct mapping *mapping = range_of(self, offset, data.len);
    if (mapping != NULL) {
        memcpy(mapping->base + offset, data.buf, (size_t)data.len);
        mapping_drop(mapping);
    }
    PyBuffer_Release(&data);
    if (mapping == NULL)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *region_length(PyObject *self, void *unused) {
    (void)unused;
    struct mapping *mapping = region_of(self);
    return mapping == NULL ? NULL : PyLong_FromSize_t(mapping->length);
}

static PyObject *region_address(PyObject *self, void *unused) {
    (void)unused;
    struct mapping *mapping = region_of(self);
    return mapping == NULL ? NULL : PyLong_FromVoidPtr(mapping->base);
}

static PyMethodDef methods[] = {
    {"populate", region_populate, METH_VARARGS, PyDoc_STR("populate(offset, length): gives the pages their memory")},
    {"wipe", region_wipe, METH_VARARGS, PyDoc_STR("wipe(offset, length): sets the bytes to zero")},
    {"first_dirty", region_first_dirty, METH_VARARGS,
     PyDoc_STR("first_dirty(offset, length): offset of the first byte that is not zero, or None")},
    {"read", region_read, METH_VARARGS, PyDoc_STR("read(offset, length): a copy of the bytes")},
    {"write", region_write, METH_VARARGS, PyDoc_STR("write(offset, data)")},
    {"close", region_close, METH_NOARGS, PyDoc_STR("close(): may be called again")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"length", region_length, NULL, PyDoc_STR("bytes"), NULL},
    {"address", region_address, NULL, PyDoc_STR("where it is mapped"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, region_new},       {Py_tp_dealloc, region_dealloc},
    {Py_tp_methods, methods},      {Py_tp_getset, attributes},
    {Py_tp_doc, "Region(fd, length): the memfd, mapped. Keeps a duplicate of the descriptor."},
    {0, NULL},
};

PyType_Spec region_spec = {
    .name = "wasmpool_agent._native.Region",
    .basicsize = sizeof(RegionObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
