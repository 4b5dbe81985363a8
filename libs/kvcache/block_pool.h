#ifndef SWITCHYARD_LIBS_KVCACHE_BLOCK_POOL_H_
#define SWITCHYARD_LIBS_KVCACHE_BLOCK_POOL_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "libs/base/ids.h"

namespace switchyard {

using BlockId = StrongId<struct BlockTag, uint32_t>;

// BlockPool counts the references of a fixed number of cache blocks. A block is written by one
// sequence while it fills up and is immutable afterwards, so full blocks may be shared.
//
// One owner: the step thread.
class BlockPool {
 public:
  explicit BlockPool(uint32_t block_count);

  // A block with one reference; nullopt when none is free.
  std::optional<BlockId> Allocate();

  void AddReference(BlockId block);

  // The block is free again when its last reference goes.
  void Release(BlockId block);

  uint32_t reference_count(BlockId block) const;

  uint32_t free_count() const;

  uint32_t block_count() const;

 private:
  std::vector<uint32_t> references_;
  std::vector<uint32_t> free_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KVCACHE_BLOCK_POOL_H_
