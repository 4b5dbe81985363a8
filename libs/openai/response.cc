#include "libs/openai/response.h"

#include <algorithm>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "libs/openai/json_writer.h"

namespace switchyard {
namespace {

void AppendHead(JsonWriter& json, const ResponseHead& head, std::string_view object) {
  json.Raw("{\"id\":").String(head.id).Raw(",\"object\":\"").Raw(object).Raw("\",\"created\":");
  json.Int(head.created_s).Raw(",\"model\":").String(head.model).Raw(",\"choices\":[");
}

// Closes the choices and the answer.
void AppendTail(JsonWriter& json, const Usage* usage) {
  json.Raw("]");
  if (usage != nullptr) {
    json.Raw(",\"usage\":{\"prompt_tokens\":").Int(usage->prompt_tokens);
    json.Raw(",\"completion_tokens\":").Int(usage->completion_tokens);
    json.Raw(",\"total_tokens\":").Int(usage->prompt_tokens + usage->completion_tokens);
    json.Raw(",\"prompt_tokens_details\":{\"cached_tokens\":").Int(usage->cached_tokens).Raw("}}");
  }
  json.Raw("}");
}

void AppendFinish(JsonWriter& json, ChoiceFinish reason) {
  json.Raw(",\"finish_reason\":");
  if (reason == ChoiceFinish::kNone) {
    json.Raw("null");
  } else {
    json.String(NameOf(reason));
  }
}

void AppendChatToken(JsonWriter& json, const LogprobItem& token) {
  json.Raw("{\"token\":").String(token.bytes).Raw(",\"logprob\":").Float(token.logprob);
  json.Raw(",\"bytes\":[");
  for (size_t i = 0; i < token.bytes.size(); ++i) {
    json.Raw(i == 0 ? "" : ",").Int(static_cast<unsigned char>(token.bytes[i]));
  }
  json.Raw("]");
}

void AppendChatLogprobs(JsonWriter& json, const ChoiceText& choice) {
  json.Raw(",\"logprobs\":");
  if (!choice.logprobs) {
    json.Raw("null");
    return;
  }
  json.Raw("{\"content\":[");
  std::string_view comma;
  for (const PositionLogprobs& position : *choice.logprobs) {
    json.Raw(comma);
    comma = ",";
    AppendChatToken(json, position.token);
    json.Raw(",\"top_logprobs\":[");
    std::string_view inner_comma;
    for (const LogprobItem& token : position.top) {
      json.Raw(inner_comma);
      inner_comma = ",";
      AppendChatToken(json, token);
      json.Raw("}");
    }
    json.Raw("]}");
  }
  json.Raw("]}");
}

// A token as a name in the completions shape, where only the name tells tokens apart: bytes that
// are not UTF-8 are spelled out, as OpenAI does.
std::string TokenName(std::string_view bytes) {
  if (IsUtf8(bytes)) {
    return std::string(bytes);
  }
  std::string name = "bytes:";
  for (const char byte : bytes) {
    name += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  }
  return name;
}

void AppendTopMap(JsonWriter& json, const PositionLogprobs& position) {
  if (!position.known) {
    json.Raw("null");
    return;
  }
  std::vector<std::string> names;
  json.Raw("{");
  for (const LogprobItem& token : position.top) {
    std::string name = TokenName(token.bytes);
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      continue;  // Two tokens of one spelling: the likelier one came first.
    }
    json.Raw(names.empty() ? "" : ",").String(name).Raw(":").Float(token.logprob);
    names.push_back(std::move(name));
  }
  json.Raw("}");
}

void AppendTextLogprobs(JsonWriter& json, const ChoiceText& choice) {
  json.Raw(",\"logprobs\":");
  if (!choice.logprobs) {
    json.Raw("null");
    return;
  }
  JsonWriter logprobs;
  JsonWriter tops;
  JsonWriter offsets;
  json.Raw("{\"tokens\":[");
  int64_t offset = choice.text_offset;
  std::string_view comma;
  for (const PositionLogprobs& position : *choice.logprobs) {
    json.Raw(comma).String(TokenName(position.token.bytes));
    logprobs.Raw(comma);
    if (position.known) {
      logprobs.Float(position.token.logprob);
    } else {
      logprobs.Raw("null");
    }
    AppendTopMap(tops.Raw(comma), position);
    offsets.Raw(comma).Int(offset);
    offset += CharacterCount(position.token.bytes);
    comma = ",";
  }
  json.Raw("],\"token_logprobs\":[").Raw(logprobs.Take()).Raw("],\"top_logprobs\":[");
  json.Raw(tops.Take()).Raw("],\"text_offset\":[").Raw(offsets.Take()).Raw("]}");
}

void AppendTextChoice(JsonWriter& json, const ChoiceText& choice) {
  json.Raw("{\"index\":").Int(choice.index).Raw(",\"text\":").String(choice.text);
  AppendTextLogprobs(json, choice);
  AppendFinish(json, choice.finish);
  json.Raw("}");
}

std::string UsageChunk(const ResponseHead& head, std::string_view object, const Usage& usage) {
  JsonWriter json;
  AppendHead(json, head, object);
  AppendTail(json, &usage);
  return json.Take();
}

void AppendModel(JsonWriter& json, const ModelCard& model) {
  json.Raw("{\"id\":").String(model.id).Raw(",\"object\":\"model\",\"created\":");
  json.Int(model.created_s).Raw(",\"owned_by\":\"switchyard\",\"max_model_len\":");
  json.Int(model.max_model_len).Raw("}");
}

}  // namespace

std::string_view NameOf(ChoiceFinish reason) {
  switch (reason) {
    case ChoiceFinish::kStop:
      return "stop";
    case ChoiceFinish::kLength:
      return "length";
    case ChoiceFinish::kToolCalls:
      return "tool_calls";
    case ChoiceFinish::kContentFilter:
      return "content_filter";
    case ChoiceFinish::kNone:
      break;
  }
  return "";
}

std::string ChatCompletionJson(const ResponseHead& head, std::span<const ChoiceText> choices,
                               const Usage& usage) {
  JsonWriter json;
  AppendHead(json, head, "chat.completion");
  std::string_view comma;
  for (const ChoiceText& choice : choices) {
    json.Raw(comma).Raw("{\"index\":").Int(choice.index);
    comma = ",";
    json.Raw(",\"message\":{\"role\":\"assistant\",\"content\":").String(choice.text).Raw("}");
    AppendChatLogprobs(json, choice);
    AppendFinish(json, choice.finish);
    json.Raw("}");
  }
  AppendTail(json, &usage);
  return json.Take();
}

std::string ChatChunkJson(const ResponseHead& head, const ChoiceText& choice, bool first,
                          const Usage* usage) {
  JsonWriter json;
  AppendHead(json, head, "chat.completion.chunk");
  json.Raw("{\"index\":").Int(choice.index).Raw(",\"delta\":{");
  if (first) {
    json.Raw("\"role\":\"assistant\",\"content\":").String(choice.text);
  } else if (!choice.text.empty()) {
    json.Raw("\"content\":").String(choice.text);
  }
  json.Raw("}");
  AppendChatLogprobs(json, choice);
  AppendFinish(json, choice.finish);
  json.Raw("}");
  AppendTail(json, usage);
  return json.Take();
}

std::string ChatUsageChunkJson(const ResponseHead& head, const Usage& usage) {
  return UsageChunk(head, "chat.completion.chunk", usage);
}

std::string TextCompletionJson(const ResponseHead& head, std::span<const ChoiceText> choices,
                               const Usage& usage) {
  JsonWriter json;
  AppendHead(json, head, "text_completion");
  std::string_view comma;
  for (const ChoiceText& choice : choices) {
    json.Raw(comma);
    comma = ",";
    AppendTextChoice(json, choice);
  }
  AppendTail(json, &usage);
  return json.Take();
}

std::string TextChunkJson(const ResponseHead& head, const ChoiceText& choice, const Usage* usage) {
  JsonWriter json;
  AppendHead(json, head, "text_completion");
  AppendTextChoice(json, choice);
  AppendTail(json, usage);
  return json.Take();
}

std::string TextUsageChunkJson(const ResponseHead& head, const Usage& usage) {
  return UsageChunk(head, "text_completion", usage);
}

int64_t CharacterCount(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(), [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xc0U) != 0x80U;
  });
}

std::string ModelJson(const ModelCard& model) {
  JsonWriter json;
  AppendModel(json, model);
  return json.Take();
}

std::string ModelListJson(std::span<const ModelCard> models) {
  JsonWriter json;
  json.Raw("{\"object\":\"list\",\"data\":[");
  std::string_view comma;
  for (const ModelCard& model : models) {
    json.Raw(comma);
    comma = ",";
    AppendModel(json, model);
  }
  return json.Raw("]}").Take();
}

std::string SseData(std::string_view json) { return fmt::format("data: {}\n\n", json); }

std::string SseError(const ApiError& error) { return SseData(ErrorJson(error)); }

}  // namespace switchyard
