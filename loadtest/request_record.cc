#include "loadtest/request_record.h"

#include <array>

namespace switchyard {

std::string_view NameOf(Outcome outcome) {
  static constexpr std::array<std::string_view, kOutcomeCount> kNames = {
      "completed", "connect",        "reset",         "timeout",      "http",    "error_event",
      "truncated", "malformed_http", "malformed_sse", "client_limit", "cut_off", "interrupted"};
  return kNames.at(static_cast<size_t>(outcome));
}

}  // namespace switchyard
