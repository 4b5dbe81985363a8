#include "libs/kernels/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/kernels/internal/tables.h"
#include "libs/kernels/kernels.h"
#include "libs/tensor/dtype.h"

namespace switchyard {
namespace {

// About normal: the sum of twelve uniform values.
std::vector<float> NormalVector(Rng& rng, size_t count) {
  std::vector<float> values(count);
  for (float& value : values) {
    float sum = -6.0F;
    for (int i = 0; i < 12; ++i) {
      sum += rng.Unit();
    }
    value = 0.02F * sum;
  }
  return values;
}

StoredMatrix StoredOf(WeightFormat format, const QuantizedRows& rows, uint32_t row_count,
                      uint32_t columns) {
  return {.values = rows.values.data(),
          .format = format,
          .rows = row_count,
          .columns = columns,
          .scales = rows.scales.data()};
}

double SquaredError(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double error = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += error * error;
  }
  return sum;
}

TEST(Pack, UnpackRowReturnsWhatIsStored) {
  constexpr uint64_t kSeed = 51;
  Rng rng(kSeed);
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kF16,
                                    WeightFormat::kFp8, WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const uint32_t rows : {1U, 15U, 16U, 17U, 130U, 300U}) {
      const auto columns = static_cast<uint32_t>(1 + rng.Below(400));
      SCOPED_TRACE(testing::Message()
                   << NameOf(format) << " " << rows << "x" << columns << " seed " << kSeed);
      std::vector<std::byte> values(StoredValueBytes(format, rows, columns));
      std::vector<float> scales(StoredScaleBytes(format, rows, columns) / sizeof(float) + 1);
      for (std::byte& value : values) {
        // 0x00 to 0x6f in every byte: finite in all formats.
        value = static_cast<std::byte>(rng.Below(0x70));
      }
      for (float& scale : scales) {
        scale = 0.5F + rng.Unit();  // As two f16: finite too.
      }
      const StoredMatrix stored{.values = values.data(),
                                .format = format,
                                .rows = rows,
                                .columns = columns,
                                .scales = scales.data()};
      PackedMatrix packed{.format = format, .rows = rows, .columns = columns};
      const std::shared_ptr<std::byte> data = AllocateWeights(packed.byte_size());
      std::memset(data.get(), 0xff, packed.byte_size());
      Pack(stored, {data.get(), packed.byte_size()});
      packed.data = data.get();
      std::vector<float> want(size_t{rows} * columns);
      UnpackStored(stored, 0, rows, want.data());
      std::vector<float> got(columns);
      for (uint32_t row = 0; row < rows; ++row) {
        UnpackRow(packed, row, got.data());
        ASSERT_EQ(
            std::memcmp(got.data(), want.data() + size_t{row} * columns, columns * sizeof(float)),
            0)
            << row;
      }
    }
  }
}

TEST(Quantize, RowsDoNotDependOnTheirCompany) {
  Rng rng(52);
  const uint32_t columns = 75;
  const std::vector<float> x = NormalVector(rng, size_t{9} * columns);
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    const QuantizedRows all = Quantize(format, x.data(), 9, columns);
    const size_t row_bytes = StoredValueBytes(format, 1, columns);
    for (size_t row = 0; row < 9; ++row) {
      const QuantizedRows one = Quantize(format, x.data() + row * columns, 1, columns);
      EXPECT_EQ(std::memcmp(one.values.data(), all.values.data() + row * row_bytes, row_bytes), 0);
      EXPECT_TRUE(std::equal(one.scales.begin(), one.scales.end(), all.scales.begin() + 3 * row));
    }
  }
}

TEST(Quantize, Int8IsWithinHalfAStep) {
  Rng rng(53);
  const uint32_t columns = 200;
  std::vector<float> x = NormalVector(rng, size_t{3} * columns);
  std::fill_n(x.begin() + 64, 32, 0.0F);
  const QuantizedRows rows = Quantize(WeightFormat::kInt8, x.data(), 3, columns);
  std::vector<float> got(x.size());
  UnpackStored(StoredOf(WeightFormat::kInt8, rows, 3, columns), 0, 3, got.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t group = i / columns * 7 + i % columns / kScaleGroup;
    const float scale = F16ToF32(rows.scales[group]);
    EXPECT_NEAR(got[i], x[i], 0.57F * scale) << i;
  }
  for (const std::byte code : rows.values) {
    EXPECT_NE(code, std::byte{0x80});
  }
}

// Sixteen levels from -8 to 7 with the scale from the largest magnitude.
std::vector<float> PlainInt4(const std::vector<float>& x) {
  std::vector<float> result(x.size());
  for (size_t group = 0; group < x.size(); group += kScaleGroup) {
    float largest = 0.0F;
    for (size_t i = group; i < group + kScaleGroup; ++i) {
      largest = std::fabs(x[i]) > std::fabs(largest) ? x[i] : largest;
    }
    const float scale = F16ToF32(F32ToF16(largest / -8.0F));
    for (size_t i = group; i < group + kScaleGroup; ++i) {
      result[i] = scale * std::clamp(std::nearbyint(x[i] / scale), -8.0F, 7.0F);
    }
  }
  return result;
}

TEST(Quantize, Int4IsBetterThanEvenLevels) {
  Rng rng(54);
  const uint32_t columns = 2048;
  const std::vector<float> x = NormalVector(rng, size_t{16} * columns);
  const QuantizedRows rows = Quantize(WeightFormat::kInt4, x.data(), 16, columns);
  std::vector<float> got(x.size());
  UnpackStored(StoredOf(WeightFormat::kInt4, rows, 16, columns), 0, 16, got.data());
  const double ratio = SquaredError(got, x) / SquaredError(PlainInt4(x), x);
  EXPECT_LT(ratio, 0.75);
  RecordProperty("squared_error_ratio", std::to_string(ratio));
}

TEST(Quantize, KeepsGroupsOfOneValueAndZeros) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const float value : {0.0F, 1.0F, -0.375F}) {
      const std::vector<float> x(40, value);
      const QuantizedRows rows = Quantize(format, x.data(), 1, 40);
      std::vector<float> got(x.size());
      UnpackStored(StoredOf(format, rows, 1, 40), 0, 1, got.data());
      for (const float element : got) {
        EXPECT_NEAR(element, value, 1e-3F * std::fabs(value)) << NameOf(format);
      }
    }
  }
}

// Callers refuse such values; whatever comes, there are codes and a scale that a reader accepts.
TEST(Quantize, MakesFiniteScalesOfWhatIsNotFinite) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY, 3e38F, -3e38F}) {
      std::vector<float> x(64, 0.5F);
      x[3] = bad;
      const QuantizedRows rows = Quantize(format, x.data(), 1, 64);
      for (const uint16_t scale : rows.scales) {
        EXPECT_TRUE(std::isfinite(F16ToF32(scale))) << NameOf(format) << " " << bad;
      }
      for (const std::byte code : rows.values) {
        EXPECT_TRUE(format == WeightFormat::kInt4 || code != std::byte{0x80}) << bad;
      }
      std::vector<float> got(64);
      UnpackStored(StoredOf(format, rows, 1, 64), 0, 1, got.data());
      EXPECT_NEAR(got[40], 0.5F, 0.01F);
    }
  }
}

// What each instruction set makes of the same loops.
TEST(Int4Fitter, EverySetGivesTheSameBits) {
  constexpr uint64_t kSeed = 55;
  Rng rng(kSeed);
  constexpr size_t kGroups = 300;
  std::vector<float> x = NormalVector(rng, kGroups * kScaleGroup);
  std::fill_n(x.begin() + 320, kScaleGroup, 0.0F);
  internal::Int4Fit fit{.lowest = static_cast<float>(Int4Levels()[0])};
  for (size_t i = 0; i < 15; ++i) {
    fit.heights[i] = static_cast<float>(Int4Levels()[i + 1] - Int4Levels()[i]);
    fit.bounds[i] = static_cast<float>(Int4Levels()[i + 1] + Int4Levels()[i]) / 2.0F;
  }
  fit.ends[0] = 120.0F;
  fit.ends[1] = -130.0F;
  fit.end_count = 2;
  std::vector<float> want_scales(kGroups);
  std::vector<uint8_t> want_codes(x.size());
  internal::kScalarInt4Fitter.scales(fit, x.data(), kGroups, want_scales.data());
  internal::kScalarInt4Fitter.codes(fit, x.data(), kGroups, want_scales.data(), want_codes.data());
  for (const InstructionSet set : SupportedInstructionSets()) {
    if (set == InstructionSet::kScalar || set == InstructionSet::kAvx512Bf16) {
      continue;
    }
    const internal::Int4Fitter& fitter =
        set == InstructionSet::kAvx2 ? internal::kAvx2Int4Fitter : internal::kAvx512Int4Fitter;
    std::vector<float> scales(kGroups);
    std::vector<uint8_t> codes(x.size());
    fitter.scales(fit, x.data(), kGroups, scales.data());
    fitter.codes(fit, x.data(), kGroups, scales.data(), codes.data());
    EXPECT_EQ(std::memcmp(scales.data(), want_scales.data(), kGroups * sizeof(float)), 0)
        << NameOf(set) << " seed " << kSeed;
    EXPECT_EQ(codes, want_codes) << NameOf(set) << " seed " << kSeed;
  }
}

TEST(Int4Levels, AscendAndIncludeBothEnds) {
  const auto levels = Int4Levels();
  EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
  // The VNNI kernels add 128, the AVX2 ones need magnitudes up to 127.
  EXPECT_GE(levels.front(), -127);
  EXPECT_EQ(std::max(-levels.front(), +levels.back()), 127);
}

}  // namespace
}  // namespace switchyard
