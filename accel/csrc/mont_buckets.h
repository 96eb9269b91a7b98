/* The sums of a multi-exponentiation by buckets, written once; included by every core after mont_algos.h. Beyond what
 * that header asks for, the core defines
 *   lanes_merge(ctx, x, y, which)      lane l of x becomes that of y where bit l of `which` is set
 * Time and addresses depend on idx and starts. */

/* What one lane works on. */
typedef struct {
    size_t task, size; /* bucket `size` of the task's; 0: all are done */
    int64_t at, end;   /* terms of that bucket which are left */
    int busy, running, weighted; /* whether there is a task, and whether its two sums have begun */
} bucket_lane;

/* out[2 t] = product over sizes s of bucket (t, s) to the power s, out[2 t + 1] = product of the buckets; bucket (t, s) is
 * the product of src[idx[j]] for starts[t * sizes + s - 1] <= j < starts[t * sizes + s]. Tasks come from `next`, which
 * other threads may share.
 *
 * From the largest size down: every term is multiplied into a running product, and that into the weighted one at the end
 * of each size. The lanes do not wait for each other: in one step some take a term and some weigh. */
static TARGET int batch_buckets(const mont_ctx *ctx, uint64_t *out, const uint64_t *src, const int64_t *idx,
                                const int64_t *starts, size_t sizes, size_t tasks, atomic_size_t *next) {
    const size_t row = ctx->stride;
    uint64_t *run = lanes_new(ctx, 3), *sum = run + LANE_WORDS(ctx), *y = sum + LANE_WORDS(ctx);
    if (!run) {
        return -1;
    }
    bucket_lane lanes[LANES] = {{0}};
    for (;;) {
        const uint64_t *rows[LANES];
        unsigned weigh = 0;
        int busy = 0;
        for (size_t l = 0; l < LANES; l++) {
            bucket_lane *b = &lanes[l];
            rows[l] = ctx->one;
            for (;;) {
                if (!b->busy) {
                    const size_t task = atomic_load(next) < tasks ? atomic_fetch_add(next, 1) : tasks;
                    if (task >= tasks) {
                        break;
                    }
                    const int64_t *last = starts + task * sizes + sizes;
                    *b = (bucket_lane){.task = task, .size = sizes, .at = last[-1], .end = last[0], .busy = 1};
                }
                if (!b->size) {
                    uint64_t *to = out + 2 * b->task * row;
                    if (b->running) {
                        lane_get(ctx, to, sum, l);
                        lane_get(ctx, to + row, run, l);
                    } else {
                        memcpy(to, ctx->one, row * sizeof *to);
                        memcpy(to + row, ctx->one, row * sizeof *to);
                    }
                    b->busy = 0;
                } else if (b->at < b->end) {
                    const uint64_t *term = src + idx[b->at++] * row;
                    if (b->running) {
                        rows[l] = term;
                        busy = 1;
                        break;
                    }
                    lane_put(ctx, run, l, term);
                    b->running = 1;
                } else {
                    const int begun = b->running, weighted = b->weighted;
                    b->weighted = begun;
                    if (--b->size) {
                        const int64_t *below = starts + b->task * sizes + b->size;
                        b->at = below[-1];
                        b->end = below[0];
                    }
                    if (weighted) {
                        weigh |= 1u << l;
                        busy = 1;
                        break;
                    }
                    if (begun) {
                        lanes_merge(ctx, sum, run, 1u << l);
                    }
                }
            }
            if (b->busy && b->at < b->end) {
                const uint64_t *soon = src + idx[b->at] * row;
                for (size_t j = 0; j < row; j += 8) {
                    __builtin_prefetch(soon + j);
                }
            }
        }
        if (!busy) {
            break;
        }
        lanes_load(ctx, y, rows);
        if (weigh) {
            lanes_merge(ctx, y, sum, weigh);
            lanes_mul(ctx, y, run, y);
            lanes_merge(ctx, sum, y, weigh);
            lanes_merge(ctx, run, y, ~weigh);
        } else {
            lanes_mul(ctx, run, run, y);
        }
    }
    lanes_free(ctx, run, 3);
    return 0;
}
