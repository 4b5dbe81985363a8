#include "libs/app/service_main.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "absl/synchronization/notification.h"

#include "libs/app/version.h"
#include "libs/base/file.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/base/thread_name.h"

namespace switchyard {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

void PrintHelp(const ServiceProgram& program) {
  std::printf(
      "%s: %s\n\n"
      "usage: %s --config FILE\n\n"
      "  --config FILE   JSON configuration; fields are in docs/config.md\n"
      "  --version       print the version\n"
      "  --help          print this\n\n"
      "Stops in good order on SIGTERM or SIGINT; a second signal ends it at once.\n",
      program.name.c_str(), program.summary.c_str(), program.name.c_str());
}

// SIGTERM and SIGINT are taken by sigwait; a peer's reset must not kill us by SIGPIPE.
sigset_t BlockStopSignals() {
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGTERM);
  sigaddset(&stop_signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
  return stop_signals;
}

// Thread "signals": tells the service of the first signal, and ends the process at the second. It
// is never joined: this and, until the first signal has come, the service must stay.
class SignalThread {
 public:
  void Start(const sigset_t& signals, ServiceProcess& service) {
    std::thread([this, signals, &service] {
      SetThreadName("signals");
      int number = 0;
      sigwait(&signals, &number);
      SY_LOG_INFO("stopping signal={} drain_seconds={}", number, ToSeconds(service.drain_max()));
      service.RequestStop();
      came_.Notify();
      sigwait(&signals, &number);
      std::_Exit(128 + number);
    }).detach();
  }

  void AwaitFirst() { came_.WaitForNotification(); }

 private:
  absl::Notification came_;
};

// Without destructors of what the thread of the signals may still use.
[[noreturn]] void Leave(int exit_code) {
  std::fflush(nullptr);
  std::_Exit(exit_code);
}

int RunUntilSignalled(const ServiceProgram& program, const std::string& config_path) {
  const sigset_t stop_signals = BlockStopSignals();
  auto service = program.make(config_path);
  if (!service.ok()) {
    SY_LOG_ERROR("cannot start: {}", MessageOf(service.status()));
    return kExitFailed;
  }
  SignalThread signals;
  signals.Start(stop_signals, **service);
  const absl::Status started = (*service)->Start();
  const bool given_up = absl::IsCancelled(started) && (*service)->stop_requested();
  if (!started.ok() && !given_up) {
    SY_LOG_ERROR("cannot start: {}", MessageOf(started));
    (*service)->Stop(Duration::zero());
    Leave(kExitFailed);
  }
  signals.AwaitFirst();
  if (given_up) {
    SY_LOG_INFO("stopped before it had started: {}", MessageOf(started));
  }
  (*service)->Stop(given_up ? Duration::zero() : (*service)->drain_max());
  service->reset();
  SY_LOG_INFO("stopped");
  Leave(0);
}

}  // namespace

int RunServiceMain(int argc, char** argv, const ServiceProgram& program) {
  std::string config_path;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      PrintHelp(program);
      return 0;
    }
    if (argument == "--version") {
      std::printf("%s %s\n", program.name.c_str(), kVersion);
      return 0;
    }
    if (argument == "--config" && i + 1 < argc) {
      config_path = argv[++i];
    } else {
      std::fprintf(stderr, "%s: unknown argument '%s'; see --help\n", program.name.c_str(),
                   argv[i]);
      return kExitUsage;
    }
  }
  if (config_path.empty()) {
    std::fprintf(stderr, "%s: --config FILE is required; see --help\n", program.name.c_str());
    return kExitUsage;
  }
  InitLogging(program.name);
  RaiseOpenFilesMax();  // Debian's soft limit of 1024 is fewer than the clients we mean to serve.
  return RunUntilSignalled(program, config_path);
}

uint64_t RaiseOpenFilesMax() {
  rlimit limit = {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  return limit.rlim_cur;
}

absl::Status WriteAddressFile(const std::string& path, const std::string& name,
                              const std::map<std::string, std::string>& addresses) {
  if (path.empty()) {
    return absl::OkStatus();
  }
  boost::json::object list;
  for (const auto& [what, address] : addresses) {
    list[what] = address;
  }
  boost::json::object content;
  content["name"] = name;
  content["pid"] = ::getpid();
  content["addresses"] = list;
  return WriteFileAtomically(path, boost::json::serialize(content) + "\n");
}

}  // namespace switchyard
