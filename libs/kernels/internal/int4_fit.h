#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_INT4_FIT_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_INT4_FIT_H_

#include <cstddef>
#include <cstdint>

#include "libs/kernels/internal/tables.h"

// How int4 weights get their scale and codes, as plain loops that the compiler turns into the
// instructions of each file that includes this. All give the same bits: every sum has its order.
//
// Any thread; functions without state, local to each file (see kernel_body.h).
namespace switchyard::internal {
namespace {

constexpr size_t kFitGroup = 32;
constexpr size_t kFitLanes = 16;

// The levels nearest to the values times `inverse`.
inline void NearestLevels(const Int4Fit& fit, const float* x, float inverse, float* levels) {
  float values[kFitGroup];
  for (size_t i = 0; i < kFitGroup; ++i) {
    values[i] = x[i] * inverse;
    levels[i] = fit.lowest;
  }
  for (size_t step = 0; step < 15; ++step) {
    const float bound = fit.bounds[step];
    const float height = fit.heights[step];
    for (size_t i = 0; i < kFitGroup; ++i) {
      levels[i] += values[i] > bound ? height : 0.0F;
    }
  }
}

inline float SumOf(const float* a, const float* b) {
  float lanes[kFitLanes];
  for (size_t i = 0; i < kFitLanes; ++i) {
    lanes[i] = a[i] * b[i] + a[i + kFitLanes] * b[i + kFitLanes];
  }
  for (size_t distance = kFitLanes / 2; distance > 0; distance /= 2) {
    for (size_t i = 0; i < distance; ++i) {
      lanes[i] += lanes[i + distance];
    }
  }
  return lanes[0];
}

// The scale of 32 values with the least squared error of those tried: for codes q that is
// (x . q) / (q . q), and what is left of the square of x is least where (x . q)^2 / (q . q) is
// most.
inline float FitScale(const Int4Fit& fit, const float* x) {
  float largest = 0.0F;
  for (size_t i = 0; i < kFitGroup; ++i) {
    const float magnitude = x[i] < 0.0F ? -x[i] : x[i];
    largest = magnitude > largest ? magnitude : largest;
  }
  if (largest < 1e-30F) {
    return 0.0F;
  }
  float best = 0.0F;
  float scale = 0.0F;
  for (size_t attempt = 0; attempt < fit.end_count; ++attempt) {
    float levels[kFitGroup];
    NearestLevels(fit, x, fit.ends[attempt] / largest, levels);
    const float product = SumOf(x, levels) / largest;
    const float square = SumOf(levels, levels);
    const float gain = product * product / square;
    if (gain > best) {
      best = gain;
      scale = product / square * largest;
    }
  }
  return scale;
}

inline void FitScales(const Int4Fit& fit, const float* x, size_t group_count, float* scales) {
  for (size_t group = 0; group < group_count; ++group) {
    scales[group] = FitScale(fit, x + group * kFitGroup);
  }
}

inline void FitCodes(const Int4Fit& fit, const float* x, size_t group_count, const float* scales,
                     uint8_t* codes) {
  for (size_t group = 0; group < group_count; ++group) {
    const float inverse = scales[group] == 0.0F ? 0.0F : 1.0F / scales[group];
    float values[kFitGroup];
    int32_t found[kFitGroup];
    for (size_t i = 0; i < kFitGroup; ++i) {
      values[i] = x[i] * inverse;
      found[i] = 0;
    }
    for (size_t step = 0; step < 15; ++step) {
      const float bound = fit.bounds[step];
      for (size_t i = 0; i < kFitGroup; ++i) {
        found[i] += values[i] > bound ? 1 : 0;
      }
    }
    for (size_t i = 0; i < kFitGroup; ++i) {
      codes[i] = static_cast<uint8_t>(found[i]);
    }
    x += kFitGroup;
    codes += kFitGroup;
  }
}

}  // namespace
}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_INT4_FIT_H_
