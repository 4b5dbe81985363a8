#include "services/cli/fleet.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <spdlog/fmt/fmt.h>

#include "services/cli/state_dir.h"

namespace switchyard {
namespace {

constexpr char kAnyPort[] = "127.0.0.1:0";

// How long open streams may go on after a stop. With what a service needs to cut the rest, it stays
// below SupervisorLimits::stop_grace, so a drain does not end in a SIGKILL.
constexpr uint32_t kDrainSecondsMax = 8;

std::string AddressOr(const AddressBook& book, const std::string& name, const std::string& what,
                      const std::string& fallback) {
  const auto process = book.find(name);
  if (process == book.end()) {
    return fallback;
  }
  const auto address = process->second.find(what);
  return address == process->second.end() ? fallback : address->second;
}

uint32_t OrdinalOf(const std::string& name) {
  return static_cast<uint32_t>(std::stoul(name.substr(name.rfind('-') + 1)));
}

std::vector<std::string> Names(const std::string& role, uint32_t count) {
  std::vector<std::string> names;
  for (uint32_t i = 0; i < count; ++i) {
    names.push_back(fmt::format("{}-{}", role, i));
  }
  return names;
}

void AddIfSet(boost::json::object& config, const char* field, uint32_t value) {
  if (value != 0) {
    config[field] = value;
  }
}

// Routers and shards work by turns, so each role gets all cores.
uint32_t RouterThreads(const UpOptions& options) {
  return options.threads != 0 ? options.threads : std::max(options.cores / options.routers, 1U);
}

// Twice the cores in all: a layer is done when its busiest shard is, and that one can use the cores
// of those that have finished.
uint32_t ShardThreads(const UpOptions& options) {
  return options.threads != 0 ? options.threads
                              : std::clamp(2 * options.cores / options.shards, 1U, options.cores);
}

void FillAutoscaler(const UpOptions& options, const AddressBook& book,
                    boost::json::object& config) {
  config["grpc_address"] = AddressOr(book, "autoscaler", "grpc", kAnyPort);
  config["shards_wanted"] = options.shards;
  config["replicas_wanted"] = options.replicas;
  config["state_file"] = StateDir(options.state_dir).PlacementPath();
}

void FillShard(const UpOptions& options, const std::string& name, const AddressBook& book,
               boost::json::object& config) {
  config["shard"] = OrdinalOf(name);
  config["autoscaler_address"] = AddressOr(book, "autoscaler", "grpc", "");
  config["transport"] = options.transport;
  config["weights"] = options.weights;
  config["threads"] = ShardThreads(options);
}

void FillRouter(const UpOptions& options, const std::string& name, const AddressBook& book,
                boost::json::object& config) {
  config["grpc_address"] = AddressOr(book, name, "grpc", kAnyPort);
  config["autoscaler_address"] = AddressOr(book, "autoscaler", "grpc", "");
  config["transport"] = options.transport;
  config["weights"] = options.weights;
  config["threads"] = RouterThreads(options);
  AddIfSet(config, "micro_batches", options.micro_batches);
  AddIfSet(config, "step_tokens_max", options.step_tokens_max);
  AddIfSet(config, "chunk_tokens_max", options.chunk_tokens_max);
  AddIfSet(config, "cache_blocks", options.cache_blocks);
}

void FillGateway(const UpOptions& options, const AddressBook& book, boost::json::object& config) {
  config["api_address"] =
      AddressOr(book, "gateway", "api", fmt::format("{}:{}", options.host, options.port));
  config["api_keys_file"] = options.api_keys_file;
  boost::json::array routers;
  for (const std::string& router : Names("router", options.routers)) {
    routers.emplace_back(AddressOr(book, router, "grpc", ""));
  }
  config["router_addresses"] = routers;
  config["served_names"] =
      boost::json::array(options.served_names.begin(), options.served_names.end());
}

}  // namespace

std::vector<ProcessPlan> FleetPlans(const UpOptions& options) {
  const std::vector<std::string> shards = Names("expert-shard", options.shards);
  const std::vector<std::string> routers = Names("router", options.routers);
  std::vector<ProcessPlan> plans = {{.name = "autoscaler", .role = "autoscaler"}};
  for (const std::string& name : shards) {
    plans.push_back({.name = name, .role = "expert-shard", .depends_on = {"autoscaler"}});
  }
  for (const std::string& name : routers) {
    plans.push_back({.name = name, .role = "router", .depends_on = {"autoscaler"}});
  }
  plans.push_back({.name = "gateway", .role = "gateway", .depends_on = routers});
  return plans;
}

std::string RenderConfig(const UpOptions& options, const std::string& name,
                         const AddressBook& book) {
  boost::json::object common;
  common["name"] = name;
  common["admin_address"] = AddressOr(book, name, "admin", kAnyPort);
  common["drain_seconds_max"] = kDrainSecondsMax;
  common["address_file"] = StateDir(options.state_dir).AddressPath(name);
  boost::json::object config;
  config["common"] = common;
  config["model_dir"] = options.model_dir;
  if (name == "autoscaler") {
    FillAutoscaler(options, book, config);
  } else if (name == "gateway") {
    FillGateway(options, book, config);
  } else if (name.rfind("router-", 0) == 0) {
    FillRouter(options, name, book, config);
  } else {
    FillShard(options, name, book, config);
  }
  return boost::json::serialize(config) + "\n";
}

std::string ProgramOf(const std::string& role) { return "switchyard-" + role; }

}  // namespace switchyard
