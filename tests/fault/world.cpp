#include "tests/fault/world.hpp"

#include "tiers/host/copier.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace statecached::test {
namespace {

constexpr std::uint32_t kBlock = 8;
constexpr std::uint64_t kTokenBytes = 768;
constexpr std::uint64_t kStateBytes = 5'000;
constexpr std::uint64_t kHost = 384 * kKiB;
constexpr std::uint64_t kDrive = 512 * kKiB;

NamespaceSpec spec() {
  NamespaceSpec s;
  s.name = "fault";
  Group kv;
  kv.name = "kv";
  kv.block_tokens = kBlock;
  kv.max_bytes = kBlock * kTokenBytes;
  Group state;
  state.name = "state";
  state.need = Need::end;
  state.max_bytes = kStateBytes;
  s.groups = {kv, state};
  s.cost.c1 = 2e10;
  s.cost.c2 = 1e6;
  return s;
}

/// What an engine computes for the tokens before `end`: every byte depends on all of them, on the
/// weights (the generation) and on the domain.
class Content {
 public:
  Content(const std::vector<Token>& tokens, const Domain& domain, std::uint32_t generation) {
    std::uint64_t hash = mix64(generation + 77) ^ static_cast<std::uint64_t>(domain.salt.bytes[0]);
    chain_.push_back(hash);
    for (const Token token : tokens) {
      hash = mix64(hash ^ token);
      chain_.push_back(hash);
    }
  }

  [[nodiscard]] std::vector<std::byte> of(std::uint16_t group,
                                          std::uint32_t first,
                                          std::uint32_t end) const {
    std::vector<std::byte> out;
    if (group == 1) {
      fill(out, chain_[end] ^ 0x5a5a, kStateBytes);
    } else {
      for (std::uint32_t i = first; i < end; ++i)
        fill(out, chain_[i + 1], kTokenBytes);
    }
    return out;
  }

 private:
  static void fill(std::vector<std::byte>& out, std::uint64_t seed, std::size_t bytes) {
    const std::size_t at = out.size();
    out.resize(at + bytes);
    for (std::size_t i = 0; i < bytes; i += 8) {
      seed += 0x9e3779b97f4a7c15ULL;
      const std::uint64_t word = seed ^ seed >> 29U;
      std::memcpy(out.data() + at + i, &word, std::min<std::size_t>(8, bytes - i));
    }
  }

  std::vector<std::uint64_t> chain_;
};

}  // namespace

/// Really copies and hashes, when it is polled and not always at once.
class Copies final : public CopyEngine {
 public:
  Copies(const Memories& memories, bool blind, std::uint64_t seed)
      : memories_(memories),
        blind_(blind),
        prng_(seed) {}

  [[nodiscard]] bool submit(CopyOp& op) override {
    if (queued_.size() >= 64) return false;
    queued_.push_back(std::move(op));
    return true;
  }

  std::size_t poll(std::vector<CopyDone>& out) override {
    std::size_t count = 0;
    while (!queued_.empty() && !prng_.chance(0.2)) {
      out.push_back(serve(queued_.front()));
      queued_.pop_front();
      ++count;
    }
    return count;
  }

 private:
  CopyDone serve(const CopyOp& op) {
    bytes_.clear();
    for (const MemoryRun& run : op.source) {
      const auto part = bytes_at(memories_, run.at, run.bytes);
      bytes_.insert(bytes_.end(), part.begin(), part.end());
    }
    bytes_.resize(op.payload_bytes);
    CopyDone done;
    done.tag = op.tag;
    done.checksum = checksum_of(bytes_, op.seed);
    if (op.kind == CopyKind::verify) done.ok = blind_ || done.checksum == op.expected;
    return done;
  }

  const Memories& memories_;
  bool blind_;
  Prng prng_;
  std::deque<CopyOp> queued_;
  std::vector<std::byte> bytes_;
};

World::World(const Plan& plan)
    : plan_(plan),
      prng_(plan.seed),
      arena_(kHost),
      memories_{{arena_.data(), kHost}},
      rows_(MemoryCatalogOptions{.queue = 16,
                                 .manual_sync = true,
                                 .fail_chance = 0,
                                 .seed = plan.seed}) {
  for (std::uint64_t d = 0; d < 2; ++d) {
    SimDiskOptions options;
    options.seed = plan.seed * 2 + d;
    options.queue_ops = 8;
    drives_.push_back(std::make_unique<SimDisk>(kDrive, clock_, options, &memories_));
  }
  clock_.advance(std::chrono::hours(1));
  set_faults(true);
  boot(false);
}

World::~World() = default;

void World::judge(std::string what) {
  if (verdict_.empty()) verdict_ = std::move(what);
}

void World::set_faults(bool on) {
  SimFaults disk = on ? plan_.faults.disk : SimFaults{};
  disk.lost_before_sync = plan_.faults.disk.lost_before_sync;
  disk.torn = plan_.faults.disk.torn;
  for (const auto& drive : drives_)
    drive->set_faults(disk);
  rows_.set_fail_chance(on ? plan_.faults.catalog_fails : 0, plan_.faults.fails_applied);
}

void World::boot(bool streaming) {
  cache_.reset();
  for (std::byte& byte : arena_)
    byte = std::byte{0xa5};
  disks_.clear();
  for (const auto& drive : drives_)
    disks_.push_back(std::make_unique<SabotagedDisk>(*drive, plan_.sabotage));
  catalog_ = std::make_unique<SabotagedCatalog>(rows_, plan_.sabotage, plan_.seed);
  copies_ =
      std::make_unique<Copies>(memories_, plan_.sabotage == Sabotage::checksum_unread, plan_.seed);
  CacheOptions options;
  options.host_bytes = kHost;
  options.follow_verdict = false;
  options.reservation_age = std::chrono::seconds(1);
  options.soft_hold_age = std::chrono::milliseconds(300);
  CacheSeams seams;
  seams.copier = copies_.get();
  for (const auto& disk : disks_)
    seams.disks.push_back(disk.get());
  seams.catalog = catalog_.get();
  cache_.emplace(options, seams, static_cast<CacheListener*>(this));
  engines_.clear();
  dropped_.clear();
  invalidated_ = false;
  if (streaming) {
    ++tally_.streamed;
    if (auto begun = cache_->recover_begin(clock_.now(), 0); !begun)
      judge("recover_begin: " + begun.error().message());
  } else if (auto recovered = cache_->recover(clock_.now(), 0); !recovered) {
    judge("recover: " + recovered.error().message());
  }
  client_ = cache_->attach(spec(), MemberInfo{}, clock_.now()).value();
}

void World::on_event(const CacheEvent& event) {
  if (event.kind == EventKind::dropped || event.kind == EventKind::demoted) {
    dropped_.insert(event.id);
    if (event.tier == Tier::nvme || event.reason == Reason::capacity) ++tally_.evicted;
  }
}

std::vector<Token> World::prompt() {
  std::vector<Token> tokens;
  const std::uint64_t stem = prng_.below(3);
  const std::uint64_t length = 1 + prng_.below(70);
  const std::uint64_t turn = prng_.below(length + 1);
  const std::uint64_t tail = prng_.below(3);
  for (std::uint64_t i = 0; i < length; ++i)
    tokens.push_back(static_cast<Token>(i < turn ? stem * 1000 + i : 50'000 + tail * 1000 + i));
  return tokens;
}

void World::step() {
  clock_.advance(std::chrono::microseconds(20 + prng_.below(600)));
  if (prng_.chance(0.6)) static_cast<void>(rows_.sync(1 + prng_.below(3)));
  static_cast<void>(cache_->step(clock_.now()));
}

void World::audit(const char* when) {
  if (const auto sound = cache_->audit(); !sound)
    judge(fmt::format("{}: {}", when, sound.error().message()));
}

void World::begin() {
  Engine engine;
  engine.name = {prng_.next() | 1U, prng_.next()};
  engine.tokens = prompt();
  engine.domain.salt.bytes[0] = std::byte{static_cast<unsigned char>(prng_.below(2))};
  engine.generation = cache_->generation(cache_->namespace_of(client_));
  BeginRequest request;
  request.tokens = engine.tokens;
  request.domain = engine.domain;
  request.hold = prng_.chance(0.7) ? HoldKind::lease : HoldKind::soft;
  if (!cache_->begin(client_, engine.name, request, clock_.now())) return judge("begin failed");
  ++tally_.requests;
  engines_.push_back(std::move(engine));
}

void World::write(const Engine& engine, const SlotGrant& slot) {
  const auto bytes =
      Content(engine.tokens, engine.domain, engine.generation).of(slot.group, slot.first, slot.end);
  std::size_t at = 0;
  for (const Extent& run : slot.runs) {
    const std::size_t part = std::min<std::size_t>(run.bytes, bytes.size() - at);
    std::memcpy(arena_.data() + run.offset, bytes.data() + at, part);
    at += part;
  }
}

void World::check(const Engine& engine) {
  const Lease* lease = cache_->lease(engine.name);
  if (lease == nullptr) return;
  const Content content(engine.tokens, engine.domain, engine.generation);
  for (const Piece& piece : lease->pieces) {
    const std::uint32_t end = piece.group == 1 ? piece.first : piece.first + piece.valid;
    const auto want = content.of(piece.group, piece.first, end);
    std::size_t at = 0;
    bool same = true;
    for (const Extent& run : piece.runs) {
      const std::size_t part = std::min<std::size_t>(run.bytes, want.size() - at);
      same = same && std::memcmp(arena_.data() + run.offset, want.data() + at, part) == 0;
      at += part;
    }
    ++tally_.pieces_checked;
    if (!same || at != want.size())
      judge(fmt::format("wrong bytes in group {} at {}..{}", piece.group, piece.first, end));
  }
}

void World::progress(std::size_t which) {
  Engine& engine = engines_[which];
  const Instant now = clock_.now();
  if (engine.stage == 0) {
    const Lease* lease = cache_->lease(engine.name);
    if (lease == nullptr && prng_.chance(0.6)) return;
    if (lease == nullptr) {
      const auto got = cache_->acquire(client_, engine.name, kUnknown, {}, now);
      if (!got) return end(which);  // lost to an invalidation
      lease = *got;
    }
    if (lease->tokens > 0) ++tally_.hits;
    check(engine);
    engine.stage = 1;
    return;
  }
  if (engine.stage == 1) {
    std::vector<WantItem> wants;
    const auto size = static_cast<std::uint32_t>(engine.tokens.size());
    const Lease* lease = cache_->lease(engine.name);
    const std::uint32_t from = lease == nullptr ? 0 : lease->tokens;
    for (std::uint32_t first = from / kBlock * kBlock; first < size; first += kBlock)
      wants.push_back({0, first, std::min(first + kBlock, size), 0});
    for (const std::uint32_t at : (*cache_->answer(engine.name))->wishes)
      wants.push_back({1, at, at, 0});
    wants.push_back({1, size, size, 0});
    auto slots = cache_->reserve(client_, engine.name, wants, now);
    if (!slots) return judge("reserve failed");
    for (SlotGrant& slot : *slots) {
      if (slot.grant == GrantKind::granted) engine.slots.push_back(std::move(slot));
    }
    for (const SlotGrant& slot : engine.slots)
      write(engine, slot);
    engine.stage = 2;
    return;
  }
  if (!engine.slots.empty()) {
    const SlotGrant slot = std::move(engine.slots.front());
    engine.slots.erase(engine.slots.begin());
    if (prng_.chance(0.03)) {
      static_cast<void>(cache_->abandon(client_, slot.slot, now));
    } else {
      static_cast<void>(cache_->commit(client_, {slot.slot, 0}, now));
    }
    if (prng_.chance(0.7) && !engine.slots.empty()) progress(which);
    return;
  }
  end(which);
}

void World::end(std::size_t which) {
  Engine& engine = engines_[which];
  check(engine);  // nobody may have written into what it still leases
  static_cast<void>(cache_->finish(client_, engine.name, 0, 0, {}, clock_.now()));
  static_cast<void>(cache_->release(client_, engine.name, clock_.now()));
  engines_.erase(engines_.begin() + static_cast<std::ptrdiff_t>(which));
}

void World::tick() {
  const std::uint64_t dice = prng_.below(1000);
  if (dice >= 1000 - plan_.invalidations) {
    static_cast<void>(cache_->invalidate(client_, clock_.now()));
    invalidated_ = true;
  } else if (dice < 8) {
    cache_->flush([](const FlushReport&) {}, clock_.now());
  } else if (dice < 11) {
    cache_->verify([](const VerifyReport&) {});
  } else if (dice < 150 && engines_.size() < 4) {
    begin();
  } else if (dice < 550 && !engines_.empty()) {
    progress(prng_.below(engines_.size()));
  } else {
    step();
  }
}

std::map<ObjectId, std::string> World::on_nvme() const {
  std::map<ObjectId, std::string> out;
  for (const ObjectStatus& object :
       cache_->objects(std::nullopt, Tier::nvme, Cache::Sort::depth, SIZE_MAX, clock_.now())) {
    out.emplace(object.id, fmt::format("group {} {}..{}", object.group, object.first, object.end));
  }
  return out;
}

void World::crash() {
  const auto before = on_nvme();
  // What was on its way may have become durable without anybody having been told, oldest first.
  static_cast<void>(rows_.sync(prng_.below(rows_.pending() + 1)));
  for (const auto& drive : drives_)
    drive->crash();
  catalog_->crash();
  rows_.crash();
  ++tally_.crashes;
  boot(prng_.chance(0.5));
  for (std::uint64_t i = prng_.below(12); i > 0 && cache_->recovering(); --i)
    tick();
  for (int i = 0; i < 1000 && cache_->recovering(); ++i)
    step();
  if (cache_->recovering()) judge("a start that does not end");
  audit("after a crash");
  check_durable(before);
}

void World::check_durable(const std::map<ObjectId, std::string>& before) {
  // While rows came in: those of the old generation had to go, and what could not be read goes with
  // all that hangs on it, as soon as nobody holds it.
  const CacheCounters& counters = cache_->counters();
  if (invalidated_ || counters.io_errors > 0 || counters.checksum_failures > 0) return;
  const auto after = on_nvme();
  for (const auto& [id, what] : before) {
    ++tally_.durable_checked;
    if (!after.contains(id) && !dropped_.contains(id)) judge("durable and lost: " + what);
  }
}

/// Everything that is said to be on NVMe reads back, or the drive has damaged it.
void World::verify_all() {
  set_faults(false);
  const std::uint64_t failures = cache_->counters().checksum_failures;
  std::optional<VerifyReport> report;
  cache_->verify([&](const VerifyReport& done) { report = done; });
  for (int i = 0; i < 20'000 && !report; ++i)
    step();
  set_faults(true);
  if (!report) return judge("verify does not end");
  tally_.misses_counted += report->bad;
  if (report->bad > 0 && !plan_.faults.damage())
    judge(fmt::format("{} of {} durable objects do not read back", report->bad, report->objects));
  if (report->bad > cache_->counters().checksum_failures - failures)
    judge("a loss that was not counted");
}

/// The faults end: everything that was begun comes to an end.
void World::settle(const char* when) {
  set_faults(false);
  for (int i = 0; i < 20'000; ++i) {
    if (engines_.empty() && !cache_->busy()) break;
    if (!engines_.empty()) progress(prng_.below(engines_.size()));
    step();
  }
  if (!engines_.empty() || cache_->busy()) judge(fmt::format("{}: something is stuck", when));
  if (cache_->tickets() != 0)
    judge(fmt::format("{}: {} tickets are left", when, cache_->tickets()));
}

/// Nothing leaks: without the namespace there is nothing on the drives and no row.
void World::finale() {
  settle("at the end");
  // A catalog or drive that has just failed is left alone for a while.
  for (int i = 0; i < 64; ++i) {
    clock_.advance(std::chrono::seconds(1));
    step();
  }
  settle("at the end");
  std::optional<FlushReport> flushed;
  cache_->flush([&](const FlushReport& done) { flushed = done; }, clock_.now());
  for (int i = 0; i < 20'000 && !flushed; ++i)
    step();
  if (!flushed) judge("flush does not end");
  tally_.nvme_loads += cache_->counters().loads;
  bool removed = false;
  cache_->remove_namespace(
      cache_->namespace_of(client_), [&](std::uint64_t) { removed = true; }, clock_.now());
  for (int i = 0; i < 20'000 && !removed; ++i)
    step();
  if (!removed) judge("rm does not end");
  settle("after rm");
  for (int i = 0; i < 200; ++i)
    step();
  if (cache_->tier(Tier::nvme).used != 0)
    judge(fmt::format("{} bytes of NVMe leaked", cache_->tier(Tier::nvme).used));
  if (cache_->tier(Tier::host).used != 0)
    judge(fmt::format("{} bytes of host memory leaked", cache_->tier(Tier::host).used));
  const auto& rows = rows_.rows();
  const auto objects =
      std::count_if(rows.begin(), rows.end(), [](const auto& row) { return row.first[0] == 'O'; });
  if (objects != 0) judge(fmt::format("{} rows leaked", objects));
  audit("at the end");
}

std::string World::run() {
  for (int round = 0; round < plan_.rounds && verdict_.empty(); ++round) {
    const auto ticks = static_cast<int>(prng_.below(static_cast<std::uint64_t>(plan_.ticks)));
    for (int i = 0; i < ticks && verdict_.empty(); ++i) {
      tick();
      if (i % 16 == 0) audit("while serving");
    }
    if (!verdict_.empty()) break;
    tally_.nvme_loads += cache_->counters().loads;
    crash();
    if (prng_.chance(0.4)) verify_all();
    if (prng_.chance(0.1)) {
      settle("between crashes");
      set_faults(true);
    }
    if (!verdict_.empty())
      verdict_ = fmt::format("seed {}, round {}: {}", plan_.seed, round, verdict_);
  }
  if (verdict_.empty()) {
    finale();
    if (!verdict_.empty()) verdict_ = fmt::format("seed {}: {}", plan_.seed, verdict_);
  }
  return verdict_;
}

}  // namespace statecached::test
