#include "daemon/cache/load_time.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

namespace statecached {
namespace {

constexpr std::uint64_t kMiB1 = 1U << 20U;

TEST(LoadTime, BeforeAnythingWasMeasuredItIsWhatWasConfigured) {
  const LoadTime time(1e9);
  EXPECT_DOUBLE_EQ(time.seconds(1'000'000'000), 1.0);
}

TEST(LoadTime, TellsLatencyFromSpeed) {
  LoadTime time(100e9);  // far off
  Prng prng(3);
  for (int i = 0; i < 64; ++i) {
    const std::uint64_t bytes = (1 + prng.below(64)) * kMiB1;
    time.add(bytes, 0.005 + static_cast<double>(bytes) / 1e9);
  }
  for (const std::uint64_t bytes : {kMiB1, 8 * kMiB1, 64 * kMiB1}) {
    const double actual = 0.005 + static_cast<double>(bytes) / 1e9;
    EXPECT_NEAR(time.seconds(bytes), actual, 0.01 * actual) << bytes;
  }
}

TEST(LoadTime, FourLoadsAreEnoughToForgetAWrongPrior) {
  for (const double prior : {1e6, 1e12}) {
    LoadTime time(prior);
    for (int i = 0; i < 4; ++i)
      time.add(kMiB1, 0.02);
    EXPECT_NEAR(time.seconds(kMiB1), 0.02, 0.002) << prior;
  }
}

TEST(LoadTime, FollowsADriveThatBecomesSlower) {
  LoadTime time(1e9);
  for (const double second : {0.001, 0.01}) {
    for (int i = 0; i < 200; ++i)
      time.add(kMiB1, second);
    EXPECT_NEAR(time.seconds(kMiB1), second, 0.1 * second);
  }
}

/// Noise of a factor of two either way never makes a line that falls, or begins below zero.
TEST(LoadTime, IsNeverNegative) {
  LoadTime time(1e9);
  Prng prng(9);
  for (int i = 0; i < 2000; ++i) {
    const std::uint64_t bytes = (1 + prng.below(4)) * kMiB1;
    time.add(bytes, 0.001 * static_cast<double>(1 + prng.below(4)));
    const double small = time.seconds(1), large = time.seconds(1U << 30U);
    EXPECT_GE(small, 0);
    EXPECT_GE(large, small);
    const double usual = time.seconds(2 * kMiB1);
    EXPECT_GT(usual, 0.0005);
    EXPECT_LT(usual, 0.008);
  }
}

}  // namespace
}  // namespace statecached
