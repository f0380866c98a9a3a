#include "client/ctl/bench_support.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

namespace statecached::ctl {

double micros_since(SteadyClock::time_point start) {
  return std::chrono::duration<double, std::micro>(SteadyClock::now() - start).count();
}

double quantile(Samples samples, double q) {
  if (samples.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(samples.size() - 1));
  std::ranges::nth_element(samples, samples.begin() + at);
  return samples[static_cast<std::size_t>(at)];
}

tl::unexpected<Error> from(const statecache::Status& status) {
  return fail(static_cast<Errc>(status.code), status.text);
}

TwoCores two_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  TwoCores out;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return out;
  int found = 0;
  for (int core = 0; core < CPU_SETSIZE && found < 2; ++core) {
    if (!CPU_ISSET(static_cast<unsigned>(core), &set)) continue;
    (found == 0 ? out.ours : out.theirs) = core;
    ++found;
  }
  if (found == 1) out.theirs = out.ours;
  return out;
}

void pin(pid_t process, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(core), &set);
  if (process == 0) {
    ::sched_setaffinity(0, sizeof set, &set);
    return;
  }
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/task", process), error)) {
    const std::string name = entry.path().filename().string();
    pid_t thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    if (thread > 0) ::sched_setaffinity(thread, sizeof set, &set);
  }
}

Child::Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

Child& Child::operator=(Child&& other) noexcept {
  std::swap(pid_, other.pid_);
  return *this;
}

Child::~Child() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

bool Child::ended() {
  if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
  return pid_ < 0;
}

double cpu_seconds(pid_t process) {
  // Fields 14 and 15 of stat(5), counted behind the program's name in parentheses.
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i)
    fields >> skipped;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace statecached::ctl
