#pragma once
// The memories that transfers read and write: a table from arena number to address range. The host
// arena is one, the emulated device another. The simulator has sizes and no bytes.

#include "tiers/extent.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace statecached {

struct Memory {
  std::byte* base = nullptr;  ///< null in the simulator: no bytes are moved
  std::uint64_t bytes = 0;
};

/// Filled at start, then read by any thread.
using Memories = std::vector<Memory>;

[[nodiscard]] inline std::span<std::byte> bytes_at(const Memories& memories,
                                                   MemoryRef ref,
                                                   std::uint64_t bytes) {
  const Memory& memory = memories.at(ref.arena);
  SC_ASSERT(memory.base != nullptr && ref.offset + bytes <= memory.bytes);
  return {memory.base + ref.offset, bytes};
}

}  // namespace statecached
