#include "libs/kernels/weight_memory.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#include <sys/mman.h>

namespace switchyard {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSlabBytes = size_t{32} << 20;
constexpr size_t kAlignment = 64;

// Smaller requests are work memory rather than weights and go to the ordinary allocator.
constexpr size_t kSlabPieceMin = size_t{64} << 10;

std::byte* AllocatePages(size_t byte_count) {
  void* const memory = ::operator new(byte_count, std::align_val_t{kHugePage});
  ::madvise(memory, byte_count, MADV_HUGEPAGE);  // Only a wish: no matter if refused.
  return static_cast<std::byte*>(memory);
}

void FreePages(std::byte* memory) { ::operator delete(memory, std::align_val_t{kHugePage}); }

// Hands out pieces of slabs and takes them back. Any thread (std::mutex, because the packaged
// absl::Mutex is opaque to ThreadSanitizer).
class SlabAllocator {
 public:
  std::byte* Take(size_t byte_count) {
    const std::lock_guard lock(mutex_);
    if (const auto free = free_.find(byte_count); free != free_.end() && !free->second.empty()) {
      std::byte* const piece = free->second.back();
      free->second.pop_back();
      ++slabs_.at(slab_of_.at(piece)).live_count;
      return piece;
    }
    if (newest_ == nullptr || kSlabBytes - slabs_.at(newest_).used < byte_count) {
      newest_ = AllocatePages(kSlabBytes);
      slabs_[newest_] = {};
    }
    Slab& slab = slabs_.at(newest_);
    std::byte* const piece = newest_ + slab.used;
    slab.used += byte_count;
    ++slab.live_count;
    slab.pieces.push_back({.data = piece, .byte_count = byte_count});
    slab_of_[piece] = newest_;
    return piece;
  }

  void GiveBack(std::byte* piece, size_t byte_count) {
    const std::lock_guard lock(mutex_);
    const auto owner = slabs_.find(slab_of_.at(piece));
    free_[byte_count].push_back(piece);
    if (--owner->second.live_count > 0) {
      return;
    }
    for (const Piece& dead : owner->second.pieces) {
      std::erase(free_[dead.byte_count], dead.data);
      slab_of_.erase(dead.data);
    }
    if (newest_ == owner->first) {
      newest_ = nullptr;
    }
    FreePages(owner->first);
    slabs_.erase(owner);
  }

 private:
  struct Piece {
    std::byte* data = nullptr;
    size_t byte_count = 0;
  };

  struct Slab {
    size_t used = 0;
    size_t live_count = 0;
    std::vector<Piece> pieces;
  };

  std::mutex mutex_;
  // Guarded by mutex_:
  std::unordered_map<std::byte*, Slab> slabs_;
  std::unordered_map<std::byte*, std::byte*> slab_of_;  // By piece.
  std::map<size_t, std::vector<std::byte*>> free_;      // By size.
  std::byte* newest_ = nullptr;
};

// Lives for ever, so that weights may be freed during the end of the process.
SlabAllocator& Slabs() {
  static auto* const slabs = std::make_unique<SlabAllocator>().release();
  return *slabs;
}

}  // namespace

std::shared_ptr<std::byte> AllocateWeights(size_t byte_count) {
  byte_count = (std::max<size_t>(byte_count, 1) + kAlignment - 1) / kAlignment * kAlignment;
  if (byte_count < kSlabPieceMin) {
    void* const memory = ::operator new(byte_count, std::align_val_t{kAlignment});
    return {static_cast<std::byte*>(memory),
            [](std::byte* data) { ::operator delete(data, std::align_val_t{kAlignment}); }};
  }
  if (byte_count > kSlabBytes / 2) {
    const size_t pages = (byte_count + kHugePage - 1) / kHugePage * kHugePage;
    return {AllocatePages(pages), FreePages};
  }
  return {Slabs().Take(byte_count),
          [byte_count](std::byte* data) { Slabs().GiveBack(data, byte_count); }};
}

}  // namespace switchyard
