#include "libs/transport/inproc_transport.h"

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "libs/base/clock.h"
#include "libs/transport/testing/faulty_transport.h"
#include "libs/transport/testing/recording_handler.h"
#include "libs/transport/testing/row_checker.h"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

uint64_t KeyOf(std::span<const std::byte> message) {
  uint64_t key = 0;
  std::memcpy(&key, message.data(), sizeof(key));
  return key;
}

SendResult SendBytes(Transport& transport, PeerHandle peer, std::span<const std::byte> bytes) {
  return transport.Send(peer, {&bytes, 1}, SendTicket(1));
}

// Echoes in a thread of its own until it is destroyed.
class EchoThread {
 public:
  explicit EchoThread(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {
    handler_.on_message = [this](PeerHandle peer, std::span<const std::byte> message) {
      waiting_.emplace_back(peer, std::vector<std::byte>(message.begin(), message.end()));
    };
    transport_->SetHandler(&handler_);
    address_ = transport_->Listen("127.0.0.1:0").value();
    thread_ = std::thread([this] { Run(); });
  }

  ~EchoThread() {
    stop_.store(true);
    transport_->Wake();
    thread_.join();
  }

  const std::string& address() const { return address_; }

 private:
  void Run() {
    while (!stop_.load()) {
      transport_->Wait(seconds(10));
      for (const auto& [peer, bytes] : std::exchange(waiting_, {})) {
        SendBytes(*transport_, peer, bytes);
      }
    }
  }

  RecordingHandler handler_;
  std::unique_ptr<Transport> transport_;
  std::vector<std::pair<PeerHandle, std::vector<std::byte>>> waiting_;
  std::string address_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST(InprocTransport, EchoesBetweenManyThreads) {
  InprocNetwork network;
  EchoThread echo(network.CreateEndpoint("echo"));
  std::vector<std::thread> clients;
  std::atomic<uint64_t> answered = 0;
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([&, client] {
      RecordingHandler seen;
      const auto transport = network.CreateEndpoint("client" + std::to_string(client));
      transport->SetHandler(&seen);
      const PeerHandle peer = transport->Connect(echo.address()).value();
      while (seen.up.empty()) {
        transport->Wait(seconds(10));
      }
      for (uint64_t key = 0; key < 200; ++key) {
        SendBytes(*transport, peer, std::as_bytes(std::span(&key, 1)));
        while (seen.messages.size() <= key) {
          transport->Wait(seconds(10));
        }
        answered += KeyOf(seen.messages[key].bytes) == key ? 1 : 0;
      }
    });
  }
  for (std::thread& client : clients) {
    client.join();
  }
  EXPECT_EQ(answered.load(), 800U);
}

TEST(InprocTransport, WakeFromAnotherThreadEndsASleep) {
  InprocNetwork network;
  const auto transport = network.CreateEndpoint("sleeper");
  std::thread waker([&] { transport->Wake(); });
  EXPECT_FALSE(transport->Wait(std::chrono::hours(1)));
  waker.join();
}

TEST(InprocTransport, SurvivesThePeerClosingWhileBothSend) {
  InprocNetwork network({.queued_bytes_max_per_peer = 4096 * 4096});
  EchoThread echo(network.CreateEndpoint("echo"));
  RecordingHandler seen;
  const auto transport = network.CreateEndpoint("client");
  transport->SetHandler(&seen);
  const std::vector<std::byte> bytes(1000);
  for (size_t round = 1; round <= 20; ++round) {
    const PeerHandle peer = transport->Connect(echo.address()).value();
    while (seen.up.size() < round) {
      transport->Wait(seconds(10));
    }
    seen.done.clear();
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(SendBytes(*transport, peer, bytes), SendResult::kAccepted);
    }
    transport->Close(peer);
    while (seen.down.size() < round) {
      transport->Wait(seconds(10));
    }
    EXPECT_EQ(seen.done.size(), 50U);
    EXPECT_EQ(transport->queued_bytes(), 0U);
  }
}

// Asks through a transport that harms a fifth of all messages, and asks again until answered.
TEST(FaultyTransport, EveryRowIsAnsweredOnceDespiteEveryFault) {
  constexpr uint64_t kSeed = 11;
  SCOPED_TRACE(kSeed);
  InprocNetwork network;
  EchoThread echo(network.CreateEndpoint("echo"));
  ManualClock clock;
  FaultyTransport faulty(network.CreateEndpoint("client"),
                         {.drop = 0.1F, .duplicate = 0.1F, .delay = 0.1F, .reorder = 0.1F}, kSeed,
                         clock);
  RecordingHandler seen;
  faulty.SetHandler(&seen);
  const PeerHandle peer = faulty.Connect(echo.address()).value();
  while (seen.up.empty()) {
    faulty.Wait(seconds(10));
  }
  RowChecker checker;
  for (uint64_t key = 0; key < 300; ++key) {
    checker.Asked(key);
  }
  std::map<uint64_t, bool> answered;
  size_t next = 0;
  uint64_t sent = 0;
  for (int round = 0; round < 500 && !checker.Unanswered().empty(); ++round) {
    for (const uint64_t key : checker.Unanswered()) {
      EXPECT_EQ(SendBytes(faulty, peer, std::as_bytes(std::span(&key, 1))), SendResult::kAccepted);
      ++sent;
    }
    clock.Advance(milliseconds(2));
    while (faulty.Wait(milliseconds(5))) {
    }
    for (; next < seen.messages.size(); ++next) {
      const uint64_t key = KeyOf(seen.messages[next].bytes);
      if (!std::exchange(answered[key], true)) {
        checker.Answered(key);
      }
    }
  }
  EXPECT_EQ(checker.Violations(), "");
  EXPECT_EQ(seen.done.size(), sent);
  EXPECT_GT(faulty.counts().dropped, 0U);
  EXPECT_GT(faulty.counts().duplicated, 0U);
  EXPECT_GT(faulty.counts().delayed, 0U);
  EXPECT_GT(faulty.counts().reordered, 0U);
  faulty.SetHandler(nullptr);
}

TEST(FaultyTransport, FlipsOneBitOfACorruptedMessage) {
  InprocNetwork network;
  ManualClock clock;
  FaultyTransport faulty(network.CreateEndpoint("client"), {.corrupt = 1}, 5, clock);
  RecordingHandler at_client;
  RecordingHandler at_server;
  faulty.SetHandler(&at_client);
  const auto server = network.CreateEndpoint("server");
  server->SetHandler(&at_server);
  const PeerHandle peer = faulty.Connect(server->Listen("").value()).value();
  faulty.Progress();
  const uint64_t zero = 0;
  ASSERT_EQ(SendBytes(faulty, peer, std::as_bytes(std::span(&zero, 1))), SendResult::kAccepted);
  server->Progress();
  ASSERT_EQ(at_server.messages.size(), 1U);
  EXPECT_EQ(std::popcount(KeyOf(at_server.messages[0].bytes)), 1);
  EXPECT_EQ(faulty.counts().corrupted, 1U);
  server->SetHandler(nullptr);
  faulty.SetHandler(nullptr);
}

TEST(RowChecker, NamesWhatBreaksTheInvariant) {
  RowChecker checker;
  checker.Asked(1);
  checker.Asked(2);
  checker.Answered(2);
  EXPECT_EQ(checker.Unanswered(), std::vector<uint64_t>{1});
  checker.Answered(1);
  EXPECT_EQ(checker.Violations(), "");
  checker.Answered(2);
  checker.Answered(3);
  EXPECT_EQ(checker.AnsweredTwice(), std::vector<uint64_t>{2});
  EXPECT_EQ(checker.NeverAsked(), std::vector<uint64_t>{3});
  EXPECT_NE(checker.Violations(), "");
}

}  // namespace
}  // namespace switchyard
