#pragma once
// The paper's choice of a victim (marconi.md 3.4): least recency + alpha x efficiency, both min-max
// normalised over the candidates, recency = 1 / age in logical time.
//
// Exact and without a scan: recency grows with the time of last use, so both terms are read from
// sorted lists; walking the two from their low ends, no candidate further up can score less than
// the sum of where the two walks stand (Fagin's threshold rule). Changing a candidate is O(log n);
// choosing visits the few that are old or of little use, in the worst case (tiny alpha, all alike)
// all.

#include "policy/eviction.hpp"

#include <array>
#include <set>
#include <utility>
#include <vector>

namespace statecached {

class PaperScore final : public EvictionPolicy {
 public:
  explicit PaperScore(double alpha) : alpha_(alpha) {}

  void put(const Candidate& candidate, Instant now) override;
  void erase(NodeIx node) override;

  [[nodiscard]] bool contains(NodeIx node) const noexcept override {
    return node < entries_.size() && entries_[node].present;
  }

  [[nodiscard]] std::uint64_t bytes(Lane lane) const noexcept override {
    return lanes_[static_cast<std::size_t>(lane)].bytes;
  }

  void tick(std::uint64_t used) override { clock_ = used; }

  [[nodiscard]] NodeIx best(Lane lane, Instant now) override;

  void set_alpha(double alpha) override { alpha_ = alpha; }

 private:
  struct Entry {
    double efficiency = 0;
    std::uint64_t used = 0;
    std::uint64_t bytes = 0;
    std::uint8_t queue = 0;
    bool present = false;
  };

  struct Queue {
    std::set<std::pair<std::uint64_t, NodeIx>> by_use;
    std::set<std::pair<double, NodeIx>> by_efficiency;
    std::uint64_t bytes = 0;
  };

  double alpha_;
  std::uint64_t clock_ = 0;
  std::vector<Entry> entries_;
  static constexpr std::uint8_t kHeld = 2;
  /// by Lane; then those that are held: they count in the normalisation alone
  std::array<Queue, 3> lanes_;
};

}  // namespace statecached
