#include "libs/kvcache/kv_storage.h"

#include <bit>

#include <sys/mman.h>

#include "libs/base/check.h"

namespace switchyard {

KvStorage::KvStorage(const KvLayout& layout)
    : layout_(layout), byte_count_(layout.block_bytes() * layout.block_count) {
  SY_CHECK(std::has_single_bit(layout.block_size));
  SY_CHECK(byte_count_ > 0);
  void* const data = mmap(nullptr, byte_count_, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  SY_CHECK(data != MAP_FAILED);
  // A page fault per row of every layer took 4 % of a long prompt's time. Only advice: without huge
  // pages all works as well.
  madvise(data, byte_count_, MADV_HUGEPAGE);
  data_ = data;
}

KvStorage::~KvStorage() { munmap(data_, byte_count_); }

void* KvStorage::Row(uint32_t layer_index, BlockId block, uint32_t slot) {
  return const_cast<void*>(static_cast<const KvStorage*>(this)->Row(layer_index, block, slot));
}

const void* KvStorage::Row(uint32_t layer_index, BlockId block, uint32_t slot) const {
  SY_CHECK(layer_index < layout_.layer_count && block.value() < layout_.block_count &&
           slot < layout_.block_size);
  const size_t block_index = size_t{layer_index} * layout_.block_count + block.value();
  const size_t row_index = block_index * layout_.block_size + slot;
  return static_cast<const std::byte*>(data_) + row_index * layout_.row_bytes();
}

}  // namespace switchyard
