#include "client/workload/payload.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace statecached {
namespace {

std::vector<Token> some_tokens(std::size_t count, std::uint64_t seed) {
  Prng chance(seed);
  std::vector<Token> tokens(count);
  for (Token& token : tokens)
    token = static_cast<Token>(chance.below(50000));
  return tokens;
}

std::vector<std::byte> whole(const Payload& payload, const PayloadShape& shape) {
  std::vector<std::byte> bytes(shape.bytes());
  payload.fill(shape, 0, bytes);
  return bytes;
}

TEST(Payload, IsTheSameInWholeAndInParts) {
  Payload payload(7);
  payload.extend(some_tokens(200, 1));
  for (const std::uint64_t unit : {1U, 7U, 8U, 13U, 64U, 96U}) {
    const PayloadShape shape{0, 64, 130, unit};
    const auto expected = whole(payload, shape);
    Prng chance(unit);
    for (int round = 0; round < 200; ++round) {
      const std::uint64_t at = chance.below(expected.size());
      std::vector<std::byte> part(chance.below(expected.size() - at + 1));
      payload.fill(shape, at, part);
      ASSERT_TRUE(
          std::equal(part.begin(), part.end(), expected.begin() + static_cast<std::ptrdiff_t>(at)));
      ASSERT_EQ(payload.mismatches(shape, at, part), 0U);
    }
  }
}

TEST(Payload, CountsEveryWrongByte) {
  Payload payload(7);
  payload.extend(some_tokens(100, 2));
  const PayloadShape shape{1, 90, 90, 1003};
  auto bytes = whole(payload, shape);
  for (const std::size_t at : {0U, 5U, 8U, 500U, 1000U, 1002U})
    bytes[at] ^= std::byte{0x10};
  EXPECT_EQ(payload.mismatches(shape, 0, bytes), 6U);
  EXPECT_EQ(payload.mismatches(shape, 3, std::span(bytes).subspan(3)), 5U);
}

TEST(Payload, ABlockServesForTheTokensItShares) {
  const auto common = some_tokens(100, 3);
  Payload a(9);
  Payload b(9);
  a.extend(common);
  a.extend(some_tokens(28, 4));
  b.extend(common);
  b.extend(some_tokens(28, 5));
  const PayloadShape of_a{0, 64, 128, 48};
  const auto bytes = whole(a, of_a);
  const PayloadShape shared{0, 64, 100, 48};
  EXPECT_EQ(b.mismatches(shared, 0, std::span(bytes).first(shared.bytes())), 0U);
  EXPECT_GT(b.mismatches({0, 64, 101, 48}, 0, std::span(bytes).first(37 * 48)), 30U);
}

TEST(Payload, DependsOnNamespaceGroupAndEveryToken) {
  auto tokens = some_tokens(64, 6);
  Payload one(1);
  one.extend(tokens);
  const PayloadShape state{1, 64, 64, 800};
  const auto bytes = whole(one, state);
  EXPECT_GT(one.mismatches({2, 64, 64, 800}, 0, bytes), 780U);
  Payload other_namespace(2);
  other_namespace.extend(tokens);
  EXPECT_GT(other_namespace.mismatches(state, 0, bytes), 780U);
  tokens[0] ^= 1U;
  one.clear();
  one.extend(tokens);
  EXPECT_GT(one.mismatches(state, 0, bytes), 780U);
}

}  // namespace
}  // namespace statecached
