#ifndef SWITCHYARD_LIBS_HTTP_HTTP_MESSAGE_H_
#define SWITCHYARD_LIBS_HTTP_HTTP_MESSAGE_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

// Names are lower case on the way in; on the way out they are sent as given.
using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// One request, whole. A value; any thread.
struct HttpRequest {
  std::string method;   // "GET", as sent: methods are case sensitive.
  std::string path;     // Percent-decoded, starts with '/', without the query.
  std::string query;    // After '?', as sent.
  HttpHeaders headers;  // In the order they were sent.
  std::string body;
  std::string remote;  // "host:port" of the client.

  // Value of the first header of that (lower-case) name, empty if there is none.
  std::string_view Header(std::string_view name) const;
};

// A response that is known whole. Content-Length, Date and Connection are the server's own.
struct HttpResponse {
  int status = 200;
  HttpHeaders headers;
  std::string body;

  static HttpResponse Json(int status, std::string body);
  static HttpResponse Text(int status, std::string body);
};

// "Not Found" for 404; "Unknown" for a status without a name.
std::string_view HttpReason(int status);

// Percent-decodes a path. False for a bad escape or an escaped NUL.
bool PercentDecode(std::string_view in, std::string* out);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_HTTP_HTTP_MESSAGE_H_
