// Stands for copy_pieces.cu in a build without the CUDA toolkit.
#include "kernels/copy_pieces.hpp"

namespace statecached {
namespace {

constexpr const char* kReason =
    "this build has no CUDA: nvcc 12 or later was not found when it was configured, or it was "
    "turned off";

}  // namespace

Result<GpuInfo> probe_gpu() {
  return fail(Errc::unsupported, kReason);
}

Result<> copy_pieces_gpu(const Piece* /*pieces*/,
                         std::size_t /*count*/,
                         unsigned /*blocks*/,
                         void* /*stream*/) {
  return fail(Errc::unsupported, kReason);
}

}  // namespace statecached
