#include "client/workload/turns.hpp"

#include <gtest/gtest.h>

namespace statecached {
namespace {

NamespaceSpec hybrid() {
  NamespaceSpec spec;
  spec.groups = {{.name = "attention", .need = Need::every, .block_tokens = 64, .max_bytes = 64},
                 {.name = "recurrent", .need = Need::end, .max_bytes = 64}};
  return spec;
}

using Wants = std::vector<TurnWant>;

TEST(Turns, FromNothing) {
  const std::uint32_t wishes[] = {100, 64};
  EXPECT_EQ(
      turn_wants(hybrid(), 0, 130, wishes),
      (Wants{{0, 0, 64}, {1, 64, 64}, {1, 100, 100}, {0, 64, 128}, {0, 128, 130}, {1, 130, 130}}));
}

TEST(Turns, ResumedInsideABlockStoresTheWholeCell) {
  EXPECT_EQ(turn_wants(hybrid(), 70, 128, {}), (Wants{{0, 64, 128}, {1, 128, 128}}));
}

TEST(Turns, WishesBehindTheHitOrAtTheEndAreNotDoubled) {
  const std::uint32_t wishes[] = {64, 70, 128, 200};
  EXPECT_EQ(turn_wants(hybrid(), 70, 128, wishes), (Wants{{0, 64, 128}, {1, 128, 128}}));
}

TEST(Turns, NothingComputedNothingWanted) {
  EXPECT_TRUE(turn_wants(hybrid(), 0, 0, {}).empty());
  EXPECT_TRUE(turn_wants(hybrid(), 128, 128, {}).empty());
}

TEST(Turns, TheEndIsRoundedDownToTheEnginesGrid) {
  auto spec = hybrid();
  spec.checkpoint_grid = 50;
  EXPECT_EQ(turn_wants(spec, 0, 64, {}), (Wants{{1, 50, 50}, {0, 0, 64}}));
  EXPECT_EQ(turn_wants(spec, 50, 64, {}), (Wants{{0, 0, 64}}));
}

}  // namespace
}  // namespace statecached
