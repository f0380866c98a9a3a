#pragma once
// Where bytes lie. Every extent is a run of whole 4 KiB pages of one memory or one drive.

#include "base/units.hpp"

#include <cstdint>

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

}  // namespace statecached
