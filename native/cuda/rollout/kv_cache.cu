// The write into the paged cache: bits are moved, nothing is computed.
#include "cuda/rollout/paged_cache.cuh"
#include "cuda/shared/row_load.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kThreads = 256;

struct Rows {
  int64_t count;  // units of keys of all tokens
  int unitsPerRow, numHeads, numKvHeads;
};

// One unit of a key and of its value a thread; a warp moves whole rows. Memory-bound, and small beside what
// attention reads.
template <class Unit>
__global__ void __launch_bounds__(kThreads)
    writeKvCacheKernel(const Unit* qkv, Unit* keys, Unit* values, Rows rows, PagedPlaces places) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows.count) return;
  const int perToken = rows.numKvHeads * rows.unitsPerRow;
  const int64_t token = i / perToken;
  const int unit = int(i % perToken);
  int32_t slot, position;
  if (!places.place(token, slot, position)) return;
  const int32_t page = places.pageOf(slot, position);
  if (page < 0) return;
  const int head = unit / rows.unitsPerRow;
  const int64_t row = (int64_t(page) * rows.numKvHeads + head) * kPageSize + position % kPageSize;
  const int64_t to = row * rows.unitsPerRow + unit % rows.unitsPerRow;
  const int64_t from = token * (rows.numHeads + 2 * rows.numKvHeads) * rows.unitsPerRow +
                       rows.numHeads * rows.unitsPerRow + unit;
  keys[to] = qkv[from];
  values[to] = qkv[from + perToken];
}

void writeKvCache(const WriteKvCacheArgs& args, Launcher& gpu) {
  const AttentionShape& shape = args.shape;
  if (shape.tokens == 0) return;
  const int rowBytes = shape.headDim * int(bytesOf(shape.dtype));
  const auto places = pagedPlaces(args.cache, args.slots, args.positions, gpu);
  const auto write = [&](auto unit) {
    using Unit = decltype(unit);
    const int unitsPerRow = rowBytes / int(sizeof(Unit));
    const Rows rows{shape.tokens * shape.numKvHeads * unitsPerRow, unitsPerRow, shape.numHeads,
                    shape.numKvHeads};
    gpu.launch(writeKvCacheKernel<Unit>, Grid{ceilDiv(rows.count, kThreads)}, kThreads, 0,
               static_cast<const Unit*>(args.qkv), static_cast<Unit*>(args.cache.keys),
               static_cast<Unit*>(args.cache.values), rows, places);
  };
  if (rowBytes % int(sizeof(uint4)) == 0 && isAligned16(args.qkv) && isAligned16(args.cache.keys) &&
      isAligned16(args.cache.values))
    write(uint4{});
  else if (bytesOf(shape.dtype) == 2)
    write(uint16_t{});
  else
    write(uint32_t{});
}

}  // namespace

void registerRolloutKvCache(Registry& registry) {
  addKernel<WriteKvCacheArgs>(registry, Family::rollout, writeKvCache);
}

}  // namespace isopolicy::cuda
