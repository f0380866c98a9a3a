#pragma once
// Which segment of a full tier goes first. Nodes sit in buckets of reuse class and age, each a heap
// by FLOP efficiency, so the victim is the best of the tops: O(log n) to change, O(buckets in use)
// to choose. All in a bucket have the same reuse rate, so the choice is exact as far as rates are
// known.
//
// Two lanes: `clean` segments can be given up at once (backed by a lower tier, or not worth a copy
// there), `dirty` ones must be written first.

#include "policy/eviction.hpp"

#include <array>
#include <cstdint>
#include <vector>

namespace statecached {

class Victims final : public EvictionPolicy {
 public:
  /// Without `reuse`: least recently used first, efficiency ignored (the `lru` policy).
  explicit Victims(const Reuse* reuse) : reuse_(reuse) {}

  void put(const Candidate& candidate, Instant now) override;
  void erase(NodeIx node) override;

  [[nodiscard]] std::uint64_t bytes(Lane lane) const noexcept override {
    return bytes_[static_cast<std::size_t>(lane)];
  }

  /// The node of least keep value.
  [[nodiscard]] NodeIx best(Lane lane, Instant now) override;

  [[nodiscard]] double best_value() const noexcept override { return best_value_; }

  [[nodiscard]] bool contains(NodeIx node) const noexcept override {
    return node < entries_.size() && entries_[node].bucket != kNone;
  }

 private:
  static constexpr std::size_t kPerLane = kReuseClasses * kReuseAges;
  static constexpr std::uint16_t kNone = UINT16_MAX;

  struct Entry {
    double key = 0;
    std::uint64_t bytes = 0;
    Instant last_use{};
    std::uint32_t heap_at = 0;
    NodeIx newer = kNil, older = kNil;  ///< list of the bucket by last_use
    std::uint16_t bucket = kNone;       ///< (lane * kReuseClasses + class) * kReuseAges + age
  };

  struct Bucket {
    std::vector<NodeIx> heap;
    NodeIx oldest = kNil, newest = kNil;
  };

  [[nodiscard]] std::size_t bucket_of(const Candidate& candidate, Instant now) const noexcept;
  void place(NodeIx node, std::size_t bucket);
  void graduate(std::size_t row, Instant now);
  void sift_up(Bucket& bucket, std::uint32_t at);
  void sift_down(Bucket& bucket, std::uint32_t at);
  void put_at(Bucket& bucket, std::uint32_t at, NodeIx node);

  const Reuse* reuse_;
  double best_value_ = 0;
  std::array<std::uint64_t, 2> bytes_{};
  std::vector<Entry> entries_;
  std::vector<Bucket> buckets_ = std::vector<Bucket>(2 * kPerLane);
  std::array<std::uint64_t, 2 * kReuseClasses> occupied_{};  ///< bit per age
};

static_assert(kReuseAges == 64);

}  // namespace statecached
