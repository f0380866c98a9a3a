#pragma once
// Where bytes lie. Every extent is a run of whole 4 KiB pages of one memory or one drive.

#include "base/units.hpp"

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace statecached {

struct Extent {
  std::uint64_t offset = 0;  ///< bytes from the start of the arena or the drive's file
  std::uint64_t bytes = 0;   ///< a multiple of kPage
  friend bool operator==(const Extent&, const Extent&) = default;
};

/// A part of one memory: arenas are numbered by tiers/memory.hpp's Memories.
struct MemoryRef {
  std::uint32_t arena = 0;
  std::uint64_t offset = 0;
  friend bool operator==(const MemoryRef&, const MemoryRef&) = default;
};

/// A few extents: nearly always one, and then nothing is allocated. A contiguous range.
class ExtentList {
 public:
  ExtentList() = default;
  ExtentList(std::initializer_list<Extent> list) {
    for (const Extent& extent : list)
      push_back(extent);
  }
  void push_back(const Extent& extent) {
    if (!any_) {
      one_ = extent;
      any_ = true;
      return;
    }
    if (more_.empty()) more_.push_back(one_);
    more_.push_back(extent);
  }
  /// Keeps what was allocated.
  void clear() noexcept {
    more_.clear();
    any_ = false;
  }
  [[nodiscard]] std::size_t size() const noexcept { return more_.empty() ? (any_ ? 1 : 0) : more_.size(); }
  [[nodiscard]] bool empty() const noexcept { return !any_; }
  [[nodiscard]] const Extent* data() const noexcept { return more_.empty() ? &one_ : more_.data(); }
  [[nodiscard]] const Extent* begin() const noexcept { return data(); }
  [[nodiscard]] const Extent* end() const noexcept { return data() + size(); }
  [[nodiscard]] const Extent& front() const noexcept { return *data(); }

 private:
  Extent one_{};
  bool any_ = false;
  std::vector<Extent> more_;  ///< all of them, from two on
};

}  // namespace statecached
