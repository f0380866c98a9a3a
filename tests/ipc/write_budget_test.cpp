// The write budget on the real daemon, against the kernel's own accounts of what it writes: data,
// the catalog's log, flushes and compactions, identity files, everything.

#include "base/units.hpp"
#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>

#include <optional>

namespace statecached {
namespace {

using test::counting;
using test::DaemonProcess;
using test::number_of;
using test::ToyEngine;
using test::written_by;

TEST(WriteBudget, TheKernelCountsNoMoreThanTheBudgetAndTheBurst) {
  // 20 GiB a day are 0.24 MiB a second; stored are more than twenty times what may be written
  // meanwhile.
  constexpr std::uint64_t kBurst = 6 * kMiB;
  constexpr double kPerSecond = 20.0 * static_cast<double>(kGiB) / 86'400;
  DaemonProcess daemon({"nvme.write_budget_per_day=20GiB",
                        "nvme.write_burst=6MiB",
                        "nvme.capacity=512MiB",
                        "host.capacity=8MiB"});
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(daemon.start()) << daemon.log();
  if (written_by(daemon.pid()) < 0) GTEST_SKIP() << "no accounts of what a process writes";
  std::optional<statecache::Session> session;
  {
    auto attached = ToyEngine::attach(daemon.socket());
    ASSERT_TRUE(attached) << attached.status().text;
    session.emplace(std::move(*attached));
  }
  ToyEngine engine(*session);
  const auto allowed = [&] {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    return static_cast<double>(kBurst) + kPerSecond * passed.count();
  };
  double stored = 0;
  for (std::uint32_t i = 0; stored < 20 * allowed() && i < 10'000; ++i) {
    ASSERT_GE(engine.store(counting(1024, 1 + i * 2000), {512, 960}), 0) << i;
    stored += 1024 * 64 + 2 * 20'480;
    if (i % 64 == 0) {
      EXPECT_LE(static_cast<double>(written_by(daemon.pid())), allowed()) << i;
    }
  }
  EXPECT_GE(stored, 20 * static_cast<double>(kBurst));
  const auto flush = daemon.ctl({"--json", "flush"});
  EXPECT_EQ(flush.code, 1) << "not everything may be written";
  EXPECT_NE(flush.out.find("budget"), std::string::npos) << flush.out;
  EXPECT_LE(static_cast<double>(written_by(daemon.pid())), allowed());
  const std::string status = daemon.ctl({"--json", "status"}).out;
  EXPECT_GT(number_of(status, "held_back_bytes"), 0) << status;
  const double data = number_of(status, "lifetime_bytes_written");
  EXPECT_GT(data, static_cast<double>(kBurst) / 2) << "what may be written is";
  session.reset();
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
  // Wear is remembered, and so is that the burst is spent.
  const auto tokens = [](const std::string& json) {
    const std::size_t at = json.find("\"tokens\":");
    return at == std::string::npos ? -1e18 : std::strtod(json.c_str() + at + 9, nullptr);
  };
  const double tokens_before = tokens(status);
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const std::string after = daemon.ctl({"--json", "status"}).out;
  EXPECT_GE(number_of(after, "lifetime_bytes_written"), data) << after;
  EXPECT_EQ(number_of(after, "bytes_per_day"), static_cast<double>(20 * kGiB)) << after;
  EXPECT_LT(tokens(after), std::max(tokens_before, 0.0) + allowed() - static_cast<double>(kBurst))
      << "only what has flowed in since may be there, not a fresh burst";
}

TEST(WriteBudget, ABenchDoesNotUseItUp) {
  DaemonProcess daemon({"nvme.write_budget_per_day=1GiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const auto bench = daemon.ctl({"bench", "nvme", "--attach"});
  EXPECT_EQ(bench.code, 1);
  EXPECT_NE(bench.err.find("write_budget"), std::string::npos) << bench.err;
}

}  // namespace
}  // namespace statecached
