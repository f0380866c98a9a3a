#pragma once
// A tiny engine: one KV group and one state group whose bytes are a function of the tokens before
// them, so that whatever comes back is checked byte by byte.

#include "statecache/client.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace statecached::test {

using Tokens = std::vector<statecache::Token>;
inline constexpr statecache::Micros kPatience = std::chrono::seconds(20);

inline Tokens counting(std::uint32_t count, std::uint32_t from = 1) {
  Tokens out(count);
  std::iota(out.begin(), out.end(), from);
  return out;
}

class ToyEngine {
 public:
  static constexpr std::uint32_t kBlock = 64;
  static constexpr std::uint32_t kTokenBytes = 64;
  static constexpr std::uint32_t kStateBytes = 20'000;

  [[nodiscard]] static statecache::NamespaceSpec spec(const std::string& name = "toy",
                                                      std::uint8_t weights = 1) {
    statecache::NamespaceSpec out;
    out.name = name;
    out.model.fill(std::byte{weights});
    out.layout.fill(std::byte{7});
    statecache::Group kv;
    kv.name = "kv";
    kv.block_tokens = kBlock;
    kv.max_bytes = std::uint64_t{kBlock} * kTokenBytes;
    statecache::Group state;
    state.name = "state";
    state.need = statecache::Need::end;
    state.max_bytes = kStateBytes;
    out.groups = {kv, state};
    // Heavy enough that loading always beats computing.
    out.cost.c1 = 15e9;
    out.cost.c2 = 1e5;
    return out;
  }

  [[nodiscard]] static statecache::Member member() {
    statecache::Member out;
    out.engine.fill(std::byte{3});
    out.program = "toy engine";
    return out;
  }

  static statecache::Result<statecache::Session> attach(const std::string& socket,
                                                        const std::string& name = "toy",
                                                        std::uint8_t weights = 1) {
    return statecache::Session::attach(socket, spec(name, weights), member(), kPatience);
  }

  explicit ToyEngine(statecache::Session& session, statecache::Domain domain = {})
      : session_(session),
        domain_(domain) {}

  /// Stores all of the prompt's KV, and states at `at`. How many objects are stored now; -1: an
  /// error.
  int store(const Tokens& tokens, const std::vector<std::uint32_t>& at) {
    statecache::Limits limits;
    limits.hold = statecache::Hold::none;
    const auto ticket = session_.begin(ask(tokens), limits);
    if (!ticket) return -1;
    const auto length = static_cast<std::uint32_t>(tokens.size());
    std::vector<statecache::Want> wants;
    for (std::uint32_t first = 0; first < length; first += kBlock)
      wants.push_back({0, first, std::min(first + kBlock, length), 0});
    for (const std::uint32_t end : at)
      wants.push_back({1, end, end, 0});
    if (!session_.reserve(*ticket, wants)) return -1;
    const auto slots = session_.wait_slots(*ticket, kPatience);
    if (!slots) return -1;
    const std::vector<std::uint64_t> chain = chains(tokens);
    std::vector<statecache::Filled> filled;
    int stored = 0;
    grants.clear();
    for (const statecache::Slot& slot : *slots) {
      grants.push_back(slot.grant);
      if (slot.grant == statecache::Grant::exists) ++stored;
      if (slot.grant != statecache::Grant::granted) continue;
      write(slot.where, payload(chain, slot.group, slot.first, slot.end));
      filled.push_back({slot.id, 0});
      ++stored;
    }
    if (!filled.empty() && !session_.commit(filled)) return -1;
    statecache::Report report;
    report.computed = length;
    report.prefilled = length;
    if (!session_.finish(*ticket, report) || !session_.settle(*ticket, kPatience)) return -1;
    return session_.release(*ticket) ? stored : -1;
  }

  struct Restored {
    bool ok = false;      ///< a lease came, and every byte is what it must be
    bool leased = false;  ///< a lease came
    std::uint32_t tokens = 0;
    statecache::TicketId ticket = 0;
    std::vector<statecache::Piece> pieces;
  };

  /// Leases what there is of the prompt and checks it. Not released: see release().
  Restored restore(const Tokens& tokens) {
    Restored out;
    statecache::Limits limits;
    limits.hold = statecache::Hold::lease;
    const auto ticket = session_.begin(ask(tokens), limits);
    if (!ticket) return out;
    out.ticket = *ticket;
    auto lease = session_.wait_lease(*ticket, kPatience);
    if (!lease) return out;
    out.leased = true;
    out.tokens = lease->tokens;
    out.pieces = std::move(lease->pieces);
    out.ok = checks(tokens, out) && covers(out);
    return out;
  }

  /// Every byte that was leased is what it must be.
  [[nodiscard]] static bool checks(const Tokens& tokens, const Restored& restored) {
    const std::vector<std::uint64_t> chain = chains(tokens);
    return std::ranges::all_of(restored.pieces,
                               [&](const auto& piece) { return check(chain, piece); });
  }

  statecache::Status release(const Restored& restored) {
    // Both in any case: a daemon that has gone is no reason to go on holding.
    const statecache::Status finished = session_.finish(restored.ticket);
    const statecache::Status released = session_.release(restored.ticket);
    return finished.ok() ? released : finished;
  }

  std::vector<statecache::Grant> grants;  ///< of the last store()
  std::vector<statecache::Mark> marks;    ///< of every prompt from now on

 private:
  [[nodiscard]] statecache::Ask ask(const Tokens& tokens) const {
    statecache::Ask out;
    out.tokens = tokens;
    out.domain = domain_;
    out.marks = marks;
    return out;
  }

  /// KV of [0, tokens) and the state at exactly that depth.
  static bool covers(const Restored& r) {
    std::uint32_t kv = 0;
    bool state = r.tokens == 0;
    for (const statecache::Piece& piece : r.pieces) {
      if (piece.group == 0 && piece.first == kv) kv += piece.valid;
      if (piece.group == 1 && piece.first == r.tokens) state = true;
    }
    return state && kv == r.tokens;
  }

  /// A number for each prefix: [i] stands for the first i tokens.
 public:
  static std::vector<std::uint64_t> chains(const Tokens& tokens) {
    std::vector<std::uint64_t> out{1469598103934665603ULL};
    out.reserve(tokens.size() + 1);
    for (const statecache::Token token : tokens)
      out.push_back((out.back() ^ token) * 1099511628211ULL + 1);
    return out;
  }

  static void fill(std::vector<std::byte>& out, std::uint64_t seed, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) {
      seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
      out.push_back(static_cast<std::byte>(seed >> 56U));
    }
  }

  static std::vector<std::byte> payload(const std::vector<std::uint64_t>& chain,
                                        std::uint16_t group,
                                        std::uint32_t first,
                                        std::uint32_t end) {
    std::vector<std::byte> out;
    if (group == 1) {
      fill(out, chain[end] ^ 0x5a5a, kStateBytes);
      return out;
    }
    for (std::uint32_t i = first; i < end; ++i)
      fill(out, chain[i + 1], kTokenBytes);
    return out;
  }

  static void write(std::span<const statecache::Extent> where,
                    const std::vector<std::byte>& bytes) {
    std::size_t at = 0;
    for (const statecache::Extent& extent : where) {
      const std::size_t part = std::min(extent.bytes, bytes.size() - at);
      std::memcpy(extent.data, bytes.data() + at, part);
      at += part;
    }
  }

 private:
  static bool check(const std::vector<std::uint64_t>& chain, const statecache::Piece& piece) {
    const std::uint32_t end = piece.group == 1 ? piece.first : piece.first + piece.valid;
    const std::vector<std::byte> want = payload(chain, piece.group, piece.first, end);
    std::size_t at = 0;
    for (const statecache::Extent& extent : piece.where) {
      const std::size_t part = std::min(extent.bytes, want.size() - at);
      if (std::memcmp(extent.data, want.data() + at, part) != 0) return false;
      at += part;
    }
    return at == want.size();
  }

  statecache::Session& session_;
  statecache::Domain domain_;
};

}  // namespace statecached::test
