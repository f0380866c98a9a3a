// The cache bears every fault of drives and catalog: thousands of crashes, judged by world.hpp.
// A seed that fails becomes a test of its own here, under the name of what went wrong.

#include "base/log.hpp"
#include "tests/fault/world.hpp"
#include "tests/support/environment.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

namespace statecached::test {
namespace {

Faults crashes_only() {
  return {};
}

/// The drives and the catalog refuse now and then, late and out of order.
Faults errors() {
  Faults faults;
  faults.disk.eio_read = 0.01;
  faults.disk.eio_write = 0.03;
  faults.disk.eio_sync = 0.05;
  faults.disk.enospc_write = 0.02;
  faults.disk.late = 0.05;
  faults.disk.late_by = std::chrono::milliseconds(20);
  faults.catalog_fails = 0.08;
  faults.fails_applied = 0.5;
  return faults;
}

/// Bytes change behind the cache's back.
Faults damage() {
  Faults faults;
  faults.disk.misdirected = 0.01;
  faults.disk.bit_rot = 0.02;
  faults.disk.lost_write = 0.01;
  return faults;
}

Faults everything() {
  Faults faults = errors();
  faults.disk.misdirected = 0.01;
  faults.disk.bit_rot = 0.02;
  faults.disk.lost_write = 0.01;
  return faults;
}

struct Case {
  const char* name;
  Faults (*faults)();
};

class Storms : public testing::TestWithParam<Case> {
 protected:
  // Thousands of expected warnings would hide the one line that matters.
  void SetUp() override {
    log::set_sink([](log::Level, std::string_view) {});
  }

  void TearDown() override { log::set_sink(nullptr); }
};

TEST_P(Storms, NothingDurableIsLostNoByteIsWrongNothingIsStuck) {
  // STATECACHED_FAULT_SEEDS runs more of them, STATECACHED_FAULT_SEED only that one.
  const std::uint64_t one = setting("STATECACHED_FAULT_SEED", 0);
  const std::uint64_t seeds = setting("STATECACHED_FAULT_SEEDS", 40);
  Tally all;
  for (std::uint64_t seed = one == 0 ? 1 : one; seed <= (one == 0 ? seeds : one); ++seed) {
    Plan plan;
    plan.seed = seed;
    plan.faults = GetParam().faults();
    World world(plan);
    ASSERT_EQ(world.run(), "");
    const Tally& tally = world.tally();
    all.crashes += tally.crashes;
    all.requests += tally.requests;
    all.hits += tally.hits;
    all.pieces_checked += tally.pieces_checked;
    all.durable_checked += tally.durable_checked;
    all.misses_counted += tally.misses_counted;
    all.streamed += tally.streamed;
    all.nvme_loads += tally.nvme_loads;
    all.evicted += tally.evicted;
  }
  // The storm was one: everything that it is about happened.
  EXPECT_GT(all.hits, all.crashes);
  EXPECT_GT(all.durable_checked, all.crashes);
  EXPECT_GT(all.nvme_loads, 0U);
  EXPECT_GT(all.evicted, 0U);
  EXPECT_GT(all.streamed, 0U);
  if (GetParam().faults().damage() && one == 0) {
    EXPECT_GT(all.misses_counted, 0U);
  }
  std::printf(
      "%llu crashes, %llu requests, %llu hits, %llu pieces and %llu durable objects checked, %llu "
      "damaged ones counted\n",
      static_cast<unsigned long long>(all.crashes),
      static_cast<unsigned long long>(all.requests),
      static_cast<unsigned long long>(all.hits),
      static_cast<unsigned long long>(all.pieces_checked),
      static_cast<unsigned long long>(all.durable_checked),
      static_cast<unsigned long long>(all.misses_counted));
}

INSTANTIATE_TEST_SUITE_P(Faults,
                         Storms,
                         testing::Values(Case{"CrashesOnly", crashes_only},
                                         Case{"Errors", errors},
                                         Case{"Damage", damage},
                                         Case{"Everything", everything}),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace statecached::test
