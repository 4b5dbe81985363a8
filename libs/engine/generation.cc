#include "libs/engine/generation.h"

#include <cmath>
#include <span>
#include <string_view>

#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr float kPenaltyMax = 100.0F;

absl::Status CheckTokens(std::string_view field, std::span<const TokenId> tokens,
                         uint32_t vocab_size) {
  for (const TokenId token : tokens) {
    if (token >= vocab_size) {
      return InvalidArgument("{}: an id is not below the vocabulary's {}", field, vocab_size);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRange(std::string_view field, float value, float low, float high) {
  if (!std::isfinite(value) || value < low || value > high) {
    return InvalidArgument("{}: {} is not between {} and {}", field, value, low, high);
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const SamplingParams& sampling, uint32_t vocab_size) {
  SY_RETURN_IF_ERROR(CheckRange("temperature", sampling.temperature, 0.0F, 100.0F));
  SY_RETURN_IF_ERROR(CheckRange("top_p", sampling.top_p, 0.0F, 1.0F));
  SY_RETURN_IF_ERROR(CheckRange("min_p", sampling.min_p, 0.0F, 1.0F));
  SY_RETURN_IF_ERROR(
      CheckRange("presence_penalty", sampling.presence_penalty, -kPenaltyMax, kPenaltyMax));
  SY_RETURN_IF_ERROR(
      CheckRange("frequency_penalty", sampling.frequency_penalty, -kPenaltyMax, kPenaltyMax));
  SY_RETURN_IF_ERROR(
      CheckRange("repetition_penalty", sampling.repetition_penalty, 0.01F, kPenaltyMax));
  if (sampling.logprobs > kLogprobsMax) {
    return InvalidArgument("top_logprobs: {} > {}", sampling.logprobs, kLogprobsMax);
  }
  if (sampling.logit_bias.size() > kLogitBiasMax) {
    return InvalidArgument("logit_bias: {} entries > {}", sampling.logit_bias.size(),
                           kLogitBiasMax);
  }
  for (const auto& [token, bias] : sampling.logit_bias) {
    SY_RETURN_IF_ERROR(CheckTokens("logit_bias", std::span(&token, 1), vocab_size));
    SY_RETURN_IF_ERROR(CheckRange("logit_bias", bias, -1000.0F, 1000.0F));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateRequest(const GenerationRequest& request, const GenerationBounds& bounds) {
  const size_t known = request.prompt.size() + request.resumed.size();
  if (request.prompt.empty()) {
    return InvalidArgument("prompt: no tokens");
  }
  if (known > bounds.context_tokens_max) {
    return InvalidArgument("prompt: {} tokens exceed the context of {}", known,
                           bounds.context_tokens_max);
  }
  if (request.max_tokens > 0 && request.resumed.empty() && known == bounds.context_tokens_max) {
    return InvalidArgument("prompt: {} tokens leave no room in the context of {}", known,
                           bounds.context_tokens_max);
  }
  if (request.stop_tokens.size() > kStopTokensMax) {
    return InvalidArgument("stop_tokens: {} ids > {}", request.stop_tokens.size(), kStopTokensMax);
  }
  SY_RETURN_IF_ERROR(CheckTokens("prompt", request.prompt, bounds.vocab_size));
  SY_RETURN_IF_ERROR(CheckTokens("resumed_tokens", request.resumed, bounds.vocab_size));
  SY_RETURN_IF_ERROR(CheckTokens("stop_tokens", request.stop_tokens, bounds.vocab_size));
  return CheckSampling(request.sampling, bounds.vocab_size);
}

}  // namespace switchyard
