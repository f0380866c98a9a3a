// Copy engines: the thread against plain loops, back-pressure, shutdown; the simulator's twin.

#include "tiers/host/copier.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

namespace statecached {
namespace {

using Bytes = std::vector<std::byte>;

Bytes noise(std::size_t bytes, std::uint64_t seed) {
  Prng prng(seed);
  Bytes out(bytes);
  for (std::byte& byte : out)
    byte = static_cast<std::byte>(prng.next());
  return out;
}

/// Two memories of noise and a thread over them.
struct Bench {
  explicit Bench(std::size_t bytes, std::size_t depth = 256)
      : a(noise(bytes, 1)),
        b(noise(bytes, 2)),
        engine(std::make_unique<CopyThread>(
            Memories{{.base = a.data(), .bytes = a.size()}, {.base = b.data(), .bytes = b.size()}},
            [this] {
              woken.fetch_add(1);
              woken.notify_one();
            },
            CopyThreadOptions{.depth = depth})) {}

  /// Waits on the waker, which is called after the completion is queued.
  std::vector<CopyDone> wait(std::size_t count) {
    std::vector<CopyDone> out;
    while (true) {
      const std::uint32_t seen = woken.load();
      engine->poll(out);
      if (out.size() >= count) return out;
      woken.wait(seen);
    }
  }

  Bytes a;
  Bytes b;
  std::atomic<std::uint32_t> woken{0};
  std::unique_ptr<CopyThread> engine;
};

/// Cuts [0, bytes) into runs at random places of distinct regions of one memory.
std::vector<MemoryRun> random_runs(Prng& prng,
                                   std::uint32_t arena,
                                   std::uint64_t at,
                                   std::uint64_t bytes) {
  std::vector<MemoryRun> runs;
  while (bytes > 0) {
    const std::uint64_t run = prng.chance(0.3) ? bytes : 1 + prng.below(bytes);
    runs.push_back({.at = {.arena = arena, .offset = at}, .bytes = run});
    at += run + prng.below(64);
    bytes -= run;
  }
  std::reverse(runs.begin(), runs.end());
  return runs;
}

Bytes gather(const Bytes& memory, const std::vector<MemoryRun>& runs) {
  Bytes out;
  for (const MemoryRun& run : runs) {
    const auto begin = memory.begin() + static_cast<std::ptrdiff_t>(run.at.offset);
    out.insert(out.end(), begin, begin + static_cast<std::ptrdiff_t>(run.bytes));
  }
  return out;
}

TEST(CopyBytes, EveryAlignmentAndNothingBeside) {
  constexpr std::size_t kLarge = 256 * 1024;
  const Bytes source = noise(kLarge + 512, 3);
  for (const std::size_t bytes : {std::size_t{0},
                                  std::size_t{1},
                                  std::size_t{4097},
                                  kLarge - 1,
                                  kLarge,
                                  kLarge + 1,
                                  kLarge + 129}) {
    for (const std::size_t to : {0U, 1U, 16U, 31U, 33U}) {
      for (const std::size_t from : {0U, 7U, 32U}) {
        Bytes target(kLarge + 512, std::byte{0xcc});
        Bytes expected = target;
        std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(from),
                    bytes,
                    expected.begin() + static_cast<std::ptrdiff_t>(to));
        copy_bytes(target.data() + to, source.data() + from, bytes);
        ASSERT_EQ(target, expected) << bytes << " to +" << to << " from +" << from;
      }
    }
  }
}

TEST(Checksum, IsXxh3WithASeed) {
  // The value of XXH3-128 for no bytes and seed 0 is published with the algorithm.
  EXPECT_EQ(checksum_of({}, 0),
            (Checksum{.low = 0x6001c324468d497fULL, .high = 0x99aa06d3014798d8ULL}));
  const Bytes bytes = noise(5000, 4);
  EXPECT_NE(checksum_of(bytes, 1), checksum_of(bytes, 2));
  Bytes other = bytes;
  other[4999] ^= std::byte{1};
  EXPECT_NE(checksum_of(bytes, 1), checksum_of(other, 1));
}

TEST(CopyThread, ChecksumsAndVerifiesOverRuns) {
  Bench bench(1 << 20);
  Prng prng(5);
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t bytes = 1 + prng.below(200'000);
    CopyOp op{.tag = prng.next(),
              .kind = CopyKind::checksum,
              .seed = prng.next(),
              .payload_bytes = bytes - prng.below(std::min<std::uint64_t>(bytes, 4096)),
              .expected = {},
              .source = random_runs(prng, 0, prng.below(1000), bytes),
              .destination = {}};
    Bytes payload = gather(bench.a, op.source);
    payload.resize(op.payload_bytes);
    const Checksum expected = checksum_of(payload, op.seed);
    CopyOp good = op;
    good.kind = CopyKind::verify;
    good.expected = expected;
    CopyOp bad = good;
    bad.expected.high ^= 1;
    const std::uint64_t tag = op.tag;
    ASSERT_TRUE(bench.engine->submit(op));
    ASSERT_TRUE(bench.engine->submit(good));
    ASSERT_TRUE(bench.engine->submit(bad));
    const auto done = bench.wait(3);
    ASSERT_EQ(done.size(), 3U);
    EXPECT_EQ(done[0].tag, tag);
    EXPECT_TRUE(done[0].ok);
    EXPECT_EQ(done[0].checksum, expected);
    EXPECT_TRUE(done[1].ok);
    EXPECT_EQ(done[1].checksum, expected);
    EXPECT_FALSE(done[2].ok);
  }
}

TEST(CopyThread, ChecksumOfNothing) {
  Bench bench(4096);
  CopyOp op{.tag = 1,
            .kind = CopyKind::checksum,
            .seed = 9,
            .payload_bytes = 0,
            .expected = {},
            .source = {},
            .destination = {}};
  ASSERT_TRUE(bench.engine->submit(op));
  EXPECT_EQ(bench.wait(1).at(0).checksum, checksum_of({}, 9));
}

TEST(CopyThread, StagesForeignBytesAndHashesWhatItWrote) {
  Bench bench(8 << 20);
  Prng prng(9);
  const std::size_t bytes = 4 << 20;
  void* const at =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(at, MAP_FAILED);
  const auto foreign = std::make_shared<const Mapping>(at, bytes);
  for (std::size_t i = 0; i < bytes; ++i)
    foreign->data()[i] = static_cast<std::byte>(prng.next());
  // Small ones through the cache, large ones past it; runs that end at odd places.
  for (const std::uint64_t payload :
       {1ULL, 4095ULL, 20'000ULL, 262'144ULL, 300'001ULL, 2'000'000ULL}) {
    CopyOp op{.tag = payload,
              .kind = CopyKind::stage,
              .seed = prng.next(),
              .payload_bytes = payload,
              .expected = {},
              .source = {{{0, 8192}, payload / 3}, {{0, 2'500'096}, payload - payload / 3}},
              .destination = {{{0, 4096}, payload / 2}, {{0, 3 << 20}, payload - payload / 2}}};
    op.foreign = foreign;
    const std::vector<MemoryRun> source = op.source;
    const std::vector<MemoryRun> destination = op.destination;
    const std::uint64_t seed = op.seed;
    ASSERT_TRUE(bench.engine->submit(op));
    const auto done = bench.wait(1);
    ASSERT_EQ(done.size(), 1U);
    Bytes want;
    for (const MemoryRun& run : source)
      want.insert(
          want.end(), foreign->data() + run.at.offset, foreign->data() + run.at.offset + run.bytes);
    EXPECT_EQ(gather(bench.a, destination), want) << payload;
    EXPECT_EQ(done[0].checksum, checksum_of(want, seed)) << payload;
    Bytes bare(want.size() + 64);
    const Hash128 hash = bare_fused_copy(bare.data(), want.data(), want.size(), seed);
    EXPECT_EQ(hash.low, done[0].checksum.low) << payload;
    EXPECT_TRUE(std::equal(want.begin(), want.end(), bare.begin()));
  }
}

TEST(CopyThread, CopiesRunsToOtherRuns) {
  Bench bench(4 << 20);
  Prng prng(6);
  for (int i = 0; i < 60; ++i) {
    const std::uint64_t bytes = 1 + prng.below(prng.chance(0.3) ? 3'000'000 : 20'000);
    CopyOp op{.tag = 1,
              .kind = CopyKind::copy,
              .seed = 0,
              .payload_bytes = bytes,
              .expected = {},
              .source = random_runs(prng, 0, prng.below(1000), bytes),
              .destination = random_runs(prng, 1, prng.below(1000), bytes)};
    Bytes expected = bench.b;
    const Bytes data = gather(bench.a, op.source);
    std::size_t at = 0;
    for (const MemoryRun& run : op.destination) {
      std::memcpy(expected.data() + run.at.offset, data.data() + at, run.bytes);
      at += run.bytes;
    }
    ASSERT_TRUE(bench.engine->submit(op));
    ASSERT_TRUE(bench.wait(1).at(0).ok);
    ASSERT_EQ(bench.b, expected);
  }
}

TEST(CopyThread, RefusesWhenFullAndLosesNothing) {
  constexpr std::size_t kDepth = 4;
  Bench bench(1 << 16, kDepth);
  std::vector<CopyDone> done;
  std::uint64_t next = 0;
  std::size_t refusals = 0;
  while (done.size() < 5000) {
    CopyOp op{.tag = next,
              .kind = CopyKind::checksum,
              .seed = next,
              .payload_bytes = 512,
              .expected = {},
              .source = {{.at = {.arena = 0, .offset = 0}, .bytes = 512}},
              .destination = {}};
    if (bench.engine->submit(op)) {
      ++next;
      continue;
    }
    ++refusals;
    ASSERT_EQ(op.source.size(), 1U) << "a refused operation must be left as it was";
    ASSERT_EQ(next - done.size(), kDepth);
    const auto more = bench.wait(1);
    done.insert(done.end(), more.begin(), more.end());
  }
  EXPECT_GT(refusals, 0U);
  for (std::size_t i = 0; i < done.size(); ++i)
    ASSERT_EQ(done[i].tag, i);
}

TEST(CopyThread, StopsWithWorkQueued) {
  for (int round = 0; round < 50; ++round) {
    Bench bench(1 << 16);
    for (std::uint64_t i = 0; i < 100; ++i) {
      CopyOp op{.tag = i,
                .kind = CopyKind::checksum,
                .seed = 0,
                .payload_bytes = 1 << 16,
                .expected = {},
                .source = {{.at = {.arena = 0, .offset = 0}, .bytes = 1 << 16}},
                .destination = {}};
      ASSERT_TRUE(bench.engine->submit(op));
    }
    bench.engine.reset();
    EXPECT_LE(bench.woken.load(), 100U);
  }
}

TEST(CopyThreadDeath, MalformedOperationsAbort) {
  InstantCopies engine;  // the same checks, and no thread to fork with
  CopyOp op{.tag = 1,
            .kind = CopyKind::copy,
            .seed = 0,
            .payload_bytes = 8,
            .expected = {},
            .source = {{.at = {}, .bytes = 8}},
            .destination = {{.at = {}, .bytes = 9}}};
  EXPECT_DEATH((void)engine.submit(op), "assertion");
  op.kind = CopyKind::verify;
  op.payload_bytes = 9;
  EXPECT_DEATH((void)engine.submit(op), "assertion");
}

TEST(InstantCopies, CompletesAtTheNextPollAndVerifiesWhatItSummed) {
  InstantCopies engine({.seed = 1, .failure_chance = 0, .depth = 3});
  CopyOp sum{.tag = 1,
             .kind = CopyKind::checksum,
             .seed = 77,
             .payload_bytes = 500,
             .expected = {},
             .source = {{.at = {}, .bytes = 4096}},
             .destination = {}};
  CopyOp verify = sum;
  verify.tag = 2;
  verify.kind = CopyKind::verify;
  CopyOp copy{.tag = 3,
              .kind = CopyKind::copy,
              .seed = 0,
              .payload_bytes = 0,
              .expected = {},
              .source = {{.at = {}, .bytes = 4096}},
              .destination = {{.at = {}, .bytes = 4096}}};
  CopyOp again = verify;
  ASSERT_TRUE(engine.submit(sum));
  std::vector<CopyDone> done;
  ASSERT_EQ(engine.poll(done), 1U);
  EXPECT_EQ(engine.poll(done), 0U);
  verify.expected = done[0].checksum;
  again.expected = done[0].checksum;
  again.seed = 78;  // the right bytes under a wrong name
  ASSERT_TRUE(engine.submit(verify));
  ASSERT_TRUE(engine.submit(copy));
  ASSERT_TRUE(engine.submit(again));
  CopyOp extra = CopyOp{};
  EXPECT_FALSE(engine.submit(extra));
  done.clear();
  ASSERT_EQ(engine.poll(done), 3U);
  EXPECT_TRUE(done[0].ok);
  EXPECT_TRUE(done[1].ok);
  EXPECT_FALSE(done[2].ok);
}

TEST(InstantCopies, FailsAsOftenAsToldAndRepeatably) {
  const auto failures = [](std::uint64_t seed) {
    InstantCopies engine({.seed = seed, .failure_chance = 0.1, .depth = 1000});
    std::vector<CopyDone> done;
    for (std::uint64_t i = 0; i < 1000; ++i) {
      CopyOp op{.tag = i,
                .kind = CopyKind::copy,
                .seed = 0,
                .payload_bytes = 0,
                .expected = {},
                .source = {},
                .destination = {}};
      EXPECT_TRUE(engine.submit(op));
    }
    engine.poll(done);
    std::vector<std::uint64_t> tags;
    for (const CopyDone& one : done) {
      if (!one.ok) tags.push_back(one.tag);
    }
    return tags;
  };
  const auto first = failures(7);
  EXPECT_GT(first.size(), 50U);
  EXPECT_LT(first.size(), 160U);
  EXPECT_EQ(first, failures(7));
  EXPECT_NE(first, failures(8));
}

}  // namespace
}  // namespace statecached
