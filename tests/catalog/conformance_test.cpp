// What every Catalog must do, over the real one and its twin.

#include "tests/catalog/sample_rows.hpp"
#include "tiers/catalog/memory_catalog.hpp"
#include "tiers/catalog/rocks_catalog.hpp"

#include <gtest/gtest.h>

#include <map>

namespace statecached {
namespace {

using sample::domain_row;
using sample::labels;
using sample::namespace_row;
using sample::object_row;
using Labels = std::vector<std::string>;

class CatalogConformance : public testing::TestWithParam<bool> {
 protected:
  static constexpr std::size_t kQueue = 16;

  void SetUp() override {
    if (!GetParam()) {
      MemoryCatalogOptions options;
      options.queue = kQueue;
      catalog_ = std::make_unique<MemoryCatalog>(options);
      return;
    }
    RocksCatalogOptions options;
    options.queue = kQueue;
    options.waker = [this] { bell_.ring(); };
    auto opened = RocksCatalog::open(folder_.path() / "catalog", options);
    ASSERT_TRUE(opened) << opened.error().message();
    catalog_ = std::move(*opened);
  }

  /// Submits and waits for the report.
  CatalogDone write(CatalogBatch batch) {
    batch.tag = ++tag_;
    if (!catalog_->submit(batch)) return {0, false, "the queue is full"};
    std::vector<CatalogDone> done;
    if (!bell_.wait([&] { return catalog_->poll(done) > 0; })) return {0, false, "no report"};
    return done.size() == 1 && done[0].tag == tag_ ? done[0]
                                                   : CatalogDone{0, false, "not one report"};
  }

  void write_ok(CatalogBatch batch) {
    const CatalogDone done = write(std::move(batch));
    EXPECT_TRUE(done.ok) << done.error;
  }

  sample::TemporaryFolder folder_;
  sample::Bell bell_;
  std::uint64_t tag_ = 0;
  std::unique_ptr<Catalog> catalog_;
};

TEST_P(CatalogConformance, BeginsEmpty) {
  EXPECT_EQ(labels(*catalog_), Labels{});
}

TEST_P(CatalogConformance, LoadsHotNamespacesFirstAndParentsBeforeChildren) {
  CatalogBatch batch;
  batch.namespaces = {
      namespace_row(1, 10), namespace_row(300, 30), namespace_row(2, 20), namespace_row(5, 20)};
  batch.domains = {domain_row(2, 9), domain_row(2, 1), domain_row(300, 0)};
  batch.puts = {object_row(2, 3),
                object_row(2, 256),
                object_row(2, 255),
                object_row(300, 1),
                object_row(1, 4)};
  write_ok(std::move(batch));
  EXPECT_EQ(labels(*catalog_),
            (Labels{"N300",
                    "D300/0",
                    "N2",
                    "D2/1",
                    "D2/9",
                    "N5",
                    "N1",
                    "O300/1",
                    "O2/3",
                    "O2/255",
                    "O2/256",
                    "O1/4"}));
}

TEST_P(CatalogConformance, RowsComeBackWhole) {
  CatalogBatch batch;
  batch.namespaces = {namespace_row(1, 10)};
  for (ObjectNumber i = 1; i <= 40; ++i)
    batch.puts.push_back(object_row(1, i));
  write_ok(batch);
  auto rows = sample::load_all(*catalog_);
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 41U);
  EXPECT_EQ(sample::bytes_of((*rows)[0]), sample::bytes_of(batch.namespaces[0]));
  for (std::size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(sample::bytes_of((*rows)[i + 1]), sample::bytes_of(batch.puts[i]));
  }
}

TEST_P(CatalogConformance, PutsReplaceAndDeletesRemove) {
  CatalogBatch first;
  first.namespaces = {namespace_row(1, 10), namespace_row(2, 5)};
  first.puts = {object_row(1, 1), object_row(1, 2), object_row(2, 1)};
  write_ok(std::move(first));
  CatalogBatch second;
  second.namespaces = {namespace_row(2, 50)};
  second.puts = {object_row(1, 2, 777)};
  second.deletes = {{1, 1}, {1, 1000}};
  write_ok(std::move(second));
  EXPECT_EQ(labels(*catalog_), (Labels{"N2", "N1", "O2/1", "O1/2"}));
  auto rows = sample::load_all(*catalog_);
  ASSERT_TRUE(rows);
  EXPECT_EQ(sample::bytes_of(rows->back()), sample::bytes_of(object_row(1, 2, 777)));
  const CatalogStats stats = catalog_->stats();
  EXPECT_EQ(stats.batches, 2U);
  EXPECT_EQ(stats.rows_put, 7U);
  EXPECT_EQ(stats.rows_deleted, 2U);
  EXPECT_EQ(stats.rows_dropped, 0U);
  EXPECT_GT(stats.bytes, 4 * 256U);
}

TEST_P(CatalogConformance, ADroppedNamespaceLeavesItsNeighboursAlone) {
  CatalogBatch batch;
  for (const std::uint32_t ns : {1U, 2U, 3U, UINT32_MAX}) {
    batch.namespaces.push_back(namespace_row(ns, 100 - static_cast<std::int64_t>(ns % 10)));
    batch.domains.push_back(domain_row(ns, UINT32_MAX));
    batch.puts.push_back(object_row(ns, UINT64_MAX));
  }
  write_ok(std::move(batch));
  CatalogBatch drop;
  drop.drop_namespaces = {2, UINT32_MAX};
  write_ok(std::move(drop));
  const std::string domain = "/" + std::to_string(UINT32_MAX);
  const std::string object = "/" + std::to_string(UINT64_MAX);
  EXPECT_EQ(labels(*catalog_),
            (Labels{"N1", "D1" + domain, "N3", "D3" + domain, "O1" + object, "O3" + object}));
  CatalogBatch again;  // the number can be used anew
  again.namespaces = {namespace_row(2, 500)};
  again.puts = {object_row(2, 8)};
  write_ok(std::move(again));
  const Labels after = labels(*catalog_);
  EXPECT_EQ(
      after,
      (Labels{
          "N2", "N1", "D1" + domain, "N3", "D3" + domain, "O2/8", "O1" + object, "O3" + object}));
}

TEST_P(CatalogConformance, WithinABatchDeletesAndDropsComeLast) {
  CatalogBatch batch;
  batch.namespaces = {namespace_row(1), namespace_row(2)};
  batch.puts = {object_row(1, 1), object_row(1, 2), object_row(2, 1)};
  batch.deletes = {{1, 1}};
  batch.drop_namespaces = {2};
  write_ok(std::move(batch));
  EXPECT_EQ(labels(*catalog_), (Labels{"N1", "O1/2"}));
}

TEST_P(CatalogConformance, AFullQueueLeavesTheBatchUntouched) {
  std::size_t accepted = 0;
  CatalogBatch batch;
  while (true) {
    batch = CatalogBatch{};
    batch.tag = accepted + 1;
    batch.namespaces = {namespace_row(1)};
    batch.puts = {object_row(1, accepted + 1)};
    if (!catalog_->submit(batch)) break;
    ++accepted;
    ASSERT_LE(accepted, kQueue);  // nothing is polled, so nothing makes room
  }
  EXPECT_EQ(accepted, kQueue);
  EXPECT_EQ(batch.puts.size(), 1U);
  EXPECT_EQ(batch.namespaces.size(), 1U);
  std::vector<CatalogDone> done;
  ASSERT_TRUE(bell_.wait([&] { return catalog_->poll(done), done.size() == accepted; }));
  for (std::size_t i = 0; i < done.size(); ++i) {
    EXPECT_EQ(done[i].tag, i + 1);
    EXPECT_TRUE(done[i].ok) << done[i].error;
  }
  EXPECT_TRUE(catalog_->submit(batch));
  ASSERT_TRUE(bell_.wait([&] { return catalog_->poll(done) > 0; }));
  EXPECT_EQ(labels(*catalog_).size(), kQueue + 2);
}

TEST_P(CatalogConformance, ABatchThatCannotBeWrittenFailsAloneAndWhole) {
  for (std::uint64_t tag = 1; tag <= 3; ++tag) {
    CatalogBatch batch;
    batch.tag = tag;
    if (tag == 1) batch.namespaces = {namespace_row(1)};
    batch.puts = {object_row(1, 10 * tag), object_row(1, 10 * tag + 1)};
    if (tag == 2) batch.puts[1].extents[0].extent.bytes = 5;
    ASSERT_TRUE(catalog_->submit(batch));
  }
  std::vector<CatalogDone> done;
  ASSERT_TRUE(bell_.wait([&] { return catalog_->poll(done), done.size() == 3; }));
  EXPECT_TRUE(done[0].ok);
  EXPECT_FALSE(done[1].ok);
  EXPECT_NE(done[1].error.find("object 21"), std::string::npos) << done[1].error;
  EXPECT_TRUE(done[2].ok);
  EXPECT_EQ(labels(*catalog_), (Labels{"N1", "O1/10", "O1/11", "O1/30", "O1/31"}));
}

TEST_P(CatalogConformance, RowsWithoutTheirNamespaceAreDroppedOnce) {
  CatalogBatch batch;
  batch.namespaces = {namespace_row(5)};
  batch.domains = {domain_row(4, 1), domain_row(5, 1), domain_row(6, 1)};
  batch.puts = {object_row(0, 1), object_row(5, 1), object_row(UINT32_MAX, 3)};
  write_ok(std::move(batch));
  EXPECT_EQ(labels(*catalog_), (Labels{"N5", "D5/1", "O5/1"}));
  EXPECT_EQ(catalog_->stats().rows_dropped, 4U);
  EXPECT_EQ(labels(*catalog_), (Labels{"N5", "D5/1", "O5/1"}));
  EXPECT_EQ(catalog_->stats().rows_dropped, 4U);
}

// A model of what was reported, over many random batches with several in flight.
TEST_P(CatalogConformance, RandomBatchesMatchAModel) {
  Prng prng(GetParam() ? 5 : 6);
  std::map<std::uint32_t, std::map<ObjectNumber, std::uint64_t>> model;
  std::vector<CatalogDone> done;
  std::uint64_t submitted = 0;
  for (int round = 0; round < 400; ++round) {
    CatalogBatch batch;
    batch.tag = ++submitted;
    const auto ns = static_cast<std::uint32_t>(1 + prng.below(4));
    batch.namespaces = {namespace_row(ns, ns)};
    model[ns];
    for (std::uint64_t i = prng.below(8); i > 0; --i) {
      const ObjectNumber number = 1 + prng.below(60);
      const std::uint64_t seed = prng.next();
      batch.puts.push_back(object_row(ns, number, seed));
      model[ns][number] = seed;
    }
    for (std::uint64_t i = prng.below(6); i > 0; --i) {
      batch.deletes.push_back({ns, 1 + prng.below(60)});
      model[ns].erase(batch.deletes.back().number);
    }
    if (prng.chance(0.03)) {
      batch.drop_namespaces = {static_cast<std::uint32_t>(1 + prng.below(4))};
      model.erase(batch.drop_namespaces[0]);
    }
    ASSERT_TRUE(bell_.wait([&] { return catalog_->poll(done), submitted - done.size() < kQueue; }));
    ASSERT_TRUE(catalog_->submit(batch));
  }
  ASSERT_TRUE(bell_.wait([&] { return catalog_->poll(done), done.size() == submitted; }));
  for (std::size_t i = 0; i < done.size(); ++i) {
    ASSERT_EQ(done[i].tag, i + 1);
    ASSERT_TRUE(done[i].ok) << done[i].error;
  }
  Labels expected;
  std::vector<std::string> bytes;
  for (auto ns = model.rbegin(); ns != model.rend(); ++ns) {
    expected.push_back("N" + std::to_string(ns->first));
    bytes.push_back(sample::bytes_of(namespace_row(ns->first, ns->first)));
  }
  for (auto ns = model.rbegin(); ns != model.rend(); ++ns) {
    for (const auto& [number, seed] : ns->second) {
      expected.push_back("O" + std::to_string(ns->first) + "/" + std::to_string(number));
      bytes.push_back(sample::bytes_of(object_row(ns->first, number, seed)));
    }
  }
  EXPECT_EQ(labels(*catalog_), expected);
  auto rows = sample::load_all(*catalog_);
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), bytes.size());
  for (std::size_t i = 0; i < bytes.size(); ++i)
    EXPECT_EQ(sample::bytes_of((*rows)[i]), bytes[i]) << expected[i];
}

INSTANTIATE_TEST_SUITE_P(Both, CatalogConformance, testing::Bool(), [](const auto& which) {
  return which.param ? "Rocks" : "Memory";
});

}  // namespace
}  // namespace statecached
