#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "libs/base/status.h"
#include "libs/model/checkpoint.h"
#include "services/cli/arguments.h"
#include "services/cli/commands.h"

namespace switchyard {
namespace {

struct ParameterCounts {
  uint64_t total = 0;
  uint64_t active = 0;   // Used by one token.
  uint64_t experts = 0;  // Routed experts of all layers.
};

uint64_t Size(const MatrixView& matrix) { return uint64_t{matrix.rows} * matrix.columns; }

uint64_t FfnSize(const ExpertWeights& ffn) {
  return Size(ffn.gate) + Size(ffn.up) + Size(ffn.down);
}

ParameterCounts Count(const ModelSpec& spec, const RouterWeights& weights) {
  uint64_t shared = Size(weights.embedding) + weights.final_norm.size();
  if (weights.head.data != weights.embedding.data) {
    shared += Size(weights.head);
  }
  for (const LayerWeights& layer : weights.layers) {
    shared += Size(layer.q_proj) + Size(layer.q_a_proj) + Size(layer.q_b_proj) +
              Size(layer.kv_a_proj) + Size(layer.kv_b_proj) + Size(layer.o_proj) +
              FfnSize(layer.dense) + FfnSize(layer.shared) + Size(layer.gate) +
              layer.input_norm.size() + layer.post_attention_norm.size() + layer.q_a_norm.size() +
              layer.kv_a_norm.size() + layer.gate_bias.size();
  }
  const uint64_t moe_layers = spec.layer_count - spec.first_moe_layer;
  const uint64_t expert = uint64_t{3} * spec.hidden_size * spec.expert_intermediate_size;
  return {.total = shared + moe_layers * spec.expert_count * expert,
          .active = shared + moe_layers * spec.top_k * expert,
          .experts = moe_layers * spec.expert_count * expert};
}

void Print(const std::string& dir, const Checkpoint& checkpoint, const ParameterCounts& counts,
           uint32_t shard_count) {
  const ModelSpec& spec = checkpoint.spec();
  std::printf("%s\n", dir.c_str());
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
  std::printf("  parameters     %.2f M total, %.2f M active, %.2f M in routed experts\n",
              static_cast<double>(counts.total) * 1e-6, static_cast<double>(counts.active) * 1e-6,
              static_cast<double>(counts.experts) * 1e-6);
  const uint64_t expert_total =
      checkpoint.expert_bytes() * (spec.layer_count - spec.first_moe_layer) * spec.expert_count;
  std::printf("  weights        %s, %.1f MiB in all\n",
              std::string(NameOf(spec.weight_dtype)).c_str(),
              static_cast<double>(checkpoint.total_bytes()) / 1048576.0);
  std::printf("  per process    router %.1f MiB, each of %u shards %.1f MiB (one replica)\n",
              static_cast<double>(checkpoint.total_bytes() - expert_total) / 1048576.0, shard_count,
              static_cast<double>(expert_total) / shard_count / 1048576.0);
  std::printf("  cache          %.1f KiB per token (BF16)\n",
              static_cast<double>(uint64_t{spec.latent_dim()} * 2 * spec.layer_count) / 1024.0);
  std::printf("  digest         sha256:%s\n", checkpoint.digest().c_str());
}

}  // namespace

int RunInspect(const std::vector<std::string>& words) {
  Arguments arguments(words, {});
  const uint32_t shard_count = arguments.Number("shards", 2, 1, 4096);
  const std::string dir = arguments.Word();
  if (const absl::Status parsed = arguments.Finish(); !parsed.ok() || dir.empty()) {
    return Fail("inspect", parsed.ok() ? "a model directory is required" : MessageOf(parsed),
                kExitUsage);
  }
  const auto checkpoint = Checkpoint::Open(dir);
  if (!checkpoint.ok()) {
    return Fail("inspect", MessageOf(checkpoint.status()), kExitFailed);
  }
  const auto weights = checkpoint->LoadRouterWeights();
  if (!weights.ok()) {
    return Fail("inspect", MessageOf(weights.status()), kExitFailed);
  }
  Print(dir, *checkpoint, Count(checkpoint->spec(), *weights), shard_count);
  return kExitOk;
}

}  // namespace switchyard
