// Tenants: who is whom, what each may keep, and memory that never crosses a trust domain. Other
// users are played by children that give up root; without root those tests say so and are skipped.

#include "tests/ipc/raw_client.hpp"
#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"
#include "tests/support/service_manager.hpp"

#include <grp.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <array>
#include <functional>

namespace statecached::test {
namespace {

using statecache::Session;
using SteadyClock = std::chrono::steady_clock;

constexpr uid_t kRed = 54'321;
constexpr uid_t kBlue = 54'322;

class Tenants : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "other users can be played by root only";
  }

  void TearDown() override {
    if (daemon.running()) {
      EXPECT_EQ(daemon.stop(), 0) << daemon.log();
    }
  }

  void start(const std::string& tenants, std::vector<std::string> more = {}) {
    const std::string path = daemon.dir() + "/settings.toml";
    std::ofstream(path) << "[socket]\nmode = \"0666\"\n" << tenants;
    daemon.set(std::move(more));
    daemon.more = {"--config", path};
    ASSERT_TRUE(daemon.start()) << daemon.log();
    for (const std::string& folder : {daemon.dir(), daemon.dir() + "/run"})
      ASSERT_EQ(::chmod(folder.c_str(), 0755), 0);
  }

  /// A child with this user that does `work`; 0 when all was well.
  static int as(uid_t user, const std::function<int()>& work) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::setgroups(0, nullptr) != 0 || ::setgid(user) != 0 || ::setuid(user) != 0) ::_exit(99);
      ::_exit(work());
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return exit_code(status);
  }

  /// The JSON of one tenant's row.
  std::string row(const std::string& tenant) {
    const std::string json = daemon.ctl({"--json", "tenants"}).out;
    const std::size_t from = json.find("\"tenant\":\"" + tenant + "\"");
    if (from == std::string::npos) return {};
    return json.substr(from, json.find("\"tenant\":", from + 1) - from);
  }

  double number(const std::string& tenant, const std::string& key) {
    const std::string text = row(tenant);
    const std::size_t at = text.find("\"" + key + "\":");
    if (at == std::string::npos) return -1;
    return std::strtod(text.c_str() + at + key.size() + 3, nullptr);
  }

  template <class Done>
  bool eventually(Done done) {
    const auto deadline = SteadyClock::now() + std::chrono::seconds(20);
    while (!done()) {
      if (SteadyClock::now() >= deadline) return false;
    }
    return true;
  }

  int store(uid_t user, const Tokens& prompt, std::uint32_t state) {
    return as(user, [&] {
      auto session = ToyEngine::attach(daemon.socket());
      if (!session) return 1;
      const int stored = ToyEngine(*session).store(prompt, {state});
      return session->drain(kPatience) && stored > 0 ? 0 : 2;
    });
  }

  /// 0: it found and checked so many tokens.
  int restore(uid_t user, const Tokens& prompt, std::uint32_t tokens) {
    return as(user, [&] {
      auto session = ToyEngine::attach(daemon.socket());
      if (!session) return 1;
      const auto hit = ToyEngine(*session).restore(prompt);
      if (!hit.ok) return 2;
      return hit.tokens == tokens ? 0 : 3;
    });
  }

  DaemonProcess daemon;
};

TEST_F(Tenants, AreKnownByTheirUserAndShareWhatIsNotApart) {
  start(
      "[tenants.red]\nusers = [\"54321\"]\n[tenants.blue]\ngroups = [\"54322\"]\ntrusted = true\n");
  const Tokens prompt = counting(640);
  EXPECT_EQ(store(kRed, prompt, 640), 0);
  EXPECT_EQ(number("red", "objects"), 11);
  // One domain: what red stored, blue reads, and stores no second time.
  EXPECT_EQ(restore(kBlue, counting(641), 640), 0);
  EXPECT_EQ(store(kBlue, prompt, 640), 0);
  EXPECT_EQ(number("blue", "objects"), 0);
  EXPECT_EQ(store(kBlue, counting(640, 9000), 640), 0);
  EXPECT_EQ(number("blue", "objects"), 11);
  EXPECT_EQ(number("default", "objects"), 0);
  // Red is not trusted: another user than the daemon's writes through staging; blue is.
  EXPECT_EQ(as(kRed, [&] { return ToyEngine::attach(daemon.socket())->writable() ? 1 : 0; }), 0);
  EXPECT_EQ(as(kBlue, [&] { return ToyEngine::attach(daemon.socket())->writable() ? 0 : 1; }), 0);
  EXPECT_EQ(daemon.ctl({"rm", "--tenant", "red"}).code, 0);
  EXPECT_EQ(number("red", "objects"), 0);
  EXPECT_EQ(restore(kBlue, counting(641), 0), 0);
  EXPECT_EQ(restore(kBlue, counting(641, 9000), 640), 0);
  EXPECT_NE(daemon.ctl({"rm", "--tenant", "nobody"}).code, 0);
  EXPECT_EQ(daemon.ctl({"audit"}).code, 0) << daemon.ctl({"audit"}).out;
}

TEST_F(Tenants, TrustDomainsShareNothing) {
  start(
      "[tenants.red]\nusers = [\"54321\"]\ntrust_domain = \"r\"\n"
      "[tenants.blue]\nusers = [\"54322\"]\ntrust_domain = \"b\"\n",
      {"nvme.capacity=64MiB"});
  const Tokens prompt = counting(640);
  EXPECT_EQ(store(kRed, prompt, 640), 0);
  EXPECT_EQ(restore(kRed, counting(641), 640), 0);
  EXPECT_EQ(restore(kBlue, counting(641), 0), 0) << "the same prompt in another domain is a miss";
  EXPECT_EQ(store(kBlue, prompt, 640), 0);
  EXPECT_EQ(restore(kBlue, counting(641), 640), 0);
  EXPECT_EQ(number("red", "objects"), 11);
  EXPECT_EQ(number("blue", "objects"), 11);
  // Each maps one arena, and it holds no byte of the other's: the state of this prompt is looked
  // for.
  const auto finds = [&](const Tokens& of) {
    auto client = RawClient::attach(daemon.socket());
    if (!client || client->reply.arenas.size() != 2) return 2;
    const std::uint64_t bytes = client->reply.arenas[0].bytes;
    void* const at = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, client->arenas[0].get(), 0);
    if (at == MAP_FAILED) return 3;
    const std::vector<std::byte> state = ToyEngine::payload(ToyEngine::chains(of),
                                                            1,
                                                            static_cast<std::uint32_t>(of.size()),
                                                            static_cast<std::uint32_t>(of.size()));
    const void* const found = ::memmem(at, bytes, state.data(), state.size());
    ::munmap(at, bytes);
    return found != nullptr ? 0 : 1;
  };
  const Tokens reds = counting(640, 7000);
  EXPECT_EQ(store(kRed, reds, 640), 0);
  EXPECT_EQ(as(kRed, [&] { return finds(reds); }), 0);
  EXPECT_EQ(as(kBlue, [&] { return finds(reds); }), 1);
  // Also after it went to the drive and the daemon came back.
  EXPECT_EQ(daemon.ctl({"flush"}).code, 0);
  daemon.kill9();
  ASSERT_TRUE(daemon.start()) << daemon.log();
  ASSERT_EQ(::chmod((daemon.dir() + "/run").c_str(), 0755), 0);
  EXPECT_EQ(restore(kRed, counting(641, 7000), 640), 0);
  EXPECT_EQ(restore(kBlue, counting(641, 7000), 0), 0);
  EXPECT_EQ(restore(kBlue, counting(641), 640), 0);
  EXPECT_EQ(daemon.ctl({"audit"}).code, 0) << daemon.ctl({"audit"}).out;
}

TEST_F(Tenants, AQuotaBoundsOneAndSparesTheOthers) {
  // A prompt of 640 tokens: 10 blocks of 4 KiB and a state of 20 KiB: 60 KiB.
  start(
      "[tenants.red]\nusers = [\"54321\"]\nquota = \"256KiB\"\n[tenants.blue]\nusers = "
      "[\"54322\"]\n",
      {"nvme.capacity=0"});
  EXPECT_EQ(store(kBlue, counting(640, 500'000), 640), 0);
  for (std::uint32_t i = 0; i < 12; ++i) {
    EXPECT_EQ(store(kRed, counting(640, 1 + i * 10'000), 640), 0);
    EXPECT_LE(number("red", "host"), 256 * 1024);
  }
  EXPECT_GT(number("red", "host"), 128 * 1024);
  EXPECT_EQ(number("blue", "objects"), 11);
  EXPECT_EQ(restore(kBlue, counting(641, 500'000), 640), 0);
  // Its newest is there, its oldest made room.
  EXPECT_EQ(restore(kRed, counting(641, 110'001), 640), 0);
  EXPECT_EQ(restore(kRed, counting(641, 1), 0), 0);
  // More at once than it may have at all.
  EXPECT_EQ(store(kRed, counting(64 * 200, 900'000), 64), 0);
  EXPECT_LE(number("red", "host"), 256 * 1024);
  EXPECT_GT(number("red", "refused"), 0);
  EXPECT_EQ(daemon.ctl({"audit"}).code, 0) << daemon.ctl({"audit"}).out;
}

TEST_F(Tenants, DomainsOutliveTheDaemonToo) {
  ServiceManager manager(daemon);
  start("[tenants.red]\nusers = [\"54321\"]\ntrust_domain = \"r\"\n", {"nvme.capacity=0"});
  EXPECT_EQ(store(kRed, counting(640), 640), 0);
  EXPECT_EQ(store(0, counting(640, 3000), 640), 0);
  const auto kept = [&] {
    return daemon.ctl({"--json", "status"}).out.find("\"kept_objects\":22,") != std::string::npos;
  };
  ASSERT_TRUE(eventually(kept)) << daemon.ctl({"--json", "status"}).out;
  manager.listen();
  EXPECT_EQ(manager.kept(), 3U);
  daemon.kill9();
  ASSERT_TRUE(daemon.start()) << daemon.log();
  ASSERT_EQ(::chmod((daemon.dir() + "/run").c_str(), 0755), 0);
  ASSERT_TRUE(eventually(kept)) << daemon.ctl({"--json", "status"}).out;
  EXPECT_EQ(restore(kRed, counting(641), 640), 0);
  EXPECT_EQ(restore(kRed, counting(641, 3000), 0), 0);
  EXPECT_EQ(restore(0, counting(641, 3000), 640), 0);
  EXPECT_EQ(restore(0, counting(641), 0), 0);
}

TEST_F(Tenants, WhoStoredWhatIsKnownAfterARestart) {
  const std::string both =
      "[tenants.red]\nusers = [\"54321\"]\n[tenants.blue]\nusers = [\"54322\"]\n";
  start(both);
  EXPECT_EQ(store(kRed, counting(640), 640), 0);
  EXPECT_EQ(store(kBlue, counting(320, 9000), 320), 0);
  EXPECT_EQ(daemon.ctl({"flush"}).code, 0) << daemon.log();
  daemon.kill9();
  // Another tenant before them: names count, not places.
  start("[tenants.amber]\nusers = [\"54323\"]\n" + both);
  EXPECT_TRUE(eventually([&] {
    return number("red", "objects") == 11 && number("blue", "objects") == 6;
  })) << daemon.ctl({"--json", "tenants"}).out;
  EXPECT_EQ(number("amber", "objects"), 0);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
  // Who is configured no more is counted to the default tenant.
  start("[tenants.blue]\nusers = [\"54322\"]\n");
  EXPECT_TRUE(eventually([&] {
    return number("default", "objects") == 11 && number("blue", "objects") == 6;
  })) << daemon.ctl({"--json", "tenants"}).out;
}

TEST_F(Tenants, SeveralTrustDomainsExcludeADeviceTier) {
  const std::string path = daemon.dir() + "/settings.toml";
  std::ofstream(path) << "[tenants.red]\nusers = [\"54321\"]\ntrust_domain = \"r\"\n";
  daemon.set({"device.capacity=8MiB", "device.backend=emulated"});
  daemon.more = {"--config", path};
  EXPECT_FALSE(daemon.start());
  EXPECT_NE(daemon.log().find("it cannot be had with several trust domains"), std::string::npos)
      << daemon.log();
}

}  // namespace
}  // namespace statecached::test
