#ifndef SWITCHYARD_LOADTEST_JSON_LINES_H_
#define SWITCHYARD_LOADTEST_JSON_LINES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

// JsonLine is one object of a JSONL file. Valid during the call that gives it; one owner.
// Errors name the member, never its value.
class JsonLine {
 public:
  virtual ~JsonLine() = default;

  // Empty when absent or null; InvalidArgument when not text. Whole numbers count as text, for ids.
  virtual absl::StatusOr<std::string> Text(const char* name) const = 0;
  // Absent or null: nothing. InvalidArgument when not a number.
  virtual absl::StatusOr<std::optional<double>> Number(const char* name) const = 0;
  // Absent or null: empty. InvalidArgument when not a list of whole numbers.
  virtual absl::StatusOr<std::vector<uint64_t>> Numbers(const char* name) const = 0;
};

// Calls `reader` for each line that is not empty and does not begin with #. The first error, as
// "line N: …", ends it.
absl::Status ForEachJsonLine(std::string_view text,
                             absl::FunctionRef<absl::Status(const JsonLine&)> reader);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_JSON_LINES_H_
