#ifndef SWITCHYARD_LIBS_HTTP_INTERNAL_EXCHANGE_H_
#define SWITCHYARD_LIBS_HTTP_INTERNAL_EXCHANGE_H_

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "absl/synchronization/mutex.h"

#include "libs/http/http_message.h"
#include "libs/http/http_server.h"

namespace switchyard::internal {

struct ExchangeOptions {
  bool http10 = false;     // No chunks: a stream ends with the connection.
  bool head_only = false;  // The method was HEAD.
  bool keep_alive = true;  // What the client wants.
  size_t buffer_bytes_max = 0;
};

// Exchange is the meeting place of one response's writer and its connection: framed bytes wait
// here, bounded, until the connection's thread takes them.
//
// Any thread. Shared by the writer, which may outlive the connection, and the connection.
class Exchange {
 public:
  // What the connection has to send now.
  struct Output {
    std::string bytes;
    bool complete = false;    // Nothing comes after these bytes.
    bool keep_alive = false;  // After completion.
    bool streaming = false;
  };

  // `wake` tells the connection that Take has something; it may run on any thread, at any time.
  Exchange(ExchangeOptions options, std::function<void()> wake);

  void Respond(HttpResponse response);
  void StartStream(HttpResponse head, StreamFiller filler);
  bool Write(std::string_view piece);
  void Finish();
  void Abort();
  void Abandon();  // The writer is gone.
  void OnClosed(std::function<void()> callback);
  bool closed() const;

  Output Take();
  StreamFiller filler() const;
  void ForbidKeepAlive();
  void MarkClosed();  // The client is gone.

 private:
  enum class State { kUnanswered, kStreaming, kComplete };

  void AppendHead(const HttpResponse& head, bool streams) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AppendPiece(std::string_view piece) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NeedsWake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(bool in_order) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ExchangeOptions options_;
  const std::function<void()> wake_;
  mutable absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kUnanswered;
  bool keep_alive_ ABSL_GUARDED_BY(mutex_);
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  std::string pending_ ABSL_GUARDED_BY(mutex_);
  // One large piece alone must not make the next small one overflow.
  size_t largest_piece_ ABSL_GUARDED_BY(mutex_) = 0;
  StreamFiller filler_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> on_closed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_HTTP_INTERNAL_EXCHANGE_H_
