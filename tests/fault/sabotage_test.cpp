// The judge of faults_test is awake: each sync and each ordering that durability rests on is taken
// away, one at a time, and the same storms must be lost. What is broken is broken at the seams
// (saboteurs.hpp); the cache itself is the production one.

#include "base/log.hpp"
#include "tests/fault/world.hpp"

#include <gtest/gtest.h>

namespace statecached::test {
namespace {

struct Case {
  const char* name;
  Sabotage how;
  Faults faults;
  const char* expected;  ///< part of the verdict
};

Faults damage() {
  Faults faults;
  faults.disk.bit_rot = 0.02;
  return faults;
}

Faults refusals() {
  Faults faults;
  faults.catalog_fails = 0.1;
  return faults;
}

/// A drive that loses all that no sync covered.
Faults forgetful() {
  Faults faults;
  faults.disk.lost_before_sync = 1;
  return faults;
}

class Saboteurs : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    log::set_sink([](log::Level, std::string_view) {});
  }

  void TearDown() override { log::set_sink(nullptr); }
};

constexpr std::uint64_t kSeeds = 16;

TEST_P(Saboteurs, IsCaught) {
  int caught = 0;
  std::string verdicts;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Plan plan;
    plan.seed = seed;
    plan.faults = GetParam().faults;
    ASSERT_EQ(World(plan).run(), "") << "without sabotage";
    plan.sabotage = GetParam().how;
    const std::string verdict = World(plan).run();
    if (verdict.find(GetParam().expected) != std::string::npos) ++caught;
    verdicts += verdict + "\n";
  }
  EXPECT_GE(caught, 3) << verdicts;
  std::printf("caught with %d of %d seeds; the first: %s",
              caught,
              static_cast<int>(kSeeds),
              verdicts.substr(0, verdicts.find('\n') + 1).c_str());
}

INSTANTIATE_TEST_SUITE_P(
    Each,
    Saboteurs,
    testing::Values(
        Case{"SyncSwallowed", Sabotage::sync_swallowed, forgetful(), "do not read back"},
        Case{"SyncEarly", Sabotage::sync_early, forgetful(), "do not read back"},
        Case{"WriteEarly", Sabotage::write_early, forgetful(), "do not read back"},
        Case{"RowsEarly", Sabotage::rows_early, {}, "durable and lost"},
        Case{"DeletesEarly", Sabotage::deletes_early, {}, "durable and lost"},
        Case{"DeletesLost", Sabotage::deletes_lost, {}, "durable and lost"},
        Case{"RowsErrorsHidden", Sabotage::rows_errors_hidden, refusals(), "durable and lost"},
        Case{"NamespacesLost", Sabotage::namespaces_lost, {}, "durable and lost"},
        Case{"ChecksumUnread", Sabotage::checksum_unread, damage(), "wrong bytes"}),
    [](const auto& each) { return std::string(each.param.name); });

/// Not a sabotage after all: an object counts as durable only when its parents do, so batches may
/// become durable in any order.
TEST(Order, CatalogBatchesInAnotherOrderLoseNothing) {
  log::set_sink([](log::Level, std::string_view) {});
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Plan plan;
    plan.seed = seed;
    plan.invalidations = 0;
    plan.sabotage = Sabotage::rows_reordered;
    EXPECT_EQ(World(plan).run(), "");
  }
  log::set_sink(nullptr);
}

}  // namespace
}  // namespace statecached::test
