#ifndef SWITCHYARD_SERVICES_EXPERT_SHARD_EXPERT_SHARD_H_
#define SWITCHYARD_SERVICES_EXPERT_SHARD_EXPERT_SHARD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/app/admin_server.h"
#include "libs/app/config.h"
#include "libs/app/health.h"
#include "libs/app/service_main.h"
#include "libs/control/shard_agent.h"
#include "libs/experts/expert_bank.h"
#include "libs/experts/expert_server.h"
#include "libs/kernels/kernels.h"
#include "libs/metrics/registry.h"
#include "libs/model/checkpoint.h"
#include "libs/transport/transport.h"
#include "libs/transport/ucx_transport.h"

namespace switchyard {

struct ExpertShardOptions {
  CommonOptions common;
  ShardId shard;
  std::string data_address;
  std::string advertised_address;  // Empty: the bound one.
  std::string model_dir;
  WeightChoice weights = WeightChoice::kAsStored;
  std::string autoscaler_address;
  UcxOptions::Mode transport = UcxOptions::Mode::kAuto;
  uint32_t threads = 1;
  uint64_t memory_bytes_max = 0;
};

// Checks and defaults; InvalidArgument names the field.
absl::StatusOr<ExpertShardOptions> ReadOptions(const config::v1::ExpertShardConfig& config);

// ExpertShard is the wiring of a shard process: thread "ucx-0" serves frames, the agent's thread
// loads experts on command.
//
// One owner: the main thread.
class ExpertShard final : public ServiceProcess, private ShardCommandHandler {
 public:
  static absl::StatusOr<std::unique_ptr<ServiceProcess>> Make(const std::string& config_path);
  ~ExpertShard() override;

  absl::Status Start() override;
  void Stop(Duration drain) override;
  Duration drain_max() const override;

 private:
  ExpertShard(ExpertShardOptions options, Checkpoint checkpoint);

  absl::Status OnLoad(EpochId epoch, const std::vector<uint32_t>& experts,
                      const std::function<void(uint32_t)>& progress) override;
  // What /ready says until the first epoch is active; then the shard serves what it has.
  void SayWhileUnready(const absl::Status& why);
  // The experts `missing` of `wanted_count`, reporting how many of those are there.
  absl::StatusOr<std::vector<ExpertWeights>> LoadExperts(
      const std::vector<ExpertName>& missing, size_t wanted_count,
      const std::function<void(uint32_t)>& progress);
  void OnActive(EpochId epoch, const std::vector<uint32_t>& experts) override;

  absl::Status StartDataPlane();
  absl::Status StartAdmin();
  void RunTransportThread();
  std::string StatusJson() const;

  const ExpertShardOptions options_;
  const Checkpoint checkpoint_;
  const ExpertShape shape_;
  const Incarnation incarnation_;
  SteadyClock clock_;
  Registry registry_;
  Health health_;
  ExpertsMetrics experts_metrics_;
  Gauge load_progress_ratio_;
  Gauge memory_bytes_;
  ExpertBank bank_;
  ComputePool pool_;
  std::unique_ptr<Transport> transport_;  // This and server_: the transport thread, while it runs.
  std::string transport_description_;
  std::string bound_address_;
  std::unique_ptr<ExpertServer> server_;
  std::atomic<bool> stopping_ = false;
  std::atomic<uint64_t> newest_epoch_ = 0;  // Told to server_ by the transport thread.
  std::thread transport_thread_;
  std::unique_ptr<ShardAgent> agent_;
  std::unique_ptr<AdminServer> admin_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_EXPERT_SHARD_EXPERT_SHARD_H_
