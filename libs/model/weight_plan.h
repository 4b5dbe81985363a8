#ifndef SWITCHYARD_LIBS_MODEL_WEIGHT_PLAN_H_
#define SWITCHYARD_LIBS_MODEL_WEIGHT_PLAN_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/kernels/packed_matrix.h"
#include "libs/model/load_options.h"
#include "libs/model/mla_weights.h"
#include "libs/model/model_spec.h"
#include "libs/model/tensor_catalog.h"
#include "libs/model/weight_arena.h"
#include "libs/model/weight_choice.h"
#include "libs/tensor/tensor_view.h"

namespace switchyard {

// `rows` x `columns` of tensor `name` whose whole shape is `shape`, starting at its row
// `first_row` (rows of a fused 3-D tensor are counted through).
struct TensorSlice {
  std::string name;
  std::vector<uint64_t> shape;
  uint64_t first_row = 0;
  uint32_t rows = 0;
  uint32_t columns = 0;

  static TensorSlice Whole(std::string name, uint32_t rows, uint32_t columns) {
    return {.name = std::move(name), .shape = {rows, columns}, .rows = rows, .columns = columns};
  }
};

// StoredSlice is where a slice's bytes are and what they mean, checked against what config.json
// needs. A view of its catalog.
struct StoredSlice {
  enum class ScaleType : uint8_t { kNone, kF32, kE8m0, kF16 };

  TensorSlice slice;
  WeightRole role = WeightRole::kDense;
  WeightFormat format = WeightFormat::kF32;  // As stored.
  TensorCatalog::Place values;
  TensorCatalog::Place scales;  // Null file when the format has none.
  ScaleType scale_type = ScaleType::kNone;

  // Bytes of values and scales in the files.
  uint64_t byte_size() const;
};

// Rows of a StoredSlice, read into memory and checked.
class StoredRows {
 public:
  // Rows [first, first + count); `first` is a multiple of kFp8Block. Refuses, naming tensor and
  // file, what ends early or was changed since the file was opened.
  absl::Status Read(const StoredSlice& source, uint32_t first, uint32_t count);

  // Widens scales and refuses what no weight can be: values that are not finite, codes and scales
  // that mean nothing, and values too large for `rounded`. After Read(); `stored()` is then good
  // until the next Read().
  absl::Status Check(WeightFormat rounded);

  const StoredMatrix& stored() const { return stored_; }

 private:
  absl::Status CheckCodes() const;
  // At least that of any value; makes the scales ready.
  absl::StatusOr<float> LargestMagnitude();
  // The largest of them.
  absl::StatusOr<float> WidenFp8Scales();

  const StoredSlice* source_ = nullptr;
  std::vector<std::byte> values_;
  std::vector<std::byte> scale_bytes_;
  std::vector<float> scales_;
  StoredMatrix stored_;
};

// A tensor of a plan and the formats it takes.
struct PlannedTensor {
  StoredSlice source;
  WeightFormat rounded = WeightFormat::kF32;  // Of its values: what `convert` writes.
  WeightFormat kept = WeightFormat::kF32;     // In memory: differs for vectors and kLatent.
  uint64_t kept_bytes = 0;                    // In memory, padding included.
};

// WeightPlan collects what to load, reserving its place, and then loads all of it: one thread reads
// ahead, others repack. Until Run() returns OK the places hold nothing of use.
//
// One owner. Places must not move before Run(): vectors keep their buffers when they are moved.
class WeightPlan {
 public:
  // All must outlive the plan. `choice` is resolved (weight_choice.h).
  WeightPlan(const TensorCatalog& catalog, const ModelSpec& spec, WeightChoice choice)
      : catalog_(catalog), spec_(spec), choice_(choice) {}

  // Each is InvalidArgument, naming tensor and file, when the tensor is missing or has another
  // shape or dtype than config.json needs. `arena` outlives Run().
  absl::Status Add(const TensorSlice& slice, WeightRole role, WeightArena& arena,
                   PackedMatrix& out);
  absl::Status AddHeads(const TensorSlice& slice, WeightArena& arena,
                        std::vector<MlaHeadWeights>& out);
  // Row-major, in the dtype it is stored in: BF16, F16 or F32.
  absl::Status AddPlain(const TensorSlice& slice, WeightRole role, WeightArena& arena,
                        MatrixView& out);
  // Row-major, values and scales as a file has them: BF16, F16, F32 or INT8.
  absl::Status AddStored(const TensorSlice& slice, WeightRole role, WeightArena& arena,
                         StoredMatrix& out);
  // Widened to f32.
  absl::Status AddVector(const std::string& name, uint32_t count, std::vector<float>& out);

  std::span<const PlannedTensor> tensors() const { return tensors_; }

  WeightChoice choice() const { return choice_; }

  absl::Status Run(const LoadOptions& options);

 private:
  // Where a planned tensor goes: one of the four.
  struct Target {
    PackedMatrix packed;                    // Repacked, rows by rows.
    std::span<const MlaHeadWeights> heads;  // All rows at once.
    std::byte* copy = nullptr;              // Row-major, in its rounded format.
    std::byte* copy_scales = nullptr;       // The scales of `copy`, if it has any.
    std::span<float> vector;                // Widened.
  };

  class Runner;

  absl::StatusOr<StoredSlice> Find(const TensorSlice& slice, WeightRole role) const;
  absl::Status FindScales(StoredSlice& source) const;

  const TensorCatalog& catalog_;
  const ModelSpec& spec_;
  const WeightChoice choice_;
  std::vector<PlannedTensor> tensors_;
  std::vector<Target> targets_;  // One for each of tensors_.
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_WEIGHT_PLAN_H_
