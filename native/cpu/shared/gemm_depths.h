// How a product's k is cut: chunks of splitK, and each of them in blocks of steps. Included once a pass,
// inside it, after gemm_pack.h: no guard.

namespace isopolicy::ISA_PASS {

struct Depths {
  int64_t k, chunk, blockLength, blocksAChunk, blocks, stepsAChunk, steps;
  int stepLength;

  Depths(int64_t k, int64_t splitK, int64_t blockLength, int stepLength)
      : k(k), blockLength(blockLength), stepLength(stepLength) {
    chunk = splitK > 0 && splitK < k ? splitK : k;
    const int64_t chunks = chunk > 0 ? quotientUp(k, chunk) : 1;
    const int64_t rest = k - (chunks - 1) * chunk;  // length of the last chunk
    blocksAChunk = chunk > 0 ? quotientUp(chunk, blockLength) : 1;
    stepsAChunk = quotientUp(chunk, stepLength);
    blocks = (chunks - 1) * blocksAChunk + (rest > 0 ? quotientUp(rest, blockLength) : 1);
    steps = (chunks - 1) * stepsAChunk + quotientUp(rest, stepLength);
  }

  struct Block {
    int64_t begin, length;     // of k
    int64_t firstStep, steps;  // counted over all blocks
    int64_t chunk;
    bool chunkBegins, chunkEnds, last;
  };
  Block block(int64_t index) const {
    Block b;
    b.chunk = index / blocksAChunk;
    const int64_t within = index % blocksAChunk;
    const int64_t end = lesser((b.chunk + 1) * chunk, k);
    b.begin = b.chunk * chunk + within * blockLength;
    b.length = lesser(blockLength, end - b.begin);
    b.firstStep = b.chunk * stepsAChunk + within * blockLength / stepLength;
    b.steps = quotientUp(b.length, stepLength);
    b.chunkBegins = within == 0;
    b.chunkEnds = b.begin + b.length == end;
    b.last = index == blocks - 1;
    return b;
  }
};

}  // namespace isopolicy::ISA_PASS
