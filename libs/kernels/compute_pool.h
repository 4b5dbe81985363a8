#ifndef SWITCHYARD_LIBS_KERNELS_COMPUTE_POOL_H_
#define SWITCHYARD_LIBS_KERNELS_COMPUTE_POOL_H_

#include <chrono>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"

namespace switchyard {

// ComputePool runs independent tiles of one computation on `thread_count` threads: the caller and
// thread_count - 1 workers named compute-N, which sleep while there is nothing to do.
//
// One owner: only one thread calls Run(), and not from within a tile.
class ComputePool {
 public:
  // thread_count >= 1; with 1 no thread is started and Run() is a loop. `spin` is how long a thread
  // that has nothing to do looks for work before it sleeps: some 50 us save most hand-overs where
  // the threads have cores of their own, and take time from others where they do not.
  explicit ComputePool(uint32_t thread_count, std::chrono::microseconds spin = {});
  ComputePool(const ComputePool&) = delete;
  ComputePool& operator=(const ComputePool&) = delete;
  ~ComputePool();

  // Calls tile(i) once for each i in [0, tile_count), on any of the threads;
  // returns when all are done. Tiles are taken in ascending order. `tile` must not throw. Which
  // thread runs a tile must not change its result.
  void Run(uint32_t tile_count, absl::FunctionRef<void(uint32_t)> tile);

  uint32_t thread_count() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KERNELS_COMPUTE_POOL_H_
