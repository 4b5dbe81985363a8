#ifndef SWITCHYARD_LIBS_TEXT_INTERNAL_FFI_ADAPTER_H_
#define SWITCHYARD_LIBS_TEXT_INTERNAL_FFI_ADAPTER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "libs/text/internal/text_ffi.h"

// Conversions between the C ABI's buffers and ours. Stateless: any thread.

namespace switchyard::internal {

inline SyView ViewOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Copies and frees.
inline std::string TakeString(SyBytes bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data), bytes.size);
  sy_bytes_free(bytes);
  return text;
}

// Copies and frees.
inline std::vector<uint32_t> TakeIds(SyIds ids) {
  std::vector<uint32_t> copy(ids.data, ids.data + ids.size);
  sy_ids_free(ids);
  return copy;
}

// The status of an entry's code; takes `error` when there is one.
inline absl::Status StatusOf(int32_t code, SyBytes error) {
  if (code == 0) {
    return absl::OkStatus();
  }
  const std::string message = TakeString(error);
  switch (code) {
    case kSyTextInvalid:
      return absl::InvalidArgumentError(message);
    case kSyTextLimit:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_TEXT_INTERNAL_FFI_ADAPTER_H_
