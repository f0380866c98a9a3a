// `statecachectl bench nvme`, small: that it measures what it says and leaves nothing behind.

#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>

#include <string>

namespace statecached {
namespace {

using test::DaemonProcess;
using test::number_of;
using test::ProgramResult;

void expect_report(const ProgramResult& result, double size) {
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* key : {"read_gb_per_s",
                          "raw_read_gb_per_s",
                          "read_ratio",
                          "write_gb_per_s",
                          "raw_write_gb_per_s",
                          "write_ratio",
                          "cpu_s_per_gib",
                          "raw_cpu_s_per_gib",
                          "hash_cpu_s_per_gib",
                          "cpu_ratio",
                          "demand_p99_ratio",
                          "background_write_gb_per_s"}) {
    EXPECT_GT(number_of(result.out, key), 0) << key << ' ' << result.out;
  }
  EXPECT_EQ(number_of(result.out, "size"), size) << result.out;
  EXPECT_EQ(number_of(result.out, "pairs"), 2) << result.out;
}

const std::vector<std::string> kSmall{"bench",
                                      "nvme",
                                      "--json",
                                      "--pairs",
                                      "2",
                                      "--file",
                                      "32MiB",
                                      "--demand",
                                      "200",
                                      "--no-fio"};

std::vector<std::string> with(std::vector<std::string> more) {
  std::vector<std::string> out = kSmall;
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

TEST(BenchNvme, AttachedMeasuresTheRunningDaemonsDriveAndCleansUp) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.start()) << daemon.log();
  expect_report(daemon.ctl(with({"--attach", "--size", "256KiB"})), 262144);
  expect_report(daemon.ctl(with({"--attach", "--size", "4MiB"})), 4194304);
  EXPECT_EQ(daemon.run("statecachectl", {"--socket", daemon.socket(), "status"}).code, 0);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(daemon.dir()))
    EXPECT_NE(entry.path().filename(), "bench");
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

TEST(BenchNvme, WithoutADaemonItStartsItsOwn) {
  DaemonProcess folder;
  expect_report(folder.run("statecachectl", with({"--dir", folder.dir()})), 1048576);
  for (const auto& entry : std::filesystem::directory_iterator(folder.dir()))
    EXPECT_FALSE(entry.is_directory()) << entry.path() << " is left";
}

TEST(BenchNvme, SaysWhyItCannot) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const auto large = daemon.ctl({"bench", "nvme", "--attach", "--file", "4096TiB"});
  EXPECT_EQ(large.code, 1);
  EXPECT_NE(large.err.find("cannot hold"), std::string::npos) << large.err;
  const auto odd = daemon.ctl({"bench", "nvme", "--attach", "--size", "5000"});
  EXPECT_EQ(odd.code, 2);
  EXPECT_NE(odd.err.find("multiple"), std::string::npos) << odd.err;
  daemon.stop();
  daemon.set({"nvme.capacity=0"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const auto none = daemon.ctl({"bench", "nvme", "--attach"});
  EXPECT_NE(none.err.find("no NVMe tier"), std::string::npos) << none.err;
  EXPECT_EQ(daemon.stop(), 0);
}

}  // namespace
}  // namespace statecached
