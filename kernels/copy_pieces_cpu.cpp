#include "kernels/copy_pieces.hpp"

#include <cstring>

namespace statecached {

void copy_pieces_cpu(std::span<const Piece> pieces) noexcept {
  for (const Piece& piece : pieces) {
    if (piece.bytes == 0) continue;
    for (std::uint64_t row = 0; row < piece.count; ++row) {
      std::memcpy(reinterpret_cast<void*>(piece.dst + row * piece.dst_stride),
                  reinterpret_cast<const void*>(piece.src + row * piece.src_stride),
                  piece.bytes);
    }
  }
}

}  // namespace statecached
