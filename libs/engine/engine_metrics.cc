#include "libs/engine/engine_metrics.h"

#include <string>
#include <vector>

namespace switchyard {
namespace {

constexpr std::array<const char*, kStageCount> kStageNames = {
    "schedule", "embed",   "attention", "gate", "dispatch", "shared",
    "wait",     "combine", "dense",     "head", "sampling", "events"};

Histogram MakeStepHistogram(Registry& registry, const std::string& phase) {
  return registry.MakeHistogram(
      "switchyard_step_duration_seconds",
      "Time of one router step; a step with any prefill is a prefill step", StageSecondsBuckets(),
      {{"phase", phase}});
}

}  // namespace

EngineMetrics::EngineMetrics(Registry& registry)
    : prefill_step_seconds(MakeStepHistogram(registry, "prefill")),
      decode_step_seconds(MakeStepHistogram(registry, "decode")),
      step_tokens(registry.MakeHistogram("switchyard_step_tokens", "Rows computed by one step",
                                         {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096})),
      queue_seconds(registry.MakeHistogram("switchyard_queue_seconds",
                                           "Time from a request's arrival to its first step",
                                           RequestSecondsBuckets())),
      requests_running(
          registry.MakeGauge("switchyard_requests_running", "Requests that hold cache blocks")),
      requests_waiting(registry.MakeGauge("switchyard_requests_waiting",
                                          "Requests not yet started, or preempted")),
      kv_cache_usage_ratio(
          registry.MakeGauge("switchyard_kv_cache_usage_ratio",
                             "Cache blocks that requests hold, of all; cached ones that no request "
                             "holds count as free")),
      prefix_cache_queries_tokens(registry.MakeCounter(
          "switchyard_prefix_cache_queries_tokens_total",
          "Tokens of requests looked up in the prefix cache, again after a preemption")),
      prefix_cache_hits_tokens(
          registry.MakeCounter("switchyard_prefix_cache_hits_tokens_total",
                               "Tokens found in the prefix cache and so not computed")),
      prefix_cache_evicted_blocks(
          registry.MakeCounter("switchyard_prefix_cache_evicted_blocks_total",
                               "Cached blocks given up because requests needed the room")),
      prefix_cache_blocks(registry.MakeGauge("switchyard_prefix_cache_blocks",
                                             "Full blocks that the prefix cache knows")),
      preemptions(registry.MakeCounter("switchyard_preemptions_total",
                                       "Sequences that lost their cache blocks to others")),
      cancelled(
          registry.MakeCounter("switchyard_cancelled_total", "Requests cancelled by their caller")),
      prompt_tokens(registry.MakeCounter("switchyard_prompt_tokens_total",
                                         "Prompt tokens of requests whose prompt was computed")),
      generation_tokens(
          registry.MakeCounter("switchyard_generation_tokens_total", "Tokens generated")),
      rejected(registry.MakeCounter("switchyard_engine_rejected_total",
                                    "Requests refused because too many wait")),
      failed_steps(registry.MakeCounter("switchyard_engine_failed_steps_total",
                                        "Steps that ended because experts did not answer")) {
  for (size_t i = 0; i < kStageCount; ++i) {
    stage_seconds[i] = registry.MakeHistogram("switchyard_moe_stage_seconds",
                                              "Time of one router step, by what it went to",
                                              StageSecondsBuckets(), {{"stage", kStageNames[i]}});
  }
}

void StageTimes::ObserveAndReset(EngineMetrics& metrics) {
  for (size_t i = 0; i < kStageCount; ++i) {
    if (sums_[i] > Duration::zero()) {
      metrics.stage_seconds[i].Observe(ToSeconds(sums_[i]));
    }
    sums_[i] = Duration::zero();
  }
}

}  // namespace switchyard
