#ifndef SWITCHYARD_LIBS_TRANSPORT_TESTING_CHILD_PROCESS_H_
#define SWITCHYARD_LIBS_TRANSPORT_TESTING_CHILD_PROCESS_H_

#include <csignal>
#include <cstdio>
#include <string>

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libs/base/check.h"

namespace switchyard {

// ChildProcess runs a program with two arguments and reads the first line that it prints. Killed
// and reaped with its object.
//
// One owner.
class ChildProcess {
 public:
  ChildProcess(const std::string& program, const std::string& mode, const std::string& address) {
    int fds[2] = {-1, -1};
    SY_CHECK(pipe(fds) == 0);
    pid_ = fork();
    SY_CHECK(pid_ >= 0);
    if (pid_ == 0) {
      dup2(fds[1], STDOUT_FILENO);
      close(fds[0]);
      close(fds[1]);
      execl(program.c_str(), program.c_str(), mode.c_str(), address.c_str(), nullptr);
      _exit(127);
    }
    close(fds[1]);
    FILE* output = fdopen(fds[0], "r");
    char line[256] = {};
    if (std::fgets(line, sizeof(line), output) != nullptr) {
      first_line_ = line;
      first_line_.erase(first_line_.find_last_not_of('\n') + 1);
    }
    std::fclose(output);
  }

  ~ChildProcess() { Kill(); }

  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Empty if the program ended without a line.
  const std::string& first_line() const { return first_line_; }

  void Signal(int signal) const { kill(pid_, signal); }

  void Kill() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
      pid_ = -1;
    }
  }

 private:
  pid_t pid_ = -1;
  std::string first_line_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TRANSPORT_TESTING_CHILD_PROCESS_H_
