#include "config/load.hpp"

#include "base/unique_fd.hpp"
#include "config/table.hpp"
#include "config/toml_reader.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <numeric>

namespace statecached::config {
namespace {

constexpr std::size_t kFileMax = kMiB;
constexpr std::size_t kTenantNameMax = 64;
constexpr std::string_view kTenants = "tenants";

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::string nearest_key(std::string_view unknown, std::string_view tenant) {
  std::string best;
  std::size_t least = SIZE_MAX;
  const auto consider = [&](std::string key) {
    const std::size_t distance = edit_distance(unknown, key);
    if (distance >= least) return;
    least = distance;
    best = std::move(key);
  };
  for (const Setting& setting : settings_table())
    consider(fmt::format("{}.{}", setting.section, setting.key));
  for (const TenantSetting& setting : tenant_table())
    consider(fmt::format("{}.{}.{}", kTenants, tenant, setting.key));
  return best;
}

bool good_tenant_name(std::string_view name) noexcept {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  };
  return !name.empty() && name.size() <= kTenantNameMax &&
         std::all_of(name.begin(), name.end(), good);
}

/// Applies entries to settings and remembers where each key was written, for errors that show
/// later.
class Loader {
 public:
  explicit Loader(std::string file) : file_(std::move(file)) {}

  Result<> apply_file(std::string_view text) {
    SC_ASSIGN(const auto entries, read_toml(text, file_));
    for (const Entry& entry : entries) {
      SC_TRY(apply(entry.path, entry.value, fmt::format("{}:{}", file_, entry.line)));
    }
    return {};
  }

  Result<> apply_set(const std::string& text) {
    const std::string origin = fmt::format("--set {}", text);
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(Errc::invalid_argument, fmt::format("{}: write section.key=value", origin));
    }
    std::vector<std::string> path(1);
    for (char c : std::string_view(text).substr(0, equals)) {
      if (c == '.')
        path.emplace_back();
      else
        path.back() += c;
    }
    Value value;
    value.kind = Value::Kind::bare;
    value.text = text.substr(equals + 1);
    return apply(path, value, origin);
  }

  Result<Settings> finish(std::uint64_t memory) {
    SC_TRY(check_sizes(memory));
    SC_TRY(check_policy());
    SC_TRY(check_places());
    SC_TRY(check_tenants());
    return std::move(settings_);
  }

 private:
  Result<> apply(const std::vector<std::string>& path,
                 const Value& value,
                 const std::string& origin) {
    const std::string key = fmt::format("{}", fmt::join(path, "."));
    if (path.front() == kTenants) return apply_tenant(path, key, value, origin);
    if (path.size() == 1 && value.kind == Value::Kind::table) {
      const auto same = [&](const Setting& s) { return s.section == path.front(); };
      const auto table = settings_table();
      if (std::any_of(table.begin(), table.end(), same)) return {};
    }
    if (path.size() == 2) {
      for (const Setting& setting : settings_table()) {
        if (setting.section == path[0] && setting.key == path[1])
          return read(setting.bind(settings_), key, value, origin);
      }
    }
    return unknown(key, "NAME", origin);
  }

  Result<> apply_tenant(const std::vector<std::string>& path,
                        const std::string& key,
                        const Value& value,
                        const std::string& origin) {
    if (path.size() == 1 && value.kind == Value::Kind::table) return {};
    if (path.size() < 2) return error(origin, key, "is a table of tenants: [tenants.NAME]");
    if (!good_tenant_name(path[1])) {
      return error(origin,
                   key,
                   fmt::format("'{}' is no name of a tenant: 1 to {} letters, digits, - and _",
                               path[1],
                               kTenantNameMax));
    }
    if (path.size() == 2 && value.kind == Value::Kind::table) {
      settings_.tenants[path[1]];
      return {};
    }
    if (path.size() == 3) {
      for (const TenantSetting& setting : tenant_table()) {
        if (setting.key == path[2])
          return read(setting.bind(settings_.tenants[path[1]]), key, value, origin);
      }
    }
    return unknown(key, path[1], origin);
  }

  Result<> read(const Field& field,
                const std::string& key,
                const Value& value,
                const std::string& origin) {
    origins_[key] = origin;
    if (auto result = field.read(value); !result) return error(origin, key, result.error().text);
    return {};
  }

  Result<> unknown(const std::string& key,
                   std::string_view tenant,
                   const std::string& origin) const {
    return error(
        origin,
        key,
        fmt::format("there is no such setting; the nearest is {}", nearest_key(key, tenant)));
  }

  static tl::unexpected<Error> error(std::string_view origin,
                                     std::string_view key,
                                     std::string_view what) {
    return fail(Errc::invalid_argument, fmt::format("{}: {}: {}", origin, key, what));
  }

  /// For a fault that is known only once all is read.
  [[nodiscard]] tl::unexpected<Error> error_at(const std::string& key,
                                               std::string_view what) const {
    const auto found = origins_.find(key);
    return error(found == origins_.end() ? "default" : found->second, key, what);
  }

  [[nodiscard]] Result<> check_sizes(std::uint64_t memory) const {
    const Settings& s = settings_;
    if (s.host.capacity == 0)
      return error_at("host.capacity", "must not be 0: every byte passes through host memory");
    const bool emulated = s.device.backend == DeviceBackend::emulated;
    const std::uint64_t wanted = s.host.capacity + (emulated ? s.device.capacity : 0);
    if (memory != 0 && wanted >= memory) {
      return error_at("host.capacity",
                      fmt::format("{} is more than this machine's memory, {}",
                                  format_size(wanted),
                                  format_bytes(memory)));
    }
    if (s.device.capacity != 0 && s.device.backend == DeviceBackend::none) {
      return error_at("device.capacity", "is given, but device.backend is none");
    }
    const std::uint64_t paths = s.nvme_paths().size();
    if (s.nvme.capacity != 0 && s.nvme.capacity / paths < 2 * kMiB) {
      return error_at("nvme.capacity",
                      fmt::format("leaves less than 2 MiB for each of {} paths", paths));
    }
    if (s.nvme.write_burst != kAutomatic && s.nvme.write_burst > s.nvme.write_budget_per_day) {
      return error_at("nvme.write_burst", "is more than nvme.write_budget_per_day");
    }
    return {};
  }

  [[nodiscard]] Result<> check_policy() const {
    const PolicySettings& policy = settings_.policy;
    if (policy.name == Policy::clairvoyant) {
      return error_at("policy.name",
                      "clairvoyant knows the rest of a trace: it exists in statecache-sim alone");
    }
    if (policy.alpha && policy.name != Policy::marconi_paper) {
      return error_at("policy.alpha", "is given, but only the policy marconi-paper has one");
    }
    return {};
  }

  [[nodiscard]] Result<> check_places() const {
    const Settings& s = settings_;
    if (s.paths.state_dir.empty()) return error_at("paths.state_dir", "must not be empty");
    if (s.paths.runtime_dir.empty()) return error_at("paths.runtime_dir", "must not be empty");
    constexpr std::size_t kSocketMax = sizeof(sockaddr_un::sun_path) - 1;
    if (s.socket_path().size() > kSocketMax) {
      return error_at(
          s.socket.path.empty() ? "paths.runtime_dir" : "socket.path",
          fmt::format("makes the path of the control socket {} bytes long; the kernel takes {}",
                      s.socket_path().size(),
                      kSocketMax));
    }
    return check_listen(s.metrics.listen, kSocketMax);
  }

  [[nodiscard]] Result<> check_listen(const std::string& listen, std::size_t socket_max) const {
    constexpr std::string_view kLoopback = "127.0.0.1:";
    if (listen.empty() || (listen.front() == '/' && listen.size() <= socket_max)) return {};
    if (listen.starts_with(kLoopback)) {
      std::uint16_t port = 0;
      const char* const end = listen.data() + listen.size();
      const auto [p, failed] = std::from_chars(listen.data() + kLoopback.size(), end, port);
      if (failed == std::errc{} && p == end) return {};
    }
    return error_at(
        "metrics.listen",
        fmt::format("'{}' is neither empty, nor the absolute path of a socket of at most "
                    "{} bytes, nor 127.0.0.1:port",
                    listen,
                    socket_max));
  }

  [[nodiscard]] Result<> check_tenants() const {
    std::map<std::string, std::string> seen;
    for (const auto& [name, tenant] : settings_.tenants) {
      const auto claim = [&, &tenant_name = name](
                             std::string_view kind,
                             const std::vector<std::string>& members) -> Result<> {
        for (const std::string& member : members) {
          const auto [at, fresh] = seen.emplace(fmt::format("{} {}", kind, member), tenant_name);
          if (fresh) continue;
          return error_at(
              fmt::format("{}.{}.{}s", kTenants, tenant_name, kind),
              fmt::format("{} '{}' already belongs to tenant {}", kind, member, at->second));
        }
        return {};
      };
      SC_TRY(claim("user", tenant.users));
      SC_TRY(claim("group", tenant.groups));
      if (!tenant.trust_domain.empty() && !good_tenant_name(tenant.trust_domain)) {
        return error_at(fmt::format("{}.{}.trust_domain", kTenants, name),
                        "must be letters, digits, - and _");
      }
    }
    return {};
  }

  std::string file_;
  Settings settings_;
  std::map<std::string, std::string> origins_;
};

Result<std::string> read_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(fmt::format("cannot open {}", path));
  std::string out;
  while (out.size() <= kFileMax) {
    char buffer[16384];
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(fmt::format("cannot read {}", path));
    if (got == 0) return out;
    out.append(buffer, static_cast<std::size_t>(got));
  }
  return fail(Errc::invalid_argument,
              fmt::format("{} is larger than {}", path, format_size(kFileMax)));
}

void print_doc(std::string& out, std::string_view doc) {
  while (!doc.empty()) {
    const std::size_t end = doc.find('\n');
    out += fmt::format("# {}\n", doc.substr(0, end));
    doc = end == std::string_view::npos ? std::string_view{} : doc.substr(end + 1);
  }
}

void print_tenants(std::string& out, const Settings& settings) {
  out +=
      "\n# One table a tenant; users and groups in none are counted to the tenant \"default\".\n";
  if (settings.tenants.empty()) {
    Tenant example;
    out += "# [tenants.NAME]\n";
    for (const TenantSetting& setting : tenant_table()) {
      out +=
          fmt::format("# {} = {}  # {}\n", setting.key, setting.bind(example).print(), setting.doc);
    }
  }
  for (const auto& [name, tenant] : settings.tenants) {
    Tenant copy = tenant;
    out += fmt::format("\n[{}.{}]\n", kTenants, name);
    for (const TenantSetting& setting : tenant_table()) {
      print_doc(out, setting.doc);
      out += fmt::format("{} = {}\n", setting.key, setting.bind(copy).print());
    }
  }
}

}  // namespace

Result<Settings> parse(std::string_view toml,
                       const std::string& file,
                       std::span<const std::string> set,
                       std::uint64_t machine_memory) {
  Loader loader(file);
  SC_TRY(loader.apply_file(toml));
  for (const std::string& text : set)
    SC_TRY(loader.apply_set(text));
  return loader.finish(machine_memory);
}

Result<Settings> load(const LoadOptions& options) {
  const std::string file = options.file.value_or(std::string(kDefaultFile));
  auto text = read_file(file);
  if (!text) {
    if (options.file || text.error().code != Errc::not_found)
      return tl::unexpected<Error>(std::move(text.error()));
    text = std::string{};
  }
  return parse(*text, file, options.set, options.machine_memory);
}

std::string to_toml(const Settings& settings) {
  Settings copy = settings;
  std::string out =
      "# Settings of statecached. Every line shows a setting with its value; what is left out has "
      "its default.\n"
      "# Sizes: B, KiB, MiB, GiB, TiB, KB, MB, GB, TB. Times: ns, us, ms, s, m, h.\n"
      "# Any of them can be given on the command line: --set host.capacity=64GiB\n";
  std::string_view section;
  for (const Setting& setting : settings_table()) {
    if (setting.section != section) out += fmt::format("\n[{}]\n", setting.section);
    section = setting.section;
    print_doc(out, setting.doc);
    out += fmt::format("{} = {}\n", setting.key, setting.bind(copy).print());
  }
  print_tenants(out, settings);
  return out;
}

std::uint64_t machine_memory() noexcept {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  return pages <= 0 || page <= 0
             ? 0
             : static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page);
}

}  // namespace statecached::config
