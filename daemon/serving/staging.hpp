#pragma once
// The memory that one client writes which may not write the arena: a sealed memfd of its own, which
// the daemon maps for reading only. Which part of it belongs to which slot is known here alone.
//
// Threads: the conductor's; the mapping is read by the copier for as long as it holds it.
// Ownership: the mapping lives until the last copy out of it is done, the rest as long as the
// object.

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "daemon/cache/cache.hpp"
#include "tiers/space.hpp"

#include <memory>
#include <unordered_map>

namespace statecached {

class StagingArea {
 public:
  /// Rounded up to whole pages; takes memory only where it is written.
  static Result<std::unique_ptr<StagingArea>> create(std::uint64_t bytes);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  [[nodiscard]] std::uint64_t bytes() const noexcept { return space_.capacity(); }

  [[nodiscard]] std::uint64_t used() const noexcept { return space_.used(); }

  /// Finds room for the slot's payload and says in `grant` where: its runs become runs here. False:
  /// full, and nothing changed.
  [[nodiscard]] bool place(SlotGrant& grant, std::uint32_t arena, bool contiguous);

  [[nodiscard]] bool holds(SlotId slot) const { return slots_.contains(slot); }

  /// What place() gave this slot; empty when it has none.
  [[nodiscard]] StagedBytes bytes_of(SlotId slot) const;
  /// The room of this slot comes back.
  void free(SlotId slot);

 private:
  StagingArea(UniqueFd fd, Mapping mapping)
      : fd_(std::move(fd)),
        mapping_(std::make_shared<const Mapping>(std::move(mapping))),
        space_(mapping_->size()) {}

  UniqueFd fd_;
  std::shared_ptr<const Mapping> mapping_;
  Space space_;
  std::unordered_map<SlotId, PageRuns> slots_;
};

}  // namespace statecached
