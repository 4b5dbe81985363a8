#include "services/gateway/reply.h"

#include "libs/openai/response.h"

namespace switchyard {

void Reply::Send(HttpResponse response) {
  response.headers.emplace_back("x-request-id", request_id_);
  metrics_.CountRequest(route_, response.status);
  writer_.Respond(std::move(response));
}

void Reply::Json(int status, std::string body) {
  Send(HttpResponse::Json(status, std::move(body)));
}

void Reply::Text(int status, std::string body) {
  Send(HttpResponse::Text(status, std::move(body)));
}

void Reply::Error(const ApiError& error, HttpHeaders headers) {
  HttpResponse response = HttpResponse::Json(error.http_status, ErrorJson(error));
  for (auto& header : headers) {
    response.headers.push_back(std::move(header));
  }
  if (error.http_status == 429 || error.http_status == 503) {
    response.headers.emplace_back("Retry-After", "1");
  } else if (error.http_status == 401) {
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
  }
  Send(std::move(response));
}

void Reply::StartEvents() {
  writer_.StartStream({.status = 200,
                       .headers = {{"Content-Type", "text/event-stream; charset=utf-8"},
                                   {"Cache-Control", "no-cache"},
                                   {"X-Accel-Buffering", "no"},
                                   {"x-request-id", request_id_}},
                       .body = ""},
                      {.bytes = std::string(kSsePing)});
}

}  // namespace switchyard
