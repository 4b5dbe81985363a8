#ifndef SWITCHYARD_LIBS_KVCACHE_KV_STORAGE_H_
#define SWITCHYARD_LIBS_KVCACHE_KV_STORAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "libs/base/ids.h"
#include "libs/kvcache/block_pool.h"
#include "libs/tensor/dtype.h"

namespace switchyard {

// Shape of the paged latent cache. A row is what MLA keeps of one token in one layer: the normed
// latent [kv_lora_rank] followed by the rotated key [rope_dim].
struct KvLayout {
  uint32_t layer_count = 0;
  uint32_t latent_dim = 0;   // kv_lora_rank + rope_dim
  uint32_t block_size = 16;  // Tokens per block; a power of two.
  uint32_t block_count = 0;
  Dtype dtype = Dtype::kBf16;  // kF32 or kBf16.

  size_t row_bytes() const { return size_t{latent_dim} * BytesOf(dtype); }

  size_t block_bytes() const { return row_bytes() * block_size * layer_count; }
};

// KvStorage is the memory of the cache, [layer][block][slot][latent_dim], reserved at construction
// and touched on first write.
//
// Within a step the threads of one owner write distinct rows, and read rows that were written
// before.
class KvStorage {
 public:
  explicit KvStorage(const KvLayout& layout);
  KvStorage(const KvStorage&) = delete;
  KvStorage& operator=(const KvStorage&) = delete;
  ~KvStorage();

  void* Row(uint32_t layer_index, BlockId block, uint32_t slot);
  const void* Row(uint32_t layer_index, BlockId block, uint32_t slot) const;

  const KvLayout& layout() const { return layout_; }

 private:
  KvLayout layout_;
  void* data_ = nullptr;
  size_t byte_count_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KVCACHE_KV_STORAGE_H_
