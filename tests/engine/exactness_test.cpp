// One engine: thousands of conversations through a cache that is too small for them, and not one
// bit off; and three broken engines, each of which this test would have found out.

#include "tests/engine/world.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace statecached::test {
namespace {

class Exactness : public ::testing::Test {
 protected:
  void TearDown() override {
    std::printf("%s\n", found.text().c_str());
    if (daemon.running()) {
      EXPECT_EQ(daemon.stop(), 0) << daemon.log();
    }
  }

  /// `turns` turns of an engine of its own.
  void converse(std::uint64_t turns,
                std::uint64_t seed,
                engine::Fault fault = engine::Fault::none) {
    auto session = attach(daemon.socket(), seed);
    ASSERT_TRUE(session) << session.status().text << daemon.log();
    engine::Engine engine(model, &*session, Conversations::options(fault));
    Conversations conversations(engine, model, 1, seed);
    for (std::uint64_t i = 0; i < turns; ++i) {
      conversations.step();
      // Else, where the drive is busy with others, host memory fills with what exists nowhere else.
      if (i % 250 == 249) static_cast<void>(daemon.ctl({"flush"}));
    }
    found.add(conversations.found);
    EXPECT_EQ(session->counters().refused, 0U);
  }

  /// Turns until each of these tiers gave more than `some` hits, at most eight times `turns`: how
  /// many it takes depends on how far the daemon's writing behind gets meanwhile.
  void converse_until_hit(std::uint64_t turns,
                          std::uint64_t seed,
                          const std::vector<std::size_t>& tiers,
                          std::uint64_t some) {
    const auto enough = [&](std::size_t tier) { return found.by_tier[tier] > some; };
    converse(turns, seed);
    for (std::uint64_t more = 1; more < 8 && !std::ranges::all_of(tiers, enough); ++more)
      converse(turns, seed + 1000 * more);
    for (const std::size_t tier : tiers)
      EXPECT_GT(found.by_tier[tier], some) << "tier " << tier << "\n"
                                           << daemon.ctl({"--json", "status"}).out;
  }

  engine::Model model{engine::ModelConfig::tiny()};
  DaemonProcess daemon;
  Findings found;
};

TEST_F(Exactness, HostAndNvme) {
  daemon.set(tight());
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const std::uint64_t some = scaled(5000) / 200;
  converse_until_hit(scaled(5000), 1, {1, 2}, some);
  EXPECT_EQ(found.different, 0U);
  EXPECT_EQ(found.cache_errors, 0U);
  EXPECT_GT(found.inside_block, some);
  EXPECT_GT(found.same_prompt, some);
  EXPECT_GT(found.fork, some);
  EXPECT_GT(found.parent, some);
  EXPECT_GT(found.branch, some);
}

TEST_F(Exactness, EmulatedDeviceHostAndNvme) {
  auto settings = tight();
  settings.insert(settings.end(), {"device.capacity=2MiB", "device.backend=emulated"});
  daemon.set(settings);
  ASSERT_TRUE(daemon.start()) << daemon.log();
  converse_until_hit(scaled(2000), 2, {0, 1, 2}, scaled(2000) / 200);
  EXPECT_EQ(found.different, 0U);
  EXPECT_EQ(found.cache_errors, 0U);
}

TEST_F(Exactness, PlainLru) {
  auto settings = tight();
  settings.insert(settings.end(),
                  {"policy.name=lru", "policy.demotion=always", "nvme.engine=threads"});
  daemon.set(settings);
  ASSERT_TRUE(daemon.start()) << daemon.log();
  converse(scaled(1000), 3);
  EXPECT_EQ(found.different, 0U);
  EXPECT_EQ(found.cache_errors, 0U);
  EXPECT_GT(found.hits, scaled(1000) / 20);
}

TEST_F(Exactness, AfterARestart) {
  // All of it fits on the drive, so that flush can promise what comes back.
  daemon.set({"host.capacity=2MiB", "nvme.capacity=128MiB", "policy.engine_tflops=0.01"});
  for (std::uint64_t life = 0; life < 4; ++life) {
    ASSERT_TRUE(daemon.start()) << daemon.log();
    auto session = attach(daemon.socket(), life);
    ASSERT_TRUE(session);
    std::optional<engine::Engine> engine(std::in_place, model, &*session, Conversations::options());
    Conversations conversations(*engine, model, 1, 7 + life);
    for (std::uint64_t i = 0; i < scaled(150); ++i)
      conversations.step();
    const ProgramResult flush = daemon.ctl({"flush"});
    EXPECT_EQ(flush.code, 0) << flush.out << flush.err;
    daemon.kill9();
    // Without the daemon everything is computed; with the next one the same prompts are restored
    // from NVMe.
    const std::uint64_t before = conversations.found.hits;
    conversations.again();
    EXPECT_EQ(conversations.found.hits, before);
    EXPECT_GT(conversations.found.cache_errors, 0U);
    conversations.found.cache_errors = 0;
    conversations.found.first_error[0] = 0;
    ASSERT_TRUE(daemon.start()) << daemon.log();
    engine.reset();
    session = attach(daemon.socket(), life);
    ASSERT_TRUE(session);
    engine.emplace(model, &*session, Conversations::options());
    conversations.again();
    conversations.found.restarted = conversations.found.hits - before;
    EXPECT_EQ(conversations.found.cache_errors, 0U) << conversations.found.first_error;
    found.add(conversations.found);
    EXPECT_EQ(daemon.stop(), 0) << daemon.log();
  }
  EXPECT_EQ(found.different, 0U);
  EXPECT_GT(found.restarted, 10U);
}

TEST_F(Exactness, AnEngineFarFromThePriorIsServedFromItsFirstReportOn) {
  // policy.engine_tflops is 400, a CPU has a ten-thousandth of that: at the prior, nothing would be
  // worth loading.
  daemon.set({"host.capacity=16MiB", "nvme.capacity=0"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  auto session = attach(daemon.socket(), 1);
  ASSERT_TRUE(session);
  engine::Engine engine(model, &*session, Conversations::options());
  Tokens prompt(300);
  for (std::size_t i = 0; i < prompt.size(); ++i)
    prompt[i] = static_cast<engine::Token>(i * 7 % 251);
  engine::Request request;
  request.prompt = prompt;
  EXPECT_EQ(engine.serve(request).hit, 0U);
  EXPECT_EQ(engine.serve(request).hit, 299U);
}

/// Enough room, so that what is wrong is also found again.
std::vector<std::string> roomy() {
  return {"host.capacity=64MiB", "nvme.capacity=0", "policy.engine_tflops=0.01"};
}

/// What Broken does, without a fault.
TEST_F(Exactness, ASoundEngineIsNotFoundOut) {
  daemon.set(roomy());
  ASSERT_TRUE(daemon.start()) << daemon.log();
  converse(200, 5);
  EXPECT_EQ(found.different, 0U);
  EXPECT_GT(found.hits, 50U);
}

class Broken : public Exactness, public ::testing::WithParamInterface<engine::Fault> {};

TEST_P(Broken, IsFoundOut) {
  daemon.set(roomy());
  ASSERT_TRUE(daemon.start()) << daemon.log();
  converse(200, 5, GetParam());
  EXPECT_GT(found.different, 0U);
  EXPECT_EQ(found.cache_errors, 0U);
}

std::string name_of(const ::testing::TestParamInfo<engine::Fault>& fault) {
  if (fault.param == engine::Fault::state_one_off) return "AStateOneTokenOff";
  return fault.param == engine::Fault::domains_mixed ? "DomainsMixed" : "ABlockTruncated";
}

INSTANTIATE_TEST_SUITE_P(Faults,
                         Broken,
                         ::testing::Values(engine::Fault::state_one_off,
                                           engine::Fault::domains_mixed,
                                           engine::Fault::block_truncated),
                         name_of);

}  // namespace
}  // namespace statecached::test
