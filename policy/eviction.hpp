#pragma once
// How a full tier chooses what goes first. The cache keeps, for each tier, every segment that could
// give something up there in one EvictionPolicy and asks it for the best; what the segment then
// gives up (its checkpoints, its KV from the tail, or all of it) is the cache's.
//
// One tier of one cache each; one thread; no clock (time comes in).

#include "base/time.hpp"
#include "policy/index.hpp"
#include "policy/options.hpp"
#include "policy/reuse.hpp"

#include <cstdint>
#include <memory>

namespace statecached {

/// clean: can be given up at once (backed by a lower tier, or not worth a copy there); dirty: must
/// be written first.
enum class Lane : std::uint8_t { clean = 0, dirty = 1 };

/// A segment as a victim.
struct Candidate {
  NodeIx node = kNil;
  Lane lane = Lane::clean;
  double efficiency = 0;    ///< seconds that losing it would add to its next hit, a byte freed
  std::uint64_t bytes = 0;  ///< what it holds in the tier, for bytes()
  Instant last_use{};
  std::uint64_t used = 0;     ///< logical time of its last use
  std::uint32_t hits = 0;     ///< requests that resumed from it
  std::uint64_t content = 0;  ///< names what it would give up next; the same when it comes back
  bool held = false;          ///< not to be chosen now; only for policies that judge all together
  ReuseClass reuse = 0;       ///< class whose learned rate counts
};

class EvictionPolicy {
 public:
  EvictionPolicy() = default;
  EvictionPolicy(const EvictionPolicy&) = delete;
  EvictionPolicy& operator=(const EvictionPolicy&) = delete;
  virtual ~EvictionPolicy() = default;

  /// Adds or moves a node.
  virtual void put(const Candidate& candidate, Instant now) = 0;
  virtual void erase(NodeIx node) = 0;
  [[nodiscard]] virtual bool contains(NodeIx node) const noexcept = 0;
  /// What the nodes of this lane hold, all together.
  [[nodiscard]] virtual std::uint64_t bytes(Lane lane) const noexcept = 0;

  /// The tree, once, before anything else.
  virtual void sees(const Index& index) { static_cast<void>(index); }

  /// A request whose sequence goes through this node is over.
  virtual void passed(NodeIx node) { static_cast<void>(node); }

  /// A new weight of efficiency, for policies that have one.
  virtual void set_alpha(double alpha) { static_cast<void>(alpha); }

  /// Logical time: the cache's count of lookups, insertions and evictions.
  virtual void tick(std::uint64_t used) { static_cast<void>(used); }

  /// The node that should go first; kNil when the lane is empty.
  [[nodiscard]] virtual NodeIx best(Lane lane, Instant now) = 0;

  /// Keep value of what best() returned last; 0 where a policy knows none.
  [[nodiscard]] virtual double best_value() const noexcept { return 0; }
};

/// What the cache must know of a policy beside its choice.
struct PolicyTraits {
  /// A node goes with all it holds, and only when nothing lies below it in the tier (else: its
  /// checkpoints first, whatever lies below, then its KV from the tail). Room is made for all of a
  /// batch at once.
  bool whole_nodes = false;
  /// with whole_nodes: above a single child the checkpoint alone goes
  bool single_child = false;
  /// a request refreshes every node it passes; else the one it resumed from
  bool refresh_path = false;
  bool wants_held = false;   ///< put() also what is held and could else be chosen
  bool wants_paths = false;  ///< passed() is called
  enum class Terms : std::uint8_t { none, seconds, paper };
  Terms terms = Terms::seconds;  ///< what Candidate::efficiency is
  bool learns = false;  ///< reuse is learned, and what was given up stays remembered for it
};

[[nodiscard]] PolicyTraits traits_of(PolicyName name) noexcept;

[[nodiscard]] std::unique_ptr<EvictionPolicy> make_eviction(const PolicyOptions& options,
                                                            Tier tier,
                                                            const Reuse* reuse);

}  // namespace statecached
