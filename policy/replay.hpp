#pragma once
// A small model of a cache that works node by node, to try values of alpha on requests that have
// been: what the tree held at a moment, and the requests since then. All sequences are in one
// prefix tree, split wherever any of them parts or ends, so a trial needs no tokens: it walks nodes
// and keeps a few words for each.
//
// Filling is one thread's; a filled log is constant, and trials of it may run on any threads at
// once.

#include "policy/index.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace statecached {

/// What one namespace's state costs.
struct ReplaySpace {
  Cost cost;
  double kv_bytes = 0;     ///< a token
  double state_bytes = 0;  ///< a checkpoint
};

class ReplayLog {
 public:
  explicit ReplayLog(double capacity) : capacity_(capacity) {}

  /// Copies what hangs below `root` in `tier` as the state to begin from.
  void snapshot(const Index& index,
                NodeIx root,
                Tier tier,
                const ReplaySpace& space,
                std::uint64_t clock);
  /// A request for the sequences below the cache's `root`.
  void add(NodeIx root,
           const ReplaySpace& space,
           std::span<const Token> tokens,
           std::uint32_t prompt);

  [[nodiscard]] std::size_t requests() const noexcept { return requests_.size(); }

  /// Memory held, roughly.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  /// Tokens hit by all requests with this alpha.
  [[nodiscard]] std::uint64_t replay(double alpha) const;

 private:
  friend class ReplayRun;

  struct Start {
    NodeIx node = kNil;
    std::uint64_t used = 0;
    bool state = false;
  };

  struct Request {
    NodeIx prompt = kNil, all = kNil;
  };

  NodeIx root_of(NodeIx root, const ReplaySpace& space);

  double capacity_;
  Index tree_;
  std::vector<std::pair<NodeIx, NodeIx>> roots_;  ///< the cache's, ours
  std::vector<ReplaySpace> spaces_;               ///< by our root's number
  std::vector<Start> start_;
  std::vector<Request> requests_;
  std::uint64_t clock_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace statecached
