#ifndef SWITCHYARD_LIBS_ORCHESTRATOR_SUPERVISOR_H_
#define SWITCHYARD_LIBS_ORCHESTRATOR_SUPERVISOR_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libs/base/clock.h"

namespace switchyard {

// One process that should run.
struct ProcessPlan {
  std::string name;                     // Unique: "expert-shard-1".
  std::string role;                     // "gateway", "router", "expert-shard", "autoscaler".
  std::vector<std::string> depends_on;  // Names whose addresses must be known before it can start.
};

struct SupervisorLimits {
  Duration restart_backoff_min = std::chrono::milliseconds(100);
  Duration restart_backoff_max = std::chrono::seconds(5);
  Duration healthy_after = std::chrono::seconds(10);  // Then the backoff starts over.
  Duration stop_grace = std::chrono::seconds(20);     // Between SIGTERM and SIGKILL.
  // A process that dies this often before its addresses were ever known makes the whole start fail.
  uint32_t first_start_tries = 3;
};

// What the shell does now.
struct SupervisorActions {
  std::vector<std::string> start;

  struct Signal {
    int64_t pid = 0;
    int number = 0;
  };

  std::vector<Signal> signals;
};

// Supervisor decides which local processes to start, restart and stop. Pure: events and `now` in,
// actions out; its shell forks and waits. It alone starts and ends processes of a local fleet.
//
// One owner: the supervisor's main thread.
class Supervisor {
 public:
  enum class State : uint8_t {
    kWaiting,   // For the addresses of what it depends on, or for its backoff to pass.
    kStarting,  // Runs; its addresses are not known yet.
    kRunning,   // Runs; its addresses are known.
    kStopping,  // Was sent SIGTERM.
    kStopped,   // Ended on request.
  };

  struct Process {
    ProcessPlan plan;
    State state = State::kWaiting;
    int64_t pid = 0;
    Instant started_at;
    Instant not_before;  // Of the next start.
    Duration backoff = {};
    uint32_t restarts = 0;
    bool was_running = false;  // Its addresses were known once; dependants may start.
    Instant kill_at;           // While stopping.
    std::string last_end;      // "killed by signal 9", "exited with 1"; empty before the first.
  };

  // Order of `plans` is the order of the start; stopping goes the other way, role by role.
  Supervisor(std::vector<ProcessPlan> plans, SupervisorLimits limits);

  SupervisorActions Tick(Instant now);

  void OnStarted(const std::string& name, int64_t pid, Instant now);
  void OnAddresses(const std::string& name);
  // `how` is for people. Unknown pids are ignored.
  void OnExited(int64_t pid, const std::string& how, Instant now);

  // From now on everything is stopped, last role first.
  void BeginStop();

  bool all_running() const;
  bool all_stopped() const;

  // Not empty when the start cannot succeed: which process, how it ended.
  const std::string& start_failure() const { return start_failure_; }

  // Name of the process that start_failure() is about.
  const std::string& failed_process() const { return failed_process_; }

  const std::vector<Process>& processes() const { return processes_; }

 private:
  Process* FindByPid(int64_t pid);
  Process& FindByName(const std::string& name);
  bool DependenciesKnown(const Process& process) const;
  void TickStop(Instant now, SupervisorActions& actions);

  const SupervisorLimits limits_;
  std::vector<Process> processes_;
  bool stopping_ = false;
  std::string start_failure_;
  std::string failed_process_;
};

const char* NameOf(Supervisor::State state);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ORCHESTRATOR_SUPERVISOR_H_
