// statecached. Exit codes: 0 stopped by a signal, 1 it could not go on, 2 wrong usage or settings.

#include "config/load.hpp"
#include "daemon/assembly.hpp"
#include "daemon/log_sink.hpp"
#include "daemon/notify.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <csignal>
#include <optional>

namespace statecached {
namespace {

struct Call {
  std::string config;
  bool check = false;
  std::string log_format = "text";
  std::vector<std::string> set;
};

log::Level level_of(config::LogLevel level) {
  switch (level) {
    case config::LogLevel::debug:
      return log::Level::debug;
    case config::LogLevel::info:
      return log::Level::info;
    case config::LogLevel::warn:
      return log::Level::warn;
    case config::LogLevel::error:
      return log::Level::error;
  }
  return log::Level::info;
}

/// Blocked before the first thread, so that only wait_for_signal() gets them.
sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return signals;
}

int run(const Call& call) {
  config::LoadOptions options;
  if (!call.config.empty()) options.file = call.config;
  options.set = call.set;
  options.machine_memory = config::machine_memory();
  const auto settings = config::load(options);
  if (!settings) {
    fmt::print(stderr, "statecached: {}\n", settings.error().message());
    return 2;
  }
  if (call.check) {
    fmt::print("{}", config::to_toml(*settings));
    return 0;
  }
  start_log(call.log_format == "json" ? LogFormat::json : LogFormat::text,
            level_of(settings->log.level));
  const sigset_t signals = block_signals();
  auto assembly = Assembly::create(*settings, STATECACHED_VERSION);
  if (!assembly) {
    log::error("{}", assembly.error().message());
    return 1;
  }
  (*assembly)->start();
  log::info("statecached {} serves: {}", STATECACHED_VERSION, (*assembly)->summary());
  notify("READY=1");
  int signal = 0;
  while (::sigwait(&signals, &signal) != 0) {
  }
  log::info("{}: stopping", signal == SIGTERM ? "SIGTERM" : "SIGINT");
  notify("STOPPING=1");
  (*assembly)->stop();
  log::info("stopped");
  return 0;
}

}  // namespace
}  // namespace statecached

int main(int argc, char** argv) {
  statecached::Call call;
  CLI::App app("Keeps model states of inference engines in host memory and on NVMe.",
               "statecached");
  app.set_version_flag("--version", "statecached " STATECACHED_VERSION);
  app.add_option("--config",
                 call.config,
                 "settings (default /etc/statecached/statecached.toml where there is one)");
  app.add_flag(
      "--check-config", call.check, "check the settings, print them as they are in effect, exit");
  app.add_option("--foreground-log", call.log_format, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  app.add_option("--set", call.set, "section.key=value, after the file; may be repeated")
      ->allow_extra_args(false);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    fmt::print(stderr, "statecached: {} (statecached --help)\n", error.what());
    return 2;
  }
  return statecached::run(call);
}
