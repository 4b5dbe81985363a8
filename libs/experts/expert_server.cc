#include "libs/experts/expert_server.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "libs/base/check.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/experts/expert_batcher.h"
#include "libs/tensor/buffer_pool.h"
#include "libs/wire/frame.h"
#include "libs/wire/hello.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

constexpr uint32_t kRouterShare = 8;    // One router may have 1/8 of queue and reply buffers.
constexpr uint32_t kSendSlotBits = 32;  // A send ticket is (number, slot) in one integer.
constexpr Duration kLinger = std::chrono::seconds(1);  // For a refusal to be read before the close.
constexpr int kCloseWaitsMax = 200;
constexpr Duration kCloseWait = std::chrono::milliseconds(5);

// A connection of a router.
struct Router {
  enum class State : uint8_t { kNew, kReady, kRefused };

  struct Reply {
    BufferLease buffer;
    size_t bytes = 0;
  };

  State state = State::kNew;
  Incarnation incarnation;
  Instant close_at = Instant::max();  // New: no hello. Ready: answers not read. Refused: linger.
  uint32_t queued_rows = 0;
  uint32_t queued_frames = 0;
  uint32_t unfinished_sends = 0;
  std::deque<Reply> waiting;  // The transport did not take them yet.

  size_t buffers() const { return waiting.size() + unfinished_sends; }
};

FrameHeader AnswerTo(const FrameHeader& request) {
  FrameHeader header = request;
  header.kind = FrameKind::kCombine;
  header.version = kWireVersion;
  header.crc = 0;
  header.remaining_us = 0;
  header.row_count = 0;
  header.more_follows = 0;
  std::ranges::fill(header.reserved, uint8_t{0});
  return header;
}

size_t BufferBytes(const ExpertServerOptions& options) {
  const size_t row_bytes = options.hidden_size * BytesOf(options.row_dtype);
  SY_CHECK(row_bytes > 0 && row_bytes <= kFrameRowBytesMax && IsRowDtype(options.row_dtype));
  return sizeof(FrameHeader) + kFrameRowBytesMax;
}

}  // namespace

class ExpertServer::Impl {
 public:
  Impl(ExpertServerOptions options, Transport& transport, const ExpertBank& bank,
       const Kernels& kernels, ComputePool& pool, const Clock& clock, ExpertsMetrics& metrics)
      : options_(std::move(options)),
        transport_(transport),
        bank_(bank),
        clock_(clock),
        metrics_(metrics),
        load_(bank.shape()),
        batcher_({.queued_rows_max = options_.queued_rows_max,
                  .queued_bytes_max = options_.queued_bytes_max,
                  .batch_rows_max = options_.batch_rows_max},
                 bank, kernels, pool, load_),
        buffers_max_per_router_(std::max(options_.reply_buffers_max / kRouterShare, 1U)),
        pool_(BufferBytes(options_), options_.reply_buffers_max) {
    SY_CHECK(options_.routers_max > 0 && options_.reply_buffers_max > 0);
  }

  Transport& transport() { return transport_; }

  const LoadCounter& load() const { return load_; }

  Usage usage() const {
    return {.queued_rows = batcher_.queued_rows(),
            .buffers = pool_.leased_count(),
            .routers = routers_.size()};
  }

  void SetNewestEpoch(EpochId epoch) { newest_epoch_ = std::max(newest_epoch_, epoch); }

  bool RunQueued() {
    const Instant now = clock_.Now();
    CloseOverdue(now);
    bool ran = false;
    // Each pass takes what waits now; a layer's rest comes in a later pass of the loop.
    while (!batcher_.empty()) {
      const size_t buffers = pool_.buffer_count_max() - pool_.leased_count();
      const Instant begin = clock_.Now();
      const bool took = batcher_.RunBatch(
          begin, buffers, [&](const QueuedFrame& frame) { return Take(frame, begin); },
          [&](const QueuedFrame& frame, FrameStatus status, std::span<const float* const> rows) {
            AnswerFrame(frame, status, rows);
          });
      if (!took) {
        break;  // More is to come, or all reply buffers are out and OnSendDone brings them back.
      }
      ran = true;
      if (batcher_.last_batch_rows() > 0) {
        metrics_.batch_tokens.Observe(batcher_.last_batch_rows());
        metrics_.activations.Add(batcher_.last_batch_rows());
        metrics_.compute_seconds.Observe(ToSeconds(clock_.Now() - begin));
      }
    }
    metrics_.queue_rows.Set(batcher_.queued_rows());
    return ran;
  }

  Duration WaitMax(Duration most) const {
    const bool can_answer =
        pool_.leased_count() < pool_.buffer_count_max();  // Else OnSendDone wakes.
    const Instant due = can_answer ? batcher_.next_due() : Instant::max();
    return due == Instant::max() ? most : std::clamp(due - clock_.Now(), Duration(0), most);
  }

  void OnPeerUp(PeerHandle peer, bool accepted) {
    if (!accepted) {
      return;
    }
    if (routers_.size() >= options_.routers_max) {
      metrics_.closed_limit.Add();
      transport_.Close(peer);
      return;
    }
    Router& router = routers_[peer];
    router.close_at = clock_.Now() + options_.hello_timeout;
    next_close_ = std::min(next_close_, router.close_at);
    metrics_.routers.Set(static_cast<double>(routers_.size()));
  }

  void OnPeerDown(PeerHandle peer) {
    routers_.erase(peer);
    metrics_.routers.Set(static_cast<double>(routers_.size()));
  }

  void OnMessage(PeerHandle peer, std::span<const std::byte> message) {
    const auto found = routers_.find(peer);
    if (found == routers_.end() || found->second.state == Router::State::kRefused) {
      return;
    }
    const absl::StatusOr<ParsedFrame> frame = ParseFrame(message);
    if (!frame.ok()) {
      RefuseProtocol(peer, found->second, frame.status());
      return;
    }
    if (frame->header.kind == FrameKind::kHello) {
      OnHello(peer, found->second, *frame);
    } else if (frame->header.kind != FrameKind::kDispatch) {
      RefuseProtocol(peer, found->second,
                     InvalidArgument("a router sent a frame of kind {}",
                                     static_cast<unsigned>(frame->header.kind)));
    } else if (found->second.state != Router::State::kReady) {
      RefuseProtocol(peer, found->second, InvalidArgument("dispatch before an accepted hello"));
    } else if (frame->header.sender_incarnation != found->second.incarnation.value()) {
      RefuseProtocol(peer, found->second,
                     InvalidArgument("dispatch of incarnation {}, the hello was of {}",
                                     frame->header.sender_incarnation, found->second.incarnation));
    } else {
      OnDispatch(peer, found->second, *frame);
    }
  }

  void OnSendDone(PeerHandle peer, SendTicket ticket) {
    const uint64_t slot = ticket.value() & ((uint64_t{1} << kSendSlotBits) - 1);
    SY_CHECK(slot < send_slots_.size());
    SY_CHECK(send_slots_[slot].number == ticket.value() >> kSendSlotBits);
    send_slots_[slot] = {};
    free_send_slots_.push_back(static_cast<uint32_t>(slot));
    const auto found = routers_.find(peer);
    if (found == routers_.end()) {
      return;
    }
    Router& router = found->second;
    --router.unfinished_sends;
    if (router.state == Router::State::kReady) {
      router.close_at = Instant::max();  // It reads: no stall.
      WatchForStall(router);
    }
    if (!router.waiting.empty()) {
      SendWaiting(peer);
    }
  }

  // Forces connections shut and lets the transport give back the buffers it still reads.
  void CloseAll() {
    for (const auto& [peer, router] : routers_) {
      transport_.Close(peer);
    }
    for (int i = 0; i < kCloseWaitsMax && transport_.queued_bytes() > 0; ++i) {
      transport_.Wait(kCloseWait);
    }
  }

 private:
  struct SendSlot {
    BufferLease buffer;
    uint64_t number = 0;
  };

  // Whether a queued frame is still worth its computation.
  bool Take(const QueuedFrame& frame, Instant now) {
    const auto found = routers_.find(frame.peer);
    if (found == routers_.end()) {
      return false;
    }
    found->second.queued_rows -= frame.header.entry_count;
    --found->second.queued_frames;
    if (now >= frame.deadline) {
      metrics_.expired.Add();
      return false;
    }
    metrics_.queue_seconds.Observe(ToSeconds(now - frame.queued_at));
    return true;
  }

  void OnHello(PeerHandle peer, Router& router, const ParsedFrame& frame) {
    const absl::StatusOr<HelloFrame> hello = ParseHello(frame);
    SY_CHECK(hello.ok());  // ParseFrame has checked it.
    const absl::Status match = CheckHello(frame.header, *hello,
                                          {.numerics_id = options_.numerics_id,
                                           .model_digest = options_.model_digest,
                                           .hidden_size = options_.hidden_size,
                                           .dtype = options_.row_dtype,
                                           .role = PeerRole::kRouter});
    FrameHeader header;
    header.kind = FrameKind::kHelloAck;
    header.dtype = options_.row_dtype;
    header.placement_epoch = newest_epoch_.value();
    header.sender_incarnation = options_.incarnation.value();
    header.hidden_size = options_.hidden_size;
    header.status = match.ok() ? FrameStatus::kOk : FrameStatus::kRefused;
    const std::string text = MessageOf(match);
    BufferLease buffer = TryAcquireFor(router);
    if (buffer) {
      const size_t bytes =
          EncodeHello(header,
                      {.body = {.role = PeerRole::kShard,
                                .ordinal = options_.shard.value(),
                                .entry_credits = options_.queued_rows_max / kRouterShare},
                       .numerics_id = options_.numerics_id,
                       .model_digest = options_.model_digest,
                       .text = text},
                      buffer.bytes());
      router.waiting.push_back({.buffer = std::move(buffer), .bytes = bytes});
    }
    if (match.ok()) {
      if (router.state == Router::State::kNew) {
        router.close_at = Instant::max();
      }
      router.state = Router::State::kReady;
      router.incarnation = Incarnation(frame.header.sender_incarnation);
    } else {
      SY_LOG_WARNING("router refused peer={} why={}", peer.value(), text);
      metrics_.closed_hello.Add();
      Linger(router);
    }
    SendWaiting(peer);
  }

  void OnDispatch(PeerHandle peer, Router& router, const ParsedFrame& frame) {
    const FrameHeader& header = frame.header;
    const ExpertShape& shape = bank_.shape();
    // Entries ascend by expert: the last is the highest.
    const bool fits = header.layer >= shape.first_moe_layer && header.layer < shape.layer_count &&
                      header.hidden_size == options_.hidden_size &&
                      header.dtype == options_.row_dtype &&
                      frame.entries[frame.entries.size() - 1].expert < shape.expert_count;
    if (!fits) {
      metrics_.rejected_bad_frame.Add();
      AnswerStatus(peer, header, FrameStatus::kBadFrame);
      return;
    }
    const uint32_t share = options_.queued_rows_max / kRouterShare;
    // Each queued frame will want a buffer.
    const bool over = (router.queued_rows > 0 && router.queued_rows + header.entry_count > share) ||
                      router.queued_frames + router.buffers() >= buffers_max_per_router_;
    const ExpertBatcher::AddResult result =
        over ? ExpertBatcher::AddResult::kBusy : batcher_.Add(peer, frame, clock_.Now());
    if (result == ExpertBatcher::AddResult::kBusy) {
      metrics_.rejected_busy.Add();
      AnswerStatus(peer, header, FrameStatus::kBusy);
    } else if (result == ExpertBatcher::AddResult::kNotFinite) {
      metrics_.rejected_bad_frame.Add();
      AnswerStatus(peer, header, FrameStatus::kBadFrame);
    } else {
      router.queued_rows += header.entry_count;
      ++router.queued_frames;
      metrics_.queue_rows.Set(batcher_.queued_rows());
    }
  }

  void AnswerFrame(const QueuedFrame& frame, FrameStatus status,
                   std::span<const float* const> rows) {
    if (status != FrameStatus::kOk) {
      const bool stale = frame.header.placement_epoch < newest_epoch_.value();
      (stale ? metrics_.rejected_stale_epoch : metrics_.rejected_unknown_expert).Add();
      AnswerStatus(frame.peer, frame.header,
                   stale ? FrameStatus::kStaleEpoch : FrameStatus::kUnknownExpert);
      return;
    }
    const auto found = routers_.find(frame.peer);
    BufferLease buffer = found == routers_.end() ? BufferLease() : pool_.TryAcquire();
    if (!buffer) {
      return;  // The router went away, or refusals took the last buffer: its deadline covers it.
    }
    FrameHeader header = AnswerTo(frame.header);
    header.placement_epoch = newest_epoch_.value();
    header.sender_incarnation = options_.incarnation.value();
    header.row_count = header.entry_count;
    const size_t row_bytes = header.hidden_size * BytesOf(header.dtype);
    const auto payload = buffer.bytes().subspan(sizeof(header), rows.size() * row_bytes);
    bool finite = true;
    for (size_t i = 0; i < rows.size(); ++i) {
      finite =
          EncodeRow({rows[i], header.hidden_size}, header.dtype, payload.data() + i * row_bytes) &&
          finite;
    }
    if (!finite) {
      metrics_.rejected_not_finite.Add();
      buffer = BufferLease();
      AnswerStatus(frame.peer, frame.header, FrameStatus::kNotFinite);
      return;
    }
    SealFrame(header, 0, {payload});
    std::memcpy(buffer.bytes().data(), &header, sizeof(header));
    metrics_.tokens.Add(frame.header.row_count);
    found->second.waiting.push_back(
        {.buffer = std::move(buffer), .bytes = sizeof(header) + payload.size()});
    SendWaiting(frame.peer);
  }

  // None for a router that leaves too much unread. Twice its share: rows have room beside what says
  // that there is no more of it.
  BufferLease TryAcquireFor(const Router& router) {
    return router.buffers() < 2 * buffers_max_per_router_ ? pool_.TryAcquire() : BufferLease();
  }

  // Without a buffer the answer is left out: the router's deadline covers it.
  void AnswerStatus(PeerHandle peer, const FrameHeader& request, FrameStatus status) {
    const auto found = routers_.find(peer);
    BufferLease buffer = found == routers_.end() ? BufferLease() : TryAcquireFor(found->second);
    if (!buffer) {
      return;
    }
    FrameHeader header = AnswerTo(request);
    header.placement_epoch = newest_epoch_.value();
    header.sender_incarnation = options_.incarnation.value();
    header.status = status;
    SealFrame(header, 0, {});
    std::memcpy(buffer.bytes().data(), &header, sizeof(header));
    found->second.waiting.push_back({.buffer = std::move(buffer), .bytes = sizeof(header)});
    SendWaiting(peer);
  }

  void RefuseProtocol(PeerHandle peer, Router& router, const absl::Status& why) {
    const std::string text = MessageOf(why);
    SY_LOG_WARNING("router closed peer={} why={}", peer.value(), text);
    metrics_.closed_protocol.Add();
    FrameHeader header;
    header.sender_incarnation = options_.incarnation.value();
    BufferLease buffer = pool_.TryAcquire();
    if (buffer) {
      const size_t bytes = EncodeError(header, text, buffer.bytes());
      router.waiting.push_back({.buffer = std::move(buffer), .bytes = bytes});
    }
    Linger(router);
    SendWaiting(peer);
  }

  // The connection is of no more use, but the peer should have time to read why.
  void Linger(Router& router) {
    router.state = Router::State::kRefused;
    router.close_at = clock_.Now() + kLinger;
    next_close_ = std::min(next_close_, router.close_at);
  }

  // Hands over what the transport takes. It may call back, which only adds to the list of peers
  // here.
  void SendWaiting(PeerHandle peer) {
    to_send_.push_back(peer);
    if (sending_) {
      return;
    }
    sending_ = true;
    while (!to_send_.empty()) {
      const PeerHandle next = to_send_.back();
      to_send_.pop_back();
      SendAllTo(next);
    }
    sending_ = false;
  }

  void SendAllTo(PeerHandle peer) {
    for (auto found = routers_.find(peer);
         found != routers_.end() && !found->second.waiting.empty(); found = routers_.find(peer)) {
      Router::Reply reply = std::move(found->second.waiting.front());
      found->second.waiting.pop_front();
      if (!SendReply(peer, reply)) {
        Hold(peer, std::move(reply));
        return;
      }
    }
  }

  void Hold(PeerHandle peer, Router::Reply reply) {
    const auto found = routers_.find(peer);
    if (found == routers_.end()) {
      return;
    }
    found->second.waiting.push_front(std::move(reply));
    WatchForStall(found->second);
  }

  // A router with answers under way is closed unless one of them goes out in time.
  void WatchForStall(Router& router) {
    if (router.state == Router::State::kReady && router.buffers() > 0 &&
        router.close_at == Instant::max()) {
      router.close_at = clock_.Now() + options_.reply_stall_max;
      next_close_ = std::min(next_close_, router.close_at);
    }
  }

  // False, with the reply untouched, when the peer's bound of queued bytes is reached.
  bool SendReply(PeerHandle peer, Router::Reply& reply) {
    if (free_send_slots_.empty()) {
      send_slots_.emplace_back();
      free_send_slots_.push_back(static_cast<uint32_t>(send_slots_.size() - 1));
    }
    const uint32_t slot = free_send_slots_.back();
    free_send_slots_.pop_back();
    const std::span<const std::byte> part = reply.buffer.bytes().first(reply.bytes);
    const uint64_t number = next_send_number_++ & UINT32_MAX;
    send_slots_[slot].buffer = std::move(reply.buffer);
    send_slots_[slot].number = number;
    const SendTicket ticket((number << kSendSlotBits) | slot);
    // Sending may call back, up to losing the router, so the books are right before it.
    Router& router = routers_.at(peer);
    ++router.unfinished_sends;
    WatchForStall(router);
    const SendResult result = transport_.Send(peer, std::span(&part, 1), ticket);
    if (result == SendResult::kAccepted) {
      return true;
    }
    if (const auto found = routers_.find(peer); found != routers_.end()) {
      --found->second.unfinished_sends;
    }
    BufferLease buffer = std::exchange(send_slots_[slot], {}).buffer;
    free_send_slots_.push_back(slot);
    if (result == SendResult::kBackpressure) {
      reply.buffer = std::move(buffer);
      return false;
    }
    return true;  // No peer: OnPeerDown follows or has come.
  }

  // Closes routers that said nothing, were refused, or do not read their answers.
  void CloseOverdue(Instant now) {
    if (now < next_close_) {
      return;
    }
    next_close_ = Instant::max();
    for (auto& [peer, router] : routers_) {
      if (now < router.close_at) {
        next_close_ = std::min(next_close_, router.close_at);
        continue;
      }
      if (router.state == Router::State::kReady) {
        SY_LOG_WARNING("router closed peer={} why=answers not read", peer.value());
        metrics_.closed_stalled.Add();
      } else if (router.state == Router::State::kNew) {
        metrics_.closed_hello.Add();
      }
      router.state = Router::State::kRefused;
      router.close_at = Instant::max();
      router.waiting.clear();
      transport_.Close(peer);  // OnPeerDown removes the router.
    }
  }

  const ExpertServerOptions options_;
  Transport& transport_;
  const ExpertBank& bank_;
  const Clock& clock_;
  ExpertsMetrics& metrics_;
  EpochId newest_epoch_;
  LoadCounter load_;
  ExpertBatcher batcher_;
  const uint32_t buffers_max_per_router_;
  BufferPool pool_;
  absl::flat_hash_map<PeerHandle, Router>
      routers_;  // After pool_, as are the slots: leases die first.
  std::vector<SendSlot> send_slots_;
  std::vector<uint32_t> free_send_slots_;
  uint64_t next_send_number_ = 1;
  Instant next_close_ = Instant::max();
  std::vector<PeerHandle> to_send_;  // Peers whose waiting answers are to be tried.
  bool sending_ = false;
};

ExpertServer::ExpertServer(ExpertServerOptions options, Transport& transport, ExpertBank& bank,
                           const Kernels& kernels, ComputePool& pool, const Clock& clock,
                           ExpertsMetrics& metrics)
    : impl_(std::make_unique<Impl>(std::move(options), transport, bank, kernels, pool, clock,
                                   metrics)) {
  transport.SetHandler(this);
}

ExpertServer::~ExpertServer() {
  impl_->CloseAll();
  impl_->transport().SetHandler(nullptr);
}

bool ExpertServer::RunQueued() { return impl_->RunQueued(); }

Duration ExpertServer::WaitMax(Duration most) const { return impl_->WaitMax(most); }

void ExpertServer::SetNewestEpoch(EpochId epoch) { impl_->SetNewestEpoch(epoch); }

const LoadCounter& ExpertServer::load() const { return impl_->load(); }

ExpertServer::Usage ExpertServer::usage() const { return impl_->usage(); }

void ExpertServer::OnPeerUp(PeerHandle peer, bool accepted) { impl_->OnPeerUp(peer, accepted); }

void ExpertServer::OnPeerDown(PeerHandle peer, const absl::Status& /*why*/) {
  impl_->OnPeerDown(peer);
}

void ExpertServer::OnMessage(PeerHandle peer, std::span<const std::byte> message) {
  impl_->OnMessage(peer, message);
}

void ExpertServer::OnSendDone(PeerHandle peer, SendTicket ticket, const absl::Status& /*status*/) {
  impl_->OnSendDone(peer, ticket);
}

}  // namespace switchyard
