#pragma once
// A statecached of one's own: a process in a temporary folder that goes with the object. One
// thread. Needs STATECACHED_BIN_DIR (statecached_test defines it).

#include "base/unique_fd.hpp"
#include "client/wire/socket.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace statecached::test {

struct ProgramResult {
  int code = -1;  ///< exit code; 128 + signal when killed
  std::string out;
  std::string err;
};

inline std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The number behind the first "key": in a JSON text; -1 when there is none.
inline double number_of(const std::string& json, const std::string& key) {
  std::string quoted = "\"";
  quoted += key;
  quoted += "\":";
  const std::size_t at = json.find(quoted);
  return at == std::string::npos ? -1 : std::strtod(json.c_str() + at + quoted.size(), nullptr);
}

/// Bytes that a process has had written to drives, by the kernel's accounts; -1 when it keeps none.
inline std::int64_t written_by(pid_t pid) {
  const std::string io = slurp("/proc/" + std::to_string(pid) + "/io");
  const std::size_t at = io.find("\nwrite_bytes: ");
  return at == std::string::npos ? -1 : std::strtoll(io.c_str() + at + 14, nullptr, 10);
}

inline int exit_code(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Starts a program of ours with its output in files. The child dies with this process.
inline pid_t spawn(const std::string& program,
                   const std::vector<std::string>& arguments,
                   const std::string& out,
                   const std::string& err,
                   const std::function<void()>& prepare = {}) {
  const std::string path = std::string(STATECACHED_BIN_DIR) + "/" + program;
  std::vector<char*> argv{const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments)
    argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto redirect = [](const std::string& to, int as) {
    const int fd = ::open(to.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || ::dup2(fd, as) < 0) ::_exit(126);
  };
  redirect(out, STDOUT_FILENO);
  redirect(err, STDERR_FILENO);
  if (prepare) prepare();
  ::execv(path.c_str(), argv.data());
  ::_exit(127);
}

class DaemonProcess {
 public:
  /// `settings` are "key=value"; small tiers unless they say otherwise.
  explicit DaemonProcess(std::vector<std::string> settings = {}) : settings_(std::move(settings)) {
    std::string pattern = (std::filesystem::temp_directory_path() / "statecached-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    dir_ = pattern;
  }

  ~DaemonProcess() {
    kill9();
    // The daemon's own findings: its standard error is not ours.
    const std::string text = log();
    if (text.find("Sanitizer") != std::string::npos ||
        text.find("assertion failed") != std::string::npos)
      ADD_FAILURE() << text;
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

  /// Arguments of the daemon before its settings.
  std::vector<std::string> more;
  /// Called in the child before the daemon's program takes over.
  std::function<void()> prepare;

  [[nodiscard]] const std::string& dir() const { return dir_; }

  [[nodiscard]] std::string socket() const { return dir_ + "/run/control.sock"; }

  [[nodiscard]] std::string log() const { return slurp(dir_ + "/log"); }

  [[nodiscard]] pid_t pid() const { return pid_; }

  [[nodiscard]] bool running() const { return pid_ > 0; }

  void set(std::vector<std::string> settings) { settings_ = std::move(settings); }

  [[nodiscard]] std::vector<std::string> arguments() const {
    std::vector<std::string> out = more;
    const auto add = [&out](const std::string& setting) {
      out.push_back("--set");
      out.push_back(setting);
    };
    add("paths.state_dir=" + dir_ + "/state");
    add("paths.runtime_dir=" + dir_ + "/run");
    add("host.capacity=64MiB");
    add("nvme.capacity=256MiB");
    for (const std::string& setting : settings_)
      add(setting);
    return out;
  }

  /// True once it takes connections. False: it ended instead, see log(), or did neither in a
  /// minute.
  [[nodiscard]] bool start() {
    pid_ = spawn("statecached", arguments(), dir_ + "/out", dir_ + "/log", prepare);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (std::chrono::steady_clock::now() < deadline) {
      if (wire::connect_unix(socket())) return true;
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        return false;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  void kill9() {
    if (pid_ > 0) end(SIGKILL);
  }

  /// SIGTERM; its exit code.
  int stop() { return end(SIGTERM); }

  /// statecachectl on this daemon.
  [[nodiscard]] ProgramResult ctl(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"--socket", socket()});
    return run("statecachectl", arguments);
  }

  /// Any program of ours, to its end.
  [[nodiscard]] ProgramResult run(const std::string& program,
                                  const std::vector<std::string>& arguments) const {
    const std::string out = dir_ + "/run.out";
    const std::string err = dir_ + "/run.err";
    std::filesystem::remove(out);
    std::filesystem::remove(err);
    const pid_t pid = spawn(program, arguments, out, err);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return {exit_code(status), slurp(out), slurp(err)};
  }

 private:
  int end(int signal) {
    if (pid_ <= 0) return -1;
    ::kill(pid_, signal);
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return exit_code(status);
  }

  std::vector<std::string> settings_;
  std::string dir_;
  pid_t pid_ = -1;
};

}  // namespace statecached::test
