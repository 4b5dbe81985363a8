#ifndef SWITCHYARD_LIBS_ENGINE_TESTING_INPROC_CLUSTER_H_
#define SWITCHYARD_LIBS_ENGINE_TESTING_INPROC_CLUSTER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/clock.h"
#include "libs/dispatch/dispatcher.h"
#include "libs/engine/engine_loop.h"
#include "libs/engine/testing/recording_sink.h"
#include "libs/kernels/kernels.h"
#include "libs/metrics/registry.h"
#include "libs/model/checkpoint.h"
#include "libs/transport/inproc_transport.h"
#include "libs/transport/transport.h"

namespace switchyard {

class InprocCluster;

// Makes the transport of a process; called on the thread that will own it.
using TransportFactory =
    std::function<absl::StatusOr<std::unique_ptr<Transport>>(const std::string& name)>;

struct InprocClusterOptions {
  std::string model_dir{};
  uint32_t shard_count = 1;
  uint32_t replica_count = 1;  // Shards that hold each expert.
  uint32_t threads = 1;        // Compute threads of the engine and of each shard.
  WeightChoice weights = WeightChoice::kAsStored;
  InstructionSet instruction_set = BestKernels().instruction_set;
  TransportFactory make_transport{};  // Empty: an in-process network.
  std::string listen_address = "inproc:0";
  Duration call_deadline = std::chrono::seconds(5);
  // Another cluster whose shards this one uses as a second router; it outlives this one, and its
  // shards neither stop nor start meanwhile. shard_count and replica_count are then without
  // meaning.
  InprocCluster* shards_of = nullptr;
};

// InprocCluster is a whole data plane in one process: shards, each with its own thread, and the
// router side, driven by the test's thread. Ends the process when it cannot be set up.
//
// One owner: the test's thread; clusters that share shards may have a thread each.
class InprocCluster {
 public:
  explicit InprocCluster(InprocClusterOptions options);
  InprocCluster(const InprocCluster&) = delete;
  InprocCluster& operator=(const InprocCluster&) = delete;
  ~InprocCluster();

  // Replaces the engine; its events go to `sink`, by default sink(), which starts empty. Routes are
  // connected on return.
  EngineLoop& StartEngine(EngineOptions options, EventSink* sink = nullptr);

  EngineLoop& engine() { return *engine_; }

  RecordingSink& sink() { return *sink_; }

  // Runs steps until no request is live, or `condition` holds. False when that takes a minute.
  bool RunUntil(const std::function<bool()>& condition);
  bool RunUntilIdle();

  // Ends a shard as a crash would: its connections break.
  void StopShard(uint32_t shard);

  // Starts a stopped shard again, with a new incarnation and address.
  void RestartShard(uint32_t shard);

  // Gives the engine a new epoch with the shards that run.
  void PublishPlacement();

  const Checkpoint& checkpoint() const { return *checkpoint_; }

  Dispatcher& dispatcher() { return *dispatcher_; }

  Registry& registry() { return registry_; }

 private:
  class Shard;

  std::shared_ptr<const RouteTable> MakeRoutes();

  const InprocClusterOptions options_;
  const Kernels& kernels_;
  SteadyClock clock_;
  Registry registry_;
  std::unique_ptr<Checkpoint> checkpoint_;
  RouterWeights weights_;
  InprocNetwork network_;
  TransportFactory make_transport_;
  std::vector<std::unique_ptr<Shard>> shards_;
  uint64_t next_incarnation_ = 1;
  std::atomic<uint64_t> next_epoch_ = 1;
  ComputePool pool_;
  std::unique_ptr<Transport> transport_;
  DispatchMetrics dispatch_metrics_;
  EngineMetrics engine_metrics_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<RecordingSink> sink_;
  std::unique_ptr<EngineLoop> engine_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ENGINE_TESTING_INPROC_CLUSTER_H_
