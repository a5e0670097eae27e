// Philox4x32-10, the counter-based generator of Salmon et al. (SC 2011): a pure function of key and counter,
// so a draw is named by (seed, prompt, sample, position) and does not depend on the order in which draws
// happen.
#pragma once
#include <cstdint>

// nvcc compiles it for the GPU, too.
#if defined(__CUDACC__)
#define ISOPOLICY_BOTH __host__ __device__
#else
#define ISOPOLICY_BOTH
#endif

namespace isopolicy {

struct Philox {
  uint32_t word[4];
};

// Counter words c, key words k.
ISOPOLICY_BOTH inline Philox philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0,
                                    uint32_t k1) {
  Philox c = {{c0, c1, c2, c3}};
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * c.word[0];
    const uint64_t b = uint64_t(0xCD9E8D57u) * c.word[2];
    c = {{uint32_t(b >> 32) ^ c.word[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c.word[3] ^ k1, uint32_t(a)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// Uniform in [0, 1) with 53 bits.
ISOPOLICY_BOTH inline double uniform53(uint32_t high, uint32_t low) {
  return double((uint64_t(high) << 21) ^ (uint64_t(low) >> 11)) * (1.0 / 9007199254740992.0);
}

}  // namespace isopolicy
