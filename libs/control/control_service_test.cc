#include "libs/control/control_service.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/bounded_queue.h"
#include "libs/base/status.h"
#include "libs/control/placement_watcher.h"
#include "libs/control/shard_agent.h"
#include "libs/rpc/channel.h"
#include "libs/rpc/rpc_server.h"

namespace switchyard {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);
const ExpertShape kShape{.first_moe_layer = 0, .layer_count = 2, .expert_count = 4};

ShardRegistration Registration(uint32_t shard, uint64_t incarnation) {
  return {.info = {.shard = ShardId(shard),
                   .incarnation = Incarnation(incarnation),
                   .address = "127.0.0.1:1"},
          .model_digest = "digest",
          .numerics_id = "n1",
          .shape = kShape,
          .expert_bytes = 10};
}

// A shard that loads at once and remembers what was asked.
class FakeShard final : public ShardCommandHandler {
 public:
  absl::Status OnLoad(EpochId /*epoch*/, const std::vector<uint32_t>& experts,
                      const std::function<void(uint32_t)>& progress) override {
    progress(static_cast<uint32_t>(experts.size() / 2));
    return absl::OkStatus();
  }

  void OnActive(EpochId epoch, const std::vector<uint32_t>& /*experts*/) override {
    EXPECT_TRUE(activated.TryPush(EpochId(epoch)));
  }

  BoundedQueue<EpochId> activated{16};
};

struct Autoscaler {
  explicit Autoscaler(uint32_t shards_wanted)
      : service(
            EpochCoordinator(
                {.shape = kShape, .model_digest = "digest", .shards_wanted = shards_wanted},
                std::nullopt),
            [this](const Placement& placement) {
              EXPECT_TRUE(committed.TryPush(EpochId(placement.epoch)));
              return absl::OkStatus();
            },
            clock, metrics),
        server(RpcServer::Start({.address = "127.0.0.1:0"}, {&service}).value()) {
    service.Start();
  }

  ~Autoscaler() {
    service.Stop();
    server->Stop(std::chrono::milliseconds(0));
  }

  std::shared_ptr<grpc::Channel> Channel() const { return MakeChannel(server->address()); }

  SteadyClock clock;
  Registry registry;
  ControlMetrics metrics{registry};
  BoundedQueue<EpochId> committed{16};
  ControlService service;
  std::unique_ptr<RpcServer> server;
};

TEST(ControlService, ShardsRegisterLoadAndRoutersGetThePlacement) {
  Autoscaler autoscaler(2);
  BoundedQueue<std::shared_ptr<const RouteTable>> routes(16);
  PlacementWatcher watcher(autoscaler.Channel(), "router-0", "digest",
                           [&routes](std::shared_ptr<const RouteTable> table) {
                             EXPECT_TRUE(routes.TryPush(std::move(table)));
                           });
  watcher.Start();
  FakeShard shard0;
  FakeShard shard1;
  ShardAgent agent0(autoscaler.Channel(), Registration(0, 1), shard0);
  auto agent1 = std::make_unique<ShardAgent>(autoscaler.Channel(), Registration(1, 1), shard1);
  agent0.Start();
  agent1->Start();
  const auto first = routes.PopWithTimeout(kPatience);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ((*first)->epoch(), EpochId(1));
  EXPECT_EQ((*first)->placement().shards.size(), 2U);
  EXPECT_EQ(shard0.activated.PopWithTimeout(kPatience), EpochId(1));
  EXPECT_EQ(shard1.activated.PopWithTimeout(kPatience), EpochId(1));
  EXPECT_EQ(autoscaler.committed.TryPop(), EpochId(1));

  // A restarted shard: its new incarnation is in the next epoch.
  agent1->Stop();
  FakeShard shard1_again;
  ShardAgent agent1_again(autoscaler.Channel(), Registration(1, 2), shard1_again);
  agent1_again.Start();
  const auto second = routes.PopWithTimeout(kPatience);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ((*second)->epoch(), EpochId(2));
  EXPECT_EQ((*second)->placement().shards[1].incarnation, Incarnation(2));

  agent0.Stop();
  agent1_again.Stop();
  watcher.Stop();
}

TEST(ControlService, RefusesAShardOfAnotherModel) {
  Autoscaler autoscaler(1);
  auto stub = v1::Control::NewStub(autoscaler.Channel());
  grpc::ClientContext context;
  auto stream = stub->RegisterShard(&context);
  v1::ShardReport report;
  report.mutable_hello()->set_model_digest("other");
  report.mutable_hello()->mutable_shape()->set_layer_count(2);
  report.mutable_hello()->mutable_shape()->set_expert_count(4);
  ASSERT_TRUE(stream->Write(report));
  v1::ShardCommand command;
  EXPECT_FALSE(stream->Read(&command));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(ControlService, EndsAStreamThatBreaksTheOrderOfMessages) {
  Autoscaler autoscaler(1);
  auto stub = v1::Control::NewStub(autoscaler.Channel());
  grpc::ClientContext context;
  auto stream = stub->RegisterShard(&context);
  v1::ShardReport report;
  report.mutable_progress()->set_epoch(1);
  ASSERT_TRUE(stream->Write(report));
  v1::ShardCommand command;
  EXPECT_FALSE(stream->Read(&command));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace switchyard
