#ifndef SWITCHYARD_LIBS_APP_ENVIRONMENT_H_
#define SWITCHYARD_LIBS_APP_ENVIRONMENT_H_

#include <string>

namespace switchyard {

// The only place where programs read the environment. Any thread.

// $XDG_STATE_HOME/switchyard, else $HOME/.local/state/switchyard, else /tmp/switchyard-<uid>.
std::string DefaultStateDir();

// The value of `variable`, or `fallback` when unset or empty.
std::string EnvironmentOr(const char* variable, const std::string& fallback);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_APP_ENVIRONMENT_H_
