#include "libs/http/internal/request_head.h"

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

namespace switchyard::internal {
namespace {

// Grammar read here (RFC 9112, without obs-fold):
//   head  = method SP target SP "HTTP/" DIGIT "." DIGIT CRLF *( name ":" OWS value OWS CRLF ) CRLF

bool IsTokenChar(char c) {
  const auto u = static_cast<unsigned char>(c);
  if ((u >= '0' && u <= '9') || (u >= 'a' && u <= 'z') || (u >= 'A' && u <= 'Z')) {
    return true;
  }
  return std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, IsTokenChar);
}

bool IsFieldValue(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return c == '\t' || (u >= 0x20 && u != 0x7f);
  });
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) {
    text.remove_prefix(1);
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) {
    text.remove_suffix(1);
  }
  return text;
}

std::string ToLower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') {
      c = static_cast<char>(c + ('a' - 'A'));
    }
  }
  return lower;
}

RequestHead Refuse(int error, std::string_view why) {
  RequestHead head;
  head.error = error;
  head.why = why;
  return head;
}

// Takes one line off `rest`; false when it does not end with CRLF or has a bare CR or LF in it.
bool TakeLine(std::string_view* rest, std::string_view* line) {
  const size_t end = rest->find_first_of("\r\n");
  if (end == std::string_view::npos || rest->substr(end, 2) != "\r\n") {
    return false;
  }
  *line = rest->substr(0, end);
  rest->remove_prefix(end + 2);
  return true;
}

// Splits "target" into path and query; empty on success, else why not.
std::string_view ParseTarget(std::string_view target, HttpRequest* request) {
  if (ToLower(target.substr(0, 7)) == "http://") {
    const size_t slash = target.find('/', 7);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  const bool printable = std::ranges::all_of(target, [](char c) { return c > 0x20 && c < 0x7f; });
  if (target.empty() || target.front() != '/' || !printable) {
    return "the request target is not a path";
  }
  const size_t mark = target.find('?');
  if (mark != std::string_view::npos) {
    request->query = std::string(target.substr(mark + 1));
  }
  if (!PercentDecode(target.substr(0, mark), &request->path)) {
    return "the request target has a bad escape";
  }
  return {};
}

std::string_view ParseRequestLine(std::string_view line, RequestHead* head) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || !IsToken(line.substr(0, first))) {
    return "the request line is malformed";
  }
  const std::string_view version = line.substr(last + 1);
  const bool is_version = version.size() == 8 && version.starts_with("HTTP/") &&
                          version[5] >= '0' && version[5] <= '9' && version[6] == '.' &&
                          version[7] >= '0' && version[7] <= '9';
  if (!is_version) {
    return "the request line is malformed";
  }
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    head->error = 505;
    return "only HTTP/1.1 and HTTP/1.0 are spoken here";
  }
  head->http10 = version == "HTTP/1.0";
  head->request.method = std::string(line.substr(0, first));
  return ParseTarget(line.substr(first + 1, last - first - 1), &head->request);
}

// Headers that frame the message or change how it is read, each at most once.
struct Framing {
  int hosts = 0;
  int lengths = 0;
  int transfer_encodings = 0;
  int expectations = 0;
};

std::string_view ApplyLength(std::string_view value, RequestHead* head) {
  const auto [end, error] =
      std::from_chars(value.data(), value.data() + value.size(), head->content_length);
  const bool digits =
      !value.empty() && std::ranges::all_of(value, [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || (error != std::errc() && error != std::errc::result_out_of_range)) {
    return "Content-Length is not a number";
  }
  if (error == std::errc::result_out_of_range) {
    head->error = 413;
    return "the body is too large";
  }
  return {};
}

std::string_view ApplyEncoding(std::string_view value, RequestHead* head) {
  if (value.empty() || ToLower(value) == "identity") {
    return {};
  }
  head->error = 415;
  return "only identity content encoding is accepted";
}

std::string_view ApplyExpect(std::string_view value, RequestHead* head) {
  head->expects_continue = ToLower(value) == "100-continue";
  if (head->expects_continue) {
    return {};
  }
  head->error = 417;
  return "the expectation is unknown";
}

void ApplyConnection(std::string_view value, RequestHead* head) {
  const std::string lower = ToLower(value);
  if (lower.find("close") != std::string::npos) {
    head->keep_alive = false;
  } else if (head->http10 && lower.find("keep-alive") != std::string::npos) {
    head->keep_alive = true;
  }
}

std::string_view ApplyHeader(const std::string& name, std::string_view value, Framing* framing,
                             RequestHead* head) {
  if (name == "host") {
    ++framing->hosts;
  } else if (name == "content-length") {
    ++framing->lengths;
    return ApplyLength(value, head);
  } else if (name == "transfer-encoding") {
    ++framing->transfer_encodings;
    head->chunked = true;
    return ToLower(value) == "chunked" ? "" : "only chunked transfer encoding is understood";
  } else if (name == "content-encoding") {
    return ApplyEncoding(value, head);
  } else if (name == "expect") {
    ++framing->expectations;
    return ApplyExpect(value, head);
  } else if (name == "connection") {
    ApplyConnection(value, head);
  }
  return {};
}

std::string_view CheckFraming(const Framing& framing, const HeadLimits& limits, RequestHead* head) {
  if (framing.hosts > 1 || (framing.hosts == 0 && !head->http10)) {
    return "exactly one Host header is required";
  }
  if (framing.lengths > 1 || framing.transfer_encodings > 1 ||
      framing.lengths + framing.transfer_encodings > 1) {
    return "the length of the body is given more than once";
  }
  if (framing.transfer_encodings > 0 && head->http10) {
    return "HTTP/1.0 has no transfer encodings";
  }
  if (framing.expectations > 1) {
    return "Expect is given more than once";
  }
  if (head->content_length > limits.body_bytes_max) {
    head->error = 413;
    return "the body is too large";
  }
  return {};
}

std::string_view ParseHeaderLine(std::string_view line, Framing* framing, RequestHead* head) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) {
    return "a header name is malformed";
  }
  const std::string_view value = Trim(line.substr(colon + 1));
  if (!IsFieldValue(value)) {
    return "a header value has a control character";
  }
  head->request.headers.emplace_back(ToLower(line.substr(0, colon)), std::string(value));
  return ApplyHeader(head->request.headers.back().first, value, framing, head);
}

}  // namespace

RequestHead ParseRequestHead(std::string_view bytes, const HeadLimits& limits) {
  if (bytes.size() > limits.header_bytes_max) {
    return Refuse(431, "the headers are too large");
  }
  std::string_view line;
  RequestHead head;
  const auto refuse = [&head](std::string_view why) {
    return Refuse(head.error == 0 ? 400 : head.error, why);
  };
  if (!TakeLine(&bytes, &line)) {
    return refuse("lines end with CR LF");
  }
  if (line.size() > limits.target_bytes_max) {
    return Refuse(414, "the request target is too long");
  }
  if (const std::string_view why = ParseRequestLine(line, &head); !why.empty()) {
    return refuse(why);
  }
  head.keep_alive = !head.http10;
  Framing framing;
  while (true) {
    if (!TakeLine(&bytes, &line)) {
      return refuse("lines end with CR LF");
    }
    if (line.empty()) {
      break;
    }
    if (head.request.headers.size() == limits.headers_max) {
      return Refuse(431, "there are too many headers");
    }
    if (const std::string_view why = ParseHeaderLine(line, &framing, &head); !why.empty()) {
      return refuse(why);
    }
  }
  if (const std::string_view why = CheckFraming(framing, limits, &head); !why.empty()) {
    return refuse(why);
  }
  return head;
}

std::optional<size_t> FindHeadEnd(std::string_view bytes, size_t search_from) {
  size_t newline = bytes.find('\n', search_from > 2 ? search_from - 3 : 0);
  while (newline != std::string_view::npos) {
    const std::string_view rest = bytes.substr(newline + 1);
    if (rest.starts_with("\n")) {
      return newline + 2;
    }
    if (rest.starts_with("\r\n")) {
      return newline + 3;
    }
    newline = bytes.find('\n', newline + 1);
  }
  return std::nullopt;
}

}  // namespace switchyard::internal
