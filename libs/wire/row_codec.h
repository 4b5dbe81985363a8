#ifndef SWITCHYARD_LIBS_WIRE_ROW_CODEC_H_
#define SWITCHYARD_LIBS_WIRE_ROW_CODEC_H_

#include <cstddef>
#include <span>

#include "libs/tensor/dtype.h"

namespace switchyard {

// Rows on the wire are f32 or bf16 (rounded to nearest even). Any thread; pure.
constexpr bool IsRowDtype(Dtype dtype) { return dtype == Dtype::kF32 || dtype == Dtype::kBf16; }

// Writes `row` to the first row.size() * BytesOf(dtype) bytes of `out`. False when a value is NaN
// or infinite as it goes over the wire.
bool EncodeRow(std::span<const float> row, Dtype dtype, std::byte* out);

// Reads row.size() elements; false when one is NaN or infinite (`row` is then not to be used).
bool DecodeRow(const std::byte* bytes, Dtype dtype, std::span<float> row);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_WIRE_ROW_CODEC_H_
