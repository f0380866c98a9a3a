// Several processes: two engines that share what they store, and two workers of one engine with
// half the heads each.

#include "tests/engine/world.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace statecached::test {
namespace {

class Sharing : public ::testing::Test {
 protected:
  void SetUp() override {
    void* memory = ::mmap(
        nullptr, sizeof(Findings) * 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    findings = new (memory) Findings[2];
  }

  void TearDown() override {
    ::munmap(findings, sizeof(Findings) * 2);
    EXPECT_EQ(daemon.stop(), 0) << daemon.log();
  }

  template <class F>
  pid_t child(F&& body) {
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    body();
    ::_exit(0);
  }

  /// Its exit code. Meanwhile what is stored goes to NVMe, however slowly the drive writes: on a
  /// busy machine host memory would else fill with what exists nowhere else, and little more would
  /// be stored.
  int wait_flushing(pid_t pid) {
    int status = 0;
    while (::waitpid(pid, &status, WNOHANG) == 0)
      static_cast<void>(daemon.ctl({"flush"}));
    return exit_code(status);
  }

  static int wait_for(pid_t pid) {
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return exit_code(status);
  }

  Findings* findings = nullptr;
  DaemonProcess daemon;
};

TEST_F(Sharing, TwoEngines) {
  daemon.set(tight());
  ASSERT_TRUE(daemon.start()) << daemon.log();
  std::array<pid_t, 2> pids{};
  for (std::uint64_t i = 0; i < 2; ++i) {
    pids[i] = child([&] {
      auto session = attach(daemon.socket(), 100 + i);
      if (!session) ::_exit(3);
      const engine::Model model(engine::ModelConfig::tiny());
      engine::Engine engine(model, &*session, Conversations::options());
      Conversations conversations(engine, model, 9, 40 + i);
      for (std::uint64_t step = 0; step < scaled(1000); ++step)
        conversations.step();
      findings[i] = conversations.found;
    });
  }
  for (const pid_t pid : pids)
    EXPECT_EQ(wait_flushing(pid), 0) << daemon.log();
  for (std::size_t i = 0; i < 2; ++i) {
    std::printf("%s\n", findings[i].text().c_str());
    EXPECT_EQ(findings[i].different, 0U);
    EXPECT_EQ(findings[i].cache_errors, 0U) << findings[i].first_error;
    EXPECT_GT(findings[i].hits, scaled(1000) / 20);
  }
  EXPECT_GT(findings[0].others + findings[1].others, 0U);
  // What the one has stored the other finds: a prompt that only the first process ever had.
  EXPECT_EQ(daemon.ctl({"flush"}).code, 0);
  const engine::Model model(engine::ModelConfig::tiny());
  Tokens prompt(200, 5);
  engine::Request request;
  request.prompt = prompt;
  const pid_t first = child([&] {
    auto session = attach(daemon.socket(), 200);
    if (!session) ::_exit(3);
    engine::Engine engine(model, &*session, Conversations::options());
    static_cast<void>(engine.serve(request));
    static_cast<void>(session->drain(std::chrono::seconds(20)).ok());
  });
  EXPECT_EQ(wait_for(first), 0);
  auto session = attach(daemon.socket(), 201);
  ASSERT_TRUE(session);
  engine::Engine here(model, &*session, Conversations::options());
  engine::Engine alone(model, nullptr);
  const engine::Turn shared = here.serve(request);
  EXPECT_EQ(shared.hit, 199U);
  EXPECT_EQ(shared.last_logits, alone.serve(request).last_logits);
}

TEST_F(Sharing, TwoWorkersWithHalfTheHeadsEach) {
  daemon.set(tight());
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const engine::ModelConfig config = engine::ModelConfig::tiny();
  engine::Team team(config, 2);
  // fewer would not fill host memory
  const std::uint64_t turns = std::max<std::uint64_t>(scaled(400), 150);
  const pid_t other = child([&] {
    auto session = attach(daemon.socket(), 300, 1, 2);
    if (!session) ::_exit(3);
    const engine::Model half(config, {1, 2});
    team.follow(half, *session);
  });
  const pid_t first = child([&] {
    auto session = attach(daemon.socket(), 300, 0, 2);
    if (!session) ::_exit(3);
    const engine::Model half(config, {0, 2});
    const engine::Model whole(config);
    engine::Engine engine(half, &*session, Conversations::options(), &team);
    Conversations conversations(engine, whole, 9, 60);
    conversations.parents = false;
    for (std::uint64_t step = 0; step < turns; ++step)
      conversations.step();
    findings[0] = conversations.found;
    team.stop();
  });
  // A worker that ends early would leave the other waiting for ever.
  const int first_code = wait_flushing(first);
  if (first_code != 0) ::kill(other, SIGKILL);
  EXPECT_EQ(first_code, 0) << daemon.log();
  EXPECT_EQ(wait_for(other), 0) << daemon.log();
  std::printf("%s\n", findings[0].text().c_str());
  EXPECT_EQ(findings[0].different, 0U);
  EXPECT_EQ(findings[0].cache_errors, 0U) << findings[0].first_error;
  EXPECT_GT(findings[0].hits, turns / 20);
  EXPECT_GT(findings[0].by_tier[2], 0U);
}

}  // namespace
}  // namespace statecached::test
