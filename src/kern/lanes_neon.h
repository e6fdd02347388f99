/* lanes_neon - the words of lanes.h: four 128-bit registers (header only, private to kern/)
 *
 * Included by lanes.h alone, which says what each word does. Comparisons select explicitly, because
 * the maximum instructions of this architecture treat NaN in another way than those of x86: fmax
 * gives the NaN, maxps the second operand. vfmaq takes the addend first. Subnormals are kept, as
 * the default mode of 64-bit ARM has it; so are they in half precision. */
#ifndef HEARTH_LANES_NEON_H
#define HEARTH_LANES_NEON_H

#include <arm_neon.h>

typedef struct {
    float32x4_t a;
    float32x4_t b;
    float32x4_t c;
    float32x4_t d;
} lanes;
typedef struct {
    int32x4_t a;
    int32x4_t b;
    int32x4_t c;
    int32x4_t d;
} ilanes;

INLINE lanes l_set(float a)
{
    const float32x4_t v = vdupq_n_f32(a);
    return (lanes){ v, v, v, v };
}

INLINE lanes l_load(const float *p)
{
    return (lanes){ vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12) };
}

INLINE void l_store(float *p, lanes x)
{
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}

INLINE float l_sum(lanes x)
{
    const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

INLINE float l_most(lanes x)
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.c), vmaxq_f32(x.b, x.d))) + 0.0f;
}

INLINE lanes l_add(lanes x, lanes y)
{
    return (lanes){ vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c),
                    vaddq_f32(x.d, y.d) };
}

INLINE lanes l_sub(lanes x, lanes y)
{
    return (lanes){ vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c),
                    vsubq_f32(x.d, y.d) };
}

INLINE lanes l_mul(lanes x, lanes y)
{
    return (lanes){ vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c),
                    vmulq_f32(x.d, y.d) };
}

INLINE lanes l_div(lanes x, lanes y)
{
    return (lanes){ vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c),
                    vdivq_f32(x.d, y.d) };
}

INLINE lanes l_fma(lanes x, lanes y, lanes z)
{
    return (lanes){ vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
                    vfmaq_f32(z.d, x.d, y.d) };
}

INLINE lanes l_less(lanes a, lanes b, lanes x, lanes y)
{
    return (lanes){ vbslq_f32(vcltq_f32(a.a, b.a), x.a, y.a),
                    vbslq_f32(vcltq_f32(a.b, b.b), x.b, y.b),
                    vbslq_f32(vcltq_f32(a.c, b.c), x.c, y.c),
                    vbslq_f32(vcltq_f32(a.d, b.d), x.d, y.d) };
}

INLINE lanes l_max(lanes x, lanes y)
{
    return l_less(y, x, x, y);
}

INLINE lanes l_min(lanes x, lanes y)
{
    return l_less(x, y, x, y);
}

INLINE float32x4_t l_power2_4(float32x4_t t)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(t), 23));
}

INLINE lanes l_power2(lanes t)
{
    return (lanes){ l_power2_4(t.a), l_power2_4(t.b), l_power2_4(t.c), l_power2_4(t.d) };
}

INLINE float32x4_t l_widen_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

INLINE lanes l_load_f16(const uint16_t *p)
{
    return (lanes){ l_widen_f16(p), l_widen_f16(p + 4), l_widen_f16(p + 8), l_widen_f16(p + 12) };
}

INLINE void l_store_f16(uint16_t *p, lanes x)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x.a)));
    vst1_u16(p + 4, vreinterpret_u16_f16(vcvt_f16_f32(x.b)));
    vst1_u16(p + 8, vreinterpret_u16_f16(vcvt_f16_f32(x.c)));
    vst1_u16(p + 12, vreinterpret_u16_f16(vcvt_f16_f32(x.d)));
}

INLINE lanes l_load_i8(const int8_t *p)
{
    const int8x16_t v = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(v));
    const int16x8_t high = vmovl_s8(vget_high_s8(v));
    return (lanes){ vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                    vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                    vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))) };
}

INLINE void l_load2(const float *p, lanes *even, lanes *odd)
{
    const float32x4x2_t a = vld2q_f32(p);
    const float32x4x2_t b = vld2q_f32(p + 8);
    const float32x4x2_t c = vld2q_f32(p + 16);
    const float32x4x2_t d = vld2q_f32(p + 24);
    *even = (lanes){ a.val[0], b.val[0], c.val[0], d.val[0] };
    *odd = (lanes){ a.val[1], b.val[1], c.val[1], d.val[1] };
}

INLINE void l_store2(float *p, lanes even, lanes odd)
{
    const float32x4x2_t a = { { even.a, odd.a } };
    const float32x4x2_t b = { { even.b, odd.b } };
    const float32x4x2_t c = { { even.c, odd.c } };
    const float32x4x2_t d = { { even.d, odd.d } };
    vst2q_f32(p, a);
    vst2q_f32(p + 8, b);
    vst2q_f32(p + 16, c);
    vst2q_f32(p + 24, d);
}

/* Bits as integers: for the exact maximum of absolute values. */
INLINE ilanes l_bits(lanes x)
{
    return (ilanes){ vreinterpretq_s32_f32(x.a), vreinterpretq_s32_f32(x.b),
                     vreinterpretq_s32_f32(x.c), vreinterpretq_s32_f32(x.d) };
}

INLINE lanes l_from_bits(ilanes x)
{
    return (lanes){ vreinterpretq_f32_s32(x.a), vreinterpretq_f32_s32(x.b),
                    vreinterpretq_f32_s32(x.c), vreinterpretq_f32_s32(x.d) };
}

INLINE ilanes il_set(int32_t a)
{
    const int32x4_t v = vdupq_n_s32(a);
    return (ilanes){ v, v, v, v };
}

INLINE ilanes il_and(ilanes x, ilanes y)
{
    return (ilanes){ vandq_s32(x.a, y.a), vandq_s32(x.b, y.b), vandq_s32(x.c, y.c),
                     vandq_s32(x.d, y.d) };
}

INLINE ilanes il_max(ilanes x, ilanes y)
{
    return (ilanes){ vmaxq_s32(x.a, y.a), vmaxq_s32(x.b, y.b), vmaxq_s32(x.c, y.c),
                     vmaxq_s32(x.d, y.d) };
}

INLINE ilanes il_sub(ilanes x, ilanes y)
{
    return (ilanes){ vsubq_s32(x.a, y.a), vsubq_s32(x.b, y.b), vsubq_s32(x.c, y.c),
                     vsubq_s32(x.d, y.d) };
}

INLINE int32_t il_most(ilanes x)
{
    return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.a, x.b), vmaxq_s32(x.c, x.d)));
}

INLINE void il_store_i8(int8_t *p, ilanes x)
{
    const int16x8_t a = vcombine_s16(vmovn_s32(x.a), vmovn_s32(x.b));
    const int16x8_t b = vcombine_s16(vmovn_s32(x.c), vmovn_s32(x.d));
    vst1q_s8(p, vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
}

INLINE void l_sums_i8(const int8_t *p, int32_t sum[2])
{
    sum[0] = vaddlvq_s8(vld1q_s8(p));
    sum[1] = vaddlvq_s8(vld1q_s8(p + LANES));
}

/* For attention's integers. */
INLINE ilanes il_load(const void *p)
{
    const int32_t *at = p;
    return (ilanes){ vld1q_s32(at), vld1q_s32(at + 4), vld1q_s32(at + 8), vld1q_s32(at + 12) };
}

INLINE ilanes il_left16(ilanes x)
{
    return (ilanes){ vshlq_n_s32(x.a, 16), vshlq_n_s32(x.b, 16), vshlq_n_s32(x.c, 16),
                     vshlq_n_s32(x.d, 16) };
}

INLINE int32x4_t il_right16_4(int32x4_t x)
{
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(x), 16));
}

INLINE ilanes il_right16(ilanes x)
{
    return (ilanes){ il_right16_4(x.a), il_right16_4(x.b), il_right16_4(x.c), il_right16_4(x.d) };
}

INLINE ilanes il_add(ilanes x, ilanes y)
{
    return (ilanes){ vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c),
                     vaddq_s32(x.d, y.d) };
}

typedef struct {
    int8x16_t v[4];
} bytes4;
typedef struct {
    int16x8_t v[4];
} shorts2;

INLINE lanes l_from_int(ilanes x)
{
    return (lanes){ vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c),
                    vcvtq_f32_s32(x.d) };
}

INLINE void l_store_i16(int16_t *p, lanes x)
{
    vst1q_s16(p, vcombine_s16(vmovn_s32(vcvtnq_s32_f32(x.a)), vmovn_s32(vcvtnq_s32_f32(x.b))));
    vst1q_s16(p + 8, vcombine_s16(vmovn_s32(vcvtnq_s32_f32(x.c)), vmovn_s32(vcvtnq_s32_f32(x.d))));
}

INLINE bytes4 f_load(const uint8_t *p)
{
    bytes4 f;
    for (int i = 0; i < 4; i++) {
        f.v[i] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + 16 * i), vdupq_n_u8(0x80)));
    }
    return f;
}

INLINE ilanes f_start(int32_t sum)
{
    (void)sum;
    return il_set(0);
}

/* Two products stay below 2^15. */
INLINE int32x4_t f_dot_quarter(int32x4_t acc, int8x16_t x, int8x16_t y)
{
    return vpadalq_s16(acc,
                       vpaddq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(y)), vmull_high_s8(x, y)));
}

INLINE ilanes f_dot(ilanes acc, bytes4 x, const int8_t *y)
{
    int32_t four;
    memcpy(&four, y, sizeof four);
    const int8x16_t v = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return (ilanes){ f_dot_quarter(acc.a, x.v[0], v), f_dot_quarter(acc.b, x.v[1], v),
                     f_dot_quarter(acc.c, x.v[2], v), f_dot_quarter(acc.d, x.v[3], v) };
}

INLINE shorts2 t_load(const int8_t *p)
{
    const int8x16_t low = vld1q_s8(p);
    const int8x16_t high = vld1q_s8(p + 16);
    return (shorts2){ { vmovl_s8(vget_low_s8(low)), vmovl_high_s8(low), vmovl_s8(vget_low_s8(high)),
                        vmovl_high_s8(high) } };
}

INLINE int32x4_t t_dot_quarter(int32x4_t acc, int16x8_t x, int16x8_t y)
{
    return vaddq_s32(acc,
                     vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
}

INLINE ilanes t_dot(ilanes acc, shorts2 x, const int16_t *y)
{
    int32_t two;
    memcpy(&two, y, sizeof two);
    const int16x8_t v = vreinterpretq_s16_s32(vdupq_n_s32(two));
    return (ilanes){ t_dot_quarter(acc.a, x.v[0], v), t_dot_quarter(acc.b, x.v[1], v),
                     t_dot_quarter(acc.c, x.v[2], v), t_dot_quarter(acc.d, x.v[3], v) };
}

#endif
