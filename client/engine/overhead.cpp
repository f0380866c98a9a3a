// What the cache costs where it never helps: every prompt is new, and everything is stored.
//
// On a machine that does other things as well, one figure says little; so the same prompts are
// computed with the cache and without, by turns, in one process, and each pair gives one quotient.
// Their median has an interval that holds whatever the noise is distributed like: with n pairs, the
// ranks n/2 -+ 0.98 sqrt(n) of the sorted quotients hold the median in 95 of 100 measurements (the
// sign test, turned around).
//
// Three figures, from the one that others disturb least to the one that they disturb most: what the
// cache adds to this thread's CPU time; the share of the request that passes inside the cache's
// calls, waiting included, plus what it adds to the CPU time of computing (both sides of either
// quotient lose their core alike); the clock on the wall.

#include "client/engine/programs.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>
#include <sstream>

namespace statecached::engine {
namespace {

/// CPU seconds of this thread, and how often it lost its core to others.
struct Load {
  double cpu = 0;
  double preempted = 0;
};

Load load_now() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return {static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec),
          static_cast<double>(usage.ru_nivcsw)};
}

/// Process behind the socket; 0 where it cannot be found out.
pid_t process_behind(const std::string& path) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (path.size() >= sizeof to.sun_path) return 0;
  path.copy(to.sun_path, path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ucred peer{};
  socklen_t size = sizeof peer;
  const bool known = ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 &&
                     ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0;
  ::close(fd);
  return known ? peer.pid : 0;
}

/// CPU seconds of all threads of a process so far (proc(5), stat, utime and stime); 0 where it is
/// not known.
double cpu_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::size_t name = text.rfind(')');
  if (name == std::string::npos) return 0;
  std::istringstream fields(text.substr(name + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field)
    fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

struct Interval {
  double median = 0, low = 0, high = 0;
};

Interval interval_of(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  const auto n = static_cast<double>(samples.size());
  const auto at = [&](double rank) {
    return samples[static_cast<std::size_t>(std::clamp(rank, 0.0, n - 1))];
  };
  const double half = 0.98 * std::sqrt(n);
  const double middle = samples.size() % 2 == 1 ? at(n / 2) : (at(n / 2 - 1) + at(n / 2)) / 2;
  return {middle, at(std::floor(n / 2 - half)), at(std::ceil(n / 2 + half) - 1)};
}

nlohmann::ordered_json json_of(const Interval& interval) {
  return {{"median", interval.median}, {"low", interval.low}, {"high", interval.high}};
}

std::string percent(const Interval& interval) {
  return fmt::format(
      "{:+.2f} % ({:+.2f} to {:+.2f})", interval.median, interval.low, interval.high);
}

/// One request.
struct Cost {
  double wall = 0, cpu = 0, preempted = 0;
  double waited = 0;  ///< in the cache's calls, without a core
  Turn turn;
};

struct Samples {
  std::vector<double> wall, cpu, calls_and_slower, in_calls, find, load, reserve, store, end,
      waited;
  Cost with, without;
  std::uint32_t hits = 0, different = 0, refused = 0;
  std::uint64_t stored = 0;

  void add(const Cost& a, const Cost& b) {
    wall.push_back(100 * (a.wall / b.wall - 1));
    cpu.push_back(100 * (a.cpu / b.cpu - 1));
    calls_and_slower.push_back(
        100 * (a.turn.cache / (a.wall - a.turn.cache) + (a.cpu - a.turn.cache_cpu) / b.cpu - 1));
    in_calls.push_back(100 * a.turn.cache / a.wall);
    find.push_back(1e3 * a.turn.find);
    load.push_back(1e3 * a.turn.load);
    reserve.push_back(1e3 * a.turn.reserve);
    store.push_back(1e3 * a.turn.store);
    end.push_back(1e3 * a.turn.end);
    waited.push_back(1e3 * a.waited);
    for (const auto& [sum, one] : {std::pair{&with, &a}, std::pair{&without, &b}}) {
      sum->wall += one->wall;
      sum->cpu += one->cpu;
      sum->preempted += one->preempted;
    }
    if (a.turn.hit != 0) ++hits;
    if (!same(a.turn, b.turn)) ++different;
    refused += a.turn.refused;
    stored += a.turn.stored;
  }
};

/// The salt makes the prompt one that shares nothing with any other, not even its first byte.
Cost measure(Engine& engine,
             std::span<const Token> prompt,
             std::uint32_t generate,
             std::uint64_t salt) {
  Request request;
  request.prompt = prompt;
  request.generate = generate;
  request.salt = salt;
  const Load before = load_now();
  Cost out;
  out.turn = engine.serve(request);
  const Load after = load_now();
  out.wall = out.turn.whole;
  out.cpu = after.cpu - before.cpu;
  out.preempted = after.preempted - before.preempted;
  out.waited = std::max(0.0, out.turn.cache - out.turn.cache_cpu);
  return out;
}

void print(const Options& options, const Samples& s, double daemon_cpu) {
  nlohmann::ordered_json out;
  out["tokens"] = options.tokens;
  out["generated"] = options.generate;
  out["pairs"] = s.wall.size();
  out["hits"] = s.hits;
  out["different_logits"] = s.different;
  out["objects"] = {{"stored", s.stored}, {"refused", s.refused}};
  out["overhead_percent"] = {
      {"cpu", json_of(interval_of(s.cpu))},
      {"calls_and_slower_computing", json_of(interval_of(s.calls_and_slower))},
      {"wall", json_of(interval_of(s.wall))}};
  out["in_cache_calls"] = {{"percent", json_of(interval_of(s.in_calls))},
                           {"ms",
                            {{"find", interval_of(s.find).median},
                             {"load", interval_of(s.load).median},
                             {"reserve", interval_of(s.reserve).median},
                             {"store", interval_of(s.store).median},
                             {"end", interval_of(s.end).median},
                             {"waiting", interval_of(s.waited).median}}}};
  out["seconds"] = {{"with", s.with.wall}, {"without", s.without.wall}};
  out["cpu_seconds"] = {{"with", s.with.cpu}, {"without", s.without.cpu}, {"daemon", daemon_cpu}};
  out["preempted"] = {{"with", s.with.preempted}, {"without", s.without.preempted}};
  if (options.json) {
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print(
      "{} prompts of {} tokens, {} generated, each with the cache (missed, and stored) and "
      "without:\n",
      s.wall.size(),
      options.tokens,
      options.generate);
  fmt::print("what the cache adds in the median pair, and where 95 of 100 such medians lie:\n");
  fmt::print(
      "  CPU time                    {}\n  calls and slower computing  {}\n  wall clock            "
      "      {}\n",
      percent(interval_of(s.cpu)),
      percent(interval_of(s.calls_and_slower)),
      percent(interval_of(s.wall)));
  fmt::print(
      "  inside the cache's calls    {:.2f} % of the request: {:.2f} ms find, {:.2f} load, {:.2f} "
      "reserve, {:.2f} store, {:.2f} end; {:.2f} of it waiting\n",
      interval_of(s.in_calls).median,
      interval_of(s.find).median,
      interval_of(s.load).median,
      interval_of(s.reserve).median,
      interval_of(s.store).median,
      interval_of(s.end).median,
      interval_of(s.waited).median);
  fmt::print(
      "in all: {:.3f} s with, {:.3f} s without; CPU {:.3f} s and {:.3f} s, of the daemon {:.3f} s; "
      "lost the core {:.0f} and {:.0f} times\n",
      s.with.wall,
      s.without.wall,
      s.with.cpu,
      s.without.cpu,
      daemon_cpu,
      s.with.preempted,
      s.without.preempted);
  fmt::print("{} objects stored, {} refused; {} hits, {} other logits\n",
             s.stored,
             s.refused,
             s.hits,
             s.different);
}

}  // namespace

int bench_overhead(const Options& options, const Model& model, statecache::Session& session) {
  Engine with(model, &session);
  Engine without(model, nullptr);
  const std::uint64_t base =
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  const pid_t daemon = process_behind(options.socket);
  // One of each that does not count: pages, branches and the daemon are warm then.
  const std::vector<Token> warm = text_of(base, options.tokens);
  static_cast<void>(measure(with, warm, options.generate, base));
  static_cast<void>(measure(without, warm, options.generate, base));
  Samples samples;
  const double daemon_before = cpu_of(daemon);
  for (std::uint32_t round = 0; round < options.rounds; ++round) {
    const std::uint64_t number = base + 1 + round;
    const std::vector<Token> prompt = text_of(number, options.tokens);
    // Which goes first changes: what the daemon still writes behind falls on both alike.
    if (round % 2 == 0) {
      const Cost a = measure(with, prompt, options.generate, number);
      samples.add(a, measure(without, prompt, options.generate, number));
    } else {
      const Cost b = measure(without, prompt, options.generate, number);
      samples.add(measure(with, prompt, options.generate, number), b);
    }
  }
  print(options, samples, cpu_of(daemon) - daemon_before);
  return samples.hits == 0 && samples.different == 0 ? 0 : 1;
}

}  // namespace statecached::engine
