#include "base/spec.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace statecached {
namespace {

NamespaceSpec sample() {
  NamespaceSpec spec;
  spec.name = "jamba/bf16";
  spec.model.bytes[0] = std::byte{1};
  spec.layout.bytes[31] = std::byte{2};
  spec.groups = {
      {.name = "attn", .need = Need::every, .block_tokens = 64, .max_bytes = 1 << 20, .shards = 2},
      {.name = "swa",
       .need = Need::last,
       .block_tokens = 16,
       .window = 4096,
       .max_bytes = 4096,
       .contiguous = true,
       .token_major = false},
      {.name = "ssm", .need = Need::end, .lookahead = 3, .max_bytes = 16'056'320}};
  spec.resume_grid = 16;
  spec.checkpoint_grid = 256;
  spec.checkpoints_per_chunk = 1;
  spec.cost = {.c0 = 1.5, .c1 = 23e9, .c2 = 32768, .window_c2 = 100, .window = 4096};
  return spec;
}

TEST(Spec, RoundTrip) {
  const NamespaceSpec spec = sample();
  ASSERT_TRUE(spec.validate()) << spec.validate().error().message();
  const auto back = decode_spec(encode(spec));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->name, spec.name);
  EXPECT_EQ(back->groups, spec.groups);
  EXPECT_EQ(back->cost, spec.cost);
  EXPECT_EQ(back->checkpoints_per_chunk, spec.checkpoints_per_chunk);
  EXPECT_EQ(back->fingerprint(), spec.fingerprint());
  EXPECT_EQ(encode(*back), encode(spec));
}

TEST(Spec, KeyedRoundTrip) {
  NamespaceSpec spec = sample();
  spec.addressing = Addressing::keys;
  spec.tokens_per_key = 16;
  spec.key_bytes = 32;
  const auto back = decode_spec(encode(spec));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->addressing, Addressing::keys);
  EXPECT_EQ(back->tokens_per_key, 16U);
  EXPECT_EQ(back->key_bytes, 32U);
}

TEST(Spec, FingerprintIsOfContentOnly) {
  const NamespaceSpec spec = sample();
  const auto changed = [&](const std::function<void(NamespaceSpec&)>& change) {
    NamespaceSpec other = spec;
    change(other);
    return other.fingerprint() != spec.fingerprint();
  };
  EXPECT_FALSE(changed([](NamespaceSpec& s) { s.name = "other"; }));
  EXPECT_FALSE(changed([](NamespaceSpec& s) { s.cost.c1 = 1; }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.model.bytes[5] = std::byte{9}; }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.layout.bytes[5] = std::byte{9}; }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.groups.pop_back(); }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.groups[0].block_tokens = 32; }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.groups[1].window = 1; }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.groups[2].max_bytes += 1; }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.groups[0].shards = 1; }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.resume_grid = 1; }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.checkpoint_grid = 1; }));
  EXPECT_TRUE(changed([](NamespaceSpec& s) { s.addressing = Addressing::keys; }));
}

TEST(Spec, ValidateNamesTheGroupAndTheFault) {
  const auto message = [](const std::function<void(NamespaceSpec&)>& change) {
    NamespaceSpec spec = sample();
    change(spec);
    const auto result = spec.validate();
    return result ? std::string{} : result.error().text;
  };
  const auto has = [](const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(has(message([](auto& s) { s.groups[1].window = 0; }), "'swa'"));
  EXPECT_TRUE(has(message([](auto& s) { s.groups[0].block_tokens = kBlockTokensMax + 1; }),
                  "block_tokens"));
  EXPECT_TRUE(has(message([](auto& s) { s.groups[0].block_tokens = 0; }), "'attn'"));
  EXPECT_TRUE(has(message([](auto& s) { s.groups[2].max_bytes = 0; }), "max_bytes"));
  EXPECT_TRUE(has(message([](auto& s) { s.groups[2].max_bytes = ~0ULL; }), "max_bytes"));
  EXPECT_TRUE(has(message([](auto& s) { s.groups[0].shards = kShardsMax + 1; }), "shards"));
  EXPECT_TRUE(has(message([](auto& s) { s.groups[1].name = "attn"; }), "two groups"));
  EXPECT_TRUE(has(message([](auto& s) { s.groups[1].name = ""; }), "name"));
  EXPECT_TRUE(has(message([](auto& s) { s.name = "a\nb"; }), "control"));
  EXPECT_TRUE(has(message([](auto& s) { s.groups.clear(); }), "groups"));
  EXPECT_TRUE(has(message([](auto& s) { s.resume_grid = 0; }), "resume_grid"));
  EXPECT_TRUE(has(message([](auto& s) { s.cost.c1 = std::nan(""); }), "cost"));
  EXPECT_TRUE(has(message([](auto& s) { s.cost.c2 = -1; }), "cost"));
  EXPECT_TRUE(has(message([](auto& s) { s.cost.window = 0; }), "window"));
  EXPECT_TRUE(has(message([](auto& s) { s.key_bytes = 16; }), "tokens"));
  EXPECT_TRUE(has(message([](auto& s) {
                    s.addressing = Addressing::keys;
                    s.key_bytes = 15;
                    s.tokens_per_key = 16;
                  }),
                  "key_bytes"));
  EXPECT_TRUE(has(message([](auto& s) {
                    s.addressing = Addressing::keys;
                    s.key_bytes = 16;
                    s.tokens_per_key = 48;
                  }),
                  "multiple"));
  EXPECT_TRUE(has(message([](auto& s) {
                    s.groups.clear();
                    for (int i = 0; i < 5; ++i)
                      s.groups.push_back({.name = std::to_string(i), .max_bytes = 1});
                  }),
                  "every"));
}

TEST(Spec, HostileBytesNeverCrashAndNeverPassInvalid) {
  const auto good = encode(sample());
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(decode_spec(std::span(good).first(size))) << size;
  }
  auto longer = good;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(decode_spec(longer));
  Prng random(3);
  int accepted = 0;
  for (int i = 0; i < 50'000; ++i) {
    auto bytes = good;
    for (std::uint64_t n = 1 + random.below(4); n > 0; --n) {
      bytes[random.below(bytes.size())] = static_cast<std::byte>(random.below(256));
    }
    if (random.chance(0.2)) bytes.resize(random.below(bytes.size() + 1));
    const auto spec = decode_spec(bytes);
    if (!spec) continue;
    ++accepted;
    ASSERT_TRUE(spec->validate());
    ASSERT_EQ(encode(*spec), bytes);
  }
  EXPECT_GT(accepted, 0);  // changes to names, digests and costs are legal
}

TEST(Spec, OtherVersionsAreToldApartFromGarbage) {
  auto bytes = encode(sample());
  bytes[4] = std::byte{99};
  const auto other = decode_spec(bytes);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Errc::version);
  bytes[0] = std::byte{0};
  EXPECT_EQ(decode_spec(bytes).error().code, Errc::corrupt);
}

TEST(Spec, PayloadBytes) {
  const NamespaceSpec spec = sample();
  EXPECT_EQ(spec.payload_bytes(0, 64), 1U << 20U);
  EXPECT_EQ(spec.payload_bytes(0, 1), (1U << 20U) / 64);
  EXPECT_EQ(spec.payload_bytes(1, 1), 4096U);        // not token-major: always whole
  EXPECT_EQ(spec.payload_bytes(2, 0), 16'056'320U);  // a checkpoint
  NamespaceSpec odd = spec;
  odd.groups[0].max_bytes = 100;
  EXPECT_EQ(odd.payload_bytes(0, 1), 2U);
}

TEST(Cost, TermsAndEdges) {
  const Cost cost{.c0 = 10, .c1 = 3, .c2 = 2};
  EXPECT_EQ(cost.flops(5, 5), 0);
  EXPECT_EQ(cost.flops(6, 5), 0);
  EXPECT_EQ(cost.flops(2, 5), 10 + 3 * 3 + 2 * (25 - 4));
}

TEST(Cost, WindowTermIsTheSumOverQueries) {
  const Cost cost{.window_c2 = 0.5, .window = 7};
  for (std::uint64_t a = 0; a < 20; ++a) {
    for (std::uint64_t b = a; b < 25; ++b) {
      double want = 0;
      for (std::uint64_t p = a + 1; p <= b; ++p)
        want += static_cast<double>(std::min<std::uint64_t>(p, 7));
      EXPECT_DOUBLE_EQ(cost.flops(a, b), want) << a << ' ' << b;
    }
  }
}

}  // namespace
}  // namespace statecached
