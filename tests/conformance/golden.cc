#include "tests/conformance/golden.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include <simdjson.h>

#include "libs/base/check.h"
#include "libs/base/status.h"
#include "libs/model/safetensors.h"

namespace switchyard {
namespace {

constexpr std::string_view kRoot = "tests/conformance/goldens";

absl::Status ReadTokens(simdjson::dom::element json, std::string_view name,
                        std::vector<TokenId>& tokens) {
  simdjson::dom::array array;
  if (json[name].get(array) != simdjson::SUCCESS) {
    return InvalidArgument("golden.json has no {}", name);
  }
  for (const simdjson::dom::element each : array) {
    uint64_t token = 0;
    if (each.get(token) != simdjson::SUCCESS) {
      return InvalidArgument("golden.json: {} holds something else than tokens", name);
    }
    tokens.push_back(static_cast<TokenId>(token));
  }
  return absl::OkStatus();
}

absl::Status ReadJson(Golden& golden) {
  simdjson::dom::parser parser;
  simdjson::dom::element json;
  if (parser.load(golden.dir + "/golden.json").get(json) != simdjson::SUCCESS) {
    return NotFound("no readable golden.json in {}", golden.dir);
  }
  SY_RETURN_IF_ERROR(ReadTokens(json, "prompt", golden.prompt));
  SY_RETURN_IF_ERROR(ReadTokens(json, "decoded", golden.decoded));
  if (json["sigma"].get(golden.sigma) != simdjson::SUCCESS ||
      json["bf16"]["kl_free"].get(golden.bf16_kl_free) != simdjson::SUCCESS ||
      json["bf16"]["kl_forced"].get(golden.bf16_kl_forced) != simdjson::SUCCESS) {
    return InvalidArgument("{}: golden.json lacks a figure", golden.dir);
  }
  return absl::OkStatus();
}

absl::Status ReadTensors(Golden& golden) {
  SY_ASSIGN_OR_RETURN(const SafetensorsFile file,
                      SafetensorsFile::Open(golden.dir + "/golden.safetensors"));
  const SafetensorsEntry* logits = file.Find("logits");
  const SafetensorsEntry* experts = file.Find("experts");
  const uint64_t positions = golden.prompt.size() + golden.decoded.size();
  if (logits == nullptr || logits->dtype != "F32" || logits->shape.size() != 2 ||
      logits->shape[0] != positions || experts == nullptr || experts->dtype != "I32" ||
      experts->shape.size() != 3 || experts->shape[1] != positions) {
    return InvalidArgument("{}: golden.safetensors has other tensors than expected", golden.dir);
  }
  golden.vocab_size = static_cast<uint32_t>(logits->shape[1]);
  golden.logits.resize(logits->byte_size() / sizeof(float));
  SY_ASSIGN_OR_RETURN(const std::vector<std::byte> logit_bytes, file.Read(*logits));
  std::memcpy(golden.logits.data(), logit_bytes.data(), logit_bytes.size());
  SY_ASSIGN_OR_RETURN(const std::vector<std::byte> expert_bytes, file.Read(*experts));
  std::vector<int32_t> chosen(expert_bytes.size() / sizeof(int32_t));
  std::memcpy(chosen.data(), expert_bytes.data(), expert_bytes.size());
  for (const int32_t expert : chosen) {
    golden.experts.push_back(static_cast<uint16_t>(expert));
  }
  return absl::OkStatus();
}

std::span<const float> RowOf(std::span<const float> logits, size_t row, uint32_t vocab_size) {
  return logits.subspan(row * vocab_size, vocab_size);
}

double Margin(std::span<const float> logits) {
  std::vector<float> sorted(logits.begin(), logits.end());
  std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
  return static_cast<double>(sorted[0]) - static_cast<double>(sorted[1]);
}

size_t Top1(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Natural logarithm of the sum of exponentials.
double LogSumExp(std::span<const float> logits) {
  double sum = 0.0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit));
  }
  return std::log(sum);
}

std::vector<std::string> NamesThat(bool are_fp8) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& each : std::filesystem::directory_iterator(kRoot, ignored)) {
    const std::string name = each.path().filename().string();
    if (name.starts_with("fp8-") == are_fp8) {
      names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::vector<TokenId> Golden::tokens() const {
  std::vector<TokenId> all = prompt;
  all.insert(all.end(), decoded.begin(), decoded.end());
  return all;
}

std::vector<std::string> GoldenNames() { return NamesThat(false); }

std::vector<std::string> Fp8GoldenNames() { return NamesThat(true); }

absl::StatusOr<Golden> LoadGolden(const std::string& name) {
  Golden golden;
  golden.name = name;
  golden.dir = fmt::format("{}/{}", kRoot, name);
  SY_RETURN_IF_ERROR(ReadJson(golden));
  SY_RETURN_IF_ERROR(ReadTensors(golden));
  return golden;
}

LogitDifference CompareLogits(const Golden& golden, std::span<const float> other,
                              uint32_t first_position, double margin_min) {
  LogitDifference difference;
  const size_t rows = other.size() / golden.vocab_size;
  SY_CHECK((first_position + rows) * golden.vocab_size <= golden.logits.size());
  for (size_t row = 0; row < rows; ++row) {
    const auto expected = RowOf(golden.logits, first_position + row, golden.vocab_size);
    const auto actual = RowOf(other, row, golden.vocab_size);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double distance =
          std::abs(static_cast<double>(expected[i]) - static_cast<double>(actual[i]));
      // Written so that NaN counts as the worst.
      if (!(distance <= difference.worst)) {
        difference.worst = distance;
      }
    }
    if (Margin(expected) > margin_min && Top1(expected) != Top1(actual)) {
      ++difference.top1_changes;
    }
  }
  return difference;
}

double MeanKl(const Golden& golden, std::span<const float> other, uint32_t first_position) {
  const size_t rows = other.size() / golden.vocab_size;
  SY_CHECK((first_position + rows) * golden.vocab_size <= golden.logits.size());
  double sum = 0.0;
  for (size_t row = 0; row < rows; ++row) {
    const auto expected = RowOf(golden.logits, first_position + row, golden.vocab_size);
    const auto actual = RowOf(other, row, golden.vocab_size);
    const double expected_norm = LogSumExp(expected);
    const double actual_norm = LogSumExp(actual);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double p = static_cast<double>(expected[i]) - expected_norm;
      const double q = static_cast<double>(actual[i]) - actual_norm;
      sum += std::exp(p) * (p - q);
    }
  }
  return sum / static_cast<double>(rows);
}

}  // namespace switchyard
