// Programs outside the tree, built from an installed prefix: in C and in C++, by find_package and
// by pkg-config, run against the daemon of that prefix. The C++ program is the one in
// client/CONNECT.md, so that the guide is true.

#include "tests/support/daemon_process.hpp"

namespace {

using statecached::test::DaemonProcess;
using statecached::test::slurp;
namespace fs = std::filesystem;

const std::string kSource = STATECACHED_SOURCE_DIR;

class Installed : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string pattern = (fs::temp_directory_path() / "statecache-install-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    ASSERT_EQ(sh("cmake --install '" STATECACHED_BUILD_DIR "' --prefix '" + dir_ + "/prefix'"), 0)
        << output();
    // A prefix may be moved.
    fs::rename(dir_ + "/prefix", dir_ + "/moved");
    const std::string guide = slurp(kSource + "/client/CONNECT.md");
    const std::string opening = "```cpp\n";
    const std::size_t from = guide.find(opening);
    const std::size_t to = guide.find("```\n", from + opening.size());
    ASSERT_TRUE(from != std::string::npos && to != std::string::npos) << "the guide has no program";
    std::ofstream(dir_ + "/guide.cpp")
        << guide.substr(from + opening.size(), to - from - opening.size());
  }

  static void TearDownTestSuite() {
    std::error_code ignored;
    fs::remove_all(dir_, ignored);
  }

  static int sh(const std::string& command) {
    return std::system(("{ " + command + "; } >'" + dir_ + "/sh.log' 2>&1 </dev/null").c_str());
  }

  static std::string output() { return slurp(dir_ + "/sh.log"); }

  static std::string libraries() { return dir_ + "/moved/" STATECACHED_LIBDIR; }

  /// Runs it twice against a daemon of its own: the second run reuses what the first computed.
  static void run_twice(const std::string& program,
                        const std::string& first,
                        const std::string& second) {
    DaemonProcess daemon;
    ASSERT_TRUE(daemon.start()) << daemon.log();
    const std::string command =
        "LD_LIBRARY_PATH='" + libraries() + "' '" + program + "' '" + daemon.socket() + "'";
    ASSERT_EQ(sh(command), 0) << output();
    EXPECT_EQ(output(), first);
    ASSERT_EQ(sh(command), 0) << output();
    EXPECT_EQ(output(), second);
  }

  static inline std::string dir_;
};

constexpr const char* kGuideFirst = "reused 0 of 1000 tokens, bit-identical\n";
constexpr const char* kGuideSecond = "reused 999 of 1000 tokens, bit-identical\n";
constexpr const char* kCFirst = "reused 0 of 33 tokens\n";
constexpr const char* kCSecond = "reused 32 of 33 tokens\n";

TEST_F(Installed, EverythingIsWhereItBelongs) {
  for (const char* file : {"include/statecache/client.hpp",
                           "include/statecache/statecache.h",
                           "include/statecache/status.hpp",
                           "include/statecache/admin.hpp",
                           "bin/statecached",
                           "bin/statecachectl"}) {
    EXPECT_TRUE(fs::exists(dir_ + "/moved/" + file)) << file;
  }
  EXPECT_TRUE(fs::exists(libraries() + "/libstatecache.so.0"));
  EXPECT_TRUE(fs::exists(libraries() + "/pkgconfig/statecache.pc"));
  // Nothing of ours but the API is visible, and the public headers need nothing that is not
  // installed.
  ASSERT_EQ(sh("nm -DC --defined-only '" + libraries() +
               "/libstatecache.so.0' | grep -c 'statecached::'; true"),
            0);
  EXPECT_EQ(output(), "0\n");
}

TEST_F(Installed, FindPackage) {
  const std::string configure =
      "cmake -S '" + kSource + "/tests/install/project' -B '" + dir_ +
      "/build' -DCMAKE_PREFIX_PATH='" + dir_ + "/moved' -DCONSUMER_C='" + kSource +
      "/tests/install/consumer.c' -DCONSUMER_CPP='" + dir_ +
      "/guide.cpp' -DCMAKE_C_FLAGS='-Wall -Wextra -Werror " STATECACHED_FLAGS
      "' -DCMAKE_CXX_FLAGS='-Wall -Wextra -Werror " STATECACHED_FLAGS "'";
  ASSERT_EQ(sh(configure + " && cmake --build '" + dir_ + "/build'"), 0) << output();
  run_twice(dir_ + "/build/consumer_c", kCFirst, kCSecond);
  run_twice(dir_ + "/build/consumer_cpp", kGuideFirst, kGuideSecond);
}

TEST_F(Installed, PkgConfig) {
  const auto build =
      [](const std::string& compiler, const std::string& source, const std::string& to) {
        return sh("export PKG_CONFIG_PATH='" + libraries() + "/pkgconfig'; " + compiler +
                  " " STATECACHED_FLAGS " '" + source + "' -o '" + to +
                  "' $(pkg-config --cflags --libs statecache)");
      };
  ASSERT_EQ(build(STATECACHED_CC " -std=c99 -Wall -Wextra -Wpedantic -Werror",
                  kSource + "/tests/install/consumer.c",
                  dir_ + "/pc_c"),
            0)
      << output();
  ASSERT_EQ(build(STATECACHED_CXX " -std=c++20 -Wall -Wextra -Wpedantic -Wconversion -Werror",
                  dir_ + "/guide.cpp",
                  dir_ + "/pc_cpp"),
            0)
      << output();
  run_twice(dir_ + "/pc_c", kCFirst, kCSecond);
  run_twice(dir_ + "/pc_cpp", kGuideFirst, kGuideSecond);
}

}  // namespace
