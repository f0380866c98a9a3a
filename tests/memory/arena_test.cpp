// What a client that holds an arena's descriptor can and cannot do, and both kinds of pages.

#include "tiers/host/arena.hpp"

#include "base/log.hpp"
#include "base/units.hpp"
#include "tiers/device/device.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace statecached {
namespace {

Arena make(std::uint64_t bytes, HugePages huge_pages) {
  auto arena = Arena::create({.bytes = bytes, .huge_pages = huge_pages, .name = "arena-test"});
  if (!arena) {
    ADD_FAILURE() << arena.error().message();
    std::abort();
  }
  return std::move(*arena);
}

void* map(int fd, std::uint64_t bytes, int protection) {
  return ::mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
}

void expect_usable(const Arena& arena) {
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena.data()) % Arena::kHugePage, 0U);
  std::memset(arena.data(), 0x5a, arena.bytes());
  const auto fd = arena.read_only_fd();
  ASSERT_TRUE(fd.has_value());
  const Mapping other(map(fd->get(), arena.bytes(), PROT_READ), arena.bytes());
  ASSERT_NE(other.data(), MAP_FAILED);
  EXPECT_EQ(std::memcmp(other.data(), arena.data(), arena.bytes()), 0);
}

TEST(Arena, SmallPagesWhenForced) {
  const Arena arena = make(5 * kMiB, HugePages::off);
  EXPECT_EQ(arena.bytes(), 6 * kMiB);
  ASSERT_NO_FATAL_FAILURE(expect_usable(arena));
  EXPECT_EQ(arena.huge_share(), 0.0);
}

TEST(Arena, LargePagesWhereTheKernelGivesThem) {
  const auto demanded = Arena::create({.bytes = 70 * kMiB, .huge_pages = HugePages::on});
  const Arena arena = make(70 * kMiB, HugePages::automatic);
  ASSERT_NO_FATAL_FAILURE(expect_usable(arena));
  if (!demanded) {
    EXPECT_EQ(demanded.error().code, Errc::unsupported);
    EXPECT_LT(arena.huge_share(), 1.0);
    GTEST_SKIP() << "no 2 MiB pages here: " << demanded.error().message();
  }
  EXPECT_EQ(demanded->huge_share(), 1.0);
  EXPECT_EQ(arena.huge_share(), 1.0);
}

TEST(Arena, SealsHold) {
  const Arena arena = make(2 * kMiB, HugePages::off);
  const auto fd = arena.writable_fd();
  ASSERT_TRUE(fd.has_value());
  EXPECT_NE(::ftruncate(fd->get(), 0), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(::ftruncate(fd->get(), static_cast<off_t>(4 * kMiB)), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(::fcntl(fd->get(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  EXPECT_EQ(errno, EPERM);

  struct stat status {};

  ASSERT_EQ(::fstat(fd->get(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
  EXPECT_EQ(status.st_size, static_cast<off_t>(2 * kMiB));
}

TEST(Arena, ReadersCannotWriteAndWritersCan) {
  const Arena arena = make(2 * kMiB, HugePages::off);
  const auto reader = arena.read_only_fd();
  ASSERT_TRUE(reader.has_value());
  EXPECT_EQ(map(reader->get(), kPage, PROT_READ | PROT_WRITE), MAP_FAILED);
  EXPECT_EQ(errno, EACCES);
  const char byte = 'x';
  EXPECT_EQ(::pwrite(reader->get(), &byte, 1, 0), -1);
  const Mapping view(map(reader->get(), arena.bytes(), PROT_READ), arena.bytes());
  ASSERT_NE(view.data(), MAP_FAILED);
  EXPECT_NE(::mprotect(view.data(), view.size(), PROT_READ | PROT_WRITE), 0);

  const auto writer = arena.writable_fd();
  ASSERT_TRUE(writer.has_value());
  const Mapping writable(map(writer->get(), arena.bytes(), PROT_READ | PROT_WRITE), arena.bytes());
  ASSERT_NE(writable.data(), MAP_FAILED);
  writable.data()[12345] = std::byte{42};
  EXPECT_EQ(arena.data()[12345], std::byte{42});
  EXPECT_EQ(view.data()[12345], std::byte{42});
}

TEST(Arena, RefusesSizesThatCannotBe) {
  const auto none = Arena::create({.bytes = 0});
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, Errc::invalid_argument);
  EXPECT_FALSE(Arena::create({.bytes = ~std::uint64_t{0}}).has_value());
  EXPECT_FALSE(Arena::create({.bytes = std::uint64_t{1} << 60U}).has_value());
}

TEST(Device, BackendsByName) {
  EXPECT_EQ(device_backend("none").value(), DeviceBackend::none);
  EXPECT_EQ(device_backend("auto").value(), DeviceBackend::none);
  EXPECT_EQ(device_backend("emulated").value(), DeviceBackend::emulated);
  EXPECT_EQ(to_string(DeviceBackend::emulated), "emulated");
  const auto cuda = device_backend("cuda");
  ASSERT_FALSE(cuda.has_value());
  EXPECT_EQ(cuda.error().code, Errc::unsupported);
  EXPECT_NE(cuda.error().text.find("emulated"), std::string::npos);
  EXPECT_EQ(device_backend("rocm").error().code, Errc::invalid_argument);
}

TEST(Device, EmulationIsSharedMemory) {
  const auto device = EmulatedDevice::create(3 * kMiB, HugePages::off);
  ASSERT_TRUE(device.has_value());
  EXPECT_EQ(device->bytes(), 4 * kMiB);
  device->data()[7] = std::byte{9};
  const auto fd = device->read_only_fd();
  ASSERT_TRUE(fd.has_value());
  const Mapping view(map(fd->get(), device->bytes(), PROT_READ), device->bytes());
  ASSERT_NE(view.data(), MAP_FAILED);
  EXPECT_EQ(view.data()[7], std::byte{9});
  EXPECT_EQ(map(fd->get(), kPage, PROT_READ | PROT_WRITE), MAP_FAILED);
  EXPECT_TRUE(device->writable_fd().has_value());
}

}  // namespace
}  // namespace statecached
