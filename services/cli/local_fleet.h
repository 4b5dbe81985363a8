#ifndef SWITCHYARD_SERVICES_CLI_LOCAL_FLEET_H_
#define SWITCHYARD_SERVICES_CLI_LOCAL_FLEET_H_

#include <cstddef>
#include <map>
#include <string>

#include "libs/base/clock.h"
#include "libs/orchestrator/supervisor.h"
#include "services/cli/fleet.h"
#include "services/cli/state_dir.h"

namespace switchyard {

// LocalFleet is the shell of a Supervisor: it forks the processes of a fleet on this machine,
// restarts those that die, records them in the state dir, and stops them on SIGTERM or SIGINT.
//
// One owner: the main thread of the supervisor process, which has no other thread.
class LocalFleet {
 public:
  LocalFleet(UpOptions options, const Clock& clock);

  // Runs until asked to stop. 0 after a stop, 1 when the start failed (fleet.json says why).
  int Run();

 private:
  void StartProcess(const std::string& name);
  void ReapProcesses();
  void LearnAddresses();
  void RecordIfChanged();
  // Why the fleet cannot start, with what the process at fault said of it; empty when all is well.
  std::string StartFailure() const;
  // True when a stop signal came. Sleeps until a child ends, a signal comes or `timeout` passes.
  bool WaitForSignal(Duration timeout) const;

  const UpOptions options_;
  const StateDir state_dir_;
  const Clock& clock_;
  Supervisor supervisor_;
  AddressBook book_;
  std::map<std::string, size_t> log_bytes_;  // Size of each log when its process was last started.
  std::string recorded_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_LOCAL_FLEET_H_
