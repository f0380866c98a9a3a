#include "kernels/fused_copy.hpp"

#include "base/copy.hpp"
#include "base/result.hpp"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace statecached {
namespace {

#if defined(__x86_64__)
constexpr std::size_t kLine = 128;

bool has_avx2() noexcept {
  static const bool has = __builtin_cpu_supports("avx2") != 0;
  return has;
}

/// Whole lines only; `to` and `kept` on 32-byte boundaries. Each source byte is loaded once and
/// stored twice: past the cache to its destination, and into `kept`, which stays in the cache for
/// the hash.
__attribute__((target("avx2"))) void stream_and_keep(std::byte* to,
                                                     std::byte* kept,
                                                     const std::byte* from,
                                                     std::size_t bytes) noexcept {
  for (std::size_t at = 0; at < bytes; at += kLine) {
    const auto* const source = reinterpret_cast<const __m256i*>(from + at);
    auto* const target = reinterpret_cast<__m256i*>(to + at);
    auto* const keep = reinterpret_cast<__m256i*>(kept + at);
    const __m256i a = _mm256_loadu_si256(source);
    const __m256i b = _mm256_loadu_si256(source + 1);
    const __m256i c = _mm256_loadu_si256(source + 2);
    const __m256i d = _mm256_loadu_si256(source + 3);
    _mm256_stream_si256(target, a);
    _mm256_stream_si256(target + 1, b);
    _mm256_stream_si256(target + 2, c);
    _mm256_stream_si256(target + 3, d);
    _mm256_store_si256(keep, a);
    _mm256_store_si256(keep + 1, b);
    _mm256_store_si256(keep + 2, c);
    _mm256_store_si256(keep + 3, d);
  }
}

__attribute__((target("avx2"))) void stream(std::byte* to,
                                            const std::byte* from,
                                            std::size_t bytes) noexcept {
  for (std::size_t at = 0; at < bytes; at += kLine) {
    const auto* const source = reinterpret_cast<const __m256i*>(from + at);
    auto* const target = reinterpret_cast<__m256i*>(to + at);
    const __m256i a = _mm256_loadu_si256(source);
    const __m256i b = _mm256_loadu_si256(source + 1);
    const __m256i c = _mm256_loadu_si256(source + 2);
    const __m256i d = _mm256_loadu_si256(source + 3);
    _mm256_stream_si256(target, a);
    _mm256_stream_si256(target + 1, b);
    _mm256_stream_si256(target + 2, c);
    _mm256_stream_si256(target + 3, d);
  }
}

void fence() noexcept {
  _mm_sfence();  // streaming stores are not ordered by the release that announces the completion
}
#else
void fence() noexcept {}
#endif

bool streams_to([[maybe_unused]] const std::byte* to) noexcept {
#if defined(__x86_64__)
  return has_avx2() && reinterpret_cast<std::uintptr_t>(to) % 32 == 0;
#else
  return false;
#endif
}

Hash128 to_hash(XXH128_hash_t hash) noexcept {
  return {hash.low64, hash.high64};
}

}  // namespace

struct FusedCopy::State {
  alignas(64) std::array<std::byte, kPiece> kept;
  XXH3_state_t* hash = XXH3_createState();

  State() { SC_ASSERT(hash != nullptr); }

  State(const State&) = delete;
  State& operator=(const State&) = delete;

  ~State() { XXH3_freeState(hash); }
};

FusedCopy::FusedCopy() : state_(std::make_unique<State>()) {}

FusedCopy::~FusedCopy() = default;

void FusedCopy::start(std::uint64_t seed, std::size_t bytes) noexcept {
  XXH3_128bits_reset_withSeed(state_->hash, seed);
  streaming_ = bytes >= kStreamFrom;
}

void FusedCopy::add(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
  while (bytes > 0) {
    const std::size_t n = std::min(bytes, kPiece);
    std::byte* const kept = state_->kept.data();
    std::size_t streamed = 0;
#if defined(__x86_64__)
    if (streaming_ && streams_to(to)) {
      streamed = n / kLine * kLine;
      stream_and_keep(to, kept, from, streamed);
    }
#endif
    if (streamed < n) {
      std::memcpy(kept + streamed, from + streamed, n - streamed);
      std::memcpy(to + streamed, kept + streamed, n - streamed);
    }
    XXH3_128bits_update(state_->hash, kept, n);
    to += n;
    from += n;
    bytes -= n;
  }
}

Hash128 FusedCopy::finish() noexcept {
  fence();
  return to_hash(XXH3_128bits_digest(state_->hash));
}

Hash128 bare_fused_copy(std::byte* to,
                        const std::byte* from,
                        std::size_t bytes,
                        std::uint64_t seed) noexcept {
  XXH3_state_t* const hash = XXH3_createState();
  SC_ASSERT(hash != nullptr);
  XXH3_128bits_reset_withSeed(hash, seed);
  for (std::size_t at = 0; at < bytes; at += FusedCopy::kPiece) {
    const std::size_t n = std::min(bytes - at, FusedCopy::kPiece);
    std::size_t streamed = 0;
#if defined(__x86_64__)
    if (bytes >= kStreamFrom && streams_to(to + at)) {
      streamed = n / kLine * kLine;
      stream(to + at, from + at, streamed);
    }
#endif
    std::memcpy(to + at + streamed, from + at + streamed, n - streamed);
    XXH3_128bits_update(hash, from + at, n);
  }
  fence();
  const Hash128 out = to_hash(XXH3_128bits_digest(hash));
  XXH3_freeState(hash);
  return out;
}

}  // namespace statecached
