// statecache-engine: a small hybrid model that serves text with a running statecached.

#include "client/engine/programs.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace statecached::engine {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

void describe(CLI::App& app, Options& o) {
  app.set_version_flag("--version", "statecache-engine " STATECACHED_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--socket", o.socket, "control socket of the daemon")->capture_default_str();
  app.add_option("--generate", o.generate, "tokens of an answer")
      ->capture_default_str()
      ->check(CLI::Range(1U, 512U));
  app.add_flag("--no-cache", o.no_cache, "compute everything (chat and talks)");
  app.add_flag("--json", o.json, "one JSON object on standard output");
  app.add_subcommand("chat", "one conversation, a line of standard input a turn");
  CLI::App* talks = app.add_subcommand(
      "talks",
      "conversations about the documents in a folder, each turn with the cache and without");
  talks->add_option("folder", o.folder, "where the documents are")->capture_default_str();
  talks->add_option("--talks", o.talks, "conversations")
      ->capture_default_str()
      ->check(CLI::Range(1U, 10000U));
  talks->add_option("--turns", o.turns, "turns of each")
      ->capture_default_str()
      ->check(CLI::Range(1U, 30U));
  talks->add_option("--active", o.active, "conversations going on at a time")
      ->capture_default_str()
      ->check(CLI::Range(1U, 1000U));
  talks->add_option("--document", o.document, "bytes of a document")
      ->capture_default_str()
      ->check(CLI::Range(200U, 4000U));
  talks->add_option("--seconds", o.seconds, "begin no turn after so long")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  const auto bench = [&](const char* name, const char* what) {
    CLI::App* sub = app.add_subcommand(name, what);
    sub->add_option("--tokens", o.tokens, "of each prompt")
        ->capture_default_str()
        ->check(CLI::Range(64U, 7000U));
    sub->add_option("--rounds", o.rounds, "prompts")
        ->capture_default_str()
        ->check(CLI::Range(1U, 10000U));
  };
  bench("bench-ttft", "time to the first token: computed, and restored from each tier");
  bench("bench-overhead", "what the cache costs when it never hits");
}

int run(const CLI::App& app, const Options& options) {
  const Model model(ModelConfig::small());
  std::optional<statecache::Session> session;
  if (!options.no_cache) {
    statecache::Member member;
    member.program = "statecache-engine";
    const auto pid = static_cast<std::uint64_t>(::getpid());
    std::memcpy(member.engine.data(), &pid, sizeof pid);
    auto attached = statecache::Session::attach(
        options.socket, namespace_of(model.config(), 1, EngineOptions{}.block_tokens), member);
    if (!attached) {
      fmt::print(stderr, "statecache-engine: {}: {}\n", options.socket, attached.status().text);
      return kFailed;
    }
    session.emplace(std::move(*attached));
  }
  statecache::Session* cache = session ? &*session : nullptr;
  if (app.got_subcommand("chat")) return chat(options, model, cache);
  if (app.got_subcommand("talks")) return talks(options, model, cache);
  if (cache == nullptr) {
    fmt::print(stderr, "statecache-engine: a bench needs the cache\n");
    return kWrongUsage;
  }
  return app.got_subcommand("bench-ttft") ? bench_ttft(options, model, *cache)
                                          : bench_overhead(options, model, *cache);
}

}  // namespace
}  // namespace statecached::engine

int main(int argc, char** argv) {
  statecached::engine::Options options;
  CLI::App app("A small hybrid language model on the CPU that keeps its state in statecached.",
               "statecache-engine");
  statecached::engine::describe(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "statecache-engine: %s\n", error.what());
    return statecached::engine::kWrongUsage;
  }
  return statecached::engine::run(app, options);
}
