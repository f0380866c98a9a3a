#pragma once
// The prefix tree and the objects that hang in it: what the policy sees of the cache. Exact: it
// compares symbols and marks, never hashes. Pure data structure; one thread.
//
//   node      an edge of the radix tree, tokens (start, end] of every sequence below it. Nodes are
//             split where sequences part and where a checkpoint lies, so a node is a *segment*: the
//             KV back to the previous node and the checkpoints at its end.
//   object    a KV block or checkpoint; belongs to the node whose span contains its `end`.
//   parent    design.md 1: only full blocks of `every` groups are parents.
//   tiers     which tiers hold a copy. dependents[t] counts the objects in tier t whose parent it
//             is.
//
// Closure: a copy is given up only while no child has one in the same tier or a higher one that
// would be left without its parent there, an object that is in any tier has its parents in some
// tier, and NVMe is closed on itself. may_leave() says so. (A child may be stored anew in memory
// while its parents lie on NVMe alone: the engine computed it again because that was faster than
// loading; the prefix stays whole.)
//
// Symbols are tokens, or keys of `symbol_words` words that stand for `symbol_tokens` tokens each;
// positions are tokens always. Keys are chained digests: each names all before it, so a table of
// them (pages.cpp) finds any page without its prefix. A run of keys that nobody knows the beginning
// of hangs on a *floating* root of its own, at a depth of 0 or of what its engine said, and moves
// (graft) below its predecessor once that is seen.

#include "base/id_chain.hpp"
#include "base/ids.hpp"
#include "base/spec.hpp"
#include "base/time.hpp"
#include "policy/tier.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace statecached {

using NodeIx = std::uint32_t;
using ObjectIx = std::uint32_t;
inline constexpr std::uint32_t kNil = UINT32_MAX;
/// tokens; runs of keys put together may come near it
inline constexpr std::uint32_t kPositionMax = 1U << 30U;

/// Symbols and marks of positions [base, base + tokens.size()). Marks are sorted and do not
/// overlap.
struct Sequence {
  std::span<const Token> tokens;
  std::span<const Mark> marks;
  std::uint32_t base = 0;
  std::uint32_t symbol_tokens = 1;  ///< tokens.size() is a multiple of symbol_words
  std::uint32_t symbol_words = 1;

  [[nodiscard]] std::uint32_t end() const noexcept {
    return base + static_cast<std::uint32_t>(tokens.size()) / symbol_words * symbol_tokens;
  }

  [[nodiscard]] const Token* at(std::uint32_t position) const noexcept {
    return tokens.data() + (position - base) / symbol_tokens * symbol_words;
  }
};

/// What the symbols of a namespace are. `scope` names one domain of one keyed namespace; 0: tokens.
struct SymbolShape {
  std::uint32_t tokens = 1;
  std::uint32_t words = 1;
  std::uint64_t scope = 0;
};

/// A key within its scope.
struct PageName {
  std::uint64_t scope = 0;
  Digest key;
  friend bool operator==(const PageName&, const PageName&) = default;
};

struct PageNameHash {
  std::size_t operator()(const PageName& name) const noexcept {
    return std::hash<Digest>{}(name.key) ^ (name.scope * 0x9e3779b97f4a7c15ULL);
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
  NodeIx alike = kNil;  ///< next child of the same parent with the same first token
  std::uint32_t start = 0, end = 0;
  std::shared_ptr<const Token[]> symbols;
  std::uint32_t symbols_offset = 0;
  std::uint32_t symbols_room = 0;  ///< of the array, when grow() made it
  std::uint32_t space = 0;         ///< namespace
  SymbolShape shape;
  bool floating = false;                        ///< a root whose depth is a guess; see above
  std::vector<Mark> marks;                      ///< those that begin in [start, end)
  std::vector<ObjectIx> objects;                ///< by (end, first)
  std::uint32_t references = 0;                 ///< tickets anchored here
  std::array<std::uint32_t, kTiers> in_tier{};  ///< objects of it in each tier
  std::array<std::uint64_t, kTiers> kv_bytes{}, state_bytes{};  ///< of those, padded
  Instant last_use{};
  std::uint64_t used = 0;    ///< logical time of that use (counts lookups, insertions, evictions)
  std::uint64_t serial = 0;  ///< never used again, unlike its index
  std::uint32_t hits = 0;    ///< uses as the point that a request resumed from, or could have
  std::uint32_t turns = 0;   ///< sequences that went on one after the other to end here
  std::optional<IdChain> chain;    ///< over the path down to round_down(end, kChainStep)
  Tier evicted_tier = Tier::none;  ///< the last loss, for explain
  Instant evicted_at{};
  bool evicted_state = false;
  bool alive = false;
  bool ends = false;   ///< a sequence ended here
  bool stale = false;  ///< what the eviction policies know of it is out of date
  /// not 0: holds nothing and stays for its tokens (Index::remember)
  std::uint64_t remembered = 0;

  /// A checkpoint of it lies in some tier.
  [[nodiscard]] bool has_state() const noexcept {
    return std::any_of(
        state_bytes.begin(), state_bytes.end(), [](std::uint64_t b) { return b > 0; });
  }

  [[nodiscard]] const Token* at(std::uint32_t position) const noexcept {
    return symbols.get() + symbols_offset + (position - start) / shape.tokens * shape.words;
  }
};

/// writing: a reservation; committed: all shards in, waits for what it hangs on; visible: can be
/// found; dead: invalidated or found broken, gone as soon as nothing holds it or hangs on it.
enum class ObjectState : std::uint8_t { free, writing, committed, visible, dead };

struct Object {
  NodeIx node = kNil;
  std::uint32_t space = 0;
  std::uint16_t group = 0;
  Need need = Need::every;
  ObjectState state = ObjectState::free;
  bool full = false;       ///< a whole block (only then a parent)
  std::uint8_t tiers = 0;  ///< bit per Tier
  std::uint32_t first = 0, end = 0;
  std::uint32_t holds = 0;  ///< leases, soft holds and transfers: in no tier may it be given up
  std::array<std::uint32_t, kTiers> dependents{};
  std::array<ObjectIx, kEveryGroupsMax> parents{kNil, kNil, kNil, kNil};
  std::uint64_t bytes = 0;  ///< of all shards, padded

  [[nodiscard]] bool in(std::size_t tier) const noexcept {
    return (std::uint32_t{tiers} >> tier & 1U) != 0;
  }

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
  [[nodiscard]] NodeIx add_root(std::uint32_t space, SymbolShape shape = {});
  /// Follows `sequence` from `from` (whose depth is sequence.base or more) as far as it agrees.
  /// Appends the nodes entered to `path`.
  [[nodiscard]] Position match(Position from,
                               const Sequence& sequence,
                               std::vector<NodeIx>* path = nullptr) const;
  /// As match, then adds what is missing; the result is at sequence.end(). New nodes are stamped
  /// `now`.
  Position insert(Position from, const Sequence& sequence, Instant now);
  /// As insert, for sequences that come piece by piece (a start): what follows on a leaf without a
  /// checkpoint at its end makes that leaf longer, so that the tree is the one it was.
  Position grow(Position from, const Sequence& sequence, Instant now);
  /// Makes a node end at this position and returns it.
  NodeIx split(Position position);
  /// The node of the path down to `position` that contains `at` (0 < at <= position.at; 0: the
  /// root).
  [[nodiscard]] NodeIx node_at(NodeIx node, std::uint32_t at) const;

  void reference(NodeIx node) { ++nodes_[node].references; }

  void unreference(NodeIx node);
  /// Removes it, and its ancestors, while they hold nothing and are not remembered.
  void prune(NodeIx node);

  /// From now on nodes that hold nothing stay until they have more than this many tokens together,
  /// themselves counted as 128 each; the oldest go. Not nodes of keys.
  void remember(std::uint64_t tokens) { remember_tokens_ = tokens; }

  [[nodiscard]] Node& node(NodeIx ix) { return nodes_[ix]; }

  [[nodiscard]] const Node& node(NodeIx ix) const { return nodes_[ix]; }

  [[nodiscard]] std::size_t node_slots() const noexcept { return nodes_.size(); }

  // ---- pages: keyed scopes only (pages.cpp) -----------------------------------------------------
  /// Where the page of this key begins, or a nil node.
  [[nodiscard]] Position find_page(const PageName& name) const;
  /// Where pages that follow this key begin: behind its page, or on the floating root that waits
  /// for it.
  [[nodiscard]] Position find_after(const PageName& name) const;
  /// A root for a run whose place nobody knows, at `depth` tokens. `after`: the key before it, when
  /// that is known. Goes by itself when nothing hangs on it and nobody references it.
  NodeIx add_floating_root(std::uint32_t space,
                           SymbolShape shape,
                           std::uint32_t depth,
                           const std::optional<Digest>& after);
  /// match and insert for a run of keys from a position of its tree: floating runs that turn out to
  /// go on where this one is are moved below it on the way. See take_moved().
  Position match_run(Position from, const Sequence& run, std::vector<NodeIx>* path);
  Position insert_run(Position from, const Sequence& run, Instant now);
  [[nodiscard]] NodeIx root_of(NodeIx node) const;
  /// The key that a floating root waits for.
  [[nodiscard]] std::optional<Digest> waits_for(NodeIx root) const;

  /// A floating root that has no children any more, where they went, and by how many tokens (modulo
  /// 2^32). Whoever refers to it moves over, then prunes it.
  struct Moved {
    NodeIx root = kNil;
    NodeIx to = kNil;
    std::uint32_t shift = 0;
  };

  [[nodiscard]] std::vector<Moved> take_moved() { return std::exchange(moved_, {}); }

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
  [[nodiscard]] ObjectIx find(NodeIx node,
                              std::uint16_t group,
                              std::uint32_t first,
                              std::uint32_t end) const;
  /// A visible block of this group and cell that covers at least [first, to), on any path through
  /// `position` (position.at >= to). Looks at a bounded number of nodes.
  [[nodiscard]] ObjectIx find_cover(Position position,
                                    std::uint16_t group,
                                    std::uint32_t first,
                                    std::uint32_t to,
                                    std::uint32_t cell_end,
                                    ObjectIx except = kNil) const;

  [[nodiscard]] Object& object(ObjectIx ix) { return objects_[ix]; }

  [[nodiscard]] const Object& object(ObjectIx ix) const { return objects_[ix]; }

  [[nodiscard]] std::size_t object_slots() const noexcept { return objects_.size(); }

  /// Recounts tiers, dependents and closure; empty when all adds up.
  [[nodiscard]] std::string check() const;

 private:
  [[nodiscard]] static std::uint64_t edge_key(NodeIx parent, Token token) noexcept {
    return std::uint64_t{parent} << 32U | token;
  }

  [[nodiscard]] std::uint32_t agreement(const Node& node,
                                        std::uint32_t from,
                                        const Sequence& sequence) const;
  [[nodiscard]] NodeIx child(NodeIx parent,
                             std::uint32_t at,
                             const Sequence& sequence,
                             std::uint32_t& agree) const;
  NodeIx new_node();
  void link(NodeIx node);
  void unlink(NodeIx node);

  [[nodiscard]] std::uint32_t page_position(const Node& node, std::uint32_t word) const noexcept {
    return node.start + (word - node.symbols_offset) / node.shape.words * node.shape.tokens;
  }

  [[nodiscard]] static PageName page_name(const SymbolShape& shape, const Token* words) noexcept;
  void register_pages(NodeIx node);
  /// Pages of `node` that are listed under `from` (kNil: forget those listed under `node`).
  void relist_pages(NodeIx node, NodeIx from);
  [[nodiscard]] NodeIx floating_head(const PageName& name) const;
  [[nodiscard]] bool graft(NodeIx root, Position here);
  [[nodiscard]] std::string check_pages() const;
  void forget_floating(NodeIx root);

  struct PageAt {
    NodeIx node = kNil;
    std::uint32_t word = 0;  ///< index into the node's shared symbols: a split does not change it
  };

  std::unordered_map<PageName, PageAt, PageNameHash> pages_;
  /// the key before it, to the floating root
  std::unordered_map<PageName, NodeIx, PageNameHash> waiting_;
  /// floating roots, and what they wait for
  std::unordered_map<NodeIx, std::optional<Digest>> floating_;
  std::vector<Moved> moved_;
  void keep_in_mind(NodeIx node);
  void forget_oldest();

  std::vector<Node> nodes_;
  std::vector<NodeIx> free_nodes_;
  std::vector<Object> objects_;
  std::vector<ObjectIx> free_objects_;
  /// (parent, first token) to first child of that kind
  std::unordered_map<std::uint64_t, NodeIx> edges_;
  std::uint64_t objects_alive_ = 0;
  std::uint64_t next_serial_ = 1;
  std::uint64_t remember_tokens_ = 0, remembered_tokens_ = 0;
  std::uint64_t next_remembered_ = 1;
  /// with Node::remembered; oldest first
  std::deque<std::pair<NodeIx, std::uint64_t>> remembered_;
};

}  // namespace statecached
