#include "kernels/copy_pieces.hpp"
#include "kernels/copy_pieces_body.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>

namespace statecached {
namespace {

constexpr unsigned kThreads = 1024;

__global__ void __launch_bounds__(kThreads) copy_kernel(const Piece* pieces, std::size_t count) {
  for (std::size_t i = blockIdx.x; i < count; i += gridDim.x) {
    kernel::copy_piece(pieces[i], threadIdx.x, kThreads);
  }
}

tl::unexpected<Error> refused(Errc code, const char* what, cudaError_t status) {
  return fail(code, std::string(what) + ": " + cudaGetErrorString(status));
}

}  // namespace

Result<GpuInfo> probe_gpu() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return fail(Errc::unsupported, "no NVIDIA driver on this machine");
  }
  GpuInfo info;
  cudaError_t status = cudaGetDeviceCount(&info.devices);
  if (status != cudaSuccess) return refused(Errc::unsupported, "no usable GPU", status);
  if (info.devices == 0) return fail(Errc::unsupported, "no GPU on this machine");
  cudaDeviceProp properties{};
  status = cudaGetDeviceProperties(&properties, 0);
  if (status != cudaSuccess) return refused(Errc::unsupported, "no usable GPU", status);
  info.name = properties.name;
  return info;
}

Result<> copy_pieces_gpu(const Piece* pieces, std::size_t count, unsigned blocks, void* stream) {
  if (blocks == 0) return fail(Errc::invalid_argument, "copy_pieces_gpu: no thread blocks");
  if (count == 0) return {};
  const auto grid = static_cast<unsigned>(std::min<std::size_t>(blocks, count));
  copy_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(pieces, count);
  const cudaError_t status = cudaGetLastError();
  if (status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice) {
    return refused(Errc::unsupported, "copy_pieces_gpu", status);
  }
  if (status != cudaSuccess) return refused(Errc::internal, "copy_pieces_gpu", status);
  return {};
}

}  // namespace statecached
