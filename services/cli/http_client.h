#ifndef SWITCHYARD_SERVICES_CLI_HTTP_CLIENT_H_
#define SWITCHYARD_SERVICES_CLI_HTTP_CLIENT_H_

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace switchyard {

struct HttpReply {
  long status = 0;
  std::string body;
};

// Blocking HTTP calls of the command line, over libcurl. Any thread. Unavailable when there is no
// answer; an HTTP error status is a reply.
absl::StatusOr<HttpReply> HttpGet(const std::string& url, long timeout_ms);

struct HttpPostOptions {
  std::string url;
  std::string json_body;
  std::string api_key;  // Empty: none.
  // Called with each piece of the body as it arrives; false ends the call. Then `body` stays empty.
  std::function<bool(std::string_view)> on_piece;
};

absl::StatusOr<HttpReply> HttpPost(const HttpPostOptions& options);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_HTTP_CLIENT_H_
