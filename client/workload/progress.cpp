#include "client/workload/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace statecached {

Progress::Progress(std::string what, std::uint64_t total)
    : what_(std::move(what)),
      total_(std::max<std::uint64_t>(total, 1)),
      shown_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

bool Progress::due() const {
  return shown_ && std::chrono::steady_clock::now() >= next_;
}

void Progress::at(std::uint64_t done, const std::string& note) {
  if (!due()) return;
  next_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  constexpr std::uint64_t kWidth = 30;
  const std::uint64_t filled = std::min(done, total_) * kWidth / total_;
  std::string bar;
  for (std::uint64_t i = 0; i < kWidth; ++i)
    bar += i < filled ? "█" : "░";
  std::fprintf(stderr,
               "\r%s %s %3u %%  %s\033[K",
               what_.c_str(),
               bar.c_str(),
               static_cast<unsigned>(std::min(done, total_) * 100 / total_),
               note.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace statecached
