#ifndef SWITCHYARD_LIBS_OPENAI_RESPONSE_H_
#define SWITCHYARD_LIBS_OPENAI_RESPONSE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libs/openai/api_error.h"

// Builders of the API's answers and stream chunks. Pure functions over plain values: any thread.
// The text that goes in should be UTF-8; other bytes become U+FFFD.

namespace switchyard {

// What all chunks and the answer of one request share. The views must outlive the call.
struct ResponseHead {
  std::string_view id;     // "chatcmpl-..." or "cmpl-...".
  int64_t created_s = 0;   // Unix time.
  std::string_view model;  // As served.
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;  // Of the prompt.
};

enum class ChoiceFinish { kNone, kStop, kLength, kToolCalls, kContentFilter };

// "stop", "length", ...; empty for kNone.
std::string_view NameOf(ChoiceFinish reason);

struct LogprobItem {
  std::string bytes;  // The token's raw bytes, maybe part of a character.
  float logprob = 0.0F;
};

// One position: the token that is there, and the likeliest ones.
struct PositionLogprobs {
  LogprobItem token;
  std::vector<LogprobItem> top;
  bool known = true;  // False for the first token of an echoed prompt: nothing comes before it.
};

// A whole choice, or what a chunk adds to one.
struct ChoiceText {
  int64_t index = 0;
  std::string_view text;
  ChoiceFinish finish = ChoiceFinish::kNone;
  // Absent unless the request asked.
  std::optional<std::span<const PositionLogprobs>> logprobs;
  // Characters of the choice before this chunk; for text_offset of text completions.
  int64_t text_offset = 0;
};

std::string ChatCompletionJson(const ResponseHead& head, std::span<const ChoiceText> choices,
                               const Usage& usage);
// `first` adds the role, which goes with the first token. `usage` may be null.
std::string ChatChunkJson(const ResponseHead& head, const ChoiceText& choice, bool first,
                          const Usage* usage);
// The last chunk of a stream with include_usage: no choices.
std::string ChatUsageChunkJson(const ResponseHead& head, const Usage& usage);

std::string TextCompletionJson(const ResponseHead& head, std::span<const ChoiceText> choices,
                               const Usage& usage);
std::string TextChunkJson(const ResponseHead& head, const ChoiceText& choice, const Usage* usage);
std::string TextUsageChunkJson(const ResponseHead& head, const Usage& usage);

// The characters that `bytes` begins: how far text_offset moves.
int64_t CharacterCount(std::string_view bytes);

struct ModelCard {
  std::string id;
  int64_t created_s = 0;
  int64_t max_model_len = 0;  // Tokens of prompt and answer.
};

std::string ModelJson(const ModelCard& model);
std::string ModelListJson(std::span<const ModelCard> models);

// Server-sent events. `json` has no line break, as every builder here promises.
std::string SseData(std::string_view json);
// A fault in a stream: one event, after which the stream closes without kSseDone.
std::string SseError(const ApiError& error);
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
// A comment that keeps silent streams open.
inline constexpr std::string_view kSsePing = ": ping\n\n";

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_OPENAI_RESPONSE_H_
