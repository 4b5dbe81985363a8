#ifndef SWITCHYARD_LIBS_MODEL_CONVERT_ROWS_H_
#define SWITCHYARD_LIBS_MODEL_CONVERT_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "libs/kernels/packed_matrix.h"

namespace switchyard {

// Values and scales in the stored form of a format (packed_matrix.h). A value.
struct ConvertedRows {
  std::vector<std::byte> values;
  std::vector<uint16_t> scales;  // f16, of kInt8 and kInt4.

  // As `rows` x `columns` of `format`. A view.
  StoredMatrix View(WeightFormat format, uint32_t rows, uint32_t columns) const;
};

// `stored` rounded or quantised to another format, any but kFp8: what loading makes on the fly and
// `switchyard convert` writes. A row's result depends on that row alone; its values are finite and
// no larger than LargestFor(format). Any thread: pure.
ConvertedRows ConvertRows(const StoredMatrix& stored, WeightFormat format);

// The largest magnitude that stays finite in `format`: of kInt8 and kInt4 one whose scale is sure
// to be a finite f16.
float LargestFor(WeightFormat format);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_CONVERT_ROWS_H_
