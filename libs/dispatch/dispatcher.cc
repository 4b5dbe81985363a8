#include "libs/dispatch/dispatcher.h"

#include <algorithm>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/status.h"
#include "libs/dispatch/internal/dispatcher_impl.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

constexpr uint32_t kTicketSlotsMax = 256;  // A ticket is (call number, slot) in one integer.
constexpr int kCloseWaitsMax = 200;
constexpr int kLateRoundsMax = 64;  // For answers that have come before the deadline is looked at.
constexpr Duration kCloseWait = std::chrono::milliseconds(5);

uint32_t EntriesMax(const DispatcherOptions& options) {
  const size_t row_bytes = options.hidden_size * BytesOf(options.row_dtype);
  SY_CHECK(row_bytes > 0 && row_bytes <= kFrameRowBytesMax && IsRowDtype(options.row_dtype));
  return static_cast<uint32_t>(std::min<size_t>(kFrameRowBytesMax / row_bytes, kFrameEntriesMax));
}

size_t BufferBytes(const DispatcherOptions& options, uint32_t entries_max) {
  const size_t row_bytes = options.hidden_size * BytesOf(options.row_dtype);
  const size_t frame = sizeof(FrameHeader) + entries_max * (sizeof(RouteEntry) + row_bytes);
  return std::max(frame, kHelloFrameBytesMax);
}

}  // namespace

Dispatcher::Impl::Impl(const DispatcherOptions& options, Transport& transport, const Clock& clock,
                       DispatchMetrics& metrics)
    : options_(options),
      transport_(transport),
      clock_(clock),
      metrics_(metrics),
      entries_max_(EntriesMax(options)),
      calls_(options.tickets_max),
      pool_(BufferBytes(options, entries_max_), options.send_buffers_max) {
  SY_CHECK(options.tickets_max > 0 && options.tickets_max <= kTicketSlotsMax);
  SY_CHECK(options.top_k > 0 && options.top_k <= kSlotsMax && options.send_buffers_max > 0);
}

absl::Status Dispatcher::Impl::CheckRows(const RoutedRows& rows) {
  if (rows.row_count > options_.rows_max) {
    metrics_.rejected_rows.Add();
    return InvalidArgument("dispatch: {} rows, limit {}", rows.row_count, options_.rows_max);
  }
  if (rows.rows.size() != rows.row_count * RowFloats() ||
      rows.experts.size() != size_t{rows.row_count} * options_.top_k) {
    return InvalidArgument("dispatch: {} rows with {} floats and {} experts, expected {} and {}",
                           rows.row_count, rows.rows.size(), rows.experts.size(),
                           rows.row_count * RowFloats(), size_t{rows.row_count} * options_.top_k);
  }
  if (routes_ == nullptr) {
    return Unavailable("no placement yet");
  }
  if (active_calls_ == calls_.size()) {
    metrics_.rejected_tickets.Add();
    return ResourceExhausted("dispatch: {} calls not yet awaited, limit {}", active_calls_,
                             calls_.size());
  }
  return absl::OkStatus();
}

absl::Status Dispatcher::Impl::FillCall(Call& call, uint32_t slot, const RoutedRows& rows) {
  usable_.resize(route_links_.size());
  for (size_t i = 0; i < usable_.size(); ++i) {
    usable_[i] = route_links_[i]->state == ShardLink::State::kReady ? 1 : 0;
  }
  SY_RETURN_IF_ERROR(planner_.Build({.layer = rows.layer,
                                     .row_count = rows.row_count,
                                     .top_k = options_.top_k,
                                     .experts = rows.experts,
                                     .routes = routes_.get(),
                                     .usable = usable_,
                                     .entries_max = entries_max_},
                                    call.plan));
  const size_t room_floats = rows.experts.size() * RowFloats();
  if (room_floats > call.room_floats) {
    call.room = std::make_unique_for_overwrite<float[]>(room_floats);
    call.room_floats = room_floats;
  }
  call.number = next_call_number_++;
  call.rows = rows;
  call.epoch = routes_->epoch();
  call.deadline = clock_.Now() + options_.call_deadline;
  call.status = absl::OkStatus();
  call.out = nullptr;
  call.left = static_cast<uint32_t>(call.plan.fragments.size());
  call.fragments.assign(call.left, {});
  for (uint32_t i = 0; i < call.left; ++i) {
    Fragment& fragment = call.fragments[i];
    fragment.link = route_links_[call.plan.fragments[i].shard_index];
    fragment.sequence = next_sequence_++;
    fragment.link->outbox.push_back({.slot = slot, .call_number = call.number, .fragment = i});
    ++frames_waiting_;
  }
  call.active = true;
  ++active_calls_;
  return absl::OkStatus();
}

absl::StatusOr<DispatchTicket> Dispatcher::Impl::Send(const RoutedRows& rows) {
  SY_RETURN_IF_ERROR(CheckRows(rows));
  transport_.Progress();
  Maintain(clock_.Now());
  const auto free = std::ranges::find(calls_, false, &Call::active);
  const auto slot = static_cast<uint32_t>(free - calls_.begin());
  SY_RETURN_IF_ERROR(FillCall(*free, slot, rows));
  PumpAll();
  return DispatchTicket(free->number * kTicketSlotsMax + slot);
}

absl::Status Dispatcher::Impl::Await(DispatchTicket ticket, std::span<float> out) {
  const uint64_t slot = ticket.value() % kTicketSlotsMax;
  SY_CHECK(slot < calls_.size());
  Call& call = calls_[slot];
  SY_CHECK(call.active && call.number == ticket.value() / kTicketSlotsMax);
  SY_CHECK(out.size() == call.rows.experts.size() * RowFloats());
  call.out = out.data();
  CopyFromRoom(call);
  while (call.left > 0 && call.status.ok()) {
    const Instant now = clock_.Now();
    if (now >= call.deadline) {
      TakeLateAnswers(call);
      Expire(call);
      break;
    }
    Maintain(now);
    if (call.left > 0 && call.status.ok()) {
      transport_.Wait(std::max(std::min(call.deadline, next_event_) - now, Duration(0)));
    }
  }
  return Finish(call);
}

void Dispatcher::Impl::CopyFromRoom(Call& call) {
  for (size_t i = 0; i < call.fragments.size(); ++i) {
    if (!call.fragments[i].in_room) {
      continue;
    }
    const FragmentPlan& plan = call.plan.fragments[i];
    for (uint32_t e = plan.first_entry; e < plan.first_entry + plan.entry_count; ++e) {
      const size_t place =
          (size_t{call.plan.BatchRow(plan, e)} * options_.top_k + call.plan.entries[e].slot) *
          RowFloats();
      std::copy_n(call.room.get() + place, RowFloats(), call.out + place);
    }
  }
}

// What came in time may still lie in the transport, when this thread was busy elsewhere.
void Dispatcher::Impl::TakeLateAnswers(const Call& call) {
  for (int i = 0; i < kLateRoundsMax && call.left > 0 && call.status.ok(); ++i) {
    if (!transport_.Progress()) {
      return;
    }
  }
}

// The application's deadline is the failure detector: whoever missed it is connected to anew.
void Dispatcher::Impl::Expire(Call& call) {
  for (const Fragment& fragment : call.fragments) {
    if (fragment.state == Fragment::State::kDone) {
      continue;
    }
    const absl::Status why =
        DeadlineExceeded("{} did not answer layer {} within {:.3f} s", fragment.link->Name(),
                         call.rows.layer, ToSeconds(options_.call_deadline));
    metrics_.rpc_deadline.Add();
    if (call.status.ok()) {
      call.status = why;
    }
    if (fragment.state == Fragment::State::kInFlight &&
        fragment.link->state == ShardLink::State::kReady) {
      Lose(*fragment.link, ShardLink::State::kDown, why);
    }
  }
}

absl::Status Dispatcher::Impl::Finish(Call& call) {
  call.active = false;
  call.out = nullptr;
  --active_calls_;
  if (active_calls_ == 0 && unwanted_links_) {
    next_event_ = Instant::min();  // Maintain() may remove them now.
  }
  if (!call.status.ok()) {
    for (const std::unique_ptr<ShardLink>& link : links_) {
      const size_t removed = std::erase_if(
          link->outbox, [&](const FragmentRef& ref) { return ref.call_number == call.number; });
      frames_waiting_ -= static_cast<uint32_t>(removed);
    }
    metrics_.frames_waiting.Set(frames_waiting_);
  }
  return std::exchange(call.status, absl::OkStatus());
}

bool Dispatcher::Impl::Poll() {
  const bool happened = transport_.Progress();  // First, so that nothing expires that has come.
  Maintain(clock_.Now());
  return happened;
}

void Dispatcher::Impl::WaitForWork(Duration timeout) {
  const bool happened = clock_.Now() >= next_event_ && transport_.Progress();
  const Instant now = clock_.Now();
  Maintain(now);
  if (happened) {
    return;
  }
  const bool event_first = next_event_ < now + timeout;
  transport_.Wait(event_first ? std::max(next_event_ - now, Duration(0)) : timeout);
}

// Forces connections shut and lets the transport give back the buffers it still reads.
void Dispatcher::Impl::CloseAll() {
  for (const std::unique_ptr<ShardLink>& link : links_) {
    link->wanted = false;
    if (link->state != ShardLink::State::kDown && link->state != ShardLink::State::kRefused) {
      Lose(*link, ShardLink::State::kDown, absl::CancelledError("this router stops"));
    }
  }
  for (int i = 0; i < kCloseWaitsMax && transport_.queued_bytes() > 0; ++i) {
    transport_.Wait(kCloseWait);
  }
}

Dispatcher::Usage Dispatcher::Impl::usage() const {
  return {.tickets = active_calls_,
          .buffers = pool_.leased_count(),
          .queued_bytes = transport_.queued_bytes()};
}

Dispatcher::Dispatcher(DispatcherOptions options, Transport& transport, const Clock& clock,
                       DispatchMetrics& metrics)
    : impl_(std::make_unique<Impl>(options, transport, clock, metrics)) {
  transport.SetHandler(this);
}

Dispatcher::~Dispatcher() {
  impl_->CloseAll();
  impl_->transport().SetHandler(nullptr);
}

void Dispatcher::SetRoutes(std::shared_ptr<const RouteTable> routes) {
  impl_->SetRoutes(std::move(routes));
}

absl::Status Dispatcher::Ready() const { return impl_->Ready(); }

absl::StatusOr<DispatchTicket> Dispatcher::Send(const RoutedRows& rows) {
  return impl_->Send(rows);
}

absl::Status Dispatcher::Await(DispatchTicket ticket, std::span<float> out) {
  return impl_->Await(ticket, out);
}

bool Dispatcher::Poll() { return impl_->Poll(); }

void Dispatcher::WaitForWork(Duration timeout) { impl_->WaitForWork(timeout); }

void Dispatcher::Wake() { impl_->transport().Wake(); }

std::vector<Dispatcher::ShardState> Dispatcher::ShardStates() const { return impl_->ShardStates(); }

Dispatcher::Usage Dispatcher::usage() const { return impl_->usage(); }

EpochId Dispatcher::newest_epoch_seen() const { return impl_->newest_epoch_seen(); }

void Dispatcher::OnPeerUp(PeerHandle peer, bool accepted) { impl_->OnPeerUp(peer, accepted); }

void Dispatcher::OnPeerDown(PeerHandle peer, const absl::Status& why) {
  impl_->OnPeerDown(peer, why);
}

void Dispatcher::OnMessage(PeerHandle peer, std::span<const std::byte> message) {
  impl_->OnMessage(peer, message);
}

void Dispatcher::OnSendDone(PeerHandle /*peer*/, SendTicket ticket,
                            const absl::Status& /*status*/) {
  impl_->OnSendDone(ticket);
}

}  // namespace switchyard
