// The rules of the house that a compiler does not see: who may include whom, where the heavy
// headers stay, and what has no business in the tree.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct File {
  std::string path;  ///< from the root of the repository, with /
  std::string text;
};

/// Everything that belongs to the repository: not what tools make, not what begins with a dot.
std::vector<File> tree() {
  std::vector<File> files;
  const fs::path root(STATECACHED_SOURCE_DIR);
  for (auto it = fs::recursive_directory_iterator(root); it != fs::recursive_directory_iterator();
       ++it) {
    const std::string name = it->path().filename().string();
    if (it->is_directory() && (name.starts_with(".") || name.starts_with("build"))) {
      if (name != ".ci") it.disable_recursion_pending();
      continue;
    }
    if (!it->is_regular_file() || name.starts_with(".")) continue;
    std::ifstream file(it->path(), std::ios::binary);
    files.push_back({fs::relative(it->path(), root).generic_string(),
                     std::string(std::istreambuf_iterator<char>(file), {})});
  }
  std::sort(
      files.begin(), files.end(), [](const File& a, const File& b) { return a.path < b.path; });
  return files;
}

bool is_code(const std::string& path) {
  static constexpr std::array<std::string_view, 5> kEndings{".cpp", ".hpp", ".h", ".cu", ".cuh"};
  return std::any_of(
      kEndings.begin(), kEndings.end(), [&](std::string_view e) { return path.ends_with(e); });
}

bool under(std::string_view path, std::string_view folder) {
  return path.starts_with(folder);
}

/// "<name>" or "\"name\"" of every include line, with its line number.
std::vector<std::pair<std::size_t, std::string>> includes(const File& file) {
  std::vector<std::pair<std::size_t, std::string>> found;
  std::istringstream lines(file.text);
  std::string line;
  for (std::size_t number = 1; std::getline(lines, line); ++number) {
    if (!line.starts_with("#include ")) continue;
    const std::size_t end = line.find_last_of(">\"");
    if (end > 9 && end != std::string::npos)
      found.emplace_back(number, line.substr(9, end - 9 + 1));
  }
  return found;
}

/// What each room may include of ours; its own folder always. Longest folder first.
struct Rule {
  std::string_view folder;
  std::vector<std::string_view> may;
};

const std::vector<Rule>& rules() {
  static const std::vector<Rule> kRules{
      {"client/include/", {}},
      {"client/wire/", {"base/"}},
      {"client/src/", {"base/", "kernels/", "client/wire/", "client/include/"}},
      {"client/workload/", {"base/", "kernels/", "client/wire/"}},
      {"client/", {"base/", "kernels/", "client/wire/", "client/include/", "client/workload/"}},
      {"base/", {}},
      {"config/", {"base/"}},
      {"policy/", {"base/"}},
      {"kernels/", {"base/"}},
      {"tiers/", {"base/", "kernels/"}},
  };
  return kRules;
}

const std::vector<File>& files() {
  static const std::vector<File> kFiles = tree();
  return kFiles;
}

TEST(Tidy, IncludesGoDownOnly) {
  static const std::set<std::string_view> kRooms{
      "base", "config", "policy", "kernels", "tiers", "client", "daemon", "tests"};
  std::size_t seen = 0;
  for (const File& file : files()) {
    if (!is_code(file.path)) continue;
    const auto rule = std::find_if(
        rules().begin(), rules().end(), [&](const Rule& r) { return under(file.path, r.folder); });
    if (rule == rules().end()) continue;  // daemon and tests: all
    for (const auto& [line, name] : includes(file)) {
      const std::string target = name.substr(1, name.size() - 2);
      const std::string_view room = std::string_view(target).substr(0, target.find('/'));
      if (name.front() != '"' || !kRooms.contains(room)) continue;
      ++seen;
      const bool allowed = under(target, rule->folder) ||
                           std::any_of(rule->may.begin(), rule->may.end(), [&](std::string_view f) {
                             return under(target, f);
                           });
      EXPECT_TRUE(allowed) << file.path << ":" << line << " may not include " << target;
    }
  }
  EXPECT_GT(seen, 50U) << "the check found hardly any includes: it no longer reads the tree";
}

TEST(Tidy, HeavyHeadersStayInTheirPlace) {
  struct Heavy {
    std::string_view header;
    std::vector<std::string_view> places;
  };

  const std::vector<Heavy> heavy{
      {"liburing", {"tiers/nvme/"}},
      {"rocksdb/", {"tiers/catalog/"}},
      {"boost/asio", {"daemon/control/"}},
      {"toml++/", {"config/"}},
      {"spdlog/", {"daemon/log_sink"}},
      {"cuda", {"kernels/", "tiers/device/"}},
      {"flatbuffers/", {"client/wire/", "client/src/", "daemon/control/"}},
  };
  for (const File& file : files()) {
    if (!is_code(file.path) || under(file.path, "tests/")) continue;
    for (const auto& [line, name] : includes(file)) {
      for (const Heavy& rule : heavy) {
        if (!std::string_view(name).substr(1).starts_with(rule.header)) continue;
        const bool placed = std::any_of(rule.places.begin(),
                                        rule.places.end(),
                                        [&](std::string_view p) { return under(file.path, p); });
        EXPECT_TRUE(placed) << file.path << ":" << line << " includes " << name;
      }
      if (file.path.ends_with(".hpp")) {
        EXPECT_EQ(name.find("nlohmann"), std::string::npos)
            << file.path << ":" << line << ": JSON belongs into a .cpp";
        EXPECT_EQ(name.find("CLI/"), std::string::npos)
            << file.path << ":" << line << ": CLI11 belongs into a .cpp";
      }
    }
  }
}

TEST(Tidy, EveryRoomSaysWhatItIs) {
  std::set<std::string> have;
  std::set<std::string> rooms;
  for (const File& file : files()) {
    have.insert(file.path);
    const std::string name = fs::path(file.path).filename().string();
    const std::size_t first = file.path.find('/');
    if (name != "CMakeLists.txt" || first == std::string::npos) continue;
    rooms.insert(file.path.substr(0, first));
  }
  EXPECT_GE(rooms.size(), 8U);
  for (const std::string& room : rooms)
    EXPECT_TRUE(have.contains(room + "/README.md")) << room << "/README.md is missing";
  for (const char* file :
       {"README.md", "CHANGELOG.md", "LICENSE", "check", "quickstart", ".ci/run"}) {
    EXPECT_TRUE(have.contains(file)) << file << " is missing";
  }
}

TEST(Tidy, NothingIsLeftLyingAbout) {
  // Put together here, so that this file does not find itself.
  const std::vector<std::string> words{std::string("TO") + "DO",
                                       std::string("FIX") + "ME",
                                       std::string("/wo") + "rk/",
                                       std::string("not impl") + "emented"};
  for (const File& file : files()) {
    if (file.path == "LICENSE") continue;
    for (const std::string& word : words) {
      const std::size_t at = file.text.find(word);
      const auto lines = std::count(
          file.text.begin(),
          file.text.begin() + static_cast<std::ptrdiff_t>(std::min(at, file.text.size())),
          '\n');
      EXPECT_EQ(at, std::string::npos) << file.path << ":" << lines + 1 << " contains " << word;
    }
  }
}

TEST(Tidy, FilesStayReadable) {
  constexpr std::ptrdiff_t kLinesMax = 900;
  constexpr std::size_t kColumns = 100;
  std::size_t code = 0;
  for (const File& file : files()) {
    if (!is_code(file.path)) continue;
    ++code;
    const auto lines = std::count(file.text.begin(), file.text.end(), '\n');
    EXPECT_LE(lines, kLinesMax) << file.path << ": is there a seam to split it at?";
    std::size_t widest = 0;
    for (std::size_t at = 0, end = 0; end != std::string::npos; at = end + 1) {
      end = file.text.find('\n', at);
      widest = std::max(widest, std::min(end, file.text.size()) - at);
    }
    EXPECT_LE(widest, kColumns) << file.path << ": clang-format mends code; wrap comments by hand";
    if (file.path.ends_with(".hpp")) {
      EXPECT_NE(file.text.find("#pragma once"), std::string::npos) << file.path;
    }
  }
  EXPECT_GT(code, 50U);
}

}  // namespace
