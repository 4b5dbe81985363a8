#include "libs/app/environment.h"

#include <cstdlib>
#include <string>

#include <unistd.h>

namespace switchyard {

std::string DefaultStateDir() {
  const std::string state_home = EnvironmentOr("XDG_STATE_HOME", "");
  if (!state_home.empty()) {
    return state_home + "/switchyard";
  }
  const std::string home = EnvironmentOr("HOME", "");
  if (!home.empty()) {
    return home + "/.local/state/switchyard";
  }
  return "/tmp/switchyard-" + std::to_string(::getuid());
}

std::string EnvironmentOr(const char* variable, const std::string& fallback) {
  const char* value = std::getenv(variable);
  return value == nullptr || *value == '\0' ? fallback : std::string(value);
}

}  // namespace switchyard
