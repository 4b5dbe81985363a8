#ifndef SWITCHYARD_LOADTEST_TARGET_H_
#define SWITCHYARD_LOADTEST_TARGET_H_

#include <cstdint>
#include <string>
#include <string_view>

#include <sys/socket.h>

#include "absl/status/statusor.h"

namespace switchyard {

// A server's URL, taken apart. A value; any thread.
struct TargetUrl {
  std::string host;  // Without brackets.
  uint16_t port = 80;
  std::string path;       // Without a slash at the end; may be empty.
  std::string authority;  // As for the Host header.
};

// InvalidArgument unless `text` is http://host[:port][/path].
absl::StatusOr<TargetUrl> ParseTargetUrl(std::string_view text);

// Where to connect. A value; any thread.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  // True for 127.0.0.0/8, ::1 and the former written as IPv6: no other machine.
  bool IsLoopback() const;
};

// The first address of the host, IPv4 before IPv6. Asks the resolver, which may take a while;
// Unavailable when it knows none.
absl::StatusOr<SocketAddress> Resolve(const TargetUrl& url);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_TARGET_H_
