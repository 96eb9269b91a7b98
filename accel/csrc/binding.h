/* What the files of the binding share. */
#ifndef INTERCONN_BINDING_H
#define INTERCONN_BINDING_H

#if !defined(__SIZEOF_INT128__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the native kernels want a 128-bit integer type and a little-endian machine"
#endif

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *py_mask(PyObject *self, PyObject *args);
PyObject *py_ring_product(PyObject *self, PyObject *args);

#endif
