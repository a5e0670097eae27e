// Every rounding and reduction choice in which a rollout engine and a training engine differ, by name.
//
// Kernels take these as arguments and honour them alike on CPU and CUDA; lib/numerics.ts reads this table
// through the binding, so names, presets and meanings are written down once, here. `matched` gives both
// engines the same choices: the log-probs of both are then equal to the bit.
#pragma once
#include <cstdint>

namespace isopolicy {

enum class Family : uint8_t { shared = 0, rollout = 1, training = 2 };

struct Knob {
  const char* name;
  const char* meaning;
  int rollout;   // the habits of a serving engine
  int training;  // the habits of a training framework
  int matched;   // one choice for both
};

inline constexpr Knob kKnobs[] = {
    {"gemmFamily",
     "kernel family of the matrix products: 1 rollout (two chains, of even and of odd steps of K), 2 "
     "training (one chain)",
     1, 2, 2},
    {"gemmSplitK", "length of K that is summed before partials are added in order; 0: no split", 512, 0, 0},
    {"mergedProjections", "1: one product for Q, K and V and one for gate and up; 0: a product each", 1, 0,
     0},
    {"residualFused",
     "1: residual added inside the norm, which reads the fp32 sum; 0: a separate op, the norm reads the "
     "rounded sum",
     1, 0, 0},
    {"rmsNormRoundings", "1: one rounding at the end; 2: the normalised value is rounded before the weight",
     1, 2, 1},
    {"ropeTable16", "1: cos and sin are rounded to 16 bits; 0: fp32", 0, 1, 0},
    {"ropeRoundings", "1: one rounding at the end; 3: both products and their sum", 1, 3, 1},
    {"swigluRoundings", "1: one rounding at the end; 2: silu is rounded before the product", 1, 2, 1},
    {"combineRoundings",
     "of a mixture of experts: 1: one rounding, of a token's weighted sum; 3: weights, products and each sum",
     1, 3, 1},
    {"loraScaleFirst",
     "1: the inner product of an adapter, A x, is scaled in fp32 and rounded once; 0: it is rounded, and the "
     "scale is a product of its own behind B",
     1, 0, 0},
    {"attentionChunk", "keys a chunk whose partial result is combined in order; 0: one pass", 256, 0, 256},
    {"attentionTile",
     "keys a step of the online softmax, whose running max the probabilities are rounded against", 32, 128,
     64},
    {"logits16", "1: logits are rounded to 16 bits; 0: fp32 from the accumulator", 1, 0, 0},
    {"logSoftmaxChunk", "vocabulary entries a step of the log-sum-exp; 0: the whole row at once", 0, 4096,
     4096},
    {"weightsSnapshot", "1: a 16-bit snapshot of the weights; 0: the fp32 masters cast before each pass", 1,
     0, 1},
};

}  // namespace isopolicy
