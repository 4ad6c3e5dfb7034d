/* Attention of one new token per slot over its cached keys and values, and the writing of its own.
 *
 * Each slot reads its own length and no more, and is computed in an order that no other slot changes. Compiled by
 * build.py at first use; rollout/cache.py has the same in torch operations.
 */
#include <stdint.h>
#include <string.h>

enum { LANES = 8 };

/* exp(x) for x <= 0 to about 2 units in the last place; nan stays nan. */
static inline float exp_below(float x) {
    x = x < -87.0f ? -87.0f : x;
    float whole = x * 1.44269504f + 12582912.0f; /* rounds to the nearest integer */
    int32_t power;
    memcpy(&power, &whole, sizeof power);
    whole -= 12582912.0f;
    float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * rest + 1.3981999507e-3f;
    y = y * rest + 8.3334519073e-3f;
    y = y * rest + 4.1665795894e-2f;
    y = y * rest + 1.6666665459e-1f;
    y = y * rest + 5.0000001201e-1f;
    y = y * rest * rest + rest + 1.0f;
    int32_t bits = (int32_t)((uint32_t)power << 23) + 0x3f800000;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return y * scale;
}

static float largest(const float *x, int64_t n) {
    float lanes[LANES];
    int64_t i = 0;
    for (int l = 0; l < LANES; l++) lanes[l] = x[0];
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
    for (; i < n; i++) lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
    for (int l = 1; l < LANES; l++) lanes[0] = lanes[l] > lanes[0] ? lanes[l] : lanes[0];
    return lanes[0];
}

static float sum(const float *x, int64_t n) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) lanes[l] += x[i + l];
    for (; i < n; i++) lanes[0] += x[i];
    for (int l = 1; l < LANES; l++) lanes[0] += lanes[l];
    return lanes[0];
}

/* One query: softmax(scale * q . keys) values over `seen` places; `scores` has room for them. */
static void attend_one(const float *restrict q, const float *restrict keys, const float *restrict values,
                       float *restrict scores, float *restrict out, int64_t seen, int64_t dim, int64_t length,
                       float scale) {
    for (int64_t t = 0; t < seen; t++) scores[t] = 0.0f;
    for (int64_t d = 0; d < dim; d++) {
        const float *restrict row = keys + d * length;
        const float by = q[d] * scale;
        for (int64_t t = 0; t < seen; t++) scores[t] += by * row[t];
    }
    const float top = largest(scores, seen);
    for (int64_t t = 0; t < seen; t++) scores[t] = exp_below(scores[t] - top);
    const float share = 1.0f / sum(scores, seen);
    for (int64_t d = 0; d < dim; d++) out[d] = 0.0f;
    for (int64_t t = 0; t < seen; t++) {
        const float *restrict row = values + t * dim;
        const float weight = scores[t] * share;
        for (int64_t d = 0; d < dim; d++) out[d] += weight * row[d];
    }
}

/* q [rows, heads, dim], k and v [rows, kv_heads, dim], rows `*_stride` floats apart; keys [slots, kv_heads, dim, length]
 * and values [slots, kv_heads, length, dim] of one layer; out [rows, heads, dim]; `scratch` is threads * length floats.
 */
void attend(const float *q, const float *k, const float *v, float *keys, float *values, const int64_t *positions,
            float *out, float *scratch, int64_t q_stride, int64_t k_stride, int64_t v_stride, int64_t rows,
            int64_t heads, int64_t kv_heads, int64_t dim, int64_t length, float scale, int32_t threads) {
    const int64_t group = heads / kv_heads;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
#endif
    for (int64_t part = 0; part < threads; part++) {
        float *scores = scratch + part * length;
        for (int64_t unit = part * rows * kv_heads / threads; unit < (part + 1) * rows * kv_heads / threads; unit++) {
            const int64_t row = unit / kv_heads, head = unit % kv_heads, at = positions[row];
            float *own_keys = keys + unit * dim * length, *own_values = values + unit * dim * length;
            for (int64_t d = 0; d < dim; d++) own_keys[d * length + at] = k[row * k_stride + head * dim + d];
            memcpy(own_values + at * dim, v + row * v_stride + head * dim, dim * sizeof(float));
            for (int64_t h = head * group; h < (head + 1) * group; h++)
                attend_one(q + row * q_stride + h * dim, own_keys, own_values, scores, out + (row * heads + h) * dim,
                           at + 1, dim, length, scale);
        }
    }
}
