#include "base/id_chain.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <bit>
#include <string_view>
#include <type_traits>

namespace statecached {
namespace {

static_assert(std::endian::native == std::endian::little, "ids hash numbers as they lie in memory");

/// SHA-256, streamed. A context lives a thread: creating one costs more than hashing a cell.
class Hasher {
 public:
  Hasher() {
    // Fetched once: an implicit fetch takes a lock in the library on every init.
    static EVP_MD* const kAlgorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    thread_local Context context;
    context_ = context.value;
    SC_ASSERT(kAlgorithm != nullptr && context_ != nullptr);
    SC_ASSERT(EVP_DigestInit_ex2(context_, kAlgorithm, nullptr) == 1);
  }

  void bytes(const void* data, std::size_t count) {
    SC_ASSERT(EVP_DigestUpdate(context_, data, count) == 1);
  }
  template <class T>
  requires std::has_unique_object_representations_v<T>

  void value(const T& v) { bytes(&v, sizeof v); }

  [[nodiscard]] Digest finish() {
    Digest out;
    SC_ASSERT(EVP_DigestFinal_ex(
                  context_, reinterpret_cast<unsigned char*>(out.bytes.data()), nullptr) == 1);
    return out;
  }

 private:
  struct Context {
    EVP_MD_CTX* value = EVP_MD_CTX_new();
    Context() = default;
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    ~Context() { EVP_MD_CTX_free(value); }
  };

  EVP_MD_CTX* context_ = nullptr;
};

struct HashedMark {
  std::uint32_t at;
  std::uint32_t end;
  Digest content;
};

/// Symbols [begin, end) and the marks that reach into them.
void hash_range(Hasher& hasher,
                std::span<const Token> tokens,
                std::span<const Mark> marks,
                std::uint32_t begin,
                std::uint32_t end) {
  if (begin == end) return;
  const auto symbols = tokens.subspan(begin, end - begin);
  hasher.bytes(symbols.data(), symbols.size_bytes());
  const auto ends_at = [](const Mark& mark) { return std::uint64_t{mark.at} + mark.length; };
  auto mark = std::partition_point(
      marks.begin(), marks.end(), [&](const Mark& m) { return ends_at(m) <= begin; });
  for (; mark != marks.end() && mark->at < end; ++mark) {
    hasher.value(
        HashedMark{mark->at,
                   static_cast<std::uint32_t>(std::min<std::uint64_t>(ends_at(*mark), end)),
                   mark->content});
  }
}

}  // namespace

IdChain::IdChain() {
  static const Digest kRoot = [] {
    constexpr std::string_view kText = "statecached chain";
    Hasher hasher;
    hasher.bytes(kText.data(), kText.size());
    hasher.value(kFormatVersion);
    return hasher.finish();
  }();
  link_ = kRoot;
}

void IdChain::advance(std::span<const Token> tokens, std::span<const Mark> marks, std::uint32_t p) {
  SC_ASSERT(p <= tokens.size());
  while (p - position_ >= kChainStep && p > position_) {
    Hasher hasher;
    hasher.value(link_);
    hash_range(hasher, tokens, marks, position_, position_ + kChainStep);
    link_ = hasher.finish();
    position_ += kChainStep;
  }
}

Digest IdChain::at(std::span<const Token> tokens,
                   std::span<const Mark> marks,
                   std::uint32_t p) const {
  SC_ASSERT(p >= position_ && p <= tokens.size());
  if (p - position_ >= kChainStep) {
    IdChain copy = *this;
    copy.advance(tokens, marks, p);
    return copy.at(tokens, marks, p);
  }
  Hasher hasher;
  hasher.value(link_);
  hash_range(hasher, tokens, marks, position_, p);
  hasher.value(p);
  return hasher.finish();
}

ObjectId object_id(const ObjectName& name, const Digest& h_end) {
  Hasher hasher;
  hasher.value(name.fingerprint);
  hasher.value(name.generation);
  hasher.value(name.trust_domain);
  hasher.value(name.domain);
  hasher.value(name.group);
  hasher.value(name.first);
  hasher.value(name.end);
  hasher.value(h_end);
  const Digest digest = hasher.finish();
  ObjectId id;
  std::memcpy(&id, digest.bytes.data(), sizeof id);
  return id;
}

Digest sha256(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.bytes(bytes.data(), bytes.size());
  return hasher.finish();
}

}  // namespace statecached
