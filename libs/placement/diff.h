#ifndef SWITCHYARD_LIBS_PLACEMENT_DIFF_H_
#define SWITCHYARD_LIBS_PLACEMENT_DIFF_H_

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/ids.h"
#include "libs/placement/placement.h"

namespace switchyard {

// PlacementDiff is what leads from one placement to another: replicas to load and to drop, and the
// target's shards and identity.
//
// Any thread: a value.
struct PlacementDiff {
  EpochId from;
  EpochId to;
  std::string model_digest;       // Of the target.
  ExpertShape shape;              // Of the target.
  std::vector<ShardInfo> shards;  // Of the target.
  std::vector<Replica>
      adds;  // Ascending. All of the target when the model digest or shape differs.
  std::vector<Replica> drops;  // Ascending.

  // What one shard has to load or may drop.
  static std::vector<Replica> OfShard(std::span<const Replica> replicas, ShardId shard);

  friend bool operator==(const PlacementDiff&, const PlacementDiff&) = default;
};

// Both placements are valid. A replica of another model digest, or on a shard that has restarted
// (another incarnation), is not the same replica: it is dropped and added.
PlacementDiff DiffOf(const Placement& from, const Placement& to);

// FailedPrecondition when `diff` does not start at `from`.
absl::StatusOr<Placement> ApplyDiff(const PlacementDiff& diff, const Placement& from);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_PLACEMENT_DIFF_H_
