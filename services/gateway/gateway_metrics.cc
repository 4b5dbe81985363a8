#include "services/gateway/gateway_metrics.h"

#include <utility>
#include <vector>

namespace switchyard {
namespace {

const std::vector<double>& InterTokenSecondsBuckets() {
  static const std::vector<double> buckets = {0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05,
                                              0.075, 0.1,   0.15, 0.2,   0.3,  0.5,  1,    2.5};
  return buckets;
}

const std::vector<double>& FirstTokenSecondsBuckets() {
  static const std::vector<double> buckets = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75,
                                              1,     2.5,  5,     7.5,  10,  20,   40,  80};
  return buckets;
}

}  // namespace

GatewayMetrics::GatewayMetrics(Registry& registry_in, std::string model_name_in)
    : registry(registry_in),
      model_name(std::move(model_name_in)),
      requests_running(registry.MakeGauge("switchyard_requests_running",
                                          "Choices admitted and not finished.",
                                          {{"model_name", model_name}})),
      streams_open(registry.MakeGauge("switchyard_streams_open",
                                      "Responses that are being streamed.",
                                      {{"model_name", model_name}})),
      routers_ready(registry.MakeGauge("switchyard_gateway_routers_ready",
                                       "Routers that can take requests.")),
      request_duration_seconds(registry.MakeHistogram(
          "switchyard_request_duration_seconds", "From the request's arrival to its end.",
          RequestSecondsBuckets(), {{"model_name", model_name}})),
      time_to_first_token_seconds(
          registry.MakeHistogram("switchyard_time_to_first_token_seconds",
                                 "From the request's arrival to its first token.",
                                 FirstTokenSecondsBuckets(), {{"model_name", model_name}})),
      inter_token_latency_seconds(registry.MakeHistogram(
          "switchyard_inter_token_latency_seconds", "Between tokens of one choice.",
          InterTokenSecondsBuckets(), {{"model_name", model_name}})),
      queue_seconds(registry.MakeHistogram("switchyard_queue_seconds",
                                           "Waited in the router before the first step.",
                                           RequestSecondsBuckets(), {{"model_name", model_name}})),
      prompt_tokens(registry.MakeCounter("switchyard_prompt_tokens_total", "Tokens of prompts.",
                                         {{"model_name", model_name}})),
      generation_tokens(registry.MakeCounter("switchyard_generation_tokens_total",
                                             "Tokens generated.", {{"model_name", model_name}})),
      cached_prompt_tokens(registry.MakeCounter("switchyard_cached_prompt_tokens_total",
                                                "Tokens of prompts served from cache.",
                                                {{"model_name", model_name}})),
      cancelled(registry.MakeCounter("switchyard_cancelled_total",
                                     "Requests whose client went away.",
                                     {{"model_name", model_name}})),
      resumed(registry.MakeCounter("switchyard_gateway_resumed_total",
                                   "Choices that went on at another router.")),
      unknown_fields(registry.MakeCounter("switchyard_gateway_unknown_fields_total",
                                          "Request fields that nothing here knows.")) {}

void GatewayMetrics::CountRequest(const std::string& route, int code) {
  registry
      .MakeCounter("switchyard_requests_total", "Requests answered.",
                   {{"route", route}, {"code", std::to_string(code)}, {"model_name", model_name}})
      .Add();
}

void GatewayMetrics::CountRejection(const std::string& reason) {
  registry
      .MakeCounter("switchyard_requests_rejected_total", "Requests refused before any work.",
                   {{"reason", reason}, {"model_name", model_name}})
      .Add();
}

void GatewayMetrics::CountFinish(const std::string& finish_reason) {
  registry
      .MakeCounter("switchyard_choices_finished_total", "Choices that ended, by why.",
                   {{"finish_reason", finish_reason}, {"model_name", model_name}})
      .Add();
}

}  // namespace switchyard
