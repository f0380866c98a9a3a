#include "client/ctl/bench_store.hpp"

#include "base/copy.hpp"
#include "base/unique_fd.hpp"
#include "base/units.hpp"
#include "client/ctl/bench_support.hpp"
#include "client/ctl/private_daemon.hpp"
#include "kernels/fused_copy.hpp"

#include "statecache/client.hpp"
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

namespace statecached::ctl {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);
constexpr std::uint32_t kBlockTokens = 64;
constexpr std::size_t kHuge = 2U << 20U;
constexpr int kMadvCollapse = 25;  // MADV_COLLAPSE, younger than this libc's headers

using Flags = std::array<bool, 4096>;

/// Memory in pages of 2 MiB where the kernel gives them, touched.
class Block {
 public:
  static Result<Block> make(std::uint64_t bytes, bool shared) {
    Block out;
    void* data = MAP_FAILED;
    const std::size_t room = bytes + kHuge;
    if (shared) {
      out.fd_ = UniqueFd(::memfd_create("statecached-bench", MFD_CLOEXEC));
      if (!out.fd_ || ::ftruncate(out.fd_.get(), static_cast<off_t>(room)) != 0)
        return fail_errno("making memory for the plain copies");
      data = ::mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_SHARED, out.fd_.get(), 0);
    } else {
      data = ::mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (data == MAP_FAILED) return fail_errno("mapping memory for a benchmark");
    out.map_ = Mapping(data, room);
    const auto begin = reinterpret_cast<std::uintptr_t>(data);
    out.data_ = static_cast<std::byte*>(data) + (round_up(begin, kHuge) - begin);
    ::madvise(data, room, MADV_HUGEPAGE);
    for (std::size_t at = 0; at < bytes; at += kHuge)
      out.data_[at] = std::byte{1};
    ::madvise(out.data_, bytes, kMadvCollapse);
    for (std::size_t at = 0; at < bytes; at += kPage)
      out.data_[at] = static_cast<std::byte>(at >> 12U);
    return out;
  }

  [[nodiscard]] std::byte* at(std::uint64_t offset) const { return data_ + offset; }

 private:
  UniqueFd fd_;
  Mapping map_;
  std::byte* data_ = nullptr;
};

double gb_per_s(std::uint64_t bytes, double micros) {
  return static_cast<double>(bytes) / (micros * 1e3);
}

/// What is copied in one round: objects of the engine's memory from `at` on.
struct Round {
  std::vector<statecache::Extent> where;
  std::vector<statecache::Memory> memory;
};

class Bench {
 public:
  explicit Bench(const CopyPlan& plan) : plan_(plan) {}

  Result<CopyReport> run() {
    const TwoCores cores = two_cores();
    const std::uint64_t arena = 2 * plan_.engine_bytes;
    SC_TRY(daemon_.start({},
                         {fmt::format("host.capacity={}MiB", arena >> 20U),
                          "nvme.capacity=0",
                          fmt::format("limits.staging={}MiB", 2 * plan_.round_bytes >> 20U),
                          staged() ? "socket.trust=none" : "socket.trust=same-user"}));
    SC_TRY(attach());
    SC_ASSIGN(engine_, Block::make(plan_.engine_bytes, false));
    SC_ASSIGN(plain_, Block::make(plan_.engine_bytes, true));
    pin(0, cores.ours);
    // A staged store keeps two of its threads busy: the one that copies and the one that serves.
    if (!staged()) pin(daemon_.pid(), cores.theirs);
    for (std::uint64_t at = 0; at < plan_.engine_bytes; at += plan_.round_bytes)
      SC_TRY(plan_.restore ? store(at, nullptr) : Result<>{});
    for (std::uint32_t i = 0; i < plan_.rounds; ++i) {
      const std::uint64_t at = i * plan_.round_bytes % plan_.engine_bytes;
      SC_TRY(plan_.restore ? restore(at, ours_) : store(at, &ours_));
      plain(at, i);
    }
    CopyReport report;
    report.plan = plan_;
    report.gb_per_s = quantile(ours_, 0.5);
    report.memcpy_gb_per_s = quantile(memcpy_, 0.5);
    report.streaming_gb_per_s = quantile(streaming_, 0.5);
    report.hash_gb_per_s = quantile(hash_, 0.5);
    if (staged()) report.fused_gb_per_s = quantile(fused_, 0.5);
    return report;
  }

 private:
  Result<> attach() {
    statecache::NamespaceSpec spec;
    spec.name = "bench";
    statecache::Group kv;
    kv.name = "kv";
    kv.block_tokens = kBlockTokens;
    kv.max_bytes = plan_.object_bytes;
    spec.groups = {kv};
    spec.cost.c1 = 1e15;  // loading always pays
    auto session = statecache::Session::attach(daemon_.socket(), spec, {});
    if (!session) return from(session.status());
    session_.emplace(std::move(*session));
    return {};
  }

  [[nodiscard]] bool staged() const { return plan_.path == StorePath::staged; }

  [[nodiscard]] std::uint64_t objects() const { return plan_.round_bytes / plan_.object_bytes; }

  void prepare(std::uint64_t at) {
    round_.where.clear();
    round_.memory.clear();
    for (std::uint64_t i = 0; i < objects(); ++i)
      round_.where.push_back({engine_.at(at + i * plan_.object_bytes), plan_.object_bytes});
    for (std::uint64_t i = 0; i < objects(); ++i) {
      round_.memory.push_back({0,
                               static_cast<std::uint32_t>(i * kBlockTokens),
                               kBlockTokens,
                               std::span(round_.where).subspan(i, 1)});
    }
  }

  /// Each part of the engine's memory has a prompt of its own; `turn` makes it new again.
  void ask_for(std::uint64_t at, std::uint32_t turn) {
    prompt_.resize(objects() * kBlockTokens + 1);
    std::iota(prompt_.begin(), prompt_.end(), 7U);
    prompt_[0] = static_cast<statecache::Token>(at / plan_.round_bytes);
    prompt_[1] = turn;
  }

  Result<> store(std::uint64_t at, Samples* into) {
    prepare(at);
    ask_for(at, into == nullptr ? 0 : ++turn_);
    statecache::Limits limits;
    limits.hold = statecache::Hold::none;
    statecache::Ask ask;
    ask.tokens = prompt_;
    std::span<bool> ok = std::span(flags_).first(objects());
    const auto start = SteadyClock::now();
    const auto ticket = session_->begin(ask, limits);
    if (!ticket) return from(ticket.status());
    if (const auto done = session_->write_from(*ticket, round_.memory, kPatience, ok); !done)
      return from(done);
    // Stored is what the daemon has copied in, not what waits for that.
    if (staged()) {
      if (const auto done = session_->drain(kPatience); !done) return from(done);
    }
    const double took = micros_since(start);
    if (!std::ranges::all_of(ok, [](bool one) { return one; }))
      return fail(Errc::no_space, "the daemon granted no space for some objects");
    if (into != nullptr) into->push_back(gb_per_s(plan_.round_bytes, took));
    return end(*ticket);
  }

  Result<> restore(std::uint64_t at, Samples& into) {
    prepare(at);
    ask_for(at, 0);
    statecache::Limits limits;
    limits.hold = statecache::Hold::lease;
    statecache::Ask ask;
    ask.tokens = prompt_;
    std::span<bool> ok = std::span(flags_).first(objects());
    const auto start = SteadyClock::now();
    const auto ticket = session_->begin(ask, limits);
    if (!ticket) return from(ticket.status());
    if (const auto done = session_->read_into(*ticket, round_.memory, kPatience, ok); !done)
      return from(done);
    const double took = micros_since(start);
    if (!std::ranges::all_of(ok, [](bool one) { return one; }))
      return fail(Errc::not_found, "what was stored did not come back");
    into.push_back(gb_per_s(plan_.round_bytes, took));
    return end(*ticket);
  }

  Result<> end(statecache::TicketId ticket) {
    if (const auto done = session_->cancel(ticket); !done) return from(done);
    if (const auto done = session_->drain(kPatience); !done) return from(done);
    return {};
  }

  /// One of the plain ways a round, in turns; the same direction, cold as ours.
  void plain(std::uint64_t at, std::uint32_t turn) {
    const auto each = [&](auto&& copy) {
      const auto start = SteadyClock::now();
      for (std::uint64_t i = 0; i < plan_.round_bytes; i += plan_.object_bytes) {
        std::byte* engine = engine_.at(at + i);
        std::byte* arena = plain_.at(at + i);
        copy(plan_.restore ? engine : arena, plan_.restore ? arena : engine);
      }
      return gb_per_s(plan_.round_bytes, micros_since(start));
    };
    const std::size_t bytes = plan_.object_bytes;
    const auto plain_copy = [bytes](std::byte* to, const std::byte* in) {
      std::memcpy(to, in, bytes);
    };
    const auto streaming = [bytes](std::byte* to, const std::byte* in) {
      copy_streaming(to, in, bytes);
    };
    if (turn % 2 == 0) {
      memcpy_.push_back(each(plain_copy));
      streaming_.push_back(each(streaming));
    } else {
      streaming_.push_back(each(streaming));
      memcpy_.push_back(each(plain_copy));
    }
    if (staged()) {
      fused_.push_back(each([&](std::byte* to, const std::byte* in) {
        checksum_ ^= bare_fused_copy(to, in, bytes, turn).low;
      }));
    }
    hash_.push_back(
        each([&](std::byte*, const std::byte* in) { checksum_ ^= XXH3_128bits(in, bytes).low64; }));
  }

  CopyPlan plan_;
  PrivateDaemon daemon_;
  std::optional<statecache::Session> session_;
  Block engine_;
  Block plain_;
  Round round_;
  std::vector<statecache::Token> prompt_;
  Flags flags_{};
  std::uint32_t turn_ = 0;
  std::uint64_t checksum_ = 0;
  Samples ours_, memcpy_, streaming_, hash_, fused_;
};

}  // namespace

double CopyReport::ceiling() const noexcept {
  if (plan.path == StorePath::staged) return fused_gb_per_s;
  return std::max(memcpy_gb_per_s, streaming_gb_per_s);
}

Result<CopyReport> bench_copies(const CopyPlan& wish) {
  CopyPlan plan = wish;
  // Long rounds: the daemon's copy of the last part is waited for in each.
  if (plan.path == StorePath::staged) plan.round_bytes *= 4;
  if (plan.object_bytes == 0 || plan.round_bytes % plan.object_bytes != 0 ||
      plan.round_bytes / plan.object_bytes > Flags{}.size()) {
    return fail(Errc::invalid_argument,
                fmt::format("--size must divide {} into at most {} objects",
                            format_size(plan.round_bytes),
                            Flags{}.size()));
  }
  Bench bench(plan);
  return bench.run();
}

std::string to_json(const CopyReport& r) {
  std::string out = fmt::format(
      "{{\"gb_per_s\":{:.3f},\"ceiling_gb_per_s\":{:.3f},\"ratio\":{:.3f},\"memcpy_gb_per_s\":{:."
      "3f},"
      "\"streaming_gb_per_s\":{:.3f},\"hash_gb_per_s\":{:.3f},\"object_bytes\":{},\"rounds\":{}",
      r.gb_per_s,
      r.ceiling(),
      r.ratio(),
      r.memcpy_gb_per_s,
      r.streaming_gb_per_s,
      r.hash_gb_per_s,
      r.plan.object_bytes,
      r.plan.rounds);
  if (r.plan.path == StorePath::staged) {
    out += fmt::format(",\"path\":\"staged\",\"fused_gb_per_s\":{:.3f}", r.fused_gb_per_s);
  } else if (!r.plan.restore) {
    out += ",\"path\":\"trusted\"";
  }
  return out + "}";
}

std::string to_text(const CopyReport& r) {
  const bool staged = r.plan.path == StorePath::staged;
  std::string out =
      fmt::format("{}, objects of {}: {:.2f} GB/s, {:.0f} % of {}\n",
                  r.plan.restore ? "restore"
                  : staged       ? "staged store"
                                 : "store",
                  format_size(r.plan.object_bytes),
                  r.gb_per_s,
                  100 * r.ratio(),
                  staged ? "a bare loop that copies and hashes" : "the best plain copy");
  out += fmt::format("memcpy {:.2f}, streaming {:.2f}, XXH3-128 {:.2f} GB/s\n",
                     r.memcpy_gb_per_s,
                     r.streaming_gb_per_s,
                     r.hash_gb_per_s);
  return out;
}

}  // namespace statecached::ctl
