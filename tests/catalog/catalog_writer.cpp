// catalog_writer FOLDER hold|write: opens the catalog, says "open" and then waits for the end of
// its input, or writes batch after batch and says the tag of each that was reported durable.

#include "tests/catalog/sample_rows.hpp"
#include "tiers/catalog/rocks_catalog.hpp"

#include <cstdio>
#include <string_view>

namespace {

using namespace statecached;

CatalogBatch batch_of(std::uint64_t tag) {
  CatalogBatch batch;
  batch.tag = tag;
  batch.namespaces = {sample::namespace_row(1, static_cast<std::int64_t>(tag))};
  for (ObjectNumber i = 3 * tag; i < 3 * tag + 3; ++i)
    batch.puts.push_back(sample::object_row(1, i));
  if (tag > 1) batch.deletes.push_back({1, 3 * (tag - 1)});
  return batch;
}

int write_until_killed(RocksCatalog& catalog, sample::Bell& bell) {
  std::uint64_t tag = 1;
  CatalogBatch next = batch_of(tag);
  std::vector<CatalogDone> done;
  while (true) {
    while (catalog.submit(next))
      next = batch_of(++tag);
    if (!bell.wait([&] { return catalog.poll(done) > 0; })) return 1;
    for (const CatalogDone& report : done) {
      if (!report.ok) return 1;
      // One system call a line: what was said before the kill is all there.
      const std::string line = std::to_string(report.tag) + "\n";
      if (::write(STDOUT_FILENO, line.data(), line.size()) < 0) return 1;
    }
    done.clear();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  sample::Bell bell;
  RocksCatalogOptions options;
  options.waker = [&] { bell.ring(); };
  options.write_buffer_bytes = 256 * kKiB;  // so that the kill also meets flushes and compactions
  auto catalog = RocksCatalog::open(argv[1], options);
  if (!catalog) {
    std::fprintf(stderr, "%s\n", catalog.error().message().c_str());
    return 1;
  }
  if (::write(STDOUT_FILENO, "open\n", 5) != 5) return 1;
  if (std::string_view(argv[2]) == "write") return write_until_killed(**catalog, bell);
  char byte = 0;
  while (::read(STDIN_FILENO, &byte, 1) > 0) {
  }
  return 0;
}
