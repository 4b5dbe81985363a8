#include "libs/text/internal/config_json.h"

#include <utility>

#include "libs/base/status.h"

namespace switchyard::internal {

absl::StatusOr<boost::json::object> ParseObject(std::string_view text) {
  boost::json::error_code error;
  boost::json::value value = boost::json::parse({text.data(), text.size()}, error);
  if (error) {
    return InvalidArgument("not JSON: {}", error.message());
  }
  if (!value.is_object()) {
    return InvalidArgument("not a JSON object");
  }
  return std::move(value.as_object());
}

std::optional<std::string> TokenText(const boost::json::object& config, std::string_view name) {
  const boost::json::value* value = config.if_contains({name.data(), name.size()});
  if (value != nullptr && value->is_object()) {
    value = value->as_object().if_contains("content");
  }
  if (value == nullptr || !value->is_string()) {
    return std::nullopt;
  }
  return std::string(value->as_string());
}

}  // namespace switchyard::internal
