// What a write budget costs in hits: the daemon, at the pace of a trace, against the simulator with
// the same settings and trace, which runs the same cache and the same budget on a virtual clock.

#include "base/prng.hpp"
#include "client/replay/replay.hpp"
#include "daemon/sim/simulate.hpp"
#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>

#include <fstream>

namespace statecached {
namespace {

using test::DaemonProcess;
using test::number_of;
using test::written_by;

constexpr std::uint64_t kHost = 24 * kMiB;
constexpr std::uint64_t kNvme = 1 * kGiB;
constexpr double kSeconds = 10;
constexpr std::uint32_t kTalks = 60;
constexpr std::uint32_t kTurns = 3;

struct Budget {
  std::uint64_t per_day = 0;  ///< 0: none
  std::uint64_t burst = 0;

  [[nodiscard]] double allows(double seconds) const {
    return static_cast<double>(burst) + static_cast<double>(per_day) / 86'400 * seconds;
  }
};

/// Large objects, as models have them: what the catalog adds to them is small.
NamespaceSpec model() {
  NamespaceSpec spec;
  spec.name = "budget";
  spec.model.bytes.fill(std::byte{1});
  spec.layout.bytes.fill(std::byte{2});
  spec.groups = {
      {.name = "attention", .need = Need::every, .block_tokens = 64, .max_bytes = 64 * kKiB},
      {.name = "recurrent", .need = Need::end, .max_bytes = 256 * kKiB}};
  spec.cost.c1 = 20e9;
  spec.cost.c2 = 1e5;
  return spec;
}

/// Conversations turn by turn, so that a turn finds its history long after it has left host memory.
void write_trace(const std::string& path) {
  std::ofstream file(path);
  std::vector<std::vector<Token>> histories(kTalks);
  Prng chance(11);
  const auto list = [](const std::vector<Token>& tokens) {
    std::string text;
    for (const Token token : tokens)
      text += (text.empty() ? '[' : ',') + std::to_string(token);
    return text + ']';
  };
  for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
    for (std::uint32_t talk = 0; talk < kTalks; ++talk) {
      auto& history = histories[talk];
      history.push_back(1000 + talk);
      for (std::uint64_t i = chance.below(500) + 300; i > 0; --i)
        history.push_back(static_cast<Token>(chance.below(1000)));
      const std::vector<Token> output(chance.below(100) + 20, talk);
      const double at = kSeconds * (turn * kTalks + talk) / (kTurns * kTalks);
      file << "{\"session_id\":" << talk << ",\"ts\":" << at
           << ",\"input_tokens\":" << list(history) << ",\"output_tokens\":" << list(output)
           << "}\n";
      history.insert(history.end(), output.begin(), output.end());
    }
  }
}

struct Outcome {
  double hit_rate = 0;
  std::uint64_t stored = 0;
  double written = 0, allowed = 0;
  double slowed = 1;  ///< how many times longer than the trace it took
};

class Loss : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto name = "statecached-budget-" + std::to_string(::getpid()) + ".jsonl";
    trace_ = (std::filesystem::temp_directory_path() / name).string();
    write_trace(trace_);
  }

  void TearDown() override { std::filesystem::remove(trace_); }

  [[nodiscard]] Outcome simulated(const Budget& budget, double slowed) const {
    SimSettings settings;
    settings.spec = model();
    settings.host_bytes = kHost;
    settings.nvme_bytes = kNvme;
    settings.open_loop = true;
    settings.stretch = slowed;
    settings.engine_flops = kFlops;
    settings.write_budget_per_day = budget.per_day;
    settings.write_burst = budget.burst;
    auto trace = TraceReader::open(trace_, 0);
    EXPECT_TRUE(trace);
    const auto result = simulate(settings, **trace);
    EXPECT_TRUE(result) << result.error().message();
    if (!result) return {};
    Outcome out;
    out.hit_rate =
        static_cast<double>(result->hit_tokens) / static_cast<double>(result->input_tokens);
    if (result->budget) out.written = static_cast<double>(result->budget->written);
    out.allowed = budget.allows(result->virtual_seconds);
    return out;
  }

  void real(const Budget& budget, Outcome& out) const {
    std::vector<std::string> settings{"host.capacity=" + format_size(kHost),
                                      "nvme.capacity=" + format_size(kNvme)};
    if (budget.per_day != 0) {
      settings.push_back("nvme.write_budget_per_day=" + format_size(budget.per_day));
      settings.push_back("nvme.write_burst=" + format_size(budget.burst));
    }
    DaemonProcess daemon(settings);
    const auto start = std::chrono::steady_clock::now();
    ASSERT_TRUE(daemon.start()) << daemon.log();
    ReplaySettings how;
    how.socket = daemon.socket();
    how.spec = model();
    how.engine_flops = kFlops;
    how.concurrency = 2;
    how.speed = 1;
    auto trace = TraceReader::open(trace_, 0);
    ASSERT_TRUE(trace);
    const auto result = replay(how, **trace, {});
    ASSERT_TRUE(result) << result.error().message() << daemon.log();
    EXPECT_EQ(result->totals.errors, 0U) << result->totals.first_error;
    EXPECT_EQ(result->totals.bytes_mismatched, 0U);
    out.hit_rate = static_cast<double>(result->totals.hit_tokens) /
                   static_cast<double>(result->totals.input_tokens);
    out.stored = result->totals.bytes_stored;
    out.slowed = std::max(1.0, result->wall_seconds / kSeconds);
    out.written = static_cast<double>(written_by(daemon.pid()));
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    out.allowed = budget.allows(passed.count());
    EXPECT_EQ(daemon.stop(), 0) << daemon.log();
  }

  /// a prefill takes tens of milliseconds, which replay does not wait for
  static constexpr double kFlops = 400e12;
  std::string trace_;
};

TEST_F(Loss, IsWhatTheSimulatorPredicts) {
  const Outcome free = simulated({}, 1);
  Outcome real_free;
  real({}, real_free);
  if (HasFatalFailure()) return;
  // On a machine that is busy with other things the drive may be behind, and unwritten state is
  // given up.
  EXPECT_LE(real_free.hit_rate, free.hit_rate + 0.05);
  // About a sixteenth, and a quarter, of what is stored.
  for (const Budget& budget : {Budget{40 * kGiB, 8 * kMiB}, Budget{200 * kGiB, 24 * kMiB}}) {
    Outcome real_tight;
    real(budget, real_tight);
    if (HasFatalFailure()) return;
    // A machine that cannot keep the pace gives the bucket more time to fill.
    const Outcome tight = simulated(budget, real_tight.slowed);
    std::printf(
        "hit rate without and with the budget: predicted %.3f and %.3f, real %.3f and %.3f; "
        "written %.1f of "
        "%.1f MiB allowed (predicted %.1f of %.1f), stored %.0f MiB\n",
        free.hit_rate,
        tight.hit_rate,
        real_free.hit_rate,
        real_tight.hit_rate,
        real_tight.written / kMiB,
        real_tight.allowed / kMiB,
        tight.written / kMiB,
        tight.allowed / kMiB,
        static_cast<double>(real_free.stored) / kMiB);
    EXPECT_LE(tight.written, tight.allowed);
    if (real_tight.written >= 0) {
      EXPECT_LE(real_tight.written, real_tight.allowed);
    }
    EXPECT_GT(free.hit_rate, tight.hit_rate + 0.1)
        << "the budget must cost something, or this test shows nothing";
    EXPECT_NEAR(real_tight.hit_rate, tight.hit_rate, 0.06);
    EXPECT_GT(real_free.hit_rate, real_tight.hit_rate);
    EXPECT_LE(real_free.hit_rate - real_tight.hit_rate, free.hit_rate - tight.hit_rate + 0.06)
        << "more is lost than predicted";
  }
}

}  // namespace
}  // namespace statecached
