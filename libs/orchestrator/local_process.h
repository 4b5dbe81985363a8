#ifndef SWITCHYARD_LIBS_ORCHESTRATOR_LOCAL_PROCESS_H_
#define SWITCHYARD_LIBS_ORCHESTRATOR_LOCAL_PROCESS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

struct LaunchOptions {
  std::vector<std::string> command;  // Program and arguments.
  std::string log_path;              // stdout and stderr are appended here.
};

// Forks and executes. The child ends when this process does (the kernel sends it SIGTERM), and gets
// default signal handling. NotFound when the program is missing. The pid is the caller's to wait
// for.
absl::StatusOr<int64_t> LaunchProcess(const LaunchOptions& options);

struct ExitedProcess {
  int64_t pid = 0;
  std::string how;  // "exited with 1", "killed by signal 9".
};

// Reaps one child that has ended; nullopt when none has. Does not block.
std::optional<ExitedProcess> ReapOne();

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ORCHESTRATOR_LOCAL_PROCESS_H_
