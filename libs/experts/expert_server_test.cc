// The server against a router whose every byte the test writes.

#include "libs/experts/expert_server.h"

#include <deque>
#include <limits>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/transport/sim_transport.h"
#include "libs/wire/frame.h"
#include "libs/wire/hello.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kHidden = 16;
constexpr uint32_t kIntermediate = 4;
constexpr ExpertShape kShape = {.first_moe_layer = 1, .layer_count = 3, .expert_count = 4};

// One connection to the server that keeps what it hears.
class RawRouter final : public TransportHandler {
 public:
  explicit RawRouter(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {
    transport_->SetHandler(this);
    peer_ = *transport_->Connect("sim:shard");
  }

  ~RawRouter() override { transport_->SetHandler(nullptr); }

  void OnPeerUp(PeerHandle /*peer*/, bool /*accepted*/) override { up = true; }

  void OnPeerDown(PeerHandle /*peer*/, const absl::Status& /*why*/) override { down = true; }

  void OnSendDone(PeerHandle /*peer*/, SendTicket /*ticket*/,
                  const absl::Status& /*status*/) override {}

  void OnMessage(PeerHandle /*peer*/, std::span<const std::byte> message) override {
    received.emplace_back(message.begin(), message.end());
  }

  void Send(std::vector<std::byte> bytes) {
    sent_.push_back(std::move(bytes));
    const std::span<const std::byte> part = sent_.back();
    transport_->Send(peer_, std::span(&part, 1), SendTicket(1));
  }

  void SendHello(const std::string& digest = "d") {
    FrameHeader header;
    header.kind = FrameKind::kHello;
    header.sender_incarnation = 3;
    header.hidden_size = kHidden;
    std::vector<std::byte> message(kHelloFrameBytesMax);
    message.resize(EncodeHello(
        header, {.body = {}, .numerics_id = "n", .model_digest = digest, .text = {}}, message));
    Send(std::move(message));
  }

  void SendDispatch(FrameHeader header, const std::vector<RouteEntry>& entries,
                    const std::vector<float>& rows) {
    const auto table = std::as_bytes(std::span(entries));
    const auto payload = std::as_bytes(std::span(rows));
    SealFrame(header, table.size(), {table, payload});
    std::vector<std::byte> message;
    for (const auto& part : {BytesOfValue(header), table, payload}) {
      message.insert(message.end(), part.begin(), part.end());
    }
    Send(std::move(message));
  }

  bool up = false;
  bool down = false;
  std::vector<std::vector<std::byte>> received;

 private:
  std::unique_ptr<Transport> transport_;
  PeerHandle peer_;
  std::deque<std::vector<std::byte>> sent_;
};

FrameHeader DispatchHeader(uint32_t row_count, uint32_t entry_count) {
  FrameHeader header;
  header.kind = FrameKind::kDispatch;
  header.placement_epoch = 1;
  header.sender_incarnation = 3;
  header.sequence = 8;
  header.reply_id = 99;
  header.remaining_us = 1'000'000;
  header.row_count = row_count;
  header.entry_count = entry_count;
  header.hidden_size = kHidden;
  header.layer = 1;
  return header;
}

class ExpertServerTest : public ::testing::Test {
 protected:
  ExpertServerTest() { Start({}); }

  // Replaces the server; limits as given, identity as tests expect.
  void Start(ExpertServerOptions options) {
    server_.reset();
    transport_.reset();
    options.shard = ShardId(2);
    options.incarnation = Incarnation(6);
    options.model_digest = "d";
    options.numerics_id = "n";
    options.hidden_size = kHidden;
    transport_ = network_.CreateEndpoint("shard");
    server_ = std::make_unique<ExpertServer>(options, *transport_, bank_, BestKernels(), pool_,
                                             network_.clock(), metrics_);
    EXPECT_TRUE(transport_->Listen("x:0").ok());
    network_.SetIdleCallback("shard", [this] {
      if (running_) {
        server_->RunQueued();
      }
    });
    Rng rng(1);
    for (const int expert : {0, 1, 3}) {  // Not 2.
      values_.push_back(std::vector<float>(3 * kHidden * kIntermediate));
      for (float& value : values_.back()) {
        value = rng.Unit() - 0.5F;
      }
      const auto* data = reinterpret_cast<const std::byte*>(values_.back().data());
      constexpr size_t kMatrixBytes = sizeof(float) * kHidden * kIntermediate;
      auto weights = std::make_shared<ExpertWeights>();
      weights->gate = {.data = data, .rows = kIntermediate, .columns = kHidden};
      weights->up = {.data = data + kMatrixBytes, .rows = kIntermediate, .columns = kHidden};
      weights->down = {.data = data + 2 * kMatrixBytes, .rows = kHidden, .columns = kIntermediate};
      EXPECT_TRUE(bank_.Load(LayerId(1), ExpertId(static_cast<uint16_t>(expert)), weights).ok());
    }
  }

  std::unique_ptr<RawRouter> Connect(const std::string& name, bool hello = true) {
    auto router = std::make_unique<RawRouter>(network_.CreateEndpoint(name));
    Run(5);
    EXPECT_TRUE(router->up);
    if (hello) {
      router->SendHello();
      Run(5);
      EXPECT_EQ(router->received.size(), 1U);
      router->received.clear();
    }
    return router;
  }

  void Run(int milliseconds) { network_.RunFor(std::chrono::milliseconds(milliseconds)); }

  // The one answer that came, taken.
  ParsedFrame TakeAnswer(RawRouter& router) {
    Run(5);
    EXPECT_EQ(router.received.size(), 1U);
    if (router.received.empty()) {
      return {};
    }
    answer_ = std::move(router.received[0]);
    router.received.clear();
    const absl::StatusOr<ParsedFrame> frame = ParseFrame(answer_);
    EXPECT_TRUE(frame.ok()) << frame.status();
    return frame.ok() ? *frame : ParsedFrame{};
  }

  SimNetwork network_{1};
  std::deque<std::vector<float>> values_;
  Registry registry_;
  ExpertsMetrics metrics_{registry_};
  ExpertBank bank_{kShape};
  ComputePool pool_{1};
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<ExpertServer> server_;
  std::vector<std::byte> answer_;
  bool running_ = true;
  const std::vector<float> rows_ = std::vector<float>(2 * kHidden, 0.25F);
};

TEST_F(ExpertServerTest, AnswersHelloWithItsIdentity) {
  const auto router = Connect("r", false);
  server_->SetNewestEpoch(EpochId(4));
  router->SendHello();
  const ParsedFrame frame = TakeAnswer(*router);
  ASSERT_EQ(frame.header.kind, FrameKind::kHelloAck);
  EXPECT_EQ(frame.header.status, FrameStatus::kOk);
  EXPECT_EQ(frame.header.sender_incarnation, 6U);
  EXPECT_EQ(frame.header.placement_epoch, 4U);
  EXPECT_EQ(ParseHello(frame)->body.ordinal, 2U);
  EXPECT_EQ(ParseHello(frame)->body.role, PeerRole::kShard);
}

TEST_F(ExpertServerTest, RefusesAnotherModelAndClosesLater) {
  const auto router = Connect("r", false);
  router->SendHello("other");
  const ParsedFrame frame = TakeAnswer(*router);
  EXPECT_EQ(frame.header.status, FrameStatus::kRefused);
  EXPECT_THAT(std::string(ParseHello(frame)->text), HasSubstr("model digest 'other'"));
  router->SendDispatch(DispatchHeader(1, 1), {{.expert = 0}},
                       {rows_.begin(), rows_.begin() + kHidden});
  Run(5);
  EXPECT_TRUE(router->received.empty());
  Run(1100);
  server_->RunQueued();
  Run(5);
  EXPECT_TRUE(router->down);
  EXPECT_EQ(server_->usage().routers, 0U);
}

TEST_F(ExpertServerTest, EchoesTheCallAndCountsLoad) {
  const auto router = Connect("r");
  router->SendDispatch(DispatchHeader(2, 3),
                       {{.expert = 0, .slot = 0, .row = 0},
                        {.expert = 0, .slot = 0, .row = 1},
                        {.expert = 3, .slot = 1, .row = 1}},
                       rows_);
  const ParsedFrame frame = TakeAnswer(*router);
  ASSERT_EQ(frame.header.status, FrameStatus::kOk);
  EXPECT_EQ(frame.header.sequence, 8U);
  EXPECT_EQ(frame.header.reply_id, 99U);
  EXPECT_EQ(frame.header.row_count, 3U);
  EXPECT_EQ(frame.header.layer, 1U);
  // Equal rows, equal answers.
  EXPECT_EQ(std::memcmp(frame.row(0), frame.row(1), kHidden * sizeof(float)), 0);
  EXPECT_NE(std::memcmp(frame.row(0), frame.row(2), kHidden * sizeof(float)), 0);
  EXPECT_EQ(server_->load().Of(LayerId(1), ExpertId(0)), (ExpertLoad{.rows = 2, .activations = 1}));
  EXPECT_EQ(metrics_.tokens.value(), 2.0);
  EXPECT_EQ(server_->usage().queued_rows, 0U);
  EXPECT_EQ(server_->usage().buffers, 0U);
}

TEST_F(ExpertServerTest, ComputesRoutersTogetherWithTheSameBits) {
  const auto a = Connect("a");
  const auto b = Connect("b");
  const std::vector<float> row(rows_.begin(), rows_.begin() + kHidden);
  a->SendDispatch(DispatchHeader(1, 1), {{.expert = 1}}, row);
  TakeAnswer(*a);
  const std::vector<std::byte> alone = answer_;
  running_ = false;
  a->SendDispatch(DispatchHeader(1, 1), {{.expert = 1}}, row);
  b->SendDispatch(DispatchHeader(2, 2), {{.expert = 1}, {.expert = 1, .slot = 0, .row = 1}}, rows_);
  Run(5);
  EXPECT_EQ(server_->usage().queued_rows, 3U);
  EXPECT_TRUE(server_->RunQueued());
  EXPECT_FALSE(server_->RunQueued());
  TakeAnswer(*a);
  EXPECT_EQ(answer_, alone);
  TakeAnswer(*b);
  EXPECT_EQ(server_->load().Of(LayerId(1), ExpertId(1)), (ExpertLoad{.rows = 4, .activations = 2}));
}

// The weights of an expert are read once for all frames of a call.
TEST_F(ExpertServerTest, WaitsForTheFramesThatFollow) {
  const auto router = Connect("r");
  const std::vector<float> row(rows_.begin(), rows_.begin() + kHidden);
  FrameHeader header = DispatchHeader(1, 1);
  header.more_follows = 1;
  router->SendDispatch(header, {{.expert = 1}}, row);
  Run(1);
  EXPECT_TRUE(router->received.empty());
  EXPECT_LE(server_->WaitMax(std::chrono::seconds(1)), std::chrono::milliseconds(5));
  router->SendDispatch(DispatchHeader(1, 1), {{.expert = 1}}, row);
  Run(1);
  ASSERT_EQ(router->received.size(), 2U);
  EXPECT_EQ(router->received[0], router->received[1]);
  EXPECT_EQ(server_->load().Of(LayerId(1), ExpertId(1)), (ExpertLoad{.rows = 2, .activations = 1}));
  EXPECT_EQ(server_->WaitMax(std::chrono::seconds(1)), std::chrono::seconds(1));
}

TEST_F(ExpertServerTest, WaitsForAFrameThatNeverComesOnlySoLong) {
  const auto router = Connect("r");
  FrameHeader header = DispatchHeader(1, 1);
  header.more_follows = 1;
  router->SendDispatch(header, {{.expert = 1}}, {rows_.begin(), rows_.begin() + kHidden});
  Run(6);
  server_->RunQueued();
  EXPECT_EQ(TakeAnswer(*router).header.status, FrameStatus::kOk);
}

// Each further frame promises another: the first is answered in time all the same.
TEST_F(ExpertServerTest, CountsTheWaitFromTheOldestFrame) {
  const auto router = Connect("r");
  FrameHeader header = DispatchHeader(1, 1);
  header.more_follows = 1;
  for (int i = 0; i < 2; ++i) {
    router->SendDispatch(header, {{.expert = 1}}, {rows_.begin(), rows_.begin() + kHidden});
    Run(3);
  }
  EXPECT_EQ(server_->WaitMax(std::chrono::seconds(1)), Duration(0));
  server_->RunQueued();
  Run(1);
  EXPECT_EQ(router->received.size(), 2U);
}

// A frame that would expire is not held.
TEST_F(ExpertServerTest, DoesNotWaitWhenTimeIsShort) {
  const auto router = Connect("r");
  FrameHeader header = DispatchHeader(1, 1);
  header.more_follows = 1;
  header.remaining_us = 9'000;
  router->SendDispatch(header, {{.expert = 1}}, {rows_.begin(), rows_.begin() + kHidden});
  Run(2);
  EXPECT_EQ(router->received.size(), 1U);
}

TEST_F(ExpertServerTest, SaysWhatItCannotCompute) {
  struct Case {
    const char* what;
    void (*change)(FrameHeader& header);
    uint16_t expert;
    FrameStatus status;
  };

  const Case cases[] = {
      {"dense layer", [](FrameHeader& h) { h.layer = 0; }, 0, FrameStatus::kBadFrame},
      {"layer", [](FrameHeader& h) { h.layer = 3; }, 0, FrameStatus::kBadFrame},
      {"expert", [](FrameHeader&) {}, 4, FrameStatus::kBadFrame},
      {"huge expert", [](FrameHeader&) {}, 65535, FrameStatus::kBadFrame},
      {"hidden",
       [](FrameHeader& h) {
         h.hidden_size = 8;
         h.row_count = 2;
         h.entry_count = 2;
       },
       0, FrameStatus::kBadFrame},
      {"absent", [](FrameHeader& h) { h.placement_epoch = 9; }, 2, FrameStatus::kUnknownExpert},
      {"absent, newer known", [](FrameHeader&) {}, 2, FrameStatus::kStaleEpoch},
      {"absent layer", [](FrameHeader& h) { h.layer = 2; }, 0, FrameStatus::kStaleEpoch},
  };
  server_->SetNewestEpoch(EpochId(5));
  const auto router = Connect("r");
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    FrameHeader header = DispatchHeader(1, 1);
    test.change(header);
    std::vector<RouteEntry> entries = {{.expert = test.expert}};
    if (header.entry_count == 2) {
      entries.push_back({.expert = test.expert, .slot = 0, .row = 1});
    }
    router->SendDispatch(header, entries, {rows_.begin(), rows_.begin() + kHidden});
    const ParsedFrame frame = TakeAnswer(*router);
    EXPECT_EQ(frame.header.status, test.status);
    EXPECT_EQ(frame.header.placement_epoch, 5U);
    EXPECT_EQ(frame.payload.size(), 0U);
  }
  EXPECT_FALSE(router->down);
  EXPECT_EQ(metrics_.rejected_bad_frame.value(), 5.0);
  EXPECT_EQ(metrics_.rejected_stale_epoch.value(), 2.0);
  EXPECT_EQ(metrics_.rejected_unknown_expert.value(), 1.0);
}

TEST_F(ExpertServerTest, NeverAnswersRowsThatAreNotFinite) {
  const auto router = Connect("r");
  std::vector<float> row(kHidden, std::numeric_limits<float>::quiet_NaN());
  router->SendDispatch(DispatchHeader(1, 1), {{.expert = 0}}, row);
  EXPECT_EQ(TakeAnswer(*router).header.status, FrameStatus::kBadFrame);
  row.assign(kHidden, 3e38F);  // Finite, but not what comes of it.
  router->SendDispatch(DispatchHeader(1, 1), {{.expert = 0}}, row);
  EXPECT_EQ(TakeAnswer(*router).header.status, FrameStatus::kNotFinite);
}

TEST_F(ExpertServerTest, AnswersBusyAtItsLimitsAndDropsWhatExpired) {
  Start({.queued_rows_max = 32});  // One router may have 4.
  const auto router = Connect("r");
  running_ = false;
  FrameHeader header = DispatchHeader(2, 2);
  header.remaining_us = 10'000;
  const std::vector<RouteEntry> entries = {{.expert = 0}, {.expert = 0, .slot = 0, .row = 1}};
  router->SendDispatch(header, entries, rows_);
  router->SendDispatch(header, entries, rows_);
  Run(2);
  EXPECT_TRUE(router->received.empty());
  router->SendDispatch(header, entries, rows_);
  EXPECT_EQ(TakeAnswer(*router).header.status, FrameStatus::kBusy);
  EXPECT_EQ(metrics_.rejected_busy.value(), 1.0);
  Run(20);
  EXPECT_TRUE(server_->RunQueued());
  Run(5);
  EXPECT_TRUE(router->received.empty());
  EXPECT_EQ(metrics_.expired.value(), 2.0);
  EXPECT_EQ(server_->usage().queued_rows, 0U);
}

TEST_F(ExpertServerTest, ClosesPeersThatBreakTheProtocol) {
  const auto well_behaved = Connect("good");
  const auto expect_closed = [&](RawRouter& router, const char* text) {
    const ParsedFrame frame = TakeAnswer(router);
    EXPECT_EQ(frame.header.kind, FrameKind::kError);
    EXPECT_THAT(
        std::string(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size()),
        HasSubstr(text));
    Run(1100);
    server_->RunQueued();
    Run(5);
    EXPECT_TRUE(router.down);
  };
  const auto garbage = Connect("garbage");
  garbage->Send(std::vector<std::byte>(200, std::byte{0x5a}));
  expect_closed(*garbage, "magic");
  const auto rude = Connect("rude", false);
  rude->SendDispatch(DispatchHeader(1, 1), {{.expert = 0}},
                     {rows_.begin(), rows_.begin() + kHidden});
  expect_closed(*rude, "before an accepted hello");
  const auto liar = Connect("liar");
  FrameHeader header = DispatchHeader(1, 1);
  header.sender_incarnation = 4;
  liar->SendDispatch(header, {{.expert = 0}}, {rows_.begin(), rows_.begin() + kHidden});
  expect_closed(*liar, "dispatch of incarnation 4");
  const auto silent = Connect("silent", false);
  Run(5100);
  server_->RunQueued();
  Run(5);
  EXPECT_TRUE(silent->down);
  EXPECT_EQ(metrics_.closed_protocol.value(), 3.0);
  EXPECT_EQ(metrics_.closed_hello.value(), 1.0);
  EXPECT_FALSE(well_behaved->down);
  well_behaved->SendDispatch(DispatchHeader(1, 1), {{.expert = 0}},
                             {rows_.begin(), rows_.begin() + kHidden});
  EXPECT_EQ(TakeAnswer(*well_behaved).header.status, FrameStatus::kOk);
}

TEST_F(ExpertServerTest, RefusesMoreRoutersThanItsLimit) {
  Start({.routers_max = 1});
  const auto first = Connect("first");
  const auto second = Connect("second", false);
  Run(5);
  EXPECT_TRUE(second->down);
  EXPECT_FALSE(first->down);
  EXPECT_EQ(metrics_.closed_limit.value(), 1.0);
}

TEST_F(ExpertServerTest, ARouterThatReadsNothingLeavesBuffersToOthers) {
  Start({.reply_buffers_max = 16});  // One router may have 2, and 2 more that say so.
  const auto silent = Connect("silent");
  const auto other = Connect("other");
  const std::vector<float> row(rows_.begin(), rows_.begin() + kHidden);
  network_.Stop("silent");
  for (int i = 0; i < 20; ++i) {
    silent->SendDispatch(DispatchHeader(1, 1), {{.expert = 0}}, row);
    Run(2);
  }
  EXPECT_EQ(server_->usage().buffers, 4U);
  EXPECT_EQ(metrics_.tokens.value(), 2.0);
  EXPECT_EQ(metrics_.rejected_busy.value(), 18.0);
  for (int i = 0; i < 3; ++i) {
    other->SendDispatch(DispatchHeader(1, 1), {{.expert = 0}}, row);
    EXPECT_EQ(TakeAnswer(*other).header.status, FrameStatus::kOk);
  }
  // Nothing was refused by the transport, yet it is closed in time.
  Run(2100);
  server_->RunQueued();
  Run(5);
  EXPECT_EQ(metrics_.closed_stalled.value(), 1.0);
  EXPECT_EQ(server_->usage().routers, 1U);
  EXPECT_EQ(server_->usage().buffers, 0U);
  EXPECT_FALSE(other->down);
  network_.Continue("silent");
}

TEST_F(ExpertServerTest, AStallCountsFromTheLastAnswerThatWentOut) {
  const auto router = Connect("r");
  const std::vector<float> row(rows_.begin(), rows_.begin() + kHidden);
  for (int i = 0; i < 3; ++i) {
    network_.Stop("r");
    router->SendDispatch(DispatchHeader(1, 1), {{.expert = 0}}, row);
    Run(1500);
    server_->RunQueued();
    ASSERT_EQ(server_->usage().routers, 1U);
    network_.Continue("r");
    Run(5);
  }
  EXPECT_EQ(router->received.size(), 3U);
  Run(5000);
  server_->RunQueued();
  Run(5);
  EXPECT_EQ(server_->usage().routers, 1U);  // Idle is no stall.
  EXPECT_EQ(metrics_.closed_stalled.value(), 0.0);
}

TEST_F(ExpertServerTest, ClosesARouterThatDoesNotReadItsAnswers) {
  Start({.reply_buffers_max = 512});
  const auto router = Connect("r");
  network_.Stop("r");
  const std::vector<RouteEntry> entries = {{.expert = 0}, {.expert = 0, .slot = 0, .row = 1}};
  // The network holds 8 MiB for a stopped peer; the server's own buffers hold the rest.
  constexpr uint32_t kEntries = 2048;
  std::vector<RouteEntry> many;
  for (uint32_t row = 0; row < kEntries; ++row) {
    many.push_back({.expert = 0, .slot = 0, .row = row});
  }
  const std::vector<float> rows(size_t{kEntries} * kHidden, 0.5F);
  for (int i = 0; i < 80; ++i) {
    router->SendDispatch(DispatchHeader(kEntries, kEntries), many, rows);
    Run(2);
  }
  EXPECT_GT(server_->usage().buffers, 60U);
  Run(2100);
  server_->RunQueued();
  Run(5);
  EXPECT_EQ(metrics_.closed_stalled.value(), 1.0);
  EXPECT_EQ(server_->usage().routers, 0U);
  EXPECT_EQ(server_->usage().buffers, 0U);
  network_.Continue("r");
}

}  // namespace
}  // namespace switchyard
