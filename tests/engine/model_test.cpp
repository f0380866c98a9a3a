// The model's own promises: what a logit depends on, and what it does not.

#include "base/prng.hpp"
#include "client/engine/engine.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

namespace statecached::engine {
namespace {

std::vector<Token> random_tokens(std::uint64_t seed, std::size_t count) {
  Prng chance(seed);
  std::vector<Token> out(count);
  for (Token& token : out)
    token = static_cast<Token>(chance.below(kVocabulary));
  return out;
}

std::vector<float> logits_of(const Model& model,
                             const std::vector<Token>& tokens,
                             std::uint64_t chunks,
                             std::uint64_t adapter = 0) {
  Runner runner(model);
  Sequence sequence = model.start(adapter);
  Prng chance(chunks);
  std::vector<float> out(tokens.size() * kVocabulary);
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t part = chunks == 0
                                 ? tokens.size()
                                 : std::min<std::size_t>(tokens.size() - at, 1 + chance.below(90));
    runner.run(sequence,
               std::span(tokens).subspan(at, part),
               std::span(out).subspan(at * kVocabulary, part * kVocabulary));
    at += part;
  }
  return out;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(Model, LogitsDoNotDependOnChunks) {
  for (const ModelConfig& config : {ModelConfig::tiny(), ModelConfig::small()}) {
    const Model model(config);
    const auto tokens = random_tokens(3, 300);
    const auto whole = logits_of(model, tokens, 0);
    for (std::uint64_t chunks = 1; chunks < 5; ++chunks)
      EXPECT_TRUE(same(whole, logits_of(model, tokens, chunks))) << config.name;
    for (const float logit : whole)
      ASSERT_TRUE(std::isfinite(logit));
  }
}

TEST(Model, BothBuildsOfTheLoopsGiveTheSameBits) {
  const auto tokens = random_tokens(4, 200);
  const Model best(ModelConfig::small());
  const Model portable(ModelConfig::small(), {}, portable_math());
  EXPECT_TRUE(same(logits_of(best, tokens, 0), logits_of(portable, tokens, 2)));
}

TEST(Model, LogitsDependOnEveryTokenBefore) {
  const Model model(ModelConfig::tiny());
  const auto tokens = random_tokens(5, 200);
  const auto whole = logits_of(model, tokens, 0);
  for (const std::size_t changed : {0U, 1U, 50U, 120U, 198U, 199U}) {
    auto other = tokens;
    other[changed] ^= 1U;
    const auto result = logits_of(model, other, 0);
    const std::size_t row = std::size_t{199} * kVocabulary;
    EXPECT_NE(std::memcmp(whole.data() + row, result.data() + row, kVocabulary * sizeof(float)), 0)
        << changed;
    if (changed > 0) {
      EXPECT_EQ(std::memcmp(whole.data(), result.data(), changed * kVocabulary * sizeof(float)), 0)
          << changed;
    }
  }
  EXPECT_FALSE(same(whole, logits_of(model, tokens, 0, 1)));
}

TEST(Model, WorkersWithHalfTheHeadsGiveTheSameBits) {
  const ModelConfig config = ModelConfig::tiny();
  const Model whole(config);
  const auto tokens = random_tokens(6, 150);
  const auto expected = logits_of(whole, tokens, 0);
  Team team(config, 2);
  std::vector<std::vector<float>> results(2);
  std::vector<std::thread> workers;
  for (std::uint32_t shard = 0; shard < 2; ++shard) {
    workers.emplace_back([&, shard] {
      const Model half(config, {shard, 2});
      Runner runner(half, team.gather(shard));
      Sequence sequence = half.start();
      results[shard].resize(tokens.size() * kVocabulary);
      runner.run(sequence, tokens, results[shard]);
    });
  }
  for (std::thread& worker : workers)
    worker.join();
  EXPECT_TRUE(same(expected, results[0]));
  EXPECT_TRUE(same(expected, results[1]));
}

TEST(Model, ObjectsHoldTheStateAndNothingElse) {
  const Model model(ModelConfig::tiny());
  Runner runner(model);
  const auto tokens = random_tokens(7, 100);
  Sequence sequence = model.start();
  runner.run(sequence, std::span(tokens).first(83), {});
  Sequence copy = model.start();
  const statecache::NamespaceSpec spec = namespace_of(model.config(), 1, 16);
  const auto move = [&](std::uint16_t group, std::uint32_t first, std::uint32_t end) {
    const std::uint64_t bytes = payload_bytes(model, group, end - first);
    EXPECT_LE(bytes, spec.groups[group].max_bytes);
    // In two places, cut where no value ends.
    std::vector<std::byte> memory(bytes);
    const std::array<statecache::Extent, 2> where{
        statecache::Extent{memory.data(), 37}, statecache::Extent{memory.data() + 37, bytes - 37}};
    EXPECT_TRUE(store(model, sequence, group, first, end, where));
    EXPECT_TRUE(load(model, copy, group, first, end, where));
    EXPECT_FALSE(load(model, copy, group, first, end, std::span(where).first(1)));
  };
  for (std::uint32_t first = 0; first < 83; first += 16)
    move(0, first, std::min(first + 16, 83U));
  for (std::uint32_t first = 32; first < 83; first += 16)
    move(1, first, std::min(first + 16, 83U));
  move(2, 83, 83);
  copy.length = 83;
  std::vector<float> a(17 * kVocabulary);
  std::vector<float> b(17 * kVocabulary);
  runner.run(sequence, std::span(tokens).subspan(83), a);
  runner.run(copy, std::span(tokens).subspan(83), b);
  EXPECT_TRUE(same(a, b));
}

}  // namespace
}  // namespace statecached::engine
