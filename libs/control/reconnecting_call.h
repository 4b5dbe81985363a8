#ifndef SWITCHYARD_LIBS_CONTROL_RECONNECTING_CALL_H_
#define SWITCHYARD_LIBS_CONTROL_RECONNECTING_CALL_H_

#include <functional>
#include <string>
#include <thread>

#include <grpcpp/client_context.h>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace switchyard {

// ReconnectingCall runs one long-lived blocking gRPC call on a thread of its own, again and again
// with backoff, until stopped. Stop() cancels the call that runs.
//
// Start() and Stop() belong to one owner; `call` runs on the thread.
class ReconnectingCall {
 public:
  // Makes the call with the given context and returns how it ended.
  using Call = std::function<absl::Status(grpc::ClientContext& context)>;

  // `name` names the thread and the log lines.
  ReconnectingCall(std::string name, Call call);
  ~ReconnectingCall();

  void Start();
  void Stop();

 private:
  void Run();
  // False when stopping.
  bool Begin(grpc::ClientContext* context);
  bool SleepOrStop(absl::Duration backoff);

  const std::string name_;
  const Call call_;
  std::thread thread_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_CONTROL_RECONNECTING_CALL_H_
