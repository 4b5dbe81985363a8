// A router's dispatcher and its shards in one thread under a seed: loss, delay, duplication,
// reordering, crashes. Every call ends once, with the reference's bits or with a status that says
// what happened.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libs/base/status.h"
#include "libs/transport/testing/row_checker.h"
#include "tests/sim/expert_cluster.h"

namespace switchyard {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct ClusterOptions {
  uint64_t seed = 1;
  uint32_t shard_count = 3;
  uint32_t replicas = 2;
  Dtype dtype = Dtype::kF32;
  SimLinkOptions link;
};

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options)
      : options_(options),
        network_(options.seed, options.link),
        placement_(SimPlacement(1, options.shard_count, options.replicas, "sim:s")),
        shards_(options.shard_count) {
    for (uint32_t shard = 0; shard < options.shard_count; ++shard) {
      StartShard(shard, 1);
    }
    router_ = network_.CreateEndpoint("router");
    DispatcherOptions dispatch = SimDispatcherOptions(options.dtype);
    dispatch.call_deadline = std::chrono::milliseconds(500);
    dispatcher_ = std::make_unique<Dispatcher>(dispatch, *router_, network_.clock(), metrics_);
    dispatcher_->SetRoutes(std::make_shared<const RouteTable>(*RouteTable::Build(placement_)));
  }

  ~Cluster() {
    dispatcher_.reset();
    router_.reset();
  }

  void StartShard(uint32_t shard, uint64_t incarnation) {
    const std::string name = "s" + std::to_string(shard);
    shards_[shard] = std::make_unique<SimShard>(
        network_.CreateEndpoint(name), SimServerOptions(shard, incarnation, options_.dtype),
        network_.clock());
    LoadPlaced(experts_, placement_, ShardId(shard), shards_[shard]->bank);
    network_.SetIdleCallback(name, [this, shard] { shards_[shard]->server.RunQueued(); });
  }

  void Crash(uint32_t shard) { network_.Crash("s" + std::to_string(shard)); }

  void Restart(uint32_t shard, uint64_t incarnation) {
    shards_[shard].reset();
    StartShard(shard, incarnation);
    placement_.epoch = EpochId(placement_.epoch.value() + 1);
    placement_.shards[shard].incarnation = Incarnation(incarnation);
    dispatcher_->SetRoutes(std::make_shared<const RouteTable>(*RouteTable::Build(placement_)));
  }

  // False when not all experts are covered in time.
  bool WaitReady() {
    const Instant give_up = network_.clock().Now() + std::chrono::seconds(30);
    while (!dispatcher_->Ready().ok() && network_.clock().Now() < give_up) {
      dispatcher_->WaitForWork(std::chrono::milliseconds(20));
    }
    return dispatcher_->Ready().ok();
  }

  bool WaitAllConnected() {
    const auto connected = [&] {
      return std::ranges::all_of(dispatcher_->ShardStates(),
                                 [](const auto& state) { return state.state == "ready"; });
    };
    const Instant give_up = network_.clock().Now() + std::chrono::seconds(30);
    while (!connected() && network_.clock().Now() < give_up) {
      dispatcher_->WaitForWork(std::chrono::milliseconds(20));
    }
    return connected();
  }

  // Lets everything settle, then nothing may be in use.
  void ExpectNoLeak() {
    for (int i = 0; i < 100; ++i) {
      dispatcher_->WaitForWork(std::chrono::milliseconds(20));
    }
    EXPECT_EQ(dispatcher_->usage().tickets, 0U);
    EXPECT_EQ(dispatcher_->usage().buffers, 0U);
    EXPECT_EQ(dispatcher_->usage().queued_bytes, 0U);
    for (const std::unique_ptr<SimShard>& shard : shards_) {
      if (shard != nullptr) {
        EXPECT_EQ(shard->server.usage().queued_rows, 0U);
        EXPECT_EQ(shard->server.usage().buffers, 0U);
      }
    }
  }

  Dispatcher& dispatcher() { return *dispatcher_; }

  SimNetwork& network() { return network_; }

  SimShard& shard(uint32_t index) { return *shards_[index]; }

  const SimExperts& experts() const { return experts_; }

  const Placement& placement() const { return placement_; }

  DispatchMetrics& metrics() { return metrics_; }

 private:
  const ClusterOptions options_;
  SimExperts experts_;
  SimNetwork network_;
  Placement placement_;
  std::vector<std::unique_ptr<SimShard>> shards_;
  std::unique_ptr<Transport> router_;
  Registry registry_;
  DispatchMetrics metrics_{registry_};
  std::unique_ptr<Dispatcher> dispatcher_;
};

absl::Status SendAndAwait(Cluster& cluster, const SimBatch& batch, std::vector<float>& out) {
  out.assign(batch.experts.size() * kSimHidden, -1.0F);
  const absl::StatusOr<DispatchTicket> ticket = cluster.dispatcher().Send(batch.rows);
  return ticket.ok() ? cluster.dispatcher().Await(*ticket, out) : ticket.status();
}

TEST(DispatchSim, BringsTheReferenceBitsForBothDtypesAndManyFragments) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    Cluster cluster({.dtype = dtype, .link = {}});
    ASSERT_TRUE(cluster.WaitReady());
    for (const uint32_t row_count : {0U, 1U, 7U, 3000U}) {
      const SimBatch batch(row_count, 2, row_count);
      std::vector<float> out;
      ASSERT_TRUE(SendAndAwait(cluster, batch, out).ok());
      EXPECT_EQ(out, cluster.experts().Expected(batch.rows, dtype)) << row_count;
    }
    cluster.ExpectNoLeak();
  }
}

TEST(DispatchSim, TwoCallsAreAwaitedInAnyOrder) {
  Cluster cluster({.link = {}});
  ASSERT_TRUE(cluster.WaitReady());
  const SimBatch first(1, 1, 40);
  const SimBatch second(2, 2, 60);
  const absl::StatusOr<DispatchTicket> a = cluster.dispatcher().Send(first.rows);
  const absl::StatusOr<DispatchTicket> b = cluster.dispatcher().Send(second.rows);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(cluster.dispatcher().usage().tickets, 2U);
  std::vector<float> out_b(second.experts.size() * kSimHidden);
  EXPECT_TRUE(cluster.dispatcher().Await(*b, out_b).ok());
  cluster.dispatcher().WaitForWork(std::chrono::milliseconds(5));
  std::vector<float> out_a(first.experts.size() * kSimHidden);
  EXPECT_TRUE(cluster.dispatcher().Await(*a, out_a).ok());
  EXPECT_EQ(out_a, cluster.experts().Expected(first.rows, Dtype::kF32));
  EXPECT_EQ(out_b, cluster.experts().Expected(second.rows, Dtype::kF32));
  cluster.ExpectNoLeak();
}

TEST(DispatchSim, ALostShardFailsTheCallAtOnceAndTheOthersGoOn) {
  Cluster cluster({.link = {}});
  ASSERT_TRUE(cluster.WaitAllConnected());
  const SimBatch batch(3, 1, 20);
  std::vector<float> out(batch.experts.size() * kSimHidden);
  cluster.network().Stop("s1");
  const absl::StatusOr<DispatchTicket> ticket = cluster.dispatcher().Send(batch.rows);
  ASSERT_TRUE(ticket.ok());
  cluster.network().After(std::chrono::milliseconds(3), [&] { cluster.Crash(1); });
  const Instant begin = cluster.network().clock().Now();
  const absl::Status status = cluster.dispatcher().Await(*ticket, out);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(status), StartsWith("shard 1 (sim:s1) lost: "));
  EXPECT_LT(ToSeconds(cluster.network().clock().Now() - begin), 0.1);
  // The other replicas take over: with two copies everything is still covered.
  ASSERT_TRUE(cluster.dispatcher().Ready().ok());
  ASSERT_TRUE(SendAndAwait(cluster, batch, out).ok());
  EXPECT_EQ(out, cluster.experts().Expected(batch.rows, Dtype::kF32));
  // And it comes back as another incarnation.
  cluster.Restart(1, 2);
  cluster.dispatcher().WaitForWork(std::chrono::milliseconds(1));
  EXPECT_TRUE(cluster.WaitAllConnected());
  cluster.ExpectNoLeak();
}

TEST(DispatchSim, WithoutReplicaSendNamesWhatIsMissing) {
  Cluster cluster({.replicas = 1, .link = {}});
  ASSERT_TRUE(cluster.WaitReady());
  cluster.Crash(1);
  cluster.dispatcher().WaitForWork(std::chrono::milliseconds(5));
  EXPECT_THAT(MessageOf(cluster.dispatcher().Ready()),
              StartsWith("no shard connected for layer 1 expert 1 (epoch 1); shard 1 (sim:s1): "));
  const SimBatch batch(3, 1, 20);
  std::vector<float> out;
  const absl::Status status = SendAndAwait(cluster, batch, out);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cluster.dispatcher().usage().tickets, 0U);
}

TEST(DispatchSim, AStoppedShardIsNamedWhenTheDeadlinePasses) {
  Cluster cluster({.link = {}});
  ASSERT_TRUE(cluster.WaitAllConnected());
  cluster.network().Stop("s2");
  const SimBatch batch(4, 2, 20);
  std::vector<float> out;
  const Instant begin = cluster.network().clock().Now();
  const absl::Status status = SendAndAwait(cluster, batch, out);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(MessageOf(status), "shard 2 (sim:s2) did not answer layer 2 within 0.500 s");
  EXPECT_NEAR(ToSeconds(cluster.network().clock().Now() - begin), 0.5, 0.01);
  // Its answers to the void call are late; it is connected to anew and serves again.
  cluster.network().Continue("s2");
  ASSERT_TRUE(cluster.WaitAllConnected());
  ASSERT_TRUE(SendAndAwait(cluster, batch, out).ok());
  EXPECT_EQ(out, cluster.experts().Expected(batch.rows, Dtype::kF32));
  EXPECT_GE(cluster.shard(2).metrics.expired.value() + cluster.shard(2).metrics.tokens.value(),
            1.0);
  cluster.ExpectNoLeak();
}

TEST(DispatchSim, AShardWithoutTheExpertSaysSoAndNeverAnswersZeros) {
  Cluster cluster({.shard_count = 1, .replicas = 1, .link = {}});
  ASSERT_TRUE(cluster.WaitReady());
  for (uint16_t expert = 0; expert < kSimShape.expert_count; ++expert) {
    cluster.shard(0).bank.Drop(LayerId(1), ExpertId(expert));
  }
  const SimBatch batch(5, 1, 4);
  std::vector<float> out;
  absl::Status status = SendAndAwait(cluster, batch, out);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(status), HasSubstr("answered unknown expert for layer 1"));
  cluster.shard(0).server.SetNewestEpoch(EpochId(9));
  status = SendAndAwait(cluster, batch, out);
  EXPECT_THAT(MessageOf(status),
              HasSubstr("answered stale epoch for layer 1 (routed by epoch 1, it knows 9)"));
  EXPECT_EQ(cluster.dispatcher().newest_epoch_seen(), EpochId(9));
  // Other layers are untouched.
  const SimBatch other(5, 2, 4);
  EXPECT_TRUE(SendAndAwait(cluster, other, out).ok());
  cluster.ExpectNoLeak();
}

TEST(DispatchSim, ShardsThatDoNotMatchAreRefusedWithTheReason) {
  Cluster cluster({.link = {}});
  ASSERT_TRUE(cluster.WaitAllConnected());
  ExpertServerOptions options = SimServerOptions(9, 1, Dtype::kF32);
  options.model_digest = "sha256:other";
  SimShard wrong(cluster.network().CreateEndpoint("wrong"), options, cluster.network().clock());
  cluster.network().SetIdleCallback("wrong", [&] { wrong.server.RunQueued(); });
  SimShard mistaken(cluster.network().CreateEndpoint("mistaken"),
                    SimServerOptions(5, 1, Dtype::kF32), cluster.network().clock());
  Placement placement = cluster.placement();
  placement.epoch = EpochId(2);
  placement.shards.push_back({.shard = ShardId(9),
                              .incarnation = Incarnation(1),
                              .address = "sim:wrong",
                              .memory_bytes = 0});
  placement.shards.push_back({.shard = ShardId(10),
                              .incarnation = Incarnation(1),
                              .address = "sim:mistaken",
                              .memory_bytes = 0});
  cluster.dispatcher().SetRoutes(std::make_shared<const RouteTable>(*RouteTable::Build(placement)));
  for (int i = 0; i < 10; ++i) {
    cluster.dispatcher().WaitForWork(std::chrono::milliseconds(5));
  }
  const auto states = cluster.dispatcher().ShardStates();
  ASSERT_EQ(states.size(), 5U);
  EXPECT_EQ(states[0].state, "ready");
  EXPECT_EQ(states[3].state,
            "refused: the shard says: peer has model digest 'sha256:tiny', this "
            "side 'sha256:other'");
  EXPECT_EQ(states[4].state, "refused: shard 5 answers where shard 10 was expected");
  EXPECT_GE(cluster.metrics().peers_refused.value(), 2.0);
}

TEST(DispatchSim, AnEpochThatDropsAShardClosesItOnceNothingWaits) {
  Cluster cluster({.link = {}});
  ASSERT_TRUE(cluster.WaitAllConnected());
  const SimBatch batch(6, 1, 30);
  std::vector<float> out(batch.experts.size() * kSimHidden);
  const absl::StatusOr<DispatchTicket> ticket = cluster.dispatcher().Send(batch.rows);
  ASSERT_TRUE(ticket.ok());
  Placement placement = SimPlacement(2, 2, 1, "sim:s");
  for (uint32_t shard = 0; shard < 2; ++shard) {
    LoadPlaced(cluster.experts(), placement, ShardId(shard), cluster.shard(shard).bank);
  }
  cluster.dispatcher().SetRoutes(std::make_shared<const RouteTable>(*RouteTable::Build(placement)));
  EXPECT_TRUE(cluster.dispatcher().Await(*ticket, out).ok());
  EXPECT_EQ(out, cluster.experts().Expected(batch.rows, Dtype::kF32));
  ASSERT_TRUE(SendAndAwait(cluster, batch, out).ok());
  EXPECT_EQ(out, cluster.experts().Expected(batch.rows, Dtype::kF32));
  cluster.ExpectNoLeak();
  EXPECT_EQ(cluster.shard(2).server.usage().routers, 0U);
  EXPECT_EQ(cluster.dispatcher().ShardStates().size(), 2U);
}

// Counts a row as answered when it has the reference's bits.
void CheckRows(const SimBatch& batch, const std::vector<float>& out,
               const std::vector<float>& expected, uint64_t step, RowChecker& rows) {
  for (size_t i = 0; i < batch.experts.size(); ++i) {
    const uint64_t key = (step << 32) | i;
    rows.Asked(key);
    const auto begin = static_cast<ptrdiff_t>(i * kSimHidden);
    if (std::equal(out.begin() + begin, out.begin() + begin + kSimHidden,
                   expected.begin() + begin)) {
      rows.Answered(key);
    }
  }
}

TEST(DispatchSim, EveryCallEndsOnceUnderFaultsOverManySeeds) {
  uint32_t completed = 0;
  uint32_t failed = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const Dtype dtype = seed % 2 == 0 ? Dtype::kF32 : Dtype::kBf16;
    Cluster cluster({.seed = seed,
                     .shard_count = static_cast<uint32_t>(2 + seed % 3),
                     .dtype = dtype,
                     .link = {.loss = 0.01F, .duplication = 0.05F, .reordering = 0.1F}});
    Rng rng(seed);
    RowChecker rows;
    uint64_t incarnation = 1;
    for (uint32_t step = 0; step < 12; ++step) {
      if (!cluster.WaitReady()) {
        ADD_FAILURE() << "not ready: " << cluster.dispatcher().Ready();
        break;
      }
      const bool crash = rng.Chance(0.15F);
      if (crash) {
        cluster.network().After(std::chrono::microseconds(20), [&cluster] { cluster.Crash(1); });
      }
      const SimBatch batch(Mix64(seed) + step, static_cast<uint16_t>(1 + step % 2),
                           static_cast<uint32_t>(1 + rng.Below(200)));
      std::vector<float> out;
      const Instant begin = cluster.network().clock().Now();
      const absl::Status status = SendAndAwait(cluster, batch, out);
      EXPECT_LE(ToSeconds(cluster.network().clock().Now() - begin), 0.501);
      if (status.ok()) {
        ++completed;
        CheckRows(batch, out, cluster.experts().Expected(batch.rows, dtype), step, rows);
      } else {
        ++failed;
        EXPECT_THAT(status.code(),
                    AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded));
        EXPECT_THAT(MessageOf(status), HasSubstr("shard "));
      }
      if (crash) {
        cluster.network().RunFor(std::chrono::milliseconds(1));
        cluster.Restart(1, ++incarnation);
      }
    }
    EXPECT_EQ(rows.Violations(), "");
    cluster.ExpectNoLeak();
  }
  EXPECT_GT(completed, 400U);
  EXPECT_GT(failed, 20U);
}

TEST(DispatchSim, TheSameSeedGivesTheSameEvents) {
  const auto run = [] {
    Cluster cluster({.seed = 5, .link = {.loss = 0.02F, .duplication = 0.1F, .reordering = 0.2F}});
    EXPECT_TRUE(cluster.WaitReady());
    std::vector<float> out;
    for (uint64_t step = 0; step < 5; ++step) {
      SendAndAwait(cluster, SimBatch(step, 1, 50), out).IgnoreError();
      EXPECT_TRUE(cluster.WaitReady());
    }
    return cluster.network().trace_hash();
  };
  EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace switchyard
