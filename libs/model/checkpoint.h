#ifndef SWITCHYARD_LIBS_MODEL_CHECKPOINT_H_
#define SWITCHYARD_LIBS_MODEL_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/ids.h"
#include "libs/model/expert_weights.h"
#include "libs/model/model_spec.h"
#include "libs/tensor/tensor_view.h"

namespace switchyard {

// Weights of one decoder layer that a router needs (all but the routed experts). f32 vectors are
// widened copies; matrices are views into the mapped checkpoint.
struct LayerWeights {
  std::vector<float> input_norm;           // [hidden]
  std::vector<float> post_attention_norm;  // [hidden]
  MatrixView q_proj;                       // [heads * qk_dim, hidden], when q has no low rank
  MatrixView q_a_proj;                     // [q_lora_rank, hidden]
  std::vector<float> q_a_bias;             // [q_lora_rank], with attention_bias
  std::vector<float> q_a_norm;             // [q_lora_rank]
  MatrixView q_b_proj;                     // [heads * qk_dim, q_lora_rank]
  MatrixView kv_a_proj;                    // [latent_dim, hidden]
  std::vector<float> kv_a_bias;            // [latent_dim], with attention_bias
  std::vector<float> kv_a_norm;            // [kv_lora_rank]
  MatrixView kv_b_proj;                    // [heads * (nope_dim + value_dim), kv_lora_rank]
  MatrixView o_proj;                       // [hidden, heads * value_dim]
  std::vector<float> o_bias;               // [hidden], with attention_bias
  ExpertWeights dense;                     // Dense layers only.
  ExpertWeights shared;                    // MoE layers with shared experts only.
  MatrixView gate;                         // [experts, hidden], MoE layers only.
  std::vector<float> gate_bias;            // [experts], e_score_correction_bias.
};

struct RouterWeights {
  MatrixView embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;  // [hidden]
  MatrixView head;                // [vocab, hidden]; the embedding when tied.
  std::shared_ptr<const void> owner;
};

// Checkpoint is an opened Hugging Face directory: config.json plus model.safetensors, or the files
// of model.safetensors.index.json (the former wins if both are there). Routed experts may be one
// tensor per expert and matrix, as published, or fused 3-D tensors, as transformers 5 holds them in
// memory; weights are BF16, F16 or F32, tensor by tensor. Tensors the family's main model does not
// have (multi-token prediction layers) are ignored. Opening maps the files, checks every header and
// hashes the content; it copies no tensor.
//
// Any thread after Open(); returned views stay valid while their `owner` lives.
class Checkpoint {
 public:
  static absl::StatusOr<Checkpoint> Open(const std::string& model_dir);

  const ModelSpec& spec() const { return spec_; }

  // Hex SHA-256 over config.json and then every safetensors file in file name order: for each its
  // name, a zero byte, its size (u64, little-endian) and its whole content. Open() computes it,
  // which reads every byte once: about a second per 0.5 to 2 GB, so minutes for the largest
  // checkpoints.
  const std::string& digest() const { return digest_; }

  // InvalidArgument naming the tensor and file when one is missing or has another shape or dtype.
  absl::StatusOr<RouterWeights> LoadRouterWeights() const;
  absl::StatusOr<ExpertWeights> LoadExpert(LayerId layer, ExpertId expert) const;

  // Bytes of one routed expert's weights as stored; 0 if there is no routed expert.
  uint64_t expert_bytes() const;

  // Bytes of all safetensors files.
  uint64_t total_bytes() const;

 private:
  struct Files;
  Checkpoint(ModelSpec spec, std::string digest, std::shared_ptr<const Files> files);

  ModelSpec spec_;
  std::string digest_;
  std::shared_ptr<const Files> files_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_CHECKPOINT_H_
