#pragma once
// How soon a resume point is used again: learned by its class and its age (design.md 6, marconi.md
// 7.3).
//
//   class   what the node is (tail: nothing resumable below it; covered: one way on, and a
//           checkpoint further along it; branch: sequences part here), how often it was used (a
//           tail: how many turns lead to it), and how many tokens it resumes: what is long is
//           seldom what comes again soon.
//   age     since its last use, in buckets that grow by half an octave.
//
// For each class and age bucket it counts the uses and the lives that outlived the bucket unused.
// Lives end at a use, so what is still alive counts as far as it got. The tree remembers segments
// after they lost everything (Index::remember), so reuse is seen whether or not the cache still had
// the state, and a full cache does not teach itself that nothing is ever used again.
//
// The rate of a class at an age is the best that keeping it from now on for some time can bring:
//   max over t of P(used within t) / E[time kept until the use or t],
// which is Gittins' index of the life that remains (Aalto, Ayesta, Righter 2009). While the counts
// are few they lean on those of its kind, these on "half of what is left is used before its age
// doubles", that is 1/age, and both as far as the ages just below bear it out: else what is older
// than anything counted would be thought the most likely to be used. Old counts fade. One thread;
// no clock.

#include "base/time.hpp"
#include "policy/index.hpp"

#include <array>
#include <cstdint>
#include <vector>

namespace statecached {

enum class ReuseKind : std::uint8_t { tail = 0, covered = 1, branch = 2 };
inline constexpr std::size_t kReuseKinds = 3;
inline constexpr std::size_t kReuseLengths = 4;  ///< below 4 Ki, 16 Ki, 64 Ki tokens; more
/// used 0, 1, 2..3, 4.. times, each by length
inline constexpr std::size_t kReuseDegrees = 4 * kReuseLengths;
inline constexpr std::size_t kReuseClasses = kReuseKinds * kReuseDegrees;
inline constexpr std::size_t kReuseAges = 64;

using ReuseClass = std::uint8_t;  ///< kind * kReuseDegrees + degree

[[nodiscard]] ReuseClass reuse_class(ReuseKind kind,
                                     std::uint32_t times,
                                     std::uint32_t tokens) noexcept;
[[nodiscard]] const char* to_string(ReuseKind kind) noexcept;
/// Looks at a bounded number of nodes below.
[[nodiscard]] ReuseClass reuse_class(const Index& index, NodeIx node);

class Reuse {
 public:
  Reuse();
  /// Learns nothing: 1 / (age + 1 s) for all, from here on.
  void only_prior();
  /// A use of a node of this class, this long after the last one.
  void used(ReuseClass what, Nanos age);
  /// A life begins at node.last_use.
  void born(const Index& index, NodeIx node);
  /// Counts what grew older since the last call: O(1) amortised a life and bucket.
  void advance(const Index& index, Instant now);

  /// Uses a second to expect.
  [[nodiscard]] double rate(ReuseClass what, Nanos age) const noexcept {
    return rates_[what][age_bucket(age)];
  }

  [[nodiscard]] double rate(ReuseClass what, std::size_t bucket) const noexcept {
    return rates_[what][bucket];
  }

  [[nodiscard]] static std::size_t age_bucket(Nanos age) noexcept;
  /// Where the bucket begins.
  [[nodiscard]] static Nanos age_of(std::size_t bucket) noexcept;

 private:
  struct Life {
    NodeIx node = kNil;
    std::uint32_t next = kNil;  ///< of its list, or of the free ones
    Instant last_use{};
  };

  struct Lives {
    std::uint32_t oldest = kNil, newest = kNil;
  };

  using Row = std::array<double, kReuseAges>;
  void join(std::uint32_t life, Lives& list);
  [[nodiscard]] Row learn_kind(std::size_t kind) const;
  void learn_class(std::size_t what);

  std::vector<Life> lives_;  ///< those used since are skipped when their turn comes
  std::uint32_t free_life_ = kNil;
  std::array<Lives, kReuseAges> by_age_;
  std::array<Row, kReuseClasses> uses_{}, outlived_{}, rates_{};
  Row widths_{};
  /// Of the prior: the chance that a life ends in a bucket, and what it contributes to a rate.
  std::array<Row, kReuseKinds> prior_chance_{}, prior_share_{};
  double counted_ = 0;
  std::size_t next_class_ = 0;  ///< whose rates are found anew beside those of what is used
};

}  // namespace statecached
