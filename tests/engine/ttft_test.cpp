// Time to the first token of a conversation of 4,000 tokens that is stored already, against
// computing it: quotients of times of one run, so that they hold on a machine that has other things
// to do as well.

#include "client/workload/percentiles.hpp"
#include "tests/engine/world.hpp"

#include <gtest/gtest.h>

namespace statecached::test {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kTimed = false;  // instrumented copies say nothing
constexpr std::size_t kTokens = 500;
#else
constexpr bool kTimed = true;
constexpr std::size_t kTokens = 4000;
#endif

Tokens prompt_of(std::uint64_t seed) {
  Prng chance(seed);
  Tokens out(kTokens);
  for (engine::Token& token : out)
    token = static_cast<engine::Token>(chance.below(256));
  return out;
}

class Ttft : public ::testing::Test {
 protected:
  Ttft() {
    daemon.set({"host.capacity=64MiB", "nvme.capacity=128MiB", "policy.engine_tflops=0.01"});
  }

  [[nodiscard]] statecache::Result<statecache::Session> open() const {
    statecache::Member member;
    member.engine[0] = std::byte{9};
    return statecache::Session::attach(
        daemon.socket(),
        engine::namespace_of(model.config(), 1, engine::EngineOptions{}.block_tokens),
        member,
        std::chrono::seconds(20));
  }

  /// Each prompt once; whole hits whose lowest tier is `tier` count.
  void hits(engine::Engine& engine, statecache::Tier tier, std::vector<double>& seconds) {
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      engine::Request request;
      request.prompt = prompts[i];
      const engine::Turn turn = engine.serve(request);
      EXPECT_EQ(turn.hit + 1, kTokens);
      EXPECT_EQ(turn.lowest, tier);
      EXPECT_EQ(turn.last_logits, logits[i]);
      EXPECT_EQ(turn.cache_errors, 0U) << turn.first_error;
      seconds.push_back(turn.first_token);
    }
  }

  engine::Model model{engine::ModelConfig::small()};
  std::vector<Tokens> prompts{prompt_of(1), prompt_of(2)};
  std::vector<std::vector<float>> logits;
  DaemonProcess daemon;
};

TEST_F(Ttft, AFullHitIsManyTimesFasterThanPrefilling) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  std::vector<double> computed, host, nvme;
  {
    auto session = open();
    ASSERT_TRUE(session) << session.status().text;
    engine::Engine engine(model, &*session);
    engine::Engine alone(model, nullptr);
    for (const Tokens& prompt : prompts) {
      engine::Request request;
      request.prompt = prompt;
      const bool first = logits.empty();
      const engine::Turn missed = engine.serve(request);
      EXPECT_EQ(missed.hit, 0U);
      // Once without a cache is enough: it takes as long as everything else here together.
      const engine::Turn turn = first ? alone.serve(request) : missed;
      computed.push_back(turn.first_token);
      logits.push_back(turn.last_logits);
      EXPECT_EQ(missed.last_logits, turn.last_logits);
    }
    for (int round = 0; round < 4; ++round)
      hits(engine, statecache::Tier::host, host);
    EXPECT_EQ(daemon.ctl({"flush"}).code, 0);
  }
  // A daemon that starts has everything on the drive.
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(daemon.stop(), 0) << daemon.log();
    ASSERT_TRUE(daemon.start()) << daemon.log();
    auto session = open();
    ASSERT_TRUE(session) << session.status().text;
    engine::Engine engine(model, &*session);
    hits(engine, statecache::Tier::nvme, nvme);
  }
  const double cold = nearest_rank(computed, 0.5);
  const double from_host = nearest_rank(host, 0.5);
  const double from_nvme = nearest_rank(nvme, 0.5);
  std::printf(
      "%zu tokens: computed %.1f ms; from host memory %.2f ms, %.0f times faster; from NVMe %.2f "
      "ms, %.0f times faster\n",
      kTokens,
      1e3 * cold,
      1e3 * from_host,
      cold / from_host,
      1e3 * from_nvme,
      cold / from_nvme);
  if (kTimed) {
    EXPECT_GE(cold, 10 * from_host);
    EXPECT_GE(cold, 3 * from_nvme);
  }
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

}  // namespace
}  // namespace statecached::test
