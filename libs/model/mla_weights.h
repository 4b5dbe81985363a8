#ifndef SWITCHYARD_LIBS_MODEL_MLA_WEIGHTS_H_
#define SWITCHYARD_LIBS_MODEL_MLA_WEIGHTS_H_

#include <span>
#include <vector>

#include "libs/kernels/packed_matrix.h"
#include "libs/model/model_spec.h"
#include "libs/model/weight_arena.h"

namespace switchyard {

// What one head of MLA multiplies cached latents with: its rows of kv_b_proj. Rows that are stored
// or rounded to INT8 (or FP8) are widened and kept in BF16: turned, a group of 32 would no longer
// share its scale.
//
// Any thread; the matrices live while their arena does.
struct MlaHeadWeights {
  PackedMatrix key;         // [nope_dim, kv_lora_rank], expanded form: latent -> key.
  PackedMatrix value;       // [value_dim, kv_lora_rank], both forms: latent -> value.
  PackedMatrix key_turned;  // [kv_lora_rank, nope_dim], absorbed form: query -> latent space.
};

// What the heads of a kv_b_proj are kept in whose values are of `rounded`: F32 and F16 as they are,
// all else in BF16.
WeightFormat MlaHeadFormat(WeightFormat rounded);

// Room for those heads.
std::vector<MlaHeadWeights> ReserveMlaHeads(const ModelSpec& spec, WeightFormat rounded,
                                            WeightArena& arena);

// Fills what was reserved. kv_b: [heads * (nope_dim + value_dim), kv_lora_rank].
void FillMlaHeads(const ModelSpec& spec, const StoredMatrix& kv_b,
                  std::span<const MlaHeadWeights> heads);

// Both at once.
std::vector<MlaHeadWeights> PackMlaHeads(const ModelSpec& spec, const StoredMatrix& kv_b,
                                         WeightArena& arena);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_MLA_WEIGHTS_H_
