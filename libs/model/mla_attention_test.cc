#include "libs/model/mla_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/kernels/kernels.h"
#include "libs/kvcache/kv_storage.h"
#include "libs/model/checkpoint.h"
#include "libs/model/model_spec.h"
#include "libs/model/rope.h"
#include "libs/tensor/dtype.h"

namespace switchyard {
namespace {

ModelSpec TinySpec() {
  ModelSpec spec;
  spec.hidden_size = 40;
  spec.layer_count = 2;
  spec.head_count = 3;
  spec.q_lora_rank = 24;
  spec.kv_lora_rank = 20;
  spec.nope_dim = 12;
  spec.rope_dim = 8;
  spec.value_dim = 10;
  spec.attention_bias = true;
  spec.rms_norm_epsilon = 1e-2F;  // Must not reach the latents' norms.
  spec.positions_max = 512;
  spec.yarn = YarnSpec{.factor = 4.0,
                       .original_max_positions = 64,
                       .beta_fast = 4.0,
                       .beta_slow = 1.0,
                       .mscale = 0.7,
                       .mscale_all_dim = 1.0};
  return spec;
}

// Random weights of every layer; owns what the views point to.
class TestWeights {
 public:
  TestWeights(const ModelSpec& spec, Dtype dtype, uint64_t seed) : dtype_(dtype), rng_(seed) {
    const uint32_t heads = spec.head_count;
    for (uint32_t i = 0; i < spec.layer_count; ++i) {
      LayerWeights layer;
      if (spec.q_lora_rank > 0) {
        layer.q_a_proj = Matrix(spec.q_lora_rank, spec.hidden_size);
        layer.q_a_norm = Vector(spec.q_lora_rank, 1.0F, 0.3F);
        layer.q_b_proj = Matrix(heads * spec.qk_dim(), spec.q_lora_rank);
      } else {
        layer.q_proj = Matrix(heads * spec.qk_dim(), spec.hidden_size);
      }
      layer.kv_a_proj = Matrix(spec.latent_dim(), spec.hidden_size);
      layer.kv_a_norm = Vector(spec.kv_lora_rank, 1.0F, 0.3F);
      layer.heads = PackMlaHeads(
          spec, Stored(heads * (spec.nope_dim + spec.value_dim), spec.kv_lora_rank), arena_);
      layer.o_proj = Matrix(spec.hidden_size, heads * spec.value_dim);
      if (spec.attention_bias) {
        layer.q_a_bias = Vector(spec.q_lora_rank, 0.0F, 0.2F);
        layer.kv_a_bias = Vector(spec.latent_dim(), 0.0F, 0.2F);
        layer.o_bias = Vector(spec.hidden_size, 0.0F, 0.2F);
      }
      weights.layers.push_back(std::move(layer));
    }
  }

  RouterWeights weights;

 private:
  std::vector<float> Vector(uint32_t count, float center, float spread) {
    std::vector<float> values(count);
    for (float& value : values) {
      value = center + spread * (2.0F * rng_.Unit() - 1.0F);
    }
    return values;
  }

  PackedMatrix Matrix(uint32_t rows, uint32_t columns) {
    const StoredMatrix stored = Stored(rows, columns);
    return arena_.Add(stored, stored.format);
  }

  StoredMatrix Stored(uint32_t rows, uint32_t columns) {
    const float spread = 2.0F / std::sqrt(static_cast<float>(columns));
    const std::vector<float> values = Vector(rows * columns, 0.0F, spread);
    std::vector<std::byte>& bytes = storage_.emplace_back(values.size() * BytesOf(dtype_));
    if (dtype_ == Dtype::kF32) {
      std::memcpy(bytes.data(), values.data(), bytes.size());
    } else {
      for (size_t i = 0; i < values.size(); ++i) {
        const uint16_t bits = F32ToBf16(values[i]);
        std::memcpy(bytes.data() + 2 * i, &bits, 2);
      }
    }
    return StoredMatrix::Plain(
        {.data = bytes.data(), .dtype = dtype_, .rows = rows, .columns = columns});
  }

  Dtype dtype_;
  Rng rng_;
  std::deque<std::vector<std::byte>> storage_;
  WeightArena arena_{size_t{1} << 20};
};

using Doubles = std::vector<double>;

Doubles Multiply(const PackedMatrix& matrix, const Doubles& x, const std::vector<float>& bias) {
  Doubles y(matrix.rows, 0.0);
  std::vector<float> values(matrix.columns);
  for (uint32_t row = 0; row < matrix.rows; ++row) {
    UnpackRow(matrix, row, values.data());
    for (size_t column = 0; column < matrix.columns; ++column) {
      y[row] += static_cast<double>(values[column]) * x[column];
    }
    if (!bias.empty()) {
      y[row] += static_cast<double>(bias[row]);
    }
  }
  return y;
}

Doubles Norm(Doubles x, const std::vector<float>& weight) {
  const double squares = std::inner_product(x.begin(), x.end(), x.begin(), 0.0);
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + 1e-6);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] *= scale * static_cast<double>(weight[i]);
  }
  return x;
}

Doubles Slice(const Doubles& x, size_t first, size_t count) {
  const auto begin = x.begin() + static_cast<ptrdiff_t>(first);
  return {begin, begin + static_cast<ptrdiff_t>(count)};
}

// The slow twin: plain attention in doubles over all positions of one sequence, with keys and
// values made from every latent. Knows no cache, blocks or forms.
class Twin {
 public:
  Twin(const ModelSpec& spec, const LayerWeights& layer, Dtype cache_dtype)
      : spec_(spec), layer_(layer), cache_dtype_(cache_dtype), rope_(spec) {}

  std::vector<Doubles> Run(const std::vector<float>& x) {
    const size_t count = x.size() / spec_.hidden_size;
    rope_.Extend(static_cast<uint32_t>(count));
    for (size_t p = 0; p < count; ++p) {
      const float* row = x.data() + p * spec_.hidden_size;
      AddPosition(static_cast<uint32_t>(p), Doubles(row, row + spec_.hidden_size));
    }
    std::vector<Doubles> outputs;
    for (size_t p = 0; p < count; ++p) {
      Doubles joined;
      for (uint32_t head = 0; head < spec_.head_count; ++head) {
        const Doubles value = AttendOne(p, head);
        joined.insert(joined.end(), value.begin(), value.end());
      }
      outputs.push_back(Multiply(layer_.o_proj, joined, layer_.o_bias));
    }
    return outputs;
  }

 private:
  Doubles Rotated(uint32_t position, const Doubles& x) const {
    const std::vector<float> in(x.begin(), x.end());
    std::vector<float> out(in.size());
    rope_.Rotate(position, in.data(), out.data());
    return {out.begin(), out.end()};
  }

  void AddPosition(uint32_t position, const Doubles& x) {
    Doubles query =
        layer_.q_proj.empty()
            ? Multiply(layer_.q_b_proj,
                       Norm(Multiply(layer_.q_a_proj, x, layer_.q_a_bias), layer_.q_a_norm), {})
            : Multiply(layer_.q_proj, x, {});
    for (uint32_t head = 0; head < spec_.head_count; ++head) {
      const size_t first = head * spec_.qk_dim() + spec_.nope_dim;
      const Doubles rotated = Rotated(position, Slice(query, first, spec_.rope_dim));
      std::copy(rotated.begin(), rotated.end(), query.begin() + static_cast<ptrdiff_t>(first));
    }
    queries_.push_back(std::move(query));
    const Doubles compressed = Multiply(layer_.kv_a_proj, x, layer_.kv_a_bias);
    Doubles latent = Norm(Slice(compressed, 0, spec_.kv_lora_rank), layer_.kv_a_norm);
    Doubles key = Rotated(position, Slice(compressed, spec_.kv_lora_rank, spec_.rope_dim));
    for (Doubles* values : {&latent, &key}) {
      for (double& value : *values) {
        const auto narrow = static_cast<float>(value);
        value = static_cast<double>(cache_dtype_ == Dtype::kBf16 ? Bf16ToF32(F32ToBf16(narrow))
                                                                 : narrow);
      }
    }
    Doubles expanded;
    for (const MlaHeadWeights& head : layer_.heads) {
      for (const PackedMatrix& part : {head.key, head.value}) {
        const Doubles values = Multiply(part, latent, {});
        expanded.insert(expanded.end(), values.begin(), values.end());
      }
    }
    expanded_.push_back(std::move(expanded));
    rotary_keys_.push_back(std::move(key));
  }

  Doubles AttendOne(size_t position, uint32_t head) const {
    const size_t key_first = head * (spec_.nope_dim + spec_.value_dim);
    const Doubles query = Slice(queries_[position], head * spec_.qk_dim(), spec_.qk_dim());
    const auto scale = static_cast<double>(SoftmaxScale(spec_));
    Doubles weights;
    for (size_t p = 0; p <= position; ++p) {
      Doubles key = Slice(expanded_[p], key_first, spec_.nope_dim);
      key.insert(key.end(), rotary_keys_[p].begin(), rotary_keys_[p].end());
      weights.push_back(
          std::exp(scale * std::inner_product(query.begin(), query.end(), key.begin(), 0.0)));
    }
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    Doubles result(spec_.value_dim, 0.0);
    for (size_t p = 0; p <= position; ++p) {
      for (size_t d = 0; d < spec_.value_dim; ++d) {
        result[d] += weights[p] / total * expanded_[p][key_first + spec_.nope_dim + d];
      }
    }
    return result;
  }

  const ModelSpec& spec_;
  const LayerWeights& layer_;
  const Dtype cache_dtype_;
  RopeTable rope_;
  std::vector<Doubles> queries_;
  std::vector<Doubles> expanded_;
  std::vector<Doubles> rotary_keys_;
};

// One sequence: its inputs, how many of its positions are prompt, and where its blocks lie.
struct TestSequence {
  std::vector<float> x;
  uint32_t prompt_count = 0;
  std::vector<BlockId> blocks;
};

struct RunOptions {
  std::vector<uint32_t> chunks = {1000};  // Rows per step and sequence, repeated.
  uint32_t thread_count = 1;
  uint32_t block_size = 16;
  Dtype cache_dtype = Dtype::kBf16;
  uint64_t block_order_seed = 0;
  const Kernels* kernels = nullptr;
};

class MlaTest : public testing::Test {
 protected:
  explicit MlaTest(Dtype weight_dtype = Dtype::kF32)
      : spec_(TinySpec()), weights_(spec_, weight_dtype, 11) {}

  std::vector<float> RandomInput(uint32_t position_count, uint64_t seed) const {
    Rng rng(seed);
    std::vector<float> x(size_t{position_count} * spec_.hidden_size);
    for (float& value : x) {
      value = 4.0F * rng.Unit() - 2.0F;
    }
    return x;
  }

  uint32_t CountOf(const TestSequence& sequence) const {
    return static_cast<uint32_t>(sequence.x.size() / spec_.hidden_size);
  }

  // Gives each sequence blocks in a random physical order, disjoint from the others'.
  uint32_t AssignBlocks(std::vector<TestSequence>& sequences, const RunOptions& options) const {
    std::vector<size_t> owners;
    for (size_t s = 0; s < sequences.size(); ++s) {
      sequences[s].blocks.clear();
      owners.insert(owners.end(),
                    (CountOf(sequences[s]) + options.block_size - 1) / options.block_size, s);
    }
    std::vector<uint32_t> order(owners.size());
    std::iota(order.begin(), order.end(), 0U);
    Rng rng(options.block_order_seed);
    for (size_t i = order.size(); i > 1 && options.block_order_seed != 0; --i) {
      std::swap(order[i - 1], order[rng.Below(i)]);
    }
    for (size_t i = 0; i < owners.size(); ++i) {
      sequences[owners[i]].blocks.emplace_back(order[i]);
    }
    return static_cast<uint32_t>(owners.size());
  }

  // Runs all sequences, in steps that mix a chunk of each; outputs by sequence, [position][hidden].
  std::vector<std::vector<float>> Run(std::vector<TestSequence> sequences,
                                      const RunOptions& options) const {
    const uint32_t block_count = AssignBlocks(sequences, options);
    KvStorage cache({.layer_count = spec_.layer_count,
                     .latent_dim = spec_.latent_dim(),
                     .block_size = options.block_size,
                     .block_count = block_count,
                     .dtype = options.cache_dtype});
    MlaAttention attention(spec_, weights_.weights,
                           options.kernels == nullptr ? BestKernels() : *options.kernels);
    ComputePool pool(options.thread_count);
    attention.SetComputePool(&pool);
    std::vector<std::vector<float>> outputs(sequences.size());
    std::vector<uint32_t> done(sequences.size(), 0);
    for (size_t step = 0;; ++step) {
      const uint32_t chunk = options.chunks[step % options.chunks.size()];
      std::vector<AttentionRow> rows;
      std::vector<float> x;
      for (uint32_t s = 0; s < sequences.size(); ++s) {
        const TestSequence& sequence = sequences[s];
        const uint32_t end = std::min(done[s] + chunk, CountOf(sequence));
        for (uint32_t p = done[s]; p < end; ++p) {
          rows.push_back({.sequence_index = s,
                          .position = p,
                          .expanded = p < sequence.prompt_count,
                          .blocks = sequence.blocks});
        }
        x.insert(x.end(), sequence.x.begin() + done[s] * spec_.hidden_size,
                 sequence.x.begin() + end * spec_.hidden_size);
        done[s] = end;
      }
      if (rows.empty()) {
        return outputs;
      }
      std::vector<float> out(x.size());
      attention.Run(LayerId(1), rows, x.data(), out.data(), cache);
      for (size_t i = 0; i < rows.size(); ++i) {
        const auto row = out.begin() + static_cast<ptrdiff_t>(i * spec_.hidden_size);
        std::vector<float>& target = outputs[rows[i].sequence_index];
        target.insert(target.end(), row, row + spec_.hidden_size);
      }
    }
  }

  void ExpectNearTwin(uint32_t position_count, uint32_t prompt_count, const RunOptions& options) {
    const std::vector<float> x = RandomInput(position_count, 5);
    const auto outputs = Run({{.x = x, .prompt_count = prompt_count}}, options);
    Twin twin(spec_, weights_.weights.layers[1], options.cache_dtype);
    const std::vector<Doubles> expected = twin.Run(x);
    // A latent near a rounding border of BF16 may fall on either side of it.
    const double tolerance = options.cache_dtype == Dtype::kBf16 ? 2e-2 : 2e-5;
    double error_max = 0.0;
    for (size_t i = 0; i < outputs[0].size(); ++i) {
      const double want = expected[i / spec_.hidden_size][i % spec_.hidden_size];
      error_max = std::max(error_max, std::abs(want - static_cast<double>(outputs[0][i])));
    }
    EXPECT_LT(error_max, tolerance);
  }

  ModelSpec spec_;
  TestWeights weights_;
};

TEST_F(MlaTest, ExpandedFormAgreesWithPlainAttention) {
  ExpectNearTwin(150, 150, {.cache_dtype = Dtype::kF32});
  ExpectNearTwin(150, 150, {.cache_dtype = Dtype::kBf16});
}

TEST_F(MlaTest, AbsorbedFormAgreesWithPlainAttention) {
  ExpectNearTwin(150, 0, {.cache_dtype = Dtype::kF32});
  ExpectNearTwin(150, 0, {.cache_dtype = Dtype::kBf16});
}

TEST_F(MlaTest, QueriesWithoutLowRankAndBiasAgreeWithPlainAttention) {
  spec_.q_lora_rank = 0;
  spec_.attention_bias = false;
  spec_.rope_interleaved = false;
  spec_.yarn.reset();
  weights_ = TestWeights(spec_, Dtype::kF32, 12);
  ExpectNearTwin(70, 40, {.cache_dtype = Dtype::kF32});
}

class MlaBits : public MlaTest, public testing::WithParamInterface<Dtype> {
 protected:
  // Three sequences: a prompt with generated positions, generated only, prompt only.
  std::vector<TestSequence> Sequences() const {
    return {{.x = RandomInput(140, 1), .prompt_count = 81},
            {.x = RandomInput(67, 2), .prompt_count = 0},
            {.x = RandomInput(131, 3), .prompt_count = 131}};
  }

  void ExpectSameBits(const RunOptions& options) const {
    const auto outputs = Run(Sequences(), options);
    for (size_t s = 0; s < outputs.size(); ++s) {
      ASSERT_EQ(outputs[s].size(), baseline_[s].size());
      EXPECT_EQ(
          std::memcmp(outputs[s].data(), baseline_[s].data(), outputs[s].size() * sizeof(float)), 0)
          << "sequence " << s;
    }
  }

  void SetUp() override {
    // More than one tile of heads, and enough work that every phase is shared by the threads.
    spec_.head_count = 18;
    spec_.q_lora_rank = 96;
    spec_.kv_lora_rank = 40;
    weights_ = TestWeights(spec_, Dtype::kBf16, 13);
    // Each sequence alone, one position per step: what every other way must reproduce.
    for (const TestSequence& sequence : Sequences()) {
      baseline_.push_back(Run({sequence}, {.chunks = {1}, .cache_dtype = GetParam()})[0]);
    }
  }

  std::vector<std::vector<float>> baseline_;
};

TEST_P(MlaBits, DoNotDependOnChunksOrCompany) {
  for (const std::vector<uint32_t>& chunks :
       std::vector<std::vector<uint32_t>>{{1}, {3}, {16}, {64}, {1000}, {5, 40, 1, 70}}) {
    SCOPED_TRACE(testing::Message() << "first chunk " << chunks[0]);
    ExpectSameBits({.chunks = chunks, .cache_dtype = GetParam()});
  }
}

TEST_P(MlaBits, DoNotDependOnThreads) {
  for (const uint32_t thread_count : {2U, 3U}) {
    ExpectSameBits({.chunks = {37}, .thread_count = thread_count, .cache_dtype = GetParam()});
    ExpectSameBits({.thread_count = thread_count, .cache_dtype = GetParam()});
  }
}

TEST_P(MlaBits, DoNotDependOnWhereBlocksLie) {
  for (const uint32_t block_size : {1U, 8U, 16U, 64U, 128U}) {
    SCOPED_TRACE(testing::Message() << "block size " << block_size);
    ExpectSameBits({.chunks = {29},
                    .block_size = block_size,
                    .cache_dtype = GetParam(),
                    .block_order_seed = 7 + block_size});
  }
}

TEST_P(MlaBits, DoNotDependOnTheInstructionSet) {
  for (const InstructionSet set : SupportedInstructionSets()) {
    SCOPED_TRACE(NameOf(set));
    ExpectSameBits({.chunks = {50}, .cache_dtype = GetParam(), .kernels = KernelsFor(set).value()});
  }
}

INSTANTIATE_TEST_SUITE_P(CacheDtypes, MlaBits, testing::Values(Dtype::kF32, Dtype::kBf16),
                         [](const auto& suite) { return std::string(NameOf(suite.param)); });

}  // namespace
}  // namespace switchyard
