#pragma once
// What the disk tests share: a directory under the build folder, an arena, and a way to wait.

#include "base/unique_fd.hpp"
#include "tiers/disk.hpp"
#include "tiers/memory.hpp"
#include "tiers/nvme/path.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace statecached::test {

/// Removed with everything in it. Under the build folder: /tmp may be a file system without
/// O_DIRECT.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = std::string(STATECACHED_TEST_DIR) + "/nvme.XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    name_ = name;
  }

  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(name_, ignored);
  }

  [[nodiscard]] std::string operator/(const std::string& leaf) const { return name_ + "/" + leaf; }

 private:
  std::string name_;
};

inline Mapping make_arena(std::uint64_t bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) std::abort();
  return {data, bytes};
}

/// Signalled by an engine's thread, waited for by the test's.
class Bell {
 public:
  void ring() {
    {
      const std::lock_guard lock(mutex_);
      rung_ = true;
    }
    changed_.notify_one();
  }

  /// False when nothing rang for half a minute: the engine is stuck.
  [[nodiscard]] bool wait() {
    std::unique_lock lock(mutex_);
    const bool rung = changed_.wait_for(lock, std::chrono::seconds(30), [&] { return rung_; });
    rung_ = false;
    return rung;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;
};

/// Polls `disk` until `count` ops are done; `idle` blocks until there may be more, or says false.
inline std::vector<DiskDone> wait_for(Disk& disk,
                                      std::size_t count,
                                      const std::function<bool()>& idle) {
  std::vector<DiskDone> done;
  while (done.size() < count) {
    if (disk.poll(done) == 0 && !idle()) {
      ADD_FAILURE() << "stuck after " << done.size() << " of " << count << " ops";
      break;
    }
  }
  return done;
}

inline std::map<std::uint64_t, int> errors_by_tag(const std::vector<DiskDone>& done) {
  std::map<std::uint64_t, int> errors;
  for (const DiskDone& op : done) {
    EXPECT_TRUE(errors.emplace(op.tag, op.os_error).second) << "tag " << op.tag << " came twice";
  }
  return errors;
}

inline DiskOp make_op(std::uint64_t tag,
                      DiskKind kind,
                      std::vector<DiskPiece> pieces,
                      DiskClass klass = DiskClass::demand) {
  DiskOp op;
  op.tag = tag;
  op.kind = kind;
  op.klass = klass;
  op.pieces = std::move(pieces);
  return op;
}

}  // namespace statecached::test
