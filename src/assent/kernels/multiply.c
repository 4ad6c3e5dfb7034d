/* Products of float32 matrices with AVX-512: c = a b (+ bias), or c += a b.
 *
 * A tile of c, up to ROWS by COLUMNS, stays in registers while the depth runs. b is first laid out in panels
 * [columns / COLUMNS][depth][COLUMNS], zero beyond its last column, and a a block at a time, in rows or in steps that
 * follow each other. Each element of c is one sum in the order of the depth, whatever rows, columns or threads there
 * are beside it. Compiled by build.py at first use.
 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
static int omp_get_num_threads(void) { return 1; }
#endif

enum { ROWS = 14, COLUMNS = 32, LANES = 16, DEPTH = 256, PANELS = 16 };
enum { STRIDE = DEPTH + LANES }; /* between rows of a; a power of two would put them all on the same cache lines */

static inline __mmask16 first(int64_t n) { return n >= LANES ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }

/* One tile; `rows` and the strides of a are constants where this is called, so that the loops over rows unroll. */
static inline __attribute__((always_inline)) void tile(
    const int rows, const int64_t row, const int64_t step, const float *a, const float *b, int64_t depth, float *c,
    int64_t stride, const float *bias, int keep, __mmask16 low, __mmask16 high) {
    __m512 sum[ROWS][2];
    __m512 bias_low = bias ? _mm512_maskz_loadu_ps(low, bias) : _mm512_setzero_ps();
    __m512 bias_high = bias ? _mm512_maskz_loadu_ps(high, bias + LANES) : _mm512_setzero_ps();
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++) {
        sum[i][0] = keep ? _mm512_maskz_loadu_ps(low, c + i * stride) : bias_low;
        sum[i][1] = keep ? _mm512_maskz_loadu_ps(high, c + i * stride + LANES) : bias_high;
    }
    for (int64_t k = 0; k < depth; k++) {
        __m512 left = _mm512_loadu_ps(b), right = _mm512_loadu_ps(b + LANES);
#pragma GCC unroll 14
        for (int i = 0; i < rows; i++) {
            __m512 x = _mm512_set1_ps(a[i * row]);
            sum[i][0] = _mm512_fmadd_ps(x, left, sum[i][0]);
            sum[i][1] = _mm512_fmadd_ps(x, right, sum[i][1]);
        }
        a += step;
        b += COLUMNS;
    }
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++) {
        _mm512_mask_storeu_ps(c + i * stride, low, sum[i][0]);
        _mm512_mask_storeu_ps(c + i * stride + LANES, high, sum[i][1]);
    }
}

#define TILE(n)                                                                                    \
    case n:                                                                                        \
        if (by_depth) tile(n, 1, LANES, a, b, depth, c, stride, bias, keep, low, high);            \
        else tile(n, STRIDE, 1, a, b, depth, c, stride, bias, keep, low, high);                    \
        break;

static void tile_of(
    int rows, int by_depth, const float *a, const float *b, int64_t depth, float *c, int64_t stride, const float *bias,
    int keep, __mmask16 low, __mmask16 high) {
    switch (rows) {
        TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13)
        TILE(14)
    }
}

/* Rows of a that follow each other: `count` of them from `a`, `depth` of each. */
static void copy_rows(const float *a, int64_t row, int64_t count, int64_t depth, float *out) {
    for (int64_t i = 0; i < count; i++) memcpy(out + i * STRIDE, a + i * row, depth * sizeof(float));
}

/* The same where a is laid out by depth: `count` neighbours of each step. */
static void copy_steps(const float *a, int64_t step, int64_t count, int64_t depth, float *out) {
    __mmask16 these = first(count);
    for (int64_t k = 0; k < depth; k++) _mm512_storeu_ps(out + k * LANES, _mm512_maskz_loadu_ps(these, a + k * step));
}

static void transpose(__m512 x[LANES]) {
    __m512 y[LANES];
    for (int i = 0; i < LANES; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d p = _mm512_castps_pd(y[i + j]), q = _mm512_castps_pd(y[i + j + 2]);
            x[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, q));
            x[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, q));
        }
    for (int i = 0; i < LANES; i += 8)
        for (int j = 0; j < 4; j++) {
            y[i + j] = _mm512_shuffle_f32x4(x[i + j], x[i + j + 4], 0x88);
            y[i + j + 4] = _mm512_shuffle_f32x4(x[i + j], x[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        x[j] = _mm512_shuffle_f32x4(y[j], y[j + 8], 0x88);
        x[j + 8] = _mm512_shuffle_f32x4(y[j], y[j + 8], 0xdd);
    }
}

/* One panel of b: its first `count` columns, at most COLUMNS, in all their depth. One of the two strides is 1. */
static void pack_panel(const float *b, int64_t step, int64_t column, int64_t count, int64_t depth, float *out) {
    __mmask16 low = first(count), high = first(count - LANES);
    if (column == 1) {
        for (int64_t k = 0; k < depth; k++) {
            _mm512_storeu_ps(out + k * COLUMNS, _mm512_maskz_loadu_ps(low, b + k * step));
            _mm512_storeu_ps(out + k * COLUMNS + LANES, _mm512_maskz_loadu_ps(high, b + k * step + LANES));
        }
        return;
    }
    for (int64_t k = 0; k < depth; k += LANES)
        for (int half = 0; half < COLUMNS; half += LANES) {
            __m512 x[LANES];
            for (int j = 0; j < LANES; j++)
                x[j] = half + j < count ? _mm512_maskz_loadu_ps(first(depth - k), b + k + (half + j) * column)
                                        : _mm512_setzero_ps();
            transpose(x);
            for (int j = 0; j < LANES && k + j < depth; j++) _mm512_storeu_ps(out + (k + j) * COLUMNS + half, x[j]);
        }
}

/* c[rows, columns] = a[rows, depth] b[depth, columns] + bias[columns], or without bias, or c += a b.
 *
 * a: strides `row` and `a_step`, one of them 1. b: strides `b_step` and `column`, one of them 1; or in panels, where
 * b_step is 0. scratch: `wide` * depth floats for b (none where it is in panels), then PANELS * LANES * STRIDE for each
 * thread. wide: columns of b that are laid out at once, a multiple of COLUMNS. */
void multiply(
    const float *a, const float *b, const float *bias, float *c, float *scratch, int64_t row, int64_t a_step,
    int64_t b_step, int64_t column, int64_t stride, int64_t rows, int64_t columns, int64_t depth, int64_t wide,
    int32_t keep, int32_t threads) {
    int in_panels = b_step == 0, by_depth = a_step != 1;
    int64_t tall = (rows + ROWS - 1) / ROWS;
    tall = tall ? (rows + tall - 1) / tall : ROWS; /* 32 rows are 11, 11 and 10 */
    int64_t panels = (rows + tall - 1) / tall;
    float *blocks = scratch + (in_panels ? 0 : wide * depth);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
        float *block = blocks + me * PANELS * LANES * STRIDE;
        int64_t from = panels * me / all, to = panels * (me + 1) / all;
        for (int64_t j = 0; j < columns; j += wide) {
            int64_t here = columns - j < wide ? columns - j : wide;
            const float *panel = in_panels ? b + j * depth : scratch;
            if (!in_panels) {
#pragma omp for
                for (int64_t n = 0; n < here; n += COLUMNS)
                    pack_panel(
                        b + (j + n) * column, b_step, column, here - n < COLUMNS ? here - n : COLUMNS, depth,
                        scratch + n * depth);
            }
            for (int64_t k = 0; k < depth; k += DEPTH) {
                int64_t deep = depth - k < DEPTH ? depth - k : DEPTH;
                for (int64_t p = from; p < to; p += PANELS) {
                    int64_t some = to - p < PANELS ? to - p : PANELS;
                    for (int64_t i = 0; i < some; i++) {
                        int64_t at = (p + i) * tall, count = rows - at < tall ? rows - at : tall;
                        float *out = block + i * LANES * STRIDE;
                        if (by_depth) copy_steps(a + at * row + k * a_step, a_step, count, deep, out);
                        else copy_rows(a + at * row + k * a_step, row, count, deep, out);
                    }
                    for (int64_t i = 0; i < some; i++)
                        for (int64_t n = 0; n < here; n += COLUMNS) {
                            int64_t at = (p + i) * tall, count = rows - at < tall ? rows - at : tall;
                            tile_of(
                                (int)count, by_depth, block + i * LANES * STRIDE, panel + n * depth + k * COLUMNS, deep,
                                c + at * stride + j + n, stride, bias ? bias + j + n : 0, k ? 1 : keep,
                                first(here - n), first(here - n - LANES));
                        }
                }
            }
            if (!in_panels) {
#pragma omp barrier
            }
        }
    }
}
