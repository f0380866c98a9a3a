#include "base/id_chain.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <thread>
#include <vector>

namespace statecached {
namespace {

std::vector<Token> tokens_of(std::size_t count, std::uint64_t seed = 1) {
  Prng random(seed);
  std::vector<Token> out(count);
  for (Token& t : out)
    t = static_cast<Token>(random.below(50'000));
  return out;
}

Digest content(unsigned value) {
  Digest d;
  d.bytes[0] = static_cast<std::byte>(value);
  return d;
}

Digest h(std::span<const Token> tokens, std::span<const Mark> marks, std::uint32_t p) {
  return IdChain{}.at(tokens, marks, p);
}

void append(std::vector<std::byte>& out, const void* data, std::size_t bytes) {
  const auto* raw = static_cast<const std::byte*>(data);
  out.insert(out.end(), raw, raw + bytes);
}

TEST(Sha256, KnownAnswer) {
  const std::string_view text = "abc";
  EXPECT_EQ(to_hex(sha256(std::as_bytes(std::span(text)))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256({}), 4), "e3b0c442");
}

// The definition, spelled out once more with one-shot hashes: ids must not change by accident.
TEST(IdChain, IsWhatTheHeaderSays) {
  const auto tokens = tokens_of(200);
  std::vector<std::byte> bytes;
  append(bytes, "statecached chain", 17);
  append(bytes, &kFormatVersion, 4);
  Digest link = sha256(bytes);
  EXPECT_EQ(IdChain{}.link(), link);
  for (std::size_t cell = 0; cell < 3; ++cell) {
    bytes.clear();
    append(bytes, &link, 32);
    append(bytes, tokens.data() + 64 * cell, 256);
    link = sha256(bytes);
  }
  IdChain chain;
  chain.advance(tokens, {}, 200);
  EXPECT_EQ(chain.position(), 192U);
  EXPECT_EQ(chain.link(), link);
  bytes.clear();
  append(bytes, &link, 32);
  append(bytes, tokens.data() + 192, 8 * 4);
  const std::uint32_t p = 200;
  append(bytes, &p, 4);
  EXPECT_EQ(chain.at(tokens, {}, 200), sha256(bytes));
}

TEST(IdChain, AnyRouteGivesTheSameAndEveryDepthDiffers) {
  const auto tokens = tokens_of(300);
  std::set<Digest> seen;
  IdChain chain;
  for (std::uint32_t p = 0; p <= 300; ++p) {
    const Digest direct = h(tokens, {}, p);
    chain.advance(tokens, {}, p);
    EXPECT_EQ(chain.at(tokens, {}, p), direct);
    EXPECT_EQ(h(std::span(tokens).first(p), {}, p), direct) << "says nothing about what follows";
    EXPECT_TRUE(seen.insert(direct).second);
  }
}

TEST(IdChain, EveryTokenCounts) {
  const auto tokens = tokens_of(130);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    auto other = tokens;
    other[i] ^= 1U;
    EXPECT_NE(h(tokens, {}, 130), h(other, {}, 130)) << i;
    EXPECT_EQ(h(tokens, {}, static_cast<std::uint32_t>(i)),
              h(other, {}, static_cast<std::uint32_t>(i)));
  }
}

TEST(IdChain, MarksCountFromTheirFirstTokenOn) {
  const std::vector<Token> tokens(400, 7);
  const std::vector<Mark> none;
  const std::vector<Mark> cat{{.at = 50, .length = 200, .content = content(1)}};
  const std::vector<Mark> dog{{.at = 50, .length = 200, .content = content(2)}};
  for (std::uint32_t p : {0U, 1U, 49U, 50U})
    EXPECT_EQ(h(tokens, cat, p), h(tokens, none, p)) << p;
  // Inside the image too: blocks that end there hold what was computed from it.
  for (std::uint32_t p : {51U, 64U, 100U, 128U, 249U, 250U, 251U, 320U, 400U}) {
    EXPECT_NE(h(tokens, cat, p), h(tokens, none, p)) << p;
    EXPECT_NE(h(tokens, cat, p), h(tokens, dog, p)) << p;
  }
  const std::vector<Mark> shorter{{.at = 50, .length = 60, .content = content(1)}};
  EXPECT_EQ(h(tokens, cat, 100), h(tokens, shorter, 100));
  EXPECT_NE(h(tokens, cat, 120), h(tokens, shorter, 120));
  const std::vector<Mark> moved{{.at = 51, .length = 199, .content = content(1)}};
  EXPECT_NE(h(tokens, cat, 300), h(tokens, moved, 300));
}

TEST(IdChain, SeveralMarksInOneCellAndAcrossCells) {
  const std::vector<Token> tokens(256, 7);
  const std::vector<Mark> marks{{.at = 1, .length = 2, .content = content(1)},
                                {.at = 3, .length = 2, .content = content(2)},
                                {.at = 60, .length = 100, .content = content(3)}};
  for (std::size_t i = 0; i < marks.size(); ++i) {
    auto other = marks;
    other[i].content = content(9);
    EXPECT_NE(h(tokens, marks, 256), h(tokens, other, 256)) << i;
  }
  // The largest end there is does not wrap.
  const std::vector<Mark> huge{{.at = 200, .length = ~0U, .content = content(1)}};
  EXPECT_NE(h(tokens, huge, 256), h(tokens, {}, 256));
}

TEST(IdChain, ObjectIdsDependOnEveryField) {
  const Digest h_end = content(5);
  const ObjectName base{.fingerprint = content(1),
                        .generation = 1,
                        .trust_domain = 1,
                        .domain = {},
                        .group = 1,
                        .first = 0,
                        .end = 64};
  std::set<ObjectId> ids{object_id(base, h_end)};
  const auto add = [&](auto change) {
    ObjectName other = base;
    change(other);
    EXPECT_TRUE(ids.insert(object_id(other, h_end)).second);
  };
  add([](ObjectName& n) { n.fingerprint = content(2); });
  add([](ObjectName& n) { n.generation = 2; });
  add([](ObjectName& n) { n.trust_domain = 2; });
  add([](ObjectName& n) { n.domain.adapter = content(1); });
  add([](ObjectName& n) { n.domain.salt = content(1); });
  add([](ObjectName& n) { n.group = 2; });
  add([](ObjectName& n) { n.first = 1; });
  add([](ObjectName& n) { n.end = 65; });
  EXPECT_TRUE(ids.insert(object_id(base, content(6))).second);
  EXPECT_EQ(object_id(base, h_end), object_id(base, h_end));
}

TEST(IdChain, ThreadsDoNotDisturbEachOther) {
  const auto tokens = tokens_of(5000);
  const Digest want = h(tokens, {}, 5000);
  std::vector<std::thread> threads;
  std::array<int, 4> wrong{};
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i)
        wrong[t] += h(tokens, {}, 5000) == want ? 0 : 1;
    });
  }
  for (auto& thread : threads)
    thread.join();
  EXPECT_EQ(std::accumulate(wrong.begin(), wrong.end(), 0), 0);
}

}  // namespace
}  // namespace statecached
