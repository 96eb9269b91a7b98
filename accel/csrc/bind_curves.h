/* The part of the binding that serves curves and digests; module.c adds its functions to the module. */
#ifndef INTERCONN_BIND_CURVES_H
#define INTERCONN_BIND_CURVES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyMethodDef curve_methods[];

#endif
