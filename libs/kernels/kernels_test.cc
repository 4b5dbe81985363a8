#include "libs/kernels/kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/kernels/compute_pool.h"
#include "libs/tensor/dtype.h"
#include "libs/tensor/tensor_view.h"

namespace switchyard {
namespace {

std::vector<float> RandomVector(Rng& rng, size_t count, float spread) {
  std::vector<float> values(count);
  for (float& value : values) {
    value = spread * (2.0F * rng.Unit() - 1.0F);
  }
  return values;
}

uint32_t BitsOf(float value) { return std::bit_cast<uint32_t>(value); }

void ExpectSameBits(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(BitsOf(got[i]), BitsOf(want[i]))
        << "element " << i << ": " << got[i] << " " << want[i];
  }
}

// Random weights behind an odd address, as tensors in a file have.
class OddWeights {
 public:
  OddWeights(Rng& rng, uint32_t rows, uint32_t columns, Dtype dtype) {
    const size_t count = size_t{rows} * columns;
    bytes_.resize(count * BytesOf(dtype) + 1);
    for (size_t i = 0; i < count; ++i) {
      const float value = 2.0F * rng.Unit() - 1.0F;
      uint16_t half = F32ToBf16(value);
      if (dtype == Dtype::kF16) {
        // Any finite number, with many subnormals.
        half = static_cast<uint16_t>(rng.Below(0x4400) | (rng.Below(2) << 15));
      }
      std::byte* const target = bytes_.data() + 1 + i * BytesOf(dtype);
      if (dtype == Dtype::kF32) {
        std::memcpy(target, &value, sizeof(value));
      } else {
        std::memcpy(target, &half, sizeof(half));
      }
    }
    view = {.data = bytes_.data() + 1, .dtype = dtype, .rows = rows, .columns = columns};
  }

  float At(size_t row, size_t column) const {
    const std::byte* source =
        bytes_.data() + 1 + (row * view.columns + column) * BytesOf(view.dtype);
    if (view.dtype == Dtype::kF32) {
      float value = 0.0F;
      std::memcpy(&value, source, sizeof(value));
      return value;
    }
    uint16_t half = 0;
    std::memcpy(&half, source, sizeof(half));
    if (view.dtype == Dtype::kBf16) {
      return Bf16ToF32(half);
    }
    const int exponent = (half >> 10) & 0x1f;
    const float fraction = static_cast<float>(half & 0x3ff) / 1024.0F;
    const float magnitude =
        exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1.0F + fraction, exponent - 15);
    return (half & 0x8000) != 0 ? -magnitude : magnitude;
  }

  MatrixView view;

 private:
  std::vector<std::byte> bytes_;
};

// The header's words, literally.
float CanonicalDot(const std::function<float(size_t)>& x, const std::function<float(size_t)>& w,
                   size_t count) {
  float lanes[16] = {};
  for (size_t k = 0; k < count; ++k) {
    lanes[k % 16] = std::fma(x(k), w(k), lanes[k % 16]);
  }
  for (size_t distance = 8; distance > 0; distance /= 2) {
    for (size_t i = 0; i < distance; ++i) {
      lanes[i] += lanes[i + distance];
    }
  }
  return lanes[0];
}

class EachSet : public testing::TestWithParam<InstructionSet> {
 protected:
  const Kernels& kernels_ = **KernelsFor(GetParam());
  const Kernels& scalar_ = **KernelsFor(InstructionSet::kScalar);
};

struct GemmCase {
  uint32_t rows;
  uint32_t outputs;
  uint32_t depth;
  Dtype dtype;
  bool bias;
};

std::vector<float> RunGemm(const Kernels& kernels, const GemmArgs& args) {
  std::vector<float> y(args.row_count * args.y_stride, -7.0F);
  GemmArgs with_output = args;
  with_output.y = y.data();
  kernels.gemm(with_output);
  return y;
}

void CheckGemm(const Kernels& kernels, const GemmCase& shape, Rng& rng) {
  SCOPED_TRACE(testing::Message() << "M " << shape.rows << " N " << shape.outputs << " K "
                                  << shape.depth << " " << NameOf(shape.dtype));
  const OddWeights weights(rng, shape.outputs, shape.depth, shape.dtype);
  const size_t x_stride = shape.depth + rng.Below(3);
  const std::vector<float> x = RandomVector(rng, 1 + shape.rows * x_stride, 1.0F);
  const std::vector<float> bias = RandomVector(rng, shape.outputs, 1.0F);
  const auto begin = static_cast<uint32_t>(rng.Below(std::min(shape.outputs, 5U)));
  const GemmArgs args{.x = x.data() + 1,
                      .x_stride = x_stride,
                      .row_count = shape.rows,
                      .w = weights.view,
                      .bias = shape.bias ? bias.data() : nullptr,
                      .y_stride = shape.outputs + rng.Below(3),
                      .column_begin = begin,
                      .column_end = shape.outputs};
  std::vector<float> want(args.row_count * args.y_stride, -7.0F);
  for (size_t m = 0; m < shape.rows; ++m) {
    for (size_t n = begin; n < shape.outputs; ++n) {
      const float dot = CanonicalDot([&](size_t k) { return args.x[m * x_stride + k]; },
                                     [&](size_t k) { return weights.At(n, k); }, shape.depth);
      want[m * args.y_stride + n] = shape.bias ? dot + bias[n] : dot;
    }
  }
  ExpectSameBits(RunGemm(kernels, args), want);
}

TEST_P(EachSet, GemmFollowsTheCanonicalOrder) {
  constexpr uint64_t kSeed = 21;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  Rng rng(kSeed);
  for (uint32_t rows = 1; rows <= 70; ++rows) {
    const auto dtype = static_cast<Dtype>(rng.Below(3));
    CheckGemm(kernels_,
              {.rows = rows,
               .outputs = 1 + static_cast<uint32_t>(rng.Below(19)),
               .depth = 1 + static_cast<uint32_t>(rng.Below(70)),
               .dtype = dtype,
               .bias = rng.Chance(0.5F)},
              rng);
  }
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    for (const uint32_t depth : {1U, 15U, 16U, 17U, 64U, 257U}) {
      CheckGemm(kernels_, {.rows = 1, .outputs = 33, .depth = depth, .dtype = dtype, .bias = false},
                rng);
    }
  }
}

// A row's bits must not depend on the rows and columns computed with it.
TEST_P(EachSet, GemmRowsDoNotDependOnTheirCompany) {
  Rng rng(22);
  const uint32_t depth = 100;
  const OddWeights weights(rng, 21, depth, Dtype::kBf16);
  const std::vector<float> x = RandomVector(rng, size_t{64} * depth, 3.0F);
  const std::vector<float> all = RunGemm(kernels_, {.x = x.data(),
                                                    .x_stride = depth,
                                                    .row_count = 64,
                                                    .w = weights.view,
                                                    .y_stride = 21,
                                                    .column_end = 21});
  for (uint32_t row = 0; row < 64; ++row) {
    const auto count = static_cast<uint32_t>(1 + rng.Below(64 - row));
    const std::vector<float> some = RunGemm(kernels_, {.x = x.data() + size_t{row} * depth,
                                                       .x_stride = depth,
                                                       .row_count = count,
                                                       .w = weights.view,
                                                       .y_stride = 21,
                                                       .column_end = 21});
    ASSERT_EQ(std::memcmp(some.data(), all.data() + size_t{row} * 21, some.size() * 4), 0);
  }
}

// An absent lane keeps a negative zero; adding a product of zeros would make it positive.
TEST_P(EachSet, AbsentLanesAreLeftAlone) {
  std::vector<float> a(31, 0.0F);
  std::vector<float> b(31, 0.0F);
  for (size_t i = 0; i < 16; ++i) {
    a[i] = -1e-30F;
    b[i] = 1e-30F;
  }
  EXPECT_EQ(BitsOf(kernels_.dot(a.data(), b.data(), 16)), BitsOf(-0.0F));
  for (const size_t count : {17U, 24U, 30U, 31U}) {
    EXPECT_EQ(BitsOf(kernels_.dot(a.data(), b.data(), count)),
              BitsOf(scalar_.dot(a.data(), b.data(), count)));
  }
}

TEST_P(EachSet, VectorKernelsAgreeWithTheScalarTable) {
  constexpr uint64_t kSeed = 23;
  Rng rng(kSeed);
  for (size_t count = 1; count <= 70; ++count) {
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << " count " << count);
    const std::vector<float> x = RandomVector(rng, count + 1, 20.0F);
    const std::vector<float> w = RandomVector(rng, count + 1, 20.0F);
    std::vector<uint16_t> half(count + 1);
    for (size_t i = 0; i < half.size(); ++i) {
      half[i] = F32ToBf16(w[i]);
    }
    // One float past an aligned address, and a guard behind the end.
    const auto each = [&](const auto& call) {
      std::vector<float> got = x;
      std::vector<float> want = x;
      got.push_back(99.0F);
      want.push_back(99.0F);
      call(kernels_, got.data() + 1);
      call(scalar_, want.data() + 1);
      ExpectSameBits(got, want);
    };
    each([&](const Kernels& k, float* y) { k.axpy(0.37F, w.data() + 1, y, count); });
    each([&](const Kernels& k, float* y) { k.axpy_bf16(0.37F, half.data() + 1, y, count); });
    each([&](const Kernels& k, float* y) { k.scale(-1.7F, y, count); });
    each([&](const Kernels& k, float* y) { k.add(w.data() + 1, y, count); });
    each([&](const Kernels& k, float* y) { k.rms_norm(y, w.data() + 1, 1e-6F, y, count); });
    each([&](const Kernels& k, float* y) { k.silu_mul(y, w.data() + 1, y, count); });
    each([&](const Kernels& k, float* y) { y[0] = k.exp_sum(3.0F, y, count); });
    each([&](const Kernels& k, float* y) { k.sigmoid(y, y, count); });
    each([&](const Kernels& k, float* y) { y[0] = k.max(y, count); });
    each([&](const Kernels& k, float* y) { y[0] = k.dot(y, w.data() + 1, count); });
    each([&](const Kernels& k, float* y) { y[0] = k.dot_bf16(y, half.data() + 1, count); });
    each([&](const Kernels& k, float* y) { k.bf16_to_f32(half.data() + 1, y, count); });
  }
}

TEST_P(EachSet, WeightedSumIsAxpyTermByTerm) {
  constexpr uint64_t kSeed = 24;
  Rng rng(kSeed);
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << " round " << round);
    const auto rows = static_cast<uint32_t>(1 + rng.Below(20));
    const auto terms = static_cast<uint32_t>(rng.Below(30));
    const auto count = static_cast<uint32_t>(1 + rng.Below(50));
    const Dtype dtype = rng.Chance(0.5F) ? Dtype::kBf16 : Dtype::kF32;
    const OddWeights x(rng, terms + 1, count + 2, dtype);
    const std::vector<float> weights = RandomVector(rng, size_t{rows} * (terms + 1), 1.0F);
    std::vector<float> got = RandomVector(rng, size_t{rows} * (count + 1), 1.0F);
    std::vector<float> want = got;
    for (size_t r = 0; r < rows; ++r) {
      for (size_t t = 0; t < terms; ++t) {
        std::vector<float> term(count);
        for (size_t i = 0; i < count; ++i) {
          term[i] = x.At(t, i);
        }
        scalar_.axpy(weights[r * (terms + 1) + t], term.data(), want.data() + r * (count + 1),
                     count);
      }
    }
    kernels_.weighted_sum({.weights = weights.data(),
                           .weight_stride = terms + 1,
                           .row_count = rows,
                           .term_count = terms,
                           .x = x.view.data,
                           .dtype = dtype,
                           .x_stride = count + 2,
                           .y = got.data(),
                           .y_stride = count + 1,
                           .count = count});
    ExpectSameBits(got, want);
  }
}

TEST_P(EachSet, ConvertsToBf16LikeTheTensorLib) {
  Rng rng(25);
  std::vector<float> x;
  for (const uint32_t special :
       {0U, 0x80000000U, 0x7f800000U, 0xff800000U, 0x7f800001U, 0x7fc00000U, 0xffffffffU,
        0x7f7fffffU, 1U, 0x3f808000U, 0x3f818000U}) {
    x.push_back(std::bit_cast<float>(special));
  }
  for (int i = 0; i < 500; ++i) {
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(rng.Next())));
  }
  std::vector<uint16_t> got(x.size() + 1, 0x1234);
  kernels_.f32_to_bf16(x.data(), got.data(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(got[i], F32ToBf16(x[i])) << std::hex << BitsOf(x[i]);
  }
  EXPECT_EQ(got.back(), 0x1234);
}

TEST_P(EachSet, WidensEveryF16Exactly) {
  std::vector<uint16_t> all(65536);
  for (uint32_t i = 0; i < 65536; ++i) {
    all[i] = static_cast<uint16_t>(i);
  }
  const float one = 1.0F;
  std::vector<float> got(65536);
  kernels_.gemm({.x = &one,
                 .x_stride = 1,
                 .row_count = 1,
                 .w = {.data = all.data(), .dtype = Dtype::kF16, .rows = 65536, .columns = 1},
                 .y = got.data(),
                 .y_stride = 65536,
                 .column_end = 65536});
  for (uint32_t i = 0; i < 65536; ++i) {
    const uint32_t exponent = (i >> 10) & 0x1fU;
    const uint32_t mantissa = i & 0x3ffU;
    if (exponent == 0x1fU) {
      ASSERT_EQ(std::isnan(got[i]), mantissa != 0);
      ASSERT_EQ(std::isinf(got[i]), mantissa == 0);
      continue;
    }
    const double magnitude = exponent == 0
                                 ? std::ldexp(mantissa, -24)
                                 : std::ldexp(1024 + mantissa, static_cast<int>(exponent) - 25);
    ASSERT_EQ(static_cast<double>(got[i]), (i & 0x8000U) != 0 ? -magnitude : magnitude) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, EachSet, testing::ValuesIn(SupportedInstructionSets()),
                         [](const auto& suite) {
                           std::string name(NameOf(suite.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// All tables agree with each other on random bit patterns, so accuracy is measured on one.
TEST(Exp, IsWithinTwoUlpOfTheTrueValue) {
  double worst_ulp = 0.0;
  for (int i = -87'200; i <= 88'200; ++i) {
    const float x = static_cast<float>(i) * 1e-3F;
    const double want = std::exp(static_cast<double>(x));
    const auto nearest = static_cast<float>(want);
    const double ulp = static_cast<double>(std::nextafter(nearest, INFINITY)) - nearest;
    worst_ulp = std::max(worst_ulp, std::abs(static_cast<double>(Exp(x)) - want) / ulp);
  }
  EXPECT_LT(worst_ulp, 2.0);
  RecordProperty("worst_ulp", std::to_string(worst_ulp));
}

TEST(Exp, HasDefinedEnds) {
  EXPECT_EQ(Exp(0.0F), 1.0F);
  EXPECT_EQ(Exp(-0.0F), 1.0F);
  EXPECT_EQ(Exp(-87.4F), 0.0F);
  EXPECT_EQ(Exp(-std::numeric_limits<float>::infinity()), 0.0F);
  EXPECT_EQ(Exp(89.0F), Exp(88.3F));
  EXPECT_EQ(Exp(std::numeric_limits<float>::infinity()), Exp(88.3F));
  EXPECT_TRUE(std::isfinite(Exp(88.3F)));
  EXPECT_TRUE(std::isnan(Exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Exp, AllTablesGiveTheSameBits) {
  std::vector<float> x;
  for (uint32_t i = 0; i < 60'000; ++i) {
    x.push_back(-100.0F + 0.00331F * static_cast<float>(i));
  }
  for (const InstructionSet set : SupportedInstructionSets()) {
    std::vector<float> y = x;
    KernelsFor(set).value()->exp_sum(0.0F, y.data(), y.size());
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(BitsOf(y[i]), BitsOf(Exp(x[i]))) << NameOf(set) << " " << x[i];
    }
  }
}

TEST(KernelsFor, BestIsTheLastSupported) {
  EXPECT_EQ(SupportedInstructionSets().front(), InstructionSet::kScalar);
  EXPECT_EQ(BestKernels().instruction_set, SupportedInstructionSets().back());
  EXPECT_EQ(KernelsFor(static_cast<InstructionSet>(9)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace switchyard
