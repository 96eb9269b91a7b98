/* What the files of the binding share. */
#ifndef INTERCONN_BINDING_H
#define INTERCONN_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *py_mask(PyObject *self, PyObject *args);
PyObject *py_ring_product(PyObject *self, PyObject *args);

#endif
