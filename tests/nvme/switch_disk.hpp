#pragma once
// A disk that misbehaves on command: fails what is asked, or keeps what has finished to itself.

#include "tiers/disk.hpp"

#include <vector>

namespace statecached::test {

class SwitchDisk final : public Disk {
 public:
  explicit SwitchDisk(Disk& inner) : inner_(inner) {}

  [[nodiscard]] std::uint64_t capacity() const noexcept override { return inner_.capacity(); }

  [[nodiscard]] bool submit(DiskOp& op) override {
    ++submitted;
    const int error = op.kind == DiskKind::read ? read_error : write_error;
    if (error == 0) return inner_.submit(op);
    failed_.push_back({op.tag, error, Nanos{0}});
    return true;
  }

  std::size_t poll(std::vector<DiskDone>& out) override {
    inner_.poll(failed_);
    if (hangs) return 0;
    const std::size_t count = failed_.size();
    out.insert(out.end(), failed_.begin(), failed_.end());
    failed_.clear();
    return count;
  }

  void cancel(std::span<const std::uint64_t> tags) override { inner_.cancel(tags); }

  [[nodiscard]] DiskStats stats() const override { return inner_.stats(); }

  [[nodiscard]] const char* engine() const noexcept override { return inner_.engine(); }

  int read_error = 0;
  int write_error = 0;  ///< syncs too
  bool hangs = false;
  std::size_t submitted = 0;

 private:
  Disk& inner_;
  std::vector<DiskDone> failed_;
};

/// Forwards to a disk that somebody else owns.
class BorrowedDisk final : public Disk {
 public:
  explicit BorrowedDisk(Disk& inner) : inner_(inner) {}

  [[nodiscard]] std::uint64_t capacity() const noexcept override { return inner_.capacity(); }

  [[nodiscard]] bool submit(DiskOp& op) override { return inner_.submit(op); }

  std::size_t poll(std::vector<DiskDone>& out) override { return inner_.poll(out); }

  void cancel(std::span<const std::uint64_t> tags) override { inner_.cancel(tags); }

  [[nodiscard]] DiskStats stats() const override { return inner_.stats(); }

  [[nodiscard]] const char* engine() const noexcept override { return inner_.engine(); }

 private:
  Disk& inner_;
};

}  // namespace statecached::test
