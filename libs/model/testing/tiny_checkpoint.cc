#include "libs/model/testing/tiny_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "libs/base/check.h"
#include "libs/base/file.h"
#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/model/internal/list_dir.h"
#include "libs/model/internal/widen.h"
#include "libs/model/safetensors.h"
#include "libs/model/testing/safetensors_writer.h"

namespace switchyard {
namespace {

constexpr size_t kFileBytesMax = 1U << 30;
constexpr const char* kModelFile = "/model.safetensors";
constexpr std::string_view kBiasSuffix = "e_score_correction_bias";

// Adds tensors with random values to the files in turn, and remembers which tensor went where.
class Builder {
 public:
  explicit Builder(const TinyCheckpointOptions& options)
      : options_(options), rng_(options.seed), files_(options.file_count) {
    SY_CHECK(options.file_count > 0);
  }

  // Normal values with standard deviation `sigma` around `mean`.
  void Add(const std::string& name, const std::vector<uint64_t>& shape, float sigma,
           float mean = 0.0F) {
    uint64_t count = 1;
    for (const uint64_t extent : shape) {
      count *= extent;
    }
    std::vector<float> values(count);
    for (float& value : values) {
      value = mean + sigma * Normal();
    }
    const bool is_bias = name.ends_with(kBiasSuffix);
    const size_t file = next_++ % files_.size();
    files_[file].Add(name, shape, is_bias ? Dtype::kF32 : options_.spec.weight_dtype, values);
    weight_map_ +=
        fmt::format("{}\"{}\":\"{}\"", weight_map_.empty() ? "" : ",", name, FileName(file));
  }

  void Matrix(const std::string& name, uint64_t rows, uint64_t columns) {
    Add(name + ".weight", {rows, columns}, 1.0F / std::sqrt(static_cast<float>(columns)));
  }

  void Norm(const std::string& name, uint64_t size) { Add(name + ".weight", {size}, 0.2F, 1.0F); }

  void Bias(const std::string& name, uint64_t size) { Add(name + ".bias", {size}, 0.3F); }

  absl::Status Write(const std::string& dir) const {
    for (size_t i = 0; i < files_.size(); ++i) {
      SY_RETURN_IF_ERROR(WriteFileAtomically(dir + "/" + FileName(i), files_[i].Render()));
    }
    if (files_.size() == 1) {
      return absl::OkStatus();
    }
    return WriteFileAtomically(
        dir + "/model.safetensors.index.json",
        fmt::format("{{\"metadata\":{{}},\"weight_map\":{{{}}}}}", weight_map_));
  }

 private:
  std::string FileName(size_t index) const {
    if (files_.size() == 1) {
      return "model.safetensors";
    }
    return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, files_.size());
  }

  // The sum of 12 uniform numbers, less its mean: near enough to normal.
  float Normal() {
    float sum = -6.0F;
    for (int i = 0; i < 12; ++i) {
      sum += rng_.Unit();
    }
    return sum;
  }

  const TinyCheckpointOptions& options_;
  Rng rng_;
  std::vector<SafetensorsWriter> files_;
  size_t next_ = 0;
  std::string weight_map_;
};

void AddFfn(Builder& builder, const std::string& prefix, uint64_t hidden, uint64_t intermediate) {
  builder.Matrix(prefix + "gate_proj", intermediate, hidden);
  builder.Matrix(prefix + "up_proj", intermediate, hidden);
  builder.Matrix(prefix + "down_proj", hidden, intermediate);
}

void AddAttention(Builder& builder, const std::string& prefix, const ModelSpec& spec) {
  const uint64_t hidden = spec.hidden_size;
  const uint64_t query_rows = uint64_t{spec.head_count} * spec.qk_dim();
  if (spec.q_lora_rank == 0) {
    builder.Matrix(prefix + "q_proj", query_rows, hidden);
  } else {
    builder.Matrix(prefix + "q_a_proj", spec.q_lora_rank, hidden);
    builder.Norm(prefix + "q_a_layernorm", spec.q_lora_rank);
    builder.Matrix(prefix + "q_b_proj", query_rows, spec.q_lora_rank);
  }
  builder.Matrix(prefix + "kv_a_proj_with_mqa", spec.latent_dim(), hidden);
  builder.Norm(prefix + "kv_a_layernorm", spec.kv_lora_rank);
  builder.Matrix(prefix + "kv_b_proj", uint64_t{spec.head_count} * (spec.nope_dim + spec.value_dim),
                 spec.kv_lora_rank);
  builder.Matrix(prefix + "o_proj", hidden, uint64_t{spec.head_count} * spec.value_dim);
  if (spec.attention_bias) {
    if (spec.q_lora_rank != 0) {
      builder.Bias(prefix + "q_a_proj", spec.q_lora_rank);
    }
    builder.Bias(prefix + "kv_a_proj_with_mqa", spec.latent_dim());
    builder.Bias(prefix + "o_proj", hidden);
  }
}

void AddMoe(Builder& builder, const std::string& prefix, const TinyCheckpointOptions& options) {
  const ModelSpec& spec = options.spec;
  const uint64_t hidden = spec.hidden_size;
  const uint64_t intermediate = spec.expert_intermediate_size;
  builder.Matrix(prefix + "gate", spec.expert_count, hidden);
  builder.Add(fmt::format("{}gate.{}", prefix, kBiasSuffix), {spec.expert_count}, 0.1F);
  if (spec.shared_expert_count > 0) {
    AddFfn(builder, prefix + "shared_experts.", hidden, spec.shared_expert_count * intermediate);
  }
  if (options.fused_experts) {
    builder.Add(prefix + "experts.gate_up_proj", {spec.expert_count, 2 * intermediate, hidden},
                1.0F / std::sqrt(static_cast<float>(hidden)));
    builder.Add(prefix + "experts.down_proj", {spec.expert_count, hidden, intermediate},
                1.0F / std::sqrt(static_cast<float>(intermediate)));
    return;
  }
  for (uint32_t e = 0; e < spec.expert_count; ++e) {
    AddFfn(builder, fmt::format("{}experts.{}.", prefix, e), hidden, intermediate);
  }
}

std::string_view TorchName(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return "float32";
    case Dtype::kBf16:
      return "bfloat16";
    case Dtype::kF16:
      return "float16";
  }
  return "";
}

std::string RopeScalingJson(const ModelSpec& spec) {
  if (!spec.yarn.has_value()) {
    return "null";
  }
  const YarnSpec& yarn = *spec.yarn;
  return fmt::format(
      R"({{"type": "yarn", "factor": {}, "original_max_position_embeddings": {}, "beta_fast": {},
    "beta_slow": {}, "mscale": {}, "mscale_all_dim": {}}})",
      yarn.factor, static_cast<uint64_t>(yarn.original_max_positions), yarn.beta_fast,
      yarn.beta_slow, yarn.mscale, yarn.mscale_all_dim);
}

std::string ConfigJson(const ModelSpec& spec) {
  std::string json = "{\n  \"architectures\": [\"DeepseekV3ForCausalLM\"],\n";
  const auto field = [&json](std::string_view name, const auto& value) {
    json += fmt::format("  \"{}\": {},\n", name, value);
  };
  field("vocab_size", spec.vocab_size);
  field("hidden_size", spec.hidden_size);
  field("intermediate_size", spec.dense_intermediate_size);
  field("moe_intermediate_size", spec.expert_intermediate_size);
  field("num_hidden_layers", spec.layer_count);
  field("first_k_dense_replace", spec.first_moe_layer);
  field("num_attention_heads", spec.head_count);
  field("num_key_value_heads", spec.head_count);
  field("n_routed_experts", spec.expert_count);
  field("n_shared_experts", spec.shared_expert_count);
  field("num_experts_per_tok", spec.top_k);
  field("n_group", spec.group_count);
  field("topk_group", spec.top_k_groups);
  field("norm_topk_prob", spec.norm_top_k);
  field("routed_scaling_factor", spec.routed_scaling_factor);
  field("q_lora_rank", spec.q_lora_rank == 0 ? "null" : fmt::format("{}", spec.q_lora_rank));
  field("kv_lora_rank", spec.kv_lora_rank);
  field("qk_nope_head_dim", spec.nope_dim);
  field("qk_rope_head_dim", spec.rope_dim);
  field("v_head_dim", spec.value_dim);
  field("attention_bias", spec.attention_bias);
  field("rms_norm_eps", spec.rms_norm_epsilon);
  field("rope_theta", spec.rope_theta);
  field("rope_interleave", spec.rope_interleaved);
  field("rope_scaling", RopeScalingJson(spec));
  field("max_position_embeddings", spec.positions_max);
  field("tie_word_embeddings", spec.tied_embeddings);
  field("hidden_act", "\"silu\"");
  field("scoring_func", "\"sigmoid\"");
  field("topk_method", "\"noaux_tc\"");
  field("torch_dtype", fmt::format("\"{}\"", TorchName(spec.weight_dtype)));
  return json + "  \"model_type\": \"deepseek_v3\"\n}\n";
}

struct TensorValues {
  std::vector<uint64_t> shape;
  std::vector<float> values;
};

absl::StatusOr<TensorValues> ReadWidened(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsEntry& entry = *file.Find(name);
  if (entry.dtype != "F32" && entry.dtype != "F16" && entry.dtype != "BF16") {
    return InvalidArgument("{}: tensor {} has dtype {}", file.path(), name, entry.dtype);
  }
  const Dtype dtype = entry.dtype == "F32"   ? Dtype::kF32
                      : entry.dtype == "F16" ? Dtype::kF16
                                             : Dtype::kBf16;
  SY_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, file.Read(entry));
  TensorValues tensor{.shape = entry.shape,
                      .values = std::vector<float>(bytes.size() / BytesOf(dtype))};
  internal::WidenToF32(bytes.data(), dtype, tensor.values.size(), tensor.values.data());
  return tensor;
}

std::vector<std::string> SortedNames(const SafetensorsFile& file) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : file.index()) {
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Dtype Bf16But(const std::string& name) {
  return name.ends_with(kBiasSuffix) ? Dtype::kF32 : Dtype::kBf16;
}

absl::Status RewriteFileAsBf16(const std::string& from, const std::string& to) {
  SY_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(from));
  SafetensorsWriter writer;
  for (const std::string& name : SortedNames(file)) {
    SY_ASSIGN_OR_RETURN(const TensorValues tensor, ReadWidened(file, name));
    writer.Add(name, tensor.shape, Bf16But(name), tensor.values);
  }
  return WriteFileAtomically(to, writer.Render());
}

// Values of the codes [0, 0x7f), ascending.
std::vector<float> Fp8Values() {
  std::vector<float> values;
  for (int code = 0; code < 0x7f; ++code) {
    const int exponent = code >> 3;
    const float fraction = static_cast<float>(code & 7) / 8.0F;
    values.push_back(exponent == 0 ? std::ldexp(fraction, -6)
                                   : std::ldexp(1.0F + fraction, exponent - 7));
  }
  return values;
}

uint8_t NearestFp8(const std::vector<float>& values, float value) {
  const float magnitude = std::fabs(value);
  const auto above = std::lower_bound(values.begin(), values.end() - 1, magnitude);
  auto best = above;
  if (above != values.begin() && magnitude - above[-1] <= *above - magnitude) {
    --best;
  }
  const auto code = static_cast<uint8_t>(best - values.begin());
  return static_cast<uint8_t>(code | (std::signbit(value) ? 0x80U : 0U));
}

// Codes and scales of one matrix.
class Fp8Matrix {
 public:
  Fp8Matrix(const TensorValues& tensor, Fp8Scales scales)
      : tensor_(tensor), scales_(scales), codes_(tensor.values.size(), '\0') {
    for (uint64_t row = 0; row < tensor.shape[0]; row += kBlock) {
      for (uint64_t column = 0; column < tensor.shape[1]; column += kBlock) {
        AddBlock(row, column);
      }
    }
  }

  void Write(const std::string& name, SafetensorsWriter& writer) const {
    const std::vector<uint64_t> blocks = {(tensor_.shape[0] + kBlock - 1) / kBlock,
                                          (tensor_.shape[1] + kBlock - 1) / kBlock};
    writer.AddRaw(name, tensor_.shape, "F8_E4M3", codes_);
    writer.AddRaw(name + "_scale_inv", blocks, scales_ == Fp8Scales::kF32 ? "F32" : "F8_E8M0",
                  scale_bytes_);
  }

 private:
  static constexpr uint64_t kBlock = 128;

  void AddBlock(uint64_t first_row, uint64_t first_column) {
    const uint64_t rows = std::min(first_row + kBlock, tensor_.shape[0]);
    const uint64_t columns = std::min(first_column + kBlock, tensor_.shape[1]);
    float largest = 0.0F;
    for (uint64_t r = first_row; r < rows; ++r) {
      for (uint64_t c = first_column; c < columns; ++c) {
        largest = std::max(largest, std::fabs(tensor_.values[r * tensor_.shape[1] + c]));
      }
    }
    float scale = std::max(largest / 448.0F, 1e-20F);
    if (scales_ == Fp8Scales::kUe8m0) {
      const int exponent = static_cast<int>(std::ceil(std::log2(scale)));
      scale = std::ldexp(1.0F, exponent);
      scale_bytes_ += static_cast<char>(exponent + 127);
    } else {
      scale_bytes_.append(reinterpret_cast<const char*>(&scale), sizeof(scale));
    }
    for (uint64_t r = first_row; r < rows; ++r) {
      for (uint64_t c = first_column; c < columns; ++c) {
        const uint64_t index = r * tensor_.shape[1] + c;
        codes_[index] = static_cast<char>(NearestFp8(levels_, tensor_.values[index] / scale));
      }
    }
  }

  const TensorValues& tensor_;
  const Fp8Scales scales_;
  const std::vector<float> levels_ = Fp8Values();
  std::string codes_;
  std::string scale_bytes_;
};

bool IsProjection(const std::string& name) {
  return name.ends_with("_proj.weight") || name.ends_with("kv_a_proj_with_mqa.weight");
}

}  // namespace

ModelSpec TinyModelSpec() {
  ModelSpec spec;
  spec.model_type = "deepseek_v3";
  spec.vocab_size = 64;
  spec.hidden_size = 32;
  spec.layer_count = 3;
  spec.first_moe_layer = 1;
  spec.dense_intermediate_size = 48;
  spec.expert_intermediate_size = 16;
  spec.expert_count = 8;
  spec.shared_expert_count = 1;
  spec.top_k = 3;
  spec.group_count = 4;
  spec.top_k_groups = 2;
  spec.norm_top_k = true;
  spec.routed_scaling_factor = 1.5F;
  spec.head_count = 4;
  spec.q_lora_rank = 24;
  spec.kv_lora_rank = 16;
  spec.nope_dim = 12;
  spec.rope_dim = 8;
  spec.value_dim = 10;
  spec.positions_max = 512;
  spec.weight_dtype = Dtype::kF32;
  return spec;
}

absl::Status WriteTinyCheckpoint(const TinyCheckpointOptions& options, const std::string& dir) {
  const ModelSpec& spec = options.spec;
  Builder builder(options);
  builder.Add("model.embed_tokens.weight", {spec.vocab_size, spec.hidden_size},
              spec.tied_embeddings ? 1.0F / std::sqrt(static_cast<float>(spec.hidden_size)) : 1.0F);
  for (uint32_t i = 0; i < spec.layer_count; ++i) {
    const std::string prefix = fmt::format("model.layers.{}.", i);
    builder.Norm(prefix + "input_layernorm", spec.hidden_size);
    builder.Norm(prefix + "post_attention_layernorm", spec.hidden_size);
    AddAttention(builder, prefix + "self_attn.", spec);
    if (spec.IsMoeLayer(i)) {
      AddMoe(builder, prefix + "mlp.", options);
    } else {
      AddFfn(builder, prefix + "mlp.", spec.hidden_size, spec.dense_intermediate_size);
    }
  }
  builder.Norm("model.norm", spec.hidden_size);
  if (!spec.tied_embeddings) {
    builder.Matrix("lm_head", spec.vocab_size, spec.hidden_size);
  }
  SY_RETURN_IF_ERROR(builder.Write(dir));
  return WriteFileAtomically(dir + "/config.json", ConfigJson(spec));
}

absl::Status RewriteCheckpointAsBf16(const std::string& from, const std::string& to) {
  SY_ASSIGN_OR_RETURN(const std::vector<std::string> names, internal::ListDir(from));
  for (const std::string& name : names) {
    const std::string path = from + "/" + name;
    if (name.ends_with(".safetensors") && name.starts_with("model")) {
      SY_RETURN_IF_ERROR(RewriteFileAsBf16(path, to + "/" + name));
    } else if (name == "config.json" || name == "model.safetensors.index.json") {
      SY_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kFileBytesMax));
      for (const std::string_view dtype : {"\"float32\"", "\"float16\""}) {
        if (const size_t at = text.find(dtype); at != std::string::npos) {
          text.replace(at, dtype.size(), "\"bfloat16\"");
        }
      }
      SY_RETURN_IF_ERROR(WriteFileAtomically(to + "/" + name, text));
    }
  }
  return absl::OkStatus();
}

absl::Status RewriteCheckpointAsFp8(const std::string& from, const std::string& to,
                                    Fp8Scales scales) {
  SY_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(from + kModelFile));
  SafetensorsWriter writer;
  for (const std::string& name : SortedNames(file)) {
    SY_ASSIGN_OR_RETURN(const TensorValues tensor, ReadWidened(file, name));
    if (IsProjection(name)) {
      Fp8Matrix(tensor, scales).Write(name, writer);
    } else {
      writer.Add(name, tensor.shape, Bf16But(name), tensor.values);
    }
  }
  SY_RETURN_IF_ERROR(WriteFileAtomically(to + kModelFile, writer.Render()));
  SY_ASSIGN_OR_RETURN(std::string config, ReadFile(from + "/config.json", kFileBytesMax));
  const size_t end = config.rfind('}');
  config.insert(end, R"(,  "quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
    "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
)");
  for (const std::string_view dtype : {"\"float32\"", "\"float16\""}) {
    if (const size_t at = config.find(dtype); at != std::string::npos) {
      config.replace(at, dtype.size(), "\"bfloat16\"");
    }
  }
  return WriteFileAtomically(to + "/config.json", config);
}

TempDir::TempDir() : path_(std::filesystem::temp_directory_path().string() + "/switchyard-XXXXXX") {
  SY_CHECK(::mkdtemp(path_.data()) != nullptr);
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

TinyCheckpoint::TinyCheckpoint(const TinyCheckpointOptions& options) {
  SY_CHECK(WriteTinyCheckpoint(options, dir_.path()).ok());
}

}  // namespace switchyard
