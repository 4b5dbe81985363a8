#include "services/gateway/generation_plan.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "libs/base/status.h"

namespace switchyard {
namespace {

std::optional<ApiError> CheckModel(const std::string& model, const PlanContext& context) {
  if (model.empty() ||
      std::ranges::find(context.served_names, model) != context.served_names.end()) {
    return std::nullopt;
  }
  return ModelNotFound(fmt::format("{}", fmt::join(context.served_names, ", ")));
}

// The request's own values, then the model's defaults, then OpenAI's.
void FillSampling(const SamplingFields& fields, const PlanContext& context,
                  v1::Sampling* sampling) {
  const GenerationDefaults& defaults = context.assets.defaults;
  sampling->set_temperature(
      static_cast<float>(fields.temperature.value_or(defaults.temperature.value_or(1.0))));
  sampling->set_top_p(static_cast<float>(fields.top_p.value_or(defaults.top_p.value_or(1.0))));
  sampling->set_top_k(static_cast<uint32_t>(
      std::max<int64_t>(0, fields.top_k.value_or(defaults.top_k.value_or(0)))));
  sampling->set_min_p(static_cast<float>(fields.min_p.value_or(0.0)));
  sampling->set_presence_penalty(static_cast<float>(fields.presence_penalty));
  sampling->set_frequency_penalty(static_cast<float>(fields.frequency_penalty));
  sampling->set_repetition_penalty(static_cast<float>(fields.repetition_penalty));
  sampling->set_seed(fields.seed.has_value() ? static_cast<uint64_t>(*fields.seed)
                                             : context.fallback_seed);
  for (const auto& [token, bias] : fields.logit_bias) {
    sampling->add_logit_bias_token(token);
    sampling->add_logit_bias_value(bias);
  }
}

GenerationPlan PlanShared(const SamplingFields& fields, const PlanContext& context) {
  GenerationPlan plan;
  plan.stream = fields.stream;
  plan.include_usage = fields.include_usage;
  plan.continuous_usage = fields.continuous_usage_stats;
  plan.n = static_cast<size_t>(fields.n);
  FillSampling(fields, context, plan.call.mutable_sampling());
  plan.call.set_min_tokens(static_cast<uint32_t>(fields.min_tokens));
  plan.call.set_cache_salt(fields.cache_salt);
  plan.session.stop = fields.stop;
  plan.session.include_stop = fields.include_stop_str_in_output;
  plan.session.end_tokens = fields.stop_token_ids;
  if (!fields.ignore_eos) {
    const std::vector<uint32_t>& eos = context.assets.eos_ids;
    plan.session.end_tokens.insert(plan.session.end_tokens.end(), eos.begin(), eos.end());
  }
  plan.call.mutable_stop_tokens()->Assign(plan.session.end_tokens.begin(),
                                          plan.session.end_tokens.end());
  plan.max_tokens = fields.max_tokens.value_or(-1);
  plan.drops_tokens = plan.max_tokens == 0;
  return plan;
}

void SetLogprobs(int64_t top, bool chosen_in_top, GenerationPlan* plan) {
  plan->session.wants_logprobs = true;
  plan->session.chosen_in_top = chosen_in_top;
  plan->call.mutable_sampling()->set_wants_logprobs(true);
  plan->call.mutable_sampling()->set_top_logprobs(static_cast<uint32_t>(top));
}

std::optional<ApiError> CheckLength(const GenerationPlan& plan, const PlanContext& context) {
  const auto limit = static_cast<int64_t>(context.context_tokens_max);
  for (const PlannedPrompt& prompt : plan.prompts) {
    const auto size = static_cast<int64_t>(prompt.tokens.size());
    if (size == 0) {
      return InvalidValue(plan.chat ? "messages" : "prompt", "the prompt has no tokens");
    }
    const int64_t wanted = plan.max_tokens < 0 ? 1 : plan.max_tokens;
    if (size > limit || wanted > limit - size) {
      ApiError error = ContextLengthExceeded(fmt::format(
          "the context is {} tokens; the prompt has {} and the answer needs at least {}", limit,
          size, wanted));
      error.param = plan.chat ? "messages" : "prompt";
      return error;
    }
  }
  return std::nullopt;
}

ApiResult<PlannedPrompt> PlanPrompt(const Prompt& prompt, const CompletionRequest& request,
                                    const PlanContext& context) {
  const Tokenizer& tokenizer = context.assets.tokenizer;
  PlannedPrompt planned;
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    if (auto error = CheckTextBytes(text->size(), 1, context.assets, context.context_tokens_max)) {
      error->param = "prompt";
      return *std::move(error);
    }
    auto tokens = tokenizer.Encode(*text, request.add_special_tokens);
    if (!tokens.ok()) {
      return TextError(tokens.status(), "prompt");
    }
    planned.tokens = *std::move(tokens);
    planned.echo_text = request.echo ? *text : std::string();
    return planned;
  }
  planned.tokens = std::get<std::vector<uint32_t>>(prompt);
  if (request.echo) {
    planned.echo_text = tokenizer.Decode(planned.tokens, false);
  }
  return planned;
}

}  // namespace

std::optional<ApiError> CheckTextBytes(size_t text_bytes, size_t bytes_per_byte,
                                       const TextAssets& assets, uint32_t context_tokens_max) {
  const size_t bytes_max =
      bytes_per_byte * context_tokens_max * assets.tokenizer.longest_token_bytes();
  if (context_tokens_max == 0 || text_bytes <= bytes_max) {
    return std::nullopt;
  }
  return ContextLengthExceeded(fmt::format("{} bytes of text cannot fit the context of {} tokens",
                                           text_bytes, context_tokens_max));
}

ApiError TextError(const absl::Status& status, const std::string& param) {
  if (absl::IsResourceExhausted(status)) {
    return InvalidValue(param, MessageOf(status));
  }
  ApiError error = ApiErrorFromStatus(status);
  error.param = param;
  return error;
}

ApiResult<GenerationPlan> PlanChat(const ChatRequest& request, const PlanContext& context) {
  if (auto error = CheckModel(request.sampling.model, context)) {
    return *std::move(error);
  }
  if (!context.assets.chat_template.has_value()) {
    return InvalidValue("messages", "this model has no chat template; use /v1/completions");
  }
  if (auto error = CheckTextBytes(request.messages_json.size(), kJsonBytesPerByte, context.assets,
                                  context.context_tokens_max)) {
    error->param = "messages";
    return *std::move(error);
  }
  GenerationPlan plan = PlanShared(request.sampling, context);
  plan.chat = true;
  auto tokens = EncodeChat(context.assets.tokenizer, *context.assets.chat_template,
                           {.messages_json = request.messages_json,
                            .add_generation_prompt = request.add_generation_prompt});
  if (!tokens.ok()) {
    return TextError(tokens.status(), "messages");
  }
  plan.prompts.push_back({.tokens = *std::move(tokens), .echo_text = {}});
  if (request.logprobs) {
    SetLogprobs(request.top_logprobs, false, &plan);
  }
  if (auto error = CheckLength(plan, context)) {
    return *std::move(error);
  }
  return plan;
}

ApiResult<GenerationPlan> PlanCompletion(const CompletionRequest& request,
                                         const PlanContext& context) {
  if (auto error = CheckModel(request.sampling.model, context)) {
    return *std::move(error);
  }
  GenerationPlan plan = PlanShared(request.sampling, context);
  plan.echo = request.echo;
  for (const Prompt& prompt : request.prompts) {
    ApiResult<PlannedPrompt> planned = PlanPrompt(prompt, request, context);
    if (!planned.ok()) {
      return planned.error();
    }
    plan.prompts.push_back(std::move(planned.value()));
  }
  if (request.logprobs.has_value()) {
    SetLogprobs(*request.logprobs, true, &plan);
    plan.call.set_prompt_logprobs(request.echo);
  }
  if (auto error = CheckLength(plan, context)) {
    return *std::move(error);
  }
  return plan;
}

}  // namespace switchyard
