#ifndef SWITCHYARD_LIBS_TENSOR_BUFFER_POOL_H_
#define SWITCHYARD_LIBS_TENSOR_BUFFER_POOL_H_

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace switchyard {

class BufferPool;

// BufferLease owns one buffer of a pool until it is destroyed. Move-only.
class BufferLease {
 public:
  BufferLease() = default;
  BufferLease(BufferLease&& other) noexcept;
  BufferLease& operator=(BufferLease&& other) noexcept;
  ~BufferLease();

  explicit operator bool() const { return data_ != nullptr; }

  // The whole buffer, aligned to 64 bytes.
  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  friend class BufferPool;

  BufferLease(BufferPool* pool, std::byte* data, size_t size)
      : pool_(pool), data_(data), size_(size) {}

  BufferPool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// BufferPool hands out equal buffers up to a fixed count, allocated on first use and kept.
//
// One owner (the thread of the transport that uses it). Outlives its leases.
class BufferPool {
 public:
  BufferPool(size_t buffer_bytes, size_t buffer_count_max);
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool();

  // An empty lease when all buffers are out: the caller waits or sheds.
  BufferLease TryAcquire();

  size_t buffer_bytes() const { return buffer_bytes_; }

  size_t leased_count() const { return leased_count_; }

  size_t buffer_count_max() const { return buffer_count_max_; }

 private:
  friend class BufferLease;

  struct AlignedFree {
    void operator()(std::byte* data) const;
  };

  void Release(std::byte* data);

  const size_t buffer_bytes_;
  const size_t buffer_count_max_;
  std::vector<std::unique_ptr<std::byte[], AlignedFree>> buffers_;
  std::vector<std::byte*> free_;
  size_t leased_count_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TENSOR_BUFFER_POOL_H_
