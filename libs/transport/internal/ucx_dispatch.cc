#include <algorithm>
#include <utility>

#include <poll.h>
#include <unistd.h>

#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/transport/internal/ucx_impl.h"

// The half of UcxTransport that acts on what UCX callbacks saw: connections coming and going,
// messages in their order, completions, timers.
namespace switchyard::internal {
namespace {

constexpr Duration kClosePoll = std::chrono::milliseconds(1);

timespec ToTimespec(Duration duration) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration);
  return {.tv_sec = static_cast<time_t>(seconds.count()),
          .tv_nsec = static_cast<long>((duration - seconds).count())};
}

}  // namespace

// One pass: what handlers cause while it runs is for the next one.
bool UcxTransport::Dispatch() {
  if (events_.empty()) {
    return false;
  }
  dispatching_.swap(events_);
  for (UcxEvent& event : dispatching_) {
    switch (event.kind) {
      case UcxEvent::Kind::kConnectRequest:
        Accept(event.request);
        break;
      case UcxEvent::Kind::kMessage:
        OnArrived(event.peer, event.header, std::move(event.buffer));
        break;
      case UcxEvent::Kind::kOperationDone:
        FinishOperation(event);
        break;
      case UcxEvent::Kind::kEndpointError:
        if (UcxPeer* peer = Find(event.peer); peer != nullptr) {
          Fail(*peer, FromUcs(event.status, "peer lost"));
        }
        break;
      case UcxEvent::Kind::kReject:
        Reject(event.peer, event.oversize);
        break;
    }
  }
  dispatching_.clear();
  return true;
}

void UcxTransport::Accept(ucp_conn_request_h request) {
  if (stopping_ || peers_.size() >= limits_.peers_max) {
    ++stats_.peers_refused;
    ucp_listener_reject(listener_, request);
    return;
  }
  UcxPeer& peer = AddPeer(UcxPeer::State::kAccepting);
  ucp_ep_params_t params = {};
  params.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST;
  params.conn_request = request;
  if (const ucs_status_t status = CreateEndpoint(peer, params); status != UCS_OK) {
    Fail(peer, FromUcs(status, "accept"));
  }
}

void UcxTransport::OnArrived(PeerHandle handle, const AmHeader& header, ReceiveBuffer buffer) {
  UcxPeer* peer = Find(handle);
  if (peer == nullptr || peer->state == UcxPeer::State::kClosing) {
    pool_.Return(std::move(buffer));
    return;
  }
  const auto kind = static_cast<AmKind>(header.kind);
  if (header.sequence < peer->next_receive || peer->early.contains(header.sequence)) {
    pool_.Return(std::move(buffer));
    Reject(handle, false);
    return;
  }
  if (header.sequence > peer->next_receive) {
    // One slot costs memory even when empty: a peer may not open more than this.
    constexpr size_t kEarlyMax = 4096;
    const bool flooded =
        peer->state != UcxPeer::State::kUp && peer->receiving_bytes > kHandshakeBytesMax;
    if (peer->early.size() >= kEarlyMax || flooded) {
      pool_.Return(std::move(buffer));
      Reject(handle, false);
      return;
    }
    peer->early[header.sequence] = {.kind = kind, .buffer = std::move(buffer)};
    return;
  }
  Consume(*peer, kind, std::move(buffer));
  for (peer = Find(handle);
       peer != nullptr && !peer->early.empty() && peer->early.begin()->first == peer->next_receive;
       peer = Find(handle)) {
    UcxPeer::Early next = std::move(peer->early.begin()->second);
    peer->early.erase(peer->early.begin());
    Consume(*peer, next.kind, std::move(next.buffer));
  }
}

// The next message of its connection.
void UcxTransport::Consume(UcxPeer& peer, AmKind kind, ReceiveBuffer buffer) {
  ++peer.next_receive;
  peer.receiving_bytes -= buffer.capacity;
  const bool hello = peer.state == UcxPeer::State::kAccepting && kind == AmKind::kHello;
  const bool ack = peer.state == UcxPeer::State::kConnecting && kind == AmKind::kHelloAck;
  if (peer.state == UcxPeer::State::kUp && kind == AmKind::kData) {
    ++stats_.messages_received;
    stats_.bytes_received += buffer.size;
    if (handler_ != nullptr) {
      handler_->OnMessage(peer.handle, buffer.view());
    }
  } else if (hello || ack) {
    peer.state = UcxPeer::State::kUp;
    peer.announce_down = true;
    --timed_peer_count_;
    if (hello) {
      SendHello(peer, AmKind::kHelloAck);
    }
    if (lane_.empty()) {
      lane_ = LaneOf(peer.endpoint);
    }
    if (handler_ != nullptr) {
      handler_->OnPeerUp(peer.handle, hello);
    }
  } else if (peer.state != UcxPeer::State::kClosing) {
    Reject(peer.handle, false);
  }
  pool_.Return(std::move(buffer));
}

void UcxTransport::FinishOperation(UcxEvent& event) {
  UcxOperation& operation = *event.operation;
  UcxPeer* peer = operation.abandoned ? nullptr : Find(operation.peer);
  if (peer == nullptr) {
    ReleaseOperation(operation);
    return;
  }
  --peer->in_flight_count;
  const PeerHandle handle = operation.peer;
  const bool failed = event.status != UCS_OK;
  if (operation.is_send) {
    const bool has_ticket = operation.has_ticket;
    const SendTicket ticket = operation.ticket;
    peer->queued_bytes -= operation.bytes;
    queued_bytes_ -= operation.bytes;
    ReleaseOperation(operation);
    if (failed) {
      Fail(*peer, FromUcs(event.status, "send"));
    }
    if (has_ticket && handler_ != nullptr) {
      handler_->OnSendDone(handle, ticket,
                           failed ? FromUcs(event.status, "send") : absl::OkStatus());
    }
    return;
  }
  const AmHeader header = operation.header;
  ReceiveBuffer buffer = std::exchange(operation.buffer, {});
  ReleaseOperation(operation);
  if (failed) {
    pool_.Return(std::move(buffer));
    Fail(*peer, FromUcs(event.status, "receive"));
    return;
  }
  OnArrived(handle, header, std::move(buffer));
}

void UcxTransport::Reject(PeerHandle handle, bool oversize) {
  UcxPeer* peer = Find(handle);
  if (peer == nullptr || peer->state == UcxPeer::State::kClosing) {
    return;
  }
  ++(oversize ? stats_.oversize_closed : stats_.protocol_closed);
  Fail(*peer, oversize ? InvalidArgument("peer sent more than {} bytes", limits_.message_bytes_max)
                       : InvalidArgument("peer broke the transport's framing"));
}

// Forces the endpoint shut. OnPeerDown follows when UCX has returned all its operations.
void UcxTransport::Fail(UcxPeer& peer, const absl::Status& why) {
  if (peer.state == UcxPeer::State::kClosing) {
    return;
  }
  if (peer.state == UcxPeer::State::kUp) {
    ++timed_peer_count_;
  }
  peer.state = UcxPeer::State::kClosing;
  peer.why = why;
  peer.deadline = clock_.Now() + options_.close_wait_max;
  if (peer.endpoint == nullptr) {
    return;
  }
  peers_by_endpoint_.erase(peer.endpoint);
  ucp_request_param_t param = {};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  void* request = ucp_ep_close_nbx(peer.endpoint, &param);
  peer.endpoint = nullptr;
  peer.close_request = UCS_PTR_IS_PTR(request) ? request : nullptr;
}

bool UcxTransport::CheckTimers() {
  const Instant now = clock_.Now();
  bool happened = false;
  for (auto entry = peers_.begin(); entry != peers_.end();) {
    const auto current = entry++;
    UcxPeer& peer = *current->second;
    if (peer.state == UcxPeer::State::kClosing) {
      happened |= TryFinishClose(current, now);
    } else if (peer.state != UcxPeer::State::kUp && now >= peer.deadline) {
      Fail(peer, DeadlineExceeded(
                     "connection not up after {} ms",
                     std::chrono::duration_cast<std::chrono::milliseconds>(options_.connect_timeout)
                         .count()));
    }
  }
  return happened;
}

bool UcxTransport::TryFinishClose(Peers::iterator entry, Instant now) {
  UcxPeer& peer = *entry->second;
  if (peer.close_request != nullptr &&
      ucp_request_check_status(peer.close_request) != UCS_INPROGRESS) {
    ucp_request_free(std::exchange(peer.close_request, nullptr));
  }
  const bool done = peer.close_request == nullptr && peer.in_flight_count == 0;
  if (!done && now < peer.deadline) {
    return false;
  }
  if (!done) {
    Abandon(peer);
  }
  std::unique_ptr<UcxPeer> gone = std::move(entry->second);
  peers_.erase(entry);
  --timed_peer_count_;
  for (auto& [sequence, early] : gone->early) {
    pool_.Return(std::move(early.buffer));
  }
  const bool announce = gone->announce_down && handler_ != nullptr;
  const PeerHandle handle = gone->handle;
  const absl::Status why = gone->why;
  if (!done) {
    abandoned_peers_.push_back(std::move(gone));  // UCX may still hold its address.
  }
  if (announce) {
    handler_->OnPeerDown(handle, why);
  }
  return announce;
}

// UCX kept operations beyond the bound: their owner is told, the operations stay ours.
void UcxTransport::Abandon(UcxPeer& peer) {
  SY_LOG_WARNING("ucx kept operations of a closed peer peer={} operations={}", peer.handle,
                 peer.in_flight_count);
  for (size_t i = 0; i < operations_.size(); ++i) {
    UcxOperation& operation = *operations_[i];
    if (!operation.in_use || operation.abandoned || operation.peer != peer.handle) {
      continue;
    }
    operation.abandoned = true;
    if (!operation.is_send) {
      continue;
    }
    queued_bytes_ -= operation.bytes;
    if (operation.has_ticket && handler_ != nullptr) {
      handler_->OnSendDone(peer.handle, operation.ticket,
                           DeadlineExceeded("send not returned by the network"));
    }
  }
}

UcxPeer* UcxTransport::Find(PeerHandle handle) {
  const auto found = peers_.find(handle);
  return found == peers_.end() ? nullptr : found->second.get();
}

// True if Wake() ended it.
bool UcxTransport::Sleep(Duration timeout) {
  pollfd fds[2] = {{.fd = wake_fd_, .events = POLLIN, .revents = 0},
                   {.fd = worker_fd_, .events = POLLIN, .revents = 0}};
  const timespec limit = ToTimespec(timeout);
  ppoll(fds, worker_fd_ < 0 ? 1 : 2, &limit, nullptr);
  uint64_t count = 0;
  return (fds[0].revents & POLLIN) != 0 && read(wake_fd_, &count, sizeof(count)) > 0;
}

Duration UcxTransport::UntilTimer(Instant now) const {
  Duration until = std::chrono::hours(1);
  if (timed_peer_count_ == 0) {
    return until;
  }
  for (const auto& [handle, peer] : peers_) {
    if (peer->state == UcxPeer::State::kClosing) {
      return kClosePoll;
    }
    if (peer->state != UcxPeer::State::kUp) {
      until = std::min(until, std::max(peer->deadline - now, Duration::zero()));
    }
  }
  return until;
}

}  // namespace switchyard::internal
