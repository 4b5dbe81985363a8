#include "libs/model/mla_attention.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <vector>

#include "libs/base/check.h"
#include "libs/model/internal/mla_walk.h"
#include "libs/model/rope.h"

namespace switchyard {
namespace {

// The published code builds the norms of both latents with the constructor's default, not with
// config.json's rms_norm_eps.
constexpr float kLatentNormEpsilon = 1e-6F;

// Below this many multiply-adds a hand-over to other threads costs more than it saves.
constexpr uint64_t kParallelWorkMin = 400'000;

// Heads of one row that walk the cached rows together in the absorbed form.
constexpr uint32_t kHeadsPerTile = 16;

// Adjacent rows of one step that are computed in the same form.
struct RowRun {
  uint32_t first_row = 0;
  uint32_t row_count = 0;
};

}  // namespace

class MlaAttention::Impl {
 public:
  Impl(const ModelSpec& spec, const RouterWeights& weights, const Kernels& kernels)
      : spec_(spec),
        weights_(weights),
        kernels_(kernels),
        softmax_scale_(SoftmaxScale(spec)),
        rope_(spec),
        inline_pool_(1) {}

  void SetComputePool(ComputePool* pool) { pool_ = pool == nullptr ? &inline_pool_ : pool; }

  void Run(LayerId layer_id, std::span<const AttentionRow> rows, const float* x, float* out,
           KvStorage& cache) {
    if (rows.empty()) {
      return;
    }
    layer_index_ = layer_id.value();
    SY_CHECK(layer_index_ < weights_.layers.size());
    SY_CHECK(cache.layout().latent_dim == spec_.latent_dim());
    const LayerWeights& layer = weights_.layers[layer_index_];
    const auto row_count = static_cast<uint32_t>(rows.size());
    ProjectQueriesAndLatents(layer, row_count, x);
    FinishQueries(rows);
    StoreLatents(layer, rows, cache);
    Attend(layer, rows, cache);
    Multiply(Prepare(layer.o_proj, values_.data(), row_count), layer.o_proj, layer.o_bias, out);
  }

 private:
  size_t QueryStride() const { return size_t{spec_.head_count} * spec_.qk_dim(); }

  size_t ValueStride() const { return size_t{spec_.head_count} * spec_.value_dim; }

  size_t LatentQueryStride() const { return size_t{spec_.head_count} * spec_.latent_dim(); }

  // Rows of w.columns in the form that w wants.
  ActivationView Prepare(const PackedMatrix& w, const float* x, uint32_t row_count) {
    return PrepareRows(kernels_, *pool_,
                       {.form = FormFor(w.format),
                        .x = x,
                        .x_stride = w.columns,
                        .row_count = row_count,
                        .columns = w.columns},
                       prepared_);
  }

  // y: [rows of x][w.rows]; an empty bias is none.
  void Multiply(const ActivationView& x, const PackedMatrix& w, const std::vector<float>& bias,
                float* y) {
    ParallelPackedGemm(kernels_, *pool_,
                       {.x = x,
                        .w = w,
                        .bias = bias.empty() ? nullptr : bias.data(),
                        .y = y,
                        .y_stride = w.rows,
                        .column_end = w.rows});
  }

  void RunTiles(uint32_t tile_count, uint64_t work, const std::function<void(uint32_t)>& tile) {
    if (work >= kParallelWorkMin) {
      pool_->Run(tile_count, tile);
      return;
    }
    for (uint32_t i = 0; i < tile_count; ++i) {
      tile(i);
    }
  }

  // Fills queries_ [row][head][qk_dim] and latents_ [row][latent_dim], as projected.
  void ProjectQueriesAndLatents(const LayerWeights& layer, uint32_t row_count, const float* x) {
    queries_.resize(row_count * QueryStride());
    latents_.resize(size_t{row_count} * spec_.latent_dim());
    const PackedMatrix& first = spec_.q_lora_rank > 0 ? layer.q_a_proj : layer.q_proj;
    ActivationView prepared = Prepare(first, x, row_count);
    if (FormFor(first.format) != FormFor(layer.kv_a_proj.format)) {
      Multiply(Prepare(layer.kv_a_proj, x, row_count), layer.kv_a_proj, layer.kv_a_bias,
               latents_.data());
      prepared = Prepare(first, x, row_count);
    } else {
      Multiply(prepared, layer.kv_a_proj, layer.kv_a_bias, latents_.data());
    }
    if (spec_.q_lora_rank == 0) {
      Multiply(prepared, layer.q_proj, {}, queries_.data());
      return;
    }
    query_latents_.resize(size_t{row_count} * spec_.q_lora_rank);
    Multiply(prepared, layer.q_a_proj, layer.q_a_bias, query_latents_.data());
    for (uint32_t row = 0; row < row_count; ++row) {
      float* const latent = query_latents_.data() + size_t{row} * spec_.q_lora_rank;
      kernels_.rms_norm(latent, layer.q_a_norm.data(), kLatentNormEpsilon, latent,
                        spec_.q_lora_rank);
    }
    Multiply(Prepare(layer.q_b_proj, query_latents_.data(), row_count), layer.q_b_proj, {},
             queries_.data());
  }

  // Scales queries_ and rotates their rotary part.
  void FinishQueries(std::span<const AttentionRow> rows) {
    const auto row_count = static_cast<uint32_t>(rows.size());
    for (uint32_t row = 0; row < row_count; ++row) {
      rope_.Extend(rows[row].position + 1);
      float* const query = queries_.data() + row * QueryStride();
      kernels_.scale(softmax_scale_, query, QueryStride());
      for (uint32_t head = 0; head < spec_.head_count; ++head) {
        RotateInPlace(rows[row].position, query + head * spec_.qk_dim() + spec_.nope_dim);
      }
    }
  }

  void RotateInPlace(uint32_t position, float* x) {
    rotary_.assign(x, x + spec_.rope_dim);
    rope_.Rotate(position, rotary_.data(), x);
  }

  // What the cache keeps of each row: the normed latent and the rotated key, rounded to its dtype.
  void StoreLatents(const LayerWeights& layer, std::span<const AttentionRow> rows,
                    KvStorage& cache) {
    const uint32_t latent_dim = spec_.latent_dim();
    const uint32_t block_size = cache.layout().block_size;
    for (size_t row = 0; row < rows.size(); ++row) {
      float* const latent = latents_.data() + row * latent_dim;
      const uint32_t position = rows[row].position;
      kernels_.rms_norm(latent, layer.kv_a_norm.data(), kLatentNormEpsilon, latent,
                        spec_.kv_lora_rank);
      RotateInPlace(position, latent + spec_.kv_lora_rank);
      SY_CHECK(position / block_size < rows[row].blocks.size());
      const BlockId block = rows[row].blocks[position / block_size];
      void* const stored = cache.Row(layer_index_, block, position % block_size);
      if (cache.layout().dtype == Dtype::kBf16) {
        kernels_.f32_to_bf16(latent, static_cast<uint16_t*>(stored), latent_dim);
      } else {
        std::memcpy(stored, latent, latent_dim * sizeof(float));
      }
    }
  }

  // Fills values_: [row][head][value_dim].
  void Attend(const LayerWeights& layer, std::span<const AttentionRow> rows,
              const KvStorage& cache) {
    values_.resize(rows.size() * ValueStride());
    PlanRuns(rows);
    const internal::MlaWalk walk{.spec = spec_,
                                 .kernels = kernels_,
                                 .cache = cache,
                                 .inline_pool = inline_pool_,
                                 .layer_index = layer_index_};
    uint64_t absorbed_keys = 0;
    for (const uint32_t row : absorbed_rows_) {
      absorbed_keys += rows[row].position + 1;
    }
    const uint64_t move_work =
        absorbed_rows_.size() * uint64_t{spec_.head_count} * spec_.kv_lora_rank * spec_.nope_dim;
    if (!absorbed_rows_.empty()) {
      latent_queries_.resize(absorbed_rows_.size() * LatentQueryStride());
      latent_values_.resize(absorbed_rows_.size() * size_t{spec_.head_count} * spec_.kv_lora_rank);
      RunTiles(spec_.head_count, move_work,
               [&](uint32_t head) { MoveQueriesIntoLatentSpace(layer, head); });
    }

    // Expanded tiles first: they are the long ones.
    const uint32_t head_tiles = (spec_.head_count + kHeadsPerTile - 1) / kHeadsPerTile;
    const auto expanded_tiles = static_cast<uint32_t>(expanded_runs_.size()) * spec_.head_count;
    const auto absorbed_tiles = static_cast<uint32_t>(absorbed_rows_.size()) * head_tiles;
    const uint64_t work =
        expanded_tiles > 0 ? kParallelWorkMin : absorbed_keys * LatentQueryStride() * 2;
    RunTiles(expanded_tiles + absorbed_tiles, work, [&](uint32_t tile) {
      if (tile < expanded_tiles) {
        AttendExpanded(walk, layer, rows, tile);
      } else {
        AttendAbsorbed(walk, rows, tile - expanded_tiles);
      }
    });
    if (!absorbed_rows_.empty()) {
      RunTiles(spec_.head_count, move_work,
               [&](uint32_t head) { MakeValuesFromLatents(layer, head); });
    }
  }

  void PlanRuns(std::span<const AttentionRow> rows) {
    absorbed_rows_.clear();
    absorbed_runs_.clear();
    expanded_runs_.clear();
    for (uint32_t row = 0; row < rows.size(); ++row) {
      const bool expanded = rows[row].expanded;
      const bool joins = row > 0 && rows[row - 1].expanded == expanded &&
                         (!expanded || rows[row - 1].sequence_index == rows[row].sequence_index);
      std::vector<RowRun>& runs = expanded ? expanded_runs_ : absorbed_runs_;
      if (!joins) {
        runs.push_back({.first_row = row});
      }
      ++runs.back().row_count;
      if (!expanded) {
        absorbed_rows_.push_back(row);
      }
    }
  }

  // latent_queries_: [absorbed row][head][W_UK q_nope | q_rope].
  void MoveQueriesIntoLatentSpace(const LayerWeights& layer, uint32_t head) {
    const PackedMatrix& key_weights = layer.heads[head].key_turned;
    internal::ScratchLease lease(scratch_);
    float* target = latent_queries_.data() + size_t{head} * spec_.latent_dim();
    for (const RowRun& run : absorbed_runs_) {
      const float* query =
          queries_.data() + run.first_row * QueryStride() + size_t{head} * spec_.qk_dim();
      const ActivationView prepared = PrepareRows(kernels_, inline_pool_,
                                                  {.form = FormFor(key_weights.format),
                                                   .x = query,
                                                   .x_stride = QueryStride(),
                                                   .row_count = run.row_count,
                                                   .columns = spec_.nope_dim},
                                                  (*lease).prepared);
      PackedGemm(kernels_, {.x = prepared,
                            .w = key_weights,
                            .y = target,
                            .y_stride = LatentQueryStride(),
                            .column_end = spec_.kv_lora_rank});
      for (uint32_t i = 0; i < run.row_count; ++i) {
        std::memcpy(target + spec_.kv_lora_rank, query + spec_.nope_dim,
                    spec_.rope_dim * sizeof(float));
        query += QueryStride();
        target += LatentQueryStride();
      }
    }
  }

  // values_ of the absorbed rows from latent_values_.
  void MakeValuesFromLatents(const LayerWeights& layer, uint32_t head) {
    const PackedMatrix& value_weights = layer.heads[head].value;
    const size_t latent_stride = size_t{spec_.head_count} * spec_.kv_lora_rank;
    const float* source = latent_values_.data() + size_t{head} * spec_.kv_lora_rank;
    internal::ScratchLease lease(scratch_);
    for (const RowRun& run : absorbed_runs_) {
      const ActivationView prepared = PrepareRows(kernels_, inline_pool_,
                                                  {.form = FormFor(value_weights.format),
                                                   .x = source,
                                                   .x_stride = latent_stride,
                                                   .row_count = run.row_count,
                                                   .columns = spec_.kv_lora_rank},
                                                  (*lease).prepared);
      PackedGemm(kernels_, {.x = prepared,
                            .w = value_weights,
                            .y = values_.data() + run.first_row * ValueStride() +
                                 size_t{head} * spec_.value_dim,
                            .y_stride = ValueStride(),
                            .column_end = spec_.value_dim});
      source += run.row_count * latent_stride;
    }
  }

  void AttendExpanded(const internal::MlaWalk& walk, const LayerWeights& layer,
                      std::span<const AttentionRow> rows, uint32_t tile) {
    const RowRun& run = expanded_runs_[tile / spec_.head_count];
    const uint32_t head = tile % spec_.head_count;
    internal::ScratchLease scratch(scratch_);
    walk.Expanded(
        {.rows = rows.subspan(run.first_row, run.row_count),
         .weights = layer.heads[head],
         .queries = queries_.data() + run.first_row * QueryStride() + size_t{head} * spec_.qk_dim(),
         .query_stride = QueryStride(),
         .values = values_.data() + run.first_row * ValueStride() + size_t{head} * spec_.value_dim,
         .value_stride = ValueStride()},
        *scratch);
  }

  void AttendAbsorbed(const internal::MlaWalk& walk, std::span<const AttentionRow> rows,
                      uint32_t tile) {
    const uint32_t head_tiles = (spec_.head_count + kHeadsPerTile - 1) / kHeadsPerTile;
    const size_t index = tile / head_tiles;
    const uint32_t head = tile % head_tiles * kHeadsPerTile;
    const size_t first_head = index * spec_.head_count + head;
    internal::ScratchLease scratch(scratch_);
    walk.Absorbed({.row = rows[absorbed_rows_[index]],
                   .head_count = std::min(kHeadsPerTile, spec_.head_count - head),
                   .latent_queries = latent_queries_.data() + first_head * spec_.latent_dim(),
                   .latent_values = latent_values_.data() + first_head * spec_.kv_lora_rank},
                  *scratch);
  }

  const ModelSpec& spec_;
  const RouterWeights& weights_;
  const Kernels& kernels_;
  const float softmax_scale_;
  RopeTable rope_;
  ComputePool inline_pool_;
  ComputePool* pool_ = &inline_pool_;

  // Of the running step; kept for their memory.
  uint32_t layer_index_ = 0;
  std::vector<float> queries_;
  std::vector<float> query_latents_;
  std::vector<float> latents_;
  std::vector<float> rotary_;
  std::vector<float> values_;
  std::vector<float> latent_queries_;
  std::vector<float> latent_values_;  // [absorbed row][head][kv_lora_rank]
  std::vector<uint32_t> absorbed_rows_;
  std::vector<RowRun> absorbed_runs_;
  std::vector<RowRun> expanded_runs_;
  ActivationBuffer prepared_;
  internal::ScratchStack scratch_;
};

MlaAttention::MlaAttention(const ModelSpec& spec, const RouterWeights& weights,
                           const Kernels& kernels)
    : impl_(std::make_unique<Impl>(spec, weights, kernels)) {}

MlaAttention::~MlaAttention() = default;

void MlaAttention::Run(LayerId layer, std::span<const AttentionRow> rows, const float* x,
                       float* out, KvStorage& cache) {
  impl_->Run(layer, rows, x, out, cache);
}

void MlaAttention::SetComputePool(ComputePool* pool) { impl_->SetComputePool(pool); }

}  // namespace switchyard
