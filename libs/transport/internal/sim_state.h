#ifndef SWITCHYARD_LIBS_TRANSPORT_INTERNAL_SIM_STATE_H_
#define SWITCHYARD_LIBS_TRANSPORT_INTERNAL_SIM_STATE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/status.h"
#include "libs/transport/sim_transport.h"

// What a SimNetwork keeps: endpoints, connections, events, and the Transport that is the view of
// one endpoint. One owner: the thread of the network, which owns all of it.
namespace switchyard::internal {

class SimTransport;
struct SimEndpoint;

struct SimEvent {
  enum class Kind : uint8_t {
    kConnect,
    kConnected,
    kConnectTimeout,
    kReset,  // The other side is gone, or refused.
    kMessage,
    kSendDone,
    kDown,
    kCall,
  };

  Kind kind = Kind::kCall;
  SimEndpoint* endpoint = nullptr;  // Whose event it is; null for kCall.
  uint64_t instance = 0;            // Unused by kConnect: it meets whoever is there.
  uint64_t connection = 0;
  int side = 0;  // Of the receiving endpoint.
  uint64_t send = 0;
  bool lost = false;
  bool copy = false;
  PeerHandle peer{};
  SendTicket ticket{};
  absl::Status status{};
  std::vector<std::byte> bytes{};
  std::function<void()> call{};
};

struct SimEndpoint {
  std::string name;
  uint64_t index = 0;     // Order of creation: the order in which idle callbacks run.
  uint64_t instance = 0;  // Grows when the endpoint's process ends; older events are void.
  SimTransport* transport = nullptr;
  TransportHandler* handler = nullptr;
  std::function<void()> idle;
  bool listening = false;
  bool stopped = false;
  bool happened = false;  // Something was delivered since the owner last waited.
  bool woken = false;
  uint64_t next_peer = 1;
  size_t queued_bytes = 0;
  std::map<PeerHandle, std::pair<uint64_t, int>> peers;  // Connection and our side of it.
  std::vector<SimEvent> held;                            // Events that came while stopped.
};

struct SimSide {
  enum class State : uint8_t { kAbsent, kConnecting, kUp, kClosed };

  struct Pending {
    SendTicket ticket{};
    size_t bytes = 0;
  };

  SimEndpoint* endpoint = nullptr;
  uint64_t instance = 0;
  PeerHandle peer{};
  State state = State::kAbsent;
  Instant last_arrival;  // Of what this side sent: keeps the order.
  std::map<uint64_t, Pending> pending;
  size_t queued_bytes = 0;
};

struct SimConnection {
  SimSide sides[2];  // 0 connected, 1 accepted.
};

// A view of one endpoint of the network; a husk once that endpoint crashed. One owner.
class SimTransport final : public Transport {
 public:
  SimTransport(SimNetwork* network, SimEndpoint* endpoint)
      : network_(*network), endpoint_(*endpoint), instance_(endpoint->instance) {}

  ~SimTransport() override {
    if (alive()) {
      network_.Detach(endpoint_);
    }
  }

  void SetHandler(TransportHandler* handler) override {
    if (alive()) {
      endpoint_.handler = handler;
    }
  }

  absl::StatusOr<std::string> Listen(const std::string& address) override {
    if (!alive()) {
      return Unavailable("listen: endpoint {} crashed", endpoint_.name);
    }
    return network_.Listen(endpoint_, address);
  }

  absl::StatusOr<PeerHandle> Connect(const std::string& address) override {
    if (!alive()) {
      return Unavailable("connect: endpoint {} crashed", endpoint_.name);
    }
    return network_.Connect(endpoint_, address);
  }

  void Close(PeerHandle peer) override {
    if (alive()) {
      network_.Close(endpoint_, peer);
    }
  }

  SendResult Send(PeerHandle peer, std::span<const std::span<const std::byte>> parts,
                  SendTicket ticket) override {
    return alive() ? network_.Send(endpoint_, peer, parts, ticket) : SendResult::kNoPeer;
  }

  bool Progress() override { return alive() && network_.Progress(endpoint_); }

  bool Wait(Duration timeout) override {
    if (!alive()) {
      network_.RunFor(timeout);
      return false;
    }
    return network_.Wait(endpoint_, timeout);
  }

  void Wake() override { endpoint_.woken = true; }

  size_t queued_bytes() const override { return alive() ? endpoint_.queued_bytes : 0; }

  size_t peer_count() const override { return alive() ? endpoint_.peers.size() : 0; }

  std::string description() const override { return "sim"; }

  TransportStats& mutable_stats() { return stats_; }

 private:
  bool alive() const { return endpoint_.transport == this && endpoint_.instance == instance_; }

  SimNetwork& network_;
  SimEndpoint& endpoint_;
  const uint64_t instance_;
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_TRANSPORT_INTERNAL_SIM_STATE_H_
