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

int RunUntilSignalled(const ServiceProgram& program, const std::string& config_path) {
  const sigset_t stop_signals = BlockStopSignals();
  auto service = program.make(config_path);
  absl::Status started = service.ok() ? (*service)->Start() : service.status();
  if (!started.ok()) {
    SY_LOG_ERROR("cannot start: {}", MessageOf(started));
    return kExitFailed;
  }
  int signal_number = 0;
  sigwait(&stop_signals, &signal_number);
  SY_LOG_INFO("stopping signal={} drain_seconds={}", signal_number,
              ToSeconds((*service)->drain_max()));
  std::thread([stop_signals] {
    SetThreadName("second-signal");
    int again = 0;
    sigwait(&stop_signals, &again);
    std::_Exit(128 + again);
  }).detach();
  (*service)->Stop((*service)->drain_max());
  service->reset();
  SY_LOG_INFO("stopped");
  // The waiting thread above is still alive: leave without running static destructors under it.
  std::fflush(nullptr);
  std::_Exit(0);
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
