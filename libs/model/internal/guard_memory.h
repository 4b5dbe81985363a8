#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_GUARD_MEMORY_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_GUARD_MEMORY_H_

#include <new>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/status.h"

// Where the standard library's exceptions end while weights are loaded or converted: sizes come
// from files, and no file may end a process. Any thread.
namespace switchyard::internal {

// What `work` returns; ResourceExhausted, naming `what`, when memory runs out meanwhile.
template <typename Work>
absl::Status GuardMemory(std::string_view what, Work&& work) {
  try {
    return std::forward<Work>(work)();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("no memory for {}", what);
  } catch (const std::length_error&) {
    return ResourceExhausted("no memory for {}", what);
  }
}

// False when the system has no thread to give.
template <typename Work>
bool TryStart(std::vector<std::thread>& threads, Work&& work) {
  try {
    threads.emplace_back(std::forward<Work>(work));
    return true;
  } catch (const std::system_error&) {
    return false;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_GUARD_MEMORY_H_
