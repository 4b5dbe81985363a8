#ifndef SWITCHYARD_LIBS_TEXT_INTERNAL_CONFIG_JSON_H_
#define SWITCHYARD_LIBS_TEXT_INTERNAL_CONFIG_JSON_H_

#include <optional>
#include <string>
#include <string_view>

#include <boost/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Reading a model's small JSON files. Stateless: any thread.

namespace switchyard::internal {

// InvalidArgument if `text` is not one JSON object.
absl::StatusOr<boost::json::object> ParseObject(std::string_view text);

// The text of a token member, which is a string or an object with "content"; nothing otherwise.
std::optional<std::string> TokenText(const boost::json::object& config, std::string_view name);

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_TEXT_INTERNAL_CONFIG_JSON_H_
