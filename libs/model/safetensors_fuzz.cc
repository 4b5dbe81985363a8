// Any bytes as a safetensors file: the parser must refuse or give entries that lie inside the file.
#include <cstddef>
#include <cstdint>
#include <span>

#include "libs/base/check.h"
#include "libs/model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto index = switchyard::ParseSafetensors({reinterpret_cast<const std::byte*>(data), size});
  if (!index.ok()) {
    return 0;
  }
  uint64_t total = 0;
  for (const auto& [name, entry] : *index) {
    SY_CHECK(entry.begin <= entry.end && entry.end <= size);
    SY_CHECK(entry.shape.size() <= switchyard::kSafetensorsRankMax);
    total += entry.byte_size();
  }
  SY_CHECK(total < size);
  return 0;
}
