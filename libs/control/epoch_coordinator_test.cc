#include "libs/control/epoch_coordinator.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/clock.h"
#include "libs/base/rng.h"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

const ExpertShape kShape{.first_moe_layer = 1, .layer_count = 3, .expert_count = 4};

ShardRegistration Registration(uint32_t shard, uint64_t incarnation) {
  return {.info = {.shard = ShardId(shard),
                   .incarnation = Incarnation(incarnation),
                   .address = fmt::format("127.0.0.1:{}", 1000 + shard * 10 + incarnation)},
          .model_digest = "digest",
          .numerics_id = "n1",
          .shape = kShape,
          .expert_bytes = 100};
}

// Drives a coordinator as its shell does, with shards that load at once unless told otherwise.
class Fleet {
 public:
  explicit Fleet(uint32_t shards_wanted, std::optional<Placement> last = std::nullopt)
      : coordinator({.shape = kShape, .model_digest = "digest", .shards_wanted = shards_wanted},
                    std::move(last)) {}

  void Tick() {
    Execute(coordinator.Tick(clock.Now()));
    Execute(coordinator.Tick(clock.Now()));
  }

  void Execute(const CoordinatorActions& actions) {
    for (const auto& command : actions.commands) {
      commands.push_back(command);
      if (!command.active && shards_load) {
        const auto total = static_cast<uint32_t>(command.experts.size());
        coordinator.OnProgress({.shard = command.shard,
                                .incarnation = command.incarnation,
                                .epoch = command.epoch,
                                .loaded = total,
                                .total = total},
                               clock.Now());
      }
    }
    if (actions.commit.has_value()) {
      Execute(coordinator.OnCommitted(actions.commit->epoch, clock.Now()));
    }
  }

  uint64_t epoch() const {
    return coordinator.active() == nullptr ? 0 : coordinator.active()->epoch.value();
  }

  ManualClock clock;
  EpochCoordinator coordinator;
  std::vector<CoordinatorActions::Command> commands;
  bool shards_load = true;
};

TEST(EpochCoordinator, ActivatesEpochOneWhenTheWantedShardsHaveLoaded) {
  Fleet fleet(2);
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(0, 1), fleet.clock.Now()).ok());
  fleet.Tick();
  EXPECT_EQ(fleet.epoch(), 0U);
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(1, 1), fleet.clock.Now()).ok());
  fleet.Tick();
  ASSERT_EQ(fleet.epoch(), 1U);
  EXPECT_TRUE(ValidatePlacement(*fleet.coordinator.active()).ok());
  ASSERT_EQ(fleet.commands.size(), 4U);  // Two loads, then two activations.
  EXPECT_FALSE(fleet.commands[0].active);
  EXPECT_TRUE(fleet.commands[2].active);
  EXPECT_EQ(fleet.coordinator.Describe().replicas_min, 1U);
}

TEST(EpochCoordinator, RefusesAnotherModelShapeNumericsOrAnOldIncarnation) {
  Fleet fleet(1);
  ShardRegistration other = Registration(0, 5);
  other.model_digest = "else";
  EXPECT_EQ(fleet.coordinator.OnRegister(other, fleet.clock.Now()).code(),
            absl::StatusCode::kInvalidArgument);
  other = Registration(0, 5);
  other.shape.expert_count = 8;
  EXPECT_FALSE(fleet.coordinator.OnRegister(other, fleet.clock.Now()).ok());
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(0, 5), fleet.clock.Now()).ok());
  EXPECT_EQ(fleet.coordinator.OnRegister(Registration(0, 4), fleet.clock.Now()).code(),
            absl::StatusCode::kFailedPrecondition);
  other = Registration(1, 1);
  other.numerics_id = "n2";
  EXPECT_FALSE(fleet.coordinator.OnRegister(other, fleet.clock.Now()).ok());
}

TEST(EpochCoordinator, ARestartedShardGetsItsExpertsInANewEpoch) {
  Fleet fleet(2);
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(0, 1), fleet.clock.Now()).ok());
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(1, 1), fleet.clock.Now()).ok());
  fleet.Tick();
  const Placement before = *fleet.coordinator.active();
  fleet.coordinator.OnLost(ShardId(1), Incarnation(1), fleet.clock.Now());
  fleet.Tick();
  EXPECT_EQ(fleet.epoch(), 1U);  // Routers keep the epoch while a restart may still come.
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(1, 2), fleet.clock.Now()).ok());
  fleet.Tick();
  EXPECT_EQ(fleet.epoch(), 2U);
  EXPECT_EQ(fleet.coordinator.active()->replicas, before.replicas);
  EXPECT_EQ(fleet.coordinator.active()->shards[1].incarnation, Incarnation(2));
}

TEST(EpochCoordinator, GivesAwayTheExpertsOfAShardThatStaysAway) {
  Fleet fleet(2);
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(0, 1), fleet.clock.Now()).ok());
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(1, 1), fleet.clock.Now()).ok());
  fleet.Tick();
  fleet.coordinator.OnLost(ShardId(1), Incarnation(1), fleet.clock.Now());
  fleet.clock.Advance(seconds(11));
  fleet.Tick();
  EXPECT_EQ(fleet.epoch(), 2U);
  EXPECT_EQ(fleet.coordinator.active()->shards.size(), 1U);
}

TEST(EpochCoordinator, AbortsAnEpochWhoseShardIsLostOrCannotLoad) {
  Fleet fleet(2);
  fleet.shards_load = false;
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(0, 1), fleet.clock.Now()).ok());
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(1, 1), fleet.clock.Now()).ok());
  fleet.Tick();
  fleet.coordinator.OnProgress({.shard = ShardId(1),
                                .incarnation = Incarnation(1),
                                .epoch = EpochId(1),
                                .total = 4,
                                .error = "disk"},
                               fleet.clock.Now());
  EXPECT_THAT(fleet.coordinator.Describe().phase, HasSubstr("epoch 1 aborted"));
  fleet.shards_load = true;
  fleet.clock.Advance(seconds(2));
  fleet.Tick();
  EXPECT_EQ(fleet.epoch(), 2U);  // The number of an aborted epoch is not used again.
}

TEST(EpochCoordinator, ARestartedCoordinatorKeepsTheCommittedEpoch) {
  Fleet first(1);
  ASSERT_TRUE(first.coordinator.OnRegister(Registration(0, 1), first.clock.Now()).ok());
  first.Tick();
  Fleet second(1, *first.coordinator.active());
  EXPECT_EQ(second.epoch(), 1U);
  ASSERT_TRUE(second.coordinator.OnRegister(Registration(0, 1), second.clock.Now()).ok());
  second.Tick();
  EXPECT_EQ(second.epoch(), 1U);
  ASSERT_EQ(second.commands.size(), 1U);  // The shard is told its experts again.
  EXPECT_EQ(second.commands[0].epoch, EpochId(1));
}

TEST(EpochCoordinator, AFailedCommitLeavesTheOldEpochAndIsTriedAgain) {
  Fleet fleet(1);
  ASSERT_TRUE(fleet.coordinator.OnRegister(Registration(0, 1), fleet.clock.Now()).ok());
  fleet.Execute({.commands = fleet.coordinator.Tick(fleet.clock.Now()).commands});
  const CoordinatorActions actions = fleet.coordinator.Tick(fleet.clock.Now());
  ASSERT_TRUE(actions.commit.has_value());
  fleet.coordinator.OnCommitFailed(actions.commit->epoch, "disk full", fleet.clock.Now());
  EXPECT_EQ(fleet.epoch(), 0U);
  fleet.clock.Advance(seconds(2));
  fleet.Tick();
  EXPECT_EQ(fleet.epoch(), 2U);
}

// Random arrivals, losses, restarts and failed loads: epochs only grow, and what is active is
// whole.
TEST(EpochCoordinator, EpochsOnlyGrowAndStayWholeUnderRandomEvents) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Rng rng(seed);
    Fleet fleet(2);
    std::vector<uint64_t> incarnation(4, 0);
    uint64_t newest_seen = 0;
    for (int step = 0; step < 200; ++step) {
      const auto shard = static_cast<uint32_t>(rng.Below(4));
      switch (rng.Below(4)) {
        case 0:
          ASSERT_TRUE(fleet.coordinator
                          .OnRegister(Registration(shard, ++incarnation[shard]), fleet.clock.Now())
                          .ok());
          break;
        case 1:
          fleet.coordinator.OnLost(ShardId(shard), Incarnation(incarnation[shard]),
                                   fleet.clock.Now());
          break;
        case 2:
          fleet.shards_load = !fleet.shards_load;
          break;
        default:
          fleet.clock.Advance(milliseconds(rng.Below(5000)));
      }
      fleet.Tick();
      ASSERT_GE(fleet.epoch(), newest_seen);
      newest_seen = fleet.epoch();
      if (fleet.coordinator.active() != nullptr) {
        ASSERT_TRUE(ValidatePlacement(*fleet.coordinator.active()).ok());
      }
    }
    EXPECT_GT(newest_seen, 0U);
  }
}

}  // namespace
}  // namespace switchyard
