#ifndef SWITCHYARD_LIBS_PLACEMENT_PLANNER_H_
#define SWITCHYARD_LIBS_PLACEMENT_PLANNER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/ids.h"
#include "libs/placement/placement.h"

namespace switchyard {

// What a placement is planned from. Any thread: a value.
struct PlanInput {
  EpochId epoch;  // Of the placement to make.
  std::string model_digest;
  ExpertShape shape;
  std::vector<ShardInfo> shards;        // Registered and alive, any order, each id once.
  uint64_t expert_bytes = 0;            // Memory of one expert of one layer.
  uint32_t replicas_wanted = 1;         // Copies of each expert, on different shards.
  const Placement* previous = nullptr;  // Its replicas stay where balance allows; may be null.
};

// Deterministic; shards' counts per layer differ by at most one where memory does not forbid it.
// Every expert gets at least one copy and at most min(replicas_wanted, shards); see ReplicasMin()
// for what memory allowed. InvalidArgument for a broken input, ResourceExhausted when not even one
// copy of every expert fits.
absl::StatusOr<Placement> PlanPlacement(const PlanInput& input);

// The smallest number of replicas that any expert has; 0 when one has none or there are no experts.
uint32_t ReplicasMin(const Placement& placement);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_PLACEMENT_PLANNER_H_
