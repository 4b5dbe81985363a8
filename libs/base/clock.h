#ifndef SWITCHYARD_LIBS_BASE_CLOCK_H_
#define SWITCHYARD_LIBS_BASE_CLOCK_H_

#include <atomic>
#include <chrono>
#include <cstdint>

namespace switchyard {

using Instant = std::chrono::steady_clock::time_point;
using Duration = std::chrono::nanoseconds;

constexpr double ToSeconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// Clock is the one seam to monotonic time. Decisions take `now` as a value; shells read a Clock.
//
// Any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant Now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  Instant Now() const override { return std::chrono::steady_clock::now(); }
};

// ManualClock stands still until told; for tests and the simulator.
class ManualClock final : public Clock {
 public:
  Instant Now() const override { return Instant(Duration(nanos_.load(std::memory_order_relaxed))); }

  void Advance(Duration by) { nanos_.fetch_add(by.count(), std::memory_order_relaxed); }

  void SetTo(Instant instant) {
    nanos_.store(Duration(instant.time_since_epoch()).count(), std::memory_order_relaxed);
  }

 private:
  std::atomic<int64_t> nanos_{1'000'000'000};  // Not zero, so "never" and "at the start" differ.
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_CLOCK_H_
