// Two measurements: time to the first token with and without, and what the cache costs where it never helps.

#include "base/prng.hpp"
#include "client/engine/programs.hpp"
#include "client/workload/percentiles.hpp"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace statecached::engine {
namespace {

/// Text of `size` bytes that no other number has: each line begins with it.
std::vector<Token> text_of(std::uint64_t number, std::uint32_t size) {
  std::vector<Token> out;
  Prng chance(mix64(number));
  const std::string salt = fmt::format("{:016x} ", chance.next());
  while (out.size() < size) {
    const std::vector<Token> line = bytes_of(fmt::format("{}{} is what line {} says.\n", salt, chance.below(1000000), out.size()));
    out.insert(out.end(), line.begin(), line.end());
  }
  out.resize(size);
  return out;
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

int bench_ttft(const Options& options, const Model& model, statecache::Session& session) {
  Engine with(model, &session);
  Engine without(model, nullptr);
  std::vector<double> cold, miss;
  std::array<std::vector<double>, 3> hits;
  std::uint32_t different = 0;
  std::uint32_t partial = 0;
  std::vector<Turn> plain;
  const std::uint64_t base = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  const auto again = [&](std::uint32_t round) {
    const std::vector<Token> prompt = text_of(base + round, options.tokens);
    Request request;
    request.prompt = prompt;
    const Turn turn = with.serve(request);
    if (!same(turn, plain[round])) ++different;
    if (turn.hit + 1 != options.tokens || turn.lowest == statecache::Tier::none) {
      ++partial;
      return;
    }
    hits[static_cast<std::size_t>(turn.lowest)].push_back(turn.first_token);
  };
  for (std::uint32_t round = 0; round < options.rounds; ++round) {
    const std::vector<Token> prompt = text_of(base + round, options.tokens);
    Request request;
    request.prompt = prompt;
    plain.push_back(without.serve(request));
    cold.push_back(plain.back().first_token);
    const Turn first = with.serve(request);
    miss.push_back(first.first_token);
    if (!same(first, plain.back())) ++different;
    again(round);
  }
  // All of them once more: those that had to leave host memory come from NVMe.
  for (std::uint32_t round = 0; round < options.rounds; ++round) again(round);
  const double none = nearest_rank(cold, 0.5);
  static constexpr std::array<const char*, 3> kNames{"device", "host", "nvme"};
  nlohmann::ordered_json out;
  out["tokens"] = options.tokens;
  out["rounds"] = options.rounds;
  out["without_cache_ms"] = 1e3 * none;
  out["miss_ms"] = 1e3 * nearest_rank(miss, 0.5);
  for (std::size_t t = 0; t < 3; ++t) {
    if (hits[t].empty()) continue;
    const double median = nearest_rank(hits[t], 0.5);
    out["full_hit"][kNames[t]] = {{"count", hits[t].size()}, {"ms", 1e3 * median}, {"longest_ms", 1e3 * nearest_rank(hits[t], 1)}, {"times_faster", none / median}};
  }
  out["partial_hits"] = partial;
  out["different_logits"] = different;
  if (options.json) {
    fmt::print("{}\n", out.dump(2));
  } else {
    fmt::print("time to the first token of {} tokens, median of {}:\n  without the cache   {:8.1f} ms\n  miss, and stored    {:8.1f} ms\n",
               options.tokens, options.rounds, 1e3 * none, 1e3 * nearest_rank(miss, 0.5));
    for (std::size_t t = 0; t < 3; ++t) {
      if (hits[t].empty()) continue;
      const double median = nearest_rank(hits[t], 0.5);
      fmt::print("  full hit, {:<10}{:8.1f} ms   {:6.1f} times faster ({} hits)\n", kNames[t], 1e3 * median, none / median, hits[t].size());
    }
    fmt::print("  not wholly there    {}\n  other logits        {}\n", partial, different);
  }
  return different == 0 ? 0 : 1;
}

int bench_overhead(const Options& options, const Model& model, statecache::Session& session) {
  Engine with(model, &session);
  Engine without(model, nullptr);
  struct Cost {
    double wall = 0, cpu = 0, cache = 0;
  };
  std::vector<double> wall, cpu, share;
  Cost sum_with, sum_without;
  std::uint32_t hits = 0;
  const std::uint64_t base = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  const auto measure = [&](Engine& engine, std::span<const Token> prompt) {
    Request request;
    request.prompt = prompt;
    request.generate = options.generate;
    const double from = cpu_seconds();
    const Turn turn = engine.serve(request);
    hits += turn.hit == 0 ? 0 : 1;
    return Cost{turn.whole, cpu_seconds() - from, turn.cache};
  };
  for (std::uint32_t round = 0; round < options.rounds; ++round) {
    const std::vector<Token> prompt = text_of(base + round, options.tokens);
    // Which goes first changes, so that warm caches favour neither.
    Cost a;
    Cost b;
    if (round % 2 == 0) {
      a = measure(with, prompt);
      b = measure(without, prompt);
    } else {
      b = measure(without, prompt);
      a = measure(with, prompt);
    }
    sum_with.wall += a.wall;
    sum_with.cpu += a.cpu;
    sum_with.cache += a.cache;
    share.push_back(a.cache / a.wall);
    sum_without.wall += b.wall;
    sum_without.cpu += b.cpu;
    wall.push_back(a.wall / b.wall - 1);
    cpu.push_back(a.cpu / b.cpu - 1);
  }
  nlohmann::ordered_json out;
  out["tokens"] = options.tokens;
  out["generated"] = options.generate;
  out["rounds"] = options.rounds;
  out["hits"] = hits;
  out["seconds"] = {{"with", sum_with.wall}, {"without", sum_without.wall}};
  out["cpu_seconds"] = {{"with", sum_with.cpu}, {"without", sum_without.cpu}};
  out["overhead_percent"] = {{"wall_median", 100 * nearest_rank(wall, 0.5)}, {"cpu_median", 100 * nearest_rank(cpu, 0.5)}};
  out["in_cache_calls"] = {{"seconds", sum_with.cache}, {"percent_median", 100 * nearest_rank(share, 0.5)}};
  if (options.json) {
    fmt::print("{}\n", out.dump(2));
  } else {
    fmt::print("{} prompts of {} tokens, {} generated, every one missed and stored:\n", options.rounds, options.tokens, options.generate);
    fmt::print("  seconds       {:.3f} with the cache, {:.3f} without; {:+.2f} % in the median pair\n", sum_with.wall, sum_without.wall, 100 * nearest_rank(wall, 0.5));
    fmt::print("  of these      {:.3f} s in the cache's calls; {:.2f} % in the median prompt\n", sum_with.cache, 100 * nearest_rank(share, 0.5));
    fmt::print("  CPU seconds   {:.3f} with the cache, {:.3f} without; {:+.2f} % in the median pair\n", sum_with.cpu, sum_without.cpu, 100 * nearest_rank(cpu, 0.5));
  }
  return hits == 0 ? 0 : 1;
}

}  // namespace statecached::engine
