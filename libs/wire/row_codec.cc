#include "libs/wire/row_codec.h"

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

// The loops, which the compiler turns into vectors for each of the forms below (-O3). Each returns
// the largest magnitude's bits. Integer operations only, so all forms give the same bytes.
__attribute__((always_inline)) inline uint32_t EncodeLoop(const float* row, size_t count,
                                                          uint16_t* out) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, row + i, sizeof(bits));
    const uint16_t half = RoundToBf16(bits);
    std::memcpy(out + i, &half, sizeof(half));
    // Rounding may reach infinity, and the bits of a NaN may wrap: both are looked at.
    const uint32_t widened = (uint32_t{half} << 16) & kMagnitude;
    const uint32_t magnitude = bits & kMagnitude;
    largest = largest > magnitude ? largest : magnitude;
    largest = largest > widened ? largest : widened;
  }
  return largest;
}

__attribute__((always_inline)) inline uint32_t DecodeLoop(const uint16_t* row, size_t count,
                                                          float* out) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, row + i, sizeof(half));
    const uint32_t bits = uint32_t{half} << 16;
    std::memcpy(out + i, &bits, sizeof(bits));
    largest = largest > (bits & kMagnitude) ? largest : bits & kMagnitude;
  }
  return largest;
}

__attribute__((always_inline)) inline uint32_t LargestLoop(const float* row, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, row + i, sizeof(bits));
    largest = largest > (bits & kMagnitude) ? largest : bits & kMagnitude;
  }
  return largest;
}

struct Loops {
  uint32_t (*encode)(const float* row, size_t count, uint16_t* out);
  uint32_t (*decode)(const uint16_t* row, size_t count, float* out);
  uint32_t (*largest)(const float* row, size_t count);
};

constexpr Loops kPlainLoops = {
    [](const float* row, size_t count, uint16_t* out) { return EncodeLoop(row, count, out); },
    [](const uint16_t* row, size_t count, float* out) { return DecodeLoop(row, count, out); },
    [](const float* row, size_t count) { return LargestLoop(row, count); }};

#if defined(__x86_64__)
__attribute__((target("avx2"))) uint32_t EncodeAvx2(const float* row, size_t count, uint16_t* out) {
  return EncodeLoop(row, count, out);
}

__attribute__((target("avx2"))) uint32_t DecodeAvx2(const uint16_t* row, size_t count, float* out) {
  return DecodeLoop(row, count, out);
}

__attribute__((target("avx2"))) uint32_t LargestAvx2(const float* row, size_t count) {
  return LargestLoop(row, count);
}

constexpr Loops kAvx2Loops = {EncodeAvx2, DecodeAvx2, LargestAvx2};
#endif

const Loops& BestLoops() {
#if defined(__x86_64__)
  static const bool avx2 = __builtin_cpu_supports("avx2") != 0;
  if (avx2) {
    return kAvx2Loops;
  }
#endif
  return kPlainLoops;
}

}  // namespace

bool EncodeRow(std::span<const float> row, Dtype dtype, std::byte* out) {
  SY_CHECK(IsRowDtype(dtype));
  if (dtype == Dtype::kF32) {
    std::memcpy(out, row.data(), row.size_bytes());
    return BestLoops().largest(row.data(), row.size()) < kInfinity;
  }
  auto* const rounded = reinterpret_cast<uint16_t*>(out);
  return BestLoops().encode(row.data(), row.size(), rounded) < kInfinity;
}

bool DecodeRow(const std::byte* bytes, Dtype dtype, std::span<float> row) {
  SY_CHECK(IsRowDtype(dtype));
  if (dtype == Dtype::kF32) {
    std::memcpy(row.data(), bytes, row.size_bytes());
    return BestLoops().largest(row.data(), row.size()) < kInfinity;
  }
  const auto* const rounded = reinterpret_cast<const uint16_t*>(bytes);
  return BestLoops().decode(rounded, row.size(), row.data()) < kInfinity;
}

}  // namespace switchyard
