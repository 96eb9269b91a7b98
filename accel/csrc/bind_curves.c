/* The binding of curves and digests: as module.c, plain buffers in and out, lengths checked, the GIL released, and the
 * batch cut over threads (threads.h). */
#include "bind_curves.h"

#include "cpu.h"
#include "digest.h"
#include "group25519.h"
#include "mont.h"
#include "threads.h"
#include "wcurve.h"
#include "x25519.h"

/* Elements that a thread takes at once: what shares an inversion. */
#define GRAIN 256

/* Which core a name means: 2 lanes, 1 portable, 0 none that can run here */
static int core_named(const char *name) {
    return !strcmp(name, "portable") ? 1 : !strcmp(name, "avx512ifma") && cpu_can(CPU_IFMA) ? 2 : 0;
}

static const wcurve *wcurve_named(const char *core, const char *curve) {
    int which = core_named(core);
    const wcurve *all = which == 1 ? wcurve_portable : NULL;
#ifdef HAVE_IFMA
    all = which == 2 ? wcurve_ifma : all;
#endif
    for (int i = 0; all && i < 2; i++) {
        if (!strcmp(all[i].curve, curve)) {
            return all + i;
        }
    }
    return NULL;
}

static const group25519 *group_named(const char *core) {
    int which = core_named(core);
#ifdef HAVE_IFMA
    if (which == 2) {
        return &group25519_ifma;
    }
#endif
    return which == 1 ? &group25519_portable : NULL;
}

typedef struct {
    const wcurve *curve;
    const group25519 *group;
    uint8_t *out, *flags;
    const uint8_t *a, *b;
    size_t step;
    unsigned each;
    int flag;
    void (*x25519)(uint8_t *, const uint8_t *, size_t, const uint8_t *, size_t);
    digest_batch *digest;
    const int64_t *offsets;
    size_t length, tag_length;
    const uint8_t *tag;
} job;

static PyObject *done(int bad, int result) {
    if (bad) {
        PyErr_SetString(PyExc_ValueError, "a buffer does not have the length that the call needs, or no such core here");
        return NULL;
    }
    return PyBool_FromLong(!result);
}

#define RUN(fn, count, grain)                                                                                          \
    Py_BEGIN_ALLOW_THREADS;                                                                                            \
    result = run_slices(fn, &j, (size_t)(count), grain, (size_t)threads);                                              \
    Py_END_ALLOW_THREADS

static int slice_check(void *data, size_t from, size_t to) {
    job *j = data;
    return !j->curve->check(j->a + 64 * from, to - from);
}

/* wcurve_check(core, curve, points, threads) -> whether all are points */
static PyObject *py_check(PyObject *self, PyObject *args) {
    const char *core, *name;
    Py_buffer points;
    int threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "ssy*i", &core, &name, &points, &threads)) {
        return NULL;
    }
    job j = {.curve = wcurve_named(core, name), .a = points.buf};
    int bad = !j.curve || points.len % 64 || threads < 1;
    if (!bad) {
        RUN(slice_check, points.len / 64, GRAIN);
    }
    PyBuffer_Release(&points);
    return done(bad, result);
}

static int slice_multiply(void *data, size_t from, size_t to) {
    job *j = data;
    j->curve->multiply(j->out + 64 * from, j->a + j->step * from, j->step, j->b + 64 * from, to - from);
    return 0;
}

/* wcurve_multiply(core, curve, out, scalars, points, each, threads) -> True; points were checked */
static PyObject *py_multiply(PyObject *self, PyObject *args) {
    const char *core, *name;
    Py_buffer out, scalars, points;
    int each, threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "ssw*y*y*pi", &core, &name, &out, &scalars, &points, &each, &threads)) {
        return NULL;
    }
    job j = {.curve = wcurve_named(core, name), .out = out.buf, .a = scalars.buf, .b = points.buf, .step = each ? 32 : 0};
    int bad = !j.curve || out.len % 64 || points.len != out.len || threads < 1 ||
              scalars.len != (each ? out.len / 2 : 32);
    if (!bad) {
        RUN(slice_multiply, out.len / 64, GRAIN);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&scalars);
    PyBuffer_Release(&points);
    return done(bad, result);
}

static int slice_multiply_base(void *data, size_t from, size_t to) {
    job *j = data;
    j->curve->multiply_base(j->out + 64 * from, j->a + 32 * from, j->b, to - from);
    return 0;
}

/* wcurve_multiply_base(core, curve, out, scalars, table, threads) */
static PyObject *py_multiply_base(PyObject *self, PyObject *args) {
    const char *core, *name;
    Py_buffer out, scalars, table;
    int threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "ssw*y*y*i", &core, &name, &out, &scalars, &table, &threads)) {
        return NULL;
    }
    job j = {.curve = wcurve_named(core, name), .out = out.buf, .a = scalars.buf, .b = table.buf};
    int bad = !j.curve || out.len % 64 || scalars.len != out.len / 2 || threads < 1 ||
              table.len != 64 * WCURVE_WINDOWS * WCURVE_ENTRIES;
    if (!bad) {
        RUN(slice_multiply_base, out.len / 64, GRAIN);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&scalars);
    PyBuffer_Release(&table);
    return done(bad, result);
}

static int slice_lift(void *data, size_t from, size_t to) {
    job *j = data;
    j->curve->lift(j->out + 64 * from, j->flags + from, j->a + 32 * from, j->b + from, to - from);
    return 0;
}

/* wcurve_lift(core, curve, out, flags, xs, parities, threads) */
static PyObject *py_lift(PyObject *self, PyObject *args) {
    const char *core, *name;
    Py_buffer out, flags, xs, parities;
    int threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "ssw*w*y*y*i", &core, &name, &out, &flags, &xs, &parities, &threads)) {
        return NULL;
    }
    job j = {.curve = wcurve_named(core, name), .out = out.buf, .flags = flags.buf, .a = xs.buf, .b = parities.buf};
    int bad = !j.curve || out.len % 64 || xs.len != out.len / 2 || flags.len != out.len / 64 ||
              parities.len != flags.len || threads < 1;
    if (!bad) {
        RUN(slice_lift, flags.len, GRAIN);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&flags);
    PyBuffer_Release(&xs);
    PyBuffer_Release(&parities);
    return done(bad, result);
}

static int slice_map(void *data, size_t from, size_t to) {
    job *j = data;
    j->curve->map(j->out + 64 * from, j->a + 64 * j->each * from, j->each, to - from);
    return 0;
}

/* wcurve_map(core, curve, out, elements, threads): one or two elements an output */
static PyObject *py_map(PyObject *self, PyObject *args) {
    const char *core, *name;
    Py_buffer out, elements;
    int threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "ssw*y*i", &core, &name, &out, &elements, &threads)) {
        return NULL;
    }
    job j = {.curve = wcurve_named(core, name), .out = out.buf, .a = elements.buf};
    j.each = elements.len == 2 * out.len ? 2 : 1;
    int bad = !j.curve || out.len % 64 || elements.len != j.each * out.len || threads < 1;
    if (!bad) {
        RUN(slice_map, out.len / 64, GRAIN);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&elements);
    return done(bad, result);
}

static int slice_hash(void *data, size_t from, size_t to) {
    job *j = data;
    j->group->hash(j->out + 32 * from, j->a + 64 * j->each * from, j->each, j->flag, to - from);
    return 0;
}

/* group25519_hash(core, out, elements, edwards, threads): one or two elements an output */
static PyObject *py_hash(PyObject *self, PyObject *args) {
    const char *core;
    Py_buffer out, elements;
    int edwards, threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "sw*y*pi", &core, &out, &elements, &edwards, &threads)) {
        return NULL;
    }
    job j = {.group = group_named(core), .out = out.buf, .a = elements.buf, .flag = edwards};
    j.each = elements.len == 4 * out.len ? 2 : 1;
    int bad = !j.group || out.len % 32 || elements.len != 2 * j.each * out.len || threads < 1;
    if (!bad) {
        RUN(slice_hash, out.len / 32, GRAIN);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&elements);
    return done(bad, result);
}

static int slice_derive(void *data, size_t from, size_t to) {
    job *j = data;
    j->group->derive(j->out + 32 * from, j->a + 64 * from, to - from);
    return 0;
}

/* ristretto_derive(core, out, uniform, threads) */
static PyObject *py_derive(PyObject *self, PyObject *args) {
    const char *core;
    Py_buffer out, uniform;
    int threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "sw*y*i", &core, &out, &uniform, &threads)) {
        return NULL;
    }
    job j = {.group = group_named(core), .out = out.buf, .a = uniform.buf};
    int bad = !j.group || out.len % 32 || uniform.len != 2 * out.len || threads < 1;
    if (!bad) {
        RUN(slice_derive, out.len / 32, GRAIN);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&uniform);
    return done(bad, result);
}

static int slice_valid(void *data, size_t from, size_t to) {
    job *j = data;
    return !j->group->valid(j->a + 32 * from, to - from);
}

/* ristretto_valid(core, elements, threads) */
static PyObject *py_valid(PyObject *self, PyObject *args) {
    const char *core;
    Py_buffer elements;
    int threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "sy*i", &core, &elements, &threads)) {
        return NULL;
    }
    job j = {.group = group_named(core), .a = elements.buf};
    int bad = !j.group || elements.len % 32 || threads < 1;
    if (!bad) {
        RUN(slice_valid, elements.len / 32, GRAIN);
    }
    PyBuffer_Release(&elements);
    return done(bad, result);
}

static int slice_elements(void *data, size_t from, size_t to) {
    job *j = data;
    return !j->group->multiply(j->out + 32 * from, j->a + j->step * from, j->step, j->b + 32 * from, to - from);
}

/* ristretto_multiply(core, out, scalars, elements, each, threads) -> whether all were encodings */
static PyObject *py_elements(PyObject *self, PyObject *args) {
    const char *core;
    Py_buffer out, scalars, elements;
    int each, threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "sw*y*y*pi", &core, &out, &scalars, &elements, &each, &threads)) {
        return NULL;
    }
    job j = {.group = group_named(core), .out = out.buf, .a = scalars.buf, .b = elements.buf, .step = each ? 32 : 0};
    int bad = !j.group || out.len % 32 || elements.len != out.len || scalars.len != (each ? out.len : 32) || threads < 1;
    if (!bad) {
        RUN(slice_elements, out.len / 32, GRAIN);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&scalars);
    PyBuffer_Release(&elements);
    return done(bad, result);
}

static int slice_x25519(void *data, size_t from, size_t to) {
    job *j = data;
    j->x25519(j->out + 32 * from, j->a + j->step * from, j->step, j->b + 32 * from, to - from);
    return 0;
}

/* x25519(core, out, scalars, points, threads = 1): one scalar, or one each */
static PyObject *py_x25519(PyObject *self, PyObject *args) {
    const char *core;
    Py_buffer out, scalars, points;
    int threads = 1, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "sw*y*y*|i", &core, &out, &scalars, &points, &threads)) {
        return NULL;
    }
    job j = {.out = out.buf, .a = scalars.buf, .b = points.buf, .step = scalars.len == 32 ? 0 : 32};
    int which = core_named(core);
    j.x25519 = which == 1 ? x25519_portable : NULL;
#ifdef HAVE_IFMA
    j.x25519 = which == 2 ? x25519_ifma : j.x25519;
#endif
    int bad = !j.x25519 || out.len % 32 || points.len != out.len || (scalars.len != 32 && scalars.len != out.len) || threads < 1;
    if (!bad) {
        RUN(slice_x25519, out.len / 32, GRAIN);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&scalars);
    PyBuffer_Release(&points);
    return done(bad, result);
}

/* Whether offsets rise from 0 to the end of the data. */
static int fits(const Py_buffer *offsets, const Py_buffer *data) {
    const int64_t *at = offsets->buf;
    if (offsets->len < 8 || offsets->len % 8 || (uintptr_t)at % 8 || at[0] != 0 || at[offsets->len / 8 - 1] != data->len) {
        return 0;
    }
    for (Py_ssize_t i = 1; i < offsets->len / 8; i++) {
        if (at[i] < at[i - 1]) {
            return 0;
        }
    }
    return 1;
}

static int slice_digest(void *data, size_t from, size_t to) {
    job *j = data;
    j->digest(j->flag, j->out + 32 * from, j->a, j->offsets + from, to - from);
    return 0;
}

static int algorithm_named(const char *name) {
    return !strcmp(name, "sha256") ? DIGEST_SHA256 : !strcmp(name, "sm3") ? DIGEST_SM3
           : !strcmp(name, "sha512") ? DIGEST_SHA512 : -1;
}

/* digest(core, algorithm, out, data, offsets, threads); core may be shani as well, for sha256 */
static PyObject *py_digest(PyObject *self, PyObject *args) {
    const char *core, *algorithm;
    Py_buffer out, data, offsets;
    int threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "ssw*y*y*i", &core, &algorithm, &out, &data, &offsets, &threads)) {
        return NULL;
    }
    job j = {.out = out.buf, .a = data.buf, .offsets = offsets.buf, .flag = algorithm_named(algorithm)};
    int which = core_named(core);
    j.digest = which == 1 ? digest_portable : NULL;
#if defined(__x86_64__)
    int shani = !strcmp(core, "shani") && j.flag == DIGEST_SHA256 && cpu_can(CPU_SHA);
    j.digest = which == 2 ? digest_avx512 : shani ? digest_shani : j.digest;
#endif
    int bad = !j.digest || j.flag < 0 || j.flag == DIGEST_SHA512 || threads < 1 || !fits(&offsets, &data) ||
              out.len != (offsets.len / 8 - 1) * 32;
    if (!bad) {
        RUN(slice_digest, out.len / 32, 1024);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    return done(bad, result);
}

static int slice_expand(void *data, size_t from, size_t to) {
    job *j = data;
    digest_expand(j->flag, j->out + j->step * from, j->step, j->length, j->tag, j->tag_length, j->a, j->offsets + from,
                  to - from);
    return 0;
}

/* expand(algorithm, out, length, tag, data, offsets, threads): length bytes an item */
static PyObject *py_expand(PyObject *self, PyObject *args) {
    const char *algorithm;
    Py_buffer out, tag, data, offsets;
    Py_ssize_t length;
    int threads, result = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "sw*ny*y*y*i", &algorithm, &out, &length, &tag, &data, &offsets, &threads)) {
        return NULL;
    }
    job j = {.out = out.buf, .a = data.buf, .offsets = offsets.buf, .flag = algorithm_named(algorithm),
             .tag = tag.buf, .tag_length = (size_t)tag.len, .length = (size_t)length, .step = (size_t)length};
    int bad = j.flag < 0 || tag.len < 1 || tag.len > 255 || length < 1 || length > 255 * 32 || threads < 1 ||
              !fits(&offsets, &data) || out.len / length != offsets.len / 8 - 1 || out.len % length;
    if (!bad) {
        RUN(slice_expand, offsets.len / 8 - 1, GRAIN);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&tag);
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    return done(bad, result);
}

PyMethodDef curve_methods[] = {
    {"x25519", py_x25519, METH_VARARGS, NULL},
    {"wcurve_check", py_check, METH_VARARGS, NULL},
    {"wcurve_multiply", py_multiply, METH_VARARGS, NULL},
    {"wcurve_multiply_base", py_multiply_base, METH_VARARGS, NULL},
    {"wcurve_lift", py_lift, METH_VARARGS, NULL},
    {"wcurve_map", py_map, METH_VARARGS, NULL},
    {"group25519_hash", py_hash, METH_VARARGS, NULL},
    {"ristretto_derive", py_derive, METH_VARARGS, NULL},
    {"ristretto_valid", py_valid, METH_VARARGS, NULL},
    {"ristretto_multiply", py_elements, METH_VARARGS, NULL},
    {"digest", py_digest, METH_VARARGS, NULL},
    {"expand", py_expand, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
