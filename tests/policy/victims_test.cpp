// The choice of a victim against the plain rule: least rate x efficiency of all.

#include "policy/victims.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

#include <map>

namespace statecached {
namespace {

struct Put {
  Candidate candidate;

  double value(const Reuse& reuse, Instant now) const {
    return candidate.efficiency * reuse.rate(candidate.reuse, now - candidate.last_use);
  }
};

TEST(Victims, ChoosesTheLeastKeepValue) {
  Prng prng(7);
  const Reuse reuse;
  Victims victims(&reuse);
  std::map<NodeIx, Put> model;
  Instant now{};
  for (int step = 0; step < 20'000; ++step) {
    now += std::chrono::milliseconds(prng.below(40));
    const auto node = static_cast<NodeIx>(prng.below(300));
    if (prng.below(4) == 0) {
      victims.erase(node);
      model.erase(node);
    } else {
      Candidate c;
      c.node = node;
      c.lane = prng.below(3) == 0 ? Lane::dirty : Lane::clean;
      c.efficiency = static_cast<double>(1 + prng.below(1000));
      c.bytes = prng.below(1 << 20);
      c.reuse = static_cast<ReuseClass>(prng.below(kReuseClasses));
      const auto known = model.find(node);
      c.last_use =
          known == model.end() || prng.below(2) == 0 ? now : known->second.candidate.last_use;
      victims.put(c, now);
      model[node] = {c};
    }
    for (const Lane lane : {Lane::clean, Lane::dirty}) {
      std::uint64_t bytes = 0;
      double least = 0;
      bool any = false;
      for (const auto& [ix, put] : model) {
        if (put.candidate.lane != lane) continue;
        bytes += put.candidate.bytes;
        const double value = put.value(reuse, now);
        if (!any || value < least) least = value;
        any = true;
      }
      ASSERT_EQ(victims.bytes(lane), bytes);
      const NodeIx best = victims.best(lane, now);
      ASSERT_EQ(best != kNil, any);
      if (!any) continue;
      EXPECT_DOUBLE_EQ(victims.best_value(), least);
      EXPECT_DOUBLE_EQ(model.at(best).value(reuse, now), least);
    }
  }
}

TEST(Victims, WithoutRatesTheOldestGoesFirst) {
  Victims victims(nullptr);
  for (NodeIx n = 0; n < 100; ++n) {
    Candidate c;
    c.node = n;
    c.efficiency = n % 7;
    c.last_use = Instant{std::chrono::seconds((n * 37) % 100)};
    victims.put(c, Instant{std::chrono::seconds(100)});
  }
  for (int s = 0; s < 100; ++s) {
    const NodeIx best = victims.best(Lane::clean, Instant{std::chrono::seconds(100)});
    EXPECT_EQ((best * 37) % 100, static_cast<NodeIx>(s));
    victims.erase(best);
  }
  EXPECT_EQ(victims.best(Lane::clean, Instant{}), kNil);
}

}  // namespace
}  // namespace statecached
