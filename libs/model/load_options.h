#ifndef SWITCHYARD_LIBS_MODEL_LOAD_OPTIONS_H_
#define SWITCHYARD_LIBS_MODEL_LOAD_OPTIONS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "fmt/core.h"

namespace switchyard {

// How far a long read is.
struct LoadProgress {
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;

  double ratio() const {
    return bytes_total == 0 ? 1.0
                            : static_cast<double>(bytes_done) / static_cast<double>(bytes_total);
  }

  // "<what> gb=1.25 of=5.00 percent=25", for logs and readiness.
  std::string Text(std::string_view what) const {
    return fmt::format("{} gb={:.2f} of={:.2f} percent={:.0f}", what,
                       static_cast<double>(bytes_done) * 1e-9,
                       static_cast<double>(bytes_total) * 1e-9, ratio() * 100);
  }
};

// Called on the thread that asked for the read, every few MiB.
using LoadObserver = std::function<void(const LoadProgress&)>;

struct LoadOptions {
  uint32_t threads = 1;  // That repack, beside the calling thread, which reads ahead of them.
  LoadObserver observer = nullptr;
  // Once true, the read ends with Cancelled at its next piece of a few MiB. May be null.
  const std::atomic<bool>* cancelled = nullptr;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_LOAD_OPTIONS_H_
