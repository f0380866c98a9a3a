#include "daemon/sim/simulate.hpp"

#include "client/workload/model.hpp"
#include "client/workload/percentiles.hpp"
#include "client/workload/turns.hpp"
#include "policy/eviction.hpp"
#include "tiers/catalog/memory_catalog.hpp"
#include "tiers/host/copier.hpp"
#include "tiers/nvme/sim_disk.hpp"

#include <algorithm>
#include <optional>

namespace statecached {
namespace {

/// Rates under which a load takes no time that anyone could see.
constexpr double kFree = 1e18;

class NoListener final : public CacheListener {
 public:
  void on_answer(const TicketName&) override {}
  void on_leased(const TicketName&) override {}
  void on_event(const CacheEvent&) override {}
};

/// Adds the real time of its life to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(Nanos& sum) : sum_(sum) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() { sum_ += clock_.now() - start_; }

 private:
  MonotonicClock clock_;
  Nanos& sum_;
  Instant start_ = clock_.now();
};

class Simulator {
 public:
  explicit Simulator(const SimSettings& settings) : settings_(settings), catalog_(MemoryCatalogOptions{.discard = true}) {
    CacheSeams seams;
    if (settings.nvme_bytes != 0) {
      SimDiskOptions options;
      options.read_bytes_per_second = nvme_rate();
      options.write_bytes_per_second = nvme_rate();
      options.seed = settings.seed;
      if (settings.compat_reference) options.latency = options.sync_latency = Nanos{0};
      disk_.emplace(round_down(settings.nvme_bytes, kPage), clock_, options);
      seams.disks.push_back(&*disk_);
      seams.catalog = &catalog_;
    }
    seams.copier = &copies_;
    cache_.emplace(cache_options(), std::move(seams), &listener_);
  }

  Result<> start() {
    SC_TRY(cache_->recover(clock_.now(), 0));
    MemberInfo member;
    member.program = "statecache-sim";
    SC_ASSIGN(client_, cache_->attach(settings_.spec, std::move(member), clock_.now()));
    return {};
  }

  Result<> run(const TraceRequest& request);
  Result<SimResult> result();

 private:
  [[nodiscard]] double nvme_rate() const { return settings_.compat_reference ? kFree : settings_.nvme_bytes_per_second; }
  [[nodiscard]] double host_rate() const { return settings_.compat_reference ? kFree : settings_.host_bytes_per_second; }

  [[nodiscard]] CacheOptions cache_options() const {
    CacheOptions options;
    options.device_bytes = settings_.device_bytes;
    options.host_bytes = settings_.host_bytes;
    options.policy = settings_.policy;
    options.engine_flops = settings_.engine_flops;
    options.host_bytes_per_second = host_rate();
    options.nvme_bytes_per_second = nvme_rate();
    options.measure_speeds = false;
    options.follow_verdict = !settings_.compat_reference;
    options.keep_back = settings_.compat_reference ? 0 : 1;
    options.seed = settings_.seed;
    return options;
  }

  /// Steps the cache and jumps the clock to the drive's next event until `done` holds or nothing is under way.
  template <class Done>
  Result<> advance(Done done) {
    std::uint32_t idle = 0;
    while (!done()) {
      std::size_t handled = 0;
      {
        const Stopwatch watch(in_cache_);
        handled = cache_->step(clock_.now());
      }
      if (handled != 0) {
        idle = 0;
        continue;
      }
      if (!cache_->busy()) break;
      const Instant next = disk_ ? disk_->next_completion() : Instant::max();
      clock_.set(next == Instant::max() ? clock_.now() + Nanos{1000} : std::max(clock_.now(), next));
      if (next == Instant::max() && ++idle > 1'000'000) {
        return fail(Errc::internal, "the cache says that it is busy and nothing completes");
      }
    }
    return {};
  }
  Result<> save(const TicketName& name, const std::vector<TurnWant>& wants);
  void count_hit(const Lease& lease, std::uint64_t& host_bytes);

  SimSettings settings_;
  ManualClock clock_;
  NoListener listener_;
  MemoryCatalog catalog_;
  InstantCopies copies_;
  std::optional<SimDisk> disk_;
  std::optional<Cache> cache_;
  ClientIx client_ = 0;
  Nanos in_cache_{};

  SimResult result_;
  std::vector<double> ttft_ms_;
  std::vector<double> cache_us_;
};

void Simulator::count_hit(const Lease& lease, std::uint64_t& host_bytes) {
  std::optional<std::uint16_t> kv;
  for (std::size_t g = 0; g < settings_.spec.groups.size() && !kv; ++g) {
    if (settings_.spec.groups[g].need == Need::every) kv = static_cast<std::uint16_t>(g);
  }
  result_.hit_tokens += lease.tokens;
  for (const Piece& piece : lease.pieces) {
    if (piece.arena == kHostArena) host_bytes += piece.payload_bytes;
    const bool counts = kv ? piece.group == *kv : piece.valid == 0;
    if (!counts || piece.shard != 0 || piece.tier_at_begin == Tier::none) continue;
    result_.hit_by_tier[index(piece.tier_at_begin)] += kv ? piece.valid : lease.tokens;
  }
}

Result<> Simulator::save(const TicketName& name, const std::vector<TurnWant>& wants) {
  const Stopwatch watch(in_cache_);
  std::vector<WantItem> batch;
  // Policies that work node by node are asked as the paper's simulator asks: for the whole sequence at once.
  const std::size_t at_once = traits_of(settings_.policy.name).whole_nodes ? std::max<std::size_t>(wants.size(), 1) : kWantsAtOnce;
  for (std::size_t at = 0; at < wants.size(); at += at_once) {
    batch.clear();
    for (std::size_t i = at; i < std::min(at + at_once, wants.size()); ++i) {
      batch.push_back({.group = wants[i].group, .first = wants[i].first, .end = wants[i].end});
    }
    SC_ASSIGN(const auto grants, cache_->reserve(client_, name, batch, clock_.now()));
    for (const SlotGrant& grant : grants) {
      if (grant.grant != GrantKind::granted) continue;
      // Refused only when the slot went stale, which is the cache's to count.
      static_cast<void>(cache_->commit(client_, {.slot = grant.slot}, clock_.now()));
    }
  }
  return {};
}

Result<> Simulator::run(const TraceRequest& request) {
  const TicketName name{request.index + 1, 0};
  const auto prompt = static_cast<std::uint32_t>(request.input.size());
  const auto total = static_cast<std::uint32_t>(request.input.size() + request.output.size());
  const Cost& cost = settings_.spec.cost;
  const Instant start = clock_.now();
  in_cache_ = {};

  std::vector<std::uint32_t> wishes;
  {
    const Stopwatch watch(in_cache_);
    BeginRequest begin;
    begin.tokens = request.input;
    begin.hold = HoldKind::lease;
    begin.keep_back = settings_.compat_reference ? 0 : 1;
    SC_ASSIGN(const Answer* answer, cache_->begin(client_, name, begin, start));
    wishes = answer->wishes;
  }
  SC_TRY(advance([&] { return cache_->lease(name) != nullptr; }));
  std::uint32_t hit = 0;
  std::uint64_t host_bytes = 0;
  {
    const Stopwatch watch(in_cache_);
    SC_ASSIGN(const Lease* lease, cache_->acquire(client_, name, kUnknown, {}, clock_.now()));
    hit = lease->tokens;
    count_hit(*lease, host_bytes);
  }
  const Nanos prefill = from_seconds(prefill_seconds(cost, hit, prompt, settings_.engine_flops));
  clock_.advance(from_seconds(static_cast<double>(host_bytes) / host_rate()) + prefill);
  ttft_ms_.push_back(seconds(clock_.now() - start) * 1e3);

  {
    const Stopwatch watch(in_cache_);
    SC_TRY(cache_->append(client_, name, request.output, {}, kUnknown, clock_.now()));
  }
  SC_TRY(save(name, turn_wants(settings_.spec, hit, total, wishes)));
  {
    const Stopwatch watch(in_cache_);
    SC_TRY(cache_->finish(client_, name, total, prompt - hit, prefill, clock_.now()));
    SC_TRY(cache_->release(client_, name, clock_.now()));
  }
  SC_TRY(advance([] { return false; }));

  ++result_.requests;
  result_.input_tokens += prompt;
  result_.flops += cost.flops(0, prompt);
  result_.flops_saved += cost.flops(0, hit);
  cache_us_.push_back(seconds(in_cache_) * 1e6);
  if (settings_.each) {
    SimRow row{request.index, prompt, hit, ttft_ms_.back(), {}};
    for (const Tier tier : {Tier::device, Tier::host, Tier::nvme}) row.bytes[index(tier)] = cache_->tier(tier).used;
    settings_.each(row);
  }
  return {};
}

Result<SimResult> Simulator::result() {
  SC_TRY(cache_->audit());
  result_.counters = cache_->counters();
  for (const Tier tier : {Tier::device, Tier::host, Tier::nvme}) result_.bytes_peak[index(tier)] = cache_->tier(tier).peak;
  result_.ttft_ms = {nearest_rank(ttft_ms_, 0.5), nearest_rank(ttft_ms_, 0.95), nearest_rank(ttft_ms_, 0.99)};
  double sum = 0;
  for (const double us : cache_us_) sum += us;
  result_.cache_us_mean = cache_us_.empty() ? 0 : sum / static_cast<double>(cache_us_.size());
  result_.cache_us_p99 = nearest_rank(cache_us_, 0.99);
  result_.virtual_seconds = seconds(clock_.now() - Instant{});
  return result_;
}

}  // namespace

Result<SimResult> simulate(const SimSettings& settings, TraceReader& trace, const std::function<void(std::uint64_t)>& progress) {
  const MonotonicClock wall;
  const Instant start = wall.now();
  Simulator simulator(settings);
  SC_TRY(simulator.start());
  TraceRequest request;
  std::uint64_t done = 0;
  while (trace.next(request)) {
    SC_TRY(simulator.run(request));
    if (progress) progress(++done);
  }
  if (trace.error() != nullptr) return tl::unexpected<Error>(*trace.error());
  SC_ASSIGN(SimResult result, simulator.result());
  result.wall_seconds = seconds(wall.now() - start);
  return result;
}

}  // namespace statecached
