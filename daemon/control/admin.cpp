#include "daemon/control/admin.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace statecached {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kTierOrder{Tier::device, Tier::host, Tier::nvme};
constexpr std::array kReasonRange{std::size_t{1}, static_cast<std::size_t>(Reason::count_)};

// ---- arguments: "key=value" --------------------------------------------------------------------

/// Takes what a command knows out of the list; what is left over is an error.
class Arguments {
 public:
  explicit Arguments(std::vector<std::string> list) : list_(std::move(list)) {}

  std::optional<std::string> take(std::string_view key) {
    const std::string prefix = std::string(key) + "=";
    for (auto it = list_.begin(); it != list_.end(); ++it) {
      if (!it->starts_with(prefix)) continue;
      std::string value = it->substr(prefix.size());
      list_.erase(it);
      return value;
    }
    return std::nullopt;
  }

  Result<std::uint64_t> number(std::string_view key, std::uint64_t otherwise) {
    const auto text = take(key);
    if (!text) return otherwise;
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc{} || end != text->data() + text->size()) {
      return fail(Errc::invalid_argument,
                  fmt::format("{}={}: a whole number is expected", key, *text));
    }
    return value;
  }

  Result<> nothing_left() const {
    if (list_.empty()) return {};
    return fail(Errc::invalid_argument,
                fmt::format("this command does not take {}", list_.front()));
  }

 private:
  std::vector<std::string> list_;
};

Result<NamespaceIx> required_namespace(Cache& cache, Arguments& arguments) {
  const auto name = arguments.take("namespace");
  if (!name) return fail(Errc::invalid_argument, "this command needs a namespace");
  return cache.find_namespace(*name);
}

Result<Tier> parse_tier(const std::string& text) {
  for (const Tier tier : kTierOrder) {
    if (text == to_string(tier)) return tier;
  }
  return fail(Errc::invalid_argument, fmt::format("{} is no tier: device, host or nvme", text));
}

Result<Cache::Sort> parse_sort(const std::string& text) {
  if (text == "keep") return Cache::Sort::keep;
  if (text == "bytes") return Cache::Sort::bytes;
  if (text == "age") return Cache::Sort::age;
  if (text == "depth") return Cache::Sort::depth;
  return fail(Errc::invalid_argument,
              fmt::format("{} is no order: keep, bytes, age or depth", text));
}

// ---- JSON of plain values ----------------------------------------------------------------------

std::string print(const Json& json) {
  // Names come from clients: bytes that are no UTF-8 are replaced, never an exception.
  return json.dump(-1, ' ', false, nlohmann::detail::error_handler_t::replace);
}

Json tier_json(const TierStatus& tier) {
  return {{"capacity", tier.capacity},
          {"used", tier.used},
          {"peak", tier.peak},
          {"objects", tier.objects},
          {"held_bytes", tier.held_bytes}};
}

template <class Values>
Json by_tier(const Values& values) {
  Json out = Json::object();
  for (const Tier tier : kTierOrder)
    out[to_string(tier)] = values[index(tier)];
  return out;
}

template <class Values>
Json by_reason(const Values& values) {
  Json out = Json::object();
  for (std::size_t r = kReasonRange[0]; r < kReasonRange[1]; ++r) {
    if (values[r] != 0) out[to_string(static_cast<Reason>(r))] = values[r];
  }
  return out;
}

Json counters_json(const CacheCounters& c) {
  Json evicted = Json::object();
  for (const Tier tier : kTierOrder)
    evicted[to_string(tier)] = by_reason(c.evicted[index(tier)]);
  return {{"leases", c.leases},
          {"reservations", c.reservations},
          {"grants", c.grants},
          {"refused", by_reason(c.refused)},
          {"commits", c.commits},
          {"commits_refused", c.commits_refused},
          {"bytes_stored", c.bytes_stored},
          {"bytes_dropped", c.bytes_dropped},
          {"bytes_demoted", by_tier(c.bytes_demoted)},
          {"bytes_promoted", by_tier(c.bytes_promoted)},
          {"nvme_bytes_written", c.nvme_bytes_written},
          {"nvme_bytes_read", c.nvme_bytes_read},
          {"evictions", c.evictions},
          {"evicted", std::move(evicted)},
          {"loads", c.loads},
          {"load_failures", c.load_failures},
          {"checksum_failures", c.checksum_failures},
          {"io_errors", c.io_errors},
          {"prefetch_refused", c.prefetch_refused},
          {"prefetched_unused_bytes", c.prefetched_unused_bytes},
          {"flops", c.flops},
          {"flops_saved", c.flops_saved}};
}

Json serving_json(const Snapshot& s) {
  const ServingStats& v = s.serving;
  const auto us = [](std::uint64_t ns) { return static_cast<double>(ns) * 1e-3; };
  std::uint64_t records = 0;
  for (const std::uint64_t n : v.records)
    records += n;
  return {
      {"records", records},
      {"bad_records", v.bad_records},
      {"completions", v.completions},
      {"backlogged", v.backlogged},
      {"clients_attached", v.attached},
      {"clients_dropped", v.clients_dropped},
      {"control_garbage", s.control_garbage},
      {"control_refused", s.control_refused},
      {"sleeps", v.sleeps},
      {"begin_us", {{"p50", us(v.begin_ns.quantile(0.5))}, {"p99", us(v.begin_ns.quantile(0.99))}}},
      {"turn_us", {{"p50", us(v.turn_ns.quantile(0.5))}, {"p99", us(v.turn_ns.quantile(0.99))}}},
      {"steps", v.step_cpu_ns.count()},
      {"steps_over_100us", v.step_cpu_ns.count() - v.step_cpu_ns.count_up_to(100'000)},
      {"steps_over_200us", v.step_cpu_ns.count() - v.step_cpu_ns.count_up_to(200'000)},
      {"slices", v.slices},
      {"step_cpu_us",
       {{"p50", us(v.step_cpu_ns.quantile(0.5))},
        {"p99", us(v.step_cpu_ns.quantile(0.99))},
        {"max", us(v.step_cpu_ns.max())}}},
      {"step_wall_us",
       {{"p50", us(v.step_wall_ns.quantile(0.5))},
        {"p99", us(v.step_wall_ns.quantile(0.99))},
        {"max", us(v.step_wall_ns.max())}}}};
}

/// "ok" or what an operator should look at first.
Json health_notes(const Snapshot& s) {
  Json notes = Json::array();
  if (s.draining) notes.push_back("draining: reservations are declined");
  if (s.cache.io_errors != 0)
    notes.push_back(fmt::format("{} transfers failed on the drives", s.cache.io_errors));
  for (const DriveSnapshot& d : s.drives) {
    if (d.health == DiskHealth::read_only)
      notes.push_back(fmt::format("drive {} refuses writes: nothing is written to it", d.folder));
    if (d.health == DiskHealth::out && !d.folder.empty())
      notes.push_back(fmt::format("drive {} is out: what lay on it is lost", d.folder));
  }
  if (s.cache.checksum_failures != 0) {
    notes.push_back(fmt::format("{} objects failed their checksum", s.cache.checksum_failures));
  }
  if (s.catalog.rows_dropped != 0)
    notes.push_back(fmt::format("{} catalog rows were unreadable", s.catalog.rows_dropped));
  if (s.serving.clients_dropped != 0)
    notes.push_back(fmt::format("{} clients were dropped", s.serving.clients_dropped));
  return notes;
}

const char* health_word(const Snapshot& s) {
  const bool failing = std::ranges::any_of(s.drives, [](const DriveSnapshot& d) {
    return d.health != DiskHealth::good && !d.folder.empty();
  });
  if (failing || s.cache.io_errors != 0 || s.cache.checksum_failures != 0) return "degraded";
  return s.draining ? "draining" : "ok";
}

const char* word_of(DiskHealth health) {
  switch (health) {
    case DiskHealth::good:
      return "good";
    case DiskHealth::read_only:
      return "read_only";
    case DiskHealth::out:
      return "out";
  }
  return "out";
}

Json drives_json(const Snapshot& s) {
  Json rows = Json::array();
  for (const DriveSnapshot& d : s.drives) {
    rows.push_back({{"path", d.folder},
                    {"engine", d.engine},
                    {"direct", d.stats.direct},
                    {"registered_buffers", d.stats.registered_buffers},
                    {"defer_taskrun", d.stats.defer_taskrun},
                    {"health", word_of(d.health)},
                    {"capacity", d.capacity},
                    {"bytes_read", d.stats.bytes_read},
                    {"bytes_written", d.stats.bytes_written},
                    {"lifetime_bytes_written", d.lifetime_written},
                    {"errors", d.stats.errors},
                    {"queued", d.stats.queued},
                    {"read_limit_bytes", d.stats.read_limit},
                    {"write_limit_bytes", d.stats.write_limit}});
  }
  return rows;
}

Json budget_json(const Snapshot& s) {
  if (!s.budget) return nullptr;
  return {{"bytes_per_day", s.budget->bytes_per_day},
          {"burst", s.budget->burst},
          {"tokens", s.budget->tokens},
          {"written", s.budget->written},
          {"held_back_objects", s.budget->held_back_objects},
          {"held_back_bytes", s.budget->held_back_bytes},
          {"price_seconds_per_gib", s.budget->price * static_cast<double>(kGiB)}};
}

Json status_json(const Snapshot& s, const AdminContext& context) {
  std::uint64_t hits = 0;
  for (const std::uint64_t n : s.cache.hit_tokens)
    hits += n;
  const double input = static_cast<double>(s.cache.input_tokens);
  Json out = {{"version", s.version},
              {"uptime_s", s.uptime_s},
              {"pid", s.pid},
              {"epoch", s.epoch},
              {"socket", context.socket_path},
              {"state_dir", context.state_dir},
              {"health", health_word(s)},
              {"health_notes", health_notes(s)}};
  Json tiers = Json::object();
  for (const Tier tier : kTierOrder)
    tiers[to_string(tier)] = tier_json(s.tiers[index(tier)]);
  out["tiers"] = std::move(tiers);
  out["requests"] = s.cache.requests;
  out["input_tokens"] = s.cache.input_tokens;
  out["hit_tokens"] = hits;
  out["hit_tokens_by_tier"] = by_tier(s.cache.hit_tokens);
  out["token_hit_rate"] = input > 0 ? static_cast<double>(hits) / input : 0.0;
  out["clients"] = s.clients;
  out["tickets"] = s.tickets;
  out["huge_page_share"] = s.huge_page_share;
  out["nvme_engine"] = s.drives.empty() ? Json(nullptr) : Json(s.drives.front().engine);
  out["drives"] = drives_json(s);
  out["process_written_bytes"] = s.process_written;
  out["write_budget"] = budget_json(s);
  out["kept"] = {{"kept_objects", s.kept.objects},
                 {"listed", s.kept.listed},
                 {"verified", s.kept.verified},
                 {"lost", s.kept.lost},
                 {"waiting", s.kept.waiting},
                 {"quarantined_bytes", s.kept.quarantined_bytes},
                 {"earlier_clients", s.earlier_clients}};
  // Actual wait over predicted.
  out["wait_error"] = {{"count", s.wait_error.count()},
                       {"p10", static_cast<double>(s.wait_error.quantile(0.1)) * 1e-3},
                       {"p50", static_cast<double>(s.wait_error.quantile(0.5)) * 1e-3},
                       {"p90", static_cast<double>(s.wait_error.quantile(0.9)) * 1e-3}};
  out["counters"] = counters_json(s.cache);
  out["serving"] = serving_json(s);
  return out;
}

Json namespaces_json(const std::vector<NamespaceStatus>& list) {
  Json rows = Json::array();
  for (const NamespaceStatus& ns : list) {
    rows.push_back({{"name", ns.name},
                    {"fingerprint", to_hex(ns.fingerprint)},
                    {"generation", ns.generation},
                    {"objects", ns.objects},
                    {"bytes", by_tier(ns.bytes)},
                    {"clients", ns.clients}});
  }
  return {{"namespaces", std::move(rows)}};
}

Json object_json(const ObjectStatus& object, const std::string& ns) {
  Json tiers = Json::array();
  for (const Tier tier : kTierOrder) {
    if (object.in[index(tier)]) tiers.push_back(to_string(tier));
  }
  return {{"id", to_hex(object.id)},
          {"namespace", ns},
          {"group", object.group},
          {"first", object.first},
          {"end", object.end},
          {"bytes", object.bytes},
          {"tiers", tiers},
          {"keep_value", object.keep_value},
          {"age_s", seconds(object.age)},
          {"holds", object.holds}};
}

Json explain_json(const ExplainRow& row) {
  return {{"from", row.from},
          {"to", row.to},
          {"kv_blocks", row.kv_blocks},
          {"kv_blocks_missing", row.kv_blocks_missing},
          {"kv_tier", to_string(row.kv_tier)},
          {"checkpoint", row.checkpoint},
          {"checkpoint_tier", to_string(row.checkpoint_tier)},
          {"seconds_saved", row.seconds_saved},
          {"bytes_freed", row.bytes_freed},
          {"reuse_rate", row.reuse_rate},
          {"keep_value", row.keep_value},
          {"age_s", seconds(row.age)},
          {"why", row.why}};
}

Json event_json(const KeptEvent& kept, const std::string& ns) {
  const CacheEvent& e = kept.event;
  Json out = {{"number", kept.number}, {"time", kept.time}, {"event", to_string(e.kind)}};
  if (e.reason != Reason::none) out["reason"] = to_string(e.reason);
  if (e.tier != Tier::none) out["tier"] = to_string(e.tier);
  out["namespace"] = ns;
  if (!e.id.is_zero()) out["id"] = to_hex(e.id);
  out["group"] = e.group;
  out["first"] = e.first;
  out["end"] = e.end;
  out["bytes"] = e.bytes;
  return out;
}

Json flush_json(const FlushReport& report) {
  return {{"durable_objects", report.durable_objects},
          {"failed_objects", report.failed_objects},
          {"why", report.why}};
}

/// Names for rows that carry a namespace's index, looked up once each.
class Names {
 public:
  explicit Names(const Cache& cache) : cache_(cache) {}

  const std::string& of(NamespaceIx ns) {
    const auto [at, fresh] = names_.try_emplace(ns);
    if (fresh) at->second = cache_.display_name(ns);
    return at->second;
  }

 private:
  const Cache& cache_;
  std::unordered_map<NamespaceIx, std::string> names_;
};

// ---- commands: on the conductor's thread, except what a Render holds ---------------------------

Result<Admin::Render> clients_command(Conductor& conductor,
                                      const std::vector<std::string>& tenants) {
  struct Row {
    ClientStatus status;
    std::string ns;
  };

  Names names(conductor.cache());
  std::vector<Row> rows;
  for (ClientStatus& status : conductor.client_statuses()) {
    const std::string& name = names.of(status.ns);
    rows.push_back({std::move(status), name});
  }
  return Admin::Render([rows = std::move(rows), tenants] {
    Json list = Json::array();
    for (const Row& row : rows) {
      const MemberInfo& m = row.status.member;
      list.push_back({{"client", row.status.client},
                      {"namespace", row.ns},
                      {"program", m.program},
                      {"pid", m.pid},
                      {"engine", to_hex(m.engine, 4)},
                      {"rank", m.rank},
                      {"world", m.world},
                      {"tenant", m.tenant < tenants.size() ? tenants[m.tenant] : "default"},
                      {"trusted", m.may_write},
                      {"bytes_held", row.status.bytes_held},
                      {"tickets", row.status.tickets},
                      {"open_slots", row.status.slots},
                      {"records", row.status.records},
                      {"backlog", row.status.backlog},
                      {"closed", row.status.closed}});
    }
    return print({{"clients", std::move(list)}});
  });
}

Result<Cache::ListWish> ls_wish(const Cache& cache, Arguments& arguments) {
  Cache::ListWish wish;
  if (const auto name = arguments.take("namespace")) {
    SC_ASSIGN(wish.ns, cache.find_namespace(*name));
  }
  if (const auto text = arguments.take("tier")) {
    SC_ASSIGN(wish.tier, parse_tier(*text));
  }
  if (const auto text = arguments.take("sort")) {
    SC_ASSIGN(wish.sort, parse_sort(*text));
  }
  SC_ASSIGN(wish.limit, arguments.number("limit", 100));
  SC_TRY(arguments.nothing_left());
  return wish;
}

void ls_command(Conductor& conductor, Arguments& arguments, const Admin::Done& done) {
  Cache& cache = conductor.cache();
  const auto wish = ls_wish(cache, arguments);
  if (!wish) return done(tl::unexpected<Error>(wish.error()));
  cache.list(*wish, [&cache, done](std::vector<ObjectStatus> objects) {
    Names names(cache);
    std::vector<std::string> of;
    of.reserve(objects.size());
    for (const ObjectStatus& object : objects)
      of.push_back(names.of(object.ns));
    done(Admin::Render([objects = std::move(objects), of = std::move(of)] {
      Json rows = Json::array();
      for (std::size_t i = 0; i < objects.size(); ++i)
        rows.push_back(object_json(objects[i], of[i]));
      return print({{"objects", std::move(rows)}});
    }));
  });
}

Result<Admin::Render> explain_command(Conductor& conductor,
                                      Arguments& arguments,
                                      std::span<const Token> tokens) {
  Cache& cache = conductor.cache();
  SC_ASSIGN(const NamespaceIx ns, required_namespace(cache, arguments));
  std::vector<ExplainRow> rows;
  if (const auto text = arguments.take("prefix")) {
    ObjectId id;
    if (!parse_hex(*text, id))
      return fail(Errc::invalid_argument, fmt::format("{} is no object id", *text));
    SC_ASSIGN(rows, cache.explain(ns, id, conductor.now()));
  } else {
    SC_ASSIGN(rows, cache.explain(ns, tokens, conductor.now()));
  }
  SC_TRY(arguments.nothing_left());
  return Admin::Render([rows = std::move(rows), name = cache.display_name(ns)] {
    Json list = Json::array();
    for (const ExplainRow& row : rows)
      list.push_back(explain_json(row));
    return print({{"namespace", name}, {"rows", std::move(list)}});
  });
}

void rm_command(Conductor& conductor,
                Arguments& arguments,
                const std::vector<std::string>& tenants,
                const Admin::Done& done) {
  Cache& cache = conductor.cache();
  if (const auto tenant = arguments.take("tenant"); tenant) {
    if (auto left = arguments.nothing_left(); !left)
      return done(tl::unexpected<Error>(std::move(left.error())));
    const auto found = std::ranges::find(tenants, *tenant);
    if (found == tenants.end() && *tenant != "default")
      return done(fail(Errc::not_found, fmt::format("there is no tenant {}", *tenant)));
    const auto number = static_cast<std::uint32_t>(found - tenants.begin());
    const std::uint64_t removed = cache.remove_tenant(number, conductor.now());
    return done(Admin::Render([name = *tenant, removed] {
      return print({{"tenant", name}, {"objects_removed", removed}});
    }));
  }
  const auto ns = required_namespace(cache, arguments);
  if (!ns) return done(tl::unexpected<Error>(ns.error()));
  if (auto left = arguments.nothing_left(); !left)
    return done(tl::unexpected<Error>(std::move(left.error())));
  const std::string name = cache.display_name(*ns);
  cache.remove_namespace(
      *ns,
      [name, done](std::uint64_t removed) {
        done(Admin::Render([name, removed] {
          return print({{"namespace", name}, {"objects_removed", removed}});
        }));
      },
      conductor.now());
}

Result<Admin::Render> events_command(Conductor& conductor, Arguments& arguments) {
  SC_ASSIGN(const std::uint64_t since, arguments.number("since", 0));
  SC_ASSIGN(const std::uint64_t limit, arguments.number("limit", 100));
  SC_TRY(arguments.nothing_left());
  auto events = conductor.events(since, limit);
  Names names(conductor.cache());
  std::vector<std::string> of;
  of.reserve(events.size());
  for (const KeptEvent& kept : events)
    of.push_back(names.of(kept.event.ns));
  return Admin::Render([events = std::move(events), of = std::move(of)] {
    Json rows = Json::array();
    for (std::size_t i = 0; i < events.size(); ++i)
      rows.push_back(event_json(events[i], of[i]));
    return print({{"events", std::move(rows)}});
  });
}

Result<Admin::Render> config_command(Arguments& arguments, const std::string& settings) {
  const auto action = arguments.take("action");
  SC_TRY(arguments.nothing_left());
  if (action && *action != "show")
    return fail(Errc::unsupported, fmt::format("config {} is not served; config show is", *action));
  return Admin::Render([settings] { return print({{"toml", settings}}); });
}

Result<NvmeBenchWish> bench_wish(Arguments& arguments) {
  const auto kind = arguments.take("kind");
  if (!kind || *kind != "nvme")
    return fail(Errc::unsupported, "inside the daemon only bench nvme is served");
  NvmeBenchWish wish;
  SC_ASSIGN(wish.block, arguments.number("block", kMiB));
  SC_ASSIGN(wish.file_bytes, arguments.number("file", 512 * kMiB));
  SC_ASSIGN(wish.pairs, arguments.number("pairs", 9));
  SC_ASSIGN(wish.demand_reads, arguments.number("demand", 4000));
  SC_TRY(arguments.nothing_left());
  return wish;
}

}  // namespace

bool Admin::open_to_all(const std::string& command) {
  return command == "status" || command == "metrics";
}

Snapshot Admin::snapshot(Conductor& conductor) const {
  const Cache& cache = conductor.cache();
  Snapshot out;
  out.version = context_.version;
  out.uptime_s = seconds(conductor.now() - context_.started);
  out.pid = ::getpid();
  out.epoch = context_.epoch;
  out.draining = conductor.draining();
  for (const Tier tier : kTierOrder)
    out.tiers[index(tier)] = cache.tier(tier);
  out.cache = cache.counters();
  out.serving = conductor.stats();
  out.clients = conductor.clients();
  out.tickets = cache.tickets();
  out.wait_error = cache.wait_error();
  out.kept = cache.kept();
  out.earlier_clients = conductor.earlier().size();
  out.control_garbage = garbage.load();
  out.control_refused = refused.load();
  return out;
}

void Admin::complete(Snapshot& snapshot) const {
  if (context_.fill) context_.fill(snapshot);
}

void Admin::execute(Conductor& conductor, const wire::AdminMessage& message, Done done) {
  Arguments arguments(message.arguments);
  Cache& cache = conductor.cache();
  const std::string& command = message.command;
  const auto flush = [&] {
    cache.flush(
        [done](const FlushReport& report) {
          done(Render([report] { return print(flush_json(report)); }));
        },
        conductor.now());
  };
  if (command == "ls") return ls_command(conductor, arguments, done);
  if (command == "explain") return done(explain_command(conductor, arguments, message.tokens));
  if (command == "rm") return rm_command(conductor, arguments, context_.tenants, done);
  if (command == "events") return done(events_command(conductor, arguments));
  if (command == "config") return done(config_command(arguments, context_.settings));
  if (command == "bench") {
    const auto wish = bench_wish(arguments);
    if (!wish) return done(tl::unexpected<Error>(wish.error()));
    if (!context_.bench_nvme) return done(fail(Errc::unsupported, "there is no NVMe tier"));
    const auto started = context_.bench_nvme(*wish, [done](Result<std::string> json) {
      if (!json) return done(tl::unexpected<Error>(json.error()));
      done(Render([text = std::move(*json)] { return text; }));
    });
    if (!started) done(tl::unexpected<Error>(started.error()));
    return;
  }
  const auto resume = command == "drain" ? arguments.take("resume") : std::nullopt;
  if (auto left = arguments.nothing_left(); !left)
    return done(tl::unexpected<Error>(std::move(left.error())));
  if (command == "status") {
    return done(Render([s = snapshot(conductor), this]() mutable {
      complete(s);
      return print(status_json(s, context_));
    }));
  }
  if (command == "metrics") {
    return done(Render([s = snapshot(conductor), this]() mutable {
      complete(s);
      return print({{"text", prometheus_text(s)}});
    }));
  }
  if (command == "namespaces") {
    return done(Render([list = cache.namespaces()] { return print(namespaces_json(list)); }));
  }
  if (command == "clients") return done(clients_command(conductor, context_.tenants));
  if (command == "flush") return flush();
  if (command == "drain") {
    conductor.set_draining(!resume);
    if (!resume) return flush();
    return done(Render([] { return print({{"draining", false}}); }));
  }
  if (command == "tenants") {
    return done(Render([list = cache.tenants(), names = context_.tenants] {
      Json rows = Json::array();
      for (std::size_t i = 0; i < list.size(); ++i) {
        const TenantStatus& tenant = list[i];
        const bool limited = tenant.options.quota != UINT64_MAX;
        rows.push_back({{"tenant", i < names.size() ? names[i] : "default"},
                        {"trust_domain", tenant.options.trust_domain},
                        {"quota", limited ? Json(tenant.options.quota) : Json("unlimited")},
                        {"bytes", by_tier(tenant.bytes)},
                        {"objects", tenant.objects},
                        {"writing", tenant.writing},
                        {"refused", tenant.refused},
                        {"clients", tenant.clients}});
      }
      return print({{"tenants", std::move(rows)}});
    }));
  }
  if (command == "audit") {
    const auto sound = cache.audit();
    return done(Render([text = sound ? std::string() : sound.error().message()] {
      return print({{"sound", text.empty()}, {"why", text}});
    }));
  }
  if (command == "verify") {
    return cache.verify([done](const VerifyReport& report) {
      done(Render([report] {
        return print({{"objects", report.objects}, {"bytes", report.bytes}, {"bad", report.bad}});
      }));
    });
  }
  done(fail(Errc::invalid_argument, fmt::format("there is no command {}", command)));
}

}  // namespace statecached
