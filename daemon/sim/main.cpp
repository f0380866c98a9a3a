// statecache-sim: what the cache would do with a trace (interface.md of the project's documents).

#include "base/units.hpp"
#include "client/workload/model.hpp"
#include "client/workload/progress.hpp"
#include "client/workload/trace.hpp"
#include "daemon/sim/plot.hpp"
#include "daemon/sim/simulate.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace statecached {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;
/// What `unlimited` means: more than any trace fills, and less than a Space can name.
constexpr std::uint64_t kUnlimited = 15 * kTiB;

struct Arguments {
  std::string trace, model, state_dtype;
  std::vector<std::string> device{""}, host{""}, nvme{""}, policy{"marconi"};
  std::string alpha = "auto", admission = "auto", demotion = "priced", nvme_write = "behind",
              bytes_scale = "1", compat, per_request, plot;
  std::string write_budget = "unlimited", write_burst = "auto";
  double host_gb_per_s = 50, nvme_gb_per_s = 2, engine_tflops = 400;
  std::uint32_t block_tokens = 64;
  std::uint64_t seed = 1, limit = 0;
  double load = 0;
  bool json = false, open_loop = false;
};

int usage(const std::string& what) {
  std::fprintf(stderr, "statecache-sim: %s\n", what.c_str());
  return kWrongUsage;
}

int failed(const Error& error) {
  std::fprintf(
      stderr, "statecache-sim: %s\n", (error.os != 0 ? error.message() : error.text).c_str());
  return kFailed;
}

void describe(CLI::App& app, Arguments& a) {
  app.set_version_flag("--version", "statecache-sim " STATECACHED_VERSION);
  app.add_option("--trace", a.trace, "trace file (plain or gzip), or a folder of text files")
      ->required();
  app.add_option("--model", a.model, "name from the built-in table, or a JSON file")->required();
  app.add_option("--device", a.device, "size of the device tier; several: a list with commas")
      ->delimiter(',');
  app.add_option(
         "--host", a.host, "size of the host tier, or unlimited; several: a list with commas")
      ->delimiter(',');
  app.add_option(
         "--nvme", a.nvme, "size of the NVMe tier, or unlimited; several: a list with commas")
      ->delimiter(',');
  app.add_option("--host-gb-per-s", a.host_gb_per_s, "host memory to the engine")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--nvme-gb-per-s", a.nvme_gb_per_s, "NVMe to host memory and back")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--engine-tflops", a.engine_tflops, "what the engine achieves in prefill")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option(
         "--policy",
         a.policy,
         "marconi, marconi-paper, lru, s3fifo, gdsf, clairvoyant; several: a list with commas")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--alpha", a.alpha, "weight of efficiency in marconi-paper: auto or a number")
      ->capture_default_str();
  app.add_option("--admission", a.admission, "auto, paper, marconi, every-N-tokens, all-blocks")
      ->capture_default_str();
  app.add_option("--demotion", a.demotion, "priced, always, never")->capture_default_str();
  app.add_option("--nvme-write", a.nvme_write, "behind, through")->capture_default_str();
  app.add_option("--write-budget-per-day",
                 a.write_budget,
                 "what may be written to NVMe in a day: unlimited or a size")
      ->capture_default_str();
  app.add_option("--write-burst",
                 a.write_burst,
                 "what of it may be written at once: auto (1/144 of it) or a size")
      ->capture_default_str();
  app.add_option(
         "--bytes-scale", a.bytes_scale, "factor on all sizes of state: a number or a fraction")
      ->capture_default_str();
  app.add_option("--block-tokens", a.block_tokens, "tokens of a KV block")
      ->capture_default_str()
      ->check(CLI::Range(1U, kBlockTokensMax));
  app.add_option("--state-dtype", a.state_dtype, "bf16conv_fp32ssm (default) or 2byte");
  app.add_option("--compat", a.compat, "reference: count as the paper's simulator does");
  app.add_option("--per-request",
                 a.per_request,
                 "CSV file: what each request hit, and what each tier then held");
  app.add_flag("--open-loop",
               a.open_loop,
               "requests come when the trace says; the engine and the drives queue");
  app.add_option("--load",
                 a.load,
                 "with --open-loop: stretch the trace so that prefill without a cache would take "
                 "this share of the engine's time")
      ->check(CLI::PositiveNumber);
  app.add_option("--plot", a.plot, "SVG file: hit rate over capacity, a line for each policy");
  app.add_option("--seed", a.seed, "of all chance")->capture_default_str();
  app.add_option("--limit", a.limit, "requests at most")->check(CLI::PositiveNumber);
  app.add_flag("--json", a.json, "one JSON object on standard output");
}

Result<std::uint64_t> capacity(const std::string& text) {
  if (text.empty()) return std::uint64_t{0};
  if (text == "unlimited") return kUnlimited;
  SC_ASSIGN(const std::uint64_t bytes, parse_size(text));
  if (bytes < kPage) return fail(Errc::invalid_argument, "a tier has at least 4 KiB: " + text);
  return round_down(bytes, kPage);
}

/// The value that `text` names, or an error that lists those there are.
template <class T>
Result<T> choose(const char* flag,
                 const std::string& text,
                 std::initializer_list<std::pair<const char*, T>> choices) {
  std::string names;
  for (const auto& [name, value] : choices) {
    if (text == name) return value;
    if (!names.empty()) names += ", ";
    names += name;
  }
  return fail(Errc::invalid_argument,
              fmt::format("{} {} is not available; there are: {}", flag, text, names));
}

Result<PolicyName> policy_named(const std::string& text) {
  return choose<PolicyName>("--policy",
                            text,
                            {{"marconi", PolicyName::marconi},
                             {"marconi-paper", PolicyName::marconi_paper},
                             {"lru", PolicyName::lru},
                             {"s3fifo", PolicyName::s3fifo},
                             {"gdsf", PolicyName::gdsf},
                             {"clairvoyant", PolicyName::clairvoyant}});
}

/// auto: the paper's for the paper's policies, what the future calls for with clairvoyant, ours
/// otherwise.
Result<> choose_admission(const std::string& text,
                          const NamespaceSpec& spec,
                          PolicyOptions& policy) {
  policy.every_tokens = 0;
  if (text == "all-blocks") {
    policy.admission = Admission::every_tokens;
    for (const Group& group : spec.groups) {
      if (group.need == Need::every) policy.every_tokens = group.block_tokens;
    }
    if (policy.every_tokens == 0)
      return fail(Errc::invalid_argument,
                  "--admission all-blocks: this model has no KV blocks; use every-N-tokens");
    return {};
  }
  if (text.starts_with("every-") && text.ends_with("-tokens")) {
    const std::string number = text.substr(6, text.size() - 13);
    std::uint32_t n = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), n);
    if (error != std::errc() || end != number.data() + number.size() || n == 0) {
      return fail(Errc::invalid_argument, "--admission every-N-tokens: N is a number from 1 on");
    }
    policy.admission = Admission::every_tokens;
    policy.every_tokens = n;
    return {};
  }
  const bool paper = policy.name == PolicyName::lru || policy.name == PolicyName::marconi_paper;
  const Admission automatic = policy.name == PolicyName::clairvoyant ? Admission::future
                              : paper                                ? Admission::paper
                                                                     : Admission::marconi;
  if (text == "every-N-tokens")
    return fail(Errc::invalid_argument, "--admission every-N-tokens: put a number for N");
  SC_ASSIGN(
      policy.admission,
      choose<Admission>(
          "--admission",
          text,
          {{"auto", automatic}, {"paper", Admission::paper}, {"marconi", Admission::marconi}}));
  return {};
}

std::string admission_text(const PolicyOptions& policy) {
  switch (policy.admission) {
    case Admission::paper:
      return "paper";
    case Admission::marconi:
      return "marconi";
    case Admission::every_tokens:
      return fmt::format("every-{}-tokens", policy.every_tokens);
    case Admission::future:
      return "future";
  }
  return "unknown";
}

struct Run {
  std::string policy;
  SimSettings settings;
};

Result<std::vector<Run>> plan(const Arguments& a, const NamespaceSpec& spec) {
  SimSettings common;
  common.spec = spec;
  common.host_bytes_per_second = a.host_gb_per_s * 1e9;
  common.nvme_bytes_per_second = a.nvme_gb_per_s * 1e9;
  common.engine_flops = a.engine_tflops * 1e12;
  common.compat_reference = !a.compat.empty();
  common.open_loop = a.open_loop;
  if (a.load > 0 && !a.open_loop)
    return fail(Errc::invalid_argument, "--load belongs to --open-loop");
  common.seed = a.seed;
  if (!a.compat.empty()) SC_TRY(choose<int>("--compat", a.compat, {{"reference", 0}}));
  SC_ASSIGN(common.policy.demotion,
            choose<Demotion>("--demotion",
                             a.demotion,
                             {{"priced", Demotion::priced},
                              {"always", Demotion::always},
                              {"never", Demotion::never}}));
  SC_ASSIGN(common.policy.nvme_write,
            choose<NvmeWrite>("--nvme-write",
                              a.nvme_write,
                              {{"behind", NvmeWrite::behind}, {"through", NvmeWrite::through}}));
  if (a.write_budget != "unlimited") {
    SC_ASSIGN(common.write_budget_per_day, capacity(a.write_budget));
    if (a.write_burst != "auto") {
      SC_ASSIGN(common.write_burst, capacity(a.write_burst));
    }
    if (common.write_budget_per_day == 0)
      return fail(Errc::invalid_argument, "--write-budget-per-day is unlimited or a size");
  } else if (a.write_burst != "auto") {
    return fail(Errc::invalid_argument, "--write-burst belongs to --write-budget-per-day");
  }
  if (a.alpha != "auto") {
    char* end = nullptr;
    const double alpha = std::strtod(a.alpha.c_str(), &end);
    if (end == a.alpha.c_str() || *end != '\0' || !(alpha >= 0) || !std::isfinite(alpha)) {
      return fail(Errc::invalid_argument, "--alpha is auto or a number from 0 on");
    }
    common.policy.alpha = alpha;
  }
  std::vector<Run> runs;
  for (const std::string& policy : a.policy) {
    SC_ASSIGN(const PolicyName name, policy_named(policy));
    common.policy.name = name;
    SC_TRY(choose_admission(a.admission, spec, common.policy));
    for (const std::string& device : a.device) {
      SC_ASSIGN(common.device_bytes, capacity(device));
      for (const std::string& host : a.host) {
        SC_ASSIGN(common.host_bytes, capacity(host));
        for (const std::string& nvme : a.nvme) {
          SC_ASSIGN(common.nvme_bytes, capacity(nvme));
          if (common.host_bytes == 0 && common.device_bytes == 0) {
            return fail(Errc::invalid_argument,
                        "name --device or --host: there is nowhere to keep anything");
          }
          if (common.host_bytes == 0 && common.nvme_bytes != 0) {
            return fail(Errc::invalid_argument, "name --host: NVMe loads and writes through it");
          }
          runs.push_back({policy, common});
        }
      }
    }
  }
  return runs;
}

double rate(const SimResult& r) {
  return r.input_tokens == 0
             ? 0
             : static_cast<double>(r.hit_tokens) / static_cast<double>(r.input_tokens);
}

Json by_tier(const SimSettings& settings, const std::array<std::uint64_t, kTiers>& values) {
  Json out = Json::object();
  const std::array<std::uint64_t, kTiers> capacities{
      settings.device_bytes, settings.host_bytes, settings.nvme_bytes};
  for (const Tier tier : {Tier::device, Tier::host, Tier::nvme}) {
    if (capacities[index(tier)] != 0) out[to_string(tier)] = values[index(tier)];
  }
  return out;
}

Json to_json(const Run& run, const SimResult& r) {
  const SimSettings& s = run.settings;
  Json out;
  out["policy"] = run.policy;
  out["alpha"] = r.alpha ? Json(*r.alpha) : Json(nullptr);
  out["admission"] = admission_text(s.policy);
  out["capacity"] = by_tier(s, {s.device_bytes, s.host_bytes, s.nvme_bytes});
  out["requests"] = r.requests;
  out["input_tokens"] = r.input_tokens;
  out["hit_tokens"] = r.hit_tokens;
  out["token_hit_rate"] = rate(r);
  out["flops"] = r.flops;
  out["flops_saved"] = r.flops_saved;
  out["hit_tokens_by_tier"] = by_tier(s, r.hit_by_tier);
  out["ttft_ms"] = {{"p50", r.ttft_ms.p50}, {"p95", r.ttft_ms.p95}, {"p99", r.ttft_ms.p99}};
  out["bytes_peak"] = by_tier(s, r.bytes_peak);
  out["bytes_demoted"] = by_tier(s, r.counters.bytes_demoted);
  out["bytes_promoted"] = by_tier(s, r.counters.bytes_promoted);
  out["bytes_dropped"] = r.counters.bytes_dropped;
  out["nvme_bytes_written"] = r.counters.nvme_bytes_written;
  out["evictions"] = r.counters.evictions;
  if (r.budget) {
    out["write_budget"] = {{"bytes_per_day", r.budget->bytes_per_day},
                           {"burst", r.budget->burst},
                           {"written", r.budget->written},
                           {"held_back_objects", r.budget->held_back_objects},
                           {"held_back_bytes", r.budget->held_back_bytes}};
  }
  out["policy_us_per_request"] = {{"mean", r.policy_us_mean}, {"p99", r.policy_us_p99}};
  out["cache_us_per_request"] = {{"mean", r.cache_us_mean}, {"p99", r.cache_us_p99}};
  if (s.open_loop) out["engine_busy"] = r.engine_busy;
  out["virtual_seconds"] = r.virtual_seconds;
  out["wall_seconds"] = r.wall_seconds;
  return out;
}

std::string size_or_none(std::uint64_t bytes) {
  if (bytes == 0) return "-";
  return bytes >= kUnlimited ? "unlimited" : format_size(bytes);
}

void print_table(const std::vector<std::pair<Run, SimResult>>& all) {
  fmt::print("{:<13} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9}\n",
             "policy",
             "device",
             "host",
             "nvme",
             "hit %",
             "device",
             "host",
             "nvme",
             "saved %",
             "TTFT p50",
             "policy us");
  for (const auto& [run, r] : all) {
    const auto share =
        [&, n = static_cast<double>(std::max<std::uint64_t>(r.input_tokens, 1))](Tier tier) {
          return 100.0 * static_cast<double>(r.hit_by_tier[index(tier)]) / n;
        };
    fmt::print(
        "{:<13} {:>10} {:>10} {:>10} {:>8.2f} {:>8.2f} {:>8.2f} {:>8.2f} {:>9.2f} {:>6.0f} ms "
        "{:>9.1f}\n",
        run.policy,
        size_or_none(run.settings.device_bytes),
        size_or_none(run.settings.host_bytes),
        size_or_none(run.settings.nvme_bytes),
        100 * rate(r),
        share(Tier::device),
        share(Tier::host),
        share(Tier::nvme),
        r.flops > 0 ? 100 * r.flops_saved / r.flops : 0.0,
        r.ttft_ms.p50,
        r.policy_us_mean);
  }
}

/// First passes over the trace, for those that need one.
Result<> prepare(const Arguments& a, const NamespaceSpec& spec, std::vector<Run>& runs) {
  if (a.load > 0) {
    SC_ASSIGN(const auto trace, TraceReader::open(a.trace, a.limit));
    SC_ASSIGN(const TraceDemand demand, measure(*trace, spec.cost, a.engine_tflops * 1e12));
    if (demand.seconds <= 0)
      return fail(Errc::invalid_argument, "--load: the trace has no times to stretch");
    for (Run& run : runs)
      run.settings.stretch = demand.prefill_seconds / (a.load * demand.seconds);
  }
  std::shared_ptr<Future> future;
  for (Run& run : runs) {
    if (run.settings.policy.name != PolicyName::clairvoyant) continue;
    if (!future) {
      future = std::make_shared<Future>();
      SC_ASSIGN(const auto trace, TraceReader::open(a.trace, a.limit));
      SC_TRY(fill(*future, *trace));
    }
    run.settings.future = future;
  }
  return {};
}

Result<> write_plot(const Arguments& a, const std::vector<std::pair<Run, SimResult>>& all) {
  std::vector<PlotSeries> series;
  for (const auto& [run, r] : all) {
    auto it = std::find_if(series.begin(),
                           series.end(),
                           [&, &name = run.policy](const PlotSeries& s) { return s.name == name; });
    if (it == series.end()) it = series.insert(series.end(), {run.policy, {}});
    const SimSettings& s = run.settings;
    it->points.emplace_back(static_cast<double>(s.device_bytes + s.host_bytes + s.nvme_bytes),
                            rate(r));
  }
  for (PlotSeries& one : series)
    std::sort(one.points.begin(), one.points.end());
  const std::string name = a.trace.substr(a.trace.find_last_of('/') + 1);
  const std::string text = plot_svg("Hit rate over capacity",
                                    fmt::format("{}, {}, {} requests, blocks of {} tokens",
                                                name,
                                                a.model,
                                                all.front().second.requests,
                                                a.block_tokens),
                                    series);
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(a.plot.c_str(), "w"),
                                                       &std::fclose);
  if (file == nullptr || std::fwrite(text.data(), 1, text.size(), file.get()) != text.size())
    return fail_errno("cannot write " + a.plot);
  return {};
}

int run_all(const Arguments& a) {
  const auto scale = parse_fraction(a.bytes_scale);
  if (!scale) return usage("--bytes-scale: " + scale.error().text);
  const auto model = load_model(a.model);
  if (!model) return usage("--model: " + model.error().text);
  const auto spec = namespace_spec(*model, {*scale, a.block_tokens, a.state_dtype});
  if (!spec) return usage(spec.error().text);
  auto runs = plan(a, *spec);
  if (!runs) return usage(runs.error().text);

  std::unique_ptr<std::FILE, int (*)(std::FILE*)> rows(nullptr, &std::fclose);
  if (!a.per_request.empty()) {
    rows.reset(std::fopen(a.per_request.c_str(), "w"));
    if (rows == nullptr) return failed(fail_errno(a.per_request).value());
    fmt::print(rows.get(),
               "policy,device,host,nvme,request,input_tokens,hit_tokens,ttft_ms,device_bytes,host_"
               "bytes,nvme_bytes\n");
  }
  if (const auto prepared = prepare(a, *spec, *runs); !prepared) return failed(prepared.error());
  std::vector<std::pair<Run, SimResult>> all;
  for (Run& run : *runs) {
    if (rows != nullptr) {
      run.settings.each = [&](const SimRow& row) {
        const SimSettings& s = run.settings;
        fmt::print(rows.get(),
                   "{},{},{},{},{},{},{},{:.3f},{},{},{}\n",
                   run.policy,
                   s.device_bytes,
                   s.host_bytes,
                   s.nvme_bytes,
                   row.index,
                   row.input_tokens,
                   row.hit_tokens,
                   row.ttft_ms,
                   row.bytes[0],
                   row.bytes[1],
                   row.bytes[2]);
      };
    }
    auto trace = TraceReader::open(a.trace, a.limit);
    if (!trace) return failed(trace.error());
    Progress bar(run.policy, (*trace)->requests());
    auto result = simulate(run.settings, **trace, [&](std::uint64_t done) {
      if (bar.due()) bar.at(done, fmt::format("{} of {} requests", done, (*trace)->requests()));
    });
    if (!result) return failed(result.error());
    all.emplace_back(run, std::move(*result));
  }
  if (!a.plot.empty()) {
    if (const auto written = write_plot(a, all); !written) return failed(written.error());
  }
  if (!a.json) {
    print_table(all);
  } else if (all.size() == 1) {
    fmt::print("{}\n", to_json(all.front().first, all.front().second).dump(2));
  } else {
    Json out;
    for (const auto& [run, result] : all)
      out["runs"].push_back(to_json(run, result));
    fmt::print("{}\n", out.dump(2));
  }
  return 0;
}

}  // namespace
}  // namespace statecached

int main(int argc, char** argv) {
  statecached::Arguments arguments;
  CLI::App app(
      "A trace through statecached's own cache code, on a virtual clock, without moving a byte.",
      "statecache-sim");
  statecached::describe(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    return statecached::usage(error.what());
  }
  return statecached::run_all(arguments);
}
