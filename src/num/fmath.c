/* fmath - exp, log, pow, sin, cos in double precision with the same bits everywhere
 *
 * The C library's versions differ between libraries, versions and processors in the last place.
 * That is enough to change a sampled token or a rotated key, so whatever feeds the model or the
 * sampler is computed here: additions, multiplications and divisions of doubles in a fixed order,
 * which IEEE 754 defines to the last bit. The compiler may not contract them (-ffp-contract=off).
 *
 * Methods are the classic ones: argument reduction by a constant split into high and low parts
 * (Cody & Waite 1980), then a polynomial: Taylor terms where the reduced range is small enough for
 * them to be as good as minimax ones. For sin and cos the quotient by pi/2 is taken with pi/2 in
 * three parts of 33 bits, so that products with quotients below 2^20 are exact, and in two steps
 * for larger ones.
 *
 * Accuracy is checked in tests/test_numerics.c against long double. Next: kern/vec_ref.c. */
#include "num/fmath.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static double from_bits(uint64_t u)
{
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

static uint64_t to_bits(double d)
{
    uint64_t u;
    memcpy(&u, &d, sizeof u);
    return u;
}

/* x rounded to the nearest integer, ties to even; |x| < 2^51. */
static double nearest(double x)
{
    const double big = 0x1.8p52;
    return (x + big) - big;
}

/* 2^n for -1022 <= n <= 1023. */
static double power2(int n)
{
    return from_bits((uint64_t)(n + 1023) << 52);
}

double fmath_exp(double x)
{
    if (!(x > -745.2)) {
        return x != x ? x : 0.0;
    }
    if (x > 709.79) {
        return HUGE_VAL;
    }
    const double ln2_hi = 0x1.62e42fee00000p-1; /* 33 bits, so that k * ln2_hi is exact */
    const double ln2_lo = 0x1.a39ef35793c76p-33;
    const double k = nearest(x * 0x1.71547652b82fep0);
    const double r = (x - k * ln2_hi) - k * ln2_lo; /* |r| <= 0.347 */
    double p = 1.0 / 6227020800.0;                  /* r^13 / 13! is below 2^-52 there */
    static const double inverse_factorial[] = {
        1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
        1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5
    };
    for (int i = 0; i < 11; i++) {
        p = p * r + inverse_factorial[i];
    }
    const double e = 1.0 + (r + r * r * p);
    const int n = (int)k;
    return n < -1000  ? e * power2(n + 100) * 0x1p-100
           : n > 1000 ? e * power2(n - 100) * 0x1p100
                      : e * power2(n);
}

double fmath_log(double x)
{
    if (!(x > 0.0) || x == HUGE_VAL) {
        return x == 0.0 ? -HUGE_VAL : x == HUGE_VAL ? x : (double)NAN;
    }
    int e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    uint64_t u = to_bits(x);
    e += (int)(u >> 52) - 1023;
    double m = from_bits((u & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    /* ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716 */
    const double f = m - 1.0;
    const double s = f / (2.0 + f);
    const double z = s * s;
    double p = 1.0 / 21.0;
    for (int i = 19; i >= 3; i -= 2) {
        p = p * z + 1.0 / (double)i;
    }
    const double k = (double)e;
    const double half = 0.5 * f * f; /* 2 s = f - s f; the form that keeps the leading f exact */
    const double tail = s * (half + 2.0 * z * p) + k * 0x1.a39ef35793c76p-33;
    return k * 0x1.62e42fee00000p-1 - ((half - tail) - f);
}

double fmath_pow(double x, double y)
{
    return fmath_exp(y * fmath_log(x));
}

/* sin and cos of |r| <= 0.79 + 2^-20, tail t: Taylor series, terms below 2^-55 left out. */
static void sincos_small(double r, double t, double *sin, double *cos)
{
    const double z = r * r;
    double s = 1.0 / 355687428096000.0; /* 17! */
    static const double odd[] = {
        -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880,
        -1.0 / 5040,          1.0 / 120,        -1.0 / 6
    };
    for (int i = 0; i < 7; i++) {
        s = s * z + odd[i];
    }
    double c = 1.0 / 20922789888000.0; /* 16! */
    static const double even[] = { -1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800,
                                   1.0 / 40320,        -1.0 / 720,      1.0 / 24 };
    for (int i = 0; i < 6; i++) {
        c = c * z + even[i];
    }
    *sin = r + (r * z * s + t * (1.0 - 0.5 * z));
    const double w = 1.0 - 0.5 * z;
    *cos = w + ((1.0 - w) - 0.5 * z + (z * z * c - r * t));
}

/* x = k * pi/2 + r + t, exactly but for the rounding of t; k * p1 must be exact. */
static void take_off(double *r, double *t, double k)
{
    /* pi/2 = p1 + p2 + p3, 33 bits each and the rest */
    const double p1 = 0x1.921fb54400000p0;
    const double p2 = 0x1.0b4611a600000p-34;
    const double p3 = 0x1.3198a2e037073p-69;
    const double hi = *r - k * p1;
    const double mid = k * p2;
    const double low = hi - mid;
    const double rest = *t + (((hi - low) - mid) - k * p3);
    *r = low + rest; /* so that t stays below half a unit of r's last place */
    *t = rest - (*r - low);
}

void fmath_sincos(double x, double *sin, double *cos)
{
    const double two_over_pi = 0x1.45f306dc9c883p-1;
    double r = x;
    double t = 0.0;
    double k = nearest(x * two_over_pi);
    if (fabs(k) >= 0x1p20) { /* first the quotient's high part, a multiple of 4 */
        take_off(&r, &t, nearest(k * 0x1p-20) * 0x1p20);
        k = nearest(r * two_over_pi);
    }
    take_off(&r, &t, k);
    double s;
    double c;
    sincos_small(r, t, &s, &c);
    const unsigned quadrant = (unsigned)(int64_t)k & 3;
    *sin = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
    *cos = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}
