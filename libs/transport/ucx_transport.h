#ifndef SWITCHYARD_LIBS_TRANSPORT_UCX_TRANSPORT_H_
#define SWITCHYARD_LIBS_TRANSPORT_UCX_TRANSPORT_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/clock.h"
#include "libs/transport/transport.h"

namespace switchyard {

struct UcxOptions {
  enum class Mode : uint8_t {
    kAuto,  // The fastest that both ends share: RDMA, shared memory, else TCP.
    kTcp,
    kShm,  // Both processes must share a pid and an IPC namespace.
  };

  Mode mode = Mode::kAuto;
  std::string
      devices{};  // NET_DEVICES ("eth0", "mlx5_0:1"); empty: lo for loopback, else UCX's choice.
  std::string tls{};  // TLS; empty: what `mode` says.

  // UCX settings without their "UCX_" prefix, applied last. A variable that is set in the
  // environment wins over all of these.
  std::vector<std::pair<std::string, std::string>> overrides{};

  // A connection that is not up by then ends in OnPeerDown.
  Duration connect_timeout = std::chrono::seconds(5);

  // How long a closing connection may keep its sends; then they complete with an error, although
  // UCX has not returned them. Never seen with sockaddr connections (1.2 ms at most were measured).
  Duration close_wait_max = std::chrono::seconds(2);

  // Wait() polls so long before it sleeps. Only for a thread that owns a whole core.
  Duration spin_max = Duration::zero();
};

// The mode that a configuration calls "auto" (or leaves empty), "tcp" or "shm"; InvalidArgument for
// anything else. Any thread.
absl::StatusOr<UcxOptions::Mode> ParseUcxMode(const std::string& name);

// A transport between processes over UCX active messages, with sockaddr connections and peer
// failure detection. Process death shows as OnPeerDown within milliseconds; a hang or a blackhole
// does not show at all: callers need deadlines and Close().
//
// Addresses are numeric ("127.0.0.1:0", "[fd00::1]:0", but not IPv6 loopback) or "localhost:port";
// names are for the caller to resolve, because resolving blocks. The first address given to Listen
// or Connect decides whether the transport is pinned to the loopback device; a pinned one refuses
// other addresses.
//
// Makes UCX settings part of the environment: call it before other threads read theirs.
// One owner (a thread that may sleep in Wait()), but for Wake().
absl::StatusOr<std::unique_ptr<Transport>> CreateUcxTransport(const UcxOptions& options,
                                                              const TransportLimits& limits);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TRANSPORT_UCX_TRANSPORT_H_
