#ifndef SWITCHYARD_LIBS_TRANSPORT_SIM_TRANSPORT_H_
#define SWITCHYARD_LIBS_TRANSPORT_SIM_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/clock.h"
#include "libs/base/rng.h"
#include "libs/transport/transport.h"

namespace switchyard {

// How messages travel from one endpoint to another. Faults hit whole messages at the transport
// seam: a lost message is gone although its connection stays up, so upper layers need deadlines.
struct SimLinkOptions {
  Duration delay_min = std::chrono::microseconds(10);
  Duration delay_max = std::chrono::microseconds(50);
  float loss = 0;         // Probability that a message is dropped; its send completes with OK.
  float duplication = 0;  // Probability that a message arrives a second time, later.
  float reordering = 0;   // Probability that a message is held so that later ones may overtake it.
};

namespace internal {
class SimTransport;
struct SimEndpoint;
struct SimConnection;
struct SimEvent;
}  // namespace internal

// SimNetwork is a network, a clock and a scheduler in one: every endpoint lives in one thread, all
// events are ordered by (time, sequence number), and the same seed gives the same events byte for
// byte. Time passes only inside Wait() of an endpoint or RunFor().
//
// Wait() of one endpoint runs the whole network: messages for other endpoints are delivered to
// their handlers, then their idle callbacks run. Wait() from inside a callback ends the process;
// Progress() there only answers whether anything was delivered.
//
// A send completes when its message arrives, is lost or is dropped by a partition; sends towards a
// stopped endpoint stay queued, so backpressure and Close() with pending sends can be tried.
//
// One owner (one thread). Must outlive its endpoints.
class SimNetwork {
 public:
  explicit SimNetwork(uint64_t seed, SimLinkOptions link = {}, TransportLimits limits = {});
  ~SimNetwork();
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // Reached as "sim:<name>" once it listens (whatever Listen was given), and also by its listen
  // address unless that has port 0. One living endpoint per name.
  std::unique_ptr<Transport> CreateEndpoint(const std::string& name);

  // What the endpoint's own event loop would do once messages were delivered to it. Called by the
  // network after a batch of events, not while the endpoint itself is the one that Wait()s.
  void SetIdleCallback(const std::string& name, std::function<void()> callback);

  // One direction; replaces the default of the constructor.
  void SetLink(const std::string& from, const std::string& to, SimLinkOptions options);

  // Both directions: what would arrive while partitioned is dropped silently, connections stay up.
  void Partition(const std::string& a, const std::string& b);
  void Heal(const std::string& a, const std::string& b);

  // Like SIGSTOP and SIGCONT: events of a stopped endpoint wait, its idle callback does not run.
  void Stop(const std::string& name);
  void Continue(const std::string& name);

  // Like SIGKILL: its transport turns into a husk without callbacks; its peers see OnPeerDown.
  // The name may then be created again; Restart does both.
  void Crash(const std::string& name);
  std::unique_ptr<Transport> Restart(const std::string& name);

  // Calls `callback` once, between events, when time has come to now + `delay`.
  void After(Duration delay, std::function<void()> callback);

  // Runs all endpoints for so long, with nobody waiting.
  void RunFor(Duration duration);

  ManualClock& clock() { return clock_; }

  // Over every event processed so far, with times and message bytes.
  uint64_t trace_hash() const { return trace_hash_; }

  uint64_t event_count() const { return event_count_; }

 private:
  friend class internal::SimTransport;
  using Endpoint = internal::SimEndpoint;
  using Connection = internal::SimConnection;
  using Event = internal::SimEvent;

  Endpoint& Find(const std::string& name);
  absl::StatusOr<std::string> Listen(Endpoint& endpoint, const std::string& address);
  absl::StatusOr<PeerHandle> Connect(Endpoint& endpoint, const std::string& address);
  void Close(Endpoint& endpoint, PeerHandle peer);
  SendResult Send(Endpoint& endpoint, PeerHandle peer,
                  std::span<const std::span<const std::byte>> parts, SendTicket ticket);
  bool Wait(Endpoint& endpoint, Duration timeout);
  bool Progress(Endpoint& endpoint);
  void Detach(Endpoint& endpoint);

  const SimLinkOptions& LinkOf(const Endpoint& from, const Endpoint& to) const;
  bool Partitioned(const Endpoint& a, const Endpoint& b) const;
  Duration DelayOf(const SimLinkOptions& link);
  void Schedule(Instant at, Event event);
  Instant ArrivalInOrder(Connection& connection, int from_side);
  void NotifyOther(uint64_t connection_id, int from_side);
  void CloseSide(uint64_t connection_id, int side, const absl::Status& why, bool notify);

  bool RunBatch(Instant until, const Endpoint* waiter);
  void Process(Event event);
  void ProcessConnect(Event& event);
  void ProcessConnected(const Event& event);
  void ProcessMessage(Event& event);
  void ProcessDown(const Event& event);
  void CompleteSend(Connection& connection, uint64_t connection_id, const Event& event);
  void Trace(const Event& event);

  const SimLinkOptions default_link_;
  const TransportLimits limits_;
  Rng rng_;
  ManualClock clock_;
  std::map<std::string, std::unique_ptr<Endpoint>> endpoints_;
  std::map<std::string, std::string> names_by_address_;
  std::map<std::pair<std::string, std::string>, SimLinkOptions> links_;
  std::set<std::pair<std::string, std::string>> partitions_;
  std::map<uint64_t, Connection> connections_;
  std::map<std::pair<Instant, uint64_t>, Event> events_;
  std::set<std::pair<uint64_t, Endpoint*>> touched_;
  uint64_t next_connection_ = 1;
  uint64_t next_sequence_ = 1;
  uint64_t next_send_ = 1;
  uint64_t trace_hash_ = 0;
  uint64_t event_count_ = 0;
  bool running_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TRANSPORT_SIM_TRANSPORT_H_
