#ifndef SWITCHYARD_LIBS_MODEL_SAMPLER_H_
#define SWITCHYARD_LIBS_MODEL_SAMPLER_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "libs/base/ids.h"

namespace switchyard {

// The least logprob reported, so that it is finite even where the probability is 0.
inline constexpr float kLogprobMin = -9999.0F;

// How one token is chosen. Ranges are checked at the API; here they are assumed.
struct SamplingParams {
  float temperature = 1.0F;         // 0: greedy (ties: lower id).
  uint32_t top_k = 0;               // 0: off.
  float top_p = 1.0F;               // 1: off.
  float min_p = 0.0F;               // 0: off.
  float presence_penalty = 0.0F;    // On generated tokens.
  float frequency_penalty = 0.0F;   // On generated tokens.
  float repetition_penalty = 1.0F;  // On prompt and generated tokens.
  uint64_t seed = 0;
  uint32_t choice_index = 0;  // Of n choices of one request: a stream of its own.
  uint32_t logprobs = 0;      // How many alternatives to report; see wants_logprobs.
  bool wants_logprobs = false;
  std::vector<std::pair<TokenId, float>> logit_bias{};
  std::vector<TokenId> banned{};  // Never drawn (end-of-sequence before min_tokens).
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0.0F;
};

struct SampledToken {
  TokenId token = 0;
  float logprob = 0.0F;           // Log-softmax of the raw logits, >= kLogprobMin, when wanted.
  std::vector<TokenLogprob> top;  // Descending, ties by lower id; when wanted.
};

// What the sequence holds so far, for penalties.
struct SampleHistory {
  std::span<const TokenId> prompt;
  std::span<const TokenId> generated;
};

// Chooses the token of one position, in this order: logit bias, penalties, bans; then, unless
// greedy: temperature, top-k, top-p, min-p and one draw from the inverse cumulative distribution. A
// NaN logit counts as minus infinity. Where no token is possible, the lowest id that is not banned
// is chosen (0 if all are). Only our own arithmetic is used, so the result does not vary by
// processor. Randomness is CounterRandom(seed, choice_index, position), so a stream that is
// recomputed elsewhere draws the same numbers. `position` counts generated tokens from 0. Any
// thread: pure.
SampledToken Sample(std::span<const float> logits, const SamplingParams& params,
                    const SampleHistory& history, uint64_t position);

// Logprobs of a token that was given, not drawn (echoed prompts). Same floats as Sample reports.
SampledToken Score(std::span<const float> logits, TokenId token, uint32_t top_count);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_SAMPLER_H_
