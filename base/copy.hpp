#pragma once
// A copy for blocks that the copying core does not read next.

#include <cstddef>

namespace statecached {

/// From here a copy is larger than what a second-level cache keeps for its reader.
inline constexpr std::size_t kStreamFrom = 256U << 10U;

/// Like memcpy, with stores that leave the caches alone where the processor has them (AVX2). The
/// stores are ordered before whatever this thread stores afterwards. The ranges must not overlap.
/// Any thread.
void copy_streaming(std::byte* to, const std::byte* from, std::size_t bytes) noexcept;

}  // namespace statecached
