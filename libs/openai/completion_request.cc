#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "libs/openai/internal/field_reader.h"
#include "libs/openai/internal/json_document.h"
#include "libs/openai/internal/sampling_reader.h"
#include "libs/openai/request.h"

namespace switchyard {
namespace {

using internal::FieldReader;

constexpr int64_t kDefaultMaxTokens = 16;  // As OpenAI documents for this route.
constexpr int64_t kLogprobsMax = 20;

// One prompt: a string or a list of token ids.
bool ReadPrompt(FieldReader& reader, const simdjson::dom::element& element, const std::string& path,
                const ParseLimits& limits, std::vector<Prompt>* out) {
  std::string_view text;
  if (element.get(text) == simdjson::SUCCESS) {
    out->emplace_back(std::string(text));
    return true;
  }
  simdjson::dom::array list;
  if (element.get(list) != simdjson::SUCCESS) {
    return reader.Fail(InvalidValue(path, path + " must be a string or a list of token ids"));
  }
  ApiResult<std::vector<uint32_t>> ids =
      internal::ReadTokenIds(list, path, limits.prompt_tokens_max, limits);
  if (!ids.ok()) {
    return reader.Fail(ids.error());
  }
  if (ids.value().empty()) {
    return reader.Fail(InvalidValue(path, path + " is an empty list"));
  }
  out->emplace_back(std::move(ids.value()));
  return true;
}

bool ReadPrompts(FieldReader& reader, const ParseLimits& limits, std::vector<Prompt>* out) {
  const auto element = reader.Find("prompt");
  if (!element) {
    return reader.FailValue("prompt", "is required");
  }
  simdjson::dom::array list;
  simdjson::dom::element first;
  // A list of numbers is one prompt, a list of anything else is many.
  if (element->get(list) != simdjson::SUCCESS || list.at(0).get(first) != simdjson::SUCCESS ||
      first.is_number()) {
    return ReadPrompt(reader, *element, "prompt", limits, out);
  }
  for (const simdjson::dom::element item : list) {
    if (out->size() == limits.prompts_max) {
      return reader.FailValue("prompt",
                              fmt::format("has more than {} prompts", limits.prompts_max));
    }
    if (!ReadPrompt(reader, item, fmt::format("prompt[{}]", out->size()), limits, out)) {
      return false;
    }
  }
  return true;
}

// What two fields must agree on.
bool CheckTogether(FieldReader& reader, const ParseLimits& limits,
                   const CompletionRequest& request) {
  const SamplingFields& fields = request.sampling;
  if (*fields.max_tokens == 0 && !request.echo) {
    return reader.FailValue("max_tokens", "may be 0 only with echo");
  }
  if (fields.min_tokens > *fields.max_tokens) {
    return reader.FailValue("min_tokens", fmt::format("{} is more than max_tokens {}",
                                                      fields.min_tokens, *fields.max_tokens));
  }
  const size_t choices = request.prompts.size() * static_cast<size_t>(fields.n);
  if (choices > limits.choices_max) {
    return reader.FailValue("n", fmt::format("times the prompts gives {} choices, more than {}",
                                             choices, limits.choices_max));
  }
  return true;
}

}  // namespace

ApiResult<CompletionRequest> ParseCompletionRequest(std::string_view body,
                                                    const ParseLimits& limits) {
  internal::JsonDocument document;
  if (std::optional<ApiError> error = document.Parse(body, limits)) {
    return *std::move(error);
  }
  FieldReader reader(document.root());
  CompletionRequest request;
  request.sampling.max_tokens = kDefaultMaxTokens;
  const bool read =
      internal::ReadSampling(reader, limits, &request.sampling) &&
      internal::RefuseUnsupported(reader) && ReadPrompts(reader, limits, &request.prompts) &&
      reader.Int("max_tokens", {0, limits.max_tokens_max}, &request.sampling.max_tokens) &&
      reader.Int("logprobs", {0, kLogprobsMax}, &request.logprobs) &&
      reader.Bool("echo", &request.echo) &&
      reader.Bool("add_special_tokens", &request.add_special_tokens) &&
      CheckTogether(reader, limits, request);
  if (!read) {
    return reader.error();
  }
  internal::CountUnknownFields(reader, &request.sampling);
  return request;
}

}  // namespace switchyard
