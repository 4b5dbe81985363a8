#include "libs/control/placement_convert.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {

uint32_t FlatIndexOf(const ExpertShape& shape, LayerExpert which) {
  SY_CHECK(which.layer.value() >= shape.first_moe_layer);
  return (uint32_t{which.layer.value()} - shape.first_moe_layer) * shape.expert_count +
         which.expert.value();
}

absl::StatusOr<LayerExpert> FromFlatIndex(const ExpertShape& shape, uint32_t flat_index) {
  const uint64_t expert_total = uint64_t{shape.moe_layer_count()} * shape.expert_count;
  if (flat_index >= expert_total) {
    return InvalidArgument("expert index {} >= {} experts of the model", flat_index, expert_total);
  }
  return LayerExpert{.layer = LayerId(static_cast<uint16_t>(shape.first_moe_layer +
                                                            flat_index / shape.expert_count)),
                     .expert = ExpertId(static_cast<uint16_t>(flat_index % shape.expert_count))};
}

v1::ShardInfo ToProto(const ShardInfo& shard) {
  v1::ShardInfo proto;
  proto.set_shard(shard.shard.value());
  proto.set_incarnation(shard.incarnation.value());
  proto.set_address(shard.address);
  proto.set_memory_bytes(shard.memory_bytes);
  return proto;
}

ShardInfo FromProto(const v1::ShardInfo& proto) {
  return {.shard = ShardId(proto.shard()),
          .incarnation = Incarnation(proto.incarnation()),
          .address = proto.address(),
          .memory_bytes = proto.memory_bytes()};
}

v1::ExpertShape ToProto(const ExpertShape& shape) {
  v1::ExpertShape proto;
  proto.set_first_moe_layer(shape.first_moe_layer);
  proto.set_layer_count(shape.layer_count);
  proto.set_expert_count(shape.expert_count);
  return proto;
}

absl::StatusOr<ExpertShape> FromProto(const v1::ExpertShape& proto) {
  constexpr uint32_t kMax = std::numeric_limits<uint16_t>::max();
  if (proto.layer_count() > kMax || proto.expert_count() > kMax || proto.expert_count() == 0 ||
      proto.first_moe_layer() >= proto.layer_count()) {
    return InvalidArgument("expert shape: layers [{}, {}) with {} experts is not a model's",
                           proto.first_moe_layer(), proto.layer_count(), proto.expert_count());
  }
  return ExpertShape{.first_moe_layer = static_cast<uint16_t>(proto.first_moe_layer()),
                     .layer_count = static_cast<uint16_t>(proto.layer_count()),
                     .expert_count = static_cast<uint16_t>(proto.expert_count())};
}

v1::Placement ToProto(const Placement& placement) {
  v1::Placement proto;
  proto.set_epoch(placement.epoch.value());
  proto.set_model_digest(placement.model_digest);
  *proto.mutable_shape() = ToProto(placement.shape);
  for (const ShardInfo& shard : placement.shards) {
    *proto.add_shards() = ToProto(shard);
    v1::ShardReplicas& replicas = *proto.add_replicas();
    replicas.set_shard(shard.shard.value());
    for (const Replica& replica : placement.replicas) {
      if (replica.shard == shard.shard) {
        replicas.add_experts(
            FlatIndexOf(placement.shape, {.layer = replica.layer, .expert = replica.expert}));
      }
    }
  }
  return proto;
}

absl::StatusOr<Placement> FromProto(const v1::Placement& proto) {
  Placement placement;
  placement.epoch = EpochId(proto.epoch());
  placement.model_digest = proto.model_digest();
  SY_ASSIGN_OR_RETURN(placement.shape, FromProto(proto.shape()));
  for (const v1::ShardInfo& shard : proto.shards()) {
    placement.shards.push_back(FromProto(shard));
  }
  for (const v1::ShardReplicas& shard : proto.replicas()) {
    for (const uint32_t flat_index : shard.experts()) {
      SY_ASSIGN_OR_RETURN(const LayerExpert which, FromFlatIndex(placement.shape, flat_index));
      placement.replicas.push_back(
          {.layer = which.layer, .expert = which.expert, .shard = ShardId(shard.shard())});
    }
  }
  std::sort(placement.replicas.begin(), placement.replicas.end());
  SY_RETURN_IF_ERROR(ValidatePlacement(placement));
  return placement;
}

}  // namespace switchyard
