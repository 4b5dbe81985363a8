#include "libs/model/mla_attention.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

#include "libs/base/check.h"
#include "libs/model/internal/mla_walk.h"
#include "libs/model/rope.h"

namespace switchyard {
namespace {

// The published code builds the norms of both latents with the constructor's default, not with
// config.json's rms_norm_eps.
constexpr float kLatentNormEpsilon = 1e-6F;

// Heads of one row that walk the cached rows together in the absorbed form.
constexpr uint32_t kHeadsPerTile = 16;

// Adjacent rows of one step that are computed in the same form.
struct RowRun {
  uint32_t first_row = 0;
  uint32_t row_count = 0;
};

uint32_t CeilDivide(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

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
    ProjectDown(layer, row_count, x);
    FinishLatents(layer, rows, cache);
    if (spec_.q_lora_rank > 0) {
      Multiply(layer.q_b_proj, query_latents_.data(), row_count, {}, queries_.data());
    }
    Attend(layer, rows, cache);
    Multiply(layer.o_proj, values_.data(), row_count, layer.o_bias, out);
  }

 private:
  size_t QueryStride() const { return size_t{spec_.head_count} * spec_.qk_dim(); }

  size_t LatentQueryStride() const { return size_t{spec_.head_count} * spec_.latent_dim(); }

  size_t LatentValueStride() const { return size_t{spec_.head_count} * spec_.kv_lora_rank; }

  size_t ValueStride() const { return size_t{spec_.head_count} * spec_.value_dim; }

  // Rows of w.columns in the form that w wants.
  ActivationView Prepare(const PackedMatrix& w, const float* x, uint32_t row_count,
                         ActivationBuffer& buffer) {
    return PrepareRows(kernels_, *pool_,
                       {.form = FormFor(w.format),
                        .x = x,
                        .x_stride = w.columns,
                        .row_count = row_count,
                        .columns = w.columns},
                       buffer);
  }

  // What makes y [row][w.rows]; an empty bias is none.
  static PackedGemmArgs Product(const ActivationView& x, const PackedMatrix& w,
                                const std::vector<float>& bias, float* y) {
    return {.x = x,
            .w = w,
            .bias = bias.empty() ? nullptr : bias.data(),
            .y = y,
            .y_stride = w.rows,
            .column_end = w.rows};
  }

  // y [row][w.rows] from x [row][w.columns].
  void Multiply(const PackedMatrix& w, const float* x, uint32_t row_count,
                const std::vector<float>& bias, float* y) {
    ParallelPackedGemm(kernels_, *pool_, Product(Prepare(w, x, row_count, prepared_), w, bias, y));
  }

  // All products with x: fills latents_ [row][latent_dim] and query_latents_ [row][q_lora_rank]
  // (or, without a low rank, queries_ [row][head][qk_dim]) as projected.
  void ProjectDown(const LayerWeights& layer, uint32_t row_count, const float* x) {
    const bool low_rank = spec_.q_lora_rank > 0;
    queries_.resize(row_count * QueryStride());
    latents_.resize(size_t{row_count} * spec_.latent_dim());
    query_latents_.resize(size_t{row_count} * spec_.q_lora_rank);
    const PackedMatrix& first = low_rank ? layer.q_a_proj : layer.q_proj;
    const ActivationView prepared = Prepare(first, x, row_count, prepared_);
    const ActivationView latent_prepared =
        FormFor(first.format) == FormFor(layer.kv_a_proj.format)
            ? prepared
            : Prepare(layer.kv_a_proj, x, row_count, latent_prepared_);
    const std::array<PackedGemmArgs, 2> products = {
        Product(prepared, first, low_rank ? layer.q_a_bias : no_bias_,
                low_rank ? query_latents_.data() : queries_.data()),
        Product(latent_prepared, layer.kv_a_proj, layer.kv_a_bias, latents_.data())};
    ParallelPackedGemms(kernels_, *pool_, products);
  }

  // Norms the latents of the queries; finishes those of the keys and stores them.
  void FinishLatents(const LayerWeights& layer, std::span<const AttentionRow> rows,
                     KvStorage& cache) {
    for (const AttentionRow& row : rows) {
      rope_.Extend(row.position + 1);
    }
    const size_t value_count = rows.size() * (size_t{spec_.q_lora_rank} + spec_.latent_dim());
    RunRowTiles(*pool_, static_cast<uint32_t>(rows.size()), 2 * PassNs(value_count),
                [&](uint32_t begin, uint32_t end) {
                  internal::ScratchLease scratch(scratch_);
                  for (uint32_t row = begin; row < end; ++row) {
                    NormQueryLatent(layer, row);
                    StoreLatent(layer, rows[row], latents_.data() + row * spec_.latent_dim(),
                                {cache, *scratch});
                  }
                });
  }

  void NormQueryLatent(const LayerWeights& layer, uint32_t row) {
    if (spec_.q_lora_rank == 0) {
      return;
    }
    float* const latent = query_latents_.data() + size_t{row} * spec_.q_lora_rank;
    kernels_.rms_norm(latent, layer.q_a_norm.data(), kLatentNormEpsilon, latent, spec_.q_lora_rank);
  }

  struct StoreTarget {
    KvStorage& cache;
    internal::MlaScratch& scratch;
  };

  // What the cache keeps of a row: the normed latent and the rotated key, rounded to its dtype.
  void StoreLatent(const LayerWeights& layer, const AttentionRow& row, float* latent,
                   const StoreTarget& target) {
    KvStorage& cache = target.cache;
    const uint32_t latent_dim = spec_.latent_dim();
    const uint32_t block_size = cache.layout().block_size;
    kernels_.rms_norm(latent, layer.kv_a_norm.data(), kLatentNormEpsilon, latent,
                      spec_.kv_lora_rank);
    RotateInPlace(row.position, latent + spec_.kv_lora_rank, target.scratch);
    SY_CHECK(row.position / block_size < row.blocks.size());
    const BlockId block = row.blocks[row.position / block_size];
    void* const stored = cache.Row(layer_index_, block, row.position % block_size);
    if (cache.layout().dtype == Dtype::kBf16) {
      kernels_.f32_to_bf16(latent, static_cast<uint16_t*>(stored), latent_dim);
    } else {
      std::memcpy(stored, latent, latent_dim * sizeof(float));
    }
  }

  void RotateInPlace(uint32_t position, float* x, internal::MlaScratch& scratch) const {
    scratch.rotary.assign(x, x + spec_.rope_dim);
    rope_.Rotate(position, scratch.rotary.data(), x);
  }

  // Scales the queries of a run and one head and rotates their rotary part.
  void FinishQueries(std::span<const AttentionRow> rows, const RowRun& run, uint32_t head,
                     internal::MlaScratch& scratch) {
    for (uint32_t row = run.first_row; row < run.first_row + run.row_count; ++row) {
      float* const query = QueryOf(row, head);
      kernels_.scale(softmax_scale_, query, spec_.qk_dim());
      RotateInPlace(rows[row].position, query + spec_.nope_dim, scratch);
    }
  }

  float* QueryOf(uint32_t row, uint32_t head) {
    return queries_.data() + row * QueryStride() + size_t{head} * spec_.qk_dim();
  }

  float* ValueOf(uint32_t row, uint32_t head) {
    return values_.data() + row * ValueStride() + size_t{head} * spec_.value_dim;
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
    latent_queries_.resize(absorbed_rows_.size() * LatentQueryStride());
    latent_values_.resize(absorbed_rows_.size() * LatentValueStride());
    const uint32_t head_count = absorbed_rows_.empty() ? 0 : spec_.head_count;
    const uint32_t head_tiles = CeilDivide(spec_.head_count, kHeadsPerTile);
    const auto expanded_tiles = static_cast<uint32_t>(expanded_runs_.size()) * spec_.head_count;
    const auto absorbed_tiles = static_cast<uint32_t>(absorbed_rows_.size()) * head_tiles;
    const std::array<uint32_t, 3> tile_counts = {head_count, expanded_tiles + absorbed_tiles,
                                                 head_count};
    RunPhases(*pool_, tile_counts, AttendNs(layer, rows), [&](uint32_t phase, uint32_t tile) {
      internal::ScratchLease scratch(scratch_);
      if (phase == 0) {
        MoveQueries(walk, layer, rows, {tile, *scratch});
      } else if (phase == 2) {
        MakeValues(walk, layer, {tile, *scratch});
      } else if (tile < expanded_tiles) {  // First: they are the long ones.
        AttendExpanded(walk, layer, rows, {tile, *scratch});
      } else {
        AttendAbsorbed(walk, rows, {tile - expanded_tiles, *scratch});
      }
    });
  }

  struct Tile {
    uint32_t index = 0;
    internal::MlaScratch& scratch;
  };

  // What one thread would take for the planned runs.
  uint64_t AttendNs(const LayerWeights& layer, std::span<const AttentionRow> rows) const {
    const internal::MlaHeadCost cost{.spec = spec_, .weights = layer.heads[0]};
    uint64_t work_ns = 0;
    for (const RowRun& run : expanded_runs_) {
      const uint64_t key_count = rows[run.first_row + run.row_count - 1].position + 1;
      work_ns += cost.ExpandedNs(run.row_count, key_count);
    }
    uint64_t key_count = 0;
    for (const uint32_t row : absorbed_rows_) {
      key_count += rows[row].position + 1;
    }
    if (!absorbed_rows_.empty()) {
      work_ns += cost.AbsorbedNs(absorbed_rows_.size(), key_count);
    }
    return spec_.head_count * work_ns;
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

  // One head of latent_queries_ from queries_.
  void MoveQueries(const internal::MlaWalk& walk, const LayerWeights& layer,
                   std::span<const AttentionRow> rows, const Tile& tile) {
    const uint32_t head = tile.index;
    float* target = latent_queries_.data() + size_t{head} * spec_.latent_dim();
    for (const RowRun& run : absorbed_runs_) {
      FinishQueries(rows, run, head, tile.scratch);
      walk.MoveQueries({.weights = layer.heads[head],
                        .row_count = run.row_count,
                        .source = QueryOf(run.first_row, head),
                        .source_stride = QueryStride(),
                        .target = target,
                        .target_stride = LatentQueryStride()},
                       tile.scratch);
      target += run.row_count * LatentQueryStride();
    }
  }

  // One head of the absorbed rows' values_ from latent_values_.
  void MakeValues(const internal::MlaWalk& walk, const LayerWeights& layer, const Tile& tile) {
    const uint32_t head = tile.index;
    const float* source = latent_values_.data() + size_t{head} * spec_.kv_lora_rank;
    for (const RowRun& run : absorbed_runs_) {
      walk.MakeValues({.weights = layer.heads[head],
                       .row_count = run.row_count,
                       .source = source,
                       .source_stride = LatentValueStride(),
                       .target = ValueOf(run.first_row, head),
                       .target_stride = ValueStride()},
                      tile.scratch);
      source += run.row_count * LatentValueStride();
    }
  }

  void AttendExpanded(const internal::MlaWalk& walk, const LayerWeights& layer,
                      std::span<const AttentionRow> rows, const Tile& tile) {
    const RowRun& run = expanded_runs_[tile.index / spec_.head_count];
    const uint32_t head = tile.index % spec_.head_count;
    FinishQueries(rows, run, head, tile.scratch);
    walk.Expanded({.rows = rows.subspan(run.first_row, run.row_count),
                   .weights = layer.heads[head],
                   .queries = QueryOf(run.first_row, head),
                   .query_stride = QueryStride(),
                   .values = ValueOf(run.first_row, head),
                   .value_stride = ValueStride()},
                  tile.scratch);
  }

  void AttendAbsorbed(const internal::MlaWalk& walk, std::span<const AttentionRow> rows,
                      const Tile& tile) {
    const uint32_t head_tiles = CeilDivide(spec_.head_count, kHeadsPerTile);
    const size_t index = tile.index / head_tiles;
    const uint32_t head = tile.index % head_tiles * kHeadsPerTile;
    walk.Absorbed({.row = rows[absorbed_rows_[index]],
                   .head_count = std::min(kHeadsPerTile, spec_.head_count - head),
                   .latent_queries = latent_queries_.data() + index * LatentQueryStride() +
                                     size_t{head} * spec_.latent_dim(),
                   .latent_values = latent_values_.data() + index * LatentValueStride() +
                                    size_t{head} * spec_.kv_lora_rank},
                  tile.scratch);
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
  std::vector<float> values_;
  std::vector<float> latent_queries_;  // [absorbed row][head][W_UK q_nope | q_rope]
  std::vector<float> latent_values_;   // [absorbed row][head][kv_lora_rank]
  std::vector<uint32_t> absorbed_rows_;
  std::vector<RowRun> absorbed_runs_;
  std::vector<RowRun> expanded_runs_;
  const std::vector<float> no_bias_;
  ActivationBuffer prepared_;
  ActivationBuffer latent_prepared_;  // Only where q and kv have formats of different forms.
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
