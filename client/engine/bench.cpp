// Time to the first token, with the cache and without.

#include "base/prng.hpp"
#include "client/engine/programs.hpp"
#include "client/workload/percentiles.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>

namespace statecached::engine {

std::vector<Token> text_of(std::uint64_t number, std::uint32_t size) {
  std::vector<Token> out;
  Prng chance(mix64(number));
  const std::string salt = fmt::format("{:016x} ", chance.next());
  while (out.size() < size) {
    const std::vector<Token> line = bytes_of(
        fmt::format("{}{} is what line {} says.\n", salt, chance.below(1000000), out.size()));
    out.insert(out.end(), line.begin(), line.end());
  }
  out.resize(size);
  return out;
}

int bench_ttft(const Options& options, const Model& model, statecache::Session& session) {
  Engine with(model, &session);
  Engine without(model, nullptr);
  std::vector<double> cold, miss;
  std::array<std::vector<double>, 3> hits;
  std::uint32_t different = 0;
  std::uint32_t partial = 0;
  std::vector<Turn> plain;
  const std::uint64_t base =
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
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
  for (std::uint32_t round = 0; round < options.rounds; ++round)
    again(round);
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
    out["full_hit"][kNames[t]] = {{"count", hits[t].size()},
                                  {"ms", 1e3 * median},
                                  {"longest_ms", 1e3 * nearest_rank(hits[t], 1)},
                                  {"times_faster", none / median}};
  }
  out["partial_hits"] = partial;
  out["different_logits"] = different;
  if (options.json) {
    fmt::print("{}\n", out.dump(2));
  } else {
    fmt::print(
        "time to the first token of {} tokens, median of {}:\n  without the cache   {:8.1f} ms\n  "
        "miss, and stored    {:8.1f} ms\n",
        options.tokens,
        options.rounds,
        1e3 * none,
        1e3 * nearest_rank(miss, 0.5));
    for (std::size_t t = 0; t < 3; ++t) {
      if (hits[t].empty()) continue;
      const double median = nearest_rank(hits[t], 0.5);
      fmt::print("  full hit, {:<10}{:8.1f} ms   {:6.1f} times faster ({} hits)\n",
                 kNames[t],
                 1e3 * median,
                 none / median,
                 hits[t].size());
    }
    fmt::print("  not wholly there    {}\n  other logits        {}\n", partial, different);
  }
  return different == 0 ? 0 : 1;
}

}  // namespace statecached::engine
