#ifndef SWITCHYARD_LIBS_KERNELS_KERNELS_H_
#define SWITCHYARD_LIBS_KERNELS_KERNELS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

#include "libs/kernels/compute_pool.h"
#include "libs/kernels/packed_matrix.h"
#include "libs/tensor/tensor_view.h"

namespace switchyard {

// The canonical order of arithmetic ("f32x16"), which every instruction set follows bit for bit:
//   dot(x, w) over K: 16 lanes; lane j accumulates fma(x[k], w[k], lane_j) for k = j, j+16, j+32, …
//   (missing elements of the last group add nothing: their lanes are left alone), then the lanes
//   are added pairwise: 8 distances (i, i+8), then 4, 2, 1.
// Weights of 16 bits are widened to f32 exactly first. A result therefore depends on its row alone,
// whatever the batch, the tile, the number of threads or the instruction set; the scalar table is
// both the reference twin and the definition.
//
// Exp(), used by softmax, sigmoid and silu, is ours (internal/exp.h), the same on all of them.

// Packed weights (packed_matrix.h) have orders of their own, as independent of all that.
//
// kAvx512 needs F, BW, VL, DQ and VNNI; kAvx512Bf16 also BF16, VBMI.
enum class InstructionSet : uint8_t { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };

// y[m][n] = dot(x[m], w[n]) (+ bias[n] if not null). x: [row_count][w.columns] with row stride
// `x_stride` floats, y: stride `y_stride` floats. Computes output columns [column_begin,
// column_end).
struct GemmArgs {
  const float* x = nullptr;
  size_t x_stride = 0;
  uint32_t row_count = 0;
  MatrixView w;
  const float* bias = nullptr;
  float* y = nullptr;
  size_t y_stride = 0;
  uint32_t column_begin = 0;
  uint32_t column_end = 0;
};

// y[m][n] = x[m] . w[n] (+ bias[n] if not null) in the order of w.format. x: rows prepared in
// FormFor(w.format), of w.columns; y: [row_count][w.rows] with stride `y_stride`. Computes output
// columns [column_begin, column_end); column_begin is a multiple of kPanelColumns, column_end too
// unless it is w.rows.
struct PackedGemmArgs {
  ActivationView x;
  PackedMatrix w;
  const float* bias = nullptr;
  float* y = nullptr;
  size_t y_stride = 0;
  uint32_t column_begin = 0;
  uint32_t column_end = 0;
};

// y[r][i] = fma(weights[r][t], x[t][i], y[r][i]) for t = 0, 1, 2, …: what axpy() would do term by
// term, for `row_count` rows that share the terms. Strides are elements; x is f32, bf16 or f16.
struct WeightedSumArgs {
  const float* weights = nullptr;
  size_t weight_stride = 0;
  uint32_t row_count = 0;
  uint32_t term_count = 0;
  const void* x = nullptr;
  Dtype dtype = Dtype::kF32;
  size_t x_stride = 0;
  float* y = nullptr;
  size_t y_stride = 0;
  size_t count = 0;
};

// One table per instruction set. Any thread; immutable. All vectors are f32 and may be unaligned.
struct Kernels {
  InstructionSet instruction_set;
  void (*gemm)(const GemmArgs& args);
  // Not for row-major formats: PackedGemm() below takes all.
  void (*packed_gemm)(const PackedGemmArgs& args);
  // One row of x in `form` (not kF32); out: ActivationRowBytes(), aligned to 64 bytes. x is finite.
  void (*prepare_row)(ActivationForm form, const float* x, uint32_t columns, std::byte* out);
  float (*dot)(const float* a, const float* b, size_t count);
  // dot of f32 with bf16 elements (cache rows).
  float (*dot_bf16)(const float* a, const uint16_t* b, size_t count);
  // y[i] = fma(a, x[i], y[i]).
  void (*axpy)(float a, const float* x, float* y, size_t count);
  void (*axpy_bf16)(float a, const uint16_t* x, float* y, size_t count);
  void (*weighted_sum)(const WeightedSumArgs& args);
  // y[i] *= a.
  void (*scale)(float a, float* y, size_t count);
  // y[i] += x[i].
  void (*add)(const float* x, float* y, size_t count);
  // y = x / sqrt(dot(x, x) / count + epsilon) * weight. x and y may be the same.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, float* y, size_t count);
  // y[i] = silu(gate[i]) * up[i].
  void (*silu_mul)(const float* gate, const float* up, float* y, size_t count);
  // x[i] = exp(x[i] - shift), and their sum in the canonical lane order.
  float (*exp_sum)(float shift, float* x, size_t count);
  // y[i] = 1 / (1 + exp(-x[i])).
  void (*sigmoid)(const float* x, float* y, size_t count);
  float (*max)(const float* x, size_t count);
  void (*f32_to_bf16)(const float* x, uint16_t* y, size_t count);
  void (*bf16_to_f32)(const uint16_t* x, float* y, size_t count);
};

std::string_view NameOf(InstructionSet set);

// What this processor can run, best last.
std::vector<InstructionSet> SupportedInstructionSets();

// InvalidArgument when this processor cannot run `set`.
absl::StatusOr<const Kernels*> KernelsFor(InstructionSet set);

// The best table of this processor.
const Kernels& BestKernels();

// Exp as all tables compute it (max error about 2 ulp; 0 below -87.3, saturates above 88.3).
float Exp(float x);

// What one thread takes, roughly: for a product whose weights come from memory, and for one pass
// over f32 values (a norm, a sum, a conversion). Only decides what is worth a hand-over.
uint64_t ProductNs(ActivationForm form, size_t weight_bytes, uint64_t multiply_adds);
uint64_t PassNs(uint64_t value_count);

// tile(i) for each i in [0, tile_count): over the pool, or all on this thread when together they
// take less (`work_ns`, on one thread) than a hand-over is worth.
void RunTiles(ComputePool& pool, uint32_t tile_count, uint64_t work_ns,
              absl::FunctionRef<void(uint32_t)> tile);

// The same for rows [0, row_count), a few of them to a tile: rows(begin, end).
void RunRowTiles(ComputePool& pool, uint32_t row_count, uint64_t work_ns,
                 absl::FunctionRef<void(uint32_t, uint32_t)> rows);

// Tiles of some phases in one hand-over: tile(phase, i) for each i in [0, tile_counts[phase]), none
// before all tiles of the phases before are done.
void RunPhases(ComputePool& pool, std::span<const uint32_t> tile_counts, uint64_t work_ns,
               absl::FunctionRef<void(uint32_t, uint32_t)> tile);

// y = x w^T with column tiles spread over the pool.
void ParallelGemm(const Kernels& kernels, ComputePool& pool, const GemmArgs& args);

// kernels.packed_gemm or, for row-major formats, kernels.gemm.
void PackedGemm(const Kernels& kernels, const PackedGemmArgs& args);

// Memory for prepared rows, aligned to 64 bytes; grows and is reused. One owner.
class ActivationBuffer {
 public:
  ActivationBuffer() = default;

  // At least `byte_count` bytes; what they held is lost.
  std::byte* Reserve(size_t byte_count);

 private:
  std::shared_ptr<std::byte> data_;
  size_t byte_count_ = 0;
};

struct PrepareArgs {
  ActivationForm form = ActivationForm::kF32;
  const float* x = nullptr;  // [row_count][columns] with row stride `x_stride` floats.
  size_t x_stride = 0;
  uint32_t row_count = 0;
  uint32_t columns = 0;
};

// Rows in the form that weights are multiplied with, in `buffer`; kF32: a view of x itself.
ActivationView PrepareRows(const Kernels& kernels, ComputePool& pool, const PrepareArgs& args,
                           ActivationBuffer& buffer);

// All outputs of w, or [column_begin, column_end), with column tiles spread over the pool.
void ParallelPackedGemm(const Kernels& kernels, ComputePool& pool, const PackedGemmArgs& args);

// Some products, none of which needs another's result, in one hand-over.
void ParallelPackedGemms(const Kernels& kernels, ComputePool& pool,
                         std::span<const PackedGemmArgs> products);

// One activated expert of a grouped GEMM: rows [first_row, first_row + row_count) of the sorted
// input.
struct FfnGroup {
  PackedMatrix gate;
  PackedMatrix up;
  PackedMatrix down;
  uint32_t first_row = 0;
  uint32_t row_count = 0;
};

// Work memory of GroupedFfn; grows and is reused. One owner.
struct FfnScratch {
  std::vector<float> gate;   // [rows][intermediate]
  std::vector<float> up;     // [rows][intermediate]
  ActivationBuffer product;  // Their product, prepared for `down`.

  // Grows and is reused.
  class Counters {
   public:
    // At least `count` of them, of any value.
    std::atomic<uint32_t>* Reserve(size_t count);

   private:
    std::unique_ptr<std::atomic<uint32_t>[]> data_;
    size_t count_ = 0;
  };

  Counters pending;  // For each group: the tiles that `down` waits for.
};

// y[row] = down( silu(gate x[row]) * (up x[row]) ) for the group of each row; rows are sorted by
// group. All gates and ups have one format, as have all downs. Tiles of (group, column block) of
// all groups share the pool in one run; those of `down` wait for their own group alone.
struct GroupedFfnArgs {
  std::span<const FfnGroup> groups;
  ActivationView x;  // Prepared for `gate` and `up`, [rows][hidden].
  uint32_t hidden_size = 0;
  uint32_t intermediate_size = 0;
  float* y = nullptr;  // [rows][hidden]
  FfnScratch* scratch = nullptr;
};

void GroupedFfn(const Kernels& kernels, ComputePool& pool, const GroupedFfnArgs& args);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KERNELS_KERNELS_H_
