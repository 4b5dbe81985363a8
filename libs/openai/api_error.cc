#include "libs/openai/api_error.h"

#include <spdlog/fmt/fmt.h>

#include "libs/base/status.h"
#include "libs/openai/json_writer.h"

namespace switchyard {
namespace {

constexpr const char* kInvalidRequest = "invalid_request_error";
constexpr const char* kUnavailable = "service_unavailable_error";

ApiError BadRequest(std::string code, std::string param, std::string message) {
  return {.http_status = 400,
          .type = kInvalidRequest,
          .code = std::move(code),
          .param = std::move(param),
          .message = std::move(message)};
}

}  // namespace

ApiError InvalidValue(std::string param, std::string message) {
  return BadRequest("invalid_value", std::move(param), std::move(message));
}

ApiError UnsupportedParameter(std::string param, std::string message) {
  return BadRequest("unsupported_parameter", std::move(param), std::move(message));
}

ApiError InvalidJson(std::string message) {
  return BadRequest("invalid_json", "", std::move(message));
}

ApiError ContextLengthExceeded(std::string message) {
  return BadRequest("context_length_exceeded", "messages", std::move(message));
}

ApiError InvalidApiKey() {
  return {.http_status = 401,
          .type = "authentication_error",
          .code = "invalid_api_key",
          .param = "",
          .message = "missing or unknown API key"};
}

ApiError ModelNotFound(std::string_view served) {
  return {.http_status = 404,
          .type = kInvalidRequest,
          .code = "model_not_found",
          .param = "model",
          .message = fmt::format("no such model; served here: {}", served)};
}

ApiError RouteNotFound() {
  return {.http_status = 404,
          .type = kInvalidRequest,
          .code = "not_found",
          .param = "",
          .message = "no such route"};
}

ApiError MethodNotAllowed() {
  return {.http_status = 405,
          .type = kInvalidRequest,
          .code = "method_not_allowed",
          .param = "",
          .message = "this route does not serve the method"};
}

ApiError RequestTooLarge(size_t bytes_max) {
  return {.http_status = 413,
          .type = kInvalidRequest,
          .code = "request_too_large",
          .param = "",
          .message = fmt::format("the body exceeds {} bytes", bytes_max)};
}

ApiError RateLimited(std::string code, std::string message) {
  return {.http_status = 429,
          .type = "rate_limit_error",
          .code = std::move(code),
          .param = "",
          .message = std::move(message)};
}

ApiError ServiceUnavailable(std::string code, std::string message) {
  return {.http_status = 503,
          .type = kUnavailable,
          .code = std::move(code),
          .param = "",
          .message = std::move(message)};
}

ApiError ApiErrorFromStatus(const absl::Status& status) {
  const auto answer = [&status](int http_status, const char* type, const char* code) {
    return ApiError{.http_status = http_status,
                    .type = type,
                    .code = code,
                    .param = "",
                    .message = MessageOf(status)};
  };
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return answer(400, kInvalidRequest, "invalid_value");
    case absl::StatusCode::kUnauthenticated:
      return answer(401, "authentication_error", "invalid_api_key");
    case absl::StatusCode::kPermissionDenied:
      return answer(403, "authentication_error", "permission_denied");
    case absl::StatusCode::kNotFound:
      return answer(404, kInvalidRequest, "not_found");
    case absl::StatusCode::kResourceExhausted:
      return answer(429, "rate_limit_error", "rate_limit_exceeded");
    case absl::StatusCode::kUnavailable:
      return answer(503, kUnavailable, "unavailable");
    case absl::StatusCode::kDeadlineExceeded:
      return answer(504, "server_error", "timeout");
    default:
      return {.http_status = 500,
              .type = "server_error",
              .code = "internal",
              .param = "",
              .message = "internal error"};
  }
}

std::string ErrorJson(const ApiError& error) {
  JsonWriter json;
  json.Raw("{\"error\":{\"message\":").String(error.message);
  json.Raw(",\"type\":").String(error.type).Raw(",\"param\":");
  if (error.param.empty()) {
    json.Raw("null");
  } else {
    json.String(error.param);
  }
  json.Raw(",\"code\":").String(error.code).Raw("}}");
  return json.Take();
}

}  // namespace switchyard
