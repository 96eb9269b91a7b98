/* See threads.h. */
#define _POSIX_C_SOURCE 200809L /* the masks of signals, which musl shows only if asked */
#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

/* The frames of the largest kernel take 120 KiB, and a thread's stack has 128 KiB with musl if nobody asks for more. */
#define STACK ((size_t)1 << 20)

typedef struct {
    slice_fn *work;
    void *job;
    size_t count, grain, threads;
    atomic_size_t next; /* first element that nobody has taken */
    atomic_int result;
} share;

static void *take_slices(void *shared) {
    share *s = shared;
    size_t from = atomic_load(&s->next), to;
    for (;;) {
        /* Half of this thread's part of what is left: no thread waits long for another that was late or held up. */
        do {
            if (from >= s->count) {
                return NULL;
            }
            const size_t left = s->count - from, part = left / s->grain / (2 * s->threads) * s->grain;
            to = from + (part ? part : left < s->grain ? left : s->grain);
        } while (!atomic_compare_exchange_weak(&s->next, &from, to));
        int result = s->work(s->job, from, to);
        if (result) {
            atomic_fetch_or(&s->result, result);
        }
        from = atomic_load(&s->next);
    }
}

int run_slices(slice_fn *work, void *job, size_t count, size_t grain, size_t threads) {
    size_t pieces = (count + grain - 1) / grain;
    threads = threads > MAX_THREADS ? MAX_THREADS : threads;
    threads = threads > pieces ? pieces : threads;
    if (threads <= 1) {
        return count ? work(job, 0, count) : 0;
    }
    share s = {.work = work, .job = job, .count = count, .grain = grain, .threads = threads};
    pthread_t started[MAX_THREADS];
    size_t running = 0;
    pthread_attr_t attributes;
    sigset_t all, before;
    /* Signals are Python's business, in its own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!pthread_attr_init(&attributes)) {
        pthread_attr_setstacksize(&attributes, STACK);
        while (running + 1 < threads && !pthread_create(&started[running], &attributes, take_slices, &s)) {
            running++;
        }
        pthread_attr_destroy(&attributes);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    take_slices(&s);
    while (running) {
        pthread_join(started[--running], NULL);
    }
    return atomic_load(&s.result);
}
