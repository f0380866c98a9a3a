// A start with many objects in the catalog: requests are served while rows come in, hot namespaces
// first, and what it takes is near what RocksDB takes to hand out the rows.

#include "base/prng.hpp"
#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"
#include "tests/support/environment.hpp"
#include "tiers/catalog/rocks_catalog.hpp"
#include "tiers/host/copier.hpp"
#include "tiers/nvme/path.hpp"

#include "statecache/admin.hpp"
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <map>
#include <sstream>

namespace statecached::test {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kNamespaces = 10;
constexpr std::uint32_t kBlocks = 200;  ///< of one conversation
constexpr std::uint32_t kEvery = 50;    ///< blocks between its states
constexpr std::uint32_t kBlock = ToyEngine::kBlock;
constexpr std::uint64_t kStateBytes = 20'480;
constexpr std::uint64_t kPerConversation = kBlocks + kBlocks / kEvery;
constexpr std::uint64_t kConversationBytes = kBlocks * kPage + kBlocks / kEvery * kStateBytes;

double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// The daemon's own idea of ToyEngine's namespace.
NamespaceSpec spec_of(std::uint8_t weights) {
  const auto toy = ToyEngine::spec("toy-" + std::to_string(weights), weights);
  NamespaceSpec out;
  out.name = toy.name;
  out.model.bytes.fill(std::byte{weights});
  out.layout.bytes.fill(std::byte{7});
  Group kv;
  kv.name = "kv";
  kv.block_tokens = kBlock;
  kv.max_bytes = toy.groups[0].max_bytes;
  Group state;
  state.name = "state";
  state.need = Need::end;
  state.max_bytes = toy.groups[1].max_bytes;
  out.groups = {kv, state};
  out.cost.c1 = toy.cost.c1;
  out.cost.c2 = toy.cost.c2;
  return out;
}

Tokens conversation(std::uint64_t number, std::uint32_t blocks) {
  return counting(blocks * kBlock, static_cast<std::uint32_t>(1 + number * 20'000));
}

class Filler {
 public:
  Filler(const std::string& state_dir, std::uint64_t conversations)
      : conversations_(conversations) {
    std::filesystem::create_directories(state_dir);
    capacity_ = round_up(conversations * kConversationBytes + 64 * kMiB, kDriveGrain);
    auto drive = open_path(state_dir + "/nvme", capacity_);
    EXPECT_TRUE(drive.has_value()) << drive.error().message();
    auto catalog = RocksCatalog::open(state_dir + "/catalog");
    EXPECT_TRUE(catalog.has_value());
    catalog_ = std::move(*catalog);
    const std::string uuid = to_hex(drive->uuid);
    EXPECT_TRUE(catalog_->record_paths(std::span(&uuid, 1)).has_value());
    const std::vector<std::byte> zeros(kStateBytes);
    for (std::uint64_t c = 0; c < conversations; ++c)
      add_conversation(c, zeros);
    send();
    wait(0);
    catalog_.reset();
  }

  [[nodiscard]] std::uint64_t capacity() const { return capacity_; }

 private:
  struct Space {
    ObjectNumber next = 1;
    bool known = false;
  };

  void add_conversation(std::uint64_t c, std::span<const std::byte> zeros) {
    const auto ns = static_cast<std::uint32_t>(c * kNamespaces / conversations_);
    Space& space = spaces_[ns];
    if (!std::exchange(space.known, true)) {
      const NamespaceSpec spec = spec_of(static_cast<std::uint8_t>(ns + 1));
      // The last is the hottest: an order by number would bring it last.
      batch_.namespaces.push_back({ns + 1, 1, 0, spec, 1'700'000'000 + ns});
      batch_.domains.push_back({ns + 1, 1, Domain{}});
    }
    const Tokens tokens = conversation(c, kBlocks);
    ObjectNumber parent = 0;
    for (std::uint32_t b = 0; b < kBlocks; ++b) {
      ObjectRow row;
      row.group = 0;
      row.first = b * kBlock;
      row.end = row.first + kBlock;
      if (parent != 0) row.parents.push_back(parent);
      row.symbols.assign(tokens.begin() + row.first, tokens.begin() + row.end);
      row.payload_bytes = kPage;
      parent = add(ns, space, std::move(row), zeros);
      if ((b + 1) % kEvery != 0) continue;
      ObjectRow state;
      state.group = 1;
      state.first = (b + 1) * kBlock;
      state.end = state.first;
      state.parents.push_back(parent);
      state.payload_bytes = ToyEngine::kStateBytes;
      add(ns, space, std::move(state), zeros);
    }
    if (batch_.puts.size() >= 2000) send();
  }

  ObjectNumber add(std::uint32_t ns,
                   Space& space,
                   ObjectRow&& row,
                   std::span<const std::byte> zeros) {
    row.ns = ns + 1;
    row.number = space.next++;
    row.domain = 1;
    row.id = {mix64(row.number * kNamespaces + ns), mix64(row.number)};
    const std::uint64_t padded = round_up(row.payload_bytes, kPage);
    row.extents.push_back({0, {at_, padded}});
    at_ += padded;
    row.checksums.push_back(checksum_of(zeros.subspan(0, row.payload_bytes), row.id.low));
    row.last_used = 1'700'000'000;
    const ObjectNumber number = row.number;
    batch_.puts.push_back(std::move(row));
    return number;
  }

  void send() {
    batch_.tag = 1;
    wait(8);
    ASSERT_TRUE(catalog_->submit(batch_));
    ++sent_;
    batch_ = CatalogBatch{};
  }

  void wait(std::size_t most) {
    std::vector<CatalogDone> done;
    while (sent_ > most) {
      done.clear();
      sent_ -= catalog_->poll(done);
      for (const CatalogDone& each : done)
        ASSERT_TRUE(each.ok) << each.error;
      if (done.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  std::uint64_t conversations_;
  std::uint64_t capacity_ = 0;
  std::uint64_t at_ = 0;
  std::unique_ptr<RocksCatalog> catalog_;
  std::array<Space, kNamespaces> spaces_;
  CatalogBatch batch_;
  std::size_t sent_ = 0;
};

std::uint64_t resident_bytes(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  std::string word;
  std::uint64_t anonymous = 0;
  while (file >> word) {
    if (word == "Anonymous:" && file >> anonymous) return anonymous * kKiB;
  }
  return 0;
}

/// CPU seconds of each thread of a process that has used any, by name.
std::string cpu_seconds(pid_t pid) {
  std::map<std::string, double> sums;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    const std::string stat = slurp(task.path() / "stat");
    const std::size_t open = stat.find('(');
    const std::size_t close = stat.rfind(')');
    if (open == std::string::npos || close == std::string::npos) continue;
    std::istringstream rest(stat.substr(close + 2));
    std::string skip;
    for (int i = 0; i < 11; ++i)
      rest >> skip;
    double user = 0, system = 0;
    rest >> user >> system;
    sums[stat.substr(open + 1, close - open - 1)] +=
        (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }
  std::string out;
  for (const auto& [name, used] : sums) {
    if (used >= 0.05) out += " " + name + " " + std::to_string(used).substr(0, 4) + " s";
  }
  return out;
}

std::uint64_t listed(const std::string& socket) {
  const auto reply = statecache::admin(socket, "status");
  if (!reply) return 0;
  return Json::parse(*reply)["tiers"]["nvme"]["objects"];
}

/// What RocksDB needs to hand out the rows and we to decode them, alone on the machine.
double floor_seconds(const std::string& state_dir) {
  const auto begin = Clock::now();
  auto catalog = RocksCatalog::open(state_dir + "/catalog");
  EXPECT_TRUE(catalog.has_value());
  std::uint64_t rows = 0;
  const auto count = [&](CatalogRow&&) { ++rows; };
  EXPECT_TRUE((*catalog)->load_begin(count).has_value());
  for (bool last = false; !last;) {
    const auto some = (*catalog)->load_some(SIZE_MAX, count);
    EXPECT_TRUE(some.has_value());
    last = !some || *some;
    if (!last) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GT(rows, 0U);
  return since(begin);
}

TEST(Startup, HotNamespacesFirstAndServedMeanwhile) {
  const std::uint64_t conversations = std::max<std::uint64_t>(
      kNamespaces, setting("STATECACHED_STARTUP_OBJECTS", 50'000) / kPerConversation);
  const std::uint64_t objects = conversations * kPerConversation;
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const std::uint64_t empty = resident_bytes(daemon.pid());
  ASSERT_EQ(daemon.stop(), 0);
  std::filesystem::remove_all(daemon.dir() + "/state");
  const auto fill_begin = Clock::now();
  const Filler filler(daemon.dir() + "/state", conversations);
  const double fill = since(fill_begin);
  const double floor = floor_seconds(daemon.dir() + "/state");

  daemon.set({"nvme.capacity=" + std::to_string(filler.capacity() >> 20U) + "MiB"});
  const auto begin = Clock::now();
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const double door = since(begin);
  auto session = ToyEngine::attach(daemon.socket(), "toy-10", kNamespaces);
  ASSERT_TRUE(bool(session)) << session.status().text;
  ToyEngine engine(*session);
  const std::uint64_t hot = conversations - conversations / kNamespaces;
  double first_hit = 0;
  std::uint64_t then = 0;
  for (std::uint64_t i = 0; first_hit == 0; ++i) {
    const auto got = engine.restore(conversation(hot + i % 8, kEvery + 1));
    ASSERT_NE(got.ticket, 0U) << daemon.log();
    if (got.tokens > 0) {
      first_hit = since(begin);
      then = listed(daemon.socket());
      EXPECT_EQ(got.tokens, kEvery * kBlock);
    }
    EXPECT_TRUE(engine.release(got));
    ASSERT_LT(since(begin), 300) << daemon.log();
  }
  std::uint64_t there = 0;
  while ((there = listed(daemon.socket())) < objects && since(begin) < 300)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double all = since(begin);
  EXPECT_EQ(there, objects) << daemon.log();
  const std::uint64_t full = resident_bytes(daemon.pid());
  std::printf("CPU:%s\n", cpu_seconds(daemon.pid()).c_str());
  std::printf(
      "%llu objects: filled in %.1f s; floor (open, check, read, decode) %.2f s; socket after %.2f "
      "s, first hit after %.2f s "
      "(%llu objects known), all after %.2f s; %.0f bytes of memory an object\n",
      static_cast<unsigned long long>(objects),
      fill,
      floor,
      door,
      first_hit,
      static_cast<unsigned long long>(then),
      all,
      static_cast<double>(full - empty) / static_cast<double>(objects));
  // A conversation of the coldest namespace, too.
  auto cold = ToyEngine::attach(daemon.socket(), "toy-1", 1);
  ASSERT_TRUE(bool(cold));
  ToyEngine other(*cold);
  const auto got = other.restore(conversation(0, kBlocks));
  EXPECT_EQ(got.tokens, (kBlocks - kEvery) * kBlock);
  EXPECT_TRUE(other.release(got));
  // Generous: the machine may be shared. The figures are for a quiet one.
  EXPECT_LT(first_hit, 1.0 + 20 * floor);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

}  // namespace
}  // namespace statecached::test
