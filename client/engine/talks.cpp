// Conversations: typed ones, and ones about the documents in a folder, with the cache and without
// it side by side.

#include "base/prng.hpp"
#include "client/engine/programs.hpp"
#include "client/workload/percentiles.hpp"
#include "client/workload/progress.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

namespace statecached::engine {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::string_view kPreamble =
    "You answer questions about the documents of a program that is used by people who run language "
    "models. "
    "Answer from the document below, name the sentence that the answer comes from, and be "
    "brief.\n\n";

struct Talk {
  std::vector<Token> history;
  const std::vector<Token>* document = nullptr;
  std::uint32_t turns = 0;
};

struct Sums {
  std::uint32_t turns = 0, different = 0, errors = 0, refused = 0, stored = 0;
  std::uint64_t prompt = 0, hit = 0;
  std::array<std::uint64_t, 3> by_tier{};
  double prefill_with = 0, prefill_without = 0;
  std::vector<double> with, without, miss;  ///< seconds to the first token
  std::array<std::vector<double>, 3> by_lowest;
  std::string first_error, question, answer;
};

/// What can be shown of bytes that mean nothing.
std::string shown(std::span<const Token> tokens) {
  std::string out;
  for (const Token token : tokens) {
    if (token >= 0x20 && token < 0x7f) {
      out += static_cast<char>(token);
    } else {
      out += fmt::format("\\x{:02x}", token & 0xffU);
    }
  }
  return out;
}

std::string thousands(std::uint64_t value) {
  std::string text = std::to_string(value);
  for (std::size_t at = text.size(); at > 3; at -= 3)
    text.insert(at - 3, 1, ',');
  return text;
}

void count(Sums& sums, const Turn& with, const Turn& without, std::size_t prompt) {
  ++sums.turns;
  sums.prompt += prompt;
  sums.hit += with.hit;
  sums.stored += with.stored;
  sums.refused += with.refused;
  sums.errors += with.cache_errors;
  if (sums.first_error.empty()) sums.first_error = with.first_error;
  for (std::size_t t = 0; t < sums.by_tier.size(); ++t)
    sums.by_tier[t] += with.by_tier[t];
  sums.prefill_with += with.prefill;
  sums.prefill_without += without.prefill;
  sums.with.push_back(with.first_token);
  sums.without.push_back(without.first_token);
  if (with.hit == 0) {
    sums.miss.push_back(with.first_token);
  } else if (with.lowest != statecache::Tier::none) {
    sums.by_lowest[static_cast<std::size_t>(with.lowest)].push_back(with.first_token);
  }
  if (!same(with, without)) ++sums.different;
}

void print_json(Sums& s) {
  static constexpr std::array<const char*, 3> kNames{"device", "host", "nvme"};
  nlohmann::ordered_json out;
  out["turns"] = s.turns;
  out["prompt_tokens"] = s.prompt;
  out["hit_tokens"] = s.hit;
  for (std::size_t t = 0; t < 3; ++t)
    out["hit_tokens_by_tier"][kNames[t]] = s.by_tier[t];
  out["prefill_seconds"] = {{"without_cache", s.prefill_without}, {"with_cache", s.prefill_with}};
  out["ttft_ms"] = {{"without_cache", 1e3 * nearest_rank(s.without, 0.5)},
                    {"with_cache", 1e3 * nearest_rank(s.with, 0.5)}};
  out["objects_stored"] = s.stored;
  out["refused_reservations"] = s.refused;
  out["different_logits"] = s.different;
  out["errors"] = s.errors;
  fmt::print("{}\n", out.dump(2));
}

void print_table(Sums& s, double seconds) {
  const auto row = [](const char* what, const std::string& value) {
    fmt::print("  {:<30}{}\n", what, value);
  };
  const auto share = [](double part, double whole) { return whole > 0 ? 100 * part / whole : 0; };
  const auto first = [&](const char* what, std::vector<double>& samples) {
    if (samples.empty()) return;
    const double median = nearest_rank(samples, 0.5);
    row(what,
        fmt::format("{:8.1f} ms   ({} turns, longest {:.1f} ms)",
                    1e3 * median,
                    samples.size(),
                    1e3 * nearest_rank(samples, 1)));
  };
  if (!s.question.empty()) {
    fmt::print("  one of the questions:  ...{}\n", s.question);
    fmt::print(
        "  and what it generated: {}\n  (the weights are random numbers: it knows nothing, but "
        "computes what a model computes)\n\n",
        s.answer);
  }
  row("turns served",
      fmt::format("{}, each with the cache and without, in {:.0f} s", s.turns, seconds));
  row("prompt tokens", thousands(s.prompt));
  row("  restored, not computed",
      fmt::format("{} ({:.1f} %)",
                  thousands(s.hit),
                  share(static_cast<double>(s.hit), static_cast<double>(s.prompt))));
  static constexpr std::array<const char*, 3> kNames{
      "    from device memory", "    from host memory", "    from NVMe"};
  for (std::size_t t = 0; t < 3; ++t) {
    if (s.by_tier[t] != 0) row(kNames[t], thousands(s.by_tier[t]));
  }
  row("seconds of prefill",
      fmt::format("{:.2f} with the cache, {:.2f} without ({:.0f} % saved)",
                  s.prefill_with,
                  s.prefill_without,
                  share(s.prefill_without - s.prefill_with, s.prefill_without)));
  fmt::print("  time to the first token, median\n");
  first("  without the cache", s.without);
  first("  with it, all turns", s.with);
  first("    nothing restored", s.miss);
  first("    restored from device", s.by_lowest[0]);
  first("    restored from host memory", s.by_lowest[1]);
  first("    restored from NVMe", s.by_lowest[2]);
  row("objects stored, refused", fmt::format("{}, {}", thousands(s.stored), s.refused));
  row("turns with other logits",
      s.different == 0 ? "none: what was restored is bit for bit what is computed"
                       : std::to_string(s.different));
  if (s.errors != 0) row("ERRORS", fmt::format("{}, the first: {}", s.errors, s.first_error));
}

}  // namespace

bool same(const Turn& a, const Turn& b) {
  return a.generated == b.generated &&
         std::memcmp(a.last_logits.data(), b.last_logits.data(), kVocabulary * sizeof(float)) == 0;
}

std::vector<Token> bytes_of(std::string_view text) {
  std::vector<Token> out(text.size());
  std::transform(text.begin(), text.end(), out.begin(), [](char c) {
    return static_cast<Token>(static_cast<unsigned char>(c));
  });
  return out;
}

std::vector<std::vector<Token>> documents_in(const std::string& folder,
                                             std::size_t least,
                                             std::size_t most) {
  std::vector<fs::path> paths;
  std::error_code error;
  fs::recursive_directory_iterator it(folder, fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    const std::string ending = it->path().extension().string();
    if (it->is_directory() && (name.starts_with(".") || name.starts_with("build"))) {
      it.disable_recursion_pending();
    } else if (it->is_regular_file() &&
               (ending == ".md" || ending == ".txt" || ending == ".hpp" || ending == ".toml")) {
      paths.push_back(it->path());
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::vector<Token>> out;
  for (const fs::path& path : paths) {
    std::ifstream file(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (text.size() >= least) out.push_back(bytes_of(std::string_view(text).substr(0, most)));
  }
  return out;
}

int chat(const Options& options, const Model& model, statecache::Session* session) {
  Engine engine(model, session);
  std::vector<Token> history = bytes_of(kPreamble);
  std::string line;
  while (std::getline(std::cin, line)) {
    const std::vector<Token> question = bytes_of(line + "\n");
    history.insert(history.end(), question.begin(), question.end());
    if (history.size() + options.generate > model.config().tokens_max) break;
    Request request;
    request.prompt = history;
    request.generate = options.generate;
    const Turn turn = engine.serve(request);
    fmt::print("{}\n  [{} tokens, {} restored; first token after {:.1f} ms]\n",
               shown(turn.generated),
               history.size(),
               turn.hit,
               1e3 * turn.first_token);
    history.insert(history.end(), turn.generated.begin(), turn.generated.end());
    if (turn.cache_errors != 0) fmt::print(stderr, "statecache-engine: {}\n", turn.first_error);
  }
  return 0;
}

int talks(const Options& options, const Model& model, statecache::Session* session) {
  const auto documents = documents_in(options.folder, options.document, options.document);
  if (documents.empty()) {
    fmt::print(stderr,
               "statecache-engine: {}: no text files of at least {} bytes\n",
               options.folder,
               options.document);
    return 1;
  }
  Engine with(model, session);
  Engine without(model, nullptr);
  Sums sums;
  Prng chance(11);
  const auto start = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  std::vector<Talk> open;
  std::uint32_t begun = 0;
  {
    Progress bar("talks", std::uint64_t{options.talks} * options.turns);
    while (elapsed() < options.seconds) {
      // Some documents come up twice: half of the talks are about the first half's documents.
      for (; open.size() < options.active && begun < options.talks; ++begun) {
        Talk& talk = open.emplace_back();
        talk.document = &documents[begun % (options.talks / 2 + 1) % documents.size()];
        talk.history = bytes_of(kPreamble);
        talk.history.insert(talk.history.end(), talk.document->begin(), talk.document->end());
      }
      if (open.empty()) break;
      const std::size_t pick = chance.below(open.size());
      Talk& talk = open[pick];
      // A question quotes a passage of the document.
      const std::size_t from = chance.below(talk.document->size() - 100);
      std::vector<Token> question = bytes_of("\n\nWhat is meant by: ");
      question.insert(question.end(),
                      talk.document->begin() + static_cast<std::ptrdiff_t>(from),
                      talk.document->begin() + static_cast<std::ptrdiff_t>(from + 80));
      question.push_back('?');
      question.push_back('\n');
      talk.history.insert(talk.history.end(), question.begin(), question.end());
      Request request;
      request.prompt = talk.history;
      request.generate = options.generate;
      const Turn fast = with.serve(request);
      const Turn slow = without.serve(request);
      count(sums, fast, slow, talk.history.size());
      sums.question = shown(std::span(question).last(60));
      sums.answer =
          shown(std::span(fast.generated).first(std::min<std::size_t>(fast.generated.size(), 16)));
      talk.history.insert(talk.history.end(), fast.generated.begin(), fast.generated.end());
      if (++talk.turns == options.turns)
        open.erase(open.begin() + static_cast<std::ptrdiff_t>(pick));
      if (bar.due())
        bar.at(sums.turns,
               fmt::format("{} turns, first token after {:.0f} ms instead of {:.0f} ms",
                           sums.turns,
                           1e3 * fast.first_token,
                           1e3 * slow.first_token));
    }
  }
  if (options.json) {
    print_json(sums);
  } else {
    print_table(sums, elapsed());
  }
  return sums.different == 0 && sums.errors == 0 ? 0 : 1;
}

}  // namespace statecached::engine
