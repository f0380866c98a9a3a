#pragma once
// Known policies to compare with, on segments instead of objects. A segment's identity is the
// content of what it would give up (Candidate::content), so that one that comes back is known
// again.
//
//   S3Fifo      two FIFO queues and a ghost (Yang et al., SOSP 2023). New segments enter the small
//               queue, a tenth of the bytes; at its end those that were resumed from go to the main
//               queue, the others go, and a segment that went lately enters the main queue at once
//               when it is stored again.
//   GreedyDual  GreedyDual-Size-Frequency (Cherkasova 1998): H = L + (hits + 1) x efficiency, where
//               L is the H of the last victim when the segment was last used. Efficiency is seconds
//               saved a byte, so cost/size.

#include "policy/eviction.hpp"

#include <array>
#include <deque>
#include <set>
#include <unordered_set>
#include <utility>
#include <vector>

namespace statecached {

class S3Fifo final : public EvictionPolicy {
 public:
  void put(const Candidate& candidate, Instant now) override;
  void erase(NodeIx node) override;

  [[nodiscard]] bool contains(NodeIx node) const noexcept override {
    return node < entries_.size() && entries_[node].present;
  }

  [[nodiscard]] std::uint64_t bytes(Lane lane) const noexcept override {
    return bytes_[static_cast<std::size_t>(lane)][0] + bytes_[static_cast<std::size_t>(lane)][1];
  }

  [[nodiscard]] NodeIx best(Lane lane, Instant now) override;

 private:
  struct Entry {
    std::uint64_t content = 0;
    std::uint64_t place = 0;  ///< in its queue: smaller goes first
    std::uint64_t bytes = 0;
    std::uint32_t hits = 0;  ///< of the segment when it was last counted
    std::uint8_t count = 0;  ///< resumed from since it entered its queue, at most 3
    std::uint8_t lane = 0;
    bool main = false;
    bool present = false;
  };

  void move(NodeIx node, bool main);
  void remember(std::uint64_t content);

  std::uint64_t next_place_ = 1;
  std::vector<Entry> entries_;
  /// lane, main
  std::array<std::array<std::set<std::pair<std::uint64_t, NodeIx>>, 2>, 2> queues_;
  std::array<std::array<std::uint64_t, 2>, 2> bytes_{};
  std::deque<std::uint64_t> ghost_order_;
  std::unordered_multiset<std::uint64_t> ghost_;
};

class GreedyDual final : public EvictionPolicy {
 public:
  void put(const Candidate& candidate, Instant now) override;
  void erase(NodeIx node) override;

  [[nodiscard]] bool contains(NodeIx node) const noexcept override {
    return node < entries_.size() && entries_[node].present;
  }

  [[nodiscard]] std::uint64_t bytes(Lane lane) const noexcept override {
    return bytes_[static_cast<std::size_t>(lane)];
  }

  [[nodiscard]] NodeIx best(Lane lane, Instant now) override;

 private:
  struct Entry {
    std::uint64_t content = 0;
    std::uint64_t used = 0;
    std::uint64_t bytes = 0;
    double base = 0;  ///< L at its last use
    double value = 0;
    std::uint8_t lane = 0;
    bool present = false;
  };

  double level_ = 0;  ///< L
  std::vector<Entry> entries_;
  std::array<std::set<std::pair<double, NodeIx>>, 2> queues_;
  std::array<std::uint64_t, 2> bytes_{};
};

}  // namespace statecached
