#ifndef SWITCHYARD_SERVICES_GATEWAY_GENERATION_PLAN_H_
#define SWITCHYARD_SERVICES_GATEWAY_GENERATION_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "proto/switchyard/v1/inference.pb.h"

#include "libs/frontend/session.h"
#include "libs/openai/api_error.h"
#include "libs/openai/request.h"
#include "libs/text/text_assets.h"

namespace switchyard {

// One prompt of a request, ready for a router.
struct PlannedPrompt {
  std::vector<uint32_t> tokens;
  std::string echo_text;  // What echo gives back.
};

// GenerationPlan is an API request turned into calls of routers: prompts.size() times n of them.
//
// A value. Holds prompt text: it never goes to a log.
struct GenerationPlan {
  bool chat = false;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool echo = false;
  bool drops_tokens = false;  // max_tokens was 0: one is generated, because routers need one.
  size_t n = 1;
  std::vector<PlannedPrompt> prompts;
  v1::GenerateRequest call;  // Without prompt, choice index, and max_tokens for each prompt.
  int64_t max_tokens = -1;   // -1: what the context leaves.
  SessionOptions session;

  size_t choice_count() const { return prompts.size() * n; }
};

// Messages are kept as JSON, where a byte takes up to six (\u00XX), and each message some framing;
// its text is a part of it.
inline constexpr size_t kJsonBytesPerByte = 8;

// What planning needs to know. The assets outlive the call.
struct PlanContext {
  const TextAssets& assets;
  const std::vector<std::string>& served_names;
  uint32_t context_tokens_max = 0;
  uint64_t fallback_seed = 0;  // For requests that bring none.
};

// An error when text of `text_bytes` cannot fit the context whatever its tokens are, so that it is
// refused before it costs anything; without a known context (0) nothing is refused. JSON may spell
// a byte as \u00XX: `bytes_per_byte` allows for that.
std::optional<ApiError> CheckTextBytes(size_t text_bytes, size_t bytes_per_byte,
                                       const TextAssets& assets, uint32_t context_tokens_max);

// A tokenizer's or template's refusal as the API tells it: always the request's fault, never to be
// tried again.
ApiError TextError(const absl::Status& status, const std::string& param);

ApiResult<GenerationPlan> PlanChat(const ChatRequest& request, const PlanContext& context);
ApiResult<GenerationPlan> PlanCompletion(const CompletionRequest& request,
                                         const PlanContext& context);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_GENERATION_PLAN_H_
