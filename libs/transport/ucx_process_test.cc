// UCX between real processes: death, standstill and restart of the other side.
#include <algorithm>
#include <csignal>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "libs/base/clock.h"
#include "libs/transport/testing/child_process.h"
#include "libs/transport/testing/recording_handler.h"
#include "libs/transport/ucx_transport.h"

namespace switchyard {
namespace {

constexpr Duration kPatience = std::chrono::seconds(20);  // Only a broken build waits so long.
constexpr Duration kTick = std::chrono::milliseconds(1);

class UcxProcess : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const UcxOptions::Mode mode =
        GetParam() == "tcp" ? UcxOptions::Mode::kTcp : UcxOptions::Mode::kShm;
    auto transport =
        CreateUcxTransport({.mode = mode}, {.queued_bytes_max_per_peer = 2 * 1024 * 1024});
    ASSERT_TRUE(transport.ok()) << transport.status();
    transport_ = *std::move(transport);
    transport_->SetHandler(&seen_);
  }

  std::unique_ptr<ChildProcess> StartEcho(const std::string& address) {
    return std::make_unique<ChildProcess>(SY_UCX_ECHO_PROGRAM, GetParam(), address);
  }

  bool WaitFor(const std::function<bool()>& done) {
    const Instant deadline = clock_.Now() + kPatience;
    while (!done() && clock_.Now() < deadline) {
      transport_->Wait(kTick);
    }
    return done();
  }

  void Connect(const std::string& address) {
    const size_t ups = seen_.up.size();
    const absl::StatusOr<PeerHandle> peer = transport_->Connect(address);
    ASSERT_TRUE(peer.ok()) << peer.status();
    ASSERT_TRUE(WaitFor([&] { return seen_.up.size() > ups; }));
    peer_ = *peer;
  }

  SendResult Send() {
    const std::span<const std::byte> part(row_);
    const SendResult result = transport_->Send(peer_, {&part, 1}, SendTicket(next_ticket_));
    next_ticket_ += result == SendResult::kAccepted ? 1 : 0;
    return result;
  }

  // Every accepted ticket came back, and none twice.
  void ExpectEveryTicketOnce() {
    std::set<SendTicket> tickets;
    for (const RecordingHandler::Done& done : seen_.done) {
      EXPECT_TRUE(tickets.insert(done.ticket).second);
    }
    EXPECT_EQ(tickets.size(), next_ticket_ - 1);
    EXPECT_EQ(transport_->queued_bytes(), 0U);
  }

  SteadyClock clock_;
  RecordingHandler seen_;
  std::unique_ptr<Transport> transport_;
  PeerHandle peer_;
  uint64_t next_ticket_ = 1;
  const std::vector<std::byte> row_ = std::vector<std::byte>(14'336, std::byte(7));
};

TEST_P(UcxProcess, ShowsAKilledPeerAndReturnsEveryTicket) {
  auto echo = StartEcho("127.0.0.1:0");
  ASSERT_NO_FATAL_FAILURE(Connect(echo->first_line()));
  for (int i = 0; i < 100; ++i) {
    Send();
  }
  ASSERT_TRUE(WaitFor([&] { return seen_.messages.size() >= 10; }));
  echo->Kill();
  const Instant killed = clock_.Now();
  ASSERT_TRUE(WaitFor([&] { return !seen_.down.empty(); }));
  // 1 to 10 ms were measured; the bound allows for a machine shared by many.
  EXPECT_LT(ToSeconds(clock_.Now() - killed), 3.0);
  EXPECT_EQ(seen_.down[0].first, peer_);
  ExpectEveryTicketOnce();
  EXPECT_EQ(Send(), SendResult::kNoPeer);
}

TEST_P(UcxProcess, BoundsTheQueueOfAStoppedPeerAndCloseReturnsTickets) {
  auto echo = StartEcho("127.0.0.1:0");
  ASSERT_NO_FATAL_FAILURE(Connect(echo->first_line()));
  echo->Signal(SIGSTOP);
  int refused_in_a_row = 0;
  for (int i = 0; i < 100'000 && refused_in_a_row < 200; ++i) {
    refused_in_a_row = Send() == SendResult::kBackpressure ? refused_in_a_row + 1 : 0;
    if (refused_in_a_row > 0) {
      transport_->Wait(std::chrono::microseconds(100));
    }
    ASSERT_LE(transport_->queued_bytes(), 2U * 1024 * 1024);
  }
  ASSERT_EQ(refused_in_a_row, 200);
  EXPECT_TRUE(seen_.down.empty());
  const Instant closed = clock_.Now();
  transport_->Close(peer_);
  ASSERT_TRUE(WaitFor([&] { return !seen_.down.empty(); }));
  EXPECT_LT(ToSeconds(clock_.Now() - closed), 3.0);
  ExpectEveryTicketOnce();
  EXPECT_TRUE(std::any_of(seen_.done.begin(), seen_.done.end(),
                          [](const auto& done) { return !done.status.ok(); }));
}

TEST_P(UcxProcess, ReconnectsToARestartedPeerAtTheSameAddress) {
  auto echo = StartEcho("127.0.0.1:0");
  const std::string address = echo->first_line();
  ASSERT_NO_FATAL_FAILURE(Connect(address));
  Send();
  ASSERT_TRUE(WaitFor([&] { return seen_.messages.size() == 1; }));
  echo->Kill();
  ASSERT_TRUE(WaitFor([&] { return seen_.down.size() == 1; }));
  echo = StartEcho(address);
  ASSERT_EQ(echo->first_line(), address);
  ASSERT_NO_FATAL_FAILURE(Connect(address));
  ASSERT_EQ(Send(), SendResult::kAccepted);
  ASSERT_TRUE(WaitFor([&] { return seen_.messages.size() == 2; }));
  EXPECT_TRUE(seen_.messages[1].bytes == row_);
  EXPECT_EQ(seen_.messages[1].peer, peer_);
}

TEST_P(UcxProcess, SaysWhatItTravelsOn) {
  auto echo = StartEcho("127.0.0.1:0");
  ASSERT_NO_FATAL_FAILURE(Connect(echo->first_line()));
  const std::string description = transport_->description();
  const bool tcp = description.find("(tcp") != std::string::npos;
  const bool shm = description.find("(posix") != std::string::npos ||
                   description.find("(sysv") != std::string::npos;
  EXPECT_TRUE(GetParam() == "tcp" ? tcp : shm) << description;
}

INSTANTIATE_TEST_SUITE_P(Modes, UcxProcess, testing::Values("tcp", "shm"),
                         [](const auto& mode) { return mode.param; });

}  // namespace
}  // namespace switchyard
