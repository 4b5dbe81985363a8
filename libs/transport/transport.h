#ifndef SWITCHYARD_LIBS_TRANSPORT_TRANSPORT_H_
#define SWITCHYARD_LIBS_TRANSPORT_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/base/clock.h"
#include "libs/base/ids.h"

namespace switchyard {

// One end of a connection, as this transport numbers it. Never reused within a transport, so an
// event of a connection that is gone cannot be taken for a newer one's.
using PeerHandle = StrongId<struct PeerTag, uint64_t>;

// Chosen by the caller of Send; comes back in OnSendDone, when the sent bytes may be reused.
using SendTicket = StrongId<struct SendTag, uint64_t>;

enum class SendResult : uint8_t {
  kAccepted,      // OnSendDone follows exactly once (possibly before Send returns).
  kBackpressure,  // The peer's bound of queued bytes is reached; nothing was taken, no OnSendDone.
  kNoPeer,        // The connection is unknown or gone; nothing was taken, no OnSendDone.
};

struct TransportLimits {
  size_t message_bytes_max = 256 * 1024;               // Larger messages are refused on both sides.
  size_t queued_bytes_max_per_peer = 8 * 1024 * 1024;  // Sent, not yet handed to the network.
  size_t peers_max = 1024;
};

// Counters since the transport was made. One owner, as the transport.
struct TransportStats {
  uint64_t messages_sent = 0;      // Accepted by Send.
  uint64_t messages_received = 0;  // Delivered to OnMessage.
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  uint64_t oversize_closed = 0;  // Peers closed because they sent more than message_bytes_max.
  uint64_t protocol_closed = 0;  // Peers closed because they broke the transport's own framing.
  uint64_t backpressure = 0;     // Sends answered with kBackpressure.
  uint64_t peers_refused = 0;    // Connections refused at peers_max.
};

// What happened on a transport. Called by the owner thread from within Progress(), Wait() or
// Send(), never concurrently. A handler may call Send, Close and Connect from inside a callback.
class TransportHandler {
 public:
  virtual ~TransportHandler() = default;

  // A connection works: one that Connect() began, or one that a remote peer opened (`accepted`).
  virtual void OnPeerUp(PeerHandle peer, bool accepted) = 0;

  // The connection is gone; its sends have all been completed by OnSendDone. Last event of a peer
  // (also after Close()). A Connect() that fails ends here without OnPeerUp.
  virtual void OnPeerDown(PeerHandle peer, const absl::Status& why) = 0;

  // One whole message. `message` is valid only during the call and is aligned to 16 bytes.
  virtual void OnMessage(PeerHandle peer, std::span<const std::byte> message) = 0;

  // The bytes of an accepted send may be reused. OK means "handed to the network", no more.
  virtual void OnSendDone(PeerHandle peer, SendTicket ticket, const absl::Status& status) = 0;
};

// Transport moves whole messages between peers, in order per connection, at most once unless a
// faulty one is asked for faults. It knows no MoE. Forms: UCX (processes), in-process (threads of
// one process), simulated (one thread, manual clock, seeded faults).
//
// Owner: one thread (the step thread of a router, the transport thread of a shard). Only Wake() may
// be called from any thread. Destroying a transport closes its connections and delivers no more
// callbacks; afterwards all sent bytes may be reused.
class Transport {
 public:
  virtual ~Transport() = default;

  // Set once, before anything else; must outlive the transport or be reset to null before it dies.
  virtual void SetHandler(TransportHandler* handler) = 0;

  // Starts to accept connections. `address` is "host:port" ("127.0.0.1:0", "[fd00::1]:0"); the
  // answer is the bound address with its real port.
  virtual absl::StatusOr<std::string> Listen(const std::string& address) = 0;

  // Begins a connection; OnPeerUp or OnPeerDown follows from Progress(). Does not block.
  // InvalidArgument for an address that cannot be parsed, ResourceExhausted at peers_max.
  virtual absl::StatusOr<PeerHandle> Connect(const std::string& address) = 0;

  // Forces the connection shut. Pending sends complete with an error and OnPeerDown follows, from
  // Progress(). Unknown or closed peers are ignored.
  virtual void Close(PeerHandle peer) = 0;

  // Sends the concatenation of `parts` (at most 16) as one message. The span array is copied; the
  // bytes it points at are not, and must live until OnSendDone. InvalidArgument cases (too many
  // parts, too large) are bugs of the caller and end the process.
  virtual SendResult Send(PeerHandle peer, std::span<const std::span<const std::byte>> parts,
                          SendTicket ticket) = 0;

  // Delivers what is ready; true if anything happened. Never blocks.
  virtual bool Progress() = 0;

  // Sleeps until something is ready, Wake() is called, or `timeout` has passed; then Progress()es
  // once. Returns what Progress returned.
  virtual bool Wait(Duration timeout) = 0;

  // Ends a Wait() that sleeps now, or the next one. Any thread.
  virtual void Wake() = 0;

  // Bytes accepted by Send whose OnSendDone has not come, over all peers.
  virtual size_t queued_bytes() const = 0;

  virtual size_t peer_count() const = 0;

  // "ucx tcp", "ucx shm", "inproc", "sim": for logs and status.
  virtual std::string description() const = 0;

  virtual const TransportStats& stats() const { return stats_; }

 protected:
  TransportStats stats_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TRANSPORT_TRANSPORT_H_
