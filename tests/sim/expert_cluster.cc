#include "tests/sim/expert_cluster.h"

#include <algorithm>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/rng.h"

namespace switchyard {
namespace {

std::shared_ptr<const ExpertWeights> MakeExpert(uint64_t seed) {
  constexpr size_t kMatrix = size_t{kSimHidden} * kSimIntermediate;
  auto values = std::make_shared<std::vector<float>>(3 * kMatrix);
  Rng rng(seed);
  for (float& value : *values) {
    value = rng.Unit() - 0.5F;
  }
  const auto matrix = [&](size_t index, uint32_t rows, uint32_t columns) {
    return PackedMatrix::Plain({.data = values->data() + index * kMatrix,
                                .dtype = Dtype::kF32,
                                .rows = rows,
                                .columns = columns});
  };
  return std::make_shared<ExpertWeights>(
      ExpertWeights{.gate = matrix(0, kSimIntermediate, kSimHidden),
                    .up = matrix(1, kSimIntermediate, kSimHidden),
                    .down = matrix(2, kSimHidden, kSimIntermediate),
                    .owner = values});
}

}  // namespace

SimExperts::SimExperts() {
  for (uint16_t layer = kSimShape.first_moe_layer; layer < kSimShape.layer_count; ++layer) {
    for (uint16_t expert = 0; expert < kSimShape.expert_count; ++expert) {
      weights_[{layer, expert}] = MakeExpert(layer * 1000ULL + expert);
    }
  }
}

std::shared_ptr<const ExpertWeights> SimExperts::Of(LayerId layer, ExpertId expert) const {
  return weights_.at({layer.value(), expert.value()});
}

std::vector<float> SimExperts::Expected(const RoutedRows& rows, Dtype dtype) const {
  const Kernels& kernels = **KernelsFor(InstructionSet::kScalar);
  ComputePool pool(1);
  FfnScratch scratch;
  return ReferenceDispatch(rows, kSimHidden, dtype,
                           [&](uint16_t expert, std::span<const float> row, std::span<float> out) {
                             const ExpertWeights& weights = *Of(rows.layer, ExpertId(expert));
                             const FfnGroup group{.gate = weights.gate,
                                                  .up = weights.up,
                                                  .down = weights.down,
                                                  .first_row = 0,
                                                  .row_count = 1};
                             GroupedFfn(kernels, pool,
                                        {.groups = std::span(&group, 1),
                                         .x = {.data = std::as_bytes(row).data(),
                                               .row_bytes = row.size_bytes(),
                                               .row_count = 1,
                                               .columns = kSimHidden},
                                         .hidden_size = kSimHidden,
                                         .intermediate_size = kSimIntermediate,
                                         .y = out.data(),
                                         .scratch = &scratch});
                           });
}

SimShard::SimShard(std::unique_ptr<Transport> endpoint, const ExpertServerOptions& options,
                   const Clock& clock)
    : transport(std::move(endpoint)),
      server(options, *transport, bank, BestKernels(), pool, clock, metrics) {
  SY_CHECK(transport->Listen("127.0.0.1:0").ok());
}

ExpertServerOptions SimServerOptions(uint32_t shard, uint64_t incarnation, Dtype dtype) {
  return {.shard = ShardId(shard),
          .incarnation = Incarnation(incarnation),
          .model_digest = "sha256:tiny",
          .numerics_id = "f32x16",
          .hidden_size = kSimHidden,
          .row_dtype = dtype};
}

DispatcherOptions SimDispatcherOptions(Dtype dtype) {
  return {.hidden_size = kSimHidden,
          .top_k = kSimTopK,
          .row_dtype = dtype,
          .model_digest = "sha256:tiny",
          .numerics_id = "f32x16",
          .incarnation = Incarnation(77)};
}

Placement SimPlacement(uint64_t epoch, uint32_t shard_count, uint32_t replicas,
                       const std::string& prefix) {
  Placement placement{.epoch = EpochId(epoch),
                      .model_digest = "sha256:tiny",
                      .shape = kSimShape,
                      .shards = {},
                      .replicas = {}};
  for (uint32_t shard = 0; shard < shard_count; ++shard) {
    placement.shards.push_back({.shard = ShardId(shard),
                                .incarnation = Incarnation(1),
                                .address = prefix + std::to_string(shard),
                                .memory_bytes = 0});
  }
  for (uint16_t layer = kSimShape.first_moe_layer; layer < kSimShape.layer_count; ++layer) {
    for (uint16_t expert = 0; expert < kSimShape.expert_count; ++expert) {
      for (uint32_t copy = 0; copy < replicas; ++copy) {
        placement.replicas.push_back({.layer = LayerId(layer),
                                      .expert = ExpertId(expert),
                                      .shard = ShardId((expert + copy) % shard_count)});
      }
    }
  }
  std::ranges::sort(placement.replicas);
  return placement;
}

void LoadPlaced(const SimExperts& experts, const Placement& placement, ShardId shard,
                ExpertBank& bank) {
  for (const Replica& replica : placement.replicas) {
    if (replica.shard == shard) {
      SY_CHECK(
          bank.Load(replica.layer, replica.expert, experts.Of(replica.layer, replica.expert)).ok());
    }
  }
}

SimBatch::SimBatch(uint64_t seed, uint16_t layer, uint32_t row_count)
    : values(size_t{row_count} * kSimHidden) {
  Rng rng(seed);
  for (float& value : values) {
    value = 4 * (rng.Unit() - 0.5F);
  }
  for (uint32_t row = 0; row < row_count; ++row) {
    std::vector<uint16_t> order = {0, 1, 2, 3, 4, 5, 6, 7};
    for (uint32_t slot = 0; slot < kSimTopK; ++slot) {
      std::swap(order[slot], order[slot + rng.Below(order.size() - slot)]);
      experts.push_back(order[slot]);
    }
  }
  rows = {.layer = LayerId(layer), .row_count = row_count, .rows = values, .experts = experts};
}

}  // namespace switchyard
