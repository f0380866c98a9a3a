#include "client/workload/model.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace statecached {
namespace {

constexpr const char* kJamba = R"({"name": "mine", "d_model": 4096,
  "attention": {"layers": 4, "query_heads": 32, "kv_heads": 8, "head_dim": 128},
  "recurrent": {"kind": "mamba1", "layers": 28, "di": 8192, "N": 16, "R": 256, "K": 4},
  "ffn": [
    {"kind": "swiglu", "layers": 16, "d_ff": 14336, "experts": 0, "top_k": 0, "shared_d_ff": 0},
    {"kind": "swiglu", "layers": 16, "d_ff": 14336, "experts": 16, "top_k": 2, "shared_d_ff": 0}],
  "linear_parameters_executed_per_token": 11573174144})";

class ModelFile : public ::testing::Test {
 protected:
  ModelFile() {
    path_ = (std::filesystem::temp_directory_path() /
             ("statecached-model-" + std::to_string(getpid()) + ".json"))
                .string();
  }

  ~ModelFile() override { std::filesystem::remove(path_); }

  Result<ModelCost> load(const std::string& text) {
    std::ofstream(path_) << text;
    return load_model(path_);
  }

  std::string path_;
};

TEST_F(ModelFile, GeometryGivesWhatTheTableHas) {
  const auto table = load_model("jamba-1.5-mini");
  ASSERT_TRUE(table) << table.error().message();
  for (const std::string& text :
       {std::string(kJamba), "{\"models\":[" + std::string(kJamba) + "]}"}) {
    const auto mine = load(text);
    ASSERT_TRUE(mine) << mine.error().message();
    EXPECT_EQ(mine->name, "mine");
    EXPECT_EQ(mine->kv_bytes_per_token, 16384U);
    EXPECT_EQ(mine->checkpoint_bytes, 16056320U);
    EXPECT_NEAR(mine->cost.flops(0, 8192), 192099792191488.0, 1e-3 * 192099792191488.0);
    EXPECT_DOUBLE_EQ(mine->cost.flops(0, 65536), table->cost.flops(0, 65536));
  }
}

TEST_F(ModelFile, WhatIsStatedStandsAboveGeometry) {
  std::string text(kJamba);
  text.insert(1, "\"kv_bytes_per_token_bf16\": 100, \"checkpoint_bytes_all_2byte\": 7,");
  const auto model = load(text);
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ(model->kv_bytes_per_token, 100U);
  EXPECT_EQ(model->checkpoint_bytes_2byte, 7U);
}

TEST_F(ModelFile, ErrorsNameWhatIsWrong) {
  const auto says = [&](const std::string& text, const char* what) {
    const auto model = load(text);
    return !model && model.error().text.find(what) != std::string::npos;
  };
  EXPECT_TRUE(says("{", "not a JSON object"));
  EXPECT_TRUE(says("{}", "d_model"));
  EXPECT_TRUE(says(R"({"d_model": 8})", "attention"));
  EXPECT_TRUE(says(R"({"d_model": 8, "attention": {"layers": 1, "query_heads": 1, "kv_heads": 1}})",
                   "head_dim"));
  EXPECT_TRUE(says(
      R"({"d_model": 8, "attention": {"layers": 1, "query_heads": 1, "kv_heads": 1, "head_dim": 8},
                       "recurrent": {"kind": "rwkv"}})",
      "rwkv"));
  EXPECT_FALSE(load_model("no-such-model"));
  EXPECT_FALSE(load_model("/nonexistent/model.json"));
}

TEST(NamespaceOfModel, HasTheGroupsOfTheModelAtScale) {
  const auto model = load_model("jamba-1.5-mini");
  ASSERT_TRUE(model);
  const auto spec =
      namespace_spec(*model, {.bytes_scale = 1.0 / 256, .block_tokens = 64, .state_dtype = ""});
  ASSERT_TRUE(spec) << spec.error().message();
  ASSERT_EQ(spec->groups.size(), 2U);
  EXPECT_EQ(spec->groups[0].max_bytes, 64U * 64U);
  EXPECT_EQ(spec->groups[1].max_bytes, 62720U);
  EXPECT_EQ(spec->groups[1].need, Need::end);
  const auto half =
      namespace_spec(*model, {.bytes_scale = 1, .block_tokens = 64, .state_dtype = "2byte"});
  ASSERT_TRUE(half);
  EXPECT_EQ(half->groups[1].max_bytes, 8716288U);
  EXPECT_NE(half->fingerprint(), spec->fingerprint());
  EXPECT_FALSE(
      namespace_spec(*model, {.bytes_scale = 1, .block_tokens = 64, .state_dtype = "fp4"}));
  const auto dense = load_model("llama-3.1-8b");
  ASSERT_TRUE(dense);
  const auto plain = namespace_spec(*dense, {});
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->groups.size(), 1U) << "a model without a state has no group for it";
}

}  // namespace
}  // namespace statecached
