#include "libs/wire/row_codec.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "libs/base/check.h"

namespace switchyard {
namespace {

// A value is finite when its bits without the sign are below the exponent of infinity.
constexpr uint32_t kMagnitude = 0x7fffffffU;
constexpr uint32_t kInfinity = 0x7f800000U;

// As F32ToBf16 for everything but NaN, which stays non-finite here too; without its branch.
inline uint16_t RoundToBf16(uint32_t bits) {
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace

bool EncodeRow(std::span<const float> row, Dtype dtype, std::byte* out) {
  SY_CHECK(IsRowDtype(dtype));
  uint32_t largest = 0;
  if (dtype == Dtype::kF32) {
    std::memcpy(out, row.data(), row.size_bytes());
    for (const float value : row) {
      largest = std::max(largest, std::bit_cast<uint32_t>(value) & kMagnitude);
    }
    return largest < kInfinity;
  }
  auto* rounded = reinterpret_cast<uint16_t*>(out);
  for (size_t i = 0; i < row.size(); ++i) {
    const auto bits = std::bit_cast<uint32_t>(row[i]);
    const uint16_t half = RoundToBf16(bits);
    rounded[i] = half;
    // Rounding may reach infinity, and the bits of a NaN may wrap: both are looked at.
    largest = std::max({largest, bits & kMagnitude, (uint32_t{half} << 16) & kMagnitude});
  }
  return largest < kInfinity;
}

bool DecodeRow(const std::byte* bytes, Dtype dtype, std::span<float> row) {
  SY_CHECK(IsRowDtype(dtype));
  uint32_t largest = 0;
  if (dtype == Dtype::kF32) {
    std::memcpy(row.data(), bytes, row.size_bytes());
    for (const float value : row) {
      largest = std::max(largest, std::bit_cast<uint32_t>(value) & kMagnitude);
    }
    return largest < kInfinity;
  }
  const auto* rounded = reinterpret_cast<const uint16_t*>(bytes);
  for (size_t i = 0; i < row.size(); ++i) {
    const uint32_t bits = uint32_t{rounded[i]} << 16;
    row[i] = std::bit_cast<float>(bits);
    largest = std::max(largest, bits & kMagnitude);
  }
  return largest < kInfinity;
}

}  // namespace switchyard
