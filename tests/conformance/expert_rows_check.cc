// expert_rows_check MODEL [EXPERTS [ROWS]]: rows through sampled experts of a checkpoint, by the
// kernels on packed weights, against double arithmetic on the weights as they are stored. Prints
// the errors in units of the outputs' root mean square; exit code 1 when they are too large.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/kernels/compute_pool.h"
#include "libs/kernels/kernels.h"
#include "libs/model/checkpoint.h"
#include "libs/model/forward.h"

namespace switchyard {
namespace {

// Activations are rounded to BF16 twice, each time by up to 2^-9.
constexpr double kRmsErrorMax = 0.01;

using Vector = std::vector<double>;

// y = W x with the weights of one tensor as it is stored, read a few rows at a time.
absl::StatusOr<Vector> Multiply(const StoredSlice& source, const Vector& x) {
  constexpr uint32_t kStep = kFp8Block;
  const TensorSlice& slice = source.slice;
  Vector y(slice.rows, 0.0);
  StoredRows rows;
  std::vector<float> weights(size_t{kStep} * slice.columns);
  for (uint32_t first = 0; first < slice.rows; first += kStep) {
    const uint32_t count = std::min(kStep, slice.rows - first);
    SY_RETURN_IF_ERROR(rows.Read(source, first, count));
    SY_RETURN_IF_ERROR(rows.Check(source.format));
    UnpackStored(rows.stored(), 0, count, weights.data());
    for (uint32_t r = 0; r < count; ++r) {
      for (size_t k = 0; k < slice.columns; ++k) {
        y[first + r] += static_cast<double>(weights[size_t{r} * slice.columns + k]) * x[k];
      }
    }
  }
  return y;
}

struct Errors {
  double square = 0.0;
  double error_square = 0.0;
  double worst = 0.0;
  uint64_t count = 0;

  void Add(double expected, double actual) {
    square += expected * expected;
    error_square += (actual - expected) * (actual - expected);
    worst = std::max(worst, std::abs(actual - expected));
    ++count;
  }

  double rms() const { return std::sqrt(square / static_cast<double>(count)); }

  double relative_rms_error() const { return std::sqrt(error_square / square); }
};

// `tensors` are gate, up and down of one expert.
absl::StatusOr<Vector> ExpectedRow(std::span<const PlannedTensor> tensors, const float* x) {
  const uint32_t hidden = tensors[0].source.slice.columns;
  const Vector wide(x, x + hidden);
  SY_ASSIGN_OR_RETURN(Vector inner, Multiply(tensors[0].source, wide));
  SY_ASSIGN_OR_RETURN(const Vector up, Multiply(tensors[1].source, wide));
  for (size_t i = 0; i < inner.size(); ++i) {
    inner[i] = inner[i] / (1.0 + std::exp(-inner[i])) * up[i];
  }
  return Multiply(tensors[2].source, inner);
}

absl::Status CheckExpert(const Checkpoint& checkpoint, std::span<const PlannedTensor> tensors,
                         const ExpertName& name, uint32_t row_count, Errors& errors) {
  const uint32_t hidden = checkpoint.spec().hidden_size;
  SY_ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint.LoadExpert(name.layer, name.expert));
  Rng rng(name.expert.value() + 1);
  std::vector<float> x(size_t{row_count} * hidden);
  for (float& value : x) {
    value = 2.0F * rng.Unit() - 1.0F;
  }
  std::vector<float> y(x.size());
  ComputePool pool(1);
  FfnScratch scratch;
  ActivationBuffer prepared;
  RunFfn(BestKernels(), pool,
         {.weights = weights,
          .x = x.data(),
          .row_count = row_count,
          .y = y.data(),
          .scratch = &scratch,
          .prepared = &prepared});
  for (uint32_t row = 0; row < row_count; ++row) {
    SY_ASSIGN_OR_RETURN(const Vector expected, ExpectedRow(tensors, &x[size_t{row} * hidden]));
    for (size_t i = 0; i < hidden; ++i) {
      errors.Add(expected[i], static_cast<double>(y[size_t{row} * hidden + i]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Errors> Check(const std::string& dir, uint32_t sample_count, uint32_t row_count) {
  SY_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(dir));
  SY_ASSIGN_OR_RETURN(const std::vector<PlannedTensor> planned,
                      checkpoint.PlanExperts(WeightChoice::kAsStored));
  const ModelSpec& spec = checkpoint.spec();
  Errors errors;
  Rng rng(1);
  for (uint32_t i = 0; i < sample_count; ++i) {
    const auto index = static_cast<uint32_t>(rng.Below(planned.size() / 3));
    const ExpertName name{
        .layer = LayerId(static_cast<uint16_t>(spec.first_moe_layer + index / spec.expert_count)),
        .expert = ExpertId(static_cast<uint16_t>(index % spec.expert_count))};
    const auto tensors = std::span(planned).subspan(size_t{index} * 3, 3);
    SY_RETURN_IF_ERROR(CheckExpert(checkpoint, tensors, name, row_count, errors));
  }
  return errors;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("expert_rows_check MODEL [EXPERTS [ROWS]]\n", stderr);
    return 2;
  }
  const auto number = [&](int index, uint32_t fallback) {
    const unsigned long given = argc > index ? std::strtoul(argv[index], nullptr, 10) : fallback;
    return static_cast<uint32_t>(std::clamp<unsigned long>(given, 1, 4096));
  };
  const auto errors = switchyard::Check(argv[1], number(2, 4), number(3, 2));
  if (!errors.ok()) {
    std::fprintf(stderr, "%s\n", switchyard::MessageOf(errors.status()).c_str());
    return 1;
  }
  const double error = errors->relative_rms_error();
  std::printf("outputs %llu  rms %.4g  rms error %.3e of it  worst error %.3e of it\n",
              static_cast<unsigned long long>(errors->count), errors->rms(), error,
              errors->worst / errors->rms());
  return error <= switchyard::kRmsErrorMax ? 0 : 1;
}
