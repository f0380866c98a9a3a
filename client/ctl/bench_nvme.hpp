#pragma once
// `statecachectl bench nvme`: the daemon's disk engine against bare io_uring. The daemon measures
// (daemon/nvme_bench); here it is asked to, and fio is run beside it as a witness where it is
// installed.

#include "base/result.hpp"

#include <cstdint>
#include <string>

namespace statecached::ctl {

struct NvmeBenchCall {
  std::string socket;                 ///< of the running daemon, with `attach`
  std::string folder;                 ///< where a private daemon puts its drive
  std::uint64_t block = 1ULL << 20U;  ///< bytes
  std::uint64_t file_bytes = 512ULL << 20U;
  std::uint32_t pairs = 9;
  std::uint32_t demand_reads = 4000;
  bool attach = false;  ///< use the running daemon and its first drive
  bool fio = true;      ///< private daemon only
};

/// JSON text. Errors: the daemon did not start or refused (no room on the drive, --size).
[[nodiscard]] Result<std::string> bench_nvme(const NvmeBenchCall& call);

/// Name and value lines.
[[nodiscard]] std::string nvme_text(const std::string& json);

}  // namespace statecached::ctl
