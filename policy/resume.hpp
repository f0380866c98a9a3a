#pragma once
// The usable prefix: from which depths of a matched path a request could resume, and what each
// needs.

#include "policy/index.hpp"

#include <vector>

namespace statecached {

/// One object that a depth needs, and how many tokens of it count (0 for a checkpoint).
struct Cover {
  ObjectIx object = kNil;
  std::uint32_t valid = 0;
};

/// A depth that has all, and what it needs, in token order.
struct Usable {
  std::uint32_t depth = 0;
  std::vector<Cover> covers;
};

struct ResumeLimits {
  std::uint32_t at_most = 0;    ///< tokens
  std::uint32_t grid = 1;       ///< depths are multiples of it, counted from
  std::uint32_t grid_from = 0;  ///< here (modulo 2^32)
};

/// Scans one matched path. References into the index stay valid only until it changes. Meant to be
/// kept and renewed, so that in time a scan allocates nothing.
class ResumeScan {
 public:
  ResumeScan() = default;

  /// `path`: the nodes from the one that holds `from` down to `position`; `marks` of the request.
  /// What lies before `from` is in the engine: depths are deeper, and need nothing of it.
  ResumeScan(const Index& index,
             std::span<const Group> groups,
             std::span<const NodeIx> path,
             Position position,
             std::span<const Mark> marks,
             std::uint32_t from = 0) {
    renew(index, groups, path, position, marks, from);
  }

  void renew(const Index& index,
             std::span<const Group> groups,
             std::span<const NodeIx> path,
             Position position,
             std::span<const Mark> marks,
             std::uint32_t from = 0);

  /// Tokens from 0 for which all `every` groups have KV (at most position.at).
  [[nodiscard]] std::uint32_t stored() const noexcept { return stored_; }

  /// Depths at which every group has what it needs, ascending, at most `max_count` deepest ones;
  /// without a group that needs an `end`, only the deepest. They are the first so many of `out`,
  /// which is returned; what lies behind them there keeps its memory.
  [[nodiscard]] std::size_t depths(const ResumeLimits& limits,
                                   std::size_t max_count,
                                   std::vector<Usable>& out) const;
  /// What this depth needs (of a group with lookahead k: what k tokens more need), in token order;
  /// false when something is missing.
  [[nodiscard]] bool needs(std::uint32_t depth, std::vector<Cover>& out) const;

 private:
  struct Track {
    std::vector<ObjectIx> blocks;  ///< by first, then end; `every`: contiguous from 0
    std::uint32_t covered = 0;     ///< `every`: contiguous tokens from 0
  };

  [[nodiscard]] bool need_every(std::uint16_t group,
                                std::uint32_t depth,
                                std::vector<Cover>& out) const;
  [[nodiscard]] bool need_last(std::uint16_t group,
                               std::uint32_t depth,
                               std::vector<Cover>& out) const;
  /// Tokens from 0 of an `every` group, with what another branch that shares the beginning of its
  /// last cell holds.
  [[nodiscard]] std::uint32_t shared(std::uint16_t group) const;
  /// The deepest depth that has all, of namespaces without checkpoints; 0: none. What a group has
  /// ends where a block of it ends or a branch leaves the path, so only such depths are tried (on
  /// the grid, outside marks). What it needs is left in scratch_.
  [[nodiscard]] std::uint32_t deepest(const ResumeLimits& limits) const;
  /// On the grid and not inside an atomic mark: the deepest such depth up to this one; 0: none
  /// beyond `from`.
  [[nodiscard]] std::uint32_t allowed(std::uint32_t depth, const ResumeLimits& limits) const;
  /// Whether the `last` groups have their windows; if not, `below`: no depth from there to this one
  /// has them.
  [[nodiscard]] bool windows(std::uint32_t depth, std::uint32_t& below) const;
  [[nodiscard]] std::uint32_t break_below(std::uint32_t depth) const;
  [[nodiscard]] bool inside_mark(std::uint32_t depth) const;

  const Index* index_ = nullptr;
  std::span<const Group> groups_;
  std::span<const Mark> marks_;
  Position position_;
  std::vector<Track> tracks_;
  mutable std::vector<Cover> scratch_;
  std::uint32_t stored_ = 0;
  std::uint32_t from_ = 0;
  bool has_end_ = false;
};

}  // namespace statecached
