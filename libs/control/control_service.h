#ifndef SWITCHYARD_LIBS_CONTROL_CONTROL_SERVICE_H_
#define SWITCHYARD_LIBS_CONTROL_CONTROL_SERVICE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "proto/switchyard/v1/control.grpc.pb.h"

#include "libs/base/bounded_queue.h"
#include "libs/base/clock.h"
#include "libs/control/control_metrics.h"
#include "libs/control/epoch_coordinator.h"

namespace switchyard {

namespace internal {
class ShardStream;
class WatchStream;
}  // namespace internal

// Makes a placement durable; an error leaves the epoch uncommitted.
using CommitFunction = std::function<absl::Status(const Placement&)>;

// ControlService is the thin shell of an EpochCoordinator: shards and routers reach it by gRPC,
// events go through one mailbox to the thread "control", which owns the coordinator.
//
// Start() and Stop() belong to one owner; gRPC calls come from any thread.
class ControlService final : public v1::Control::CallbackService {
 public:
  ControlService(EpochCoordinator coordinator, CommitFunction commit, const Clock& clock,
                 ControlMetrics& metrics);
  ~ControlService() override;

  void Start();
  void Stop();

  // For /status; any thread.
  EpochCoordinator::Description Describe() const;

  grpc::ServerBidiReactor<v1::ShardReport, v1::ShardCommand>* RegisterShard(
      grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<v1::Placement>* WatchPlacement(
      grpc::CallbackServerContext* context, const v1::WatchPlacementRequest* request) override;
  grpc::ServerUnaryReactor* DescribeFleet(grpc::CallbackServerContext* context,
                                          const v1::DescribeFleetRequest* request,
                                          v1::DescribeFleetResponse* response) override;

 private:
  friend class internal::ShardStream;
  friend class internal::WatchStream;

  using StreamId = uint64_t;

  // A registered shard's stream that ended; kept apart from the mailbox, which may be full.
  struct Loss {
    StreamId stream = 0;
    ShardId shard;
    Incarnation incarnation;
  };

  // Called by streams, on gRPC threads.
  StreamId AddShardStream(internal::ShardStream* stream);
  StreamId AddWatchStream(internal::WatchStream* stream);
  void RemoveShardStream(StreamId id, const std::optional<ShardInfo>& who);
  void RemoveWatchStream(StreamId id);
  void OnHello(StreamId id, const v1::ShardHello& hello);
  void OnProgress(StreamId id, const ShardInfo& who, const v1::LoadProgress& progress);
  void EndShardStream(StreamId id, const absl::Status& status);

  // On the control thread.
  void RunControlThread();
  void TakeLosses(Instant now);
  void Register(StreamId id, const ShardRegistration& registration, Instant now);
  void Execute(CoordinatorActions actions, Instant now);
  void SendCommand(const CoordinatorActions::Command& command);
  void PublishActive();
  void UpdateDescription();
  bool Post(std::function<void(Instant)> event);

  const CommitFunction commit_;
  const Clock& clock_;
  ControlMetrics& metrics_;
  BoundedQueue<std::function<void(Instant)>> mailbox_;
  EpochCoordinator coordinator_;                 // Control thread only.
  std::map<ShardId, StreamId> stream_of_shard_;  // Control thread only.
  std::thread thread_;

  mutable absl::Mutex mutex_;
  StreamId next_stream_ ABSL_GUARDED_BY(mutex_) = 1;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<StreamId, internal::ShardStream*> shard_streams_ ABSL_GUARDED_BY(mutex_);
  std::map<StreamId, internal::WatchStream*> watch_streams_ ABSL_GUARDED_BY(mutex_);
  std::vector<Loss> losses_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const v1::Placement> published_ ABSL_GUARDED_BY(mutex_);
  EpochCoordinator::Description description_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_CONTROL_CONTROL_SERVICE_H_
