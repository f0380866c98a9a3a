#include "tiers/nvme/bare_ring.hpp"

#include <liburing.h>

#include <cerrno>
#include <optional>

namespace statecached {
namespace {

class Ring final : public BareRing {
 public:
  Ring(std::span<std::byte> buffer, unsigned depth) : buffer_(buffer), depth_(depth) {}

  ~Ring() override {
    if (open_) ::io_uring_queue_exit(&ring_);
  }

  Result<> prepare(int fd) {
    constexpr unsigned kPlain = IORING_SETUP_CLAMP;
    constexpr unsigned kDeferred =
        kPlain | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    int rc = ::io_uring_queue_init(depth_ + 1, &ring_, kDeferred);
    if (rc == -EINVAL) rc = ::io_uring_queue_init(depth_ + 1, &ring_, kPlain);
    if (rc != 0) return fail_errno("this system refuses io_uring", -rc);
    open_ = true;
    static_cast<void>(::io_uring_register_ring_fd(&ring_));
    rc = ::io_uring_register_files(&ring_, &fd, 1);
    if (rc != 0) return fail_errno("registering a file with io_uring", -rc);
    const iovec all{buffer_.data(), buffer_.size()};
    registered_ = ::io_uring_register_buffers(&ring_, &all, 1) == 0;
    return {};
  }

  Result<> run(DiskKind kind,
               std::span<const std::uint64_t> offsets,
               std::uint64_t block) override {
    const std::uint64_t slots = buffer_.size() / block;
    SC_ASSERT(slots >= depth_ && block <= UINT32_MAX);
    std::size_t next = 0;
    std::size_t done = 0;
    while (done < offsets.size()) {
      while (next < offsets.size() && next - done < depth_) {
        prepare_transfer(kind, buffer_.data() + next % slots * block, block, offsets[next]);
        ++next;
      }
      const int rc = ::io_uring_submit_and_wait(&ring_, 1);
      if (rc < 0 && rc != -EINTR) return fail_errno("submitting to io_uring", -rc);
      SC_ASSIGN(const std::size_t ended, reap(static_cast<std::int64_t>(block)));
      done += ended;
    }
    if (kind != DiskKind::write) return {};
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
    ::io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
    ::io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    std::size_t synced = 0;
    while (synced == 0) {
      const int rc = ::io_uring_submit_and_wait(&ring_, 1);
      if (rc < 0 && rc != -EINTR) return fail_errno("submitting to io_uring", -rc);
      SC_ASSIGN(synced, reap(0));
    }
    return {};
  }

 private:
  void prepare_transfer(DiskKind kind, std::byte* at, std::uint64_t block, std::uint64_t offset) {
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
    SC_ASSERT(sqe != nullptr);
    const auto length = static_cast<unsigned>(block);
    const bool read = kind == DiskKind::read;
    if (registered_ && read) {
      ::io_uring_prep_read_fixed(sqe, 0, at, length, offset, 0);
    } else if (registered_) {
      ::io_uring_prep_write_fixed(sqe, 0, at, length, offset, 0);
    } else if (read) {
      ::io_uring_prep_read(sqe, 0, at, length, offset);
    } else {
      ::io_uring_prep_write(sqe, 0, at, length, offset);
    }
    ::io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  }

  Result<std::size_t> reap(std::int64_t expected) {
    std::size_t count = 0;
    io_uring_cqe* cqe = nullptr;
    while (::io_uring_peek_cqe(&ring_, &cqe) == 0) {
      const int result = cqe->res;
      ::io_uring_cqe_seen(&ring_, cqe);
      if (result != expected) {
        return fail_errno("a bare transfer failed or came up short", result < 0 ? -result : EIO);
      }
      ++count;
    }
    return count;
  }

  const std::span<std::byte> buffer_;
  const unsigned depth_;
  io_uring ring_{};
  bool open_ = false;
  bool registered_ = false;
};

}  // namespace

Result<std::unique_ptr<BareRing>> BareRing::open(int fd,
                                                 std::span<std::byte> buffer,
                                                 unsigned depth) {
  auto ring = std::make_unique<Ring>(buffer, depth);
  SC_TRY(ring->prepare(fd));
  return std::unique_ptr<BareRing>(std::move(ring));
}

}  // namespace statecached
