#include "libs/model/weight_arena.h"

#include <cstdint>
#include <span>

#include "libs/base/check.h"
#include "libs/model/convert_rows.h"

namespace switchyard {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

std::byte* WeightArena::ReserveBytes(size_t byte_count) {
  byte_count = (byte_count + kAlignment - 1) / kAlignment * kAlignment;
  byte_count_ += byte_count;
  if (mode_ == Mode::kCounts) {
    return nullptr;
  }
  if (byte_count > chunk_bytes_) {
    chunks_.insert(chunks_.begin(), AllocateWeights(byte_count));
    return chunks_.front().get();
  }
  if (capacity_ - used_ < byte_count) {
    chunks_.push_back(AllocateWeights(chunk_bytes_));
    used_ = 0;
    capacity_ = chunk_bytes_;
  }
  std::byte* const place = chunks_.back().get() + used_;
  used_ += byte_count;
  return place;
}

PackedMatrix WeightArena::Reserve(WeightFormat format, uint32_t rows, uint32_t columns) {
  return {.data = ReserveBytes(PackedBytes(format, rows, columns)),
          .format = format,
          .rows = rows,
          .columns = columns};
}

std::byte* WeightArena::RowsOf(const PackedMatrix& place, uint32_t first_row) {
  SY_CHECK(first_row % (2 * kPanelColumns) == 0 && first_row < place.rows);
  // Views are of constant bytes for their readers; while an arena fills them it is their writer.
  return const_cast<std::byte*>(place.data) + PackedBytes(place.format, first_row, place.columns);
}

void WeightArena::Fill(const PackedMatrix& place, uint32_t first_row, const StoredMatrix& stored) {
  SY_CHECK(first_row % kFp8Block == 0 && first_row + stored.rows <= place.rows);
  SY_CHECK(stored.columns == place.columns);
  const std::span<std::byte> out(RowsOf(place, first_row),
                                 PackedBytes(place.format, stored.rows, stored.columns));
  if (place.format == stored.format) {
    Pack(stored, out);
    return;
  }
  const ConvertedRows converted = ConvertRows(stored, place.format);
  Pack(converted.View(place.format, stored.rows, stored.columns), out);
}

PackedMatrix WeightArena::Add(const StoredMatrix& stored, WeightFormat format) {
  const PackedMatrix place = Reserve(format, stored.rows, stored.columns);
  Fill(place, 0, stored);
  return place;
}

}  // namespace switchyard
