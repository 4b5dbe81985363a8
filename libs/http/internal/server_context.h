#ifndef SWITCHYARD_LIBS_HTTP_INTERNAL_SERVER_CONTEXT_H_
#define SWITCHYARD_LIBS_HTTP_INTERNAL_SERVER_CONTEXT_H_

#include <array>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"

#include "libs/http/http_server.h"
#include "libs/metrics/registry.h"

namespace switchyard::internal {

// What a server counts. Any thread; outlived by its registry.
struct HttpMetrics {
  HttpMetrics(Registry& registry, const std::string& name)
      : connections(registry.MakeGauge("switchyard_http_connections", "Open connections.",
                                       {{"server", name}})),
        connections_rejected(registry.MakeCounter("switchyard_http_connections_rejected_total",
                                                  "Connections over connections_max.",
                                                  {{"server", name}})) {
    for (const int code : kRefusals) {
      refused.push_back(registry.MakeCounter("switchyard_http_requests_refused_total",
                                             "Requests refused before a handler saw them.",
                                             {{"server", name}, {"code", std::to_string(code)}}));
    }
  }

  void CountRefusal(int status) {
    for (size_t i = 0; i < kRefusals.size(); ++i) {
      if (kRefusals[i] == status) {
        refused[i].Add();
      }
    }
  }

  static constexpr std::array kRefusals = {400, 408, 413, 414, 415, 417, 431, 505};
  Gauge connections;
  Counter connections_rejected;
  std::vector<Counter> refused;
};

// What all connections of a server share. Any thread; outlives them.
struct ServerContext {
  ServerContext(HttpServerOptions options_in, Registry& registry, HttpHandler handler_in)
      : options(std::move(options_in)),
        handler(std::move(handler_in)),
        metrics(registry, options.name) {}

  // False when there are connections_max already.
  bool AddConnection() {
    absl::MutexLock lock(&mutex);
    if (connection_count >= options.connections_max) {
      return false;
    }
    ++connection_count;
    return true;
  }

  void RemoveConnection() {
    absl::MutexLock lock(&mutex);
    --connection_count;
  }

  const HttpServerOptions options;
  const HttpHandler handler;
  HttpMetrics metrics;
  absl::Mutex mutex;
  size_t connection_count ABSL_GUARDED_BY(mutex) = 0;
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_HTTP_INTERNAL_SERVER_CONTEXT_H_
