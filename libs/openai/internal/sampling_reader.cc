#include "libs/openai/internal/sampling_reader.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include <spdlog/fmt/fmt.h>

namespace switchyard::internal {
namespace {

constexpr size_t kUnknownNamesKept = 16;
constexpr int64_t kChoicesPerPromptMax = 128;
constexpr int64_t kTopKMax = std::numeric_limits<int32_t>::max();

// Served by nobody here, each refused by name unless it says nothing.
constexpr std::string_view kUnsupported[] = {
    "tools",
    "functions",
    "function_call",
    "audio",
    "prediction",
    "web_search_options",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "grammar",
    "prompt_logprobs",
    "bad_words",
    "allowed_token_ids",
    "truncate_prompt_tokens",
    "prompt_embeds",
    "chat_template",
    "chat_template_kwargs",
    "mm_processor_kwargs",
    "use_beam_search",
    "reasoning_effort",
    "thinking_token_budget",
    "return_token_ids",
    "return_routed_experts",
    "logprob_token_ids",
    "continue_final_message",
    "images",
    "documents",
    "suffix",
};

// Known, harmless, without effect.
constexpr std::string_view kIgnored[] = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "priority",
    "request_id",
    "session_id",
    "spaces_between_special_tokens",
    "verbosity",
};

bool ReadStop(FieldReader& reader, const ParseLimits& limits, SamplingFields* out) {
  const auto element = reader.Find("stop");
  if (!element) {
    return true;
  }
  std::vector<simdjson::dom::element> items;
  simdjson::dom::array list;
  if (element->get(list) == simdjson::SUCCESS) {
    if (list.size() > limits.stop_count_max) {
      return reader.FailValue(
          "stop", fmt::format("has {} strings, more than {}", list.size(), limits.stop_count_max));
    }
    items.assign(list.begin(), list.end());
  } else {
    items.push_back(*element);
  }
  for (const simdjson::dom::element& item : items) {
    std::string_view text;
    if (item.get(text) != simdjson::SUCCESS) {
      return reader.FailValue("stop", "must be a string or a list of strings");
    }
    if (text.empty() || text.size() > limits.stop_bytes_max) {
      return reader.FailValue(
          "stop", fmt::format("must hold strings of 1 to {} bytes", limits.stop_bytes_max));
    }
    out->stop.emplace_back(text);
  }
  return true;
}

bool ReadBias(FieldReader& reader, const simdjson::dom::key_value_pair& member,
              const ParseLimits& limits, SamplingFields* out) {
  uint32_t id = 0;
  const char* end = member.key.data() + member.key.size();
  const auto parsed = std::from_chars(member.key.data(), end, id);
  if (member.key.empty() || parsed.ptr != end || parsed.ec != std::errc()) {
    return reader.FailValue("logit_bias", "must map token ids in decimal to numbers");
  }
  if (limits.vocab_size > 0 && id >= limits.vocab_size) {
    return reader.FailValue(
        "logit_bias", fmt::format("names token {} of a vocabulary of {}", id, limits.vocab_size));
  }
  double bias = 0;
  if (!member.value.is_number() || member.value.get(bias) != simdjson::SUCCESS ||
      !(bias >= -100.0 && bias <= 100.0)) {
    return reader.FailValue("logit_bias", "must hold numbers between -100 and 100");
  }
  out->logit_bias.emplace_back(id, static_cast<float>(bias));
  return true;
}

bool ReadLogitBias(FieldReader& reader, const ParseLimits& limits, SamplingFields* out) {
  const auto element = reader.Find("logit_bias");
  if (!element) {
    return true;
  }
  simdjson::dom::object object;
  if (element->get(object) != simdjson::SUCCESS) {
    return reader.FailValue("logit_bias", "must map token ids in decimal to numbers");
  }
  if (object.size() > limits.logit_bias_count_max) {
    return reader.FailValue("logit_bias", fmt::format("has {} entries, more than {}", object.size(),
                                                      limits.logit_bias_count_max));
  }
  for (const simdjson::dom::key_value_pair member : object) {
    if (!ReadBias(reader, member, limits, out)) {
      return false;
    }
  }
  std::sort(out->logit_bias.begin(), out->logit_bias.end());
  const auto same_id = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (std::adjacent_find(out->logit_bias.begin(), out->logit_bias.end(), same_id) !=
      out->logit_bias.end()) {
    return reader.FailValue("logit_bias", "names a token twice");
  }
  return true;
}

bool ReadStreamOptions(FieldReader& reader, SamplingFields* out) {
  const auto element = reader.Find("stream_options");
  if (!element) {
    return true;
  }
  simdjson::dom::object object;
  if (element->get(object) != simdjson::SUCCESS) {
    return reader.FailValue("stream_options", "must be an object");
  }
  if (!out->stream) {
    return reader.FailValue("stream_options", "is only allowed with stream");
  }
  FieldReader options(object, "stream_options.");
  if (!options.Bool("include_usage", &out->include_usage) ||
      !options.Bool("continuous_usage_stats", &out->continuous_usage_stats)) {
    return reader.Fail(options.error());
  }
  return true;
}

bool ReadTopK(FieldReader& reader, SamplingFields* out) {
  if (!reader.Int("top_k", {-1, kTopKMax}, &out->top_k)) {
    return false;
  }
  if (out->top_k == -1) {
    out->top_k = 0;
  }
  return true;
}

// Zero is outside these ranges though their ends are not, so it is asked for separately.
bool ReadPositive(FieldReader& reader, SamplingFields* out) {
  if (!reader.Number("top_p", {0.0, 1.0}, &out->top_p) ||
      !reader.Number("repetition_penalty", {0.0, 10.0}, &out->repetition_penalty)) {
    return false;
  }
  if (out->top_p && *out->top_p <= 0.0) {
    return reader.FailValue("top_p", "must be greater than 0");
  }
  if (out->repetition_penalty <= 0.0) {
    return reader.FailValue("repetition_penalty", "must be greater than 0");
  }
  return true;
}

bool RefuseBestOf(FieldReader& reader, const SamplingFields& fields) {
  std::optional<int64_t> best_of;
  if (!reader.Int("best_of", {0, kChoicesPerPromptMax}, &best_of)) {
    return false;
  }
  if (best_of && *best_of > fields.n) {
    return reader.Fail(UnsupportedParameter("best_of", "best_of greater than n is not supported"));
  }
  return true;
}

// One of the values that ask for nothing, or refused.
bool RequireWord(FieldReader& reader, std::string_view name,
                 std::initializer_list<std::string_view> words) {
  const auto element = reader.Find(name);
  std::string_view word;
  if (!element || (element->get(word) == simdjson::SUCCESS &&
                   std::find(words.begin(), words.end(), word) != words.end())) {
    return true;
  }
  return reader.Fail(
      UnsupportedParameter(std::string(name), fmt::format("this {} is not supported", name)));
}

bool RefuseResponseFormat(FieldReader& reader) {
  const auto element = reader.Find("response_format");
  if (!element) {
    return true;
  }
  std::string_view type;
  if (element->at_key("type").get(type) != simdjson::SUCCESS) {
    return reader.FailValue("response_format", "must be an object with a type");
  }
  if (type != "text") {
    return reader.Fail(UnsupportedParameter("response_format",
                                            "a response_format other than text is not supported"));
  }
  return true;
}

bool RefuseModalities(FieldReader& reader) {
  const auto element = reader.Find("modalities");
  if (!element) {
    return true;
  }
  std::string_view only;
  if (element->at(0).get(only) != simdjson::SUCCESS || only != "text" ||
      element->at(1).error() == simdjson::SUCCESS) {
    return reader.Fail(
        UnsupportedParameter("modalities", "modalities other than text are not supported"));
  }
  return true;
}

}  // namespace

bool ReadSampling(FieldReader& reader, const ParseLimits& limits, SamplingFields* out) {
  return reader.String("model", limits.name_bytes_max, &out->model) &&
         reader.Number("temperature", {0.0, 2.0}, &out->temperature) && ReadTopK(reader, out) &&
         reader.Number("min_p", {0.0, 1.0}, &out->min_p) && ReadPositive(reader, out) &&
         reader.Int("n",
                    {1, std::min(kChoicesPerPromptMax, static_cast<int64_t>(limits.choices_max))},
                    &out->n) &&
         ReadStop(reader, limits, out) &&
         reader.TokenIds("stop_token_ids", limits.stop_count_max, limits, &out->stop_token_ids) &&
         reader.Bool("include_stop_str_in_output", &out->include_stop_str_in_output) &&
         reader.Int("seed",
                    {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()},
                    &out->seed) &&
         reader.Bool("stream", &out->stream) && ReadStreamOptions(reader, out) &&
         reader.Number("presence_penalty", {-2.0, 2.0}, &out->presence_penalty) &&
         reader.Number("frequency_penalty", {-2.0, 2.0}, &out->frequency_penalty) &&
         ReadLogitBias(reader, limits, out) &&
         reader.Int("min_tokens", {0, limits.max_tokens_max}, &out->min_tokens) &&
         reader.Bool("ignore_eos", &out->ignore_eos) &&
         reader.String("cache_salt", limits.name_bytes_max, &out->cache_salt) &&
         RefuseBestOf(reader, *out);
}

bool RefuseUnsupported(FieldReader& reader) {
  for (const std::string_view name : kUnsupported) {
    if (!reader.RequireUnset(name)) {
      return false;
    }
  }
  for (const std::string_view name : kIgnored) {
    reader.Ignore(name);
  }
  bool skip_special_tokens = true;
  if (!RequireWord(reader, "tool_choice", {"none", "auto"}) || !RefuseResponseFormat(reader) ||
      !RefuseModalities(reader) || !reader.Bool("skip_special_tokens", &skip_special_tokens)) {
    return false;
  }
  if (!skip_special_tokens) {
    return reader.Fail(
        UnsupportedParameter("skip_special_tokens", "skip_special_tokens false is not supported"));
  }
  return true;
}

void CountUnknownFields(const FieldReader& reader, SamplingFields* out) {
  out->unknown_field_count = reader.CountUnknown(kUnknownNamesKept, &out->unknown_fields);
}

}  // namespace switchyard::internal
