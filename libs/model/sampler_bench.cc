// What choosing a token costs: one row of logits of the demo model's vocabulary (4k) and of
// DeepSeek-V3's (129k).
#include <cstddef>
#include <cstdint>
#include <vector>

#include <benchmark/benchmark.h>

#include "libs/base/rng.h"
#include "libs/model/sampler.h"

namespace switchyard {
namespace {

// Sums of four uniform draws: a bell, with few tokens at the top as real rows have.
std::vector<float> RandomLogits(size_t vocab_size) {
  Rng rng(1);
  std::vector<float> logits(vocab_size);
  for (float& logit : logits) {
    logit = 8.0F * (rng.Unit() + rng.Unit() + rng.Unit() + rng.Unit() - 2.0F);
  }
  return logits;
}

void SampleRows(benchmark::State& state, const SamplingParams& params,
                const SampleHistory& history) {
  const std::vector<float> logits = RandomLogits(static_cast<size_t>(state.range(0)));
  uint64_t position = 0;
  for (auto unused : state) {
    benchmark::DoNotOptimize(Sample(logits, params, history, position++).token);
  }
}

void BM_Greedy(benchmark::State& state) { SampleRows(state, {.temperature = 0.0F}, {}); }

void BM_TopKTopP(benchmark::State& state) {
  SampleRows(state, {.temperature = 0.7F, .top_k = 50, .top_p = 0.95F}, {});
}

void BM_TopP(benchmark::State& state) {
  SampleRows(state, {.temperature = 0.7F, .top_p = 0.95F}, {});
}

void BM_Full(benchmark::State& state) { SampleRows(state, {.temperature = 1.0F}, {}); }

// Penalties over a history of 1024 tokens.
void BM_Penalties(benchmark::State& state) {
  std::vector<TokenId> tokens(1024);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<TokenId>(i * 3);
  }
  SampleRows(state,
             {.temperature = 1.0F,
              .presence_penalty = 0.5F,
              .frequency_penalty = 0.1F,
              .repetition_penalty = 1.1F},
             {.prompt = tokens, .generated = tokens});
}

void BM_GreedyLogprobs(benchmark::State& state) {
  SampleRows(state, {.temperature = 0.0F, .logprobs = 5, .wants_logprobs = true}, {});
}

BENCHMARK(BM_Greedy)->Arg(4096)->Arg(129280)->ArgName("vocab");
BENCHMARK(BM_TopKTopP)->Arg(4096)->Arg(129280)->ArgName("vocab");
BENCHMARK(BM_TopP)->Arg(4096)->Arg(129280)->ArgName("vocab");
BENCHMARK(BM_Full)->Arg(4096)->Arg(129280)->ArgName("vocab");
BENCHMARK(BM_Penalties)->Arg(4096)->Arg(129280)->ArgName("vocab");
BENCHMARK(BM_GreedyLogprobs)->Arg(4096)->Arg(129280)->ArgName("vocab");

}  // namespace
}  // namespace switchyard
