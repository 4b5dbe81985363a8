#include "libs/transport/testing/conformance.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "libs/base/rng.h"
#include "libs/transport/testing/recording_handler.h"

namespace switchyard {
namespace {

constexpr Duration kPumpWait = std::chrono::microseconds(100);
constexpr int kPumpRoundsMax = 50'000;
constexpr TransportLimits kSmall = {
    .message_bytes_max = 256 * 1024, .queued_bytes_max_per_peer = 1024 * 1024, .peers_max = 4};

std::vector<std::byte> Pattern(size_t size, uint64_t seed) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = std::byte(static_cast<uint8_t>(Mix64(seed + i / 8) >> (8 * (i % 8))));
  }
  return bytes;
}

SendResult SendOne(Transport& transport, PeerHandle peer, const std::vector<std::byte>& bytes,
                   uint64_t ticket) {
  const std::span<const std::byte> part(bytes);
  return transport.Send(peer, {&part, 1}, SendTicket(ticket));
}

// Two transports, connected by Connect(); pumped in turn by one thread.
struct Pair {
  Pair(const ConformanceCase& form, const TransportLimits& limits)
      : world(form.make(limits)), client(world->Create("client")), server(world->Create("server")) {
    client->SetHandler(&at_client);
    server->SetHandler(&at_server);
  }

  bool Pump(const std::function<bool()>& done) {
    for (int round = 0; round < kPumpRoundsMax; ++round) {
      if (done()) {
        return true;
      }
      client->Wait(kPumpWait);
      server->Wait(kPumpWait);
    }
    return done();
  }

  void Connect() {
    const absl::StatusOr<std::string> address = server->Listen(world->listen_address());
    ASSERT_TRUE(address.ok()) << address.status();
    const absl::StatusOr<PeerHandle> peer = client->Connect(*address);
    ASSERT_TRUE(peer.ok()) << peer.status();
    ASSERT_TRUE(Pump([&] { return !at_client.up.empty() && !at_server.up.empty(); }))
        << (at_client.down.empty() ? absl::OkStatus() : at_client.down[0].second);
    EXPECT_EQ(at_client.up[0], std::make_pair(*peer, false));
    EXPECT_TRUE(at_server.up[0].second);
    to_server = *peer;
    to_client = at_server.up[0].first;
  }

  RecordingHandler at_client;
  RecordingHandler at_server;
  std::unique_ptr<ConformanceWorld> world;
  std::unique_ptr<Transport> client;
  std::unique_ptr<Transport> server;
  PeerHandle to_server;
  PeerHandle to_client;
};

}  // namespace

TEST_P(TransportConformance, SendsEverySizeBothWaysWholeAndAligned) {
  Pair pair(GetParam(), {});
  ASSERT_NO_FATAL_FAILURE(pair.Connect());
  const std::array<size_t, 10> sizes = {0, 1, 16, 100, 4096, 8193, 14336, 65537, 114688, 262144};
  for (size_t i = 0; i < sizes.size(); ++i) {
    SCOPED_TRACE(sizes[i]);
    const std::vector<std::byte> there = Pattern(sizes[i], i);
    const std::vector<std::byte> back = Pattern(sizes[i], 100 + i);
    ASSERT_EQ(SendOne(*pair.client, pair.to_server, there, i), SendResult::kAccepted);
    ASSERT_EQ(SendOne(*pair.server, pair.to_client, back, i), SendResult::kAccepted);
    ASSERT_TRUE(pair.Pump([&] {
      return pair.at_server.messages.size() == i + 1 && pair.at_client.messages.size() == i + 1 &&
             pair.at_client.done.size() == i + 1 && pair.at_server.done.size() == i + 1;
    }));
    EXPECT_TRUE(pair.at_server.messages[i].bytes == there);
    EXPECT_TRUE(pair.at_client.messages[i].bytes == back);
    EXPECT_TRUE(pair.at_server.messages[i].aligned || there.empty());
    EXPECT_EQ(pair.at_client.done[i].ticket, SendTicket(i));
    EXPECT_TRUE(pair.at_client.done[i].status.ok()) << pair.at_client.done[i].status;
  }
  EXPECT_EQ(pair.client->queued_bytes(), 0U);
  EXPECT_EQ(pair.client->stats().messages_sent, sizes.size());
  EXPECT_EQ(pair.client->stats().messages_received, sizes.size());
  EXPECT_EQ(pair.client->stats().bytes_sent, pair.server->stats().bytes_received);
}

TEST_P(TransportConformance, KeepsOrderOfMixedSizes) {
  Pair pair(GetParam(), {});
  ASSERT_NO_FATAL_FAILURE(pair.Connect());
  constexpr uint64_t kCount = 400;
  std::vector<std::vector<std::byte>> sent;
  for (uint64_t i = 0; i < kCount; ++i) {
    sent.push_back(Pattern(Mix64(i) % (i % 7 == 0 ? 100'000 : 3'000), i));
  }
  uint64_t next = 0;
  ASSERT_TRUE(pair.Pump([&] {
    while (next < kCount &&
           SendOne(*pair.client, pair.to_server, sent[next], next) == SendResult::kAccepted) {
      ++next;
    }
    return pair.at_server.messages.size() >= kCount && pair.at_client.done.size() >= kCount;
  }));
  for (uint64_t i = 0; i < kCount; ++i) {
    ASSERT_TRUE(pair.at_server.messages[i].bytes == sent[i]) << "message " << i;
  }
}

TEST_P(TransportConformance, ConcatenatesSixteenParts) {
  Pair pair(GetParam(), {});
  ASSERT_NO_FATAL_FAILURE(pair.Connect());
  const std::vector<std::byte> whole = Pattern(100'000, 7);
  std::vector<std::span<const std::byte>> parts;
  size_t offset = 0;
  for (size_t i = 0; i < 15; ++i) {
    const size_t size = i % 4 == 3 ? 0 : 16 + i * 777;
    parts.push_back(std::span(whole).subspan(offset, size));
    offset += size;
  }
  parts.push_back(std::span(whole).subspan(offset));
  ASSERT_EQ(pair.client->Send(pair.to_server, parts, SendTicket(1)), SendResult::kAccepted);
  ASSERT_TRUE(pair.Pump([&] { return pair.at_server.messages.size() == 1; }));
  EXPECT_TRUE(pair.at_server.messages[0].bytes == whole);
}

TEST_P(TransportConformance, RefusesSendsToUnknownAndClosedPeers) {
  Pair pair(GetParam(), {});
  ASSERT_NO_FATAL_FAILURE(pair.Connect());
  const std::vector<std::byte> bytes = Pattern(10, 1);
  EXPECT_EQ(SendOne(*pair.client, PeerHandle(999), bytes, 1), SendResult::kNoPeer);
  pair.client->Close(PeerHandle(999));
  pair.client->Close(pair.to_server);
  pair.client->Close(pair.to_server);
  EXPECT_EQ(SendOne(*pair.client, pair.to_server, bytes, 2), SendResult::kNoPeer);
  ASSERT_TRUE(
      pair.Pump([&] { return !pair.at_client.down.empty() && !pair.at_server.down.empty(); }));
  EXPECT_EQ(pair.at_client.down.size(), 1U);
  EXPECT_EQ(pair.at_client.down[0].first, pair.to_server);
  EXPECT_EQ(pair.at_server.down[0].first, pair.to_client);
  EXPECT_FALSE(pair.at_server.down[0].second.ok());
  EXPECT_EQ(pair.client->peer_count(), 0U);
  EXPECT_EQ(pair.server->peer_count(), 0U);
  EXPECT_TRUE(pair.at_client.done.empty());
}

TEST_P(TransportConformance, BoundsWhatAStalledReceiverLeavesQueuedAndCloseReturnsIt) {
  Pair pair(GetParam(), kSmall);
  ASSERT_NO_FATAL_FAILURE(pair.Connect());
  const std::vector<std::byte> bytes = Pattern(200'000, 3);
  pair.world->Stall("server");
  // The kernel takes some megabytes first.
  uint64_t accepted = 0;
  for (int refused_in_a_row = 0; refused_in_a_row < 100 && accepted < 1000;) {
    const SendResult result = SendOne(*pair.client, pair.to_server, bytes, accepted);
    ASSERT_NE(result, SendResult::kNoPeer);
    accepted += result == SendResult::kAccepted ? 1 : 0;
    refused_in_a_row = result == SendResult::kAccepted ? 0 : refused_in_a_row + 1;
    pair.client->Wait(kPumpWait);
  }
  ASSERT_LT(accepted, 1000U);
  EXPECT_LE(pair.client->queued_bytes(), kSmall.queued_bytes_max_per_peer);
  EXPECT_GE(pair.client->stats().backpressure, 100U);
  pair.client->Close(pair.to_server);
  ASSERT_TRUE(pair.Pump([&] { return !pair.at_client.down.empty(); }));
  EXPECT_EQ(pair.at_client.done.size(), accepted);
  EXPECT_EQ(pair.client->queued_bytes(), 0U);
  size_t failed = 0;
  for (uint64_t ticket = 0; ticket < accepted; ++ticket) {
    const auto matches = [&](const auto& done) { return done.ticket == SendTicket(ticket); };
    EXPECT_EQ(std::count_if(pair.at_client.done.begin(), pair.at_client.done.end(), matches), 1);
  }
  for (const auto& done : pair.at_client.done) {
    failed += done.status.ok() ? 0 : 1;
  }
  EXPECT_GT(failed, 0U);
}

TEST_P(TransportConformance, EndsAConnectThatNobodyAnswersWithPeerDown) {
  Pair pair(GetParam(), {});
  const absl::StatusOr<PeerHandle> peer = pair.client->Connect(pair.world->dead_address());
  ASSERT_TRUE(peer.ok()) << peer.status();
  ASSERT_TRUE(pair.Pump([&] { return !pair.at_client.down.empty(); }));
  EXPECT_EQ(pair.at_client.down[0].first, *peer);
  EXPECT_TRUE(pair.at_client.up.empty());
  EXPECT_EQ(pair.client->peer_count(), 0U);
}

TEST_P(TransportConformance, RefusesAddressesThatAreNone) {
  Pair pair(GetParam(), {});
  EXPECT_EQ(pair.client->Connect("nonsense").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pair.client->peer_count(), 0U);
}

TEST_P(TransportConformance, LimitsPeers) {
  Pair pair(GetParam(), kSmall);
  ASSERT_NO_FATAL_FAILURE(pair.Connect());
  for (size_t i = 1; i < kSmall.peers_max; ++i) {
    EXPECT_TRUE(pair.client->Connect(pair.world->dead_address()).ok());
  }
  EXPECT_EQ(pair.client->Connect(pair.world->dead_address()).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_P(TransportConformance, WakeEndsTheNextWait) {
  Pair pair(GetParam(), {});
  pair.client->Wake();
  EXPECT_FALSE(pair.client->Wait(std::chrono::hours(1)));
}

TEST_P(TransportConformance, LetsAHandlerSendAndCloseFromInside) {
  Pair pair(GetParam(), {});
  ASSERT_NO_FATAL_FAILURE(pair.Connect());
  const std::vector<std::byte> bytes = Pattern(5'000, 9);
  const std::vector<std::byte> answer = Pattern(50'000, 10);
  pair.at_server.on_message = [&](PeerHandle peer, std::span<const std::byte>) {
    EXPECT_EQ(SendOne(*pair.server, peer, answer, 1), SendResult::kAccepted);
  };
  pair.at_client.on_message = [&](PeerHandle peer, std::span<const std::byte>) {
    pair.client->Close(peer);
  };
  ASSERT_EQ(SendOne(*pair.client, pair.to_server, bytes, 1), SendResult::kAccepted);
  ASSERT_TRUE(
      pair.Pump([&] { return !pair.at_client.down.empty() && !pair.at_server.down.empty(); }));
  ASSERT_EQ(pair.at_client.messages.size(), 1U);
  EXPECT_TRUE(pair.at_client.messages[0].bytes == answer);
}

TEST_P(TransportConformance, ConnectsAgainAfterClose) {
  Pair pair(GetParam(), {});
  const absl::StatusOr<std::string> address = pair.server->Listen(pair.world->listen_address());
  ASSERT_TRUE(address.ok()) << address.status();
  for (size_t round = 1; round <= 3; ++round) {
    const absl::StatusOr<PeerHandle> peer = pair.client->Connect(*address);
    ASSERT_TRUE(peer.ok());
    ASSERT_TRUE(pair.Pump(
        [&] { return pair.at_client.up.size() == round && pair.at_server.up.size() == round; }));
    EXPECT_EQ(pair.at_client.up.back().first, *peer);
    pair.client->Close(*peer);
    ASSERT_TRUE(pair.Pump([&] {
      return pair.at_client.down.size() == round && pair.at_server.down.size() == round;
    }));
  }
  EXPECT_NE(pair.at_client.up[0].first, pair.at_client.up[1].first);
}

TEST_P(TransportConformance, ShowsADestroyedEndAsPeerDown) {
  Pair pair(GetParam(), {});
  ASSERT_NO_FATAL_FAILURE(pair.Connect());
  pair.client.reset();
  for (int round = 0; round < kPumpRoundsMax && pair.at_server.down.empty(); ++round) {
    pair.server->Wait(kPumpWait);
  }
  EXPECT_EQ(pair.at_server.down.size(), 1U);
  EXPECT_TRUE(pair.at_client.down.empty());
}

}  // namespace switchyard
