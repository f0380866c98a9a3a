#pragma once
// A progress bar on standard error, there only when that is a terminal. One thread.

#include <chrono>
#include <cstdint>
#include <string>

namespace statecached {

class Progress {
 public:
  Progress(std::string what, std::uint64_t total);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  ///< clears the line

  /// Redraws at most ten times a second. `note` stands behind the bar.
  void at(std::uint64_t done, const std::string& note);
  /// The note would be shown now: make it only then.
  [[nodiscard]] bool due() const;

 private:
  std::string what_;
  std::uint64_t total_;
  bool shown_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point next_{};
};

}  // namespace statecached
