#include "libs/kvcache/block_pool.h"

#include <numeric>

#include "libs/base/check.h"

namespace switchyard {

BlockPool::BlockPool(uint32_t block_count) : references_(block_count, 0), free_(block_count) {
  // Block 0 is handed out first.
  std::iota(free_.rbegin(), free_.rend(), 0U);
}

std::optional<BlockId> BlockPool::Allocate() {
  if (free_.empty()) {
    return std::nullopt;
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  references_[index] = 1;
  return BlockId(index);
}

void BlockPool::AddReference(BlockId block) {
  SY_CHECK(block.value() < references_.size() && references_[block.value()] > 0);
  ++references_[block.value()];
}

void BlockPool::Release(BlockId block) {
  SY_CHECK(block.value() < references_.size() && references_[block.value()] > 0);
  if (--references_[block.value()] == 0) {
    free_.push_back(block.value());
  }
}

uint32_t BlockPool::reference_count(BlockId block) const {
  SY_CHECK(block.value() < references_.size());
  return references_[block.value()];
}

uint32_t BlockPool::free_count() const { return static_cast<uint32_t>(free_.size()); }

uint32_t BlockPool::block_count() const { return static_cast<uint32_t>(references_.size()); }

}  // namespace switchyard
