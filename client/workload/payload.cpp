#include "client/workload/payload.hpp"

#include "base/prng.hpp"
#include "base/result.hpp"

#include <algorithm>
#include <cstring>

namespace statecached {
namespace {

constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15ULL;
constexpr std::uint64_t kFold = 0xd1342543de82ef95ULL;

__extension__ using Wide = unsigned __int128;

/// 128-bit product, folded: the whole of both factors reaches every bit of the result.
inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) noexcept {
  const auto product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

inline std::uint64_t word(std::uint64_t seed, std::uint64_t index) noexcept {
  return fold(seed + index * kStep, kFold);
}

inline std::uint64_t stream_seed(std::uint64_t hash, std::uint16_t group) noexcept {
  return mix64(hash ^ (std::uint64_t{group} << 48U));
}

void fill_stream(std::uint64_t seed, std::uint64_t at, std::span<std::byte> out) noexcept {
  std::byte* to = out.data();
  std::size_t left = out.size();
  std::uint64_t index = at / 8;
  if (const std::uint64_t skip = at % 8; skip != 0 && left != 0) {
    const std::uint64_t value = word(seed, index++);
    const std::size_t take = std::min<std::size_t>(8 - skip, left);
    std::memcpy(to, reinterpret_cast<const std::byte*>(&value) + skip, take);
    to += take;
    left -= take;
  }
  for (; left >= 8; left -= 8, to += 8, ++index) {
    const std::uint64_t value = word(seed, index);
    std::memcpy(to, &value, 8);
  }
  if (left != 0) {
    const std::uint64_t value = word(seed, index);
    std::memcpy(to, &value, left);
  }
}

std::uint64_t differing_bytes(std::uint64_t difference) noexcept {
  std::uint64_t count = 0;
  for (; difference != 0; difference >>= 8U)
    count += (difference & 0xffU) != 0 ? 1 : 0;
  return count;
}

std::uint64_t compare_stream(std::uint64_t seed,
                             std::uint64_t at,
                             std::span<const std::byte> have) noexcept {
  const std::byte* from = have.data();
  std::size_t left = have.size();
  std::uint64_t index = at / 8;
  std::uint64_t wrong = 0;
  const auto part = [&](std::uint64_t skip, std::size_t take) {
    const std::uint64_t value = word(seed, index);
    std::uint64_t there = value;
    std::memcpy(reinterpret_cast<std::byte*>(&there) + skip, from, take);
    return differing_bytes(value ^ there);
  };
  if (const std::uint64_t skip = at % 8; skip != 0 && left != 0) {
    const std::size_t take = std::min<std::size_t>(8 - skip, left);
    wrong += part(skip, take);
    from += take;
    left -= take;
    ++index;
  }
  for (; left >= 8; left -= 8, from += 8, ++index) {
    std::uint64_t there = 0;
    std::memcpy(&there, from, 8);
    if (const std::uint64_t difference = there ^ word(seed, index); difference != 0) [[unlikely]] {
      wrong += differing_bytes(difference);
    }
  }
  if (left != 0) wrong += part(0, left);
  return wrong;
}

/// Calls f(stream seed, offset in that stream, offset in the buffer, bytes) for the streams that
/// [at, at + size) of the payload touches.
template <class F>
void each_stream(const PayloadShape& shape,
                 const std::vector<std::uint64_t>& hashes,
                 std::uint64_t at,
                 std::size_t size,
                 F f) {
  SC_ASSERT(shape.first <= shape.end && shape.end < hashes.size() && shape.unit > 0);
  SC_ASSERT(at + size <= shape.bytes());
  if (shape.first == shape.end) {
    f(stream_seed(hashes[shape.end], shape.group), at, std::size_t{0}, size);
    return;
  }
  std::uint64_t token = shape.first + at / shape.unit;
  std::uint64_t inside = at % shape.unit;
  for (std::size_t done = 0; done < size; ++token, inside = 0) {
    const std::size_t take = std::min<std::uint64_t>(shape.unit - inside, size - done);
    f(stream_seed(hashes[token + 1], shape.group), inside, done, take);
    done += take;
  }
}

}  // namespace

Payload::Payload(std::uint64_t namespace_seed) noexcept {
  hashes_.push_back(mix64(namespace_seed));
}

void Payload::clear() noexcept {
  hashes_.resize(1);
}

void Payload::extend(std::span<const Token> tokens) {
  std::uint64_t hash = hashes_.back();
  hashes_.reserve(hashes_.size() + tokens.size());
  for (const Token token : tokens) {
    hash = fold(hash ^ (token + kStep), kFold) + kStep;
    hashes_.push_back(hash);
  }
}

void Payload::fill(const PayloadShape& shape, std::uint64_t at, std::span<std::byte> out) const {
  each_stream(shape,
              hashes_,
              at,
              out.size(),
              [&](std::uint64_t seed, std::uint64_t from, std::size_t to, std::size_t size) {
                fill_stream(seed, from, out.subspan(to, size));
              });
}

std::uint64_t Payload::mismatches(const PayloadShape& shape,
                                  std::uint64_t at,
                                  std::span<const std::byte> have) const {
  std::uint64_t wrong = 0;
  each_stream(shape,
              hashes_,
              at,
              have.size(),
              [&](std::uint64_t seed, std::uint64_t from, std::size_t to, std::size_t size) {
                wrong += compare_stream(seed, from, have.subspan(to, size));
              });
  return wrong;
}

}  // namespace statecached
