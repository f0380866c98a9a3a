// The planner against copying one element at a time, over the layouts of real engines; and what it
// must make of layouts that are already contiguous; and what it must refuse.

#include "kernels/layout.hpp"

#include "kernels/copy_pieces.hpp"
#include "kernels/copy_pieces_body.hpp"
#include "tests/kernels/engine_layouts.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace statecached {
namespace {

using test::Engine;
using Bytes = std::vector<std::byte>;

Bytes noise(std::size_t bytes, Prng& prng) {
  Bytes out(bytes);
  for (std::byte& byte : out)
    byte = static_cast<std::byte>(prng.next());
  return out;
}

std::uint64_t address(Bytes& bytes) {
  return reinterpret_cast<std::uintptr_t>(bytes.data());
}

void copy_as_the_kernel_would(const std::vector<Piece>& pieces) {
  constexpr std::uint32_t kThreads = 32;
  for (const Piece& piece : pieces) {
    for (std::uint32_t thread = 0; thread < kThreads; ++thread) {
      kernel::copy_piece(piece, thread, kThreads);
    }
  }
}

/// Pages and object of one case; copies may be made to see what changed.
struct Scene {
  std::vector<Bytes> pages;
  Bytes object;

  std::vector<std::uint64_t> regions() {
    std::vector<std::uint64_t> out;
    for (Bytes& page : pages)
      out.push_back(address(page));
    return out;
  }
};

void check_engine(const Engine& engine,
                  std::uint32_t object_tokens,
                  std::uint32_t valid,
                  bool token_major,
                  Prng& prng) {
  const auto layout =
      GroupLayout::make(engine.tensors, engine.region_bytes, object_tokens, token_major);
  ASSERT_TRUE(layout.has_value()) << layout.error().message();
  const auto slices = test::random_slices(engine, object_tokens, valid, prng);
  constexpr std::size_t kGuard = 64;  // canaries before and behind the object
  for (const Direction direction : {Direction::gather, Direction::scatter}) {
    Scene before;
    for (const std::uint64_t bytes : engine.region_bytes)
      before.pages.push_back(noise(bytes, prng));
    before.object = noise(layout->object_bytes() + 2 * kGuard, prng);
    Scene expected = before;
    std::uint64_t bytes = 0;
    test::each_element(engine,
                       *layout,
                       slices,
                       expected.regions(),
                       [&](std::uint64_t page, std::uint64_t object, std::uint32_t element) {
                         auto* const in_page = reinterpret_cast<std::byte*>(page);
                         std::byte* const in_object = expected.object.data() + kGuard + object;
                         if (direction == Direction::gather)
                           std::memcpy(in_object, in_page, element);
                         if (direction == Direction::scatter)
                           std::memcpy(in_page, in_object, element);
                         bytes += element;
                       });
    Scene planned = before;
    const auto pieces =
        layout->plan(slices, direction, address(planned.object) + kGuard, planned.regions());
    ASSERT_TRUE(pieces.has_value()) << pieces.error().message();
    EXPECT_EQ(bytes_of(*pieces), bytes);
    copy_pieces_cpu(*pieces);
    ASSERT_EQ(planned.object, expected.object) << engine.name;
    ASSERT_EQ(planned.pages, expected.pages) << engine.name;

    Scene cut = before;
    const auto again = layout->plan(slices, direction, address(cut.object) + kGuard, cut.regions());
    ASSERT_TRUE(again.has_value());
    copy_as_the_kernel_would(split(*again, 16 * static_cast<std::uint32_t>(1 + prng.below(8))));
    ASSERT_EQ(cut.object, expected.object) << engine.name;
    ASSERT_EQ(cut.pages, expected.pages) << engine.name;
  }
}

TEST(Layout, PlansEqualCopyingByIndex) {
  Prng prng(11);
  for (int round = 0; round < 40; ++round) {
    constexpr std::array<std::uint32_t, 4> kElements{1, 2, 4, 16};
    constexpr std::array<std::uint32_t, 5> kTokens{1, 2, 4, 8, 16};
    const test::Sizes sizes{.layers = 1 + prng.below(3),
                            .blocks = 16 + prng.below(4),
                            .tokens = kTokens.at(prng.below(5)),
                            .heads = 1 + prng.below(3),
                            .content = 1 + prng.below(9),
                            .element = kElements.at(prng.below(4))};
    const std::uint32_t object_tokens = kTokens.at(prng.below(5));
    const auto valid = static_cast<std::uint32_t>(1 + prng.below(object_tokens));
    for (const Engine& engine : test::all_engines(sizes, prng, prng.chance(0.5))) {
      ASSERT_NO_FATAL_FAILURE(check_engine(engine, object_tokens, valid, prng.chance(0.5), prng))
          << engine.name << " round " << round;
    }
  }
}

TEST(Layout, AnObjectIsDenseAndTokenMajorWhereAsked) {
  Prng prng(12);
  const test::Sizes sizes{
      .layers = 2, .blocks = 3, .tokens = 4, .heads = 2, .content = 3, .element = 2};
  for (const bool token_major : {false, true}) {
    for (const Engine& engine : test::all_engines(sizes, prng, true)) {
      const auto layout = GroupLayout::make(engine.tensors, engine.region_bytes, 4, token_major);
      ASSERT_TRUE(layout.has_value());
      std::vector<int> covered(layout->object_bytes(), 0);
      const std::vector<std::uint64_t> regions(engine.region_bytes.size(), 0);
      const std::uint32_t tokens = engine.page_tokens > 0 ? 3 : 0;
      test::each_element(engine,
                         *layout,
                         {{.block = 1, .token = 0, .tokens = tokens, .object_token = 0}},
                         regions,
                         [&](std::uint64_t, std::uint64_t object, std::uint32_t element) {
                           for (std::uint32_t i = 0; i < element; ++i)
                             ++covered.at(object + i);
                         });
      const std::uint64_t used =
          tokens > 0 ? tokens * layout->bytes_per_token() : layout->object_bytes();
      EXPECT_EQ(static_cast<std::uint64_t>(std::ranges::count(covered, 1)), used) << engine.name;
      EXPECT_EQ(std::ranges::count_if(covered, [](int n) { return n > 1; }), 0) << engine.name;
      if (token_major || tokens == 0) {
        EXPECT_TRUE(std::all_of(covered.begin(),
                                covered.begin() + static_cast<std::ptrdiff_t>(used),
                                [](int n) { return n == 1; }))
            << engine.name;
      }
    }
  }
}

/// The plan of a group of one tensor, dense, over consecutive pages that fill the object.
std::vector<Piece> plan_dense(const std::string& order,
                              std::uint64_t tensors,
                              std::uint32_t object_tokens,
                              bool token_major) {
  Prng prng(13);
  const test::Sizes sizes{
      .layers = 3, .blocks = 8, .tokens = 4, .heads = 2, .content = 8, .element = 2};
  const Engine engine = test::engine_of(order, order, sizes, prng, false, tensors);
  const auto layout =
      GroupLayout::make(engine.tensors, engine.region_bytes, object_tokens, token_major);
  EXPECT_TRUE(layout.has_value());
  std::vector<PageSlice> slices;
  for (std::uint32_t token = object_tokens; token > 0; token -= 4) {  // any order will do
    slices.push_back({.block = 1 + token / 4, .token = 0, .tokens = 4, .object_token = token - 4});
  }
  const std::vector<std::uint64_t> regions{1 << 20, 2 << 20, 3 << 20};
  const auto pieces = layout->plan(slices, Direction::gather, 16 << 20, regions);
  EXPECT_TRUE(pieces.has_value());
  return pieces.value_or(std::vector<Piece>{});
}

TEST(Layout, MergesWhatTouchesOnBothSides) {
  // A page that holds all layers is one run; so are consecutive pages where only a page is
  // outermost.
  EXPECT_EQ(plan_dense("BLHNC", 1, 4, false).size(), 1U);
  EXPECT_EQ(plan_dense("BNLHC", 1, 16, false).size(), 1U);
  EXPECT_EQ(plan_dense("BNLHC", 1, 16, true).size(), 1U);
  // One run a layer, all in one piece: 4 pages x 4 tokens x 2 heads x 8 elements of 2 bytes.
  const auto layers = plan_dense("LBNHC", 1, 16, false);
  ASSERT_EQ(layers.size(), 1U);
  EXPECT_EQ(layers[0],
            (Piece{.dst = 16 << 20,
                   .src = (1 << 20) + 2 * 128,
                   .bytes = 512,
                   .dst_stride = 512,
                   .src_stride = 8 * 128,
                   .count = 3}));
  // A tensor for each layer: a run each.
  EXPECT_EQ(plan_dense("BNHC", 3, 16, false).size(), 3U);
  // Heads outside tokens: a row a head for each page.
  const auto heads = plan_dense("LBHNC", 1, 4, false);
  ASSERT_EQ(heads.size(), 1U);
  EXPECT_EQ(heads[0].bytes, 128U);
  EXPECT_EQ(heads[0].count, 3U);
}

TEST(Layout, RowsThatTouchButStepOtherwiseStayApart) {
  // The second tensor's first row follows the first's on both sides; their rows then part in the
  // page.
  const auto tensor = [](std::uint64_t offset, std::int64_t token_stride) {
    return TensorDesc{.region = 0,
                      .offset = offset,
                      .element_bytes = 8,
                      .dims = {{.role = Axis::block, .extent = 1, .stride_bytes = 0},
                               {.role = Axis::token, .extent = 2, .stride_bytes = token_stride}}};
  };
  const Engine engine{.name = "parting rows",
                      .tensors = {tensor(0, 32), tensor(8, 48)},
                      .region_bytes = {128},
                      .blocks = 1,
                      .page_tokens = 2};
  Prng prng(14);
  ASSERT_NO_FATAL_FAILURE(check_engine(engine, 2, 2, true, prng));
}

TEST(Layout, RunsLongerThan32Bits) {
  constexpr std::uint64_t kBytes = (std::uint64_t{1} << 33U) + 4096;
  const TensorDesc tensor{
      .region = 0,
      .offset = 0,
      .element_bytes = 1,
      .dims = {
          {.role = Axis::block, .extent = 2, .stride_bytes = static_cast<std::int64_t>(kBytes)},
          {.role = Axis::layer, .extent = 2, .stride_bytes = static_cast<std::int64_t>(kBytes / 2)},
          {.role = Axis::content, .extent = kBytes / 2 - 64, .stride_bytes = 1}}};
  const std::array<std::uint64_t, 1> size{2 * kBytes};
  const auto layout = GroupLayout::make({tensor}, size, 0, false);
  ASSERT_TRUE(layout.has_value()) << layout.error().message();
  const std::array<std::uint64_t, 1> base{1 << 20};
  const std::array<PageSlice, 1> slice{
      PageSlice{.block = 1, .token = 0, .tokens = 0, .object_token = 0}};
  const auto pieces = layout->plan(slice, Direction::scatter, std::uint64_t{1} << 40U, base);
  ASSERT_TRUE(pieces.has_value());
  EXPECT_EQ(bytes_of(*pieces), 2 * (kBytes / 2 - 64));
  std::uint64_t at = std::uint64_t{1} << 40U;
  for (const Piece& piece : *pieces) {
    EXPECT_EQ(piece.count, 1U);
    EXPECT_EQ(piece.src, at);
    at += piece.bytes;
  }
  EXPECT_EQ(pieces->front().dst, (1 << 20) + kBytes);
}

TensorDesc plain() {
  return {.region = 0,
          .offset = 0,
          .element_bytes = 2,
          .dims = {{.role = Axis::block, .extent = 4, .stride_bytes = 64},
                   {.role = Axis::token, .extent = 4, .stride_bytes = 16},
                   {.role = Axis::content, .extent = 8, .stride_bytes = 2}}};
}

bool accepted(const TensorDesc& tensor, std::uint64_t bytes = 256, std::uint32_t tokens = 4) {
  const std::array<std::uint64_t, 1> size{bytes};
  const auto layout = GroupLayout::make({tensor}, size, tokens, false);
  if (!layout) {
    EXPECT_EQ(layout.error().code, Errc::invalid_argument);
  }
  return layout.has_value();
}

TEST(Layout, RefusesWhatCannotBeAddressed) {
  EXPECT_TRUE(accepted(plain()));
  EXPECT_FALSE(accepted(plain(), 255)) << "one byte outside the region";
  EXPECT_FALSE(accepted(plain(), 256, 0)) << "an object of no tokens";
  TensorDesc tensor = plain();
  tensor.offset = 2;
  EXPECT_FALSE(accepted(tensor));
  EXPECT_TRUE(accepted(tensor, 258));
  tensor.offset = ~std::uint64_t{0};
  EXPECT_FALSE(accepted(tensor));
  tensor = plain();
  tensor.region = 1;
  EXPECT_FALSE(accepted(tensor));
  for (const std::int64_t stride : {std::int64_t{0}, std::int64_t{-16}, std::int64_t{14}}) {
    tensor = plain();
    tensor.dims[1].stride_bytes = stride;
    EXPECT_FALSE(accepted(tensor)) << stride;
  }
  tensor = plain();
  tensor.dims[0].extent = ~std::uint64_t{0};
  EXPECT_FALSE(accepted(tensor));
  tensor = plain();
  tensor.dims[2].role = Axis::token;
  EXPECT_FALSE(accepted(tensor)) << "a role twice";
  tensor = plain();
  tensor.dims.erase(tensor.dims.begin());
  EXPECT_FALSE(accepted(tensor)) << "no block axis";
  tensor = plain();
  tensor.element_bytes = 0;
  EXPECT_FALSE(accepted(tensor));
  const std::array<std::uint64_t, 1> size{256};
  EXPECT_FALSE(GroupLayout::make({}, size, 4, false).has_value());
  tensor = plain();
  tensor.dims.erase(tensor.dims.begin() + 1);
  EXPECT_FALSE(GroupLayout::make({plain(), tensor}, size, 4, false).has_value())
      << "tokens in one only";
}

TEST(Layout, RefusesSlicesOutside) {
  const std::array<std::uint64_t, 1> size{256};
  const std::array<std::uint64_t, 1> base{4096};
  const auto layout = GroupLayout::make({plain()}, size, 8, true);
  ASSERT_TRUE(layout.has_value());
  const auto ok = [&](PageSlice slice) {
    return layout->plan(std::array{slice}, Direction::gather, 1 << 20, base).has_value();
  };
  EXPECT_TRUE(ok({.block = 3, .token = 0, .tokens = 4, .object_token = 4}));
  EXPECT_FALSE(ok({.block = 4, .token = 0, .tokens = 4, .object_token = 0}));
  EXPECT_FALSE(ok({.block = 0, .token = 1, .tokens = 4, .object_token = 0}));
  EXPECT_FALSE(ok({.block = 0, .token = 0, .tokens = 4, .object_token = 5}));
  EXPECT_FALSE(ok({.block = 0, .token = 0, .tokens = 0, .object_token = 0}));
  EXPECT_FALSE(ok({.block = 0, .token = 0xffffffff, .tokens = 2, .object_token = 0}));
  const std::array slice{PageSlice{.block = 0, .token = 0, .tokens = 1, .object_token = 0}};
  EXPECT_FALSE(layout->plan(slice, Direction::gather, 1 << 20, {}).has_value());
}

}  // namespace
}  // namespace statecached
