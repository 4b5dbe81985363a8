#include "libs/placement/placement.h"

#include <algorithm>
#include <cstddef>

#include "libs/base/status.h"

namespace switchyard {
namespace {

absl::Status ValidateShards(const Placement& placement) {
  for (size_t i = 1; i < placement.shards.size(); ++i) {
    const ShardId previous = placement.shards[i - 1].shard;
    const ShardId current = placement.shards[i].shard;
    if (!(previous < current)) {
      return InvalidArgument("placement: shard {} follows shard {}, must ascend", current,
                             previous);
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateReplica(const Placement& placement, const Replica& replica) {
  const ExpertShape& shape = placement.shape;
  if (replica.layer.value() < shape.first_moe_layer || replica.layer.value() >= shape.layer_count) {
    return InvalidArgument("placement: replica on layer {}, MoE layers are [{}, {})", replica.layer,
                           shape.first_moe_layer, shape.layer_count);
  }
  if (replica.expert.value() >= shape.expert_count) {
    return InvalidArgument("placement: layer {} expert {} out of range, {} experts", replica.layer,
                           replica.expert, shape.expert_count);
  }
  const auto found =
      std::ranges::lower_bound(placement.shards, replica.shard, {}, &ShardInfo::shard);
  if (found == placement.shards.end() || found->shard != replica.shard) {
    return InvalidArgument("placement: layer {} expert {} names unknown shard {}", replica.layer,
                           replica.expert, replica.shard);
  }
  return absl::OkStatus();
}

// Replicas are known to be in bounds and ascending, so coverage is one walk.
absl::Status ValidateCoverage(const Placement& placement) {
  const ExpertShape& shape = placement.shape;
  size_t next = 0;
  for (uint32_t layer = shape.first_moe_layer; layer < shape.layer_count; ++layer) {
    for (uint32_t expert = 0; expert < shape.expert_count; ++expert) {
      const size_t begin = next;
      while (next < placement.replicas.size() && placement.replicas[next].layer.value() == layer &&
             placement.replicas[next].expert.value() == expert) {
        ++next;
      }
      if (next == begin) {
        return InvalidArgument("placement: layer {} expert {} has no replica", layer, expert);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidatePlacement(const Placement& placement) {
  if (placement.shape.first_moe_layer > placement.shape.layer_count) {
    return InvalidArgument("placement: first MoE layer {} of {} layers",
                           placement.shape.first_moe_layer, placement.shape.layer_count);
  }
  SY_RETURN_IF_ERROR(ValidateShards(placement));
  for (const Replica& replica : placement.replicas) {
    SY_RETURN_IF_ERROR(ValidateReplica(placement, replica));
  }
  for (size_t i = 1; i < placement.replicas.size(); ++i) {
    const Replica& current = placement.replicas[i];
    if (!(placement.replicas[i - 1] < current)) {
      return InvalidArgument("placement: replica (layer {}, expert {}, shard {}) out of order",
                             current.layer, current.expert, current.shard);
    }
  }
  return ValidateCoverage(placement);
}

}  // namespace switchyard
