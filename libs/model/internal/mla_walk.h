#ifndef SWITCHYARD_LIBS_MODEL_INTERNAL_MLA_WALK_H_
#define SWITCHYARD_LIBS_MODEL_INTERNAL_MLA_WALK_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "libs/kernels/kernels.h"
#include "libs/kvcache/kv_storage.h"
#include "libs/model/mla_attention.h"
#include "libs/model/model_spec.h"

namespace switchyard::internal {

// Keys are taken in blocks of this many positions, aligned to absolute positions. Part of the
// numerics: softmax is rescaled once per block.
inline constexpr uint32_t kKeyBlock = 64;

// Work memory of one tile. One owner while leased.
struct MlaScratch {
  std::vector<float> latents;       // [kKeyBlock][kv_lora_rank], widened from the cache.
  ActivationBuffer prepared;        // Rows of a product with packed weights.
  std::vector<float> keys;          // [kKeyBlock][qk_dim] of one head.
  std::vector<float> block_values;  // [kKeyBlock][value_dim] of one head.
  std::vector<float> scores;        // [rows or heads][kKeyBlock]
  std::vector<float> largest;       // [rows or heads] running maximum.
  std::vector<float> sums;          // [rows or heads] running sum of exponentials.
  std::vector<float> rotary;        // [rope_dim], before it is rotated.
};

// ScratchStack keeps work memory between tiles: as many as threads ever used at once. Any thread
// (std::mutex, because the packaged absl::Mutex is opaque to ThreadSanitizer).
class ScratchStack {
 public:
  std::unique_ptr<MlaScratch> Take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<MlaScratch> scratch = std::move(free_.back());
        free_.pop_back();
        return scratch;
      }
    }
    return std::make_unique<MlaScratch>();
  }

  void Return(std::unique_ptr<MlaScratch> scratch) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<MlaScratch>> free_;  // Guarded by mutex_.
};

// Work memory for the time of a scope. One owner; the stack outlives it.
class ScratchLease {
 public:
  explicit ScratchLease(ScratchStack& stack) : stack_(stack), scratch_(stack.Take()) {}

  ScratchLease(const ScratchLease&) = delete;
  ScratchLease& operator=(const ScratchLease&) = delete;

  ~ScratchLease() { stack_.Return(std::move(scratch_)); }

  MlaScratch& operator*() { return *scratch_; }

 private:
  ScratchStack& stack_;
  std::unique_ptr<MlaScratch> scratch_;
};

// Prompt rows of one sequence and one head.
struct ExpandedTile {
  std::span<const AttentionRow> rows;  // Ascending positions of one sequence.
  const MlaHeadWeights& weights;
  const float* queries = nullptr;  // [row][qk_dim], stride query_stride.
  size_t query_stride = 0;
  float* values = nullptr;  // [row][value_dim], stride value_stride.
  size_t value_stride = 0;
};

// One generated row and some adjacent heads.
struct AbsorbedTile {
  const AttentionRow& row;
  uint32_t head_count = 0;
  const float* latent_queries = nullptr;  // [head][latent_dim]
  float* latent_values = nullptr;         // [head][kv_lora_rank]
};

// Some rows of one head on their way into the latent space or out of it.
struct LatentMove {
  const MlaHeadWeights& weights;
  uint32_t row_count = 0;
  const float* source = nullptr;
  size_t source_stride = 0;
  float* target = nullptr;
  size_t target_stride = 0;
};

// What one thread takes for one head, roughly (see ProductNs()).
struct MlaHeadCost {
  const ModelSpec& spec;
  const MlaHeadWeights& weights;

  uint64_t ExpandedNs(uint64_t row_count, uint64_t key_count) const {
    return ProductNs(FormFor(weights.key.format), 0, key_count * weight_count()) +
           ProductNs(ActivationForm::kF32, 0,
                     row_count * key_count * (spec.qk_dim() + spec.value_dim));
  }

  // `key_count` of all rows.
  uint64_t AbsorbedNs(uint64_t row_count, uint64_t key_count) const {
    return ProductNs(FormFor(weights.key.format),
                     weights.key_turned.byte_size() + weights.value.byte_size(),
                     row_count * weight_count()) +
           ProductNs(ActivationForm::kF32, 0,
                     key_count * (uint64_t{spec.latent_dim()} + spec.kv_lora_rank));
  }

 private:
  uint64_t weight_count() const {
    return uint64_t{spec.kv_lora_rank} * (spec.nope_dim + spec.value_dim);
  }
};

// MlaWalk passes over the cached rows of a sequence in ascending key blocks with an online softmax.
// Per block and query: new maximum, exponentials against it and their sum, old sum and accumulator
// times exp(old maximum - new maximum), then the block's values added key by key.
//
// Any thread; it only refers to what its maker owns.
struct MlaWalk {
  const ModelSpec& spec;
  const Kernels& kernels;
  const KvStorage& cache;
  ComputePool& inline_pool;  // Of one thread: tiles already run on all.
  uint32_t layer_index = 0;

  void Expanded(const ExpandedTile& tile, MlaScratch& scratch) const {
    const auto row_count = static_cast<uint32_t>(tile.rows.size());
    Reset(scratch, row_count);
    scratch.latents.resize(size_t{kKeyBlock} * spec.kv_lora_rank);
    scratch.keys.resize(size_t{kKeyBlock} * spec.qk_dim());
    scratch.block_values.resize(size_t{kKeyBlock} * spec.value_dim);
    for (uint32_t row = 0; row < row_count; ++row) {
      std::fill_n(tile.values + row * tile.value_stride, spec.value_dim, 0.0F);
    }
    const uint32_t key_end = tile.rows.back().position + 1;
    uint32_t first_row = 0;  // The first row that sees this block.
    for (uint32_t begin = 0; begin < key_end; begin += kKeyBlock) {
      const uint32_t key_count = std::min(kKeyBlock, key_end - begin);
      while (tile.rows[first_row].position < begin) {
        ++first_row;
      }
      ExpandBlock(tile, begin, key_count, scratch);
      AddExpandedBlock(tile, first_row, begin, key_count, scratch);
    }
    for (uint32_t row = 0; row < row_count; ++row) {
      kernels.scale(1.0F / scratch.sums[row], tile.values + row * tile.value_stride,
                    spec.value_dim);
    }
  }

  // source: [row][qk_dim], finished queries; target: [row][W_UK q_nope | q_rope].
  void MoveQueries(const LatentMove& move, MlaScratch& scratch) const {
    Multiply(move, move.weights.key_turned, scratch);
    for (size_t row = 0; row < move.row_count; ++row) {
      std::memcpy(move.target + row * move.target_stride + spec.kv_lora_rank,
                  move.source + row * move.source_stride + spec.nope_dim,
                  spec.rope_dim * sizeof(float));
    }
  }

  // source: [row][kv_lora_rank], weighted latents; target: [row][value_dim].
  void MakeValues(const LatentMove& move, MlaScratch& scratch) const {
    Multiply(move, move.weights.value, scratch);
  }

  void Absorbed(const AbsorbedTile& tile, MlaScratch& scratch) const {
    Reset(scratch, tile.head_count);
    const size_t rank = spec.kv_lora_rank;
    std::fill_n(tile.latent_values, tile.head_count * rank, 0.0F);
    const uint32_t key_end = tile.row.position + 1;
    for (uint32_t begin = 0; begin < key_end; begin += kKeyBlock) {
      const uint32_t key_count = std::min(kKeyBlock, key_end - begin);
      ForEachStretch(tile.row.blocks, begin, key_count, [&](uint32_t key, const MatrixView& rows) {
        kernels.gemm({.x = tile.latent_queries,
                      .x_stride = spec.latent_dim(),
                      .row_count = tile.head_count,
                      .w = rows,
                      .y = scratch.scores.data() + key,
                      .y_stride = kKeyBlock,
                      .column_end = rows.rows});
      });
      for (uint32_t head = 0; head < tile.head_count; ++head) {
        AdvanceSoftmax(head, key_count, {tile.latent_values + head * rank, rank}, scratch);
      }
      ForEachStretch(tile.row.blocks, begin, key_count, [&](uint32_t key, const MatrixView& rows) {
        kernels.weighted_sum({.weights = scratch.scores.data() + key,
                              .weight_stride = kKeyBlock,
                              .row_count = tile.head_count,
                              .term_count = rows.rows,
                              .x = rows.data,
                              .dtype = rows.dtype,
                              .x_stride = rows.columns,
                              .y = tile.latent_values,
                              .y_stride = rank,
                              .count = rank});
      });
    }
    for (uint32_t head = 0; head < tile.head_count; ++head) {
      kernels.scale(1.0F / scratch.sums[head], tile.latent_values + head * rank, rank);
    }
  }

 private:
  static void Reset(MlaScratch& scratch, uint32_t query_count) {
    scratch.scores.resize(size_t{query_count} * kKeyBlock);
    scratch.largest.assign(query_count, -std::numeric_limits<float>::infinity());
    scratch.sums.assign(query_count, 0.0F);
  }

  void Multiply(const LatentMove& move, const PackedMatrix& w, MlaScratch& scratch) const {
    const ActivationView x = PrepareRows(kernels, inline_pool,
                                         {.form = FormFor(w.format),
                                          .x = move.source,
                                          .x_stride = move.source_stride,
                                          .row_count = move.row_count,
                                          .columns = w.columns},
                                         scratch.prepared);
    PackedGemm(
        kernels,
        {.x = x, .w = w, .y = move.target, .y_stride = move.target_stride, .column_end = w.rows});
  }

  // Calls visit(key index within [0, count), matrix of cached rows) for each stretch of positions
  // [begin, begin + count) that lies in one storage block.
  template <typename Visit>
  void ForEachStretch(std::span<const BlockId> blocks, uint32_t begin, uint32_t count,
                      const Visit& visit) const {
    const uint32_t block_size = cache.layout().block_size;
    for (uint32_t key = 0; key < count;) {
      const uint32_t position = begin + key;
      const uint32_t slot = position % block_size;
      const uint32_t length = std::min(block_size - slot, count - key);
      visit(key, MatrixView{.data = cache.Row(layer_index, blocks[position / block_size], slot),
                            .dtype = cache.layout().dtype,
                            .rows = length,
                            .columns = spec.latent_dim()});
      key += length;
    }
  }

  // Scores of one query become its weights in this block; its accumulator is rescaled.
  void AdvanceSoftmax(uint32_t query, uint32_t key_count, std::span<float> accumulator,
                      MlaScratch& scratch) const {
    float* const scores = scratch.scores.data() + size_t{query} * kKeyBlock;
    const float old_largest = scratch.largest[query];
    const float largest = std::max(old_largest, kernels.max(scores, key_count));
    const float sum = kernels.exp_sum(largest, scores, key_count);
    if (largest != old_largest) {
      const float shrink = Exp(old_largest - largest);
      kernels.scale(shrink, accumulator.data(), accumulator.size());
      scratch.sums[query] *= shrink;
      scratch.largest[query] = largest;
    }
    scratch.sums[query] += sum;
  }

  // Keys and values of one head from the cached latents.
  void ExpandBlock(const ExpandedTile& tile, uint32_t begin, uint32_t key_count,
                   MlaScratch& scratch) const {
    const size_t rank = spec.kv_lora_rank;
    const size_t qk_dim = spec.qk_dim();
    ForEachStretch(
        tile.rows.back().blocks, begin, key_count, [&](uint32_t key, const MatrixView& rows) {
          for (uint32_t i = 0; i < rows.rows; ++i) {
            float* const rotary = scratch.keys.data() + (key + i) * qk_dim + spec.nope_dim;
            Widen(rows.RowSlice(i, 1).data, rank, spec.rope_dim, rotary);
          }
        });
    const ActivationView latents = PrepareLatents(tile, begin, key_count, scratch);
    PackedGemm(kernels, {.x = latents,
                         .w = tile.weights.key,
                         .y = scratch.keys.data(),
                         .y_stride = qk_dim,
                         .column_end = spec.nope_dim});
    PackedGemm(kernels, {.x = latents,
                         .w = tile.weights.value,
                         .y = scratch.block_values.data(),
                         .y_stride = spec.value_dim,
                         .column_end = spec.value_dim});
  }

  // The latents of some keys in the form that the head's weights take.
  ActivationView PrepareLatents(const ExpandedTile& tile, uint32_t begin, uint32_t key_count,
                                MlaScratch& scratch) const {
    const size_t rank = spec.kv_lora_rank;
    const ActivationForm form = FormFor(tile.weights.key.format);
    const bool as_stored = form == ActivationForm::kBf16 && cache.layout().dtype == Dtype::kBf16 &&
                           rank % kDepthBlock == 0;
    ActivationView view{.form = form, .row_count = key_count, .columns = spec.kv_lora_rank};
    std::byte* copies = nullptr;
    if (as_stored) {
      view.row_bytes = ActivationRowBytes(form, spec.kv_lora_rank);
      copies = scratch.prepared.Reserve(view.row_bytes * kKeyBlock);
      view.data = copies;
    }
    ForEachStretch(
        tile.rows.back().blocks, begin, key_count, [&](uint32_t key, const MatrixView& rows) {
          for (uint32_t i = 0; i < rows.rows; ++i) {
            const void* const row = rows.RowSlice(i, 1).data;
            if (as_stored) {
              std::memcpy(copies + (key + i) * view.row_bytes, row, rank * sizeof(uint16_t));
            } else {
              Widen(row, 0, rank, scratch.latents.data() + (key + i) * rank);
            }
          }
        });
    return as_stored ? view
                     : PrepareRows(kernels, inline_pool,
                                   {.form = form,
                                    .x = scratch.latents.data(),
                                    .x_stride = rank,
                                    .row_count = key_count,
                                    .columns = spec.kv_lora_rank},
                                   scratch.prepared);
  }

  // Elements [first, first + count) of a cached row as f32.
  void Widen(const void* row, size_t first, size_t count, float* out) const {
    if (cache.layout().dtype == Dtype::kBf16) {
      kernels.bf16_to_f32(static_cast<const uint16_t*>(row) + first, out, count);
    } else {
      std::memcpy(out, static_cast<const float*>(row) + first, count * sizeof(float));
    }
  }

  void AddExpandedBlock(const ExpandedTile& tile, uint32_t first_row, uint32_t begin,
                        uint32_t key_count, MlaScratch& scratch) const {
    const auto row_count = static_cast<uint32_t>(tile.rows.size());
    // Rows that see only part of the block, some at a time, so that few scores are in vain.
    constexpr uint32_t kScoreGroup = 16;
    for (uint32_t row = first_row; row < row_count;) {
      const bool all = tile.rows[row].position >= begin + key_count - 1;
      const uint32_t end = all ? row_count : std::min(row + kScoreGroup, row_count);
      const uint32_t seen = std::min(key_count, tile.rows[end - 1].position - begin + 1);
      kernels.gemm({.x = tile.queries + row * tile.query_stride,
                    .x_stride = tile.query_stride,
                    .row_count = end - row,
                    .w = {.data = scratch.keys.data(),
                          .dtype = Dtype::kF32,
                          .rows = seen,
                          .columns = spec.qk_dim()},
                    .y = scratch.scores.data() + size_t{row} * kKeyBlock,
                    .y_stride = kKeyBlock,
                    .column_end = seen});
      row = end;
    }
    const auto keys_of = [&](uint32_t row) {
      return std::min(key_count, tile.rows[row].position - begin + 1);
    };
    for (uint32_t row = first_row; row < row_count; ++row) {
      AdvanceSoftmax(row, keys_of(row), {tile.values + row * tile.value_stride, spec.value_dim},
                     scratch);
    }
    // Rows share the keys that all of a group see; each then adds the rest of its own. Either way a
    // row's terms are added one by one in ascending order.
    constexpr uint32_t kGroup = 8;
    for (uint32_t row = first_row; row < row_count; row += kGroup) {
      const uint32_t group_end = std::min(row + kGroup, row_count);
      const uint32_t common = keys_of(row);
      AddValues(tile, {row, group_end}, {0, common}, scratch);
      for (uint32_t r = row + 1; r < group_end; ++r) {
        AddValues(tile, {r, r + 1}, {common, keys_of(r)}, scratch);
      }
    }
  }

  using Range = std::pair<uint32_t, uint32_t>;  // [first, second)

  void AddValues(const ExpandedTile& tile, Range rows, Range keys, MlaScratch& scratch) const {
    if (keys.first == keys.second) {
      return;
    }
    kernels.weighted_sum(
        {.weights = scratch.scores.data() + size_t{rows.first} * kKeyBlock + keys.first,
         .weight_stride = kKeyBlock,
         .row_count = rows.second - rows.first,
         .term_count = keys.second - keys.first,
         .x = scratch.block_values.data() + size_t{keys.first} * spec.value_dim,
         .dtype = Dtype::kF32,
         .x_stride = spec.value_dim,
         .y = tile.values + rows.first * tile.value_stride,
         .y_stride = tile.value_stride,
         .count = spec.value_dim});
  }
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_MODEL_INTERNAL_MLA_WALK_H_
