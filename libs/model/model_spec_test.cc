#include "libs/model/model_spec.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/status.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

// Field name -> JSON text; an empty text leaves the field out.
using Fields = std::vector<std::pair<std::string, std::string>>;

Fields PublishedFields() {
  return {
      {"model_type", "\"deepseek_v3\""},
      {"vocab_size", "129280"},
      {"hidden_size", "7168"},
      {"intermediate_size", "18432"},
      {"moe_intermediate_size", "2048"},
      {"num_hidden_layers", "61"},
      {"num_attention_heads", "128"},
      {"num_key_value_heads", "128"},
      {"n_shared_experts", "1"},
      {"n_routed_experts", "256"},
      {"routed_scaling_factor", "2.5"},
      {"kv_lora_rank", "512"},
      {"q_lora_rank", "1536"},
      {"qk_rope_head_dim", "64"},
      {"qk_nope_head_dim", "128"},
      {"v_head_dim", "128"},
      {"n_group", "8"},
      {"topk_group", "4"},
      {"num_experts_per_tok", "8"},
      {"first_k_dense_replace", "3"},
      {"moe_layer_freq", "1"},
      {"norm_topk_prob", "true"},
      {"scoring_func", "\"sigmoid\""},
      {"topk_method", "\"noaux_tc\""},
      {"hidden_act", "\"silu\""},
      {"max_position_embeddings", "163840"},
      {"rms_norm_eps", "1e-06"},
      {"rope_theta", "10000"},
      {"rope_scaling",
       R"({"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
               "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0})"},
      {"attention_bias", "false"},
      {"tie_word_embeddings", "false"},
      {"torch_dtype", "\"bfloat16\""},
      {"ep_size", "1"}};
}

std::string Render(const Fields& changes) {
  Fields fields = PublishedFields();
  for (const auto& change : changes) {
    bool found = false;
    for (auto& field : fields) {
      if (field.first == change.first) {
        field.second = change.second;
        found = true;
      }
    }
    if (!found) {
      fields.push_back(change);
    }
  }
  std::string json = "{";
  for (const auto& [name, text] : fields) {
    if (!text.empty()) {
      json += (json.size() > 1 ? ",\"" : "\"") + name + "\":" + text;
    }
  }
  return json + "}";
}

std::string ErrorOf(const Fields& changes) {
  const auto spec = ModelSpec::FromConfigJson(Render(changes));
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument);
  return MessageOf(spec.status());
}

TEST(ModelSpec, ReadsThePublishedLayout) {
  const auto spec = ModelSpec::FromConfigJson(Render({}));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->expert_count, 256U);
  EXPECT_EQ(spec->group_count, 8U);
  EXPECT_EQ(spec->qk_dim(), 192U);
  EXPECT_EQ(spec->latent_dim(), 576U);
  EXPECT_FALSE(spec->IsMoeLayer(2));
  EXPECT_TRUE(spec->IsMoeLayer(3));
  EXPECT_EQ(spec->weight_dtype, Dtype::kBf16);
  EXPECT_TRUE(spec->rope_interleaved);
  ASSERT_TRUE(spec->yarn.has_value());
  EXPECT_EQ(spec->yarn->factor, 40.0);
  EXPECT_EQ(spec->yarn->original_max_positions, 4096.0);
  EXPECT_EQ(spec->yarn->mscale_all_dim, 1.0);
}

TEST(ModelSpec, ReadsTheLayoutOfTransformers5) {
  const auto spec = ModelSpec::FromConfigJson(
      Render({{"rope_theta", ""},
              {"rope_scaling", ""},
              {"torch_dtype", ""},
              {"scoring_func", ""},
              {"topk_method", ""},
              {"moe_layer_freq", ""},
              {"dtype", "\"float32\""},
              {"q_lora_rank", "null"},
              {"rope_parameters",
               R"({"rope_type": "yarn", "type": "yarn", "rope_theta": 50000.0, "factor": 4.0,
                                      "original_max_position_embeddings": 64})"}}));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->rope_theta, 50000.0);
  EXPECT_EQ(spec->q_lora_rank, 0U);
  EXPECT_EQ(spec->weight_dtype, Dtype::kF32);
  ASSERT_TRUE(spec->yarn.has_value());
  EXPECT_EQ(spec->yarn->mscale, 1.0);
  EXPECT_EQ(spec->yarn->mscale_all_dim, 0.0);
  EXPECT_EQ(spec->yarn->beta_fast, 32.0);
}

TEST(ModelSpec, DefaultRopeIsNoScaling) {
  const auto spec = ModelSpec::FromConfigJson(
      Render({{"rope_scaling", ""},
              {"rope_parameters", R"({"rope_type": "default", "rope_theta": 10000.0})"}}));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_FALSE(spec->yarn.has_value());
}

TEST(ModelSpec, EveryRequiredFieldIsMissedByName) {
  for (const std::string name : {"model_type",
                                 "vocab_size",
                                 "hidden_size",
                                 "intermediate_size",
                                 "moe_intermediate_size",
                                 "num_hidden_layers",
                                 "num_attention_heads",
                                 "n_shared_experts",
                                 "n_routed_experts",
                                 "routed_scaling_factor",
                                 "kv_lora_rank",
                                 "q_lora_rank",
                                 "qk_rope_head_dim",
                                 "qk_nope_head_dim",
                                 "v_head_dim",
                                 "n_group",
                                 "topk_group",
                                 "num_experts_per_tok",
                                 "first_k_dense_replace",
                                 "max_position_embeddings"}) {
    EXPECT_THAT(ErrorOf({{name, ""}}), HasSubstr(name));
  }
}

TEST(ModelSpec, RefusesValuesNoModelHas) {
  for (const std::string name :
       {"vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size",
        "num_hidden_layers", "num_attention_heads", "n_routed_experts", "kv_lora_rank",
        "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "n_group",
        "topk_group", "num_experts_per_tok", "max_position_embeddings"}) {
    for (const std::string value :
         {"0", "-1", "4294967296", "18446744073709551615", "1.5", "\"8\"", "[]"}) {
      EXPECT_THAT(ErrorOf({{name, value}}), HasSubstr(name)) << value;
    }
  }
  for (const std::string name : {"routed_scaling_factor", "rms_norm_eps", "rope_theta"}) {
    for (const std::string value : {"0", "-1", "1e300", "\"x\""}) {
      EXPECT_THAT(ErrorOf({{name, value}}), HasSubstr(name)) << value;
    }
  }
  EXPECT_THAT(ErrorOf({{"routed_scaling_factor", "NaN"}}), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOf({{"norm_topk_prob", "1"}}), HasSubstr("norm_topk_prob"));
}

TEST(ModelSpec, RefusesContradictions) {
  EXPECT_THAT(ErrorOf({{"num_experts_per_tok", "9"},
                       {"n_routed_experts", "8"},
                       {"n_group", "1"},
                       {"topk_group", "1"}}),
              HasSubstr("num_experts_per_tok 9 > n_routed_experts 8"));
  EXPECT_THAT(ErrorOf({{"n_group", "7"}, {"topk_group", "7"}}),
              HasSubstr("n_group 7 does not divide"));
  EXPECT_THAT(ErrorOf({{"topk_group", "9"}}), HasSubstr("topk_group 9 > n_group 8"));
  EXPECT_THAT(ErrorOf({{"topk_group", "1"}, {"num_experts_per_tok", "33"}}),
              HasSubstr("num_experts_per_tok 33 > 32 experts"));
  EXPECT_THAT(ErrorOf({{"n_group", "256"}}), HasSubstr("fewer than 2"));
  EXPECT_THAT(ErrorOf({{"qk_rope_head_dim", "63"}}), HasSubstr("qk_rope_head_dim 63 is odd"));
  EXPECT_THAT(ErrorOf({{"first_k_dense_replace", "62"}}), HasSubstr("first_k_dense_replace 62"));
  EXPECT_THAT(ErrorOf({{"num_key_value_heads", "8"}}), HasSubstr("num_key_value_heads 8"));
}

TEST(ModelSpec, NamesWhatIsNotSupported) {
  EXPECT_THAT(ErrorOf({{"model_type", "\"llama\""}}), HasSubstr("model_type 'llama'"));
  EXPECT_THAT(ErrorOf({{"scoring_func", "\"softmax\""}}), HasSubstr("scoring_func 'softmax'"));
  EXPECT_THAT(ErrorOf({{"topk_method", "\"greedy\""}}), HasSubstr("topk_method 'greedy'"));
  EXPECT_THAT(ErrorOf({{"hidden_act", "\"gelu\""}}), HasSubstr("hidden_act 'gelu'"));
  EXPECT_THAT(ErrorOf({{"moe_layer_freq", "2"}}), HasSubstr("moe_layer_freq"));
  EXPECT_THAT(ErrorOf({{"torch_dtype", "\"float64\""}}), HasSubstr("torch_dtype 'float64'"));
  EXPECT_THAT(ErrorOf({{"rope_scaling", R"({"type": "linear", "factor": 2})"}}),
              HasSubstr("rope_scaling.rope_type 'linear'"));
  EXPECT_THAT(ErrorOf({{"rope_scaling", R"({"type": "yarn", "factor": 2})"}}),
              HasSubstr("rope_scaling.original_max_position_embeddings is missing"));
  EXPECT_THAT(
      ErrorOf({{"rope_scaling",
                R"({"type": "yarn", "factor": 0, "original_max_position_embeddings": 64})"}}),
      HasSubstr("rope_scaling.factor"));
  EXPECT_THAT(ErrorOf({{"rope_scaling",
                        R"({"type": "yarn", "factor": 2, "original_max_position_embeddings": 64,
                                            "attention_factor": 1.0})"}}),
              HasSubstr("attention_factor"));
}

TEST(ModelSpec, RefusesWhatIsNotAnObjectAndFieldsGivenTwice) {
  EXPECT_FALSE(ModelSpec::FromConfigJson("").ok());
  EXPECT_FALSE(ModelSpec::FromConfigJson("[1]").ok());
  EXPECT_FALSE(ModelSpec::FromConfigJson("{\"vocab_size\":").ok());
  std::string json = Render({});
  json.insert(1, "\"vocab_size\": 5,");
  EXPECT_THAT(MessageOf(ModelSpec::FromConfigJson(json).status()),
              HasSubstr("vocab_size is given twice"));
}

TEST(ModelSpec, ReadsTheDemoModel) {
  const auto spec = ModelSpec::Load("models/demo");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->expert_count, 32U);
  EXPECT_EQ(ModelSpec::Load("models/none").status().code(), absl::StatusCode::kNotFound);
}

TEST(ModelSpec, ReadsQuantizationConfigs) {
  const auto spec_with = [](const std::string& config) {
    return ModelSpec::FromConfigJson(Render({{"quantization_config", config}}));
  };
  const std::string fp8 = R"("quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic")";
  EXPECT_EQ(spec_with("{" + fp8 + R"(, "weight_block_size": [128, 128]})")->quantization,
            WeightFormat::kFp8);
  EXPECT_EQ(spec_with(R"({"quant_method": "switchyard", "format": "int4", "group_size": 32})")
                ->quantization,
            WeightFormat::kInt4);
  EXPECT_EQ(spec_with("null")->quantization, std::nullopt);
  const auto error = [&spec_with](const std::string& config) {
    return MessageOf(spec_with(config).status());
  };
  EXPECT_THAT(error(R"({"quant_method": "awq"})"),
              HasSubstr("quantization_config.quant_method 'awq' is not supported"));
  EXPECT_THAT(error("{}"), HasSubstr("quant_method"));
  EXPECT_THAT(error("3"), HasSubstr("quantization_config must be an object"));
  EXPECT_THAT(error("{" + fp8 + "}"), HasSubstr("weight_block_size is missing"));
  EXPECT_THAT(error("{" + fp8 + R"(, "weight_block_size": [64, 128]})"),
              HasSubstr("weight_block_size is not [128, 128]"));
  EXPECT_THAT(error(R"({"quant_method": "fp8", "fmt": "e5m2"})"), HasSubstr("fmt 'e5m2'"));
  EXPECT_THAT(error(R"({"quant_method": "fp8", "activation_scheme": "static"})"),
              HasSubstr("activation_scheme 'static'"));
  EXPECT_THAT(error(R"({"quant_method": "switchyard", "format": "int3"})"), HasSubstr("'int3'"));
  EXPECT_THAT(error(R"({"quant_method": "switchyard", "format": "int8", "group_size": 64})"),
              HasSubstr("group_size 64"));
}

}  // namespace
}  // namespace switchyard
