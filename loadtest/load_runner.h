#ifndef SWITCHYARD_LOADTEST_LOAD_RUNNER_H_
#define SWITCHYARD_LOADTEST_LOAD_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "loadtest/request_body.h"
#include "loadtest/request_record.h"
#include "loadtest/target.h"
#include "loadtest/tenants.h"
#include "loadtest/workload.h"

namespace switchyard {

// How far a run has come; a value.
struct RunProgress {
  double at_s = 0.0;
  uint64_t started = 0;
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t chunks = 0;
  uint32_t in_flight = 0;
};

struct RunnerOptions {
  SocketAddress address;
  // Request line and headers, each with CRLF, without Content-Length and Authorization.
  std::string request_head;
  BodyOptions body;
  std::vector<Tenant> tenants;
  double duration_s = 0.0;          // No request begins later; 0 for no bound.
  double timeout_s = 600.0;         // Of one request, from when it is begun.
  double limit_s = 3600.0;          // Of the run: what is open then is cut off.
  uint32_t connections_max = 1024;  // In flight at once; requests beyond fail as kClientLimit.
  bool keep_alive = true;
  int stop_fd = -1;  // Readable: end now, with what there is. -1 for none.
  double progress_s = 10.0;
  std::function<void(const RunProgress&)> on_progress;
};

// LoadRunner sends the requests of a workload and reads their streams, in one thread and one epoll
// set. It always ends: every request has a timeout, and the run a limit.
//
// One owner; Run() blocks its thread and is called once. `workload` outlives it.
class LoadRunner {
 public:
  LoadRunner(RunnerOptions options, Workload& workload);
  LoadRunner(const LoadRunner&) = delete;
  LoadRunner& operator=(const LoadRunner&) = delete;
  ~LoadRunner();

  // Fails only when the system gives no epoll set or timer; failing requests are a result.
  absl::StatusOr<RunResult> Run();

 private:
  class Loop;
  std::unique_ptr<Loop> loop_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_LOAD_RUNNER_H_
