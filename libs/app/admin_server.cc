#include "libs/app/admin_server.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "libs/base/status.h"

namespace switchyard {

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(
    const std::string& address, Registry& registry, const Health& health,
    std::function<std::string()> status_json) {
  std::unique_ptr<AdminServer> admin(
      new AdminServer(address, registry, health, std::move(status_json)));
  if (absl::Status started = admin->server_.Start(); !started.ok()) {
    return Annotate(started, "admin server");
  }
  return admin;
}

AdminServer::AdminServer(const std::string& address, Registry& registry, const Health& health,
                         std::function<std::string()> status_json)
    : registry_(registry),
      health_(health),
      status_json_(std::move(status_json)),
      process_metrics_(registry),
      server_({.name = "admin", .address = address, .connections_max = 64, .body_bytes_max = 4096},
              registry, [this](const HttpRequest& request, ResponseWriter writer) {
                writer.Respond(Answer(request));
              }) {}

AdminServer::~AdminServer() { server_.Stop(Duration(0)); }

const std::string& AdminServer::address() const { return server_.address(); }

HttpResponse AdminServer::Answer(const HttpRequest& request) {
  if (request.method != "GET" && request.method != "HEAD") {
    return HttpResponse::Text(405, "only GET\n");
  }
  if (request.path == "/metrics") {
    absl::MutexLock lock(&mutex_);
    process_metrics_.Update();
    HttpResponse response = HttpResponse::Text(200, registry_.Render());
    response.headers = {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}};
    return response;
  }
  if (request.path == "/live") {
    return HttpResponse::Text(200, "live\n");
  }
  if (request.path == "/ready") {
    const absl::Status ready = health_.ready();
    return ready.ok() ? HttpResponse::Text(200, "ready\n")
                      : HttpResponse::Text(503, "not ready: " + MessageOf(ready) + "\n");
  }
  if (request.path == "/status") {
    return HttpResponse::Json(200, status_json_ ? status_json_() : "{}");
  }
  return HttpResponse::Text(404, "one of /metrics /live /ready /status\n");
}

}  // namespace switchyard
