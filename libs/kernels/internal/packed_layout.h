#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_LAYOUT_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_LAYOUT_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "libs/kernels/packed_matrix.h"
#include "libs/tensor/dtype.h"

// Where each weight lies in a panel (packed_matrix.h has the layouts). Any thread: pure. Not for
// the files of an instruction set, whose copies of these inline functions could be the ones the
// linker keeps.
namespace switchyard::internal {

// A group of activations whose largest magnitude is less becomes zeros: 127 divided by it would
// overflow.
inline constexpr float kTiniestActivation = 1e-30F;

// Bits of 1.5 x 2^23: added to an integer below 2^22 in magnitude they make the float of that
// number plus it.
inline constexpr int32_t kFloatOffset = 0x4b400000;

inline constexpr size_t kInt8CodeBytes = size_t{kDepthBlock} * kPanelColumns;
inline constexpr size_t kInt4CodeBytes = kInt8CodeBytes / 2;
inline constexpr size_t kGroupScaleBytes =
    size_t{kDepthBlock} / kScaleGroup * kPanelColumns * sizeof(uint16_t);
inline constexpr size_t kInt8BlockBytes = kInt8CodeBytes + kGroupScaleBytes;
inline constexpr size_t kInt4BlockBytes = kInt4CodeBytes + kGroupScaleBytes;

// Neighbouring panels are read together. With a power of two between them their lines would compete
// for the same places of the first-level cache (measured: half the speed).
inline constexpr size_t kPanelPadding = 256;

inline size_t PanelBytes(WeightFormat format, size_t padded_columns) {
  switch (format) {
    case WeightFormat::kBf16:
      return padded_columns * kPanelColumns * 2 + kPanelPadding;
    case WeightFormat::kFp8: {
      const size_t blocks = (padded_columns + kFp8Block - 1) / kFp8Block;
      return padded_columns * kPanelColumns +
             (blocks * sizeof(float) + kPanelPadding - 1) / kPanelPadding * kPanelPadding;
    }
    case WeightFormat::kInt8:
      return padded_columns / kDepthBlock * kInt8BlockBytes;
    case WeightFormat::kInt4:
      return padded_columns / kDepthBlock * kInt4BlockBytes;
    case WeightFormat::kF32:
    case WeightFormat::kF16:
      break;
  }
  return 0;
}

// The first byte of the panel of `row` in kBf16 and kFp8.
inline const std::byte* PairPanel(const PackedMatrix& matrix, size_t row) {
  return matrix.data + row / kPanelColumns * matrix.panel_bytes();
}

// Panels of kInt8 and kInt4 that lie block by block beside each other, counted from `first_panel`,
// which is even: two, or one at the end of an odd number of them.
inline size_t PanelsTogether(size_t first_panel, size_t rows) {
  return (first_panel + 1) * kPanelColumns < rows ? 2 : 1;
}

// Where the 64 k around `k` of the panel of `row` begin, in kInt8 and kInt4.
inline const std::byte* GroupBlock(const PackedMatrix& matrix, size_t row, size_t k) {
  const size_t panel = row / kPanelColumns;
  const size_t first_panel = panel / 2 * 2;
  const size_t block = k / kDepthBlock * PanelsTogether(first_panel, matrix.rows) + panel % 2;
  const bool wide = matrix.format == WeightFormat::kInt8;
  return matrix.data + first_panel * matrix.panel_bytes() +
         block * (wide ? kInt8BlockBytes : kInt4BlockBytes);
}

// Element index of (k, output) in a panel of kBf16 and kFp8.
inline size_t PairOffset(size_t k, size_t output) {
  return (k / 2 * kPanelColumns + output) * 2 + k % 2;
}

// In a block.
inline size_t Int8Offset(size_t k, size_t output) {
  const size_t inner = k % kDepthBlock;
  return (inner / 4 * kPanelColumns + output) * 4 + inner % 4;
}

struct NibblePlace {
  size_t offset = 0;
  int shift = 0;
};

// In a block.
inline NibblePlace Int4Place(size_t k, size_t output) {
  const size_t group = k % kDepthBlock / kScaleGroup;
  const size_t inner = k % kScaleGroup;
  const size_t row = inner % 16 / 4;
  return {.offset = group * (kInt4CodeBytes / 2) + (row * kPanelColumns + output) * 4 + inner % 4,
          .shift = inner < 16 ? 0 : 4};
}

// Offset in a block of the f16 scale of the group of k.
inline size_t GroupScaleOffset(WeightFormat format, size_t k, size_t output) {
  const bool wide = format == WeightFormat::kInt8;
  const size_t group = k % kDepthBlock / kScaleGroup;
  return (wide ? kInt8CodeBytes : kInt4CodeBytes) +
         (group * kPanelColumns + output) * sizeof(uint16_t);
}

// Exact; the two NaN codes become NaN. OCP 8-bit floating point 1.0, E4M3.
constexpr float Fp8ToF32(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80U) << 24;
  const uint32_t exponent = (code >> 3) & 0xfU;
  const uint32_t fraction = code & 0x7U;
  if ((code & 0x7fU) == 0x7fU) {
    return std::bit_cast<float>(sign | 0x7fc00000U);
  }
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * (1.0F / 512.0F);  // 2^-9
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 120U) << 23) | (fraction << 20));
}

template <typename T>
T LoadAt(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(value));
  return value;
}

inline float Fp8ScaleAt(const PackedMatrix& matrix, size_t row, size_t k) {
  const size_t codes = size_t{matrix.padded_columns()} * kPanelColumns;
  return LoadAt<float>(PairPanel(matrix, row) + codes + k / kFp8Block * sizeof(float));
}

inline float GroupScaleAt(const PackedMatrix& matrix, size_t row, size_t k) {
  return F16ToF32(LoadAt<uint16_t>(GroupBlock(matrix, row, k) +
                                   GroupScaleOffset(matrix.format, k, row % kPanelColumns)));
}

// The integer weight of kInt8 and kInt4.
inline int32_t CodeAt(const PackedMatrix& matrix, size_t row, size_t k) {
  const std::byte* block = GroupBlock(matrix, row, k);
  const size_t output = row % kPanelColumns;
  if (matrix.format == WeightFormat::kInt8) {
    return static_cast<int32_t>(block[Int8Offset(k, output)]) - 128;
  }
  const NibblePlace place = Int4Place(k, output);
  return Int4Levels()[(static_cast<uint32_t>(block[place.offset]) >> place.shift) & 0xfU];
}

// The weight (row, k) as f32.
inline float PackedValue(const PackedMatrix& matrix, size_t row, size_t k) {
  const size_t pair = PairOffset(k, row % kPanelColumns);
  switch (matrix.format) {
    case WeightFormat::kBf16:
      return Bf16ToF32(LoadAt<uint16_t>(PairPanel(matrix, row) + pair * 2));
    case WeightFormat::kFp8:
      return Fp8ToF32(static_cast<uint8_t>(PairPanel(matrix, row)[pair])) *
             Fp8ScaleAt(matrix, row, k);
    case WeightFormat::kInt8:
    case WeightFormat::kInt4:
      return static_cast<float>(CodeAt(matrix, row, k)) * GroupScaleAt(matrix, row, k);
    case WeightFormat::kF32:
    case WeightFormat::kF16:
      break;
  }
  return 0.0F;
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_PACKED_LAYOUT_H_
