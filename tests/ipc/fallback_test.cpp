// What machines may force on us, forced by the daemon's own switches: the same engine stores, the
// daemon restarts, every hit is verified byte by byte, and status names the way that is in use.

#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>

namespace statecached {
namespace {

using statecache::Session;
using test::counting;
using test::DaemonProcess;
using test::kPatience;
using test::Tokens;
using test::ToyEngine;

struct Fallback {
  const char* name;
  std::vector<std::string> settings;
  std::string in_status;  ///< what `status --json` must contain
};

class Fallbacks : public testing::TestWithParam<Fallback> {};

TEST_P(Fallbacks, StoreRestartHit) {
  DaemonProcess daemon(GetParam().settings);
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const Tokens prompt = counting(3000);
  const Tokens other = counting(1000, 90'000);
  {
    auto session = ToyEngine::attach(daemon.socket());
    ASSERT_TRUE(session) << session.status().text;
    ToyEngine engine(*session);
    EXPECT_EQ(engine.store(prompt, {2944}), 48);
    EXPECT_EQ(engine.store(other, {960}), 17);
    const auto flush = daemon.ctl({"flush"});
    EXPECT_EQ(flush.code, 0) << flush.out << flush.err;
  }
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
  ASSERT_TRUE(daemon.start()) << daemon.log();
  auto session = ToyEngine::attach(daemon.socket());
  ASSERT_TRUE(session) << session.status().text;
  ToyEngine engine(*session);
  const auto hit = engine.restore(prompt);
  EXPECT_TRUE(hit.ok);
  EXPECT_EQ(hit.tokens, 2944U);
  EXPECT_TRUE(engine.release(hit));
  EXPECT_EQ(engine.restore(other).tokens, 960U);
  const auto verify = daemon.ctl({"verify"});
  EXPECT_EQ(verify.code, 0) << verify.out << verify.err;
  const auto status = daemon.ctl({"--json", "status"});
  EXPECT_NE(status.out.find(GetParam().in_status), std::string::npos) << status.out;
  EXPECT_NE(status.out.find("\"health\":\"ok\""), std::string::npos) << status.out;
}

INSTANTIATE_TEST_SUITE_P(
    Switches,
    Fallbacks,
    testing::Values(
        Fallback{"none", {}, "\"engine\":\"io_uring\""},
        Fallback{"threads", {"nvme.engine=threads"}, "\"engine\":\"threads\""},
        Fallback{"buffered", {"nvme.direct=off"}, "\"direct\":false"},
        Fallback{"unregistered", {"host.register_buffers=off"}, "\"registered_buffers\":false"},
        Fallback{"plain_ring", {"nvme.defer_taskrun=off"}, "\"defer_taskrun\":false"},
        Fallback{"small_pages", {"host.huge_pages=off"}, "\"huge_page_share\":0.0"},
        Fallback{"all",
                 {"nvme.engine=threads",
                  "nvme.direct=off",
                  "host.register_buffers=off",
                  "host.huge_pages=off"},
                 "\"engine\":\"threads\""}),
    [](const testing::TestParamInfo<Fallback>& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace statecached
