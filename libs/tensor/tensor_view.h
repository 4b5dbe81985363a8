#ifndef SWITCHYARD_LIBS_TENSOR_TENSOR_VIEW_H_
#define SWITCHYARD_LIBS_TENSOR_TENSOR_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "libs/tensor/dtype.h"

namespace switchyard {

// MatrixView is a read-only row-major matrix [rows, columns] of weights, not owned. A vector has
// one row. `data` may be unaligned (as tensors in a file are).
//
// Any thread; valid while its owner lives.
struct MatrixView {
  const void* data = nullptr;
  Dtype dtype = Dtype::kF32;
  uint32_t rows = 0;
  uint32_t columns = 0;

  size_t byte_size() const { return size_t{rows} * columns * BytesOf(dtype); }

  bool empty() const { return data == nullptr; }

  // Rows [first, first + count).
  MatrixView RowSlice(uint32_t first, uint32_t count) const {
    const size_t offset = size_t{first} * columns * BytesOf(dtype);
    return {.data = static_cast<const std::byte*>(data) + offset,
            .dtype = dtype,
            .rows = count,
            .columns = columns};
  }
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TENSOR_TENSOR_VIEW_H_
