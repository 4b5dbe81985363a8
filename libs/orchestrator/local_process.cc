#include "libs/orchestrator/local_process.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libs/base/status.h"

namespace switchyard {
namespace {

// After fork: only async-signal-safe calls. 127 is what shells answer for a program that cannot
// run.
[[noreturn]] void RunChild(int log_fd, char* const* arguments, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) {
    ::_exit(127);  // The parent died between fork and prctl.
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  ::dup2(log_fd, STDOUT_FILENO);
  ::dup2(log_fd, STDERR_FILENO);
  const int null_fd = ::open("/dev/null", O_RDONLY);
  ::dup2(null_fd, STDIN_FILENO);
  ::setpgid(0, 0);  // A terminal's Ctrl-C reaches the supervisor only, which stops in order.
  ::execv(arguments[0], arguments);
  ::_exit(127);
}

}  // namespace

absl::StatusOr<int64_t> LaunchProcess(const LaunchOptions& options) {
  if (::access(options.command.front().c_str(), X_OK) != 0) {
    return NotFound("program {} is not there or cannot be executed", options.command.front());
  }
  const int log_fd =
      ::open(options.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0) {
    return Unavailable("log {}: {}", options.log_path, std::strerror(errno));
  }
  std::vector<char*> arguments;
  for (const std::string& argument : options.command) {
    arguments.push_back(
        const_cast<char*>(argument.c_str()));  // execv's signature; it does not write.
  }
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    RunChild(log_fd, arguments.data(), parent);
  }
  const int fork_error = errno;
  ::close(log_fd);
  if (pid < 0) {
    return Unavailable("fork: {}", std::strerror(fork_error));
  }
  return pid;
}

std::optional<ExitedProcess> ReapOne() {
  int wait_status = 0;
  const pid_t pid = ::waitpid(-1, &wait_status, WNOHANG);
  if (pid <= 0) {
    return std::nullopt;
  }
  if (WIFSIGNALED(wait_status)) {
    return ExitedProcess{.pid = pid,
                         .how = fmt::format("killed by signal {}", WTERMSIG(wait_status))};
  }
  return ExitedProcess{.pid = pid, .how = fmt::format("exited with {}", WEXITSTATUS(wait_status))};
}

}  // namespace switchyard
