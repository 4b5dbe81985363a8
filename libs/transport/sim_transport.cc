#include "libs/transport/sim_transport.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "libs/base/check.h"
#include "libs/base/status.h"
#include "libs/transport/internal/sim_state.h"

namespace switchyard {
namespace {

using internal::SimConnection;
using internal::SimEndpoint;
using internal::SimEvent;
using internal::SimSide;
using internal::SimTransport;
using Kind = SimEvent::Kind;
using State = SimSide::State;

constexpr Duration kConnectTimeout = std::chrono::seconds(5);
constexpr Duration kWaitMax = std::chrono::hours(24);  // Keeps deadlines within the clock's range.
constexpr size_t kPartsMax = 16;
constexpr std::string_view kScheme = "sim:";

uint64_t HashBytes(uint64_t hash, std::span<const std::byte> bytes) {
  for (size_t offset = 0; offset < bytes.size(); offset += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + offset, std::min(sizeof(word), bytes.size() - offset));
    hash = Mix64(hash ^ word);
  }
  return Mix64(hash ^ bytes.size());
}

std::pair<std::string, std::string> Unordered(const std::string& a, const std::string& b) {
  return a < b ? std::make_pair(a, b) : std::make_pair(b, a);
}

}  // namespace

SimNetwork::SimNetwork(uint64_t seed, SimLinkOptions link, TransportLimits limits)
    : default_link_(link), limits_(limits), rng_(seed), trace_hash_(Mix64(seed)) {
  SY_CHECK(link.delay_min <= link.delay_max);
}

SimNetwork::~SimNetwork() {
  for (const auto& [name, endpoint] : endpoints_) {
    SY_CHECK(endpoint->transport == nullptr);
  }
}

std::unique_ptr<Transport> SimNetwork::CreateEndpoint(const std::string& name) {
  Endpoint& endpoint = Find(name);
  SY_CHECK(endpoint.transport == nullptr);
  auto transport = std::make_unique<SimTransport>(this, &endpoint);
  endpoint.transport = transport.get();
  return transport;
}

void SimNetwork::SetIdleCallback(const std::string& name, std::function<void()> callback) {
  Find(name).idle = std::move(callback);
}

void SimNetwork::SetLink(const std::string& from, const std::string& to, SimLinkOptions options) {
  SY_CHECK(options.delay_min <= options.delay_max);
  links_[{from, to}] = options;
}

void SimNetwork::Partition(const std::string& a, const std::string& b) {
  partitions_.insert(Unordered(a, b));
}

void SimNetwork::Heal(const std::string& a, const std::string& b) {
  partitions_.erase(Unordered(a, b));
}

void SimNetwork::Stop(const std::string& name) { Find(name).stopped = true; }

void SimNetwork::Continue(const std::string& name) {
  Endpoint& endpoint = Find(name);
  endpoint.stopped = false;
  for (Event& event : std::exchange(endpoint.held, {})) {
    Schedule(clock_.Now(), std::move(event));
  }
}

void SimNetwork::Crash(const std::string& name) {
  Endpoint& endpoint = Find(name);
  if (endpoint.transport != nullptr) {
    Detach(endpoint);
  }
}

std::unique_ptr<Transport> SimNetwork::Restart(const std::string& name) {
  Crash(name);
  return CreateEndpoint(name);
}

void SimNetwork::After(Duration delay, std::function<void()> callback) {
  Schedule(clock_.Now() + delay, {.kind = Kind::kCall, .call = std::move(callback)});
}

void SimNetwork::RunFor(Duration duration) {
  SY_CHECK(!running_);
  const Instant deadline = clock_.Now() + std::min(duration, kWaitMax);
  while (RunBatch(deadline, nullptr)) {
  }
  clock_.SetTo(std::max(clock_.Now(), deadline));
}

SimNetwork::Endpoint& SimNetwork::Find(const std::string& name) {
  std::unique_ptr<Endpoint>& endpoint = endpoints_[name];
  if (endpoint == nullptr) {
    endpoint = std::make_unique<Endpoint>();
    endpoint->name = name;
    endpoint->index = endpoints_.size();
  }
  return *endpoint;
}

absl::StatusOr<std::string> SimNetwork::Listen(Endpoint& endpoint, const std::string& address) {
  endpoint.listening = true;
  const std::string own = std::string(kScheme) + endpoint.name;
  if (address.starts_with(kScheme) || address.find(':') == std::string::npos ||
      address.ends_with(":0")) {
    return own;
  }
  auto [entry, inserted] = names_by_address_.emplace(address, endpoint.name);
  if (!inserted && entry->second != endpoint.name) {
    return Unavailable("listen: address {} is in use by {}", address, entry->second);
  }
  return address;
}

absl::StatusOr<PeerHandle> SimNetwork::Connect(Endpoint& endpoint, const std::string& address) {
  if (address.find(':') == std::string::npos || address == kScheme) {
    return InvalidArgument("connect: address '{}' is not sim:<name> or host:port", address);
  }
  if (endpoint.peers.size() >= limits_.peers_max) {
    return ResourceExhausted("connect: {} peers, limit {}", endpoint.peers.size(),
                             limits_.peers_max);
  }
  const auto alias = names_by_address_.find(address);
  const std::string name = alias != names_by_address_.end() ? alias->second
                           : address.starts_with(kScheme)   ? address.substr(kScheme.size())
                                                            : address;
  Endpoint& target = Find(name);
  const uint64_t id = next_connection_++;
  const PeerHandle peer(endpoint.next_peer++);
  SimSide& side = connections_[id].sides[0];
  side.endpoint = &endpoint;
  side.instance = endpoint.instance;
  side.peer = peer;
  side.state = State::kConnecting;
  connections_[id].sides[1].endpoint = &target;
  endpoint.peers[peer] = {id, 0};
  Schedule(ArrivalInOrder(connections_[id], 0),
           {.kind = Kind::kConnect, .endpoint = &target, .connection = id, .side = 1});
  Schedule(clock_.Now() + kConnectTimeout, {.kind = Kind::kConnectTimeout,
                                            .endpoint = &endpoint,
                                            .instance = endpoint.instance,
                                            .connection = id,
                                            .side = 0});
  return peer;
}

void SimNetwork::Close(Endpoint& endpoint, PeerHandle peer) {
  const auto found = endpoint.peers.find(peer);
  if (found == endpoint.peers.end()) {
    return;
  }
  const auto [id, side] = found->second;
  CloseSide(id, side, absl::CancelledError("closed by this side"), true);
}

SendResult SimNetwork::Send(Endpoint& endpoint, PeerHandle peer,
                            std::span<const std::span<const std::byte>> parts, SendTicket ticket) {
  SY_CHECK(parts.size() <= kPartsMax);
  size_t bytes = 0;
  for (const auto& part : parts) {
    bytes += part.size();
  }
  SY_CHECK(bytes <= limits_.message_bytes_max);
  const auto found = endpoint.peers.find(peer);
  if (found == endpoint.peers.end()) {
    return SendResult::kNoPeer;
  }
  const auto [id, side_index] = found->second;
  Connection& connection = connections_.at(id);
  SimSide& side = connection.sides[side_index];
  if (side.state != State::kUp) {
    return SendResult::kNoPeer;
  }
  TransportStats& stats = endpoint.transport->mutable_stats();
  if (side.queued_bytes + bytes > limits_.queued_bytes_max_per_peer) {
    ++stats.backpressure;
    return SendResult::kBackpressure;
  }
  ++stats.messages_sent;
  stats.bytes_sent += bytes;
  side.queued_bytes += bytes;
  endpoint.queued_bytes += bytes;

  const SimLinkOptions& link = LinkOf(endpoint, *connection.sides[1 - side_index].endpoint);
  Event event{.kind = Kind::kMessage,
              .endpoint = connection.sides[1 - side_index].endpoint,
              .instance = connection.sides[1 - side_index].instance,
              .connection = id,
              .side = 1 - side_index,
              .send = next_send_++};
  event.bytes.reserve(bytes);
  for (const auto& part : parts) {
    event.bytes.insert(event.bytes.end(), part.begin(), part.end());
  }
  side.pending[event.send] = {.ticket = ticket, .bytes = bytes};
  event.lost = rng_.Chance(link.loss);
  if (!event.lost && rng_.Chance(link.duplication)) {
    Event copy = event;
    copy.copy = true;
    Schedule(clock_.Now() + DelayOf(link) + DelayOf(link) + link.delay_max, std::move(copy));
  }
  const Instant arrival = rng_.Chance(link.reordering)
                              ? clock_.Now() + DelayOf(link) + link.delay_max
                              : ArrivalInOrder(connection, side_index);
  Schedule(arrival, std::move(event));
  return SendResult::kAccepted;
}

bool SimNetwork::Wait(Endpoint& endpoint, Duration timeout) {
  SY_CHECK(!running_);
  const Instant deadline = clock_.Now() + std::min(timeout, kWaitMax);
  while (!endpoint.happened && !endpoint.woken) {
    if (!RunBatch(deadline, &endpoint)) {
      clock_.SetTo(std::max(clock_.Now(), deadline));
      break;
    }
  }
  endpoint.woken = false;
  return std::exchange(endpoint.happened, false);
}

bool SimNetwork::Progress(Endpoint& endpoint) {
  if (!running_) {
    RunBatch(clock_.Now(), &endpoint);
  }
  return std::exchange(endpoint.happened, false);
}

// The endpoint's process ends: nothing of it is left but the news to its peers.
void SimNetwork::Detach(Endpoint& endpoint) {
  for (const auto& [peer, place] : endpoint.peers) {
    const auto [id, side_index] = place;
    SimSide& side = connections_.at(id).sides[side_index];
    side.pending.clear();
    if (side.state != State::kClosed) {
      NotifyOther(id, side_index);
    }
    side.state = State::kClosed;
  }
  endpoint.peers.clear();
  endpoint.transport = nullptr;
  endpoint.handler = nullptr;
  endpoint.idle = nullptr;
  endpoint.listening = false;
  endpoint.stopped = false;
  endpoint.happened = false;
  endpoint.woken = false;
  endpoint.queued_bytes = 0;
  endpoint.held.clear();
  ++endpoint.instance;
  std::erase_if(names_by_address_,
                [&](const auto& entry) { return entry.second == endpoint.name; });
}

const SimLinkOptions& SimNetwork::LinkOf(const Endpoint& from, const Endpoint& to) const {
  const auto found = links_.find({from.name, to.name});
  return found == links_.end() ? default_link_ : found->second;
}

bool SimNetwork::Partitioned(const Endpoint& a, const Endpoint& b) const {
  return partitions_.contains(Unordered(a.name, b.name));
}

Duration SimNetwork::DelayOf(const SimLinkOptions& link) {
  const auto spread = static_cast<uint64_t>((link.delay_max - link.delay_min).count());
  return link.delay_min + Duration(static_cast<int64_t>(rng_.Below(spread + 1)));
}

void SimNetwork::Schedule(Instant at, Event event) {
  events_.emplace(std::make_pair(std::max(at, clock_.Now()), next_sequence_++), std::move(event));
}

Instant SimNetwork::ArrivalInOrder(Connection& connection, int from_side) {
  SimSide& from = connection.sides[from_side];
  const SimSide& to = connection.sides[1 - from_side];
  from.last_arrival =
      std::max(from.last_arrival, clock_.Now() + DelayOf(LinkOf(*from.endpoint, *to.endpoint)));
  return from.last_arrival;
}

void SimNetwork::NotifyOther(uint64_t connection_id, int from_side) {
  Connection& connection = connections_.at(connection_id);
  const SimSide& other = connection.sides[1 - from_side];
  if (other.state == State::kAbsent) {
    return;
  }
  Schedule(ArrivalInOrder(connection, from_side), {.kind = Kind::kReset,
                                                   .endpoint = other.endpoint,
                                                   .instance = other.instance,
                                                   .connection = connection_id,
                                                   .side = 1 - from_side});
}

void SimNetwork::CloseSide(uint64_t connection_id, int side_index, const absl::Status& why,
                           bool notify) {
  SimSide& side = connections_.at(connection_id).sides[side_index];
  if (side.state == State::kClosed) {
    return;
  }
  if (notify) {
    NotifyOther(connection_id, side_index);
  }
  side.state = State::kClosed;
  for (const auto& [send, pending] : std::exchange(side.pending, {})) {
    side.endpoint->queued_bytes -= pending.bytes;
    Schedule(clock_.Now(), {.kind = Kind::kSendDone,
                            .endpoint = side.endpoint,
                            .instance = side.instance,
                            .peer = side.peer,
                            .ticket = pending.ticket,
                            .status = why});
  }
  side.queued_bytes = 0;
  Schedule(clock_.Now(), {.kind = Kind::kDown,
                          .endpoint = side.endpoint,
                          .instance = side.instance,
                          .connection = connection_id,
                          .side = side_index,
                          .peer = side.peer,
                          .status = why});
}

// Processes the events of the next instant not after `until`; false if there are none.
bool SimNetwork::RunBatch(Instant until, const Endpoint* waiter) {
  if (events_.empty() || events_.begin()->first.first > until) {
    return false;
  }
  SY_CHECK(!running_);
  running_ = true;
  clock_.SetTo(std::max(clock_.Now(), events_.begin()->first.first));
  const Instant now = clock_.Now();
  const uint64_t newest = next_sequence_;  // What callbacks add belongs to the next batch.
  for (auto next = events_.begin();
       next != events_.end() && next->first.first <= now && next->first.second < newest;
       next = events_.begin()) {
    Event event = std::move(next->second);
    events_.erase(next);
    Process(std::move(event));
  }
  for (const auto& [index, endpoint] : std::exchange(touched_, {})) {
    if (endpoint != waiter && endpoint->idle && !endpoint->stopped) {
      const std::function<void()> idle = endpoint->idle;  // Survives a crash from inside.
      idle();
    }
  }
  running_ = false;
  return true;
}

void SimNetwork::Process(Event event) {
  if (event.endpoint != nullptr) {
    const bool stale = event.kind != Kind::kConnect && event.instance != event.endpoint->instance;
    // A stale message still needs its sender told.
    if (stale && event.kind != Kind::kMessage) {
      return;
    }
    if (event.endpoint->stopped) {
      Endpoint& holder = *event.endpoint;
      holder.held.push_back(std::move(event));
      return;
    }
  }
  Trace(event);
  switch (event.kind) {
    case Kind::kConnect:
      return ProcessConnect(event);
    case Kind::kConnected:
      return ProcessConnected(event);
    case Kind::kConnectTimeout:
      if (connections_.contains(event.connection) &&
          connections_.at(event.connection).sides[0].state == State::kConnecting) {
        CloseSide(event.connection, 0, absl::DeadlineExceededError("connect timed out"), true);
      }
      return;
    case Kind::kReset:
      if (connections_.contains(event.connection)) {
        const Connection& connection = connections_.at(event.connection);
        if (!Partitioned(*connection.sides[0].endpoint, *connection.sides[1].endpoint)) {
          CloseSide(event.connection, event.side,
                    absl::UnavailableError("refused or closed by the other side"), false);
        }
      }
      return;
    case Kind::kMessage:
      return ProcessMessage(event);
    case Kind::kSendDone:
      event.endpoint->happened = true;
      touched_.insert({event.endpoint->index, event.endpoint});
      if (event.endpoint->handler != nullptr) {
        event.endpoint->handler->OnSendDone(event.peer, event.ticket, event.status);
      }
      return;
    case Kind::kDown:
      return ProcessDown(event);
    case Kind::kCall:
      return event.call();
  }
}

void SimNetwork::ProcessConnect(Event& event) {
  const auto found = connections_.find(event.connection);
  if (found == connections_.end()) {
    return;
  }
  Connection& connection = found->second;
  SimSide& client = connection.sides[0];
  Endpoint& endpoint = *event.endpoint;
  if (Partitioned(*client.endpoint, endpoint) || client.state != State::kConnecting) {
    return;
  }
  const bool full = endpoint.peers.size() >= limits_.peers_max;
  if (endpoint.transport == nullptr || !endpoint.listening || full) {
    if (endpoint.transport != nullptr && full) {
      ++endpoint.transport->mutable_stats().peers_refused;
    }
    NotifyOther(event.connection, 1);
    return;
  }
  SimSide& side = connection.sides[1];
  side.instance = endpoint.instance;
  side.peer = PeerHandle(endpoint.next_peer++);
  side.state = State::kUp;
  endpoint.peers[side.peer] = {event.connection, 1};
  Schedule(ArrivalInOrder(connection, 1), {.kind = Kind::kConnected,
                                           .endpoint = client.endpoint,
                                           .instance = client.instance,
                                           .connection = event.connection,
                                           .side = 0});
  endpoint.happened = true;
  touched_.insert({endpoint.index, &endpoint});
  if (endpoint.handler != nullptr) {
    endpoint.handler->OnPeerUp(side.peer, true);
  }
}

void SimNetwork::ProcessConnected(const Event& event) {
  const auto found = connections_.find(event.connection);
  if (found == connections_.end()) {
    return;
  }
  SimSide& client = found->second.sides[0];
  if (client.state != State::kConnecting) {
    NotifyOther(event.connection, 0);
    return;
  }
  if (Partitioned(*client.endpoint, *found->second.sides[1].endpoint)) {
    return;
  }
  client.state = State::kUp;
  client.endpoint->happened = true;
  touched_.insert({client.endpoint->index, client.endpoint});
  if (client.endpoint->handler != nullptr) {
    client.endpoint->handler->OnPeerUp(client.peer, false);
  }
}

void SimNetwork::ProcessMessage(Event& event) {
  const auto found = connections_.find(event.connection);
  if (found == connections_.end()) {
    return;
  }
  Connection& connection = found->second;
  const SimSide& sender = connection.sides[1 - event.side];
  const SimSide& receiver = connection.sides[event.side];
  const bool partitioned = Partitioned(*sender.endpoint, *receiver.endpoint);
  const bool known = event.copy || sender.pending.contains(event.send);
  CompleteSend(connection, event.connection, event);
  if (event.lost || partitioned || !known || sender.state == State::kClosed) {
    return;
  }
  if (receiver.state != State::kUp) {
    // A half-open connection: the sender's end learns it from the answer to its message.
    if (receiver.state == State::kClosed) {
      NotifyOther(event.connection, event.side);
    }
    return;
  }
  Endpoint& endpoint = *receiver.endpoint;
  endpoint.happened = true;
  touched_.insert({endpoint.index, &endpoint});
  TransportStats& stats = endpoint.transport->mutable_stats();
  ++stats.messages_received;
  stats.bytes_received += event.bytes.size();
  if (endpoint.handler != nullptr) {
    endpoint.handler->OnMessage(receiver.peer, event.bytes);
  }
}

void SimNetwork::CompleteSend(Connection& connection, uint64_t connection_id, const Event& event) {
  SimSide& sender = connection.sides[1 - event.side];
  const auto pending = sender.pending.find(event.send);
  if (event.copy || pending == sender.pending.end()) {
    return;
  }
  sender.queued_bytes -= pending->second.bytes;
  sender.endpoint->queued_bytes -= pending->second.bytes;
  Schedule(clock_.Now(), {.kind = Kind::kSendDone,
                          .endpoint = sender.endpoint,
                          .instance = sender.instance,
                          .connection = connection_id,
                          .peer = sender.peer,
                          .ticket = pending->second.ticket});
  sender.pending.erase(pending);
}

void SimNetwork::ProcessDown(const Event& event) {
  Endpoint& endpoint = *event.endpoint;
  endpoint.peers.erase(event.peer);
  const auto found = connections_.find(event.connection);
  if (found != connections_.end()) {
    const auto gone = [](const SimSide& side) {
      return side.state == State::kAbsent || side.instance != side.endpoint->instance ||
             !side.endpoint->peers.contains(side.peer);
    };
    if (gone(found->second.sides[0]) && gone(found->second.sides[1])) {
      connections_.erase(found);
    }
  }
  endpoint.happened = true;
  touched_.insert({endpoint.index, &endpoint});
  if (endpoint.handler != nullptr) {
    endpoint.handler->OnPeerDown(event.peer, event.status);
  }
}

void SimNetwork::Trace(const Event& event) {
  ++event_count_;
  const uint64_t at = static_cast<uint64_t>(clock_.Now().time_since_epoch().count());
  const uint64_t who = event.endpoint == nullptr ? 0 : event.endpoint->index;
  trace_hash_ = Mix64(trace_hash_ ^ at);
  trace_hash_ = Mix64(trace_hash_ ^ (static_cast<uint64_t>(event.kind) << 32) ^ who);
  trace_hash_ = Mix64(trace_hash_ ^ event.connection ^ (event.ticket.value() << 20));
  trace_hash_ = HashBytes(trace_hash_, event.bytes);
}

}  // namespace switchyard
