#include "libs/model/forward.h"

#include <array>

#include "libs/base/check.h"
#include "libs/model/internal/widen.h"

namespace switchyard {

void EmbedRows(const RouterWeights& weights, std::span<const TokenId> tokens, float* out,
               uint32_t hidden_size) {
  SY_CHECK(weights.embedding.columns == hidden_size);
  for (const TokenId token : tokens) {
    SY_CHECK(token < weights.embedding.rows);
    internal::WidenRow(weights.embedding, token, out);
    out += hidden_size;
  }
}

void NormRows(const Kernels& kernels, const NormArgs& args) {
  const size_t hidden = args.weight.size();
  for (size_t row = 0; row < args.row_count; ++row) {
    kernels.rms_norm(args.x + row * hidden, args.weight.data(), args.epsilon, args.y + row * hidden,
                     hidden);
  }
}

void RunFfn(const Kernels& kernels, ComputePool& pool, const FfnArgs& args) {
  if (args.row_count == 0) {
    return;
  }
  const std::array<FfnGroup, 1> groups = {{{.gate = args.weights.gate,
                                            .up = args.weights.up,
                                            .down = args.weights.down,
                                            .first_row = 0,
                                            .row_count = args.row_count}}};
  const uint32_t hidden = args.weights.gate.columns;
  const ActivationView x = PrepareRows(kernels, pool,
                                       {.form = FormFor(args.weights.gate.format),
                                        .x = args.x,
                                        .x_stride = hidden,
                                        .row_count = args.row_count,
                                        .columns = hidden},
                                       *args.prepared);
  GroupedFfn(kernels, pool,
             {.groups = groups,
              .x = x,
              .hidden_size = hidden,
              .intermediate_size = args.weights.gate.rows,
              .y = args.y,
              .scratch = args.scratch});
}

void RunHead(const Kernels& kernels, ComputePool& pool, const HeadArgs& args) {
  if (args.row_count == 0) {
    return;
  }
  const size_t hidden = args.spec.hidden_size;
  if (args.scratch->size() < args.row_count * hidden) {
    args.scratch->resize(args.row_count * hidden);
  }
  NormRows(kernels, {.weight = args.weights.final_norm,
                     .epsilon = args.spec.rms_norm_epsilon,
                     .x = args.x,
                     .row_count = args.row_count,
                     .y = args.scratch->data()});
  const ActivationView x = PrepareRows(kernels, pool,
                                       {.form = FormFor(args.weights.head.format),
                                        .x = args.scratch->data(),
                                        .x_stride = hidden,
                                        .row_count = args.row_count,
                                        .columns = args.spec.hidden_size},
                                       *args.prepared);
  ParallelPackedGemm(kernels, pool,
                     {.x = x,
                      .w = args.weights.head,
                      .y = args.logits,
                      .y_stride = args.spec.vocab_size,
                      .column_end = args.spec.vocab_size});
}

}  // namespace switchyard
