#include "libs/openai/internal/field_reader.h"

#include <algorithm>
#include <limits>

#include <spdlog/fmt/fmt.h>

namespace switchyard::internal {
namespace {

constexpr size_t kNameBytesKept = 64;

// True for null, false, 0, "", [] and {}.
bool SaysNothing(const simdjson::dom::element& element) {
  switch (element.type()) {
    case simdjson::dom::element_type::NULL_VALUE:
      return true;
    case simdjson::dom::element_type::BOOL:
      return !element.get_bool().value_unsafe();
    case simdjson::dom::element_type::INT64:
      return element.get_int64().value_unsafe() == 0;
    case simdjson::dom::element_type::STRING:
      return element.get_string().value_unsafe().empty();
    case simdjson::dom::element_type::ARRAY:
      return element.get_array().value_unsafe().size() == 0;
    case simdjson::dom::element_type::OBJECT:
      return element.get_object().value_unsafe().size() == 0;
    default:
      return false;
  }
}

}  // namespace

std::optional<simdjson::dom::element> FieldReader::Find(std::string_view name) {
  Ignore(name);
  simdjson::dom::element element;
  if (object_.at_key(name).get(element) != simdjson::SUCCESS || element.is_null()) {
    return std::nullopt;
  }
  return element;
}

bool FieldReader::Bool(std::string_view name, bool* out) {
  const auto element = Find(name);
  if (element && element->get(*out) != simdjson::SUCCESS) {
    return FailValue(name, "must be true or false");
  }
  return true;
}

bool FieldReader::Int(std::string_view name, Range<int64_t> range, int64_t* out) {
  const auto element = Find(name);
  if (!element) {
    return true;
  }
  int64_t value = 0;
  if (!element->is_number() || element->type() == simdjson::dom::element_type::DOUBLE) {
    return FailValue(name, "must be an integer");
  }
  if (element->get(value) != simdjson::SUCCESS || value < range.min || value > range.max) {
    return FailValue(name, fmt::format("must be between {} and {}", range.min, range.max));
  }
  *out = value;
  return true;
}

bool FieldReader::Int(std::string_view name, Range<int64_t> range, std::optional<int64_t>* out) {
  int64_t value = 0;
  if (!Int(name, range, &value)) {
    return false;
  }
  if (Find(name)) {
    *out = value;
  }
  return true;
}

bool FieldReader::Number(std::string_view name, Range<double> range, double* out) {
  const auto element = Find(name);
  if (!element) {
    return true;
  }
  double value = 0;
  if (!element->is_number() || element->get(value) != simdjson::SUCCESS) {
    return FailValue(name, "must be a number");
  }
  if (!(value >= range.min && value <= range.max)) {
    return FailValue(name, fmt::format("must be between {} and {}", range.min, range.max));
  }
  *out = value;
  return true;
}

bool FieldReader::Number(std::string_view name, Range<double> range, std::optional<double>* out) {
  double value = 0;
  if (!Number(name, range, &value)) {
    return false;
  }
  if (Find(name)) {
    *out = value;
  }
  return true;
}

bool FieldReader::String(std::string_view name, size_t bytes_max, std::string* out) {
  const auto element = Find(name);
  if (!element) {
    return true;
  }
  std::string_view value;
  if (element->get(value) != simdjson::SUCCESS) {
    return FailValue(name, "must be a string");
  }
  if (value.size() > bytes_max) {
    return FailValue(name, fmt::format("is longer than {} bytes", bytes_max));
  }
  *out = std::string(value);
  return true;
}

bool FieldReader::TokenIds(std::string_view name, size_t count_max, const ParseLimits& limits,
                           std::vector<uint32_t>* out) {
  const auto element = Find(name);
  if (!element) {
    return true;
  }
  simdjson::dom::array list;
  if (element->get(list) != simdjson::SUCCESS) {
    return FailValue(name, "must be a list of token ids");
  }
  ApiResult<std::vector<uint32_t>> ids = ReadTokenIds(list, PathOf(name), count_max, limits);
  if (!ids.ok()) {
    return Fail(ids.error());
  }
  *out = std::move(ids.value());
  return true;
}

bool FieldReader::RequireUnset(std::string_view name) {
  const auto element = Find(name);
  if (!element || SaysNothing(*element)) {
    return true;
  }
  return Fail(UnsupportedParameter(PathOf(name), fmt::format("{} is not supported", PathOf(name))));
}

void FieldReader::Ignore(std::string_view name) {
  if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
    known_.push_back(name);
  }
}

bool FieldReader::Fail(ApiError error) {
  error_ = std::move(error);
  return false;
}

bool FieldReader::FailValue(std::string_view name, std::string_view what) {
  return Fail(InvalidValue(PathOf(name), fmt::format("{} {}", PathOf(name), what)));
}

size_t FieldReader::CountUnknown(size_t names_max, std::vector<std::string>* names) const {
  size_t count = 0;
  for (const simdjson::dom::key_value_pair& member : object_) {
    if (std::find(known_.begin(), known_.end(), member.key) != known_.end()) {
      continue;
    }
    ++count;
    if (names->size() < names_max && member.key.size() <= kNameBytesKept) {
      names->emplace_back(member.key);
    }
  }
  return count;
}

ApiResult<std::vector<uint32_t>> ReadTokenIds(const simdjson::dom::array& list,
                                              const std::string& path, size_t count_max,
                                              const ParseLimits& limits) {
  const int64_t id_max = limits.vocab_size > 0 ? int64_t{limits.vocab_size} - 1
                                               : int64_t{std::numeric_limits<int32_t>::max()};
  std::vector<uint32_t> ids;
  for (const simdjson::dom::element element : list) {
    int64_t id = 0;
    if (ids.size() == count_max) {
      return InvalidValue(path, fmt::format("{} has more than {} token ids", path, count_max));
    }
    if (!element.is_int64() || element.get(id) != simdjson::SUCCESS || id < 0 || id > id_max) {
      const std::string at = fmt::format("{}[{}]", path, ids.size());
      return InvalidValue(at, fmt::format("{} must be a token id between 0 and {}", at, id_max));
    }
    ids.push_back(static_cast<uint32_t>(id));
  }
  return ids;
}

}  // namespace switchyard::internal
