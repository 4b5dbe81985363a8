#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/kernels/kernels.h"
#include "libs/kernels/packed_matrix.h"
#include "libs/tensor/dtype.h"

namespace switchyard {
namespace {

constexpr WeightFormat kPackedFormats[] = {WeightFormat::kBf16, WeightFormat::kFp8,
                                           WeightFormat::kInt8, WeightFormat::kInt4};

std::vector<float> RandomVector(Rng& rng, size_t count) {
  std::vector<float> values(count);
  for (float& value : values) {
    value = 2.0F * rng.Unit() - 1.0F;
  }
  return values;
}

// A random matrix as a checkpoint stores it, every code included (but NaN and, for kInt8, -128).
class RandomMatrix {
 public:
  RandomMatrix(Rng& rng, WeightFormat format, uint32_t rows, uint32_t columns) {
    values_.resize(StoredValueBytes(format, rows, columns));
    scales_.resize(StoredScaleBytes(format, rows, columns));
    for (std::byte& value : values_) {
      value = static_cast<std::byte>(rng.Below(256));
    }
    stored_ = {.values = values_.data(),
               .format = format,
               .rows = rows,
               .columns = columns,
               .scales = scales_.data()};
    switch (format) {
      case WeightFormat::kBf16:
        for (size_t i = 0; i < values_.size(); i += 2) {
          // Some subnormals and zeros, which count as zero.
          const bool tiny = rng.Below(20) == 0;
          PutU16(values_, i,
                 static_cast<uint16_t>(F32ToBf16(2.0F * rng.Unit() - 1.0F) &
                                       (tiny ? 0x807fU : 0xffffU)));
        }
        break;
      case WeightFormat::kFp8:
        for (std::byte& value : values_) {
          value = (value & std::byte{0x7f}) == std::byte{0x7f} ? std::byte{1} : value;
        }
        for (size_t i = 0; i < scales_.size(); i += sizeof(float)) {
          const float scale = 0.01F * rng.Unit();
          std::memcpy(scales_.data() + i, &scale, sizeof(scale));
        }
        break;
      default:
        for (std::byte& value : values_) {
          value = value == std::byte{0x80} ? std::byte{0x81} : value;
        }
        for (size_t i = 0; i < scales_.size(); i += 2) {
          // f16 of either sign, from 2^-24 (subnormal) to about 1.
          PutU16(scales_, i, static_cast<uint16_t>(1 + rng.Below(0x3b00) + (rng.Below(2) << 15)));
        }
    }
    packed_ = {.format = format, .rows = rows, .columns = columns};
    data_ = AllocateWeights(packed_.byte_size());
    Pack(stored_, {data_.get(), packed_.byte_size()});
    packed_.data = data_.get();
  }

  const StoredMatrix& stored() const { return stored_; }

  const PackedMatrix& packed() const { return packed_; }

 private:
  static void PutU16(std::vector<std::byte>& bytes, size_t offset, uint16_t value) {
    std::memcpy(bytes.data() + offset, &value, sizeof(value));
  }

  std::vector<std::byte> values_;
  std::vector<std::byte> scales_;
  StoredMatrix stored_;
  PackedMatrix packed_;
  std::shared_ptr<std::byte> data_;
};

// Rows in the form of one format.
class Rows {
 public:
  Rows(const Kernels& kernels, ActivationForm form, const std::vector<float>& x, uint32_t columns) {
    view_ = {.form = form,
             .row_bytes = ActivationRowBytes(form, columns),
             .row_count = static_cast<uint32_t>(x.size() / columns),
             .columns = columns};
    data_ = AllocateWeights(byte_count());
    std::memset(data_.get(), 0xa5, byte_count());
    for (uint32_t row = 0; row < view_.row_count; ++row) {
      kernels.prepare_row(form, x.data() + size_t{row} * columns, columns,
                          data_.get() + row * view_.row_bytes);
    }
    view_.data = data_.get();
  }

  const ActivationView& view() const { return view_; }

  size_t byte_count() const { return view_.row_bytes * view_.row_count; }

 private:
  ActivationView view_;
  std::shared_ptr<std::byte> data_;
};

std::vector<float> Multiply(const Kernels& kernels, const PackedGemmArgs& args) {
  std::vector<float> y(args.x.row_count * args.y_stride, -7.0F);
  PackedGemmArgs with_output = args;
  with_output.y = y.data();
  kernels.packed_gemm(with_output);
  return y;
}

std::vector<InstructionSet> FastSets() {
  std::vector<InstructionSet> sets = SupportedInstructionSets();
  sets.erase(sets.begin());
  return sets;
}

struct Shape {
  uint32_t row_count;
  uint32_t outputs;
  uint32_t depth;
};

class PackedGemmTest : public testing::TestWithParam<WeightFormat> {
 protected:
  // Every set against the definition, bit for bit.
  void Check(const Shape& shape) {
    SCOPED_TRACE(testing::Message() << "M " << shape.row_count << " N " << shape.outputs << " K "
                                    << shape.depth << " seed " << kSeed);
    const RandomMatrix w(rng_, GetParam(), shape.outputs, shape.depth);
    std::vector<float> x = RandomVector(rng_, size_t{shape.row_count} * shape.depth);
    for (size_t i = 0; i < x.size(); i += 17) {
      x[i] *= 1e-39F;
    }
    const std::vector<float> bias = RandomVector(rng_, shape.outputs);
    const ActivationForm form = FormFor(GetParam());
    const Rows rows(scalar_, form, x, shape.depth);
    const uint32_t panels = (shape.outputs + kPanelColumns - 1) / kPanelColumns;
    const auto first = static_cast<uint32_t>(rng_.Below(std::min(panels, 3U)));
    const auto count = static_cast<uint32_t>(1 + rng_.Below(panels - first));
    const PackedGemmArgs args{
        .x = rows.view(),
        .w = w.packed(),
        .bias = rng_.Chance(0.5F) ? bias.data() : nullptr,
        .y_stride = shape.outputs + rng_.Below(3),
        .column_begin = first * kPanelColumns,
        .column_end = std::min((first + count) * kPanelColumns, shape.outputs)};
    const std::vector<float> want = Multiply(scalar_, args);
    for (const InstructionSet set : FastSets()) {
      const Kernels& kernels = **KernelsFor(set);
      const Rows prepared(kernels, form, x, shape.depth);
      ASSERT_EQ(std::memcmp(prepared.view().data, rows.view().data, rows.byte_count()), 0)
          << NameOf(set);
      const std::vector<float> got = Multiply(kernels, args);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
            << NameOf(set) << " element " << i << ": " << got[i] << " " << want[i];
      }
    }
  }

  static constexpr uint64_t kSeed = 41;

  Rng rng_{kSeed};
  const Kernels& scalar_ = **KernelsFor(InstructionSet::kScalar);
};

TEST_P(PackedGemmTest, EverySetGivesTheBitsOfTheDefinition) {
  for (uint32_t row_count = 1; row_count <= 17; ++row_count) {
    Check({row_count, static_cast<uint32_t>(1 + rng_.Below(150)),
           static_cast<uint32_t>(1 + rng_.Below(200))});
  }
  for (const uint32_t depth : {1U, 31U, 32U, 33U, 63U, 64U, 65U, 127U, 128U, 129U, 192U, 1100U}) {
    Check({static_cast<uint32_t>(1 + rng_.Below(8)), 33, depth});
  }
  Check({64, 70, 300});
  Check({400, 17, 40});  // More rows than one block.
  Check({1, 300, 64});
  Check({2, 300, 64});
}

TEST_P(PackedGemmTest, RowsDoNotDependOnTheirCompany) {
  const uint32_t depth = 700;
  const uint32_t outputs = 130;
  const RandomMatrix w(rng_, GetParam(), outputs, depth);
  const Kernels& kernels = BestKernels();
  const Rows rows(kernels, FormFor(GetParam()), RandomVector(rng_, size_t{40} * depth), depth);
  PackedGemmArgs args{
      .x = rows.view(), .w = w.packed(), .y_stride = outputs, .column_end = outputs};
  const std::vector<float> all = Multiply(kernels, args);
  for (uint32_t row = 0; row < 40; ++row) {
    args.x = rows.view().Rows(row, static_cast<uint32_t>(1 + rng_.Below(40 - row)));
    const std::vector<float> some = Multiply(kernels, args);
    ASSERT_EQ(
        std::memcmp(some.data(), all.data() + size_t{row} * outputs, some.size() * sizeof(float)),
        0);
  }
}

// Against double arithmetic on the weights as stored and the activations as prepared. What is left
// is the rounding of some hundred additions in f32.
TEST_P(PackedGemmTest, IsNearExactArithmetic) {
  const uint32_t depth = 500;
  const uint32_t outputs = 40;
  const RandomMatrix w(rng_, GetParam(), outputs, depth);
  const std::vector<float> x = RandomVector(rng_, depth);
  const Rows rows(scalar_, FormFor(GetParam()), x, depth);
  std::vector<double> used(depth);
  for (uint32_t k = 0; k < depth; ++k) {
    if (rows.view().form == ActivationForm::kBf16) {
      used[k] = static_cast<double>(Bf16ToF32(F32ToBf16(x[k])));
      continue;
    }
    const uint32_t padded = w.packed().padded_columns();
    float scale = 0.0F;
    std::memcpy(&scale, rows.view().data + padded + k / kScaleGroup * sizeof(scale), sizeof(scale));
    used[k] = static_cast<double>(scale) * static_cast<int8_t>(rows.view().data[k]);
    EXPECT_NEAR(used[k], static_cast<double>(x[k]), 0.51 * static_cast<double>(scale));
  }
  std::vector<float> values(size_t{outputs} * depth);
  UnpackStored(w.stored(), 0, outputs, values.data());
  const std::vector<float> y = Multiply(
      scalar_, {.x = rows.view(), .w = w.packed(), .y_stride = outputs, .column_end = outputs});
  for (uint32_t n = 0; n < outputs; ++n) {
    double want = 0.0;
    double size = 0.0;
    for (uint32_t k = 0; k < depth; ++k) {
      const double term = used[k] * static_cast<double>(values[size_t{n} * depth + k]);
      want += term;
      size += std::fabs(term);
    }
    EXPECT_NEAR(static_cast<double>(y[n]), want, 2e-6 * size) << n;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, PackedGemmTest, testing::ValuesIn(kPackedFormats),
                         [](const auto& suite) { return std::string(NameOf(suite.param)); });

TEST(PrepareRow, EverySetGivesTheBitsOfTheDefinition) {
  constexpr uint64_t kSeed = 42;
  Rng rng(kSeed);
  for (uint32_t columns = 1; columns < 200; ++columns) {
    std::vector<float> x(columns);
    for (float& value : x) {
      const auto exponent = static_cast<int>(rng.Below(80)) - 60;
      value = rng.Below(30) == 0 ? 0.0F : std::ldexp(2.0F * rng.Unit() - 1.0F, exponent);
    }
    // A group that is nearly zero, and one with halves to round to even.
    for (uint32_t i = 32; i < std::min(columns, 64U); ++i) {
      x[i] *= 1e-37F;
    }
    for (uint32_t i = 64; i < std::min(columns, 96U); ++i) {
      x[i] = static_cast<float>(static_cast<int>(rng.Below(254)) - 127) / 2.0F;
    }
    if (columns > 64) {
      x[64] = 127.0F;
    }
    for (const ActivationForm form : {ActivationForm::kBf16, ActivationForm::kInt8}) {
      const Rows want(**KernelsFor(InstructionSet::kScalar), form, x, columns);
      for (const InstructionSet set : FastSets()) {
        const Rows got(**KernelsFor(set), form, x, columns);
        ASSERT_EQ(std::memcmp(got.view().data, want.view().data, want.byte_count()), 0)
            << NameOf(set) << " columns " << columns << " seed " << kSeed;
      }
    }
  }
}

TEST(PrepareRow, RowsAreAnOddNumberOfLines) {
  for (const uint32_t columns : {1U, 64U, 512U, 1000U, 1024U, 2048U, 7168U}) {
    for (const ActivationForm form : {ActivationForm::kBf16, ActivationForm::kInt8}) {
      EXPECT_EQ(ActivationRowBytes(form, columns) % 128, 64U);
    }
  }
}

}  // namespace
}  // namespace switchyard
