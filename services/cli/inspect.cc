#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "libs/base/status.h"
#include "libs/model/checkpoint.h"
#include "libs/model/manifest.h"
#include "services/cli/arguments.h"
#include "services/cli/commands.h"

namespace switchyard {
namespace {

// Tensors of one role that are stored and kept alike.
struct RoleLine {
  uint64_t tensor_count = 0;
  uint64_t parameters = 0;
  uint64_t stored_bytes = 0;
  uint64_t kept_bytes = 0;
};

struct RoleKey {
  WeightRole role = WeightRole::kDense;
  WeightFormat stored = WeightFormat::kF32;
  WeightFormat rounded = WeightFormat::kF32;
  WeightFormat kept = WeightFormat::kF32;

  bool operator<(const RoleKey& other) const {
    return std::tie(role, stored, rounded, kept) <
           std::tie(other.role, other.stored, other.rounded, other.kept);
  }
};

// All that is said about a model, from its spec and headers alone.
struct Report {
  std::string dir;
  const Checkpoint* checkpoint = nullptr;
  WeightChoice weights = WeightChoice::kAsStored;
  uint32_t shard_count = 0;
  bool has_manifest = false;
  std::map<RoleKey, RoleLine> roles;
  uint64_t parameters = 0;
  uint64_t active_parameters = 0;  // Used by one token.
  uint64_t expert_parameters = 0;  // Routed experts of all layers.
  uint64_t router_bytes = 0;
  uint64_t expert_bytes = 0;  // All routed experts once.
  uint64_t experts_per_shard = 0;

  uint64_t shard_bytes() const { return checkpoint->expert_bytes(weights) * experts_per_shard; }

  uint64_t cache_bytes_per_token() const {
    const ModelSpec& spec = checkpoint->spec();
    const Dtype dtype = spec.weight_dtype == Dtype::kF32 ? Dtype::kF32 : Dtype::kBf16;
    return uint64_t{spec.latent_dim()} * BytesOf(dtype) * spec.layer_count;
  }
};

void AddTo(const std::vector<PlannedTensor>& tensors, bool tied, Report& report) {
  for (const PlannedTensor& tensor : tensors) {
    const TensorSlice& slice = tensor.source.slice;
    RoleLine& line = report.roles[{.role = tensor.source.role,
                                   .stored = tensor.source.format,
                                   .rounded = tensor.rounded,
                                   .kept = tensor.kept}];
    // A tied head has its own copy in memory but no parameters of its own.
    const bool counts = !(tied && tensor.source.role == WeightRole::kHead);
    ++line.tensor_count;
    line.parameters += counts ? uint64_t{slice.rows} * slice.columns : 0;
    line.stored_bytes += counts ? tensor.source.byte_size() : 0;
    line.kept_bytes += tensor.kept_bytes;
  }
}

absl::StatusOr<Report> MakeReport(const Checkpoint& checkpoint, WeightChoice weights,
                                  uint32_t shard_count) {
  Report report{.dir = checkpoint.catalog().dir(),
                .checkpoint = &checkpoint,
                .weights = weights,
                .shard_count = shard_count};
  SY_ASSIGN_OR_RETURN(const std::optional<Manifest> manifest, Manifest::Load(report.dir));
  report.has_manifest = manifest.has_value();
  const ModelSpec& spec = checkpoint.spec();
  SY_ASSIGN_OR_RETURN(const std::vector<PlannedTensor> router, checkpoint.PlanRouter(weights));
  AddTo(router, spec.tied_embeddings, report);
  for (const auto& [key, line] : report.roles) {
    report.parameters += line.parameters;
    report.router_bytes += line.kept_bytes;
  }
  SY_ASSIGN_OR_RETURN(const std::vector<PlannedTensor> experts, checkpoint.PlanExperts(weights));
  AddTo(experts, false, report);
  for (const PlannedTensor& tensor : experts) {
    report.expert_parameters += uint64_t{tensor.source.slice.rows} * tensor.source.slice.columns;
    report.expert_bytes += tensor.kept_bytes;
  }
  report.active_parameters =
      report.parameters + report.expert_parameters / spec.expert_count * spec.top_k;
  report.parameters += report.expert_parameters;
  const uint64_t moe_layers = spec.layer_count - spec.first_moe_layer;
  const uint64_t expert_count = moe_layers * spec.expert_count;
  report.experts_per_shard = (expert_count + shard_count - 1) / shard_count;
  return report;
}

// "int8", or "int8 in bf16" for values of the one in memory of the other.
std::string KeptName(const RoleKey& key) {
  return key.rounded == key.kept ? std::string(NameOf(key.kept))
                                 : fmt::format("{} in {}", NameOf(key.rounded), NameOf(key.kept));
}

double Mib(uint64_t bytes) { return static_cast<double>(bytes) / 1048576.0; }

double Millions(uint64_t count) { return static_cast<double>(count) * 1e-6; }

void PrintArchitecture(const ModelSpec& spec) {
  std::printf("  architecture   %s, %u layers (%u dense), hidden %u, vocabulary %u, context %u\n",
              spec.model_type.c_str(), spec.layer_count, spec.first_moe_layer, spec.hidden_size,
              spec.vocab_size, spec.positions_max);
  std::printf(
      "  attention      MLA, %u heads, q rank %u, kv rank %u, nope %u, rope %u, value %u%s\n",
      spec.head_count, spec.q_lora_rank, spec.kv_lora_rank, spec.nope_dim, spec.rope_dim,
      spec.value_dim, spec.yarn.has_value() ? ", YaRN" : "");
  std::printf("  experts        %u routed per layer of %u, top %u in %u of %u groups, %u shared\n",
              spec.expert_count, spec.expert_intermediate_size, spec.top_k, spec.top_k_groups,
              spec.group_count, spec.shared_expert_count);
}

std::string StoredName(const ModelSpec& spec) {
  return std::string(spec.quantization.has_value() ? NameOf(*spec.quantization)
                                                   : NameOf(spec.weight_dtype));
}

void Print(const Report& report) {
  const ModelSpec& spec = report.checkpoint->spec();
  std::printf("%s\n", report.dir.c_str());
  PrintArchitecture(spec);
  std::printf("  parameters     %.2f M total, %.2f M active, %.2f M in routed experts\n",
              Millions(report.parameters), Millions(report.active_parameters),
              Millions(report.expert_parameters));
  std::printf("  weights        %s, %.1f MiB in files; --weights %s keeps\n",
              StoredName(spec).c_str(), Mib(report.checkpoint->total_bytes()),
              std::string(NameOf(report.weights)).c_str());
  for (const auto& [key, line] : report.roles) {
    std::printf("    %-18s %7llu tensors %12.2f M   %-5s -> %-12s %10.1f MiB\n",
                std::string(NameOf(key.role)).c_str(),
                static_cast<unsigned long long>(line.tensor_count), Millions(line.parameters),
                std::string(NameOf(key.stored)).c_str(), KeptName(key).c_str(),
                Mib(line.kept_bytes));
  }
  std::printf("  per process    router %.1f MiB, each of %u shards %.1f MiB (one replica)\n",
              Mib(report.router_bytes), report.shard_count, Mib(report.shard_bytes()));
  std::printf("  cache          %.1f KiB per token\n",
              static_cast<double>(report.cache_bytes_per_token()) / 1024.0);
  std::printf("  digest         sha256:%s (%s)\n", report.checkpoint->digest().c_str(),
              report.has_manifest ? "from the manifest" : "no manifest: headers and samples");
}

void PrintJson(const Report& report) {
  const ModelSpec& spec = report.checkpoint->spec();
  boost::json::array roles;
  for (const auto& [key, line] : report.roles) {
    roles.push_back(boost::json::object{{"role", std::string(NameOf(key.role))},
                                        {"stored", std::string(NameOf(key.stored))},
                                        {"rounded", std::string(NameOf(key.rounded))},
                                        {"kept", std::string(NameOf(key.kept))},
                                        {"tensors", line.tensor_count},
                                        {"parameters", line.parameters},
                                        {"stored_bytes", line.stored_bytes},
                                        {"kept_bytes", line.kept_bytes}});
  }
  const boost::json::object json = {{"model_type", spec.model_type},
                                    {"layers", spec.layer_count},
                                    {"dense_layers", spec.first_moe_layer},
                                    {"hidden_size", spec.hidden_size},
                                    {"vocab_size", spec.vocab_size},
                                    {"context_tokens_max", spec.positions_max},
                                    {"heads", spec.head_count},
                                    {"experts", spec.expert_count},
                                    {"experts_per_token", spec.top_k},
                                    {"shared_experts", spec.shared_expert_count},
                                    {"stored", StoredName(spec)},
                                    {"weights", std::string(NameOf(report.weights))},
                                    {"parameters", report.parameters},
                                    {"active_parameters", report.active_parameters},
                                    {"expert_parameters", report.expert_parameters},
                                    {"file_bytes", report.checkpoint->total_bytes()},
                                    {"roles", roles},
                                    {"router_bytes", report.router_bytes},
                                    {"expert_bytes", report.expert_bytes},
                                    {"shards", report.shard_count},
                                    {"shard_bytes", report.shard_bytes()},
                                    {"cache_bytes_per_token", report.cache_bytes_per_token()},
                                    {"digest", report.checkpoint->digest()},
                                    {"manifest", report.has_manifest}};
  std::printf("%s\n", boost::json::serialize(json).c_str());
}

}  // namespace

int RunInspect(const std::vector<std::string>& words) {
  Arguments arguments(words, {"json"});
  const uint32_t shard_count = arguments.Number("shards", 2, 1, 4096);
  const bool as_json = arguments.Flag("json");
  const absl::StatusOr<WeightChoice> weights = ParseWeightChoice(arguments.Text("weights", "auto"));
  const std::string dir = arguments.Word();
  if (const absl::Status parsed = arguments.Finish(); !parsed.ok() || dir.empty()) {
    return Fail("inspect", parsed.ok() ? "a model directory is required" : MessageOf(parsed),
                kExitUsage);
  }
  if (!weights.ok()) {
    return Fail("inspect", MessageOf(weights.status()), kExitUsage);
  }
  const auto checkpoint = Checkpoint::Open(dir);
  if (!checkpoint.ok()) {
    return Fail("inspect", MessageOf(checkpoint.status()), kExitFailed);
  }
  const auto report = MakeReport(*checkpoint, *weights, shard_count);
  if (!report.ok()) {
    return Fail("inspect", MessageOf(report.status()), kExitFailed);
  }
  as_json ? PrintJson(*report) : Print(*report);
  return kExitOk;
}

}  // namespace switchyard
