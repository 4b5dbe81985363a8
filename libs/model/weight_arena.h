#ifndef SWITCHYARD_LIBS_MODEL_WEIGHT_ARENA_H_
#define SWITCHYARD_LIBS_MODEL_WEIGHT_ARENA_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "libs/kernels/packed_matrix.h"

namespace switchyard {

// WeightArena owns packed weights, many matrices to an allocation, so that they share huge pages.
// What it hands out lives as long as the arena does.
//
// One owner while it reserves; Fill() from any thread for rows that no other thread fills; any
// thread reads afterwards.
class WeightArena {
 public:
  // kCounts takes no memory: what it reserves has null data and only byte_count() is of use.
  enum class Mode { kOwns, kCounts };

  // Matrices are taken from allocations of `chunk_bytes`, larger ones from one of their own.
  explicit WeightArena(size_t chunk_bytes, Mode mode = Mode::kOwns)
      : chunk_bytes_(chunk_bytes), mode_(mode) {}

  // Room for a matrix, undefined until all of its rows are filled.
  PackedMatrix Reserve(WeightFormat format, uint32_t rows, uint32_t columns);

  // Room for bytes of the caller's own layout.
  std::byte* ReserveBytes(size_t byte_count);

  // Puts `stored` where the rows from `first_row` of the reserved `place` are: repacked as it is
  // when that is the format of `place`, else rounded or quantised. first_row and, but at the end,
  // the number of rows are multiples of kFp8Block.
  static void Fill(const PackedMatrix& place, uint32_t first_row, const StoredMatrix& stored);

  // A copy of `stored` in `format`.
  PackedMatrix Add(const StoredMatrix& stored, WeightFormat format);

  // Where the rows from `first_row` of a reserved matrix are; a multiple of two panels.
  static std::byte* RowsOf(const PackedMatrix& place, uint32_t first_row);

  size_t byte_count() const { return byte_count_; }

 private:
  size_t chunk_bytes_;
  Mode mode_;
  std::vector<std::shared_ptr<std::byte>> chunks_;
  size_t used_ = 0;      // Of the newest chunk.
  size_t capacity_ = 0;  // Of the newest chunk.
  size_t byte_count_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_WEIGHT_ARENA_H_
