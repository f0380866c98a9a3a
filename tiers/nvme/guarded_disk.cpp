#include "tiers/nvme/guarded_disk.hpp"

#include "base/log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_set>
#include <utility>

namespace statecached {
namespace {

constexpr int kFailedReadsMax = 8;

bool means_gone(int os_error) noexcept {
  return os_error == ENODEV || os_error == ENXIO || os_error == ESHUTDOWN || os_error == EBADF;
}

}  // namespace

GuardedDisk::GuardedDisk(std::unique_ptr<Disk> inner,
                         const Clock& clock,
                         Nanos timeout,
                         std::string name)
    : inner_(std::move(inner)),
      clock_(clock),
      timeout_(timeout),
      name_(std::move(name)),
      progress_(clock.now()),
      watched_(clock.now()) {}

bool GuardedDisk::submit(DiskOp& op) {
  const DiskHealth health = health_.load();
  const bool refused =
      health == DiskHealth::out || (health == DiskHealth::read_only && op.kind != DiskKind::read);
  if (refused) {
    refused_.push_back({op.tag, health == DiskHealth::out ? ENODEV : EROFS, Nanos{0}});
    return true;
  }
  const Instant now = clock_.now();
  const std::uint64_t tag = std::exchange(op.tag, next_);
  const Asked asked{op.kind, op.klass, now, tag, false};
  if (!inner_->submit(op)) {
    op.tag = tag;
    return false;
  }
  if (asked_.empty()) progress_ = now;
  asked_.emplace(next_++, asked);
  return true;
}

std::size_t GuardedDisk::poll(std::vector<DiskDone>& out) {
  const std::size_t before = out.size();
  scratch_.clear();
  inner_->poll(scratch_);
  const Instant now = clock_.now();
  if (!scratch_.empty()) progress_ = now;
  for (DiskDone& done : scratch_) {
    const auto at = asked_.find(done.tag);
    SC_ASSERT(at != asked_.end());
    const Asked asked = at->second;
    asked_.erase(at);
    if (asked.given_up) continue;
    if (done.os_error != ECANCELED) judge(asked, done.os_error);
    done.tag = asked.tag;
    out.push_back(done);
  }
  watch(now);
  out.insert(out.end(), refused_.begin(), refused_.end());
  refused_.clear();
  return out.size() - before;
}

void GuardedDisk::cancel(std::span<const std::uint64_t> tags) {
  std::vector<std::uint64_t> inner;
  const std::unordered_set<std::uint64_t> wanted(tags.begin(), tags.end());
  for (const auto& [number, asked] : asked_) {
    if (asked.kind == DiskKind::read && wanted.contains(asked.tag)) inner.push_back(number);
  }
  if (!inner.empty()) inner_->cancel(inner);
}

void GuardedDisk::judge(const Asked& asked, int os_error) {
  const bool read = asked.kind == DiskKind::read;
  int& failed = read ? failed_reads_ : failed_writes_;
  if (os_error == 0) {
    failed = 0;
    return;
  }
  if (++failed == 1 && !read) first_failed_write_ = clock_.now();
  const std::string why = fmt::format("{} {} in a row failed, the last with {}",
                                      failed,
                                      read ? "reads" : "writes",
                                      std::strerror(os_error));
  if (means_gone(os_error) || failed_reads_ >= kFailedReadsMax) return worsen(DiskHealth::out, why);
  if (!read && (os_error == EROFS || clock_.now() - first_failed_write_ > timeout_))
    worsen(DiskHealth::read_only, why);
}

/// Ten times a timeout is often enough.
void GuardedDisk::watch(Instant now) {
  if (now - watched_ < timeout_ / 10 || health_.load() == DiskHealth::out) return;
  watched_ = now;
  if (asked_.empty()) return;
  if (now - progress_ > timeout_) {
    return worsen(DiskHealth::out,
                  fmt::format("nothing has come back for {:.1f} s", seconds(now - progress_)));
  }
  for (const auto& [inner, asked] : asked_) {
    const bool urgent = asked.kind == DiskKind::sync ||
                        (asked.kind == DiskKind::read && asked.klass == DiskClass::demand);
    if (urgent && now - asked.at > 2 * timeout_) {
      return worsen(DiskHealth::out,
                    fmt::format("a request is {:.1f} s old", seconds(now - asked.at)));
    }
  }
}

void GuardedDisk::worsen(DiskHealth to, const std::string& why) {
  if (health_.load() >= to) return;
  health_.store(to);
  if (to == DiskHealth::read_only) {
    log::error("drive {}: {}; nothing is written to it any more, reads go on", name_, why);
    return;
  }
  log::error(
      "drive {}: {}; it is taken out: what lies on it is a miss until the next start", name_, why);
  for (auto& [inner, asked] : asked_) {
    if (asked.kind == DiskKind::read || asked.given_up) continue;
    asked.given_up = true;
    refused_.push_back({asked.tag, ETIMEDOUT, Nanos{0}});
  }
}

}  // namespace statecached
