// Quantize() and the levels of int4.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "libs/base/check.h"
#include "libs/kernels/internal/int4_fit.h"
#include "libs/kernels/internal/tables.h"
#include "libs/kernels/kernels.h"
#include "libs/kernels/packed_matrix.h"
#include "libs/tensor/dtype.h"

namespace switchyard {
namespace {

// Made by int4_levels.py.
constexpr std::array<int8_t, 16> kInt4Levels = {-117, -91, -71, -55, -40, -27, -15, -3,
                                                8,    20,  32,  44,  58,  75,  96,  127};

constexpr uint16_t kLargestF16 = 0x7bff;
constexpr float kLargestScale = F16ToF32(kLargestF16);

constexpr auto LevelBytes() {
  std::array<uint8_t, 16> bytes = {};
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(kInt4Levels[i] + 128);
  }
  return bytes;
}

internal::Int4Fit MakeFit() {
  internal::Int4Fit fit{.lowest = static_cast<float>(kInt4Levels[0])};
  for (size_t i = 0; i + 1 < kInt4Levels.size(); ++i) {
    const auto low = static_cast<float>(kInt4Levels[i]);
    const auto high = static_cast<float>(kInt4Levels[i + 1]);
    fit.bounds[i] = (low + high) / 2.0F;
    fit.heights[i] = high - low;
  }
  // More than these five of either sign gain less than 1 % (normal values).
  for (const float end : {107.0F, 117.0F, 127.0F, 137.0F, 147.0F}) {
    fit.ends[fit.end_count++] = end;
    fit.ends[fit.end_count++] = -end;
  }
  return fit;
}

const internal::Int4Fitter& BestFitter() {
  switch (BestKernels().instruction_set) {
    case InstructionSet::kAvx2:
      return internal::kAvx2Int4Fitter;
    case InstructionSet::kAvx512:
    case InstructionSet::kAvx512Bf16:
      return internal::kAvx512Int4Fitter;
    case InstructionSet::kScalar:
      break;
  }
  return internal::kScalarInt4Fitter;
}

// Codes of one group of int8; returns the f16 scale.
uint16_t QuantizeInt8Group(const float* x, uint32_t count, std::byte* codes) {
  float largest = 0.0F;
  for (uint32_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::fabs(x[i]));
  }
  // Values beyond 127 x 65504 become the largest there are.
  const uint16_t scale_bits = std::min(F32ToF16(largest / 127.0F), kLargestF16);
  const float scale = F16ToF32(scale_bits);
  const float inverse = scale > 0.0F ? 1.0F / scale : 0.0F;
  for (uint32_t i = 0; i < count; ++i) {
    // Adding 1.5 x 2^23 rounds to the nearest integer, ties to even. Comparing like that makes NaN
    // a number.
    const float limited = x[i] * inverse > -127.0F ? x[i] * inverse : -127.0F;
    const float code = std::min(limited, 127.0F) + 12582912.0F;
    codes[i] = static_cast<std::byte>(static_cast<int32_t>(code - 12582912.0F));
  }
  return scale_bits;
}

// Quantises rows to int4, one at a time, in memory that it keeps.
class Int4Quantizer {
 public:
  explicit Int4Quantizer(uint32_t columns)
      : columns_(columns),
        group_count_((columns + kScaleGroup - 1) / kScaleGroup),
        x_(group_count_ * kScaleGroup),
        scales_(group_count_),
        codes_(group_count_ * kScaleGroup) {}

  // Writes the codes and appends the scales of one row.
  void Row(const float* x, std::byte* values, std::vector<uint16_t>& scales) {
    std::copy_n(x, columns_, x_.begin());
    // A group cut short repeats its values, so that absent ones have no say.
    const size_t last = (group_count_ - 1) * kScaleGroup;
    for (size_t i = columns_; i < x_.size(); ++i) {
      x_[i] = x_[last + (i - last) % (columns_ - last)];
    }
    fitter_.scales(fit_, x_.data(), group_count_, scales_.data());
    for (float& scale : scales_) {
      scale = std::clamp(scale, -kLargestScale, kLargestScale);
      scales.push_back(F32ToF16(scale));
      scale = F16ToF32(scales.back());
    }
    fitter_.codes(fit_, x_.data(), group_count_, scales_.data(), codes_.data());
    std::fill(codes_.begin() + static_cast<std::ptrdiff_t>(columns_), codes_.end(), uint8_t{0});
    for (size_t i = 0; i < (columns_ + 1) / 2; ++i) {
      values[i] = static_cast<std::byte>(codes_[2 * i] | codes_[2 * i + 1] << 4);
    }
  }

 private:
  const internal::Int4Fit fit_ = MakeFit();
  const internal::Int4Fitter& fitter_ = BestFitter();
  const size_t columns_;
  const size_t group_count_;
  std::vector<float> x_;
  std::vector<float> scales_;
  std::vector<uint8_t> codes_;
};

}  // namespace

namespace internal {

alignas(64) constinit const std::array<uint8_t, 16> kInt4LevelBytes = LevelBytes();

const Int4Fitter kScalarInt4Fitter = {FitScales, FitCodes};

}  // namespace internal

QuantizedRows Quantize(WeightFormat format, const float* x, uint32_t row_count, uint32_t columns) {
  SY_CHECK(format == WeightFormat::kInt8 || format == WeightFormat::kInt4);
  SY_CHECK(columns > 0);
  const size_t row_bytes = StoredValueBytes(format, 1, columns);
  QuantizedRows result;
  result.values.resize(row_count * row_bytes);
  result.scales.reserve(StoredScaleBytes(format, row_count, columns) / sizeof(uint16_t));
  if (format == WeightFormat::kInt4) {
    Int4Quantizer quantizer(columns);
    for (size_t row = 0; row < row_count; ++row) {
      quantizer.Row(x + row * columns, result.values.data() + row * row_bytes, result.scales);
    }
    return result;
  }
  for (size_t row = 0; row < row_count; ++row) {
    std::byte* const target = result.values.data() + row * row_bytes;
    for (uint32_t k = 0; k < columns; k += kScaleGroup) {
      result.scales.push_back(
          QuantizeInt8Group(x + row * columns + k, std::min(kScaleGroup, columns - k), target + k));
    }
  }
  return result;
}

std::span<const int8_t, 16> Int4Levels() { return kInt4Levels; }

}  // namespace switchyard
