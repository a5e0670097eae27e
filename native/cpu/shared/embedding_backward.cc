// Gradients of rows picked from a table: rows that were picked several times add up in the order of the list,
// at any thread count.
#include "cpu/shared/kernel.h"
#include "ops/embedding.h"
#define ISA_KERNELS "cpu/shared/embedding_backward.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

template <class T>
static void addRow(float* sum, const T* row, int64_t begin, int64_t end) {
  eachVector(end - begin, [&](int64_t i, auto lanes) {
    const int64_t c = begin + i;
    lanes.put(sum + c, lanes.get(sum + c) + lanes.get(row + c));
  });
}

// A thread takes columns and walks the whole list: balanced however often an id occurs.
void embeddingBackward(const EmbeddingBackwardArgs& args, Workers& workers) {
  checkIds(args.ids, args.count, args.rows, true);
  constexpr int64_t kColumns = 64;
  const int64_t blocks = (args.width + kColumns - 1) / kColumns;
  const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, args.count * kColumns));
  dispatchFloat(args.dtype, [&](auto type) {
    const auto* dOut = static_cast<const decltype(type)*>(args.dOut);
    workers.parallelFor(blocks, grain, [&](int64_t begin, int64_t end) {
      const int64_t last = std::min(end * kColumns, args.width);
      for (int64_t i = 0; i < args.count; i++)
        addRow(args.grad + args.ids[i] * args.width, dOut + i * args.width, begin * kColumns, last);
    });
  });
}

// One row of the result: dOut's rows order[0..n), summed in fp32 and rounded once.
template <class T>
static void sumRows(const T* dOut, const int32_t* order, int64_t n, T* out, int64_t width) {
  for (int64_t c = 0; c < width; c += kLanes) {
    const int lanes = int(std::min<int64_t>(kLanes, width - c));
    Vec sum = n > 0 ? loadPartial(dOut + order[0] * width + c, lanes) : zero();
    for (int64_t i = 1; i < n; i++) sum = sum + loadPartial(dOut + order[i] * width + c, lanes);
    storePartial(out + c, sum, lanes);
  }
}

void scatterRows(const ScatterRowsArgs& args, Workers& workers) {
  checkIds(args.index, args.count, args.rows, false);
  // Positions sorted by row, stable: first[r] .. first[r + 1] are those of row r.
  Scratch scratch;
  int32_t* first = scratch.get<int32_t>(args.rows + 2);
  int32_t* order = scratch.get<int32_t>(args.count);
  std::fill(first, first + args.rows + 2, 0);
  for (int64_t i = 0; i < args.count; i++) first[args.index[i] + 2]++;
  for (int64_t r = 2; r < args.rows + 2; r++) first[r] += first[r - 1];
  for (int64_t i = 0; i < args.count; i++) order[first[args.index[i] + 1]++] = int32_t(i);
  const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, args.width));
  dispatchFloat(args.dtype, [&](auto type) {
    const auto* dOut = static_cast<const decltype(type)*>(args.dOut);
    auto* out = static_cast<decltype(type)*>(args.out);
    workers.parallelFor(args.rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++)
        sumRows(dOut, order + first[r], first[r + 1] - first[r], out + r * args.width, args.width);
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerEmbeddingBackward(Registry& registry) {
  registry.add<EmbeddingBackwardArgs>(Family::shared, ISA_VARIANTS(embeddingBackward));
  registry.add<ScatterRowsArgs>(Family::shared, ISA_VARIANTS(scatterRows));
}
}  // namespace isopolicy

#endif
