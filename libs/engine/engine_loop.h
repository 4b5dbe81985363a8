#ifndef SWITCHYARD_LIBS_ENGINE_ENGINE_LOOP_H_
#define SWITCHYARD_LIBS_ENGINE_ENGINE_LOOP_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/base/mutex.h"
#include "libs/base/snapshot.h"
#include "libs/dispatch/dispatcher.h"
#include "libs/engine/engine_metrics.h"
#include "libs/engine/generation.h"
#include "libs/engine/mailbox.h"
#include "libs/engine/micro_batch.h"
#include "libs/engine/step.h"
#include "libs/kernels/kernels.h"
#include "libs/kvcache/block_pool.h"
#include "libs/kvcache/kv_storage.h"
#include "libs/model/checkpoint.h"
#include "libs/model/mla_attention.h"
#include "libs/model/model_spec.h"
#include "libs/placement/route_table.h"
#include "libs/scheduler/scheduler.h"
#include "libs/tensor/dtype.h"

namespace switchyard {

struct EngineOptions {
  SchedulerLimits scheduler{};  // waiting_max + sequences_max bound all requests.
  SplitPolicy split{};
  uint32_t cache_blocks = 1024;
  Dtype cache_dtype = Dtype::kBf16;
  Duration unready_wait_max = std::chrono::seconds(5);  // Without routes, before requests fail.
  LogitsConsumer logits_observer{};                     // Tests: sees every position's logits.
  ForcedExperts forced_experts{};                       // Tests: replaces the gate's choice.
  // On the step thread, when the experts can all be reached, or no longer can; only posts.
  std::function<void(const absl::Status& ready)> on_ready_changed{};
};

// The model an engine runs and what it computes with; all of it outlives the engine.
struct EngineModel {
  const ModelSpec& spec;
  const RouterWeights& weights;
  const Kernels& kernels;
  ComputePool& pool;
};

// What a status page shows.
struct EngineStatus {
  absl::Status ready;
  EpochId epoch;  // 0 while there is no placement.
  uint32_t running = 0;
  uint32_t waiting = 0;
  uint32_t free_blocks = 0;  // Those that no request holds, cached ones among them.
  uint32_t total_blocks = 0;
};

// EngineLoop runs the requests of one router, step by step.
//
// Owner: the step thread, which also owns `dispatcher` and calls `sink`. Other threads may call
// Post(), Cancel(), SetRoutes(), Stop(), status() and live_count().
class EngineLoop {
 public:
  EngineLoop(EngineOptions options, EngineModel model, Dispatcher& dispatcher, const Clock& clock,
             EngineMetrics& metrics, EventSink& sink);
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;
  ~EngineLoop();

  // OK: exactly one OnFinished will follow. InvalidArgument, or ResourceExhausted at a limit.
  absl::Status Post(GenerationRequest request);

  // Ends a request within one step, with OnFinished(Cancelled); no tokens follow once that came.
  void Cancel(RequestId id);

  // Steps planned from now on use these routes.
  void SetRoutes(std::shared_ptr<const RouteTable> routes);

  // One step. False when there was nothing to do.
  bool RunOnce(Instant now);

  // RunOnce() until Stop(), asleep in between; then ends what is open with Unavailable.
  void Run();
  void Stop();

  // As of the last RunOnce().
  EngineStatus status() const;

  // Accepted and not yet finished.
  size_t live_count() const { return mailbox_.live_count(); }

  // Prompt plus generated tokens of one request at most.
  uint32_t context_tokens_max() const { return bounds_.context_tokens_max; }

  // Gives up the blocks of a running request; what is not cached then is recomputed. Step thread;
  // for tests.
  bool Preempt(RequestId id) { return scheduler_.Preempt(id); }

 private:
  // One accepted request.
  struct Generation {
    GenerationRequest request;   // Without its tokens, which the scheduler holds.
    uint32_t prompt_scored = 1;  // Prompt positions scored so far; position 0 has no score.
    bool started = false;
    bool prompt_counted = false;
    Instant arrived_at{};
    double queue_seconds = 0;
    GeneratedTokens pending;  // Of this step.
    std::optional<FinishReason> finished;
  };

  void AdoptRoutes();
  bool TakeMail(Instant now);
  void Accept(GenerationRequest request, Instant now);
  bool ExpireDeadlines(Instant now);
  bool CheckRoutes(Instant now);
  bool RunPlannedStep(Instant now);
  StepContext Context();
  void NoteStarts(Instant now);
  void OnLogits(const RowOrigin& row, std::span<const float> logits);
  void ScorePrompt(Generation& generation, const Sequence& sequence, uint32_t position,
                   std::span<const float> logits);
  void DrawToken(Generation& generation, const Sequence& sequence, std::span<const float> logits);
  std::optional<FinishReason> ReasonToFinish(const Generation& generation,
                                             const Sequence& sequence) const;
  void SendEvents();
  void FinishRequest(RequestId id, absl::Status status, FinishReason reason);
  void FinishAll(const absl::Status& status);
  Duration IdleWait() const;
  void CountPrefixCache();
  void PublishStatus();

  const EngineOptions options_;
  const EngineModel model_;
  Dispatcher& dispatcher_;
  const Clock& clock_;
  EngineMetrics& metrics_;
  EventSink& sink_;
  BlockPool blocks_;
  KvStorage cache_;
  MlaAttention attention_;
  Scheduler scheduler_;
  const GenerationBounds bounds_;
  Mailbox mailbox_;
  std::atomic<bool> stopped_ = false;
  Snapshot<RouteTable> next_routes_;
  std::shared_ptr<const RouteTable> routes_;
  std::unordered_map<RequestId, Generation> generations_;
  std::set<std::pair<Instant, RequestId>> deadlines_;
  absl::Status ready_ = absl::UnavailableError("no step has run");
  std::optional<Instant> unready_since_;
  PrefixStats counted_;  // What the metrics of the prefix cache have seen.

  // Reused from step to step.
  StepPlan plan_;
  std::vector<MicroBatch> batches_;
  HeadScratch heads_;
  StageTimes times_;
  LogitsConsumer consume_;
  std::vector<RequestId> ids_;
  std::vector<GenerationRequest> requests_;

  mutable Mutex mutex_;
  EngineStatus status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ENGINE_ENGINE_LOOP_H_
