#pragma once
// The prefix tree and the objects that hang in it: what the policy sees of the cache. Exact: it compares
// symbols and marks, never hashes. Pure data structure; one thread.
//
//   node      an edge of the radix tree, tokens (start, end] of every sequence below it. Nodes are split
//             where sequences part and where a checkpoint lies, so a node is a *segment*: the KV back
//             to the previous node and the checkpoints at its end.
//   object    a KV block or checkpoint; belongs to the node whose span contains its `end`.
//   parent    design.md 1: only full blocks of `every` groups are parents.
//   tiers     which tiers hold a copy. dependents[t] counts the objects in tier t whose parent it is.
//
// Closure: a copy is given up only while no child has one in the same tier or a higher one that would be left
// without its parent there, an object that is in any tier has its parents in some tier, and NVMe is closed on
// itself. may_leave() says so. (A child may be stored anew in memory while its parents lie on NVMe alone: the
// engine computed it again because that was faster than loading; the prefix stays whole.)

#include "base/ids.hpp"
#include "base/id_chain.hpp"
#include "base/spec.hpp"
#include "base/time.hpp"
#include "policy/tier.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

namespace statecached {

using NodeIx = std::uint32_t;
using ObjectIx = std::uint32_t;
inline constexpr std::uint32_t kNil = UINT32_MAX;

/// Symbols and marks of positions [base, base + tokens.size()). Marks are sorted and do not overlap.
struct Sequence {
  std::span<const Token> tokens;
  std::span<const Mark> marks;
  std::uint32_t base = 0;
  [[nodiscard]] std::uint32_t end() const noexcept {
    return base + static_cast<std::uint32_t>(tokens.size());
  }
};

/// A point on an edge: `at` tokens deep, start < at <= end of the node (or the root at 0).
struct Position {
  NodeIx node = kNil;
  std::uint32_t at = 0;
};

struct Node {
  NodeIx parent = kNil;
  NodeIx first_child = kNil, next_sibling = kNil, previous_sibling = kNil;
  NodeIx alike = kNil;               ///< next child of the same parent with the same first token
  std::uint32_t start = 0, end = 0;
  std::shared_ptr<const Token[]> symbols;
  std::uint32_t symbols_offset = 0;
  std::uint32_t symbols_room = 0;    ///< of the array, when grow() made it
  std::uint32_t space = 0;           ///< namespace
  std::vector<Mark> marks;           ///< those that begin in [start, end)
  std::vector<ObjectIx> objects;     ///< by (end, first)
  std::uint32_t references = 0;      ///< tickets anchored here
  std::array<std::uint32_t, kTiers> in_tier{};  ///< objects of it in each tier
  std::array<std::uint64_t, kTiers> kv_bytes{}, state_bytes{};  ///< of those, padded
  Instant last_use{};
  std::uint64_t used = 0;            ///< logical time of that use (counts lookups, insertions, evictions)
  Instant created{};
  std::uint64_t serial = 0;          ///< never used again, unlike its index
  std::uint32_t hits = 0;
  std::optional<IdChain> chain;      ///< over the path down to round_down(end, kChainStep)
  Tier evicted_tier = Tier::none;    ///< the last loss, for explain
  Instant evicted_at{};
  bool evicted_state = false;
  bool alive = false;

  [[nodiscard]] const Token* at(std::uint32_t position) const noexcept {
    return symbols.get() + symbols_offset + (position - start);
  }
};

/// writing: a reservation; committed: all shards in, waits for what it hangs on; visible: can be found;
/// dead: invalidated or found broken, gone as soon as nothing holds it or hangs on it.
enum class ObjectState : std::uint8_t { free, writing, committed, visible, dead };

struct Object {
  NodeIx node = kNil;
  std::uint32_t space = 0;
  std::uint16_t group = 0;
  Need need = Need::every;
  ObjectState state = ObjectState::free;
  bool full = false;                 ///< a whole block (only then a parent)
  std::uint8_t tiers = 0;            ///< bit per Tier
  std::uint32_t first = 0, end = 0;
  std::uint32_t holds = 0;           ///< leases, soft holds and transfers: in no tier may it be given up
  std::array<std::uint32_t, kTiers> dependents{};
  std::array<ObjectIx, kEveryGroupsMax> parents{kNil, kNil, kNil, kNil};
  std::uint64_t bytes = 0;           ///< of all shards, padded

  [[nodiscard]] bool in(std::size_t tier) const noexcept { return (std::uint32_t{tiers} >> tier & 1U) != 0; }
  [[nodiscard]] bool in(Tier tier) const noexcept { return in(index(tier)); }
  [[nodiscard]] Tier highest() const noexcept {
    for (std::size_t t = 0; t < kTiers; ++t) {
      if (in(t)) return static_cast<Tier>(t);
    }
    return Tier::none;
  }
};

class Index {
 public:
  // ---- tree -------------------------------------------------------------------------------------
  [[nodiscard]] NodeIx add_root(std::uint32_t space);
  /// Follows `sequence` from `from` (whose depth is sequence.base or more) as far as it agrees. Appends
  /// the nodes entered to `path`.
  [[nodiscard]] Position match(Position from, const Sequence& sequence, std::vector<NodeIx>* path = nullptr) const;
  /// As match, then adds what is missing; the result is at sequence.end(). New nodes are stamped `now`.
  Position insert(Position from, const Sequence& sequence, Instant now);
  /// As insert, for sequences that come piece by piece (a start): what follows on a leaf without a
  /// checkpoint at its end makes that leaf longer, so that the tree is the one it was.
  Position grow(Position from, const Sequence& sequence, Instant now);
  /// Makes a node end at this position and returns it.
  NodeIx split(Position position);
  /// The node of the path down to `position` that contains `at` (0 < at <= position.at; 0: the root).
  [[nodiscard]] NodeIx node_at(NodeIx node, std::uint32_t at) const;
  void reference(NodeIx node) { ++nodes_[node].references; }
  void unreference(NodeIx node);
  /// Removes it, and its ancestors, while they hold nothing.
  void prune(NodeIx node);

  [[nodiscard]] Node& node(NodeIx ix) { return nodes_[ix]; }
  [[nodiscard]] const Node& node(NodeIx ix) const { return nodes_[ix]; }
  [[nodiscard]] std::size_t node_slots() const noexcept { return nodes_.size(); }

  // ---- objects ----------------------------------------------------------------------------------
  /// A new object in state `writing`, in the node that contains its end.
  ObjectIx add_object(NodeIx node, const Object& prototype);
  /// Forgets it; it must be in no tier. Prunes.
  void remove_object(ObjectIx ix);
  /// A partial block turned out shorter than reserved.
  void shorten(ObjectIx ix, std::uint32_t end);
  void enter(ObjectIx ix, Tier tier);
  void leave(ObjectIx ix, Tier tier);
  [[nodiscard]] bool may_leave(const Object& object, Tier tier) const noexcept;
  /// Position in the node's list of its first object that ends at `end` or later.
  [[nodiscard]] std::size_t first_ending(const Node& node, std::uint32_t end) const noexcept;
  /// The object of this group that covers exactly [first, end), on the path to `node`. Any state.
  [[nodiscard]] ObjectIx find(NodeIx node, std::uint16_t group, std::uint32_t first, std::uint32_t end) const;
  /// A visible block of this group and cell that covers at least [first, to), on any path through
  /// `position` (position.at >= to). Looks at a bounded number of nodes.
  [[nodiscard]] ObjectIx find_cover(Position position, std::uint16_t group, std::uint32_t first, std::uint32_t to, std::uint32_t cell_end) const;

  [[nodiscard]] Object& object(ObjectIx ix) { return objects_[ix]; }
  [[nodiscard]] const Object& object(ObjectIx ix) const { return objects_[ix]; }
  [[nodiscard]] std::size_t object_slots() const noexcept { return objects_.size(); }
  [[nodiscard]] std::uint64_t objects_alive() const noexcept { return objects_alive_; }

  /// Recounts tiers, dependents and closure; empty when all adds up.
  [[nodiscard]] std::string check() const;

 private:
  [[nodiscard]] static std::uint64_t edge_key(NodeIx parent, Token token) noexcept {
    return std::uint64_t{parent} << 32U | token;
  }
  [[nodiscard]] std::uint32_t agreement(const Node& node, std::uint32_t from, const Sequence& sequence) const;
  [[nodiscard]] NodeIx child(NodeIx parent, std::uint32_t at, const Sequence& sequence, std::uint32_t& agree) const;
  NodeIx new_node();
  void link(NodeIx node);
  void unlink(NodeIx node);

  std::vector<Node> nodes_;
  std::vector<NodeIx> free_nodes_;
  std::vector<Object> objects_;
  std::vector<ObjectIx> free_objects_;
  std::unordered_map<std::uint64_t, NodeIx> edges_;  ///< (parent, first token) to first child of that kind
  std::uint64_t objects_alive_ = 0;
  std::uint64_t next_serial_ = 1;
};

}  // namespace statecached
