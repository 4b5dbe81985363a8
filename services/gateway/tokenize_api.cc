#include "services/gateway/tokenize_api.h"

#include <optional>
#include <utility>
#include <vector>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "libs/openai/json_writer.h"
#include "services/gateway/generation_plan.h"

namespace switchyard {
namespace {

ApiResult<boost::json::object> ParseObject(const std::string& body) {
  boost::json::error_code error;
  boost::json::value value = boost::json::parse(body, error);
  if (error) {
    return InvalidJson("the body is not JSON");
  }
  if (!value.is_object()) {
    return InvalidJson("the body is not a JSON object");
  }
  return std::move(value.get_object());
}

ApiResult<std::vector<uint32_t>> EncodeMessages(const std::string& body, const ParseLimits& limits,
                                                const TextAssets& assets,
                                                uint32_t context_tokens_max) {
  ApiResult<ChatRequest> chat = ParseChatRequest(body, limits);
  if (!chat.ok()) {
    return chat.error();
  }
  if (!assets.chat_template.has_value()) {
    return InvalidValue("messages", "this model has no chat template");
  }
  if (auto error = CheckTextBytes(chat.value().messages_json.size(), kJsonBytesPerByte, assets,
                                  context_tokens_max)) {
    return *std::move(error);
  }
  auto tokens = EncodeChat(assets.tokenizer, *assets.chat_template,
                           {.messages_json = chat.value().messages_json,
                            .add_generation_prompt = chat.value().add_generation_prompt});
  if (!tokens.ok()) {
    return TextError(tokens.status(), "messages");
  }
  return *std::move(tokens);
}

ApiResult<std::vector<uint32_t>> EncodePrompt(const boost::json::object& object,
                                              const TextAssets& assets,
                                              uint32_t context_tokens_max) {
  const boost::json::value* const prompt = object.if_contains("prompt");
  if (prompt == nullptr || !prompt->is_string()) {
    return InvalidValue("prompt", "a string is required");
  }
  const boost::json::value* const special = object.if_contains("add_special_tokens");
  if (special != nullptr && !special->is_bool()) {
    return InvalidValue("add_special_tokens", "a boolean is required");
  }
  const boost::json::string& text = prompt->get_string();
  if (auto error = CheckTextBytes(text.size(), 1, assets, context_tokens_max)) {
    return *std::move(error);
  }
  auto tokens = assets.tokenizer.Encode(std::string_view(text.data(), text.size()),
                                        special == nullptr || special->get_bool());
  if (!tokens.ok()) {
    return TextError(tokens.status(), "prompt");
  }
  return *std::move(tokens);
}

}  // namespace

ApiResult<std::string> Tokenize(const std::string& body, const ParseLimits& limits,
                                const TextAssets& assets, uint32_t context_tokens_max) {
  const ApiResult<boost::json::object> object = ParseObject(body);
  if (!object.ok()) {
    return object.error();
  }
  const ApiResult<std::vector<uint32_t>> tokens =
      object.value().contains("messages")
          ? EncodeMessages(body, limits, assets, context_tokens_max)
          : EncodePrompt(object.value(), assets, context_tokens_max);
  if (!tokens.ok()) {
    return tokens.error();
  }
  return fmt::format(R"({{"count":{},"max_model_len":{},"tokens":[{}]}})", tokens.value().size(),
                     context_tokens_max, fmt::join(tokens.value(), ","));
}

ApiResult<std::string> Detokenize(const std::string& body, const TextAssets& assets,
                                  uint32_t context_tokens_max) {
  const ApiResult<boost::json::object> object = ParseObject(body);
  if (!object.ok()) {
    return object.error();
  }
  const boost::json::value* const list = object.value().if_contains("tokens");
  if (list == nullptr || !list->is_array()) {
    return InvalidValue("tokens", "an array of token ids is required");
  }
  if (context_tokens_max != 0 && list->get_array().size() > context_tokens_max) {
    return ContextLengthExceeded(
        fmt::format("{} tokens; the context is {}", list->get_array().size(), context_tokens_max));
  }
  std::vector<uint32_t> ids;
  for (const boost::json::value& value : list->get_array()) {
    const int64_t* const id = value.if_int64();
    if (id == nullptr || *id < 0 || static_cast<uint64_t>(*id) >= assets.tokenizer.vocab_size()) {
      return InvalidValue(
          "tokens", fmt::format("each is an id of 0 to {}", assets.tokenizer.vocab_size() - 1));
    }
    ids.push_back(static_cast<uint32_t>(*id));
  }
  JsonWriter json;
  json.Raw("{\"prompt\":").String(assets.tokenizer.Decode(ids, false)).Raw("}");
  return json.Take();
}

}  // namespace switchyard
