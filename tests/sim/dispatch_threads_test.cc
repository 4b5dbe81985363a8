// Dispatchers and shards on threads of their own over the in-process transport; for TSan.

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "libs/base/status.h"
#include "libs/transport/inproc_transport.h"
#include "tests/sim/expert_cluster.h"

namespace switchyard {
namespace {

constexpr uint32_t kShards = 3;
constexpr uint32_t kRouters = 2;

void ServeUntil(const std::atomic<bool>& stop, SimShard& shard) {
  while (!stop.load(std::memory_order_acquire)) {
    shard.transport->Wait(shard.server.WaitMax(std::chrono::milliseconds(50)));
    shard.server.RunQueued();
  }
}

// Returns the first error.
absl::Status RunRouter(InprocNetwork& network, uint32_t router, const SimExperts& experts,
                       const Placement& placement) {
  const SteadyClock clock;
  const std::unique_ptr<Transport> transport =
      network.CreateEndpoint("router" + std::to_string(router));
  Registry registry;
  DispatchMetrics metrics(registry);
  DispatcherOptions options = SimDispatcherOptions(Dtype::kBf16);
  options.call_deadline = std::chrono::seconds(60);
  Dispatcher dispatcher(options, *transport, clock, metrics);
  dispatcher.SetRoutes(std::make_shared<const RouteTable>(*RouteTable::Build(placement)));
  const Instant give_up = clock.Now() + std::chrono::seconds(60);
  while (!dispatcher.Ready().ok() && clock.Now() < give_up) {
    dispatcher.WaitForWork(std::chrono::milliseconds(50));
  }
  SY_RETURN_IF_ERROR(dispatcher.Ready());
  for (uint64_t step = 0; step < 10; ++step) {
    const SimBatch first(router * 100 + step, 1, 30);
    const SimBatch second(router * 100 + step + 50, 2, 50);
    SY_ASSIGN_OR_RETURN(const DispatchTicket a, dispatcher.Send(first.rows));
    SY_ASSIGN_OR_RETURN(const DispatchTicket b, dispatcher.Send(second.rows));
    std::vector<float> out_a(first.experts.size() * kSimHidden);
    std::vector<float> out_b(second.experts.size() * kSimHidden);
    SY_RETURN_IF_ERROR(dispatcher.Await(a, out_a));
    SY_RETURN_IF_ERROR(dispatcher.Await(b, out_b));
    if (out_a != experts.Expected(first.rows, Dtype::kBf16) ||
        out_b != experts.Expected(second.rows, Dtype::kBf16)) {
      return Internal("router {} step {}: other rows than the reference", router, step);
    }
  }
  return absl::OkStatus();
}

TEST(DispatchThreads, RoutersAndShardsOnThreadsBringTheReferenceBits) {
  const SteadyClock clock;
  const SimExperts experts;
  const Placement placement = SimPlacement(1, kShards, 2, "inproc:s");
  InprocNetwork network;
  std::vector<std::unique_ptr<SimShard>> shards;
  for (uint32_t i = 0; i < kShards; ++i) {
    shards.push_back(std::make_unique<SimShard>(network.CreateEndpoint("s" + std::to_string(i)),
                                                SimServerOptions(i, 1, Dtype::kBf16), clock));
    LoadPlaced(experts, placement, ShardId(i), shards.back()->bank);
  }
  std::atomic<bool> stop = false;
  std::vector<std::thread> shard_threads;
  for (const std::unique_ptr<SimShard>& shard : shards) {
    shard_threads.emplace_back([&] { ServeUntil(stop, *shard); });
  }
  std::vector<absl::Status> results(kRouters);
  std::vector<std::thread> router_threads;
  for (uint32_t i = 0; i < kRouters; ++i) {
    router_threads.emplace_back([&, i] { results[i] = RunRouter(network, i, experts, placement); });
  }
  for (std::thread& thread : router_threads) {
    thread.join();
  }
  stop.store(true, std::memory_order_release);
  for (const std::unique_ptr<SimShard>& shard : shards) {
    shard->transport->Wake();
  }
  for (std::thread& thread : shard_threads) {
    thread.join();
  }
  for (const absl::Status& result : results) {
    EXPECT_TRUE(result.ok()) << result;
  }
}

}  // namespace
}  // namespace switchyard
