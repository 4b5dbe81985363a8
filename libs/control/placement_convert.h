#ifndef SWITCHYARD_LIBS_CONTROL_PLACEMENT_CONVERT_H_
#define SWITCHYARD_LIBS_CONTROL_PLACEMENT_CONVERT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "proto/switchyard/v1/placement.pb.h"

#include "libs/base/ids.h"
#include "libs/placement/placement.h"

namespace switchyard {

// One (layer, expert) of a shape as a single number: (layer - first_moe_layer) * expert_count +
// expert.
struct LayerExpert {
  LayerId layer;
  ExpertId expert;
};

uint32_t FlatIndexOf(const ExpertShape& shape, LayerExpert which);

// InvalidArgument when `flat_index` is outside the shape.
absl::StatusOr<LayerExpert> FromFlatIndex(const ExpertShape& shape, uint32_t flat_index);

v1::Placement ToProto(const Placement& placement);

// InvalidArgument when sizes or indices are out of range or ValidatePlacement refuses.
absl::StatusOr<Placement> FromProto(const v1::Placement& proto);

v1::ShardInfo ToProto(const ShardInfo& shard);
ShardInfo FromProto(const v1::ShardInfo& proto);
v1::ExpertShape ToProto(const ExpertShape& shape);
// InvalidArgument when a number does not fit or the shape is empty.
absl::StatusOr<ExpertShape> FromProto(const v1::ExpertShape& proto);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_CONTROL_PLACEMENT_CONVERT_H_
