#pragma once
// What one thread of the copy kernel does with one piece. Compiled for the GPU by nvcc, and for the
// CPU by tests, which run it for every thread in turn: the address arithmetic that the GPU executes
// is the one that is tested without it.

#include "kernels/piece.hpp"

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define SC_HOST_DEVICE __host__ __device__
#else
#define SC_HOST_DEVICE
#endif

namespace statecached::kernel {

struct alignas(16) Unit16 {
  std::uint32_t word[4];
};

/// The widest access, of 16, 8, 4 and 1 bytes, that all rows of the piece allow on both sides.
SC_HOST_DEVICE inline std::uint32_t unit_of(const Piece& piece) {
  std::uint64_t bits = piece.dst | piece.src | piece.bytes;
  if (piece.count > 1) bits |= piece.dst_stride | piece.src_stride;
  if (bits % 16 == 0) return 16;
  if (bits % 8 == 0) return 8;
  return bits % 4 == 0 ? 4 : 1;
}

/// How many threads, a power of two, share a row of so many units; the others take other rows.
SC_HOST_DEVICE inline std::uint32_t threads_per_row(std::uint32_t units, std::uint32_t threads) {
  std::uint32_t share = 1;
  while (share < threads && share < units)
    share *= 2;
  return share;
}

template <class Unit>
SC_HOST_DEVICE inline Unit load(std::uint64_t address) {
  Unit value;
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Unit) == 16) {
    const uint4 raw = __ldcs(reinterpret_cast<const uint4*>(address));
    value = Unit{{raw.x, raw.y, raw.z, raw.w}};
  } else {
    value = *reinterpret_cast<const Unit*>(address);
  }
#else
  std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
#endif
  return value;
}

template <class Unit>
SC_HOST_DEVICE inline void store(std::uint64_t address, const Unit& value) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Unit) == 16) {
    __stcs(reinterpret_cast<uint4*>(address),
           make_uint4(value.word[0], value.word[1], value.word[2], value.word[3]));
  } else {
    *reinterpret_cast<Unit*>(address) = value;
  }
#else
  std::memcpy(reinterpret_cast<void*>(address), &value, sizeof value);
#endif
}

/// Four loads are in flight before the first store: a thread of 16-byte units keeps 64 bytes
/// moving.
inline constexpr std::uint32_t kInFlight = 4;

template <class Unit>
SC_HOST_DEVICE inline void copy_rows(const Piece& piece,
                                     std::uint32_t thread,
                                     std::uint32_t threads) {
  const std::uint32_t units = piece.bytes / static_cast<std::uint32_t>(sizeof(Unit));
  const std::uint32_t share = threads_per_row(units, threads);
  const std::uint32_t lane = thread & (share - 1);
  // 64 bits: a row index plus a step may pass 2^32.
  for (std::uint64_t row = thread / share; row < piece.count; row += threads / share) {
    const std::uint64_t dst = piece.dst + row * piece.dst_stride;
    const std::uint64_t src = piece.src + row * piece.src_stride;
    std::uint64_t at = lane;
    for (; at + std::uint64_t{kInFlight - 1} * share < units;
         at += std::uint64_t{kInFlight} * share) {
      Unit held[kInFlight];
      for (std::uint32_t i = 0; i < kInFlight; ++i) {
        held[i] = load<Unit>(src + (at + std::uint64_t{i} * share) * sizeof(Unit));
      }
      for (std::uint32_t i = 0; i < kInFlight; ++i) {
        store<Unit>(dst + (at + std::uint64_t{i} * share) * sizeof(Unit), held[i]);
      }
    }
    for (; at < units; at += share) {
      store<Unit>(dst + at * sizeof(Unit), load<Unit>(src + at * sizeof(Unit)));
    }
  }
}

/// The part of `thread` of `threads` (a power of two).
SC_HOST_DEVICE inline void copy_piece(const Piece& piece,
                                      std::uint32_t thread,
                                      std::uint32_t threads) {
  switch (unit_of(piece)) {
    case 16:
      return copy_rows<Unit16>(piece, thread, threads);
    case 8:
      return copy_rows<std::uint64_t>(piece, thread, threads);
    case 4:
      return copy_rows<std::uint32_t>(piece, thread, threads);
    default:
      return copy_rows<std::uint8_t>(piece, thread, threads);
  }
}

}  // namespace statecached::kernel
