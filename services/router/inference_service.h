#ifndef SWITCHYARD_SERVICES_ROUTER_INFERENCE_SERVICE_H_
#define SWITCHYARD_SERVICES_ROUTER_INFERENCE_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "proto/switchyard/v1/inference.grpc.pb.h"

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/engine/engine_loop.h"
#include "libs/engine/generation.h"
#include "libs/kvcache/prefix_tree.h"
#include "libs/metrics/registry.h"

namespace switchyard {

namespace internal {
class GenerateStream;
}

// What the service counts. Any thread; outlived by its registry.
struct InferenceMetrics {
  explicit InferenceMetrics(Registry& registry);

  Counter requests_ok;
  Counter requests_refused;    // InvalidArgument or a limit.
  Counter requests_cancelled;  // By the caller.
  Counter requests_failed;
  Counter slow_readers;  // Streams ended because their event queue was full.
  Histogram time_to_first_token_seconds;
  Histogram inter_token_latency_seconds;
  Histogram request_duration_seconds;
};

// GenerateStreams are the open Generate calls of a router. The engine tells it what happens to
// each.
//
// Any thread. Outlives the engine that it is the sink of.
class GenerateStreams final : public EventSink {
 public:
  GenerateStreams(const Clock& clock, InferenceMetrics& metrics);
  ~GenerateStreams() override;

  void OnTokens(RequestId id, const GeneratedTokens& tokens) override;
  void OnFinished(RequestId id, const GenerationEnd& end) override;

  void Add(RequestId id, std::shared_ptr<internal::GenerateStream> stream);
  void Remove(RequestId id);

  // False when calls were still open after `timeout`.
  bool AwaitEmpty(Duration timeout);

 private:
  std::shared_ptr<internal::GenerateStream> Find(RequestId id) const;

  const Clock& clock_;
  InferenceMetrics& metrics_;
  mutable absl::Mutex mutex_;
  std::unordered_map<RequestId, std::shared_ptr<internal::GenerateStream>> streams_
      ABSL_GUARDED_BY(mutex_);
};

// Who serves: what Describe answers besides the engine's state.
struct ServedModel {
  std::string digest;
  std::string numerics_id;
  uint32_t vocab_size = 0;
  bool tenants_share_prefixes = false;  // Else cached beginnings are each tenant's own.
};

// InferenceService is the gRPC side of a router: it turns calls into requests of the engine.
//
// Any thread: gRPC's threads call it; they only post. All references outlive it.
class InferenceService final : public v1::Inference::CallbackService {
 public:
  InferenceService(ServedModel model, EngineLoop& engine, GenerateStreams& streams,
                   const Clock& clock, InferenceMetrics& metrics);

  // New calls are answered with Unavailable from now on.
  void Drain() { draining_.store(true); }

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::DescribeRequest* request,
                                     v1::DescribeResponse* response) override;

 private:
  const ServedModel model_;
  EngineLoop& engine_;
  GenerateStreams& streams_;
  const Clock& clock_;
  InferenceMetrics& metrics_;
  std::atomic<uint64_t> next_id_ = 1;
  std::atomic<bool> draining_ = false;
};

// The engine's form of a request; InvalidArgument when parallel lists differ in length.
absl::StatusOr<GenerationRequest> FromProto(const v1::GenerateRequest& proto);

// Requests of equal scopes share cached beginnings: those of one salt and, unless tenants share
// them, one tenant. Others cannot be made to collide.
PrefixScope PrefixScopeOf(const v1::GenerateRequest& proto, bool tenants_share);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_ROUTER_INFERENCE_SERVICE_H_
