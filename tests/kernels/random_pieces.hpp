#pragma once
// Pieces over two memories: rows of every alignment, disjoint in both.

#include "base/prng.hpp"
#include "kernels/piece.hpp"

#include <array>
#include <cstdint>
#include <vector>

namespace statecached::test {

/// Fills [0, bytes) of both sides with pieces as offsets, gaps between rows and pieces.
inline std::vector<Piece> random_pieces(std::uint64_t bytes, Prng& prng) {
  constexpr std::array<std::uint32_t, 4> kUnits{1, 4, 8, 16};
  std::vector<Piece> pieces;
  std::uint64_t dst = 0;
  std::uint64_t src = 0;
  for (int misses = 0; misses < 20;) {
    const std::uint32_t unit = kUnits.at(prng.below(4));
    const auto units = static_cast<std::uint32_t>(prng.below(prng.chance(0.2) ? 5000 : 40));
    const auto gap = [&] { return unit * static_cast<std::uint32_t>(prng.below(4)); };
    Piece piece{.dst = (dst + unit) / unit * unit,
                .src = (src + unit) / unit * unit,
                .bytes = unit * units,
                .dst_stride = 0,
                .src_stride = 0,
                .count = static_cast<std::uint32_t>(1 + (prng.chance(0.5) ? prng.below(20) : 0))};
    if (piece.count > 1) {
      piece.dst_stride = piece.bytes + gap();
      piece.src_stride = piece.bytes + gap();
    }
    const std::uint64_t dst_end =
        piece.dst + piece.bytes + std::uint64_t{piece.count - 1} * piece.dst_stride;
    const std::uint64_t src_end =
        piece.src + piece.bytes + std::uint64_t{piece.count - 1} * piece.src_stride;
    if (dst_end > bytes || src_end > bytes) {
      ++misses;
      continue;
    }
    dst = dst_end;
    src = src_end;
    pieces.push_back(piece);
  }
  return pieces;
}

[[nodiscard]] inline std::vector<Piece> at(std::vector<Piece> pieces,
                                           std::uint64_t dst,
                                           std::uint64_t src) {
  for (Piece& piece : pieces) {
    piece.dst += dst;
    piece.src += src;
  }
  return pieces;
}

}  // namespace statecached::test
