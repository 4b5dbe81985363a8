#include <cstdint>
#include <vector>

#include <benchmark/benchmark.h>

#include "libs/scheduler/scheduler.h"

namespace switchyard {
namespace {

// One plan and commit of a steady decode with this many running sequences.
void BM_PlanDecode(benchmark::State& state) {
  const auto count = static_cast<uint32_t>(state.range(0));
  constexpr uint32_t kTokensMax = 4096;
  BlockPool pool(count * kTokensMax / 16);
  Scheduler scheduler({.step_tokens_max = 8192, .sequences_max = 8192, .waiting_max = 8192}, pool);
  const auto refill = [&] {
    for (uint32_t id = 1; id <= count; ++id) {
      scheduler.Cancel(RequestId(id));
      const absl::Status added = scheduler.Add(
          {.id = RequestId(id), .tokens = std::vector<TokenId>(1, 1), .prompt_length = 1}, {});
      if (!added.ok()) {
        state.SkipWithError("add failed");
      }
    }
  };
  refill();
  StepPlan plan;
  uint32_t tokens = 1;
  for (auto unused : state) {
    if (++tokens >= kTokensMax) {
      state.PauseTiming();
      refill();
      tokens = 2;
      state.ResumeTiming();
    }
    scheduler.Plan({}, plan);
    scheduler.Commit(plan);
    for (const Chunk& chunk : plan.chunks) {
      scheduler.Append(chunk.sequence->id, 2);
    }
  }
  state.SetItemsProcessed(state.iterations() * count);
}

BENCHMARK(BM_PlanDecode)->Arg(256)->Arg(1024)->Arg(4096);

}  // namespace
}  // namespace switchyard
