#include "base/prng.hpp"
#include "config/load.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace statecached::config {
namespace {

std::string error_of(const std::string& toml,
                     const std::vector<std::string>& set = {},
                     std::uint64_t memory = 0) {
  const auto settings = parse(toml, "test.toml", set, memory);
  return settings ? std::string{} : settings.error().text;
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::string shipped() {
  std::ifstream in(std::string(STATECACHED_SOURCE_DIR) + "/config/statecached.toml");
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

TEST(Config, TheShippedFileIsTheDefaults) {
  const auto settings = parse(shipped(), "statecached.toml");
  ASSERT_TRUE(settings) << settings.error().message();
  EXPECT_EQ(to_toml(*settings), to_toml(Settings{}));
  EXPECT_EQ(shipped(), to_toml(Settings{}))
      << "make it again: statecached --config /dev/null --check-config";
}

TEST(Config, NothingIsTheDefaults) {
  const auto settings = parse("");
  ASSERT_TRUE(settings);
  EXPECT_EQ(to_toml(*settings), to_toml(Settings{}));
  EXPECT_EQ(settings->socket_path(), "/run/statecached/control.sock");
  EXPECT_EQ(settings->nvme_paths(), std::vector<std::string>{"/var/lib/statecached/nvme"});
  EXPECT_EQ(settings->lease_bytes_max(), settings->host.capacity / 2);
  EXPECT_EQ(settings->write_burst(), kUnlimited);
}

constexpr const char* kFull = R"(
[paths]
state_dir = "/tmp/s"
runtime_dir = "/tmp/r"
[socket]
path = "/tmp/x.sock"
mode = "0600"
group = "video"
trust = "none"
[host]
capacity = "512MiB"
huge_pages = "off"
numa = 1
register_buffers = false
[nvme]
paths = ["/a", "/b \"quoted\""]
capacity = 1073741824
write_budget_per_day = "144 GiB"
write_burst = "512 MiB"
engine = "threads"
direct = "off"
defer_taskrun = "off"
threads = 7
shrink = "truncate"
[device]
capacity = "128 MiB"
backend = "emulated"
[policy]
name = "marconi-paper"
alpha = 0.5
admission = "paper"
demotion = "always"
nvme_write = "through"
engine_tflops = 123.5
[limits]
clients = 3
lease_bytes_max = "1 GiB"
lease_age_warn = "1h"
reservation_age = "1.5s"
soft_hold_age = "50ms"
transfer_timeout = "2s"
stop_time = "0s"
inflight = 9
staging = "8 MiB"
[metrics]
listen = "127.0.0.1:9400"
[log]
level = "debug"
[tenants.alice]
users = ["alice", "1001"]
groups = ["ml"]
trust_domain = "red"
trusted = true
quota = "10 GiB"
[tenants.bob]
)";

TEST(Config, EverySettingIsReadAndPrintedBack) {
  const auto s = parse(kFull);
  ASSERT_TRUE(s) << s.error().message();
  EXPECT_EQ(s->socket.mode, 0600U);
  EXPECT_EQ(s->socket.trust, Trust::none);
  EXPECT_EQ(s->host.capacity, 512 * kMiB);
  EXPECT_EQ(s->host.huge_pages, Switch::off);
  EXPECT_EQ(s->host.numa, 1);
  EXPECT_EQ(s->host.register_buffers, Switch::off);
  EXPECT_EQ(s->nvme.paths.at(1), "/b \"quoted\"");
  EXPECT_EQ(s->nvme.capacity, kGiB);
  EXPECT_EQ(s->write_burst(), 512 * kMiB);
  EXPECT_EQ(s->nvme.engine, NvmeEngine::threads);
  EXPECT_EQ(s->nvme.direct, Switch::off);
  EXPECT_EQ(s->nvme.shrink, Shrink::truncate);
  EXPECT_EQ(s->device.backend, DeviceBackend::emulated);
  EXPECT_EQ(s->policy.name, Policy::marconi_paper);
  EXPECT_EQ(s->policy.alpha, 0.5);
  EXPECT_EQ(s->policy.admission, Admission::paper);
  EXPECT_EQ(s->policy.demotion, Demotion::always);
  EXPECT_EQ(s->policy.nvme_write, NvmeWrite::through);
  EXPECT_EQ(s->policy.engine_tflops, 123.5);
  EXPECT_EQ(s->limits.reservation_age, std::chrono::milliseconds(1500));
  EXPECT_EQ(s->log.level, LogLevel::debug);
  ASSERT_EQ(s->tenants.size(), 2U);
  EXPECT_EQ(s->tenants.at("alice").users, (std::vector<std::string>{"alice", "1001"}));
  EXPECT_TRUE(s->tenants.at("alice").trusted);
  EXPECT_EQ(s->tenants.at("alice").quota, 10 * kGiB);
  EXPECT_EQ(s->tenants.at("bob").quota, kUnlimited);

  const std::string printed = to_toml(*s);
  const auto again = parse(printed);
  ASSERT_TRUE(again) << again.error().message() << printed;
  EXPECT_EQ(to_toml(*again), printed);
  // Every setting above differs from its default, so a field that printed or read nothing would
  // show.
  const std::string defaults = to_toml(Settings{});
  std::istringstream lines(defaults);
  for (std::string line; std::getline(lines, line);) {
    if (has(line, " = ") && !line.starts_with('#')) {
      EXPECT_FALSE(has(printed, "\n" + line + "\n")) << line;
    }
  }
}

TEST(Config, SetOverridesTheFile) {
  const std::vector<std::string> set{"host.capacity=64MiB",
                                     "nvme.paths=/a,/b",
                                     "policy.alpha=auto",
                                     "limits.clients=5",
                                     "tenants.zoe.users=zoe",
                                     "tenants.zoe.trusted=true",
                                     "socket.mode=0666",
                                     "host.numa=0",
                                     "policy.engine_tflops=1e3",
                                     "log.level=error",
                                     "socket.path=",
                                     "nvme.capacity=0",
                                     "nvme.write_burst=auto"};
  const auto s = parse(kFull, "f", set);
  ASSERT_TRUE(s) << s.error().message();
  EXPECT_EQ(s->host.capacity, 64 * kMiB);
  EXPECT_EQ(s->nvme.paths, (std::vector<std::string>{"/a", "/b"}));
  EXPECT_EQ(s->policy.alpha, std::nullopt);
  EXPECT_EQ(s->limits.clients, 5U);
  EXPECT_TRUE(s->tenants.at("zoe").trusted);
  EXPECT_EQ(s->socket.mode, 0666U);
  EXPECT_EQ(s->policy.engine_tflops, 1000.0);
  EXPECT_EQ(s->socket_path(), "/tmp/r/control.sock");
  EXPECT_EQ(s->nvme.capacity, 0U);
  EXPECT_EQ(s->write_burst(), kGiB);  // 1/144 of the budget
}

TEST(Config, UnknownKeysNameFileLineKeyAndTheNearest) {
  const std::string text = error_of("[host]\n\ncapcity = \"1 GiB\"\n");
  EXPECT_TRUE(has(text, "test.toml:3:")) << text;
  EXPECT_TRUE(has(text, "host.capcity")) << text;
  EXPECT_TRUE(has(text, "nearest is host.capacity")) << text;
  EXPECT_TRUE(has(error_of("[hosts]\ncapacity = 1\n"), "nearest is host.capacity"));
  EXPECT_TRUE(has(error_of("[tenants.a]\nuser = [\"x\"]\n"), "nearest is tenants.a.users"));
  EXPECT_TRUE(has(error_of("", {"polcy.name=lru"}), "--set polcy.name=lru: polcy.name"));
  EXPECT_TRUE(has(error_of("", {"polcy.name=lru"}), "nearest is policy.name"));
  EXPECT_TRUE(has(error_of("[unknown]\n"), "test.toml:1: unknown"));
  EXPECT_TRUE(has(error_of("[host.capacity]\nx = 1\n"), "host.capacity.x"));
  EXPECT_TRUE(has(error_of("loose = 1\n"), "test.toml:1: loose"));
}

TEST(Config, WrongValuesAreNamedWithTheirPlace) {
  const std::vector<std::pair<std::string, std::string_view>> cases{
      {"[host]\ncapacity = \"12 parsecs\"", "test.toml:2: host.capacity: '12 parsecs' is no size"},
      {"[host]\ncapacity = -5", "host.capacity: must be a size"},
      {"[host]\ncapacity = \"1 MiB\"", "host.capacity: must be 0 or 2 MiB to"},
      {"[host]\ncapacity = 0", "host.capacity: must not be 0"},
      {"[host]\ncapacity = [1]", "host.capacity: must be a size"},
      {"[host]\nhuge_pages = \"yes\"", "host.huge_pages: must be one of auto, on, off"},
      {"[host]\nnuma = -3", "host.numa: must be"},
      {"[limits]\nclients = 0", "limits.clients: must be a whole number from 1"},
      {"[limits]\nclients = \"5\"", "limits.clients: must be a whole number"},
      {"[limits]\nreservation_age = 30", "limits.reservation_age: must be a time in quotes"},
      {"[limits]\nreservation_age = \"30\"", "limits.reservation_age: '30' is no time"},
      {"[limits]\nreservation_age = \"0s\"", "limits.reservation_age: must be from 1ms"},
      {"[nvme]\npaths = \"/a\"", "nvme.paths: must be a list"},
      {"[nvme]\npaths = [\"/a\", \"/a\"]", "nvme.paths: names '/a' twice"},
      {"[nvme]\npaths = [\"/a\", 5]", "nvme.paths: must be a list"},
      {"[nvme]\npaths = [\"/a\", \"/b\"]\ncapacity = \"3 MiB\"",
       "test.toml:3: nvme.capacity: leaves less than 2 MiB"},
      {"[nvme]\nwrite_budget_per_day = \"1 GiB\"\nwrite_burst = \"2 GiB\"",
       "test.toml:3: nvme.write_burst: is more"},
      {"[device]\ncapacity = \"1 GiB\"\nbackend = \"none\"", "device.capacity: is given"},
      {"[policy]\nalpha = -1", "policy.alpha: must be"},
      {"[policy]\nalpha = 0.5", "test.toml:2: policy.alpha: is given, but only"},
      {"[policy]\nname = \"clairvoyant\"", "test.toml:2: policy.name: clairvoyant knows"},
      {"[policy]\nengine_tflops = 0", "policy.engine_tflops: must be"},
      {"[policy]\nengine_tflops = nan", "policy.engine_tflops: must be"},
      {"[socket]\nmode = \"0888\"", "socket.mode: must be a file mode"},
      {"[socket]\nmode = 660", "socket.mode: must be a file mode"},
      {"[metrics]\nlisten = \"0.0.0.0:80\"", "metrics.listen: '0.0.0.0:80'"},
      {"[metrics]\nlisten = \"127.0.0.1:70000\"", "metrics.listen"},
      {"[paths]\nstate_dir = \"\"", "paths.state_dir: must not be empty"},
      {"[paths]\nruntime_dir = \"/" + std::string(120, 'x') + "\"",
       "paths.runtime_dir: makes the path"},
      {"[tenants.\"a b\"]", "is no name of a tenant"},
      {"[tenants]\na = 3", "test.toml:2: tenants.a"},
      {"tenants = 3", "is a table of tenants"},
      {"[tenants.a]\nusers = [\"x\"]\n[tenants.b]\nusers = [\"x\"]",
       "test.toml:4: tenants.b.users: user 'x' already"},
      {"[tenants.a]\ntrusted = \"true\"", "tenants.a.trusted: must be true or false"},
      {"[host]\ncapacity = \"1 GiB\"\ncapacity = \"2 GiB\"", "test.toml:3"},
      {"[host\n", "test.toml:1"},
  };
  for (const auto& [toml, want] : cases)
    EXPECT_TRUE(has(error_of(toml), want)) << toml << "\n-> " << error_of(toml);
  for (const char* set :
       {"", "=5", "host.capacity", "host=5", "..=1", "tenants.a=1", "nvme.paths=[\"/a\"]"}) {
    EXPECT_TRUE(has(error_of("", {set}), "--set")) << set;
  }
}

TEST(Config, MemoryThatTheMachineHasNot) {
  EXPECT_TRUE(
      has(error_of("[host]\ncapacity = \"8 GiB\"", {}, 8 * kGiB), "test.toml:2: host.capacity"));
  EXPECT_EQ(error_of("[host]\ncapacity = \"7 GiB\"", {}, 8 * kGiB), "");
  EXPECT_TRUE(has(
      error_of(
          "", {"host.capacity=7GiB", "device.capacity=2GiB", "device.backend=emulated"}, 8 * kGiB),
      "host.capacity"));
  EXPECT_GT(machine_memory(), 64 * kMiB);
}

TEST(Config, FilesThatAreMissingOrNotText) {
  const auto missing = load({.file = "/nonexistent/x.toml", .set = {}});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::not_found);
  EXPECT_TRUE(has(missing.error().text, "/nonexistent/x.toml"));
  const auto folder = load({.file = "/", .set = {}});
  EXPECT_FALSE(folder);
  const auto empty = load({.file = "/dev/null", .set = {}});
  ASSERT_TRUE(empty);
  EXPECT_EQ(to_toml(*empty), to_toml(Settings{}));
  const auto endless = load({.file = "/dev/zero", .set = {}});
  ASSERT_FALSE(endless);
  EXPECT_TRUE(has(endless.error().text, "larger than"));
}

TEST(Config, GarbageIsAnErrorNotACrash) {
  Prng random(5);
  const std::string good = kFull;
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = good;
    for (std::uint64_t n = 1 + random.below(5); n > 0; --n) {
      text[random.below(text.size())] = static_cast<char>(random.below(256));
    }
    const auto settings = parse(text);
    if (settings) {
      ASSERT_TRUE(parse(to_toml(*settings))) << to_toml(*settings);
    } else {
      ++refused;
      ASSERT_EQ(settings.error().code, Errc::invalid_argument);
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace statecached::config
