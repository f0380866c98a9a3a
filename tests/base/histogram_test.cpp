#include "base/histogram.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace statecached {
namespace {

TEST(Histogram, Empty) {
  const Histogram h;
  EXPECT_EQ(h.count(), 0U);
  EXPECT_EQ(h.quantile(0.5), 0U);
  EXPECT_EQ(h.mean(), 0.0);
  EXPECT_EQ(h.count_up_to(~0ULL), 0U);
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram h;
  for (std::uint64_t v = 0; v < 10; ++v)
    h.record(v);
  EXPECT_EQ(h.quantile(0.0), 0U);
  EXPECT_EQ(h.quantile(0.5), 4U);
  EXPECT_EQ(h.quantile(1.0), 9U);
  EXPECT_EQ(h.count_up_to(4), 5U);
  EXPECT_EQ(h.mean(), 4.5);
}

TEST(Histogram, QuantilesOfAllMagnitudesAreWithinTheirError) {
  Prng random(4);
  Histogram h;
  std::vector<std::uint64_t> values;
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(random.next() >> random.below(64));
    h.record(values.back());
  }
  std::sort(values.begin(), values.end());
  for (double q : {0.01, 0.5, 0.9, 0.99, 0.999}) {
    const auto rank =
        static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size()))) - 1;
    const auto exact = static_cast<double>(values[rank]);
    const auto got = static_cast<double>(h.quantile(q));
    EXPECT_GE(got, exact) << q;
    EXPECT_LE(got, exact * 1.063 + 1) << q;
  }
  EXPECT_EQ(h.quantile(1.0), values.back());
  EXPECT_EQ(h.max(), values.back());
}

TEST(Histogram, TheLargestValueHasABucket) {
  Histogram h;
  h.record(~0ULL);
  h.record(0);
  EXPECT_EQ(h.quantile(1.0), ~0ULL);
  EXPECT_EQ(h.count_up_to(~0ULL), 2U);
  EXPECT_EQ(h.count_up_to(1ULL << 62U), 1U);
}

TEST(Histogram, MergeAndClear) {
  Histogram a;
  Histogram b;
  Histogram both;
  for (std::uint64_t v = 1; v < 5000; ++v) {
    (v % 3 == 0 ? a : b).record(v * v);
    both.record(v * v);
  }
  a.merge(b);
  EXPECT_EQ(a.count(), both.count());
  EXPECT_EQ(a.sum(), both.sum());
  for (double q : {0.1, 0.5, 0.99})
    EXPECT_EQ(a.quantile(q), both.quantile(q));
  a.clear();
  EXPECT_EQ(a.count(), 0U);
  EXPECT_EQ(a.count_up_to(~0ULL), 0U);
}

}  // namespace
}  // namespace statecached
