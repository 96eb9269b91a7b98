/* The binding: plain buffers in and out, lengths checked, the GIL released. What a call means stands in mont.h and in
 * accel/_native.pyi; who checks values is the Python that calls. Uses the stable ABI of Python 3.11. */
#include "binding.h"

#include <stdlib.h>

#include "bind_curves.h"
#include "cpu.h"
#include "digits.h"
#include "mont.h"
#include "ring128.h"
#include "threads.h"

#define MODULUS "accel._native.modulus"
#define PLAIN "portable-plain"

typedef struct {
    mont_ctx ctx;
    const mont_core *core;
    size_t threads; /* that every batch of rows is cut over, threads.h */
} modulus;

static const mont_core *core_of(const char *name) {
#ifdef HAVE_IFMA
    if (!strcmp(name, mont_ifma.name) || !strcmp(name, mont_pairs_ifma.name)) {
        return cpu_can(CPU_IFMA) ? strcmp(name, mont_ifma.name) ? &mont_pairs_ifma : &mont_ifma : NULL;
    }
#endif
    return strcmp(name, mont_portable.name) && strcmp(name, PLAIN) ? NULL : &mont_portable;
}

/* Whether the portable core may use its assembly: not where it was asked for in plain C, as other CPUs run it. */
static int may_use_adx(const char *name) {
    return strcmp(name, PLAIN) && cpu_can(CPU_ADX);
}

static modulus *modulus_of(PyObject *capsule) {
    return PyCapsule_GetPointer(capsule, MODULUS);
}

static void modulus_free(PyObject *capsule) {
    modulus *m = modulus_of(capsule);
    if (m) {
        if (m->ctx.n) {
            wipe(m->ctx.n, MONT_ROWS(m->ctx.stride) * sizeof(uint64_t)); /* it may be a secret prime's square */
            free(m->ctx.n);
        }
        wipe(m, sizeof *m);
        free(m);
    }
}

/* layout(core, bits) -> (digits of R, stride, digit_bits) */
static PyObject *py_layout(PyObject *self, PyObject *args) {
    const char *name;
    Py_ssize_t bits;
    (void)self;
    if (!PyArg_ParseTuple(args, "sn", &name, &bits)) {
        return NULL;
    }
    const mont_core *core = core_of(name);
    if (!core || bits < 2 || bits > 16600) {
        PyErr_SetString(PyExc_ValueError, core ? "a modulus of 2 to 16600 bits" : "this core cannot run here");
        return NULL;
    }
    size_t digits = core->digits((size_t)bits);
    return Py_BuildValue("nnn", (Py_ssize_t)(digits / core->parts), (Py_ssize_t)core->stride(digits), (Py_ssize_t)core->digit_bits);
}

/* modulus(core, bits, constants, threads): bits of the modulus, rows ctx->n, one and lift, of which n is odd */
static PyObject *py_modulus(PyObject *self, PyObject *args) {
    const char *name;
    Py_buffer constants;
    Py_ssize_t bits, threads;
    (void)self;
    if (!PyArg_ParseTuple(args, "sny*n", &name, &bits, &constants, &threads)) {
        return NULL;
    }
    PyObject *capsule = NULL;
    const mont_core *core = core_of(name);
    const int fits = core && threads >= 1 && bits >= 2 && bits <= 16600;
    const size_t digits = fits ? core->digits((size_t)bits) : 0, size = fits ? 3 * core->stride(digits) * 8 : 0;
    if (!fits || (size_t)constants.len != size || !(*(const uint8_t *)constants.buf & 1)) {
        PyErr_SetString(PyExc_ValueError, "not an odd modulus with its constants, or a core that cannot run here");
        PyBuffer_Release(&constants);
        return NULL;
    }
    modulus *m = calloc(1, sizeof *m);
    uint64_t *rows = calloc(MONT_ROWS(core->stride(digits)), sizeof *rows);
    if (m && rows) {
        memcpy(rows, constants.buf, size);
        m->core = core;
        m->threads = (size_t)threads;
        mont_ctx *c = &m->ctx;
        c->bits = (size_t)bits;
        c->digits = digits;
        c->stride = core->stride(digits);
        c->adx = may_use_adx(name);
        c->n = rows;
        c->one = c->n + c->stride;
        c->lift = c->one + c->stride;
        c->near = c->lift + c->stride;
        mont_prepare(c, core->digit_bits, core->parts);
        capsule = PyCapsule_New(m, MODULUS, modulus_free);
    } else {
        PyErr_NoMemory();
    }
    if (!capsule) {
        if (rows) {
            wipe(rows, MONT_ROWS(core->stride(digits)) * sizeof *rows);
        }
        free(rows);
        free(m);
    }
    PyBuffer_Release(&constants);
    return capsule;
}

/* Bytes that fit one number of the size of R */
static Py_ssize_t radix_bytes(const modulus *m) {
    return (Py_ssize_t)(m->core->digit_bits * (m->ctx.digits / m->core->parts) / 8);
}

/* Rows in a buffer of elements, or -1. */
static Py_ssize_t rows_in(const modulus *m, const Py_buffer *buffer) {
    size_t row = m->ctx.stride * sizeof(uint64_t);
    return (size_t)buffer->len % row || (uintptr_t)buffer->buf % sizeof(uint64_t) ? -1
                                                                                  : (Py_ssize_t)((size_t)buffer->len / row);
}

/* One call on rows, for any of the cores' functions that take them one by one. */
typedef struct {
    const modulus *m;
    enum { MUL, SQUARE, LOAD, DUMP, AFFINE, POWER, FIXED_POWER, SEGMENTS } what;
    uint64_t *out;
    const uint64_t *a, *b;
    size_t a_step, b_step, size, times, windows;
    const uint8_t *bytes;
    const int64_t *idx, *starts;
    uint8_t *to;
    unsigned window;
    int scan;
} rows_job;

static int slice_rows(void *data, size_t from, size_t to) {
    const rows_job *j = data;
    const mont_core *core = j->m->core;
    const mont_ctx *c = &j->m->ctx;
    size_t count = to - from;
    uint64_t *out = j->out ? j->out + from * c->stride : NULL;
    const uint64_t *a = j->a ? j->a + from * j->a_step : NULL;
    const uint8_t *bytes = j->bytes ? j->bytes + from * j->size : NULL;
    switch (j->what) {
    case MUL:
        return core->mul(c, out, a, j->a_step, j->b + from * j->b_step, j->b_step, count);
    case SQUARE:
        return core->square(c, out, a, j->times, count);
    case LOAD:
        return core->import(c, out, bytes, j->size, j->b, j->times, count);
    case DUMP:
        return core->export(c, j->to + from * j->size, j->size, a, count);
    case AFFINE:
        return core->affine(c, out, a, j->a_step, bytes, j->size, j->b, count);
    case POWER:
        return core->power(c, out, a, bytes, j->size, j->times, j->scan, count);
    case FIXED_POWER:
        return core->fixed_power(c, out, a, j->a_step, j->b, j->window, j->windows, bytes, j->size, j->scan, count);
    case SEGMENTS:
        return core->segments(c, out, j->a, j->idx, j->starts + from, count);
    }
    return 0;
}

/* Rows that a thread takes at once: the groups of lanes that go through a fixed table together. */
#define ROW_GRAIN 128

static int run_rows(rows_job *j, Py_ssize_t count, size_t grain) {
    return run_slices(slice_rows, j, (size_t)count, grain, j->m->threads);
}

static PyObject *finish(int bad, int failed) {
    if (bad) {
        PyErr_SetString(PyExc_ValueError, "a buffer does not have the length that the call needs");
    } else if (failed) {
        PyErr_NoMemory();
    } else {
        Py_RETURN_NONE;
    }
    return NULL;
}

/* mul(modulus, out, a, b): a or b may be one row, for all */
static PyObject *py_mul(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer out, a, b;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*y*y*", &capsule, &out, &a, &b)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0;
    if (m) {
        Py_ssize_t count = rows_in(m, &out), left = rows_in(m, &a), right = rows_in(m, &b);
        bad = count < 0 || (left != count && left != 1) || (right != count && right != 1);
        if (!bad && count) {
            Py_BEGIN_ALLOW_THREADS;
            rows_job j = {.m = m, .what = MUL, .out = out.buf, .a = a.buf, .b = b.buf,
                          .a_step = left == count ? m->ctx.stride : 0, .b_step = right == count ? m->ctx.stride : 0};
            failed = run_rows(&j, count, ROW_GRAIN);
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&a);
    PyBuffer_Release(&b);
    return m ? finish(bad, failed) : NULL;
}

/* square(modulus, out, a, times) */
static PyObject *py_square(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer out, a;
    Py_ssize_t times;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*y*n", &capsule, &out, &a, &times)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0;
    if (m) {
        Py_ssize_t count = rows_in(m, &out);
        bad = count < 0 || rows_in(m, &a) != count || times < 1;
        if (!bad && count) {
            Py_BEGIN_ALLOW_THREADS;
            rows_job j = {.m = m, .what = SQUARE, .out = out.buf, .a = a.buf, .a_step = m->ctx.stride,
                          .times = (size_t)times};
            failed = run_rows(&j, count, 16);
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&a);
    return m ? finish(bad, failed) : NULL;
}

/* load(modulus, out, bytes, size, factors) */
static PyObject *py_load(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer out, bytes, factors;
    Py_ssize_t size;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*y*ny*", &capsule, &out, &bytes, &size, &factors)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0;
    if (m) {
        Py_ssize_t count = rows_in(m, &out), chunks = rows_in(m, &factors);
        Py_ssize_t room = chunks * radix_bytes(m);
        bad = count < 0 || chunks < 1 || chunks > 8 || size < 1 || size > room || bytes.len % size ||
              bytes.len / size != count;
        if (!bad && count) {
            Py_BEGIN_ALLOW_THREADS;
            rows_job j = {.m = m, .what = LOAD, .out = out.buf, .bytes = bytes.buf, .size = (size_t)size,
                          .b = factors.buf, .times = (size_t)chunks};
            failed = run_rows(&j, count, ROW_GRAIN);
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&bytes);
    PyBuffer_Release(&factors);
    return m ? finish(bad, failed) : NULL;
}

/* dump(modulus, out_bytes, size, a) */
static PyObject *py_dump(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer out, a;
    Py_ssize_t size;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*ny*", &capsule, &out, &size, &a)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0;
    if (m) {
        Py_ssize_t count = rows_in(m, &a);
        bad = count < 0 || size < (Py_ssize_t)(m->ctx.bits + 7) / 8 || out.len % size || out.len / size != count;
        if (!bad && count) {
            Py_BEGIN_ALLOW_THREADS;
            rows_job j = {.m = m, .what = DUMP, .to = out.buf, .size = (size_t)size, .a = a.buf,
                          .a_step = m->ctx.stride};
            failed = run_rows(&j, count, ROW_GRAIN);
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&a);
    return m ? finish(bad, failed) : NULL;
}

/* affine(modulus, out, a, plain_bytes, size, slope) */
static PyObject *py_affine(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer out, a, plain, slope;
    Py_ssize_t size;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*y*y*ny*", &capsule, &out, &a, &plain, &size, &slope)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0;
    if (m) {
        Py_ssize_t count = rows_in(m, &out), left = rows_in(m, &a);
        bad = count < 0 || (left != count && left != 1) || rows_in(m, &slope) != 1 || size < 1 ||
              size > radix_bytes(m) || plain.len % size ||
              plain.len / size != count;
        if (!bad && count) {
            Py_BEGIN_ALLOW_THREADS;
            rows_job j = {.m = m, .what = AFFINE, .out = out.buf, .a = a.buf, .b = slope.buf,
                          .a_step = left == count ? m->ctx.stride : 0, .bytes = plain.buf, .size = (size_t)size};
            failed = run_rows(&j, count, ROW_GRAIN);
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&a);
    PyBuffer_Release(&plain);
    PyBuffer_Release(&slope);
    return m ? finish(bad, failed) : NULL;
}

/* power(modulus, out, a, exps, exp_bits, scan) */
static PyObject *py_power(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer out, a, exps;
    Py_ssize_t bits;
    int scan;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*y*y*np", &capsule, &out, &a, &exps, &bits, &scan)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0;
    if (m) {
        Py_ssize_t count = rows_in(m, &out), size = bits / 8 + (bits % 8 != 0);
        int shared = exps.len == size;
        bad = count < 0 || rows_in(m, &a) != count || bits < 1 || bits > 1 << 20 ||
              (!shared && (exps.len % size || exps.len / size != count)) || (!shared && !scan);
        if (!bad && count) {
            Py_BEGIN_ALLOW_THREADS;
            rows_job j = {.m = m, .what = POWER, .out = out.buf, .a = a.buf, .a_step = m->ctx.stride, .bytes = exps.buf,
                          .size = shared ? 0 : (size_t)size, .times = (size_t)bits, .scan = scan};
            failed = run_rows(&j, count, 8);
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&a);
    PyBuffer_Release(&exps);
    return m ? finish(bad, failed) : NULL;
}

/* fixed_table(modulus, out, base, window, scan) */
static PyObject *py_fixed_table(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer out, base;
    int window, scan;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*y*ip", &capsule, &out, &base, &window, &scan)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0;
    if (m) {
        Py_ssize_t rows = rows_in(m, &out);
        bad = window < 1 || window > 16 || rows < 1 || rows % ((Py_ssize_t)1 << window) || rows_in(m, &base) != 1;
        if (!bad) {
            Py_BEGIN_ALLOW_THREADS;
            failed = m->core->fixed_table(&m->ctx, out.buf, base.buf, (unsigned)window, (size_t)rows >> window,
                                          scan);
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&base);
    return m ? finish(bad, failed) : NULL;
}

/* fixed_power(modulus, out, a, table, window, windows, exps, exp_size, scan) */
static PyObject *py_fixed_power(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer out, a, table, exps;
    int window, scan;
    Py_ssize_t windows, size;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*y*y*iny*np", &capsule, &out, &a, &table, &window, &windows, &exps, &size, &scan)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0;
    if (m) {
        Py_ssize_t count = rows_in(m, &out), left = rows_in(m, &a), rows = rows_in(m, &table);
        bad = count < 0 || (left != count && left != 1) || window < 1 || window > 16 || rows < 1 || windows < 0 ||
              windows > rows >> window || size < 1 || exps.len % size || exps.len / size != count;
        if (!bad && count) {
            Py_BEGIN_ALLOW_THREADS;
            rows_job j = {.m = m, .what = FIXED_POWER, .out = out.buf, .a = a.buf,
                          .a_step = left == count ? m->ctx.stride : 0, .b = table.buf, .window = (unsigned)window,
                          .windows = (size_t)windows, .bytes = exps.buf, .size = (size_t)size, .scan = scan};
            failed = run_rows(&j, count, ROW_GRAIN);
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&a);
    PyBuffer_Release(&table);
    PyBuffer_Release(&exps);
    return m ? finish(bad, failed) : NULL;
}

/* Whether starts name `count` segments of the `terms` places in idx, and these name rows of a source of that many. */
static int segments_fit(const int64_t *starts, Py_ssize_t count, const int64_t *idx, Py_ssize_t terms, Py_ssize_t sources) {
    int bad = starts[0] < 0 || starts[count] > terms;
    for (Py_ssize_t s = 0; s < count; s++) {
        bad |= starts[s] > starts[s + 1];
    }
    for (Py_ssize_t j = 0; j < terms; j++) {
        bad |= (uint64_t)idx[j] >= (uint64_t)sources;
    }
    return !bad;
}

typedef struct {
    const modulus *m;
    uint64_t *out;
    const uint64_t *src;
    const int64_t *idx, *starts;
    size_t sizes, tasks;
    atomic_size_t next;
} buckets_job;

/* The threads take tasks one by one, whatever slice they have: a lane must not run dry while there are any. */
static int slice_buckets(void *data, size_t from, size_t to) {
    buckets_job *j = data;
    (void)from;
    (void)to;
    return j->m->core->buckets(&j->m->ctx, j->out, j->src, j->idx, j->starts, j->sizes, j->tasks, &j->next);
}

/* segments(modulus, out, src, idx, starts): every segment's product
 * buckets(modulus, out, src, idx, starts, sizes): two rows for `sizes` segments, mont.h */
static PyObject *multiply_segments(PyObject *args, int weighted) {
    PyObject *capsule;
    Py_buffer out, src, idx, starts;
    Py_ssize_t sizes = 1;
    if (!PyArg_ParseTuple(args, weighted ? "Ow*y*y*y*n" : "Ow*y*y*y*", &capsule, &out, &src, &idx, &starts, &sizes)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0;
    if (m) {
        const Py_ssize_t rows = rows_in(m, &out), sources = rows_in(m, &src), terms = idx.len / 8;
        const Py_ssize_t count = starts.len / 8 - 1, wanted = weighted ? rows / 2 : rows;
        const int64_t *at = idx.buf, *from = starts.buf;
        bad = rows < 0 || (weighted && rows % 2) || sources < 0 || idx.len % 8 || starts.len % 8 || count < 0 || sizes < 1 ||
              count % sizes || count / sizes != wanted || (uintptr_t)at % 8 || (uintptr_t)from % 8;
        if (!bad) {
            Py_BEGIN_ALLOW_THREADS;
            bad = !segments_fit(from, count, at, terms, sources);
            if (!bad && count && weighted) {
                buckets_job j = {.m = m, .out = out.buf, .src = src.buf, .idx = at, .starts = from,
                                 .sizes = (size_t)sizes, .tasks = (size_t)wanted};
                const size_t full = (size_t)(wanted + 7) / 8; /* a thread is worth eight tasks */
                failed = run_slices(slice_buckets, &j, full, 1, m->threads);
            } else if (!bad && count) {
                rows_job j = {.m = m, .what = SEGMENTS, .out = out.buf, .a = src.buf, .idx = at, .starts = from};
                failed = run_rows(&j, count, 64);
            }
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&src);
    PyBuffer_Release(&idx);
    PyBuffer_Release(&starts);
    return m ? finish(bad, failed) : NULL;
}

static PyObject *py_segments(PyObject *self, PyObject *args) {
    (void)self;
    return multiply_segments(args, 0);
}

static PyObject *py_buckets(PyObject *self, PyObject *args) {
    (void)self;
    return multiply_segments(args, 1);
}

typedef struct {
    const modulus *m;
    uint8_t *out;
    const uint8_t *in, *exp;
    size_t out_size, in_size, chunks, exp_bits;
    const uint64_t *factors, *lift;
} logs_job;

static int slice_logs(void *data, size_t from, size_t to) {
    const logs_job *j = data;
    return j->m->core->logs(&j->m->ctx, j->out + from * j->out_size, j->out_size, j->in + from * j->in_size, j->in_size,
                            j->factors, j->chunks, j->lift, j->exp, j->exp_bits, to - from);
}

/* logs(modulus, out, out_size, data, size, factors, lift, exp, exp_bits) -> whether the core can */
static PyObject *py_logs(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer out, data, factors, lift, exp;
    Py_ssize_t out_size, size, bits;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*ny*ny*y*y*n", &capsule, &out, &out_size, &data, &size, &factors, &lift, &exp, &bits)) {
        return NULL;
    }
    modulus *m = modulus_of(capsule);
    int bad = 1, failed = 0, can = m && m->core->logs;
    if (can) {
        Py_ssize_t pairs = rows_in(m, &factors) / 2, chunk = radix_bytes(m);
        bad = out_size < (Py_ssize_t)(m->ctx.bits + 7) / 8 || out.len % out_size || size < 1 || data.len % size ||
              data.len / size != out.len / out_size || rows_in(m, &factors) % 2 || pairs < 2 || pairs > 9 ||
              size > (pairs - 1) * chunk || rows_in(m, &lift) != 1 || bits < 1 || bits > 1 << 20 ||
              exp.len != bits / 8 + (bits % 8 != 0);
        if (!bad && out.len) {
            Py_BEGIN_ALLOW_THREADS;
            logs_job j = {m, out.buf, data.buf, exp.buf, (size_t)out_size, (size_t)size, (size_t)(pairs - 1), (size_t)bits,
                          factors.buf, lift.buf};
            failed = run_slices(slice_logs, &j, (size_t)(out.len / out_size), 8, m->threads);
            Py_END_ALLOW_THREADS;
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&data);
    PyBuffer_Release(&factors);
    PyBuffer_Release(&lift);
    PyBuffer_Release(&exp);
    if (!m) {
        return NULL;
    }
    return can && (bad || failed) ? finish(bad, failed) : PyBool_FromLong(can);
}

/* count_digits(values, window) -> (non-zero digits, negative ones) */
static PyObject *py_count_digits(PyObject *self, PyObject *args) {
    Py_buffer values;
    int window;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*i", &values, &window)) {
        return NULL;
    }
    PyObject *result = NULL;
    if (window < 1 || window > 16 || values.len % 8 || (uintptr_t)values.buf % 8) {
        PyErr_SetString(PyExc_ValueError, "int64 values and a window of 1 to 16");
    } else {
        const int64_t *v = values.buf;
        Py_ssize_t count = 0, negative = 0;
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t j = 0; j < values.len / 8; j++) {
            FOR_DIGITS(v[j], window, (count++, negative += minus, (void)size));
        }
        Py_END_ALLOW_THREADS;
        result = Py_BuildValue("nn", count, negative);
    }
    PyBuffer_Release(&values);
    return result;
}

/* The digits of rows from..to of a matrix, sorted by keys of which each belongs to one row. */
typedef struct {
    const int64_t *row_at, *col, *value;
    int64_t *start, *term;
    size_t rows, bases, windows, half;
    int window, signs, tables;
} sort_job;

static inline size_t sort_key(const sort_job *j, size_t r, size_t k, int minus, size_t size) {
    return j->tables ? r : ((k * j->rows + r) * (size_t)j->signs + (size_t)(j->signs > 1 && minus)) * j->half + size - 1;
}

static int slice_count(void *data, size_t from, size_t to) {
    const sort_job *j = data;
    for (size_t r = from; r < to; r++) {
        for (int64_t i = j->row_at[r]; i < j->row_at[r + 1]; i++) {
            FOR_DIGITS(j->value[i], j->window, {
                if (k >= j->windows) {
                    return 1;
                }
                j->start[sort_key(j, r, k, minus, size) + 1]++;
            });
        }
    }
    return 0;
}

/* start[key] runs to the end of its part. */
static int slice_sort(void *data, size_t from, size_t to) {
    const sort_job *j = data;
    for (size_t r = from; r < to; r++) {
        for (int64_t i = j->row_at[r]; i < j->row_at[r + 1]; i++) {
            const size_t col = (size_t)j->col[i];
            FOR_DIGITS(j->value[i], j->window, {
                const size_t base = j->signs > 1 ? col : 2 * col + (size_t)minus;
                const size_t term = j->tables ? ((size - 1) * j->windows + k) * j->bases + base : base;
                j->term[j->start[sort_key(j, r, k, minus, size)]++] = (int64_t)term;
            });
        }
    }
    return 0;
}

/* sort_digits(indptr, indices, values, window, windows, signs, tables, starts, terms, threads) -> terms found
 * signs 2: bucket (k, row, sign, size) lists the columns; signs 1: bucket (k, row, size) lists bases 2 * column + minus.
 * tables, the number of bases: the row lists its entries (size, k, base) of their table. */
static PyObject *py_sort_digits(PyObject *self, PyObject *args) {
    Py_buffer indptr, indices, values, starts, terms;
    int window, signs;
    Py_ssize_t windows, tables, threads;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*y*ininw*w*n", &indptr, &indices, &values, &window, &windows, &signs, &tables,
                          &starts, &terms, &threads)) {
        return NULL;
    }
    size_t rows = indptr.len < 8 ? 0 : (size_t)indptr.len / 8 - 1, entries = (size_t)values.len / 8;
    size_t keys = starts.len < 8 ? 0 : (size_t)starts.len / 8 - 1;
    sort_job j = {.row_at = indptr.buf, .col = indices.buf, .value = values.buf, .start = starts.buf, .term = terms.buf,
                  .rows = rows, .bases = (size_t)tables, .windows = (size_t)windows,
                  .half = (size_t)1 << ((window - 1) & 15), .window = window, .signs = signs, .tables = tables != 0};
    int bad = window < 1 || window > 16 || windows < 1 || windows > 64 || signs < 1 || signs > 2 || tables < 0 ||
              threads < 1 || indptr.len < 8 || starts.len < 8 || indices.len != values.len ||
              keys != (tables ? rows : rows * j.windows * (size_t)signs * j.half) || j.row_at[0] != 0 ||
              j.row_at[rows] != (int64_t)entries;
    Py_BEGIN_ALLOW_THREADS;
    for (size_t r = 0; r < rows && !bad; r++) {
        bad = j.row_at[r] > j.row_at[r + 1];
    }
    for (size_t i = 0; i < entries && !bad; i++) {
        bad = j.value[i] >= INT64_C(1) << 40 || j.value[i] <= -(INT64_C(1) << 40) || j.col[i] < 0;
    }
    if (!bad) {
        const size_t average = entries / (rows ? rows : 1) + 1, grain = 4096 / average + 1; /* what a thread is worth */
        memset(j.start, 0, (keys + 1) * sizeof *j.start);
        bad = run_slices(slice_count, &j, rows, grain, (size_t)threads);
        for (size_t i = 0; i < keys; i++) {
            j.start[i + 1] += j.start[i];
        }
        bad = bad || j.start[keys] > (int64_t)((size_t)terms.len / 8);
        if (!bad) {
            run_slices(slice_sort, &j, rows, grain, (size_t)threads);
            memmove(j.start + 1, j.start, keys * sizeof *j.start);
            j.start[0] = 0;
        }
    }
    Py_END_ALLOW_THREADS;
    PyObject *found = bad ? finish(bad, 0) : PyLong_FromLongLong(j.start[keys]);
    PyBuffer_Release(&indptr);
    PyBuffer_Release(&indices);
    PyBuffer_Release(&values);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&terms);
    return found;
}

/* in_range(bytes, size, bound, zero) -> whether every little-endian number lies below the bound and, unless zero may be,
 * above 0 */
static PyObject *py_in_range(PyObject *self, PyObject *args) {
    Py_buffer bytes, bound;
    Py_ssize_t size;
    int zero;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*ny*p", &bytes, &size, &bound, &zero)) {
        return NULL;
    }
    int bad = size < 1 || bound.len != size || bytes.len % size, good = 1;
    if (!bad) {
        const uint8_t *limit = bound.buf, *number = bytes.buf;
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t at = 0; at < bytes.len && good; at += size) {
            int order = 0, any = zero;
            for (Py_ssize_t i = size; i-- > 0;) {
                uint8_t x = number[at + i];
                any |= x;
                if (!order && x != limit[i]) {
                    order = x < limit[i] ? -1 : 1;
                }
                if (order && any) {
                    break;
                }
            }
            good = order < 0 && (any || zero);
        }
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&bytes);
    PyBuffer_Release(&bound);
    return bad ? finish(bad, 0) : PyBool_FromLong(good);
}

typedef struct {
    uint64_t *out;
    const int64_t *row_at, *col, *value;
    const uint64_t *vector;
} ring128_job;

static int slice_ring128(void *data, size_t from, size_t to) {
    const ring128_job *j = data;
    ring128_matvec(j->out + 2 * from, j->row_at + from, j->col, j->value, j->vector, to - from);
    return 0;
}

/* ring128_matvec(out, indptr, indices, values, vector, threads) */
static PyObject *py_ring128_matvec(PyObject *self, PyObject *args) {
    Py_buffer out, indptr, indices, values, vector;
    Py_ssize_t threads;
    (void)self;
    if (!PyArg_ParseTuple(args, "w*y*y*y*y*n", &out, &indptr, &indices, &values, &vector, &threads)) {
        return NULL;
    }
    const int64_t *row_at = indptr.buf, *col = indices.buf;
    size_t rows = (size_t)out.len / 16, entries = (size_t)values.len / 8, cols = (size_t)vector.len / 16;
    int bad = threads < 1 || out.len % 16 || vector.len % 16 || values.len % 8 || indices.len != values.len ||
              indptr.len != (Py_ssize_t)(8 * (rows + 1)) || row_at[0] < 0 || row_at[rows] > (int64_t)entries;
    Py_BEGIN_ALLOW_THREADS;
    for (size_t r = 0; r < rows && !bad; r++) {
        bad = row_at[r] > row_at[r + 1];
    }
    for (size_t j = 0; j < entries && !bad; j++) {
        bad = col[j] < 0 || (size_t)col[j] >= cols;
    }
    if (!bad) {
        ring128_job job = {out.buf, row_at, col, values.buf, vector.buf};
        const size_t average = rows ? entries / rows + 1 : 1; /* a thread is worth some 16 thousand entries */
        run_slices(slice_ring128, &job, rows, 16384 / average + 1, (size_t)threads);
    }
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&out);
    PyBuffer_Release(&indptr);
    PyBuffer_Release(&indices);
    PyBuffer_Release(&values);
    PyBuffer_Release(&vector);
    return finish(bad, 0);
}

/* cores() -> names of what is compiled in and may run on this machine */
static PyObject *py_cores(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
#ifdef HAVE_IFMA
    if (core_of(mont_ifma.name)) {
        return Py_BuildValue("(ss)", mont_ifma.name, mont_portable.name);
    }
#endif
    return Py_BuildValue("(s)", mont_portable.name);
}

static PyMethodDef methods[] = {
    {"cores", py_cores, METH_NOARGS, NULL},
    {"layout", py_layout, METH_VARARGS, NULL},
    {"modulus", py_modulus, METH_VARARGS, NULL},
    {"mul", py_mul, METH_VARARGS, NULL},
    {"square", py_square, METH_VARARGS, NULL},
    {"load", py_load, METH_VARARGS, NULL},
    {"dump", py_dump, METH_VARARGS, NULL},
    {"affine", py_affine, METH_VARARGS, NULL},
    {"power", py_power, METH_VARARGS, NULL},
    {"fixed_table", py_fixed_table, METH_VARARGS, NULL},
    {"fixed_power", py_fixed_power, METH_VARARGS, NULL},
    {"segments", py_segments, METH_VARARGS, NULL},
    {"buckets", py_buckets, METH_VARARGS, NULL},
    {"logs", py_logs, METH_VARARGS, NULL},
    {"count_digits", py_count_digits, METH_VARARGS, NULL},
    {"sort_digits", py_sort_digits, METH_VARARGS, NULL},
    {"ring128_matvec", py_ring128_matvec, METH_VARARGS, NULL},
    {"in_range", py_in_range, METH_VARARGS, NULL},
    {"mask", py_mask, METH_VARARGS, NULL},
    {"ring_product", py_ring_product, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "accel._native",
    .m_doc = "Native kernels; see accel/_native.pyi.",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__native(void) {
    PyObject *made = PyModule_Create(&definition);
    if (made && PyModule_AddFunctions(made, curve_methods)) {
        Py_CLEAR(made);
    }
    return made;
}
