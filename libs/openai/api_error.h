#ifndef SWITCHYARD_LIBS_OPENAI_API_ERROR_H_
#define SWITCHYARD_LIBS_OPENAI_API_ERROR_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/status/status.h"

namespace switchyard {

// ApiError is an answer that says no: an HTTP status and OpenAI's error object. A value, any
// thread.
//
// `message` and `param` carry field names and numbers, never a prompt's text.
struct ApiError {
  int http_status = 500;
  std::string type = "server_error";
  std::string code = "internal";
  std::string param;  // The field at fault; empty for null.
  std::string message;
};

// 400 about one field.
ApiError InvalidValue(std::string param, std::string message);
// 400: a field we know and do not serve.
ApiError UnsupportedParameter(std::string param, std::string message);
// 400: the body is not a request at all.
ApiError InvalidJson(std::string message);
// 400: prompt and answer do not fit.
ApiError ContextLengthExceeded(std::string message);
// 401.
ApiError InvalidApiKey();
// 404. The asked name is not repeated; `served` is the list to offer.
ApiError ModelNotFound(std::string_view served);
// 404 for a path we do not serve.
ApiError RouteNotFound();
// 405 for a path we serve with another method.
ApiError MethodNotAllowed();
// 413.
ApiError RequestTooLarge(size_t bytes_max);
// 429; `code` is rate_limit_exceeded, queue_full or queue_timeout.
ApiError RateLimited(std::string code, std::string message);
// 503; `code` is model_loading, expert_unavailable or draining.
ApiError ServiceUnavailable(std::string code, std::string message);

// A status as an answer: InvalidArgument 400, Unauthenticated 401, PermissionDenied 403, NotFound
// 404, ResourceExhausted 429, Unavailable 503, DeadlineExceeded 504, any other 500. The message of
// a 500 stays here: it is about us and may name internals.
ApiError ApiErrorFromStatus(const absl::Status& status);

// {"error":{"message":...,"type":...,"param":...,"code":...}}
std::string ErrorJson(const ApiError& error);

// ApiResult holds a T or the ApiError that stands in for it. value() only when ok().
template <typename T>
class ApiResult {
 public:
  ApiResult(T value) : held_(std::move(value)) {}  // NOLINT(google-explicit-constructor)

  ApiResult(ApiError error) : held_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return std::holds_alternative<T>(held_); }

  T& value() { return std::get<T>(held_); }

  const T& value() const { return std::get<T>(held_); }

  const ApiError& error() const { return std::get<ApiError>(held_); }

 private:
  std::variant<T, ApiError> held_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_OPENAI_API_ERROR_H_
