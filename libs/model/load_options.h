#ifndef SWITCHYARD_LIBS_MODEL_LOAD_OPTIONS_H_
#define SWITCHYARD_LIBS_MODEL_LOAD_OPTIONS_H_

#include <cstdint>
#include <functional>

namespace switchyard {

// How far a long read is.
struct LoadProgress {
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;

  double ratio() const {
    return bytes_total == 0 ? 1.0
                            : static_cast<double>(bytes_done) / static_cast<double>(bytes_total);
  }
};

// Called on the thread that asked for the read, every few MiB.
using LoadObserver = std::function<void(const LoadProgress&)>;

struct LoadOptions {
  uint32_t threads = 1;  // That repack, beside the calling thread, which reads ahead of them.
  LoadObserver observer = nullptr;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_LOAD_OPTIONS_H_
