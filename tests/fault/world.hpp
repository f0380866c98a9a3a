#pragma once
// A small machine for the real Cache: two drives and a catalog with faults, memory with real bytes,
// engines that store and load at random, crashes at any step. It judges as it goes, and remembers
// the first verdict:
//   - a byte handed out is what was stored under these tokens, or the engine computes;
//   - what NVMe was said to hold (durable) is listed after a crash, and reads back, unless the
//     drive damaged it, and then it is counted;
//   - the ledgers add up; nothing is stuck once the faults end; nothing leaks.

#include "base/prng.hpp"
#include "daemon/cache/cache.hpp"
#include "tests/fault/saboteurs.hpp"
#include "tiers/catalog/memory_catalog.hpp"
#include "tiers/nvme/sim_disk.hpp"

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace statecached::test {

struct Faults {
  SimFaults disk;
  double catalog_fails = 0;  ///< of each batch
  double fails_applied = 0;  ///< of those, how many are there all the same

  /// Bytes change behind the cache's back: a loss is then a counted miss.
  [[nodiscard]] bool damage() const {
    return disk.misdirected > 0 || disk.bit_rot > 0 || disk.lost_write > 0;
  }
};

struct Plan {
  std::uint64_t seed = 1;
  int rounds = 20;                  ///< a crash ends each
  int ticks = 250;                  ///< of one round, at most
  std::uint64_t invalidations = 3;  ///< in a thousand ticks
  Faults faults;
  Sabotage sabotage = Sabotage::none;
};

struct Tally {
  std::uint64_t crashes = 0, requests = 0, hits = 0, pieces_checked = 0, durable_checked = 0,
                misses_counted = 0, streamed = 0, nvme_loads = 0, evicted = 0;
};

class Copies;

class World final : private CacheListener {
 public:
  explicit World(const Plan& plan);
  ~World() override;

  /// Empty, or what went wrong first.
  [[nodiscard]] std::string run();

  [[nodiscard]] const Tally& tally() const { return tally_; }

 private:
  struct Engine {
    TicketName name;
    std::vector<Token> tokens;
    Domain domain;
    std::uint32_t generation = 0;
    int stage = 0;
    std::vector<SlotGrant> slots;
  };

  void on_answer(const TicketName&) override {}

  void on_leased(const TicketName&) override {}

  void on_event(const CacheEvent& event) override;

  void boot(bool streaming);
  void tick();
  void begin();
  void progress(std::size_t which);
  void write(const Engine& engine, const SlotGrant& slot);
  void check(const Engine& engine);
  void end(std::size_t which);
  void crash();
  void settle(const char* when);
  void check_durable(const std::map<ObjectId, std::string>& before);
  void verify_all();
  void finale();
  void step();
  void audit(const char* when);
  void judge(std::string what);
  void set_faults(bool on);
  [[nodiscard]] std::map<ObjectId, std::string> on_nvme() const;
  [[nodiscard]] std::vector<Token> prompt();

  Plan plan_;
  Prng prng_;
  ManualClock clock_;
  std::vector<std::byte> arena_;
  Memories memories_;
  std::vector<std::unique_ptr<SimDisk>> drives_;
  std::vector<std::unique_ptr<SabotagedDisk>> disks_;
  MemoryCatalog rows_;
  std::unique_ptr<SabotagedCatalog> catalog_;
  std::unique_ptr<Copies> copies_;
  std::optional<Cache> cache_;
  ClientIx client_ = 0;
  std::vector<Engine> engines_;
  std::set<ObjectId> dropped_;  ///< since the last start
  bool invalidated_ = false;    ///< since the last start
  std::string verdict_;
  Tally tally_;
};

}  // namespace statecached::test
