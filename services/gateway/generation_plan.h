#ifndef SWITCHYARD_SERVICES_GATEWAY_GENERATION_PLAN_H_
#define SWITCHYARD_SERVICES_GATEWAY_GENERATION_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

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

// What planning needs to know. The assets outlive the call.
struct PlanContext {
  const TextAssets& assets;
  const std::vector<std::string>& served_names;
  uint32_t context_tokens_max = 0;
  uint64_t fallback_seed = 0;  // For requests that bring none.
};

ApiResult<GenerationPlan> PlanChat(const ChatRequest& request, const PlanContext& context);
ApiResult<GenerationPlan> PlanCompletion(const CompletionRequest& request,
                                         const PlanContext& context);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_GENERATION_PLAN_H_
