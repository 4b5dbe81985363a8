#include "libs/text/chat_template.h"

#include <utility>

#include <boost/json.hpp>

#include "libs/base/status.h"
#include "libs/text/internal/config_json.h"
#include "libs/text/internal/ffi_adapter.h"

namespace switchyard {
namespace {

constexpr std::string_view kTokenNames[] = {"bos_token", "eos_token", "pad_token", "unk_token"};

std::string TokensJson(const boost::json::object& config) {
  std::string json;
  for (const std::string_view name : kTokenNames) {
    if (const auto text = internal::TokenText(config, name)) {
      json += fmt::format("\"{}\":{},", name, boost::json::serialize(boost::json::string(*text)));
    }
  }
  return json;
}

// A chat_template is a string, or a list of named ones of which "default" is for conversations.
const boost::json::value* TemplateOf(const boost::json::object& config) {
  const boost::json::value* member = config.if_contains("chat_template");
  if (member == nullptr || !member->is_array()) {
    return member;
  }
  for (const boost::json::value& item : member->as_array()) {
    const boost::json::object* named = item.if_object();
    const boost::json::value* name = named == nullptr ? nullptr : named->if_contains("name");
    if (name != nullptr && *name == "default") {
      return named->if_contains("template");
    }
  }
  return nullptr;
}

}  // namespace

void ChatTemplate::Free::operator()(SyTemplate* handle) const { sy_template_free(handle); }

ChatTemplate::ChatTemplate(std::unique_ptr<SyTemplate, Free> handle, std::string tokens_json)
    : handle_(std::move(handle)), tokens_json_(std::move(tokens_json)) {}

ChatTemplate::ChatTemplate(ChatTemplate&& other) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&& other) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<ChatTemplate> ChatTemplate::FromTokenizerConfig(std::string_view config_json,
                                                               const ChatTemplateLimits& limits) {
  SY_ASSIGN_OR_RETURN(const boost::json::object config, internal::ParseObject(config_json));
  const boost::json::value* source = TemplateOf(config);
  if (source == nullptr || !source->is_string()) {
    return NotFound("no chat_template");
  }
  const boost::json::string& text = source->as_string();
  return FromSource({text.data(), text.size()}, config_json, limits);
}

absl::StatusOr<ChatTemplate> ChatTemplate::FromSource(std::string_view source,
                                                      std::string_view config_json,
                                                      const ChatTemplateLimits& limits) {
  SY_ASSIGN_OR_RETURN(const boost::json::object config, internal::ParseObject(config_json));
  SyTemplate* handle = nullptr;
  SyBytes error{};
  const int32_t code = sy_template_new(internal::ViewOf(source), limits.fuel,
                                       limits.output_bytes_max, &handle, &error);
  SY_RETURN_IF_ERROR(Annotate(internal::StatusOf(code, error), "chat template"));
  return ChatTemplate(std::unique_ptr<SyTemplate, Free>(handle), TokensJson(config));
}

absl::StatusOr<std::string> ChatTemplate::Render(const ChatInput& input) const {
  // Of two members with one name the template sees the later, so `extra_json` overrides nothing.
  std::string_view extra = input.extra_json;
  const size_t begin = extra.find('{');
  const size_t end = extra.rfind('}');
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) {
    return InvalidArgument("chat template: extra variables are not a JSON object");
  }
  extra = extra.substr(begin + 1, end - begin - 1);
  const bool blank = extra.find_first_not_of(" \t\r\n") == std::string_view::npos;
  const std::string context = fmt::format(
      "{{{}{}{}\"add_generation_prompt\":{},\"messages\":{}}}", blank ? std::string_view() : extra,
      blank ? "" : ",", tokens_json_, input.add_generation_prompt, input.messages_json);
  SyBytes out{};
  SyBytes error{};
  const int32_t code = sy_template_render(handle_.get(), internal::ViewOf(context), &out, &error);
  SY_RETURN_IF_ERROR(Annotate(internal::StatusOf(code, error), "chat template"));
  return internal::TakeString(out);
}

absl::StatusOr<std::vector<uint32_t>> EncodeChat(const Tokenizer& tokenizer,
                                                 const ChatTemplate& chat_template,
                                                 const ChatInput& input) {
  // One document, so that one marker serves both parts.
  const std::string both = fmt::format("[{},{}]", input.messages_json, input.extra_json);
  SY_ASSIGN_OR_RETURN(const GuardedJson guarded, tokenizer.Guard(both));
  if (guarded.marker == 0) {
    SY_ASSIGN_OR_RETURN(const std::string text, chat_template.Render(input));
    return tokenizer.Encode(text, /*add_special=*/false);
  }
  boost::json::error_code error;
  const boost::json::value parts = boost::json::parse(guarded.json, error);
  if (error || !parts.is_array() || parts.as_array().size() != 2) {
    return InvalidArgument("chat template: messages and extra variables are not JSON");
  }
  const std::string messages_json = boost::json::serialize(parts.as_array()[0]);
  const std::string extra_json = boost::json::serialize(parts.as_array()[1]);
  SY_ASSIGN_OR_RETURN(const std::string text,
                      chat_template.Render({.messages_json = messages_json,
                                            .add_generation_prompt = input.add_generation_prompt,
                                            .extra_json = extra_json}));
  return tokenizer.EncodeGuarded(text, guarded.marker, /*add_special=*/false);
}

}  // namespace switchyard
