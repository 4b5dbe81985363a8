#ifndef SWITCHYARD_LIBS_MODEL_CHECKPOINT_H_
#define SWITCHYARD_LIBS_MODEL_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/ids.h"
#include "libs/model/expert_weights.h"
#include "libs/model/load_options.h"
#include "libs/model/mla_weights.h"
#include "libs/model/model_spec.h"
#include "libs/model/tensor_catalog.h"
#include "libs/model/weight_arena.h"
#include "libs/model/weight_choice.h"
#include "libs/model/weight_plan.h"
#include "libs/tensor/tensor_view.h"

namespace switchyard {

// Weights of one decoder layer that a router needs (all but the routed experts): copies, repacked
// for the kernels.
struct LayerWeights {
  std::vector<float> input_norm;           // [hidden]
  std::vector<float> post_attention_norm;  // [hidden]
  PackedMatrix q_proj;                     // [heads * qk_dim, hidden], when q has no low rank
  PackedMatrix q_a_proj;                   // [q_lora_rank, hidden]
  std::vector<float> q_a_bias;             // [q_lora_rank], with attention_bias
  std::vector<float> q_a_norm;             // [q_lora_rank]
  PackedMatrix q_b_proj;                   // [heads * qk_dim, q_lora_rank]
  PackedMatrix kv_a_proj;                  // [latent_dim, hidden]
  std::vector<float> kv_a_bias;            // [latent_dim], with attention_bias
  std::vector<float> kv_a_norm;            // [kv_lora_rank]
  std::vector<MlaHeadWeights> heads;  // kv_b_proj [heads * (nope_dim + value_dim), kv_lora_rank]
  PackedMatrix o_proj;                // [hidden, heads * value_dim]
  std::vector<float> o_bias;          // [hidden], with attention_bias
  ExpertWeights dense;                // Dense layers only.
  ExpertWeights shared;               // MoE layers with shared experts only.
  MatrixView gate;                    // [experts, hidden], MoE layers only.
  std::vector<float> gate_bias;       // [experts], e_score_correction_bias.
};

struct RouterWeights {
  StoredMatrix embedding;  // [vocab, hidden], row-major: looked up, never multiplied with.
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;  // [hidden]
  PackedMatrix head;              // [vocab, hidden]; the embedding when tied.
  std::shared_ptr<const void> owner;
};

// One routed expert of one layer.
struct ExpertName {
  LayerId layer;
  ExpertId expert;
};

// Every routed expert of a model, by layer, then by expert. Any thread.
std::vector<ExpertName> AllExperts(const ModelSpec& spec);

// Checkpoint is an opened Hugging Face directory: config.json plus model.safetensors, or the files
// of model.safetensors.index.json (the former wins if both are there). Routed experts may be one
// tensor per expert and matrix, as published, or fused 3-D tensors, as transformers 5 holds them in
// memory; weights are BF16, F16 or F32, FP8 with block scales as DeepSeek ships them, or what
// `switchyard convert` writes, tensor by tensor (docs/formats.md). Tensors the family's main model
// does not have (multi-token prediction layers) are ignored. Opening reads headers and, for the
// digest, a bounded part of the content.
//
// Any thread after Open(). Loaded weights live while their `owner` does, not longer than they need
// the checkpoint, whose files they no longer touch.
class Checkpoint {
 public:
  static absl::StatusOr<Checkpoint> Open(const std::string& model_dir);

  const ModelSpec& spec() const { return spec_; }

  // Hex SHA-256 that names the model; over what depends on whether there is a manifest
  // (docs/formats.md).
  const std::string& digest() const { return catalog_->digest(); }

  // These read just the bytes they need. InvalidArgument or DataLoss, naming tensor and file, when
  // a tensor is missing, has another shape or dtype than config.json needs, holds what no weight
  // can be, or is changed while it is read.
  absl::StatusOr<RouterWeights> LoadRouterWeights(WeightChoice choice = WeightChoice::kAsStored,
                                                  const LoadOptions& options = {}) const;
  // One for each of `names`, in their order.
  absl::StatusOr<std::vector<ExpertWeights>> LoadExperts(std::span<const ExpertName> names,
                                                         WeightChoice choice,
                                                         const LoadOptions& options) const;
  absl::StatusOr<ExpertWeights> LoadExpert(LayerId layer, ExpertId expert,
                                           WeightChoice choice = WeightChoice::kAsStored) const;

  // What the two kinds of process would load, without reading it.
  absl::StatusOr<std::vector<PlannedTensor>> PlanRouter(WeightChoice choice) const;
  absl::StatusOr<std::vector<PlannedTensor>> PlanExperts(WeightChoice choice) const;

  // Bytes of one routed expert's weights in memory; 0 if there is no routed expert.
  uint64_t expert_bytes(WeightChoice choice = WeightChoice::kAsStored) const;

  // Bytes of all safetensors files.
  uint64_t total_bytes() const { return catalog_->total_bytes(); }

  const TensorCatalog& catalog() const { return *catalog_; }

 private:
  Checkpoint(ModelSpec spec, std::shared_ptr<const TensorCatalog> catalog);

  WeightPlan NewPlan(WeightChoice choice) const;
  absl::Status PlanRouterWeights(WeightPlan& plan, WeightArena& arena,
                                 RouterWeights& weights) const;
  absl::Status PlanExpert(const ExpertName& name, WeightPlan& plan, WeightArena& arena,
                          ExpertWeights& weights) const;

  ModelSpec spec_;
  std::shared_ptr<const TensorCatalog> catalog_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_CHECKPOINT_H_
