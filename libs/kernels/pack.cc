// Pack(): from the order of a checkpoint to that of the kernels. The layouts are in
// packed_matrix.h; a block of k of sixteen rows is transposed at a time.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "libs/base/check.h"
#include "libs/kernels/internal/packed_layout.h"
#include "libs/kernels/packed_matrix.h"

namespace switchyard {
namespace {

using internal::LoadAt;

constexpr size_t kRows = kPanelColumns;

size_t CeilDivide(size_t a, size_t b) { return (a + b - 1) / b; }

template <typename T>
void StoreAt(std::byte* target, T value) {
  std::memcpy(target, &value, sizeof(value));
}

// Where 16 rows of stored values have their part of one block of k; what lies outside of the matrix
// reads as zero bytes.
class BlockRows {
 public:
  static constexpr size_t kBytesMax = size_t{kDepthBlock} * 2;

  BlockRows(const StoredMatrix& stored, uint32_t first_row, uint32_t row_count)
      : stored_(stored),
        first_(stored.values + first_row * RowBytes(stored)),
        row_count_(row_count) {}

  static size_t RowBytes(const StoredMatrix& stored) {
    return StoredValueBytes(stored.format, 1, stored.columns);
  }

  // Goes to bytes [begin, begin + count) of the rows.
  void Seek(size_t begin, size_t count) {
    const size_t row_bytes = RowBytes(stored_);
    const size_t there = std::min(count, row_bytes - std::min(begin, row_bytes));
    for (size_t r = 0; r < kRows; ++r) {
      const std::byte* const source = first_ + r * row_bytes + begin;
      if (r < row_count_ && there == count) {
        rows_[r] = source;
        continue;
      }
      spare_[r].fill(std::byte{0});
      if (r < row_count_) {
        std::memcpy(spare_[r].data(), source, there);
      }
      rows_[r] = spare_[r].data();
    }
  }

  const std::byte* operator[](size_t row) const { return rows_[row]; }

 private:
  const StoredMatrix& stored_;
  const std::byte* const first_;
  const uint32_t row_count_;
  std::array<const std::byte*, kRows> rows_ = {};
  std::array<std::array<std::byte, kBytesMax>, kRows> spare_;
};

// Four nibbles, lowest first, as four bytes.
uint32_t SpreadNibbles(uint32_t nibbles) {
  const uint32_t pairs = (nibbles | nibbles << 8) & 0x00ff00ffU;
  return (pairs | pairs << 4) & 0x0f0f0f0fU;
}

// One panel of one matrix while it is packed.
struct PanelPacker {
  const StoredMatrix& stored;
  uint32_t first_row;
  uint32_t row_count;  // At most kPanelColumns.
  std::byte* out;
  std::byte* end;          // Of the panel; kBf16 and kFp8.
  size_t panels_together;  // kInt8 and kInt4.

  // Elements of T (two or four bytes: the k of one output that stay together) transposed.
  template <typename T, typename F>
  static void Transpose(const BlockRows& rows, size_t count, std::byte* target, F change) {
    for (size_t i = 0; i < count; ++i) {
      for (size_t r = 0; r < kRows; ++r) {
        StoreAt<T>(target + (i * kRows + r) * sizeof(T),
                   change(LoadAt<T>(rows[r] + i * sizeof(T))));
      }
    }
  }

  size_t BlockCount() const { return CeilDivide(stored.columns, kDepthBlock); }

  // kBf16 and kFp8; returns where the panel goes on.
  template <typename T>
  std::byte* Pairs() const {
    constexpr size_t kBlockBytes = kDepthBlock / 2 * sizeof(T);
    BlockRows rows(stored, first_row, row_count);
    std::byte* target = out;
    for (size_t block = 0; block < BlockCount(); ++block) {
      rows.Seek(block * kBlockBytes, kBlockBytes);
      Transpose<T>(rows, kDepthBlock / 2, target, [](T pair) { return pair; });
      target += kBlockBytes * kRows;
    }
    return target;
  }

  void Fp8() const {
    const size_t scale_bytes = StoredScaleBytes(WeightFormat::kFp8, 1, stored.columns);
    std::byte* const target = Pairs<uint16_t>();
    std::memcpy(target,
                static_cast<const std::byte*>(stored.scales) + first_row / kFp8Block * scale_bytes,
                scale_bytes);
    Clear(target + scale_bytes);
  }

  void Int8() const {
    BlockRows rows(stored, first_row, row_count);
    std::byte* target = out;
    for (size_t block = 0; block < BlockCount(); ++block) {
      rows.Seek(block * kDepthBlock, kDepthBlock);
      Transpose<uint32_t>(rows, kDepthBlock / 4, target,
                          [](uint32_t quad) { return quad ^ 0x80808080U; });
      Scales(block, target + internal::kInt8CodeBytes);
      target += internal::kInt8BlockBytes * panels_together;
    }
  }

  void Int4() const {
    constexpr size_t kGroupBytes = kScaleGroup / 2;
    BlockRows rows(stored, first_row, row_count);
    std::byte* target = out;
    for (size_t block = 0; block < BlockCount(); ++block) {
      rows.Seek(block * kDepthBlock / 2, kDepthBlock / 2);
      for (size_t i = 0; i < kDepthBlock / 8; ++i) {
        const size_t source = i / 4 * kGroupBytes + i % 4 * 2;
        for (size_t r = 0; r < kRows; ++r) {
          const uint32_t low = SpreadNibbles(LoadAt<uint16_t>(rows[r] + source));
          const uint32_t high = SpreadNibbles(LoadAt<uint16_t>(rows[r] + source + kGroupBytes / 2));
          StoreAt<uint32_t>(target + (i * kRows + r) * 4, low | high << 4);
        }
      }
      Scales(block, target + internal::kInt4CodeBytes);
      target += internal::kInt4BlockBytes * panels_together;
    }
  }

  // Scales of the groups of one block; zero outside of the matrix.
  void Scales(size_t block, std::byte* target) const {
    constexpr size_t kGroups = kDepthBlock / kScaleGroup;
    const size_t group_count = CeilDivide(stored.columns, kScaleGroup);
    const auto* scales = static_cast<const std::byte*>(stored.scales);
    for (size_t i = 0; i < kGroups; ++i) {
      const size_t group = block * kGroups + i;
      for (size_t r = 0; r < kRows; ++r) {
        uint16_t scale = 0;
        if (r < row_count && group < group_count) {
          scale =
              LoadAt<uint16_t>(scales + ((first_row + r) * group_count + group) * sizeof(scale));
        }
        StoreAt(target + (i * kRows + r) * sizeof(scale), scale);
      }
    }
  }

  // Padding is zero, so that a packed matrix is a function of what it holds.
  void Clear(std::byte* from) const { std::fill(from, end, std::byte{0}); }
};

}  // namespace

void Pack(const StoredMatrix& stored, std::span<std::byte> out) {
  SY_CHECK(out.size() == PackedBytes(stored.format, stored.rows, stored.columns));
  if (stored.format == WeightFormat::kF32 || stored.format == WeightFormat::kF16) {
    std::memcpy(out.data(), stored.values, out.size());
    return;
  }
  const PackedMatrix place{
      .data = out.data(), .format = stored.format, .rows = stored.rows, .columns = stored.columns};
  const bool groups = FormFor(stored.format) == ActivationForm::kInt8;
  for (uint32_t row = 0; row < stored.rows; row += kPanelColumns) {
    const std::byte* const first =
        groups ? internal::GroupBlock(place, row, 0) : internal::PairPanel(place, row);
    std::byte* const target = out.data() + (first - place.data);
    const uint32_t first_panel = row / kPanelColumns / 2 * 2;
    const PanelPacker packer{.stored = stored,
                             .first_row = row,
                             .row_count = std::min(kPanelColumns, stored.rows - row),
                             .out = target,
                             .end = target + place.panel_bytes(),
                             .panels_together = internal::PanelsTogether(first_panel, stored.rows)};
    switch (stored.format) {
      case WeightFormat::kBf16:
        packer.Clear(packer.Pairs<uint32_t>());
        break;
      case WeightFormat::kFp8:
        packer.Fp8();
        break;
      case WeightFormat::kInt8:
        packer.Int8();
        break;
      case WeightFormat::kInt4:
        packer.Int4();
        break;
      case WeightFormat::kF32:
      case WeightFormat::kF16:
        break;
    }
  }
}

}  // namespace switchyard
