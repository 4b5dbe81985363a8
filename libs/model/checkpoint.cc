#include "libs/model/checkpoint.h"

#include <algorithm>
#include <utility>

#include "libs/base/status.h"
#include "libs/model/internal/guard_memory.h"

namespace switchyard {
namespace {

constexpr size_t kRouterChunkBytes = size_t{16} << 20;

// Small experts share an allocation of about this size, which goes when the last of them does.
constexpr size_t kExpertGroupBytes = size_t{16} << 20;

// Where planned weights go.
struct Target {
  WeightPlan& plan;
  WeightArena& arena;

  absl::Status Add(const std::string& name, uint32_t rows, uint32_t columns, WeightRole role,
                   PackedMatrix& out) const {
    return plan.Add(TensorSlice::Whole(name, rows, columns), role, arena, out);
  }
};

struct FfnPlace {
  std::string prefix;
  uint32_t hidden = 0;
  uint32_t intermediate = 0;
  uint32_t expert_count = 0;  // Of fused tensors.
  WeightRole in = WeightRole::kDense;
  WeightRole out = WeightRole::kDense;
};

// The three matrices under `prefix`.
absl::Status AddFfn(const FfnPlace& place, const Target& target, ExpertWeights& weights) {
  const uint32_t hidden = place.hidden;
  const uint32_t inner = place.intermediate;
  const std::string& prefix = place.prefix;
  SY_RETURN_IF_ERROR(
      target.Add(prefix + "gate_proj.weight", inner, hidden, place.in, weights.gate));
  SY_RETURN_IF_ERROR(target.Add(prefix + "up_proj.weight", inner, hidden, place.in, weights.up));
  if (weights.gate.format != weights.up.format) {
    return InvalidArgument("tensor {}up_proj.weight is stored as {}, its gate_proj.weight as {}",
                           prefix, NameOf(weights.up.format), NameOf(weights.gate.format));
  }
  return target.Add(prefix + "down_proj.weight", hidden, inner, place.out, weights.down);
}

// One expert out of the 3-D tensors under `prefix`: gate_up_proj [experts, 2 * intermediate,
// hidden] (gate rows first) and down_proj [experts, hidden, intermediate].
absl::Status AddFusedExpert(const FfnPlace& place, uint64_t index, const Target& target,
                            ExpertWeights& weights) {
  const uint32_t hidden = place.hidden;
  const uint32_t inner = place.intermediate;
  TensorSlice slice{.name = place.prefix + "gate_up_proj",
                    .shape = {place.expert_count, uint64_t{2} * inner, hidden},
                    .first_row = index * 2 * inner,
                    .rows = inner,
                    .columns = hidden};
  SY_RETURN_IF_ERROR(target.plan.Add(slice, place.in, target.arena, weights.gate));
  slice.first_row += inner;
  SY_RETURN_IF_ERROR(target.plan.Add(slice, place.in, target.arena, weights.up));
  return target.plan.Add({.name = place.prefix + "down_proj",
                          .shape = {place.expert_count, hidden, inner},
                          .first_row = index * hidden,
                          .rows = hidden,
                          .columns = inner},
                         place.out, target.arena, weights.down);
}

absl::Status AddAttention(const std::string& prefix, const ModelSpec& spec, const Target& target,
                          LayerWeights& layer) {
  constexpr WeightRole kRole = WeightRole::kAttention;
  WeightPlan& plan = target.plan;
  const uint32_t hidden = spec.hidden_size;
  const uint32_t query_rows = spec.head_count * spec.qk_dim();
  const uint32_t rank = spec.q_lora_rank;
  if (rank == 0) {
    SY_RETURN_IF_ERROR(
        target.Add(prefix + "q_proj.weight", query_rows, hidden, kRole, layer.q_proj));
  } else {
    SY_RETURN_IF_ERROR(target.Add(prefix + "q_a_proj.weight", rank, hidden, kRole, layer.q_a_proj));
    SY_RETURN_IF_ERROR(plan.AddVector(prefix + "q_a_layernorm.weight", rank, layer.q_a_norm));
    SY_RETURN_IF_ERROR(
        target.Add(prefix + "q_b_proj.weight", query_rows, rank, kRole, layer.q_b_proj));
  }
  SY_RETURN_IF_ERROR(target.Add(prefix + "kv_a_proj_with_mqa.weight", spec.latent_dim(), hidden,
                                kRole, layer.kv_a_proj));
  SY_RETURN_IF_ERROR(
      plan.AddVector(prefix + "kv_a_layernorm.weight", spec.kv_lora_rank, layer.kv_a_norm));
  const uint32_t kv_b_rows = spec.head_count * (spec.nope_dim + spec.value_dim);
  SY_RETURN_IF_ERROR(
      plan.AddHeads(TensorSlice::Whole(prefix + "kv_b_proj.weight", kv_b_rows, spec.kv_lora_rank),
                    target.arena, layer.heads));
  SY_RETURN_IF_ERROR(target.Add(prefix + "o_proj.weight", hidden, spec.head_count * spec.value_dim,
                                kRole, layer.o_proj));
  if (!spec.attention_bias) {
    return absl::OkStatus();
  }
  if (rank != 0) {
    SY_RETURN_IF_ERROR(plan.AddVector(prefix + "q_a_proj.bias", rank, layer.q_a_bias));
  }
  SY_RETURN_IF_ERROR(
      plan.AddVector(prefix + "kv_a_proj_with_mqa.bias", spec.latent_dim(), layer.kv_a_bias));
  return plan.AddVector(prefix + "o_proj.bias", hidden, layer.o_bias);
}

absl::Status AddLayer(uint32_t index, const ModelSpec& spec, const Target& target,
                      LayerWeights& layer) {
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const uint32_t hidden = spec.hidden_size;
  WeightPlan& plan = target.plan;
  SY_RETURN_IF_ERROR(plan.AddVector(prefix + "input_layernorm.weight", hidden, layer.input_norm));
  SY_RETURN_IF_ERROR(plan.AddVector(prefix + "post_attention_layernorm.weight", hidden,
                                    layer.post_attention_norm));
  SY_RETURN_IF_ERROR(AddAttention(prefix + "self_attn.", spec, target, layer));
  if (!spec.IsMoeLayer(index)) {
    return AddFfn(
        {.prefix = prefix + "mlp.", .hidden = hidden, .intermediate = spec.dense_intermediate_size},
        target, layer.dense);
  }
  SY_RETURN_IF_ERROR(
      plan.AddPlain(TensorSlice::Whole(prefix + "mlp.gate.weight", spec.expert_count, hidden),
                    WeightRole::kGate, target.arena, layer.gate));
  SY_RETURN_IF_ERROR(plan.AddVector(prefix + "mlp.gate.e_score_correction_bias", spec.expert_count,
                                    layer.gate_bias));
  if (spec.shared_expert_count == 0) {
    return absl::OkStatus();
  }
  return AddFfn({.prefix = prefix + "mlp.shared_experts.",
                 .hidden = hidden,
                 .intermediate = spec.shared_expert_count * spec.expert_intermediate_size,
                 .in = WeightRole::kShared,
                 .out = WeightRole::kShared},
                target, layer.shared);
}

}  // namespace

Checkpoint::Checkpoint(ModelSpec spec, std::shared_ptr<const TensorCatalog> catalog)
    : spec_(std::move(spec)), catalog_(std::move(catalog)) {}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& model_dir) {
  SY_ASSIGN_OR_RETURN(ModelSpec spec, ModelSpec::Load(model_dir));
  SY_ASSIGN_OR_RETURN(TensorCatalog catalog, TensorCatalog::Open(model_dir));
  return Checkpoint(std::move(spec), std::make_shared<const TensorCatalog>(std::move(catalog)));
}

WeightPlan Checkpoint::NewPlan(WeightChoice choice) const {
  return WeightPlan(*catalog_, spec_, Resolve(choice, spec_.quantization));
}

absl::Status Checkpoint::PlanRouterWeights(WeightPlan& plan, WeightArena& arena,
                                           RouterWeights& weights) const {
  const Target target{.plan = plan, .arena = arena};
  const auto vocabulary = [this](const std::string& name) {
    return TensorSlice::Whole(name, spec_.vocab_size, spec_.hidden_size);
  };
  const std::string embedding = "model.embed_tokens.weight";
  SY_RETURN_IF_ERROR(
      plan.AddStored(vocabulary(embedding), WeightRole::kEmbedding, arena, weights.embedding));
  SY_RETURN_IF_ERROR(plan.AddVector("model.norm.weight", spec_.hidden_size, weights.final_norm));
  // F32 and F16 are row-major in either use, so that a tied head needs no copy.
  const StoredMatrix& rows = weights.embedding;
  const bool shared = spec_.tied_embeddings && plan.choice() == WeightChoice::kAsStored &&
                      (rows.format == WeightFormat::kF32 || rows.format == WeightFormat::kF16);
  if (shared) {
    weights.head = {
        .data = rows.values, .format = rows.format, .rows = rows.rows, .columns = rows.columns};
  } else {
    SY_RETURN_IF_ERROR(plan.Add(vocabulary(spec_.tied_embeddings ? embedding : "lm_head.weight"),
                                WeightRole::kHead, arena, weights.head));
  }
  weights.layers.resize(spec_.layer_count);
  for (uint32_t i = 0; i < spec_.layer_count; ++i) {
    SY_RETURN_IF_ERROR(AddLayer(i, spec_, target, weights.layers[i]));
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::PlanExpert(const ExpertName& name, WeightPlan& plan, WeightArena& arena,
                                    ExpertWeights& weights) const {
  const uint32_t layer = name.layer.value();
  if (layer >= spec_.layer_count || !spec_.IsMoeLayer(layer) ||
      name.expert.value() >= spec_.expert_count) {
    return InvalidArgument("no expert {} in layer {}: MoE layers are [{}, {}) with {} experts",
                           name.expert, name.layer, spec_.first_moe_layer, spec_.layer_count,
                           spec_.expert_count);
  }
  FfnPlace place{.prefix = fmt::format("model.layers.{}.mlp.experts.", layer),
                 .hidden = spec_.hidden_size,
                 .intermediate = spec_.expert_intermediate_size,
                 .expert_count = spec_.expert_count,
                 .in = WeightRole::kExpertIn,
                 .out = WeightRole::kExpertOut};
  const Target target{.plan = plan, .arena = arena};
  if (catalog_->Find(place.prefix + "gate_up_proj").file != nullptr) {
    return AddFusedExpert(place, name.expert.value(), target, weights);
  }
  place.prefix += fmt::format("{}.", name.expert);
  return AddFfn(place, target, weights);
}

absl::StatusOr<RouterWeights> Checkpoint::LoadRouterWeights(WeightChoice choice,
                                                            const LoadOptions& options) const {
  RouterWeights weights;
  const absl::Status loaded =
      internal::GuardMemory("the weights of a router", [&]() -> absl::Status {
        const auto arena = std::make_shared<WeightArena>(kRouterChunkBytes);
        WeightPlan plan = NewPlan(choice);
        weights.owner = arena;
        SY_RETURN_IF_ERROR(PlanRouterWeights(plan, *arena, weights));
        for (LayerWeights& layer : weights.layers) {
          layer.dense.owner = arena;
          layer.shared.owner = arena;
        }
        return plan.Run(options);
      });
  SY_RETURN_IF_ERROR(loaded);
  return weights;
}

absl::StatusOr<std::vector<ExpertWeights>> Checkpoint::LoadExperts(
    std::span<const ExpertName> names, WeightChoice choice, const LoadOptions& options) const {
  std::vector<ExpertWeights> experts(names.size());
  const absl::Status loaded =
      internal::GuardMemory("the weights of experts", [&]() -> absl::Status {
        WeightPlan plan = NewPlan(choice);
        const size_t each = std::max<size_t>(expert_bytes(choice), 1);
        const size_t group =
            std::clamp<size_t>(kExpertGroupBytes / each, 1, std::max<size_t>(names.size(), 1));
        std::shared_ptr<WeightArena> arena;
        for (size_t i = 0; i < names.size(); ++i) {
          if (i % group == 0) {
            arena = std::make_shared<WeightArena>(each * std::min(group, names.size() - i));
          }
          SY_RETURN_IF_ERROR(PlanExpert(names[i], plan, *arena, experts[i]));
          experts[i].owner = arena;
        }
        return plan.Run(options);
      });
  SY_RETURN_IF_ERROR(loaded);
  return experts;
}

absl::StatusOr<ExpertWeights> Checkpoint::LoadExpert(LayerId layer, ExpertId expert,
                                                     WeightChoice choice) const {
  const ExpertName name{.layer = layer, .expert = expert};
  SY_ASSIGN_OR_RETURN(std::vector<ExpertWeights> experts,
                      LoadExperts(std::span(&name, 1), choice, {}));
  return std::move(experts.front());
}

std::vector<ExpertName> AllExperts(const ModelSpec& spec) {
  std::vector<ExpertName> names;
  for (uint32_t layer = spec.first_moe_layer; layer < spec.layer_count; ++layer) {
    for (uint32_t expert = 0; expert < spec.expert_count; ++expert) {
      names.push_back({.layer = LayerId(static_cast<uint16_t>(layer)),
                       .expert = ExpertId(static_cast<uint16_t>(expert))});
    }
  }
  return names;
}

absl::StatusOr<std::vector<PlannedTensor>> Checkpoint::PlanRouter(WeightChoice choice) const {
  WeightArena arena(0, WeightArena::Mode::kCounts);
  WeightPlan plan = NewPlan(choice);
  RouterWeights weights;
  SY_RETURN_IF_ERROR(PlanRouterWeights(plan, arena, weights));
  return std::vector<PlannedTensor>(plan.tensors().begin(), plan.tensors().end());
}

absl::StatusOr<std::vector<PlannedTensor>> Checkpoint::PlanExperts(WeightChoice choice) const {
  WeightArena arena(0, WeightArena::Mode::kCounts);
  WeightPlan plan = NewPlan(choice);
  for (const ExpertName& name : AllExperts(spec_)) {
    ExpertWeights weights;
    SY_RETURN_IF_ERROR(PlanExpert(name, plan, arena, weights));
  }
  return std::vector<PlannedTensor>(plan.tensors().begin(), plan.tensors().end());
}

uint64_t Checkpoint::expert_bytes(WeightChoice choice) const {
  WeightArena arena(0, WeightArena::Mode::kCounts);
  WeightPlan plan = NewPlan(choice);
  ExpertWeights weights;
  const LayerId layer(static_cast<uint16_t>(spec_.first_moe_layer));
  const absl::Status planned =
      PlanExpert({.layer = layer, .expert = ExpertId(0)}, plan, arena, weights);
  return planned.ok() ? arena.byte_count() : 0;
}

}  // namespace switchyard
