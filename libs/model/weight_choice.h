#ifndef SWITCHYARD_LIBS_MODEL_WEIGHT_CHOICE_H_
#define SWITCHYARD_LIBS_MODEL_WEIGHT_CHOICE_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"

#include "libs/kernels/packed_matrix.h"

namespace switchyard {

// What a user asks weights to be kept in (`--weights`). kAsStored takes each tensor as the
// checkpoint has it.
enum class WeightChoice : uint8_t { kAsStored = 0, kBf16 = 1, kInt8 = 2, kInt4 = 3 };

// "auto", "bf16", "int8", "int4".
std::string_view NameOf(WeightChoice choice);
absl::StatusOr<WeightChoice> ParseWeightChoice(std::string_view name);

// What a matrix is for, as far as its format depends on it.
enum class WeightRole : uint8_t {
  kExpertIn,   // gate_proj and up_proj of routed experts
  kExpertOut,  // down_proj of routed experts
  kShared,     // Shared experts.
  kDense,      // Feed-forward networks of dense layers.
  kAttention,  // Attention projections but kv_b_proj.
  kLatent,     // kv_b_proj: in memory see mla_weights.h.
  kHead,
  kEmbedding,
  kGate,    // This and the next stay as stored.
  kVector,  // Norms and biases.
};

std::string_view NameOf(WeightRole role);

// What `asked` means for a checkpoint whose config.json says that its weights were kept in
// `quantization` (kFp8, or what `switchyard convert` wrote): kAsStored is then that choice.
WeightChoice Resolve(WeightChoice asked, std::optional<WeightFormat> quantization);

// BF16, F16 or F32.
bool IsPlain(WeightFormat format);

// The format that the values of a matrix of `role`, stored as `stored`, are rounded to: what
// `switchyard convert` writes, and but for kLatent and kVector what memory holds. Any thread: pure.
WeightFormat FormatOf(WeightChoice choice, WeightRole role, WeightFormat stored);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_WEIGHT_CHOICE_H_
