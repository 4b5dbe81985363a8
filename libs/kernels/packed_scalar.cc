// The definition of the packed orders (packed_matrix.h), one output at a time.
#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "libs/base/check.h"
#include "libs/base/rng.h"
#include "libs/kernels/internal/packed_layout.h"
#include "libs/kernels/internal/tables.h"

namespace switchyard::internal {
namespace {

float Flush(float value) { return std::fabs(value) < FLT_MIN ? std::copysign(0.0F, value) : value; }

float FlushedFma(float a, float b, float c) { return Flush(std::fma(Flush(a), Flush(b), c)); }

// One output of one row over k in [begin, end) of a kBf16 or kFp8 panel, unscaled.
struct PairSource {
  const PackedMatrix& w;
  size_t column;
  const std::byte* panel;
  const std::byte* x;

  float Weight(size_t k) const {
    const size_t offset = PairOffset(k, column % kPanelColumns);
    if (w.format == WeightFormat::kBf16) {
      return Bf16ToF32(LoadAt<uint16_t>(panel + offset * 2));
    }
    return Fp8ToF32(static_cast<uint8_t>(panel[offset]));
  }

  float Activation(size_t k) const { return Bf16ToF32(LoadAt<uint16_t>(x + k * 2)); }

  float Sum(size_t begin, size_t end, float sum) const {
    for (size_t k = begin; k < end; k += 2) {
      sum = FlushedFma(Activation(k + 1), Weight(k + 1), sum);
      sum = FlushedFma(Activation(k), Weight(k), sum);
    }
    return sum;
  }
};

float Fp8Output(const PairSource& source) {
  float sum = 0.0F;
  const size_t depth = source.w.padded_columns();
  for (size_t k = 0; k < depth; k += kFp8Block) {
    const float part = source.Sum(k, std::min<size_t>(k + kFp8Block, depth), 0.0F);
    sum = FlushedFma(part, Fp8ScaleAt(source.w, source.column, k), sum);
  }
  return sum;
}

float IntegerOutput(const PackedMatrix& w, size_t column, const std::byte* x) {
  const size_t depth = w.padded_columns();
  float sum = 0.0F;
  for (size_t k = 0; k < depth; k += kScaleGroup) {
    int32_t part = 0;
    for (size_t i = k; i < k + kScaleGroup; ++i) {
      part += static_cast<int32_t>(static_cast<int8_t>(x[i])) * CodeAt(w, column, i);
    }
    const auto x_scale = LoadAt<float>(x + depth + k / kScaleGroup * sizeof(float));
    sum = std::fma(static_cast<float>(part) * x_scale, GroupScaleAt(w, column, k), sum);
  }
  return sum;
}

float Output(const PackedMatrix& w, uint32_t column, const std::byte* x) {
  const PairSource pairs{.w = w, .column = column, .panel = PairPanel(w, column), .x = x};
  switch (w.format) {
    case WeightFormat::kBf16:
      return pairs.Sum(0, w.padded_columns(), 0.0F);
    case WeightFormat::kFp8:
      return Fp8Output(pairs);
    default:
      return IntegerOutput(w, column, x);
  }
}

float AddBias(WeightFormat format, float value, float bias) {
  if (FormFor(format) == ActivationForm::kBf16) {
    return Flush(value + Flush(bias));
  }
  return value + bias;
}

void PrepareInt8(const float* x, uint32_t columns, std::byte* out) {
  const size_t padded = (columns + kDepthBlock - 1) / kDepthBlock * kDepthBlock;
  std::byte* const scales = out + padded;
  std::byte* const offsets = scales + padded / kScaleGroup * sizeof(float);
  for (size_t k = 0; k < padded; k += kScaleGroup) {
    const size_t end = std::min<size_t>(k + kScaleGroup, columns);
    float largest = 0.0F;
    for (size_t i = k; i < end; ++i) {
      largest = std::max(largest, std::fabs(x[i]));
    }
    const bool zero = largest < kTiniestActivation;
    const float scale = zero ? 0.0F : largest / 127.0F;
    const float inverse = zero ? 0.0F : 127.0F / largest;
    int32_t sum = 0;
    for (size_t i = k; i < k + kScaleGroup; ++i) {
      const int32_t code = i < end ? static_cast<int32_t>(std::nearbyint(x[i] * inverse)) : 0;
      out[i] = std::byte{static_cast<uint8_t>(static_cast<int8_t>(code))};
      sum += code;
    }
    std::memcpy(scales + k / kScaleGroup * sizeof(scale), &scale, sizeof(scale));
    const int32_t offset = kFloatOffset - 128 * sum;
    std::memcpy(offsets + k / kScaleGroup * sizeof(offset), &offset, sizeof(offset));
  }
}

}  // namespace

void PrepareRowScalar(ActivationForm form, const float* x, uint32_t columns, std::byte* out) {
  SY_CHECK(form != ActivationForm::kF32);
  std::memset(out, 0, ActivationRowBytes(form, columns));
  if (form == ActivationForm::kInt8) {
    PrepareInt8(x, columns, out);
    return;
  }
  for (size_t k = 0; k < columns; ++k) {
    const uint16_t bits = F32ToBf16(x[k]);
    std::memcpy(out + k * sizeof(bits), &bits, sizeof(bits));
  }
}

void PackedGemmScalar(const PackedGemmArgs& args) {
  for (uint32_t row = 0; row < args.x.row_count; ++row) {
    const std::byte* x = args.x.data + row * args.x.row_bytes;
    float* y = args.y + row * args.y_stride;
    for (uint32_t column = args.column_begin; column < args.column_end; ++column) {
      const float value = Output(args.w, column, x);
      y[column] = args.bias == nullptr ? value : AddBias(args.w.format, value, args.bias[column]);
    }
  }
}

bool PairsAreInOrder(void (*packed_gemm)(const PackedGemmArgs& args)) {
  // Exponents and fractions all over bf16, near cancellations and subnormals included.
  constexpr uint32_t kDepth = 256;
  constexpr uint32_t kOutputs = 4 * kPanelColumns;
  constexpr uint32_t kRows = 3;
  std::vector<uint16_t> weights(size_t{kOutputs} * kDepth);
  std::vector<float> rows(size_t{kRows} * kDepth);
  uint64_t state = 1;
  const auto next = [&state] { return static_cast<uint32_t>(Mix64(state++)); };
  for (size_t i = 0; i < weights.size(); ++i) {
    const uint32_t exponent = i % 16 == 0 ? next() % 4 : 119 + next() % 16;
    weights[i] = static_cast<uint16_t>((next() & 0x807fU) | exponent << 7);
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint32_t exponent = i % 32 == 1 ? next() % 4 : 119 + next() % 16;
    rows[i] = std::bit_cast<float>((next() & 0x807f0000U) | exponent << 23);
  }
  const StoredMatrix stored{.values = reinterpret_cast<const std::byte*>(weights.data()),
                            .format = WeightFormat::kBf16,
                            .rows = kOutputs,
                            .columns = kDepth};
  const size_t packed_bytes = PackedBytes(WeightFormat::kBf16, kOutputs, kDepth);
  const size_t row_bytes = ActivationRowBytes(ActivationForm::kBf16, kDepth);
  const std::shared_ptr<std::byte> packed = AllocateWeights(packed_bytes);
  const std::shared_ptr<std::byte> x = AllocateWeights(kRows * row_bytes);
  Pack(stored, {packed.get(), packed_bytes});
  for (uint32_t row = 0; row < kRows; ++row) {
    PrepareRowScalar(ActivationForm::kBf16, rows.data() + size_t{row} * kDepth, kDepth,
                     x.get() + row * row_bytes);
  }
  std::vector<float> got(size_t{kRows} * kOutputs);
  std::vector<float> want(got.size());
  PackedGemmArgs args{.x = {.data = x.get(),
                            .form = ActivationForm::kBf16,
                            .row_bytes = row_bytes,
                            .row_count = kRows,
                            .columns = kDepth},
                      .w = {.data = packed.get(),
                            .format = WeightFormat::kBf16,
                            .rows = kOutputs,
                            .columns = kDepth},
                      .y = got.data(),
                      .y_stride = kOutputs,
                      .column_end = kOutputs};
  packed_gemm(args);
  args.y = want.data();
  PackedGemmScalar(args);
  return std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0;
}

}  // namespace switchyard::internal
