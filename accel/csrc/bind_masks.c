/* The binding of masks and ring products: lengths and ranges checked, the GIL released. */
#include "binding.h"

#include <string.h>

#include "masks.h"
#include "rings.h"

static PyObject *wrong(const char *what) {
    PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

/* mask(core, cipher, op, width, key, nonce, start, out, values): out = values op stream; start counts bytes */
PyObject *py_mask(PyObject *self, PyObject *args) {
    const char *name;
    int cipher, op, width;
    unsigned long long start;
    Py_buffer secret, nonce, out, values;
    (void)self;
    if (!PyArg_ParseTuple(args, "siiiy*y*Kw*y*", &name, &cipher, &op, &width, &secret, &nonce, &start, &out, &values)) {
        return NULL;
    }
    const mask_core *core = mask_core_of(name);
    const int aes = cipher == MASK_AES128_CTR;
    const int bad = !core || (cipher != MASK_AES128_CTR && cipher != MASK_CHACHA20) || op < MASK_SET || op > MASK_XOR ||
                    (width != 4 && width != 8 && width != 16) || secret.len != (aes ? 16 : 32) ||
                    nonce.len != (aes ? 16 : 12) || values.len != out.len || out.len % width || start % (unsigned)width ||
                    start > UINT64_MAX / 2 ||
                    (!aes && start + (unsigned long long)out.len > (UINT64_C(1) << 32) * 64);
    if (!bad && out.len) {
        Py_BEGIN_ALLOW_THREADS;
        mask_key key;
        mask_key_init(&key, (enum mask_cipher)cipher, secret.buf, nonce.buf);
        mask_run(core, &key, start, (enum mask_op)op, (unsigned)width, out.buf, values.buf, (size_t)out.len);
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

/* ring_product(core, words, out, a, b, n, k, m, transposed, onto): words 1 or 2 an element */
PyObject *py_ring_product(PyObject *self, PyObject *args) {
    const char *name;
    int element, transposed, onto;
    Py_ssize_t n, k, m;
    Py_buffer out, a, b;
    (void)self;
    if (!PyArg_ParseTuple(args, "siw*y*y*nnnpp", &name, &element, &out, &a, &b, &n, &k, &m, &transposed, &onto)) {
        return NULL;
    }
    const Py_ssize_t top = (Py_ssize_t)1 << 30;
    const Py_ssize_t size = 8 * (Py_ssize_t)element;
    int vector = 0, bad = (element != 1 && element != 2) || n < 0 || k < 0 || m < 0 || n >= top || k >= top || m >= top;
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
        const ring_shape shape = {(size_t)n, (size_t)k, (size_t)m, transposed, onto};
        Py_BEGIN_ALLOW_THREADS;
        if (element == 2) {
            ring128_product(&shape, out.buf, a.buf, b.buf);
#ifdef HAVE_RINGS_AVX512
        } else if (vector) {
            failed = ring64_product_avx512(&shape, out.buf, a.buf, b.buf);
#endif
        } else {
            ring64_product_portable(&shape, out.buf, a.buf, b.buf);
        }
        Py_END_ALLOW_THREADS;
    }
    (void)vector;
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
