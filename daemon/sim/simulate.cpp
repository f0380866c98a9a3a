#include "daemon/sim/simulate.hpp"

#include "client/workload/model.hpp"
#include "client/workload/percentiles.hpp"
#include "client/workload/turns.hpp"
#include "policy/eviction.hpp"
#include "tiers/catalog/memory_catalog.hpp"
#include "tiers/host/copier.hpp"
#include "tiers/nvme/sim_disk.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <unordered_map>
#include <unordered_set>

namespace statecached {
namespace {

/// Rates under which a load takes no time that anyone could see.
constexpr double kFree = 1e18;
/// What the kernel counts for the catalog: each row twice, in the log and later in a table, and the
/// log's last page once more with each batch that is synced.
constexpr std::uint64_t kRowCopies = 2;
constexpr std::uint64_t kBurstsADay = 144;
/// Steps that complete something after one request, before something is wrong.
constexpr std::uint32_t kTurnsMax = 1'000'000;

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
  explicit Simulator(const SimSettings& settings)
      : settings_(settings),
        catalog_(MemoryCatalogOptions{.discard = true,
                                      .count_bytes = settings.write_budget_per_day != 0}) {
    CacheSeams seams;
    if (settings.write_budget_per_day != 0) {
      const std::uint64_t automatic =
          std::max<std::uint64_t>(settings.write_budget_per_day / kBurstsADay, 1);
      const std::uint64_t burst = settings.write_burst != 0 ? settings.write_burst : automatic;
      budget_.emplace(
          WriteBudgetOptions{settings.write_budget_per_day, burst}, burst, clock_.now());
      seams.budget = &*budget_;
    }
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
  Result<> run_open(TraceReader& trace, const std::function<void(std::uint64_t)>& progress);
  Result<SimResult> result();

 private:
  [[nodiscard]] double nvme_rate() const {
    return settings_.compat_reference ? kFree : settings_.nvme_bytes_per_second;
  }

  [[nodiscard]] double host_rate() const {
    return settings_.compat_reference ? kFree : settings_.host_bytes_per_second;
  }

  [[nodiscard]] CacheOptions cache_options() const {
    CacheOptions options;
    options.device_bytes = settings_.device_bytes;
    options.host_bytes = settings_.host_bytes;
    options.policy = settings_.policy;
    options.engine_flops = settings_.engine_flops;
    options.host_bytes_per_second = host_rate();
    options.nvme_bytes_per_second = nvme_rate();
    options.measure_speeds = false;
    options.policy_clock = +[] {
      return static_cast<std::uint64_t>(
          std::chrono::steady_clock::now().time_since_epoch().count());
    };
    options.policy.future = settings_.future.get();
    options.follow_verdict = !settings_.compat_reference;
    options.keep_back = settings_.compat_reference ? 0 : 1;
    return options;
  }

  /// A step, and a look at the accounts of what has been written.
  std::size_t step() {
    if (budget_ && disk_) {
      const CatalogStats rows = catalog_.stats();
      budget_->observe(disk_->stats().bytes_written + kRowCopies * rows.bytes +
                       rows.batches * kPage);
    }
    return cache_->step(clock_.now());
  }

  /// Steps the cache and jumps the clock to the drive's next event until `done` holds or nothing is
  /// under way.
  template <class Done>
  Result<> advance(Nanos& in_cache, Done done) {
    std::uint32_t idle = 0;
    std::uint32_t turns = 0;
    while (!done()) {
      std::size_t handled = 0;
      {
        const Stopwatch watch(in_cache);
        handled = step();
      }
      if (handled != 0) {
        idle = 0;
        if (++turns > kTurnsMax)
          return fail(Errc::internal, "the cache moves state between its tiers without end");
        continue;
      }
      if (!cache_->busy()) break;
      const Instant next = disk_ ? disk_->next_completion() : Instant::max();
      clock_.set(next == Instant::max() ? clock_.now() + Nanos{1000}
                                        : std::max(clock_.now(), next));
      if (next == Instant::max() && ++idle > 1'000'000) {
        return fail(Errc::internal, "the cache says that it is busy and nothing completes");
      }
    }
    return {};
  }

  /// A request on its way.
  struct Turn {
    TraceRequest request;
    TicketName name;
    Instant asked{};
    std::vector<std::uint32_t> wishes;
    std::uint32_t hit = 0;
    Nanos prefill{};
    Nanos in_cache{};  ///< real time
  };

  Result<> begin(Turn& turn);
  Result<Nanos> start_prefill(Turn& turn);
  Result<> end(Turn& turn);
  void account(const Turn& turn);
  Result<> save(Turn& turn, const std::vector<TurnWant>& wants);
  void count_hit(const Lease& lease, std::uint64_t& host_bytes);

  SimSettings settings_;
  ManualClock clock_;
  NoListener listener_;
  MemoryCatalog catalog_;
  InstantCopies copies_;
  std::optional<WriteBudget> budget_;
  std::optional<SimDisk> disk_;
  std::optional<Cache> cache_;
  ClientIx client_ = 0;

  SimResult result_;
  std::vector<double> ttft_ms_;
  std::vector<double> cache_us_;
  std::vector<double> policy_us_;
  std::uint64_t policy_nanos_ = 0;
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

Result<> Simulator::save(Turn& turn, const std::vector<TurnWant>& wants) {
  const Stopwatch watch(turn.in_cache);
  std::vector<WantItem> batch;
  // Policies that work node by node are asked as the paper's simulator asks: for the whole sequence
  // at once.
  const std::size_t at_once = traits_of(settings_.policy.name).whole_nodes
                                  ? std::max<std::size_t>(wants.size(), 1)
                                  : kWantsAtOnce;
  for (std::size_t at = 0; at < wants.size(); at += at_once) {
    batch.clear();
    for (std::size_t i = at; i < std::min(at + at_once, wants.size()); ++i) {
      batch.push_back({.group = wants[i].group, .first = wants[i].first, .end = wants[i].end});
    }
    SC_ASSIGN(const auto grants, cache_->reserve(client_, turn.name, batch, clock_.now()));
    for (const SlotGrant& grant : grants) {
      if (grant.grant != GrantKind::granted) continue;
      // Refused only when the slot went stale, which is the cache's to count.
      static_cast<void>(cache_->commit(client_, {.slot = grant.slot}, clock_.now()));
    }
  }
  return {};
}

Result<> Simulator::begin(Turn& turn) {
  turn.name = {turn.request.index + 1, 0};
  turn.asked = clock_.now();
  if (settings_.future) settings_.future->start(turn.request.index);
  const Stopwatch watch(turn.in_cache);
  BeginRequest begin;
  begin.tokens = turn.request.input;
  begin.hold = HoldKind::lease;
  begin.keep_back = settings_.compat_reference ? 0 : 1;
  SC_ASSIGN(const Answer* answer, cache_->begin(client_, turn.name, begin, turn.asked));
  turn.wishes = answer->wishes;
  return {};
}

/// Takes the lease; the time until the first token can be had from now on.
Result<Nanos> Simulator::start_prefill(Turn& turn) {
  const Stopwatch watch(turn.in_cache);
  std::uint64_t host_bytes = 0;
  SC_ASSIGN(const Lease* lease, cache_->acquire(client_, turn.name, kUnknown, {}, clock_.now()));
  turn.hit = lease->tokens;
  count_hit(*lease, host_bytes);
  turn.prefill = from_seconds(prefill_seconds(
      settings_.spec.cost, turn.hit, turn.request.input.size(), settings_.engine_flops));
  return from_seconds(static_cast<double>(host_bytes) / host_rate()) + turn.prefill;
}

/// The first token is there: saves, finishes, counts.
Result<> Simulator::end(Turn& turn) {
  const TraceRequest& request = turn.request;
  const auto prompt = static_cast<std::uint32_t>(request.input.size());
  const auto total = static_cast<std::uint32_t>(request.input.size() + request.output.size());
  const Cost& cost = settings_.spec.cost;
  ttft_ms_.push_back(seconds(clock_.now() - turn.asked) * 1e3);
  if (settings_.future) settings_.future->start(request.index);
  {
    const Stopwatch watch(turn.in_cache);
    SC_TRY(cache_->append(client_, turn.name, request.output, {}, kUnknown, clock_.now()));
  }
  if (settings_.policy.admission == Admission::every_tokens) {  // generated tokens too
    const std::uint32_t step = settings_.policy.every_tokens;
    for (std::uint32_t at = prompt / step * step + step; at < total; at += step)
      turn.wishes.push_back(at);
  }
  SC_TRY(save(turn, turn_wants(settings_.spec, turn.hit, total, turn.wishes)));
  {
    const Stopwatch watch(turn.in_cache);
    SC_TRY(
        cache_->finish(client_, turn.name, total, prompt - turn.hit, turn.prefill, clock_.now()));
    SC_TRY(cache_->release(client_, turn.name, clock_.now()));
  }
  ++result_.requests;
  result_.input_tokens += prompt;
  result_.flops += cost.flops(0, prompt);
  result_.flops_saved += cost.flops(0, turn.hit);
  return {};
}

void Simulator::account(const Turn& turn) {
  cache_us_.push_back(seconds(turn.in_cache) * 1e6);
  const std::uint64_t policy = cache_->counters().policy_nanos;
  policy_us_.push_back(static_cast<double>(policy - policy_nanos_) / 1e3);
  policy_nanos_ = policy;
  if (!settings_.each) return;
  SimRow row{turn.request.index,
             static_cast<std::uint32_t>(turn.request.input.size()),
             turn.hit,
             ttft_ms_.back(),
             {}};
  for (const Tier tier : {Tier::device, Tier::host, Tier::nvme})
    row.bytes[index(tier)] = cache_->tier(tier).used;
  settings_.each(row);
}

Result<> Simulator::run(const TraceRequest& request) {
  Turn turn;
  turn.request = request;
  SC_TRY(begin(turn));
  SC_TRY(advance(turn.in_cache, [&] { return cache_->lease(turn.name) != nullptr; }));
  SC_ASSIGN(const Nanos prefill, start_prefill(turn));
  clock_.advance(prefill);
  SC_TRY(end(turn));
  SC_TRY(advance(turn.in_cache, [] { return false; }));
  account(turn);
  return {};
}

Result<> Simulator::run_open(TraceReader& trace,
                             const std::function<void(std::uint64_t)>& progress) {
  const auto due = [&](const TraceRequest& r) {
    return Instant{} + from_seconds(r.timestamp_ms / 1e3 * settings_.stretch);
  };
  TraceRequest next;
  bool more = trace.next(next);
  std::unordered_set<std::uint64_t> open;  // asked or waiting to be asked
  // by the request that must be over first
  std::unordered_map<std::uint64_t, std::vector<TraceRequest>> after;
  std::deque<Turn> queue;  // asked, in that order
  std::optional<Turn> running;
  Instant free_at{};
  Nanos busy{};
  std::uint64_t done = 0;
  std::uint32_t idle = 0;
  const auto ask = [&](TraceRequest&& request) -> Result<> {
    queue.emplace_back();
    queue.back().request = std::move(request);
    return begin(queue.back());
  };
  while (more || running || !queue.empty()) {
    const Instant now = clock_.now();
    bool moved = false;
    Nanos stepping{};
    {
      const Stopwatch watch(stepping);
      for (std::uint32_t turns = 0; step() != 0; moved = true) {
        if (++turns > kTurnsMax)
          return fail(Errc::internal, "the cache moves state between its tiers without end");
      }
    }
    if (running && now >= free_at) {
      running->in_cache += stepping;
      SC_TRY(end(*running));
      account(*running);
      if (progress) progress(++done);
      open.erase(running->request.index);
      auto waiting = after.extract(running->request.index);
      running.reset();
      if (!waiting.empty()) {
        for (TraceRequest& request : waiting.mapped())
          SC_TRY(ask(std::move(request)));
      }
      moved = true;
    }
    while (more && due(next) <= now) {
      open.insert(next.index);
      if (next.after != kNoRequest && open.contains(next.after)) {
        after[next.after].push_back(std::move(next));
      } else {
        SC_TRY(ask(std::move(next)));
      }
      next = TraceRequest{};
      more = trace.next(next);
      moved = true;
    }
    if (!running) {
      const auto ready = std::find_if(queue.begin(), queue.end(), [&](const Turn& turn) {
        return cache_->lease(turn.name) != nullptr;
      });
      if (ready != queue.end()) {
        running = std::move(*ready);
        queue.erase(ready);
        SC_ASSIGN(const Nanos prefill, start_prefill(*running));
        free_at = now + prefill;
        busy += prefill;
        moved = true;
      }
    }
    if (moved) {
      idle = 0;
      continue;
    }
    Instant wake = disk_ ? disk_->next_completion() : Instant::max();
    if (more) wake = std::min(wake, due(next));
    if (running) wake = std::min(wake, free_at);
    if (wake == Instant::max() || wake <= now) {
      if (++idle > 1'000'000) return fail(Errc::internal, "requests wait and nothing completes");
      wake = now + Nanos{1000};
    }
    clock_.set(wake);
  }
  result_.engine_busy =
      clock_.now() > Instant{} ? seconds(busy) / seconds(clock_.now() - Instant{}) : 0;
  Nanos rest{};
  return advance(rest, [] { return false; });
}

Result<SimResult> Simulator::result() {
  SC_TRY(cache_->audit());
  result_.counters = cache_->counters();
  result_.alpha = cache_->alpha();
  if (budget_) result_.budget = budget_->status();
  for (const Tier tier : {Tier::device, Tier::host, Tier::nvme})
    result_.bytes_peak[index(tier)] = cache_->tier(tier).peak;
  result_.ttft_ms = {
      nearest_rank(ttft_ms_, 0.5), nearest_rank(ttft_ms_, 0.95), nearest_rank(ttft_ms_, 0.99)};
  double sum = 0;
  for (const double us : cache_us_)
    sum += us;
  result_.cache_us_mean = cache_us_.empty() ? 0 : sum / static_cast<double>(cache_us_.size());
  result_.cache_us_p99 = nearest_rank(cache_us_, 0.99);
  double policy = 0;
  for (const double us : policy_us_)
    policy += us;
  result_.policy_us_mean = policy_us_.empty() ? 0 : policy / static_cast<double>(policy_us_.size());
  result_.policy_us_p99 = nearest_rank(policy_us_, 0.99);
  result_.virtual_seconds = seconds(clock_.now() - Instant{});
  return result_;
}

}  // namespace

Result<SimResult> simulate(const SimSettings& settings,
                           TraceReader& trace,
                           const std::function<void(std::uint64_t)>& progress) {
  const MonotonicClock wall;
  const Instant start = wall.now();
  Simulator simulator(settings);
  SC_TRY(simulator.start());
  TraceRequest request;
  std::uint64_t done = 0;
  if (settings.open_loop) SC_TRY(simulator.run_open(trace, progress));
  while (!settings.open_loop && trace.next(request)) {
    SC_TRY(simulator.run(request));
    if (progress) progress(++done);
  }
  if (trace.error() != nullptr) return tl::unexpected<Error>(*trace.error());
  SC_ASSIGN(SimResult result, simulator.result());
  result.wall_seconds = seconds(wall.now() - start);
  return result;
}

Result<TraceDemand> measure(TraceReader& trace, const Cost& cost, double engine_flops) {
  TraceDemand out;
  TraceRequest request;
  double first = -1;
  while (trace.next(request)) {
    if (first < 0) first = request.timestamp_ms;
    out.seconds = (request.timestamp_ms - first) / 1e3;
    out.prefill_seconds += prefill_seconds(cost, 0, request.input.size(), engine_flops);
  }
  if (trace.error() != nullptr) return tl::unexpected<Error>(*trace.error());
  return out;
}

Result<> fill(Future& future, TraceReader& trace) {
  TraceRequest request;
  while (trace.next(request)) {
    const auto prompt = static_cast<std::uint32_t>(request.input.size());
    request.input.insert(request.input.end(), request.output.begin(), request.output.end());
    future.add(request.input, prompt);
  }
  if (trace.error() != nullptr) return tl::unexpected<Error>(*trace.error());
  future.seal();
  return {};
}

}  // namespace statecached
