#pragma once
// A drive that is watched: decides when a path is not to be used any more, says so once in the log,
// and answers for it from then on.
//
//   read_only  one write failed with EROFS, or none succeeded and some failed for `timeout`:
//              further writes fail at once, reads go on
//   out        eight reads in a row failed, one with an errno that means the device is gone, or
//              nothing at all came back for `timeout` while something was asked for, or one demand
//              read or sync is twice as late: everything fails at once
//
// When it goes out, writes and syncs under way end with ETIMEDOUT. Reads under way stay under way:
// the drive may still put bytes into their memory. Their owner learns from health() that it must
// not wait for them, and gets their completions if they ever come.
//
// Threads as for Disk; health() for any. A path stays as it is until the daemon starts again.

#include "base/time.hpp"
#include "tiers/disk.hpp"

#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>

namespace statecached {

class GuardedDisk final : public Disk {
 public:
  /// `clock` outlives it. `name` is for the log: the folder.
  GuardedDisk(std::unique_ptr<Disk> inner, const Clock& clock, Nanos timeout, std::string name);

  [[nodiscard]] std::uint64_t capacity() const noexcept override { return inner_->capacity(); }

  [[nodiscard]] bool submit(DiskOp& op) override;
  std::size_t poll(std::vector<DiskDone>& out) override;
  void cancel(std::span<const std::uint64_t> tags) override;

  [[nodiscard]] DiskStats stats() const override { return inner_->stats(); }

  [[nodiscard]] const char* engine() const noexcept override { return inner_->engine(); }

  [[nodiscard]] DiskHealth health() const noexcept override { return health_.load(); }

 private:
  struct Asked {
    DiskKind kind = DiskKind::read;
    DiskClass klass = DiskClass::demand;
    Instant at{};
    std::uint64_t tag = 0;
    bool given_up = false;  ///< its owner has its completion
  };

  void judge(const Asked& asked, int os_error);
  void watch(Instant now);
  void worsen(DiskHealth to, const std::string& why);

  const std::unique_ptr<Disk> inner_;
  const Clock& clock_;
  const Nanos timeout_;
  const std::string name_;
  std::atomic<DiskHealth> health_{DiskHealth::good};
  std::unordered_map<std::uint64_t, Asked> asked_;  ///< by inner tag
  std::uint64_t next_ = 1;
  Instant progress_{};  ///< the last completion, or when the drive was last asked while idle
  Instant watched_{};
  int failed_reads_ = 0, failed_writes_ = 0;  ///< in a row
  Instant first_failed_write_{};
  std::vector<DiskDone> refused_;
  std::vector<DiskDone> scratch_;
};

}  // namespace statecached
