#ifndef SWITCHYARD_LIBS_KERNELS_PACKED_MATRIX_H_
#define SWITCHYARD_LIBS_KERNELS_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "libs/kernels/weight_memory.h"
#include "libs/tensor/tensor_view.h"

namespace switchyard {

// How a weight matrix is kept in memory, and with it how rows are multiplied. The numbers are part
// of the numerics id's names only; they do not go over the wire.
//
//   kF32, kF16  as stored, row-major; order "f32x16" of kernels.h.
//   kBf16       order "bf16x2": activations are rounded to bf16; one f32 accumulator per output
//               takes for each pair (k, k + 1), k even and ascending, first
//               acc = fma(x[k+1], w[k+1], acc), then acc = fma(x[k], w[k], acc). Subnormal inputs
//               and results count as zero, also where a bias is added. This is what the bf16 dot
//               instruction of x86 computes.
//   kFp8        e4m3 codes with one f32 scale per 128 x 128 block: the codes widen to bf16 exactly,
//               each block of 128 k makes a sum `part` from 0 in order bf16x2, then
//               acc = fma(part, scale, acc), blocks ascending, subnormals as in kBf16.
//   kInt8       s8 codes, one f16 scale per output and 32 k (a group).
//   kInt4       4-bit codes for the values of Int4Levels(), one f16 scale per output and 32 k.
//               Both: activations are rounded to s8 once per row with one f32 scale per group of
//               32; per group `part` is the exact integer dot product, then acc = fma(float(part) *
//               x_scale, w_scale, acc), groups ascending.
//
// Every instruction set gives the same bits.
enum class WeightFormat : uint8_t { kF32 = 0, kBf16 = 1, kF16 = 2, kFp8 = 3, kInt8 = 4, kInt4 = 5 };

std::string_view NameOf(WeightFormat format);

// The form activations take before they are multiplied with weights of `format`.
enum class ActivationForm : uint8_t { kF32 = 0, kBf16 = 1, kInt8 = 2 };

ActivationForm FormFor(WeightFormat format);

// Outputs are packed 16 at a time (a panel), k padded with zeros to a multiple of 64.
inline constexpr uint32_t kPanelColumns = 16;
inline constexpr uint32_t kDepthBlock = 64;
inline constexpr uint32_t kScaleGroup =
    32;                                     // k per scale of kInt8 and kInt4 and of s8 activations.
inline constexpr uint32_t kFp8Block = 128;  // Edge of the square that shares a scale in kFp8.

// PackedMatrix is weights [rows, columns] (outputs, k) in the layout of one format; a view, not
// owned, aligned to 64 bytes unless kF32 or kF16, which stay row-major as stored.
//
//   kBf16  per panel: [k / 2][16 outputs][2] bf16, then 256 bytes of padding
//   kFp8   per panel: [k / 2][16 outputs][2] e4m3, then f32 scales[ceil(k / 128)] padded to 256
//          bytes
//   kInt8  per two panels: [k / 64][2 panels] blocks of [16 quads of k][16 outputs][4] u8 = code +
//          128, then f16 scales[2 groups][16 outputs]
//   kInt4  per two panels: [k / 64][2 panels] blocks of [2 groups][4][16 outputs][4] bytes, of
//          which byte j of row r holds k = 4 r + j of the group in the low nibble and
//          k = 16 + 4 r + j in the high one, then f16 scales[2 groups][16 outputs]
// Two panels of kInt8 and kInt4 lie block by block beside each other because few rows read them
// together, and memory gives one ascending stream faster than several. A last one of an odd number
// is alone.
//
// Outputs beyond `rows` in the last panel are zero. Any thread; valid while its owner lives.
struct PackedMatrix {
  const std::byte* data = nullptr;
  WeightFormat format = WeightFormat::kF32;
  uint32_t rows = 0;
  uint32_t columns = 0;

  // Row-major weights of kF32 or kF16 as they are.
  static PackedMatrix Plain(const MatrixView& view);

  bool empty() const { return data == nullptr; }

  uint32_t padded_columns() const {
    return (columns + kDepthBlock - 1) / kDepthBlock * kDepthBlock;
  }

  // Bytes of 16 outputs, in one piece or not; not for kF32 and kF16.
  size_t panel_bytes() const;
  size_t byte_size() const;
};

// Bytes a packed matrix takes.
size_t PackedBytes(WeightFormat format, uint32_t rows, uint32_t columns);

// Weights as a checkpoint stores them. kFp8: `scales` are f32 [ceil(rows / 128)][ceil(columns /
// 128)]. kInt8: values are s8 [rows][columns]; kInt4: values are [rows][ceil(columns / 2)] bytes,
// k even in the low nibble; scales of both are f16 [rows][ceil(columns / 32)].
struct StoredMatrix {
  const std::byte* values = nullptr;
  WeightFormat format = WeightFormat::kF32;
  uint32_t rows = 0;
  uint32_t columns = 0;
  const void* scales = nullptr;

  static StoredMatrix Plain(const MatrixView& view);
};

// Bytes of `values` and of `scales` of a stored matrix.
size_t StoredValueBytes(WeightFormat format, uint32_t rows, uint32_t columns);
size_t StoredScaleBytes(WeightFormat format, uint32_t rows, uint32_t columns);

// Writes the layout of `stored.format` (row-major formats are copied). out.size() is PackedBytes().
void Pack(const StoredMatrix& stored, std::span<std::byte> out);

// Rows [first, first + count) of a stored matrix as f32 [count][columns].
void UnpackStored(const StoredMatrix& stored, uint32_t first, uint32_t count, float* out);

// Row `row` of a packed matrix as f32; slow: for reference twins and tests.
void UnpackRow(const PackedMatrix& packed, uint32_t row, float* out);

// A quantised copy of rows of f32: what convert writes and what loading makes on the fly.
struct QuantizedRows {
  std::vector<std::byte> values;
  std::vector<uint16_t> scales;  // f16
};

// Quantises [row_count][columns] to kInt8 or kInt4. A row's result depends on that row alone.
// kInt8: scale = largest magnitude / 127 per group, round to nearest even. kInt4: per group the
// scale (either sign) with the least squared error of those tried.
QuantizedRows Quantize(WeightFormat format, const float* x, uint32_t row_count, uint32_t columns);

// The 16 values of kInt4 codes, in units of the scale.
std::span<const int8_t, 16> Int4Levels();

// Activations of some rows in the form a format multiplies with.
//   kF32   the caller's rows, not copied
//   kBf16  [row][padded k] bf16
//   kInt8  per row: s8 codes [padded k], then f32 scales [padded k / 32], then for each group s32
//          0x4b400000 - 128 x the sum of its codes [padded k / 32]: a sum of packed codes times
//          activations that starts there is, read as f32, the exact dot product + 1.5 x 2^23
// Any thread; valid while its buffer lives.
struct ActivationView {
  const std::byte* data = nullptr;
  ActivationForm form = ActivationForm::kF32;
  size_t row_bytes = 0;  // From row to row.
  uint32_t row_count = 0;
  uint32_t columns = 0;

  ActivationView Rows(uint32_t first, uint32_t count) const {
    ActivationView part = *this;
    part.data += first * row_bytes;
    part.row_count = count;
    return part;
  }
};

// Bytes of one row; an odd multiple of 64, so that rows do not compete for the same places of the
// first-level cache. Not for kF32.
size_t ActivationRowBytes(ActivationForm form, uint32_t columns);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KERNELS_PACKED_MATRIX_H_
