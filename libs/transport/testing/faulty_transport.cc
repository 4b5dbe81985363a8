#include "libs/transport/testing/faulty_transport.h"

#include <algorithm>
#include <span>
#include <utility>

namespace switchyard {

FaultyTransport::FaultyTransport(std::unique_ptr<Transport> inner, FaultOptions options,
                                 uint64_t seed, const Clock& clock)
    : inner_(std::move(inner)), options_(options), rng_(seed), clock_(clock) {
  inner_->SetHandler(this);
}

FaultyTransport::~FaultyTransport() { inner_->SetHandler(nullptr); }

absl::StatusOr<std::string> FaultyTransport::Listen(const std::string& address) {
  return inner_->Listen(address);
}

absl::StatusOr<PeerHandle> FaultyTransport::Connect(const std::string& address) {
  return inner_->Connect(address);
}

void FaultyTransport::Close(PeerHandle peer) {
  up_.erase(peer);
  std::erase_if(held_, [&](const Held& held) { return held.peer == peer; });
  inner_->Close(peer);
}

SendResult FaultyTransport::Send(PeerHandle peer, std::span<const std::span<const std::byte>> parts,
                                 SendTicket ticket) {
  if (!up_.contains(peer)) {
    return SendResult::kNoPeer;
  }
  const Fault fault = Draw();
  if (fault == Fault::kNone) {
    const SendResult result = Forward(peer, parts, ticket);
    ReleaseReordered(peer);
    return result;
  }
  std::vector<std::byte> bytes;
  for (const auto& part : parts) {
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  switch (fault) {
    case Fault::kDuplicate:
      ++counts_.duplicated;
      SendCopy(peer, bytes);
      SendCopy(peer, std::move(bytes));
      break;
    case Fault::kCorrupt:
      ++counts_.corrupted;
      if (!bytes.empty()) {
        bytes[rng_.Below(bytes.size())] ^= std::byte(1U << rng_.Below(8));
      }
      SendCopy(peer, std::move(bytes));
      break;
    case Fault::kDelay:
    case Fault::kReorder:
      ++(fault == Fault::kDelay ? counts_.delayed : counts_.reordered);
      held_.push_back({.peer = peer,
                       .due = clock_.Now() + options_.delay_by,
                       .until_next = fault == Fault::kReorder,
                       .bytes = std::move(bytes)});
      break;
    default:
      ++counts_.dropped;
      break;
  }
  if (handler_ != nullptr) {
    handler_->OnSendDone(peer, ticket, absl::OkStatus());
  }
  return SendResult::kAccepted;
}

bool FaultyTransport::Progress() {
  const bool released = ReleaseDue();
  return inner_->Progress() || released;
}

bool FaultyTransport::Wait(Duration timeout) {
  ReleaseDue();
  for (const Held& held : held_) {
    timeout = std::min(timeout, std::max(held.due - clock_.Now(), Duration::zero()));
  }
  const bool happened = inner_->Wait(timeout);
  return ReleaseDue() || happened;
}

void FaultyTransport::OnPeerUp(PeerHandle peer, bool accepted) {
  up_[peer] = true;
  if (handler_ != nullptr) {
    handler_->OnPeerUp(peer, accepted);
  }
}

void FaultyTransport::OnPeerDown(PeerHandle peer, const absl::Status& why) {
  up_.erase(peer);
  std::erase_if(held_, [&](const Held& held) { return held.peer == peer; });
  if (handler_ != nullptr) {
    handler_->OnPeerDown(peer, why);
  }
}

void FaultyTransport::OnMessage(PeerHandle peer, std::span<const std::byte> message) {
  if (handler_ != nullptr) {
    handler_->OnMessage(peer, message);
  }
}

void FaultyTransport::OnSendDone(PeerHandle peer, SendTicket ticket, const absl::Status& status) {
  const auto found = in_flight_.find(ticket);
  const InFlight done = std::move(found->second);
  in_flight_.erase(found);
  if (!done.ours && handler_ != nullptr) {
    handler_->OnSendDone(peer, done.ticket, status);
  }
}

FaultyTransport::Fault FaultyTransport::Draw() {
  float draw = rng_.Unit();
  const std::pair<float, Fault> faults[] = {{options_.drop, Fault::kDrop},
                                            {options_.duplicate, Fault::kDuplicate},
                                            {options_.corrupt, Fault::kCorrupt},
                                            {options_.delay, Fault::kDelay},
                                            {options_.reorder, Fault::kReorder}};
  for (const auto& [probability, fault] : faults) {
    if (draw < probability) {
      return fault;
    }
    draw -= probability;
  }
  return Fault::kNone;
}

SendResult FaultyTransport::Forward(PeerHandle peer,
                                    std::span<const std::span<const std::byte>> parts,
                                    SendTicket ticket) {
  const SendTicket inner_ticket(next_ticket_++);
  in_flight_[inner_ticket] = {.ours = false, .ticket = ticket, .bytes = {}};
  const SendResult result = inner_->Send(peer, parts, inner_ticket);
  if (result != SendResult::kAccepted) {
    in_flight_.erase(inner_ticket);
  }
  return result;
}

// A copy the inner transport does not take is lost, which is one more fault.
void FaultyTransport::SendCopy(PeerHandle peer, std::vector<std::byte> bytes) {
  const SendTicket inner_ticket(next_ticket_++);
  InFlight& flight = in_flight_[inner_ticket];
  flight = {.ours = true, .ticket = {}, .bytes = std::move(bytes)};
  const std::span<const std::byte> part(flight.bytes);
  if (inner_->Send(peer, {&part, 1}, inner_ticket) != SendResult::kAccepted) {
    in_flight_.erase(inner_ticket);
  }
}

bool FaultyTransport::ReleaseDue() {
  const Instant now = clock_.Now();
  std::vector<Held> due;
  std::erase_if(held_, [&](Held& held) {
    const bool is_due = held.due <= now;
    if (is_due) {
      due.push_back(std::move(held));
    }
    return is_due;
  });
  for (Held& held : due) {
    SendCopy(held.peer, std::move(held.bytes));
  }
  return !due.empty();
}

void FaultyTransport::ReleaseReordered(PeerHandle peer) {
  for (size_t i = 0; i < held_.size();) {
    if (held_[i].peer != peer || !held_[i].until_next) {
      ++i;
      continue;
    }
    std::vector<std::byte> bytes = std::move(held_[i].bytes);
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(i));
    SendCopy(peer, std::move(bytes));
  }
}

}  // namespace switchyard
