#ifndef SWITCHYARD_SERVICES_CLI_HELP_H_
#define SWITCHYARD_SERVICES_CLI_HELP_H_

#include <string>
#include <vector>

namespace switchyard {

// Texts of `switchyard help` and `switchyard COMMAND --help`. Any thread: pure but for stdout.

bool AsksForHelp(const std::vector<std::string>& words);

// Help of one command, or the overview when `command` is empty or unknown. Returns the exit code.
int PrintHelp(const std::string& command);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_HELP_H_
