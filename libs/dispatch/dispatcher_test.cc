// The dispatcher against a shard whose every byte the test writes: what it refuses, drops and
// counts.

#include "libs/dispatch/dispatcher.h"

#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libs/base/status.h"
#include "libs/transport/sim_transport.h"
#include "libs/wire/frame.h"
#include "libs/wire/hello.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kHidden = 4;
constexpr uint32_t kFrameRows = kFrameRowBytesMax / (kHidden * sizeof(float));
constexpr uint32_t kRowsMax = kFrameRows + 1;

// A shard of one expert that doubles rows, and does to its answers what the test says.
class ScriptedShard final : public TransportHandler {
 public:
  using Answer = std::function<void(FrameHeader& header, std::vector<float>& rows)>;

  explicit ScriptedShard(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {
    transport_->SetHandler(this);
    EXPECT_TRUE(transport_->Listen("x:0").ok());
  }

  ~ScriptedShard() override { transport_->SetHandler(nullptr); }

  void OnPeerUp(PeerHandle /*peer*/, bool /*accepted*/) override {}

  void OnPeerDown(PeerHandle /*peer*/, const absl::Status& /*why*/) override {}

  void OnSendDone(PeerHandle /*peer*/, SendTicket /*ticket*/,
                  const absl::Status& /*status*/) override {}

  void OnMessage(PeerHandle peer, std::span<const std::byte> message) override {
    const absl::StatusOr<ParsedFrame> frame = ParseFrame(message);
    ASSERT_TRUE(frame.ok()) << frame.status();
    if (frame->header.kind == FrameKind::kHello) {
      SendHelloAck(peer);
      return;
    }
    FrameHeader header = frame->header;
    header.kind = FrameKind::kCombine;
    header.sender_incarnation = incarnation;
    header.row_count = header.entry_count;
    std::vector<float> rows(size_t{header.entry_count} * kHidden);
    for (uint32_t i = 0; i < frame->entries.size(); ++i) {
      float values[kHidden];
      std::memcpy(values, frame->row(frame->entries[i].row), sizeof(values));
      for (uint32_t k = 0; k < kHidden; ++k) {
        rows[i * kHidden + k] = 2 * values[k];
      }
    }
    if (answer) {
      answer(header, rows);
    }
    for (int i = 0; i < answer_count; ++i) {
      SendRows(peer, header, rows);
    }
  }

  void SendRows(PeerHandle peer, FrameHeader header, const std::vector<float>& rows) {
    SealFrame(header, 0, {std::as_bytes(std::span(rows))});
    std::vector<std::byte> message(sizeof(header) + rows.size() * sizeof(float));
    std::memcpy(message.data(), &header, sizeof(header));
    if (!rows.empty()) {
      std::memcpy(message.data() + sizeof(header), rows.data(), rows.size() * sizeof(float));
    }
    SendBytes(peer, std::move(message));
  }

  void SendBytes(PeerHandle peer, std::vector<std::byte> bytes) {
    if (flip_bit) {
      bytes.back() ^= std::byte{1};
    }
    sent_.push_back(std::move(bytes));
    const std::span<const std::byte> part = sent_.back();
    transport_->Send(peer, std::span(&part, 1), SendTicket(1));
  }

  Answer answer;
  int answer_count = 1;
  bool flip_bit = false;
  uint64_t incarnation = 5;
  HelloBody hello = {.role = PeerRole::kShard, .ordinal = 0, .entry_credits = 1000};

 private:
  void SendHelloAck(PeerHandle peer) {
    FrameHeader header;
    header.kind = FrameKind::kHelloAck;
    header.sender_incarnation = incarnation;
    header.hidden_size = kHidden;
    std::vector<std::byte> message(kHelloFrameBytesMax);
    message.resize(EncodeHello(
        header, {.body = hello, .numerics_id = "n", .model_digest = "d", .text = {}}, message));
    SendBytes(peer, std::move(message));
  }

  std::unique_ptr<Transport> transport_;
  std::deque<std::vector<std::byte>> sent_;
};

class DispatcherTest : public ::testing::Test {
 protected:
  DispatcherTest() { SetPlacement(1, 5); }

  void SetPlacement(uint64_t epoch, uint64_t incarnation) {
    Placement placement{
        .epoch = EpochId(epoch),
        .model_digest = "d",
        .shape = {.first_moe_layer = 0, .layer_count = 1, .expert_count = 1},
        .shards = {{.shard = ShardId(0),
                    .incarnation = Incarnation(incarnation),
                    .address = "sim:shard",
                    .memory_bytes = 0}},
        .replicas = {{.layer = LayerId(0), .expert = ExpertId(0), .shard = ShardId(0)}}};
    dispatcher_.SetRoutes(
        std::make_shared<const RouteTable>(*RouteTable::Build(std::move(placement))));
  }

  static DispatcherOptions Options() {
    return {.hidden_size = kHidden,
            .top_k = 1,
            .model_digest = "d",
            .numerics_id = "n",
            .incarnation = Incarnation(3),
            .rows_max = kRowsMax,
            .tickets_max = 2,
            .call_deadline = std::chrono::milliseconds(100)};
  }

  void Run(int milliseconds) {
    for (int i = 0; i < milliseconds; ++i) {
      dispatcher_.WaitForWork(std::chrono::milliseconds(1));
    }
  }

  RoutedRows Rows() const {
    return {.layer = LayerId(0), .row_count = 1, .rows = row_, .experts = experts_};
  }

  absl::Status Call() {
    const absl::StatusOr<DispatchTicket> ticket = dispatcher_.Send(Rows());
    return ticket.ok() ? dispatcher_.Await(*ticket, out_) : ticket.status();
  }

  SimNetwork network_{1};
  ScriptedShard shard_{network_.CreateEndpoint("shard")};
  std::unique_ptr<Transport> transport_ = network_.CreateEndpoint("router");
  Registry registry_;
  DispatchMetrics metrics_{registry_};
  Dispatcher dispatcher_{Options(), *transport_, network_.clock(), metrics_};
  std::vector<float> row_ = {1, 2, 3, 4};
  std::vector<uint16_t> experts_ = {0};
  std::vector<float> out_ = std::vector<float>(kHidden);
};

TEST_F(DispatcherTest, CallsAndCounts) {
  Run(20);
  ASSERT_TRUE(Call().ok());
  EXPECT_EQ(out_, (std::vector<float>{2, 4, 6, 8}));
  EXPECT_EQ(metrics_.rpc_ok.value(), 1.0);
  EXPECT_EQ(metrics_.ShardConnected(ShardId(0)).value(), 1.0);
}

// A frame says that another follows only when that one can be sent without waiting for an answer.
TEST_F(DispatcherTest, SaysWhichFramesAreFollowedByMore) {
  const std::vector<float> rows(size_t{kRowsMax} * kHidden, 1.0F);
  const std::vector<uint16_t> experts(kRowsMax);
  std::vector<float> out(rows.size());
  std::vector<int> follows;
  shard_.answer = [&](FrameHeader& header, std::vector<float>& /*rows*/) {
    follows.push_back(header.more_follows);
    header.more_follows = 0;
  };
  shard_.hello.entry_credits = kRowsMax;
  Run(20);
  const RoutedRows two_frames{
      .layer = LayerId(0), .row_count = kRowsMax, .rows = rows, .experts = experts};
  const auto call = [&] {
    const absl::StatusOr<DispatchTicket> ticket = dispatcher_.Send(two_frames);
    return ticket.ok() ? dispatcher_.Await(*ticket, out) : ticket.status();
  };
  ASSERT_TRUE(call().ok());
  EXPECT_EQ(follows, (std::vector<int>{1, 0}));
  EXPECT_EQ(out.back(), 2.0F);

  follows.clear();
  shard_.hello.entry_credits = kFrameRows;
  shard_.incarnation = 6;
  SetPlacement(2, 6);
  Run(20);
  ASSERT_TRUE(call().ok());
  EXPECT_EQ(follows, (std::vector<int>{0, 0}));
}

TEST_F(DispatcherTest, RefusesAnswersOfAnotherShapeOrNotFinite) {
  struct Case {
    const char* what;
    ScriptedShard::Answer answer;
    const char* message;
  };

  const Case cases[] = {
      {"layer", [](FrameHeader& h, std::vector<float>&) { h.layer = 7; }, "of layer 7 where"},
      {"rows",
       [](FrameHeader& h, std::vector<float>& rows) {
         h.row_count = h.entry_count = 2;
         rows.resize(2 * kHidden);
       },
       "answered 2 rows"},
      {"hidden",
       [](FrameHeader& h, std::vector<float>& rows) {
         h.hidden_size = 2;
         rows.resize(2);
       },
       "answered 1 rows of 2 f32"},
      {"dtype",
       [](FrameHeader& h, std::vector<float>& rows) {
         h.dtype = Dtype::kBf16;
         rows.resize(kHidden / 2);
       },
       "rows of 4 bf16"},
      {"nan",
       [](FrameHeader&, std::vector<float>& rows) {
         rows[2] = std::numeric_limits<float>::quiet_NaN();
       },
       "not finite"},
      {"kind", [](FrameHeader& h, std::vector<float>&) { h.kind = FrameKind::kDispatch; },
       "refused"},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    Run(1500);  // Past the pause after a refusal.
    ASSERT_TRUE(dispatcher_.Ready().ok()) << dispatcher_.Ready();
    shard_.answer = test.answer;
    const absl::Status status = Call();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(MessageOf(status), HasSubstr("shard 0 (sim:shard) refused: "));
    EXPECT_THAT(MessageOf(status), HasSubstr(test.message));
    EXPECT_THAT(dispatcher_.ShardStates()[0].state, HasSubstr("refused: "));
    EXPECT_FALSE(dispatcher_.Ready().ok());
  }
  EXPECT_EQ(metrics_.peers_refused.value(), 6.0);
  EXPECT_EQ(dispatcher_.usage().buffers, 0U);
}

TEST_F(DispatcherTest, RefusesABrokenChecksum) {
  Run(20);
  shard_.flip_bit = true;
  EXPECT_THAT(MessageOf(Call()), HasSubstr("refused: frame: checksum"));
}

TEST_F(DispatcherTest, DropsAndCountsWhatNobodyWaitsFor) {
  Run(20);
  shard_.answer_count = 3;
  ASSERT_TRUE(Call().ok());
  Run(5);
  EXPECT_EQ(metrics_.dropped_late.value() + metrics_.dropped_duplicate.value(), 2.0);
  shard_.answer_count = 1;
  const ScriptedShard::Answer wrongs[] = {
      [](FrameHeader& h, std::vector<float>&) { h.sequence += 1; },
      [](FrameHeader& h, std::vector<float>&) { h.attempt = 1; },
      [](FrameHeader& h, std::vector<float>&) { h.reply_id = ~uint64_t{0}; },
      [](FrameHeader& h, std::vector<float>&) { h.reply_id += 1; },
      [](FrameHeader& h, std::vector<float>&) { h.sender_incarnation = 4; },
  };
  for (const ScriptedShard::Answer& wrong : wrongs) {
    shard_.answer = wrong;
    EXPECT_EQ(Call().code(), absl::StatusCode::kDeadlineExceeded);
    Run(200);  // Connected again.
  }
  EXPECT_EQ(metrics_.dropped_late.value() + metrics_.dropped_duplicate.value(), 6.0);
  EXPECT_EQ(metrics_.dropped_incarnation.value(), 1.0);
  shard_.answer = nullptr;
  EXPECT_TRUE(Call().ok());
}

TEST_F(DispatcherTest, AnswersOtherThanOkBecomeTheirStatus) {
  Run(20);
  const std::pair<FrameStatus, absl::StatusCode> cases[] = {
      {FrameStatus::kBusy, absl::StatusCode::kUnavailable},
      {FrameStatus::kStaleEpoch, absl::StatusCode::kUnavailable},
      {FrameStatus::kUnknownExpert, absl::StatusCode::kUnavailable},
      {FrameStatus::kBadFrame, absl::StatusCode::kInternal},
      {FrameStatus::kNotFinite, absl::StatusCode::kInternal},
  };
  for (const auto& [status, code] : cases) {
    shard_.answer = [status = status](FrameHeader& h, std::vector<float>& rows) {
      h.status = status;
      h.row_count = 0;
      rows.clear();
    };
    const absl::Status result = Call();
    EXPECT_EQ(result.code(), code);
    EXPECT_THAT(MessageOf(result), HasSubstr(std::string(NameOf(status))));
  }
  shard_.answer = nullptr;
  EXPECT_TRUE(Call().ok());  // Still connected.
}

TEST_F(DispatcherTest, RefusesTooMuchAndWhatIsNotFinite) {
  Run(20);
  const std::vector<float> rows((kRowsMax + 1) * kHidden);
  const std::vector<uint16_t> experts(kRowsMax + 1);
  const RoutedRows many{
      .layer = LayerId(0), .row_count = kRowsMax + 1, .rows = rows, .experts = experts};
  EXPECT_EQ(dispatcher_.Send(many).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::StatusOr<DispatchTicket> a = dispatcher_.Send(Rows());
  const absl::StatusOr<DispatchTicket> b = dispatcher_.Send(Rows());
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(dispatcher_.Send(Rows()).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(dispatcher_.Await(*a, out_).ok());
  EXPECT_TRUE(dispatcher_.Await(*b, out_).ok());
  row_[1] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Call().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(dispatcher_.usage().tickets, 0U);
}

TEST_F(DispatcherTest, RefusesAShardOfAnotherVersion) {
  shard_.hello.version_min = shard_.hello.version_max = 7;
  Run(20);
  EXPECT_EQ(dispatcher_.ShardStates()[0].state,
            "refused: peer speaks wire versions 7 to 7, this side 1 to 1");
}

TEST_F(DispatcherTest, WaitsForThePlacementThatNamesARestartedShard) {
  shard_.incarnation = 6;
  Run(20);
  EXPECT_EQ(dispatcher_.ShardStates()[0].state,
            "refused: shard 0 answers as incarnation 6, the placement names 5");
  EXPECT_FALSE(dispatcher_.Ready().ok());
  SetPlacement(2, 6);
  Run(20);
  EXPECT_TRUE(Call().ok());
  // Likewise when the end of the old connection was not noticed.
  shard_.incarnation = 7;
  SetPlacement(3, 7);
  EXPECT_FALSE(dispatcher_.Ready().ok());
  Run(20);
  EXPECT_TRUE(Call().ok());
}

TEST_F(DispatcherTest, AnswersThatCameInTimeCountHoweverLateTheyAreAwaited) {
  Run(20);
  const absl::StatusOr<DispatchTicket> ticket = dispatcher_.Send(Rows());
  ASSERT_TRUE(ticket.ok());
  network_.Stop("router");
  network_.RunFor(std::chrono::milliseconds(200));
  network_.Continue("router");
  EXPECT_TRUE(dispatcher_.Await(*ticket, out_).ok());
  EXPECT_EQ(out_, (std::vector<float>{2, 4, 6, 8}));
  EXPECT_TRUE(dispatcher_.Ready().ok());
}

}  // namespace
}  // namespace switchyard
