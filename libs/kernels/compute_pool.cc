#include "libs/kernels/compute_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "libs/base/check.h"
#include "libs/base/thread_name.h"

namespace switchyard {

using Tile = absl::FunctionRef<void(uint32_t)>;
using Clock = std::chrono::steady_clock;

// The caller publishes a job and works on it too. A worker joins a job only while it is published;
// a worker that wakes late finds it gone, so the caller never waits for a thread that has no core.
// std::mutex, because the packaged absl::Mutex is opaque to ThreadSanitizer.
class ComputePool::Impl {
 public:
  Impl(uint32_t thread_count, std::chrono::microseconds spin)
      : thread_count_(thread_count), spin_(spin) {
    for (uint32_t i = 1; i < thread_count; ++i) {
      workers_.emplace_back([this, i] { WorkerLoop(i); });
    }
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      job_changed_.notify_all();
    }
    for (std::thread& worker : workers_) {
      worker.join();
    }
  }

  void Run(uint32_t tile_count, Tile tile) {
    if (workers_.empty() || tile_count <= 1) {
      for (uint32_t i = 0; i < tile_count; ++i) {
        tile(i);
      }
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      next_tile_.store(0, std::memory_order_relaxed);
      tile_count_ = tile_count;
      tile_ = &tile;
      generation_.fetch_add(1, std::memory_order_release);
    }
    // Not under the lock: whoever wakes takes it at once.
    if (tile_count - 1 >= workers_.size()) {
      job_changed_.notify_all();
    } else {
      for (uint32_t i = 1; i < tile_count; ++i) {
        job_changed_.notify_one();
      }
    }
    TakeTiles(tile, tile_count);
    SpinWhile([this] { return joined_count_.load(std::memory_order_relaxed) > 0; });
    std::unique_lock lock(mutex_);
    tile_ = nullptr;
    while (joined_count_.load(std::memory_order_relaxed) > 0) {
      job_done_.wait(lock);
    }
  }

  uint32_t thread_count() const { return thread_count_; }

 private:
  // For `spin_` at most.
  template <typename F>
  void SpinWhile(const F& condition) const {
    if (spin_ == spin_.zero() || !condition()) {
      return;
    }
    const Clock::time_point end = Clock::now() + spin_;
    do {
      for (int i = 0; i < 32 && condition(); ++i) {
        __builtin_ia32_pause();
      }
    } while (condition() && Clock::now() < end);
  }

  void TakeTiles(Tile tile, uint32_t tile_count) {
    for (;;) {
      const uint32_t i = next_tile_.fetch_add(1, std::memory_order_relaxed);
      if (i >= tile_count) {
        return;
      }
      tile(i);
    }
  }

  void WorkerLoop(uint32_t index) {
    SetThreadName("compute-" + std::to_string(index));
    uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      if (tile_ == nullptr || generation_.load(std::memory_order_relaxed) == seen) {
        job_changed_.wait(lock);
        continue;
      }
      seen = generation_.load(std::memory_order_relaxed);
      const Tile tile = *tile_;
      const uint32_t tile_count = tile_count_;
      joined_count_.fetch_add(1, std::memory_order_relaxed);
      lock.unlock();
      TakeTiles(tile, tile_count);
      lock.lock();
      if (joined_count_.fetch_sub(1, std::memory_order_relaxed) == 1) {
        job_done_.notify_one();
      }
      lock.unlock();
      SpinWhile([this, seen] { return generation_.load(std::memory_order_acquire) == seen; });
      lock.lock();
    }
  }

  const uint32_t thread_count_;
  const std::chrono::microseconds spin_;
  std::atomic<uint32_t> next_tile_{0};
  // Written under mutex_, read without it while spinning.
  std::atomic<uint64_t> generation_{0};
  std::atomic<uint32_t> joined_count_{0};
  std::mutex mutex_;
  std::condition_variable job_changed_;
  std::condition_variable job_done_;
  // Guarded by mutex_:
  const Tile* tile_ = nullptr;
  uint32_t tile_count_ = 0;
  bool stopping_ = false;

  std::vector<std::thread> workers_;
};

ComputePool::ComputePool(uint32_t thread_count, std::chrono::microseconds spin) {
  SY_CHECK(thread_count >= 1);
  impl_ = std::make_unique<Impl>(thread_count, spin);
}

ComputePool::~ComputePool() = default;

void ComputePool::Run(uint32_t tile_count, Tile tile) { impl_->Run(tile_count, tile); }

uint32_t ComputePool::thread_count() const { return impl_->thread_count(); }

}  // namespace switchyard
