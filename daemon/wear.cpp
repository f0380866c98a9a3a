#include "daemon/wear.hpp"

#include "base/log.hpp"
#include "base/time.hpp"
#include "base/unique_fd.hpp"
#include "base/units.hpp"
#include "tiers/nvme/quiet_thread.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace statecached {
namespace {

constexpr auto kPeriod = std::chrono::milliseconds(100);
/// A crash forgets at most so much of a drive's lifetime.
constexpr std::uint64_t kSaveBytes = 256 * kMiB;
constexpr const char* kWearName = "/statecached.wear";
constexpr const char* kBudgetName = "/write_budget";

std::string read_small(const std::string& name) {
  const UniqueFd fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> text{};
  const ssize_t got = fd ? ::read(fd.get(), text.data(), text.size()) : 0;
  return {text.data(), got > 0 ? static_cast<std::size_t>(got) : 0};
}

/// The number after `key` in lines of "key number"; 0 without it.
std::uint64_t number_after(std::string_view text, std::string_view key) {
  const std::size_t at = text.find(key);
  if (at == std::string_view::npos) return 0;
  text.remove_prefix(at + key.size());
  while (!text.empty() && text.front() == ' ')
    text.remove_prefix(1);
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

/// The old file or the new one, whatever happens. Not synced: losing the last of it is allowed.
void write_small(const std::string& name, const std::string& text) {
  const std::string fresh = name + ".new";
  {
    const UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd || ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      log::debug("cannot write {}", fresh);
      return;
    }
  }
  if (::rename(fresh.c_str(), name.c_str()) != 0) log::debug("cannot replace {}", name);
}

}  // namespace

Result<std::uint64_t> process_bytes_written() {
  const std::string text = read_small("/proc/self/io");
  // "cancelled_write_bytes:" ends alike; the line begins with the key.
  const std::size_t at = text.find("\nwrite_bytes:");
  if (at == std::string::npos)
    return fail(Errc::unsupported, "this kernel keeps no accounts of what a process writes");
  return number_after(std::string_view(text).substr(at), "write_bytes:");
}

std::uint64_t restored_tokens(const WriteBudgetOptions& options,
                              const std::string& state_dir,
                              std::int64_t wall_now) {
  const std::string text = read_small(state_dir + kBudgetName);
  if (text.find("tokens ") == std::string::npos) return options.burst;
  const double tokens = static_cast<double>(number_after(text, "tokens "));
  const auto then = static_cast<std::int64_t>(number_after(text, "at "));
  const double since = static_cast<double>(std::max<std::int64_t>(0, wall_now - then));
  const double now = tokens + since * static_cast<double>(options.bytes_per_day) / 86'400;
  return static_cast<std::uint64_t>(std::min(now, static_cast<double>(options.burst)));
}

Wear::Wear(std::vector<WornDrive> drives, std::string state_dir, WriteBudget* budget)
    : drives_(std::move(drives)),
      state_dir_(std::move(state_dir)),
      budget_(budget) {
  for (const WornDrive& drive : drives_) {
    before_.push_back(
        drive.folder.empty() ? 0 : number_after(read_small(drive.folder + kWearName), "written "));
  }
  saved_ = before_;
  accounts_ = process_bytes_written().has_value();
  if (!accounts_ && budget_ != nullptr) {
    log::warn(
        "this kernel keeps no accounts of what a process writes: the write budget counts data "
        "only, "
        "not the catalog");
  }
  measure();
  save(true);
  thread_ = start_quiet_thread([this] { run(); });
}

Wear::~Wear() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  thread_.join();
  measure();
  save(true);
}

std::uint64_t Wear::lifetime(std::size_t drive) const {
  return before_[drive] + drives_[drive].disk->stats().bytes_written;
}

void Wear::measure() {
  std::uint64_t total = 0;
  if (const auto kernel = process_bytes_written(); kernel) {
    total = *kernel;
  } else {
    for (const WornDrive& drive : drives_)
      total += drive.disk->stats().bytes_written;
  }
  written_.store(std::max(written_.load(), total));
  if (budget_ != nullptr) budget_->observe(written_.load());
}

void Wear::save(bool all) {
  for (std::size_t i = 0; i < drives_.size(); ++i) {
    const std::uint64_t now = lifetime(i);
    if (drives_[i].folder.empty() || now == saved_[i]) continue;
    if (!all && now < saved_[i] + kSaveBytes) continue;
    write_small(drives_[i].folder + kWearName, fmt::format("written {}\n", now));
    saved_[i] = now;
  }
  if (budget_ == nullptr) return;
  const WriteBudgetStatus status = budget_->status();
  const std::int64_t tokens = std::max<std::int64_t>(0, status.tokens);
  const auto step = static_cast<std::int64_t>(status.burst / 16);
  if (!all && std::abs(tokens - saved_tokens_) < step) return;
  // Seldom enough that the saving itself is no wear: a page for each sixteenth of the burst.
  write_small(state_dir_ + kBudgetName, fmt::format("tokens {}\nat {}\n", tokens, wall_seconds()));
  saved_tokens_ = tokens;
}

void Wear::run() {
  ::pthread_setname_np(::pthread_self(), "sc-wear");
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, kPeriod, [this] { return stopping_; })) {
    lock.unlock();
    measure();
    save(false);
    lock.lock();
  }
}

}  // namespace statecached
