#ifndef SWITCHYARD_LOADTEST_TESTING_SCRIPTED_SERVER_H_
#define SWITCHYARD_LOADTEST_TESTING_SCRIPTED_SERVER_H_

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "loadtest/stream_socket.h"

namespace switchyard {

// ScriptedServer is a TCP server for tests that answers exactly as its script says, well or badly.
//
// The script runs in one thread per connection and must return once the client is gone. The
// destructor breaks all connections and joins.
class ScriptedServer {
 public:
  class Connection {
   public:
    explicit Connection(int fd) : fd_(fd) {}

    // Reads one request, by its Content-Length. False when the client left.
    bool ReadRequest();
    // Reads the head only.
    bool ReadHead();
    bool Send(std::string_view bytes);
    // One packet per byte.
    bool SendByteByByte(std::string_view bytes);
    // Reads and drops until the client leaves.
    void Drain();
    // Reads nothing until the server ends or the connection breaks.
    void HoldWithoutReading();
    // Makes the close to come a reset.
    void ResetOnClose();

    const std::string& head() const { return head_; }

    const std::string& body() const { return body_; }

   private:
    bool ReadMore();

    int fd_;
    std::string in_;
    std::string head_;
    std::string body_;
  };

  using Script = std::function<void(Connection&)>;

  explicit ScriptedServer(Script script);
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;
  ~ScriptedServer();

  // http://127.0.0.1:PORT
  std::string url() const;

 private:
  void Accept();

  const Script script_;
  Descriptor listener_;
  uint16_t port_ = 0;
  std::mutex mutex_;
  bool stopping_ = false;
  std::vector<int> open_;  // Descriptors of connections, closed by the destructor.
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

// A whole answer: head, one chunk of body per event, the end.
std::string StreamHead();
std::string HttpChunk(std::string_view bytes);
inline constexpr std::string_view kLastHttpChunk = "0\r\n\r\n";
// An event with one token of text; the usage event; [DONE].
std::string TokenEvent();
std::string UsageEvent(int prompt_tokens, int completion_tokens);
inline constexpr std::string_view kDoneEvent = "data: [DONE]\n\n";
// A stream of `tokens` tokens in good order.
std::string WholeStream(int prompt_tokens, int tokens);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_TESTING_SCRIPTED_SERVER_H_
