#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_LOG_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_LOG_H_

#include <bit>
#include <cstdint>

namespace switchyard::internal {

// Natural logarithm of a normal positive double, from + - * / alone, so that it has the same bits
// on every processor (the C library's may not). Error below 2 ulp. Any thread.
inline double Log(double x) {
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <
  // 0.172.
  const auto bits = std::bit_cast<uint64_t>(x);
  int64_t exponent = static_cast<int64_t>((bits >> 52) & 0x7ffU) - 1023;
  double m = std::bit_cast<double>((bits & 0x000fffffffffffffULL) | 0x3ff0000000000000ULL);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double square = s * s;
  double series = 0.0;
  for (int n = 23; n >= 1; n -= 2) {
    series = series * square + 1.0 / n;
  }
  return static_cast<double>(exponent) * 0.69314718055994530942 + 2.0 * s * series;
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_LOG_H_
