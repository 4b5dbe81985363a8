#include "libs/transport/sim_transport.h"

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "libs/base/rng.h"
#include "libs/transport/testing/recording_handler.h"
#include "libs/transport/testing/row_checker.h"

namespace switchyard {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

SendResult SendKey(Transport& transport, PeerHandle peer, const uint64_t& key) {
  const std::span<const std::byte> part = std::as_bytes(std::span(&key, 1));
  return transport.Send(peer, {&part, 1}, SendTicket(key));
}

uint64_t KeyOf(std::span<const std::byte> message) {
  uint64_t key = 0;
  std::memcpy(&key, message.data(), sizeof(key));
  return key;
}

// A client and an echoing server whose loop is the network's idle callback.
struct EchoWorld {
  explicit EchoWorld(uint64_t seed, SimLinkOptions link = {}, TransportLimits limits = {})
      : network(seed, link, limits), client(network.CreateEndpoint("client")) {
    client->SetHandler(&at_client);
    StartServer();
    const absl::StatusOr<PeerHandle> connecting = client->Connect("sim:server");
    EXPECT_TRUE(connecting.ok());
    peer = *connecting;
    while (at_client.up.empty() && at_client.down.empty()) {
      client->Wait(seconds(1));
    }
  }

  ~EchoWorld() {
    client.reset();
    server.reset();
  }

  void StartServer() {
    server.reset();
    server = network.CreateEndpoint("server");
    server->SetHandler(&at_server);
    EXPECT_TRUE(server->Listen("sim:").ok());
    at_server.on_message = [this](PeerHandle from, std::span<const std::byte> message) {
      inbox.emplace_back(from, KeyOf(message));
    };
    network.SetIdleCallback("server", [this] {
      for (const auto& [from, key] : inbox) {
        SendKey(*server, from, key);
      }
      inbox.clear();
    });
  }

  RecordingHandler at_client;
  RecordingHandler at_server;
  SimNetwork network;
  std::unique_ptr<Transport> client;
  std::unique_ptr<Transport> server;
  std::vector<std::pair<PeerHandle, uint64_t>> inbox;
  PeerHandle peer;
};

// Asks for `count` rows until each is answered, again after 1 ms without an answer.
std::string AskAll(EchoWorld& world, uint64_t count) {
  RowChecker checker;
  for (uint64_t key = 0; key < count; ++key) {
    checker.Asked(key);
  }
  std::vector<bool> answered(count);
  size_t seen = 0;
  for (int round = 0; round < 1000 && !checker.Unanswered().empty(); ++round) {
    for (const uint64_t key : checker.Unanswered()) {
      SendKey(*world.client, world.peer, key);
    }
    const Instant until = world.network.clock().Now() + milliseconds(1);
    while (world.network.clock().Now() < until) {
      world.client->Wait(until - world.network.clock().Now());
    }
    for (; seen < world.at_client.messages.size(); ++seen) {
      const uint64_t key = KeyOf(world.at_client.messages[seen].bytes);
      if (!answered[key]) {  // What a dispatcher does: the first answer counts.
        answered[key] = true;
        checker.Answered(key);
      }
    }
  }
  return checker.Violations();
}

constexpr SimLinkOptions kBadLink = {.loss = 0.2F, .duplication = 0.2F, .reordering = 0.3F};

TEST(SimNetwork, WaitRunsTheOtherEndpointsLoop) {
  EchoWorld world(1);
  ASSERT_EQ(SendKey(*world.client, world.peer, 42), SendResult::kAccepted);
  const Instant start = world.network.clock().Now();
  while (world.at_client.messages.empty()) {
    ASSERT_TRUE(world.client->Wait(milliseconds(1)));
  }
  EXPECT_EQ(KeyOf(world.at_client.messages[0].bytes), 42U);
  const Duration took = world.network.clock().Now() - start;
  EXPECT_GE(took, microseconds(20));
  EXPECT_LE(took, microseconds(100));
}

TEST(SimNetwork, WaitAdvancesTheClockByItsTimeoutWhenNothingHappens) {
  SimNetwork network(1);
  const auto alone = network.CreateEndpoint("alone");
  const Instant start = network.clock().Now();
  EXPECT_FALSE(alone->Wait(milliseconds(7)));
  EXPECT_EQ(network.clock().Now() - start, milliseconds(7));
}

TEST(SimNetwork, ReplaysTheSameTraceForTheSameSeedAndAnotherForAnother) {
  const auto trace = [](uint64_t seed) {
    EchoWorld world(seed, kBadLink);
    EXPECT_EQ(AskAll(world, 200), "");
    return std::make_pair(world.network.trace_hash(), world.network.event_count());
  };
  EXPECT_EQ(trace(7), trace(7));
  EXPECT_NE(trace(7).first, trace(8).first);
}

TEST(SimNetwork, AnswersEveryRowOnceOverBadLinksForManySeeds) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(seed);
    EchoWorld world(seed, kBadLink);
    EXPECT_EQ(AskAll(world, 50), "");
  }
}

TEST(SimNetwork, LosesDuplicatesAndReordersWhenAsked) {
  EchoWorld world(3, {.loss = 0.2F, .duplication = 0.2F, .reordering = 0.3F});
  for (uint64_t key = 0; key < 500; ++key) {
    SendKey(*world.client, world.peer, key);
  }
  world.network.RunFor(seconds(1));
  RowChecker checker;
  bool reordered = false;
  std::optional<uint64_t> last;
  for (uint64_t key = 0; key < 500; ++key) {
    checker.Asked(key);
  }
  for (const auto& message : world.at_server.messages) {
    const uint64_t key = KeyOf(message.bytes);
    checker.Answered(key);
    reordered |= last.has_value() && key < *last;
    last = key;
  }
  EXPECT_GT(checker.Unanswered().size(), 50U);
  EXPECT_GT(checker.AnsweredTwice().size(), 30U);
  EXPECT_TRUE(checker.NeverAsked().empty());
  EXPECT_TRUE(reordered);
  EXPECT_EQ(world.at_client.done.size(), 500U);
}

TEST(SimNetwork, PartitionDropsSilentlyAndHealsWithTheConnectionUp) {
  EchoWorld world(1);
  world.network.Partition("client", "server");
  SendKey(*world.client, world.peer, 1);
  world.network.RunFor(seconds(10));
  EXPECT_TRUE(world.at_server.messages.empty());
  EXPECT_TRUE(world.at_client.down.empty());
  world.network.Heal("server", "client");
  EXPECT_EQ(AskAll(world, 3), "");
}

TEST(SimNetwork, ConnectIntoAPartitionTimesOut) {
  EchoWorld world(1);
  world.network.Partition("client", "server");
  ASSERT_TRUE(world.client->Connect("sim:server").ok());
  world.network.RunFor(seconds(10));
  ASSERT_EQ(world.at_client.down.size(), 1U);
  EXPECT_EQ(world.at_client.down[0].second.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(SimNetwork, StoppedEndpointAnswersOnceItContinues) {
  EchoWorld world(1);
  world.network.Stop("server");
  SendKey(*world.client, world.peer, 1);
  world.network.RunFor(seconds(2));
  EXPECT_TRUE(world.at_client.done.empty());
  EXPECT_EQ(world.client->queued_bytes(), sizeof(uint64_t));
  world.network.Continue("server");
  world.network.RunFor(milliseconds(1));
  EXPECT_EQ(world.at_client.messages.size(), 1U);
  EXPECT_EQ(world.client->queued_bytes(), 0U);
}

TEST(SimNetwork, CrashShowsAsPeerDownAndReturnsTicketsAndARestartAnswers) {
  EchoWorld world(1);
  world.network.Stop("server");
  SendKey(*world.client, world.peer, 1);
  world.network.RunFor(milliseconds(1));
  world.network.Crash("server");
  world.network.RunFor(milliseconds(1));
  ASSERT_EQ(world.at_client.down.size(), 1U);
  ASSERT_EQ(world.at_client.done.size(), 1U);
  EXPECT_FALSE(world.at_client.done[0].status.ok());
  EXPECT_FALSE(world.server->Listen("sim:").ok());
  world.StartServer();
  world.peer = world.client->Connect("sim:server").value();
  world.network.RunFor(milliseconds(1));
  EXPECT_EQ(AskAll(world, 3), "");
}

TEST(SimNetwork, CrashBehindAPartitionIsLearntFromTheNextMessageAfterHealing) {
  EchoWorld world(1);
  world.network.Partition("client", "server");
  world.network.Crash("server");
  world.network.RunFor(seconds(1));
  EXPECT_TRUE(world.at_client.down.empty());
  world.network.Heal("client", "server");
  SendKey(*world.client, world.peer, 1);
  world.network.RunFor(seconds(1));
  EXPECT_EQ(world.at_client.down.size(), 1U);
}

TEST(SimNetwork, RunsScheduledFaultsInTheMiddleOfAWait) {
  EchoWorld world(1);
  world.network.After(milliseconds(5), [&] { world.network.Crash("server"); });
  const Instant start = world.network.clock().Now();
  ASSERT_TRUE(world.client->Wait(seconds(1)));
  EXPECT_EQ(world.at_client.down.size(), 1U);
  EXPECT_GE(world.network.clock().Now() - start, milliseconds(5));
  EXPECT_LE(world.network.clock().Now() - start, milliseconds(6));
}

TEST(SimNetworkDeathTest, WaitInsideACallbackEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EchoWorld world(1);
  world.at_client.on_message = [&](PeerHandle, std::span<const std::byte>) {
    world.client->Wait(milliseconds(1));
  };
  EXPECT_DEATH(
      {
        SendKey(*world.client, world.peer, 1);
        world.network.RunFor(milliseconds(1));
      },
      "running_");
}

}  // namespace
}  // namespace switchyard
