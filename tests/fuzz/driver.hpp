#pragma once
// A mutation driver for fuzz targets: seeds, known findings first, then mutants of the seeds for a
// while. Seeded and without feedback, so that every build of the tests runs it, whatever the
// compiler. STATECACHED_FUZZ_SECONDS and STATECACHED_FUZZ_SEED change time and seed (README.md).
// One thread.

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace statecached::fuzz {

using Bytes = std::vector<std::byte>;
using Target = void (*)(std::span<const std::byte>);

inline Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

inline double env_number(const char* name, double fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtod(text, nullptr);
}

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  Bytes mutant(const std::vector<Bytes>& seeds) {
    Bytes out = seeds[below(seeds.size())];
    const std::size_t changes = 1 + below(6);
    for (std::size_t i = 0; i < changes; ++i)
      change(out, seeds);
    if (out.size() > kMost) out.resize(kMost);
    return out;
  }

 private:
  static constexpr std::size_t kMost = 1U << 16U;

  std::size_t below(std::size_t n) { return n == 0 ? 0 : random_() % n; }

  void number(Bytes& out) {
    static constexpr std::uint64_t kNumbers[]{
        0,          1,          2,           7,       63,         64,
        65,         127,        128,         255,     256,        4095,
        4096,       0x7fff,     0xffff,      0x10000, 0x7fffffff, 0x80000000,
        0xffffffff, 0xfffffffe, 0x100000000, ~0ULL,   ~0ULL - 1,  1ULL << 63U};
    const std::uint64_t value = kNumbers[below(std::size(kNumbers))];
    const std::size_t width = std::size_t{1} << below(4);
    if (out.size() < width) return;
    std::memcpy(out.data() + below(out.size() - width + 1), &value, width);
  }

  void change(Bytes& out, const std::vector<Bytes>& seeds) {
    const std::size_t at = below(out.size());
    const auto place = out.begin() + static_cast<std::ptrdiff_t>(at);
    switch (below(8)) {
      case 0:
        if (!out.empty()) out[at] ^= std::byte{1} << below(8);
        return;
      case 1:
        if (!out.empty()) out[at] = static_cast<std::byte>(random_());
        return;
      case 2:
      case 3:
        number(out);
        return;
      case 4:
        out.resize(at);
        return;
      case 5: {
        const std::size_t count = below(out.size() - at);
        out.erase(place, place + static_cast<std::ptrdiff_t>(count));
        return;
      }
      case 6: {
        const Bytes part(place, place + static_cast<std::ptrdiff_t>(below(out.size() - at)));
        const auto to = out.begin() + static_cast<std::ptrdiff_t>(below(out.size()));
        out.insert(to, part.begin(), part.end());
        return;
      }
      default: {
        const Bytes& other = seeds[below(seeds.size())];
        const std::size_t from = below(other.size());
        out.resize(at);
        out.insert(out.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
        return;
      }
    }
  }

  std::mt19937_64 random_;
};

/// Findings kept as tests/fuzz/regressions/NAME/*, then the seeds, then mutants until the time is
/// over.
inline void drive(const char* name, Target target, const std::vector<Bytes>& seeds) {
  const std::filesystem::path kept =
      std::filesystem::path(STATECACHED_SOURCE_DIR) / "tests/fuzz/regressions" / name;
  if (std::filesystem::is_directory(kept)) {
    for (const auto& entry : std::filesystem::directory_iterator(kept)) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(file),
                             std::istreambuf_iterator<char>()};
      SCOPED_TRACE(entry.path().string());
      target(std::as_bytes(std::span(text)));
    }
  }
  for (const Bytes& seed : seeds)
    target(seed);
  const auto seed = static_cast<std::uint64_t>(env_number("STATECACHED_FUZZ_SEED", 1));
  Mutator mutator(seed);
  // Of processor time; on a busy machine three times as long on the wall at most.
  const double seconds = env_number("STATECACHED_FUZZ_SECONDS", 3);
  const std::clock_t started = std::clock();
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(3 * seconds);
  const auto spent = [started] {
    return static_cast<double>(std::clock() - started) / CLOCKS_PER_SEC;
  };
  std::uint64_t runs = 0;
  // What is being tried stays in a file, so that a crash leaves its input behind.
  const std::string last = ::testing::TempDir() + "statecached-fuzz-" + name;
  const bool keep = std::getenv("STATECACHED_FUZZ_KEEP") != nullptr;
  while (spent() < seconds && std::chrono::steady_clock::now() < until &&
         !::testing::Test::HasFatalFailure()) {
    const Bytes mutant = mutator.mutant(seeds);
    if (keep) {
      std::ofstream file(last, std::ios::binary | std::ios::trunc);
      file.write(reinterpret_cast<const char*>(mutant.data()),
                 static_cast<std::streamsize>(mutant.size()));
    }
    target(mutant);
    ++runs;
  }
  std::printf("%s: %llu runs in %.1f s of processor time\n",
              name,
              static_cast<unsigned long long>(runs),
              spent());
  EXPECT_GT(runs, 0U);
}

}  // namespace statecached::fuzz
