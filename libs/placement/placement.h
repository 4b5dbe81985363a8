#ifndef SWITCHYARD_LIBS_PLACEMENT_PLACEMENT_H_
#define SWITCHYARD_LIBS_PLACEMENT_PLACEMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/ids.h"

namespace switchyard {

// Which layers of a model have routed experts, and how many each.
struct ExpertShape {
  uint16_t first_moe_layer = 0;  // Layers below are dense.
  uint16_t layer_count = 0;   // All decoder layers; MoE layers are [first_moe_layer, layer_count).
  uint16_t expert_count = 0;  // Routed experts per MoE layer.

  uint32_t moe_layer_count() const { return uint32_t{layer_count} - first_moe_layer; }

  friend bool operator==(const ExpertShape&, const ExpertShape&) = default;
};

// A shard as the placement knows it: identity is ordinal plus incarnation, never the address alone.
struct ShardInfo {
  ShardId shard;
  Incarnation incarnation;
  std::string address;        // Data plane, "host:port".
  uint64_t memory_bytes = 0;  // For expert weights; 0 means unlimited.

  friend bool operator==(const ShardInfo&, const ShardInfo&) = default;
};

// One copy of one expert on one shard.
struct Replica {
  LayerId layer;
  ExpertId expert;
  ShardId shard;

  friend auto operator<=>(const Replica&, const Replica&) = default;
};

// Placement is one immutable version of "which shard holds which expert".
//
// Any thread: a value.
struct Placement {
  EpochId epoch;
  std::string model_digest;  // Of the weights all replicas were loaded from.
  ExpertShape shape;
  std::vector<ShardInfo> shards;  // Ascending shard id, each once.
  std::vector<Replica> replicas;  // Ascending (layer, expert, shard), each once.

  friend bool operator==(const Placement&, const Placement&) = default;
};

// InvalidArgument when order, bounds or uniqueness above are broken, a replica names an unknown
// shard, or some expert has no replica (`placement: layer 3 expert 17 has no replica`).
absl::Status ValidatePlacement(const Placement& placement);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_PLACEMENT_PLACEMENT_H_
