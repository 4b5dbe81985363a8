#include "libs/control/epoch_coordinator.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/status.h"
#include "libs/control/placement_convert.h"
#include "libs/placement/planner.h"

namespace switchyard {
namespace {

// How long to wait before planning again after a plan or an epoch failed.
constexpr Duration kRetryDelay = std::chrono::seconds(1);

}  // namespace

std::vector<uint32_t> ExpertsOfShard(const Placement& placement, ShardId shard) {
  std::vector<uint32_t> experts;
  for (const Replica& replica : placement.replicas) {
    if (replica.shard == shard) {
      experts.push_back(
          FlatIndexOf(placement.shape, {.layer = replica.layer, .expert = replica.expert}));
    }
  }
  return experts;
}

EpochCoordinator::EpochCoordinator(CoordinatorOptions options, std::optional<Placement> last_active)
    : options_(std::move(options)) {
  if (last_active.has_value() && last_active->model_digest == options_.model_digest) {
    active_ = std::make_shared<const Placement>(*std::move(last_active));
    newest_ = active_->epoch;
    phase_ = "serving the placement committed before the start; waiting for its shards";
  }
}

absl::Status EpochCoordinator::OnRegister(const ShardRegistration& registration, Instant now) {
  const ShardId id = registration.info.shard;
  if (registration.model_digest != options_.model_digest) {
    return InvalidArgument("shard {}: its model digest {} is not the fleet's {}", id,
                           registration.model_digest.substr(0, 12),
                           options_.model_digest.substr(0, 12));
  }
  if (!(registration.shape == options_.shape)) {
    return InvalidArgument("shard {}: {} MoE layers of {} experts, the fleet's model has {} of {}",
                           id, registration.shape.moe_layer_count(),
                           registration.shape.expert_count, options_.shape.moe_layer_count(),
                           options_.shape.expert_count);
  }
  const auto known = members_.find(id);
  if (known != members_.end() &&
      registration.info.incarnation < known->second.registration.info.incarnation) {
    return FailedPrecondition("shard {}: incarnation {} is older than the registered {}", id,
                              registration.info.incarnation,
                              known->second.registration.info.incarnation);
  }
  const bool fleet_empty = ConnectedShards().empty();
  if (!fleet_empty && registration.numerics_id != numerics_id_) {
    return FailedPrecondition("shard {}: numerics id {} is not the fleet's {}", id,
                              registration.numerics_id, numerics_id_);
  }
  if (fleet_empty) {
    numerics_id_ = registration.numerics_id;
  }
  Member& member = members_[id];
  member = Member{.registration = registration, .connected = true, .changed_at = now};
  return absl::OkStatus();
}

void EpochCoordinator::OnLost(ShardId shard, Incarnation incarnation, Instant now) {
  const auto it = members_.find(shard);
  if (it == members_.end() || it->second.registration.info.incarnation != incarnation) {
    return;
  }
  it->second.connected = false;
  it->second.changed_at = now;
  it->second.commanded = EpochId();
  it->second.ready = EpochId();
  if (pending_.has_value() && !pending_commit_asked_) {
    Abort(fmt::format("shard {} was lost while loading", shard), now);
  }
}

void EpochCoordinator::OnProgress(const Progress& progress, Instant now) {
  const auto it = members_.find(progress.shard);
  if (it == members_.end() || it->second.registration.info.incarnation != progress.incarnation ||
      it->second.commanded != progress.epoch) {
    return;  // An answer to an older command.
  }
  Member& member = it->second;
  member.loaded = progress.loaded;
  member.total = progress.total;
  if (!progress.error.empty()) {
    if (pending_.has_value() && pending_->epoch == progress.epoch && !pending_commit_asked_) {
      Abort(fmt::format("shard {} cannot load: {}", progress.shard, progress.error), now);
    }
    return;
  }
  if (progress.loaded == progress.total) {
    member.ready = progress.epoch;
  }
}

CoordinatorActions EpochCoordinator::OnCommitted(EpochId epoch, Instant /*now*/) {
  CoordinatorActions actions;
  if (!pending_.has_value() || pending_->epoch != epoch) {
    return actions;
  }
  active_ = std::make_shared<const Placement>(*std::move(pending_));
  pending_.reset();
  pending_commit_asked_ = false;
  phase_ = fmt::format("epoch {} active", epoch);
  for (const ShardInfo& shard : active_->shards) {
    actions.commands.push_back({.shard = shard.shard,
                                .incarnation = shard.incarnation,
                                .epoch = epoch,
                                .experts = ExpertsOfShard(*active_, shard.shard),
                                .active = true});
  }
  return actions;
}

void EpochCoordinator::OnCommitFailed(EpochId epoch, const std::string& why, Instant now) {
  if (pending_.has_value() && pending_->epoch == epoch) {
    pending_commit_asked_ = false;
    Abort("cannot be committed: " + why, now);
  }
}

CoordinatorActions EpochCoordinator::Tick(Instant now) {
  CoordinatorActions actions;
  if (pending_commit_asked_) {
    return actions;
  }
  const std::vector<ShardInfo> shards = ConnectedShards();
  if (pending_.has_value() && pending_->shards != shards) {
    Abort("the set of shards changed", now);
  }
  if (!pending_.has_value()) {
    if (active_ != nullptr && ActiveCovers(shards)) {
      CommandLoads(*active_, actions);  // For a shard that reconnected to a new coordinator.
      return actions;
    }
    if (MayPlan(now)) {
      Propose(shards, now);
    }
  }
  if (pending_.has_value()) {
    CommandLoads(*pending_, actions);
    if (PendingIsReady()) {
      pending_commit_asked_ = true;
      actions.commit = pending_;
    }
  }
  return actions;
}

EpochCoordinator::Description EpochCoordinator::Describe() const {
  Description description{.epoch = active_ == nullptr ? EpochId() : active_->epoch,
                          .phase = phase_,
                          .replicas_min = active_ == nullptr ? 0 : ReplicasMin(*active_)};
  for (const auto& [id, member] : members_) {
    std::string state = "registered";
    if (!member.connected) {
      state = "lost";
    } else if (member.commanded != EpochId()) {
      state = member.ready == member.commanded ? "ready" : "loading";
    }
    description.members.push_back({.info = member.registration.info,
                                   .state = state,
                                   .loaded = member.loaded,
                                   .total = member.total});
  }
  return description;
}

std::vector<ShardInfo> EpochCoordinator::ConnectedShards() const {
  std::vector<ShardInfo> shards;
  for (const auto& [id, member] : members_) {
    if (member.connected) {
      shards.push_back(member.registration.info);
    }
  }
  return shards;
}

bool EpochCoordinator::ActiveCovers(const std::vector<ShardInfo>& shards) const {
  return active_->shards == shards;
}

bool EpochCoordinator::MayPlan(Instant now) const {
  if (now < retry_at_) {
    return false;
  }
  uint32_t connected_count = 0;
  bool one_is_briefly_away = false;
  for (const auto& [id, member] : members_) {
    connected_count += member.connected ? 1 : 0;
    one_is_briefly_away |= !member.connected && now - member.changed_at < options_.lost_grace;
  }
  if (active_ == nullptr) {
    return connected_count >= options_.shards_wanted;
  }
  // After a restart of this process, shards of the last placement need a moment to come back.
  if (members_.empty() || one_is_briefly_away) {
    return false;
  }
  if (connected_count >= std::max<size_t>(options_.shards_wanted, active_->shards.size())) {
    return true;
  }
  Instant newest_change;
  for (const auto& [id, member] : members_) {
    newest_change = std::max(newest_change, member.changed_at);
  }
  return connected_count > 0 && now - newest_change >= options_.lost_grace;
}

void EpochCoordinator::Propose(const std::vector<ShardInfo>& shards, Instant now) {
  const uint64_t expert_bytes = members_.at(shards.front().shard).registration.expert_bytes;
  const EpochId epoch(newest_.value() + 1);
  auto placement = PlanPlacement({.epoch = epoch,
                                  .model_digest = options_.model_digest,
                                  .shape = options_.shape,
                                  .shards = shards,
                                  .expert_bytes = expert_bytes,
                                  .replicas_wanted = options_.replicas_wanted,
                                  .previous = active_.get()});
  if (!placement.ok()) {
    phase_ = "cannot place: " + MessageOf(placement.status());
    retry_at_ = now + kRetryDelay;
    return;
  }
  newest_ = epoch;
  pending_ = *std::move(placement);
  phase_ = fmt::format("epoch {} loading on {} shards", newest_, shards.size());
}

void EpochCoordinator::Abort(const std::string& why, Instant now) {
  phase_ = fmt::format("epoch {} aborted: {}", pending_->epoch, why);
  pending_.reset();
  retry_at_ = now + kRetryDelay;
}

void EpochCoordinator::CommandLoads(const Placement& placement, CoordinatorActions& actions) {
  for (const ShardInfo& shard : placement.shards) {
    Member& member = members_.at(shard.shard);
    if (member.commanded == placement.epoch) {
      continue;
    }
    member.commanded = placement.epoch;
    member.loaded = 0;
    std::vector<uint32_t> experts = ExpertsOfShard(placement, shard.shard);
    member.total = static_cast<uint32_t>(experts.size());
    actions.commands.push_back({.shard = shard.shard,
                                .incarnation = shard.incarnation,
                                .epoch = placement.epoch,
                                .experts = std::move(experts)});
  }
}

bool EpochCoordinator::PendingIsReady() const {
  return std::all_of(pending_->shards.begin(), pending_->shards.end(), [this](const auto& shard) {
    return members_.at(shard.shard).ready == pending_->epoch;
  });
}

}  // namespace switchyard
