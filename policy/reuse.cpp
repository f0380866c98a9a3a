#include "policy/reuse.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace statecached {
namespace {

constexpr Nanos kYoungest = std::chrono::milliseconds(16);
constexpr unsigned kShortBits = 11;
constexpr int kNodesLookedAt = 16;
/// Lives that a class borrows from its kind, and a kind from the prior.
constexpr double kFromKind = 4, kFromPrior = 8;
/// The prior: the rate at an age is this much, by kind, over (age + kPriorAge). What is covered by
/// a checkpoint further along its only branch is used only where a sequence turns off again:
/// seldom.
constexpr std::array<double, kReuseKinds> kPrior{1, 0.03, 1};
constexpr double kPriorAge = 10;
constexpr double kTrust = 0.75;  ///< in what was counted; the rest of the exponent is the prior's
static_assert(kTrust == 0.75);   // learn_class() takes it as square roots
constexpr double kFadeAfter = 4096;   ///< uses, then all counts are halved
constexpr double kNearlyNone = 1e-3;  ///< of a life left: the rest changes no rate

}  // namespace

ReuseClass reuse_class(ReuseKind kind, std::uint32_t times, std::uint32_t tokens) noexcept {
  const auto degree = std::min<std::size_t>(kReuseDegrees / kReuseLengths - 1,
                                            static_cast<std::size_t>(std::bit_width(times)));
  const auto octaves = static_cast<std::size_t>(std::bit_width(tokens >> kShortBits));
  const std::size_t length = std::min(kReuseLengths - 1, octaves / 2);
  return static_cast<ReuseClass>(static_cast<std::size_t>(kind) * kReuseDegrees +
                                 degree * kReuseLengths + length);
}

const char* to_string(ReuseKind kind) noexcept {
  switch (kind) {
    case ReuseKind::tail:
      return "tail";
    case ReuseKind::covered:
      return "covered";
    case ReuseKind::branch:
      return "branch";
  }
  return "?";
}

ReuseClass reuse_class(const Index& index, NodeIx ix) {
  const Node& node = index.node(ix);
  const NodeIx child = node.first_child;
  if (child != kNil && index.node(child).next_sibling != kNil)
    return reuse_class(ReuseKind::branch, node.hits, node.end);
  NodeIx below = child;
  for (int looked = 0; below != kNil && looked < kNodesLookedAt; ++looked) {
    if (index.node(below).has_state()) return reuse_class(ReuseKind::covered, node.hits, node.end);
    below = index.node(below).first_child;
  }
  return reuse_class(ReuseKind::tail, node.turns, node.end);
}

std::size_t Reuse::age_bucket(Nanos age) noexcept {
  const std::int64_t x = age.count() / (kYoungest.count() / 2);
  if (x < 2) return 0;
  const auto ux = static_cast<std::uint64_t>(x);
  const auto octave = static_cast<std::size_t>(std::bit_width(ux)) - 1;
  const std::size_t half = ux >> (octave - 1U) & 1U;
  return std::min(kReuseAges - 1, 2 * octave - 1 + half);
}

Nanos Reuse::age_of(std::size_t bucket) noexcept {
  if (bucket == 0) return Nanos{0};
  const std::size_t octave = (bucket - 1) / 2;
  const std::int64_t whole = kYoungest.count() << octave;
  return Nanos{(bucket - 1) % 2 == 0 ? whole : whole + whole / 2};
}

Reuse::Reuse() {
  for (std::size_t age = 0; age + 1 < kReuseAges; ++age)
    widths_[age] = seconds(age_of(age + 1) - age_of(age));
  for (std::size_t kind = 0; kind < kReuseKinds; ++kind) {
    for (std::size_t age = 0; age + 1 < kReuseAges; ++age) {
      const double from = seconds(age_of(age)) + kPriorAge;
      prior_chance_[kind][age] =
          1 - std::pow(from / (seconds(age_of(age + 1)) + kPriorAge), kPrior[kind]);
      prior_share_[kind][age] = std::pow(kPrior[kind] / from, 1 - kTrust);
    }
  }
  for (std::size_t what = 0; what < kReuseClasses; ++what)
    learn_class(what);
}

void Reuse::only_prior() {
  for (Row& row : rates_) {
    for (std::size_t age = 0; age < kReuseAges; ++age)
      row[age] = 1 / (seconds(age_of(age)) + 1);
  }
}

void Reuse::used(ReuseClass what, Nanos age) {
  uses_[what][age_bucket(age)] += 1;
  counted_ += 1;
  if (counted_ >= kFadeAfter) {
    counted_ /= 2;
    for (std::size_t c = 0; c < kReuseClasses; ++c) {
      for (std::size_t a = 0; a < kReuseAges; ++a) {
        uses_[c][a] /= 2;
        outlived_[c][a] /= 2;
      }
    }
  }
  learn_class(what);
  learn_class(next_class_);
  next_class_ = (next_class_ + 1) % kReuseClasses;
}

void Reuse::join(std::uint32_t life, Lives& list) {
  lives_[life].next = kNil;
  if (list.newest == kNil) {
    list.oldest = life;
  } else {
    lives_[list.newest].next = life;
  }
  list.newest = life;
}

void Reuse::born(const Index& index, NodeIx node) {
  std::uint32_t life = free_life_;
  if (life == kNil) {
    life = static_cast<std::uint32_t>(lives_.size());
    lives_.emplace_back();
  } else {
    free_life_ = lives_[life].next;
  }
  lives_[life].node = node;
  lives_[life].last_use = index.node(node).last_use;
  join(life, by_age_[0]);
}

void Reuse::advance(const Index& index, Instant now) {
  for (std::size_t age = 0; age + 1 < kReuseAges; ++age) {
    Lives& list = by_age_[age];
    const Nanos limit = age_of(age + 1);
    while (list.oldest != kNil) {
      const std::uint32_t at = list.oldest;
      Life& life = lives_[at];
      if (now - life.last_use < limit) break;
      list.oldest = life.next;
      if (list.oldest == kNil) list.newest = kNil;
      const Node& node = index.node(life.node);
      if (!node.alive || node.last_use != life.last_use || age + 2 == kReuseAges) {
        life.next = free_life_;
        free_life_ = at;
        continue;
      }
      outlived_[reuse_class(index, life.node)][age] += 1;
      join(at, by_age_[age + 1]);
    }
  }
}

/// Chance that a life of this kind which reached a bucket ends in it.
Reuse::Row Reuse::learn_kind(std::size_t kind) const {
  Row chance{};
  double seen = 0, expected = 0;  // at the ages below, the nearer the more
  for (std::size_t age = 0; age + 1 < kReuseAges; ++age) {
    double uses = 0, all = 0;
    for (std::size_t c = kind * kReuseDegrees; c < (kind + 1) * kReuseDegrees; ++c) {
      uses += uses_[c][age];
      all += uses_[c][age] + outlived_[c][age];
    }
    const double prior = prior_chance_[kind][age];
    chance[age] = (uses + kFromPrior * std::min(1.0, prior * (seen + 1) / (expected + 1))) /
                  (all + kFromPrior);
    seen = seen / 2 + uses;
    expected = expected / 2 + all * prior;
  }
  return chance;
}

void Reuse::learn_class(std::size_t what) {
  const Row of_kind = learn_kind(what / kReuseDegrees);
  Row chance{};
  double seen = 0, expected = 0;
  for (std::size_t age = 0; age + 1 < kReuseAges; ++age) {
    const double all = uses_[what][age] + outlived_[what][age];
    chance[age] =
        (uses_[what][age] + kFromKind * std::min(1.0, of_kind[age] * (seen + 1) / (expected + 1))) /
        (all + kFromKind);
    seen = seen / 2 + uses_[what][age];
    expected = expected / 2 + all * of_kind[age];
  }
  for (std::size_t from = 0; from + 1 < kReuseAges; ++from) {
    double alive = 1, time = 0, best = 0;
    for (std::size_t age = from; age + 1 < kReuseAges && alive > kNearlyNone; ++age) {
      time += alive * (1 - chance[age] / 2) * widths_[age];
      alive *= 1 - chance[age];
      best = std::max(best, (1 - alive) / time);
    }
    // best^kTrust; pow() would take three times as long.
    rates_[what][from] =
        std::sqrt(best) * std::sqrt(std::sqrt(best)) * prior_share_[what / kReuseDegrees][from];
  }
  rates_[what][kReuseAges - 1] = rates_[what][kReuseAges - 2];
}

}  // namespace statecached
