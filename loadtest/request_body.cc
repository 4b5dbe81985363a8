#include "loadtest/request_body.h"

#include <array>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

#include <simdjson.h>

#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/openai/json_writer.h"

namespace switchyard {
namespace {

constexpr uint64_t kTokenStream = 1;  // Of CounterRandom.

constexpr std::array<std::string_view, 64> kWords = {
    "the",  "of",    "and",   "to",   "in",   "is",    "you",   "that",  "it",   "he",    "was",
    "for",  "on",    "are",   "as",   "with", "his",   "they",  "at",    "be",   "this",  "have",
    "from", "or",    "one",   "had",  "by",   "word",  "but",   "not",   "what", "all",   "were",
    "we",   "when",  "your",  "can",  "said", "there", "use",   "an",    "each", "which", "she",
    "do",   "how",   "their", "if",   "will", "up",    "other", "about", "out",  "many",  "then",
    "them", "these", "so",    "some", "her",  "would", "make",  "like",  "him"};

uint64_t SequenceOf(const RequestSpec& spec, uint32_t position) {
  if (spec.block_seeds.empty()) {
    return position < spec.prefix_tokens ? spec.prefix_seed : spec.seed;
  }
  const size_t block = position / spec.block_tokens;
  return block < spec.block_seeds.size() ? spec.block_seeds[block] : spec.seed;
}

// Token k of a sequence does not depend on what else is in the prompt.
uint64_t DrawAt(const RequestSpec& spec, uint32_t position, uint64_t bound) {
  return CounterRandom(SequenceOf(spec, position), kTokenStream, position) % bound;
}

void AppendIds(JsonWriter& json, const RequestSpec& spec, uint32_t vocab_size) {
  const uint32_t first = FirstTokenId(vocab_size);
  std::string ids;
  ids.reserve(spec.prompt_tokens * size_t{7});
  for (uint32_t i = 0; i < spec.prompt_tokens; ++i) {
    fmt::format_to(std::back_inserter(ids), "{}{}", i == 0 ? "" : ",",
                   first + DrawAt(spec, i, vocab_size - first));
  }
  json.Raw("[").Raw(ids).Raw("]");
}

std::string Words(const RequestSpec& spec) {
  std::string text;
  text.reserve(spec.prompt_tokens * size_t{5});
  for (uint32_t i = 0; i < spec.prompt_tokens; ++i) {
    text += i == 0 ? "" : " ";
    text += kWords[DrawAt(spec, i, kWords.size())];
  }
  return text;
}

// Writes the members of one object but those that the user gives.
class MemberWriter {
 public:
  explicit MemberWriter(const ExtraMembers& extra) : extra_(extra) {}

  // The writer to put the value of `name` into, or null when it is not wanted.
  JsonWriter* Begin(std::string_view name) {
    if (extra_.names.contains(name)) {
      return nullptr;
    }
    json_.Raw(empty_ ? "{" : ",").String(name).Raw(":");
    empty_ = false;
    return &json_;
  }

  std::string Take() {
    if (!extra_.json.empty()) {
      json_.Raw(empty_ ? "{" : ",").Raw(extra_.json);
      empty_ = false;
    }
    json_.Raw(empty_ ? "{}" : "}");
    return json_.Take();
  }

 private:
  const ExtraMembers& extra_;
  JsonWriter json_;
  bool empty_ = true;
};

void AppendPrompt(MemberWriter& members, const RequestSpec& spec, const BodyOptions& options) {
  if (options.endpoint == Endpoint::kChat) {
    if (JsonWriter* json = members.Begin("messages")) {
      json->Raw("[{\"role\":\"user\",\"content\":").String(Words(spec)).Raw("}]");
    }
    return;
  }
  JsonWriter* json = members.Begin("prompt");
  if (json == nullptr) {
    return;
  }
  if (options.prompt_form == PromptForm::kTokenIds) {
    AppendIds(*json, spec, options.vocab_size);
  } else {
    json->String(Words(spec));
  }
}

}  // namespace

absl::StatusOr<ExtraMembers> ExtraMembers::Parse(std::string_view object) {
  simdjson::dom::parser parser;
  simdjson::dom::object root;
  if (parser.parse(object.data(), object.size()).get(root) != simdjson::SUCCESS) {
    return InvalidArgument("not a JSON object");
  }
  ExtraMembers extra;
  JsonWriter json;
  for (const auto& [name, value] : root) {
    if (!extra.names.emplace(name).second) {
      return InvalidArgument("member '{}' is given twice", name);
    }
    if (!value.is_null()) {
      json.Raw(extra.json.empty() ? "" : ",").String(name).Raw(":").Raw(simdjson::minify(value));
      extra.json += json.Take();
    }
  }
  return extra;
}

uint32_t FirstTokenId(uint32_t vocab_size) { return vocab_size > 600 ? 300 : vocab_size / 2; }

std::string RequestBody(const RequestSpec& spec, const BodyOptions& options,
                        std::string_view tenant_name) {
  MemberWriter members(options.extra);
  if (!options.model.empty()) {
    if (JsonWriter* json = members.Begin("model")) {
      json->String(options.model);
    }
  }
  AppendPrompt(members, spec, options);
  if (JsonWriter* json = members.Begin("max_tokens")) {
    json->Int(spec.output_tokens);
  }
  if (JsonWriter* json = members.Begin("stream")) {
    json->Bool(true);
  }
  if (JsonWriter* json = members.Begin("stream_options")) {
    json->Raw("{\"include_usage\":true}");
  }
  if (JsonWriter* json = members.Begin("temperature")) {
    json->Raw(fmt::format("{}", options.temperature));
  }
  if (JsonWriter* json = members.Begin("seed")) {
    json->Int(static_cast<int64_t>(spec.seed >> 33));  // 31 bits: some servers take no more.
  }
  if (options.ignore_eos) {
    if (JsonWriter* json = members.Begin("ignore_eos")) {
      json->Bool(true);
    }
  }
  if (options.send_user) {
    if (JsonWriter* json = members.Begin("user")) {
      json->String(tenant_name);
    }
  }
  return members.Take();
}

}  // namespace switchyard
