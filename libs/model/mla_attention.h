#ifndef SWITCHYARD_LIBS_MODEL_MLA_ATTENTION_H_
#define SWITCHYARD_LIBS_MODEL_MLA_ATTENTION_H_

#include <cstdint>
#include <memory>
#include <span>

#include "libs/base/ids.h"
#include "libs/kernels/kernels.h"
#include "libs/kvcache/kv_storage.h"
#include "libs/model/checkpoint.h"
#include "libs/model/model_spec.h"

namespace switchyard {

// One row of a step: one position of one sequence.
struct AttentionRow {
  uint32_t sequence_index = 0;  // Rows of one sequence are adjacent, positions ascending.
  uint32_t position = 0;        // Absolute, 0-based.
  bool expanded = false;        // Prompt positions are computed expanded, generated ones absorbed.
  std::span<const BlockId> blocks;  // The sequence's block table, covering [0, position].
};

// MlaAttention is multi-head latent attention (arXiv 2412.19437 §2.1.1) over the paged latent
// cache, in the two forms of DESIGN §6: expanded (keys and values are made from the cached latent)
// and weight-absorbed (queries are moved into the latent space).
//
// A row's result depends on its token, position, form and the cached rows before it, and on nothing
// else: keys are walked in blocks aligned to absolute positions, and the latent is always read as
// stored (rounded), also for positions of the same step.
//
// One owner: the step thread. Spec, weights and kernels outlive it.
class MlaAttention {
 public:
  MlaAttention(const ModelSpec& spec, const RouterWeights& weights, const Kernels& kernels);
  ~MlaAttention();

  // x: [rows][hidden], normed; out: [rows][hidden], after o_proj, not yet added to the residual.
  // First stores the latents of all rows in `cache`, then attends.
  void Run(LayerId layer, std::span<const AttentionRow> rows, const float* x, float* out,
           KvStorage& cache);

  // Compute threads to use; null (the default) means the calling thread only.
  void SetComputePool(ComputePool* pool);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_MLA_ATTENTION_H_
