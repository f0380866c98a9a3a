#include "tests/support/daemon_process.hpp"

namespace statecached::test {
namespace {

/// No daemon of its own: only the folder and the way to run programs.
ProgramResult bench(const std::vector<std::string>& arguments) {
  const DaemonProcess place;
  return place.run("statecachectl", arguments);
}

TEST(Bench, IpcTellsItsRatios) {
  const auto got =
      bench({"--json", "bench", "ipc", "--rounds", "400", "--prompts", "8", "--objects", "2000"});
  ASSERT_EQ(got.code, 0) << got.err;
  EXPECT_EQ(got.out.front(), '{');
  for (const char* key : {"\"rtt_us\":{", "\"floor_us\":{", "\"idle\":{"})
    EXPECT_NE(got.out.find(key), std::string::npos) << got.out;
  EXPECT_GT(number_of(got.out, "p50"), 0) << got.out;
  EXPECT_GT(number_of(got.out, "ratio"), 0) << got.out;
  EXPECT_GE(number_of(got.out, "objects"), 2000) << got.out;
  EXPECT_EQ(number_of(got.out, "pieces"), 128) << got.out;
  EXPECT_GE(number_of(got.out, "daemon_cpu_percent"), 0) << got.out;
}

TEST(Bench, StoreAndRestoreTellTheirCeilings) {
  for (const char* what : {"store", "restore"}) {
    const auto got = bench({"--json", "bench", what, "--rounds", "4", "--size", "256KiB"});
    ASSERT_EQ(got.code, 0) << got.err;
    for (const char* key : {"gb_per_s", "ceiling_gb_per_s", "ratio", "hash_gb_per_s"})
      EXPECT_GT(number_of(got.out, key), 0) << key << ' ' << got.out;
    EXPECT_EQ(number_of(got.out, "object_bytes"), 256 * 1024) << got.out;
  }
}

TEST(Bench, AStagedStoreIsMeasuredAgainstABareFusedCopy) {
  const auto got =
      bench({"--json", "bench", "store", "--path", "staged", "--rounds", "4", "--size", "256KiB"});
  ASSERT_EQ(got.code, 0) << got.err;
  for (const char* key : {"gb_per_s", "fused_gb_per_s", "ratio", "hash_gb_per_s"})
    EXPECT_GT(number_of(got.out, key), 0) << key << ' ' << got.out;
  EXPECT_EQ(number_of(got.out, "ceiling_gb_per_s"), number_of(got.out, "fused_gb_per_s"))
      << got.out;
  EXPECT_NE(got.out.find("\"path\":\"staged\""), std::string::npos) << got.out;
}

TEST(Bench, SizesThatMakeNoSenseAreWrongUsageOrFail) {
  EXPECT_EQ(bench({"bench", "store", "--size", "many"}).code, 2);
  EXPECT_EQ(bench({"bench", "store", "--size", "3MiB"}).code, 1);
  EXPECT_EQ(bench({"bench", "ipc", "--rounds", "0"}).code, 2);
}

}  // namespace
}  // namespace statecached::test
