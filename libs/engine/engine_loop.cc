#include "libs/engine/engine_loop.h"

#include <algorithm>
#include <string>

#include "libs/base/log.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

// How long an idle engine sleeps unless woken. Only a safety net: posts, routes and messages wake
// it.
constexpr Duration kIdleWait = std::chrono::seconds(5);

// While requests wait for routes: how often their bound is looked at.
constexpr Duration kUnreadyWait = std::chrono::milliseconds(20);

KvLayout LayoutOf(const ModelSpec& spec, const EngineOptions& options) {
  return {.layer_count = spec.layer_count,
          .latent_dim = spec.latent_dim(),
          .block_size = options.scheduler.block_tokens,
          .block_count = options.cache_blocks,
          .dtype = options.cache_dtype};
}

// The mailbox bounds all live requests; a burst into an idle engine waits as a whole for one step.
SchedulerLimits LimitsOf(SchedulerLimits limits) {
  limits.waiting_max += limits.sequences_max;
  return limits;
}

}  // namespace

EngineLoop::EngineLoop(EngineOptions options, EngineModel model, Dispatcher& dispatcher,
                       const Clock& clock, EngineMetrics& metrics, EventSink& sink)
    : options_(std::move(options)),
      model_(model),
      dispatcher_(dispatcher),
      clock_(clock),
      metrics_(metrics),
      sink_(sink),
      blocks_(options_.cache_blocks),
      cache_(LayoutOf(model_.spec, options_)),
      attention_(model_.spec, model_.weights, model_.kernels),
      scheduler_(LimitsOf(options_.scheduler), blocks_),
      bounds_{.vocab_size = model_.spec.vocab_size,
              .context_tokens_max =
                  std::min(model_.spec.positions_max, scheduler_.sequence_tokens_max())},
      mailbox_(scheduler_.limits().waiting_max),
      consume_(
          [this](const RowOrigin& row, std::span<const float> logits) { OnLogits(row, logits); }) {
  attention_.SetComputePool(&model_.pool);
  PublishStatus();
}

EngineLoop::~EngineLoop() = default;

absl::Status EngineLoop::Post(GenerationRequest request) {
  SY_RETURN_IF_ERROR(ValidateRequest(request, bounds_));
  const absl::Status status = mailbox_.Post(std::move(request));
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    metrics_.rejected.Add();
  }
  if (status.ok()) {
    dispatcher_.Wake();
  }
  return status;
}

void EngineLoop::Cancel(RequestId id) {
  if (mailbox_.Cancel(id)) {
    dispatcher_.Wake();
  }
}

void EngineLoop::SetRoutes(std::shared_ptr<const RouteTable> routes) {
  next_routes_.Set(std::move(routes));
  dispatcher_.Wake();
}

bool EngineLoop::RunOnce(Instant now) {
  bool worked = dispatcher_.Poll();
  AdoptRoutes();
  worked |= TakeMail(now);
  worked |= ExpireDeadlines(now);
  if (CheckRoutes(now)) {
    worked |= RunPlannedStep(now);
  }
  PublishStatus();
  return worked;
}

void EngineLoop::Run() {
  while (!stopped_.load(std::memory_order_acquire)) {
    if (!RunOnce(clock_.Now())) {
      dispatcher_.WaitForWork(IdleWait());
    }
  }
  FinishAll(Unavailable("the router is stopping"));
  PublishStatus();
}

void EngineLoop::Stop() {
  mailbox_.Close();
  stopped_.store(true, std::memory_order_release);
  dispatcher_.Wake();
}

EngineStatus EngineLoop::status() const {
  MutexLock lock(&mutex_);
  return status_;
}

void EngineLoop::AdoptRoutes() {
  std::shared_ptr<const RouteTable> next = next_routes_.Get();
  if (next != nullptr && next != routes_) {
    SY_LOG_INFO("routes adopted epoch={} shards={}", next->epoch(),
                next->placement().shards.size());
    routes_ = next;
    dispatcher_.SetRoutes(std::move(next));
  }
}

bool EngineLoop::TakeMail(Instant now) {
  mailbox_.Take(requests_, ids_);
  for (GenerationRequest& request : requests_) {
    Accept(std::move(request), now);
  }
  for (const RequestId id : ids_) {
    if (generations_.contains(id)) {  // Else it finished while it was accepted.
      metrics_.cancelled.Add();
      FinishRequest(id, absl::CancelledError("cancelled by the caller"), FinishReason::kError);
    }
  }
  return !requests_.empty() || !ids_.empty();
}

void EngineLoop::Accept(GenerationRequest request, Instant now) {
  const RequestId id = request.id;
  SequenceRequest sequence{
      .id = id,
      .tokens = std::move(request.prompt),
      .prompt_length = 0,
      .priority = request.priority,
      .all_logits = request.prompt_logprobs || options_.logits_observer != nullptr,
      .skip_cached = request.prompt_logprobs,
      .prefix_scope = request.prefix_scope};
  sequence.prompt_length = static_cast<uint32_t>(sequence.tokens.size());
  sequence.tokens_expected =
      std::min(bounds_.context_tokens_max,
               sequence.prompt_length + std::min(request.max_tokens, bounds_.context_tokens_max));
  sequence.tokens.insert(sequence.tokens.end(), request.resumed.begin(), request.resumed.end());
  request.sampling.banned = request.stop_tokens;
  if (request.deadline) {
    deadlines_.emplace(*request.deadline, id);
  }
  Generation& generation = generations_[id];
  generation.request = std::move(request);
  generation.arrived_at = now;
  const absl::Status added = scheduler_.Add(std::move(sequence), now);
  if (!added.ok()) {
    metrics_.rejected.Add();
    FinishRequest(id, added, FinishReason::kError);
    return;
  }
  // A stream that moved here after its last token, or a request for nothing.
  const auto reason = ReasonToFinish(generation, *scheduler_.Find(id));
  if (reason == FinishReason::kStop || (reason && !generation.request.prompt_logprobs)) {
    FinishRequest(id, absl::OkStatus(), *reason);
  }
}

bool EngineLoop::ExpireDeadlines(Instant now) {
  bool any = false;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const RequestId id = deadlines_.begin()->second;
    FinishRequest(id, DeadlineExceeded("request {}: its deadline has passed", id),
                  FinishReason::kError);
    any = true;
  }
  return any;
}

// True when steps may run. Requests that have waited too long for routes end here.
bool EngineLoop::CheckRoutes(Instant now) {
  const bool was_ready = ready_.ok();
  ready_ = dispatcher_.Ready();
  if (options_.on_ready_changed && was_ready != ready_.ok()) {
    options_.on_ready_changed(ready_);
  }
  if (ready_.ok()) {
    unready_since_.reset();
    return true;
  }
  if (!unready_since_) {
    unready_since_ = now;
  }
  ids_.clear();
  for (const auto& [id, generation] : generations_) {
    if (now - std::max(*unready_since_, generation.arrived_at) >= options_.unready_wait_max) {
      ids_.push_back(id);
    }
  }
  for (const RequestId id : ids_) {
    FinishRequest(id, absl::UnavailableError(ready_.message()), FinishReason::kError);
  }
  return false;
}

StepContext EngineLoop::Context() {
  return {.spec = model_.spec,
          .weights = model_.weights,
          .kernels = model_.kernels,
          .pool = model_.pool,
          .attention = attention_,
          .cache = cache_,
          .dispatcher = dispatcher_,
          .clock = clock_,
          .times = times_,
          .forced_experts = options_.forced_experts};
}

bool EngineLoop::RunPlannedStep(Instant now) {
  {
    const StageTimer timer(clock_, times_, Stage::kSchedule);
    scheduler_.Plan(now, plan_);
  }
  metrics_.preemptions.Add(static_cast<double>(plan_.preempted.size()));
  if (plan_.empty()) {
    return false;
  }
  std::span<MicroBatch> batches;
  {
    const StageTimer timer(clock_, times_, Stage::kSchedule);
    NoteStarts(now);
    batches = SplitPlan(plan_, options_.split, batches_);
  }
  const StepContext step = Context();
  const absl::Status status = RunStep(step, batches);
  if (status.ok()) {
    {
      const StageTimer timer(clock_, times_, Stage::kSchedule);
      scheduler_.Commit(plan_);
    }
    RunHeads(step, batches, heads_, consume_);
    const StageTimer timer(clock_, times_, Stage::kEvents);
    SendEvents();
  } else {
    metrics_.failed_steps.Add();
    SY_LOG_WARNING("step failed sequences={} rows={} error=\"{}\"", plan_.chunks.size(),
                   plan_.token_count, MessageOf(status));
    ids_.clear();
    for (const Chunk& chunk : plan_.chunks) {
      ids_.push_back(chunk.sequence->id);
    }
    for (const RequestId id : ids_) {
      FinishRequest(id, Annotate(status, "step"), FinishReason::kError);
    }
  }
  times_.ObserveAndReset(metrics_);
  metrics_.step_tokens.Observe(plan_.token_count);
  const bool decode_only = plan_.decode_count == plan_.chunks.size();
  (decode_only ? metrics_.decode_step_seconds : metrics_.prefill_step_seconds)
      .Observe(ToSeconds(clock_.Now() - now));
  return true;
}

void EngineLoop::NoteStarts(Instant now) {
  for (const Chunk& chunk : plan_.chunks) {
    Generation& generation = generations_.at(chunk.sequence->id);
    if (!generation.started) {
      generation.started = true;
      generation.queue_seconds = ToSeconds(now - generation.arrived_at);
      metrics_.queue_seconds.Observe(generation.queue_seconds);
    }
  }
}

void EngineLoop::OnLogits(const RowOrigin& row, std::span<const float> logits) {
  if (options_.logits_observer) {
    options_.logits_observer(row, logits);
  }
  Generation& generation = generations_.at(row.request);
  const Sequence& sequence = *scheduler_.Find(row.request);
  if (generation.request.prompt_logprobs) {
    ScorePrompt(generation, sequence, row.position, logits);
  }
  if (row.position + 1 == sequence.token_count()) {
    DrawToken(generation, sequence, logits);
  }
}

// Position p predicts token p + 1. Positions that are computed again were scored before.
void EngineLoop::ScorePrompt(Generation& generation, const Sequence& sequence, uint32_t position,
                             std::span<const float> logits) {
  const uint32_t scored = position + 1;
  if (scored < sequence.prompt_length && scored == generation.prompt_scored) {
    ++generation.prompt_scored;
    generation.pending.prompt.push_back(
        Score(logits, sequence.tokens[scored], generation.request.sampling.logprobs));
  }
}

void EngineLoop::DrawToken(Generation& generation, const Sequence& sequence,
                           std::span<const float> logits) {
  if (!generation.prompt_counted) {
    generation.prompt_counted = true;
    generation.pending.cached_prompt_tokens = sequence.cached_prompt_tokens;
    metrics_.prompt_tokens.Add(sequence.prompt_length);
  }
  generation.finished = ReasonToFinish(generation, sequence);
  if (generation.finished) {
    return;  // Scored only: no token is wanted.
  }
  SamplingParams& sampling = generation.request.sampling;
  const size_t generated_count = sequence.generated().size();
  if (generated_count >= generation.request.min_tokens) {
    sampling.banned.clear();
  }
  generation.pending.tokens.push_back(
      Sample(logits, sampling, {.prompt = sequence.prompt(), .generated = sequence.generated()},
             generated_count));
  scheduler_.Append(sequence.id, generation.pending.tokens.back().token);
  metrics_.generation_tokens.Add();
  generation.finished = ReasonToFinish(generation, sequence);
}

std::optional<FinishReason> EngineLoop::ReasonToFinish(const Generation& generation,
                                                       const Sequence& sequence) const {
  const GenerationRequest& request = generation.request;
  const std::span<const TokenId> generated = sequence.generated();
  if (!generated.empty() && std::ranges::count(request.stop_tokens, generated.back()) > 0) {
    return FinishReason::kStop;
  }
  if (generated.size() >= request.max_tokens ||
      sequence.token_count() >= bounds_.context_tokens_max) {
    return FinishReason::kLength;
  }
  return std::nullopt;
}

void EngineLoop::SendEvents() {
  ids_.clear();
  for (const Chunk& chunk : plan_.chunks) {
    ids_.push_back(chunk.sequence->id);
  }
  for (const RequestId id : ids_) {
    Generation& generation = generations_.at(id);
    if (!generation.pending.empty()) {
      sink_.OnTokens(id, generation.pending);
      generation.pending.Clear();
    }
    if (generation.finished) {
      FinishRequest(id, absl::OkStatus(), *generation.finished);
    }
  }
}

void EngineLoop::FinishRequest(RequestId id, absl::Status status, FinishReason reason) {
  const auto found = generations_.find(id);
  const Sequence* const sequence = scheduler_.Find(id);  // Null when it was never added.
  const GenerationEnd end{
      .status = std::move(status),
      .reason = reason,
      .cached_prompt_tokens = sequence == nullptr ? 0 : sequence->cached_prompt_tokens,
      .queue_seconds = found->second.queue_seconds};
  if (found->second.request.deadline) {
    deadlines_.erase({*found->second.request.deadline, id});
  }
  generations_.erase(found);
  scheduler_.Cancel(id);
  mailbox_.Remove(id);
  sink_.OnFinished(id, end);
}

void EngineLoop::FinishAll(const absl::Status& status) {
  TakeMail(clock_.Now());
  ids_.clear();
  for (const auto& [id, generation] : generations_) {
    ids_.push_back(id);
  }
  for (const RequestId id : ids_) {
    FinishRequest(id, status, FinishReason::kError);
  }
}

Duration EngineLoop::IdleWait() const {
  const bool hold_requests = !ready_.ok() && !generations_.empty();
  Duration wait = hold_requests ? kUnreadyWait : kIdleWait;
  if (!deadlines_.empty()) {
    wait = std::min(wait, Duration(deadlines_.begin()->first - clock_.Now()));
  }
  return std::max(wait, Duration::zero());
}

void EngineLoop::CountPrefixCache() {
  const PrefixStats stats = scheduler_.prefix_stats();
  metrics_.prefix_cache_queries_tokens.Add(
      static_cast<double>(stats.queried_tokens - counted_.queried_tokens));
  metrics_.prefix_cache_hits_tokens.Add(
      static_cast<double>(stats.hit_tokens - counted_.hit_tokens));
  metrics_.prefix_cache_evicted_blocks.Add(
      static_cast<double>(stats.evicted_blocks - counted_.evicted_blocks));
  metrics_.prefix_cache_blocks.Set(scheduler_.cached_block_count());
  counted_ = stats;
}

void EngineLoop::PublishStatus() {
  CountPrefixCache();
  const uint32_t free = scheduler_.free_block_count();
  const uint32_t used = blocks_.block_count() - free;
  metrics_.requests_running.Set(scheduler_.running_count());
  metrics_.requests_waiting.Set(scheduler_.waiting_count());
  metrics_.kv_cache_usage_ratio.Set(static_cast<double>(used) / blocks_.block_count());
  MutexLock lock(&mutex_);
  status_ = {.ready = ready_,
             .epoch = routes_ == nullptr ? EpochId() : routes_->epoch(),
             .running = scheduler_.running_count(),
             .waiting = scheduler_.waiting_count(),
             .free_blocks = free,
             .total_blocks = blocks_.block_count()};
}

}  // namespace switchyard
