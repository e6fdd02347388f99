/* fmath - exp, log, pow, sin, cos in double precision with the same bits everywhere (num/fmath.c)
 *
 * libm differs between C libraries and versions; tables that feed the model (rotary angles) and the
 * sampler must not. Plain C doubles, no contraction, fixed order; errors below 1 ulp for exp
 * and log, 2 ulp for sin and cos; pow adds |y ln x| / 2 ulp. Any thread. */
#ifndef HEARTH_FMATH_H
#define HEARTH_FMATH_H

double fmath_exp(double x);
double fmath_log(double x);                            /* x > 0, else NaN or -inf */
double fmath_pow(double x, double y);                  /* x > 0 */
void fmath_sincos(double x, double *sin, double *cos); /* |x| < 2^40 */

#endif
