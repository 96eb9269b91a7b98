/* The part of the binding that serves curves and digests; module.c adds its functions to the module. */
#ifndef INTERCONN_BIND_CURVES_H
#define INTERCONN_BIND_CURVES_H

#include "binding.h"

extern PyMethodDef curve_methods[];

#endif
