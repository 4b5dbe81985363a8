#include "libs/base/status.h"

namespace switchyard {

absl::Status Annotate(const absl::Status& status, const std::string& context) {
  if (status.ok()) {
    return status;
  }
  return {status.code(), context + ": " + MessageOf(status)};
}

std::string MessageOf(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

}  // namespace switchyard
