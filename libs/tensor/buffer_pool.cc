#include "libs/tensor/buffer_pool.h"

#include <cstdlib>
#include <utility>

#include "libs/base/check.h"

namespace switchyard {
namespace {

constexpr size_t kAlignment = 64;

size_t RoundUp(size_t value) { return (value + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

BufferLease::BufferLease(BufferLease&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

BufferLease& BufferLease::operator=(BufferLease&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

BufferLease::~BufferLease() {
  if (data_ != nullptr) {
    pool_->Release(data_);
  }
}

void BufferPool::AlignedFree::operator()(std::byte* data) const { std::free(data); }

BufferPool::BufferPool(size_t buffer_bytes, size_t buffer_count_max)
    : buffer_bytes_(RoundUp(buffer_bytes)), buffer_count_max_(buffer_count_max) {
  buffers_.reserve(buffer_count_max);
  free_.reserve(buffer_count_max);
}

BufferPool::~BufferPool() { SY_CHECK(leased_count_ == 0); }

BufferLease BufferPool::TryAcquire() {
  if (free_.empty()) {
    if (buffers_.size() == buffer_count_max_) {
      return {};
    }
    auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, buffer_bytes_));
    SY_CHECK(data != nullptr);
    buffers_.emplace_back(data);
    free_.push_back(data);
  }
  std::byte* data = free_.back();
  free_.pop_back();
  ++leased_count_;
  return {this, data, buffer_bytes_};
}

void BufferPool::Release(std::byte* data) {
  SY_CHECK(leased_count_ > 0);
  --leased_count_;
  free_.push_back(data);
}

}  // namespace switchyard
