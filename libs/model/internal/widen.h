#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_WIDEN_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_WIDEN_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "libs/kernels/packed_matrix.h"
#include "libs/tensor/dtype.h"

namespace switchyard::internal {

// Widens `count` elements at `data`, which may be unaligned, to f32. Exact. Any thread.
inline void WidenToF32(const void* data, Dtype dtype, size_t count, float* out) {
  if (dtype == Dtype::kF32) {
    std::memcpy(out, data, count * sizeof(float));
    return;
  }
  const auto* bytes = static_cast<const std::byte*>(data);
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes + i * sizeof(bits), sizeof(bits));
    out[i] = dtype == Dtype::kBf16 ? Bf16ToF32(bits) : F16ToF32(bits);
  }
}

// Row `row` of a stored matrix as UnpackStored() has it, faster for the formats of embeddings.
inline void WidenRow(const StoredMatrix& stored, uint32_t row, float* out) {
  const size_t columns = stored.columns;
  const std::byte* const values =
      stored.values + row * StoredValueBytes(stored.format, 1, stored.columns);
  switch (stored.format) {
    case WeightFormat::kF32:
      WidenToF32(values, Dtype::kF32, columns, out);
      return;
    case WeightFormat::kBf16:
      WidenToF32(values, Dtype::kBf16, columns, out);
      return;
    case WeightFormat::kF16:
      WidenToF32(values, Dtype::kF16, columns, out);
      return;
    case WeightFormat::kInt8:
      break;
    default:
      UnpackStored(stored, row, 1, out);
      return;
  }
  const std::byte* scale_bits = static_cast<const std::byte*>(stored.scales) +
                                row * StoredScaleBytes(stored.format, 1, stored.columns);
  for (size_t first = 0; first < columns; first += kScaleGroup) {
    uint16_t bits = 0;
    std::memcpy(&bits, scale_bits, sizeof(bits));
    scale_bits += sizeof(bits);
    const float scale = F16ToF32(bits);
    const size_t end = std::min<size_t>(first + kScaleGroup, columns);
    for (size_t k = first; k < end; ++k) {
      out[k] = static_cast<float>(static_cast<int8_t>(values[k])) * scale;
    }
  }
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_WIDEN_H_
