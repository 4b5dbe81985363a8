#ifndef SWITCHYARD_LIBS_OPENAI_REQUEST_H_
#define SWITCHYARD_LIBS_OPENAI_REQUEST_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "libs/openai/api_error.h"

// Requests of the OpenAI API as validated values: what a client sent, with every range checked and
// nothing that only a model could judge. Values, any thread.

namespace switchyard {

// Named bounds of one request. A request past one is refused with 400 (413 for the body).
struct ParseLimits {
  size_t body_bytes_max = size_t{8} << 20;
  size_t depth_max = 32;     // Nested arrays and objects.
  size_t members_max = 256;  // Of the top-level object.
  size_t messages_max = 4096;
  size_t prompts_max = 128;            // Of one completion request.
  size_t choices_max = 128;            // Prompts times n.
  size_t prompt_tokens_max = 1 << 20;  // Of a prompt given as token ids.
  size_t stop_count_max = 16;
  size_t stop_bytes_max = 1024;  // Each.
  size_t logit_bias_count_max = 1024;
  size_t name_bytes_max = 256;  // Model, cache_salt, roles' names and ids.
  int64_t max_tokens_max = 1 << 20;
  uint32_t vocab_size = 0;  // Token ids must be below; 0 for not known here.
};

// Fields that chat and text completions share. Absent optionals leave the choice to the server.
struct SamplingFields {
  std::string model;  // Empty when omitted: the served model.
  std::optional<int64_t> max_tokens;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;  // 0 for off; never negative.
  std::optional<double> min_p;
  int64_t n = 1;
  std::vector<std::string> stop;
  std::vector<uint32_t> stop_token_ids;
  bool include_stop_str_in_output = false;
  std::optional<int64_t> seed;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage_stats = false;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  double repetition_penalty = 1.0;
  std::vector<std::pair<uint32_t, float>> logit_bias;  // Ascending, distinct token ids.
  int64_t min_tokens = 0;
  bool ignore_eos = false;
  std::string cache_salt;  // Isolates the prefix cache; empty for none.

  // Fields that no table of ours knows: accepted, and counted so that a typo shows in a metric.
  // At most 16 names are kept.
  size_t unknown_field_count = 0;
  std::vector<std::string> unknown_fields;
};

struct ChatRequest {
  SamplingFields sampling;
  // A JSON array for the chat template. Text parts are joined with a newline, `developer` has
  // become `system`, and members that templates do not know are gone.
  std::string messages_json;
  size_t message_count = 0;
  bool logprobs = false;
  int64_t top_logprobs = 0;
  bool add_generation_prompt = true;
};

using Prompt = std::variant<std::string, std::vector<uint32_t>>;

struct CompletionRequest {
  SamplingFields sampling;      // max_tokens is always set (16 when the client gave none).
  std::vector<Prompt> prompts;  // Not empty. Choice i belongs to prompt i / n.
  std::optional<int64_t> logprobs;
  bool echo = false;
  bool add_special_tokens = true;
};

ApiResult<ChatRequest> ParseChatRequest(std::string_view body, const ParseLimits& limits);
ApiResult<CompletionRequest> ParseCompletionRequest(std::string_view body,
                                                    const ParseLimits& limits);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_OPENAI_REQUEST_H_
