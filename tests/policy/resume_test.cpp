// The usable prefix against a plain model: small random trees over two symbols; groups of every
// need, with cells and lookaheads that differ; objects that come and go tier by tier as closure
// allows, some of them not visible yet or not any more. The model knows an object by its content:
// group, first token and the symbols before its end.

#include "policy/resume.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>
#include <tuple>

namespace statecached {
namespace {

/// The depths alone, once what comes with each is what needs() says.
std::vector<std::uint32_t> depths_of(const ResumeScan& scan,
                                     const ResumeLimits& limits,
                                     std::size_t most) {
  std::vector<Usable> usable;
  const std::size_t count = scan.depths(limits, most, usable);
  std::vector<std::uint32_t> out;
  std::vector<Cover> covers;
  for (const Usable& each : std::span(usable).first(count)) {
    EXPECT_TRUE(scan.needs(each.depth, covers));
    EXPECT_TRUE(std::ranges::equal(covers, each.covers, [](const Cover& a, const Cover& b) {
      return a.object == b.object && a.valid == b.valid;
    }));
    out.push_back(each.depth);
  }
  return out;
}

constexpr std::uint32_t kLongest = 18;
constexpr std::uint32_t kLargestCell =
    4;  // 31 nodes below a point at most: within what find_cover() looks at

using Text = std::vector<Token>;

Group shape(Need need,
            std::uint32_t cell = 0,
            std::uint32_t window = 0,
            std::uint32_t lookahead = 0) {
  Group out;
  out.need = need;
  out.block_tokens = cell;
  out.window = window;
  out.lookahead = lookahead;
  return out;
}

/// At least one group of `every`, then those that `wanted` has a bit for: another, a window, a
/// checkpoint.
std::vector<Group> random_groups(Prng& prng, unsigned wanted) {
  const auto cell = [&] { return static_cast<std::uint32_t>(2 + prng.below(kLargestCell - 1)); };
  const auto ahead = [&] {
    return prng.below(3) == 0 ? static_cast<std::uint32_t>(1 + prng.below(2)) : 0;
  };
  std::vector<Group> out{shape(Need::every, cell(), 0, ahead())};
  if ((wanted & 1U) != 0) out.push_back(shape(Need::every, cell(), 0, ahead()));
  if ((wanted & 2U) != 0)
    out.push_back(
        shape(Need::last, cell(), static_cast<std::uint32_t>(1 + prng.below(8)), ahead()));
  if ((wanted & 4U) != 0) out.push_back(shape(Need::end, 0, 0, ahead()));
  return out;
}

/// What a request asks of the scan.
struct Question {
  Text text;
  std::uint32_t at = 0;  ///< of it, in the tree
  std::uint32_t from = 0;
  std::vector<Mark> marks;
  ResumeLimits limits;
};

class World {
 public:
  World(std::uint64_t seed, unsigned wanted) : prng_(seed), groups_(random_groups(prng_, wanted)) {}

  /// Stores something of a random text as an engine would, parents first, with holes.
  void store() {
    const Text all = text();
    const Position end = index_.insert({root_, 0}, {all, {}, 0}, Instant{});
    index_.reference(end.node);
    const auto to = static_cast<std::uint32_t>(1 + prng_.below(all.size()));
    for (std::uint16_t g = 0; g < groups_.size(); ++g) {
      const std::uint32_t cell = groups_[g].block_tokens;
      if (groups_[g].need == Need::end) {
        put(end, g, to, to);
        continue;
      }
      for (std::uint32_t first = 0; first < to; first += cell)
        put(end, g, first, std::min(first + cell, to));
    }
    index_.unreference(end.node);
  }

  /// One object gives up a copy that may go, comes to another tier, gets visible, or dies.
  void change() {
    if (key_.empty()) return;
    const auto& [o, key] =
        *std::next(key_.begin(), static_cast<std::ptrdiff_t>(prng_.below(key_.size())));
    Object& object = index_.object(o);
    if (object.state == ObjectState::committed) {
      object.state = ObjectState::visible;
      content_.insert(key);
      return;
    }
    if (prng_.below(32) == 0) {
      object.state = ObjectState::dead;
      content_.erase(key);
    }
    const auto tier = static_cast<Tier>(prng_.below(2));
    if (!object.in(tier)) {
      index_.enter(o, tier);
      return;
    }
    if (!index_.may_leave(object, tier)) return;
    index_.leave(o, tier);
    if (object.tiers != 0) return;
    content_.erase(key);
    index_.remove_object(o);
    key_.erase(o);
  }

  void compare() {
    ASSERT_EQ(index_.check(), "");
    Question ask{text(), 0, 0, {}, {}};
    std::vector<NodeIx> path;
    const Position here = index_.match({root_, 0}, {ask.text, {}, 0}, &path);
    ask.at = here.at;
    if (prng_.below(3) == 0) ask.from = static_cast<std::uint32_t>(prng_.below(here.at + 1));
    std::erase_if(path, [&](NodeIx n) { return index_.node(n).end < ask.from; });
    for (std::uint32_t at = 0; at < kLongest && prng_.below(2) == 0;
         at += ask.marks.back().length) {
      at += static_cast<std::uint32_t>(prng_.below(4));
      ask.marks.push_back(
          {at, static_cast<std::uint32_t>(1 + prng_.below(5)), {}, prng_.below(3) != 0});
    }
    ask.limits.at_most = static_cast<std::uint32_t>(prng_.below(here.at + 2));
    ask.limits.grid = prng_.below(2) == 0 ? 1 : static_cast<std::uint32_t>(2 + prng_.below(3));
    ask.limits.grid_from = static_cast<std::uint32_t>(prng_.below(3)) - 1;

    const ResumeScan scan(index_, groups_, path, here, ask.marks, ask.from);
    EXPECT_EQ(scan.stored(), stored(ask));
    std::vector<std::uint32_t> should;
    for (std::uint32_t depth = ask.from + 1; depth <= here.at; ++depth) {
      std::vector<Cover> covers;
      const bool good = usable(ask, depth);
      EXPECT_EQ(scan.needs(depth, covers), good) << depth;
      if (!good) continue;
      sufficient(ask, depth, covers);
      if (offered(ask, depth)) should.push_back(depth);
    }
    const bool end = groups_.back().need == Need::end;
    std::size_t most = kLongest;
    if (end && prng_.below(4) == 0) most = 1 + prng_.below(3);
    const std::size_t keep = end ? most : 1;  // without checkpoints the deepest says it all
    if (should.size() > keep)
      should.erase(should.begin(), should.end() - static_cast<std::ptrdiff_t>(keep));
    EXPECT_EQ(depths_of(scan, ask.limits, most), should);
  }

 private:
  using Key =
      std::tuple<std::uint16_t, std::uint32_t, Text>;  // group, first, symbols up to its end

  /// Some symbols of an earlier text, then others.
  Text text() {
    Text out(1 + prng_.below(kLongest));
    for (Token& t : out)
      t = static_cast<Token>(prng_.below(2));
    Text& earlier = earlier_[prng_.below(earlier_.size())];
    std::copy_n(
        earlier.begin(), prng_.below(std::min(out.size(), earlier.size()) + 1), out.begin());
    if (prng_.below(4) == 0) earlier = out;
    return out;
  }

  void put(Position end, std::uint16_t g, std::uint32_t first, std::uint32_t to) {
    if (prng_.below(8) == 0 || index_.find(end.node, g, first, to) != kNil) return;
    Object object;
    object.group = g;
    object.need = groups_[g].need;
    object.first = first;
    object.end = to;
    object.bytes = 100 + to;
    object.full = object.need == Need::every && to - first == groups_[g].block_tokens;
    for (std::uint16_t h = 0; h < groups_.size(); ++h) {
      if (groups_[h].need != Need::every || (object.need == Need::every && h != g)) continue;
      const std::uint32_t cell = groups_[h].block_tokens;
      const std::uint32_t above = h == g ? first : to / cell * cell;
      if (above == 0) continue;
      object.parents[h] = index_.find(end.node, h, above - cell, above);
      if (object.parents[h] == kNil) return;
    }
    NodeIx node = index_.node_at(end.node, to);
    if (object.need == Need::end) node = index_.split({node, to});
    const ObjectIx o = index_.add_object(node, object);
    index_.enter(o, static_cast<Tier>(prng_.below(2)));
    const bool visible = prng_.below(8) != 0;
    index_.object(o).state = visible ? ObjectState::visible : ObjectState::committed;
    const Key key{g, first, text_of(end.node, to)};
    key_[o] = key;
    if (visible) content_.insert(key);
  }

  Text text_of(NodeIx ix, std::uint32_t to) const {
    Text out(to);
    for (std::uint32_t at = to; at > 0; --at)
      out[at - 1] = *index_.node(index_.node_at(ix, at)).at(at - 1);
    return out;
  }

  static bool begins(const Text& longer, const Text& asked, std::uint32_t to) {
    return longer.size() >= to && std::equal(asked.begin(), asked.begin() + to, longer.begin());
  }

  /// Some visible block of this group and cell has these symbols up to `to` at least.
  bool covers(std::uint16_t g, std::uint32_t first, std::uint32_t to, const Text& asked) const {
    return std::any_of(content_.begin(), content_.end(), [&](const Key& key) {
      return std::get<0>(key) == g && std::get<1>(key) == first &&
             begins(std::get<2>(key), asked, to);
    });
  }

  /// The first token that this group needs in order to be good up to `reach`.
  std::uint32_t first_needed(const Question& ask, std::uint16_t g, std::uint32_t reach) const {
    if (groups_[g].need == Need::every) return ask.from;
    return std::max(ask.from, reach - std::min(reach, groups_[g].window));
  }

  bool has(const Question& ask, std::uint16_t g, std::uint32_t depth) const {
    const std::uint32_t reach = depth + groups_[g].lookahead;
    if (reach > ask.at) return false;
    if (groups_[g].need == Need::end)
      return content_.contains({g, reach, Text(ask.text.begin(), ask.text.begin() + reach)});
    const std::uint32_t cell = groups_[g].block_tokens;
    for (std::uint32_t first = first_needed(ask, g, reach) / cell * cell; first < reach;
         first += cell) {
      if (!covers(g, first, std::min(reach, first + cell), ask.text)) return false;
    }
    return true;
  }

  bool usable(const Question& ask, std::uint32_t depth) const {
    for (std::uint16_t g = 0; g < groups_.size(); ++g) {
      if (!has(ask, g, depth)) return false;
    }
    return true;
  }

  std::uint32_t stored(const Question& ask) const {
    std::uint32_t depth = ask.from;
    const auto all = [&](std::uint32_t at) {
      for (std::uint16_t g = 0; g < groups_.size(); ++g) {
        if (groups_[g].need == Need::every && !has(ask, g, at)) return false;
      }
      return at <= ask.at;
    };
    while (all(depth + 1))
      ++depth;
    return depth;
  }

  static bool offered(const Question& ask, std::uint32_t depth) {
    if (depth > ask.limits.at_most || (depth - ask.limits.grid_from) % ask.limits.grid != 0)
      return false;
    return std::none_of(ask.marks.begin(), ask.marks.end(), [&](const Mark& mark) {
      return mark.atomic != 0 && mark.at < depth && depth < mark.at + mark.length;
    });
  }

  /// The objects named for this depth hold what it needs, each of them these symbols.
  void sufficient(const Question& ask, std::uint32_t depth, const std::vector<Cover>& list) const {
    std::size_t used = 0;
    for (std::uint16_t g = 0; g < groups_.size(); ++g) {
      const std::uint32_t reach = depth + groups_[g].lookahead;
      std::uint32_t have = 0;  // only blocks, each where the one before it ends
      if (groups_[g].need != Need::end)
        have = first_needed(ask, g, reach) / groups_[g].block_tokens * groups_[g].block_tokens;
      for (const Cover& cover : list) {
        const Object& object = index_.object(cover.object);
        if (object.group != g) continue;
        ++used;
        ASSERT_EQ(object.state, ObjectState::visible);
        ASSERT_NE(object.tiers, 0);
        const std::uint32_t good = cover.valid == 0 ? object.end : object.first + cover.valid;
        ASSERT_TRUE(begins(std::get<2>(key_.at(cover.object)), ask.text, good));
        if (groups_[g].need == Need::end) {
          ASSERT_EQ(object.end, reach);
          ASSERT_EQ(cover.valid, 0U);
          have = object.end;
          continue;
        }
        ASSERT_GT(cover.valid, 0U);
        ASSERT_LE(object.first + cover.valid, object.end);
        ASSERT_EQ(object.first, have);
        have = object.first + cover.valid;
      }
      EXPECT_EQ(have, reach) << "group " << g << " at " << depth;
    }
    EXPECT_EQ(used, list.size());
  }

  Prng prng_;
  std::vector<Group> groups_;
  Index index_;
  NodeIx root_ = index_.add_root(0);
  std::array<Text, 8> earlier_;
  std::set<Key> content_;        ///< of what is visible
  std::map<ObjectIx, Key> key_;  ///< of all
};

class ResumeModel : public testing::TestWithParam<unsigned> {};

TEST_P(ResumeModel, AgreesWithThePlainRule) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    World world(seed * 17 + GetParam(), GetParam());
    for (int step = 0; step < 60; ++step) {
      world.store();
      for (int i = 0; i < 8; ++i)
        world.change();
      for (int i = 0; i < 3; ++i)
        world.compare();
      ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed << ", step " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Groups, ResumeModel, testing::Range(0U, 8U));

/// A tree of texts that are told apart by their symbols alone, and blocks put where they are
/// wanted.
class Resume : public testing::Test {
 protected:
  NodeIx insert(const Text& all) { return index_.insert({root_, 0}, {all, {}, 0}, Instant{}).node; }

  void block(NodeIx node, std::uint16_t group, Need need, std::uint32_t first, std::uint32_t end) {
    Object object;
    object.group = group;
    object.need = need;
    object.first = first;
    object.end = end;
    object.bytes = 1;
    const ObjectIx o = index_.add_object(index_.node_at(node, end), object);
    index_.object(o).state = ObjectState::visible;
    index_.enter(o, Tier::host);
  }

  std::vector<std::uint32_t> depths(const std::vector<Group>& groups,
                                    const Text& asked,
                                    const std::vector<Mark>& marks = {},
                                    std::uint32_t grid = 1) {
    std::vector<NodeIx> path;
    const Position here = index_.match({root_, 0}, {asked, {}, 0}, &path);
    const ResumeScan scan(index_, groups, path, here, marks);
    stored_ = scan.stored();
    return depths_of(scan, {here.at, grid}, 8);
  }

  using Depths = std::vector<std::uint32_t>;
  Index index_;
  NodeIx root_ = index_.add_root(0);
  std::uint32_t stored_ = 0;
};

Text shared_then(std::uint32_t same, std::uint32_t all, Token other) {
  Text out(all, other);
  std::fill_n(out.begin(), same, 1);
  return out;
}

TEST_F(Resume, BranchesThatPartInsideABlockServeWhatTheyShare) {
  for (const Token branch : {Token{2}, Token{3}}) {
    const NodeIx node = insert(shared_then(70, 128, branch));
    if (branch == 2) block(node, 0, Need::every, 0, 64);
    block(node, 0, Need::every, 64, 128);
  }
  EXPECT_EQ(depths({shape(Need::every, 64)}, shared_then(70, 128, 4)), Depths{70});
  EXPECT_EQ(stored_, 70U);
}

TEST_F(Resume, WhereTooManyBranchesPartTheBlocksOfThePathCount) {
  for (Token other = 10; other < 110; ++other)
    insert(shared_then(69, 80, other));
  for (const Token branch : {Token{2}, Token{3}}) {
    const NodeIx node = insert(shared_then(70, 128, branch));
    if (branch == 2) block(node, 0, Need::every, 0, 64);
    block(node, 0, Need::every, 64, 128);
  }
  const Text asked = shared_then(70, 128, 4);
  EXPECT_EQ(depths({shape(Need::every, 64)}, asked), Depths{70});
  // 68 lies above a hundred branches, and the one with the block is not among those that are looked
  // at.
  EXPECT_EQ(depths({shape(Need::every, 64)}, asked, {}, 4), Depths{64});
}

TEST_F(Resume, AWindowThatIsMissingLeavesTheDepthBeforeIt) {
  const Text all(24, 1);
  const NodeIx node = insert(all);
  for (std::uint32_t first = 0; first < 24; first += 4)
    block(node, 0, Need::every, first, first + 4);
  for (const std::uint32_t first : {4U, 8U, 20U})
    block(node, 1, Need::last, first, first + 4);
  EXPECT_EQ(depths({shape(Need::every, 4), shape(Need::last, 4, 6)}, all), Depths{12});
  EXPECT_EQ(stored_, 24U);
}

TEST_F(Resume, AWindowThatLooksAheadIsAskedForWhereItReaches) {
  const Text all(8, 1);
  const NodeIx node = insert(all);
  for (std::uint32_t first = 0; first < 8; first += 4) {
    block(node, 0, Need::every, first, first + 4);
    block(node, 1, Need::last, first, first + 4);
  }
  EXPECT_EQ(depths({shape(Need::every, 4), shape(Need::last, 4, 4, 1)}, all), Depths{7});
}

TEST_F(Resume, TheGridBeforeAMarkMayLieInAnotherMark) {
  const Text all(32, 1);
  const NodeIx node = insert(all);
  block(node, 0, Need::every, 0, 32);
  const std::vector<Mark> marks{{10, 10, {}, 1}, {20, 20, {}, 1}};
  EXPECT_EQ(depths({shape(Need::every, 32)}, all, marks, 8), Depths{8});
}

}  // namespace
}  // namespace statecached
