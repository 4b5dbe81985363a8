#include <algorithm>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/dispatch/internal/dispatcher_impl.h"

namespace switchyard {
namespace {

using State = ShardLink::State;

bool IsOpen(const ShardLink& link) {
  return link.state == State::kConnecting || link.state == State::kHello ||
         link.state == State::kReady;
}

std::string Describe(const ShardLink& link) {
  switch (link.state) {
    case State::kReady:
      return "ready";
    case State::kRefused:
      return "refused: " + link.why;
    case State::kConnecting:
    case State::kHello:
      return "connecting";
    case State::kDown:
      return link.why.empty() ? "connecting" : "connecting: " + link.why;
  }
  return "unknown";
}

}  // namespace

void Dispatcher::Impl::SetRoutes(std::shared_ptr<const RouteTable> routes) {
  SY_CHECK(routes != nullptr);
  if (routes_ != nullptr && routes->epoch() <= routes_->epoch()) {
    return;
  }
  routes_ = std::move(routes);
  for (const std::unique_ptr<ShardLink>& link : links_) {
    link->wanted = false;
  }
  unwanted_links_ = true;
  route_links_.clear();
  const Instant now = clock_.Now();
  for (const ShardInfo& info : routes_->placement().shards) {
    ShardLink& link = FindOrAddLink(info);
    link.wanted = true;
    link.info = info;
    if (link.state == State::kReady && link.incarnation != info.incarnation) {
      Lose(link, State::kDown, Unavailable("it restarted"));
    }
    if (!IsOpen(link)) {
      link.next_event = now;  // The placement knows of it again: no reason to wait.
    }
    route_links_.push_back(&link);
  }
  ready_.reset();
  next_event_ = now;
  Maintain(now);
}

ShardLink& Dispatcher::Impl::FindOrAddLink(const ShardInfo& info) {
  const auto found = std::ranges::find_if(links_, [&](const std::unique_ptr<ShardLink>& link) {
    return link->info.shard == info.shard && link->info.address == info.address;
  });
  if (found != links_.end()) {
    return **found;
  }
  links_.push_back(std::make_unique<ShardLink>());
  links_.back()->info = info;
  return *links_.back();
}

absl::Status Dispatcher::Impl::Ready() const {
  if (!ready_.has_value()) {
    ready_ = FindUncovered();
  }
  return *ready_;
}

absl::Status Dispatcher::Impl::FindUncovered() const {
  if (routes_ == nullptr) {
    return Unavailable("no placement yet");
  }
  const ExpertShape& shape = routes_->placement().shape;
  for (uint32_t layer = shape.first_moe_layer; layer < shape.layer_count; ++layer) {
    for (uint32_t expert = 0; expert < shape.expert_count; ++expert) {
      const auto holders = routes_->HoldersOf(LayerId(static_cast<uint16_t>(layer)),
                                              ExpertId(static_cast<uint16_t>(expert)));
      const bool covered = std::ranges::any_of(
          holders, [&](uint32_t shard) { return route_links_[shard]->state == State::kReady; });
      if (!covered) {
        const ShardLink& first = *route_links_[holders.front()];
        return Unavailable("no shard connected for layer {} expert {} (epoch {}); {}: {}", layer,
                           expert, routes_->epoch(), first.Name(), Describe(first));
      }
    }
  }
  return absl::OkStatus();
}

std::vector<Dispatcher::ShardState> Dispatcher::Impl::ShardStates() const {
  std::vector<ShardState> states;
  for (const ShardLink* link : route_links_) {
    states.push_back(
        {.shard = link->info.shard, .address = link->info.address, .state = Describe(*link)});
  }
  return states;
}

ShardLink* Dispatcher::Impl::LinkOf(PeerHandle peer) {
  const auto found = links_by_peer_.find(peer);
  return found == links_by_peer_.end() ? nullptr : found->second;
}

void Dispatcher::Impl::OnPeerUp(PeerHandle peer, bool accepted) {
  ShardLink* link = LinkOf(peer);
  if (link == nullptr || accepted || link->state != State::kConnecting) {
    return;
  }
  link->state = State::kHello;
  SendHello(*link);
}

void Dispatcher::Impl::OnPeerDown(PeerHandle peer, const absl::Status& why) {
  ShardLink* link = LinkOf(peer);
  if (link != nullptr) {
    Lose(*link, State::kDown, why);
  }
}

// Everything that depends on time, when its time has come.
void Dispatcher::Impl::Maintain(Instant now) {
  if (now < next_event_) {
    return;
  }
  RemoveUnwantedLinks();
  for (size_t i = 0; i < links_.size(); ++i) {
    MaintainLink(*links_[i], now);
  }
  next_event_ = Instant::max();
  for (const std::unique_ptr<ShardLink>& link : links_) {
    if (link->state != State::kReady && link->wanted) {
      next_event_ = std::min(next_event_, link->next_event);
    }
  }
}

void Dispatcher::Impl::MaintainLink(ShardLink& link, Instant now) {
  const bool due = link.wanted && now >= link.next_event;
  if (link.state == State::kReady || !due) {
    return;
  }
  if (IsOpen(link)) {
    Lose(link, State::kDown,
         DeadlineExceeded("no accepted hello within {:.3f} s",
                          ToSeconds(options_.handshake_timeout)));
  } else {
    Connect(link, now);
  }
}

void Dispatcher::Impl::Connect(ShardLink& link, Instant now) {
  const absl::StatusOr<PeerHandle> peer = transport_.Connect(link.info.address);
  if (!peer.ok()) {
    link.why = MessageOf(peer.status());
    link.next_event = now + options_.reconnect_backoff;
    return;
  }
  link.peer = *peer;
  link.state = State::kConnecting;
  link.next_event = now + options_.handshake_timeout;
  links_by_peer_[link.peer] = &link;
}

// Forgets the connection and fails what waits for it. Later events of the peer find no link.
void Dispatcher::Impl::Lose(ShardLink& link, State state, const absl::Status& why) {
  if (link.state == State::kReady) {
    SY_LOG_INFO("shard lost shard={} address={} why={}", link.info.shard, link.info.address,
                MessageOf(why));
    metrics_.ShardConnected(link.info.shard).Set(0);
    ready_.reset();
  }
  links_by_peer_.erase(link.peer);
  transport_.Close(link.peer);
  link.state = state;
  link.why = MessageOf(why);
  link.next_event = clock_.Now() + (state == State::kRefused ? options_.refused_backoff
                                                             : options_.reconnect_backoff);
  next_event_ = std::min(next_event_, link.next_event);
  link.entries_in_flight = 0;
  link.in_flight.clear();
  frames_waiting_ -= static_cast<uint32_t>(link.outbox.size());
  link.outbox.clear();
  FailCalls(link, Unavailable("{} lost: {}", link.Name(), link.why));
}

void Dispatcher::Impl::Refuse(ShardLink& link, const absl::Status& why) {
  const std::string reason = MessageOf(why);
  if (link.why != reason) {
    SY_LOG_WARNING("shard refused shard={} address={} why={}", link.info.shard, link.info.address,
                   reason);
  }
  metrics_.peers_refused.Add();
  FailCalls(link, Unavailable("{} refused: {}", link.Name(), reason));
  Lose(link, State::kRefused, why);
}

void Dispatcher::Impl::FailCalls(const ShardLink& link, const absl::Status& why) {
  for (Call& call : calls_) {
    if (!call.active || !call.status.ok()) {
      continue;
    }
    const auto open = std::ranges::count_if(call.fragments, [&](const Fragment& fragment) {
      return fragment.link == &link && fragment.state != Fragment::State::kDone;
    });
    if (open > 0) {
      metrics_.rpc_lost.Add(static_cast<double>(open));
      call.status = why;
    }
  }
}

// Links that no placement names are closed once no call can point at them.
void Dispatcher::Impl::RemoveUnwantedLinks() {
  if (active_calls_ > 0 || !unwanted_links_) {
    return;
  }
  unwanted_links_ = false;
  std::erase_if(links_, [&](const std::unique_ptr<ShardLink>& link) {
    if (link->wanted) {
      return false;
    }
    if (IsOpen(*link)) {
      Lose(*link, State::kDown, absl::CancelledError("no longer in the placement"));
    }
    return true;
  });
}

}  // namespace switchyard
