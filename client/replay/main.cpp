// statecache-replay: an engine's traffic against a running statecached, every restored byte
// checked.

#include "base/units.hpp"
#include "client/replay/replay.hpp"
#include "client/workload/model.hpp"
#include "client/workload/percentiles.hpp"
#include "client/workload/progress.hpp"
#include "client/workload/trace.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstdio>

namespace statecached {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;
constexpr std::array<const char*, kReplayTiers> kTierNames{"device", "host", "nvme"};

struct Arguments {
  std::string socket = "/run/statecached/control.sock", trace, model = "jamba-1.5-mini",
              state_dtype;
  std::string bytes_scale = "1", speed = "max";
  double engine_tflops = 400;
  std::uint32_t concurrency = 1, sessions = 1, block_tokens = 64;
  std::uint64_t limit = 0;
  bool no_verify = false, json = false;
};

int usage(const std::string& what) {
  std::fprintf(stderr, "statecache-replay: %s\n", what.c_str());
  return kWrongUsage;
}

int failed(const Error& error) {
  std::fprintf(
      stderr, "statecache-replay: %s\n", (error.os != 0 ? error.message() : error.text).c_str());
  return kFailed;
}

void describe(CLI::App& app, Arguments& a) {
  app.set_version_flag("--version", "statecache-replay " STATECACHED_VERSION);
  app.add_option("--socket", a.socket, "control socket of the daemon")->capture_default_str();
  app.add_option("--trace",
                 a.trace,
                 "trace file (plain or gzip), or a folder of text files to make conversations of")
      ->required();
  app.add_option("--model", a.model, "name from the built-in table, or a JSON file")
      ->capture_default_str();
  app.add_option(
         "--bytes-scale", a.bytes_scale, "factor on all sizes of state: a number or a fraction")
      ->capture_default_str();
  app.add_option("--engine-tflops", a.engine_tflops, "modelled speed of the engine's prefill")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--block-tokens", a.block_tokens, "tokens of a KV block")
      ->capture_default_str()
      ->check(CLI::Range(1U, kBlockTokensMax));
  app.add_option("--state-dtype", a.state_dtype, "bf16conv_fp32ssm (default) or 2byte");
  app.add_option("--concurrency", a.concurrency, "requests at a time")
      ->capture_default_str()
      ->check(CLI::Range(1U, 256U));
  app.add_option("--sessions", a.sessions, "connections that they share")
      ->capture_default_str()
      ->check(CLI::Range(1U, 256U));
  app.add_option("--limit", a.limit, "requests at most")->check(CLI::PositiveNumber);
  app.add_option("--speed", a.speed, "max, realtime, or a factor on the trace's clock")
      ->capture_default_str();
  app.add_flag("--no-verify", a.no_verify, "copy restored bytes out without checking them");
  app.add_flag("--json", a.json, "one JSON object on standard output");
}

Json to_json(ReplayResult& result) {
  ReplayTotals& t = result.totals;
  const auto rate = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
  Json out;
  out["requests"] = t.requests;
  out["input_tokens"] = t.input_tokens;
  out["hit_tokens"] = t.hit_tokens;
  out["token_hit_rate"] =
      rate(static_cast<double>(t.hit_tokens), static_cast<double>(t.input_tokens));
  for (std::size_t i = 0; i < kReplayTiers; ++i)
    out["hit_tokens_by_tier"][kTierNames[i]] = t.hit_by_tier[i];
  out["bytes_stored"] = t.bytes_stored;
  out["bytes_restored"] = t.bytes_restored;
  out["bytes_verified"] = t.bytes_verified;
  out["bytes_mismatched"] = t.bytes_mismatched;
  out["reservations"] = t.reservations;
  out["granted_reservations"] = t.granted;
  out["existing_reservations"] = t.existing;
  out["refused_reservations"] = t.refused_reservations;
  out["refused_commits"] = result.refused_commits;
  out["errors"] = t.errors;
  if (!t.first_error.empty()) out["first_error"] = t.first_error;
  out["begin_us"] = {{"p50", nearest_rank(t.begin_us, 0.5)},
                     {"p99", nearest_rank(t.begin_us, 0.99)},
                     {"p999", nearest_rank(t.begin_us, 0.999)}};
  out["wait_us"] = {{"p50", nearest_rank(t.wait_us, 0.5)}, {"p99", nearest_rank(t.wait_us, 0.99)}};
  out["restore_gb_per_s"] = rate(static_cast<double>(t.bytes_restored) * 1e-9, t.restore_seconds);
  out["modelled_prefill_seconds"] = {{"without_cache", t.prefill_seconds_cold},
                                     {"with_cache", t.prefill_seconds}};
  out["wall_seconds"] = result.wall_seconds;
  return out;
}

std::string thousands(std::uint64_t value) {
  std::string text = std::to_string(value);
  for (std::size_t at = text.size(); at > 3; at -= 3)
    text.insert(at - 3, 1, ',');
  return text;
}

void print_table(ReplayResult& result, const ReplaySettings& settings) {
  const ReplayTotals& t = result.totals;
  const auto percent = [](double part, double whole) { return whole > 0 ? 100 * part / whole : 0; };
  const auto row = [](const char* what, const std::string& value) {
    fmt::print("  {:<26}{}\n", what, value);
  };
  row("requests", fmt::format("{} in {:.1f} s", thousands(t.requests), result.wall_seconds));
  row("prompt tokens", thousands(t.input_tokens));
  row("tokens reused",
      fmt::format("{} ({:.1f} %)",
                  thousands(t.hit_tokens),
                  percent(static_cast<double>(t.hit_tokens), static_cast<double>(t.input_tokens))));
  for (std::size_t i = 0; i < kReplayTiers; ++i) {
    if (t.hit_by_tier[i] == 0) continue;
    row((std::string("  from ") + kTierNames[i]).c_str(),
        fmt::format(
            "{} ({:.1f} %)",
            thousands(t.hit_by_tier[i]),
            percent(static_cast<double>(t.hit_by_tier[i]), static_cast<double>(t.input_tokens))));
  }
  row("bytes stored", format_size(t.bytes_stored));
  row("bytes restored", format_size(t.bytes_restored));
  if (settings.verify) {
    row("bytes verified",
        fmt::format("{}, {} wrong",
                    format_size(t.bytes_verified),
                    t.bytes_mismatched == 0 ? "none" : thousands(t.bytes_mismatched)));
  }
  row("reservations refused",
      fmt::format("{} of {}", thousands(t.refused_reservations), thousands(t.reservations)));
  row("lookup, 50 % and 99 %",
      fmt::format("{:.0f} us, {:.0f} us",
                  nearest_rank(result.totals.begin_us, 0.5),
                  nearest_rank(result.totals.begin_us, 0.99)));
  row("prefill time, modelled",
      fmt::format("{:.1f} s instead of {:.1f} s for {} at {:.0f} TFLOP/s ({:.1f} % saved)",
                  t.prefill_seconds,
                  t.prefill_seconds_cold,
                  settings.spec.name,
                  settings.engine_flops * 1e-12,
                  percent(t.prefill_seconds_cold - t.prefill_seconds, t.prefill_seconds_cold)));
  if (t.errors != 0) row("ERRORS", fmt::format("{}, the first: {}", t.errors, t.first_error));
}

Result<ReplaySettings> settings_of(const Arguments& a) {
  ReplaySettings settings;
  settings.socket = a.socket;
  settings.engine_flops = a.engine_tflops * 1e12;
  settings.concurrency = a.concurrency;
  settings.sessions = std::min(a.sessions, a.concurrency);
  settings.verify = !a.no_verify;
  if (a.speed == "realtime") {
    settings.speed = 1;
  } else if (a.speed != "max") {
    const auto speed = parse_fraction(a.speed);
    if (!speed)
      return fail(Errc::invalid_argument,
                  "--speed: max, realtime or a positive factor, not '" + a.speed + "'");
    settings.speed = *speed;
  }
  const auto scale = parse_fraction(a.bytes_scale);
  if (!scale) return fail(Errc::invalid_argument, "--bytes-scale: " + scale.error().text);
  SC_ASSIGN(const ModelCost model, load_model(a.model));
  SC_ASSIGN(settings.spec, namespace_spec(model, {*scale, a.block_tokens, a.state_dtype}));
  return settings;
}

int run(const Arguments& a) {
  const auto settings = settings_of(a);
  if (!settings) return usage(settings.error().text);
  auto trace = TraceReader::open(a.trace, a.limit);
  if (!trace) return failed(trace.error());
  auto result = [&] {
    Progress bar("replay", (*trace)->requests());
    return replay(*settings, **trace, [&](const ReplayProgress& now) {
      if (!bar.due()) return;
      bar.at(now.requests,
             fmt::format("{} of {} requests, {:.1f} % of tokens reused",
                         thousands(now.requests),
                         thousands((*trace)->requests()),
                         100.0 * static_cast<double>(now.hit_tokens) /
                             static_cast<double>(std::max<std::uint64_t>(now.input_tokens, 1))));
    });
  }();
  if (!result) return failed(result.error());
  if (a.json) {
    fmt::print("{}\n", to_json(*result).dump(2));
  } else {
    print_table(*result, *settings);
  }
  return result->totals.errors == 0 && result->totals.bytes_mismatched == 0 ? 0 : kFailed;
}

}  // namespace
}  // namespace statecached

int main(int argc, char** argv) {
  statecached::Arguments arguments;
  CLI::App app(
      "Drives a running statecached with the requests of a trace, as an engine does, and checks "
      "every restored byte.",
      "statecache-replay");
  statecached::describe(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    return statecached::usage(error.what());
  }
  return statecached::run(arguments);
}
