#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "libs/openai/internal/field_reader.h"
#include "libs/openai/internal/json_document.h"
#include "libs/openai/internal/sampling_reader.h"
#include "libs/openai/json_writer.h"
#include "libs/openai/request.h"

namespace switchyard {
namespace {

using internal::FieldReader;

constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool"};
constexpr int64_t kTopLogprobsMax = 20;

// Appends the text of one content part.
bool ReadPart(FieldReader& message, const simdjson::dom::element& element, size_t index,
              std::string* out) {
  const std::string name = fmt::format("content[{}]", index);
  simdjson::dom::object object;
  if (element.get(object) != simdjson::SUCCESS) {
    return message.FailValue(name, "must be an object with a type");
  }
  std::string_view type;
  if (object.at_key("type").get(type) != simdjson::SUCCESS) {
    return message.FailValue(name + ".type", "is required");
  }
  if (type != "text") {
    const std::string path = message.PathOf(name + ".type");
    return message.Fail(UnsupportedParameter(path, path + ": only text parts are supported"));
  }
  std::string_view text;
  if (object.at_key("text").get(text) != simdjson::SUCCESS) {
    return message.FailValue(name + ".text", "must be a string");
  }
  if (index > 0) {
    *out += '\n';
  }
  out->append(text);
  return true;
}

// The content as one string; nothing when it is null or missing, which only an assistant may have.
bool ReadContent(FieldReader& message, std::string_view role, std::optional<std::string>* out) {
  const auto element = message.Find("content");
  if (!element) {
    return role == "assistant" || message.FailValue("content", "is required");
  }
  std::string_view text;
  if (element->get(text) == simdjson::SUCCESS) {
    *out = std::string(text);
    return true;
  }
  simdjson::dom::array parts;
  if (element->get(parts) != simdjson::SUCCESS || parts.size() == 0) {
    return message.FailValue("content", "must be a string or a list of text parts");
  }
  std::string joined;
  size_t index = 0;
  for (const simdjson::dom::element part : parts) {
    if (!ReadPart(message, part, index++, &joined)) {
      return false;
    }
  }
  *out = std::move(joined);
  return true;
}

// Copies a string member to `json` if it is there.
bool CopyString(FieldReader& message, std::string_view name, size_t bytes_max, JsonWriter& json) {
  std::string value;
  if (!message.String(name, bytes_max, &value)) {
    return false;
  }
  if (message.Find(name)) {
    json.Raw(",\"").Raw(name).Raw("\":").String(value);
  }
  return true;
}

// Earlier tool calls of the conversation go to the template as they are.
bool CopyToolCalls(FieldReader& message, JsonWriter& json) {
  const auto element = message.Find("tool_calls");
  if (!element) {
    return true;
  }
  if (!element->is_array()) {
    return message.FailValue("tool_calls", "must be a list");
  }
  json.Raw(",\"tool_calls\":").Raw(simdjson::minify(*element));
  return true;
}

bool ReadRole(FieldReader& message, const ParseLimits& limits, std::string* role) {
  if (!message.String("role", limits.name_bytes_max, role)) {
    return false;
  }
  if (std::find(std::begin(kRoles), std::end(kRoles), *role) == std::end(kRoles)) {
    return message.FailValue("role", "must be system, developer, user, assistant or tool");
  }
  return true;
}

// Checks one message and appends it to `json` as templates expect it.
bool ReadMessage(FieldReader& message, const ParseLimits& limits, JsonWriter& json) {
  std::string role;
  std::optional<std::string> content;
  if (!ReadRole(message, limits, &role) || !ReadContent(message, role, &content)) {
    return false;
  }
  json.Raw("{\"role\":").String(role == "developer" ? "system" : role).Raw(",\"content\":");
  if (content) {
    json.String(*content);
  } else {
    json.Raw("null");
  }
  if (!CopyString(message, "name", limits.name_bytes_max, json)) {
    return false;
  }
  if (role == "tool" && !message.Find("tool_call_id")) {
    return message.FailValue("tool_call_id", "is required in a tool message");
  }
  if (role == "tool" && !CopyString(message, "tool_call_id", limits.name_bytes_max, json)) {
    return false;
  }
  if (role == "assistant" &&
      (!CopyString(message, "reasoning_content", limits.body_bytes_max, json) ||
       !CopyToolCalls(message, json))) {
    return false;
  }
  json.Raw("}");
  return true;
}

bool ReadMessages(FieldReader& reader, const ParseLimits& limits, ChatRequest* out) {
  const auto element = reader.Find("messages");
  if (!element) {
    return reader.FailValue("messages", "is required");
  }
  simdjson::dom::array list;
  if (element->get(list) != simdjson::SUCCESS || list.size() == 0 ||
      list.size() > limits.messages_max) {
    return reader.FailValue("messages",
                            fmt::format("must be a list of 1 to {} messages", limits.messages_max));
  }
  JsonWriter json;
  json.Raw("[");
  for (const simdjson::dom::element item : list) {
    const std::string name = fmt::format("messages[{}]", out->message_count);
    simdjson::dom::object object;
    if (item.get(object) != simdjson::SUCCESS) {
      return reader.FailValue(name, "must be an object");
    }
    FieldReader message(object, name + ".");
    json.Raw(out->message_count == 0 ? "" : ",");
    if (!ReadMessage(message, limits, json)) {
      return reader.Fail(message.error());
    }
    ++out->message_count;
  }
  out->messages_json = json.Raw("]").Take();
  return true;
}

// Both names are checked; the newer one wins.
bool ReadMaxTokens(FieldReader& reader, const ParseLimits& limits, SamplingFields* out) {
  const internal::Range<int64_t> range{1, limits.max_tokens_max};
  if (!reader.Int("max_tokens", range, &out->max_tokens) ||
      !reader.Int("max_completion_tokens", range, &out->max_tokens)) {
    return false;
  }
  if (out->max_tokens && out->min_tokens > *out->max_tokens) {
    return reader.FailValue("min_tokens", fmt::format("{} is more than max_tokens {}",
                                                      out->min_tokens, *out->max_tokens));
  }
  return true;
}

bool ReadLogprobs(FieldReader& reader, ChatRequest* out) {
  if (!reader.Bool("logprobs", &out->logprobs) ||
      !reader.Int("top_logprobs", {0, kTopLogprobsMax}, &out->top_logprobs)) {
    return false;
  }
  if (out->top_logprobs > 0 && !out->logprobs) {
    return reader.FailValue("top_logprobs", "is only allowed with logprobs");
  }
  return true;
}

}  // namespace

ApiResult<ChatRequest> ParseChatRequest(std::string_view body, const ParseLimits& limits) {
  internal::JsonDocument document;
  if (std::optional<ApiError> error = document.Parse(body, limits)) {
    return *std::move(error);
  }
  FieldReader reader(document.root());
  ChatRequest request;
  const bool read = internal::ReadSampling(reader, limits, &request.sampling) &&
                    internal::RefuseUnsupported(reader) && reader.RequireUnset("echo") &&
                    ReadMaxTokens(reader, limits, &request.sampling) &&
                    ReadLogprobs(reader, &request) &&
                    reader.Bool("add_generation_prompt", &request.add_generation_prompt) &&
                    ReadMessages(reader, limits, &request);
  if (!read) {
    return reader.error();
  }
  internal::CountUnknownFields(reader, &request.sampling);
  return request;
}

}  // namespace switchyard
