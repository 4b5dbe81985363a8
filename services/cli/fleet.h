#ifndef SWITCHYARD_SERVICES_CLI_FLEET_H_
#define SWITCHYARD_SERVICES_CLI_FLEET_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libs/orchestrator/supervisor.h"

namespace switchyard {

// What `switchyard up` was asked for.
struct UpOptions {
  std::string model_dir;
  std::string state_dir;
  std::string bin_dir;             // Where the service programs are.
  std::string host = "127.0.0.1";  // Of the API.
  uint32_t port = 8080;            // Of the API; 0 picks one.
  uint32_t routers = 1;
  uint32_t shards = 2;
  uint32_t replicas = 1;       // Of each expert.
  uint32_t cores = 1;          // That the fleet may use.
  uint32_t threads = 0;        // Compute threads of each router and shard; 0: by the cores.
  uint32_t micro_batches = 0;  // 0: the router's default; likewise below.
  uint32_t step_tokens_max = 0;
  uint32_t chunk_tokens_max = 0;
  uint32_t cache_blocks = 0;
  std::string transport = "auto";
  std::string weights = "auto";
  std::vector<std::string> served_names;
  std::string api_keys_file;
  bool detach = false;
  uint32_t ready_seconds_max = 600;  // How long to wait for /ready.
};

// Bound addresses by process name and what listens there: book["router-0"]["grpc"].
using AddressBook = std::map<std::string, std::map<std::string, std::string>>;

// autoscaler, shards, routers, gateway, in the order of their start.
std::vector<ProcessPlan> FleetPlans(const UpOptions& options);

// The JSON configuration of process `name`. Addresses of what it depends on are in `book`; its own
// from an earlier start are used again, so that others find it.
std::string RenderConfig(const UpOptions& options, const std::string& name,
                         const AddressBook& book);

// Program of a role, without directory: "switchyard-router".
std::string ProgramOf(const std::string& role);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_FLEET_H_
