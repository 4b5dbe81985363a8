#ifndef SWITCHYARD_BENCH_QUALITY_WEIGHT_REPORT_H_
#define SWITCHYARD_BENCH_QUALITY_WEIGHT_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/kernels/packed_matrix.h"
#include "libs/model/weight_choice.h"

namespace switchyard {

// Tensors of one role that are kept in one format.
struct WeightShare {
  WeightRole role = WeightRole::kVector;
  WeightFormat format = WeightFormat::kF32;
  uint64_t parameters = 0;
  uint64_t bytes = 0;  // In memory, padding included.
};

// What all weights of a model take, those of the router and those of the shards.
//
// A value.
struct WeightReport {
  std::vector<WeightShare> shares;
  double load_s = 0;            // Opening, reading and repacking.
  uint64_t resident_bytes = 0;  // By how much the process grew.

  uint64_t parameters() const;
  uint64_t bytes() const;

  // One JSON object; `cache` names the dtype of the cache.
  std::string ToJson(WeightChoice choice, std::string_view cache) const;
};

// Loads everything as router and shards do, measures, and lets go of it.
absl::StatusOr<WeightReport> MeasureWeights(const std::string& model_dir, WeightChoice choice,
                                            uint32_t threads);

}  // namespace switchyard

#endif  // SWITCHYARD_BENCH_QUALITY_WEIGHT_REPORT_H_
