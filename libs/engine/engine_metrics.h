#ifndef SWITCHYARD_LIBS_ENGINE_ENGINE_METRICS_H_
#define SWITCHYARD_LIBS_ENGINE_ENGINE_METRICS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "libs/base/clock.h"
#include "libs/metrics/registry.h"

namespace switchyard {

// Where the time of a step goes.
enum class Stage : uint8_t {
  kSchedule,  // Planning, laying rows out, committing.
  kEmbed,
  kAttention,  // Norms, MLA, residual.
  kGate,
  kDispatch,  // Rows to frames, frames to the transport.
  kShared,    // Shared expert, while routed ones run elsewhere.
  kWait,      // For rows of shards.
  kCombine,
  kDense,
  kHead,
  kSampling,
  kEvents,  // Handing tokens to the streams.
};
inline constexpr size_t kStageCount = 12;

// EngineMetrics lists what the engine counts. Any thread; outlived by its registry.
struct EngineMetrics {
  explicit EngineMetrics(Registry& registry);

  std::array<Histogram, kStageCount> stage_seconds;  // One observation per step and stage.
  Histogram prefill_step_seconds;                    // Steps with some prefill.
  Histogram decode_step_seconds;                     // Steps of decodes only.
  Histogram step_tokens;
  Histogram queue_seconds;
  Gauge requests_running;
  Gauge requests_waiting;
  Gauge kv_cache_usage_ratio;
  Counter prefix_cache_queries_tokens;
  Counter prefix_cache_hits_tokens;
  Counter prefix_cache_evicted_blocks;
  Gauge prefix_cache_blocks;
  Counter preemptions;
  Counter cancelled;
  Counter prompt_tokens;
  Counter generation_tokens;
  Counter rejected;  // By a limit: mailbox, waiting requests.
  Counter failed_steps;
};

// StageTimes sums the time of one step by stage.
//
// One owner: the step thread.
class StageTimes {
 public:
  void Add(Stage stage, Duration duration) { sums_[static_cast<size_t>(stage)] += duration; }

  // Observes each stage that took time, and starts again from zero.
  void ObserveAndReset(EngineMetrics& metrics);

 private:
  std::array<Duration, kStageCount> sums_{};
};

// StageTimer adds the time of its own life to a stage.
class StageTimer {
 public:
  StageTimer(const Clock& clock, StageTimes& times, Stage stage)
      : clock_(clock), times_(times), stage_(stage), started_(clock.Now()) {}

  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

  ~StageTimer() { times_.Add(stage_, clock_.Now() - started_); }

 private:
  const Clock& clock_;
  StageTimes& times_;
  const Stage stage_;
  const Instant started_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ENGINE_ENGINE_METRICS_H_
