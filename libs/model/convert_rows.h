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
};

// `stored` rounded or quantised to another format, any but kFp8: what loading makes on the fly and
// `switchyard convert` writes. A row's result depends on that row alone. Any thread: pure.
ConvertedRows ConvertRows(const StoredMatrix& stored, WeightFormat format);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_CONVERT_ROWS_H_
