#pragma once
// What a cache that knows the rest of the trace would do: for simulations alone.
//
// Future is filled with every sequence of the trace (first pass); in the second pass the simulator
// says which request is on, and the policy knows for every segment the next request that would
// resume there. The victim is the least (seconds saved) / (bytes x requests until then), 0 for what
// is never resumed from again; checkpoints are wished for exactly where a later request parts from
// this one.
//
// What it bounds: any policy of this cache that gives up whole segments and cannot see the future
// should stay below it. It is no proof of an optimum: with segments of different sizes that hang on
// each other the best choice is not found by any greedy rule, so a policy may beat it by a little
// in a single case.

#include "policy/eviction.hpp"

#include <array>
#include <cstdint>
#include <set>
#include <vector>

namespace statecached {

class Future {
 public:
  Future();
  /// First pass, in the order of the trace.
  void add(std::span<const Token> tokens, std::uint32_t prompt);
  void seal();
  /// Second pass: request number `request` is on.
  void start(std::uint64_t request);

  static constexpr std::uint64_t kNever = UINT64_MAX;

  [[nodiscard]] std::uint64_t now() const noexcept { return now_; }

  /// Names the point `depth` tokens into the current request's sequence; kNil beyond it.
  [[nodiscard]] NodeIx place(std::uint32_t depth) const;
  /// The next request whose prompt goes through `place` and not through `but_not` (kNil: none).
  [[nodiscard]] std::uint64_t next_use(NodeIx place, NodeIx but_not) const;
  /// Depths, at most `limit`, at which a later prompt parts from the current sequence.
  [[nodiscard]] std::vector<std::uint32_t> partings(std::uint32_t limit, std::uint32_t grid) const;

 private:
  struct Request {
    NodeIx prompt = kNil;  ///< node that ends where the prompt ends
    NodeIx all = kNil;
  };

  Index tree_;
  NodeIx root_ = kNil;
  std::vector<Request> requests_;
  std::vector<std::vector<std::uint32_t>> uses_;  ///< by node, ascending
  std::vector<NodeIx> path_;                      ///< of the current request, from the root down
  std::uint64_t now_ = 0;
};

class Clairvoyant final : public EvictionPolicy {
 public:
  explicit Clairvoyant(const Future& future) : future_(future) {}

  void sees(const Index& index) override { index_ = &index; }

  void passed(NodeIx node) override;
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
    std::uint64_t serial = 0;
    NodeIx place = kNil;  ///< in the future's tree
    double efficiency = 0;
    std::uint64_t bytes = 0;
    /// the request that resumes here next, as far as known; looked up again when past
    std::uint64_t next = 0;
    std::uint8_t lane = 0;
    bool present = false;
  };

  void locate(NodeIx node);
  [[nodiscard]] std::uint64_t next_use(NodeIx node) const;

  const Future& future_;
  const Index* index_ = nullptr;
  std::vector<Entry> entries_;
  std::array<std::set<NodeIx>, 2> queues_;
  std::array<std::uint64_t, 2> bytes_{};
};

}  // namespace statecached
