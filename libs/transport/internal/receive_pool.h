#ifndef SWITCHYARD_LIBS_TRANSPORT_INTERNAL_RECEIVE_POOL_H_
#define SWITCHYARD_LIBS_TRANSPORT_INTERNAL_RECEIVE_POOL_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace switchyard::internal {

// A received message: at least `size` bytes, aligned to 16. Move-only.
struct ReceiveBuffer {
  std::unique_ptr<std::byte[]> bytes;
  size_t size = 0;
  size_t capacity = 0;

  std::span<const std::byte> view() const { return {bytes.get(), size}; }
};

// ReceivePool keeps a few buffers of each power of two, so that a steady flow allocates nothing.
//
// One owner.
class ReceivePool {
 public:
  // What a message of `size` bytes will occupy: at most twice as much, but for small ones.
  static size_t CapacityFor(size_t size) { return std::bit_ceil(std::max(size, kCapacityMin)); }

  ReceiveBuffer Take(size_t size) {
    const size_t capacity = CapacityFor(size);
    auto& free = free_[static_cast<size_t>(std::countr_zero(capacity)) % kClasses];
    ReceiveBuffer buffer;
    if (!free.empty() && free.back().capacity == capacity) {
      buffer = std::move(free.back());
      free.pop_back();
    } else {
      buffer.bytes = std::make_unique_for_overwrite<std::byte[]>(capacity);
      buffer.capacity = capacity;
    }
    buffer.size = size;
    return buffer;
  }

  void Return(ReceiveBuffer buffer) {
    if (buffer.capacity == 0) {
      return;
    }
    auto& free = free_[static_cast<size_t>(std::countr_zero(buffer.capacity)) % kClasses];
    if (free.size() < kKeptPerClass) {
      free.push_back(std::move(buffer));
    }
  }

 private:
  static_assert(__STDCPP_DEFAULT_NEW_ALIGNMENT__ >= 16);
  static constexpr size_t kCapacityMin = 512;
  static constexpr size_t kClasses = 64;
  static constexpr size_t kKeptPerClass = 16;

  std::array<std::vector<ReceiveBuffer>, kClasses> free_;
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_TRANSPORT_INTERNAL_RECEIVE_POOL_H_
