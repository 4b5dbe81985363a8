#ifndef SWITCHYARD_LIBS_APP_SERVICE_MAIN_H_
#define SWITCHYARD_LIBS_APP_SERVICE_MAIN_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/base/clock.h"

namespace switchyard {

// A service of this project: made from a config file, started, told to drain, destroyed.
//
// One owner: the main thread; RequestStop() from any thread.
class ServiceProcess {
 public:
  virtual ~ServiceProcess() = default;

  // Listens and starts its threads; loading may go on afterwards (then /ready says so). Ends with
  // Cancelled soon after RequestStop() when it takes long.
  virtual absl::Status Start() = 0;

  // Stops taking work, lets open work end within `drain`, joins its threads. Called once.
  virtual void Stop(Duration drain) = 0;

  virtual Duration drain_max() const = 0;

  // Stop() is about to come: what loads gives up.
  void RequestStop() { stop_requested_.store(true); }

  const std::atomic<bool>& stop_requested() const { return stop_requested_; }

 private:
  std::atomic<bool> stop_requested_ = false;
};

struct ServiceProgram {
  std::string name;     // "switchyard-router"
  std::string summary;  // One line for --help.
  std::function<absl::StatusOr<std::unique_ptr<ServiceProcess>>(const std::string& config_path)>
      make;
};

// The whole main(): --config FILE, --help, --version; runs until SIGTERM or SIGINT, then drains; a
// second signal ends at once. A signal while it starts or loads ends that, too. Exit codes: 0
// stopped, 1 failed to start, 2 wrong usage.
int RunServiceMain(int argc, char** argv, const ServiceProgram& program);

// Raises the soft limit of open files to the hard one; returns it. Any thread.
uint64_t RaiseOpenFilesMax();

// Writes {"name": "...", "pid": N, "addresses": {...}} atomically for the supervisor; nothing when
// `path` is empty.
absl::Status WriteAddressFile(const std::string& path, const std::string& name,
                              const std::map<std::string, std::string>& addresses);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_APP_SERVICE_MAIN_H_
