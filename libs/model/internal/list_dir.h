#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_LIST_DIR_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_LIST_DIR_H_

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/status.h"

namespace switchyard::internal {

// Names of what is in a directory, in order. NotFound names the directory. Any thread.
inline absl::StatusOr<std::vector<std::string>> ListDir(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator each(dir, error), end; !error && each != end;
       each.increment(error)) {
    names.push_back(each->path().filename().string());
  }
  if (error) {
    return NotFound("list {}: {}", dir, error.message());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_LIST_DIR_H_
