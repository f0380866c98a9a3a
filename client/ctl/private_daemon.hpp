#pragma once
// A statecached of one's own for a measurement: the program beside this one, in a temporary folder,
// gone with the object. One thread.

#include "base/result.hpp"
#include "client/ctl/bench_support.hpp"

#include <sys/types.h>

#include <string>
#include <vector>

namespace statecached::ctl {

class PrivateDaemon {
 public:
  PrivateDaemon() = default;
  PrivateDaemon(const PrivateDaemon&) = delete;
  PrivateDaemon& operator=(const PrivateDaemon&) = delete;
  ~PrivateDaemon();

  /// `folder` is where its own folder is made (empty: the system's for temporary files); `settings`
  /// are "key=value". Errors: it did not start; its last lines are in the message.
  [[nodiscard]] Result<> start(const std::string& folder, const std::vector<std::string>& settings);

  [[nodiscard]] const std::string& folder() const { return folder_; }

  [[nodiscard]] std::string socket() const { return folder_ + "/control.sock"; }

  [[nodiscard]] pid_t pid() const noexcept { return child_.pid(); }

 private:
  [[nodiscard]] std::string last_words() const;

  std::string folder_;
  Child child_;
};

}  // namespace statecached::ctl
