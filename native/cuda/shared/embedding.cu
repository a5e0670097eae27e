// Rows picked from a table by number.
#include "ops/embedding.h"

#include "cuda/shared/embedding.cuh"
#include "cuda/shared/kernel.cuh"
#include "cuda/shared/rows.cuh"

namespace isopolicy::cuda {

namespace {

// A group of threads copies a row in units of 16, 4 or 2 bytes. Memory-bound: each byte passes once.
template <class Unit>
__global__ void __launch_bounds__(kLargestGroup)
    embeddingKernel(const Unit* table, const int32_t* ids, Unit* out, int64_t count, int64_t rows,
                    int64_t width, int group, Check check) {
  const auto [i, lane] = rowPlace(group);
  if (i >= count) return;
  const int32_t id = ids[i];
  if (id < 0 || id >= rows) {
    if (lane == 0) report(check, i, id);
    return;
  }
  table += id * width;
  out += i * width;
#pragma unroll 2
  for (int64_t unit = lane; unit < width; unit += group) out[unit] = table[unit];
}

void embedding(const EmbeddingArgs& args, Launcher& gpu) {
  if (args.count == 0) return;
  const Check check = idCheck(gpu, args.rows, args.vocabulary);
  const auto launch = [&](auto zero) {
    using Unit = decltype(zero);
    const int64_t width = args.rowBytes / int64_t(sizeof(Unit));
    const RowGroups groups = groupsFor(args.count, width);
    gpu.launch(embeddingKernel<Unit>, Grid{groups.blocks}, groups.threads, 0,
               static_cast<const Unit*>(args.table), args.ids, static_cast<Unit*>(args.out), args.count,
               args.rows, width, groups.group, check);
  };
  const auto all = uint64_t(args.rowBytes) | reinterpret_cast<uintptr_t>(args.table) |
                   reinterpret_cast<uintptr_t>(args.out);
  if (all % 16 == 0)
    launch(uint4{});
  else if (all % 4 == 0)
    launch(uint32_t{});
  else
    launch(uint16_t{});
}

}  // namespace

void registerEmbedding(Registry& registry) { addKernel<EmbeddingArgs>(registry, Family::shared, embedding); }

}  // namespace isopolicy::cuda
