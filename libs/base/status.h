#ifndef SWITCHYARD_LIBS_BASE_STATUS_H_
#define SWITCHYARD_LIBS_BASE_STATUS_H_

#include <string>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Status constructors with fmt formatting (Debian's absl cannot StrCat a std::string_view), and the
// two propagation macros. What each code means is in the style guide: InvalidArgument is the
// caller's fault (HTTP 400), NotFound names nothing we have (404), ResourceExhausted a limit (429),
// Unavailable try another or later (503), FailedPrecondition a stale epoch or wrong state,
// DeadlineExceeded (504), DataLoss a checksum, Internal our bug.

namespace switchyard {

template <typename... Args>
absl::Status InvalidArgument(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InvalidArgumentError(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
absl::Status NotFound(fmt::format_string<Args...> format, Args&&... args) {
  return absl::NotFoundError(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
absl::Status ResourceExhausted(fmt::format_string<Args...> format, Args&&... args) {
  return absl::ResourceExhaustedError(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
absl::Status Unavailable(fmt::format_string<Args...> format, Args&&... args) {
  return absl::UnavailableError(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
absl::Status FailedPrecondition(fmt::format_string<Args...> format, Args&&... args) {
  return absl::FailedPreconditionError(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
absl::Status DeadlineExceeded(fmt::format_string<Args...> format, Args&&... args) {
  return absl::DeadlineExceededError(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
absl::Status DataLoss(fmt::format_string<Args...> format, Args&&... args) {
  return absl::DataLossError(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
absl::Status Internal(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InternalError(fmt::format(format, std::forward<Args>(args)...));
}

// "context: message" with the code kept; an OK status stays OK.
absl::Status Annotate(const absl::Status& status, const std::string& context);

// The message as a std::string, for fmt and log (Debian's absl has its own string_view).
std::string MessageOf(const absl::Status& status);

}  // namespace switchyard

#define SY_RETURN_IF_ERROR(expression)                            \
  do {                                                            \
    if (absl::Status sy_status = (expression); !sy_status.ok()) { \
      return sy_status;                                           \
    }                                                             \
  } while (false)

#define SY_CONCAT_INNER(a, b) a##b
#define SY_CONCAT(a, b) SY_CONCAT_INNER(a, b)

// SY_ASSIGN_OR_RETURN(auto value, Fallible()); usable once per line.
#define SY_ASSIGN_OR_RETURN(lhs, expression) \
  SY_ASSIGN_OR_RETURN_INNER(SY_CONCAT(sy_status_or_, __LINE__), lhs, expression)
#define SY_ASSIGN_OR_RETURN_INNER(holder, lhs, expression) \
  auto holder = (expression);                              \
  if (!holder.ok()) {                                      \
    return std::move(holder).status();                     \
  }                                                        \
  lhs = *std::move(holder)

#endif  // SWITCHYARD_LIBS_BASE_STATUS_H_
