#include <benchmark/benchmark.h>

#include "libs/base/check.h"
#include "libs/placement/planner.h"

namespace switchyard {
namespace {

// 58 MoE layers of 256 experts, two copies each.
void BM_PlanPlacement(benchmark::State& state) {
  PlanInput input{.epoch = EpochId(1),
                  .model_digest = "d",
                  .shape = {.first_moe_layer = 3, .layer_count = 61, .expert_count = 256},
                  .shards = {},
                  .expert_bytes = 1,
                  .replicas_wanted = 2,
                  .previous = nullptr};
  for (uint32_t i = 0; i < static_cast<uint32_t>(state.range(0)); ++i) {
    input.shards.push_back({.shard = ShardId(i),
                            .incarnation = Incarnation(1),
                            .address = "sim:x",
                            .memory_bytes = 0});
  }
  for (auto _ : state) {
    const auto placement = PlanPlacement(input);
    SY_CHECK(placement.ok());
    benchmark::DoNotOptimize(placement->replicas.data());
  }
}

BENCHMARK(BM_PlanPlacement)->Arg(8)->Arg(32)->Arg(128)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace switchyard
