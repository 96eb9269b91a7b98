/* The binding of masks and ring products: lengths and ranges checked, the GIL released. */
#include "binding.h"

#include <stdlib.h>
#include <string.h>

#include "masks.h"
#include "rings.h"
#include "threads.h"

static PyObject *wrong(const char *what) {
    PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

typedef struct {
    const mask_core *core;
    const mask_key *key;
    uint64_t start;
    enum mask_op op;
    unsigned width;
    uint8_t *out;
    const uint8_t *in;
    size_t size;
} mask_job;

#define MASK_UNIT 64     /* bytes: slices are cut at blocks of either cipher where the array starts at one */
#define MASK_GRAIN 4096 /* units of a slice: a quarter of a megabyte */
#define AES_WORTH 4     /* slices that are worth a thread: its start takes as long as AES-CTR for some 700 KB */

static int slice_mask(void *data, size_t from, size_t to) {
    const mask_job *j = data;
    const size_t at = from * MASK_UNIT, end = to * MASK_UNIT < j->size ? to * MASK_UNIT : j->size;
    mask_run(j->core, j->key, j->start + at, j->op, j->width, j->out + at, j->in + at, end - at);
    return 0;
}

/* mask(core, cipher, op, width, key, nonce, start, out, values, threads): out = values op stream; start counts bytes */
PyObject *py_mask(PyObject *self, PyObject *args) {
    const char *name;
    int cipher, op, width;
    unsigned long long start;
    Py_ssize_t threads;
    Py_buffer secret, nonce, out, values;
    (void)self;
    if (!PyArg_ParseTuple(args, "siiiy*y*Kw*y*n", &name, &cipher, &op, &width, &secret, &nonce, &start, &out, &values,
                          &threads)) {
        return NULL;
    }
    const mask_core *core = mask_core_of(name);
    const int aes = cipher == MASK_AES128_CTR;
    const int bad = !core || threads < 1 || (cipher != MASK_AES128_CTR && cipher != MASK_CHACHA20) || op < MASK_SET || op > MASK_XOR ||
                    (width != 4 && width != 8 && width != 16) || secret.len != (aes ? 16 : 32) ||
                    nonce.len != (aes ? 16 : 12) || values.len != out.len || out.len % width || start % (unsigned)width ||
                    start > UINT64_MAX / 2 ||
                    (!aes && start + (unsigned long long)out.len > (UINT64_C(1) << 32) * 64);
    if (!bad && out.len) {
        Py_BEGIN_ALLOW_THREADS;
        mask_key key;
        mask_key_init(&key, (enum mask_cipher)cipher, secret.buf, nonce.buf);
        mask_job job = {core, &key, start, (enum mask_op)op, (unsigned)width, out.buf, values.buf, (size_t)out.len};
        const size_t worth = job.size / (MASK_UNIT * MASK_GRAIN * (aes ? AES_WORTH : 1)), most = worth ? worth : 1;
        run_slices(slice_mask, &job, (job.size + MASK_UNIT - 1) / MASK_UNIT, MASK_GRAIN,
                   (size_t)threads < most ? (size_t)threads : most);
        volatile uint8_t *gone = (volatile uint8_t *)&key;
        for (size_t i = 0; i < sizeof key; i++) {
            gone[i] = 0;
        }
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&secret);
    PyBuffer_Release(&nonce);
    PyBuffer_Release(&out);
    PyBuffer_Release(&values);
    if (bad) {
        return wrong("a core that cannot run here, or an argument outside its range");
    }
    Py_RETURN_NONE;
}

typedef struct {
    ring_shape shape;
    size_t words; /* an element */
    int vector;
    uint64_t *out;
    const uint64_t *a, *b;
    uint64_t *sums; /* transposed and cut: one result for each part but the first, which goes to out */
    size_t parts;
} ring_job;

/* The product of rows [from, to) of a, to out */
static int rows_product(const ring_job *j, uint64_t *out, size_t from, size_t to, int onto) {
    ring_shape s = j->shape;
    s.n = to - from;
    s.onto = onto;
    const uint64_t *a = j->a + from * s.k * j->words, *b = j->b + (s.transposed ? from * s.m * j->words : 0);
    if (j->words == 2) {
        ring128_product(&s, out, a, b);
        return 0;
    }
#ifdef HAVE_RINGS_AVX512
    if (j->vector) {
        return ring64_product_avx512(&s, out, a, b);
    }
#endif
    ring64_product_portable(&s, out, a, b);
    return 0;
}

static int slice_rows(void *data, size_t from, size_t to) {
    const ring_job *j = data;
    return rows_product(j, j->out + from * j->shape.m * j->words, from, to, j->shape.onto);
}

static int slice_parts(void *data, size_t from, size_t to) {
    const ring_job *j = data;
    const size_t n = j->shape.n, size = j->shape.k * j->shape.m * j->words, step = (n + j->parts - 1) / j->parts;
    int failed = 0;
    for (size_t p = from; p < to; p++) {
        const size_t first = p * step < n ? p * step : n, end = first + step < n ? first + step : n;
        failed |= p ? rows_product(j, j->sums + (p - 1) * size, first, end, 0)
                    : rows_product(j, j->out, first, end, j->shape.onto);
    }
    return failed;
}

#define RING_GRAIN 32768 /* words of a that are worth a thread */

static int run_ring(ring_job *j, size_t threads) {
    const ring_shape *s = &j->shape;
    const size_t row = s->k ? s->k * j->words : 1, grain = (RING_GRAIN / row + 8) & ~(size_t)7;
    if (!s->transposed) {
        return run_slices(slice_rows, j, s->n, grain, threads);
    }
    /* Every part sums its own rows; results that weigh more than the rows are not worth it. */
    threads = threads > MAX_THREADS ? MAX_THREADS : threads;
    j->parts = s->n / grain < threads ? s->n / grain : threads;
    const size_t size = s->k * s->m * j->words;
    if (j->parts > 1 && s->m <= s->n / j->parts) {
        j->sums = malloc((j->parts - 1) * size * sizeof *j->sums);
    }
    if (!j->sums) {
        return rows_product(j, j->out, 0, s->n, s->onto);
    }
    const int failed = run_slices(slice_parts, j, j->parts, 1, threads);
    for (size_t p = 1; p < j->parts; p++) {
        ring_add(j->out, j->sums + (p - 1) * size, size, j->words);
    }
    volatile uint64_t *gone = j->sums; /* they may be shares */
    for (size_t i = 0; i < (j->parts - 1) * size; i++) {
        gone[i] = 0;
    }
    free(j->sums);
    return failed;
}

/* ring_product(core, words, out, a, b, n, k, m, transposed, onto, threads): words 1 or 2 an element */
PyObject *py_ring_product(PyObject *self, PyObject *args) {
    const char *name;
    int element, transposed, onto;
    Py_ssize_t n, k, m, threads;
    Py_buffer out, a, b;
    (void)self;
    if (!PyArg_ParseTuple(args, "siw*y*y*nnnppn", &name, &element, &out, &a, &b, &n, &k, &m, &transposed, &onto,
                          &threads)) {
        return NULL;
    }
    const Py_ssize_t top = (Py_ssize_t)1 << 30;
    const Py_ssize_t size = 8 * (Py_ssize_t)element;
    int vector = 0, bad = threads < 1 || (element != 1 && element != 2) || n < 0 || k < 0 || m < 0 || n >= top || k >= top || m >= top;
    /* 2^60 products of counts would run over when turned to bytes: compare by division */
#define HOLDS(buffer, rows, cols) \
    ((buffer).len % size == 0 && ((rows) == 0 || (cols) == 0 ? (buffer).len == 0 : (buffer).len / size == (rows) * (cols)))
    bad = bad || !HOLDS(a, n, k) || !HOLDS(b, transposed ? n : k, m) || !HOLDS(out, transposed ? k : n, m) ||
          ((uintptr_t)out.buf | (uintptr_t)a.buf | (uintptr_t)b.buf) % 8;
#undef HOLDS
#ifdef HAVE_RINGS_AVX512
    if (!strcmp(name, "avx512ifma")) {
        vector = 1;
        bad = bad || !ring64_avx512_usable();
    } else
#endif
    {
        bad = bad || strcmp(name, "portable") != 0;
    }
    int failed = 0;
    if (!bad) {
        ring_job job = {.shape = {(size_t)n, (size_t)k, (size_t)m, transposed, onto}, .words = (size_t)element,
                        .vector = vector, .out = out.buf, .a = a.buf, .b = b.buf};
        Py_BEGIN_ALLOW_THREADS;
        failed = run_ring(&job, (size_t)threads);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&a);
    PyBuffer_Release(&b);
    if (bad) {
        return wrong("a core that cannot run here, or buffers that do not fit the shape");
    }
    if (failed) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}
