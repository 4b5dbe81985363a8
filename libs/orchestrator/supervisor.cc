#include "libs/orchestrator/supervisor.h"

#include <algorithm>
#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "libs/base/check.h"

namespace switchyard {

const char* NameOf(Supervisor::State state) {
  switch (state) {
    case Supervisor::State::kWaiting:
      return "waiting";
    case Supervisor::State::kStarting:
      return "starting";
    case Supervisor::State::kRunning:
      return "running";
    case Supervisor::State::kStopping:
      return "stopping";
    case Supervisor::State::kStopped:
      return "stopped";
  }
  return "unknown";
}

Supervisor::Supervisor(std::vector<ProcessPlan> plans, SupervisorLimits limits) : limits_(limits) {
  for (ProcessPlan& plan : plans) {
    processes_.push_back({.plan = std::move(plan), .backoff = limits_.restart_backoff_min});
  }
}

SupervisorActions Supervisor::Tick(Instant now) {
  SupervisorActions actions;
  if (stopping_) {
    TickStop(now, actions);
    return actions;
  }
  for (const Process& process : processes_) {
    if (process.state == State::kWaiting && now >= process.not_before &&
        DependenciesKnown(process)) {
      actions.start.push_back(process.plan.name);
    }
  }
  return actions;
}

void Supervisor::OnStarted(const std::string& name, int64_t pid, Instant now) {
  Process& process = FindByName(name);
  process.state = State::kStarting;
  process.pid = pid;
  process.started_at = now;
}

void Supervisor::OnAddresses(const std::string& name) {
  Process& process = FindByName(name);
  if (process.state == State::kStarting) {
    process.state = State::kRunning;
    process.was_running = true;
  }
}

void Supervisor::OnExited(int64_t pid, const std::string& how, Instant now) {
  Process* process = FindByPid(pid);
  if (process == nullptr) {
    return;
  }
  process->pid = 0;
  process->last_end = how;
  if (stopping_) {
    process->state = State::kStopped;
    return;
  }
  process->state = State::kWaiting;
  ++process->restarts;
  if (!process->was_running && process->restarts >= limits_.first_start_tries) {
    failed_process_ = process->plan.name;
    start_failure_ =
        fmt::format("{} {} on each of {} tries", process->plan.name, how, process->restarts);
  }
  if (now - process->started_at >= limits_.healthy_after) {
    process->backoff = limits_.restart_backoff_min;
  }
  process->not_before = now + process->backoff;
  process->backoff = std::min(process->backoff * 2, limits_.restart_backoff_max);
}

void Supervisor::BeginStop() { stopping_ = true; }

bool Supervisor::all_running() const {
  return std::all_of(processes_.begin(), processes_.end(),
                     [](const Process& process) { return process.state == State::kRunning; });
}

bool Supervisor::all_stopped() const {
  return std::all_of(processes_.begin(), processes_.end(),
                     [](const Process& process) { return process.pid == 0; });
}

Supervisor::Process* Supervisor::FindByPid(int64_t pid) {
  const auto it = std::find_if(processes_.begin(), processes_.end(), [pid](const Process& process) {
    return pid != 0 && process.pid == pid;
  });
  return it == processes_.end() ? nullptr : &*it;
}

Supervisor::Process& Supervisor::FindByName(const std::string& name) {
  const auto it =
      std::find_if(processes_.begin(), processes_.end(),
                   [&name](const Process& process) { return process.plan.name == name; });
  SY_CHECK(it != processes_.end());
  return *it;
}

bool Supervisor::DependenciesKnown(const Process& process) const {
  return std::all_of(process.plan.depends_on.begin(), process.plan.depends_on.end(),
                     [this](const std::string& name) {
                       return std::any_of(processes_.begin(), processes_.end(),
                                          [&name](const Process& other) {
                                            return other.plan.name == name && other.was_running;
                                          });
                     });
}

void Supervisor::TickStop(Instant now, SupervisorActions& actions) {
  // The last role that still runs is stopped first: gateways finish their streams while routers and
  // shards still serve them.
  std::string role;
  for (const Process& process : processes_) {
    if (process.pid != 0) {
      role = process.plan.role;
    }
  }
  for (Process& process : processes_) {
    if (process.pid == 0) {
      process.state = State::kStopped;
    } else if (process.state == State::kStopping) {
      if (now >= process.kill_at) {
        actions.signals.push_back({.pid = process.pid, .number = SIGKILL});
      }
    } else if (process.plan.role == role) {
      actions.signals.push_back({.pid = process.pid, .number = SIGTERM});
      process.state = State::kStopping;
      process.kill_at = now + limits_.stop_grace;
    }
  }
}

}  // namespace switchyard
