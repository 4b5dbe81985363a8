#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_WIDEN_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_WIDEN_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "libs/tensor/dtype.h"

namespace switchyard::internal {

// Exact, subnormals, infinities and NaN included.
constexpr float F16ToF32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fU;
  const uint32_t fraction = bits & 0x3ffU;
  if (exponent == 0x1fU) {
    return std::bit_cast<float>(sign | 0x7f800000U | (fraction << 13));
  }
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * (1.0F / 16777216.0F);  // 2^-24
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (fraction << 13));
}

// Widens `count` elements at `data`, which may be unaligned, to f32. Exact. Any thread.
inline void WidenToF32(const void* data, Dtype dtype, size_t count, float* out) {
  if (dtype == Dtype::kF32) {
    std::memcpy(out, data, count * sizeof(float));
    return;
  }
  const auto* bytes = static_cast<const std::byte*>(data);
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes + i * sizeof(bits), sizeof(bits));
    out[i] = dtype == Dtype::kBf16 ? Bf16ToF32(bits) : F16ToF32(bits);
  }
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_WIDEN_H_
