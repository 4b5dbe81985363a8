#include "services/cli/state_dir.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "libs/base/file.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr char kVersionContent[] = "1\n";
constexpr size_t kFileBytesMax = 16 << 20;

std::string TextOf(const boost::json::object& object, const char* key) {
  const boost::json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

int64_t NumberOf(const boost::json::object& object, const char* key) {
  const boost::json::value* value = object.if_contains(key);
  return value != nullptr && value->is_int64() ? value->get_int64() : 0;
}

std::map<std::string, std::string> AddressesOf(const boost::json::object& object) {
  std::map<std::string, std::string> addresses;
  const boost::json::value* list = object.if_contains("addresses");
  if (list != nullptr && list->is_object()) {
    for (const auto& entry : list->get_object()) {
      if (entry.value().is_string()) {
        addresses[std::string(entry.key())] = std::string(entry.value().get_string());
      }
    }
  }
  return addresses;
}

boost::json::object ToJson(const ProcessRecord& process) {
  boost::json::object addresses;
  for (const auto& [what, address] : process.addresses) {
    addresses[what] = address;
  }
  return {{"name", process.name},   {"role", process.role},         {"pid", process.pid},
          {"state", process.state}, {"restarts", process.restarts}, {"last_end", process.last_end},
          {"addresses", addresses}};
}

absl::StatusOr<boost::json::object> ReadJsonObject(const std::string& path) {
  SY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kFileBytesMax));
  boost::json::error_code error;
  boost::json::value value = boost::json::parse(text, error);
  if (error || !value.is_object()) {
    return DataLoss("{} is not a json object", path);
  }
  return std::move(value.get_object());
}

}  // namespace

const ProcessRecord* FleetRecord::Find(const std::string& name) const {
  for (const ProcessRecord& process : processes) {
    if (process.name == name) {
      return &process;
    }
  }
  return nullptr;
}

StateDir::StateDir(std::string path) : path_(std::move(path)) {}

absl::Status StateDir::Prepare() const {
  for (const char* folder : {"", "/config", "/addresses", "/logs"}) {
    std::error_code error;
    std::filesystem::create_directories(path_ + folder, error);
    if (error) {
      return Unavailable("state dir {}{}: {}", path_, folder, error.message());
    }
  }
  const std::string version_path = path_ + "/version";
  const auto version = ReadFile(version_path, 64);
  if (version.ok() && *version != kVersionContent) {
    return FailedPrecondition(
        "state dir {} was made by another version ({}); use another --state-dir", path_,
        version->substr(0, version->find('\n')));
  }
  return WriteFileAtomically(version_path, kVersionContent);
}

absl::Status StateDir::Lock() const {
  // Held until the process ends; inherited by no child (O_CLOEXEC).
  const int fd = ::open((path_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    return Unavailable("lock {}/lock: {}", path_, std::strerror(errno));
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return FailedPrecondition(
        "switchyard already runs on state dir {}; 'switchyard down --state-dir {}' stops it", path_,
        path_);
  }
  return absl::OkStatus();
}

bool StateDir::IsLocked() const {
  const int fd = ::open((path_ + "/lock").c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  const bool locked = ::flock(fd, LOCK_EX | LOCK_NB) != 0;
  ::close(fd);
  return locked;
}

void StateDir::RemoveLeftovers() const {
  std::error_code ignored;
  std::filesystem::remove(path_ + "/fleet.json", ignored);
  std::error_code error;
  for (std::filesystem::directory_iterator each(path_ + "/addresses", error), end;
       !error && each != end; each.increment(error)) {
    std::filesystem::remove(each->path(), ignored);
  }
}

absl::Status StateDir::WriteFleet(const FleetRecord& fleet) const {
  boost::json::array processes;
  for (const ProcessRecord& process : fleet.processes) {
    processes.push_back(ToJson(process));
  }
  const boost::json::object content = {{"supervisor_pid", fleet.supervisor_pid},
                                       {"model_dir", fleet.model_dir},
                                       {"failure", fleet.failure},
                                       {"processes", processes}};
  return WriteFileAtomically(path_ + "/fleet.json", boost::json::serialize(content) + "\n");
}

absl::StatusOr<FleetRecord> StateDir::ReadFleet() const {
  SY_ASSIGN_OR_RETURN(const boost::json::object content, ReadJsonObject(path_ + "/fleet.json"));
  FleetRecord fleet{.supervisor_pid = NumberOf(content, "supervisor_pid"),
                    .model_dir = TextOf(content, "model_dir"),
                    .failure = TextOf(content, "failure")};
  const boost::json::value* processes = content.if_contains("processes");
  if (processes == nullptr || !processes->is_array()) {
    return DataLoss("{}/fleet.json has no processes", path_);
  }
  for (const boost::json::value& entry : processes->get_array()) {
    if (!entry.is_object()) {
      continue;
    }
    const boost::json::object& object = entry.get_object();
    fleet.processes.push_back({.name = TextOf(object, "name"),
                               .role = TextOf(object, "role"),
                               .pid = NumberOf(object, "pid"),
                               .state = TextOf(object, "state"),
                               .restarts = static_cast<uint32_t>(NumberOf(object, "restarts")),
                               .last_end = TextOf(object, "last_end"),
                               .addresses = AddressesOf(object)});
  }
  return fleet;
}

std::map<std::string, std::string> StateDir::ReadAddresses(const std::string& name,
                                                           int64_t pid) const {
  const auto content = ReadJsonObject(AddressPath(name));
  if (!content.ok() || NumberOf(*content, "pid") != pid) {
    return {};  // Not written yet, or left by an earlier process of that name.
  }
  return AddressesOf(*content);
}

}  // namespace switchyard
