// Learned reuse: what the counts say, what the prior says before, and what stays in mind after it
// was given up.

#include "policy/reuse.hpp"

#include <gtest/gtest.h>

namespace statecached {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Reuse, BucketsAreHalfOctaves) {
  std::size_t last = 0;
  for (std::size_t b = 0; b + 1 < kReuseAges; ++b) {
    EXPECT_EQ(Reuse::age_bucket(Reuse::age_of(b)), b);
    EXPECT_EQ(Reuse::age_bucket(Reuse::age_of(b + 1) - Nanos{1}), b);
  }
  for (std::int64_t ms = 0; ms < 100'000; ms += 7) {
    const std::size_t b = Reuse::age_bucket(milliseconds(ms));
    EXPECT_GE(b, last);
    last = b;
  }
}

TEST(Reuse, BeforeAnythingIsKnownRatesFallWithAge) {
  const Reuse reuse;
  const ReuseClass tail = reuse_class(ReuseKind::tail, 0, 0);
  double before = reuse.rate(tail, Nanos{0});
  for (const int s : {1, 10, 100, 1000}) {
    EXPECT_LT(reuse.rate(tail, seconds(s)), before);
    before = reuse.rate(tail, seconds(s));
  }
  EXPECT_LT(reuse.rate(reuse_class(ReuseKind::covered, 1, 0), seconds(1)),
            reuse.rate(tail, seconds(1)) / 4);
}

struct Lives {
  Index index;
  Reuse reuse;
  NodeIx root = index.add_root(0);
  Token next = 1;

  NodeIx add(Instant now) {
    const std::array<Token, 4> tokens{next, 1, 2, 3};
    ++next;
    const Position end = index.insert({root, 0}, {tokens, {}, 0}, now);
    index.reference(end.node);
    reuse.born(index, end.node);
    return end.node;
  }

  void use(NodeIx ix, Instant now) {
    Node& node = index.node(ix);
    reuse.advance(index, now);
    reuse.used(reuse_class(index, ix), now - node.last_use);
    node.last_use = now;
    reuse.born(index, ix);
  }
};

/// Everything comes back after 4 to 5 seconds, or never: close to the time a segment is worth the
/// more, and after it next to nothing.
TEST(Reuse, LearnsWhenThingsComeBack) {
  Lives lives;
  Instant now{};
  for (int round = 0; round < 200; ++round) {
    const NodeIx a = lives.add(now);
    static_cast<void>(lives.add(now));
    now += milliseconds(4500);
    lives.use(a, now);
    now += milliseconds(100);
  }
  const ReuseClass tail = reuse_class(ReuseKind::tail, 0, 0);
  const double young = lives.reuse.rate(tail, milliseconds(50));
  const double due = lives.reuse.rate(tail, seconds(4));
  const double late = lives.reuse.rate(tail, seconds(20));
  EXPECT_GT(due, young);
  EXPECT_LT(late, young / 2);
  EXPECT_GT(young, 0.03);  // about a third come back within 4.5 s
  EXPECT_LT(young, 0.3);
}

TEST(Index, RemembersWhatHeldSomethingUntilItsBudgetIsSpent) {
  Index index;
  index.remember(2 * (128 + 4));  // two nodes of four tokens
  const NodeIx root = index.add_root(0);
  std::array<NodeIx, 4> nodes{};
  for (Token t = 0; t < 4; ++t) {
    const std::array<Token, 4> tokens{100 + t, 1, 2, 3};
    nodes[t] = index.insert({root, 0}, {tokens, {}, 0}, Instant{}).node;
    index.reference(nodes[t]);
    index.unreference(nodes[t]);
  }
  const auto known = [&](Token t) {
    const std::array<Token, 4> tokens{100 + t, 1, 2, 3};
    return index.match({root, 0}, {tokens, {}, 0}).at;
  };
  EXPECT_EQ(known(0), 0U);
  EXPECT_EQ(known(1), 0U);
  EXPECT_EQ(known(2), 4U);
  EXPECT_EQ(known(3), 4U);
  EXPECT_EQ(index.check(), "");
}

}  // namespace
}  // namespace statecached
