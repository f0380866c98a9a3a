// The kernel's arithmetic, thread by thread on the CPU, against the CPU's twin; and a build or
// machine without a GPU.

#include "kernels/copy_pieces.hpp"

#include "kernels/copy_pieces_body.hpp"
#include "kernels/layout.hpp"
#include "tests/kernels/random_pieces.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace statecached {
namespace {

struct alignas(16) Block {
  std::byte bytes[16];
};

std::vector<Block> blocks(std::uint64_t bytes, Prng& prng) {
  std::vector<Block> out(bytes / 16);
  for (Block& block : out) {
    for (std::byte& byte : block.bytes)
      byte = static_cast<std::byte>(prng.next());
  }
  return out;
}

std::uint64_t address(const std::vector<Block>& memory) {
  return reinterpret_cast<std::uintptr_t>(memory.data());
}

bool same(const std::vector<Block>& a, const std::vector<Block>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(Block)) == 0;
}

TEST(CopyPieces, ThreadsTogetherDoWhatTheTwinDoes) {
  constexpr std::uint64_t kBytes = 1 << 18;
  Prng prng(21);
  for (int round = 0; round < 30; ++round) {
    const std::vector<Block> source = blocks(kBytes, prng);
    const std::vector<Block> before = blocks(kBytes, prng);
    const auto pieces = test::random_pieces(kBytes, prng);
    ASSERT_GT(pieces.size(), 1U);
    std::vector<Block> expected = before;
    copy_pieces_cpu(test::at(pieces, address(expected), address(source)));
    EXPECT_FALSE(same(expected, before));
    for (const std::uint32_t threads : {1U, 32U, 1024U}) {
      std::vector<Block> target = before;
      for (const Piece& piece : test::at(pieces, address(target), address(source))) {
        for (std::uint32_t thread = 0; thread < threads; ++thread) {
          kernel::copy_piece(piece, thread, threads);
        }
      }
      ASSERT_TRUE(same(target, expected)) << "round " << round << ", threads " << threads;
    }
    std::vector<Block> target = before;
    copy_pieces_cpu(split(test::at(pieces, address(target), address(source)), 512));
    ASSERT_TRUE(same(target, expected));
  }
}

TEST(CopyPieces, TheWidestUnitThatAllRowsAllow) {
  Piece piece{.dst = 32, .src = 64, .bytes = 48, .dst_stride = 3, .src_stride = 5, .count = 1};
  EXPECT_EQ(kernel::unit_of(piece), 16U) << "strides of a single row do not matter";
  piece.count = 2;
  EXPECT_EQ(kernel::unit_of(piece), 1U);
  piece.dst_stride = 56;
  piece.src_stride = 64;
  EXPECT_EQ(kernel::unit_of(piece), 8U);
  piece.bytes = 44;
  EXPECT_EQ(kernel::unit_of(piece), 4U);
  piece.src = 65;
  EXPECT_EQ(kernel::unit_of(piece), 1U);
}

TEST(CopyPieces, SplitsEvenly) {
  const std::vector<Piece> pieces{
      {.dst = 0, .src = 1 << 20, .bytes = 1000, .dst_stride = 0, .src_stride = 0, .count = 1},
      {.dst = 4096, .src = 2 << 20, .bytes = 100, .dst_stride = 200, .src_stride = 300, .count = 7},
      {.dst = 8192, .src = 3 << 20, .bytes = 0, .dst_stride = 0, .src_stride = 0, .count = 1}};
  const auto cut = split(pieces, 256);
  EXPECT_EQ(bytes_of(cut), bytes_of(pieces));
  ASSERT_EQ(cut.size(), 4U + 4U);
  EXPECT_EQ(cut[3],
            (Piece{.dst = 768,
                   .src = (1 << 20) + 768,
                   .bytes = 232,
                   .dst_stride = 0,
                   .src_stride = 0,
                   .count = 1}));
  EXPECT_EQ(cut[5],
            (Piece{.dst = 4096 + 400,
                   .src = (2 << 20) + 600,
                   .bytes = 100,
                   .dst_stride = 200,
                   .src_stride = 300,
                   .count = 2}));
  for (const Piece& piece : cut)
    EXPECT_LE(std::uint64_t{piece.bytes} * piece.count, 256U);
}

TEST(CopyPieces, WithoutAGpuTheAnswerSaysWhy) {
  const auto gpu = probe_gpu();
  if (gpu) GTEST_SKIP() << "this machine has " << gpu->name;
  EXPECT_EQ(gpu.error().code, Errc::unsupported);
  EXPECT_FALSE(gpu.error().text.empty());
  const Piece piece{};
  const auto launched = copy_pieces_gpu(&piece, 1, kCopyBlocks, nullptr);
  ASSERT_FALSE(launched.has_value());
  EXPECT_EQ(launched.error().code, Errc::unsupported);
}

}  // namespace
}  // namespace statecached
