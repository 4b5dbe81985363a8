#ifndef SWITCHYARD_SERVICES_CLI_STATE_DIR_H_
#define SWITCHYARD_SERVICES_CLI_STATE_DIR_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

// One process as fleet.json lists it.
struct ProcessRecord {
  std::string name;
  std::string role;
  int64_t pid = 0;
  std::string state;
  uint32_t restarts = 0;
  std::string last_end;
  std::map<std::string, std::string> addresses;
};

// What the supervisor writes to fleet.json at each change, and other commands read.
struct FleetRecord {
  int64_t supervisor_pid = 0;
  std::string model_dir;
  std::string failure;  // Not empty: the start failed, and why.
  std::vector<ProcessRecord> processes;

  // Null when there is none of that name.
  const ProcessRecord* Find(const std::string& name) const;
};

// StateDir is the layout of --state-dir: version, lock, fleet.json, placement.json, config/,
// addresses/ and logs/.
//
// Any thread: only paths.
class StateDir {
 public:
  explicit StateDir(std::string path);

  // Makes the folders; FailedPrecondition when the directory was made by another version.
  absl::Status Prepare() const;

  // Takes the lock for the life of this process. FailedPrecondition when a supervisor holds it.
  absl::Status Lock() const;

  // True while a supervisor runs on this directory.
  bool IsLocked() const;

  // Removes what an earlier fleet left: addresses and fleet.json. The placement stays, with its
  // epoch.
  void RemoveLeftovers() const;

  absl::Status WriteFleet(const FleetRecord& fleet) const;
  // NotFound when nothing was ever started here.
  absl::StatusOr<FleetRecord> ReadFleet() const;

  // Addresses that a process has written; empty while it has not.
  std::map<std::string, std::string> ReadAddresses(const std::string& name, int64_t pid) const;

  const std::string& path() const { return path_; }

  std::string ConfigPath(const std::string& name) const {
    return path_ + "/config/" + name + ".json";
  }

  std::string AddressPath(const std::string& name) const {
    return path_ + "/addresses/" + name + ".json";
  }

  std::string LogPath(const std::string& name) const { return path_ + "/logs/" + name + ".log"; }

  std::string PlacementPath() const { return path_ + "/placement.json"; }

 private:
  std::string path_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_STATE_DIR_H_
