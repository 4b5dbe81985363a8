#ifndef SWITCHYARD_LIBS_HTTP_INTERNAL_REQUEST_HEAD_H_
#define SWITCHYARD_LIBS_HTTP_INTERNAL_REQUEST_HEAD_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "libs/http/http_message.h"

namespace switchyard::internal {

// What a request head may be at most.
struct HeadLimits {
  size_t header_bytes_max = 0;
  size_t headers_max = 0;
  size_t target_bytes_max = 8192;
  size_t body_bytes_max = 0;
};

// RequestHead is a request line and headers, read more strictly than RFC 9112 asks: what two
// parsers could read differently (both lengths, bare LF, folded lines, spaces before a colon) is
// refused.
//
// A value; any thread.
struct RequestHead {
  int error = 0;         // HTTP status of a refusal, 0 when the head is good.
  std::string_view why;  // Fixed words for that refusal.
  HttpRequest request;   // Without body and remote.
  bool http10 = false;
  bool keep_alive = true;
  bool chunked = false;
  bool expects_continue = false;
  uint64_t content_length = 0;
};

// `head` ends with the empty line.
RequestHead ParseRequestHead(std::string_view head, const HeadLimits& limits);

// Bytes up to and with the empty line that ends a head; nothing if it is not there yet. A bare LF
// counts as a line's end here, so that ParseRequestHead gets to refuse it.
std::optional<size_t> FindHeadEnd(std::string_view bytes, size_t search_from);

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_HTTP_INTERNAL_REQUEST_HEAD_H_
