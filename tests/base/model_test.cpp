// Model geometry: against figures that were made elsewhere, and against what must hold of any
// model.

#include "base/model.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

namespace statecached {
namespace {

void expect_close(double got, double want, std::string_view what) {
  EXPECT_NEAR(got, want, 1e-9 * want) << what;
}

std::optional<std::filesystem::path> reference_file() {
  std::filesystem::path folder = std::filesystem::path(STATECACHED_SOURCE_DIR) / ".." / "shared";
  if (const char* given = std::getenv("STATECACHED_SHARED"); given != nullptr) folder = given;
  const auto file = folder / "models.json";
  if (!std::filesystem::exists(file)) return std::nullopt;
  return file;
}

TEST(Model, ReproducesTheReferenceFigures) {
  const auto file = reference_file();
  if (!file) GTEST_SKIP() << "no models.json; set STATECACHED_SHARED to the folder that has it";
  std::ifstream in(*file);
  const nlohmann::json reference = nlohmann::json::parse(in);
  ASSERT_GE(reference["models"].size(), 14U);
  for (const auto& want : reference["models"]) {
    const std::string name = want["name"];
    SCOPED_TRACE(name);
    const auto model = find_model(name);
    ASSERT_TRUE(model) << model.error().message();
    EXPECT_EQ(model->linear_parameters,
              want["linear_parameters_executed_per_token"].get<std::uint64_t>());
    EXPECT_EQ(model->kv_bytes_per_token, want["kv_bytes_per_token_bf16"].get<std::uint64_t>());
    EXPECT_EQ(model->checkpoint_bytes,
              want["checkpoint_bytes_bf16conv_fp32ssm"].get<std::uint64_t>());
    EXPECT_EQ(model->checkpoint_bytes_2byte,
              want["checkpoint_bytes_all_2byte"].get<std::uint64_t>());
    for (const auto& [length, flops] : want["prefill_flops"].items()) {
      expect_close(model->cost.flops(0, std::stoull(length)), flops.get<double>(), length);
    }
    expect_close(model->cost.flops(8192, 16384),
                 want["prefill_flops_8192_more_after_8192_cached"].get<double>(),
                 "8192 after 8192");
  }
}

// The table's own anchors, so that the constants are tested where the reference file is not at
// hand.
TEST(Model, KnownFigures) {
  const auto jamba = find_model("jamba-1.5-mini");
  ASSERT_TRUE(jamba);
  EXPECT_EQ(jamba->checkpoint_bytes, 16'056'320U);
  EXPECT_EQ(jamba->kv_bytes_per_token, 16'384U);
  expect_close(jamba->cost.flops(0, 8192), 192099792191488.0, "jamba");
  const auto kimi = find_model("kimi-linear-48b-a3b");
  ASSERT_TRUE(kimi);
  EXPECT_EQ(kimi->kv_bytes_per_token, 8'064U);
  EXPECT_EQ(kimi->checkpoint_bytes, 43'417'600U);
}

TEST(Model, MarconiReferenceModel) {
  const auto model = find_model("marconi-7b");
  ASSERT_TRUE(model);
  EXPECT_EQ(model->checkpoint_bytes, 26'787'840U);
  EXPECT_EQ(model->kv_bytes_per_token, 65'536U);
  EXPECT_EQ(model->cost.flops(0, 1000), 13'087'211'520.0 * 1000 + 65'536.0 * 1e6);
  EXPECT_EQ(model->cost.flops(0, 10'000) - model->cost.flops(0, 1000),
            model->cost.flops(1000, 10'000));
}

TEST(Model, EveryModelIsAdditiveAndNamed) {
  const auto names = model_names();
  EXPECT_EQ(names.size(), 15U);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const auto model = find_model(name);
    ASSERT_TRUE(model);
    EXPECT_EQ(model->name, name);
    EXPECT_GT(model->kv_bytes_per_token, 0U);
    expect_close(model->cost.flops(0, 5000) + model->cost.flops(5000, 70'000),
                 model->cost.flops(0, 70'000),
                 "sum");
    EXPECT_GT(model->cost.flops(60'000, 60'001), model->cost.flops(0, 1));
  }
  const auto missing = find_model("gpt-oss");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::not_found);
  EXPECT_NE(missing.error().text.find("jamba-1.5-mini"), std::string::npos);
}

TEST(Model, SlidingWindowCapsWhatAQuerySees) {
  const auto with = [](std::uint32_t window) {
    return model_cost(
        {.name = "x",
         .d_model = 64,
         .attention =
             {{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .window = window}},
         .recurrent = {},
         .ffn = {{.layers = 2, .d_ff = 128}}});
  };
  const ModelCost full = with(0);
  const ModelCost windowed = with(100);
  EXPECT_EQ(full.linear_parameters, windowed.linear_parameters);
  EXPECT_EQ(full.kv_bytes_per_token, windowed.window_kv_bytes_per_token);
  EXPECT_EQ(windowed.kv_bytes_per_token, 0U);
  for (std::uint64_t b : {1U, 50U, 100U})
    expect_close(windowed.cost.flops(0, b), full.cost.flops(0, b), "inside");
  // Query by query: 4 Hq D FLOPs for each key seen, in two layers.
  double want = 2.0 * static_cast<double>(full.linear_parameters) * 230;
  for (int position = 31; position <= 260; ++position)
    want += 2.0 * 4.0 * 4 * 16 * std::min(position, 100);
  expect_close(windowed.cost.flops(30, 260), want, "across the edge");
}

TEST(Model, GivenLinearParametersWin) {
  ModelGeometry geometry{.name = "x",
                         .d_model = 64,
                         .attention = {},
                         .recurrent = {},
                         .ffn = {{.layers = 1, .d_ff = 128}}};
  EXPECT_EQ(model_cost(geometry).linear_parameters, 3U * 64 * 128);
  geometry.ffn[0] = {
      .gated = false, .layers = 2, .d_ff = 10, .experts = 8, .top_k = 2, .shared_d_ff = 5};
  EXPECT_EQ(model_cost(geometry).linear_parameters, 2U * (64 * 8 + 2 * 2 * 64 * 10 + 2 * 64 * 5));
  geometry.linear_parameters = 1000;
  EXPECT_EQ(model_cost(geometry).cost.flops(0, 3), 6000.0);
}

TEST(Model, KindsByName) {
  EXPECT_EQ(parse_recurrent_kind("kda"), RecurrentKind::kda);
  EXPECT_EQ(parse_recurrent_kind("KDA"), RecurrentKind::none);
  EXPECT_EQ(parse_recurrent_kind(""), RecurrentKind::none);
}

}  // namespace
}  // namespace statecached
