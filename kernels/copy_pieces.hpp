#pragma once
// Copies pieces: gather and scatter are the same work with dst and src exchanged. On the CPU
// always; on a GPU where the build has CUDA and the machine has one, else Errc::unsupported. Only
// processes that own the engine's streams call the GPU's part: kernels of two processes take turns
// on a GPU.
//
// Ranges of one call must not overlap each other. No CUDA type appears here: a stream is its
// handle.

#include "base/result.hpp"
#include "kernels/piece.hpp"

#include <cstddef>
#include <span>
#include <string>

namespace statecached {

/// Addresses are of this process. Returns when done.
void copy_pieces_cpu(std::span<const Piece> pieces) noexcept;

struct GpuInfo {
  int devices = 0;
  std::string name;  ///< of device 0
};

/// Errc::unsupported says which of toolkit, driver and device is missing.
[[nodiscard]] Result<GpuInfo> probe_gpu();

inline constexpr unsigned kCopyBlocks =
    4;  ///< enough to fill a PCIe 5 link; more take from the model

/// Enqueues the copy on `stream` (a cudaStream_t; null is the legacy default stream) of the current
/// device and returns. `pieces` and all addresses must be readable by the device and stay so until
/// the stream has passed; pinned host memory qualifies. At most `blocks` thread blocks are used.
/// Errors: unsupported, invalid_argument (blocks is 0), internal (the launch was refused).
[[nodiscard]] Result<> copy_pieces_gpu(const Piece* pieces,
                                       std::size_t count,
                                       unsigned blocks,
                                       void* stream);

}  // namespace statecached
