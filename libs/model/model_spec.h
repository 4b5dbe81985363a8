#ifndef SWITCHYARD_LIBS_MODEL_MODEL_SPEC_H_
#define SWITCHYARD_LIBS_MODEL_MODEL_SPEC_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "libs/kernels/packed_matrix.h"
#include "libs/tensor/dtype.h"

namespace switchyard {

// YaRN long-context scaling (arXiv 2309.00071) as DeepSeek-V3's config.json gives it.
struct YarnSpec {
  double factor = 1.0;
  double original_max_positions = 4096;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 1.0;
  double mscale_all_dim = 0.0;
};

// ModelSpec is the architecture of one DeepSeek-V3-family checkpoint, read from its config.json.
//
// Any thread: a value. All sizes are element counts.
struct ModelSpec {
  std::string model_type;  // "deepseek_v3"
  uint32_t vocab_size = 0;
  uint32_t hidden_size = 0;
  uint32_t layer_count = 0;
  uint32_t first_moe_layer = 0;  // first_k_dense_replace
  uint32_t dense_intermediate_size = 0;
  uint32_t expert_intermediate_size = 0;
  uint32_t expert_count = 0;  // Routed experts per MoE layer.
  uint32_t shared_expert_count =
      0;  // Fused into one FFN of shared_expert_count * expert_intermediate_size.
  uint32_t top_k = 0;
  uint32_t group_count = 1;
  uint32_t top_k_groups = 1;
  bool norm_top_k = true;
  float routed_scaling_factor = 1.0F;
  uint32_t head_count = 0;
  uint32_t q_lora_rank = 0;  // 0: q has no low rank.
  uint32_t kv_lora_rank = 0;
  uint32_t nope_dim = 0;   // qk_nope_head_dim
  uint32_t rope_dim = 0;   // qk_rope_head_dim
  uint32_t value_dim = 0;  // v_head_dim
  bool attention_bias = false;
  float rms_norm_epsilon = 1e-6F;
  // Of q_a_norm and kv_a_norm: the published code leaves them at 1e-6 whatever rms_norm_eps says.
  float latent_norm_epsilon = 1e-6F;
  double rope_theta = 10000.0;
  bool rope_interleaved = true;
  std::optional<YarnSpec> yarn;
  uint32_t positions_max = 0;  // max_position_embeddings
  bool tied_embeddings = false;
  Dtype weight_dtype = Dtype::kBf16;  // torch_dtype / dtype: of weights that are not quantised.
  // quantization_config: kFp8 as DeepSeek ships it; kBf16, kInt8 or kInt4 as `switchyard convert`
  // writes it. Single tensors may be stored otherwise.
  std::optional<WeightFormat> quantization;

  uint32_t qk_dim() const { return nope_dim + rope_dim; }

  // Elements the cache holds per token and layer.
  uint32_t latent_dim() const { return kv_lora_rank + rope_dim; }

  bool IsMoeLayer(uint32_t layer) const { return layer >= first_moe_layer; }

  // Parses and validates. InvalidArgument names the field ("config.json: num_experts_per_tok 9 >
  // n_routed_experts 8"), also for features of the family that are not supported.
  static absl::StatusOr<ModelSpec> FromConfigJson(std::string_view json);
  static absl::StatusOr<ModelSpec> Load(const std::string& model_dir);
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_MODEL_SPEC_H_
