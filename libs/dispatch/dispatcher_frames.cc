#include <algorithm>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/dispatch/internal/dispatcher_impl.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

using State = ShardLink::State;

constexpr uint32_t kSendSlotBits = 32;  // A send ticket is (number, slot) in one integer.

uint32_t RemainingUs(Duration left) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(left).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(us, 0, UINT32_MAX));
}

// What the shard's answer means for the call. Redirection would begin here.
absl::Status StatusOfAnswer(const ShardLink& link, const Call& call, const FrameHeader& header) {
  const std::string what =
      fmt::format("{} answered {} for layer {} (routed by epoch {}, it knows {})", link.Name(),
                  NameOf(header.status), call.rows.layer, call.epoch, header.placement_epoch);
  const bool elsewhere = header.status == FrameStatus::kStaleEpoch ||
                         header.status == FrameStatus::kUnknownExpert ||
                         header.status == FrameStatus::kBusy;
  return elsewhere ? Unavailable("{}", what) : Internal("{}", what);
}

}  // namespace

void Dispatcher::Impl::SendHello(ShardLink& link) {
  BufferLease buffer = pool_.TryAcquire();
  if (!buffer) {
    Lose(link, State::kDown,
         ResourceExhausted("no send buffer for a hello, limit {}", options_.send_buffers_max));
    return;
  }
  FrameHeader header;
  header.kind = FrameKind::kHello;
  header.dtype = options_.row_dtype;
  header.sender_incarnation = options_.incarnation.value();
  header.hidden_size = options_.hidden_size;
  const size_t bytes = EncodeHello(header,
                                   {.body = {.role = PeerRole::kRouter},
                                    .numerics_id = options_.numerics_id,
                                    .model_digest = options_.model_digest,
                                    .text = {}},
                                   buffer.bytes());
  const PeerHandle peer = link.peer;
  if (SendBuffer(link, std::move(buffer), bytes) != SendResult::kAccepted && link.peer == peer &&
      link.state == State::kHello) {
    Lose(link, State::kDown, Unavailable("hello was not taken"));
  }
}

void Dispatcher::Impl::OnMessage(PeerHandle peer, std::span<const std::byte> message) {
  ShardLink* link = LinkOf(peer);
  if (link == nullptr) {
    return;
  }
  metrics_.bytes_received.Add(static_cast<double>(message.size()));
  const absl::StatusOr<ParsedFrame> frame = ParseFrame(message);
  if (!frame.ok()) {
    Refuse(*link, frame.status());
    return;
  }
  switch (frame->header.kind) {
    case FrameKind::kHelloAck:
      OnHelloAck(*link, *frame);
      break;
    case FrameKind::kCombine:
      OnCombine(*link, *frame);
      break;
    case FrameKind::kError: {
      const auto* text = reinterpret_cast<const char*>(frame->payload.data());
      Refuse(*link,
             FailedPrecondition("the shard says: {}", Printable({text, frame->payload.size()})));
      break;
    }
    default:
      Refuse(*link, InvalidArgument("a shard sent a frame of kind {}",
                                    static_cast<unsigned>(frame->header.kind)));
  }
  PumpAll();
}

void Dispatcher::Impl::OnSendDone(SendTicket ticket) {
  const uint64_t slot = ticket.value() & ((uint64_t{1} << kSendSlotBits) - 1);
  SY_CHECK(slot < send_slots_.size());
  SY_CHECK(send_slots_[slot].number == ticket.value() >> kSendSlotBits);
  send_slots_[slot] = {};
  free_send_slots_.push_back(static_cast<uint32_t>(slot));
  PumpAll();
}

void Dispatcher::Impl::OnHelloAck(ShardLink& link, const ParsedFrame& frame) {
  const Incarnation incarnation(frame.header.sender_incarnation);
  if (link.state != State::kHello) {
    metrics_.dropped_duplicate.Add();
    return;
  }
  const absl::StatusOr<HelloFrame> hello = ParseHello(frame);
  if (!hello.ok()) {
    Refuse(link, hello.status());
    return;
  }
  if (frame.header.status != FrameStatus::kOk) {
    Refuse(link, FailedPrecondition("the shard says: {}", Printable(hello->text)));
    return;
  }
  const absl::Status match = CheckHello(frame.header, *hello,
                                        {.numerics_id = options_.numerics_id,
                                         .model_digest = options_.model_digest,
                                         .hidden_size = options_.hidden_size,
                                         .dtype = options_.row_dtype,
                                         .role = PeerRole::kShard});
  if (!match.ok()) {
    Refuse(link, match);
    return;
  }
  if (hello->body.ordinal != link.info.shard.value()) {
    Refuse(link, FailedPrecondition("shard {} answers where shard {} was expected",
                                    hello->body.ordinal, link.info.shard));
    return;
  }
  if (incarnation != link.info.incarnation) {
    // It restarted and holds nothing yet; the placement that names it connects at once.
    Refuse(link, FailedPrecondition("shard {} answers as incarnation {}, the placement names {}",
                                    link.info.shard, incarnation, link.info.incarnation));
    return;
  }
  link.state = State::kReady;
  link.why.clear();
  link.incarnation = incarnation;
  link.entry_credits = hello->body.entry_credits;
  ready_.reset();
  metrics_.ShardConnected(link.info.shard).Set(1);
  SY_LOG_INFO("shard connected shard={} address={} incarnation={}", link.info.shard,
              link.info.address, incarnation);
}

// Null, and counted, when nobody waits for the answer.
Fragment* Dispatcher::Impl::FindFragment(const ShardLink& link, const FrameHeader& header) {
  const uint64_t slot = header.reply_id >> 32;
  const uint64_t index = header.reply_id & UINT32_MAX;
  if (header.sender_incarnation != link.incarnation.value()) {
    metrics_.dropped_incarnation.Add();
    return nullptr;
  }
  if (slot >= calls_.size() || !calls_[slot].active || !calls_[slot].status.ok() ||
      index >= calls_[slot].fragments.size()) {
    metrics_.dropped_late.Add();
    return nullptr;
  }
  Fragment& fragment = calls_[slot].fragments[index];
  if (fragment.link != &link || fragment.sequence != header.sequence ||
      fragment.attempt != header.attempt || fragment.state == Fragment::State::kQueued) {
    metrics_.dropped_late.Add();
    return nullptr;
  }
  if (fragment.state == Fragment::State::kDone) {
    metrics_.dropped_duplicate.Add();
    return nullptr;
  }
  return &fragment;
}

absl::Status Dispatcher::Impl::CheckAnswer(const Call& call, uint32_t index,
                                           const FrameHeader& header) const {
  if (header.layer != call.rows.layer.value() || header.fragment_index != (index & UINT16_MAX) ||
      header.entry_count != call.plan.fragments[index].entry_count ||
      header.hidden_size != options_.hidden_size || header.dtype != options_.row_dtype) {
    return InvalidArgument(
        "answered {} rows of {} {} of layer {} where {} of {} {} of layer {} were asked for",
        header.entry_count, header.hidden_size, NameOf(header.dtype), header.layer,
        call.plan.fragments[index].entry_count, options_.hidden_size, NameOf(options_.row_dtype),
        call.rows.layer);
  }
  return absl::OkStatus();
}

void Dispatcher::Impl::OnCombine(ShardLink& link, const ParsedFrame& frame) {
  const FrameHeader& header = frame.header;
  if (link.state != State::kReady) {
    metrics_.dropped_late.Add();
    return;
  }
  ReleaseCredits(link, header.sequence);
  newest_epoch_seen_ = std::max(newest_epoch_seen_, EpochId(header.placement_epoch));
  Fragment* fragment = FindFragment(link, header);
  if (fragment == nullptr) {
    return;
  }
  Call& call = calls_[header.reply_id >> 32];
  const auto index = static_cast<uint32_t>(header.reply_id & UINT32_MAX);
  const absl::Status shape = CheckAnswer(call, index, header);
  if (!shape.ok()) {
    Refuse(link, shape);
    return;
  }
  if (header.status != FrameStatus::kOk) {
    metrics_.rpc_refused.Add();
    call.status = StatusOfAnswer(link, call, header);
    return;
  }
  if (!StoreRows(call, index, frame)) {
    Refuse(link, InvalidArgument("answered a row of layer {} that is not finite", call.rows.layer));
    return;
  }
  fragment->state = Fragment::State::kDone;
  --call.left;
  metrics_.rpc_ok.Add();
  metrics_.rpc_seconds.Observe(ToSeconds(clock_.Now() - fragment->sent_at));
}

// Straight to the caller's rows where Await() has named them, else to the reserved room.
bool Dispatcher::Impl::StoreRows(Call& call, uint32_t index, const ParsedFrame& frame) {
  float* base = call.out != nullptr ? call.out : call.room.get();
  call.fragments[index].in_room = call.out == nullptr;
  const FragmentPlan& plan = call.plan.fragments[index];
  bool finite = true;
  for (uint32_t i = 0; i < plan.entry_count; ++i) {
    const uint32_t entry = plan.first_entry + i;
    const size_t row = call.plan.BatchRow(plan, entry);
    float* place = base + (row * options_.top_k + call.plan.entries[entry].slot) * RowFloats();
    finite = DecodeRow(frame.row(i), options_.row_dtype, {place, RowFloats()}) && finite;
  }
  return finite;
}

void Dispatcher::Impl::ReleaseCredits(ShardLink& link, uint64_t sequence) {
  const auto found = std::ranges::find(link.in_flight, sequence, &ShardLink::InFlight::sequence);
  if (found != link.in_flight.end()) {
    link.entries_in_flight -= found->entries;
    *found = link.in_flight.back();
    link.in_flight.pop_back();
  }
}

// Calls that ended early may leave frames whose answers never come; their deadline frees the
// credits.
void Dispatcher::Impl::PurgeCredits(ShardLink& link) {
  const Instant now = clock_.Now();
  std::erase_if(link.in_flight, [&](const ShardLink::InFlight& frame) {
    if (now < frame.deadline) {
      return false;
    }
    link.entries_in_flight -= frame.entries;
    return true;
  });
}

bool Dispatcher::Impl::HasCredits(const ShardLink& link, uint32_t entries) const {
  return link.in_flight.empty() ||
         (link.in_flight.size() < options_.shard_frames_max &&
          uint64_t{link.entries_in_flight} + entries <= link.entry_credits);
}

// All frames of one shard before the next shard's, so that the first can begin while others are
// sent to. Callbacks from within Send() do not recurse: the loop goes on until nothing moves.
void Dispatcher::Impl::PumpAll() {
  if (pumping_ || frames_waiting_ == 0) {
    return;
  }
  pumping_ = true;
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t i = 0; i < links_.size(); ++i) {
      while (PumpOne(*links_[i])) {
        moved = true;
      }
    }
  }
  pumping_ = false;
  metrics_.frames_waiting.Set(frames_waiting_);
}

bool Dispatcher::Impl::PumpOne(ShardLink& link) {
  if (link.state != State::kReady || link.outbox.empty()) {
    return false;
  }
  const FragmentRef ref = link.outbox.front();
  Call& call = calls_[ref.slot];
  if (!call.active || call.number != ref.call_number || !call.status.ok()) {
    link.outbox.pop_front();
    --frames_waiting_;
    return true;
  }
  const uint32_t entries = call.plan.fragments[ref.fragment].entry_count;
  if (!HasCredits(link, entries)) {
    PurgeCredits(link);
  }
  BufferLease buffer = HasCredits(link, entries) ? pool_.TryAcquire() : BufferLease();
  if (!buffer) {
    return false;
  }
  const absl::StatusOr<size_t> bytes = Encode(call, ref, buffer.bytes());
  if (!bytes.ok()) {
    call.status = bytes.status();
    return true;
  }
  // Sending may call back, up to losing the link, so the books are right before it.
  Fragment& fragment = call.fragments[ref.fragment];
  fragment.state = Fragment::State::kInFlight;
  fragment.sent_at = clock_.Now();
  link.outbox.pop_front();
  --frames_waiting_;
  link.entries_in_flight += entries;
  link.in_flight.push_back(
      {.sequence = fragment.sequence, .entries = entries, .deadline = call.deadline});
  const PeerHandle peer = link.peer;
  const SendResult result = SendBuffer(link, std::move(buffer), *bytes);
  if (result == SendResult::kAccepted || link.state != State::kReady || link.peer != peer) {
    return true;
  }
  if (result == SendResult::kNoPeer) {
    Lose(link, State::kDown, Unavailable("the connection is gone"));
    return true;
  }
  ReleaseCredits(link, fragment.sequence);
  fragment.state = Fragment::State::kQueued;
  link.outbox.push_front(ref);
  ++frames_waiting_;
  return false;
}

// Whether the frame after this one, of the same call to the same shard, can be sent right behind
// it.
bool Dispatcher::Impl::MoreFollows(const Call& call, const FragmentRef& ref) const {
  const ShardLink& link = *call.fragments[ref.fragment].link;
  if (link.outbox.size() < 2 || link.outbox[1].call_number != ref.call_number) {
    return false;
  }
  const uint64_t entries = uint64_t{link.entries_in_flight} +
                           call.plan.fragments[ref.fragment].entry_count +
                           call.plan.fragments[link.outbox[1].fragment].entry_count;
  return link.in_flight.size() + 1 < options_.shard_frames_max && entries <= link.entry_credits &&
         pool_.leased_count() < pool_.buffer_count_max();
}

absl::StatusOr<size_t> Dispatcher::Impl::Encode(const Call& call, const FragmentRef& ref,
                                                std::span<std::byte> out) {
  const FragmentPlan& plan = call.plan.fragments[ref.fragment];
  const Fragment& fragment = call.fragments[ref.fragment];
  FrameHeader header;
  header.kind = FrameKind::kDispatch;
  header.dtype = options_.row_dtype;
  header.placement_epoch = call.epoch.value();
  header.sender_incarnation = options_.incarnation.value();
  header.sequence = fragment.sequence;
  header.reply_id = (uint64_t{ref.slot} << 32) | ref.fragment;
  header.remaining_us = RemainingUs(call.deadline - clock_.Now());
  header.row_count = plan.row_count;
  header.entry_count = plan.entry_count;
  header.hidden_size = options_.hidden_size;
  header.layer = call.rows.layer.value();
  header.fragment_index = static_cast<uint16_t>(ref.fragment & UINT16_MAX);
  header.fragment_count = static_cast<uint16_t>(call.fragments.size() & UINT16_MAX);
  header.micro_batch = static_cast<uint16_t>(ref.slot);
  header.attempt = fragment.attempt;
  header.more_follows = MoreFollows(call, ref) ? 1 : 0;

  const auto table =
      std::as_bytes(std::span(call.plan.entries).subspan(plan.first_entry, plan.entry_count));
  const size_t row_bytes = RowFloats() * BytesOf(options_.row_dtype);
  const auto rows = out.subspan(sizeof(header) + table.size(), plan.row_count * row_bytes);
  for (uint32_t i = 0; i < plan.row_count; ++i) {
    const uint32_t row = call.plan.rows[plan.first_row + i];
    const auto values = call.rows.rows.subspan(row * RowFloats(), RowFloats());
    if (!EncodeRow(values, options_.row_dtype, rows.data() + i * row_bytes)) {
      return Internal("dispatch: row {} of layer {} is not finite", row, call.rows.layer);
    }
  }
  SealFrame(header, table.size(), {table, rows});
  std::memcpy(out.data(), &header, sizeof(header));
  std::ranges::copy(table, out.begin() + sizeof(header));
  return sizeof(header) + table.size() + rows.size();
}

uint32_t Dispatcher::Impl::TakeSendSlot(BufferLease buffer) {
  if (free_send_slots_.empty()) {
    send_slots_.emplace_back();
    free_send_slots_.push_back(static_cast<uint32_t>(send_slots_.size() - 1));
  }
  const uint32_t slot = free_send_slots_.back();
  free_send_slots_.pop_back();
  send_slots_[slot].buffer = std::move(buffer);
  // 32 bits of number are kept in the ticket; a slot is never that far behind.
  send_slots_[slot].number = next_send_number_++ & UINT32_MAX;
  return slot;
}

SendResult Dispatcher::Impl::SendBuffer(ShardLink& link, BufferLease buffer, size_t bytes) {
  const std::span<const std::byte> part = buffer.bytes().first(bytes);
  const uint32_t slot = TakeSendSlot(std::move(buffer));
  const SendTicket ticket((send_slots_[slot].number << kSendSlotBits) | slot);
  const SendResult result = transport_.Send(link.peer, std::span(&part, 1), ticket);
  if (result == SendResult::kAccepted) {
    metrics_.bytes_sent.Add(static_cast<double>(bytes));
  } else {
    send_slots_[slot] = {};
    free_send_slots_.push_back(slot);
  }
  return result;
}

}  // namespace switchyard
