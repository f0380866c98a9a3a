#include "base/copy.hpp"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace statecached {

#if defined(__x86_64__)
namespace {

__attribute__((target("avx2"))) void copy_avx2(std::byte* to,
                                               const std::byte* from,
                                               std::size_t bytes) noexcept {
  constexpr std::size_t kLine = 128;
  constexpr std::size_t kAhead = 1024;
  const std::size_t head = (32 - reinterpret_cast<std::uintptr_t>(to) % 32) % 32;
  if (bytes < head + kLine) {
    std::memcpy(to, from, bytes);
    return;
  }
  std::memcpy(to, from, head);
  std::size_t at = head;
  for (; at + kLine <= bytes; at += kLine) {
    // The next page is asked for before the hardware's own look-ahead, which stops at its edge.
    _mm_prefetch(reinterpret_cast<const char*>(from + at + kAhead), _MM_HINT_NTA);
    _mm_prefetch(reinterpret_cast<const char*>(from + at + kAhead + 64), _MM_HINT_NTA);
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
  std::memcpy(to + at, from + at, bytes - at);
  _mm_sfence();
}

}  // namespace
#endif

void copy_streaming(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  if (has_avx2) {
    copy_avx2(to, from, bytes);
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

}  // namespace statecached
