#ifndef SWITCHYARD_LIBS_TENSOR_DTYPE_H_
#define SWITCHYARD_LIBS_TENSOR_DTYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace switchyard {

// Element types of weights, cache and wire rows. The numbers go over the wire: never renumber.
enum class Dtype : uint8_t { kF32 = 0, kBf16 = 1, kF16 = 2 };

constexpr size_t BytesOf(Dtype dtype) { return dtype == Dtype::kF32 ? 4 : 2; }

constexpr std::string_view NameOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return "f32";
    case Dtype::kBf16:
      return "bf16";
    case Dtype::kF16:
      return "f16";
  }
  return "unknown";
}

// BF16 is the upper half of an F32, so widening is exact.
constexpr float Bf16ToF32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Rounds to nearest, ties to even; NaN stays NaN (quiet).
constexpr uint16_t F32ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return static_cast<uint16_t>((bits >> 16) | 0x0040U);
  }
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TENSOR_DTYPE_H_
