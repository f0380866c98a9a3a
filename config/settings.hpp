#pragma once
// All settings of the daemon, as plain values. The defaults are those of the shipped
// statecached.toml, which a test compares. Copied freely; no thread of its own. Sizes are bytes.

#include "base/time.hpp"
#include "base/units.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace statecached::config {

/// Something that is used where it works (automatic), demanded (on), or forced to its fallback
/// (off).
enum class Switch : std::uint8_t { automatic, on, off };
enum class Trust : std::uint8_t { same_user, none };
enum class NvmeEngine : std::uint8_t { automatic, io_uring, threads };
enum class DeviceBackend : std::uint8_t { automatic, cuda, emulated, none };
enum class Policy : std::uint8_t { marconi, marconi_paper, lru, s3fifo, gdsf, clairvoyant };
enum class Admission : std::uint8_t { automatic, paper, marconi };
enum class Demotion : std::uint8_t { priced, always, never };
enum class NvmeWrite : std::uint8_t { behind, through };
enum class Shrink : std::uint8_t { refuse, keep, truncate };
enum class LogLevel : std::uint8_t { debug, info, warn, error };

inline constexpr std::uint64_t kUnlimited = UINT64_MAX;
inline constexpr std::uint64_t kAutomatic = 0;

struct Paths {
  std::string state_dir = "/var/lib/statecached";
  std::string runtime_dir = "/run/statecached";
};

struct Socket {
  std::string path;  ///< empty: control.sock in the runtime directory
  std::uint32_t mode = 0660;
  std::string group;  ///< empty: as the process creates it
  Trust trust = Trust::same_user;
};

struct Host {
  std::uint64_t capacity = 8 * kGiB;
  Switch huge_pages = Switch::automatic;
  std::int32_t numa = -1;  ///< node; -1: where the kernel puts it
  Switch register_buffers = Switch::automatic;
};

struct Nvme {
  std::vector<std::string> paths;      ///< empty: nvme in the state directory
  std::uint64_t capacity = 64 * kGiB;  ///< of all paths together; 0: no NVMe tier
  std::uint64_t write_budget_per_day = kUnlimited;
  std::uint64_t write_burst = kAutomatic;  ///< kAutomatic: 1/144 of the budget
  NvmeEngine engine = NvmeEngine::automatic;
  Switch direct = Switch::automatic;
  Switch defer_taskrun = Switch::automatic;
  std::uint32_t threads = 4;
  Shrink shrink = Shrink::refuse;
};

struct Device {
  std::uint64_t capacity = 0;  ///< a GPU; 0: no device tier
  DeviceBackend backend = DeviceBackend::automatic;
};

struct PolicySettings {
  Policy name = Policy::marconi;
  std::optional<double> alpha;  ///< of marconi_paper; none: chosen by the tuner
  Admission admission = Admission::automatic;
  Demotion demotion = Demotion::priced;
  NvmeWrite nvme_write = NvmeWrite::behind;
  double engine_tflops = 400;
};

struct Limits {
  std::uint32_t clients = 256;
  /// of one client; kAutomatic: half of host.capacity
  std::uint64_t lease_bytes_max = kAutomatic;
  Nanos lease_age_warn = std::chrono::minutes(5);
  Nanos reservation_age = std::chrono::seconds(30);
  Nanos soft_hold_age = std::chrono::seconds(10);
  Nanos transfer_timeout = std::chrono::seconds(30);
  Nanos stop_time = std::chrono::seconds(30);
  std::uint32_t inflight = 1024;
  std::uint64_t staging = 64 * kMiB;  ///< of one client that may not write in place
};

struct Metrics {
  std::string listen;  ///< empty: off; "/path" of a socket, or "127.0.0.1:port"
};

struct Log {
  LogLevel level = LogLevel::info;
};

struct Tenant {
  std::vector<std::string> users;   ///< names or numbers
  std::vector<std::string> groups;  ///< names or numbers
  std::string trust_domain;         ///< empty: the one that all share by default
  bool trusted = false;             ///< may write the arena in place, as a client with our own uid
  std::uint64_t quota = kUnlimited;
};

struct Settings {
  Paths paths;
  Socket socket;
  Host host;
  Nvme nvme;
  Device device;
  PolicySettings policy;
  Limits limits;
  Metrics metrics;
  Log log;
  std::map<std::string, Tenant> tenants;

  // What the automatic values come to.
  [[nodiscard]] std::string socket_path() const {
    return socket.path.empty() ? paths.runtime_dir + "/control.sock" : socket.path;
  }

  [[nodiscard]] std::vector<std::string> nvme_paths() const {
    return nvme.paths.empty() ? std::vector<std::string>{paths.state_dir + "/nvme"} : nvme.paths;
  }

  [[nodiscard]] std::uint64_t write_burst() const noexcept {
    if (nvme.write_burst != kAutomatic || nvme.write_budget_per_day == kUnlimited) {
      return nvme.write_burst == kAutomatic ? kUnlimited : nvme.write_burst;
    }
    return nvme.write_budget_per_day / 144;
  }

  [[nodiscard]] std::uint64_t lease_bytes_max() const noexcept {
    return limits.lease_bytes_max == kAutomatic ? host.capacity / 2 : limits.lease_bytes_max;
  }
};

}  // namespace statecached::config
