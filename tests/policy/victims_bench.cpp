// How long the choice of a victim takes, with everything that goes with it: the choice, taking it
// out, and putting a new one in. At most 2 us each with a million objects on an idle machine; the
// test allows ten times that, and not more growth from 10^4 to 10^6 than a logarithm and the caches
// explain.

#include "base/prng.hpp"
#include "policy/victims.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

namespace statecached {
namespace {

double microseconds_a_victim(std::uint32_t objects) {
  Prng prng(objects);
  const Reuse reuse;
  Victims victims(&reuse);
  Instant now{};
  const auto put = [&](NodeIx node) {
    now += std::chrono::microseconds(prng.below(200));
    Candidate c;
    c.node = node;
    c.efficiency = 1e-10 * static_cast<double>(1 + prng.below(1'000'000));
    c.bytes = 1 << 20;
    c.last_use = now;
    c.reuse = static_cast<ReuseClass>(prng.below(kReuseClasses));
    victims.put(c, now);
  };
  for (NodeIx n = 0; n < objects; ++n)
    put(n);
  constexpr int kVictims = 200'000;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kVictims; ++i) {
    const NodeIx best = victims.best(Lane::clean, now);
    victims.erase(best);
    put(best);
  }
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  return took.count() / kVictims;
}

TEST(VictimsBench, ChoiceStaysCheap) {
  const double small = microseconds_a_victim(10'000);
  const double middle = microseconds_a_victim(100'000);
  const double large = microseconds_a_victim(1'000'000);
  std::printf(
      "us a victim with 10^4, 10^5, 10^6 objects: %.2f, %.2f, %.2f\n", small, middle, large);
  EXPECT_LT(large, 20);
  EXPECT_LT(large, 10 * small + 2);
}

}  // namespace
}  // namespace statecached
