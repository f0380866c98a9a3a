#pragma once
// Which segment of a full tier goes first. Nodes sit in log-age buckets, each a heap by FLOP efficiency, so the
// victim is the best of the tops: O(log n) to change, O(buckets) to choose. Within a bucket ages differ by
// less than a factor of two, so the choice is within a factor of two of the exact least keep value.
//
// Two lanes: `clean` segments can be given up at once (backed by a lower tier, or not worth a copy there),
// `dirty` ones must be written first.

#include "policy/eviction.hpp"

#include <array>
#include <cstdint>
#include <vector>

namespace statecached {

class Victims final : public EvictionPolicy {
 public:
  /// by_age: least recently used first, efficiency ignored (the `lru` policy).
  explicit Victims(bool by_age) : by_age_(by_age) {}

  void put(const Candidate& candidate, Instant now) override;
  void erase(NodeIx node) override;
  [[nodiscard]] std::uint64_t bytes(Lane lane) const noexcept override { return bytes_[static_cast<std::size_t>(lane)]; }
  /// The node of least keep value.
  [[nodiscard]] NodeIx best(Lane lane, Instant now) override;
  [[nodiscard]] bool contains(NodeIx node) const noexcept override {
    return node < entries_.size() && entries_[node].bucket != kNone;
  }

  /// Reuse rate of something not used for `age` (prior 1 / (age + 1 s)), per second.
  [[nodiscard]] static double reuse_rate(Nanos age) noexcept { return 1.0 / (seconds(age) + 1.0); }

 private:
  static constexpr std::uint8_t kNone = 255;
  static constexpr std::uint8_t kAges = 32;  ///< 0.25 s doubled 31 times: 17 years

  struct Entry {
    double key = 0;
    std::uint64_t bytes = 0;
    Instant last_use{};
    std::uint32_t heap_at = 0;
    NodeIx newer = kNil, older = kNil;  ///< list of the bucket by last_use
    std::uint8_t bucket = kNone;        ///< lane * kAges + age
  };
  struct Bucket {
    std::vector<NodeIx> heap;
    NodeIx oldest = kNil, newest = kNil;
  };

  [[nodiscard]] std::uint8_t age_of(Instant last_use, Instant now) const noexcept;
  void place(NodeIx node, std::uint8_t bucket);
  void graduate(Lane lane, Instant now);
  void sift_up(Bucket& bucket, std::uint32_t at);
  void sift_down(Bucket& bucket, std::uint32_t at);
  void put_at(Bucket& bucket, std::uint32_t at, NodeIx node);

  bool by_age_;
  std::array<std::uint64_t, 2> bytes_{};
  std::vector<Entry> entries_;
  std::array<Bucket, std::size_t{2} * kAges> buckets_;
};

}  // namespace statecached
