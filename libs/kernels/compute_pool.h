#ifndef SWITCHYARD_LIBS_KERNELS_COMPUTE_POOL_H_
#define SWITCHYARD_LIBS_KERNELS_COMPUTE_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>

namespace switchyard {

// ComputePool runs independent tiles of one computation on `thread_count` threads: the caller and
// thread_count - 1 workers named compute-N, which sleep while there is nothing to do.
//
// One owner: only one thread calls Run(), and not from within a tile.
class ComputePool {
 public:
  // thread_count >= 1; with 1 no thread is started and Run() is a loop.
  explicit ComputePool(uint32_t thread_count);
  ComputePool(const ComputePool&) = delete;
  ComputePool& operator=(const ComputePool&) = delete;
  ~ComputePool();

  // Calls tile(i) once for each i in [0, tile_count), in any order and on any of the threads;
  // returns when all are done. `tile` must not throw. Which thread runs a tile must not change its
  // result.
  void Run(uint32_t tile_count, const std::function<void(uint32_t)>& tile);

  uint32_t thread_count() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KERNELS_COMPUTE_POOL_H_
