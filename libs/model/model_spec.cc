#include "libs/model/model_spec.h"

#include <set>
#include <utility>

#include <simdjson.h>

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/internal/printable.h"

namespace switchyard {
namespace {

using internal::Printable;
namespace dom = simdjson::dom;

constexpr size_t kConfigBytesMax = 16U << 20;

// Upper bounds of single fields. They are far above any model of the family, and small enough that
// every product of two of them fits 32 bits where a matrix has that many rows, and any byte
// count 64.
constexpr uint32_t kVocabMax = 1U << 22;
constexpr uint32_t kHiddenMax = 1U << 18;
constexpr uint32_t kLayersMax = 1024;
constexpr uint32_t kIntermediateMax = 1U << 20;
constexpr uint32_t kExpertsMax = 8192;
constexpr uint32_t kSharedExpertsMax = 256;
constexpr uint32_t kTopKMax = 256;
constexpr uint32_t kHeadsMax = 4096;
constexpr uint32_t kLoraRankMax = 1U << 16;
constexpr uint32_t kHeadDimMax = 4096;
constexpr uint32_t kPositionsMax = 1U << 26;

// Reads typed fields of one JSON object. The first failure is kept; later reads return defaults.
class FieldReader {
 public:
  // `path` prefixes field names in messages ("rope_scaling.").
  FieldReader(dom::object object, std::string path) : object_(object), path_(std::move(path)) {}

  // Null counts as absent.
  bool Has(std::string_view name) const {
    dom::element value;
    return object_.at_key(name).get(value) == simdjson::SUCCESS && !value.is_null();
  }

  uint32_t Count(std::string_view name, uint32_t min, uint32_t max) {
    dom::element value;
    if (!Find(name, value)) {
      return min;
    }
    uint64_t number = 0;
    if (value.get(number) != simdjson::SUCCESS) {
      Fail(name, "must be a non-negative integer");
      return min;
    }
    if (number < min || number > max) {
      Fail(name, fmt::format("{} is not in [{}, {}]", number, min, max));
      return min;
    }
    return static_cast<uint32_t>(number);
  }

  uint32_t CountOr(std::string_view name, uint32_t fallback, uint32_t min, uint32_t max) {
    return Has(name) ? Count(name, min, max) : fallback;
  }

  // Null means `fallback`; the field must be there.
  uint32_t CountOrNull(std::string_view name, uint32_t fallback, uint32_t min, uint32_t max) {
    dom::element value;
    if (!Find(name, value) || value.is_null()) {
      return fallback;
    }
    return Count(name, min, max);
  }

  double Real(std::string_view name, double min, double max) {
    dom::element value;
    if (!Find(name, value)) {
      return min;
    }
    double number = 0;
    if (value.get(number) != simdjson::SUCCESS) {
      Fail(name, "must be a number");
      return min;
    }
    if (!(number >= min && number <= max)) {
      Fail(name, fmt::format("{} is not in [{}, {}]", number, min, max));
      return min;
    }
    return number;
  }

  double RealOr(std::string_view name, double fallback, double min, double max) {
    return Has(name) ? Real(name, min, max) : fallback;
  }

  bool FlagOr(std::string_view name, bool fallback) {
    dom::element value;
    if (object_.at_key(name).get(value) != simdjson::SUCCESS) {
      return fallback;
    }
    bool flag = fallback;
    if (value.get(flag) != simdjson::SUCCESS) {
      Fail(name, "must be true or false");
    }
    return flag;
  }

  std::string TextOr(std::string_view name, std::string_view fallback) {
    if (!Has(name)) {
      return std::string(fallback);
    }
    dom::element value = object_.at_key(name).value_unsafe();
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) {
      Fail(name, "must be a string");
    }
    return std::string(text);
  }

  // An object field that is present; use after Has().
  dom::object Object(std::string_view name) {
    dom::object object;
    if (object_.at_key(name).get(object) != simdjson::SUCCESS) {
      Fail(name, "must be an object");
    }
    return object;
  }

  // Only `supported` is accepted; an absent field means it.
  void Expect(std::string_view name, std::string_view supported) {
    const std::string text = TextOr(name, supported);
    if (text != supported) {
      Fail(name, fmt::format("'{}' is not supported, only '{}'", Printable(text), supported));
    }
  }

  void Refuse(std::string_view name, std::string_view why) {
    if (Has(name)) {
      Fail(name, why);
    }
  }

  void Fail(std::string_view name, std::string_view what) {
    if (status_.ok()) {
      status_ = InvalidArgument("config.json: {}{} {}", path_, name, what);
    }
  }

  const absl::Status& status() const { return status_; }

 private:
  bool Find(std::string_view name, dom::element& value) {
    if (object_.at_key(name).get(value) != simdjson::SUCCESS) {
      Fail(name, "is missing");
      return false;
    }
    return true;
  }

  dom::object object_;
  std::string path_;
  absl::Status status_;
};

void ReadSizes(FieldReader& fields, ModelSpec& spec) {
  spec.vocab_size = fields.Count("vocab_size", 1, kVocabMax);
  spec.hidden_size = fields.Count("hidden_size", 1, kHiddenMax);
  spec.layer_count = fields.Count("num_hidden_layers", 1, kLayersMax);
  spec.first_moe_layer = fields.Count("first_k_dense_replace", 0, kLayersMax);
  spec.dense_intermediate_size = fields.Count("intermediate_size", 1, kIntermediateMax);
  spec.positions_max = fields.Count("max_position_embeddings", 1, kPositionsMax);
  spec.tied_embeddings = fields.FlagOr("tie_word_embeddings", false);
  spec.rms_norm_epsilon = static_cast<float>(fields.RealOr("rms_norm_eps", 1e-6, 1e-12, 0.1));
  if (spec.first_moe_layer > spec.layer_count) {
    fields.Fail("first_k_dense_replace",
                fmt::format("{} > num_hidden_layers {}", spec.first_moe_layer, spec.layer_count));
  }
}

void ReadMoe(FieldReader& fields, ModelSpec& spec) {
  spec.expert_intermediate_size = fields.Count("moe_intermediate_size", 1, kIntermediateMax);
  spec.expert_count = fields.Count("n_routed_experts", 2, kExpertsMax);
  spec.shared_expert_count = fields.CountOrNull("n_shared_experts", 0, 0, kSharedExpertsMax);
  spec.top_k = fields.Count("num_experts_per_tok", 1, kTopKMax);
  spec.group_count = fields.Count("n_group", 1, kExpertsMax);
  spec.top_k_groups = fields.Count("topk_group", 1, kExpertsMax);
  spec.norm_top_k = fields.FlagOr("norm_topk_prob", true);
  spec.routed_scaling_factor = static_cast<float>(fields.Real("routed_scaling_factor", 1e-6, 1e6));
  fields.Expect("scoring_func", "sigmoid");
  fields.Expect("topk_method", "noaux_tc");
  fields.CountOr("moe_layer_freq", 1, 1, 1);
  if (!fields.status().ok()) {
    return;
  }
  if (spec.top_k > spec.expert_count) {
    fields.Fail("num_experts_per_tok",
                fmt::format("{} > n_routed_experts {}", spec.top_k, spec.expert_count));
  }
  if (spec.top_k_groups > spec.group_count) {
    fields.Fail("topk_group", fmt::format("{} > n_group {}", spec.top_k_groups, spec.group_count));
  }
  if (spec.expert_count % spec.group_count != 0) {
    fields.Fail("n_group", fmt::format("{} does not divide n_routed_experts {}", spec.group_count,
                                       spec.expert_count));
    return;
  }
  const uint32_t group_size = spec.expert_count / spec.group_count;
  if (group_size < 2) {  // A group's score is the sum of its two best.
    fields.Fail("n_group", fmt::format("{} leaves {} expert per group, fewer than 2",
                                       spec.group_count, group_size));
  }
  if (spec.top_k > spec.top_k_groups * group_size) {
    fields.Fail("num_experts_per_tok",
                fmt::format("{} > {} experts of topk_group {} groups", spec.top_k,
                            spec.top_k_groups * group_size, spec.top_k_groups));
  }
}

void ReadAttention(FieldReader& fields, ModelSpec& spec) {
  spec.head_count = fields.Count("num_attention_heads", 1, kHeadsMax);
  const uint32_t kv_heads = fields.CountOr("num_key_value_heads", spec.head_count, 1, kHeadsMax);
  if (kv_heads != spec.head_count) {
    fields.Fail("num_key_value_heads",
                fmt::format("{} != num_attention_heads {}", kv_heads, spec.head_count));
  }
  spec.q_lora_rank = fields.CountOrNull("q_lora_rank", 0, 1, kLoraRankMax);  // Null: no low rank.
  spec.kv_lora_rank = fields.Count("kv_lora_rank", 1, kLoraRankMax);
  spec.nope_dim = fields.Count("qk_nope_head_dim", 1, kHeadDimMax);
  spec.rope_dim = fields.Count("qk_rope_head_dim", 2, kHeadDimMax);
  spec.value_dim = fields.Count("v_head_dim", 1, kHeadDimMax);
  spec.attention_bias = fields.FlagOr("attention_bias", false);
  spec.rope_interleaved = fields.FlagOr("rope_interleave", true);
  if (spec.rope_dim % 2 != 0) {
    fields.Fail("qk_rope_head_dim", fmt::format("{} is odd", spec.rope_dim));
  }
}

// DeepSeek's own code and transformers agree on what mscale means only when both numbers are given
// or none is; otherwise transformers ignores mscale, which is the reference here.
YarnSpec ReadYarn(FieldReader& fields) {
  YarnSpec yarn;
  yarn.factor = fields.Real("factor", 1.0, 1e6);
  yarn.original_max_positions = fields.Count("original_max_position_embeddings", 1, kPositionsMax);
  yarn.beta_fast = fields.RealOr("beta_fast", 32.0, 1e-3, 1e6);
  yarn.beta_slow = fields.RealOr("beta_slow", 1.0, 1e-3, 1e6);
  yarn.mscale = fields.RealOr("mscale", 0.0, 0.0, 1e3);
  yarn.mscale_all_dim = fields.RealOr("mscale_all_dim", 0.0, 0.0, 1e3);
  if (yarn.beta_fast < yarn.beta_slow) {
    fields.Fail("beta_fast", fmt::format("{} < beta_slow {}", yarn.beta_fast, yarn.beta_slow));
  }
  if (yarn.mscale == 0.0 && yarn.mscale_all_dim != 0.0) {
    fields.Fail("mscale_all_dim", "without mscale is not supported");
  }
  if (yarn.mscale_all_dim == 0.0) {
    yarn.mscale = 1.0;
  }
  fields.Refuse("attention_factor", "is not supported");
  if (!fields.FlagOr("truncate", true)) {
    fields.Fail("truncate", "false is not supported");
  }
  return yarn;
}

// `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (as published).
absl::Status ReadRope(FieldReader& fields, ModelSpec& spec) {
  spec.rope_theta = fields.RealOr("rope_theta", 10000.0, 1.0 + 1e-6, 1e15);
  SY_RETURN_IF_ERROR(fields.status());
  if (fields.Has("rope_parameters") && fields.Has("rope_scaling")) {
    return InvalidArgument("config.json: rope_parameters and rope_scaling are both given");
  }
  const std::string name = fields.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!fields.Has(name)) {
    return absl::OkStatus();
  }
  FieldReader rope(fields.Object(name), name + ".");
  SY_RETURN_IF_ERROR(fields.status());
  spec.rope_theta = rope.RealOr("rope_theta", spec.rope_theta, 1.0 + 1e-6, 1e15);
  if (rope.RealOr("partial_rotary_factor", 1.0, 0.0, 1.0) != 1.0) {
    rope.Fail("partial_rotary_factor", "is not supported");
  }
  const std::string type = rope.TextOr("rope_type", rope.TextOr("type", "default"));
  if (type == "yarn") {
    spec.yarn = ReadYarn(rope);
  } else if (type != "default") {
    rope.Fail("rope_type",
              fmt::format("'{}' is not supported, only 'yarn' and 'default'", Printable(type)));
  }
  return rope.status();
}

void ReadDtype(FieldReader& fields, ModelSpec& spec) {
  const std::string_view name = fields.Has("dtype") ? "dtype" : "torch_dtype";
  const std::string text = fields.TextOr(name, "bfloat16");
  if (text == "bfloat16") {
    spec.weight_dtype = Dtype::kBf16;
  } else if (text == "float32") {
    spec.weight_dtype = Dtype::kF32;
  } else if (text == "float16") {
    spec.weight_dtype = Dtype::kF16;
  } else {
    fields.Fail(name, fmt::format("'{}' is not supported", Printable(text)));
  }
}

// [128, 128] and nothing else.
void ReadBlockSize(FieldReader& fields, const dom::object& object) {
  dom::array sizes;
  if (object.at_key("weight_block_size").get(sizes) != simdjson::SUCCESS) {
    fields.Fail("weight_block_size", "is missing: one scale per tensor is not supported");
    return;
  }
  size_t count = 0;
  for (const dom::element each : sizes) {
    uint64_t size = 0;
    if (each.get(size) != simdjson::SUCCESS || size != kFp8Block) {
      count = 0;
      break;
    }
    ++count;
  }
  if (count != 2) {
    fields.Fail("weight_block_size", "is not [128, 128]");
  }
}

// quantization_config of DeepSeek's FP8 checkpoints or of `switchyard convert`.
absl::Status ReadQuantization(FieldReader& fields, ModelSpec& spec) {
  if (!fields.Has("quantization_config")) {
    return absl::OkStatus();
  }
  const dom::object object = fields.Object("quantization_config");
  SY_RETURN_IF_ERROR(fields.status());
  FieldReader config(object, "quantization_config.");
  const std::string method = config.TextOr("quant_method", "");
  if (method == "fp8") {
    config.Expect("fmt", "e4m3");
    config.Expect("activation_scheme", "dynamic");
    ReadBlockSize(config, object);
    spec.quantization = WeightFormat::kFp8;
    return config.status();
  }
  if (method != "switchyard") {
    config.Fail("quant_method", fmt::format("'{}' is not supported, only 'fp8' and 'switchyard'",
                                            Printable(method)));
    return config.status();
  }
  const std::string format = config.TextOr("format", "");
  for (const WeightFormat each : {WeightFormat::kBf16, WeightFormat::kInt8, WeightFormat::kInt4}) {
    if (format == NameOf(each)) {
      spec.quantization = each;
    }
  }
  if (!spec.quantization.has_value()) {
    config.Fail("format", fmt::format("'{}' is none of bf16, int8, int4", Printable(format)));
  }
  config.CountOr("group_size", kScaleGroup, kScaleGroup, kScaleGroup);
  return config.status();
}

absl::Status CheckNoDuplicates(const dom::object& object, std::string_view path) {
  std::set<std::string_view> names;
  for (const dom::key_value_pair field : object) {
    if (!names.insert(field.key).second) {
      return InvalidArgument("config.json: {}{} is given twice", path, Printable(field.key));
    }
    dom::object nested;
    if (field.value.get(nested) == simdjson::SUCCESS && path.empty()) {
      SY_RETURN_IF_ERROR(CheckNoDuplicates(nested, fmt::format("{}.", Printable(field.key))));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelSpec> ModelSpec::FromConfigJson(std::string_view json) {
  if (json.size() > kConfigBytesMax) {
    return InvalidArgument("config.json: {} bytes > {}", json.size(), kConfigBytesMax);
  }
  const simdjson::padded_string padded(json);
  dom::parser parser;
  dom::object root;
  if (const auto error = parser.parse(padded).get(root); error != simdjson::SUCCESS) {
    return InvalidArgument("config.json: not a JSON object: {}", simdjson::error_message(error));
  }
  SY_RETURN_IF_ERROR(CheckNoDuplicates(root, ""));
  FieldReader fields(root, "");
  ModelSpec spec;
  spec.model_type = fields.TextOr("model_type", "");
  if (spec.model_type != "deepseek_v3") {
    return InvalidArgument("config.json: model_type '{}' is not supported, only 'deepseek_v3'",
                           Printable(spec.model_type));
  }
  fields.Expect("hidden_act", "silu");
  ReadSizes(fields, spec);
  ReadMoe(fields, spec);
  ReadAttention(fields, spec);
  ReadDtype(fields, spec);
  SY_RETURN_IF_ERROR(fields.status());
  SY_RETURN_IF_ERROR(ReadRope(fields, spec));
  SY_RETURN_IF_ERROR(ReadQuantization(fields, spec));
  return spec;
}

absl::StatusOr<ModelSpec> ModelSpec::Load(const std::string& model_dir) {
  SY_ASSIGN_OR_RETURN(const std::string json,
                      ReadRegularFile(model_dir + "/config.json", kConfigBytesMax));
  auto spec = FromConfigJson(json);
  if (!spec.ok()) {
    return Annotate(spec.status(), model_dir);
  }
  return spec;
}

}  // namespace switchyard
