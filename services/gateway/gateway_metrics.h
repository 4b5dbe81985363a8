#ifndef SWITCHYARD_SERVICES_GATEWAY_GATEWAY_METRICS_H_
#define SWITCHYARD_SERVICES_GATEWAY_GATEWAY_METRICS_H_

#include <string>

#include "libs/metrics/registry.h"

namespace switchyard {

// What the gateway counts; the list of the ecosystem's names that are known here. Any thread. The
// registry outlives it.
struct GatewayMetrics {
  GatewayMetrics(Registry& registry_in, std::string model_name_in);

  // `route` is one of the served paths, or "unknown".
  void CountRequest(const std::string& route, int code);
  // `reason` is a word of ours: "queue_full", "no_router", "draining", "unauthorized".
  void CountRejection(const std::string& reason);
  void CountFinish(const std::string& finish_reason);

  Registry& registry;
  const std::string model_name;
  Gauge requests_running;
  Gauge streams_open;
  Gauge routers_ready;
  Histogram request_duration_seconds;
  Histogram time_to_first_token_seconds;
  Histogram inter_token_latency_seconds;
  Histogram queue_seconds;
  Counter prompt_tokens;
  Counter generation_tokens;
  Counter cached_prompt_tokens;
  Counter cancelled;
  Counter resumed;
  Counter unknown_fields;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_GATEWAY_METRICS_H_
