#include "daemon/assembly.hpp"

#include "base/log.hpp"
#include "config/load.hpp"
#include "daemon/background.hpp"
#include "daemon/control/kept.hpp"
#include "daemon/control/server.hpp"
#include "daemon/drives.hpp"
#include "daemon/nvme_bench.hpp"
#include "daemon/serving/conductor.hpp"
#include "daemon/wear.hpp"
#include "tiers/catalog/rocks_catalog.hpp"
#include "tiers/device/device.hpp"
#include "tiers/host/arena.hpp"
#include "tiers/host/copier.hpp"
#include "tiers/nvme/guarded_disk.hpp"
#include "tiers/nvme/make_disk.hpp"
#include "tiers/nvme/path.hpp"

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <thread>

namespace statecached {
namespace {

/// How long a start waits for the catalog's rows before anybody may connect.
constexpr Nanos kLoadAlone = std::chrono::milliseconds(300);
/// The kernel walks every page of the process to say how many are large, and page faults wait
/// meanwhile.
constexpr Nanos kHugeShareAge = std::chrono::seconds(30);

/// Descriptors of an arena that clients get duplicates of.
struct SharedArena {
  wire::TierName tier = wire::TierName::host;
  std::uint64_t bytes = 0;
  UniqueFd writable;
  UniqueFd readable;
  std::uint32_t trust_domain = 0;
  std::uint64_t base = 0;  ///< where it begins in its tier
};

constexpr const char* kTableName = "statecached-table";

std::uint64_t random_epoch() {
  std::uint64_t epoch = 0;
  if (::getrandom(&epoch, sizeof epoch, 0) != sizeof epoch)
    epoch = static_cast<std::uint64_t>(wall_seconds());
  return epoch;
}

std::uint32_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<std::uint32_t>(std::max(1, CPU_COUNT(&set)));
}

HugePages huge_pages_of(config::Switch wish) {
  switch (wish) {
    case config::Switch::automatic:
      return HugePages::automatic;
    case config::Switch::on:
      return HugePages::on;
    case config::Switch::off:
      return HugePages::off;
  }
  return HugePages::automatic;
}

DirectIo direct_of(config::Switch wish) {
  switch (wish) {
    case config::Switch::automatic:
      return DirectIo::automatic;
    case config::Switch::on:
      return DirectIo::on;
    case config::Switch::off:
      return DirectIo::off;
  }
  return DirectIo::automatic;
}

const char* word_of(config::DeviceBackend backend) {
  switch (backend) {
    case config::DeviceBackend::automatic:
      return "auto";
    case config::DeviceBackend::cuda:
      return "cuda";
    case config::DeviceBackend::emulated:
      return "emulated";
    case config::DeviceBackend::none:
      return "none";
  }
  return "auto";
}

DiskOptions disk_options(const config::Settings& settings) {
  DiskOptions out;
  switch (settings.nvme.engine) {
    case config::NvmeEngine::automatic:
      out.engine = DiskEngine::automatic;
      break;
    case config::NvmeEngine::io_uring:
      out.engine = DiskEngine::io_uring;
      break;
    case config::NvmeEngine::threads:
      out.engine = DiskEngine::threads;
      break;
  }
  out.register_buffers = settings.host.register_buffers != config::Switch::off;
  out.defer_taskrun = settings.nvme.defer_taskrun != config::Switch::off;
  out.threads = settings.nvme.threads;
  return out;
}

PathOptions path_options(const config::Settings& settings) {
  PathOptions out;
  out.direct = direct_of(settings.nvme.direct);
  switch (settings.nvme.shrink) {
    case config::Shrink::refuse:
      out.shrink = Shrink::refuse;
      break;
    case config::Shrink::keep:
      out.shrink = Shrink::keep;
      break;
    case config::Shrink::truncate:
      out.shrink = Shrink::truncate;
      break;
  }
  return out;
}

PolicyName policy_name(config::Policy name) {
  switch (name) {
    case config::Policy::marconi:
      return PolicyName::marconi;
    case config::Policy::marconi_paper:
      return PolicyName::marconi_paper;
    case config::Policy::lru:
      return PolicyName::lru;
    case config::Policy::s3fifo:
      return PolicyName::s3fifo;
    case config::Policy::gdsf:
      return PolicyName::gdsf;
    case config::Policy::clairvoyant:
      break;  // refused when the settings were read
  }
  return PolicyName::marconi;
}

CacheOptions cache_options(const config::Settings& settings) {
  CacheOptions out;
  const config::PolicySettings& policy = settings.policy;
  out.policy.name = policy_name(policy.name);
  if (out.policy.name == PolicyName::marconi_paper) {
    out.policy.alpha = policy.alpha;
    out.background = [thread = std::make_shared<BackgroundThread>()](std::function<void()> job) {
      thread->run(std::move(job));
    };
  }
  // `auto` is the paper's admission for the paper's policies and ours otherwise.
  const bool of_paper =
      out.policy.name == PolicyName::lru || out.policy.name == PolicyName::marconi_paper;
  const bool paper = policy.admission == config::Admission::paper ||
                     (policy.admission == config::Admission::automatic && of_paper);
  out.policy.admission = paper ? Admission::paper : Admission::marconi;
  switch (policy.demotion) {
    case config::Demotion::priced:
      out.policy.demotion = Demotion::priced;
      break;
    case config::Demotion::always:
      out.policy.demotion = Demotion::always;
      break;
    case config::Demotion::never:
      out.policy.demotion = Demotion::never;
      break;
  }
  out.policy.nvme_write =
      policy.nvme_write == config::NvmeWrite::through ? NvmeWrite::through : NvmeWrite::behind;
  out.engine_flops = policy.engine_tflops * 1e12;
  out.lease_bytes_max = settings.lease_bytes_max();
  out.reservation_age = settings.limits.reservation_age;
  out.soft_hold_age = settings.limits.soft_hold_age;
  return out;
}

/// Settings that are read and checked but that nothing obeys yet: better said than found out.
void warn_of_idle_settings(const config::Settings& settings) {
  const auto idle = [](const char* key) {
    log::warn("{} is set and has no effect in this version", key);
  };
  if (settings.host.numa >= 0) idle("host.numa");
  if (settings.limits.lease_age_warn != config::Limits{}.lease_age_warn)
    idle("limits.lease_age_warn");
}

Result<std::vector<Tenant>> tenants_of(const config::Settings& settings) {
  std::vector<Tenant> out;
  for (const auto& [name, from] : settings.tenants) {
    Tenant tenant;
    tenant.name = name;
    tenant.trusted = from.trusted;
    for (const std::string& user : from.users) {
      SC_ASSIGN(const std::uint32_t id, user_id(user));
      tenant.uids.push_back(id);
    }
    for (const std::string& group : from.groups) {
      SC_ASSIGN(const std::uint32_t id, group_id(group));
      tenant.gids.push_back(id);
    }
    tenant.trust_domain = trust_domain_number(from.trust_domain);
    tenant.quota = from.quota;
    for (const Tenant& other : out) {
      if (trust_domain_number(other.name) == trust_domain_number(name))
        return fail(
            Errc::invalid_argument,
            fmt::format(
                "tenants {} and {}: rows could not tell these names apart", other.name, name));
    }
    out.push_back(std::move(tenant));
  }
  return out;
}

/// A file system that is full or has gone read-only: it may come back, and is no mistake in a
/// setting.
bool cannot_write(const Error& error) {
  const bool read_only = error.message().find("Read-only file system") != std::string::npos;
  return error.code == Errc::no_space || error.os == EROFS || (error.code == Errc::io && read_only);
}

Result<> make_directory(const std::string& path) {
  std::error_code error;
  const bool made = std::filesystem::create_directories(path, error);
  if (error) return fail(Errc::io, fmt::format("making {}", path), error.value());
  // It will hold prompts as tokens.
  if (made) std::filesystem::permissions(path, std::filesystem::perms::owner_all, error);
  if (error) return fail(Errc::io, fmt::format("setting the mode of {}", path), error.value());
  return {};
}

template <class Region>
Result<SharedArena> share(wire::TierName tier, const Region& region) {
  SharedArena out;
  out.tier = tier;
  out.bytes = region.bytes();
  SC_ASSIGN(out.writable, region.writable_fd());
  SC_ASSIGN(out.readable, region.read_only_fd());
  return out;
}

}  // namespace

/// In the order of making; destroyed from the end. Tiers' threads ring the bell until they are
/// joined, so it goes last but for the clock.
class Assembly::Parts {
 public:
  explicit Parts(const config::Settings& from) : settings(from) {}

  Result<> make(const std::string& version);
  Result<> make_memories();
  Result<> plan_host(const ArenaOptions& options);
  Result<> make_host(ArenaOptions options);
  bool adopt_host(ArenaOptions options, const std::vector<std::string>& names);
  [[nodiscard]] std::byte* address_of(std::size_t index) const;
  Result<> make_drives(std::vector<Disk*>& seams);
  void make_budget();
  Result<> make_conductor(CacheSeams seams);
  Result<> make_control(const std::string& version);
  Result<> bench_nvme(const NvmeBenchWish& wish, NvmeBenchRunner::Done done);

  [[nodiscard]] Waker waker() {
    return [this] { bell->wake(); };
  }

  config::Settings settings;
  MonotonicClock clock;
  std::uint64_t epoch = random_epoch();
  std::uint32_t cores = usable_cores();
  std::unique_ptr<Bell> bell;
  Inherited inherited;
  /// where a service manager keeps it, and the arena, for the next
  std::optional<HostTable> table;
  bool adopted = false;
  std::vector<Tenant> tenants;
  std::vector<RegionOptions> host_plan;
  std::uint64_t host_layout = 0;  ///< a table of another one is not taken over
  Mapping host_range;             ///< of several arenas; they are mapped within it
  std::vector<Arena> hosts;
  double huge_share = 0;  ///< the control thread's, as of huge_share_at
  std::optional<Instant> huge_share_at;
  std::optional<EmulatedDevice> device;
  Memories memories;
  std::vector<SharedArena> shares;
  std::unique_ptr<RocksCatalog> rocks;
  std::vector<std::unique_ptr<Disk>> disks;
  std::vector<WornDrive> worn;  ///< by drive number
  std::unique_ptr<WriteBudget> budget;
  std::unique_ptr<Wear> wear;
  std::unique_ptr<NumberedCatalog> catalog;
  std::unique_ptr<CopyThread> copier;
  std::unique_ptr<Conductor> conductor;
  NvmeBenchRunner bench;
  std::unique_ptr<Admin> admin;
  std::unique_ptr<ControlServer> server;
  std::thread thread;
};

Result<> Assembly::Parts::make(const std::string& version) {
  warn_of_idle_settings(settings);
  SC_ASSIGN(inherited, inherited_fds());
  SC_ASSIGN(tenants, tenants_of(settings));
  SC_ASSIGN(bell, Bell::create());
  SC_TRY(make_memories());
  CacheSeams seams;
  if (settings.nvme.capacity != 0) {
    SC_TRY(make_drives(seams.disks));
    seams.catalog = catalog.get();  // null without disks
    make_budget();
    seams.budget = budget.get();
  }
  copier = std::make_unique<CopyThread>(memories, waker());
  seams.copier = copier.get();
  seams.table = table ? &*table : nullptr;
  SC_TRY(make_conductor(std::move(seams)));
  return make_control(version);
}

Result<> Assembly::Parts::make_memories() {
  ArenaOptions options;
  options.bytes = settings.host.capacity;
  options.huge_pages = huge_pages_of(settings.host.huge_pages);
  options.name = "statecached-host";
  SC_TRY(make_host(options));
  if (settings.device.capacity == 0) return {};
  SC_ASSIGN(const DeviceBackend backend, device_backend(word_of(settings.device.backend)));
  if (backend == DeviceBackend::none) {
    log::warn("device.capacity is set and there is no device: no device tier");
    return {};
  }
  SC_ASSIGN(device, EmulatedDevice::create(settings.device.capacity, options.huge_pages));
  memories.push_back({device->data(), device->bytes()});
  SC_ASSIGN(SharedArena device_share, share(wire::TierName::device, *device));
  shares.push_back(std::move(device_share));
  return {};
}

/// How many equal parts the host tier has, and whose they are.
Result<> Assembly::Parts::plan_host(const ArenaOptions& options) {
  std::vector<std::uint32_t> domains{0};
  for (const Tenant& tenant : tenants)
    domains.push_back(tenant.trust_domain);
  std::ranges::sort(domains);
  domains.erase(std::unique(domains.begin(), domains.end()), domains.end());
  const std::uint64_t whole = round_up(options.bytes, Arena::kHugePage);
  const std::uint64_t part = round_down(whole / domains.size(), Arena::kHugePage);
  if (part == 0)
    return fail(Errc::no_space,
                fmt::format("host.capacity is too small for {} trust domains", domains.size()));
  if (domains.size() > 1 && settings.device.capacity != 0) {
    return fail(
        Errc::unsupported,
        "a device tier has one memory for all: it cannot be had with several trust domains");
  }
  host_layout = 1469598103934665603ULL;
  for (const std::uint32_t domain : domains) {
    host_plan.push_back({domain, domains.size() == 1 ? whole : part});
    for (const std::uint64_t word : {std::uint64_t{domain}, host_plan.back().bytes})
      host_layout = (host_layout ^ word) * 1099511628211ULL;
  }
  if (domains.size() == 1) return {};
  // Side by side, so that the tier is one range of addresses to whoever moves its bytes.
  const std::uint64_t reserved = part * domains.size() + Arena::kHugePage;
  void* const area =
      ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) return fail_errno("reserving addresses for the host tier");
  host_range = Mapping(area, reserved);
  return {};
}

std::byte* Assembly::Parts::address_of(std::size_t index) const {
  if (host_plan.size() == 1) return nullptr;
  const std::uint64_t at =
      round_up(reinterpret_cast<std::uintptr_t>(host_range.data()), Arena::kHugePage) -
      reinterpret_cast<std::uintptr_t>(host_range.data());
  return host_range.data() + at + index * host_plan.front().bytes;
}

/// The arenas and their table that an earlier daemon left with the service manager. False: not all
/// of them are there, or they are of other settings.
bool Assembly::Parts::adopt_host(ArenaOptions options, const std::vector<std::string>& names) {
  UniqueFd table_fd = inherited.take(kTableName);
  std::vector<UniqueFd> fds;
  for (const std::string& name : names)
    fds.push_back(inherited.take(name));
  if (!table_fd) return false;
  const auto refuse = [&](const Error& error) {
    log::warn("host memory of an earlier daemon is not taken over: {}", error.message());
    hosts.clear();
    return false;
  };
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    options.bytes = host_plan[i].bytes;
    options.at = address_of(i);
    auto arena = Arena::adopt(std::move(fds[i]), options);
    if (!arena) return refuse(arena.error());
    hosts.push_back(std::move(*arena));
    total += host_plan[i].bytes;
  }
  auto kept = HostTable::adopt(std::move(table_fd), total, host_layout);
  if (!kept) return refuse(kept.error());
  table.emplace(std::move(*kept));
  return true;
}

Result<> Assembly::Parts::make_host(ArenaOptions options) {
  SC_TRY(plan_host(options));
  std::vector<std::string> names;
  for (const RegionOptions& part : host_plan)
    names.push_back(fmt::format("statecached-arena-{:08x}", part.trust_domain));
  adopted = adopt_host(options, names);
  std::uint64_t total = 0;
  if (!adopted) {
    for (const std::string& name : names)
      forget_fd(name);
    forget_fd(kTableName);
    for (std::size_t i = 0; i < host_plan.size(); ++i) {
      options.bytes = host_plan[i].bytes;
      options.at = address_of(i);
      SC_ASSIGN(Arena arena, Arena::create(options));
      hosts.push_back(std::move(arena));
    }
  }
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    SC_ASSIGN(SharedArena shared, share(wire::TierName::host, hosts[i]));
    shared.trust_domain = host_plan[i].trust_domain;
    shared.base = total;
    shares.push_back(std::move(shared));
    total += hosts[i].bytes();
  }
  memories.push_back({hosts.front().data(), total});
  if (adopted || !has_service_manager()) return {};
  SC_ASSIGN(table, HostTable::create(total, host_layout));
  const auto keep = [](const std::string& name, int fd) {
    if (const auto kept = keep_fd(name, fd); !kept)
      log::warn("host memory will not outlive this process: {}", kept.error().message());
  };
  for (std::size_t i = 0; i < hosts.size(); ++i)
    keep(names[i], hosts[i].fd());
  keep(kTableName, table->fd());
  return {};
}

Result<> Assembly::Parts::make_drives(std::vector<Disk*>& seams) {
  SC_TRY(make_directory(settings.paths.state_dir));
  const std::vector<std::string> paths = settings.nvme_paths();
  const std::uint64_t capacity = round_down(settings.nvme.capacity / paths.size(), kDriveGrain);
  RocksCatalogOptions options;
  options.waker = waker();
  auto opened = RocksCatalog::open(std::filesystem::path(settings.paths.state_dir) / "catalog",
                                   std::move(options));
  if (!opened && cannot_write(opened.error())) {
    // Engines are better served by memory alone than not at all; what is on the drives stays there.
    log::error(
        "{}: nothing can be kept on NVMe until the next start; the daemon goes on with memory "
        "alone",
        opened.error().message());
    return {};
  }
  if (!opened) return tl::unexpected<Error>(std::move(opened.error()));
  rocks = std::move(*opened);
  std::vector<DrivePath> drives;
  std::vector<std::string> uuids;
  for (const std::string& path : paths) {
    SC_ASSIGN(DrivePath drive, open_path(path, capacity, path_options(settings)));
    uuids.push_back(to_hex(drive.uuid));
    drives.push_back(std::move(drive));
  }
  DriveNumbers numbers = number_drives(rocks->recorded_paths(), uuids);
  for (const std::size_t index : numbers.drives) {
    std::string folder;
    if (index == kGone) {
      disks.push_back(make_gone_disk());
    } else {
      folder = drives[index].directory;
      SC_ASSIGN(std::unique_ptr<Disk> disk,
                make_disk(std::move(drives[index]), memories, disk_options(settings), waker()));
      disks.push_back(std::make_unique<GuardedDisk>(
          std::move(disk), clock, settings.limits.transfer_timeout, folder));
    }
    seams.push_back(disks.back().get());
    worn.push_back({folder, disks.back().get()});
  }
  catalog = std::make_unique<NumberedCatalog>(*rocks, std::move(numbers));
  return {};
}

void Assembly::Parts::make_budget() {
  const std::string& folder = settings.paths.state_dir;
  if (settings.nvme.write_budget_per_day != config::kUnlimited) {
    const WriteBudgetOptions options{settings.nvme.write_budget_per_day,
                                     std::max<std::uint64_t>(settings.write_burst(), 1)};
    budget = std::make_unique<WriteBudget>(
        options, restored_tokens(options, folder, wall_seconds()), clock.now());
  }
  wear = std::make_unique<Wear>(worn, folder, budget.get());
}

Result<> Assembly::Parts::make_conductor(CacheSeams seams) {
  CacheOptions options = cache_options(settings);
  options.host_bytes = memories.front().bytes;
  options.regions = host_plan;
  for (const Tenant& tenant : tenants)
    options.tenants.push_back(
        {tenant.trust_domain, tenant.quota, trust_domain_number(tenant.name)});
  options.tenants.emplace_back();  // default
  options.device_bytes = device ? device->bytes() : 0;
  options.slot_base = static_cast<std::uint32_t>(epoch);
  ServingOptions serving;
  serving.clients_max = settings.limits.clients;
  serving.tickets_max = settings.limits.inflight;
  serving.epoch = epoch;
  serving.staging_bytes = settings.limits.staging;
  serving.staging_arena = static_cast<std::uint32_t>(shares.size() - hosts.size() + 1);
  if (cores == 1) serving.spin = Nanos{0};  // spinning would keep the client from answering
  SC_ASSIGN(conductor, Conductor::create(serving, options, std::move(seams), clock, *bell));
  Cache& cache = conductor->cache();
  if (adopted) {
    // What was kept in memory is matched with the rows, so all of these come first.
    SC_TRY(cache.recover(clock.now(), wall_seconds()));
    conductor->adopt(*table);
    return {};
  }
  SC_TRY(cache.recover_begin(clock.now(), wall_seconds()));
  // The rest of a large catalog comes in while requests are served (design.md 8); a small one is
  // there before the first of them, which would find nothing otherwise.
  const Instant until = clock.now() + kLoadAlone;
  while (cache.recovering() && clock.now() < until) {
    if (cache.step(clock.now()) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return {};
}

Result<> Assembly::Parts::bench_nvme(const NvmeBenchWish& wish, NvmeBenchRunner::Done done) {
  if (budget) {
    return fail(Errc::permission,
                "nvme.write_budget_per_day is set and a bench would use it up: run it without "
                "--attach");
  }
  NvmeBenchOptions options;
  options.drive = settings.nvme_paths().front();
  options.block = wish.block;
  options.file_bytes = wish.file_bytes;
  options.pairs = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(wish.pairs, 1, 10'000));
  options.demand_reads =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(wish.demand_reads, 1'000'000));
  options.disk = disk_options(settings);
  options.direct = direct_of(settings.nvme.direct);
  options.huge_pages = huge_pages_of(settings.host.huge_pages);
  return bench.start(std::move(options), [this, done](Result<std::string> report) {
    // Not taken: the daemon is stopping, and so is whoever asked.
    static_cast<void>(
        conductor->post([done, report = std::move(report)](Conductor&) { done(report); }));
  });
}

Result<> Assembly::Parts::make_control(const std::string& version) {
  ControlOptions options;
  options.trust_own_user = settings.socket.trust == config::Trust::same_user;
  options.tenants = tenants;
  options.cores = cores;
  options.epoch = epoch;
  options.earlier = conductor->earlier();
  options.connections_max = settings.limits.clients + 64;
  AdminContext context;
  context.version = version;
  context.epoch = epoch;
  context.started = clock.now();
  context.state_dir = settings.paths.state_dir;
  context.settings = config::to_toml(settings);
  for (const Tenant& tenant : options.tenants)
    context.tenants.push_back(tenant.name);
  context.fill = [this](Snapshot& snapshot) {
    if (const Instant now = clock.now(); !huge_share_at || now - *huge_share_at > kHugeShareAge) {
      huge_share = 0;
      for (const Arena& host : hosts)
        huge_share += host.huge_share() / static_cast<double>(hosts.size());
      huge_share_at = now;
    }
    snapshot.huge_page_share = huge_share;
    for (std::size_t i = 0; i < disks.size(); ++i) {
      const Disk& disk = *disks[i];
      snapshot.drives.push_back({disk.engine(),
                                 disk.capacity(),
                                 disk.stats(),
                                 worn[i].folder,
                                 worn[i].folder.empty() ? DiskHealth::out : disk.health(),
                                 wear->lifetime(i)});
    }
    if (wear) snapshot.process_written = wear->process_written();
    if (budget) snapshot.budget = budget->status();
    snapshot.has_catalog = catalog != nullptr;
    if (catalog) snapshot.catalog = catalog->stats();
  };
  if (!disks.empty()) {
    context.bench_nvme = [this](const NvmeBenchWish& wish, NvmeBenchRunner::Done done) {
      return bench_nvme(wish, std::move(done));
    };
  }
  SC_ASSIGN(Listener listener, inherited_listener(std::move(inherited.socket)));
  if (!listener.fd) {
    SC_ASSIGN(listener,
              listen_unix(settings.socket_path(), settings.socket.mode, settings.socket.group));
  }
  context.socket_path = settings.socket_path();
  std::vector<Listener> pages;
  if (!settings.metrics.listen.empty()) {
    SC_ASSIGN(Listener page, listen_metrics(settings.metrics.listen));
    pages.push_back(std::move(page));
  }
  std::vector<ArenaShare> arenas;
  for (const SharedArena& arena : shares) {
    arenas.push_back({arena.tier,
                      arena.bytes,
                      arena.writable.get(),
                      arena.readable.get(),
                      arena.trust_domain,
                      arena.base});
  }
  admin = std::make_unique<Admin>(std::move(context));
  SC_ASSIGN(server,
            ControlServer::create(std::move(options),
                                  *conductor,
                                  *admin,
                                  std::move(arenas),
                                  std::move(listener),
                                  std::move(pages)));
  return {};
}

Assembly::Assembly(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Assembly::~Assembly() {
  stop();
}

Result<std::unique_ptr<Assembly>> Assembly::create(const config::Settings& settings,
                                                   const std::string& version) {
  auto parts = std::make_unique<Parts>(settings);
  SC_TRY(parts->make(version));
  return std::unique_ptr<Assembly>(new Assembly(std::move(parts)));
}

void Assembly::start() {
  parts_->thread = std::thread([conductor = parts_->conductor.get()] {
    ::pthread_setname_np(::pthread_self(), "conductor");
    conductor->run();
  });
  parts_->server->start();
}

void Assembly::stop() {
  if (!parts_->thread.joinable()) return;
  parts_->server->stop_accepting();
  parts_->bench.stop();
  const Nanos limit = parts_->settings.limits.stop_time;
  while (!parts_->conductor->post([limit](Conductor& conductor) { conductor.stop(limit); })) {
    std::this_thread::sleep_for(
        std::chrono::milliseconds(1));  // the mailbox is full; the conductor empties it
  }
  parts_->thread.join();
  parts_->server->stop();
}

std::string Assembly::summary() const {
  const config::Settings& s = parts_->settings;
  std::string out =
      fmt::format("{}, host {}", s.socket_path(), format_size(parts_->memories.front().bytes));
  if (parts_->device)
    out += fmt::format(", device {} (emulated)", format_size(parts_->device->bytes()));
  for (const auto& disk : parts_->disks)
    out += fmt::format(", NVMe {} ({})", format_size(disk->capacity()), disk->engine());
  return out;
}

}  // namespace statecached
