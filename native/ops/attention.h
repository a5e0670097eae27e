// Causal, grouped-query attention over packed tokens (training) and over a paged cache (rollout).
//
// qkv is [tokens, numHeads + 2 numKvHeads, headDim]: the query heads, the key heads, the value heads.
// Query head h reads key and value head h / (numHeads / numKvHeads).
#pragma once
#include "core/dtype.h"

namespace isopolicy {

inline constexpr int kPageSize = 16;

struct AttentionShape {
  int64_t tokens;
  int numHeads, numKvHeads, headDim;
  DType dtype;
  int group() const { return numHeads / numKvHeads; }
  int heads() const { return numHeads + 2 * numKvHeads; }
};

// Of sequence s, the tokens cuSeqlens[s] .. cuSeqlens[s + 1] - 1.
struct AttentionArgs {
  AttentionShape shape;
  const void* qkv;
  const int32_t* cuSeqlens;
  void* out;   // [tokens, numHeads, headDim]
  float* lse;  // [numHeads, tokens]
  int64_t sequences;
  float scale;
  int chunk, tile;
};

struct AttentionBackwardArgs {
  AttentionShape shape;
  const void* dOut;
  const void* qkv;
  const void* out;
  const float* lse;
  const int32_t* cuSeqlens;
  void* dqkv;
  int64_t sequences;
  float scale;
};

// Keys of a page lie transposed, so that 16 of them load as one vector. In bf16, two neighbours along the sum
// that a product takes lie side by side, as the processor multiplies them: keys [headDim / 2, kPageSize, 2],
// values [kPageSize / 2, headDim, 2]. On a GPU both lie by rows: [kPageSize, headDim].
struct KvCache {
  void* keys;                 // [pages, numKvHeads, headDim, kPageSize]
  void* values;               // [pages, numKvHeads, kPageSize, headDim]
  const int32_t* blockTable;  // [slots, pagesPerSlot]: page of each 16 positions
  int64_t pages, slots, pagesPerSlot;
};

// Token i is at positions[i] of slots[i]; a slot below 0 marks an unused row.
struct WriteKvCacheArgs {
  AttentionShape shape;
  const void* qkv;
  KvCache cache;
  const int32_t* slots;
  const int32_t* positions;
};

struct PagedAttentionArgs {
  AttentionShape shape;
  const void* qkv;
  KvCache cache;
  const int32_t* slots;
  const int32_t* positions;
  void* out;  // [tokens, numHeads, headDim]
  float scale;
  int chunk, tile;
};

class OpCall;
void attentionOp(OpCall& call);
void attentionBackwardOp(OpCall& call);
void writeKvCacheOp(OpCall& call);
void pagedAttentionOp(OpCall& call);

}  // namespace isopolicy
