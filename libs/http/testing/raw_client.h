#ifndef SWITCHYARD_LIBS_HTTP_TESTING_RAW_CLIENT_H_
#define SWITCHYARD_LIBS_HTTP_TESTING_RAW_CLIENT_H_

#include <string>
#include <string_view>

namespace switchyard {

// RawClient is a blocking TCP client for tests: it sends any bytes and takes responses apart.
//
// One owner. Reads give up after 10 s, so that a hanging server fails a test and does not hang it.
class RawClient {
 public:
  struct Response {
    int status = 0;  // 0 when there was none.
    std::string head;
    std::string body;  // Chunks put together.
    bool complete = false;

    // Value of a header by its lower-case name; empty if there is none.
    std::string Header(std::string_view name) const;
  };

  explicit RawClient(const std::string& address);
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;
  ~RawClient();

  bool connected() const { return fd_ >= 0; }

  bool Send(std::string_view bytes);
  // Sends a request with Host and Content-Length and reads its response.
  Response Fetch(std::string_view method, std::string_view target, std::string_view body = {},
                 std::string_view headers = {});
  Response ReadResponse(bool has_body = true);
  // Reads until `text` was seen in what is read from here on; true if it was.
  bool ReadUntil(std::string_view text);
  // Everything until the server closes.
  std::string ReadAll();
  // True when the server closed the connection.
  bool AtEnd();
  void CloseSending();
  void Reset();  // Closes with RST.

  const std::string& unread() const { return in_; }

 private:
  bool ReadMore();
  bool ReadChunks(Response* response);

  int fd_ = -1;
  std::string in_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_HTTP_TESTING_RAW_CLIENT_H_
