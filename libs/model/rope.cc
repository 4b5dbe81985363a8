#include "libs/model/rope.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <optional>

#include "libs/base/check.h"

namespace switchyard {
namespace {

// ln(x) for x > 0 by the series of 2 atanh((m - 1) / (m + 1)); only exactly defined operations.
double LogOf(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // [0.5, 1)
  if (m < std::numbers::sqrt2 / 2) {
    m *= 2;
    --exponent;
  }
  const double z = (m - 1) / (m + 1);
  const double z2 = z * z;
  double sum = 0.0;
  for (int k = 25; k >= 1; k -= 2) {
    sum = std::fma(sum, z2, 1.0 / k);
  }
  return std::fma(static_cast<double>(exponent), std::numbers::ln2, 2 * z * sum);
}

// e^x for |x| < 700 by halving the argument's range and the Taylor series.
double ExpOf(double x) {
  const double n = std::floor(x / std::numbers::ln2 + 0.5);
  const double r = std::fma(-n, std::numbers::ln2, x);
  double sum = 1.0;
  for (int k = 17; k >= 1; --k) {
    sum = std::fma(sum, r / k, 1.0);
  }
  return std::ldexp(sum, static_cast<int>(n));
}

double PowOf(double base, double exponent) { return ExpOf(exponent * LogOf(base)); }

constexpr double kSineInverses[] = {1.0 / (18 * 19), 1.0 / (16 * 17), 1.0 / (14 * 15),
                                    1.0 / (12 * 13), 1.0 / (10 * 11), 1.0 / (8 * 9),
                                    1.0 / (6 * 7),   1.0 / (4 * 5),   1.0 / (2 * 3)};
constexpr double kCosineInverses[] = {1.0 / (17 * 18), 1.0 / (15 * 16), 1.0 / (13 * 14),
                                      1.0 / (11 * 12), 1.0 / (9 * 10),  1.0 / (7 * 8),
                                      1.0 / (5 * 6),   1.0 / (3 * 4),   1.0 / (1 * 2)};

// YaRN's attention temperature for one mscale.
double MscaleOf(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * LogOf(factor) + 1.0;
}

// The pair index (fractional) whose wavelength fits `rotations` times into the original context.
double CorrectionPair(const ModelSpec& spec, double rotations) {
  const double wavelengths = spec.yarn->original_max_positions / (rotations * 2 * std::numbers::pi);
  return spec.rope_dim * LogOf(wavelengths) / (2 * LogOf(spec.rope_theta));
}

}  // namespace

SinCos SinCosOf(double x) {
  // pi/2 as the sum of two doubles; n is exact, so the remainder is good to 2^-52 or better.
  constexpr double kHalfPiHigh = 1.57079632679489655800e+00;
  constexpr double kHalfPiLow = 6.12323399573676603587e-17;
  const double n = std::floor(x / kHalfPiHigh + 0.5);
  const double r = std::fma(-n, kHalfPiLow, std::fma(-n, kHalfPiHigh, x));
  const double r2 = r * r;
  // Taylor series, innermost term first: each factor is r^2 / (k (k + 1)).
  double sine = 1.0;
  for (const double inverse : kSineInverses) {
    sine = 1.0 - sine * (r2 * inverse);
  }
  sine *= r;
  double cosine = 1.0;
  for (const double inverse : kCosineInverses) {
    cosine = 1.0 - cosine * (r2 * inverse);
  }
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {.sin = sine, .cos = cosine};
    case 1:
      return {.sin = cosine, .cos = -sine};
    case 2:
      return {.sin = -sine, .cos = -cosine};
    default:
      return {.sin = -cosine, .cos = sine};
  }
}

std::vector<float> InverseFrequencies(const ModelSpec& spec) {
  const uint32_t pair_count = spec.rope_dim / 2;
  double low = 0.0;
  double high = 0.0;
  if (spec.yarn.has_value()) {
    low = std::max(std::floor(CorrectionPair(spec, spec.yarn->beta_fast)), 0.0);
    high = std::min(std::ceil(CorrectionPair(spec, spec.yarn->beta_slow)), spec.rope_dim - 1.0);
    if (low == high) {
      high += 0.001;  // As published: keeps the ramp finite.
    }
  }
  std::vector<float> frequencies(pair_count);
  for (uint32_t i = 0; i < pair_count; ++i) {
    const double original = PowOf(spec.rope_theta, -2.0 * i / spec.rope_dim);
    double frequency = original;
    if (spec.yarn.has_value()) {
      const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
      frequency = original / spec.yarn->factor * ramp + original * (1.0 - ramp);
    }
    frequencies[i] = static_cast<float>(frequency);
  }
  return frequencies;
}

float RopeAttentionFactor(const ModelSpec& spec) {
  if (!spec.yarn.has_value()) {
    return 1.0F;
  }
  const YarnSpec& yarn = *spec.yarn;
  if (yarn.mscale != 0.0 && yarn.mscale_all_dim != 0.0) {
    return static_cast<float>(MscaleOf(yarn.factor, yarn.mscale) /
                              MscaleOf(yarn.factor, yarn.mscale_all_dim));
  }
  return static_cast<float>(MscaleOf(yarn.factor, 1.0));
}

float SoftmaxScale(const ModelSpec& spec) {
  double scale = 1.0 / std::sqrt(static_cast<double>(spec.qk_dim()));
  if (spec.yarn.has_value() && spec.yarn->mscale_all_dim != 0.0) {
    const double mscale = MscaleOf(spec.yarn->factor, spec.yarn->mscale_all_dim);
    scale *= mscale * mscale;
  }
  return static_cast<float>(scale);
}

RopeTable::RopeTable(const ModelSpec& spec)
    : pair_count_(spec.rope_dim / 2),
      interleaved_(spec.rope_interleaved),
      attention_factor_(RopeAttentionFactor(spec)),
      frequencies_(InverseFrequencies(spec)) {
  SY_CHECK(spec.rope_dim % 2 == 0);
}

void RopeTable::Extend(uint32_t position_count) {
  if (position_count <= position_count_) {
    return;
  }
  const uint32_t new_count = std::bit_ceil(std::max(position_count, 256U));
  cos_sin_.resize(size_t{new_count} * 2 * pair_count_);
  for (uint32_t position = position_count_; position < new_count; ++position) {
    float* const cosines = cos_sin_.data() + size_t{position} * 2 * pair_count_;
    float* const sines = cosines + pair_count_;
    for (uint32_t i = 0; i < pair_count_; ++i) {
      const float angle = static_cast<float>(position) * frequencies_[i];
      const SinCos value = SinCosOf(static_cast<double>(angle));
      cosines[i] = static_cast<float>(value.cos) * attention_factor_;
      sines[i] = static_cast<float>(value.sin) * attention_factor_;
    }
  }
  position_count_ = new_count;
}

void RopeTable::Rotate(uint32_t position, const float* x, float* out) const {
  SY_CHECK(position < position_count_);
  const float* const cosines = cos_sin_.data() + size_t{position} * 2 * pair_count_;
  const float* const sines = cosines + pair_count_;
  const size_t step = interleaved_ ? 2 : 1;
  const size_t partner = interleaved_ ? 1 : pair_count_;
  for (uint32_t i = 0; i < pair_count_; ++i) {
    const float first = x[i * step];
    const float second = x[i * step + partner];
    out[i] = first * cosines[i] - second * sines[i];
    out[i + pair_count_] = second * cosines[i] + first * sines[i];
  }
}

}  // namespace switchyard
