#pragma once
// What the benchmarks share: two processors, child processes, medians. One thread.

#include "base/result.hpp"

#include "statecache/status.hpp"
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace statecached::ctl {

using SteadyClock = std::chrono::steady_clock;
using Samples = std::vector<double>;

[[nodiscard]] double micros_since(SteadyClock::time_point start);
/// Of a copy; 0 when there are none.
[[nodiscard]] double quantile(Samples samples, double q);
[[nodiscard]] tl::unexpected<Error> from(const statecache::Status& status);

/// The first two processors this process may use; the same twice when there is one.
struct TwoCores {
  int ours = 0;
  int theirs = 0;
};

[[nodiscard]] TwoCores two_cores();
/// Every thread of the process; 0: this thread only.
void pin(pid_t process, int core);

/// A child process; killed and waited for.
class Child {
 public:
  Child() = default;

  explicit Child(pid_t pid) : pid_(pid) {}

  Child(Child&& other) noexcept;
  Child& operator=(Child&& other) noexcept;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  [[nodiscard]] bool ended();

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }

 private:
  pid_t pid_ = -1;
};

/// Processor time that a process has used so far.
[[nodiscard]] double cpu_seconds(pid_t process);

}  // namespace statecached::ctl
