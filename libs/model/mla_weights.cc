#include "libs/model/mla_weights.h"

#include <cstddef>
#include <span>

#include "libs/base/check.h"
#include "libs/model/weight_choice.h"
#include "libs/tensor/tensor_view.h"

namespace switchyard {
namespace {

void Fill(std::span<const float> values, const PackedMatrix& place) {
  const MatrixView view{
      .data = values.data(), .dtype = Dtype::kF32, .rows = place.rows, .columns = place.columns};
  WeightArena::Fill(place, 0, StoredMatrix::Plain(view));
}

}  // namespace

WeightFormat MlaHeadFormat(WeightFormat rounded) {
  return IsPlain(rounded) ? rounded : WeightFormat::kBf16;
}

std::vector<MlaHeadWeights> ReserveMlaHeads(const ModelSpec& spec, WeightFormat rounded,
                                            WeightArena& arena) {
  const WeightFormat format = MlaHeadFormat(rounded);
  std::vector<MlaHeadWeights> heads(spec.head_count);
  for (MlaHeadWeights& head : heads) {
    head.key = arena.Reserve(format, spec.nope_dim, spec.kv_lora_rank);
    head.value = arena.Reserve(format, spec.value_dim, spec.kv_lora_rank);
    head.key_turned = arena.Reserve(format, spec.kv_lora_rank, spec.nope_dim);
  }
  return heads;
}

void FillMlaHeads(const ModelSpec& spec, const StoredMatrix& kv_b,
                  std::span<const MlaHeadWeights> heads) {
  const uint32_t rank = spec.kv_lora_rank;
  const uint32_t head_rows = spec.nope_dim + spec.value_dim;
  SY_CHECK(kv_b.rows == heads.size() * head_rows && kv_b.columns == rank);
  std::vector<float> rows(size_t{head_rows} * rank);
  std::vector<float> turned(size_t{rank} * spec.nope_dim);
  for (uint32_t head = 0; head < heads.size(); ++head) {
    UnpackStored(kv_b, head * head_rows, head_rows, rows.data());
    for (size_t d = 0; d < spec.nope_dim; ++d) {
      for (size_t r = 0; r < rank; ++r) {
        turned[r * spec.nope_dim + d] = rows[d * rank + r];
      }
    }
    const size_t key_size = size_t{spec.nope_dim} * rank;
    Fill(std::span(rows).first(key_size), heads[head].key);
    Fill(std::span(rows).subspan(key_size), heads[head].value);
    Fill(turned, heads[head].key_turned);
  }
}

std::vector<MlaHeadWeights> PackMlaHeads(const ModelSpec& spec, const StoredMatrix& kv_b,
                                         WeightArena& arena) {
  std::vector<MlaHeadWeights> heads = ReserveMlaHeads(spec, kv_b.format, arena);
  FillMlaHeads(spec, kv_b, heads);
  return heads;
}

}  // namespace switchyard
