// The simulator against what can be worked out by hand: bounds, tiers, and that it repeats itself.

#include "base/prng.hpp"
#include "daemon/sim/simulate.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace statecached {
namespace {

constexpr std::uint64_t kKv = 64;        // bytes a token
constexpr std::uint64_t kState = 16384;  // bytes a checkpoint

NamespaceSpec hybrid() {
  NamespaceSpec spec;
  spec.name = "sim";
  spec.groups = {
      {.name = "attention", .need = Need::every, .block_tokens = 64, .max_bytes = 64 * kKv},
      {.name = "recurrent", .need = Need::end, .max_bytes = kState}};
  spec.cost.c1 = 20e9;
  spec.cost.c2 = 1e5;
  return spec;
}

/// Conversations whose turns come one after another, interleaved: each input is the whole history.
class Conversations : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kTalks = 40;
  static constexpr std::uint32_t kTurns = 5;

  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() /
             ("statecached-sim-" + std::to_string(getpid()) + ".jsonl"))
                .string();
    std::ofstream file(path_);
    std::vector<std::vector<Token>> histories(kTalks);
    Prng chance(3);
    const auto list = [](const std::vector<Token>& tokens) {
      std::string text;
      for (const Token token : tokens)
        text += (text.empty() ? '[' : ',') + std::to_string(token);
      text += ']';
      return text;
    };
    for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
      for (std::uint32_t talk = 0; talk < kTalks; ++talk) {
        auto& history = histories[talk];
        reusable_ += history.size();
        // conversations part at their first token, turns at theirs
        history.push_back(1000 + talk);
        for (std::uint64_t i = chance.below(300) + 50; i > 0; --i)
          history.push_back(static_cast<Token>(chance.below(1000)));
        input_ += history.size();
        std::vector<Token> output(chance.below(100) + 1, talk);
        file << "{\"input_tokens\":" << list(history) << ",\"output_tokens\":" << list(output)
             << "}\n";
        history.insert(history.end(), output.begin(), output.end());
      }
    }
  }

  void TearDown() override { std::filesystem::remove(path_); }

  static SimSettings settings(std::uint64_t host,
                              std::uint64_t nvme = 0,
                              std::uint64_t device = 0) {
    SimSettings out;
    out.spec = hybrid();
    out.policy.name = PolicyName::lru;
    out.policy.admission = Admission::paper;
    out.host_bytes = host;
    out.nvme_bytes = nvme;
    out.device_bytes = device;
    return out;
  }

  SimResult run(const SimSettings& settings) {
    auto trace = TraceReader::open(path_, 0);
    EXPECT_TRUE(trace);
    auto result = simulate(settings, **trace);
    EXPECT_TRUE(result) << result.error().message();
    return result ? *result : SimResult{};
  }

  std::string path_;
  std::uint64_t input_ = 0;
  std::uint64_t reusable_ = 0;
};

TEST_F(Conversations, UnlimitedReusesEveryTurnBefore) {
  const SimResult r = run(settings(kGiB));
  EXPECT_EQ(r.requests, kTalks * kTurns);
  EXPECT_EQ(r.input_tokens, input_);
  EXPECT_EQ(r.hit_tokens, reusable_);
  EXPECT_EQ(r.hit_by_tier[index(Tier::host)], reusable_);
  EXPECT_EQ(r.counters.evictions, 0U);
  EXPECT_GT(r.flops_saved, 0);
  EXPECT_LT(r.flops_saved, r.flops);
}

TEST_F(Conversations, RepeatsItself) {
  const auto some = settings(4 * kMiB, 16 * kMiB);
  const SimResult a = run(some);
  const SimResult b = run(some);
  EXPECT_EQ(a.hit_tokens, b.hit_tokens);
  EXPECT_EQ(a.hit_by_tier, b.hit_by_tier);
  EXPECT_EQ(a.counters.evictions, b.counters.evictions);
  EXPECT_DOUBLE_EQ(a.ttft_ms.p99, b.ttft_ms.p99);
  EXPECT_DOUBLE_EQ(a.virtual_seconds, b.virtual_seconds);
}

TEST_F(Conversations, MoreSpaceNeverHitsLessAndCapacityHolds) {
  std::uint64_t before = 0;
  for (const std::uint64_t host : {1 * kMiB, 4 * kMiB, 16 * kMiB, 64 * kMiB}) {
    const SimResult r = run(settings(host));
    EXPECT_GE(r.hit_tokens, before) << host;
    EXPECT_LE(r.bytes_peak[index(Tier::host)], host);
    before = r.hit_tokens;
  }
  EXPECT_EQ(before, reusable_);
}

TEST_F(Conversations, WhatLeavesHostMemoryIsFoundOnNvme) {
  const SimResult memory = run(settings(4 * kMiB));
  const SimResult both = run(settings(4 * kMiB, 256 * kMiB));
  EXPECT_GT(both.hit_tokens, memory.hit_tokens);
  EXPECT_GT(both.hit_by_tier[index(Tier::nvme)], 0U);
  EXPECT_GT(both.hit_by_tier[index(Tier::host)], 0U);
  EXPECT_GT(both.counters.nvme_bytes_written, 0U);
  EXPECT_LE(both.bytes_peak[index(Tier::nvme)], 256 * kMiB);
}

TEST_F(Conversations, ThreeTiersHit) {
  const SimResult r = run(settings(4 * kMiB, 256 * kMiB, 2 * kMiB));
  EXPECT_GT(r.hit_by_tier[index(Tier::device)], 0U);
  EXPECT_GT(r.hit_by_tier[index(Tier::nvme)], 0U);
  EXPECT_LE(r.bytes_peak[index(Tier::device)], 2 * kMiB);
  EXPECT_EQ(r.hit_by_tier[0] + r.hit_by_tier[1] + r.hit_by_tier[2], r.hit_tokens);
}

TEST_F(Conversations, TheSamePromptAgainLeavesOneTokenUnlessCountedAsTheReferenceDoes) {
  std::ofstream(path_) << "{\"input_tokens\":[1,2,3,4,5,6,7,8],\"output_tokens\":[]}\n"
                          "{\"input_tokens\":[1,2,3,4,5,6,7,8],\"output_tokens\":[]}\n";
  auto compat = settings(kGiB);
  compat.compat_reference = true;
  EXPECT_EQ(run(compat).hit_tokens, 8U);
  EXPECT_LT(run(settings(kGiB)).hit_tokens, 8U);
}

}  // namespace
}  // namespace statecached
