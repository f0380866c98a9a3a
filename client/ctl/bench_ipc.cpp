#include "client/ctl/bench_ipc.hpp"

#include "base/spec.hpp"
#include "base/unique_fd.hpp"
#include "client/ctl/bench_support.hpp"
#include "client/ctl/private_daemon.hpp"
#include "client/wire/records.hpp"

#include "statecache/client.hpp"
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <csignal>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

namespace statecached::ctl {
namespace {

constexpr auto kIdlePause =
    std::chrono::milliseconds(1);  // long past the 50 us that either side spins
constexpr std::uint32_t kPromptTokens = 8192;
constexpr std::uint32_t kBlockTokens = 64;
constexpr std::uint32_t kPieces = kPromptTokens / kBlockTokens;
constexpr std::uint64_t kBlockBytes = 4096;
constexpr auto kPatience = std::chrono::seconds(30);

// What really crosses: the record, its arguments and the tokens; the two completions, the answer
// with one point, and 32 bytes an object.
constexpr std::size_t kRequestBytes =
    sizeof(wire::Request) + sizeof(wire::BeginArgs) + kPromptTokens * sizeof(Token);
constexpr std::size_t kReplyBytes = 2 * sizeof(wire::Completion) + sizeof(wire::AnswerRecord) +
                                    sizeof(wire::PointRecord) + kPieces * sizeof(wire::PieceRecord);

using Prompt = std::vector<statecache::Token>;

std::vector<Prompt> make_prompts(std::uint32_t count) {
  std::vector<Prompt> out(count, Prompt(kPromptTokens));
  std::uint64_t state = 88172645463325252ULL;
  for (Prompt& prompt : out) {
    for (statecache::Token& token : prompt) {
      state ^= state << 13U;
      state ^= state >> 7U;
      state ^= state << 17U;
      token = static_cast<statecache::Token>(state % 150'000);
    }
  }
  return out;
}

void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value) {
  ::syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
}

/// The least that two processes need: two rings of byte strings whose reader copies every byte out,
/// and two words to sleep on.
class Floor {
 public:
  static Result<Floor> start(const TwoCores& cores) {
    Floor out;
    void* memory =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return fail_errno("mapping two rings");
    out.map_ = Mapping(memory, sizeof(Shared));
    out.shared_ = new (memory) Shared;
    const pid_t pid = ::fork();
    if (pid < 0) return fail_errno("starting the floor's other process");
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      pin(0, cores.theirs);
      serve(*out.shared_);
    }
    out.child_ = Child(pid);
    return out;
  }

  void awake(std::uint32_t rounds, const std::vector<Prompt>& prompts, Samples& into) {
    set_mode(kSpin);
    for (std::uint32_t i = 0; i < rounds; ++i) {
      const Prompt& prompt = prompts[i % prompts.size()];
      const auto start = SteadyClock::now();
      const std::uint32_t next = sent_ + 1;
      auto& request = shared_->requests[next % kSlots];
      std::memcpy(request.data() + kRequestBytes - kPromptTokens * sizeof(Token),
                  prompt.data(),
                  kPromptTokens * sizeof(Token));
      std::memcpy(request.data(), head_.data(), kRequestBytes - kPromptTokens * sizeof(Token));
      sent_ = next;
      shared_->there.store(next, std::memory_order_release);
      while (shared_->back.load(std::memory_order_acquire) != next)
        pause();
      std::memcpy(reply_.data(), shared_->replies[next % kSlots].data(), kReplyBytes);
      into.push_back(micros_since(start));
    }
    set_mode(kSleep);
  }

  void idle(Samples& into) {
    std::this_thread::sleep_for(kIdlePause);
    const auto start = SteadyClock::now();
    const std::uint32_t next = ++sent_;
    shared_->there.store(next);
    futex(shared_->there, FUTEX_WAKE, INT_MAX);
    for (std::uint32_t seen = shared_->back.load(); seen != next; seen = shared_->back.load())
      futex(shared_->back, FUTEX_WAIT, seen);
    into.push_back(micros_since(start));
  }

 private:
  static constexpr std::size_t kSlots = 16;
  static constexpr std::uint32_t kSleep = 0;
  static constexpr std::uint32_t kSpin = 1;

  struct Shared {
    alignas(64) std::atomic<std::uint32_t> there{0};
    alignas(64) std::atomic<std::uint32_t> back{0};
    alignas(64) std::atomic<std::uint32_t> mode{kSleep};
    alignas(64) std::array<std::array<std::byte, (kRequestBytes + 63) / 64 * 64>, kSlots> requests;
    alignas(64) std::array<std::array<std::byte, (kReplyBytes + 63) / 64 * 64>, kSlots> replies;
  };

  /// A round of no bytes makes the other side look at the mode.
  void set_mode(std::uint32_t mode) {
    shared_->mode.store(mode);
    const std::uint32_t next = ++sent_;
    shared_->there.store(next);
    futex(shared_->there, FUTEX_WAKE, INT_MAX);
    while (shared_->back.load() != next)
      pause();
  }

  [[noreturn]] static void serve(Shared& shared) {
    std::vector<std::byte> request(kRequestBytes);
    const std::vector<std::byte> reply(kReplyBytes, std::byte{1});
    std::uint32_t seen = 0;
    for (;;) {
      const bool spin = shared.mode.load(std::memory_order_relaxed) == kSpin;
      while (shared.there.load(std::memory_order_acquire) == seen) {
        if (spin) {
          pause();
        } else {
          futex(shared.there, FUTEX_WAIT, seen);
        }
      }
      seen = shared.there.load(std::memory_order_acquire);
      if (spin) {
        std::memcpy(request.data(), shared.requests[seen % kSlots].data(), kRequestBytes);
        std::memcpy(shared.replies[seen % kSlots].data(), reply.data(), kReplyBytes);
      }
      shared.back.store(seen, std::memory_order_release);
      if (!spin) futex(shared.back, FUTEX_WAKE, INT_MAX);
    }
  }

  Mapping map_;
  Shared* shared_ = nullptr;
  Child child_;
  std::uint32_t sent_ = 0;
  std::vector<std::byte> reply_ = std::vector<std::byte>(kReplyBytes);
  std::vector<std::byte> head_ = std::vector<std::byte>(kRequestBytes);
};

class Requests {
 public:
  static Result<Requests> attach(const std::string& socket) {
    statecache::NamespaceSpec spec;
    spec.name = "bench";
    statecache::Group kv;
    kv.name = "kv";
    kv.block_tokens = kBlockTokens;
    kv.max_bytes = kBlockBytes;
    spec.groups = {kv};
    spec.cost.c1 = 1e9;
    auto session = statecache::Session::attach(socket, spec, {});
    if (!session) return from(session.status());
    return Requests(std::move(*session));
  }

  /// Stores all blocks of the prompt; their bytes are nobody's concern here.
  Result<std::uint64_t> store(const Prompt& prompt) {
    statecache::Limits limits;
    limits.hold = statecache::Hold::none;
    statecache::Ask ask;
    ask.tokens = prompt;
    const auto ticket = session_.begin(ask, limits);
    if (!ticket) return from(ticket.status());
    std::vector<statecache::Want> wants;
    for (std::uint32_t first = 0; first < kPromptTokens; first += kBlockTokens)
      wants.push_back({0, first, first + kBlockTokens, 0});
    if (const auto asked = session_.reserve(*ticket, wants); !asked) return from(asked);
    const auto slots = session_.wait_slots(*ticket, kPatience);
    if (!slots) return from(slots.status());
    std::vector<statecache::Filled> filled;
    for (const statecache::Slot& slot : *slots) {
      if (slot.grant == statecache::Grant::granted) filled.push_back({slot.id, 0});
    }
    if (const auto sent = session_.commit(filled); !sent) return from(sent);
    if (const auto ended = end(*ticket); !ended) return from(ended);
    if (const auto drained = session_.drain(kPatience); !drained) return from(drained);
    return filled.size();
  }

  /// begin with a lease, until its addresses are there, and the release. The daemon serves the
  /// release while the next round's tokens are written; nothing waits for it.
  Result<> one(const Prompt& prompt, Samples& into) {
    statecache::Limits limits;
    limits.hold = statecache::Hold::lease;
    statecache::Ask ask;
    ask.tokens = prompt;
    const auto start = SteadyClock::now();
    const auto ticket = session_.begin(ask, limits);
    if (!ticket) return from(ticket.status());
    if (const auto leased = session_.wait_lease(*ticket, kPatience, lease_); !leased)
      return from(leased);
    if (const auto ended = end(*ticket); !ended) return from(ended);
    into.push_back(micros_since(start));
    if (lease_.tokens != kPromptTokens - 1 || lease_.pieces.size() != kPieces)
      return fail(Errc::internal,
                  fmt::format("a stored prompt came back with {} tokens in {} pieces",
                              lease_.tokens,
                              lease_.pieces.size()));
    return {};
  }

  Result<> drain() {
    if (const auto drained = session_.drain(kPatience); !drained) return from(drained);
    return {};
  }

 private:
  explicit Requests(statecache::Session session) : session_(std::move(session)) {}

  statecache::Status end(statecache::TicketId ticket) {
    if (auto finished = session_.finish(ticket); !finished) return finished;
    return session_.release(ticket);
  }

  statecache::Session session_;
  statecache::Lease lease_;
};

IpcTimes times(const Samples& rtt, const Samples& floor) {
  return {quantile(rtt, 0.5), quantile(rtt, 0.99), quantile(floor, 0.5), quantile(floor, 0.99)};
}

Result<> measure(const IpcPlan& plan,
                 const std::vector<Prompt>& prompts,
                 Floor& floor,
                 Requests& requests,
                 IpcReport& report) {
  Samples rtt;
  Samples bare;
  for (const Prompt& prompt : prompts)
    SC_TRY(requests.one(prompt, rtt));
  rtt.clear();
  // In turns, so that both meet the same moods of the machine.
  constexpr std::uint32_t kTurns = 20;
  std::size_t at = 0;
  for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
    for (std::uint32_t i = 0; i < plan.rounds / kTurns; ++i)
      SC_TRY(requests.one(prompts[at++ % prompts.size()], rtt));
    SC_TRY(requests.drain());
    floor.awake(plan.rounds / kTurns, prompts, bare);
  }
  report.awake = times(rtt, bare);
  rtt.clear();
  bare.clear();
  for (std::uint32_t i = 0; i < plan.idle_rounds; ++i) {
    std::this_thread::sleep_for(kIdlePause);
    SC_TRY(requests.one(prompts[i % prompts.size()], rtt));
    SC_TRY(requests.drain());
    floor.idle(bare);
  }
  report.idle = times(rtt, bare);
  return {};
}

}  // namespace

Result<IpcReport> bench_ipc(const IpcPlan& plan) {
  const TwoCores cores = two_cores();
  SC_ASSIGN(Floor floor, Floor::start(cores));  // forks before anything else is open
  PrivateDaemon daemon;
  const std::uint32_t tree = std::max(plan.tree_objects / kPieces + 1, plan.prompts);
  const std::uint64_t bytes = std::uint64_t{tree} * kPieces * kBlockBytes;
  SC_TRY(daemon.start(
      {}, {fmt::format("host.capacity={}MiB", (bytes >> 20U) + 64), "nvme.capacity=0"}));
  SC_ASSIGN(Requests requests, Requests::attach(daemon.socket()));
  IpcReport report;
  std::vector<Prompt> prompts = make_prompts(tree);
  for (const Prompt& prompt : prompts) {
    SC_ASSIGN(const std::uint64_t stored, requests.store(prompt));
    report.objects += stored;
  }
  prompts.resize(plan.prompts);
  pin(0, cores.ours);
  pin(daemon.pid(), cores.theirs);
  report.rounds = plan.rounds;
  report.idle_rounds = plan.idle_rounds;
  report.prompts = plan.prompts;
  report.pieces = kPieces;
  SC_TRY(measure(plan, prompts, floor, requests, report));
  const double before = cpu_seconds(daemon.pid());
  const auto start = SteadyClock::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(plan.idle_seconds));
  report.idle_daemon_s = micros_since(start) * 1e-6;
  report.idle_daemon_percent = 100 * (cpu_seconds(daemon.pid()) - before) / report.idle_daemon_s;
  return report;
}

std::string to_json(const IpcReport& r) {
  const auto pair = [](const char* key, double p50, double p99) {
    return fmt::format("\"{}\":{{\"p50\":{:.3f},\"p99\":{:.3f}}}", key, p50, p99);
  };
  const auto part = [&pair](const IpcTimes& t) {
    return fmt::format("{},{},\"ratio\":{:.3f},\"ratio_p99\":{:.3f}",
                       pair("rtt_us", t.rtt_p50, t.rtt_p99),
                       pair("floor_us", t.floor_p50, t.floor_p99),
                       t.ratio(),
                       t.ratio_p99());
  };
  return fmt::format(
      "{{{},\"idle\":{{{},\"daemon_cpu_percent\":{:.2f}}},\"rounds\":{},\"idle_rounds\":{},"
      "\"prompts\":{},\"objects\":{},\"pieces\":{}}}",
      part(r.awake),
      part(r.idle),
      r.idle_daemon_percent,
      r.rounds,
      r.idle_rounds,
      r.prompts,
      r.objects,
      r.pieces);
}

std::string to_text(const IpcReport& r) {
  const auto line = [](const char* name, const IpcTimes& t) {
    return fmt::format("{:<6} {:>9.2f} {:>9.2f}  {:>9.2f} {:>9.2f}  {:>9.2f} {:>9.2f}\n",
                       name,
                       t.rtt_p50,
                       t.rtt_p99,
                       t.floor_p50,
                       t.floor_p99,
                       t.ratio(),
                       t.ratio_p99());
  };
  return fmt::format(
             "begin with a lease of {} objects, then release; {} prompts, {} objects stored\n"
             "microseconds  p50       p99  floor p50       p99  ratio p50       p99\n",
             r.pieces,
             r.prompts,
             r.objects) +
         line("awake", r.awake) + line("idle", r.idle) +
         fmt::format("daemon without requests: {:.2f} % of a core\n", r.idle_daemon_percent);
}

}  // namespace statecached::ctl
