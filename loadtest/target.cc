#include "loadtest/target.h"

#include <charconv>
#include <cstring>

#include <netdb.h>
#include <netinet/in.h>

#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr std::string_view kScheme = "http://";

absl::Status ReadPort(std::string_view text, uint16_t* port) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *port);
  if (error != std::errc() || end != text.data() + text.size() || *port == 0) {
    return InvalidArgument("port '{}' is not 1 to 65535", text);
  }
  return absl::OkStatus();
}

bool IsUrlText(std::string_view text) {
  for (const char c : text) {
    if (c <= 0x20 || c > 0x7e) {
      return false;
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<TargetUrl> ParseTargetUrl(std::string_view text) {
  if (text.starts_with("https://")) {
    return InvalidArgument("https is not spoken here; give an http:// address");
  }
  if (!text.starts_with(kScheme) || !IsUrlText(text)) {
    return InvalidArgument("'{}' is not http://host[:port][/path]", text);
  }
  std::string_view rest = text.substr(kScheme.size());
  const size_t slash = rest.find('/');
  TargetUrl url;
  if (slash != std::string_view::npos) {
    url.path = rest.substr(slash);
    rest = rest.substr(0, slash);
    while (url.path.ends_with('/')) {
      url.path.pop_back();
    }
  }
  if (rest.find('@') != std::string_view::npos || url.path.find('?') != std::string::npos ||
      url.path.find('#') != std::string::npos) {
    return InvalidArgument("an address with user, query or fragment is not taken");
  }
  url.authority = rest;
  const bool bracketed = rest.starts_with('[');
  const size_t host_end = bracketed ? rest.find(']') : rest.find(':');
  if (bracketed && host_end == std::string_view::npos) {
    return InvalidArgument("'{}': no closing bracket", rest);
  }
  url.host = bracketed ? rest.substr(1, host_end - 1) : rest.substr(0, host_end);
  const std::string_view after =
      host_end == std::string_view::npos ? "" : rest.substr(host_end + (bracketed ? 1 : 0));
  if (url.host.empty() || (!after.empty() && after[0] != ':')) {
    return InvalidArgument("'{}' is not host[:port]", rest);
  }
  if (!after.empty()) {
    SY_RETURN_IF_ERROR(ReadPort(after.substr(1), &url.port));
  }
  return url;
}

bool SocketAddress::IsLoopback() const {
  if (storage.ss_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &storage, sizeof(v4));
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  sockaddr_in6 v6{};
  std::memcpy(&v6, &storage, sizeof(v6));
  return storage.ss_family == AF_INET6 &&
         (IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) ||
          (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == 127));
}

absl::StatusOr<SocketAddress> Resolve(const TargetUrl& url) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error =
      ::getaddrinfo(url.host.c_str(), fmt::format("{}", url.port).c_str(), &hints, &found);
  if (error != 0) {
    return Unavailable("host {}: {}", url.host, ::gai_strerror(error));
  }
  SocketAddress address;
  for (const addrinfo* it = found; it != nullptr; it = it->ai_next) {
    if (address.length == 0 || (it->ai_family == AF_INET && address.storage.ss_family != AF_INET)) {
      address.length = it->ai_addrlen;
      std::memcpy(&address.storage, it->ai_addr, it->ai_addrlen);
    }
  }
  ::freeaddrinfo(found);
  return address;
}

}  // namespace switchyard
