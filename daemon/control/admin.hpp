#pragma once
// statecachectl's commands, from a word and its arguments to JSON text. What the Cache knows is
// copied on the conductor's thread; the text is made on the caller's.

#include "client/wire/control.hpp"
#include "daemon/metrics/prometheus.hpp"
#include "daemon/serving/conductor.hpp"

#include <atomic>
#include <functional>
#include <string>

namespace statecached {

/// `bench nvme`, as asked for. It is the first of nvme.paths that is measured.
struct NvmeBenchWish {
  std::uint64_t block = 0;       ///< bytes
  std::uint64_t file_bytes = 0;  ///< also what one pass moves
  std::uint64_t pairs = 0;
  std::uint64_t demand_reads = 0;
};

/// What only the assembly knows. `fill` sets huge_page_share, drives, process_written, budget and
/// catalog of a Snapshot; any thread but the conductor's: it may read files.
struct AdminContext {
  std::string version;
  std::uint64_t epoch = 0;
  Instant started{};
  std::string socket_path;
  std::string state_dir;
  std::string settings;              ///< effective, as TOML text
  std::vector<std::string> tenants;  ///< names, by tenant number
  std::function<void(Snapshot&)> fill;
  /// Starts it; `done` is called once, on the conductor's thread. Empty: there is no drive.
  std::function<Result<>(const NvmeBenchWish&, std::function<void(Result<std::string>)> done)>
      bench_nvme;
};

class Admin {
 public:
  using Render = std::function<std::string()>;  ///< any thread, once
  using Done = std::function<void(Result<Render>)>;

  explicit Admin(AdminContext context) : context_(std::move(context)) {}

  /// Commands that change something, or show what prompts are cached, need the daemon's own user or
  /// root.
  [[nodiscard]] static bool open_to_all(const std::string& command);

  /// On the conductor's thread. Calls `done` there exactly once: before it returns, or from a later
  /// step (flush, drain, verify). Errors: invalid_argument, not_found.
  void execute(Conductor& conductor, const wire::AdminMessage& message, Done done);

  /// On the conductor's thread; complete() then adds the rest on another.
  [[nodiscard]] Snapshot snapshot(Conductor& conductor) const;
  void complete(Snapshot& snapshot) const;

  std::atomic<std::uint64_t> garbage{0};
  std::atomic<std::uint64_t> refused{0};

 private:
  AdminContext context_;
};

}  // namespace statecached
