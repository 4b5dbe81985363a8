#include "bench/quality/scored_text.h"

#include <utility>

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "simdjson.h"

namespace switchyard {
namespace {

using simdjson::dom::element;

constexpr size_t kFileBytesMax = size_t{1} << 28;
constexpr uint64_t kCountMax = 1 << 20;  // Positions of a chunk, words of a vocabulary.

absl::StatusOr<uint32_t> ReadCount(const element& root, const char* name) {
  uint64_t value = 0;
  if (root[name].get(value) != simdjson::SUCCESS || value == 0 || value > kCountMax) {
    return InvalidArgument("{} is no number from 1 to {}", name, kCountMax);
  }
  return static_cast<uint32_t>(value);
}

absl::StatusOr<std::vector<TokenId>> ReadChunk(const element& chunk, const ScoredText& text) {
  simdjson::dom::array ids;
  if (chunk.get(ids) != simdjson::SUCCESS) {
    return InvalidArgument("a chunk is no array");
  }
  std::vector<TokenId> tokens;
  for (const element id : ids) {
    uint64_t value = 0;
    if (id.get(value) != simdjson::SUCCESS || value >= text.vocab_size) {
      return InvalidArgument("a token is no number below {}", text.vocab_size);
    }
    tokens.push_back(static_cast<TokenId>(value));
  }
  if (tokens.size() < text.scored_end()) {
    return InvalidArgument("a chunk has {} tokens, {} are scored", tokens.size(),
                           text.scored_end());
  }
  tokens.resize(text.scored_end());
  return tokens;
}

absl::StatusOr<ScoredText> Parse(const std::string& json) {
  simdjson::dom::parser parser;
  element root;
  simdjson::dom::array chunks;
  if (parser.parse(json).get(root) != simdjson::SUCCESS ||
      root["chunks"].get(chunks) != simdjson::SUCCESS) {
    return InvalidArgument("no JSON object with chunks");
  }
  ScoredText text;
  SY_ASSIGN_OR_RETURN(text.scored_from, ReadCount(root, "scored_from"));
  SY_ASSIGN_OR_RETURN(text.scored_count, ReadCount(root, "scored_count"));
  SY_ASSIGN_OR_RETURN(text.vocab_size, ReadCount(root, "vocab_size"));
  for (const element chunk : chunks) {
    SY_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, ReadChunk(chunk, text));
    text.chunks.push_back(std::move(tokens));
  }
  return text;
}

}  // namespace

absl::StatusOr<ScoredText> ReadScoredText(const std::string& path) {
  SY_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kFileBytesMax));
  absl::StatusOr<ScoredText> text = Parse(json);
  if (!text.ok()) {
    return Annotate(text.status(), path);
  }
  return text;
}

}  // namespace switchyard
