#include "libs/text/text_assets.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

#include <boost/json.hpp>

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/text/internal/config_json.h"

namespace switchyard {
namespace {

constexpr size_t kConfigBytesMax = size_t{16} << 20;

// The file's content, or "" where there is no such file.
absl::StatusOr<std::string> ReadOptional(const std::string& path) {
  absl::StatusOr<std::string> content = ReadFile(path, kConfigBytesMax);
  if (content.status().code() == absl::StatusCode::kNotFound) {
    return std::string();
  }
  return content;
}

// The object in a JSON file; empty where there is no such file.
absl::StatusOr<boost::json::object> ReadOptionalObject(const std::string& path) {
  SY_ASSIGN_OR_RETURN(const std::string content, ReadOptional(path));
  if (content.empty()) {
    return boost::json::object();
  }
  absl::StatusOr<boost::json::object> object = internal::ParseObject(content);
  if (!object.ok()) {
    return Annotate(object.status(), path);
  }
  return object;
}

// A token id member: one number or a list of them.
absl::StatusOr<std::vector<uint32_t>> IdsOf(const boost::json::object& config,
                                            std::string_view name, size_t vocab_size) {
  std::vector<uint32_t> ids;
  const boost::json::value* member = config.if_contains({name.data(), name.size()});
  if (member == nullptr || member->is_null()) {
    return ids;
  }
  const boost::json::array one = {*member};
  const boost::json::array& items = member->is_array() ? member->as_array() : one;
  for (const boost::json::value& item : items) {
    const int64_t* id = item.if_int64();
    if (id == nullptr) {
      return InvalidArgument("{} is not a token id or a list of them", name);
    }
    if (*id < 0 || static_cast<uint64_t>(*id) >= vocab_size) {
      return InvalidArgument("{}: {} is outside the vocabulary of {}", name, *id, vocab_size);
    }
    ids.push_back(static_cast<uint32_t>(*id));
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

std::optional<uint32_t> TokenIdIn(const boost::json::object& config, std::string_view name,
                                  const Tokenizer& tokenizer) {
  const std::optional<std::string> text = internal::TokenText(config, name);
  return text ? tokenizer.TokenIdOf(*text) : std::nullopt;
}

std::optional<double> NumberIn(const boost::json::object& config, std::string_view name) {
  const boost::json::value* member = config.if_contains({name.data(), name.size()});
  if (member == nullptr || !member->is_number()) {
    return std::nullopt;
  }
  return member->to_number<double>();
}

GenerationDefaults DefaultsOf(const boost::json::object& generation) {
  GenerationDefaults defaults{.temperature = NumberIn(generation, "temperature"),
                              .top_p = NumberIn(generation, "top_p"),
                              .top_k = std::nullopt};
  const boost::json::value* top_k = generation.if_contains("top_k");
  if (top_k != nullptr && top_k->is_int64()) {
    defaults.top_k = top_k->as_int64();
  }
  return defaults;
}

absl::StatusOr<std::optional<ChatTemplate>> LoadTemplate(const std::string& model_dir) {
  const std::string config_path = model_dir + "/tokenizer_config.json";
  const std::string source_path = model_dir + "/chat_template.jinja";
  SY_ASSIGN_OR_RETURN(std::string config, ReadOptional(config_path));
  SY_ASSIGN_OR_RETURN(const std::string source, ReadOptional(source_path));
  if (config.empty()) {
    config = "{}";
  }
  absl::StatusOr<ChatTemplate> loaded = source.empty() ? ChatTemplate::FromTokenizerConfig(config)
                                                       : ChatTemplate::FromSource(source, config);
  if (loaded.ok()) {
    return std::optional<ChatTemplate>(*std::move(loaded));
  }
  if (loaded.status().code() == absl::StatusCode::kNotFound) {
    return std::optional<ChatTemplate>();
  }
  return Annotate(loaded.status(), source.empty() ? config_path : source_path);
}

}  // namespace

absl::StatusOr<TextAssets> LoadTextAssets(const std::string& model_dir) {
  const std::string config_path = model_dir + "/tokenizer_config.json";
  const std::string generation_path = model_dir + "/generation_config.json";
  SY_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(model_dir + "/tokenizer.json"));
  SY_ASSIGN_OR_RETURN(std::optional<ChatTemplate> chat_template, LoadTemplate(model_dir));
  SY_ASSIGN_OR_RETURN(const boost::json::object config, ReadOptionalObject(config_path));
  SY_ASSIGN_OR_RETURN(const boost::json::object generation, ReadOptionalObject(generation_path));

  absl::StatusOr<std::vector<uint32_t>> bos =
      IdsOf(generation, "bos_token_id", tokenizer.vocab_size());
  absl::StatusOr<std::vector<uint32_t>> eos =
      IdsOf(generation, "eos_token_id", tokenizer.vocab_size());
  SY_RETURN_IF_ERROR(Annotate(bos.status(), generation_path));
  SY_RETURN_IF_ERROR(Annotate(eos.status(), generation_path));
  std::optional<uint32_t> bos_id =
      bos->empty() ? TokenIdIn(config, "bos_token", tokenizer) : bos->front();
  if (const auto id = TokenIdIn(config, "eos_token", tokenizer); eos->empty() && id) {
    eos->push_back(*id);
  }
  if (eos->empty()) {
    return InvalidArgument("{} has no eos_token_id, and {} names no eos_token of the vocabulary",
                           generation_path, config_path);
  }
  return TextAssets{.tokenizer = std::move(tokenizer),
                    .chat_template = std::move(chat_template),
                    .bos_id = bos_id,
                    .eos_ids = *std::move(eos),
                    .defaults = DefaultsOf(generation)};
}

}  // namespace switchyard
