#include "base/spec.hpp"

#include "base/id_chain.hpp"
#include "base/units.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>

namespace statecached {
namespace {

constexpr std::size_t kNameMax = 255;
constexpr std::uint64_t kPayloadMax =
    kTiB;  // keeps max_bytes * valid and every rounding inside 64 bits
constexpr std::uint32_t kMagic = 0x50534353;  // "SCSP"

class Writer {
 public:
  template <class T>
  requires std::is_unsigned_v<T>

  void number(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      out_.push_back(static_cast<std::byte>(static_cast<std::uint64_t>(value) >> (8 * i)));
    }
  }

  void flag(bool value) { number(static_cast<std::uint8_t>(value ? 1 : 0)); }

  void real(double value) { number(std::bit_cast<std::uint64_t>(value)); }

  void text(std::string_view value) {
    number(static_cast<std::uint16_t>(value.size()));
    for (char c : value)
      out_.push_back(static_cast<std::byte>(c));
  }

  void digest(const Digest& value) {
    out_.insert(out_.end(), value.bytes.begin(), value.bytes.end());
  }

  [[nodiscard]] std::vector<std::byte> take() { return std::move(out_); }

 private:
  std::vector<std::byte> out_;
};

/// Reads what Writer wrote. Past the end, or at a value out of range, it turns bad and gives zeros.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}
  template <class T>
  requires std::is_unsigned_v<T>

  void number(T& value) {
    std::uint64_t sum = 0;
    const auto raw = take(sizeof(T));
    for (std::size_t i = 0; i < raw.size(); ++i)
      sum |= std::to_integer<std::uint64_t>(raw[i]) << (8 * i);
    value = static_cast<T>(sum);
  }
  template <class T>
  requires std::is_enum_v<T>

  void choice(T& value, T last) {
    std::uint8_t raw = 0;
    number(raw);
    if (raw > static_cast<std::uint8_t>(last)) bad_ = true;
    value = bad_ ? T{} : static_cast<T>(raw);
  }

  void flag(bool& value) {
    std::uint8_t raw = 0;
    number(raw);
    if (raw > 1) bad_ = true;
    value = raw == 1;
  }

  void real(double& value) {
    std::uint64_t raw = 0;
    number(raw);
    value = std::bit_cast<double>(raw);
  }

  void text(std::string& value) {
    std::uint16_t size = 0;
    number(size);
    if (size > kNameMax) bad_ = true;
    const auto raw = take(bad_ ? 0 : size);
    value.clear();
    for (std::byte b : raw)
      value.push_back(std::to_integer<char>(b));
  }

  void digest(Digest& value) {
    const auto raw = take(value.bytes.size());
    std::copy(raw.begin(), raw.end(), value.bytes.begin());
  }

  [[nodiscard]] bool bad() const noexcept { return bad_; }

  [[nodiscard]] bool whole() const noexcept { return !bad_ && rest_.empty(); }

 private:
  std::span<const std::byte> take(std::size_t count) {
    if (bad_ || count > rest_.size()) {
      bad_ = true;
      return {};
    }
    const auto out = rest_.first(count);
    rest_ = rest_.subspan(count);
    return out;
  }

  std::span<const std::byte> rest_;
  bool bad_ = false;
};

void write_group(Writer& out, const Group& group) {
  out.text(group.name);
  out.number(static_cast<std::uint8_t>(group.need));
  out.number(group.block_tokens);
  out.number(group.window);
  out.number(group.lookahead);
  out.number(group.max_bytes);
  out.number(group.shards);
  out.flag(group.contiguous);
  out.flag(group.token_major);
}

void read_group(Reader& in, Group& group) {
  in.text(group.name);
  in.choice(group.need, Need::end);
  in.number(group.block_tokens);
  in.number(group.window);
  in.number(group.lookahead);
  in.number(group.max_bytes);
  in.number(group.shards);
  in.flag(group.contiguous);
  in.flag(group.token_major);
}

/// What fixes content: the part that fingerprint() hashes.
void write_content(Writer& out, const NamespaceSpec& spec) {
  out.number(kFormatVersion);
  out.digest(spec.model);
  out.digest(spec.layout);
  out.number(static_cast<std::uint8_t>(spec.groups.size()));
  for (const Group& group : spec.groups)
    write_group(out, group);
  out.number(spec.resume_grid);
  out.number(spec.checkpoint_grid);
  out.number(static_cast<std::uint8_t>(spec.addressing));
  out.number(spec.tokens_per_key);
  out.number(spec.key_bytes);
}

tl::unexpected<Error> wrong(std::string text) {
  return fail(Errc::invalid_argument, std::move(text));
}

Result<> check_name(std::string_view what, std::string_view name) {
  if (name.empty() || name.size() > kNameMax) {
    return wrong(
        fmt::format("the name of {} must have 1 to {} bytes, not {}", what, kNameMax, name.size()));
  }
  for (char c : name) {
    const auto u = static_cast<unsigned char>(c);
    if (u < 0x20 || u == 0x7f)
      return wrong(fmt::format("the name of {} has a control character", what));
  }
  return {};
}

Result<> check_group(const NamespaceSpec& spec, const Group& group) {
  SC_TRY(check_name("a group", group.name));
  const auto bad = [&](std::string_view what) {
    return wrong(fmt::format("group '{}': {}", group.name, what));
  };
  if (group.need > Need::end) return bad("its need is none of every, last, end");
  if (group.need != Need::end &&
      (group.block_tokens == 0 || group.block_tokens > kBlockTokensMax)) {
    return bad(
        fmt::format("block_tokens must be 1 to {}, not {}", kBlockTokensMax, group.block_tokens));
  }
  if (group.need == Need::last && group.window == 0)
    return bad("a group that needs the last tokens has a window of 0");
  if (group.max_bytes == 0 || group.max_bytes > kPayloadMax) {
    return bad(fmt::format("max_bytes must be 1 to {}, not {}", kPayloadMax, group.max_bytes));
  }
  if (group.shards == 0 || group.shards > kShardsMax) {
    return bad(fmt::format("shards must be 1 to {}, not {}", kShardsMax, group.shards));
  }
  if (spec.addressing == Addressing::keys && spec.tokens_per_key != 0 && group.need != Need::end &&
      group.block_tokens % spec.tokens_per_key != 0) {
    return bad(fmt::format("block_tokens {} is no multiple of tokens_per_key {}",
                           group.block_tokens,
                           spec.tokens_per_key));
  }
  return {};
}

Result<> check_addressing(const NamespaceSpec& spec) {
  if (spec.addressing > Addressing::keys) return wrong("addressing is neither tokens nor keys");
  if (spec.addressing == Addressing::tokens) {
    if (spec.key_bytes == 0 && spec.tokens_per_key == 0) return {};
    return wrong("tokens_per_key and key_bytes must be 0 in a namespace addressed by tokens");
  }
  if (spec.key_bytes < 16 || spec.key_bytes > 32) {
    return wrong(fmt::format("key_bytes must be 16 to 32, not {}", spec.key_bytes));
  }
  if (spec.tokens_per_key == 0 || spec.tokens_per_key > kBlockTokensMax) {
    return wrong(fmt::format(
        "tokens_per_key must be 1 to {}, not {}", kBlockTokensMax, spec.tokens_per_key));
  }
  return {};
}

Result<> check_cost(const Cost& cost) {
  for (double term : {cost.c0, cost.c1, cost.c2, cost.window_c2}) {
    if (!std::isfinite(term) || term < 0) return wrong("a cost term is negative or no number");
  }
  if (cost.window_c2 > 0 && cost.window == 0)
    return wrong("the cost has a windowed term but a window of 0");
  return {};
}

/// Sum over the queries at 1-based positions (a, b] of min(position, window).
double capped_pairs(double a, double b, double window) noexcept {
  const double bend = std::clamp(window, a, b);
  return ((bend - a) * (bend + a) + (bend - a)) / 2 + (b - bend) * window;
}

}  // namespace

double Cost::flops(std::uint64_t a, std::uint64_t b) const noexcept {
  if (b <= a) return 0;
  const double from = static_cast<double>(a);
  const double to = static_cast<double>(b);
  double total = c0 + c1 * (to - from) + c2 * (to - from) * (to + from);
  if (window_c2 != 0) total += 2 * window_c2 * capped_pairs(from, to, static_cast<double>(window));
  return total;
}

Result<> NamespaceSpec::validate() const {
  SC_TRY(check_name("the namespace", name));
  if (groups.empty() || groups.size() > kGroupsMax) {
    return wrong(fmt::format("a namespace has 1 to {} groups, not {}", kGroupsMax, groups.size()));
  }
  std::size_t every = 0;
  for (const Group& group : groups) {
    SC_TRY(check_group(*this, group));
    every += group.need == Need::every ? 1 : 0;
    const auto same = [&](const Group& other) { return other.name == group.name; };
    if (std::count_if(groups.begin(), groups.end(), same) != 1) {
      return wrong(fmt::format("two groups are named '{}'", group.name));
    }
  }
  if (every > kEveryGroupsMax) {
    return wrong(fmt::format(
        "a namespace has at most {} groups that need every block, not {}", kEveryGroupsMax, every));
  }
  if (resume_grid == 0 || checkpoint_grid == 0)
    return wrong("resume_grid and checkpoint_grid must be at least 1");
  SC_TRY(check_addressing(*this));
  return check_cost(cost);
}

Digest NamespaceSpec::fingerprint() const {
  Writer out;
  out.text("statecached namespace");
  write_content(out, *this);
  return sha256(out.take());
}

std::uint64_t NamespaceSpec::payload_bytes(std::uint16_t group,
                                           std::uint32_t valid) const noexcept {
  SC_ASSERT(group < groups.size());
  const Group& g = groups[group];
  if (g.need == Need::end || !g.token_major || valid >= g.block_tokens) return g.max_bytes;
  return div_ceil(g.max_bytes * valid, g.block_tokens);
}

std::vector<std::byte> encode(const NamespaceSpec& spec) {
  SC_ASSERT(spec.groups.size() <= kGroupsMax && spec.name.size() <= kNameMax);
  Writer out;
  out.number(kMagic);
  write_content(out, spec);
  out.text(spec.name);
  out.number(spec.checkpoints_per_chunk);
  for (double term : {spec.cost.c0, spec.cost.c1, spec.cost.c2, spec.cost.window_c2})
    out.real(term);
  out.number(spec.cost.window);
  return out.take();
}

Result<NamespaceSpec> decode_spec(std::span<const std::byte> bytes) {
  Reader in(bytes);
  std::uint32_t magic = 0;
  std::uint32_t version = 0;
  in.number(magic);
  in.number(version);
  if (in.bad() || magic != kMagic) return fail(Errc::corrupt, "these bytes are no namespace");
  if (version != kFormatVersion) {
    return fail(
        Errc::version,
        fmt::format(
            "the namespace has format {}, this program format {}", version, kFormatVersion));
  }
  NamespaceSpec spec;
  std::uint8_t groups = 0;
  in.digest(spec.model);
  in.digest(spec.layout);
  in.number(groups);
  if (groups > kGroupsMax)
    return fail(Errc::corrupt, fmt::format("a namespace of {} groups", groups));
  spec.groups.resize(groups);
  for (Group& group : spec.groups)
    read_group(in, group);
  in.number(spec.resume_grid);
  in.number(spec.checkpoint_grid);
  in.choice(spec.addressing, Addressing::keys);
  in.number(spec.tokens_per_key);
  in.number(spec.key_bytes);
  in.text(spec.name);
  in.number(spec.checkpoints_per_chunk);
  for (double* term : {&spec.cost.c0, &spec.cost.c1, &spec.cost.c2, &spec.cost.window_c2})
    in.real(*term);
  in.number(spec.cost.window);
  if (!in.whole())
    return fail(Errc::corrupt, "the bytes of a namespace are cut, too many, or out of range");
  SC_TRY(spec.validate());
  return spec;
}

}  // namespace statecached
