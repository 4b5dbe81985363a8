#include "libs/transport/inproc_transport.h"

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr size_t kPartsMax = 16;
constexpr std::string_view kScheme = "inproc:";
constexpr Duration kWaitMax = std::chrono::hours(24);  // Keeps deadlines within the clock's range.

// OnMessage promises 16 bytes of alignment; the default allocator gives it.
static_assert(__STDCPP_DEFAULT_NEW_ALIGNMENT__ >= 16);

// Why a send or a connection ended. Not an absl::Status, whose text two threads would share.
enum class End : uint8_t { kOk, kClosedHere, kClosedThere, kRefused };

absl::Status StatusOf(End end) {
  switch (end) {
    case End::kOk:
      return absl::OkStatus();
    case End::kClosedHere:
      return absl::CancelledError("closed by this side");
    case End::kClosedThere:
      return absl::UnavailableError("closed by the other side");
    case End::kRefused:
      return absl::UnavailableError("connection refused");
  }
  return absl::UnknownError("no such end");
}

struct Event {
  enum class Kind : uint8_t { kUp, kDown, kMessage, kSendDone };

  Kind kind = Kind::kUp;
  PeerHandle peer{};
  bool accepted = false;
  uint64_t connection = 0;  // Of a message: whose sender is to be told.
  int from_side = 0;
  SendTicket ticket{};
  End end = End::kOk;
  std::vector<std::byte> bytes{};
};

struct Endpoint {
  std::string name;
  bool listening = false;
  bool woken = false;
  uint64_t next_peer = 1;
  size_t queued_bytes = 0;
  std::deque<Event> inbox;
  std::map<PeerHandle, std::pair<uint64_t, int>> peers;  // Connection and our side of it.
  std::condition_variable wake;
};

struct Side {
  Endpoint* endpoint = nullptr;  // Null once its transport is destroyed.
  PeerHandle peer{};
  bool open = false;
  size_t queued_bytes = 0;
};

struct Connection {
  Side sides[2];  // 0 connected, 1 accepted.
};

}  // namespace

namespace internal {

// All state of the network behind one lock; callbacks run outside of it.
//
// Any thread.
class InprocHub {
 public:
  explicit InprocHub(TransportLimits limits) : limits_(limits) {}

  const TransportLimits& limits() const { return limits_; }

  Endpoint* Create(const std::string& name) {
    std::unique_lock lock(mutex_);
    std::unique_ptr<Endpoint>& endpoint = endpoints_[name];
    SY_CHECK(endpoint == nullptr);
    endpoint = std::make_unique<Endpoint>();
    endpoint->name = name;
    return endpoint.get();
  }

  void Destroy(Endpoint& endpoint) {
    std::unique_lock lock(mutex_);
    for (const auto& [peer, place] : std::map(endpoint.peers)) {
      CloseLocked(place.first, place.second, End::kClosedHere);
      auto found = connections_.find(place.first);
      found->second.sides[place.second].endpoint = nullptr;
      if (found->second.sides[1 - place.second].endpoint == nullptr) {
        connections_.erase(found);
      }
    }
    endpoints_.erase(std::string(endpoint.name));
  }

  void Listen(Endpoint& endpoint) {
    std::unique_lock lock(mutex_);
    endpoint.listening = true;
  }

  absl::StatusOr<PeerHandle> Connect(Endpoint& endpoint, const std::string& name) {
    std::unique_lock lock(mutex_);
    if (endpoint.peers.size() >= limits_.peers_max) {
      return ResourceExhausted("connect: {} peers, limit {}", endpoint.peers.size(),
                               limits_.peers_max);
    }
    const uint64_t id = next_connection_++;
    Connection& connection = connections_[id];
    OpenLocked(connection.sides[0], endpoint, id, 0);
    const auto target = endpoints_.find(name);
    const bool refused = target == endpoints_.end() || !target->second->listening ||
                         target->second->peers.size() >= limits_.peers_max;
    if (refused) {
      CloseLocked(id, 0, End::kRefused);
      return connection.sides[0].peer;
    }
    OpenLocked(connection.sides[1], *target->second, id, 1);
    PushLocked(*target->second,
               {.kind = Event::Kind::kUp, .peer = connection.sides[1].peer, .accepted = true});
    PushLocked(endpoint, {.kind = Event::Kind::kUp, .peer = connection.sides[0].peer});
    return connection.sides[0].peer;
  }

  void Close(Endpoint& endpoint, PeerHandle peer) {
    std::unique_lock lock(mutex_);
    const auto found = endpoint.peers.find(peer);
    if (found != endpoint.peers.end()) {
      CloseLocked(found->second.first, found->second.second, End::kClosedHere);
    }
  }

  SendResult Send(Endpoint& endpoint, PeerHandle peer, SendTicket ticket,
                  std::vector<std::byte>& bytes) {
    std::unique_lock lock(mutex_);
    const auto found = endpoint.peers.find(peer);
    if (found == endpoint.peers.end()) {
      return SendResult::kNoPeer;
    }
    const auto [id, side_index] = found->second;
    Connection& connection = connections_.at(id);
    Side& side = connection.sides[side_index];
    if (!side.open) {
      return SendResult::kNoPeer;
    }
    if (side.queued_bytes + bytes.size() > limits_.queued_bytes_max_per_peer) {
      return SendResult::kBackpressure;
    }
    side.queued_bytes += bytes.size();
    endpoint.queued_bytes += bytes.size();
    const Side& other = connection.sides[1 - side_index];
    PushLocked(*other.endpoint, {.kind = Event::Kind::kMessage,
                                 .peer = other.peer,
                                 .connection = id,
                                 .from_side = side_index,
                                 .ticket = ticket,
                                 .bytes = std::move(bytes)});
    return SendResult::kAccepted;
  }

  // Takes what is ready, waiting up to `timeout` for it. Senders of the messages are told.
  std::deque<Event> Take(Endpoint& endpoint, Duration timeout) {
    std::unique_lock lock(mutex_);
    if (timeout > Duration::zero()) {
      endpoint.wake.wait_until(lock, std::chrono::steady_clock::now() + std::min(timeout, kWaitMax),
                               [&] { return !endpoint.inbox.empty() || endpoint.woken; });
      endpoint.woken = false;
    }
    std::deque<Event> taken;
    taken.swap(endpoint.inbox);
    for (const Event& event : taken) {
      if (event.kind == Event::Kind::kMessage) {
        CompleteLocked(event, End::kOk);
      }
    }
    return taken;
  }

  // True if messages of this connection are still to be delivered to its receiver.
  bool IsOpen(Endpoint& endpoint, PeerHandle peer) {
    std::unique_lock lock(mutex_);
    const auto found = endpoint.peers.find(peer);
    return found != endpoint.peers.end() &&
           connections_.at(found->second.first).sides[found->second.second].open;
  }

  // The owner is about to see OnPeerDown.
  void Forget(Endpoint& endpoint, PeerHandle peer) {
    std::unique_lock lock(mutex_);
    const auto found = endpoint.peers.find(peer);
    if (found == endpoint.peers.end()) {
      return;
    }
    const auto [id, side_index] = found->second;
    endpoint.peers.erase(found);
    const auto connection = connections_.find(id);
    connection->second.sides[side_index].endpoint = nullptr;
    if (connection->second.sides[1 - side_index].endpoint == nullptr) {
      connections_.erase(connection);
    }
  }

  void Wake(Endpoint& endpoint) {
    std::unique_lock lock(mutex_);
    endpoint.woken = true;
    endpoint.wake.notify_one();
  }

  size_t QueuedBytes(const Endpoint& endpoint) const {
    std::unique_lock lock(mutex_);
    return endpoint.queued_bytes;
  }

  size_t PeerCount(const Endpoint& endpoint) const {
    std::unique_lock lock(mutex_);
    return endpoint.peers.size();
  }

 private:
  void OpenLocked(Side& side, Endpoint& endpoint, uint64_t id, int index) {
    side.endpoint = &endpoint;
    side.peer = PeerHandle(endpoint.next_peer++);
    side.open = true;
    endpoint.peers[side.peer] = {id, index};
  }

  void PushLocked(Endpoint& endpoint, Event event) {
    endpoint.inbox.push_back(std::move(event));
    endpoint.wake.notify_one();
  }

  void CompleteLocked(const Event& message, End end) {
    const auto found = connections_.find(message.connection);
    if (found == connections_.end()) {
      return;
    }
    Side& sender = found->second.sides[message.from_side];
    if (sender.endpoint == nullptr) {
      return;
    }
    sender.queued_bytes -= message.bytes.size();
    sender.endpoint->queued_bytes -= message.bytes.size();
    PushLocked(*sender.endpoint, {.kind = Event::Kind::kSendDone,
                                  .peer = sender.peer,
                                  .ticket = message.ticket,
                                  .end = end});
  }

  // Both sides go: what one sent and the other has not taken completes with an error; what was
  // sent before by the side that closes is lost, as on a forced close.
  void CloseLocked(uint64_t id, int closing_side, End why) {
    Connection& connection = connections_.at(id);
    for (Side& side : connection.sides) {
      if (side.endpoint == nullptr) {
        continue;
      }
      std::deque<Event> kept;
      std::vector<Event> cancelled;
      for (Event& event : side.endpoint->inbox) {
        const bool ours = event.kind == Event::Kind::kMessage && event.connection == id;
        (ours ? cancelled.emplace_back() : kept.emplace_back()) = std::move(event);
      }
      side.endpoint->inbox.swap(kept);
      for (const Event& event : cancelled) {
        CompleteLocked(event, why);
      }
    }
    for (int index = 0; index < 2; ++index) {
      Side& side = connection.sides[index];
      if (side.endpoint == nullptr || !side.open) {
        continue;
      }
      side.open = false;
      PushLocked(*side.endpoint, {.kind = Event::Kind::kDown,
                                  .peer = side.peer,
                                  .end = index == closing_side ? why : End::kClosedThere});
    }
  }

  const TransportLimits limits_;
  // A std::mutex, because ThreadSanitizer knows it; packaged absl::Mutex is invisible to it.
  mutable std::mutex mutex_;  // Guards all below.
  std::map<std::string, std::unique_ptr<Endpoint>> endpoints_;
  std::map<uint64_t, Connection> connections_;
  uint64_t next_connection_ = 1;
};

}  // namespace internal

namespace {

// One owner but for Wake(), which any thread may call.
class InprocTransport final : public Transport {
 public:
  InprocTransport(std::shared_ptr<internal::InprocHub> hub, const std::string& name)
      : hub_(std::move(hub)), endpoint_(*hub_->Create(name)), name_(name) {}

  ~InprocTransport() override { hub_->Destroy(endpoint_); }

  void SetHandler(TransportHandler* handler) override { handler_ = handler; }

  absl::StatusOr<std::string> Listen(const std::string& /*address*/) override {
    hub_->Listen(endpoint_);
    return std::string(kScheme) + name_;
  }

  absl::StatusOr<PeerHandle> Connect(const std::string& address) override {
    if (address.find(':') == std::string::npos) {
      return InvalidArgument("connect: address '{}' is not inproc:<name>", address);
    }
    const std::string name =
        address.starts_with(kScheme) ? address.substr(kScheme.size()) : address;
    return hub_->Connect(endpoint_, name);
  }

  void Close(PeerHandle peer) override { hub_->Close(endpoint_, peer); }

  SendResult Send(PeerHandle peer, std::span<const std::span<const std::byte>> parts,
                  SendTicket ticket) override {
    SY_CHECK(parts.size() <= kPartsMax);
    size_t size = 0;
    for (const auto& part : parts) {
      size += part.size();
    }
    SY_CHECK(size <= hub_->limits().message_bytes_max);
    std::vector<std::byte> bytes{};
    bytes.reserve(size);
    for (const auto& part : parts) {
      bytes.insert(bytes.end(), part.begin(), part.end());
    }
    const SendResult result = hub_->Send(endpoint_, peer, ticket, bytes);
    if (result == SendResult::kAccepted) {
      ++stats_.messages_sent;
      stats_.bytes_sent += size;
    } else if (result == SendResult::kBackpressure) {
      ++stats_.backpressure;
    }
    return result;
  }

  bool Progress() override { return Deliver(hub_->Take(endpoint_, Duration::zero())); }

  bool Wait(Duration timeout) override { return Deliver(hub_->Take(endpoint_, timeout)); }

  void Wake() override { hub_->Wake(endpoint_); }

  size_t queued_bytes() const override { return hub_->QueuedBytes(endpoint_); }

  size_t peer_count() const override { return hub_->PeerCount(endpoint_); }

  std::string description() const override { return "inproc"; }

 private:
  bool Deliver(const std::deque<Event>& events) {
    SY_CHECK(!delivering_);
    delivering_ = true;
    for (const Event& event : events) {
      switch (event.kind) {
        case Event::Kind::kUp:
          if (handler_ != nullptr && (event.accepted || hub_->IsOpen(endpoint_, event.peer))) {
            handler_->OnPeerUp(event.peer, event.accepted);
          }
          break;
        case Event::Kind::kDown:
          hub_->Forget(endpoint_, event.peer);
          if (handler_ != nullptr) {
            handler_->OnPeerDown(event.peer, StatusOf(event.end));
          }
          break;
        case Event::Kind::kMessage:
          if (hub_->IsOpen(endpoint_, event.peer)) {
            ++stats_.messages_received;
            stats_.bytes_received += event.bytes.size();
            if (handler_ != nullptr) {
              handler_->OnMessage(event.peer, event.bytes);
            }
          }
          break;
        case Event::Kind::kSendDone:
          if (handler_ != nullptr) {
            handler_->OnSendDone(event.peer, event.ticket, StatusOf(event.end));
          }
          break;
      }
    }
    delivering_ = false;
    return !events.empty();
  }

  const std::shared_ptr<internal::InprocHub> hub_;
  Endpoint& endpoint_;
  const std::string name_;
  TransportHandler* handler_ = nullptr;
  bool delivering_ = false;
};

}  // namespace

InprocNetwork::InprocNetwork(TransportLimits limits)
    : hub_(std::make_shared<internal::InprocHub>(limits)) {}

InprocNetwork::~InprocNetwork() = default;

std::unique_ptr<Transport> InprocNetwork::CreateEndpoint(const std::string& name) {
  return std::make_unique<InprocTransport>(hub_, name);
}

}  // namespace switchyard
