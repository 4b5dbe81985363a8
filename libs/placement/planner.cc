#include "libs/placement/planner.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// The replicas of one layer while they are being chosen. Shards and experts are indices.
class LayerPlan {
 public:
  LayerPlan(uint32_t expert_count, std::vector<uint32_t> quotas, std::vector<uint32_t> copies)
      : expert_count_(expert_count),
        quotas_(std::move(quotas)),
        copies_(std::move(copies)),
        holds_(quotas_.size() * expert_count),
        shard_used_(quotas_.size()),
        expert_used_(expert_count) {}

  bool Holds(uint32_t shard, uint32_t expert) const {
    return holds_[size_t{shard} * expert_count_ + expert];
  }

  // Places a copy where one was before, if both quotas allow.
  void Keep(uint32_t shard, uint32_t expert) {
    if (shard_used_[shard] < quotas_[shard] && expert_used_[expert] < copies_[expert]) {
      Put(shard, expert);
    }
  }

  void Fill() {
    for (uint32_t round = 0; round < quotas_.size(); ++round) {
      for (uint32_t expert = 0; expert < expert_count_; ++expert) {
        if (expert_used_[expert] < copies_[expert] && expert_used_[expert] <= round) {
          AddCopy(expert);
        }
      }
    }
  }

 private:
  uint32_t Room(uint32_t shard) const { return quotas_[shard] - shard_used_[shard]; }

  void Put(uint32_t shard, uint32_t expert) {
    holds_[size_t{shard} * expert_count_ + expert] = true;
    ++shard_used_[shard];
    ++expert_used_[expert];
  }

  void AddCopy(uint32_t expert) {
    uint32_t best = kNone;
    for (uint32_t shard = 0; shard < quotas_.size(); ++shard) {
      if (!Holds(shard, expert) && Room(shard) > 0 && (best == kNone || Room(shard) > Room(best))) {
        best = shard;
      }
    }
    if (best == kNone) {
      best = MakeRoomFor(expert);
    }
    Put(best, expert);
  }

  // All shards with room hold the expert already: moves other copies along a chain of shards, found
  // breadth first, so that a shard without the expert gets room. Quotas are at most expert_count
  // and copies differ by at most one, so a full assignment and hence such a chain exists.
  uint32_t MakeRoomFor(uint32_t expert) {
    const auto shard_count = static_cast<uint32_t>(quotas_.size());
    std::vector<uint32_t> parent(shard_count, kNone);  // The shard a copy would come from.
    std::vector<uint32_t> moved(shard_count, kNone);   // Which expert would come.
    std::vector<bool> seen(shard_count);
    std::vector<uint32_t> queue;
    for (uint32_t shard = 0; shard < shard_count; ++shard) {
      if (!Holds(shard, expert)) {
        seen[shard] = true;
        queue.push_back(shard);
      }
    }
    for (size_t head = 0; head < queue.size(); ++head) {
      const uint32_t from = queue[head];
      for (uint32_t to = 0; to < shard_count; ++to) {
        const uint32_t candidate = seen[to] ? kNone : Movable(from, to);
        if (candidate == kNone) {
          continue;
        }
        seen[to] = true;
        parent[to] = from;
        moved[to] = candidate;
        if (Room(to) > 0) {
          return Shift(to, parent, moved);
        }
        queue.push_back(to);
      }
    }
    SY_CHECK(false);
    return kNone;
  }

  // An expert on `from` that `to` lacks.
  uint32_t Movable(uint32_t from, uint32_t to) const {
    for (uint32_t expert = 0; expert < expert_count_; ++expert) {
      if (Holds(from, expert) && !Holds(to, expert)) {
        return expert;
      }
    }
    return kNone;
  }

  // Moves the chain that ends at `to`; the shard at its beginning has room afterwards.
  uint32_t Shift(uint32_t to, const std::vector<uint32_t>& parent,
                 const std::vector<uint32_t>& moved) {
    ++shard_used_[to];
    while (parent[to] != kNone) {
      holds_[size_t{to} * expert_count_ + moved[to]] = true;
      holds_[size_t{parent[to]} * expert_count_ + moved[to]] = false;
      to = parent[to];
    }
    --shard_used_[to];
    return to;
  }

  const uint32_t expert_count_;
  const std::vector<uint32_t> quotas_;  // Replicas each shard takes.
  const std::vector<uint32_t> copies_;  // Replicas each expert gets.
  std::vector<bool> holds_;             // [shard][expert]
  std::vector<uint32_t> shard_used_;
  std::vector<uint32_t> expert_used_;
};

// The whole plan: shards sorted, memory shared out to layers, then a layer at a time.
class Planner {
 public:
  explicit Planner(const PlanInput& input)
      : input_(input),
        shards_(input.shards),
        layer_count_(input.shape.moe_layer_count()),
        expert_count_(input.shape.expert_count) {
    std::ranges::sort(shards_, {}, &ShardInfo::shard);
    if (input.previous != nullptr && input.previous->shape == input.shape &&
        input.previous->model_digest == input.model_digest) {
      previous_ = input.previous;
    }
  }

  absl::StatusOr<Placement> Plan() {
    SY_RETURN_IF_ERROR(Check());
    SY_RETURN_IF_ERROR(ShareMemory());
    Placement placement{.epoch = input_.epoch,
                        .model_digest = input_.model_digest,
                        .shape = input_.shape,
                        .shards = shards_,
                        .replicas = {}};
    totals_.assign(shards_.size(), 0);
    for (uint32_t index = 0; index < layer_count_; ++index) {
      PlanLayer(index, placement);
    }
    SY_CHECK(ValidatePlacement(placement).ok());
    return placement;
  }

 private:
  absl::Status Check() const {
    if (input_.shape.first_moe_layer > input_.shape.layer_count) {
      return InvalidArgument("plan: first MoE layer {} of {} layers", input_.shape.first_moe_layer,
                             input_.shape.layer_count);
    }
    if (input_.replicas_wanted == 0) {
      return InvalidArgument("plan: 0 replicas wanted, at least 1 is needed");
    }
    if (shards_.empty()) {
      return Unavailable("plan: no shard is registered");
    }
    for (size_t i = 1; i < shards_.size(); ++i) {
      if (shards_[i - 1].shard == shards_[i].shard) {
        return InvalidArgument("plan: shard {} is registered twice", shards_[i].shard);
      }
    }
    return absl::OkStatus();
  }

  // Replicas a shard can hold of all layers.
  uint64_t CapacityOf(const ShardInfo& shard) const {
    const uint64_t all = uint64_t{layer_count_} * expert_count_;
    const bool unlimited = shard.memory_bytes == 0 || input_.expert_bytes == 0;
    return unlimited ? all : std::min(all, shard.memory_bytes / input_.expert_bytes);
  }

  // A shard's capacity is spread evenly over layers; remainders continue where the previous shard's
  // ended, so the layers' sums differ by at most one.
  absl::Status ShareMemory() {
    uint64_t capacity = 0;
    uint32_t next = 0;
    layer_capacity_.assign(size_t{layer_count_} * shards_.size(), 0);
    for (size_t shard = 0; shard < shards_.size() && layer_count_ > 0; ++shard) {
      const uint64_t own = CapacityOf(shards_[shard]);
      capacity += own;
      for (uint32_t index = 0; index < layer_count_; ++index) {
        LayerCapacity(index, shard) = static_cast<uint32_t>(own / layer_count_);
      }
      for (uint64_t rest = own % layer_count_; rest > 0; --rest) {
        ++LayerCapacity(next, shard);
        next = (next + 1) % layer_count_;
      }
    }
    const uint64_t needed = uint64_t{layer_count_} * expert_count_;
    if (capacity < needed) {
      return ResourceExhausted(
          "plan: one copy of {} experts needs {} bytes, {} shards have room for {} experts ({} "
          "bytes)",
          needed, needed * input_.expert_bytes, shards_.size(), capacity,
          capacity * input_.expert_bytes);
    }
    return absl::OkStatus();
  }

  uint32_t& LayerCapacity(uint32_t layer_index, size_t shard) {
    return layer_capacity_[layer_index * shards_.size() + shard];
  }

  uint32_t IndexOf(ShardId shard) const {
    const auto found = std::ranges::lower_bound(shards_, shard, {}, &ShardInfo::shard);
    return found == shards_.end() || found->shard != shard
               ? kNone
               : static_cast<uint32_t>(found - shards_.begin());
  }

  std::span<const Replica> PreviousOf(LayerId layer) const {
    if (previous_ == nullptr) {
      return {};
    }
    const auto range = std::ranges::equal_range(previous_->replicas, layer, {}, &Replica::layer);
    return {range.begin(), range.end()};
  }

  void PlanLayer(uint32_t index, Placement& placement) {
    const LayerId layer(static_cast<uint16_t>(input_.shape.first_moe_layer + index));
    std::vector<uint32_t> shard_before(shards_.size());
    std::vector<uint32_t> expert_before(expert_count_);
    const std::span<const Replica> previous = PreviousOf(layer);
    for (const Replica& replica : previous) {
      const uint32_t shard = IndexOf(replica.shard);
      if (shard != kNone) {
        ++shard_before[shard];
        ++expert_before[replica.expert.value()];
      }
    }
    std::vector<uint32_t> quotas = Quotas(index, shard_before);
    const uint32_t total = std::accumulate(quotas.begin(), quotas.end(), 0U);
    LayerPlan plan(expert_count_, std::move(quotas), Copies(total, expert_before));
    for (const Replica& replica : previous) {
      const uint32_t shard = IndexOf(replica.shard);
      if (shard != kNone) {
        plan.Keep(shard, replica.expert.value());
      }
    }
    plan.Fill();
    for (uint32_t expert = 0; expert < expert_count_; ++expert) {
      for (uint32_t shard = 0; shard < shards_.size(); ++shard) {
        if (plan.Holds(shard, expert)) {
          ++totals_[shard];
          placement.replicas.push_back({.layer = layer,
                                        .expert = ExpertId(static_cast<uint16_t>(expert)),
                                        .shard = shards_[shard].shard});
        }
      }
    }
  }

  // Fills the emptiest shard first. Ties go to who held more of this layer before, then to who
  // holds less of the layers so far, then to the lower ordinal.
  std::vector<uint32_t> Quotas(uint32_t index, const std::vector<uint32_t>& before) {
    const auto copies = std::min<uint64_t>(input_.replicas_wanted, shards_.size());
    std::vector<uint32_t> quotas(shards_.size());
    for (uint64_t left = copies * expert_count_; left > 0; --left) {
      uint32_t best = kNone;
      for (uint32_t shard = 0; shard < shards_.size(); ++shard) {
        if (quotas[shard] >= LayerCapacity(index, shard)) {
          continue;
        }
        const auto rank = [&](uint32_t s) {
          const bool held_more = before[s] > quotas[s];
          return std::make_tuple(quotas[s], held_more ? 0 : 1, totals_[s], s);
        };
        if (best == kNone || rank(shard) < rank(best)) {
          best = shard;
        }
      }
      if (best == kNone) {
        break;
      }
      ++quotas[best];
    }
    return quotas;
  }

  // Every expert gets the same number; what remains goes to experts that had more copies before.
  std::vector<uint32_t> Copies(uint32_t total, const std::vector<uint32_t>& before) const {
    if (expert_count_ == 0) {
      return {};
    }
    std::vector<uint32_t> copies(expert_count_, total / expert_count_);
    std::vector<uint32_t> order(expert_count_);
    std::iota(order.begin(), order.end(), 0U);
    std::ranges::stable_sort(order, [&](uint32_t a, uint32_t b) { return before[a] > before[b]; });
    for (uint32_t i = 0; i < total % expert_count_; ++i) {
      ++copies[order[i]];
    }
    return copies;
  }

  const PlanInput& input_;
  std::vector<ShardInfo> shards_;
  const uint32_t layer_count_;
  const uint32_t expert_count_;
  const Placement* previous_ = nullptr;
  std::vector<uint32_t> layer_capacity_;  // [MoE layer][shard]
  std::vector<uint64_t> totals_;          // Replicas given to each shard so far.
};

}  // namespace

absl::StatusOr<Placement> PlanPlacement(const PlanInput& input) { return Planner(input).Plan(); }

uint32_t ReplicasMin(const Placement& placement) {
  const ExpertShape& shape = placement.shape;
  std::vector<uint32_t> counts(size_t{shape.moe_layer_count()} * shape.expert_count);
  for (const Replica& replica : placement.replicas) {
    const size_t layer = size_t{replica.layer.value()} - shape.first_moe_layer;
    ++counts[layer * shape.expert_count + replica.expert.value()];
  }
  return counts.empty() ? 0 : *std::ranges::min_element(counts);
}

}  // namespace switchyard
