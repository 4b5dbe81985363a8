#ifndef SWITCHYARD_SERVICES_CLI_BENCH_LIMITS_H_
#define SWITCHYARD_SERVICES_CLI_BENCH_LIMITS_H_

#include <cstdint>

#include "absl/status/statusor.h"

#include "libs/kernels/machine_peaks.h"
#include "libs/model/checkpoint.h"

namespace switchyard {

// What a step of a model cannot do without: weight bytes to read and multiplications. Cache,
// activations and the network are left out, so real steps are slower.
//
// Any thread: a value.
struct ModelCost {
  double router_bytes = 0;  // Read by every step; the embedding is looked up, not read.
  double head_bytes = 0;    // Part of router_bytes.
  double expert_bytes = 0;  // Of one routed expert.
  double router_weights = 0;
  double head_weights = 0;  // Part of router_weights; a prompt needs it for its last row only.
  double expert_weights = 0;
  uint32_t moe_layer_count = 0;
  uint32_t expert_count = 0;
  uint32_t top_k = 0;
  bool integer = false;  // Multiplied as s8.
};

absl::StatusOr<ModelCost> CostOf(const Checkpoint& checkpoint, WeightChoice weights);

struct StepCost {
  double bytes = 0;
  double operations = 0;  // A multiplication and an addition are two.
};

// One step of `row_count` rows of which `head_rows` want logits. Experts are counted once each;
// how many differ is what a uniform choice would give: E (1 - (1 - k / E)^rows).
StepCost CostOfStep(const ModelCost& model, uint32_t row_count, uint32_t head_rows);

// The shortest time of a step on this machine: by memory or by arithmetic.
double LimitSeconds(const ModelCost& model, const StepCost& step, const MachinePeaks& peaks);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_BENCH_LIMITS_H_
