#ifndef SWITCHYARD_SERVICES_CLI_COMMANDS_H_
#define SWITCHYARD_SERVICES_CLI_COMMANDS_H_

#include <string>
#include <vector>

namespace switchyard {

// Exit codes of `switchyard`, stable (docs/cli.md).
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;    // What was asked for could not be done.
inline constexpr int kExitUsage = 2;     // The command line is wrong.
inline constexpr int kExitNotReady = 3;  // status: not everything is ready.

// One function per subcommand; `words` are the arguments after its name. They print to stdout,
// errors to stderr, and return the exit code. Main thread.
int RunUp(const std::vector<std::string>& words, const std::string& bin_dir);
int RunDown(const std::vector<std::string>& words);
int RunStatus(const std::vector<std::string>& words);
int RunKill(const std::vector<std::string>& words);
int RunChat(const std::vector<std::string>& words);
int RunInspect(const std::vector<std::string>& words);
int RunConvert(const std::vector<std::string>& words);
int RunManifest(const std::vector<std::string>& words);
int RunBench(const std::vector<std::string>& words, const std::string& bin_dir);

// Prints "switchyard COMMAND: MESSAGE" to stderr and returns `exit_code`.
int Fail(const std::string& command, const std::string& message, int exit_code);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_COMMANDS_H_
