#include "libs/app/process_metrics.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include <sys/resource.h>
#include <unistd.h>

#include "libs/app/version.h"

namespace switchyard {
namespace {

double CountEntries(const char* directory) {
  std::error_code error;
  double count = 0;
  for (auto it = std::filesystem::directory_iterator(directory, error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    ++count;
  }
  return count;
}

}  // namespace

ProcessMetrics::ProcessMetrics(Registry& registry)
    : resident_memory_bytes_(
          registry.MakeGauge("process_resident_memory_bytes", "Resident memory.")),
      cpu_seconds_(registry.MakeGauge("process_cpu_seconds_total", "User and system CPU time.")),
      open_fds_(registry.MakeGauge("process_open_fds", "Open file descriptors.")),
      threads_(registry.MakeGauge("process_threads", "Threads.")) {
  registry
      .MakeGauge("switchyard_build_info", "Always 1; the version is a label.",
                 {{"version", kVersion}})
      .Set(1);
}

void ProcessMetrics::Update() {
  std::ifstream statm("/proc/self/statm");
  double total_pages = 0;
  double resident_pages = 0;
  statm >> total_pages >> resident_pages;
  resident_memory_bytes_.Set(resident_pages * static_cast<double>(::sysconf(_SC_PAGESIZE)));
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  cpu_seconds_.Set(static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6);
  open_fds_.Set(CountEntries("/proc/self/fd"));
  threads_.Set(CountEntries("/proc/self/task"));
}

}  // namespace switchyard
