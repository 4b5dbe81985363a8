#ifndef SWITCHYARD_TESTS_SIM_EXPERT_CLUSTER_H_
#define SWITCHYARD_TESTS_SIM_EXPERT_CLUSTER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libs/dispatch/dispatcher.h"
#include "libs/dispatch/testing/reference_dispatch.h"
#include "libs/experts/expert_server.h"
#include "libs/transport/sim_transport.h"

namespace switchyard {

constexpr uint32_t kSimHidden = 16;
constexpr uint32_t kSimIntermediate = 8;
constexpr uint32_t kSimTopK = 3;
constexpr ExpertShape kSimShape = {.first_moe_layer = 1, .layer_count = 3, .expert_count = 8};

// A tiny model's routed experts, the same for every shard and for the reference. One owner.
class SimExperts {
 public:
  SimExperts();

  std::shared_ptr<const ExpertWeights> Of(LayerId layer, ExpertId expert) const;

  // What dispatching `rows` must bring, computed row by row.
  std::vector<float> Expected(const RoutedRows& rows, Dtype dtype) const;

 private:
  std::map<std::pair<uint16_t, uint16_t>, std::shared_ptr<const ExpertWeights>> weights_;
};

// A shard process without its thread: transport, bank and server. One owner.
struct SimShard {
  SimShard(std::unique_ptr<Transport> endpoint, const ExpertServerOptions& options,
           const Clock& clock);

  std::unique_ptr<Transport> transport;
  Registry registry;
  ExpertsMetrics metrics{registry};
  ExpertBank bank{kSimShape};
  ComputePool pool{1};
  ExpertServer server;
};

ExpertServerOptions SimServerOptions(uint32_t shard, uint64_t incarnation, Dtype dtype);
DispatcherOptions SimDispatcherOptions(Dtype dtype);

// Shards 0 to shard_count - 1 at "<prefix><ordinal>", expert e on the `replicas` shards from e on.
Placement SimPlacement(uint64_t epoch, uint32_t shard_count, uint32_t replicas,
                       const std::string& prefix);

void LoadPlaced(const SimExperts& experts, const Placement& placement, ShardId shard,
                ExpertBank& bank);

// Random rows with distinct random experts; owns what `rows` views.
struct SimBatch {
  SimBatch(uint64_t seed, uint16_t layer, uint32_t row_count);

  std::vector<float> values;
  std::vector<uint16_t> experts;
  RoutedRows rows;
};

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_SIM_EXPERT_CLUSTER_H_
