#include "services/cli/bench_limits.h"

#include <algorithm>
#include <cmath>

#include "libs/base/status.h"

namespace switchyard {

absl::StatusOr<ModelCost> CostOf(const Checkpoint& checkpoint, WeightChoice weights) {
  const ModelSpec& spec = checkpoint.spec();
  ModelCost cost{.moe_layer_count = spec.layer_count - spec.first_moe_layer,
                 .expert_count = spec.expert_count,
                 .top_k = spec.top_k};
  SY_ASSIGN_OR_RETURN(const std::vector<PlannedTensor> router, checkpoint.PlanRouter(weights));
  for (const PlannedTensor& tensor : router) {
    const double count =
        static_cast<double>(tensor.source.slice.rows) * tensor.source.slice.columns;
    if (tensor.source.role == WeightRole::kEmbedding) {
      continue;
    }
    cost.router_bytes += static_cast<double>(tensor.kept_bytes);
    cost.router_weights += count;
    if (tensor.source.role == WeightRole::kHead) {
      cost.head_bytes += static_cast<double>(tensor.kept_bytes);
      cost.head_weights += count;
    }
  }
  SY_ASSIGN_OR_RETURN(const std::vector<PlannedTensor> experts, checkpoint.PlanExperts(weights));
  const double expert_total = static_cast<double>(cost.moe_layer_count) * cost.expert_count;
  for (const PlannedTensor& tensor : experts) {
    cost.integer |= FormFor(tensor.kept) == ActivationForm::kInt8;
    cost.expert_bytes += static_cast<double>(tensor.kept_bytes) / expert_total;
    cost.expert_weights +=
        static_cast<double>(tensor.source.slice.rows) * tensor.source.slice.columns / expert_total;
  }
  return cost;
}

StepCost CostOfStep(const ModelCost& model, uint32_t row_count, uint32_t head_rows) {
  const double experts = model.expert_count;
  const double activated = experts * (1.0 - std::pow(1.0 - model.top_k / experts, row_count));
  StepCost step{.bytes = model.router_bytes - model.head_bytes +
                         model.moe_layer_count * activated * model.expert_bytes};
  if (head_rows > 0) {
    step.bytes += model.head_bytes;
  }
  const double body =
      model.router_weights - model.head_weights +
      static_cast<double>(model.moe_layer_count) * model.top_k * model.expert_weights;
  step.operations = 2.0 * (body * row_count + model.head_weights * head_rows);
  return step;
}

double LimitSeconds(const ModelCost& model, const StepCost& step, const MachinePeaks& peaks) {
  const double rate = model.integer ? peaks.int8_ops : peaks.bf16_flops;
  return std::max(step.bytes / peaks.read_bytes_per_second, step.operations / rate);
}

}  // namespace switchyard
