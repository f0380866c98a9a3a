// The kernel on a real GPU against the CPU's twin. Without one every test is skipped and the
// program exits with 77, which ctest reports as skipped.

#include "kernels/copy_pieces.hpp"
#include "kernels/layout.hpp"
#include "tests/kernels/random_pieces.hpp"

#include <gtest/gtest.h>

#if defined(STATECACHED_HAVE_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace statecached {
namespace {

class Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto gpu = probe_gpu();
    if (!gpu) GTEST_SKIP() << gpu.error().message();
  }
};

#if defined(STATECACHED_HAVE_CUDA)

/// Bytes on the device, or pinned on the host and mapped.
class Buffer {
 public:
  Buffer(std::uint64_t bytes, bool on_device) : on_device_(on_device) {
    const cudaError_t status =
        on_device ? cudaMalloc(&data_, bytes) : cudaHostAlloc(&data_, bytes, cudaHostAllocMapped);
    EXPECT_EQ(status, cudaSuccess) << cudaGetErrorString(status);
  }

  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  ~Buffer() {
    if (on_device_) {
      cudaFree(data_);
    } else {
      cudaFreeHost(data_);
    }
  }

  [[nodiscard]] void* data() const { return data_; }

  [[nodiscard]] std::uint64_t address() const { return reinterpret_cast<std::uintptr_t>(data_); }

 private:
  void* data_ = nullptr;
  bool on_device_;
};

using Bytes = std::vector<std::byte>;

Bytes noise(std::uint64_t bytes, Prng& prng) {
  Bytes out(bytes);
  for (std::byte& byte : out)
    byte = static_cast<std::byte>(prng.next());
  return out;
}

void check(bool dst_on_device, bool src_on_device, unsigned blocks, std::uint64_t seed) {
  constexpr std::uint64_t kBytes = 8 << 20;
  Prng prng(seed);
  const auto pieces = test::random_pieces(kBytes, prng);
  const Bytes source = noise(kBytes, prng);
  const Bytes before = noise(kBytes, prng);
  Bytes expected = before;
  copy_pieces_cpu(test::at(pieces,
                           reinterpret_cast<std::uintptr_t>(expected.data()),
                           reinterpret_cast<std::uintptr_t>(source.data())));

  const Buffer dst(kBytes, dst_on_device);
  const Buffer src(kBytes, src_on_device);
  const auto cut = split(test::at(pieces, dst.address(), src.address()), 64 << 10);
  const Buffer list(cut.size() * sizeof(Piece), true);
  ASSERT_EQ(cudaMemcpy(src.data(), source.data(), kBytes, cudaMemcpyDefault), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(dst.data(), before.data(), kBytes, cudaMemcpyDefault), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(list.data(), cut.data(), cut.size() * sizeof(Piece), cudaMemcpyDefault),
            cudaSuccess);
  cudaStream_t stream{};
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const auto launched =
      copy_pieces_gpu(static_cast<const Piece*>(list.data()), cut.size(), blocks, stream);
  EXPECT_TRUE(launched.has_value());
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  Bytes result(kBytes);
  ASSERT_EQ(cudaMemcpy(result.data(), dst.data(), kBytes, cudaMemcpyDefault), cudaSuccess);
  EXPECT_TRUE(result == expected);
}

TEST_F(Gpu, GatherWithinTheDevice) {
  check(true, true, 4, 31);
}

TEST_F(Gpu, LoadFromPinnedMemory) {
  check(true, false, kCopyBlocks, 32);
}

TEST_F(Gpu, SaveToPinnedMemory) {
  check(false, true, 1, 33);
}

TEST_F(Gpu, NoBlocksIsAnErrorAndNoPiecesAreNone) {
  EXPECT_EQ(copy_pieces_gpu(nullptr, 1, 0, nullptr).error().code, Errc::invalid_argument);
  EXPECT_TRUE(copy_pieces_gpu(nullptr, 0, 1, nullptr).has_value());
}

#else

TEST_F(Gpu, CopiesPieces) {
  FAIL() << "a GPU was found by a build that cannot use one";
}

#endif

}  // namespace
}  // namespace statecached

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const int status = RUN_ALL_TESTS();
  const auto* const run = ::testing::UnitTest::GetInstance();
  const bool all_skipped =
      run->test_to_run_count() > 0 && run->skipped_test_count() == run->test_to_run_count();
  return status == 0 && all_skipped ? 77 : status;
}
