#include "client/ctl/bench_nvme.hpp"

#include "base/units.hpp"
#include "client/ctl/ask.hpp"
#include "client/ctl/private_daemon.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <vector>

namespace statecached::ctl {
namespace {

/// Fields of fio's terse output, version 3, both in KiB/s.
constexpr std::size_t kReadField = 6;
constexpr std::size_t kWriteField = 47;

struct CloseCommand {
  void operator()(std::FILE* file) const noexcept { ::pclose(file); }
};

/// GB/s; 0 where fio is not installed or refuses.
double fio(const std::string& file, const NvmeBenchCall& call, bool read, std::uint64_t depth) {
  const std::string command = fmt::format(
      "fio --name=witness --filename='{}' --size={} --bs={} --iodepth={} --rw={} --direct=1 "
      "--ioengine=io_uring --registerfiles --fixedbufs --mem=shm --runtime=3 --time_based "
      "--end_fsync={} --output-format=terse --terse-version=3 2>/dev/null",
      file,
      call.file_bytes,
      call.block,
      depth,
      read ? "randread" : "randwrite",
      read ? 0 : 1);
  const std::unique_ptr<std::FILE, CloseCommand> pipe(::popen(command.c_str(), "r"));
  if (!pipe) return 0;
  std::string text;
  std::array<char, 4096> part{};
  while (std::fgets(part.data(), part.size(), pipe.get()) != nullptr)
    text += part.data();
  std::size_t at = 0;
  for (std::size_t field = 0; field < (read ? kReadField : kWriteField); ++field) {
    at = text.find(';', at);
    if (at == std::string::npos) return 0;
    ++at;
  }
  return std::strtod(text.c_str() + at, nullptr) * 1024e-9;
}

std::uint64_t number_in(const std::string& json, std::string_view key) {
  const std::size_t at = json.find(fmt::format("\"{}\":", key));
  if (at == std::string::npos) return 1;
  return std::strtoull(json.c_str() + at + key.size() + 3, nullptr, 10);
}

}  // namespace

Result<std::string> bench_nvme(const NvmeBenchCall& call) {
  wire::AdminMessage message;
  message.command = "bench";
  message.arguments = {"kind=nvme",
                       fmt::format("block={}", call.block),
                       fmt::format("file={}", call.file_bytes),
                       fmt::format("pairs={}", call.pairs),
                       fmt::format("demand={}", call.demand_reads)};
  if (call.attach) return ask(call.socket, message);
  PrivateDaemon daemon;
  SC_TRY(daemon.start(call.folder, {"host.capacity=64MiB", "nvme.capacity=64MiB"}));
  SC_ASSIGN(std::string json, ask(daemon.socket(), message));
  if (!call.fio) return json;
  const std::string file = daemon.folder() + "/fio";
  // First writing: what follows meets extents that are written.
  if (fio(file, call, false, 4) <= 0) return json;
  const double write =
      fio(file, call, false, std::max<std::uint64_t>(1, number_in(json, "write_depth")));
  const double read =
      fio(file, call, true, std::max<std::uint64_t>(1, number_in(json, "read_depth")));
  json.pop_back();
  json += fmt::format(",\"fio_read_gb_per_s\":{:.4f},\"fio_write_gb_per_s\":{:.4f}}}", read, write);
  return json;
}

std::string nvme_text(const std::string& json) {
  std::string out;
  int depth = 0;
  for (const char c : json) {
    if (c == '{' && depth++ == 0) continue;
    if (c == '}' && --depth == 0) continue;
    if (c == '"') continue;
    if (c == ',' && depth == 1) {
      out += '\n';
    } else if (c == ':' || c == ',') {
      out += c == ':' ? ": " : ", ";
    } else {
      out += c;
    }
  }
  return out + '\n';
}

}  // namespace statecached::ctl
