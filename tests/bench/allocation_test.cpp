// Daemon and client in one process, every operator new counted: what a steady engine's requests
// allocate.

#include "client/wire/socket.hpp"
#include "config/settings.hpp"
#include "daemon/assembly.hpp"

#include "statecache/client.hpp"
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <numeric>
#include <optional>
#include <vector>

namespace {

std::atomic<std::uint64_t> allocations{0};
std::atomic<bool> counting{false};

void* counted(std::size_t bytes) {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* out = std::malloc(bytes == 0 ? 1 : bytes)) return out;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t bytes) {
  return counted(bytes);
}

void* operator new[](std::size_t bytes) {
  return counted(bytes);
}

void operator delete(void* at) noexcept {
  std::free(at);
}

void operator delete[](void* at) noexcept {
  std::free(at);
}

void operator delete(void* at, std::size_t) noexcept {
  std::free(at);
}

void operator delete[](void* at, std::size_t) noexcept {
  std::free(at);
}

namespace statecached {
namespace {

constexpr std::uint32_t kBlock = 64;
constexpr std::uint32_t kBlocks = 32;
constexpr auto kPatience = std::chrono::seconds(20);

class Allocations : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "statecached-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    config::Settings settings;
    settings.paths.runtime_dir = dir_;
    settings.paths.state_dir = dir_ + "/state";
    settings.host.capacity = 8U << 20U;
    settings.nvme.capacity = 0;
    auto made = Assembly::create(settings, "test");
    ASSERT_TRUE(made) << made.error().message();
    daemon_ = std::move(*made);
    daemon_->start();
    statecache::NamespaceSpec spec;
    spec.name = "allocations";
    statecache::Group kv;
    kv.name = "kv";
    kv.block_tokens = kBlock;
    kv.max_bytes = 4096;
    spec.groups = {kv};
    spec.cost.c1 = 1e12;
    auto session = statecache::Session::attach(settings.socket_path(), spec, {});
    ASSERT_TRUE(session) << session.status().text;
    session_.emplace(std::move(*session));
    for (std::uint32_t i = 0; i < kBlocks; ++i)
      memory_.push_back({0, i * kBlock, kBlock, std::span(&where_[i], 1)});
    for (std::uint32_t i = 0; i < kBlocks; ++i) {
      where_[i] = {bytes_.data() + i * 4096U, 4096};
      wants_.push_back({0, i * kBlock, (i + 1) * kBlock, 0});
    }
  }

  void TearDown() override {
    counting = false;
    session_.reset();
    daemon_.reset();
    std::filesystem::remove_all(dir_);
  }

  /// Another prompt for another number.
  void ask_for(std::uint32_t number) {
    std::iota(tokens_.begin(), tokens_.end(), 3U);
    tokens_[0] = number;
    ask_.tokens = tokens_;
  }

  void save(std::uint32_t number) {
    ask_for(number);
    statecache::Limits limits;
    limits.hold = statecache::Hold::none;
    const auto ticket = session_->begin(ask_, limits);
    ASSERT_TRUE(ticket);
    ASSERT_TRUE(session_->reserve(*ticket, wants_).ok());
    ASSERT_TRUE(session_->wait_slots(*ticket, kPatience, slots_).ok());
    filled_.clear();
    for (const statecache::Slot& slot : slots_) {
      if (slot.grant == statecache::Grant::granted) filled_.push_back({slot.id, 0});
    }
    ASSERT_TRUE(session_->commit(filled_).ok());
    end(*ticket);
  }

  void load(std::uint32_t number) {
    ask_for(number);
    statecache::Limits limits;
    limits.hold = statecache::Hold::lease;
    const auto ticket = session_->begin(ask_, limits);
    ASSERT_TRUE(ticket);
    ASSERT_TRUE(session_->wait_lease(*ticket, kPatience, lease_).ok());
    ASSERT_EQ(lease_.pieces.size(), kBlocks);
    ASSERT_TRUE(session_->read_into(*ticket, memory_, kPatience, ok_).ok());
    ASSERT_TRUE(ok_[0] && ok_[kBlocks - 1]);
    end(*ticket);
  }

  void end(statecache::TicketId ticket) {
    ASSERT_TRUE(session_->finish(ticket).ok());
    ASSERT_TRUE(session_->release(ticket).ok());
    ASSERT_TRUE(session_->settle(ticket, kPatience).ok());
  }

  template <class Round>
  double each(int rounds, Round round) {
    allocations = 0;
    counting = true;
    for (int i = 0; i < rounds; ++i)
      round(i);
    counting = false;
    return static_cast<double>(allocations) / rounds;
  }

  std::string dir_;
  std::unique_ptr<Assembly> daemon_;
  std::optional<statecache::Session> session_;
  std::vector<statecache::Token> tokens_ = std::vector<statecache::Token>(kBlock * kBlocks + 1);
  statecache::Ask ask_;
  statecache::Lease lease_;
  std::vector<statecache::Slot> slots_;
  std::vector<statecache::Filled> filled_;
  std::vector<statecache::Want> wants_;
  std::vector<std::byte> bytes_ = std::vector<std::byte>(kBlocks * 4096);
  std::array<statecache::Extent, kBlocks> where_;
  std::vector<statecache::Memory> memory_;
  std::array<bool, kBlocks> ok_{};
};

TEST_F(Allocations, ALeasedPrefixAllocatesNothing) {
  for (std::uint32_t i = 0; i < 8; ++i)
    save(i);
  for (int i = 0; i < 400; ++i)
    load(static_cast<std::uint32_t>(i) % 8);
  const double count = each(400, [&](int i) { load(static_cast<std::uint32_t>(i) % 8); });
  EXPECT_LT(count, 0.02) << "allocations a request";
}

TEST_F(Allocations, ASaveAllocatesWhatTheTreeKeeps) {
  // Full after 64 prompts: from then on each takes what another gave up.
  std::uint32_t next = 0;
  for (int i = 0; i < 400; ++i)
    save(next++);
  const double count = each(400, [&](int) { save(next++); });
  std::printf("%.2f allocations a saved prompt of %u objects\n", count, kBlocks);
  // Its tokens, its place in the tree, its list of objects (grown), and the free list's nodes.
  EXPECT_LT(count, 4.0 * kBlocks);
}

}  // namespace
}  // namespace statecached
