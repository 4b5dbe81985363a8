#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "libs/app/version.h"
#include "services/cli/commands.h"
#include "services/cli/help.h"

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "help";
  const std::vector<std::string> words(argv + (argc > 1 ? 2 : 1), argv + argc);
  const std::string bin_dir = std::filesystem::canonical("/proc/self/exe").parent_path().string();
  if (command == "--version" || command == "version") {
    std::printf("switchyard %s\n", switchyard::kVersion);
    return switchyard::kExitOk;
  }
  if (command == "help" || command == "--help" || command == "-h" ||
      switchyard::AsksForHelp(words)) {
    return switchyard::PrintHelp(switchyard::AsksForHelp(words) ? command : "");
  }
  if (command == "up") return switchyard::RunUp(words, bin_dir);
  if (command == "down") return switchyard::RunDown(words);
  if (command == "status") return switchyard::RunStatus(words);
  if (command == "kill") return switchyard::RunKill(words);
  if (command == "chat") return switchyard::RunChat(words);
  if (command == "bench") return switchyard::RunBench(words, bin_dir);
  if (command == "inspect") return switchyard::RunInspect(words);
  if (command == "convert") return switchyard::RunConvert(words);
  if (command == "manifest") return switchyard::RunManifest(words);
  return switchyard::Fail(command, "no such command; 'switchyard help' lists them",
                          switchyard::kExitUsage);
}
