#include "libs/placement/diff.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "libs/base/status.h"

namespace switchyard {
namespace {

// Shards of both placements that are the same process in both.
std::set<ShardId> SameProcesses(const Placement& from, const Placement& to) {
  std::set<ShardId> same;
  for (const ShardInfo& shard : to.shards) {
    const auto old = std::ranges::lower_bound(from.shards, shard.shard, {}, &ShardInfo::shard);
    if (old != from.shards.end() && old->shard == shard.shard &&
        old->incarnation == shard.incarnation) {
      same.insert(shard.shard);
    }
  }
  return same;
}

}  // namespace

std::vector<Replica> PlacementDiff::OfShard(std::span<const Replica> replicas, ShardId shard) {
  std::vector<Replica> own;
  std::ranges::copy_if(replicas, std::back_inserter(own),
                       [&](const Replica& replica) { return replica.shard == shard; });
  return own;
}

PlacementDiff DiffOf(const Placement& from, const Placement& to) {
  PlacementDiff diff{.from = from.epoch,
                     .to = to.epoch,
                     .model_digest = to.model_digest,
                     .shape = to.shape,
                     .shards = to.shards,
                     .adds = {},
                     .drops = {}};
  const bool same_model = from.model_digest == to.model_digest && from.shape == to.shape;
  const std::set<ShardId> same = same_model ? SameProcesses(from, to) : std::set<ShardId>();
  std::vector<Replica> kept;
  std::ranges::set_intersection(from.replicas, to.replicas, std::back_inserter(kept));
  std::erase_if(kept, [&](const Replica& replica) { return !same.contains(replica.shard); });
  std::ranges::set_difference(to.replicas, kept, std::back_inserter(diff.adds));
  std::ranges::set_difference(from.replicas, kept, std::back_inserter(diff.drops));
  return diff;
}

absl::StatusOr<Placement> ApplyDiff(const PlacementDiff& diff, const Placement& from) {
  if (diff.from != from.epoch) {
    return FailedPrecondition("placement diff starts at epoch {}, not at epoch {}", diff.from,
                              from.epoch);
  }
  if (!std::ranges::includes(from.replicas, diff.drops)) {
    return FailedPrecondition("placement diff from epoch {} drops a replica that is not there",
                              diff.from);
  }
  Placement to{.epoch = diff.to,
               .model_digest = diff.model_digest,
               .shape = diff.shape,
               .shards = diff.shards,
               .replicas = {}};
  std::vector<Replica> kept;
  std::ranges::set_difference(from.replicas, diff.drops, std::back_inserter(kept));
  std::ranges::set_union(kept, diff.adds, std::back_inserter(to.replicas));
  if (to.replicas.size() != kept.size() + diff.adds.size()) {
    return FailedPrecondition("placement diff from epoch {} adds a replica that is there already",
                              diff.from);
  }
  return to;
}

}  // namespace switchyard
