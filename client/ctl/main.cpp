// statecachectl: asks a running daemon. Exit codes: 0 done, 1 failed, 2 wrong usage.

#include "base/units.hpp"
#include "client/ctl/ask.hpp"
#include "client/ctl/bench_ipc.hpp"
#include "client/ctl/bench_nvme.hpp"
#include "client/ctl/bench_store.hpp"
#include "client/ctl/show.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iostream>
#include <iterator>
#include <thread>

namespace statecached::ctl {
namespace {

constexpr const char* kDefaultSocket = "/run/statecached/control.sock";

/// What a subcommand filled in.
struct Call {
  std::string socket = kDefaultSocket;
  bool json = false;
  wire::AdminMessage message;
  std::string ns;
  std::string tenant;
  std::string tier;
  std::string sort;
  std::string tokens_file;
  std::string prefix;
  std::uint64_t limit = 0;
  bool follow = false;
  bool resume = false;
  NvmeBenchCall nvme;
  std::string size = "1MiB";
  std::string file = "512MiB";
  IpcPlan ipc;
  CopyPlan copies;
  bool staged = false;
};

/// Numbers separated by anything else: a JSON list, a column, a line.
Result<std::vector<Token>> read_tokens(const std::string& name) {
  std::ifstream file;
  if (name != "-") file.open(name);
  std::istream& in = name == "-" ? std::cin : file;
  if (!in) return fail(Errc::not_found, fmt::format("cannot read {}", name));
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  std::vector<Token> out;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    if (*at < '0' || *at > '9') {
      ++at;
      continue;
    }
    Token token = 0;
    const auto [next, error] = std::from_chars(at, end, token);
    if (error != std::errc{})
      return fail(Errc::invalid_argument, fmt::format("{}: a token is below 2^32", name));
    out.push_back(token);
    at = next;
  }
  if (out.empty()) return fail(Errc::invalid_argument, fmt::format("{} holds no token", name));
  return out;
}

void add(Call& call, std::string_view key, const std::string& value) {
  if (!value.empty()) call.message.arguments.push_back(fmt::format("{}={}", key, value));
}

Result<> complete(Call& call) {
  add(call, "namespace", call.ns);
  add(call, "tenant", call.tenant);
  add(call, "tier", call.tier);
  add(call, "sort", call.sort);
  add(call, "prefix", call.prefix);
  if (call.limit != 0) add(call, "limit", std::to_string(call.limit));
  if (call.resume) add(call, "resume", "true");
  if (!call.tokens_file.empty()) {
    SC_ASSIGN(call.message.tokens, read_tokens(call.tokens_file));
  }
  return {};
}

/// One object a line with --json; every answer is one, so `--follow` is a stream of them.
int print(const Call& call, const std::string& json) {
  if (call.json) {
    fmt::print("{}\n", json);
    return 0;
  }
  const auto text = show(call.message.command, json);
  if (!text) {
    fmt::print(stderr, "statecachectl: {}\n", text.error().message());
    return 1;
  }
  fmt::print("{}", *text);
  return 0;
}

template <class Report>
int print_report(const Call& call, const Result<Report>& report) {
  if (!report) {
    fmt::print(stderr, "statecachectl: {}\n", report.error().message());
    return 1;
  }
  fmt::print("{}", call.json ? to_json(*report) + "\n" : to_text(*report));
  return 0;
}

int bench_drive(Call& call) {
  const auto size = parse_size(call.size);
  const auto file = parse_size(call.file);
  if (!size || !file) {
    fmt::print(stderr, "statecachectl: {}\n", (size ? file : size).error().message());
    return 2;
  }
  call.nvme.block = *size;
  call.nvme.file_bytes = *file;
  call.nvme.socket = call.socket;
  const auto json = bench_nvme(call.nvme);
  if (!json) {
    fmt::print(stderr, "statecachectl: {}\n", json.error().message());
    return json.error().code == Errc::invalid_argument ? 2 : 1;
  }
  fmt::print("{}", call.json ? *json + "\n" : nvme_text(*json));
  return 0;
}

int bench(Call& call) {
  if (call.message.command == "bench ipc") {
    call.ipc.idle_rounds = std::max(call.ipc.rounds / 40, 100U);
    return print_report(call, bench_ipc(call.ipc));
  }
  call.copies.restore = call.message.command == "bench restore";
  if (call.staged) call.copies.path = StorePath::staged;
  const auto bytes = parse_size(call.size);
  if (!bytes) {
    fmt::print(stderr, "statecachectl: --size: {}\n", bytes.error().message());
    return 2;
  }
  call.copies.object_bytes = *bytes;
  return print_report(call, bench_copies(call.copies));
}

int run(Call& call) {
  if (call.message.command == "bench nvme") return bench_drive(call);
  if (call.message.command.starts_with("bench ")) return bench(call);
  if (const auto ready = complete(call); !ready) {
    fmt::print(stderr, "statecachectl: {}\n", ready.error().message());
    return 2;
  }
  for (;;) {
    const auto json = ask(call.socket, call.message);
    if (!json) {
      fmt::print(stderr, "statecachectl: {}\n", json.error().message());
      return json.error().code == Errc::invalid_argument ? 2 : 1;
    }
    const std::uint64_t newest = call.follow ? last_event(*json) : 0;
    if (!call.follow || newest != 0) {
      if (const int code = print(call, *json); code != 0) return code;
    }
    if (!call.follow) return reports_failure(call.message.command, *json) ? 1 : 0;
    std::fflush(stdout);
    if (newest != 0) call.message.arguments = {fmt::format("since={}", newest), "limit=4096"};
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

void plain(CLI::App& app, Call& call, const char* name, const char* help) {
  app.add_subcommand(name, help)->callback([&call, name] { call.message.command = name; });
}

void commands(CLI::App& app, Call& call) {
  plain(app, call, "status", "version, tiers, hit rates, clients, health");
  plain(app, call, "namespaces", "models served and what is stored of each");
  plain(app, call, "tenants", "what each tenant has and may have");
  plain(app, call, "clients", "attached processes and what they hold");
  plain(app, call, "flush", "return when what is committed is durable on NVMe");
  plain(app, call, "verify", "read and check everything on NVMe");
  plain(app, call, "audit", "recount every ledger against the objects");
  plain(app, call, "metrics", "the Prometheus page");

  CLI::App* ls = app.add_subcommand("ls", "objects");
  ls->add_option("namespace", call.ns, "only of this namespace");
  ls->add_option("--tier", call.tier, "only in this tier")
      ->check(CLI::IsMember({"device", "host", "nvme"}));
  ls->add_option("--sort", call.sort, "order")
      ->check(CLI::IsMember({"keep", "bytes", "age", "depth"}));
  ls->add_option("--limit", call.limit, "at most this many (100)")->check(CLI::PositiveNumber);
  ls->callback([&call] { call.message.command = "ls"; });

  CLI::App* explain = app.add_subcommand("explain", "what is stored of a prefix, and why not more");
  explain->add_option("namespace", call.ns, "its namespace")->required();
  auto* how = explain->add_option_group("prefix");
  how->add_option(
      "--tokens", call.tokens_file, "file with the prompt's tokens; - is standard input");
  how->add_option("--prefix", call.prefix, "id of the object that ends it");
  how->require_option(1);
  explain->callback([&call] { call.message.command = "explain"; });

  CLI::App* rm =
      app.add_subcommand("rm", "forget a namespace, or what a tenant stored, in every tier");
  auto* what = rm->add_option_group("what");
  what->add_option("namespace", call.ns, "which");
  what->add_option("--tenant", call.tenant, "all that this tenant stored, and what hangs on it");
  what->require_option(1);
  rm->callback([&call] { call.message.command = "rm"; });

  CLI::App* drain = app.add_subcommand("drain", "stop admitting, then flush: for a planned stop");
  drain->add_flag("--resume", call.resume, "admit again");
  drain->callback([&call] { call.message.command = "drain"; });

  CLI::App* events = app.add_subcommand("events", "what was stored, demoted, dropped, refused");
  events->add_flag("--follow", call.follow, "go on as they happen");
  events->add_option("--limit", call.limit, "the newest so many (100)")->check(CLI::PositiveNumber);
  events->callback([&call] { call.message.command = "events"; });

  CLI::App* config = app.add_subcommand("config", "the daemon's settings");
  config->add_subcommand("show", "as they are in effect")->callback([&call] {
    call.message.command = "config";
  });
  config->require_subcommand(1);

  CLI::App* bench = app.add_subcommand(
      "bench", "measures a private daemon against a floor taken in the same run");
  CLI::App* ipc = bench->add_subcommand("ipc", "round trips over shared memory");
  ipc->add_option("--rounds", call.ipc.rounds, "requests")
      ->capture_default_str()
      ->check(CLI::Range(100U, 10'000'000U));
  ipc->add_option("--prompts", call.ipc.prompts, "prompts they cycle over")
      ->capture_default_str()
      ->check(CLI::Range(1U, 100'000U));
  ipc->add_option("--objects", call.ipc.tree_objects, "stored in the tree, at least")
      ->capture_default_str()
      ->check(CLI::Range(128U, 2'000'000U));
  ipc->callback([&call] { call.message.command = "bench ipc"; });
  CLI::App* store = bench->add_subcommand("store", "an engine's memory into the arena");
  store
      ->add_option_function<std::string>(
          "--path",
          [&call](const std::string& path) { call.staged = path == "staged"; },
          "trusted: written in place; staged: by the daemon, which copies and hashes")
      ->check(CLI::IsMember({"trusted", "staged"}));
  store->callback([&call] { call.message.command = "bench store"; });
  CLI::App* restore = bench->add_subcommand("restore", "the arena into an engine's memory");
  restore->callback([&call] { call.message.command = "bench restore"; });
  for (CLI::App* copies : {store, restore}) {
    copies->add_option("--size", call.size, "of an object")->capture_default_str();
    copies->add_option("--rounds", call.copies.rounds, "of 16 MiB each")
        ->capture_default_str()
        ->check(CLI::Range(1U, 100'000U));
  }
  CLI::App* nvme = bench->add_subcommand("nvme", "the disk engine against bare io_uring");
  nvme->add_option("--size", call.size, "block")->capture_default_str();
  nvme->add_option("--file", call.file, "file, and what one pass moves")->capture_default_str();
  nvme->add_option("--pairs", call.nvme.pairs, "passes of each")
      ->capture_default_str()
      ->check(CLI::Range(1U, 1000U));
  nvme->add_option("--demand", call.nvme.demand_reads, "demand reads measured; 0: none")
      ->capture_default_str();
  nvme->add_option("--dir", call.nvme.folder, "folder on the drive, for a private daemon");
  nvme->add_flag("--attach", call.nvme.attach, "use the running daemon and its first drive");
  nvme->add_flag("!--no-fio", call.nvme.fio, "do not run fio as a witness");
  nvme->callback([&call] { call.message.command = "bench nvme"; });
  bench->require_subcommand(1);
}

}  // namespace
}  // namespace statecached::ctl

int main(int argc, char** argv) {
  using namespace statecached::ctl;
  Call call;
  CLI::App app("Asks a running statecached.", "statecachectl");
  app.set_version_flag("--version", "statecachectl " STATECACHED_VERSION);
  app.add_option("--socket", call.socket, "control socket of the daemon")
      ->envname("STATECACHED_SOCKET")
      ->capture_default_str();
  app.add_flag("--json", call.json, "one JSON object on standard output");
  app.require_subcommand(1);
  app.fallthrough();
  commands(app, call);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    fmt::print(stderr, "statecachectl: {} (statecachectl --help)\n", error.what());
    return 2;
  }
  return run(call);
}
