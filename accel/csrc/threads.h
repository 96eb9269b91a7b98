/* A batch cut into slices, worked on by several native threads. Every batch kernel of accel takes its threads from here:
 * write the work as a slice_fn over [from, to) and call run_slices with the GIL released.
 *
 * Threads live for one call. There is no pool, hence nothing to inherit, lock or lose in a fork: a child may call any
 * kernel at once. (A fork while another thread is inside a call leaves that call to the parent, as with any C code.) */
#ifndef INTERCONN_THREADS_H
#define INTERCONN_THREADS_H

#include <stddef.h>

#define MAX_THREADS 64

/* Works on elements [from, to); returns 0, or non-zero for a failure of its own meaning. Slices share nothing. */
typedef int slice_fn(void *job, size_t from, size_t to);

/* Calls `work` on slices that cover [0, count), each a multiple of `grain` long but for the last, on at most `threads`
 * threads of which the caller is one. A thread that cannot be started is done without. Back comes the or of all results. */
int run_slices(slice_fn *work, void *job, size_t count, size_t grain, size_t threads);

#endif
