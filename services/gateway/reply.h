#ifndef SWITCHYARD_SERVICES_GATEWAY_REPLY_H_
#define SWITCHYARD_SERVICES_GATEWAY_REPLY_H_

#include <string>
#include <utility>

#include "libs/http/http_server.h"
#include "libs/openai/api_error.h"
#include "services/gateway/gateway_metrics.h"

namespace switchyard {

// Reply is where a request's answer goes: the writer, and what every answer of the API carries or
// counts. One owner; hand-over.
class Reply {
 public:
  Reply(ResponseWriter writer, GatewayMetrics& metrics, std::string route, std::string request_id)
      : writer_(std::move(writer)),
        metrics_(metrics),
        route_(std::move(route)),
        request_id_(std::move(request_id)) {}

  void Json(int status, std::string body);
  void Text(int status, std::string body);
  // With Retry-After, WWW-Authenticate or Allow where the error asks for it.
  void Error(const ApiError& error, HttpHeaders headers = {});
  void StartEvents();

  // Counts a stream that ended; `code` is 200, the error it ended with, or 499 for a client that
  // left.
  void CountEnd(int code) { metrics_.CountRequest(route_, code); }

  ResponseWriter& writer() { return writer_; }

  const std::string& request_id() const { return request_id_; }

 private:
  void Send(HttpResponse response);

  ResponseWriter writer_;
  GatewayMetrics& metrics_;
  std::string route_;
  std::string request_id_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_REPLY_H_
