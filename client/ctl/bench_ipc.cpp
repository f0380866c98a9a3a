#include "client/ctl/bench_ipc.hpp"

#include "base/unique_fd.hpp"
#include "client/ctl/private_daemon.hpp"

#include "statecache/client.hpp"
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <filesystem>
#include <new>
#include <thread>
#include <vector>

namespace statecached::ctl {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Samples = std::vector<double>;
constexpr auto kIdlePause =
    std::chrono::milliseconds(1);  // long past the 50 us that either side spins
constexpr std::uint32_t kWarmUp = 500;

double micros_since(SteadyClock::time_point start) {
  return std::chrono::duration<double, std::micro>(SteadyClock::now() - start).count();
}

double quantile(Samples& samples, double q) {
  if (samples.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(samples.size() - 1));
  std::ranges::nth_element(samples, samples.begin() + at);
  return samples[static_cast<std::size_t>(at)];
}

/// A child process; killed and waited for.
class Child {
 public:
  Child() = default;

  explicit Child(pid_t pid) : pid_(pid) {}

  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

  Child& operator=(Child&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
  }

  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  [[nodiscard]] bool ended() {
    if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
    return pid_ < 0;
  }

 private:
  pid_t pid_ = -1;
};

/// The least that two processes need to hand a word over and get one back.
class Floor {
 public:
  static Result<Floor> start() {
    Floor out;
    void* memory =
        ::mmap(nullptr, sizeof(Words), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return fail_errno("mapping two shared words");
    out.map_ = Mapping(memory, sizeof(Words));
    out.words_ = new (memory) Words;
    out.bell_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
    if (!out.bell_) return fail_errno("making an eventfd");
    const pid_t pid = ::fork();
    if (pid < 0) return fail_errno("starting the floor's other process");
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      echo(*out.words_, out.bell_.get());
    }
    out.child_ = Child(pid);
    return out;
  }

  void awake(std::uint32_t rounds, Samples& into) {
    words_->spin.store(1);
    ring();  // it may sleep from an idle round
    for (std::uint32_t i = 0; i < rounds; ++i) {
      const auto start = SteadyClock::now();
      const std::uint32_t next = ++sent_;
      words_->there.store(next, std::memory_order_release);
      while (words_->back.load(std::memory_order_acquire) != next)
        pause();
      into.push_back(micros_since(start));
    }
    words_->spin.store(0);
  }

  void idle(Samples& into) {
    std::this_thread::sleep_for(kIdlePause);
    const auto start = SteadyClock::now();
    const std::uint32_t next = ++sent_;
    words_->there.store(next);
    ring();
    for (std::uint32_t seen = words_->back.load(); seen != next; seen = words_->back.load()) {
      ::syscall(SYS_futex, &words_->back, FUTEX_WAIT, seen, nullptr, nullptr, 0);
    }
    into.push_back(micros_since(start));
  }

 private:
  struct Words {
    alignas(64) std::atomic<std::uint32_t> there{0};
    alignas(64) std::atomic<std::uint32_t> back{0};
    alignas(64) std::atomic<std::uint32_t> spin{0};
  };

  static void pause() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void ring() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(bell_.get(), &one, sizeof one);
  }

  [[noreturn]] static void echo(Words& words, int bell) {
    std::uint32_t seen = 0;
    for (;;) {
      while (words.there.load(std::memory_order_acquire) == seen) {
        if (words.spin.load(std::memory_order_relaxed) != 0) {
          pause();
          continue;
        }
        std::uint64_t rings = 0;
        if (::read(bell, &rings, sizeof rings) < 0) ::_exit(1);
      }
      seen = words.there.load(std::memory_order_acquire);
      words.back.store(seen, std::memory_order_release);
      if (words.spin.load(std::memory_order_relaxed) == 0) {
        ::syscall(SYS_futex, &words.back, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
      }
    }
  }

  Mapping map_;
  Words* words_ = nullptr;
  UniqueFd bell_;
  Child child_;
  std::uint32_t sent_ = 0;
};

tl::unexpected<Error> from(const statecache::Status& status) {
  return fail(static_cast<Errc>(status.code), status.text);
}

class Requests {
 public:
  static Result<Requests> attach(const std::string& socket) {
    statecache::NamespaceSpec spec;
    spec.name = "bench";
    statecache::Group kv;
    kv.name = "kv";
    kv.max_bytes = 65536;
    spec.groups = {kv};
    spec.cost.c1 = 1e9;
    auto session = statecache::Session::attach(socket, spec, {});
    if (!session) return from(session.status());
    return Requests(std::move(*session));
  }

  /// begin with a lease of nothing, until it is there; the release travels between the rounds.
  Result<> one(Samples& into) {
    statecache::Limits limits;
    limits.hold = statecache::Hold::lease;
    statecache::Ask ask;
    ask.tokens = prompt_;
    const auto start = SteadyClock::now();
    const auto ticket = session_.begin(ask, limits);
    if (!ticket) return from(ticket.status());
    const auto lease = session_.wait_lease(*ticket, std::chrono::seconds(10));
    const double took = micros_since(start);
    if (!lease) return from(lease.status());
    into.push_back(took);
    if (const auto ended = session_.cancel(*ticket); !ended) return from(ended);
    if (const auto drained = session_.drain(std::chrono::seconds(10)); !drained)
      return from(drained);
    return {};
  }

 private:
  explicit Requests(statecache::Session session) : session_(std::move(session)) {}

  statecache::Session session_;
  std::vector<statecache::Token> prompt_{1, 2, 3, 4};
};

IpcTimes times(Samples& rtt, Samples& floor) {
  return {quantile(rtt, 0.5), quantile(rtt, 0.99), quantile(floor, 0.5), quantile(floor, 0.99)};
}

}  // namespace

Result<IpcReport> bench_ipc(std::uint32_t rounds, std::uint32_t idle_rounds) {
  SC_ASSIGN(Floor floor, Floor::start());  // forks before anything else is open
  PrivateDaemon daemon;
  SC_TRY(daemon.start({}, {"host.capacity=64MiB", "nvme.capacity=0"}));
  SC_ASSIGN(Requests requests, Requests::attach(daemon.socket()));
  Samples rtt;
  Samples bare;
  for (std::uint32_t i = 0; i < kWarmUp; ++i)
    SC_TRY(requests.one(rtt));
  rtt.clear();
  // In turns, so that both meet the same moods of the machine.
  constexpr std::uint32_t kTurns = 10;
  for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
    for (std::uint32_t i = 0; i < rounds / kTurns; ++i)
      SC_TRY(requests.one(rtt));
    floor.awake(rounds / kTurns, bare);
  }
  Samples idle_rtt;
  Samples idle_bare;
  for (std::uint32_t i = 0; i < idle_rounds; ++i) {
    std::this_thread::sleep_for(kIdlePause);
    SC_TRY(requests.one(idle_rtt));
    floor.idle(idle_bare);
  }
  return IpcReport{times(rtt, bare), times(idle_rtt, idle_bare), rounds, idle_rounds};
}

std::string to_json(const IpcReport& r) {
  const auto pair = [](const char* key, double p50, double p99) {
    return fmt::format("\"{}\":{{\"p50\":{:.3f},\"p99\":{:.3f}}}", key, p50, p99);
  };
  const auto part = [&pair](const IpcTimes& t) {
    return fmt::format("{},{},\"ratio\":{:.3f}",
                       pair("rtt_us", t.rtt_p50, t.rtt_p99),
                       pair("floor_us", t.floor_p50, t.floor_p99),
                       t.ratio());
  };
  return fmt::format("{{{},\"idle\":{{{}}},\"rounds\":{},\"idle_rounds\":{}}}",
                     part(r.awake),
                     part(r.idle),
                     r.rounds,
                     r.idle_rounds);
}

std::string to_text(const IpcReport& r) {
  const auto line = [](const char* name, const IpcTimes& t) {
    return fmt::format("{:<6} {:>9.2f} {:>9.2f}  {:>9.2f} {:>9.2f}  {:>6.2f}\n",
                       name,
                       t.rtt_p50,
                       t.rtt_p99,
                       t.floor_p50,
                       t.floor_p99,
                       t.ratio());
  };
  return "begin with a lease, microseconds\n          p50       p99  floor p50       p99   "
         "ratio\n" +
         line("awake", r.awake) + line("idle", r.idle);
}

}  // namespace statecached::ctl
