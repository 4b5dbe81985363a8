#include "libs/model/convert_rows.h"

#include <algorithm>
#include <limits>

#include "libs/tensor/dtype.h"

namespace switchyard {
namespace {

// Rows that are converted at a time: bounds the f32 copy.
constexpr uint32_t kRowsAtOnce = 64;

void RoundRow(const float* x, uint32_t columns, WeightFormat format, std::byte* out) {
  if (format == WeightFormat::kF32) {
    std::copy_n(reinterpret_cast<const std::byte*>(x), columns * sizeof(float), out);
    return;
  }
  for (uint32_t k = 0; k < columns; ++k) {
    const uint16_t bits = format == WeightFormat::kBf16 ? F32ToBf16(x[k]) : F32ToF16(x[k]);
    std::copy_n(reinterpret_cast<const std::byte*>(&bits), sizeof(bits), out + k * sizeof(bits));
  }
}

}  // namespace

StoredMatrix ConvertedRows::View(WeightFormat format, uint32_t rows, uint32_t columns) const {
  return {.values = values.data(),
          .format = format,
          .rows = rows,
          .columns = columns,
          .scales = scales.data()};
}

float LargestFor(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt8:
    case WeightFormat::kInt4:
      return 4194304.0F;  // Scales are at most a hundredth of the largest value, f16 ends at 65504.
    case WeightFormat::kBf16:
      return Bf16ToF32(0x7f7f);
    case WeightFormat::kF16:
      return F16ToF32(0x7bff);
    case WeightFormat::kF32:
    case WeightFormat::kFp8:
      break;
  }
  return std::numeric_limits<float>::max();
}

ConvertedRows ConvertRows(const StoredMatrix& stored, WeightFormat format) {
  const bool quantised = format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
  ConvertedRows result;
  result.values.reserve(StoredValueBytes(format, stored.rows, stored.columns));
  std::vector<float> rows(size_t{kRowsAtOnce} * stored.columns);
  for (uint32_t first = 0; first < stored.rows; first += kRowsAtOnce) {
    const uint32_t count = std::min(kRowsAtOnce, stored.rows - first);
    UnpackStored(stored, first, count, rows.data());
    if (quantised) {
      const QuantizedRows part = Quantize(format, rows.data(), count, stored.columns);
      result.values.insert(result.values.end(), part.values.begin(), part.values.end());
      result.scales.insert(result.scales.end(), part.scales.begin(), part.scales.end());
      continue;
    }
    const size_t row_bytes = StoredValueBytes(format, 1, stored.columns);
    for (uint32_t row = 0; row < count; ++row) {
      const size_t offset = result.values.size();
      result.values.resize(offset + row_bytes);
      RoundRow(rows.data() + size_t{row} * stored.columns, stored.columns, format,
               result.values.data() + offset);
    }
  }
  return result;
}

}  // namespace switchyard
