#include "libs/model/forward.h"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

struct Opened {
  explicit Opened(const TinyCheckpointOptions& options = {})
      : tiny(options),
        checkpoint(Checkpoint::Open(tiny.dir()).value()),
        weights(checkpoint.LoadRouterWeights().value()) {}

  TinyCheckpoint tiny;
  Checkpoint checkpoint;
  RouterWeights weights;
};

float F32At(const void* data, size_t index) {
  float value = 0;  // Copied, because a checkpoint's data may be unaligned.
  std::memcpy(&value, static_cast<const std::byte*>(data) + index * sizeof(value), sizeof(value));
  return value;
}

float F32At(const PackedMatrix& matrix, size_t row, size_t column) {
  return F32At(matrix.data, row * matrix.columns + column);
}

std::vector<float> Rows(size_t count) {
  std::vector<float> rows(count * 32);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = std::sin(static_cast<float>(i));
  }
  return rows;
}

TEST(EmbedRows, GivesTheValuesOfInt8AsTheyAreStored) {
  const TinyCheckpoint tiny;
  const auto checkpoint = Checkpoint::Open(tiny.dir());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto weights = checkpoint->LoadRouterWeights(WeightChoice::kInt4);
  ASSERT_TRUE(weights.ok()) << weights.status();
  ASSERT_EQ(weights->embedding.format, WeightFormat::kInt8);
  const std::vector<TokenId> tokens = {7, 0, 63};
  std::vector<float> out(tokens.size() * 32);
  EmbedRows(*weights, tokens, out.data(), 32);
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::vector<float> want(32);
    UnpackStored(weights->embedding, tokens[i], 1, want.data());
    EXPECT_TRUE(std::equal(want.begin(), want.end(), out.begin() + static_cast<ptrdiff_t>(i * 32)));
  }
}

TEST(EmbedRows, WidensTheTokensRows) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    TinyCheckpointOptions options;
    options.spec.weight_dtype = dtype;
    const Opened opened(options);
    const std::vector<TokenId> tokens = {5, 63, 5};
    std::vector<float> out(3 * 32);
    EmbedRows(opened.weights, tokens, out.data(), 32);
    EXPECT_TRUE(std::equal(out.begin(), out.begin() + 32, out.begin() + 64));
    const Opened exact;
    for (size_t i = 0; i < 32; ++i) {
      const float expected = F32At(exact.weights.embedding.values, 63 * 32 + i);
      EXPECT_NEAR(out[32 + i], expected, std::abs(expected) / 256 + 1e-6F);
    }
  }
}

TEST(RunFfn, IsSwiGlu) {
  const Opened opened;
  const ExpertWeights& weights = opened.weights.layers[0].dense;
  const std::vector<float> x = Rows(2);
  std::vector<float> y(2 * 32, 99.0F);
  FfnScratch scratch;
  ActivationBuffer prepared;
  ComputePool pool(1);
  RunFfn(BestKernels(), pool,
         {.weights = weights,
          .x = x.data(),
          .row_count = 2,
          .y = y.data(),
          .scratch = &scratch,
          .prepared = &prepared});
  for (size_t row = 0; row < 2; ++row) {
    std::vector<double> inner(48, 0.0);
    for (size_t i = 0; i < 48; ++i) {
      double gate = 0;
      double up = 0;
      for (size_t k = 0; k < 32; ++k) {
        gate += static_cast<double>(x[row * 32 + k] * F32At(weights.gate, i, k));
        up += static_cast<double>(x[row * 32 + k] * F32At(weights.up, i, k));
      }
      inner[i] = gate / (1 + std::exp(-gate)) * up;
    }
    for (size_t i = 0; i < 32; ++i) {
      double expected = 0;
      for (size_t k = 0; k < 48; ++k) {
        expected += inner[k] * static_cast<double>(F32At(weights.down, i, k));
      }
      EXPECT_NEAR(y[row * 32 + i], expected, 1e-5);
    }
  }
}

TEST(RunHead, NormsThenProjectsAndRowsAreIndependent) {
  const Opened opened;
  const std::vector<float> x = Rows(3);
  std::vector<float> logits(3 * 64);
  std::vector<float> scratch;
  ActivationBuffer prepared;
  ComputePool pool(1);
  HeadArgs args{.spec = opened.checkpoint.spec(),
                .weights = opened.weights,
                .x = x.data(),
                .row_count = 3,
                .logits = logits.data(),
                .scratch = &scratch,
                .prepared = &prepared};
  RunHead(BestKernels(), pool, args);
  std::vector<float> alone(64);
  args.x = x.data() + 64;
  args.row_count = 1;
  args.logits = alone.data();
  RunHead(BestKernels(), pool, args);
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), logits.begin() + 128));
  double square = 0;
  for (size_t k = 0; k < 32; ++k) {
    square += static_cast<double>(x[64 + k]) * static_cast<double>(x[64 + k]);
  }
  const double scale = 1 / std::sqrt(square / 32 + 1e-6);
  for (size_t token = 0; token < 64; ++token) {
    double expected = 0;
    for (size_t k = 0; k < 32; ++k) {
      expected +=
          static_cast<double>(x[64 + k]) * scale *
          static_cast<double>(opened.weights.final_norm[k] * F32At(opened.weights.head, token, k));
    }
    EXPECT_NEAR(alone[token], expected, 1e-5);
  }
}

TEST(ForwardParts, AcceptNoRows) {
  const Opened opened;
  std::vector<float> scratch;
  FfnScratch ffn_scratch;
  ActivationBuffer prepared;
  ComputePool pool(1);
  EmbedRows(opened.weights, {}, nullptr, 32);
  RunFfn(BestKernels(), pool,
         {.weights = opened.weights.layers[0].dense,
          .x = nullptr,
          .y = nullptr,
          .scratch = &ffn_scratch,
          .prepared = &prepared});
  RunHead(BestKernels(), pool,
          {.spec = opened.checkpoint.spec(),
           .weights = opened.weights,
           .scratch = &scratch,
           .prepared = &prepared});
  EXPECT_TRUE(scratch.empty());
}

}  // namespace
}  // namespace switchyard
