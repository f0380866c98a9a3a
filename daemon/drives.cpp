#include "daemon/drives.hpp"

#include "base/log.hpp"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <thread>

namespace statecached {
namespace {

class GoneDisk final : public Disk {
 public:
  [[nodiscard]] std::uint64_t capacity() const noexcept override { return 0; }

  [[nodiscard]] bool submit(DiskOp& op) override {
    failed_.push_back({op.tag, ENODEV, Nanos{0}});
    return true;
  }

  std::size_t poll(std::vector<DiskDone>& out) override {
    const std::size_t count = failed_.size();
    out.insert(out.end(), failed_.begin(), failed_.end());
    failed_.clear();
    return count;
  }

  [[nodiscard]] DiskStats stats() const override { return {}; }

  [[nodiscard]] const char* engine() const noexcept override { return "gone"; }

 private:
  std::vector<DiskDone> failed_;
};

}  // namespace

DriveNumbers number_drives(const std::vector<std::string>& recorded,
                           const std::vector<std::string>& present) {
  DriveNumbers out;
  std::vector<bool> placed(present.size(), false);
  for (const std::string& uuid : recorded) {
    const auto at = std::ranges::find(present, uuid);
    const bool there = at != present.end();
    const auto index = static_cast<std::size_t>(at - present.begin());
    if (there) placed[index] = true;
    if (!there) out.changed.insert(static_cast<std::uint16_t>(out.drives.size()));
    out.drives.push_back(there ? index : kGone);
    out.uuids.push_back(uuid);
  }
  for (std::size_t i = 0; i < present.size(); ++i) {
    if (placed[i]) continue;
    auto hole = std::ranges::find(out.drives, kGone);
    if (hole == out.drives.end()) {
      out.drives.push_back(i);
      out.uuids.push_back(present[i]);
      continue;
    }
    *hole = i;
    out.uuids[static_cast<std::size_t>(hole - out.drives.begin())] = present[i];
  }
  while (!out.drives.empty() && out.drives.back() == kGone) {
    out.drives.pop_back();
    out.uuids.pop_back();
  }
  return out;
}

std::unique_ptr<Disk> make_gone_disk() {
  return std::make_unique<GoneDisk>();
}

bool NumberedCatalog::lost(const CatalogRow& row) {
  const auto* object = std::get_if<ObjectRow>(&row);
  if (object == nullptr) return false;
  const bool lost = std::ranges::any_of(object->extents, [&](const DiskExtent& extent) {
    return extent.path >= numbers_.drives.size() || numbers_.changed.contains(extent.path);
  });
  if (lost) gone_.push_back({object->ns, object->number});
  return lost;
}

/// The rows have all been seen: what is gone is deleted before its number may name another drive.
Result<> NumberedCatalog::settle() {
  if (!gone_.empty()) {
    log::warn("{} stored objects lay on drives that are not there any more; they are forgotten",
              gone_.size());
    SC_TRY(remove(std::move(gone_)));
    gone_.clear();
  }
  return inner_.record_paths(numbers_.uuids);
}

Result<bool> NumberedCatalog::load_some(std::size_t most,
                                        const std::function<void(CatalogRow&&)>& row) {
  SC_ASSIGN(const bool last, inner_.load_some(most, [&](CatalogRow&& next) {
    if (!lost(next)) row(std::move(next));
  }));
  if (last) SC_TRY(settle());
  return last;
}

Result<> NumberedCatalog::remove(std::vector<ObjectKey> keys) {
  CatalogBatch batch;  // tag 0: the cache's begin at 1
  batch.deletes = std::move(keys);
  bool submitted = inner_.submit(batch);
  while (true) {
    std::vector<CatalogDone> done;
    // Once, at start, and only after drives have changed: for some milliseconds nobody is served.
    if (inner_.poll(done) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::optional<CatalogDone> ours;
    for (CatalogDone& each : done) {
      if (each.tag == 0) {
        ours = std::move(each);
      } else {
        kept_.push_back(std::move(each));  // the cache's, for its next poll
      }
    }
    if (!submitted) submitted = inner_.submit(batch);
    if (!ours) continue;
    if (ours->ok) return {};
    return fail(Errc::io, fmt::format("deleting rows of drives that are gone: {}", ours->error));
  }
}

std::size_t NumberedCatalog::poll(std::vector<CatalogDone>& out) {
  const std::size_t count = kept_.size();
  for (CatalogDone& done : kept_)
    out.push_back(std::move(done));
  kept_.clear();
  return count + inner_.poll(out);
}

}  // namespace statecached
