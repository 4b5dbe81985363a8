#include "libs/model/reference_model.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/status.h"
#include "libs/model/internal/widen.h"

namespace switchyard {
namespace {

using Vector = std::vector<double>;

// Row-major [rows, columns], widened.
struct Matrix {
  uint32_t rows = 0;
  uint32_t columns = 0;
  std::vector<float> values;

  Matrix() = default;

  explicit Matrix(const MatrixView& view)
      : rows(view.rows), columns(view.columns), values(size_t{view.rows} * view.columns) {
    if (!view.empty()) {
      internal::WidenToF32(view.data, view.dtype, values.size(), values.data());
    }
  }

  explicit Matrix(const PackedMatrix& packed)
      : rows(packed.rows), columns(packed.columns), values(size_t{packed.rows} * packed.columns) {
    for (uint32_t row = 0; row < packed.rows; ++row) {
      UnpackRow(packed, row, values.data() + size_t{row} * columns);
    }
  }

  explicit Matrix(const StoredMatrix& stored)
      : rows(stored.rows), columns(stored.columns), values(size_t{stored.rows} * stored.columns) {
    UnpackStored(stored, 0, stored.rows, values.data());
  }

  // kv_b_proj, put together again.
  explicit Matrix(const std::vector<MlaHeadWeights>& heads) {
    for (const MlaHeadWeights& head : heads) {
      for (const Matrix& part : {Matrix(head.key), Matrix(head.value)}) {
        rows += part.rows;
        columns = part.columns;
        values.insert(values.end(), part.values.begin(), part.values.end());
      }
    }
  }

  Vector Row(uint32_t row) const {
    const auto begin = values.begin() + static_cast<ptrdiff_t>(size_t{row} * columns);
    return Vector(begin, begin + columns);
  }

  Vector Times(const Vector& x) const {
    SY_CHECK(x.size() == columns);
    Vector y(rows, 0.0);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < columns; ++c) {
        y[r] += static_cast<double>(values[r * columns + c]) * x[c];
      }
    }
    return y;
  }
};

struct Ffn {
  Matrix gate;
  Matrix up;
  Matrix down;

  Ffn() = default;

  explicit Ffn(const ExpertWeights& weights)
      : gate(weights.gate), up(weights.up), down(weights.down) {}

  Vector Apply(const Vector& x) const {
    Vector inner = gate.Times(x);
    const Vector other = up.Times(x);
    for (size_t i = 0; i < inner.size(); ++i) {
      inner[i] = inner[i] / (1.0 + std::exp(-inner[i])) * other[i];
    }
    return down.Times(inner);
  }
};

struct Layer {
  LayerWeights raw;  // For its f32 vectors.
  Matrix q_proj;
  Matrix q_a_proj;
  Matrix q_b_proj;
  Matrix kv_a_proj;
  Matrix kv_b_proj;
  Matrix o_proj;
  Ffn dense;
  Ffn shared;
  Matrix gate;
  std::vector<Ffn> experts;
};

void AddTo(Vector& sum, const Vector& other, double factor = 1.0) {
  for (size_t i = 0; i < sum.size(); ++i) {
    sum[i] += factor * other[i];
  }
}

// With an empty `bias`, x as it is.
Vector PlusBias(Vector x, const std::vector<float>& bias) {
  for (size_t i = 0; i < bias.size(); ++i) {
    x[i] += static_cast<double>(bias[i]);
  }
  return x;
}

Vector RmsNorm(const Vector& x, const std::vector<float>& weight, float epsilon) {
  double square_sum = 0.0;
  for (const double value : x) {
    square_sum += value * value;
  }
  const double scale =
      1.0 / std::sqrt(square_sum / static_cast<double>(x.size()) + static_cast<double>(epsilon));
  Vector y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    y[i] = x[i] * scale * static_cast<double>(weight[i]);
  }
  return y;
}

double YarnMscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// Angle per position of each pair of rotary dimensions (arXiv 2309.00071 §3.2 with YaRN).
Vector InverseFrequencies(const ModelSpec& spec) {
  const double dim = spec.rope_dim;
  Vector result(spec.rope_dim / 2);
  for (size_t i = 0; i < result.size(); ++i) {
    result[i] = std::pow(spec.rope_theta, -2.0 * static_cast<double>(i) / dim);
  }
  if (!spec.yarn.has_value()) {
    return result;
  }
  const YarnSpec& yarn = *spec.yarn;
  const auto dimension_of = [&](double rotations) {
    return dim * std::log(yarn.original_max_positions / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(spec.rope_theta));
  };
  const double low = std::max(std::floor(dimension_of(yarn.beta_fast)), 0.0);
  double high = std::min(std::ceil(dimension_of(yarn.beta_slow)), dim - 1.0);
  if (low == high) {
    high += 0.001;
  }
  for (size_t i = 0; i < result.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    result[i] = result[i] / yarn.factor * ramp + result[i] * (1.0 - ramp);
  }
  return result;
}

// Rotates `x` in place; the result is in half-split order whatever the order of the input.
void Rotate(const ModelSpec& spec, const Vector& frequencies, size_t position, double* x) {
  const size_t half = frequencies.size();
  double amplitude = 1.0;
  if (spec.yarn.has_value()) {
    amplitude = YarnMscale(spec.yarn->factor, spec.yarn->mscale) /
                YarnMscale(spec.yarn->factor, spec.yarn->mscale_all_dim);
  }
  Vector rotated(2 * half);
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    const double a = spec.rope_interleaved ? x[2 * i] : x[i];
    const double b = spec.rope_interleaved ? x[2 * i + 1] : x[i + half];
    rotated[i] = amplitude * (a * std::cos(angle) - b * std::sin(angle));
    rotated[i + half] = amplitude * (b * std::cos(angle) + a * std::sin(angle));
  }
  std::copy(rotated.begin(), rotated.end(), x);
}

double AttentionScale(const ModelSpec& spec) {
  double scale = 1.0 / std::sqrt(static_cast<double>(spec.qk_dim()));
  if (spec.yarn.has_value()) {
    const double mscale = YarnMscale(spec.yarn->factor, spec.yarn->mscale_all_dim);
    scale *= mscale * mscale;
  }
  return scale;
}

// Queries [heads * qk_dim], rotated.
Vector Queries(const ModelSpec& spec, const Layer& layer, const Vector& x) {
  if (spec.q_lora_rank == 0) {
    return layer.q_proj.Times(x);
  }
  const Vector low_rank = PlusBias(layer.q_a_proj.Times(x), layer.raw.q_a_bias);
  return layer.q_b_proj.Times(RmsNorm(low_rank, layer.raw.q_a_norm, spec.latent_norm_epsilon));
}

// What one position offers to later ones: per head the nope keys and values, and the shared rotary
// key.
struct KeyValue {
  Vector expanded;  // [heads][nope_dim + value_dim]
  Vector rope_key;  // [rope_dim]
};

KeyValue MakeKeyValue(const ModelSpec& spec, const Layer& layer, const Vector& x) {
  const Vector both = PlusBias(layer.kv_a_proj.Times(x), layer.raw.kv_a_bias);
  const auto middle = both.begin() + spec.kv_lora_rank;
  const Vector latent =
      RmsNorm(Vector(both.begin(), middle), layer.raw.kv_a_norm, spec.latent_norm_epsilon);
  return {.expanded = layer.kv_b_proj.Times(latent), .rope_key = Vector(middle, both.end())};
}

// Softmax attention of one head of one query over `keys`; adds nothing to but returns [value_dim].
Vector AttendHead(const ModelSpec& spec, uint32_t head, const double* query,
                  std::span<const KeyValue> keys) {
  const size_t stride = spec.nope_dim + spec.value_dim;
  Vector scores(keys.size(), 0.0);
  for (size_t t = 0; t < keys.size(); ++t) {
    const double* key = keys[t].expanded.data() + head * stride;
    for (size_t i = 0; i < spec.nope_dim; ++i) {
      scores[t] += query[i] * key[i];
    }
    for (size_t i = 0; i < spec.rope_dim; ++i) {
      scores[t] += query[spec.nope_dim + i] * keys[t].rope_key[i];
    }
    scores[t] *= AttentionScale(spec);
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0.0;
  for (double& score : scores) {
    score = std::exp(score - max);
    sum += score;
  }
  Vector out(spec.value_dim, 0.0);
  for (size_t t = 0; t < keys.size(); ++t) {
    const double* value = keys[t].expanded.data() + head * stride + spec.nope_dim;
    for (size_t i = 0; i < spec.value_dim; ++i) {
      out[i] += scores[t] / sum * value[i];
    }
  }
  return out;
}

// One attention block over a whole sequence of normed rows.
std::vector<Vector> Attend(const ModelSpec& spec, const Layer& layer,
                           const std::vector<Vector>& x) {
  const Vector frequencies = InverseFrequencies(spec);
  std::vector<KeyValue> keys;
  std::vector<Vector> result;
  for (size_t t = 0; t < x.size(); ++t) {
    keys.push_back(MakeKeyValue(spec, layer, x[t]));
    Rotate(spec, frequencies, t, keys[t].rope_key.data());
    Vector queries = Queries(spec, layer, x[t]);
    Vector heads;
    for (uint32_t h = 0; h < spec.head_count; ++h) {
      double* query = queries.data() + size_t{h} * spec.qk_dim();
      Rotate(spec, frequencies, t, query + spec.nope_dim);
      const Vector out = AttendHead(spec, h, query, keys);
      heads.insert(heads.end(), out.begin(), out.end());
    }
    result.push_back(PlusBias(layer.o_proj.Times(heads), layer.raw.o_bias));
  }
  return result;
}

// Indices of the `count` largest values, descending, ties by lower index.
std::vector<uint32_t> Best(const Vector& values, uint32_t count) {
  std::vector<uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return values[a] > values[b]; });
  order.resize(count);
  return order;
}

std::vector<uint16_t> ChooseExperts(const ModelSpec& spec, const Vector& biased) {
  const uint32_t group_size = spec.expert_count / spec.group_count;
  Vector group_scores(spec.group_count);
  for (uint32_t g = 0; g < spec.group_count; ++g) {
    const auto begin = biased.begin() + g * group_size;
    Vector members(begin, begin + group_size);
    std::sort(members.begin(), members.end(), std::greater<>());
    group_scores[g] = members[0] + members[1];
  }
  Vector candidates(spec.expert_count, -INFINITY);
  for (const uint32_t group : Best(group_scores, spec.top_k_groups)) {
    for (uint32_t e = group * group_size; e < (group + 1) * group_size; ++e) {
      candidates[e] = biased[e];
    }
  }
  const std::vector<uint32_t> best = Best(candidates, spec.top_k);
  return {best.begin(), best.end()};
}

Vector SigmoidScores(const Layer& layer, const Vector& x) {
  Vector scores = layer.gate.Times(x);
  for (double& score : scores) {
    score = 1.0 / (1.0 + std::exp(-score));
  }
  return scores;
}

// Routed and shared experts of one row; `experts` is used if not empty, else filled.
Vector RunMoe(const ModelSpec& spec, const Layer& layer, const Vector& x,
              std::vector<uint16_t>& experts) {
  const Vector scores = SigmoidScores(layer, x);
  if (experts.empty()) {
    experts = ChooseExperts(spec, PlusBias(scores, layer.raw.gate_bias));
  }
  double sum = 0.0;
  for (const uint16_t expert : experts) {
    sum += scores[expert];
  }
  Vector y(x.size(), 0.0);
  for (const uint16_t expert : experts) {
    const double weight = spec.norm_top_k ? scores[expert] / (sum + 1e-20) : scores[expert];
    AddTo(y, layer.experts[expert].Apply(x),
          weight * static_cast<double>(spec.routed_scaling_factor));
  }
  if (spec.shared_expert_count > 0) {
    AddTo(y, layer.shared.Apply(x));
  }
  return y;
}

}  // namespace

struct ReferenceModel::Impl {
  ModelSpec spec;
  Matrix embedding;
  Matrix head;
  std::vector<float> final_norm;
  std::vector<Layer> layers;
};

ReferenceModel::ReferenceModel(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}

ReferenceModel::ReferenceModel(ReferenceModel&& other) noexcept = default;
ReferenceModel& ReferenceModel::operator=(ReferenceModel&& other) noexcept = default;
ReferenceModel::~ReferenceModel() = default;

const ModelSpec& ReferenceModel::spec() const { return impl_->spec; }

absl::StatusOr<ReferenceModel> ReferenceModel::Load(const Checkpoint& checkpoint) {
  SY_ASSIGN_OR_RETURN(const RouterWeights weights, checkpoint.LoadRouterWeights());
  auto impl = std::make_unique<Impl>();
  impl->spec = checkpoint.spec();
  impl->embedding = Matrix(weights.embedding);
  impl->head = Matrix(weights.head);
  impl->final_norm = weights.final_norm;
  for (uint32_t i = 0; i < impl->spec.layer_count; ++i) {
    const LayerWeights& raw = weights.layers[i];
    Layer layer{.raw = raw,
                .q_proj = Matrix(raw.q_proj),
                .q_a_proj = Matrix(raw.q_a_proj),
                .q_b_proj = Matrix(raw.q_b_proj),
                .kv_a_proj = Matrix(raw.kv_a_proj),
                .kv_b_proj = Matrix(raw.heads),
                .o_proj = Matrix(raw.o_proj),
                .dense = Ffn(raw.dense),
                .shared = Ffn(raw.shared),
                .gate = Matrix(raw.gate),
                .experts = {}};
    const uint32_t expert_count = impl->spec.IsMoeLayer(i) ? impl->spec.expert_count : 0;
    for (uint32_t e = 0; e < expert_count; ++e) {
      SY_ASSIGN_OR_RETURN(const ExpertWeights expert,
                          checkpoint.LoadExpert(LayerId(static_cast<uint16_t>(i)),
                                                ExpertId(static_cast<uint16_t>(e))));
      layer.experts.emplace_back(expert);
    }
    impl->layers.push_back(std::move(layer));
  }
  return ReferenceModel(std::move(impl));
}

ReferenceOutput ReferenceModel::Run(std::span<const TokenId> tokens,
                                    std::span<const uint16_t> forced_experts) const {
  const ModelSpec& spec = impl_->spec;
  std::vector<Vector> hidden;
  for (const TokenId token : tokens) {
    SY_CHECK(token < spec.vocab_size);
    hidden.push_back(impl_->embedding.Row(token));
  }
  ReferenceOutput output;
  for (uint32_t l = 0; l < spec.layer_count; ++l) {
    const Layer& layer = impl_->layers[l];
    std::vector<Vector> normed;
    for (const Vector& row : hidden) {
      normed.push_back(RmsNorm(row, layer.raw.input_norm, spec.rms_norm_epsilon));
    }
    const std::vector<Vector> attended = Attend(spec, layer, normed);
    for (size_t t = 0; t < hidden.size(); ++t) {
      AddTo(hidden[t], attended[t]);
      const Vector x = RmsNorm(hidden[t], layer.raw.post_attention_norm, spec.rms_norm_epsilon);
      if (!spec.IsMoeLayer(l)) {
        AddTo(hidden[t], layer.dense.Apply(x));
        continue;
      }
      std::vector<uint16_t> experts;
      if (!forced_experts.empty()) {
        const auto forced = forced_experts.subspan(output.experts.size(), spec.top_k);
        experts.assign(forced.begin(), forced.end());
      }
      AddTo(hidden[t], RunMoe(spec, layer, x, experts));
      output.experts.insert(output.experts.end(), experts.begin(), experts.end());
    }
  }
  for (const Vector& row : hidden) {
    const Vector logits = impl_->head.Times(RmsNorm(row, impl_->final_norm, spec.rms_norm_epsilon));
    output.logits.insert(output.logits.end(), logits.begin(), logits.end());
  }
  return output;
}

}  // namespace switchyard
