#ifndef SWITCHYARD_LIBS_APP_PROCESS_METRICS_H_
#define SWITCHYARD_LIBS_APP_PROCESS_METRICS_H_

#include "libs/metrics/registry.h"

namespace switchyard {

// Standard process_* metrics and switchyard_build_info, read from /proc when scraped.
//
// One owner: the admin server's thread.
class ProcessMetrics {
 public:
  explicit ProcessMetrics(Registry& registry);

  // Reads /proc/self now.
  void Update();

 private:
  Gauge resident_memory_bytes_;
  Gauge cpu_seconds_;
  Gauge open_fds_;
  Gauge threads_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_APP_PROCESS_METRICS_H_
