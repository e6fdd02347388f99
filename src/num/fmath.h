/* fmath - exp, log, pow, sin, cos, tanh in double precision with the same bits everywhere (num/fmath.c)
 *
 * libm differs between C libraries and versions; tables that feed the model (rotary angles) and the
 * sampler must not. Plain C doubles, no contraction, fixed order; errors below 2 ulp in the ranges
 * stated. Any thread. */
#ifndef HEARTH_FMATH_H
#define HEARTH_FMATH_H

double fmath_exp(double x);
double fmath_log(double x);            /* x > 0, else NaN or -inf */
double fmath_pow(double x, double y);  /* x > 0 */
void fmath_sincos(double x, double *sin, double *cos); /* |x| < 2^40 */
double fmath_tanh(double x);

#endif
