#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_WIDEN_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_WIDEN_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

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

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_WIDEN_H_
