#ifndef SWITCHYARD_LIBS_KERNELS_KERNELS_H_
#define SWITCHYARD_LIBS_KERNELS_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/kernels/compute_pool.h"
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

enum class InstructionSet : uint8_t { kScalar = 0, kAvx2 = 1, kAvx512 = 2 };

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

// y = x w^T with column tiles spread over the pool.
void ParallelGemm(const Kernels& kernels, ComputePool& pool, const GemmArgs& args);

// One activated expert of a grouped GEMM: rows [first_row, first_row + row_count) of the sorted
// input.
struct FfnGroup {
  MatrixView gate;
  MatrixView up;
  MatrixView down;
  uint32_t first_row = 0;
  uint32_t row_count = 0;
};

// y[row] = down( silu(gate x[row]) * (up x[row]) ) for the group of each row; rows are sorted by
// group. Tiles of (group, column block) of all groups share the pool without a barrier per group.
struct GroupedFfnArgs {
  std::span<const FfnGroup> groups;
  const float* x = nullptr;  // [rows][hidden]
  uint32_t hidden_size = 0;
  uint32_t intermediate_size = 0;
  float* y = nullptr;                     // [rows][hidden]
  std::vector<float>* scratch = nullptr;  // Grows to rows * intermediate * 2; reused by the caller.
};

void GroupedFfn(const Kernels& kernels, ComputePool& pool, const GroupedFfnArgs& args);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KERNELS_KERNELS_H_
