#pragma once
// One descriptor of a transfer: `count` rows of `bytes` bytes, a stride apart on either side. The
// same bits are read by the CPU and by the kernel.

#include <cstdint>

namespace statecached {

struct alignas(16) Piece {
  std::uint64_t dst = 0;  ///< address of row 0
  std::uint64_t src = 0;
  std::uint32_t bytes = 0;       ///< of a row
  std::uint32_t dst_stride = 0;  ///< bytes from row to row; 0 when count is 1
  std::uint32_t src_stride = 0;
  std::uint32_t count = 1;  ///< rows
  friend bool operator==(const Piece&, const Piece&) = default;
};

static_assert(sizeof(Piece) == 32);

}  // namespace statecached
