#include "client/ctl/show.hpp"

#include "base/units.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <ctime>
#include <vector>

namespace statecached::ctl {
namespace {

using Json = nlohmann::json;
using Row = std::vector<std::string>;

/// Columns as wide as they need to be; the first `left` are aligned left, the others right.
std::string table(const std::vector<Row>& rows, std::size_t left) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i != 0) line += "  ";
      line += i < left ? fmt::format("{:<{}}", row[i], widths[i])
                       : fmt::format("{:>{}}", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string size(const Json& value) {
  return format_size(value.get<std::uint64_t>());
}

std::string age(const Json& value) {
  const double s = value.get<double>();
  if (s < 90) return fmt::format("{:.0f}s", s);
  if (s < 5400) return fmt::format("{:.0f}m", s / 60);
  if (s < 129600) return fmt::format("{:.1f}h", s / 3600);
  return fmt::format("{:.1f}d", s / 86400);
}

std::string text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string percent(double share) {
  return fmt::format("{:.1f} %", share * 100);
}

std::string status(const Json& j) {
  std::string out = fmt::format("statecached {}  pid {}  up {}  {}\n",
                                text(j.at("version")),
                                text(j.at("pid")),
                                age(j.at("uptime_s")),
                                text(j.at("health")));
  for (const Json& note : j.at("health_notes"))
    out += fmt::format("  ! {}\n", text(note));
  out += "\n";
  std::vector<Row> rows{{"tier", "capacity", "used", "peak", "held", "objects", "hit tokens"}};
  for (const auto& [name, tier] : j.at("tiers").items()) {
    if (tier.at("capacity") == 0) continue;
    rows.push_back({name,
                    size(tier.at("capacity")),
                    size(tier.at("used")),
                    size(tier.at("peak")),
                    size(tier.at("held_bytes")),
                    text(tier.at("objects")),
                    text(j.at("hit_tokens_by_tier").at(name))});
  }
  out += table(rows, 1);
  out += fmt::format("\nrequests {}   input tokens {}   reused {} ({})\n",
                     text(j.at("requests")),
                     text(j.at("input_tokens")),
                     text(j.at("hit_tokens")),
                     percent(j.at("token_hit_rate").get<double>()));
  const Json& c = j.at("counters");
  out +=
      fmt::format("clients {}   tickets {}   stored {}   evicted {} objects   written to NVMe {}\n",
                  text(j.at("clients")),
                  text(j.at("tickets")),
                  size(c.at("bytes_stored")),
                  text(c.at("evictions")),
                  size(c.at("nvme_bytes_written")));
  out += fmt::format("host memory in huge pages {}   NVMe engine {}\n",
                     percent(j.at("huge_page_share").get<double>()),
                     j.at("nvme_engine").is_null() ? "none" : text(j.at("nvme_engine")));
  for (const Json& d : j.at("drives")) {
    if (text(d.at("path")).empty()) continue;
    out += fmt::format("drive {}   {}   written {} ({} in its life)   errors {}\n",
                       text(d.at("path")),
                       text(d.at("health")),
                       size(d.at("bytes_written")),
                       size(d.at("lifetime_bytes_written")),
                       text(d.at("errors")));
  }
  if (const Json& b = j.at("write_budget"); !b.is_null()) {
    out += fmt::format("write budget {} a day, burst {}   written {}   held back {}\n",
                       size(b.at("bytes_per_day")),
                       size(b.at("burst")),
                       size(b.at("written")),
                       size(b.at("held_back_bytes")));
  }
  return out;
}

std::string namespaces(const Json& j) {
  std::vector<Row> rows{
      {"namespace", "fingerprint", "generation", "clients", "objects", "device", "host", "nvme"}};
  for (const Json& ns : j.at("namespaces")) {
    const Json& bytes = ns.at("bytes");
    rows.push_back({text(ns.at("name")),
                    text(ns.at("fingerprint")).substr(0, 8),
                    text(ns.at("generation")),
                    text(ns.at("clients")),
                    text(ns.at("objects")),
                    size(bytes.at("device")),
                    size(bytes.at("host")),
                    size(bytes.at("nvme"))});
  }
  return table(rows, 2);
}

std::string tenants(const Json& j) {
  std::vector<Row> rows{
      {"tenant", "quota", "device", "host", "nvme", "writing", "objects", "refused", "clients"}};
  for (const Json& t : j.at("tenants")) {
    const Json& bytes = t.at("bytes");
    rows.push_back({text(t.at("tenant")),
                    t.at("quota").is_string() ? text(t.at("quota")) : size(t.at("quota")),
                    size(bytes.at("device")),
                    size(bytes.at("host")),
                    size(bytes.at("nvme")),
                    size(t.at("writing")),
                    text(t.at("objects")),
                    text(t.at("refused")),
                    text(t.at("clients"))});
  }
  return table(rows, 1);
}

std::string clients(const Json& j) {
  std::vector<Row> rows{{"client",
                         "namespace",
                         "program",
                         "tenant",
                         "pid",
                         "rank",
                         "access",
                         "held",
                         "tickets",
                         "records"}};
  for (const Json& c : j.at("clients")) {
    rows.push_back({text(c.at("client")),
                    text(c.at("namespace")),
                    text(c.at("program")),
                    text(c.at("tenant")),
                    text(c.at("pid")),
                    fmt::format("{}/{}", text(c.at("rank")), text(c.at("world"))),
                    c.at("trusted").get<bool>() ? "write" : "read",
                    size(c.at("bytes_held")),
                    text(c.at("tickets")),
                    text(c.at("records"))});
    if (c.at("closed").get<bool>()) rows.back().push_back("closed");
  }
  return table(rows, 4);
}

std::string joined(const Json& list) {
  std::string out;
  for (const Json& item : list) {
    if (!out.empty()) out += '+';
    out += text(item);
  }
  return out;
}

std::string objects(const Json& j) {
  std::vector<Row> rows{
      {"id", "namespace", "tiers", "group", "tokens", "size", "keep value", "last use", "holds"}};
  for (const Json& o : j.at("objects")) {
    const bool state = o.at("first") == o.at("end");
    rows.push_back({text(o.at("id")),
                    text(o.at("namespace")),
                    joined(o.at("tiers")),
                    text(o.at("group")),
                    state ? fmt::format("@{}", text(o.at("end")))
                          : fmt::format("{}-{}", text(o.at("first")), text(o.at("end"))),
                    size(o.at("bytes")),
                    fmt::format("{:.3g}", o.at("keep_value").get<double>()),
                    age(o.at("age_s")),
                    text(o.at("holds"))});
  }
  return table(rows, 3);
}

std::string explain(const Json& j) {
  std::vector<Row> rows{
      {"tokens", "KV", "state", "saves", "frees", "reuse/s", "keep value", "last use", "why"}};
  for (const Json& r : j.at("rows")) {
    const auto blocks = r.at("kv_blocks").get<std::uint32_t>();
    const auto missing = r.at("kv_blocks_missing").get<std::uint32_t>();
    std::string kv = blocks == 0 ? "-" : fmt::format("{} {}", blocks, text(r.at("kv_tier")));
    if (missing != 0) kv += fmt::format(" ({} missing)", missing);
    rows.push_back({fmt::format("{}-{}", text(r.at("from")), text(r.at("to"))),
                    kv,
                    r.at("checkpoint").get<bool>() ? text(r.at("checkpoint_tier")) : "-",
                    fmt::format("{:.2f} ms", r.at("seconds_saved").get<double>() * 1e3),
                    format_size(static_cast<std::uint64_t>(r.at("bytes_freed").get<double>())),
                    fmt::format("{:.3g}", r.at("reuse_rate").get<double>()),
                    fmt::format("{:.3g}", r.at("keep_value").get<double>()),
                    age(r.at("age_s")),
                    text(r.at("why"))});
  }
  return rows.size() == 1 ? "nothing of this prefix is stored\n" : table(rows, 3);
}

std::string events(const Json& j) {
  std::string out;
  for (const Json& e : j.at("events")) {
    const std::time_t at = e.at("time").get<std::time_t>();
    std::tm local{};
    ::localtime_r(&at, &local);
    std::array<char, 16> clock{};
    std::strftime(clock.data(), clock.size(), "%H:%M:%S", &local);
    out += fmt::format(
        "{} {:<8} {:<6} {} group {} tokens {}-{} {}{}{}\n",
        clock.data(),
        text(e.at("event")),
        e.contains("tier") ? text(e.at("tier")) : "",
        text(e.at("namespace")),
        text(e.at("group")),
        text(e.at("first")),
        text(e.at("end")),
        size(e.at("bytes")),
        e.contains("reason") ? fmt::format(" because of {}", text(e.at("reason"))) : std::string(),
        e.contains("id") ? fmt::format(" {:.8}", text(e.at("id"))) : std::string());
  }
  return out;
}

std::string flush(const Json& j) {
  std::string out = fmt::format("{} objects are durable on NVMe\n", text(j.at("durable_objects")));
  if (j.at("failed_objects") != 0)
    out += fmt::format("{} are not: {}\n", text(j.at("failed_objects")), text(j.at("why")));
  return out;
}

std::string shown(const std::string& command, const Json& j) {
  if (command == "status") return status(j);
  if (command == "namespaces") return namespaces(j);
  if (command == "clients") return clients(j);
  if (command == "tenants") return tenants(j);
  if (command == "ls") return objects(j);
  if (command == "explain") return explain(j);
  if (command == "events") return events(j);
  if (command == "config") return text(j.at("toml"));
  if (command == "metrics") return text(j.at("text"));
  if (command == "flush" || command == "drain") {
    return j.contains("draining") ? std::string("reservations are admitted again\n") : flush(j);
  }
  if (command == "verify") {
    return fmt::format("{} objects, {} checked, {} bad\n",
                       text(j.at("objects")),
                       size(j.at("bytes")),
                       text(j.at("bad")));
  }
  if (command == "audit")
    return j.at("sound").get<bool>() ? std::string("every ledger adds up\n")
                                     : text(j.at("why")) + "\n";
  if (command == "rm")
    return fmt::format("{}: {} objects forgotten\n",
                       text(j.contains("tenant") ? j.at("tenant") : j.at("namespace")),
                       text(j.at("objects_removed")));
  return j.dump(2) + "\n";
}

}  // namespace

Result<std::string> show(const std::string& command, const std::string& json) {
  try {
    return shown(command, Json::parse(json));
  } catch (const Json::exception& error) {
    return fail(
        Errc::corrupt,
        fmt::format("the daemon's answer is not what {} answers: {}", command, error.what()));
  }
}

std::uint64_t last_event(const std::string& json) {
  const Json j = Json::parse(json, nullptr, false);
  if (!j.is_object() || !j.contains("events") || j["events"].empty()) return 0;
  return j["events"].back().value("number", std::uint64_t{0});
}

bool reports_failure(const std::string& command, const std::string& json) {
  const Json j = Json::parse(json, nullptr, false);
  if (!j.is_object()) return true;
  if (command == "verify") return j.value("bad", std::uint64_t{0}) != 0;
  if (command == "audit") return !j.value("sound", false);
  if (command == "flush") return j.value("failed_objects", std::uint64_t{0}) != 0;
  return false;
}

}  // namespace statecached::ctl
