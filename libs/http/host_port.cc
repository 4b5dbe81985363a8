#include "libs/http/host_port.h"

#include <algorithm>
#include <charconv>

#include <arpa/inet.h>

#include "libs/base/status.h"

namespace switchyard {

std::string HostPort::ToString() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) {
    return InvalidArgument("address '{}' is not host:port", text);
  }
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  const bool bracketed = host.front() == '[' && host.back() == ']';
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  HostPort result{.host = std::string(host)};
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), result.port);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    return InvalidArgument("address '{}': port is not a number of 0 to 65535", text);
  }
  if (host.empty() || (!bracketed && std::ranges::count(host, ':') > 0)) {
    return InvalidArgument("address '{}': an IPv6 host is written [host]:port", text);
  }
  return result;
}

bool IsLoopbackHost(std::string_view host) {
  const std::string name(host);
  in_addr v4{};
  if (inet_pton(AF_INET, name.c_str(), &v4) == 1) {
    return (ntohl(v4.s_addr) >> 24) == 127;
  }
  in6_addr v6{};
  if (inet_pton(AF_INET6, name.c_str(), &v6) == 1) {
    return IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  }
  return name == "localhost";
}

}  // namespace switchyard
