#ifndef SWITCHYARD_LIBS_TRANSPORT_INTERNAL_UCX_SETTINGS_H_
#define SWITCHYARD_LIBS_TRANSPORT_INTERNAL_UCX_SETTINGS_H_

#include <string>

#include <sys/socket.h>
#include <ucp/api/ucp.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/transport/ucx_transport.h"

// How UCX is set up, and socket addresses as text. Any thread: pure but for reading the
// environment, where UCX's own variables take precedence over our settings.
namespace switchyard::internal {

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t bytes = 0;
  bool loopback = false;
};

// InvalidArgument unless `address` is numeric "host:port", "[host]:port" or "localhost:port".
absl::StatusOr<SocketAddress> ParseSocketAddress(const std::string& address);

std::string FormatSocketAddress(const sockaddr_storage& storage);

// Puts our settings of single transports into the environment, where the user has set none. Before
// the first context; not while another thread may read the environment.
void ExportUcxDefaults();

// A context with our settings; `loopback` pins the loopback device where nothing else is asked for.
absl::StatusOr<ucp_context_h> CreateUcpContext(const UcxOptions& options, bool loopback);

// Unavailable for any code: which code a fault gives differs by version and path.
absl::Status FromUcs(ucs_status_t status, const char* what);

// "tcp/lo", "posix/memory": what active messages of this endpoint travel on; empty if unknown.
std::string LaneOf(ucp_ep_h endpoint);

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_TRANSPORT_INTERNAL_UCX_SETTINGS_H_
