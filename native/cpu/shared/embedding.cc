// Rows picked from a table by number. Copies of whole rows: the same code at every vector level.
#include "ops/embedding.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/registry.h"
#include "core/workers.h"

namespace isopolicy {

// On one thread, before any row is touched: the first bad id in the list is the one reported.
void checkIds(const int32_t* ids, int64_t count, int64_t rows, bool vocabulary) {
  uint32_t largest = 0;  // a negative id counts as very large
  for (int64_t i = 0; i < count; i++) largest = std::max(largest, uint32_t(ids[i]));
  if (largest < uint64_t(rows)) return;
  for (int64_t i = 0; i < count; i++) {
    if (ids[i] >= 0 && ids[i] < rows) continue;
    throw DeviceError(
        std::string(vocabulary ? "id " : "index ") + std::to_string(ids[i]) + " at position " +
        std::to_string(i) + " is outside the " +
        (vocabulary ? "vocabulary of " + std::to_string(rows) : std::to_string(rows) + " rows"));
  }
}

namespace {

void embedding(const EmbeddingArgs& args, Workers& workers) {
  checkIds(args.ids, args.count, args.rows, args.vocabulary);
  if (args.rowBytes == 0) return;
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / args.rowBytes);
  workers.parallelFor(args.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      std::memcpy(static_cast<char*>(args.out) + i * args.rowBytes,
                  static_cast<const char*>(args.table) + args.ids[i] * args.rowBytes, size_t(args.rowBytes));
    }
  });
}

}  // namespace

void registerEmbedding(Registry& registry) {
  registry.add<EmbeddingArgs>(Family::shared, {embedding, embedding, embedding, embedding, embedding});
}

}  // namespace isopolicy
