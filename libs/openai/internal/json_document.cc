#include "libs/openai/internal/json_document.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <spdlog/fmt/fmt.h>

namespace switchyard::internal {
namespace {

// The code unit of the four hex digits at the front of `text`; 0 where there are none, which the
// JSON parser refuses later.
uint32_t CodeUnit(std::string_view text) {
  uint32_t unit = 0;
  if (text.size() >= 4) {
    std::from_chars(text.data(), text.data() + 4, unit, 16);
  }
  return unit;
}

// The parser of this simdjson version lets some unpaired \u surrogates through.
bool HasLoneSurrogate(std::string_view body) {
  for (size_t at = body.find('\\'); at != std::string_view::npos; at = body.find('\\', at)) {
    if (body.substr(at).size() < 2 || body[at + 1] != 'u') {
      at += 2;
      continue;
    }
    const uint32_t unit = CodeUnit(body.substr(at + 2));
    at = std::min(at + 6, body.size());
    if (unit >= 0xdc00 && unit <= 0xdfff) {
      return true;
    }
    if (unit < 0xd800 || unit > 0xdbff) {
      continue;
    }
    const std::string_view next = body.substr(at);
    const uint32_t low = next.starts_with("\\u") ? CodeUnit(next.substr(2)) : 0;
    if (low < 0xdc00 || low > 0xdfff) {
      return true;
    }
    at += 6;
  }
  return false;
}

bool HasDuplicate(const simdjson::dom::object& object) {
  std::vector<std::string_view> names;
  for (const simdjson::dom::key_value_pair& member : object) {
    names.push_back(member.key);
  }
  std::sort(names.begin(), names.end());
  return std::adjacent_find(names.begin(), names.end()) != names.end();
}

// The parser has bounded the depth of the recursion.
bool HasDuplicateInside(const simdjson::dom::element& element) {
  simdjson::dom::array array;
  if (element.get(array) == simdjson::SUCCESS) {
    return std::any_of(array.begin(), array.end(), HasDuplicateInside);
  }
  simdjson::dom::object object;
  if (element.get(object) != simdjson::SUCCESS) {
    return false;
  }
  if (HasDuplicate(object)) {
    return true;
  }
  return std::any_of(object.begin(), object.end(), [](const simdjson::dom::key_value_pair& member) {
    return HasDuplicateInside(member.value);
  });
}

ApiError ParseError(simdjson::error_code code, const ParseLimits& limits) {
  switch (code) {
    case simdjson::DEPTH_ERROR:
      return InvalidJson(fmt::format("the body nests deeper than {}", limits.depth_max));
    case simdjson::UTF8_ERROR:
      return InvalidJson("the body is not UTF-8");
    case simdjson::NUMBER_ERROR:
      return InvalidJson("the body holds a number that is malformed or out of range");
    case simdjson::EMPTY:
      return InvalidJson("the body is empty");
    default:
      return InvalidJson("the body is not JSON");
  }
}

}  // namespace

std::optional<ApiError> JsonDocument::Parse(std::string_view body, const ParseLimits& limits) {
  if (body.size() > limits.body_bytes_max) {
    return RequestTooLarge(limits.body_bytes_max);
  }
  if (body.empty()) {
    return InvalidJson("the body is empty");
  }
  if (parser_.allocate(body.size(), limits.depth_max) != simdjson::SUCCESS) {
    return RequestTooLarge(limits.body_bytes_max);
  }
  simdjson::dom::element element;
  // The parser reads past the end of what it is given, so it copies the body into a padded buffer.
  const simdjson::error_code code =
      parser_.parse(body.data(), body.size(), /*realloc_if_needed=*/true).get(element);
  if (code != simdjson::SUCCESS) {
    return ParseError(code, limits);
  }
  if (element.get(root_) != simdjson::SUCCESS) {
    return InvalidJson("the body is not a JSON object");
  }
  if (HasLoneSurrogate(body)) {
    return InvalidJson("the body holds half of a surrogate pair");
  }
  if (root_.size() > limits.members_max) {
    return InvalidJson(
        fmt::format("the body has {} members, more than {}", root_.size(), limits.members_max));
  }
  if (HasDuplicateInside(element)) {
    return InvalidJson("the body names a member twice");
  }
  return std::nullopt;
}

}  // namespace switchyard::internal
