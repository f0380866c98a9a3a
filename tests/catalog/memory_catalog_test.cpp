#include "tiers/catalog/memory_catalog.hpp"

#include "tests/catalog/sample_rows.hpp"

#include <gtest/gtest.h>

namespace statecached {
namespace {

using sample::labels;
using sample::namespace_row;
using sample::object_row;
using Labels = std::vector<std::string>;

CatalogBatch batch_of(ObjectNumber number) {
  CatalogBatch batch;
  batch.tag = number;
  batch.namespaces = {namespace_row(1)};
  batch.puts = {object_row(1, number)};
  return batch;
}

void submit(MemoryCatalog& catalog, ObjectNumber number) {
  CatalogBatch batch = batch_of(number);
  ASSERT_TRUE(catalog.submit(batch));
}

TEST(MemoryCatalog, ManualSyncDecidesWhatIsDurable) {
  MemoryCatalogOptions options;
  options.manual_sync = true;
  MemoryCatalog catalog(options);
  std::vector<CatalogDone> done;
  for (ObjectNumber i = 1; i <= 4; ++i)
    submit(catalog, i);
  EXPECT_EQ(catalog.poll(done), 0U);
  EXPECT_EQ(labels(catalog), Labels{});
  EXPECT_EQ(catalog.sync(2), 2U);
  EXPECT_EQ(catalog.pending(), 2U);
  EXPECT_EQ(catalog.poll(done), 2U);
  EXPECT_EQ(labels(catalog), (Labels{"N1", "O1/1", "O1/2"}));
  EXPECT_EQ(catalog.sync(), 2U);
  EXPECT_EQ(catalog.sync(), 0U);
  EXPECT_EQ(catalog.poll(done), 2U);
  EXPECT_EQ(done.back().tag, 4U);
}

TEST(MemoryCatalog, ACrashLosesWhatWasNotDurableAndEveryReport) {
  MemoryCatalogOptions options;
  options.manual_sync = true;
  MemoryCatalog catalog(options);
  for (ObjectNumber i = 1; i <= 4; ++i)
    submit(catalog, i);
  catalog.sync(3);
  catalog.crash();
  std::vector<CatalogDone> done;
  catalog.sync();
  EXPECT_EQ(catalog.poll(done), 0U);
  EXPECT_EQ(labels(catalog), (Labels{"N1", "O1/1", "O1/2", "O1/3"}));
}

TEST(MemoryCatalog, WithoutManualSyncPollMakesDurable) {
  MemoryCatalog catalog;
  std::vector<CatalogDone> done;
  submit(catalog, 1);
  EXPECT_EQ(catalog.pending(), 1U);
  EXPECT_EQ(catalog.poll(done), 1U);
  submit(catalog, 2);
  catalog.crash();
  EXPECT_EQ(labels(catalog), (Labels{"N1", "O1/1"}));
}

TEST(MemoryCatalog, FailuresChangeNothingAndFollowTheSeed) {
  const auto outcomes = [](std::uint64_t seed) {
    MemoryCatalogOptions options;
    options.fail_chance = 0.5;
    options.seed = seed;
    MemoryCatalog catalog(options);
    std::vector<CatalogDone> done;
    Labels stored{"N1"};
    std::string result;
    for (ObjectNumber i = 1; i <= 64; ++i) {
      submit(catalog, i);
      catalog.poll(done);
      result += done.back().ok ? '.' : 'x';
      if (done.back().ok) stored.push_back("O1/" + std::to_string(i));
      EXPECT_EQ(done.back().ok, done.back().error.empty());
    }
    EXPECT_EQ(labels(catalog), stored);
    EXPECT_EQ(catalog.stats().batches, stored.size() - 1);
    return result;
  };
  EXPECT_EQ(outcomes(1), outcomes(1));
  EXPECT_NE(outcomes(1), outcomes(2));
  EXPECT_NE(outcomes(1).find('x'), std::string::npos);
  EXPECT_NE(outcomes(1).find('.'), std::string::npos);

  MemoryCatalog catalog;
  std::vector<CatalogDone> done;
  catalog.fail_next(1);
  submit(catalog, 1);
  submit(catalog, 2);
  catalog.poll(done);
  ASSERT_EQ(done.size(), 2U);
  EXPECT_FALSE(done[0].ok);
  EXPECT_TRUE(done[1].ok);
}

TEST(MemoryCatalog, DiscardCountsAndStoresNothing) {
  MemoryCatalogOptions options;
  options.discard = true;
  MemoryCatalog catalog(options);
  std::vector<CatalogDone> done;
  submit(catalog, 1);
  CatalogBatch drop;
  drop.tag = 2;
  drop.deletes = {{1, 1}};
  ASSERT_TRUE(catalog.submit(drop));
  EXPECT_EQ(catalog.poll(done), 2U);
  EXPECT_TRUE(done[0].ok && done[1].ok);
  EXPECT_EQ(catalog.stats().rows_put, 2U);
  EXPECT_EQ(catalog.stats().rows_deleted, 1U);
  EXPECT_TRUE(catalog.rows().empty());
  EXPECT_EQ(labels(catalog), Labels{});
}

TEST(MemoryCatalog, DamagedRowsAreDroppedAndCounted) {
  MemoryCatalog catalog;
  std::vector<CatalogDone> done;
  for (ObjectNumber i = 1; i <= 3; ++i)
    submit(catalog, i);
  catalog.poll(done);
  catalog.rows().at(object_key(1, 2))[30] ^= 1;
  EXPECT_EQ(labels(catalog), (Labels{"N1", "O1/1", "O1/3"}));
  EXPECT_EQ(catalog.stats().rows_dropped, 1U);
  catalog.rows().at(namespace_key(1)).pop_back();  // and with it all that is its
  EXPECT_EQ(labels(catalog), Labels{});
  EXPECT_EQ(catalog.stats().rows_dropped, 4U);
  EXPECT_TRUE(catalog.rows().empty());
}

}  // namespace
}  // namespace statecached
