/* lanes_c - the words of lanes.h: an array in plain C (header only, private to kern/)
 *
 * Included by lanes.h alone, which says what each word does. Serves the parts that scalar kernels
 * share with the others (gemm_act.h). */
#ifndef HEARTH_LANES_C_H
#define HEARTH_LANES_C_H

typedef struct {
    float v[LANES];
} lanes;
typedef struct {
    int32_t v[LANES];
} ilanes;

INLINE void l_store(float *p, lanes x)
{
    memcpy(p, x.v, sizeof x.v);
}

INLINE lanes l_load(const float *p)
{
    lanes r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}

INLINE lanes l_set(float a)
{
    lanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = a;
    }
    return r;
}

INLINE float l_sum(lanes x)
{
    for (int n = LANES / 2; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) {
            x.v[i] = x.v[i] + x.v[i + n];
        }
    }
    return x.v[0];
}

INLINE float l_most(lanes x)
{
    float most = x.v[0];
    for (int i = 1; i < LANES; i++) {
        most = x.v[i] > most ? x.v[i] : most;
    }
    return most + 0.0f;
}

INLINE lanes l_add(lanes x, lanes y)
{
    lanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = x.v[i] + y.v[i];
    }
    return r;
}

INLINE lanes l_sub(lanes x, lanes y)
{
    lanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = x.v[i] - y.v[i];
    }
    return r;
}

INLINE lanes l_mul(lanes x, lanes y)
{
    lanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = x.v[i] * y.v[i];
    }
    return r;
}

INLINE lanes l_div(lanes x, lanes y)
{
    lanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = x.v[i] / y.v[i];
    }
    return r;
}

INLINE lanes l_fma(lanes x, lanes y, lanes z)
{
    lanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = fmaf(x.v[i], y.v[i], z.v[i]);
    }
    return r;
}

INLINE lanes l_max(lanes x, lanes y)
{
    lanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = x.v[i] > y.v[i] ? x.v[i] : y.v[i];
    }
    return r;
}

INLINE lanes l_min(lanes x, lanes y)
{
    lanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = x.v[i] < y.v[i] ? x.v[i] : y.v[i];
    }
    return r;
}

INLINE lanes l_less(lanes a, lanes b, lanes x, lanes y)
{
    lanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = a.v[i] < b.v[i] ? x.v[i] : y.v[i];
    }
    return r;
}

/* Bits as integers: for the exact maximum of absolute values, and for powers of two. */
INLINE ilanes l_bits(lanes x)
{
    ilanes r;
    memcpy(r.v, x.v, sizeof r.v);
    return r;
}

INLINE lanes l_from_bits(ilanes x)
{
    lanes r;
    memcpy(r.v, x.v, sizeof r.v);
    return r;
}

INLINE lanes l_power2(lanes t)
{
    ilanes r = l_bits(t);
    for (int i = 0; i < LANES; i++) {
        r.v[i] = (int32_t)((uint32_t)r.v[i] << 23);
    }
    return l_from_bits(r);
}

INLINE ilanes il_set(int32_t a)
{
    ilanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = a;
    }
    return r;
}

INLINE ilanes il_and(ilanes x, ilanes y)
{
    ilanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = x.v[i] & y.v[i];
    }
    return r;
}

INLINE ilanes il_max(ilanes x, ilanes y)
{
    ilanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = x.v[i] > y.v[i] ? x.v[i] : y.v[i];
    }
    return r;
}

INLINE ilanes il_sub(ilanes x, ilanes y)
{
    ilanes r;
    for (int i = 0; i < LANES; i++) {
        r.v[i] = (int32_t)((uint32_t)x.v[i] - (uint32_t)y.v[i]);
    }
    return r;
}

INLINE int32_t il_most(ilanes x)
{
    int32_t most = x.v[0];
    for (int i = 1; i < LANES; i++) {
        most = x.v[i] > most ? x.v[i] : most;
    }
    return most;
}

INLINE void il_store_i8(int8_t *p, ilanes x)
{
    for (int i = 0; i < LANES; i++) {
        p[i] = (int8_t)x.v[i];
    }
}

INLINE void l_sums_i8(const int8_t *p, int32_t sum[2])
{
    for (int h = 0; h < 2; h++) {
        sum[h] = 0;
        for (int i = 0; i < LANES; i++) {
            sum[h] += p[LANES * h + i];
        }
    }
}

#endif
