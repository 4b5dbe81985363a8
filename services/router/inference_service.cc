#include "services/router/inference_service.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include <grpc/support/time.h>

#include "absl/time/time.h"

#include "libs/base/status.h"
#include "libs/rpc/bounded_writer.h"
#include "libs/rpc/status_convert.h"
#include "libs/security/sha256.h"

namespace switchyard {
namespace internal {

// Events of one call that its reader has not taken; more end the call.
constexpr size_t kEventsQueuedMax = 4096;

// GenerateStream is the reactor of one Generate call. gRPC's threads and the step thread use it; it
// lives until OnDone, which takes it out of GenerateStreams.
class GenerateStream final : public grpc::ServerWriteReactor<v1::GenerateEvent> {
 public:
  GenerateStream(RequestId id, grpc::CallbackServerContext& context, EngineLoop& engine,
                 GenerateStreams& streams, Instant arrived_at)
      : id_(id),
        context_(context),
        engine_(engine),
        streams_(streams),
        arrived_at_(arrived_at),
        writer_(
            kEventsQueuedMax, [this](const v1::GenerateEvent* event) { StartWrite(event); },
            [this](const grpc::Status& status) { Finish(status); }) {}

  // False when the reader is too slow; the call then ends.
  bool Write(v1::GenerateEvent event) {
    if (writer_.Push(std::move(event))) {
      return true;
    }
    engine_.Cancel(id_);
    writer_.FinishNow(
        grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the reader of the stream is too slow"));
    context_.TryCancel();  // The write that the reader does not take would never end by itself.
    return false;
  }

  void End(const absl::Status& status) { writer_.FinishAfterQueued(ToGrpc(status)); }

  void OnWriteDone(bool ok) override { writer_.OnWriteDone(ok); }

  void OnCancel() override { engine_.Cancel(id_); }

  void OnDone() override {
    engine_.Cancel(id_);
    streams_.Remove(id_);  // Destroys this object.
  }

  Instant arrived_at() const { return arrived_at_; }

  // When the last token came; step thread.
  std::optional<Instant> last_token_at;

 private:
  const RequestId id_;
  grpc::CallbackServerContext& context_;  // Lives until OnDone.
  EngineLoop& engine_;
  GenerateStreams& streams_;
  const Instant arrived_at_;
  BoundedWriter<v1::GenerateEvent> writer_;
};

}  // namespace internal

namespace {

using internal::GenerateStream;

// A call that ends before it became a request.
class RefusedStream final : public grpc::ServerWriteReactor<v1::GenerateEvent> {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(ToGrpc(status)); }

  void OnDone() override { delete this; }
};

std::optional<Duration> RemainingOf(const grpc::CallbackServerContext& context) {
  const gpr_timespec deadline = context.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) {
    return std::nullopt;
  }
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  // A client may ask for more than nanoseconds can count.
  constexpr int64_t kSecondsMax = int64_t{10} * 365 * 86400;
  return std::chrono::seconds(std::clamp<int64_t>(left.tv_sec, 0, kSecondsMax)) +
         std::chrono::nanoseconds(left.tv_nsec);
}

void ToProto(const SampledToken& token, v1::TokenOutput& proto) {
  proto.set_token(token.token);
  proto.set_logprob(token.logprob);
  for (const TokenLogprob& alternative : token.top) {
    v1::TokenLogprob& top = *proto.add_top();
    top.set_token(alternative.token);
    top.set_logprob(alternative.logprob);
  }
}

v1::GenerateEvent ToProto(const GeneratedTokens& tokens) {
  v1::GenerateEvent event;
  for (const SampledToken& token : tokens.prompt) {
    ToProto(token, *event.add_prompt());
  }
  for (const SampledToken& token : tokens.tokens) {
    ToProto(token, *event.add_tokens());
  }
  event.set_cached_prompt_tokens(tokens.cached_prompt_tokens);
  return event;
}

v1::GenerateEvent ToProto(const GenerationEnd& end) {
  v1::GenerateEvent event;
  v1::Finish& finish = *event.mutable_finish();
  finish.set_reason(end.reason == FinishReason::kStop ? v1::Finish::REASON_STOP
                                                      : v1::Finish::REASON_LENGTH);
  finish.set_cached_prompt_tokens(end.cached_prompt_tokens);
  finish.set_queue_seconds(end.queue_seconds);
  return event;
}

// Proto3's 0 of a field whose neutral value is 1 means left out.
float OneIfZero(float value) { return value == 0.0F ? 1.0F : value; }

SamplingParams FromProto(const v1::Sampling& proto) {
  SamplingParams sampling{.temperature = proto.temperature(),
                          .top_k = proto.top_k(),
                          .top_p = OneIfZero(proto.top_p()),
                          .min_p = proto.min_p(),
                          .presence_penalty = proto.presence_penalty(),
                          .frequency_penalty = proto.frequency_penalty(),
                          .repetition_penalty = OneIfZero(proto.repetition_penalty()),
                          .seed = proto.seed(),
                          .choice_index = proto.choice_index(),
                          .logprobs = proto.top_logprobs(),
                          .wants_logprobs = proto.wants_logprobs()};
  for (int i = 0; i < proto.logit_bias_token_size(); ++i) {
    sampling.logit_bias.emplace_back(proto.logit_bias_token(i), proto.logit_bias_value(i));
  }
  return sampling;
}

Counter MakeRequestCounter(Registry& registry, const std::string& outcome) {
  return registry.MakeCounter("switchyard_router_requests_total",
                              "Generate calls that ended, by how", {{"outcome", outcome}});
}

}  // namespace

InferenceMetrics::InferenceMetrics(Registry& registry)
    : requests_ok(MakeRequestCounter(registry, "ok")),
      requests_refused(MakeRequestCounter(registry, "refused")),
      requests_cancelled(MakeRequestCounter(registry, "cancelled")),
      requests_failed(MakeRequestCounter(registry, "failed")),
      slow_readers(registry.MakeCounter(
          "switchyard_router_slow_readers_total",
          "Generate calls ended because their reader left too many events waiting")),
      time_to_first_token_seconds(
          registry.MakeHistogram("switchyard_router_time_to_first_token_seconds",
                                 "Time from a request's arrival at the router to its first token",
                                 RequestSecondsBuckets())),
      inter_token_latency_seconds(registry.MakeHistogram(
          "switchyard_router_inter_token_latency_seconds", "Time between tokens of one request",
          {0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1,
           2.5})),
      request_duration_seconds(registry.MakeHistogram(
          "switchyard_router_request_duration_seconds",
          "Time from a request's arrival at the router to its end", RequestSecondsBuckets())) {}

GenerateStreams::GenerateStreams(const Clock& clock, InferenceMetrics& metrics)
    : clock_(clock), metrics_(metrics) {}

GenerateStreams::~GenerateStreams() = default;

void GenerateStreams::OnTokens(RequestId id, const GeneratedTokens& tokens) {
  const std::shared_ptr<GenerateStream> stream = Find(id);
  if (stream == nullptr) {
    return;
  }
  if (!tokens.tokens.empty()) {
    const Instant now = clock_.Now();
    if (stream->last_token_at) {
      metrics_.inter_token_latency_seconds.Observe(ToSeconds(now - *stream->last_token_at));
    } else {
      metrics_.time_to_first_token_seconds.Observe(ToSeconds(now - stream->arrived_at()));
    }
    stream->last_token_at = now;
  }
  if (!stream->Write(ToProto(tokens))) {
    metrics_.slow_readers.Add();
  }
}

void GenerateStreams::OnFinished(RequestId id, const GenerationEnd& end) {
  if (end.status.ok()) {
    metrics_.requests_ok.Add();
  } else if (absl::IsCancelled(end.status)) {
    metrics_.requests_cancelled.Add();
  } else if (absl::IsResourceExhausted(end.status) || absl::IsInvalidArgument(end.status)) {
    metrics_.requests_refused.Add();
  } else {
    metrics_.requests_failed.Add();
  }
  const std::shared_ptr<GenerateStream> stream = Find(id);
  if (stream == nullptr) {
    return;
  }
  metrics_.request_duration_seconds.Observe(ToSeconds(clock_.Now() - stream->arrived_at()));
  if (!end.status.ok() || stream->Write(ToProto(end))) {
    stream->End(end.status);
  }
}

void GenerateStreams::Add(RequestId id, std::shared_ptr<GenerateStream> stream) {
  absl::MutexLock lock(&mutex_);
  streams_.emplace(id, std::move(stream));
}

void GenerateStreams::Remove(RequestId id) {
  std::shared_ptr<GenerateStream> last;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  const auto found = streams_.find(id);
  if (found != streams_.end()) {
    last = std::move(found->second);
    streams_.erase(found);
  }
}

bool GenerateStreams::AwaitEmpty(Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return streams_.empty(); };
  return mutex_.AwaitWithTimeout(absl::Condition(&empty), absl::FromChrono(timeout));
}

std::shared_ptr<GenerateStream> GenerateStreams::Find(RequestId id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second;
}

InferenceService::InferenceService(ServedModel model, EngineLoop& engine, GenerateStreams& streams,
                                   const Clock& clock, InferenceMetrics& metrics)
    : model_(std::move(model)),
      engine_(engine),
      streams_(streams),
      clock_(clock),
      metrics_(metrics) {}

grpc::ServerWriteReactor<v1::GenerateEvent>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  absl::StatusOr<GenerationRequest> generation = FromProto(*request);
  if (draining_.load()) {
    generation = Unavailable("the router is draining");
  }
  if (!generation.ok()) {
    metrics_.requests_refused.Add();
    return new RefusedStream(generation.status());  // Deletes itself in OnDone.
  }
  const Instant now = clock_.Now();
  const RequestId id(next_id_.fetch_add(1));
  generation->id = id;
  generation->prefix_scope = PrefixScopeOf(*request, model_.tenants_share_prefixes);
  if (const std::optional<Duration> remaining = RemainingOf(*context)) {
    generation->deadline = now + *remaining;
  }
  auto stream = std::make_shared<GenerateStream>(id, *context, engine_, streams_, now);
  GenerateStream* const reactor = stream.get();
  streams_.Add(id, std::move(stream));  // Before Post: events may come at once.
  const absl::Status posted = engine_.Post(*std::move(generation));
  if (!posted.ok()) {
    metrics_.requests_refused.Add();
    reactor->End(posted);
  }
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::Describe(grpc::CallbackServerContext* context,
                                                     const v1::DescribeRequest* /*request*/,
                                                     v1::DescribeResponse* response) {
  const EngineStatus status = engine_.status();
  const bool draining = draining_.load();
  response->set_ready(status.ready.ok() && !draining);
  if (!response->ready()) {
    response->set_not_ready_reason(draining ? "draining" : MessageOf(status.ready));
  }
  response->set_model_digest(model_.digest);
  response->set_numerics_id(model_.numerics_id);
  response->set_context_tokens_max(engine_.context_tokens_max());
  response->set_vocab_size(model_.vocab_size);
  response->set_epoch(status.epoch.value());
  response->set_running(status.running);
  response->set_waiting(status.waiting);
  response->set_free_blocks(status.free_blocks);
  response->set_total_blocks(status.total_blocks);
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

absl::StatusOr<GenerationRequest> FromProto(const v1::GenerateRequest& proto) {
  const v1::Sampling& sampling = proto.sampling();
  if (sampling.logit_bias_token_size() != sampling.logit_bias_value_size()) {
    return InvalidArgument("logit_bias: {} tokens but {} values", sampling.logit_bias_token_size(),
                           sampling.logit_bias_value_size());
  }
  return GenerationRequest{
      .id = RequestId(),
      .prompt = {proto.prompt_tokens().begin(), proto.prompt_tokens().end()},
      .resumed = {proto.resumed_tokens().begin(), proto.resumed_tokens().end()},
      .sampling = FromProto(sampling),
      .max_tokens = proto.max_tokens(),
      .min_tokens = proto.min_tokens(),
      .stop_tokens = {proto.stop_tokens().begin(), proto.stop_tokens().end()},
      .prompt_logprobs = proto.prompt_logprobs(),
      .priority = proto.priority(),
      .deadline = std::nullopt};
}

PrefixScope PrefixScopeOf(const v1::GenerateRequest& proto, bool tenants_share) {
  const std::string tenant = tenants_share ? std::string() : proto.tenant();
  // The length keeps a tenant's end apart from a salt's beginning.
  return Sha256(fmt::format("{}:{}{}", tenant.size(), tenant, proto.cache_salt()));
}

}  // namespace switchyard
