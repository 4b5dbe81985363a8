// What planning costs: Time is that of a whole step's plan, per_sequence that of one sequence.

#include <cstdint>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "libs/scheduler/scheduler.h"

namespace switchyard {
namespace {

using benchmark::Counter;

Counter PerSequence(uint32_t sequence_count) {
  return {static_cast<double>(sequence_count),
          Counter::kIsIterationInvariantRate | Counter::kInvert};
}

void Restart(Scheduler& scheduler, uint32_t sequence_count, const std::vector<TokenId>& prompt,
             benchmark::State& state) {
  for (uint32_t id = 1; id <= sequence_count; ++id) {
    scheduler.Cancel(RequestId(id));
    std::vector<TokenId> tokens = prompt;
    tokens.front() = id;
    const absl::Status added =
        scheduler.Add({.id = RequestId(id),
                       .tokens = std::move(tokens),
                       .prompt_length = static_cast<uint32_t>(prompt.size())},
                      {});
    if (!added.ok()) {
      state.SkipWithError("add failed");
    }
  }
}

SchedulerLimits LimitsFor(benchmark::State& state) {
  return {.step_tokens_max = 8192,
          .sequences_max = 8192,
          .waiting_max = 8192,
          .prefix_cache = state.range(1) != 0};
}

// Plan, commit and append of a steady decode with this many running sequences.
void BM_PlanDecode(benchmark::State& state) {
  const auto count = static_cast<uint32_t>(state.range(0));
  constexpr uint32_t kTokensMax = 4096;
  BlockPool pool(count * kTokensMax / 16);
  Scheduler scheduler(LimitsFor(state), pool);
  const std::vector<TokenId> prompt(1);
  Restart(scheduler, count, prompt, state);
  StepPlan plan;
  uint32_t tokens = 1;
  for (auto unused : state) {
    if (++tokens >= kTokensMax) {
      state.PauseTiming();
      Restart(scheduler, count, prompt, state);
      tokens = 2;
      state.ResumeTiming();
    }
    scheduler.Plan({}, plan);
    scheduler.Commit(plan);
    for (const Chunk& chunk : plan.chunks) {
      scheduler.Append(chunk.sequence->id, 2);
    }
  }
  state.counters["per_sequence"] = PerSequence(count);
}

BENCHMARK(BM_PlanDecode)
    ->ArgsProduct({{256, 1024, 4096}, {0, 1}})
    ->ArgNames({"sequences", "prefix_cache"});

// Plan and commit of a step that admits this many prompts of 33 tokens. With the prefix cache, all
// but the last token of each are found there.
void BM_AdmitPrompts(benchmark::State& state) {
  const auto count = static_cast<uint32_t>(state.range(0));
  BlockPool pool(count * 4);
  SchedulerLimits limits = LimitsFor(state);
  limits.step_tokens_max = count * 33;
  Scheduler scheduler(limits, pool);
  const std::vector<TokenId> prompt(33, 5);
  StepPlan plan;
  for (auto unused : state) {
    state.PauseTiming();
    Restart(scheduler, count, prompt, state);
    state.ResumeTiming();
    scheduler.Plan({}, plan);
    scheduler.Commit(plan);
  }
  state.counters["per_sequence"] = PerSequence(count);
}

BENCHMARK(BM_AdmitPrompts)
    ->ArgsProduct({{256, 1024, 4096}, {0, 1}})
    ->ArgNames({"sequences", "prefix_cache"});

}  // namespace
}  // namespace switchyard
