// What the cache costs an engine where nothing is ever found: statecache-engine bench-overhead, few
// rounds. The lower ends of its intervals are looked at: they lie above 2 % only where the cache
// costs more than that, however much the machine's other work blurs the rest.

#include "tests/support/daemon_process.hpp"

namespace statecached::test {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kTimed = false;  // instrumented copies say nothing
constexpr const char* kTokens = "300";
#else
constexpr bool kTimed = true;
constexpr const char* kTokens = "1500";
#endif

TEST(Overhead, OfACacheThatMissesEverythingIsAtMostTwoPercent) {
  DaemonProcess daemon({"host.capacity=128MiB", "nvme.capacity=256MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const ProgramResult result = daemon.run("statecache-engine",
                                          {"--socket",
                                           daemon.socket(),
                                           "--json",
                                           "bench-overhead",
                                           "--tokens",
                                           kTokens,
                                           "--rounds",
                                           "8"});
  ASSERT_EQ(result.code, 0) << result.out << result.err;
  std::printf("%s\n", result.out.c_str());
  EXPECT_EQ(number_of(result.out, "hits"), 0);
  EXPECT_EQ(number_of(result.out, "different_logits"), 0);
  EXPECT_GT(number_of(result.out, "stored"), 0);
  const auto low = [&](const std::string& what) {
    const std::size_t at = result.out.find("\"" + what + "\"");
    EXPECT_NE(at, std::string::npos) << what;
    return number_of(result.out.substr(at), "low");
  };
  if (kTimed) {
    EXPECT_LE(low("cpu"), 2);
    EXPECT_LE(low("calls_and_slower_computing"), 2);
  }
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

}  // namespace
}  // namespace statecached::test
