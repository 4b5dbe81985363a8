#ifndef SWITCHYARD_LIBS_MODEL_REFERENCE_MODEL_H_
#define SWITCHYARD_LIBS_MODEL_REFERENCE_MODEL_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/ids.h"
#include "libs/model/checkpoint.h"
#include "libs/model/model_spec.h"

namespace switchyard {

struct ReferenceOutput {
  std::vector<float> logits;      // [tokens][vocab]
  std::vector<uint16_t> experts;  // [MoE layers][tokens][top_k], descending by biased score.
};

// ReferenceModel is the slow twin of the whole forward pass: plain loops in double over one whole
// sequence, no cache, attention in the expanded form only, no kernels. It shares only the
// checkpoint reader with the fast path. For tests; weights are copied to f32.
//
// Any thread after Load(); immutable.
class ReferenceModel {
 public:
  static absl::StatusOr<ReferenceModel> Load(const Checkpoint& checkpoint);

  ReferenceModel(ReferenceModel&& other) noexcept;
  ReferenceModel& operator=(ReferenceModel&& other) noexcept;
  ~ReferenceModel();

  // Logits of every position. With `forced_experts` (in the layout of ReferenceOutput::experts) the
  // gate only weighs those. Tokens are below vocab_size.
  ReferenceOutput Run(std::span<const TokenId> tokens,
                      std::span<const uint16_t> forced_experts = {}) const;

  const ModelSpec& spec() const;

 private:
  struct Impl;
  explicit ReferenceModel(std::unique_ptr<const Impl> impl);

  std::unique_ptr<const Impl> impl_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_REFERENCE_MODEL_H_
