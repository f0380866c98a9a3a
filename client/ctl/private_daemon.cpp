#include "client/ctl/private_daemon.hpp"

#include "client/wire/socket.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

namespace statecached::ctl {

PrivateDaemon::~PrivateDaemon() {
  child_ = {};  // before what it writes into goes
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

std::string PrivateDaemon::last_words() const {
  std::ifstream file(folder_ + "/log");
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  while (!text.empty() && text.back() == '\n')
    text.pop_back();
  const std::size_t line = text.rfind('\n');
  return line == std::string::npos ? text : text.substr(line + 1);
}

Result<> PrivateDaemon::start(const std::string& folder, const std::vector<std::string>& settings) {
  std::error_code error;
  const auto program =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "statecached";
  const std::filesystem::path root =
      folder.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(folder);
  std::string pattern = (root / "statecached-bench-XXXXXX").string();
  if (error || ::mkdtemp(pattern.data()) == nullptr)
    return fail_errno(fmt::format("making a folder in {}", root.string()));
  folder_ = pattern;
  std::vector<std::string> words{program.string()};
  const auto add = [&words](const std::string& setting) {
    words.emplace_back("--set");
    words.push_back(setting);
  };
  add("paths.runtime_dir=" + folder_);
  add("paths.state_dir=" + folder_ + "/state");
  add("log.level=warn");
  for (const std::string& setting : settings)
    add(setting);
  std::vector<char*> argv;
  for (std::string& word : words)
    argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string log = folder_ + "/log";
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno("starting a private daemon");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || ::dup2(fd, STDERR_FILENO) < 0) ::_exit(126);
    ::execv(argv.front(), argv.data());
    ::_exit(127);
  }
  child_ = Child(pid);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!wire::connect_unix(socket())) {
    if (child_.ended())
      return fail(Errc::io, fmt::format("{} did not start: {}", program.string(), last_words()));
    if (std::chrono::steady_clock::now() > deadline)
      return fail(Errc::timeout, "the private daemon takes no connection");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return {};
}

}  // namespace statecached::ctl
