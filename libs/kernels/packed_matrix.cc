#include "libs/kernels/packed_matrix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "libs/base/check.h"
#include "libs/kernels/internal/packed_layout.h"
#include "libs/kernels/internal/tables.h"

namespace switchyard {
namespace {

using internal::Fp8ToF32;

constexpr size_t kAlignment = 64;

size_t RoundUp(size_t value, size_t step) { return (value + step - 1) / step * step; }

uint32_t PanelCount(uint32_t rows) { return (rows + kPanelColumns - 1) / kPanelColumns; }

uint32_t GroupCount(uint32_t columns) { return (columns + kScaleGroup - 1) / kScaleGroup; }

uint32_t Fp8BlockCount(uint32_t size) { return (size + kFp8Block - 1) / kFp8Block; }

bool IsRowMajor(WeightFormat format) {
  return format == WeightFormat::kF32 || format == WeightFormat::kF16;
}

uint8_t ByteAt(const std::byte* data, size_t index) { return static_cast<uint8_t>(data[index]); }

uint16_t U16At(const void* data, size_t index) {
  uint16_t value = 0;
  std::memcpy(&value, static_cast<const std::byte*>(data) + index * sizeof(value), sizeof(value));
  return value;
}

float F32At(const void* data, size_t index) {
  float value = 0;
  std::memcpy(&value, static_cast<const std::byte*>(data) + index * sizeof(value), sizeof(value));
  return value;
}

uint8_t Int4CodeAt(const StoredMatrix& stored, size_t row, size_t column) {
  const size_t stride = (stored.columns + 1) / 2;
  const uint8_t both = ByteAt(stored.values, row * stride + column / 2);
  return column % 2 == 0 ? both & 0xfU : both >> 4;
}

constexpr auto WideBytes() {
  std::array<uint8_t, 256> bytes = {};
  for (uint8_t code = 0; code < 128; ++code) {
    const uint32_t bits = std::bit_cast<uint32_t>(Fp8ToF32(code));
    bytes[code] = static_cast<uint8_t>(bits >> 16);
    bytes[code + 128U] = static_cast<uint8_t>(bits >> 24);
  }
  return bytes;
}

}  // namespace

namespace internal {

alignas(64) constinit const std::array<uint8_t, 256> kFp8WideBytes = WideBytes();

}  // namespace internal

std::string_view NameOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBf16:
      return "bf16";
    case WeightFormat::kF16:
      return "f16";
    case WeightFormat::kFp8:
      return "fp8";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kInt4:
      return "int4";
  }
  return "unknown";
}

ActivationForm FormFor(WeightFormat format) {
  switch (format) {
    case WeightFormat::kBf16:
    case WeightFormat::kFp8:
      return ActivationForm::kBf16;
    case WeightFormat::kInt8:
    case WeightFormat::kInt4:
      return ActivationForm::kInt8;
    case WeightFormat::kF32:
    case WeightFormat::kF16:
      break;
  }
  return ActivationForm::kF32;
}

PackedMatrix PackedMatrix::Plain(const MatrixView& view) {
  SY_CHECK(view.dtype != Dtype::kBf16);
  return {.data = static_cast<const std::byte*>(view.data),
          .format = view.dtype == Dtype::kF32 ? WeightFormat::kF32 : WeightFormat::kF16,
          .rows = view.rows,
          .columns = view.columns};
}

size_t PackedMatrix::panel_bytes() const { return internal::PanelBytes(format, padded_columns()); }

size_t PackedMatrix::byte_size() const { return PackedBytes(format, rows, columns); }

size_t PackedBytes(WeightFormat format, uint32_t rows, uint32_t columns) {
  if (IsRowMajor(format)) {
    return StoredValueBytes(format, rows, columns);
  }
  return PanelCount(rows) * internal::PanelBytes(format, RoundUp(columns, kDepthBlock));
}

StoredMatrix StoredMatrix::Plain(const MatrixView& view) {
  WeightFormat format = WeightFormat::kF32;
  if (view.dtype != Dtype::kF32) {
    format = view.dtype == Dtype::kBf16 ? WeightFormat::kBf16 : WeightFormat::kF16;
  }
  return {.values = static_cast<const std::byte*>(view.data),
          .format = format,
          .rows = view.rows,
          .columns = view.columns};
}

size_t StoredValueBytes(WeightFormat format, uint32_t rows, uint32_t columns) {
  const size_t count = size_t{rows} * columns;
  switch (format) {
    case WeightFormat::kF32:
      return count * 4;
    case WeightFormat::kBf16:
    case WeightFormat::kF16:
      return count * 2;
    case WeightFormat::kFp8:
    case WeightFormat::kInt8:
      return count;
    case WeightFormat::kInt4:
      return size_t{rows} * ((columns + 1) / 2);
  }
  return 0;
}

size_t StoredScaleBytes(WeightFormat format, uint32_t rows, uint32_t columns) {
  switch (format) {
    case WeightFormat::kFp8:
      return size_t{Fp8BlockCount(rows)} * Fp8BlockCount(columns) * sizeof(float);
    case WeightFormat::kInt8:
    case WeightFormat::kInt4:
      return size_t{rows} * GroupCount(columns) * sizeof(uint16_t);
    default:
      return 0;
  }
}

void UnpackStored(const StoredMatrix& stored, uint32_t first, uint32_t count, float* out) {
  const size_t columns = stored.columns;
  const size_t block_count = Fp8BlockCount(stored.columns);
  const size_t group_count = GroupCount(stored.columns);
  for (size_t row = first; row < size_t{first} + count; ++row) {
    for (size_t k = 0; k < columns; ++k) {
      const size_t index = row * columns + k;
      float value = 0.0F;
      switch (stored.format) {
        case WeightFormat::kF32:
          value = F32At(stored.values, index);
          break;
        case WeightFormat::kBf16:
          value = Bf16ToF32(U16At(stored.values, index));
          break;
        case WeightFormat::kF16:
          value = F16ToF32(U16At(stored.values, index));
          break;
        case WeightFormat::kFp8:
          value = Fp8ToF32(ByteAt(stored.values, index)) *
                  F32At(stored.scales, row / kFp8Block * block_count + k / kFp8Block);
          break;
        case WeightFormat::kInt8:
          value = static_cast<float>(static_cast<int8_t>(ByteAt(stored.values, index))) *
                  F16ToF32(U16At(stored.scales, row * group_count + k / kScaleGroup));
          break;
        case WeightFormat::kInt4:
          value = static_cast<float>(Int4Levels()[Int4CodeAt(stored, row, k)]) *
                  F16ToF32(U16At(stored.scales, row * group_count + k / kScaleGroup));
          break;
      }
      *out++ = value;
    }
  }
}

void UnpackRow(const PackedMatrix& packed, uint32_t row, float* out) {
  SY_CHECK(row < packed.rows);
  if (IsRowMajor(packed.format)) {
    const StoredMatrix plain{.values = packed.data,
                             .format = packed.format,
                             .rows = packed.rows,
                             .columns = packed.columns};
    UnpackStored(plain, row, 1, out);
    return;
  }
  for (uint32_t k = 0; k < packed.columns; ++k) {
    out[k] = internal::PackedValue(packed, row, k);
  }
}

size_t ActivationRowBytes(ActivationForm form, uint32_t columns) {
  SY_CHECK(form != ActivationForm::kF32);
  const size_t padded = RoundUp(columns, kDepthBlock);
  if (form == ActivationForm::kBf16) {
    return (padded * sizeof(uint16_t) / kAlignment | 1) * kAlignment;
  }
  const size_t used = padded + padded / kScaleGroup * (sizeof(float) + sizeof(int32_t));
  return (RoundUp(used, kAlignment) / kAlignment | 1) * kAlignment;
}

}  // namespace switchyard
