// Space against a bitmap: every allocation is disjoint, exact, in few runs, and comes back whole.

#include "tiers/space.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

namespace statecached {
namespace {

class Model {
 public:
  explicit Model(std::uint64_t pages) : taken_(pages, false) {}

  void take(const PageRuns& runs) {
    for (const PageRun run : runs) {
      for (std::uint64_t page = run.at; page < std::uint64_t{run.at} + run.count; ++page) {
        ASSERT_LT(page, taken_.size());
        ASSERT_FALSE(taken_[page]) << "page " << page << " given out twice";
        taken_[page] = true;
      }
    }
  }

  void give_back(const PageRuns& runs) {
    for (const PageRun run : runs) {
      for (std::uint64_t page = run.at; page < std::uint64_t{run.at} + run.count; ++page) {
        ASSERT_TRUE(taken_.at(page));
        taken_[page] = false;
      }
    }
  }

  [[nodiscard]] bool is_free(PageRun run) const {
    if (std::uint64_t{run.at} + run.count > taken_.size()) return false;
    for (std::uint64_t page = run.at; page < std::uint64_t{run.at} + run.count; ++page) {
      if (taken_[page]) return false;
    }
    return true;
  }

  [[nodiscard]] std::vector<std::uint64_t> free_runs() const {
    std::vector<std::uint64_t> runs;
    std::uint64_t run = 0;
    for (const bool taken : taken_) {
      if (!taken) {
        ++run;
      } else if (run > 0) {
        runs.push_back(run);
        run = 0;
      }
    }
    if (run > 0) runs.push_back(run);
    return runs;
  }

 private:
  std::vector<bool> taken_;
};

/// What allocate() must do, from the lengths of the free runs alone: how many runs, 0 for a
/// refusal.
std::size_t expected_runs(std::vector<std::uint64_t> free_runs,
                          std::uint64_t pages,
                          bool contiguous) {
  std::sort(free_runs.rbegin(), free_runs.rend());
  std::uint64_t total = 0;
  for (const std::uint64_t run : free_runs)
    total += run;
  if (pages > total) return 0;
  if (!free_runs.empty() && free_runs.front() >= pages) return 1;
  if (contiguous) return 0;
  std::size_t used = 0;
  for (const std::uint64_t run : free_runs) {
    ++used;
    if (run >= pages) break;
    pages -= run;
  }
  return used;
}

void compare(const Space& space, const Model& model, std::uint64_t pages) {
  const auto runs = model.free_runs();
  std::uint64_t free_pages = 0;
  std::uint64_t longest = 0;
  for (const std::uint64_t run : runs) {
    free_pages += run;
    longest = std::max(longest, run);
  }
  ASSERT_TRUE(space.check().has_value());
  ASSERT_EQ(space.available(), free_pages * kPage);
  ASSERT_EQ(space.used(), (pages - free_pages) * kPage);
  ASSERT_EQ(space.largest_free(), longest * kPage);
  ASSERT_EQ(space.free_runs(), runs.size());
}

void random_walk(std::uint64_t seed, std::uint64_t pages, std::uint64_t largest) {
  Prng prng(seed);
  Space space(pages * kPage + prng.below(kPage));
  Model model(pages);
  std::vector<PageRuns> held;
  std::uint64_t peak = 0;
  for (int step = 0; step < 3000; ++step) {
    const bool fill = held.empty() || prng.chance(space.available() > space.used() ? 0.7 : 0.45);
    if (fill) {
      const std::uint64_t bytes = 1 + prng.below(largest * kPage);
      const bool contiguous = prng.chance(0.3);
      const std::size_t expected =
          expected_runs(model.free_runs(), div_ceil(bytes, kPage), contiguous);
      PageRuns out{{.at = 7, .count = 7}};
      ASSERT_EQ(space.allocate(bytes, contiguous, out), expected > 0);
      ASSERT_EQ(out.size(), expected);
      ASSERT_EQ(bytes_of(out), expected > 0 ? round_up(bytes, kPage) : 0);
      ASSERT_NO_FATAL_FAILURE(model.take(out));
      if (expected > 0) held.push_back(out);
    } else if (prng.chance(0.2)) {
      PageRuns runs;
      const std::size_t count = 1 + prng.below(3);
      for (std::size_t i = 0; i < count; ++i) {
        runs.push_back({.at = static_cast<std::uint32_t>(prng.below(pages + 4)),
                        .count = static_cast<std::uint32_t>(1 + prng.below(3))});
      }
      bool possible = true;
      Model trial = model;
      for (const PageRun run : runs) {
        possible = possible && trial.is_free(run);
        if (possible) trial.take({run});
      }
      ASSERT_EQ(space.allocate_at(runs), possible);
      if (possible) {
        model.take(runs);
        held.push_back(runs);
      }
    } else {
      const std::size_t victim = prng.below(held.size());
      space.free(held[victim]);
      ASSERT_NO_FATAL_FAILURE(model.give_back(held[victim]));
      held[victim] = held.back();
      held.pop_back();
    }
    peak = std::max(peak, space.used());
    ASSERT_NO_FATAL_FAILURE(compare(space, model, pages)) << "seed " << seed << " step " << step;
    ASSERT_EQ(space.peak(), peak);
  }
  for (const PageRuns& runs : held)
    space.free(runs);
  EXPECT_EQ(space.used(), 0U);
  EXPECT_EQ(space.largest_free(), pages * kPage);
  EXPECT_EQ(space.free_runs(), 1U);
}

TEST(Space, AgreesWithABitmap) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    ASSERT_NO_FATAL_FAILURE(random_walk(seed, 64, 12));
    ASSERT_NO_FATAL_FAILURE(random_walk(seed + 100, 400, 40));
  }
}

TEST(Space, TakesTheShortestRunThatFits) {
  Space space(20 * kPage);
  // free: 3, 5, 10
  ASSERT_TRUE(space.allocate_at({{.at = 3, .count = 1}, {.at = 9, .count = 1}}));
  PageRuns out;
  ASSERT_TRUE(space.allocate(4 * kPage, true, out));
  EXPECT_EQ(out, (PageRuns{{.at = 4, .count = 4}}));
  ASSERT_TRUE(
      space.allocate(12 * kPage, false, out));  // free: 3, 1, 10; the rest, 2, fits best in 3
  EXPECT_EQ(out, (PageRuns{{.at = 10, .count = 10}, {.at = 0, .count = 2}}));
  EXPECT_FALSE(space.allocate(2 * kPage, true, out));
  EXPECT_TRUE(out.empty());
  EXPECT_FALSE(space.allocate(3 * kPage, false, out));
  EXPECT_TRUE(space.allocate(0, true, out));
  EXPECT_TRUE(out.empty());
  EXPECT_FALSE(space.allocate(std::numeric_limits<std::uint64_t>::max(), false, out));
}

TEST(Space, EdgesOfCapacity) {
  Space none(kPage - 1);
  PageRuns out;
  EXPECT_EQ(none.capacity(), 0U);
  EXPECT_EQ(none.largest_free(), 0U);
  EXPECT_FALSE(none.allocate(1, false, out));
  EXPECT_TRUE(none.check().has_value());

  Space all(Space::kCapacityMax);
  EXPECT_EQ(all.largest_free(), Space::kCapacityMax);
  ASSERT_TRUE(all.allocate(Space::kCapacityMax, true, out));
  EXPECT_EQ(to_extent(out.front()), (Extent{.offset = 0, .bytes = Space::kCapacityMax}));
  EXPECT_FALSE(all.allocate(1, false, out));
  all.free({.at = 0xfffffffe, .count = 1});
  EXPECT_FALSE(all.allocate_at({{.at = 0xfffffffe, .count = 2}}));
  EXPECT_TRUE(all.allocate_at({{.at = 0xfffffffe, .count = 1}}));
}

TEST(Space, ConvertsToExtentsAndBack) {
  const PageRuns runs{{.at = 1, .count = 2}, {.at = 0xffff0000, .count = 3}, {.at = 9, .count = 1}};
  std::vector<Extent> extents;
  for (const PageRun run : runs)
    extents.push_back(to_extent(run));
  EXPECT_EQ(extents.at(1), (Extent{.offset = 0xffff0000ULL * kPage, .bytes = 3 * kPage}));
  EXPECT_EQ(to_page_runs(extents), runs);
  EXPECT_EQ(bytes_of(runs), 6 * kPage);
}

TEST(SpaceDeath, GivingBackTwiceAborts) {
  Space space(16 * kPage);
  PageRuns out;
  ASSERT_TRUE(space.allocate(8 * kPage, true, out));
  space.free({.at = 2, .count = 2});
  EXPECT_DEATH(space.free({.at = 3, .count = 1}), "assertion");
  EXPECT_DEATH(space.free({.at = 1, .count = 2}), "assertion");
  EXPECT_DEATH(space.free({.at = 0, .count = 8}), "assertion");
  EXPECT_DEATH(space.free({.at = 8, .count = 1}), "assertion");
  EXPECT_DEATH(space.free({.at = 15, .count = 2}), "assertion");
}

}  // namespace
}  // namespace statecached
